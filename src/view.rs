//! The one vocabulary of reads, shared by `Db`, `Keyspace` and `Snapshot`.

use std::ops::Bound;

use base::sync::Arc;
use base::{HashSeed, PinKind, PinLedger, Result, SequenceNumber, Slice};

use crate::explain::{GetExplanation, explain};
use crate::health::HealthState;
use crate::range::{KeyRange, prefix_bounds};
use crate::read::{Found, Lookup, run_group};
use crate::scan::{Cursor, Iter, ScanView};
use crate::snapshots::{Registration, Snapshots};
use crate::superversion::{KeyspaceState, Superversion};

/// How many keys of a `multi_get` go through the stages of a read together: as many as the
/// first-level cache holds lines for, with some ten lines a key.
const MULTI_GET_GROUP: usize = 32;

/// What every read needs; holds no lock on the directory.
#[derive(Clone, Debug)]
pub(crate) struct ReadRooms {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) pins: Arc<PinLedger>,
    pub(crate) hash_seed: HashSeed,
}

/// Reads of one keyspace, as of now or as of a snapshot.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) rooms: &'a ReadRooms,
    pub(crate) keyspace: &'a KeyspaceState,
    pub(crate) registration: Option<&'a Arc<Registration>>,
}

impl View<'_> {
    #[inline]
    fn peek(&self) -> Result<(arc_swap::Guard<Arc<Superversion>>, SequenceNumber)> {
        if let Some(registration) = self.registration {
            let view = self.keyspace.peek();
            self.keyspace.check_readable(Some(registration.seq()))?;
            return Ok((view, registration.seq()));
        }
        let pinned = self.keyspace.peek_visible(&self.rooms.snapshots);
        self.keyspace.check_readable(None)?;
        Ok(pinned)
    }

    #[inline]
    pub(crate) fn lookup<R>(
        &self,
        key: &[u8],
        f: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        self.rooms.health.check_open()?;
        let (view, seq) = self.peek()?;
        let hash_seed = self.rooms.hash_seed;
        let hash = hash_seed.hash(key);
        Lookup {
            view: &view,
            key,
            hash,
            hash_seed,
            seq,
            ledger: &self.keyspace.ledger,
        }
        .run(f)
    }

    /// Where a get of `key` looks, and what it finds there.
    pub(crate) fn explain(&self, key: &[u8]) -> Result<GetExplanation> {
        self.rooms.health.check_open()?;
        let (view, seq) = self.peek()?;
        explain(&view, key, self.rooms.hash_seed, seq)
    }

    /// All keys from one view, in groups whose waits for memory overlap.
    pub(crate) fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        self.rooms.health.check_open()?;
        let (view, seq) = self.peek()?;
        let hash_seed = self.rooms.hash_seed;
        let keys: Vec<K> = keys.into_iter().collect();
        let mut values = Vec::with_capacity(keys.len());
        for group in keys.chunks(MULTI_GET_GROUP) {
            let lookups: Vec<_> = group
                .iter()
                .map(|key| Lookup {
                    view: &view,
                    key: key.as_ref(),
                    hash: hash_seed.hash(key.as_ref()),
                    hash_seed,
                    seq,
                    ledger: &self.keyspace.ledger,
                })
                .collect();
            run_group(&lookups, &mut values)?;
        }
        Ok(values)
    }

    pub(crate) fn cursor(&self, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Result<Cursor> {
        let (view, seq) = self.peek()?;
        let scan = ScanView {
            view: Arc::clone(&view),
            seq,
            registration: self.registration.cloned(),
            health: Arc::clone(&self.rooms.health),
            ledger: Arc::clone(&self.keyspace.ledger),
            held: self.rooms.pins.hold(PinKind::Cursor),
        };
        Cursor::new(scan, lower, upper)
    }

    pub(crate) fn range(&self, range: &impl KeyRange) -> Result<Iter> {
        let lower = range.start().map(<[u8]>::to_vec);
        let upper = range.end().map(<[u8]>::to_vec);
        Ok(Iter::new(self.cursor(lower, upper)?))
    }

    pub(crate) fn prefix(&self, prefix: &[u8]) -> Result<Iter> {
        let (lower, upper) = prefix_bounds(prefix);
        Ok(Iter::new(self.cursor(lower, upper)?))
    }
}

/// The read methods of a type that has `fn view(&self) -> View<'_>`; `$setup` makes a `view` of
/// that type from a `db` in the examples.
macro_rules! read_methods {
    ($setup:literal) => {
        /// The value of `key`, or `None` if it has none.
        ///
        /// The slice keeps the table or memtable it lies in alive instead of copying (values of up
        /// to 30 bytes are copied, and those below 1 KiB that are in no table yet). Takes no lock.
        /// May block on a read from disk.
        ///
        /// # Errors
        /// `Corruption` if a block that would have to be searched is damaged: damage is never
        /// reported as "not there". `Io` if it cannot be read, `Closed` after the database was
        /// closed, `NotFound` after the keyspace was dropped. So for every read.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "earth")?;
        #[doc = $setup]
        /// assert_eq!(view.get("planet")?.as_deref(), Some(&b"earth"[..]));
        /// assert_eq!(view.get("moon")?, None);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn get(&self, key: impl AsRef<[u8]>) -> $crate::Result<Option<$crate::Slice>> {
            self.view().lookup(key.as_ref(), |found| found.pin())
        }

        /// Copies the value of `key` into `buffer`, which it clears. Returns whether there is one.
        ///
        /// # Errors
        /// As for `get`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "earth")?;
        #[doc = $setup]
        /// let mut buffer = Vec::new();
        /// assert!(view.get_into("planet", &mut buffer)?);
        /// assert_eq!(buffer, b"earth");
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn get_into(
            &self,
            key: impl AsRef<[u8]>,
            buffer: &mut Vec<u8>,
        ) -> $crate::Result<bool> {
            buffer.clear();
            let found = self.view().lookup(key.as_ref(), |found| {
                buffer.extend_from_slice(found.bytes())
            })?;
            Ok(found.is_some())
        }

        /// Hands the value of `key` to `read` where it lies: no copy, no reference counted.
        ///
        /// `read` runs with a view pinned; it should be short.
        ///
        /// # Errors
        /// As for `get`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "earth")?;
        #[doc = $setup]
        /// assert_eq!(view.get_with("planet", |value| value.len())?, Some(5));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn get_with<R>(
            &self,
            key: impl AsRef<[u8]>,
            read: impl FnOnce(&[u8]) -> R,
        ) -> $crate::Result<Option<R>> {
            self.view()
                .lookup(key.as_ref(), |found| read(found.bytes()))
        }

        /// Whether `key` has a value.
        ///
        /// # Errors
        /// As for `get`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "")?;
        #[doc = $setup]
        /// assert!(view.contains_key("planet")?, "an empty value is a value");
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn contains_key(&self, key: impl AsRef<[u8]>) -> $crate::Result<bool> {
            Ok(self.view().lookup(key.as_ref(), |_| ())?.is_some())
        }

        /// Explains what `get` does for `key`: every memtable and table that it considers, newest
        /// first, why each was skipped or what it has, and which entry decides.
        ///
        /// Looks on behind the entry that decides, and counts nothing: it is for people, not for
        /// programs in a hurry.
        ///
        /// # Errors
        /// As for `get`, also if a table is damaged that `get` would not come to.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "earth")?;
        #[doc = $setup]
        /// let explained = view.explain_get("planet")?;
        /// assert!(explained.winner().is_some());
        /// println!("{explained}");
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn explain_get(&self, key: impl AsRef<[u8]>) -> $crate::Result<$crate::GetExplanation> {
            self.view().explain(key.as_ref())
        }

        /// The values of several keys, all from one view, in the order of the keys.
        ///
        /// # Errors
        /// As for `get`; the first error ends it.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("planet", "earth")?;
        #[doc = $setup]
        /// let values = view.multi_get(["moon", "planet"])?;
        /// assert_eq!(values[0], None);
        /// assert_eq!(values[1].as_deref(), Some(&b"earth"[..]));
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn multi_get<K: AsRef<[u8]>>(
            &self,
            keys: impl IntoIterator<Item = K>,
        ) -> $crate::Result<Vec<Option<$crate::Slice>>> {
            self.view().multi_get(keys)
        }

        /// Iterates over all keys and values, in key order, from both ends.
        ///
        /// # Errors
        /// As for `get`; errors of later steps are items.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("b", "2")?;
        /// db.put("a", "1")?;
        #[doc = $setup]
        /// let keys: siltstone::Result<Vec<_>> =
        ///     view.iter()?.map(|item| item.map(|(key, _)| key)).collect();
        /// assert_eq!(keys?, ["a", "b"]);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[expect(clippy::iter_not_returning_iterator, reason = "making it can fail")]
        pub fn iter(&self) -> $crate::Result<$crate::Iter> {
            self.view().range(&(..))
        }

        /// Iterates over the keys and values of a range; see [`KeyRange`](crate::KeyRange).
        ///
        /// # Errors
        /// As for `iter`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("b", "2")?;
        /// db.put("a", "1")?;
        #[doc = $setup]
        /// assert_eq!(view.range("b"..)?.count(), 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn range(&self, range: impl $crate::KeyRange) -> $crate::Result<$crate::Iter> {
            self.view().range(&range)
        }

        /// Iterates over the keys that begin with `prefix`, and their values.
        ///
        /// # Errors
        /// As for `iter`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("tree/oak", "")?;
        /// db.put("trout", "")?;
        #[doc = $setup]
        /// assert_eq!(view.prefix("tree/")?.count(), 1);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> $crate::Result<$crate::Iter> {
            self.view().prefix(prefix.as_ref())
        }

        /// A cursor over everything, standing nowhere.
        ///
        /// # Errors
        /// As for `get`.
        ///
        /// # Examples
        /// ```
        /// # let dir = tempfile::tempdir()?;
        /// # let db = siltstone::Db::open(dir.path())?;
        /// db.put("a", "1")?;
        #[doc = $setup]
        /// let mut cursor = view.cursor()?;
        /// assert!(cursor.seek_to_first()?);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pub fn cursor(&self) -> $crate::Result<$crate::Cursor> {
            self.view()
                .cursor(::std::ops::Bound::Unbounded, ::std::ops::Bound::Unbounded)
        }
    };
}

pub(crate) use read_methods;
