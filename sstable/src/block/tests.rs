use base::InternalKey;

use super::*;
use crate::testing::{Random, key_of, put, seq, sorted};

fn block_of(entries: &[base::cursor::VecEntry]) -> Vec<u8> {
    let mut builder = Builder::default();
    for entry in entries {
        let is_empty = builder.is_empty();
        let fits = |bytes_max| {
            builder
                .fit(&key_of(entry), entry.3.len(), bytes_max)
                .is_some()
        };
        let (anything, nothing) = (fits(usize::MAX), fits(0));
        assert!(anything);
        assert_eq!(nothing, is_empty);
        let [exactly, closely] = {
            let mut with = builder.clone();
            with.add(&key_of(entry), &entry.3);
            let bytes = with.layout().bytes;
            [fits(bytes), fits(bytes - 1)]
        };
        assert!(exactly);
        assert_eq!(closely, is_empty);
        builder.add(&key_of(entry), &entry.3);
        assert_eq!(builder.last_user_key(), entry.0);
    }
    let bytes = builder.layout().bytes;
    let mut out = b"before".to_vec();
    builder.finish(&mut out);
    assert!(builder.is_empty());
    assert_eq!(out.len() - 6, bytes);
    let shape = Shape::of(&out[6..]).expect("our own");
    assert!(shape.is_filled(&out[6..]));
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
            let aim = shape.aim(&bytes, &key);
            assert_eq!(shape.settle(&bytes, &aim, at), Ok(lower), "seed={seed}");
            let want = entries.get(lower).filter(|entry| entry.0 == key);
            let spotted = match shape.spot(&bytes, &key) {
                Some(spot) => shape.find_at(&bytes, &spot, at).expect("our own"),
                None => None,
            };
            assert_eq!(
                spotted.map(|e| (e.seq, e.value)),
                want.map(|e| (e.1, &e.3[..]))
            );
            let got = shape.find(&bytes, &key, at).expect("our own");
            assert_eq!(got.map(|e| (e.seq, e.value)), want.map(|e| (e.1, &e.3[..])));
        }
    }
}

/// Whatever the windows of the first step begin and end with, several versions of one key included.
#[test]
fn a_search_in_two_steps_ends_where_one_step_does() {
    for count in [1, 31, 32, 33, 63, 64, 65, 100, 320, 333_u32] {
        for versions in [1, 3, 5, 40] {
            for key_bytes in [3, 4, 8, 12] {
                let key = |n: u32| format!("{:0key_bytes$}", 2 * (n / versions) + 1);
                let entries: Vec<_> = (0..count)
                    .map(|n| put(key(n), u64::from(100 - n % versions), vec![7; 3]))
                    .collect();
                let bytes = block_of(&entries);
                let shape = Shape::of(&bytes).expect("our own");
                for number in 0..=2 * (count / versions) + 2 {
                    let sought = format!("{number:0key_bytes$}");
                    for at in [0, 60, 97, 100, 101].map(seq) {
                        let sought = sought.as_bytes();
                        let aim = shape.aim(&bytes, sought);
                        assert_eq!(
                            shape.settle(&bytes, &aim, at),
                            shape.lower_bound(&bytes, sought, at),
                            "{count} {versions} {key_bytes} {number} {at:?}"
                        );
                    }
                }
            }
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
        put("key-longer-than-a-head", 3, "w"),
        crate::testing::delete("keys", 300),
    ];
    let mut want = Vec::new();
    want.extend_from_slice(b"\x03\0\0\0\x03\0\0\0"); // three entries, prefix of three, shortest 0
    want.extend_from_slice(b"\0\x03\0\0\0\0\0\0"); // kinds differ, smallest sequence 3
    want.extend_from_slice(b"\0\0\0\0\x03\x01\x01\x02"); // no stride, widths 8, 1, 1, 2
    want.extend_from_slice(&[0; 8]); // nothing is left of "key"
    want.extend_from_slice(&u64::from_be_bytes(*b"-longer-").to_le_bytes());
    want.extend_from_slice(&u64::from_be_bytes(*b"s\0\0\0\0\0\0\0").to_le_bytes());
    want.extend_from_slice(&[0, 1, 13, 13]); // offsets
    want.extend_from_slice(&[0, 19, 1]); // lengths of suffixes
    want.extend_from_slice(&[2 << 3 | 2, 0, 2, 0, 0x49, 0x09]); // 297 << 3 | 1
    want.extend_from_slice(b"key");
    want.extend_from_slice(b"vthan-a-headw");
    assert_eq!(
        block_of(&entries).escape_ascii().to_string(),
        want.escape_ascii().to_string()
    );
}

#[test]
fn entries_that_are_alike_store_next_to_nothing() {
    let entries = [
        put("key10", 7, "a"),
        put("key11", 9, "b"),
        put("key19", 8, "c"),
    ];
    let mut want = Vec::new();
    want.extend_from_slice(b"\x03\0\0\0\x04\0\x01\0"); // three entries, prefix of 4, suffix of 1
    want.extend_from_slice(b"\x02\x07\0\0\0\0\0\0"); // all puts, smallest sequence 7
    want.extend_from_slice(b"\x01\0\0\0\0\0\0\x01"); // stride 1, widths 1, 0, 0, 1
    want.extend_from_slice(b"019"); // heads
    want.extend_from_slice(&[0, 2, 1]); // sequences
    want.extend_from_slice(b"key1abc");
    assert_eq!(
        block_of(&entries).escape_ascii().to_string(),
        want.escape_ascii().to_string()
    );
    let zeroed = entries.map(|entry| put(entry.0, 0, entry.3));
    assert_eq!(block_of(&zeroed).len(), want.len() - 3);
}

#[test]
fn numbers_of_every_width_are_found_again() {
    for exponent in 0..56 {
        for kinds_differ in [false, true] {
            let seqs = [
                0,
                1 << exponent,
                (1 << exponent) - 1,
                (1 << 56) - 1 - (1 << exponent),
            ];
            let mut entries: Vec<_> = (0..8u8)
                .zip(seqs.iter().cycle())
                .map(|(n, seq)| put([b'k', n], *seq >> (exponent % 3), [n; 3]))
                .collect();
            if kinds_differ {
                entries.push(crate::testing::delete("l", (1 << 56) - 1));
            }
            let bytes = block_of(&entries);
            let shape = Shape::of(&bytes).expect("our own");
            for (index, entry) in entries.iter().enumerate() {
                let found = shape.entry(&bytes, index).expect("our own");
                let found = (found.seq, found.kind, found.value);
                assert_eq!(
                    found,
                    (entry.1, entry.2, &entry.3[..]),
                    "{exponent} {index}"
                );
            }
        }
    }
}

#[test]
fn suffixes_of_every_length_are_found_again() {
    for longest in 0..20usize {
        for shortest in 0..=longest {
            let lens = [shortest, longest, usize::midpoint(shortest, longest)];
            let keys = (1..40u8).zip(lens.iter().cycle()).map(|(n, len)| {
                let mut key = b"prefix".to_vec();
                key.extend(std::iter::repeat_n(n, *len));
                key
            });
            let entries = sorted(keys.map(|key| put(key, 1, "value")).collect());
            let bytes = block_of(&entries);
            let shape = Shape::of(&bytes).expect("our own");
            assert_eq!(shape.count(), entries.len());
            for (index, entry) in entries.iter().enumerate() {
                assert_eq!(key_at(&shape, &bytes, index).0, entry.0);
                let found = shape.find(&bytes, &entry.0, seq(1)).expect("our own");
                assert_eq!(found.expect("there").value, b"value");
                let mut absent = entry.0.clone();
                absent.push(0);
                assert!(
                    shape
                        .find(&bytes, &absent, seq(1))
                        .expect("our own")
                        .is_none()
                );
            }
        }
    }
}

#[test]
fn headers_that_claim_too_much_are_refused() {
    let bytes = block_of(&[put("key", 5, "v"), put("keys", 6, "w")]);
    assert!(Shape::of(&bytes).is_ok());
    for (at, value) in [
        (0, 0),    // no entry
        (3, 0xff), // four billion
        (4, 0xff), // a prefix beyond the block
        (16, 2),   // a stride beyond it
        (19, 0xff),
        (20, 4), // widths
        (20, 0xff),
        (21, 5),
        (22, 3),
        (23, 9),
        (23, 0x80),
    ] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert!(Shape::of(&changed).is_err(), "{at}={value}");
    }
    for len in 0..HEADER_BYTES {
        assert!(Shape::of(&bytes[..len]).is_err(), "{len}");
    }
    assert!(Shape::of(&bytes[..bytes.len() - 1]).is_err());
    let mut longer = bytes.clone();
    longer.push(0);
    let shape = Shape::of(&longer).expect("a search does not mind");
    assert!(!shape.is_filled(&longer));
}

#[test]
fn a_key_is_never_longer_than_a_key_can_be() {
    let mut bytes = block_of(&[put(vec![b'k'; KEY_BYTES_MAX], 5, "v")]);
    let shape = Shape::of(&bytes).expect("our own");
    assert_eq!(key_at(&shape, &bytes, 0).0.len(), KEY_BYTES_MAX);
    // A head of a byte has room for one more.
    bytes[6] = 1;
    let shape = Shape::of(&bytes).expect("the header fits");
    assert!(shape.entry(&bytes, 0).is_err());
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
            let aim = shape.aim(bytes, key);
            let at = shape.settle(bytes, &aim, seq(number)).unwrap_or(0);
            shape.prefetch_span(bytes, at);
            if let Some(spot) = shape.spot(bytes, key) {
                let _ = shape.find_at(bytes, &spot, seq(number));
            }
        }
    }
}

#[test]
fn no_bytes_make_a_block_panic() {
    let even: Vec<_> = (0..20)
        .map(|n| put(format!("key{n:02}"), n % 3, "value"))
        .collect();
    let uneven: Vec<_> = (0..20u32)
        .map(|n| {
            let width = n as usize * 2;
            let key = format!("key{n:02}{n:0>width$}");
            match n % 5 {
                0 => crate::testing::delete(key, u64::from(n) * 1_000),
                _ => put(key, u64::from(n), vec![7; width]),
            }
        })
        .collect();
    for entries in [even, uneven] {
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
        // Every width beside every other, under any header.
        for widths in 0..4 * 5 * 3 * 9 {
            let mut changed = bytes.clone();
            let of = |below: u32, values: u32| (widths / below % values).to_le_bytes()[0];
            changed[20..24].copy_from_slice(&[of(1, 4), of(4, 5), of(20, 3), of(60, 9)]);
            exercise(&changed);
            changed[16..20].fill(0);
            changed[0] = 3;
            exercise(&changed);
        }
        for seed in 0..5_000 {
            let mut random = Random(seed);
            let mut changed = bytes.clone();
            for _ in 0..=random.index(6) {
                let at = if random.index(2) == 0 {
                    random.index(HEADER_BYTES)
                } else {
                    random.index(changed.len())
                };
                changed[at] = random.next_u64().to_le_bytes()[0];
            }
            exercise(&changed);
        }
    }
    exercise(&[0xff; 64]);
}
