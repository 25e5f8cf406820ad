//! One data block: searched and walked in both directions, nothing around it.

use std::hint::black_box;

use base::cursor::Cursor;
use base::fs::{FileSystem, OsFs};
use base::sync::Arc;
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use criterion::{Criterion, criterion_group, criterion_main};
use sstable::{
    FilterPolicy, ReadProbe, ReaderOptions, ScanMode, TableOptions, TableReader, TableWriter,
};

/// A table of one block of about 4 KiB: 16-byte keys, 100-byte values.
fn one_block(dir: &tempfile::TempDir) -> (Arc<TableReader>, Vec<Vec<u8>>) {
    let path = dir.path().join("block");
    let options = TableOptions {
        filter: FilterPolicy::None,
        block_bytes_target: 1 << 20,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::create(&OsFs, &path, options).expect("created");
    let keys: Vec<_> = (0..32u64)
        .map(|n| format!("{:016}", n * 7_919).into_bytes())
        .collect();
    for (seq, key) in (1..).zip(&keys) {
        let seq = SequenceNumber::new(seq).expect("small");
        writer
            .add(InternalKey::new(key, seq, KeyKind::Put), &[7; 100])
            .expect("added");
    }
    writer.finish().expect("finished");
    let file = OsFs.open(&path).expect("there");
    let reader = TableReader::open(file, &ReaderOptions::default(), None, 1).expect("sound");
    assert_eq!(reader.block_count(), 1);
    (reader, keys)
}

fn block(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, keys) = one_block(&dir);
    let mut group = criterion.benchmark_group("block");
    let mut at = 0;
    let hash = HashSeed::default().hash(b"");
    group.bench_function("get", |bencher| {
        let mut probe = ReadProbe::default();
        bencher.iter(|| {
            at = (at + 7) % keys.len();
            let hit = reader.get(&keys[at], hash, SequenceNumber::MAX, &mut probe);
            black_box(hit.expect("sound").map(|hit| hit.seq))
        });
    });
    let mut cursor = reader.cursor(ScanMode::Ordinary);
    group.bench_function("seek", |bencher| {
        bencher.iter(|| {
            at = (at + 7) % keys.len();
            let target = InternalKey::seek_to(&keys[at], SequenceNumber::MAX);
            black_box(cursor.seek(target).expect("sound"))
        });
    });
    group.bench_function("next", |bencher| {
        cursor.seek_to_first().expect("sound");
        bencher.iter(|| {
            if !cursor.next().expect("sound") {
                cursor.seek_to_first().expect("sound");
            }
            black_box(cursor.key().seq)
        });
    });
    group.bench_function("prev", |bencher| {
        cursor.seek_to_last().expect("sound");
        bencher.iter(|| {
            if !cursor.prev().expect("sound") {
                cursor.seek_to_last().expect("sound");
            }
            black_box(cursor.key().seq)
        });
    });
    group.finish();
}

criterion_group!(benches, block);
criterion_main!(benches);
