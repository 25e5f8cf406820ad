//! Keyspaces that are created and dropped while other threads read and write them: errors are those
//! of a dropped keyspace, batches stay whole, and nothing is left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use base::FileKind;
use base::fs::{FileSystem, OsFs};
use siltstone::{Db, Error, ErrorKind, Options, WriteBatch, WriteOutcome};

use crate::support::{PrintOnPanic, Rng, Setup, contents, rounds, small_keyspace, tagged};

/// A call on a keyspace that another thread may drop.
fn unless_gone<T>(what: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_rejected = error.outcome() != Some(WriteOutcome::Indeterminate);
            assert!(is_rejected, "{what}: {error:?}");
            None
        }
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Uses whatever keyspaces there are. Every key holds what a batch put into it and into the same
/// key of the default keyspace, so that half a batch is told from a whole one.
fn use_what_is_there(db: &Db, id: u64, round: u64, rng: &mut Rng) -> u64 {
    let names = db.keyspaces().expect("it is open");
    let name = rng.pick(&names).clone();
    let Some(keyspace) = unless_gone("a lookup", db.keyspace(&name)) else {
        return 0;
    };
    let key = format!("{id}/{}", rng.below(40));
    let value = tagged(id << 32 | round, 120);
    let mut batch = WriteBatch::new();
    batch.put_in(&keyspace, &key, &value).put(&key, &value);
    let before = db.get(&key).expect("a get");
    let is_written = unless_gone("a batch", db.write(&batch)).is_some();
    let now = db.get(&key).expect("a get");
    if is_written {
        assert_eq!(now.as_deref(), Some(&*value));
    } else {
        assert_eq!(now.as_deref(), before.as_deref(), "half of a refused batch");
    }
    match rng.below(12) {
        0 => drop(unless_gone("a flush", keyspace.flush())),
        1 => drop(unless_gone("a compaction", keyspace.compact_range(..))),
        2 => {
            let snapshot = db.snapshot().expect("a snapshot");
            if let Some(past) = unless_gone("a snapshot", snapshot.keyspace(&keyspace)) {
                let first = contents(&past).expect("a snapshot reads on");
                assert!(first == contents(&past).expect("a snapshot reads on"));
            }
        }
        3 => {
            if let Some(iterator) = unless_gone("an iterator", keyspace.iter()) {
                for item in iterator {
                    item.expect("an iterator goes on");
                }
            }
        }
        _ => {}
    }
    u64::from(is_written)
}

fn real_options(seed: u64) -> Options {
    Setup::of_seed(seed)
        .options()
        .memtable_bytes_max(8 << 10)
        .log_segment_bytes(32 << 10)
        .compaction_threads(2)
}

/// Files of the database by kind.
fn count_files(dir: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in OsFs.list(dir).expect("a directory") {
        let name = entry.name;
        let kind = FileKind::parse(&name);
        let kind = kind.map_or_else(|| name.clone(), |(kind, _)| format!("{kind:?}"));
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

#[test]
fn keyspaces_come_and_go_under_threads_and_leave_nothing() {
    for seed in 0..2 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = real_options(seed).open(dir.path()).expect("a new database");
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for id in 0..3 {
                let (db, stop, written) = (&db, &stop, &written);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed << 8 | id);
                    let mut round = 0;
                    while !stop.load(Ordering::SeqCst) {
                        round += 1;
                        let count = use_what_is_there(db, id, round, &mut rng);
                        written.fetch_add(count, Ordering::SeqCst);
                    }
                });
            }
            let _stop = StopOnDrop(&stop);
            for cycle in 0..60 {
                let name = format!("k{}", cycle % 4);
                db.create_keyspace(&name, &small_keyspace())
                    .expect("a new one");
                let enough = written.load(Ordering::SeqCst) + 30;
                while written.load(Ordering::SeqCst) < enough {
                    thread::yield_now();
                }
                if cycle >= 3 {
                    let oldest = format!("k{}", (cycle - 3) % 4);
                    db.drop_keyspace(&oldest).expect("a drop");
                }
            }
        });
        for name in db.keyspaces().expect("it is open") {
            if name != "default" {
                db.drop_keyspace(&name).expect("a drop");
            }
        }
        let expected = contents(&db).expect("a scan");
        let stats = db.stats();
        assert_eq!(stats.keyspaces.len(), 1, "dropped ones are still counted");
        assert_eq!((stats.snapshot_count, stats.pinned_slice_count), (0, 0));
        db.close().expect("a clean close");
        let db = real_options(seed).open(dir.path()).expect("a reopen");
        assert_eq!(contents(&db).expect("a scan"), expected);
        db.close().expect("a clean close");
        let tables: u64 = {
            let db = real_options(seed)
                .open_read_only(dir.path())
                .expect("it opens");
            let levels = db.stats().levels;
            levels.iter().map(|level| level.table_count).sum()
        };
        let counts = count_files(dir.path());
        let count = |kind: &str| counts.get(kind).copied().unwrap_or_default();
        assert_eq!(count("Table") as u64, tables, "{counts:?}");
        assert_eq!(count("Manifest"), 1, "{counts:?}");
        assert!(count("Segment") <= 2, "{counts:?}");
        assert_eq!(count("lost"), 0, "{counts:?}");
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
