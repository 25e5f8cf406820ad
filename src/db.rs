//! `Db`: the handle on an open database. Every method delegates in a few lines.

use std::fmt;
use std::path::Path;

use base::Result;
use base::sync::Arc;

use crate::amplification::Amplification;
use crate::batch::WriteBatch;
use crate::commit::Commit;
use crate::health::Health;
use crate::keyspace::{Keyspace, Snapshot};
use crate::options::{KeyspaceOptions, Options, WriteOptions};
use crate::range::KeyRange;
use crate::recovery;
use crate::registry::no_such_keyspace;
use crate::seams::Seams;
use crate::stats::Stats;
use crate::tuning::Settings;
use crate::view::{View, read_methods};

mod checkpoint;
mod handle;
mod read_only;
pub(crate) use handle::Handle;
use handle::assemble;

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
pub struct Db(pub(crate) Arc<Handle>);

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("health", &self.health())
            .finish_non_exhaustive()
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
        if let Some(file) = &db.0.stats_file {
            let step = Arc::clone(file).into_step();
            db.0.background.start_more("siltstone-stats", step)?;
        }
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
        let keyspace = self.0.default_keyspace();
        self.0
            .write_one(keyspace, key.as_ref(), Some(value.as_ref()), options)
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
        let keyspace = self.0.default_keyspace();
        self.0.write_one(keyspace, key.as_ref(), None, options)
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

    /// Pins what is visible now, in all keyspaces: reads of the snapshot see exactly that, whatever
    /// happens later. It reads `default`; see [`Snapshot::keyspace`] for others.
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

    /// Creates a keyspace, which is there for good once this returns: it survives a power cut.
    ///
    /// `name` is 1 to 255 bytes long. The options are kept with it. An empty keyspace costs some
    /// kilobytes of memory and a hundred bytes of disk.
    ///
    /// # Errors
    /// `Conflict` if there is one of that name, `InvalidArgument` for a name or an option out of
    /// range; otherwise as for [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::{ErrorKind, KeyspaceOptions};
    /// let options = KeyspaceOptions::new().memtable_bytes_max(4 << 20);
    /// let events = db.create_keyspace("events", &options)?;
    /// events.put("key", "value")?;
    /// assert_eq!(db.get("key")?, None);
    /// let again = db.create_keyspace("events", &options).expect_err("it is there");
    /// assert_eq!(again.kind(), ErrorKind::Conflict);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_keyspace(&self, name: &str, options: &KeyspaceOptions) -> Result<Keyspace> {
        let versions = self.0.background.tree.versions();
        let (commit, sweeper) = (&self.0.commit, &self.0.sweeper);
        let state = commit.create_keyspace(versions, sweeper, name, options.settings())?;
        Ok(Keyspace::new(Arc::clone(&self.0), state))
    }

    /// Drops a keyspace with all it holds. Handles on it return `NotFound` from then on.
    ///
    /// Its tables are unlinked once no cursor, iterator, slice or snapshot from before the drop is
    /// left. Its name may be used again.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name, `InvalidArgument` for `default`; otherwise as for
    /// [`Db::put`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::{ErrorKind, KeyspaceOptions};
    /// let events = db.create_keyspace("events", &KeyspaceOptions::new())?;
    /// db.drop_keyspace("events")?;
    /// let error = events.get("key").expect_err("it is gone");
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// assert_eq!(error.to_string(), "the keyspace was dropped name=events");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        let versions = self.0.background.tree.versions();
        self.0.commit.drop_keyspace(versions, name)
    }

    /// The names of all keyspaces, sorted; `default` is one of them.
    ///
    /// # Errors
    /// `Closed`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.create_keyspace("events", &siltstone::KeyspaceOptions::new())?;
    /// assert_eq!(db.keyspaces()?, ["default", "events"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keyspaces(&self) -> Result<Vec<String>> {
        self.0.reads.health.check_open()?;
        Ok(self.0.commit.keyspaces.names())
    }

    /// The keyspace called `name`. The methods of `Db` itself work on `default`, which is always
    /// there.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name, `Closed`.
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
        let state = self.0.commit.keyspaces.by_name(name);
        let state = state.ok_or_else(|| no_such_keyspace(name))?;
        Ok(Keyspace::new(Arc::clone(&self.0), state))
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
    /// the directory, whatever other handles there are. They return `Closed` from then on, and so
    /// do compactions and checkpoints that were under way, which it waits for.
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
