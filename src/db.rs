//! `Db`: the handle on an open database. Every method delegates in a few lines.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use base::fs::LockGuard;
use base::sync::atomic::AtomicUsize;
use base::sync::{Arc, Mutex};
use base::{ErrorKind, KeyspaceId, PinLedger, Result};
use sstable::BlockCache;

use crate::amplification::Amplification;
use crate::background::Background;
use crate::batch::WriteBatch;
use crate::commit::{Commit, CommitPath, CommitState};
use crate::events::is_telling;
use crate::health::Health;
use crate::keyspace::{Keyspace, Snapshot};
use crate::options::{Options, WriteOptions};
use crate::range::KeyRange;
use crate::recovery::{self, Opened};
use crate::reserve::SpaceReserve;
use crate::seams::Seams;
use crate::stall::Gate;
use crate::stats::Stats;
use crate::superversion::KeyspaceState;
use crate::sweeper::Sweeper;
use crate::tree::Tree;
use crate::tuning::Settings;
use crate::view::{ReadRooms, View, read_methods};

mod read_only;

/// Buffers of single writes up to this size are kept for the thread's next one.
const KEPT_BUFFER_BYTES_MAX: usize = 64 << 10;

/// An open database.
///
/// Cheap to clone; `Send` and `Sync`. The directory is locked until every clone and every
/// [`Keyspace`] is dropped, or [`close`](Db::close) is called. Dropping the last handle syncs the
/// log as well as it can and flushes nothing: the next open replays. Snapshots, cursors and
/// iterators do not hold the lock; after a close they return `Closed`, and slices stay valid.
///
/// Which calls block: a write may wait for the disk with [`Durability::Disk`](crate::Durability),
/// and for flush or compaction when these are too far behind; a read may wait for a read from disk;
/// `open`, `flush`, `compact_range`, `sync`, `wait_for_compactions` and `close` wait for what they
/// say. Reads never wait for flush, compaction or writers.
///
/// A child of `fork` must not use what its parent opened: every call there returns `Closed`, and
/// dropping a handle touches neither files nor locks nor threads. The directory stays locked until
/// parent and child have both let go of their handles.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// assert_eq!(db.get("key")?.as_deref(), Some(&b"value"[..]));
/// db.delete("key")?;
/// assert_eq!(db.get("key")?, None);
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Db(Arc<Handle>);

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

/// What all clones share; its end is the end of the database.
pub(crate) struct Handle {
    pub(crate) reads: ReadRooms,
    pub(crate) commit: CommitPath,
    pub(crate) background: Arc<Background>,
    sweeper: Arc<Sweeper>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) pins: Arc<PinLedger>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Handle {
    pub(crate) fn write_one(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: Option<&[u8]>,
        options: &WriteOptions,
    ) -> Result<Commit> {
        let mut batch = WriteBatch::reusing(BUFFER.take());
        batch.add(keyspace, key, value);
        let result = self.write(&batch, options);
        let buffer = batch.into_buffer();
        if buffer.capacity() <= KEPT_BUFFER_BYTES_MAX {
            BUFFER.set(buffer);
        }
        result
    }

    fn write(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<Commit> {
        let durability = options.durability_or(self.commit.durability);
        self.commit.write(batch, durability, options.patience())
    }

    pub(crate) fn default_keyspace(&self) -> &Arc<KeyspaceState> {
        self.commit.keyspaces.default()
    }

    pub(crate) fn flush(&self, keyspace: &KeyspaceState) -> Result<()> {
        self.commit.health.check_writable()?;
        match self.commit.seal(keyspace) {
            Some(memtable) => self.background.wait_for_flush(keyspace, &memtable),
            None => Ok(()),
        }
    }

    pub(crate) fn compact_range(
        &self,
        keyspace: &KeyspaceState,
        range: &impl KeyRange,
    ) -> Result<()> {
        self.flush(keyspace)?;
        self.background
            .compact_range(keyspace, (range.start(), range.end()))
    }

    fn close(&self) -> Result<()> {
        if self.commit.health.is_inherited() {
            return self.commit.health.check_open();
        }
        if is_telling() {
            return self.commit.health.check_writable();
        }
        if self.commit.health.is_read_only() {
            self.finish();
            return Ok(());
        }
        let Some(sealed) = self.commit.begin_close() else {
            return Ok(());
        };
        let mut result = self.commit.health.check_writable();
        for (keyspace, memtable) in &sealed {
            if result.is_ok() {
                result = self.background.wait_for_flush(keyspace, memtable);
            }
        }
        self.background.stop();
        let log_closed = self.commit.log.close();
        result = result.and(log_closed);
        if result.is_ok() {
            self.background.retire_segments();
            let last_seq = self.commit.snapshots.visible();
            let versions = self.background.tree.versions();
            result = versions.mark_clean_close(self.commit.log.durable_upto(), last_seq);
        }
        self.finish();
        result
    }

    /// Shuts every door and lets go of the directory.
    fn finish(&self) {
        self.commit.health.close();
        self.commit.signals.progress.ring();
        // Once for what was waiting, once for tables that the first sweep let go of.
        self.sweeper.sweep();
        self.sweeper.sweep();
        self.lock.lock().take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.commit.health.is_inherited() {
            // The parent's: no lock, no sync, no thread to wait for. Memory goes by itself.
            return;
        }
        if self.commit.begin_close().is_some() {
            self.background.stop();
            // As well as it can: who needs to know calls `sync` or `close`.
            let _ = self.commit.log.sync();
            self.finish();
        }
    }
}

impl Db {
    /// Opens the database in the directory `path` with default [`Options`]; makes it if there is
    /// none.
    ///
    /// # Errors
    /// As for [`Options::open`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = siltstone::Db::open(dir.path().join("new"))?;
    /// assert_eq!(db.iter()?.count(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(path: &Path, settings: &Settings, seams: &Seams) -> Result<Self> {
        let opened = recovery::open(path, settings, seams)?;
        let db = Self(Arc::new(assemble(opened, settings, seams)));
        db.0.background.start()?;
        Ok(db)
    }

    fn view(&self) -> View<'_> {
        View {
            rooms: &self.0.reads,
            keyspace: self.0.default_keyspace(),
            registration: None,
        }
    }

    read_methods!("let view = &db;");

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// `InvalidArgument` if key or value exceeds its limit (65,535 bytes and
    /// [`Options::value_bytes_max`]); `NoSpace`, `Io`; `Poisoned` after an earlier failed sync;
    /// `Closed`. [`Error::outcome`](crate::Error::outcome) says whether the write can still turn up
    /// after a reopen; `Busy` if [`WriteOptions`] limit how long it may wait. So for every write.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// db.put(b"", b"the empty key is a key")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Commit> {
        self.put_with(key, value, &WriteOptions::new())
    }

    /// Sets `key` to `value`, as `options` say.
    ///
    /// # Errors
    /// As for [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # use siltstone::{Durability, WriteOptions};
    /// db.put_with("key", "value", &WriteOptions::new().durability(Durability::Disk))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Commit> {
        self.0.write_one(
            KeyspaceId::DEFAULT,
            key.as_ref(),
            Some(value.as_ref()),
            options,
        )
    }

    /// Removes `key`, there or not.
    ///
    /// # Errors
    /// As for [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.delete("never there")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Commit> {
        self.delete_with(key, &WriteOptions::new())
    }

    /// Removes `key`, as `options` say.
    ///
    /// # Errors
    /// As for [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # use siltstone::{Durability, WriteOptions};
    /// db.delete_with("key", &WriteOptions::new().durability(Durability::Disk))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<Commit> {
        self.0
            .write_one(KeyspaceId::DEFAULT, key.as_ref(), None, options)
    }

    /// Commits all operations of `batch` together.
    ///
    /// # Errors
    /// As for [`Db::put`]; all or nothing, also then.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let mut batch = siltstone::WriteBatch::new();
    /// batch.put("a", "1").put("b", "2");
    /// db.write(&batch)?;
    /// assert_eq!(db.iter()?.count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(&self, batch: &WriteBatch) -> Result<Commit> {
        self.write_with(batch, &WriteOptions::new())
    }

    /// Commits all operations of `batch` together, as `options` say.
    ///
    /// # Errors
    /// As for [`Db::write`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # use siltstone::{Durability, WriteBatch, WriteOptions};
    /// let disk = WriteOptions::new().durability(Durability::Disk);
    /// db.write_with(WriteBatch::new().put("a", "1"), &disk)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_with(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<Commit> {
        self.0.write(batch, options)
    }

    /// Pins what is visible now: reads of the snapshot see exactly that, whatever happens later.
    ///
    /// Cheap. Compaction keeps what a snapshot sees, so it should not be kept for ever.
    ///
    /// # Errors
    /// `Closed`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("key", "old")?;
    /// let snapshot = db.snapshot()?;
    /// db.put("key", "new")?;
    /// assert_eq!(snapshot.get("key")?.as_deref(), Some(&b"old"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.0.reads.health.check_open()?;
        let registration = self.0.reads.snapshots.register();
        let keyspace = Arc::clone(self.0.default_keyspace());
        Ok(Snapshot::new(self.0.reads.clone(), keyspace, registration))
    }

    /// The keyspace called `name`. In this version there is one, `default`, on which the methods of
    /// `Db` itself work.
    ///
    /// # Errors
    /// `NotFound` for any other name, `Closed`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let keyspace = db.keyspace("default")?;
    /// keyspace.put("key", "value")?;
    /// assert!(db.contains_key("key")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.0.reads.health.check_open()?;
        let state = self.0.commit.keyspaces.by_name(name).ok_or_else(|| {
            crate::Error::new(ErrorKind::NotFound, "there is no such keyspace")
                .with_value("name", name)
        })?;
        Ok(Keyspace::new(Arc::clone(&self.0), Arc::clone(state)))
    }

    /// Writes the memtable to a table, and waits for it.
    ///
    /// Not needed for durability: that is [`Db::sync`]. Shortens the next recovery.
    ///
    /// # Errors
    /// As for [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// db.flush()?;
    /// assert_eq!(db.stats().flush_count, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.0.flush(self.0.default_keyspace())
    }

    /// Compacts every table with keys in `range`, down to the deepest level that has any, and waits
    /// for it. Frees what was overwritten or deleted and no snapshot sees.
    ///
    /// # Errors
    /// As for [`Db::put`]; `Corruption` if a table is damaged, whose inputs are then kept.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// db.delete("key")?;
    /// db.compact_range(..)?;
    /// assert_eq!(db.stats().table_bytes(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(
        clippy::needless_pass_by_value,
        reason = "`compact_range(a..b)` reads as it should"
    )]
    pub fn compact_range(&self, range: impl KeyRange) -> Result<()> {
        self.0.compact_range(self.0.default_keyspace(), &range)
    }

    /// Makes every commit that has returned so far durable, as if written with
    /// [`Durability::Disk`](crate::Durability::Disk).
    ///
    /// # Errors
    /// `Poisoned`, `Io`: then nothing is known of the commits since the last sync, and the database
    /// takes no more writes until it is reopened. It is never tried again.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// db.sync()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.0.commit.sync()
    }

    /// Waits until no flush and no compaction runs or is due.
    ///
    /// # Errors
    /// If one fails, or the database is closed.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.wait_for_compactions()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_compactions(&self) -> Result<()> {
        self.0.reads.health.check_open()?;
        self.0.background.wait_for_rest()
    }

    /// Whether it takes writes, and if not, why.
    pub fn health(&self) -> Health {
        self.0.commit.health.report()
    }

    /// What it did since it was opened, and what it holds.
    ///
    /// All zero in a process that was forked from the one that opened it.
    pub fn stats(&self) -> Stats {
        if self.0.commit.health.is_inherited() {
            return Stats::default();
        }
        self.0.stats()
    }

    /// What it costs by cause: bytes written for each byte of user data, tables and blocks touched
    /// for each read, bytes on disk for each byte that counts. Since it was opened.
    ///
    /// All zero in a process that was forked from the one that opened it.
    pub fn amplification(&self) -> Amplification {
        if self.0.commit.health.is_inherited() {
            return Amplification::default();
        }
        self.0.amplification()
    }

    /// Flushes, seals and syncs everything, so that the next open replays nothing, and lets go of
    /// the directory, whatever other handles there are. They return `Closed` from then on.
    ///
    /// Closing twice is no error.
    ///
    /// # Errors
    /// If something could not be written; the database is closed all the same, and what the log
    /// holds is replayed by the next open.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let other = db.clone();
    /// db.close()?;
    /// assert_eq!(other.get("key").expect_err("closed").kind(), siltstone::ErrorKind::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

/// Builds the rooms that act out of those that hold state.
fn assemble(opened: Opened, settings: &Settings, seams: &Seams) -> Handle {
    let gate = Gate {
        executor: Arc::clone(&seams.executor),
        clock: Arc::clone(&seams.clock),
        signals: Arc::clone(&opened.signals),
        health: Arc::clone(&opened.health),
        ledger: Arc::clone(&opened.ledger),
        listener: seams.listener.clone(),
        waiting: AtomicUsize::new(0),
    };
    let state = CommitState {
        next_seq: opened.next_seq,
        last_seq: opened.snapshots.visible(),
        log_end: opened.log.end(),
        is_log_switched: true,
        is_closing: false,
    };
    let commit = CommitPath {
        log: Arc::clone(&opened.log),
        keyspaces: opened.keyspaces,
        snapshots: Arc::clone(&opened.snapshots),
        gate,
        signals: opened.signals,
        health: Arc::clone(&opened.health),
        memtables: opened.memtables,
        hash_seed: opened.hash_seed,
        reserve: SpaceReserve::new(
            Arc::clone(&opened.rooms.fs),
            &opened.rooms.dir,
            settings.reserve_bytes(),
        ),
        log_bytes_max: settings.log_bytes_max,
        value_bytes_max: settings.value_bytes_max,
        durability: settings.durability,
        state: Mutex::new(state),
    };
    let tree = Tree::new(seams, &opened.rooms, &opened.versions, opened.hash_seed);
    let sweeper = Arc::clone(&opened.rooms.sweeper);
    let background = Background::new(
        tree,
        opened.log,
        &commit,
        Arc::clone(&sweeper),
        settings,
        seams,
    );
    Handle {
        reads: ReadRooms {
            snapshots: opened.snapshots,
            health: opened.health,
            ledger: opened.ledger,
            hash_seed: opened.hash_seed,
        },
        commit,
        background,
        sweeper,
        cache: opened.cache,
        pins: opened.pins,
        lock: Mutex::new(Some(opened.lock)),
    }
}
