//! The log alone: appends handed to the operating system, appends that wait for the disk, replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::clock::SystemClock;
use base::fs::{FileSystem, OsFs};
use base::{FileNumber, SequenceNumber};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use log::{Log, LogAppend, LogConfig, RecordKind, Replay, Successor};
use tempfile::TempDir;

/// What one iteration appends, in bytes of payload: less than a segment.
const APPENDED_BYTES: usize = 16 << 20;
/// Records that are each synced, of one iteration.
const SYNC_COUNT: u64 = 500;

const FORMS: [(&str, LogAppend); 2] = [
    ("mapped", LogAppend::Mapped),
    ("positioned", LogAppend::Positioned),
];

fn empty(append: LogAppend) -> (TempDir, Arc<Log>) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let next = AtomicU64::new(1);
    let config = LogConfig {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock::new()),
        dir: dir.path().to_owned(),
        numbers: Arc::new(move || FileNumber(next.fetch_add(1, Ordering::Relaxed))),
        database_id: 1,
        epoch: 1,
        segment_bytes: 64 << 20,
        index_interval_bytes: 64 << 10,
        reserve: true,
        append,
    };
    let log = Log::start(config, Successor::first(seq(1))).expect("an empty directory");
    (dir, log)
}

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n).expect("few")
}

fn append_all(log: &Log, payload: &[u8]) -> u64 {
    let count = (APPENDED_BYTES / payload.len()) as u64;
    for n in 0..count {
        log.append(RecordKind::Batch, seq(n + 1), 1, payload)
            .expect("appended");
    }
    count
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/append");
    group.sample_size(10);
    for (payload_bytes, (form, append)) in [120, 1200, 12_000]
        .into_iter()
        .flat_map(|bytes| FORMS.map(|form| (bytes, form)))
    {
        let payload = vec![0x5a; payload_bytes];
        group.throughput(Throughput::Elements(
            (APPENDED_BYTES / payload_bytes) as u64,
        ));
        group.bench_function(BenchmarkId::new(form, payload_bytes), |b| {
            b.iter_batched(
                || empty(append),
                |(dir, log)| {
                    append_all(&log, &payload);
                    (dir, log)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn append_and_sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/sync");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(SYNC_COUNT));
    let payload = [0x5a; 120];
    // What the machine gives: the same bytes and syncs, and nothing else.
    group.bench_function("raw", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a temporary directory can be made");
                let file = OsFs.create(&dir.path().join("raw")).expect("created");
                file.reserve(64 << 20).expect("reserved");
                file.sync().expect("synced");
                (dir, file)
            },
            |(dir, file)| {
                for n in 0..SYNC_COUNT {
                    file.write_at(n * 160, &[0x5a; 160]).expect("written");
                    file.sync().expect("synced");
                }
                (dir, file)
            },
            BatchSize::PerIteration,
        );
    });
    for (form, append) in FORMS {
        group.bench_function(form, |b| {
            b.iter_batched(
                || empty(append),
                |(dir, log)| {
                    for n in 0..SYNC_COUNT {
                        let kind = RecordKind::Batch;
                        let appended = log.append(kind, seq(n + 1), 1, &payload).expect("appended");
                        log.sync_upto(appended.end).expect("synced");
                    }
                    (dir, log)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let (dir, log) = empty(LogAppend::Auto);
    let count = append_all(&log, &[0x5a; 120]);
    log.rotate().expect("rotated");
    while log.maintain().expect("sealed") {}
    let segments = log.sealed();
    let mut group = c.benchmark_group("log");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(count));
    group.bench_function("replay", |b| {
        b.iter(|| {
            let mut replay =
                Replay::open(&OsFs, dir.path(), &segments, seq(1)).expect("the log is whole");
            let mut seen = 0;
            while replay.next().expect("the log is whole").is_some() {
                seen += 1;
            }
            assert_eq!(seen, count);
        });
    });
    group.finish();
}

criterion_group!(benches, append, append_and_sync, replay);
criterion_main!(benches);
