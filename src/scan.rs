//! The user's cursor and iterator: a merge over all runs of a pinned view, showing of each key the
//! newest version that is visible, and nothing of what was deleted.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Bound;

use base::cursor::{Cursor as EntryCursor, MergeCursor};
use base::pins::Held;
use base::sync::Arc;
use base::{InternalKey, Result, SequenceNumber, Slice};
use compaction::LevelCursor;
use memtable::MemtableCursor;
use sstable::ScanMode;

use crate::health::HealthState;
use crate::ledger::KeyspaceLedger;
use crate::snapshots::Registration;
use crate::superversion::Superversion;

mod account;
mod bounds;
mod run;
mod settle;
use account::Account;
use bounds::{is_after, is_before};
use run::RunCursor;

/// What a scan sees: a pinned view, complete up to a sequence number.
pub(crate) struct ScanView {
    pub(crate) view: Arc<Superversion>,
    pub(crate) seq: SequenceNumber,
    /// Keeps a snapshot registered for as long as the scan lives.
    pub(crate) registration: Option<Arc<Registration>>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) ledger: Arc<KeyspaceLedger>,
    /// Counts the scan among what keeps the view alive.
    pub(crate) held: Held,
}

impl ScanView {
    /// One cursor a run, newest first, and whether the first is that of the active memtable.
    /// Tables are opened when a cursor first reaches them.
    fn children(&self) -> (Vec<RunCursor>, bool) {
        let (sealed, version) = (&self.view.sealed, &self.view.version);
        let count_max = 1 + sealed.len() + version.runs().len();
        let mut children = Vec::with_capacity(count_max);
        // What is inserted from now on is not visible to this scan.
        let has_active = self.view.active.entry_count() > 0;
        if has_active {
            children.push(RunCursor::Memtable(self.view.active.cursor()));
        }
        for sealed in sealed {
            if sealed.memtable.entry_count() > 0 {
                children.push(RunCursor::Memtable(sealed.memtable.cursor()));
            }
        }
        for (_, run) in version.runs() {
            let cursor = LevelCursor::of_run(Arc::clone(run), ScanMode::Ordinary);
            children.push(RunCursor::Level(cursor));
        }
        (children, has_active)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On no entry.
    Nowhere,
    /// The merge stands on the entry shown.
    AtEntry,
    /// The entry shown is in the buffers; the merge stands before all versions of its key.
    BeforeEntry,
}

/// A movable position in a consistent view of a keyspace: the base of every scan.
///
/// Lending: [`key`](Cursor::key) and [`value`](Cursor::value) are borrowed until the next move.
/// It can be moved in both directions and re-seeked as often as needed; a step forward neither
/// allocates nor touches a shared counter, a step backward copies the entry into a buffer that is
/// kept. It sees what was visible when it was made. It keeps tables and memtables of that moment
/// alive, so it should not be kept for ever; after the database was closed its moves return
/// `Closed`. `Send`, `'static`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("apple", "1")?;
/// db.put("pear", "2")?;
/// let mut cursor = db.cursor()?;
/// assert!(cursor.seek("b")?);
/// assert_eq!((cursor.key(), cursor.value()), (&b"pear"[..], &b"2"[..]));
/// assert!(cursor.prev()?);
/// assert_eq!(cursor.key(), b"apple");
/// assert!(!cursor.prev()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cursor {
    merge: MergeCursor<RunCursor>,
    /// The first run of the merge is the memtable that was active.
    has_active: bool,
    scan: ScanView,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    place: Place,
    /// The key shown; for `AtEntry` kept so that its older versions can be skipped.
    key: Vec<u8>,
    /// The value shown when going backward.
    value: Vec<u8>,
    account: Account,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("seq", &self.scan.seq)
            .finish_non_exhaustive()
    }
}

impl Cursor {
    pub(crate) fn new(
        scan: ScanView,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
    ) -> Result<Self> {
        scan.health.check_open()?;
        let (children, has_active) = scan.children();
        let merge = MergeCursor::new(children);
        let (key, value) = (Vec::new(), Vec::new());
        Ok(Self {
            merge,
            has_active,
            scan,
            lower,
            upper,
            place: Place::Nowhere,
            key,
            value,
            account: Account::default(),
        })
    }

    /// Moves to the first key of the range.
    ///
    /// # Errors
    /// `Closed` after the database was closed; `Corruption` or `Io` if a table cannot be read. So
    /// for every move; afterwards the cursor stands on nothing.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// let mut cursor = db.cursor()?;
    /// assert!(!cursor.seek_to_first()?, "nothing is there");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seek_to_first(&mut self) -> Result<bool> {
        self.begin_seek()?;
        let seq = SequenceNumber::MAX;
        let valid = match &self.lower {
            Bound::Unbounded => self.merge.seek_to_first()?,
            Bound::Included(key) => self.merge.seek(InternalKey::seek_to(key, seq))?,
            Bound::Excluded(key) => {
                let mut valid = self
                    .merge
                    .seek(InternalKey::seek_to(key, SequenceNumber::ZERO))?;
                while valid && self.merge.key().user_key == key.as_slice() {
                    valid = self.merge.next()?;
                }
                valid
            }
        };
        self.settle_forward(valid, false)
    }

    /// Moves to the last key of the range.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("a", "1")?;
    /// let mut cursor = db.cursor()?;
    /// assert!(cursor.seek_to_last()?);
    /// assert!(!cursor.next()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seek_to_last(&mut self) -> Result<bool> {
        self.begin_seek()?;
        let valid = match &self.upper {
            Bound::Unbounded => self.merge.seek_to_last()?,
            Bound::Included(key) => {
                // The oldest version of the bound sorts last.
                self.merge
                    .seek_for_prev(InternalKey::seek_to(key, SequenceNumber::ZERO))?
            }
            Bound::Excluded(key) => {
                let first = InternalKey::seek_to(key, SequenceNumber::MAX);
                let mut valid = self.merge.seek_for_prev(first)?;
                while valid && self.merge.key().user_key == key.as_slice() {
                    valid = self.merge.prev()?;
                }
                valid
            }
        };
        self.settle_backward(valid)
    }

    /// Moves to the first key at or after `key`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("b", "1")?;
    /// let mut cursor = db.cursor()?;
    /// assert!(cursor.seek("a")?);
    /// assert!(!cursor.seek("c")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        if is_before(key, &self.lower) {
            return self.seek_to_first();
        }
        self.begin_seek()?;
        let valid = self.merge.seek(InternalKey::seek_to(key, self.scan.seq))?;
        self.settle_forward(valid, false)
    }

    /// Moves to the last key at or before `key`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// db.put("b", "1")?;
    /// let mut cursor = db.cursor()?;
    /// assert!(cursor.seek_for_prev("c")?);
    /// assert!(!cursor.seek_for_prev("a")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        if is_after(key, &self.upper) {
            return self.seek_to_last();
        }
        self.begin_seek()?;
        let valid = self
            .merge
            .seek_for_prev(InternalKey::seek_to(key, SequenceNumber::ZERO))?;
        self.settle_backward(valid)
    }

    /// Moves to the following key. On no entry it stays there and returns `false`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # db.put("a", "1")?;
    /// let mut cursor = db.cursor()?;
    /// let mut count = 0;
    /// let mut on_entry = cursor.seek_to_first()?;
    /// while on_entry {
    ///     count += cursor.value().len();
    ///     on_entry = cursor.next()?;
    /// }
    /// assert_eq!(count, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(
        clippy::should_implement_trait,
        reason = "a cursor lends; Iter is the iterator"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<bool> {
        self.scan.health.check_open()?;
        match self.place {
            Place::Nowhere => Ok(false),
            Place::AtEntry => {
                self.place = Place::Nowhere;
                let valid = self.merge.next()?;
                self.settle_forward(valid, true)
            }
            Place::BeforeEntry => {
                self.place = Place::Nowhere;
                // The merge stands before the versions of the key shown, or before everything.
                let oldest = InternalKey::seek_to(&self.key, SequenceNumber::ZERO);
                let valid = self.merge.seek(oldest)?;
                self.settle_forward(valid, true)
            }
        }
    }

    /// Moves to the key before. On no entry it stays there and returns `false`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # db.put("a", "1")?;
    /// let mut cursor = db.cursor()?;
    /// assert!(cursor.seek_to_last()?);
    /// assert!(!cursor.prev()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prev(&mut self) -> Result<bool> {
        self.scan.health.check_open()?;
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Nowhere => Ok(false),
            Place::AtEntry => {
                // Leave the versions of the key shown, of which newer ones may lie before.
                let mut valid = self.merge.prev()?;
                while valid && self.merge.key().user_key == self.key.as_slice() {
                    valid = self.merge.prev()?;
                }
                self.settle_backward(valid)
            }
            Place::BeforeEntry => {
                let valid = self.merge.is_valid();
                self.settle_backward(valid)
            }
        }
    }

    /// Whether it stands on an entry.
    pub fn is_valid(&self) -> bool {
        self.place != Place::Nowhere
    }

    /// The key it stands on.
    ///
    /// # Panics
    /// If it stands on none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        assert!(self.is_valid(), "the cursor stands on no entry");
        &self.key
    }

    /// The value it stands on.
    ///
    /// # Panics
    /// If it stands on none.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.place {
            Place::AtEntry => self.merge.value(),
            Place::BeforeEntry => &self.value,
            Place::Nowhere => panic!("the cursor stands on no entry"),
        }
    }

    /// The value as an owned slice; going forward it is pinned where it lies instead of copied.
    ///
    /// # Panics
    /// If it stands on none.
    pub fn value_slice(&self) -> Slice {
        match self.place {
            Place::AtEntry => self.merge.value_slice(),
            Place::BeforeEntry => Slice::copy_from(&self.value),
            Place::Nowhere => panic!("the cursor stands on no entry"),
        }
    }

    /// The sequence number up to which it sees writes.
    pub fn seq(&self) -> SequenceNumber {
        self.scan.seq
    }

    fn begin_seek(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        let runs = self.merge.children();
        self.account.add_seek(&self.scan.ledger, runs);
        self.scan.health.check_open()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.account
            .settle(&self.scan.ledger, self.merge.children());
    }
}

/// Iterates over keys and values of a range, from both ends.
///
/// Items are `Result`: an error is never mistaken for the end, and ends the iteration. Keys are
/// copied (short ones inline), values are pinned where they lie when going forward. Sees what was
/// visible when it was made. For tight loops the [`Cursor`] beneath allocates nothing.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("fruit/apple", "1")?;
/// db.put("fruit/pear", "2")?;
/// db.put("nut/almond", "3")?;
/// let mut fruit = db.prefix("fruit/")?;
/// let (key, value) = fruit.next_back().expect("two are there")?;
/// assert_eq!((&*key, &*value), (&b"fruit/pear"[..], &b"2"[..]));
/// assert_eq!(fruit.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Iter {
    front: Cursor,
    /// Made when first asked for the back.
    back: Option<Cursor>,
    state: IterState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IterState {
    New,
    Running,
    Done,
}

impl Iter {
    pub(crate) fn new(front: Cursor) -> Self {
        Self {
            front,
            back: None,
            state: IterState::New,
        }
    }

    fn step_front(&mut self) -> Result<Option<(Slice, Slice)>> {
        let valid = match self.state {
            IterState::Done => false,
            IterState::Running if self.front.is_valid() => self.front.next()?,
            // Nothing was asked of the front so far, though perhaps of the back.
            IterState::New | IterState::Running => self.front.seek_to_first()?,
        };
        let crossed = valid
            && self
                .back
                .as_ref()
                .is_some_and(|back| self.front.key() >= back.key());
        if !valid || crossed {
            return Ok(None);
        }
        Ok(Some((
            Slice::copy_from(self.front.key()),
            self.front.value_slice(),
        )))
    }

    fn step_back(&mut self) -> Result<Option<(Slice, Slice)>> {
        if self.state == IterState::Done {
            return Ok(None);
        }
        let valid = if let Some(back) = &mut self.back {
            back.prev()?
        } else {
            let mut back = self.front.sibling()?;
            let valid = back.seek_to_last()?;
            self.back = Some(back);
            valid
        };
        let Some(back) = self.back.as_ref().filter(|_| valid) else {
            return Ok(None);
        };
        if self.front.is_valid() && back.key() <= self.front.key() {
            return Ok(None);
        }
        Ok(Some((Slice::copy_from(back.key()), back.value_slice())))
    }

    fn finish(&mut self, item: Result<Option<(Slice, Slice)>>) -> Option<Result<(Slice, Slice)>> {
        let item = item.transpose();
        self.state = if let Some(Ok(_)) = item {
            IterState::Running
        } else {
            IterState::Done
        };
        item
    }
}

impl Cursor {
    /// Another cursor over the same view and range, standing nowhere.
    fn sibling(&self) -> Result<Self> {
        let scan = ScanView {
            view: Arc::clone(&self.scan.view),
            seq: self.scan.seq,
            registration: self.scan.registration.clone(),
            health: Arc::clone(&self.scan.health),
            ledger: Arc::clone(&self.scan.ledger),
            held: self.scan.held.clone(),
        };
        Self::new(scan, self.lower.clone(), self.upper.clone())
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step_front();
        self.finish(item)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.step_back();
        self.finish(item)
    }
}

impl FusedIterator for Iter {}

const fn assert_send<T: Send + 'static>() {}
const _: () = assert_send::<Iter>();
const _: () = assert_send::<Cursor>();
const _: () = assert_send::<MemtableCursor>();
const _: () = assert_send::<LevelCursor>();
