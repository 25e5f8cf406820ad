//! One table of half a million entries: written, asked, walked.

use std::hint::black_box;

use base::cursor::Cursor;
use base::fs::{FileSystem, OsFs};
use base::random::Random;
use base::sync::Arc;
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sstable::{
    BlockCache, Compression, ReadMode, ReadProbe, ReaderOptions, ScanMode, TableOptions,
    TableReader, TableWriter,
};

const ENTRY_COUNT: u64 = 500_000;

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    // Spread over the whole range, in order.
    key[..8].copy_from_slice(&(n * (u64::MAX / ENTRY_COUNT / 2)).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Values of which about half compresses away.
fn value(n: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    let mut state = n;
    for byte in &mut value[..50] {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = state.to_le_bytes()[7];
    }
    value
}

fn write(path: &std::path::Path, compression: Compression) {
    let options = TableOptions {
        compression,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::create(&OsFs, path, options).expect("created");
    for n in 0..ENTRY_COUNT {
        let seq = SequenceNumber::new(1 + n).expect("small");
        let key = key(n);
        writer
            .add(InternalKey::new(&key, seq, KeyKind::Put), &value(n))
            .expect("added");
    }
    writer.finish().expect("finished");
}

fn open(path: &std::path::Path, mode: ReadMode) -> Arc<TableReader> {
    let options = ReaderOptions {
        mode,
        cache: Some(BlockCache::new(512 << 20)),
        ..ReaderOptions::default()
    };
    let file = OsFs.open(path).expect("there");
    TableReader::open(file, &options, None, 1).expect("sound")
}

fn writing(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("table/write");
    group.throughput(Throughput::Elements(ENTRY_COUNT));
    group.sample_size(10);
    for (name, compression) in [
        ("raw", Compression::None),
        ("zstd1", Compression::Zstd { level: 1 }),
    ] {
        let path = dir.path().join(name);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                write(&path, compression);
                OsFs.remove_file(&path).expect("removed");
            });
        });
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = dir.path().join("raw");
    let zstd = dir.path().join("zstd");
    write(&raw, Compression::None);
    write(&zstd, Compression::Zstd { level: 1 });
    for (name, reader) in [
        ("mapped", open(&raw, ReadMode::Mapped)),
        ("positioned", open(&raw, ReadMode::Positioned)),
        ("mapped_zstd", open(&zstd, ReadMode::Mapped)),
    ] {
        // Every block checked, or in the cache, before anything is measured.
        let mut cursor = reader.cursor(ScanMode::Ordinary);
        let mut valid = cursor.seek_to_first().expect("sound");
        while valid {
            valid = cursor.next().expect("sound");
        }
        read_one(criterion, name, &reader);
    }
}

fn read_one(criterion: &mut Criterion, name: &str, reader: &Arc<TableReader>) {
    let mut group = criterion.benchmark_group(format!("table/{name}"));
    let mut random = Random(1);
    let seed = HashSeed::default();
    let mut probe = ReadProbe::default();
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let key = key(random.below(ENTRY_COUNT));
            let hit = reader.get(&key, seed.hash(&key), SequenceNumber::MAX, &mut probe);
            black_box(hit.expect("sound").map(|hit| hit.value().len()))
        });
    });
    group.bench_function("get_absent", |bencher| {
        bencher.iter(|| {
            let mut key = key(random.below(ENTRY_COUNT));
            key[15] ^= 0xff;
            let hit = reader.get(&key, seed.hash(&key), SequenceNumber::MAX, &mut probe);
            black_box(hit.expect("sound").is_some())
        });
    });
    let mut cursor = reader.cursor(ScanMode::Ordinary);
    group.bench_function("seek", |bencher| {
        bencher.iter(|| {
            let key = key(random.below(ENTRY_COUNT));
            let target = InternalKey::seek_to(&key, SequenceNumber::MAX);
            black_box(cursor.seek(target).expect("sound"))
        });
    });
    group.bench_function("seek_10_next", |bencher| {
        bencher.iter(|| {
            let key = key(random.below(ENTRY_COUNT - 10));
            let target = InternalKey::seek_to(&key, SequenceNumber::MAX);
            let mut len = 0;
            let mut valid = cursor.seek(target).expect("sound");
            for _ in 0..10 {
                if valid {
                    len += cursor.value().len();
                    valid = cursor.next().expect("sound");
                }
            }
            black_box(len)
        });
    });
    for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
        let mut cursor = reader.cursor(scan);
        cursor.seek_to_first().expect("sound");
        group.bench_function(format!("next/{scan:?}"), |bencher| {
            bencher.iter(|| {
                if !cursor.next().expect("sound") {
                    cursor.seek_to_first().expect("sound");
                }
                black_box(cursor.key().user_key.len() + cursor.value().len())
            });
        });
    }
    cursor.seek_to_last().expect("sound");
    group.bench_function("prev", |bencher| {
        bencher.iter(|| {
            if !cursor.prev().expect("sound") {
                cursor.seek_to_last().expect("sound");
            }
            black_box(cursor.key().user_key.len() + cursor.value().len())
        });
    });
    group.finish();
}

criterion_group!(benches, writing, reading);
criterion_main!(benches);
