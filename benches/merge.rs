//! The merge of compactions by itself, and the two jobs around it: entries a second, on one thread.

use std::hint::black_box;
use std::ops::Bound;
use std::path::Path;

use base::clock::SystemClock;
use base::cursor::{Cursor, MergeCursor, VecCursor};
use base::executor::Inline;
use base::fs::{FileSystem, OsFs};
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{FileKind, FileNumber, InternalKey, KeyKind, KeyspaceId, Level, SequenceNumber};
use compaction::merge::Merge;
use compaction::{
    InProgress, JobContext, JobOutput, KeyspaceEdit, Reaper, Table, Tuning, Version, job, policy,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memtable::{Memtable, MemtableOptions};
use sstable::{ReaderOptions, TableCache, TableHandle, TableOptions};

const ENTRY_COUNT: u64 = 200_000;

/// `count` runs of 16-byte keys and 100-byte values that take turns at random, each for about
/// `stretch` entries.
fn runs(count: u64, stretch: u64) -> Vec<VecCursor> {
    let mut runs = vec![Vec::new(); usize::try_from(count).expect("small")];
    for n in 0..ENTRY_COUNT {
        let key = format!("{n:016}").into_bytes();
        // Fibonacci hashing: as good as random here.
        let hash = (n / stretch).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let run = usize::try_from(hash % count).expect("small");
        let seq = SequenceNumber::new(n + 1).expect("small");
        runs[run].push((key, seq, KeyKind::Put, vec![7; 100]));
    }
    runs.into_iter().map(VecCursor::new).collect()
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(ENTRY_COUNT));
    for (count, stretch) in [(1, 1), (2, 1), (5, 1), (16, 1), (2, 1000), (5, 1000)] {
        let runs = runs(count, stretch);
        let mut merge = Merge::new(runs.clone(), 0);
        group.bench_function(format!("{count} runs, turns of {stretch}"), |bencher| {
            bencher.iter(|| {
                let mut live = merge.seek_to_first().expect("in memory");
                while live {
                    black_box(merge.key().seq);
                    live = merge.next().expect("in memory");
                }
            });
        });
        let mut general = MergeCursor::new(runs);
        group.bench_function(
            format!("{count} runs, turns of {stretch}, both directions"),
            |bencher| {
                bencher.iter(|| {
                    let mut live = general.seek_to_first().expect("in memory");
                    while live {
                        black_box(general.key().seq);
                        live = general.next().expect("in memory");
                    }
                });
            },
        );
    }
    group.finish();
}

#[derive(Debug)]
struct Keep;

impl Reaper for Keep {
    fn reap(&self, _: Arc<TableHandle>) {}
}

fn context(dir: &Path) -> JobContext {
    let next = AtomicU64::new(1);
    JobContext {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock::new()),
        dir: dir.to_owned(),
        numbers: Arc::new(move || FileNumber(next.fetch_add(1, Ordering::Relaxed))),
        executor: Arc::new(Inline),
        table_options: Arc::new(|level, reason| TableOptions {
            level,
            reason,
            ..TableOptions::default()
        }),
        table_bytes_target: 64 << 20,
        ahead_bytes: 1 << 20,
        snapshots: Vec::new(),
        visible: SequenceNumber::MAX,
        cancel: Arc::default(),
    }
}

/// All entries in a memtable, put there in another order.
fn filled() -> Arc<Memtable> {
    let options = TableOptions::default();
    let memtable = Memtable::new(MemtableOptions::default());
    for n in 0..ENTRY_COUNT {
        // An odd factor: every key once.
        let key = format!("{:016}", n.wrapping_mul(7_919) % ENTRY_COUNT).into_bytes();
        let seq = SequenceNumber::new(n + 1).expect("small");
        let key = InternalKey::new(&key, seq, KeyKind::Put);
        memtable.insert(key, options.hash_seed.hash(key.user_key), &[7; 100]);
    }
    memtable
}

fn remove(dir: &Path, output: &JobOutput) {
    for (_, meta) in &output.added {
        OsFs.remove_file(&FileKind::Table.path(dir, meta.number))
            .expect("it was made");
    }
}

fn jobs(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let context = context(dir.path());
    let mut group = criterion.benchmark_group("job");
    group.throughput(Throughput::Elements(ENTRY_COUNT));
    group.sample_size(10);
    let memtable = filled();
    group.bench_function("flush", |bencher| {
        bencher.iter(|| {
            let runs = vec![memtable.cursor()];
            let output = job::flush(&context, &Version::empty(), runs).expect("written");
            remove(dir.path(), &output);
        });
    });
    let fs: Arc<dyn FileSystem> = Arc::new(OsFs);
    let cache = TableCache::new(fs, dir.path().into(), ReaderOptions::default(), 64);
    for (count, stretch) in [(2, 1), (5, 1), (2, 1000), (5, 1000)] {
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        for (run, place) in runs(count, stretch).into_iter().zip(1..) {
            let output = job::flush(&context, &Version::empty(), vec![run]).expect("written");
            for (level, mut meta) in output.added {
                // The runs interleave in time too, which level 0 does not allow; the merge does
                // not mind.
                let seq = SequenceNumber::new(place).expect("small");
                (meta.seq_smallest, meta.seq_largest) = (seq, seq);
                edit.added.push((level, meta));
            }
        }
        let version = Version::empty()
            .apply(&edit, &mut |meta| {
                let handle = cache.handle(meta.number, meta.file_id, meta.file_bytes);
                Table::new(meta, handle, Arc::new(Keep))
            })
            .expect("sound");
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        let busy = InProgress::default();
        let tuning = Tuning::default();
        let plan = policy::pick_manual(&version, &busy, &tuning, from, to, Level::ZERO)
            .expect("level 0 is not empty");
        group.bench_function(
            format!("compact {count} tables, turns of {stretch}"),
            |bencher| {
                bencher.iter(|| {
                    let output = job::compact(&context, &version, &plan).expect("written");
                    remove(dir.path(), &output);
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, merge, jobs);
criterion_main!(benches);
