//! The memtable alone: inserts in random and in key order, point reads, a walk.

use std::hint::black_box;
use std::sync::Arc;

use base::cursor::Cursor;
use base::{HashSeed, InternalKey, KeyHash, KeyKind, SequenceNumber};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memtable::{Memtable, MemtableOptions, MemtableStructure};

mod keys;

use keys::{key, spread};

/// As many entries of this size as a memtable of 64 MiB holds.
const ENTRY_COUNT: u64 = 350_000;
const VALUE: [u8; 100] = [0x5a; 100];
/// Ten bits for each entry.
const FILTER_BYTES: usize = 448 << 10;

/// Where in key order the n-th entry goes.
type Place = fn(u64) -> u64;

fn hash(key: &[u8]) -> KeyHash {
    HashSeed(1).hash(key)
}

const STRUCTURES: [MemtableStructure; 2] = [MemtableStructure::Tree, MemtableStructure::SkipList];

fn new(structure: MemtableStructure, filter_bytes: usize) -> Arc<Memtable> {
    Memtable::new(MemtableOptions {
        filter_bytes,
        structure,
        ..MemtableOptions::default()
    })
}

fn insert(memtable: &Memtable, n: u64, place: u64) {
    let seq = SequenceNumber::new(n + 1).expect("few");
    let key = key(place);
    memtable.insert(
        InternalKey::new(&key, seq, KeyKind::Put),
        hash(&key),
        &VALUE,
    );
}

fn filled(structure: MemtableStructure, filter_bytes: usize) -> Arc<Memtable> {
    let memtable = new(structure, filter_bytes);
    for n in 0..ENTRY_COUNT {
        insert(&memtable, n, spread(n));
    }
    memtable
}

fn inserts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memtable/insert");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ENTRY_COUNT));
    let orders: [(&str, Place); 2] = [("random", spread), ("sequential", |n| n)];
    for (order, place) in orders {
        for structure in STRUCTURES {
            let id = BenchmarkId::new(order, format!("{structure:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter_batched(
                    || new(structure, FILTER_BYTES),
                    |memtable| {
                        for n in 0..ENTRY_COUNT {
                            insert(&memtable, n, place(n));
                        }
                        memtable
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn gets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memtable/get");
    for (structure, filter_bytes) in [
        (MemtableStructure::Tree, 0),
        (MemtableStructure::Tree, FILTER_BYTES),
        (MemtableStructure::SkipList, 0),
    ] {
        let memtable = filled(structure, filter_bytes);
        for (name, from) in [("hit", 0), ("miss", ENTRY_COUNT)] {
            let id = BenchmarkId::new(name, format!("{structure:?}/filter={filter_bytes}"));
            let mut n = 0;
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    n = (n + 7_919) % ENTRY_COUNT;
                    let key = key(spread(from + n));
                    let hit = memtable.get(&key, hash(&key), SequenceNumber::MAX);
                    black_box(hit.map(|hit| hit.value.len()))
                });
            });
        }
    }
    group.finish();
}

fn walks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memtable/iterate");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ENTRY_COUNT));
    for structure in STRUCTURES {
        let memtable = filled(structure, 0);
        group.bench_function(
            BenchmarkId::new("forward", format!("{structure:?}")),
            |bencher| {
                bencher.iter(|| {
                    let mut cursor = memtable.cursor();
                    let mut valid = cursor.seek_to_first().expect("in memory");
                    let mut sum = 0;
                    while valid {
                        sum +=
                            usize::from(cursor.key().user_key[7]) + usize::from(cursor.value()[0]);
                        valid = cursor.next().expect("in memory");
                    }
                    black_box(sum)
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, inserts, gets, walks);
criterion_main!(benches);
