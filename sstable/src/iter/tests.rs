use std::path::Path;

use base::cursor::{VecCursor, VecEntry};
use base::fs::{CountingFs, FileSystem};

use super::*;
use crate::testing::{MemFs, Random, delete, open, put, seq, sorted, table, table_of};
use crate::{
    BlockCache, BlockSearch, Compression, FilterPolicy, ReadMode, ReaderOptions, TableHit,
    TableOptions, Verify,
};

mod shapes;

/// A random sorted run: short keys of few letters, several versions, some tombstones.
fn random_entries(random: &mut Random) -> Vec<VecEntry> {
    let count = 1 + random.index(300);
    let letters = [0, b'a', b'b', b'c', 0xff];
    let long = random.index(4) == 0;
    let entries = (0..count)
        .map(|_| {
            let len = random.index(if long { 300 } else { 7 });
            let key: Vec<u8> = (0..len)
                .map(|_| letters[random.index(letters.len())])
                .collect();
            let number = random.index(40) as u64;
            if random.index(5) == 0 {
                delete(key, number)
            } else {
                let len = [0, 1, 9, 60, 127, 128, 900][random.index(7)];
                let byte = random.next_u64().to_le_bytes()[0];
                put(key, number, vec![byte; len])
            }
        })
        .collect();
    sorted(entries)
}

fn table_options(random: &mut Random) -> TableOptions {
    let bits_per_key = [1, 10, 20][random.index(3)];
    TableOptions {
        block_bytes_target: [64, 256, 1_000, 4_096, 65_536][random.index(5)],
        filter: match random.index(3) {
            0 => FilterPolicy::None,
            1 => FilterPolicy::Blocked { bits_per_key },
            _ => FilterPolicy::Bloom { bits_per_key },
        },
        compression: match random.index(3) {
            0 => Compression::None,
            1 => Compression::Zstd { level: -3 },
            _ => Compression::Zstd { level: 3 },
        },
        hash_seed: base::HashSeed(random.next_u64()),
        ..TableOptions::default()
    }
}

fn reader_options() -> Vec<ReaderOptions> {
    let mut all = Vec::new();
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        for cache in [
            None,
            Some(BlockCache::new(0)),
            Some(BlockCache::new(1 << 20)),
        ] {
            for verify in [Verify::Once, Verify::Always] {
                let cache = cache.clone();
                all.push(ReaderOptions {
                    mode,
                    cache,
                    verify,
                    ..ReaderOptions::default()
                });
            }
        }
    }
    all
}

fn random_target<'a>(
    random: &mut Random,
    entries: &'a [VecEntry],
    key: &'a mut Vec<u8>,
) -> InternalKey<'a> {
    let near = &entries[random.index(entries.len())];
    key.clone_from(&near.0);
    match random.index(6) {
        0 => key.push(0),
        1 => drop(key.pop()),
        2 => key.truncate(random.index(key.len() + 1)),
        3 => *key = vec![0xff; 12],
        _ => {}
    }
    InternalKey::seek_to(key, seq(random.index(42) as u64))
}

fn walk(cursor: &mut TableCursor, oracle: &mut VecCursor, random: &mut Random, note: &str) {
    let entries = oracle.entries().to_vec();
    let mut key = Vec::new();
    for _ in 0..150 {
        let target = random_target(random, &entries, &mut key);
        let (got, want) = match random.index(14) {
            0 => (cursor.seek_to_first(), oracle.seek_to_first()),
            1 => (cursor.seek_to_last(), oracle.seek_to_last()),
            2 | 3 => (cursor.seek(target), oracle.seek(target)),
            4 | 5 => (cursor.seek_for_prev(target), oracle.seek_for_prev(target)),
            _ if !oracle.is_valid() => (cursor.seek(target), oracle.seek(target)),
            step if step % 2 == 0 => (cursor.next(), oracle.next()),
            _ => (cursor.prev(), oracle.prev()),
        };
        let (got, want) = (got.expect("sound"), want.expect("in memory"));
        assert_eq!(got, want, "{note} target={target:?}");
        assert_eq!(cursor.is_valid(), want, "{note}");
        if want {
            assert_eq!(cursor.key(), oracle.key(), "{note}");
            assert_eq!(cursor.key().kind, oracle.key().kind, "{note}");
            assert_eq!(cursor.value(), oracle.value(), "{note}");
            assert_eq!(cursor.value_slice(), oracle.value(), "{note}");
        }
    }
}

#[test]
fn a_table_moves_like_a_sorted_list() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let entries = random_entries(&mut random);
        let options = table_options(&mut random);
        let (bytes, _) = table(&entries, &options);
        for reading in reader_options() {
            let reader = open(&bytes, &reading).expect("sound");
            for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
                let note = format!("seed={seed} {options:?} {reading:?} {scan:?}");
                let mut oracle = VecCursor::new(entries.clone());
                walk(&mut reader.cursor(scan), &mut oracle, &mut random, &note);
            }
        }
    }
}

/// A get without a filter, stage by stage.
fn staged<'a>(reader: &'a TableReader, target: InternalKey<'_>) -> Option<TableHit<'a>> {
    let aim = reader.aim(target.user_key).expect("sound");
    let at = reader.settle(&aim, target.seq).expect("sound")?;
    reader.prefetch_place(at).expect("sound");
    let place = reader.place_of(at).expect("sound");
    let found = match reader.spot(place, target.user_key) {
        Some(spot) => reader.get_at(place, &spot, target.seq),
        None => reader.get_in(place, target.user_key, target.seq),
    };
    match found.expect("sound") {
        BlockSearch::Found(hit) => Some(hit),
        BlockSearch::Absent(_) => None,
    }
}

#[test]
fn a_table_answers_gets_like_a_sorted_list() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let entries = random_entries(&mut random);
        let options = table_options(&mut random);
        let (bytes, summary) = table(&entries, &options);
        for reading in reader_options() {
            let reader = open(&bytes, &reading).expect("sound");
            let mut probe = ReadProbe::default();
            let mut key = Vec::new();
            for _ in 0..200 {
                let target = random_target(&mut random, &entries, &mut key);
                let at = entries.partition_point(|entry| crate::testing::key_of(entry) < target);
                let want = entries.get(at).filter(|entry| entry.0 == target.user_key);
                let hash = options.hash_seed.hash(target.user_key);
                let hit = reader
                    .get(target.user_key, hash, target.seq, &mut probe)
                    .expect("sound");
                let note = format!("seed={seed} {options:?} {reading:?} {target:?}");
                assert_eq!(
                    hit.as_ref().map(|hit| (hit.seq, hit.kind, hit.value())),
                    want.map(|entry| (entry.1, entry.2, &entry.3[..])),
                    "{note}"
                );
                reader.prefetch_filter(hash);
                assert_eq!(
                    staged(&reader, target).map(|hit| (hit.seq, hit.kind, hit.value().to_vec())),
                    want.map(|entry| (entry.1, entry.2, entry.3.clone())),
                    "{note}"
                );
                if let (Some(hit), Some(want)) = (hit, want) {
                    assert!(reader.may_contain(hash));
                    assert_eq!(hit.pin(&reader), want.3, "{note}");
                }
            }
            let report = reader.verify().expect("sound");
            assert_eq!(report.entry_count, entries.len() as u64);
            assert_eq!(reader.properties().expect("sound"), summary.properties);
        }
    }
}

#[test]
fn a_bulk_scan_reads_the_data_once_and_fills_no_cache() {
    let entries: Vec<_> = (0..40_000u64)
        .map(|n| put(format!("{n:08}"), 1 + n, vec![n.to_le_bytes()[0]; 100]))
        .collect();
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = TableOptions {
            compression,
            ..TableOptions::default()
        };
        let memory = Arc::new(MemFs::default());
        let (_, summary) = table_of(&memory, &entries, &options);
        let fs = CountingFs::new(memory);
        let counts = fs.counts();
        let cache = BlockCache::new(64 << 20);
        let reading = ReaderOptions {
            mode: ReadMode::Positioned,
            cache: Some(Arc::clone(&cache)),
            ..ReaderOptions::default()
        };
        let file = fs.open(Path::new("test.sst")).expect("just written");
        let reader = TableReader::open(file, &reading, None, 1).expect("sound");
        let before = counts.read_bytes();
        let mut cursor = reader.cursor(ScanMode::Bulk);
        let mut valid = cursor.seek_to_first().expect("sound");
        let mut count = 0;
        while valid {
            count += 1;
            valid = cursor.next().expect("sound");
        }
        assert_eq!(count, entries.len());
        let read = counts.read_bytes() - before;
        // A window that ends within a block reads that block again.
        let slack = summary.properties.data_bytes / (1 << 20) * 8_192;
        assert!(read <= summary.properties.data_bytes + slack, "{read}");
        assert_eq!((cache.used_bytes(), cache.hits() + cache.misses()), (0, 0));
    }
}

#[test]
fn a_slice_outlives_its_cursor_and_is_counted() {
    let entries = [put("a", 1, vec![1; 500]), put("b", 2, vec![2; 500])];
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = TableOptions {
            compression,
            ..TableOptions::default()
        };
        let (bytes, _) = table(&entries, &options);
        let reading = ReaderOptions {
            cache: Some(BlockCache::new(1 << 20)),
            ..ReaderOptions::default()
        };
        let reader = open(&bytes, &reading).expect("sound");
        let mut cursor = reader.cursor(ScanMode::Ordinary);
        assert!(cursor.seek_to_last().expect("sound"));
        let slice = cursor.value_slice();
        drop((cursor, reader));
        assert!(slice.is_pinned());
        assert_eq!((reading.pins.count(), reading.pins.bytes()), (1, 500));
        assert_eq!(slice, vec![2; 500]);
        drop(slice);
        assert_eq!(reading.pins.count(), 0);
    }
}

#[test]
fn extreme_keys_and_values_come_back() {
    let most = base::key::KEY_BYTES_MAX;
    let mut entries = vec![put("", 9, ""), delete("", 3)];
    for (number, len) in [1, 8, 9, 4_096, most - 1, most].into_iter().enumerate() {
        entries.push(put(vec![0xff; len], number as u64, vec![7; len]));
        entries.push(put(vec![0; len], number as u64, ""));
    }
    entries.push(put("large", 1, vec![5; 5 << 20]));
    entries.push(put("larger", 1, vec![6; 9 << 20]));
    let entries = sorted(entries);
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let options = TableOptions {
            compression,
            ..TableOptions::default()
        };
        let (bytes, _) = table(&entries, &options);
        for reading in reader_options() {
            let reader = open(&bytes, &reading).expect("sound");
            reader.verify().expect("sound");
            let mut cursor = reader.cursor(ScanMode::Ordinary);
            let mut valid = cursor.seek_to_first().expect("sound");
            for entry in &entries {
                assert!(valid);
                assert_eq!(cursor.key(), crate::testing::key_of(entry));
                assert_eq!(cursor.value(), entry.3);
                valid = cursor.next().expect("sound");
            }
            assert!(!valid);
        }
    }
}
