//! The write path of the whole engine: single puts in and out of order, batches, deletes, and puts
//! that wait for the disk.

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Db, Durability, WriteBatch, WriteOptions};
use tempfile::TempDir;

mod keys;

use keys::{key, spread};

/// Writes of one iteration: less than fills a memtable, so that no flush is measured.
const WRITE_COUNT: u64 = 200_000;
/// Writes that wait for the disk, of one iteration.
const DISK_WRITE_COUNT: u64 = 500;
const VALUE: [u8; 100] = [0x5a; 100];

/// Where in key order the n-th write goes.
type Place = fn(u64) -> u64;

const ORDERS: [(&str, Place); 2] = [("sequential", |n| n), ("random", spread)];

fn empty() -> (TempDir, Db) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let db = Db::open(dir.path()).expect("an empty database opens");
    (dir, db)
}

fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(WRITE_COUNT));
    for (order, place) in ORDERS {
        group.bench_function(BenchmarkId::new("put", order), |b| {
            b.iter_batched(
                empty,
                |(dir, db)| {
                    for n in 0..WRITE_COUNT {
                        db.put(key(place(n)), VALUE).expect("written");
                    }
                    (dir, db)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("delete/random", |b| {
        b.iter_batched(
            empty,
            |(dir, db)| {
                for n in 0..WRITE_COUNT {
                    db.delete(key(spread(n))).expect("written");
                }
                (dir, db)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit/batch");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(WRITE_COUNT));
    for count in [10, 100, 1000] {
        group.bench_function(BenchmarkId::new("random", count), |b| {
            b.iter_batched(
                empty,
                |(dir, db)| {
                    let mut batch = WriteBatch::new();
                    for first in (0..WRITE_COUNT).step_by(count) {
                        batch.clear();
                        for n in first..first + count as u64 {
                            batch.put(key(spread(n)), VALUE);
                        }
                        db.write(&batch).expect("written");
                    }
                    (dir, db)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn to_disk(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit/disk");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    let disk = WriteOptions::new().durability(Durability::Disk);
    for threads in [1, 8] {
        group.throughput(Throughput::Elements(DISK_WRITE_COUNT * threads));
        group.bench_function(BenchmarkId::new("put", threads), |b| {
            b.iter_batched(
                empty,
                |(dir, db)| {
                    std::thread::scope(|scope| {
                        for thread in 0..threads {
                            let (db, disk) = (&db, &disk);
                            scope.spawn(move || {
                                for n in 0..DISK_WRITE_COUNT {
                                    let key = key(spread(n * threads + thread));
                                    db.put_with(key, VALUE, disk).expect("written");
                                }
                            });
                        }
                    });
                    (dir, db)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, single, batches, to_disk);
criterion_main!(benches);
