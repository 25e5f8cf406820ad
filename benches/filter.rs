//! The two filter policies, asked through a mapped table of a million keys, and built.
//!
//! `cargo bench --bench filter`: what decides [`sstable::FilterPolicy`]'s default.

use std::hint::black_box;

use base::fs::{FileSystem, OsFs};
use base::sync::Arc;
use base::{HashSeed, InternalKey, KeyHash, KeyKind, SequenceNumber};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sstable::{FilterPolicy, ReaderOptions, TableOptions, TableReader, TableWriter};

const KEY_COUNT: u64 = 1_000_000;
const SEED: HashSeed = HashSeed(0x5eed);

fn policies() -> [(&'static str, FilterPolicy); 2] {
    let bits_per_key = 10;
    [
        ("blocked", FilterPolicy::Blocked { bits_per_key }),
        ("bloom", FilterPolicy::Bloom { bits_per_key }),
    ]
}

/// A table of the keys 0, 2, 4 and so on, so that odd ones are absent.
fn table(dir: &tempfile::TempDir, name: &str, filter: FilterPolicy) -> Arc<TableReader> {
    let path = dir.path().join(name);
    let options = TableOptions {
        filter,
        hash_seed: SEED,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::create(&OsFs, &path, options).expect("created");
    let seq = SequenceNumber::new(1).expect("small");
    for n in 0..KEY_COUNT {
        let key = (2 * n).to_be_bytes();
        writer
            .add(InternalKey::new(&key, seq, KeyKind::Put), b"")
            .expect("added");
    }
    writer.finish().expect("finished");
    let file = OsFs.open(&path).expect("there");
    TableReader::open(file, &ReaderOptions::default(), None, 1).expect("sound")
}

/// Hashes of present or absent keys, in an order that defeats the cache.
fn hashes(first: u64) -> Vec<KeyHash> {
    let mut n = 1u64;
    (0..1 << 16)
        .map(|_| {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            SEED.hash(&((n >> 20) % KEY_COUNT * 2 + first).to_be_bytes())
        })
        .collect()
}

fn check(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("filter/check");
    for (name, policy) in policies() {
        let reader = table(&dir, name, policy);
        for (what, first) in [("present", 0), ("absent", 1)] {
            let hashes = hashes(first);
            let passed = hashes
                .iter()
                .filter(|hash| reader.may_contain(**hash))
                .count();
            eprintln!("{name} {what}: {passed} of {} pass", hashes.len());
            let mut at = 0;
            group.bench_function(format!("{name}/{what}"), |bencher| {
                bencher.iter(|| {
                    at = (at + 1) % hashes.len();
                    black_box(reader.may_contain(hashes[at]))
                });
            });
        }
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("filter/write_table");
    group.throughput(Throughput::Elements(KEY_COUNT));
    group.sample_size(10);
    let none = ("none", FilterPolicy::None);
    for (name, policy) in policies().into_iter().chain([none]) {
        let path = dir.path().join(name);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                drop(table(&dir, name, policy));
                OsFs.remove_file(&path).expect("removed");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, check, build);
criterion_main!(benches);
