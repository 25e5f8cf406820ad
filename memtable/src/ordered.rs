//! Entries in order: records in an arena, and a structure that finds them.
//!
//! The one module that knows which ordered structures there are. Nothing is ever removed or
//! replaced before the whole is dropped: every lifetime that is stretched here rests on that. It
//! knows nothing of filters, sizes or visibility. Called by `memtable` and `cursor`.
#![expect(
    unsafe_code,
    reason = "records lie in the arena, and positions outlive the borrow they came from"
)]

use std::fmt;
use std::ptr;

use base::sync::Arc;
use base::{InternalKey, KeyKind, MemoryShare, SequenceNumber, Slice};

use crate::arena::{Arena, Ledgers};

mod list;
mod record;
mod tree;

use list::List;
use record::{RECORD_ALIGN, Record, Target};
use tree::{Spot, Tree};

/// Which structure keeps the entries of a memtable in order.
///
/// # Examples
/// ```
/// use memtable::MemtableStructure;
/// assert_eq!(MemtableStructure::default(), MemtableStructure::Tree);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MemtableStructure {
    /// A B+tree with the first sixteen bytes of each key in its nodes, on large pages.
    #[default]
    Tree,
    /// A skip list on the global allocator.
    SkipList,
}

/// All entries of a memtable, by key up and by sequence down.
pub(crate) struct Ordered {
    structure: Structure,
    arena: Arc<Arena>,
}

enum Structure {
    Tree(Tree),
    List(Box<List>),
}

/// One entry, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct EntryRef<'a> {
    record: Record<'a>,
    arena: &'a Arc<Arena>,
}

/// A place among the entries that keeps them alive, and may move to another thread.
pub(crate) struct Position {
    at: At,
    entries: Arc<Ordered>,
}

enum At {
    Nowhere,
    /// INVARIANT: of the tree of `entries`.
    Spot(Spot),
    /// INVARIANT: a node of the list of `entries`; its lifetimes are shorter than they say.
    Node(list::Node<'static>),
}

// SAFETY: a node is a reference to the list, one to a node and one to the guard that protects
// nothing, a constant without state. The first two may be shared between threads, since the list is
// `Sync`; the third may because it has no local epoch that a second thread could disturb. A spot
// may move by itself.
unsafe impl Send for Position {}

impl Ordered {
    /// No entries, over arenas that grow by up to `chunk_bytes_max`.
    pub(crate) fn new(
        structure: MemtableStructure,
        chunk_bytes_max: usize,
        ledgers: Ledgers,
    ) -> Self {
        let of_structure = Ledgers {
            pins: Arc::default(),
            ..ledgers.clone()
        };
        Self {
            structure: match structure {
                MemtableStructure::Tree => {
                    Structure::Tree(Tree::new(chunk_bytes_max, of_structure))
                }
                MemtableStructure::SkipList => {
                    Structure::List(Box::new(List::new(&of_structure.memory)))
                }
            },
            arena: Arc::new(Arena::new(chunk_bytes_max, RECORD_ALIGN, ledgers)),
        }
    }

    /// What the structure has taken: nodes, used or not.
    fn structure_share(&self) -> &MemoryShare {
        match &self.structure {
            Structure::Tree(tree) => tree.share(),
            Structure::List(list) => list.share(),
        }
    }

    /// What was taken from the system, used already or not.
    pub(crate) fn taken_bytes(&self) -> usize {
        self.arena.share().bytes() + self.structure_share().bytes()
    }

    /// Notes that only inserts that are under way will still come.
    pub(crate) fn seal(&self) {
        self.arena.share().seal();
        self.structure_share().seal();
    }

    /// How many entries there are; exact when no insert is under way.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.structure {
            Structure::Tree(tree) => tree.len(),
            Structure::List(list) => list.len(),
        }
    }

    /// What entries and structure occupy; of a skip list's nodes an estimate.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        let structure_bytes = match &self.structure {
            Structure::Tree(tree) => tree.node_bytes(),
            Structure::List(list) => list.len() * list::NODE_BYTES_MEAN,
        };
        self.arena.used_bytes() + structure_bytes
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If an entry with the same key and sequence number is there already.
    #[inline]
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        let record = Record::store(&self.arena, key, value);
        let is_new = match &self.structure {
            // SAFETY: `self` keeps the arena as long as the tree, and so does every position.
            Structure::Tree(tree) => unsafe { tree.insert(record) },
            // SAFETY: as for the tree.
            Structure::List(list) => unsafe { list.insert(record) },
        };
        assert!(is_new, "a sequence number was given twice key={key:?}");
    }

    /// The newest entry of `user_key` at or below `seq`.
    #[inline]
    pub(crate) fn find(&self, user_key: &[u8], seq: SequenceNumber) -> Option<EntryRef<'_>> {
        let target = Target::before(user_key, seq);
        let record = match &self.structure {
            Structure::Tree(tree) => tree.find(&target)?,
            Structure::List(list) => list.find(&target)?,
        };
        (record.user_key() == user_key).then_some(EntryRef {
            record,
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

impl<'a> EntryRef<'a> {
    #[inline]
    pub(crate) fn seq(self) -> SequenceNumber {
        self.record.seq()
    }

    #[inline]
    pub(crate) fn kind(self) -> KeyKind {
        self.record.kind()
    }

    #[inline]
    pub(crate) fn key(self) -> InternalKey<'a> {
        self.record.key()
    }

    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        self.record.value()
    }

    /// The value as a slice that keeps the arena alive, or a copy if it is shorter than 1 KiB.
    pub(crate) fn pin(self) -> Slice {
        // SAFETY: a value is part of its record, which the arena of the same `Ordered` holds and
        // which is never written again.
        unsafe { self.arena.pin(self.value()) }
    }
}

impl Position {
    /// Stands nowhere.
    pub(crate) fn new(entries: Arc<Ordered>) -> Self {
        Self {
            at: At::Nowhere,
            entries,
        }
    }

    #[inline]
    fn structure(&self) -> &'static Structure {
        let structure = ptr::from_ref(&self.entries.structure);
        // SAFETY: `entries` keeps it alive and in place as long as `self` lives. What is derived
        // from the reference stays in `at`, whose contents leave only as borrows of `self`.
        unsafe { &*structure }
    }

    #[inline]
    fn stand(&mut self, at: Option<At>) -> bool {
        self.at = at.unwrap_or(At::Nowhere);
        !matches!(self.at, At::Nowhere)
    }

    pub(crate) fn first(&mut self) -> bool {
        let at = match self.structure() {
            Structure::Tree(tree) => tree.first().map(At::Spot),
            Structure::List(list) => list.first().map(At::Node),
        };
        self.stand(at)
    }

    pub(crate) fn last(&mut self) -> bool {
        let at = match self.structure() {
            Structure::Tree(tree) => tree.last().map(At::Spot),
            Structure::List(list) => list.last().map(At::Node),
        };
        self.stand(at)
    }

    /// Moves to the first entry at or after `target`, whatever the kinds.
    pub(crate) fn seek(&mut self, target: InternalKey<'_>) -> bool {
        let target = Target::before(target.user_key, target.seq);
        let at = match self.structure() {
            Structure::Tree(tree) => tree.after(&target).map(At::Spot),
            Structure::List(list) => list.after(&target).map(At::Node),
        };
        self.stand(at)
    }

    /// Moves to the last entry at or before `target`, whatever the kinds.
    pub(crate) fn seek_for_prev(&mut self, target: InternalKey<'_>) -> bool {
        let target = Target::behind(target.user_key, target.seq);
        self.seek_before(&target)
    }

    fn seek_before(&mut self, target: &Target<'_>) -> bool {
        let at = match self.structure() {
            Structure::Tree(tree) => tree.before(target).map(At::Spot),
            Structure::List(list) => list.before(target).map(At::Node),
        };
        self.stand(at)
    }

    /// Moves on by one; stands nowhere behind the last.
    #[inline]
    pub(crate) fn next(&mut self) -> bool {
        let at = match &self.at {
            At::Nowhere => None,
            // SAFETY: `entries` keeps the tree and its records.
            At::Spot(spot) => unsafe { spot.next() }.map(At::Spot),
            At::Node(node) => node.next().map(At::Node),
        };
        self.stand(at)
    }

    /// Moves back by one, at the price of a search now and then; stands nowhere before the first.
    #[inline]
    pub(crate) fn prev(&mut self) -> bool {
        let at = match &self.at {
            At::Nowhere => None,
            // SAFETY: `entries` keeps the tree and its records.
            At::Spot(spot) => match unsafe { spot.prev_in_leaf() } {
                None => return self.prev_by_search(),
                spot => spot.map(At::Spot),
            },
            At::Node(node) => node.prev().map(At::Node),
        };
        self.stand(at)
    }

    #[cold]
    fn prev_by_search(&mut self) -> bool {
        let entries = Arc::clone(&self.entries);
        let Some(record) = self.record() else {
            return false;
        };
        let key = record.key();
        let target = Target::before(key.user_key, key.seq);
        let at = match &entries.structure {
            Structure::Tree(tree) => tree.before(&target).map(At::Spot),
            Structure::List(_) => unreachable!("a list goes back by itself"),
        };
        self.stand(at)
    }

    #[inline]
    fn record(&self) -> Option<Record<'_>> {
        match &self.at {
            At::Nowhere => None,
            // SAFETY: `entries` keeps the tree and its records as long as the borrow.
            At::Spot(spot) => Some(unsafe { spot.record() }),
            At::Node(node) => Some(list::record_of(node)),
        }
    }

    /// The entry it stands on.
    #[inline]
    pub(crate) fn entry(&self) -> Option<EntryRef<'_>> {
        Some(EntryRef {
            record: self.record()?,
            arena: &self.entries.arena,
        })
    }
}

#[cfg(test)]
mod tests;
