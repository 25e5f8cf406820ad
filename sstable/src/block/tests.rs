use base::InternalKey;

use super::*;
use crate::testing::{Random, key_of, put, seq, sorted};

fn block_of(entries: &[base::cursor::VecEntry]) -> Vec<u8> {
    let mut builder = Builder::default();
    for entry in entries {
        let estimate = builder.fit(&key_of(entry), entry.3.len()).block_bytes;
        builder.add(&key_of(entry), &entry.3);
        assert_eq!(estimate, builder.bytes_estimate());
        assert_eq!(builder.last_user_key(), entry.0);
    }
    let estimate = builder.bytes_estimate();
    let mut out = b"before".to_vec();
    builder.finish(&mut out);
    assert!(builder.is_empty());
    let len = out.len() - 6;
    // What short suffixes leave unused, and wide offsets, is all it errs by.
    assert!(
        len.abs_diff(estimate) <= 10 * entries.len(),
        "{len} {estimate}"
    );
    out.split_off(6)
}

fn key_at(shape: &Shape, bytes: &[u8], index: usize) -> (Vec<u8>, u64) {
    let entry = shape.entry(bytes, index).expect("our own");
    assert!(entry.is_canonical());
    let mut key = shape.prefix(bytes).to_vec();
    let len = assemble(&mut key, shape.prefix_len(), &entry);
    key.truncate(len);
    (key, entry.seq.get())
}

/// Keys of few letters, so that prefixes, equal heads and zeros at the end are common.
fn random_key(random: &mut Random) -> Vec<u8> {
    let letters = [0, 0, b'a', b'b', 0xff];
    let len = random.index(14);
    let mut key = if random.index(3) == 0 {
        b"shared/".to_vec()
    } else {
        Vec::new()
    };
    key.extend((0..len).map(|_| letters[random.index(letters.len())]));
    key
}

#[test]
fn a_block_finds_what_a_sorted_list_finds() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let prefix = random_key(&mut random);
        let count = 1 + random.index(60);
        let entries = sorted(
            (0..count)
                .map(|_| {
                    let mut key = prefix.clone();
                    key.extend(random_key(&mut random));
                    let len = random.index(200);
                    put(key, random.index(4) as u64, vec![7; len])
                })
                .collect(),
        );
        let bytes = block_of(&entries);
        let shape = Shape::of(&bytes).expect("our own");
        assert_eq!(shape.count(), entries.len(), "seed={seed}");
        for (index, entry) in entries.iter().enumerate() {
            let (key, number) = key_at(&shape, &bytes, index);
            assert_eq!(
                (key, seq(number)),
                (entry.0.clone(), entry.1),
                "seed={seed}"
            );
            let found = shape.entry(&bytes, index).expect("our own");
            assert_eq!(found.value, entry.3);
            assert_eq!(&bytes[found.value_at..][..found.value.len()], found.value);
        }
        for probe in 0..200 {
            let mut key = if random.index(4) == 0 {
                Vec::new()
            } else {
                prefix.clone()
            };
            key.extend(random_key(&mut random));
            key.truncate(random.index(20));
            if probe < entries.len() {
                key.clone_from(&entries[probe].0);
            }
            let at = seq(random.index(5) as u64);
            let target = InternalKey::seek_to(&key, at);
            let lower = entries.partition_point(|entry| key_of(entry) < target);
            let upper = entries.partition_point(|entry| key_of(entry) <= target);
            assert_eq!(
                shape.lower_bound(&bytes, &key, at),
                Ok(lower),
                "seed={seed}"
            );
            assert_eq!(
                shape.upper_bound(&bytes, &key, at),
                Ok(upper),
                "seed={seed}"
            );
            let want = entries.get(lower).filter(|entry| entry.0 == key);
            let got = shape.find(&bytes, &key, at).expect("our own");
            assert_eq!(got.map(|e| (e.seq, e.value)), want.map(|e| (e.1, &e.3[..])));
        }
    }
}

#[test]
fn offsets_widen_where_they_must() {
    for len in [65_000, 65_500, 65_535, 65_536, 70_000, 200_000] {
        let entries = [put("a", 1, vec![1; len]), put("b", 2, "second")];
        let bytes = block_of(&entries);
        let shape = Shape::of(&bytes).expect("our own");
        assert_eq!(shape.entry(&bytes, 0).expect("our own").value.len(), len);
        assert_eq!(shape.entry(&bytes, 1).expect("our own").value, b"second");
    }
}

#[test]
fn the_bytes_of_a_block_are_pinned() {
    let entries = [
        put("key", 5, "v"),
        put("key-longer-than-a-head", 0, "w"),
        crate::testing::delete("keys", 300),
    ];
    let bytes = block_of(&entries);
    let mut want = Vec::new();
    want.extend_from_slice(b"\x03\0\0\0\x03\0\0\0"); // three entries, prefix of three, narrow
    want.extend_from_slice(&[0; 8]); // nothing is left of "key"
    want.extend_from_slice(&u64::from_be_bytes(*b"-longer-").to_le_bytes());
    want.extend_from_slice(&u64::from_be_bytes(*b"s\0\0\0\0\0\0\0").to_le_bytes());
    want.extend_from_slice(b"\x29\0\x34\0\x43\0"); // offsets 41, 52, 67
    want.extend_from_slice(b"key");
    want.extend_from_slice(b"\x02\x05\0\0\0\0\0\0\0\x01v");
    want.extend_from_slice(b"\x82\x13\x01than-a-headw");
    want.extend_from_slice(b"\x01\x2c\x01\0\0\0\0\0\x01\0");
    assert_eq!(
        bytes.escape_ascii().to_string(),
        want.escape_ascii().to_string()
    );
}

/// Everything a reader does with a block; only that it returns is of interest.
fn exercise(bytes: &[u8]) {
    let Ok(shape) = Shape::of(bytes) else {
        return;
    };
    let mut key = shape.prefix(bytes).to_vec();
    for index in 0..shape.count().min(100) {
        if let Ok(entry) = shape.entry(bytes, index) {
            let len = assemble(&mut key, shape.prefix_len(), &entry);
            assert!(len <= KEY_BYTES_MAX && len <= key.len());
            assert!(entry.value_at + entry.value.len() <= bytes.len());
        }
    }
    for key in [
        &b""[..],
        b"k",
        b"key",
        b"keyy",
        b"key-longer-than-a-head",
        b"zz",
    ] {
        for number in [0, 1, 300, u64::MAX >> 8] {
            // A damaged block may give any answer, but it gives one.
            let _ = shape.lower_bound(bytes, key, seq(number));
            let _ = shape.upper_bound(bytes, key, seq(number));
            let _ = shape.find(bytes, key, seq(number));
        }
    }
}

#[test]
fn no_bytes_make_a_block_panic() {
    let entries: Vec<_> = (0..20)
        .map(|n| put(format!("key{n:02}"), n % 3, "value"))
        .collect();
    let bytes = block_of(&entries);
    for len in 0..bytes.len() {
        exercise(&bytes[..len]);
    }
    for at in 0..bytes.len() {
        for flip in [1, 2, 0x40, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            exercise(&changed);
        }
    }
    for seed in 0..5_000 {
        let mut random = Random(seed);
        let mut changed = bytes.clone();
        for _ in 0..=random.index(6) {
            let at = if random.index(2) == 0 {
                random.index(16)
            } else {
                random.index(changed.len())
            };
            changed[at] = random.next_u64().to_le_bytes()[0];
        }
        exercise(&changed);
    }
    let mut most = vec![0xff; 64];
    most[7] = 0;
    exercise(&most);
}
