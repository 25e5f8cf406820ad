//! What the tests of this crate share: a log with known content on any file system, and an oracle
//! that knows what must be read back.

use std::path::{Path, PathBuf};

use base::clock::ManualClock;
use base::fs::sim::{CrashModel, SimFs};
use base::fs::{DirEntry, File, FileSystem, LockGuard, Status, Watch};
pub(crate) use base::random::Random;
use base::sync::Arc;
use base::sync::Mutex;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{FileKind, FileNumber, Result, SequenceNumber, ids};

use crate::recovery::{Prepared, RecoverConfig, prepare};
use crate::{
    Anchor, Appended, Log, LogAppend, LogConfig, Position, RecordKind, RecordMeta, RecoveryMode,
    Replay, SealedSegment, SegmentHeader, SegmentReader, Successor,
};

/// Where the logs of the tests live on a simulated disk.
pub(crate) const DIR: &str = "/db";
pub(crate) const DATABASE_ID: u128 = 0xfeed_beef;
/// What the clocks show at first.
pub(crate) const START_MICROS: u64 = 1_000_000;

pub(crate) fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

/// How many operations the record that begins with `first` holds.
pub(crate) fn op_count(first: u64) -> u32 {
    u32::try_from(1 + first % 3).expect("at most three")
}

/// What the record that begins with `first` holds; now and then something larger.
pub(crate) fn payload(first: u64) -> Vec<u8> {
    let mut random = Random(first);
    let max = if first % 19 == 18 { 1500 } else { 120 };
    let len = random.below(max);
    (0..len)
        .map(|_| random.next_u64().to_le_bytes()[0])
        .collect()
}

/// A header for a segment that stands alone.
pub(crate) fn header(ordinal: u64) -> SegmentHeader {
    SegmentHeader {
        file_id: 77,
        database_id: DATABASE_ID,
        epoch: 1,
        number: FileNumber(1),
        ordinal,
        created_micros: START_MICROS,
        anchor: Anchor {
            seq: SequenceNumber::ZERO,
            commit_micros: START_MICROS,
        },
        is_copy: false,
    }
}

/// The meta of a batch for [`header`]'s segment.
pub(crate) fn batch(first: u64) -> RecordMeta {
    RecordMeta {
        kind: RecordKind::Batch,
        first_seq: seq(first),
        op_count: op_count(first),
        commit_micros: START_MICROS + first,
        durable_upto: None,
    }
}

/// A simulated disk with an empty, durable [`DIR`].
pub(crate) fn sim(seed: u64) -> Arc<SimFs> {
    let fs = SimFs::new(seed);
    fs.create_dir(Path::new(DIR)).expect("created");
    fs.sync_dir(Path::new("/")).expect("synced");
    fs
}

/// What a crash of `fs` now leaves under `model`. Unlike [`SimFs::crash_image`] with one seed, no
/// two of them hand out the same file ids.
pub(crate) fn image_of(fs: &SimFs, model: CrashModel) -> Arc<SimFs> {
    fs.crash_image(&model, fs.random_u64())
}

/// The form in which the tests append: `SILTSTONE_LOG_APPEND` may say `mapped` or `positioned`.
pub(crate) fn append_form() -> LogAppend {
    match std::env::var("SILTSTONE_LOG_APPEND").as_deref() {
        Ok("mapped") => LogAppend::Mapped,
        Ok("positioned") => LogAppend::Positioned,
        Ok(other) => panic!("SILTSTONE_LOG_APPEND is neither mapped nor positioned: {other}"),
        Err(_) => LogAppend::Auto,
    }
}

/// A place for a log: file system, clock, numbers and options.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: PathBuf,
    pub(crate) next_number: Arc<AtomicU64>,
    pub(crate) epoch: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve: bool,
    pub(crate) append: LogAppend,
}

impl Site {
    /// A place in `dir`, where file numbers go on after those that are there.
    pub(crate) fn in_dir(fs: Arc<dyn FileSystem>, dir: &Path) -> Self {
        let mut newest = 0;
        for dir in [dir.to_owned(), dir.join(ids::LOST)] {
            for entry in fs.list(&dir).unwrap_or_default() {
                let number = FileKind::parse(&entry.name).map_or(0, |(_, number)| number.0);
                newest = newest.max(number);
            }
        }
        Self {
            fs,
            clock: Arc::new(ManualClock::new(START_MICROS)),
            dir: dir.to_owned(),
            // Far on, as the leases of an engine do it: a crash may have lost a name.
            next_number: Arc::new(AtomicU64::new(newest + 100)),
            epoch: 1,
            segment_bytes: 4096,
            reserve: true,
            append: append_form(),
        }
    }

    pub(crate) fn new(fs: Arc<dyn FileSystem>) -> Self {
        Self::in_dir(fs, Path::new(DIR))
    }

    fn numbers(&self) -> Arc<dyn Fn() -> FileNumber + Send + Sync> {
        let next = Arc::clone(&self.next_number);
        Arc::new(move || FileNumber(next.fetch_add(1, Ordering::SeqCst)))
    }

    pub(crate) fn config(&self) -> LogConfig {
        LogConfig {
            fs: Arc::clone(&self.fs),
            clock: self.clock.clone(),
            dir: self.dir.clone(),
            numbers: self.numbers(),
            database_id: DATABASE_ID,
            epoch: self.epoch,
            segment_bytes: self.segment_bytes,
            index_interval_bytes: 256,
            reserve: self.reserve,
            append: self.append,
        }
    }

    /// A new log.
    pub(crate) fn start(&self) -> Arc<Log> {
        Log::start(self.config(), Successor::first(seq(1))).expect("started")
    }

    /// Recovers with the settings that `change` makes of the usual ones.
    pub(crate) fn recover_with<'a>(
        &self,
        change: impl FnOnce(&mut RecoverConfig<'a>),
    ) -> Result<Prepared> {
        let mut config = RecoverConfig {
            fs: Arc::clone(&self.fs),
            clock: self.clock.clone(),
            dir: self.dir.clone(),
            mode: RecoveryMode::TornTail,
            floor: SequenceNumber::ZERO,
            flushed_max: SequenceNumber::ZERO,
            last_seq: SequenceNumber::ZERO,
            durable_upto: None,
            numbers: self.numbers(),
            database_id: DATABASE_ID,
            epoch: self.epoch + 1,
            clean: false,
            segment_bytes: self.segment_bytes,
            on_progress: &|_| {},
        };
        change(&mut config);
        prepare(&config)
    }

    pub(crate) fn recover(&self) -> Result<Prepared> {
        self.recover_with(|_| {})
    }

    /// The path of a segment.
    pub(crate) fn path(&self, number: FileNumber) -> PathBuf {
        FileKind::Segment.path(&self.dir, number)
    }

    /// First sequence numbers of the records in `segments` from `from` on; each one is checked.
    pub(crate) fn records_from(
        &self,
        segments: &[SealedSegment],
        from: SequenceNumber,
    ) -> Result<Vec<u64>> {
        let mut replay = Replay::open(&*self.fs, &self.dir, segments, from)?;
        let mut found = Vec::new();
        let mut commit_micros = 0;
        while let Some(record) = replay.next()? {
            check(&record.meta, record.payload);
            assert!(record.meta.commit_micros >= commit_micros, "time goes back");
            commit_micros = record.meta.commit_micros;
            found.push(record.meta.first_seq.get());
        }
        Ok(found)
    }

    pub(crate) fn records(&self, prepared: &Prepared) -> Vec<u64> {
        self.records_from(&prepared.segments, SequenceNumber::ZERO)
            .expect("what recovery accepted can be read")
    }
}

/// Panics unless this is a record that [`Feeder`] appends.
pub(crate) fn check(meta: &RecordMeta, found: &[u8]) {
    let first = meta.first_seq.get();
    assert_eq!(meta.kind, RecordKind::Batch, "record {first}");
    assert_eq!(meta.op_count, op_count(first), "record {first}");
    assert!(found == payload(first), "record {first} has other bytes");
}

/// Appends known records to a log, and keeps account.
#[derive(Clone, Debug)]
pub(crate) struct Feeder {
    pub(crate) next_seq: u64,
    /// First sequence numbers, in order.
    pub(crate) appended: Vec<u64>,
    pub(crate) ends: Vec<Position>,
}

impl Feeder {
    pub(crate) fn new() -> Self {
        Self {
            next_seq: 1,
            appended: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Goes on behind `appended`.
    pub(crate) fn after(appended: Vec<u64>) -> Self {
        let next_seq = appended
            .last()
            .map_or(1, |last| last + u64::from(op_count(*last)));
        Self {
            next_seq,
            appended,
            ends: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, log: &Log) -> Result<Appended> {
        let first = self.next_seq;
        // Counted before it is tried: it may be there although the call fails.
        self.appended.push(first);
        let result = log.append(
            RecordKind::Batch,
            seq(first),
            op_count(first),
            &payload(first),
        );
        if let Ok(appended) = &result {
            self.next_seq += u64::from(op_count(first));
            self.ends.push(appended.end);
        }
        result
    }

    pub(crate) fn append_many(&mut self, log: &Log, count: usize) {
        for _ in 0..count {
            self.append(log).expect("appended");
        }
    }
}

/// Begins the log again behind what was recovered, and removes what no longer counts, as an engine
/// does.
pub(crate) fn go_on(site: &Site, prepared: &Prepared) -> Result<Arc<Log>> {
    let log = Log::start(site.config(), prepared.successor.clone())?;
    for number in &prepared.obsolete {
        for kind in [FileKind::Segment, FileKind::SegmentIndex] {
            match site.fs.remove_file(&kind.path(&site.dir, *number)) {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(log)
}

/// Every record of one segment, begin record and checks left out.
pub(crate) fn first_seqs(reader: &mut SegmentReader) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    while let Some(record) = reader.next()? {
        if record.meta.kind == RecordKind::Batch {
            check(&record.meta, record.payload);
            found.push(record.meta.first_seq.get());
        }
    }
    Ok(found)
}

/// Calls a hook before every `list`, so that something can happen between two looks of a reader.
pub(crate) struct ListHook {
    pub(crate) inner: Arc<dyn FileSystem>,
    pub(crate) hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for ListHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListHook").finish_non_exhaustive()
    }
}

impl FileSystem for ListHook {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.inner.open(path)
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.inner.open_untrusted(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.inner.remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.inner.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        self.inner.list(dir)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        self.inner.status(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        self.inner.watch(dir)
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}
