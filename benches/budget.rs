//! The budget of each path and step beside what it costs on this machine: the table of BUDGET.md.
//!
//! `cargo bench --bench budget` prints it whole: medians of runs in nanoseconds, and, where `perf`
//! is installed, instructions for each operation, counted over a run of this program by itself.
//! `-- NAME` prints the steps whose name contains NAME, `-- --test` runs each once with little.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use base::clock::{Clock, SystemClock};
use base::fs::{FileSystem, OsFs};
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use memtable::{Memtable, MemtableOptions};
use siltstone::{Compression, Db, Durability, Options, WriteBatch, WriteOptions};
use sstable::{ReadProbe, ReaderOptions, TableOptions, TableReader, TableWriter};
use tempfile::TempDir;

mod keys;

use keys::{key, spread};

const VALUE: [u8; 100] = [0x5a; 100];
const SEED: HashSeed = HashSeed(1);

/// What a run did: how many operations, in how many nanoseconds.
type Run = Box<dyn FnMut() -> (u64, u64)>;

/// One line of the table.
struct Step {
    path: &'static str,
    name: &'static str,
    /// In nanoseconds, or in words.
    budget: &'static str,
    /// Prepares runs of about so many operations.
    make: fn(u64) -> Run,
}

const fn step(
    path: &'static str,
    name: &'static str,
    budget: &'static str,
    make: fn(u64) -> Run,
) -> Step {
    Step {
        path,
        name,
        budget,
        make,
    }
}

const STEPS: [Step; 24] = [
    step("put", "put, in order", "350", |n| puts(n, |n| n)),
    step("put", "put, at random", "300-450", |n| puts(n, spread)),
    step("put", "batches of 100, at random", "-", batches),
    step("put", "encode a batch of one", "20", encode),
    step("put", "memtable insert, in order", "100-180", |n| {
        inserts(n, |n| n)
    }),
    step("put", "memtable insert, at random", "100-180", |n| {
        inserts(n, spread)
    }),
    step("put", "append + fdatasync, raw", "the disk", raw_sync),
    step("put", "put to disk, 1 thread", "1 fdatasync", |n| {
        disk(n, 1)
    }),
    step("put", "put to disk, 8 threads", "1 fdatasync shared", |n| {
        disk(n, 8)
    }),
    step("flush", "flush, an entry", "150-200", flush),
    step("flush", "table writer, an entry", "of these", |n| {
        writer(n, Compression::None)
    }),
    step("flush", "table writer, zstd, an entry", "-", |n| {
        writer(n, ZSTD)
    }),
    step(
        "compaction",
        "merge of 4 runs, an entry",
        "250-300",
        compaction,
    ),
    step("get", "memtable, hit", "600-900", |n| {
        gets(n, Shape::Memtable, false)
    }),
    step("get", "4 runs, hit", "600-900", |n| {
        gets(n, Shape::Runs, false)
    }),
    step("get", "compacted, hit", "600-900", |n| {
        gets(n, Shape::Compacted, false)
    }),
    step("get", "compacted, miss", "100-250", |n| {
        gets(n, Shape::Compacted, true)
    }),
    step("get", "zstd, cached, hit", "-", |n| {
        gets(n, Shape::Zstd, false)
    }),
    step("get", "filter of a table", "10", filter),
    step("get", "index and block of a table", "120-250", table_get),
    step("scan", "seek + 10 next, compacted", "1300", |n| {
        seeks(n, Shape::Compacted)
    }),
    step("scan", "seek + 10 next, 4 runs", "a few us", |n| {
        seeks(n, Shape::Runs)
    }),
    step("scan", "next, compacted", "30-50", nexts),
    step("open", "replay, an entry", "400", replay),
];

const ZSTD: Compression = Compression::Zstd { level: 1 };

fn timed(count: u64, work: impl FnOnce()) -> (u64, u64) {
    let clock = SystemClock::new();
    work();
    (count, clock.monotonic_nanos())
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Tables as the steps are to find them: no compression unless they ask for it, no compaction of
/// its own accord, one thread.
fn options() -> Options {
    Options::new()
        .bottom_compression(Compression::None)
        .level0_table_count_trigger(100)
        .level0_table_count_max(200)
        .compaction_threads(1)
}

fn puts(count: u64, place: fn(u64) -> u64) -> Run {
    Box::new(move || {
        let dir = dir();
        let db = options().open(dir.path()).expect("opened");
        timed(count, || {
            for n in 0..count {
                db.put(key(place(n)), VALUE).expect("written");
            }
        })
    })
}

fn batches(count: u64) -> Run {
    Box::new(move || {
        let dir = dir();
        let db = options().open(dir.path()).expect("opened");
        timed(count, || {
            let mut batch = WriteBatch::new();
            for first in (0..count).step_by(100) {
                batch.clear();
                for n in first..count.min(first + 100) {
                    batch.put(key(spread(n)), VALUE);
                }
                db.write(&batch).expect("written");
            }
        })
    })
}

fn encode(count: u64) -> Run {
    Box::new(move || {
        timed(count, || {
            let mut batch = WriteBatch::new();
            for n in 0..count {
                batch.clear();
                batch.put(key(n), VALUE);
                black_box(&batch);
            }
        })
    })
}

fn filled_memtable(count: u64, place: fn(u64) -> u64) -> Arc<Memtable> {
    let memtable = Memtable::new(MemtableOptions {
        filter_bytes: 1 << 20,
        ..MemtableOptions::default()
    });
    for n in 0..count {
        let seq = SequenceNumber::new(n + 1).expect("few");
        let key = key(place(n));
        let entry = InternalKey::new(&key, seq, KeyKind::Put);
        memtable.insert(entry, SEED.hash(&key), &VALUE);
    }
    memtable
}

fn inserts(count: u64, place: fn(u64) -> u64) -> Run {
    Box::new(move || timed(count, || drop(black_box(filled_memtable(count, place)))))
}

/// The rate that a put to disk is measured against: 130 bytes and a sync, into reserved space.
fn raw_sync(count: u64) -> Run {
    let count = count.div_ceil(500);
    Box::new(move || {
        let dir = dir();
        let file = OsFs.create(&dir.path().join("raw")).expect("created");
        file.reserve(64 << 20).expect("asked for");
        timed(count, || {
            for n in 0..count {
                file.write_at(n * 130, &[0x5a; 130]).expect("written");
                file.sync().expect("synced");
            }
        })
    })
}

fn disk(count: u64, threads: u64) -> Run {
    let each = count.div_ceil(500);
    Box::new(move || {
        let dir = dir();
        let db = options().open(dir.path()).expect("opened");
        let disk = WriteOptions::new().durability(Durability::Disk);
        timed(each * threads, || {
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (db, disk) = (&db, &disk);
                    scope.spawn(move || {
                        for n in 0..each {
                            let key = key(spread(n * threads + thread));
                            db.put_with(key, VALUE, disk).expect("written");
                        }
                    });
                }
            });
        })
    })
}

fn flush(count: u64) -> Run {
    Box::new(move || {
        let dir = dir();
        let db = options().open(dir.path()).expect("opened");
        for n in 0..count {
            db.put(key(spread(n)), VALUE).expect("written");
        }
        timed(count, || db.flush().expect("flushed"))
    })
}

fn write_table(dir: &TempDir, count: u64, compression: Compression) -> Arc<TableReader> {
    let path = dir.path().join("table");
    let options = TableOptions {
        compression,
        hash_seed: SEED,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::create(&OsFs, &path, options).expect("created");
    for n in 0..count {
        let seq = SequenceNumber::new(n + 1).expect("few");
        let key = key(n << 32);
        writer
            .add(InternalKey::new(&key, seq, KeyKind::Put), &VALUE)
            .expect("added");
    }
    writer.finish().expect("finished");
    let file = OsFs.open(&path).expect("there");
    let reader = TableReader::open(file, &ReaderOptions::default(), None, 1).expect("sound");
    OsFs.remove_file(&path).expect("removed");
    reader
}

fn writer(count: u64, compression: Compression) -> Run {
    let dir = dir();
    Box::new(move || timed(count, || drop(write_table(&dir, count, compression))))
}

fn compaction(count: u64) -> Run {
    Box::new(move || {
        let dir = dir();
        let db = filled(count, Shape::Runs, &dir);
        timed(count, || db.compact_range(..).expect("compacted"))
    })
}

/// Where the entries are when they are read.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Memtable,
    Runs,
    Compacted,
    Zstd,
}

fn filled(count: u64, shape: Shape, dir: &TempDir) -> Db {
    let bottom = match shape {
        Shape::Zstd => ZSTD,
        _ => Compression::None,
    };
    let db = options()
        .bottom_compression(bottom)
        .open(dir.path())
        .expect("opened");
    for round in 0..4 {
        for n in (round..count).step_by(4) {
            db.put(key(n), VALUE).expect("written");
        }
        if shape == Shape::Runs {
            db.flush().expect("flushed");
        }
    }
    if matches!(shape, Shape::Compacted | Shape::Zstd) {
        db.compact_range(..).expect("compacted");
    }
    db
}

fn gets(count: u64, shape: Shape, is_missing: bool) -> Run {
    let dir = dir();
    let db = filled(count, shape, &dir);
    Box::new(move || {
        let _keep = &dir;
        timed(count, || {
            for n in 0..count {
                let mut key = key(spread(n) % count);
                key[15] ^= u8::from(is_missing);
                let found = db.get(key).expect("read");
                assert!(found.is_none() == is_missing);
            }
        })
    })
}

fn filter(count: u64) -> Run {
    let dir = dir();
    let reader = write_table(&dir, count, Compression::None);
    Box::new(move || {
        timed(count, || {
            for n in 0..count {
                black_box(reader.may_contain(base::KeyHash(spread(n))));
            }
        })
    })
}

fn table_get(count: u64) -> Run {
    let dir = dir();
    let reader = write_table(&dir, count, Compression::None);
    Box::new(move || {
        let mut probe = ReadProbe::default();
        timed(count, || {
            for n in 0..count {
                let key = key((spread(n) % count) << 32);
                let hit = reader.get(&key, SEED.hash(&key), SequenceNumber::MAX, &mut probe);
                assert!(hit.expect("sound").is_some());
            }
        })
    })
}

fn seeks(count: u64, shape: Shape) -> Run {
    let dir = dir();
    let db = filled(count, shape, &dir);
    let count = count / 10;
    Box::new(move || {
        let _keep = &dir;
        let mut cursor = db.cursor().expect("a cursor");
        timed(count, || {
            for n in 0..count {
                let mut live = cursor.seek(key(spread(n) % count)).expect("read");
                for _ in 0..10 {
                    if !live {
                        break;
                    }
                    black_box(cursor.value().len());
                    live = cursor.next().expect("read");
                }
            }
        })
    })
}

fn nexts(count: u64) -> Run {
    let dir = dir();
    let db = filled(count, Shape::Compacted, &dir);
    Box::new(move || {
        let _keep = &dir;
        let mut cursor = db.cursor().expect("a cursor");
        timed(count, || {
            let mut live = cursor.seek_to_first().expect("read");
            while live {
                black_box(cursor.key().len() + cursor.value().len());
                live = cursor.next().expect("read");
            }
        })
    })
}

fn replay(count: u64) -> Run {
    Box::new(move || {
        let dir = dir();
        let db = options().open(dir.path()).expect("opened");
        for n in 0..count {
            db.put(key(spread(n)), VALUE).expect("written");
        }
        drop(db);
        let mut db = None;
        let run = timed(count, || {
            db = Some(options().open(dir.path()).expect("opened"));
        });
        let db = db.expect("opened");
        assert!(db.get(key(spread(0))).expect("read").is_some());
        run
    })
}

/// Instructions of one operation: what more runs of the same step add to a process of its own.
fn instructions(name: &str, count: u64) -> Option<u64> {
    let counted = |runs: u64| {
        let output = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "instructions:u", "--"])
            .arg(std::env::current_exe().ok()?)
            .args(["--only", name, "--runs", &runs.to_string()])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("instructions"))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    let (few, more) = (counted(1)?, counted(3)?);
    Some(more.saturating_sub(few) / (2 * count).max(1))
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let after = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1)
    };
    let count = if is_test { 2_000 } else { 200_000 };
    if let (Some(name), Some(runs)) = (after("--only"), after("--runs")) {
        let step = STEPS.iter().find(|step| step.name == name);
        let mut run = (step.expect("a step of that name").make)(count);
        for _ in 0..runs.parse().expect("a number") {
            run();
        }
        return;
    }
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    println!("| path | step | budget | measured | instructions |");
    println!("|---|---|---|---|---|");
    for step in &STEPS {
        if wanted.is_some_and(|wanted| !step.name.contains(wanted.as_str())) {
            continue;
        }
        let mut run = (step.make)(count);
        let rounds = if is_test { 1 } else { 5 };
        let runs: Vec<(u64, u64)> = (0..rounds).map(|_| run()).collect();
        let operations = runs[0].0;
        let each = runs.iter().map(|(count, nanos)| nanos / count.max(&1));
        let nanos = median(each.collect());
        drop(run);
        let counted = if is_test {
            None
        } else {
            instructions(step.name, operations)
        };
        println!(
            "| {} | {} | {} | {nanos} | {} |",
            step.path,
            step.name,
            step.budget,
            counted.map_or("-".to_owned(), |count| count.to_string()),
        );
    }
}
