//! The read paths of the whole engine: point reads that hit and miss, seeks and scans, from a
//! memtable, from several runs, and from one compacted run.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Compression, Cursor, Db, Options, ReadMode};
use tempfile::TempDir;

mod keys;

use keys::key;

const ENTRY_COUNT: u64 = 300_000;
/// Keys of one `multi_get`.
const MULTI_COUNT: u64 = 32;
/// Entries read after a seek.
const NEXT_COUNT: usize = 10;
/// Entries of one scan.
const SCAN_COUNT: u64 = 10_000;
const VALUE: [u8; 100] = [0x5a; 100];

/// A key that is not there and sorts just after the `n`-th one.
fn missing_key(n: u64) -> [u8; 17] {
    let mut missing = *b"00000000000000000";
    missing[..16].copy_from_slice(&key(n));
    missing
}

/// The next of a sequence of numbers below [`ENTRY_COUNT`] without visible order.
fn next(at: &mut u64) -> u64 {
    *at = at
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*at >> 33) % ENTRY_COUNT
}

/// Where the entries are when they are read.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Memtable,
    Runs,
    Compacted,
    CompactedZstd,
    CompactedPositioned,
}

const SHAPES: [(Shape, &str); 5] = [
    (Shape::Memtable, "memtable"),
    (Shape::Runs, "runs"),
    (Shape::Compacted, "compacted"),
    (Shape::CompactedZstd, "compacted_zstd"),
    (Shape::CompactedPositioned, "positioned"),
];

fn filled(shape: Shape) -> (TempDir, Db) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let read_mode = match shape {
        Shape::CompactedPositioned => ReadMode::Positioned,
        _ => ReadMode::Mapped,
    };
    let bottom = match shape {
        Shape::CompactedZstd => Compression::Zstd { level: 1 },
        _ => Compression::None,
    };
    let db = Options::new()
        .read_mode(read_mode)
        .bottom_compression(bottom)
        .open(dir.path())
        .expect("an empty database opens");
    // Three rounds, each of every third key, so that runs interleave.
    for round in 0..3 {
        for n in (round..ENTRY_COUNT).step_by(3) {
            db.put(key(n), VALUE).expect("written");
        }
        if matches!(shape, Shape::Runs) {
            db.flush().expect("flushed");
        }
    }
    if !matches!(shape, Shape::Memtable | Shape::Runs) {
        db.compact_range(..).expect("compacted");
    }
    (dir, db)
}

fn points(group: &mut BenchmarkGroup<'_, WallTime>, db: &Db, shape: &str) {
    group.throughput(Throughput::Elements(1));
    let mut at = 1;
    group.bench_function(format!("get hit/{shape}"), |b| {
        b.iter(|| db.get(key(next(&mut at))).expect("read"));
    });
    group.bench_function(format!("get miss/{shape}"), |b| {
        b.iter(|| db.get(missing_key(next(&mut at))).expect("read"));
    });
    group.throughput(Throughput::Elements(MULTI_COUNT));
    group.bench_function(format!("multi_get/{shape}"), |b| {
        b.iter(|| {
            db.multi_get((0..MULTI_COUNT).map(|_| key(next(&mut at))))
                .expect("read")
        });
    });
}

fn touch(cursor: &Cursor) {
    black_box((cursor.key(), cursor.value()));
}

fn scans(group: &mut BenchmarkGroup<'_, WallTime>, db: &Db, shape: &str) {
    let mut cursor = db.cursor().expect("opened");
    let mut at = 1;
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("seek and {NEXT_COUNT} next/{shape}"), |b| {
        b.iter(|| {
            let mut is_valid = cursor.seek(key(next(&mut at))).expect("read");
            for _ in 0..NEXT_COUNT {
                if !is_valid {
                    break;
                }
                touch(&cursor);
                is_valid = cursor.next().expect("read");
            }
        });
    });
    group.throughput(Throughput::Elements(SCAN_COUNT));
    group.bench_function(format!("next/{shape}"), |b| {
        b.iter(|| {
            let mut is_valid = cursor.seek_to_first().expect("read");
            for _ in 0..SCAN_COUNT {
                assert!(is_valid, "there are more entries than that");
                touch(&cursor);
                is_valid = cursor.next().expect("read");
            }
        });
    });
    group.bench_function(format!("prev/{shape}"), |b| {
        b.iter(|| {
            let mut is_valid = cursor.seek_to_last().expect("read");
            for _ in 0..SCAN_COUNT {
                assert!(is_valid, "there are more entries than that");
                touch(&cursor);
                is_valid = cursor.prev().expect("read");
            }
        });
    });
}

/// Data that no cache of a processor holds, where waits for memory are what a read is made of.
const LARGE_ENTRY_COUNT: u64 = 3_000_000;

fn next_of_many(at: &mut u64) -> u64 {
    *at = at
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*at >> 33) % LARGE_ENTRY_COUNT
}

/// A loop of gets against `multi_get`, over the same keys in no order.
fn many(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let db = Options::new()
        .open(dir.path())
        .expect("an empty database opens");
    for n in 0..LARGE_ENTRY_COUNT {
        db.put(key(n), VALUE).expect("written");
    }
    db.compact_range(..).expect("compacted");
    let mut group = c.benchmark_group("read/many");
    group.throughput(Throughput::Elements(MULTI_COUNT));
    let mut at = 1;
    group.bench_function("gets", |b| {
        b.iter(|| {
            let keys = (0..MULTI_COUNT).map(|_| key(next_of_many(&mut at)));
            let values: Vec<_> = keys.map(|key| db.get(key).expect("read")).collect();
            values
        });
    });
    let mut at = 1;
    group.bench_function("multi_get", |b| {
        b.iter(|| {
            db.multi_get((0..MULTI_COUNT).map(|_| key(next_of_many(&mut at))))
                .expect("read")
        });
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    for (shape, name) in SHAPES {
        let (_dir, db) = filled(shape);
        let mut group = c.benchmark_group("read");
        points(&mut group, &db, name);
        scans(&mut group, &db, name);
        group.finish();
    }
}

criterion_group!(benches, reads, many);
criterion_main!(benches);
