//! The builder that opens a database.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use base::Result;
use base::clock::{Clock, SystemClock};
use base::executor::{Executor, Inline, Scatter, Threads};
use base::fs::{FileSystem, OsFs};
use base::sync::Arc;
use compaction::pool::RayonPool;
use log::{LogAppend, RecoveryMode};
use memtable::MemtableStructure;
use sstable::{Compression, FilterPolicy, ReadMode, Verify};

use crate::db::Db;
use crate::events::{Event, Listener};
use crate::seams::Seams;
use crate::stall::Patience;
use crate::tuning::{Durability, KeyspaceSettings, Settings};

mod keyspace;
pub use keyspace::KeyspaceOptions;
use keyspace::{keyspace_setters, setters};

/// How to open a database. Every option has a sound default; all are checked when it is opened.
///
/// Those that [`KeyspaceOptions`] has too are for the keyspace `default`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use siltstone::{Durability, Options};
/// let db = Options::new()
///     .memtable_bytes_max(16 << 20)
///     .durability(Durability::Disk)
///     .open(dir.path())?;
/// assert!(db.put("key", "value")?.is_durable());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Options {
    settings: Settings,
    listener: Listener,
    fs: Option<Arc<dyn FileSystem>>,
    clock: Option<Arc<dyn Clock>>,
    executor: Option<Arc<dyn Executor>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        settings_mut;

        /// Whether to make a database where there is none. Default: `true`.
        ///
        /// Without it, a missing directory and an empty one are `NotFound`.
        create_if_missing: bool,

        /// What the memtables of all keyspaces may take together, in bytes. Default: 512 MiB.
        ///
        /// Counted is all they have taken from the system, with flushed ones that slices or cursors
        /// still keep. Once half of it is in active ones, the largest is sealed before it is full;
        /// from three quarters on writers are slowed to what flushes give back, and at the bound
        /// they wait for that. Slices keep at most about a quarter: beyond that they are copies.
        /// What long-lived cursors and iterators keep is not refused: then writers get by with an
        /// eighth. From 16 KiB.
        memtable_bytes_total: usize,

        /// How large a segment of the log becomes, in bytes. Default: 64 MiB.
        ///
        /// The log is freed by whole segments. A larger batch gets a segment of its own size. From
        /// 4 KiB to 16 GiB.
        log_segment_bytes: u64,

        /// At what size of the log memtables are flushed to free it, in bytes. Default: 1 GiB.
        ///
        /// Bounds the time that a recovery takes. At least `log_segment_bytes`.
        log_bytes_max: u64,

        /// Whether space is kept back so that deletes work on a full disk. Default: `true`.
        ///
        /// Five quarters of `log_segment_bytes`, in a file called `RESERVE`, where the file system
        /// can reserve space, and only once no more than sixteen times as much is free. How much is
        /// free is looked at once for every `sync_interval` and MiB of log. Once deletes have used
        /// the space up, puts fail with `NoSpace` until twice as much is free. An open for which
        /// there is no room uses it up as well.
        keep_space_for_deletes: bool,

        /// How much of the log is kept although it is flushed, in bytes. Default: 0.
        log_keep_bytes: u64,

        /// How long the log is kept although it is flushed. Default: not at all.
        log_keep_age: Duration,

        /// How writes come into the log. Default: [`LogAppend::Auto`], the faster form.
        ///
        /// Through a mapping, a write makes no system call; but a disk that fails in the middle of
        /// a write, or somebody who cuts the file, ends the process with SIGBUS. No write that was
        /// acknowledged as durable is lost by that. [`LogAppend::Positioned`] makes it an error.
        /// `Auto` takes the mapping, and positioned writes while each few writes are synced.
        log_append: LogAppend,

        /// How tables are read. Default: [`ReadMode::Auto`].
        ///
        /// Mapped reads cost no copy and leave caching to the operating system. Positioned reads go
        /// through the block cache of `cache_bytes`: choose them when the data is much larger than
        /// memory, or where a failing disk must not end the process. `Auto` maps while the tables
        /// of all keyspaces take no more than four fifths of the memory that the system, or the
        /// control group of the process, has for cached files, and changes back at half of it. It
        /// looks when the database is opened and, after flushes and compactions, at most every five
        /// seconds; never on the path of a read.
        read_mode: ReadMode,

        /// When checksums are checked. Default: at the first touch of a block.
        verify_reads: Verify,

        /// What the block cache may hold, in bytes. Default: 256 MiB.
        ///
        /// Used for positioned reads and for compressed blocks only. What open tables keep in
        /// memory counts as well: index and filter of positioned ones, dictionaries. Beyond half
        /// of it those not used for long are closed, down to eight; blocks get at least a quarter.
        cache_bytes: u64,

        /// How many tables are kept open. Default: 512. From 16 to 1,048,576.
        ///
        /// With positioned reads each costs a file descriptor, with mapped ones a mapping.
        open_tables_max: usize,

        /// When a write counts as done unless it says otherwise. Default: [`Durability::Os`].
        durability: Durability,

        /// How often the log is synced in the background. Default: every second.
        ///
        /// Bounds what a power cut can take from [`Durability::Os`] writes. `None` turns it off.
        /// From 1 millisecond to an hour.
        sync_interval: Option<Duration>,

        /// How many threads compact. Default: the number of processors, at most 4.
        ///
        /// A private pool; not used with an own [`Options::executor`]. From 1 to 256.
        compaction_threads: usize,

        /// How long nothing must have been written before level 0 is emptied although it is not
        /// due. Default: 10 seconds.
        ///
        /// So reads after a burst of writes see few runs, and little space is taken by what was
        /// overwritten: no level holds more than a `level_fan_out` part of the one below. Costs
        /// one thread, and at most `level_fan_out + 1` bytes for each byte that goes down;
        /// [`Db::wait_for_compactions`] does not wait for it. `None` turns it off. From 1
        /// millisecond to a day.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// use std::time::Duration;
        /// use siltstone::Options;
        /// let options = Options::new().idle_compaction_after(Some(Duration::from_secs(60)));
        /// let db = options.open(dir.path())?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        idle_compaction_after: Option<Duration>,

        /// How often what [`Db::stats`] and [`Db::amplification`] tell is written to a file called
        /// `STATS` in the directory, for `siltstone top` and [`StatsFile::read`]. Default: never.
        ///
        /// A thread of its own writes it; no read and no write waits for that. It is replaced as a
        /// whole, never synced, counted in [`WriteAmplification::stats_file`], and removed when the
        /// database is closed. Where it cannot be written the database goes on without:
        /// [`Stats::stats_file_failure_count`]. Without effect for a handle that only reads. From 1
        /// millisecond to an hour.
        ///
        /// [`Stats::stats_file_failure_count`]: crate::Stats::stats_file_failure_count
        /// [`StatsFile::read`]: crate::StatsFile::read
        /// [`WriteAmplification::stats_file`]: crate::WriteAmplification::stats_file
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// use std::time::Duration;
        /// use siltstone::Options;
        /// let options = Options::new().stats_file_interval(Some(Duration::from_secs(1)));
        /// let db = options.open(dir.path())?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        stats_file_interval: Option<Duration>,

        /// How long a value may be, in bytes. Default: 256 MiB. Below 2 GiB.
        value_bytes_max: usize,

        /// What to do about a log that does not end cleanly. Default: [`RecoveryMode::TornTail`].
        recovery_mode: RecoveryMode,

        /// Below what size MANIFEST is never rewritten, in bytes. Default: 1 MiB.
        ///
        /// From 1 KiB to 1 GiB.
        manifest_bytes_min: u64,
    }

    keyspace_setters!(keyspace_mut);

    fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn keyspace_mut(&mut self) -> &mut KeyspaceSettings {
        &mut self.settings.keyspace
    }

    /// Who is told what happens. Default: nobody. See [`Event`].
    #[must_use]
    pub fn on_event(mut self, listener: Arc<dyn Fn(&Event) + Send + Sync>) -> Self {
        self.listener = Listener::new(listener);
        self
    }

    /// Where files live. Default: the operating system's file system.
    #[must_use]
    pub fn file_system(mut self, fs: Arc<dyn FileSystem>) -> Self {
        self.fs = Some(fs);
        self
    }

    /// What time it is. Default: the machine's clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where background work runs. Default: threads of the database's own.
    #[must_use]
    pub fn executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Opens the database in the directory `path`, after recovering what the log holds.
    ///
    /// Blocks for as long as the recovery takes: a second or so for each GiB of log that was not
    /// yet flushed, next to nothing after a clean [`close`](Db::close).
    ///
    /// # Errors
    /// `InvalidArgument` for an option out of range, a path that is no directory, or a directory of
    /// another program; `NotFound` without a database and without `create_if_missing`;
    /// `AlreadyOpen` if it is in use; `Unsupported` for a newer format; `Corruption`, naming file
    /// and remedy, if something is missing or damaged. Nothing on disk is changed then.
    ///
    /// # Examples
    /// ```
    /// use siltstone::{ErrorKind, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let missing = dir.path().join("missing");
    /// let error = Options::new().create_if_missing(false).open(&missing).expect_err("not there");
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        self.settings.validate()?;
        let pool = || RayonPool::new(self.settings.compaction_threads);
        let seams = self.seams(|| Ok(pool()?))?;
        Db::open_with(path.as_ref(), &self.settings, &seams)
    }

    /// Opens the database in the directory `path` as it is now, for reading only.
    ///
    /// Nothing in the directory is written, created, removed or locked, and another process, or
    /// this one, may have the database open for writing at the same time. The handle shows what had
    /// been written when it was opened and nothing later: open another one to see more. Of a log
    /// that is being written it shows everything up to the first record that is not whole.
    ///
    /// What the log holds is replayed into memory, and kept there. Every table is opened at once
    /// and stays open, whatever `open_tables_max` says: a writer may unlink it. With positioned
    /// reads each costs a file descriptor. `create_if_missing` has no effect. Writes, `flush`,
    /// `sync` and `compact_range` return `Unsupported`.
    ///
    /// # Errors
    /// As for [`Options::open`], but never `AlreadyOpen`. Beside a writer, what looks damaged or
    /// missing is looked at again before it is reported.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use siltstone::{Db, Options};
    /// let db = Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// let reader = Options::new().open_read_only(dir.path())?;
    /// db.put("key", "new")?;
    /// assert_eq!(reader.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_read_only(self, path: impl AsRef<Path>) -> Result<Db> {
        self.settings.validate()?;
        // Nothing is compacted; what recovery scatters is little.
        let seams = self.seams(|| Ok(Arc::new(Inline)))?;
        Db::open_read_only_with(path.as_ref(), &self.settings, &seams)
    }

    /// The seams that were given, and those of the system; `pool` makes one to scatter on.
    fn seams(&self, pool: impl FnOnce() -> Result<Arc<dyn Scatter>>) -> Result<Seams> {
        let executor = match &self.executor {
            Some(executor) => Arc::clone(executor),
            None => Arc::new(Threads::new(pool()?)),
        };
        let fs = self.fs.clone().unwrap_or_else(|| Arc::new(OsFs));
        let clock = self.clock.clone();
        Ok(Seams {
            fs,
            clock: clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            executor,
            listener: self.listener.clone(),
        })
    }
}

/// How one write is made.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// use siltstone::{Durability, WriteOptions};
/// let commit = db.delete_with("key", &WriteOptions::new().durability(Durability::Disk))?;
/// assert!(commit.is_durable());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    durability: Option<Durability>,
    patience: Patience,
}

impl WriteOptions {
    /// As the database says.
    pub const fn new() -> Self {
        Self {
            durability: None,
            patience: Patience::Endless,
        }
    }

    /// When the write counts as done. Default: as [`Options::durability`] says.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Fails with `Busy` rather than wait longer than this for flush and compaction to catch up.
    /// Default: waits as long as it takes.
    ///
    /// The write is rejected then, and may be tried again. Does not bound what a sync takes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use std::time::Duration;
    /// use siltstone::{ErrorKind, WriteOptions};
    /// let soon = WriteOptions::new().deadline(Duration::from_millis(20));
    /// match db.put_with("key", "value", &soon) {
    ///     Err(error) if error.kind() == ErrorKind::Busy => eprintln!("later: {error}"),
    ///     result => drop(result?),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn deadline(mut self, longest: Duration) -> Self {
        self.patience = Patience::AtMost(longest);
        self
    }

    /// Fails with `Busy` rather than wait for flush and compaction at all.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::WriteOptions;
    /// db.put_with("key", "value", &WriteOptions::new().no_wait())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn no_wait(self) -> Self {
        self.deadline(Duration::ZERO)
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn durability_or(&self, default: Durability) -> Durability {
        self.durability.unwrap_or(default)
    }
}
