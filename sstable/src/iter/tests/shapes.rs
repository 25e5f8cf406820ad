//! Tables whose blocks have every shape that the columns know, beside a sorted list.

use super::*;
use crate::testing::key_of;

/// Lengths at which a width, a head or a limit changes.
const LENS: [usize; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 255, 256, 65_535, 65_536];
const ALPHABETS: [&[u8]; 5] = [b"\0", b"\0a", b"ab", b"\0\x01\xfe\xff", b"abcdefgh"];
const SEQ_MAX: u64 = (1 << 56) - 1;
const KEY_BYTES_MAX: usize = base::key::KEY_BYTES_MAX;

/// A length of which there are not too many long ones.
fn any_len(random: &mut Random, budget: &mut usize) -> usize {
    let len = *random.pick(&LENS);
    let len = len.saturating_add(random.index(3)).saturating_sub(1);
    let len = if len > *budget { random.index(9) } else { len };
    *budget -= len.min(*budget);
    len
}

fn any_seq(random: &mut Random) -> u64 {
    let near = random.below(4);
    match random.index(6) {
        0 => near,
        1 => SEQ_MAX - near,
        2 => (1 << random.below(56)) + near,
        3 => (1u64 << random.below(57)).saturating_sub(1 + near),
        4 => random.next_u64() >> 8,
        _ => 1_000 + near,
    }
    .min(SEQ_MAX)
}

/// Entries of one of many shapes: what they have in common differs from run to run.
fn any_entries(random: &mut Random) -> Vec<VecEntry> {
    let count = 1 + match random.index(4) {
        0 => random.index(3),
        1 => random.index(700),
        _ => random.index(60),
    };
    let mut budget = 400_000usize;
    let letters = *random.pick(&ALPHABETS);
    let bytes = |random: &mut Random, len: usize| -> Vec<u8> {
        (0..len).map(|_| *random.pick(letters)).collect()
    };
    let prefix_len = any_len(random, &mut budget).min(KEY_BYTES_MAX);
    let prefix = bytes(random, prefix_len);
    let count = count.min(1 + 4_000_000 / (prefix.len() + 1));
    let even_suffix = random.coin().then(|| random.index(18));
    let even_value = random
        .coin()
        .then(|| any_len(random, &mut budget).min(70_000));
    let one_seq = random.coin().then(|| any_seq(random));
    let deletes_percent = *random.pick(&[0, 0, 10, 100]);
    let mut values = 3_000_000usize;
    let entries = (0..count).map(|_| {
        let mut key = if random.one_in(40) {
            Vec::new()
        } else {
            prefix.clone()
        };
        let len = match even_suffix {
            Some(len) if !random.one_in(200) => len,
            _ if random.one_in(30) => any_len(random, &mut budget),
            _ => random.index(14),
        };
        key.extend(bytes(random, len));
        key.truncate(KEY_BYTES_MAX);
        let number = one_seq.unwrap_or_else(|| any_seq(random));
        if random.chance(deletes_percent) {
            return delete(key, number);
        }
        let len = even_value
            .unwrap_or_else(|| any_len(random, &mut values))
            .min(values);
        values -= len;
        put(key, number, vec![random.next_u64().to_le_bytes()[0]; len])
    });
    sorted(entries.collect())
}

fn any_options(random: &mut Random) -> TableOptions {
    TableOptions {
        block_bytes_target: *random.pick(&[64, 100, 4_096, 16_384, 300_000, 4 << 20]),
        compression: match random.index(3) {
            0 => Compression::Zstd { level: 1 },
            _ => Compression::None,
        },
        dictionary_bytes_max: *random.pick(&[0, 256, 4_096]),
        ..table_options(random)
    }
}

/// A place at, before or behind one of the entries.
fn near<'a>(random: &mut Random, entries: &[VecEntry], key: &'a mut Vec<u8>) -> InternalKey<'a> {
    let entry = random.pick(entries);
    key.clone_from(&entry.0);
    match random.index(9) {
        0 => key.push(0),
        1 => key.push(0xff),
        2 => drop(key.pop()),
        3 => key.truncate(random.index(key.len() + 1)),
        4 if !key.is_empty() => {
            let at = random.index(key.len());
            key[at] = key[at].wrapping_add(1);
        }
        _ => {}
    }
    let number = match random.index(4) {
        0 => any_seq(random),
        1 => entry.1.get().saturating_sub(1),
        2 => (entry.1.get() + 1).min(SEQ_MAX),
        _ => entry.1.get(),
    };
    InternalKey::seek_to(key, seq(number))
}

fn check_moves(cursor: &mut TableCursor, entries: &[VecEntry], random: &mut Random, note: &str) {
    let mut key = Vec::new();
    // Index of the entry it stands on.
    let mut stands: Option<usize> = None;
    for _ in 0..60 {
        let target = near(random, entries, &mut key);
        let lower = entries.partition_point(|entry| key_of(entry) < target);
        let upper = entries.partition_point(|entry| key_of(entry) <= target);
        let (got, want) = match (random.index(8), stands) {
            (0, _) => (cursor.seek_to_first(), Some(0)),
            (1, _) => (cursor.seek_to_last(), Some(entries.len() - 1)),
            (2 | 3, Some(at)) => (cursor.next(), Some(at + 1)),
            (4 | 5, Some(at)) => (cursor.prev(), at.checked_sub(1)),
            (6, _) => (cursor.seek_for_prev(target), upper.checked_sub(1)),
            _ => (cursor.seek(target), Some(lower)),
        };
        stands = want.filter(|at| *at < entries.len());
        assert_eq!(got.expect("sound"), stands.is_some(), "{note}");
        let Some(at) = stands else { continue };
        assert_eq!(cursor.key(), key_of(&entries[at]), "{note}");
        assert_eq!(cursor.key().kind, entries[at].2, "{note}");
        assert!(cursor.value() == entries[at].3, "{note}");
        let ahead = cursor.ahead_before(Some(target));
        assert!(ahead <= lower.saturating_sub(at + 1), "{note}");
    }
}

fn check_gets(reader: &Arc<TableReader>, entries: &[VecEntry], random: &mut Random, note: &str) {
    let mut key = Vec::new();
    for _ in 0..60 {
        let target = near(random, entries, &mut key);
        let at = entries.partition_point(|entry| key_of(entry) < target);
        let want = entries.get(at).filter(|entry| entry.0 == target.user_key);
        let hash = reader.hash_seed().hash(target.user_key);
        let mut probe = ReadProbe::default();
        let hit = staged(reader, target);
        let got = hit.as_ref().map(|hit| (hit.seq, hit.kind, hit.value()));
        assert!(
            got == want.map(|entry| (entry.1, entry.2, &entry.3[..])),
            "{note}"
        );
        let hit = reader.get(target.user_key, hash, target.seq, &mut probe);
        let hit = hit.expect("sound");
        let got = hit.as_ref().map(|hit| (hit.seq, hit.kind, hit.value()));
        assert!(
            got == want.map(|entry| (entry.1, entry.2, &entry.3[..])),
            "{note}"
        );
    }
}

/// Every block is within its target, or has one entry.
fn check_blocks(reader: &Arc<TableReader>, options: &TableOptions, note: &str) {
    for at in 0..reader.block_count() {
        let info = reader.block_info(at).expect("sound");
        if info.is_compressed || info.handle.len as usize <= options.block_bytes_target {
            continue;
        }
        let index = reader.index().expect("sound");
        let entry = index.entry(at).expect("sound");
        let mut buffers = Buffers::default();
        let place = reader.place(at, entry, &mut buffers, &mut ReadProbe::default());
        let place = place.expect("sound");
        let shape = data_shape(reader.place_bytes(&place, &buffers)).expect("sound");
        assert_eq!(shape.count(), 1, "{note}");
    }
}

#[test]
fn blocks_of_any_shape_are_read_as_they_were_written() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let entries = any_entries(&mut random);
        let options = any_options(&mut random);
        let (bytes, _) = table(&entries, &options);
        let all = reader_options();
        let reading = random.pick(&all);
        let note = format!("seed={seed} {options:?} {reading:?}");
        let reader = open(&bytes, reading).expect("sound");
        check_blocks(&reader, &options, &note);
        for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
            check_moves(&mut reader.cursor(scan), &entries, &mut random, &note);
        }
        check_gets(&reader, &entries, &mut random, &note);
        let report = reader.verify();
        let report = report.unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(report.entry_count, entries.len() as u64, "{note}");
    }
}

const ROUNDS: u64 = 150;
