//! What the tables of a database say about themselves: how they are stored, and when their entries
//! were committed.

use std::path::Path;
use std::sync::Arc;

use base::clock::ManualClock;
use base::fs::{FileSystem, OsFs};
use siltstone::{Compression, Db, Options};
use sstable::{Properties, ReaderOptions, TableReader};

const SECOND: u64 = 1_000_000;

/// The properties of every table in `dir`, each checked whole.
fn properties(dir: &Path) -> Vec<Properties> {
    let mut all = Vec::new();
    for entry in OsFs.list(dir).expect("a directory") {
        let path = dir.join(&entry.name);
        if path.extension().is_none_or(|extension| extension != "sst") {
            continue;
        }
        let file = OsFs.open(&path).expect("there");
        let reader = TableReader::open(file, &ReaderOptions::default(), None, 1).expect("sound");
        reader.verify().expect("sound");
        all.push(reader.properties().expect("sound"));
    }
    all.sort_by(|a, b| a.smallest.user_key.cmp(&b.smallest.user_key));
    all
}

fn small() -> Options {
    Options::new()
        .memtable_bytes_max(256 << 10)
        .table_bytes_target(256 << 10)
        .level_base_bytes(64 << 10)
        // What there is to be compacted does not depend on how long the test takes.
        .idle_compaction_after(None)
}

fn put(db: &Db, n: u64) {
    let value = format!(
        "the value of {n}, as much like others as values are: {}",
        n * n
    );
    db.put(format!("key {n:08}"), value).expect("written");
}

/// Puts in order, until compaction has come to rest.
fn fill_in_order(options: Options, dir: &Path) -> (siltstone::Stats, Vec<Properties>) {
    let db = options.open(dir).expect("opened");
    for n in 0..30_000 {
        put(&db, n);
    }
    db.flush().expect("flushed");
    db.wait_for_compactions().expect("at rest");
    let stats = db.stats();
    db.close().expect("closed");
    (stats, properties(dir))
}

#[test]
fn keys_in_order_are_compressed_when_they_are_flushed_and_written_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (stats, tables) = fill_in_order(small(), dir.path());
    assert!(tables.len() > 4, "{}", tables.len());
    for table in &tables {
        assert_eq!(table.compression, Compression::Zstd { level: 1 });
        assert!(table.data_bytes < table.uncompressed_data_bytes / 2);
    }
    // The last one may be too short for a dictionary to pay.
    assert!(tables.iter().any(|table| table.dictionary_bytes > 0));
    assert_eq!(stats.compaction_bytes_written, 0);
    assert!(stats.move_count > 0);
}

#[test]
fn what_overlaps_is_flushed_raw_and_compressed_at_the_bottom() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = small()
        .level_base_bytes(1 << 30)
        .level0_table_count_trigger(100)
        .level0_table_count_max(200)
        .open(dir.path())
        .expect("opened");
    for round in 0..3 {
        for n in (round..3_000).step_by(3) {
            put(&db, n);
        }
        db.flush().expect("flushed");
    }
    let flushed = properties(dir.path());
    let raw = flushed
        .iter()
        .filter(|t| t.compression == Compression::None);
    assert_eq!((raw.count(), flushed.len()), (2, 3));
    db.compact_range(..).expect("compacted");
    drop(db);
    let compacted = properties(dir.path());
    let zstd = Compression::Zstd { level: 1 };
    assert!(compacted.iter().all(|table| table.compression == zstd));
}

#[test]
fn without_compression_at_the_bottom_there_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small().bottom_compression(Compression::None);
    let (_, tables) = fill_in_order(options, dir.path());
    for table in tables {
        assert_eq!(table.compression, Compression::None);
        assert_eq!(table.data_bytes, table.uncompressed_data_bytes);
    }
}

#[test]
fn commit_times_pass_through_flush_recovery_and_compaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(ManualClock::new(1_000 * SECOND));
    let options = || {
        small()
            .clock(clock.clone())
            .level_base_bytes(1 << 30)
            .level0_table_count_trigger(100)
            .level0_table_count_max(200)
    };
    let times = || -> Vec<(u64, u64)> {
        let all = properties(dir.path());
        let times = all.iter().map(|table| table.commit_times.expect("known"));
        let mut all: Vec<_> = times
            .map(|times| {
                let seconds = |micros| micros / SECOND;
                (
                    seconds(times.smallest_micros),
                    seconds(times.largest_micros),
                )
            })
            .collect();
        all.sort_unstable();
        all
    };
    let db = options().open(dir.path()).expect("opened");
    put(&db, 1);
    clock.advance(10 * SECOND);
    put(&db, 9);
    db.flush().expect("flushed");
    assert_eq!(times(), [(1_000, 1_010)]);
    clock.advance(10 * SECOND);
    put(&db, 5);
    drop(db);
    clock.advance(100 * SECOND);
    // The log remembers when.
    let db = options().open(dir.path()).expect("opened");
    db.flush().expect("flushed");
    assert_eq!(times(), [(1_000, 1_010), (1_020, 1_020)]);
    db.compact_range(..).expect("compacted");
    drop(db);
    assert_eq!(times(), [(1_000, 1_020)]);
}
