//! A B+tree over records that grows and never shrinks: readers take no lock, writers lock one node.
//!
//! The tree is a B-link tree (Lehman, Yao 1981): every node knows where its range ends and who
//! follows it, so that a split is complete once the new node stands to the right of the old one;
//! that the parent learns of it later costs a step to the right until then and nothing else. Since
//! nothing is ever removed, the range of a node always begins where it began, and only ends earlier
//! after a split. So a thread that holds a pointer to a node, however old, finds everything from
//! there on by walking right. Readers check versions instead of locking (optimistic locks; Leis and
//! others 2016).
//!
//! Nodes lie in an arena of their own and hold the first sixteen bytes of each key, so that a
//! search reads the record it finds and mostly no other. Called by `ordered` alone.
//!
//! LOCK: a writer holds the lock of one node at a time; `growing` is taken with no node locked.
#![expect(unsafe_code, reason = "nodes are reached by address")]

use std::ptr::{self, NonNull};

use base::sync::Mutex;
use base::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use base::{MemoryShare, SequenceNumber};

use super::record::{Record, RecordHeader, Target};
use crate::arena::{Arena, Ledgers};

mod node;
use node::{Item, NODE_ALIGN, Node, NodeRef, SLOT_COUNT};
#[cfg(test)]
mod steps;

/// How many records a walk asks for ahead of itself.
const PREFETCH_COUNT: usize = 6;

/// The tree itself; records are its caller's.
pub(super) struct Tree {
    /// Null before the first insert. Rises from level to level, and leads to the first node of its.
    root: AtomicPtr<Node>,
    /// The last leaf, or one that was it a moment ago: where ascending inserts go.
    last: AtomicPtr<Node>,
    record_count: AtomicUsize,
    nodes: Arena,
    growing: Mutex<()>,
}

/// A record and where it was found.
struct Found<'a> {
    leaf: NodeRef<'a>,
    index: usize,
    /// Of the leaf when the record was in slot `index`.
    version: u64,
    record: Record<'a>,
}

/// Where a walk stands: a [`Found`] that borrows nothing.
///
/// INVARIANT: a leaf and a record of one tree, which whoever keeps the spot keeps as well.
pub(super) struct Spot {
    leaf: NonNull<Node>,
    index: usize,
    version: u64,
    record: NonNull<RecordHeader>,
}

// SAFETY: it is a shared reference to a node and to a record; both are shared between threads.
unsafe impl Send for Spot {}

impl Tree {
    /// An empty tree whose memory for nodes grows by up to `chunk_bytes_max`, counted in
    /// `ledgers`.
    pub(super) fn new(chunk_bytes_max: usize, ledgers: Ledgers) -> Self {
        Self {
            root: AtomicPtr::new(ptr::null_mut()),
            last: AtomicPtr::new(ptr::null_mut()),
            record_count: AtomicUsize::new(0),
            nodes: Arena::new(chunk_bytes_max, NODE_ALIGN, ledgers),
            growing: Mutex::new(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.record_count.load(Ordering::Relaxed)
    }

    /// The memory for nodes, and where it is counted.
    pub(super) fn share(&self) -> &MemoryShare {
        self.nodes.share()
    }

    /// What the nodes occupy.
    pub(super) fn node_bytes(&self) -> usize {
        self.nodes.used_bytes()
    }

    #[inline]
    fn root(&self) -> Option<NodeRef<'_>> {
        // Acquire: pairs with the Releases in `first_leaf` and `add_root`.
        self.node_at(self.root.load(Ordering::Acquire))
    }

    #[inline]
    fn last_leaf(&self) -> Option<NodeRef<'_>> {
        // Acquire: pairs with the Releases in `first_leaf` and `split_locked`.
        self.node_at(self.last.load(Ordering::Acquire))
    }

    #[inline]
    #[expect(clippy::unused_self, reason = "the node lives as long as the tree")]
    fn node_at(&self, node: *mut Node) -> Option<NodeRef<'_>> {
        let node = NonNull::new(node)?;
        // SAFETY: `new_node` made it, in the arena that lives as long as `self`; callers of
        // `insert` answer for the records.
        Some(unsafe { NodeRef::at(node) })
    }

    fn new_node(&self, level: usize) -> NodeRef<'_> {
        let place = self.nodes.allocate(node::node_bytes(level));
        // SAFETY: the arena gives this many bytes, aligned as a node is, to nobody else.
        let node = unsafe { node::init(place, level) };
        // SAFETY: it was made just now, in the arena that lives as long as `self`.
        unsafe { NodeRef::at(node) }
    }

    /// Adds `record`; returns whether its key and sequence number were new.
    ///
    /// # Safety
    /// - The record outlives the tree, and every [`Spot`] in it.
    #[inline]
    pub(super) unsafe fn insert(&self, record: Record<'_>) -> bool {
        let target = Target::behind(record.user_key(), record.seq());
        let item = Item {
            head: target.head,
            record,
            child: None,
        };
        let leaf = self.leaf_to_change(&target);
        leaf.lock();
        let leaf = Self::locked_step_right(leaf, &target);
        let index = leaf.lower_bound(0, &target);
        if let Some(before) = index.checked_sub(1).and_then(|index| leaf.record(index))
            && before.seq() == record.seq()
            && before.user_key() == record.user_key()
        {
            leaf.unlock();
            return false;
        }
        if leaf.count() < SLOT_COUNT {
            leaf.insert(index, item);
            leaf.unlock();
        } else {
            let above = self.split_locked(leaf, index, item);
            self.insert_above(1, above);
        }
        self.record_count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// The leaf in whose range `target` lies, or one to the left of it.
    #[inline]
    fn leaf_to_change(&self, target: &Target<'_>) -> NodeRef<'_> {
        if let Some(last) = self.last_leaf() {
            // Ascending keys go to the last leaf, whose range holds whatever is behind its first
            // record. That record stays the first, save in a tree of one leaf, which holds all: a
            // torn read could not mislead.
            let version = last.begin();
            let is_in = last.is_last() && last.begins_before(target);
            if is_in && last.is_still(version) {
                return last;
            }
        }
        match self.descend(target, 0) {
            Some(leaf) => leaf,
            None => self.first_leaf(),
        }
    }

    #[cold]
    fn first_leaf(&self) -> NodeRef<'_> {
        node::step();
        let guard = self.growing.lock();
        if let Some(root) = self.root() {
            drop(guard);
            // Whatever level it has reached meanwhile, its first leaf is the first of all.
            return Self::first_of(root);
        }
        let leaf = self.new_node(0);
        // Release: both pair with the Acquire in `last_leaf` and `root`.
        self.last.store(leaf.address().as_ptr(), Ordering::Release);
        self.root.store(leaf.address().as_ptr(), Ordering::Release);
        leaf
    }

    /// The first leaf below `node`, the first of its level.
    fn first_of(mut node: NodeRef<'_>) -> NodeRef<'_> {
        while node.level() > 0 {
            let version = node.begin();
            let child = node.child(0);
            if let Some(child) = child.filter(|_| node.is_still(version)) {
                node = child;
            }
        }
        node
    }

    /// Passes the lock on to the node in whose range `target` lies.
    #[inline]
    fn locked_step_right<'a>(mut node: NodeRef<'a>, target: &Target<'_>) -> NodeRef<'a> {
        while node.is_left_of(target) {
            let right = node.right().expect("a node with a bound is not the last");
            node.unlock();
            right.lock();
            node = right;
        }
        node
    }

    /// The node of `level` in whose range `target` lies, or lay a moment ago. `None` before the
    /// first insert.
    #[inline]
    fn descend(&self, target: &Target<'_>, level: usize) -> Option<NodeRef<'_>> {
        let mut node = self.root()?;
        loop {
            let version = node.begin();
            let next = if node.is_left_of(target) {
                node.right()
            } else if node.level() == level {
                // A node too far left would do as well: all who call walk on from there.
                if node.is_still(version) {
                    return Some(node);
                }
                None
            } else {
                // Slot 0 says where the node begins, which is before the target.
                node.child(node.lower_bound(1, target) - 1)
            };
            if let Some(next) = next {
                next.prefetch();
                if node.is_still(version) {
                    node = next;
                }
            }
        }
    }

    /// Splits `node`, which is locked and full, puts `item` where it belongs, at `index` of the
    /// node before the split, and unlocks it. Returns the new node with its first slot.
    #[cold]
    fn split_locked<'a>(&'a self, node: NodeRef<'a>, index: usize, item: Item<'a>) -> Item<'a> {
        let right = self.new_node(node.level());
        let is_last = node.is_last();
        // Ascending inserts leave full nodes behind them.
        let appends = is_last && index == SLOT_COUNT;
        let keep = if appends { SLOT_COUNT } else { SLOT_COUNT / 2 };
        let first = if appends { item } else { node.item(keep) };
        node.move_to(keep, right);
        // INVARIANT: the first slot of `right` is where its range begins, and stays so.
        if appends || index > keep {
            right.insert(index - keep, item);
        } else {
            node.insert(index, item);
        }
        // The new node is whole before the old one leads to it.
        node.lead_to(right, first);
        let is_last_leaf = is_last && node.level() == 0;
        if is_last_leaf {
            // Two splits in a row may store in the wrong order: that costs the hint, no more.
            self.last.store(right.address().as_ptr(), Ordering::Release);
        }
        node.unlock();
        Item {
            child: Some(right.address()),
            ..first
        }
    }

    /// Tells the nodes above of a split: `item` leads to the new node of the level below `level`.
    #[cold]
    fn insert_above<'a>(&'a self, mut level: usize, mut item: Item<'a>) {
        loop {
            let key = item.record;
            let target = Target::behind(key.user_key(), key.seq());
            let Some(node) = self.node_to_change(&target, level, item) else {
                return;
            };
            node.lock();
            let node = Self::locked_step_right(node, &target);
            let index = node.lower_bound(1, &target);
            if node.count() < SLOT_COUNT {
                node.insert(index, item);
                node.unlock();
                return;
            }
            item = self.split_locked(node, index, item);
            level += 1;
        }
    }

    /// The node of `level` for `target`; `None` if there was no such level, and now is one that
    /// leads to `item`.
    fn node_to_change(
        &self,
        target: &Target<'_>,
        level: usize,
        item: Item<'_>,
    ) -> Option<NodeRef<'_>> {
        let root = self.root().expect("something was split");
        if root.level() < level {
            node::step();
            let _growing = self.growing.lock();
            let root = self.root().expect("something was split");
            if root.level() < level {
                self.add_root(root, item);
                return None;
            }
        }
        let found = self.descend(target, level);
        Some(found.expect("there is a root"))
    }

    /// A new root over `first`, the old one, and the node that `item` leads to, which stands
    /// somewhere to the right of it.
    fn add_root(&self, first: NodeRef<'_>, item: Item<'_>) {
        let root = self.new_node(first.level() + 1);
        // Slot 0 of the first node of a level is never compared: any record will do.
        root.insert(
            0,
            Item {
                head: 0,
                child: Some(first.address()),
                ..item
            },
        );
        root.insert(1, item);
        // Release: pairs with the Acquire in `root`.
        self.root.store(root.address().as_ptr(), Ordering::Release);
    }

    /// The first record behind `target`.
    #[inline]
    pub(super) fn find(&self, target: &Target<'_>) -> Option<Record<'_>> {
        let leaf = self.descend(target, 0)?;
        Self::after_in(leaf, target).map(|found| found.record)
    }

    /// The first record behind `target`, as a place to walk from.
    pub(super) fn after(&self, target: &Target<'_>) -> Option<Spot> {
        let leaf = self.descend(target, 0)?;
        Self::after_in(leaf, target).map(Found::arrive)
    }

    /// The last record before `target`.
    pub(super) fn before(&self, target: &Target<'_>) -> Option<Spot> {
        let leaf = self.descend(target, 0)?;
        Self::last_of(
            leaf,
            |leaf| leaf.right().filter(|_| leaf.is_left_of(target)),
            |leaf| leaf.lower_bound(0, target),
        )
    }

    pub(super) fn first(&self) -> Option<Spot> {
        self.after(&Target::before(b"", SequenceNumber::MAX))
    }

    pub(super) fn last(&self) -> Option<Spot> {
        Self::last_of(self.last_leaf()?, NodeRef::right, NodeRef::count)
    }

    /// The last of the records that `count_in` counts, in the leaf from which `right_of` leads no
    /// further, beginning at `leaf`.
    fn last_of<'a>(
        mut leaf: NodeRef<'a>,
        right_of: impl Fn(NodeRef<'a>) -> Option<NodeRef<'a>>,
        count_in: impl Fn(NodeRef<'a>) -> usize,
    ) -> Option<Spot> {
        loop {
            let version = leaf.begin();
            let right = right_of(leaf);
            // The range of a leaf begins with a record, save that of the first.
            let index = count_in(leaf).checked_sub(1);
            let record = index.and_then(|index| leaf.record(index));
            if !leaf.is_still(version) {
                continue;
            }
            if let Some(right) = right {
                leaf = right;
                continue;
            }
            let found = Found {
                leaf,
                index: index?,
                version,
                record: record.expect("the slot is filled"),
            };
            return Some(found.spot());
        }
    }

    /// The first record behind `target`, from `leaf` on, whose range begins before it.
    #[inline]
    fn after_in<'a>(mut leaf: NodeRef<'a>, target: &Target<'_>) -> Option<Found<'a>> {
        loop {
            let version = leaf.begin();
            let index = leaf.lower_bound(0, target);
            let record = leaf.record(index).filter(|_| index < leaf.count());
            let right = match record {
                Some(_) => None,
                None => leaf.right(),
            };
            if !leaf.is_still(version) {
                continue;
            }
            // A record behind the target is the first such, whatever stands further right.
            match (record, right) {
                (Some(record), _) => {
                    return Some(Found {
                        leaf,
                        index,
                        version,
                        record,
                    });
                }
                (None, Some(right)) => leaf = right,
                (None, None) => return None,
            }
        }
    }
}

impl Found<'_> {
    #[inline]
    fn spot(self) -> Spot {
        Spot {
            leaf: self.leaf.address(),
            index: self.index,
            version: self.version,
            record: self.record.address(),
        }
    }

    /// A spot from which a walk will go on: asks for what it will read.
    #[inline]
    fn arrive(self) -> Spot {
        for ahead in 0..PREFETCH_COUNT {
            self.leaf.prefetch_record(self.index + ahead);
        }
        if let Some(right) = self.leaf.right() {
            right.prefetch();
        }
        self.spot()
    }
}

impl Spot {
    /// The record.
    ///
    /// # Safety
    /// - The tree, and the records in it, outlive `'a`.
    #[inline]
    pub(super) unsafe fn record<'a>(&self) -> Record<'a> {
        // SAFETY: it was found in the tree; the caller answers for the rest.
        unsafe { Record::at(self.record) }
    }

    /// The next record, one inserted meanwhile included.
    ///
    /// # Safety
    /// - The tree, and the records in it, are alive.
    #[inline]
    pub(super) unsafe fn next(&self) -> Option<Self> {
        // SAFETY: it is a node of the tree; the caller answers for the rest.
        let leaf = unsafe { NodeRef::at(self.leaf) };
        let index = self.index + 1;
        if index < leaf.count()
            && let Some(record) = leaf.record(index)
            && leaf.is_still(self.version)
        {
            leaf.prefetch_record(index + PREFETCH_COUNT);
            return Some(Self {
                index,
                record: record.address(),
                ..*self
            });
        }
        // SAFETY: as for the node.
        let key = unsafe { self.record() }.key();
        let target = Target::behind(key.user_key, key.seq);
        Tree::after_in(leaf, &target).map(Found::arrive)
    }

    /// The record before, if that takes no search of the tree.
    ///
    /// # Safety
    /// - The tree, and the records in it, are alive.
    #[inline]
    pub(super) unsafe fn prev_in_leaf(&self) -> Option<Self> {
        // SAFETY: it is a node of the tree; the caller answers for the rest.
        let leaf = unsafe { NodeRef::at(self.leaf) };
        let index = self.index.checked_sub(1)?;
        let record = leaf.record(index)?;
        leaf.is_still(self.version).then(|| Self {
            index,
            record: record.address(),
            ..*self
        })
    }
}

#[cfg(test)]
mod interleaving;
#[cfg(test)]
mod tests;
