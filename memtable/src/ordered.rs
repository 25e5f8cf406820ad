//! Entries in order: a skip list over bytes in an arena.
//!
//! The one module that knows which ordered structure is used. Nodes hold the first eight bytes of
//! the key beside the address of the rest, so that most comparisons on the way down touch nothing
//! but the node. Nothing is ever removed or replaced before the whole is dropped: every lifetime
//! that is stretched here rests on that. It knows nothing of filters, sizes or visibility. Called
//! by `memtable` and `cursor`.
#![expect(
    unsafe_code,
    reason = "keys lie in the arena, and positions outlive the borrow they came from"
)]

use std::cmp;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;
use std::ptr::{self, NonNull};
use std::slice;

use base::key::head;
use base::sync::Arc;
use base::{InternalKey, KeyKind, PinLedger, SequenceNumber, Slice};
use crossbeam_epoch::{self as epoch, Guard};
use crossbeam_skiplist::base::{Entry, SkipList};

use crate::arena::Arena;

/// What a node costs in memory: the mean over the heights that the list draws (half of the nodes
/// have height 1, a quarter 2, and so on), with the header and the rounding of a common `malloc`.
pub(crate) const NODE_BYTES_MEAN: usize = node_bytes_mean();

const fn node_bytes_mean() -> usize {
    let mut height = 1;
    let mut sum = 0;
    while height <= 32 {
        let node = size_of::<EntryKey>() + size_of::<usize>() + height * size_of::<usize>();
        let allocated = (node + size_of::<usize>()).next_multiple_of(16);
        sum += allocated << (32 - height);
        height += 1;
    }
    sum.div_ceil(1 << 32)
}

/// All entries of a memtable, by key up and by sequence down.
pub(crate) struct Ordered {
    list: SkipList<EntryKey, ()>,
    arena: Arc<Arena>,
}

/// The key type of the list: where an entry lies, and what is needed to order it.
///
/// INVARIANT: `bytes` is the start of `key_len + value_len` initialised bytes that do not change
/// and outlive this value: in the arena for a node, borrowed by a [`Target`] for a search.
struct EntryKey {
    /// The first eight bytes of the user key: decides most comparisons.
    head: u64,
    bytes: NonNull<u8>,
    key_len: u32,
    value_len: u32,
    /// Sequence and kind: `seq << 8 | kind`.
    trailer: u64,
}

// SAFETY: it is a pointer to bytes that never change, valid on every thread.
unsafe impl Send for EntryKey {}
// SAFETY: as for `Send`; nothing in it can be changed through a shared reference.
unsafe impl Sync for EntryKey {}

/// Something to search for: an [`EntryKey`] over the caller's bytes.
struct Target<'a> {
    key: EntryKey,
    bytes: PhantomData<&'a [u8]>,
}

/// One entry, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct EntryRef<'a> {
    key: &'a EntryKey,
    arena: &'a Arc<Arena>,
}

/// A place among the entries that keeps them alive, and may move to another thread.
pub(crate) struct Position {
    /// INVARIANT: an entry of the list of `entries`; its lifetimes are shorter than they say.
    at: Option<Entry<'static, 'static, EntryKey, ()>>,
    entries: Arc<Ordered>,
}

// SAFETY: an entry is a reference to the list, one to a node and one to the guard that protects
// nothing, a constant without state. The first two may be shared between threads, since the list is
// `Sync`; the third may because it has no local epoch that a second thread could disturb.
unsafe impl Send for Position {}

/// The guard for a list from which nothing is removed.
#[inline]
fn guard() -> &'static Guard {
    // SAFETY: the list is private to this module, which never removes or replaces an entry, so no
    // node is freed while the list can be reached, and nothing is ever deferred.
    unsafe { epoch::unprotected() }
}

impl Ordered {
    /// No entries, over an arena that grows by `chunk_bytes`.
    pub(crate) fn new(chunk_bytes: usize, pins: Arc<PinLedger>) -> Self {
        Self {
            list: SkipList::new(epoch::default_collector().clone()),
            arena: Arc::new(Arena::new(chunk_bytes, pins)),
        }
    }

    /// How many entries there are; exact when no insert is under way.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of keys and values.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.arena.stored_bytes()
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If an entry with the same key and trailer is there already.
    #[inline]
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        let entry = EntryKey {
            head: head(key.user_key),
            bytes: self.arena.store(key.user_key, value),
            key_len: u32::try_from(key.user_key.len()).expect("keys are bounded at the door"),
            value_len: u32::try_from(value.len()).expect("values are bounded at the door"),
            trailer: key.trailer(),
        };
        let bytes = entry.bytes;
        // Not `insert`, which replaces an equal key and would free its node under a reader.
        let inserted = self.list.get_or_insert(entry, (), guard());
        let is_ours = inserted.key().bytes == bytes;
        inserted.release(guard());
        assert!(is_ours, "a sequence number was given twice key={key:?}");
    }

    /// The newest entry of `user_key` at or below `seq`.
    #[inline]
    pub(crate) fn find(&self, user_key: &[u8], seq: SequenceNumber) -> Option<EntryRef<'_>> {
        let target = Target::at_or_below(user_key, seq);
        let entry = self
            .list
            .lower_bound(Bound::Included(&target.key), guard())?;
        let key: &EntryKey = entry.key();
        let is_same = key.head == target.key.head && key.user_key() == user_key;
        is_same.then_some(EntryRef {
            key,
            arena: &self.arena,
        })
    }
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl EntryKey {
    #[inline]
    fn user_key(&self) -> &[u8] {
        // SAFETY: by the invariant of the type, `bytes` starts at least `key_len` readable bytes
        // that do not change and outlive `self`.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.key_len as usize) }
    }

    #[inline]
    fn value(&self) -> &[u8] {
        // SAFETY: by the invariant of the type, at least `key_len` bytes start here.
        let start = unsafe { self.bytes.add(self.key_len as usize) };
        // SAFETY: by the invariant of the type, `value_len` more bytes follow the key.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.value_len as usize) }
    }
}

impl Ord for EntryKey {
    #[inline]
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        match self.head.cmp(&other.head) {
            cmp::Ordering::Equal => self
                .user_key()
                .cmp(other.user_key())
                .then_with(|| other.trailer.cmp(&self.trailer)),
            decided => decided,
        }
    }
}

impl PartialOrd for EntryKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for EntryKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.trailer == other.trailer
            && self.head == other.head
            && self.user_key() == other.user_key()
    }
}

impl Eq for EntryKey {}

impl<'a> Target<'a> {
    /// Sorts before every entry of `user_key` at or below `seq`, of whatever kind.
    #[inline]
    fn at_or_below(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self::new(user_key, seq, u8::MAX)
    }

    /// Sorts behind every entry of `user_key` at or above `seq`, of whatever kind.
    #[inline]
    fn at_or_above(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self::new(user_key, seq, 0)
    }

    #[inline]
    fn new(user_key: &'a [u8], seq: SequenceNumber, kind: u8) -> Self {
        // A key that is too long for any entry still sorts correctly by its first part, which is
        // longer than every stored key.
        let key_len = u32::try_from(user_key.len()).unwrap_or(u32::MAX);
        Self {
            key: EntryKey {
                head: head(user_key),
                bytes: NonNull::from(user_key).cast(),
                key_len,
                value_len: 0,
                trailer: seq.get() << 8 | u64::from(kind),
            },
            bytes: PhantomData,
        }
    }
}

impl<'a> EntryRef<'a> {
    #[inline]
    pub(crate) fn seq(self) -> SequenceNumber {
        SequenceNumber::new(self.key.trailer >> 8).expect("8 of 64 bits were shifted out")
    }

    #[inline]
    pub(crate) fn kind(self) -> KeyKind {
        let [kind, ..] = self.key.trailer.to_le_bytes();
        KeyKind::from_u8(kind).expect("it was a kind when it was inserted")
    }

    #[inline]
    pub(crate) fn key(self) -> InternalKey<'a> {
        InternalKey::new(self.key.user_key(), self.seq(), self.kind())
    }

    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        self.key.value()
    }

    /// The value as a slice that keeps the arena alive, or a copy if it is short.
    pub(crate) fn pin(self) -> Slice {
        // SAFETY: the value of a node lies within what `arena.store` returned for it, and both
        // references come from the same `Ordered`.
        unsafe { self.arena.pin(self.key.value()) }
    }
}

impl Position {
    /// Stands nowhere.
    pub(crate) fn new(entries: Arc<Ordered>) -> Self {
        Self { at: None, entries }
    }

    #[inline]
    fn list(&self) -> &'static SkipList<EntryKey, ()> {
        let list = ptr::from_ref(&self.entries.list);
        // SAFETY: `entries` keeps the list alive and in place as long as `self` lives. What is
        // derived from the reference stays in `at`, whose contents leave only as borrows of `self`.
        unsafe { &*list }
    }

    #[inline]
    fn stand(&mut self, at: Option<Entry<'static, 'static, EntryKey, ()>>) -> bool {
        self.at = at;
        self.at.is_some()
    }

    pub(crate) fn first(&mut self) -> bool {
        self.stand(self.list().front(guard()))
    }

    pub(crate) fn last(&mut self) -> bool {
        self.stand(self.list().back(guard()))
    }

    /// Moves to the first entry at or after `target`, whatever the kinds.
    pub(crate) fn seek(&mut self, target: InternalKey<'_>) -> bool {
        let target = Target::at_or_below(target.user_key, target.seq);
        let bound = Bound::Included(&target.key);
        self.stand(self.list().lower_bound(bound, guard()))
    }

    /// Moves to the last entry at or before `target`, whatever the kinds.
    pub(crate) fn seek_for_prev(&mut self, target: InternalKey<'_>) -> bool {
        let target = Target::at_or_above(target.user_key, target.seq);
        let bound = Bound::Included(&target.key);
        self.stand(self.list().upper_bound(bound, guard()))
    }

    /// Moves on by one; stands nowhere behind the last.
    #[inline]
    pub(crate) fn next(&mut self) -> bool {
        let at = self.at.as_ref().and_then(Entry::next);
        self.stand(at)
    }

    /// Moves back by one, at the price of a search; stands nowhere before the first.
    #[inline]
    pub(crate) fn prev(&mut self) -> bool {
        let at = self.at.as_ref().and_then(Entry::prev);
        self.stand(at)
    }

    /// The entry it stands on.
    #[inline]
    pub(crate) fn entry(&self) -> Option<EntryRef<'_>> {
        let at = self.at.as_ref()?;
        Some(EntryRef {
            key: at.key(),
            arena: &self.entries.arena,
        })
    }
}

#[cfg(test)]
mod tests;
