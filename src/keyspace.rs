//! Handles on one keyspace, and snapshots.

use std::fmt;

use base::pins::Held;
use base::sync::Arc;
use base::{Error, PinKind, Result, SequenceNumber};

use crate::batch::WriteBatch;
use crate::commit::Commit;
use crate::db::Handle;
use crate::options::{KeyspaceOptions, WriteOptions};
use crate::range::KeyRange;
use crate::snapshots::Registration;
use crate::superversion::KeyspaceState;
use crate::view::{ReadRooms, View, read_methods};

/// A named, independent range of keys over the database's one log.
///
/// Cheap to clone, `Send` and `Sync`; keeps the database open as [`Db`](crate::Db) does. After the
/// keyspace was dropped every call returns `NotFound`, also if another one has its name by then;
/// cursors, iterators and slices made before stay as they are, and snapshots from before read on.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let keyspace = db.keyspace("default")?;
/// keyspace.put("key", "value")?;
/// assert_eq!(keyspace.name(), "default");
/// assert!(keyspace.contains_key("key")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<Handle>,
    state: Arc<KeyspaceState>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<Handle>, state: Arc<KeyspaceState>) -> Self {
        Self { handle, state }
    }

    fn view(&self) -> View<'_> {
        View {
            rooms: &self.handle.reads,
            keyspace: &self.state,
            registration: None,
        }
    }

    read_methods!("let view = db.keyspace(\"default\")?;");

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// How it was made; of `default`, how the database was opened.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::KeyspaceOptions;
    /// let options = KeyspaceOptions::new().level_fan_out(4);
    /// let events = db.create_keyspace("events", &options)?;
    /// assert_eq!(events.options().encode(), options.encode());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn options(&self) -> KeyspaceOptions {
        KeyspaceOptions::of(self.state.settings())
    }

    /// Sets `key` to `value` in this keyspace.
    ///
    /// # Errors
    /// As for [`Db::put`](crate::Db::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.put("key", "value")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Commit> {
        self.put_with(key, value, &WriteOptions::new())
    }

    /// Sets `key` to `value` in this keyspace, as `options` say.
    ///
    /// # Errors
    /// As for [`Db::put`](crate::Db::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.put_with("key", "value", &siltstone::WriteOptions::new())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Commit> {
        self.handle
            .write_one(&self.state, key.as_ref(), Some(value.as_ref()), options)
    }

    /// Removes `key` from this keyspace, there or not.
    ///
    /// # Errors
    /// As for [`Db::put`](crate::Db::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.delete("key")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Commit> {
        self.delete_with(key, &WriteOptions::new())
    }

    /// Removes `key` from this keyspace, as `options` say.
    ///
    /// # Errors
    /// As for [`Db::put`](crate::Db::put).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.delete_with("key", &siltstone::WriteOptions::new())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<Commit> {
        self.handle
            .write_one(&self.state, key.as_ref(), None, options)
    }

    /// Writes this keyspace's memtable to a table, and waits for it.
    ///
    /// # Errors
    /// As for [`Db::flush`](crate::Db::flush).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.flush()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.handle.flush(&self.state)
    }

    /// Compacts every table of this keyspace with keys in `range`, and waits for it.
    ///
    /// # Errors
    /// As for [`Db::compact_range`](crate::Db::compact_range).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.keyspace("default")?.compact_range("a".."b")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(
        clippy::needless_pass_by_value,
        reason = "`compact_range(a..b)` reads as it should"
    )]
    pub fn compact_range(&self, range: impl KeyRange) -> Result<()> {
        self.handle.compact_range(&self.state, &range)
    }
}

impl WriteBatch {
    /// Sets `key` to `value` in `keyspace`. Limits, and whether the keyspace is still there, are
    /// checked when the batch is written.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::{KeyspaceOptions, WriteBatch};
    /// let index = db.create_keyspace("index", &KeyspaceOptions::new())?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("user/1", "ada").put_in(&index, "ada", "user/1");
    /// db.write(&batch)?; // both or neither
    /// assert!(index.contains_key("ada")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.add_in(keyspace, key.as_ref(), Some(value.as_ref()))
    }

    /// Removes `key` from `keyspace`, there or not.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let keyspace = db.keyspace("default")?;
    /// db.write(siltstone::WriteBatch::new().delete_in(&keyspace, "key"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.add_in(keyspace, key.as_ref(), None)
    }

    fn add_in(&mut self, keyspace: &Keyspace, key: &[u8], value: Option<&[u8]>) -> &mut Self {
        let state = &keyspace.state;
        self.name_keyspace(state.id, &state.name, keyspace.handle.database_id());
        self.add(state.id, key, value);
        self
    }
}

/// The database as it was at one moment. Cheap to clone; released when the last clone and the last
/// iterator over it are gone.
///
/// Does not keep the database open: after a close its reads return `Closed`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let empty = db.snapshot()?;
/// db.put("key", "value")?;
/// assert_eq!(empty.iter()?.count(), 0);
/// assert_eq!(db.iter()?.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    rooms: ReadRooms,
    keyspace: Arc<KeyspaceState>,
    registration: Arc<Registration>,
    /// Counts the handle among what keeps old versions alive.
    _held: Held,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("seq", &self.seq())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn new(
        rooms: ReadRooms,
        keyspace: Arc<KeyspaceState>,
        registration: Registration,
    ) -> Self {
        let held = rooms.pins.hold(PinKind::Snapshot);
        Self {
            rooms,
            keyspace,
            registration: Arc::new(registration),
            _held: held,
        }
    }

    fn view(&self) -> View<'_> {
        let registration = Some(&self.registration);
        View {
            rooms: &self.rooms,
            keyspace: &self.keyspace,
            registration,
        }
    }

    read_methods!("let view = db.snapshot()?;");

    /// The same moment in another keyspace, also if that is dropped later.
    ///
    /// A snapshot covers every keyspace. One that was created after it is empty in it.
    ///
    /// # Errors
    /// `NotFound` if the keyspace had been dropped before; `InvalidArgument` if it is one of
    /// another database.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// use siltstone::KeyspaceOptions;
    /// let events = db.create_keyspace("events", &KeyspaceOptions::new())?;
    /// events.put("key", "old")?;
    /// let snapshot = db.snapshot()?;
    /// events.put("key", "new")?;
    /// let past = snapshot.keyspace(&events)?;
    /// assert_eq!(past.get("key")?.as_deref(), Some(&b"old"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keyspace(&self, keyspace: &Keyspace) -> Result<Self> {
        self.rooms.health.check_open()?;
        if !Arc::ptr_eq(&self.rooms.snapshots, &keyspace.handle.reads.snapshots) {
            let message = "the keyspace is one of another database";
            return Err(Error::invalid_argument(message));
        }
        let state = &keyspace.state;
        state.check_readable(Some(self.registration.seq()))?;
        Ok(Self {
            rooms: self.rooms.clone(),
            keyspace: Arc::clone(state),
            registration: Arc::clone(&self.registration),
            _held: self.rooms.pins.hold(PinKind::Snapshot),
        })
    }

    /// The sequence number up to which it sees writes.
    pub fn seq(&self) -> SequenceNumber {
        self.registration.seq()
    }
}
