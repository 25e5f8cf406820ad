//! A node of the tree: sorted slots that are read without a lock and changed under one.
//!
//! Every field that changes is atomic. A reader notes the version, reads what it likes, and asks
//! whether the version is still the same; if not, what it read means nothing and it starts over. A
//! writer makes the version odd, changes the node and makes it even again (a sequence lock; Boehm
//! 2012 for the orderings). What is read in between may be torn, but every pointer ever seen in a
//! slot leads to something whole, since it is stored with Release and loaded with Acquire.
//!
//! Knows nothing of the tree around it. Called by `tree` alone.
#![expect(unsafe_code, reason = "records and nodes are read by address")]

use std::hint as cpu;
use std::ptr::{self, NonNull};
use std::thread;

use base::hint;
use base::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use crate::ordered::record::{Record, RecordHeader, Target};

/// How many slots a node has. Searches are cheap and splits rare with more, inserts move less with
/// fewer.
/// Few in this crate's own tests, so that every kind of split is frequent there.
pub(super) const SLOT_COUNT: usize = if cfg!(test) { 4 } else { 32 };
/// What nodes are aligned to: a cache line.
pub(super) const NODE_ALIGN: usize = 64;
/// How often a reader looks at a node that is being changed before it yields its processor, on
/// which the writer may be waiting to go on.
const SPIN_COUNT: u32 = 200;

/// A node as readers and writers share it. An inner one is the first part of an [`Inner`].
#[repr(C, align(64))]
pub(super) struct Node {
    /// Odd while the node is being changed.
    version: AtomicU64,
    /// INVARIANT: at most `SLOT_COUNT`, and at least 1 once the node can be reached.
    count: AtomicUsize,
    /// 0 for a leaf. Never changes.
    level: usize,
    /// The node of the same level behind this one; null for the last.
    right: AtomicPtr<Node>,
    /// Everything in this node sorts before it; no record for the last node of a level.
    bound: Slot,
    heads: [Head; SLOT_COUNT],
    records: [AtomicPtr<RecordHeader>; SLOT_COUNT],
}

/// A node above the leaves: slot `i` is where the range of child `i` begins.
///
/// The range of child 0 begins where that of the node does, and for the first node of a level that
/// is before everything: slot 0 is never compared.
#[repr(C, align(64))]
pub(super) struct Inner {
    node: Node,
    children: [AtomicPtr<Node>; SLOT_COUNT],
}

/// The first sixteen bytes of a key, in two halves.
struct Head(AtomicU64, AtomicU64);

struct Slot {
    head: Head,
    record: AtomicPtr<RecordHeader>,
}

impl Head {
    const fn new() -> Self {
        Self(AtomicU64::new(0), AtomicU64::new(0))
    }

    #[inline]
    fn load(&self) -> u128 {
        step();
        let high = self.0.load(Ordering::Relaxed);
        step();
        u128::from(high) << 64 | u128::from(self.1.load(Ordering::Relaxed))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "it is split in two halves")]
    fn store(&self, head: u128) {
        self.0.store((head >> 64) as u64, Ordering::Relaxed);
        self.1.store(head as u64, Ordering::Relaxed);
    }
}

/// What goes into a slot.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) head: u128,
    pub(super) record: Record<'a>,
    /// The child whose range begins there, in an inner node.
    pub(super) child: Option<NonNull<Node>>,
}

/// A node that outlives `'a`, as everything in the arena of nodes does.
///
/// INVARIANT: `node` leads to an initialised `Node`, of level 0, or to an initialised `Inner`, and
/// may be used for all of it; records and children in its slots outlive `'a` as well.
#[derive(Clone, Copy)]
pub(super) struct NodeRef<'a> {
    node: NonNull<Node>,
    life: std::marker::PhantomData<&'a Node>,
}

impl<'a> NodeRef<'a> {
    /// # Safety
    /// - `node` is the address of a node that [`init`] wrote, learned of through a Release and
    ///   Acquire pair.
    /// - The node, and all records and nodes that were put into its slots, outlive `'a`.
    #[inline]
    pub(super) unsafe fn at(node: NonNull<Node>) -> Self {
        Self {
            node,
            life: std::marker::PhantomData,
        }
    }

    #[inline]
    pub(super) fn address(self) -> NonNull<Node> {
        self.node
    }

    #[inline]
    fn node(self) -> &'a Node {
        // SAFETY: by the invariant of the type.
        unsafe { self.node.as_ref() }
    }

    #[inline]
    fn children(self) -> &'a [AtomicPtr<Node>; SLOT_COUNT] {
        assert!(self.node().level > 0);
        // SAFETY: a node above level 0 is an `Inner`, by the invariant of the type.
        let inner: &'a Inner = unsafe { self.node.cast().as_ref() };
        &inner.children
    }

    #[inline]
    pub(super) fn level(self) -> usize {
        self.node().level
    }

    /// Waits until nobody changes the node; the version to be compared after reading.
    #[inline]
    pub(super) fn begin(self) -> u64 {
        let mut spins = 0;
        loop {
            // Acquire: pairs with the Release in `unlock`.
            let version = self.node().version.load(Ordering::Acquire);
            if version.is_multiple_of(2) {
                step();
                return version;
            }
            wait(&mut spins);
        }
    }

    /// Whether what was read since [`NodeRef::begin`] gave `version` was whole.
    #[inline]
    pub(super) fn is_still(self, version: u64) -> bool {
        step();
        // Pairs with the fence in `lock`: whoever has read a value that was written later sees the
        // odd version too.
        fence(Ordering::Acquire);
        self.node().version.load(Ordering::Relaxed) == version
    }

    /// Makes the node this thread's to change; readers wait until [`NodeRef::unlock`].
    #[inline]
    pub(super) fn lock(self) {
        step();
        let version = &self.node().version;
        let mut spins = 0;
        loop {
            let even = version.load(Ordering::Relaxed) & !1;
            let (free, held) = (Ordering::Acquire, Ordering::Relaxed);
            if version
                .compare_exchange_weak(even, even + 1, free, held)
                .is_ok()
            {
                break;
            }
            wait(&mut spins);
        }
        // Pairs with the fence in `is_still`.
        fence(Ordering::Release);
        #[cfg(test)]
        super::steps::locked();
    }

    /// Ends what [`NodeRef::lock`] began.
    #[inline]
    pub(super) fn unlock(self) {
        let version = &self.node().version;
        let odd = version.load(Ordering::Relaxed);
        debug_assert!(!odd.is_multiple_of(2));
        version.store(odd + 1, Ordering::Release);
        #[cfg(test)]
        super::steps::unlocked();
        step();
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        step();
        self.node().count.load(Ordering::Relaxed).min(SLOT_COUNT)
    }

    /// The next node of the level.
    #[inline]
    pub(super) fn right(self) -> Option<Self> {
        step();
        let right = NonNull::new(self.node().right.load(Ordering::Acquire))?;
        // SAFETY: it was stored with Release, and by the invariant of the type it outlives `'a`.
        Some(unsafe { Self::at(right) })
    }

    /// The record in slot `index`; `None` only while a writer is at work.
    #[inline]
    pub(super) fn record(self, index: usize) -> Option<Record<'a>> {
        load_record(self.node().records.get(index)?)
    }

    /// Child `index`; `None` only while a writer is at work.
    #[inline]
    pub(super) fn child(self, index: usize) -> Option<Self> {
        step();
        let child = self.children().get(index)?.load(Ordering::Acquire);
        // SAFETY: it was stored with Release, and by the invariant of the type it outlives `'a`.
        NonNull::new(child).map(|child| unsafe { Self::at(child) })
    }

    #[inline]
    fn head(self, index: usize) -> u128 {
        self.node().heads[index].load()
    }

    /// Whether everything in this node sorts before `target`, so that it stands further right.
    #[inline]
    pub(super) fn is_left_of(self, target: &Target<'_>) -> bool {
        let bound = &self.node().bound;
        let head = bound.head.load();
        if head > target.head {
            return false;
        }
        let record = load_record(&bound.record);
        record.is_some_and(|record| head < target.head || target.is_behind_tied(record))
    }

    /// Whether its first record sorts before `target`.
    #[inline]
    pub(super) fn begins_before(self, target: &Target<'_>) -> bool {
        let head = self.head(0);
        let is_tied = head == target.head;
        self.count() > 0
            && (head < target.head
                || is_tied
                    && self
                        .record(0)
                        .is_some_and(|first| target.is_behind_tied(first)))
    }

    /// Whether it is the last of its level.
    #[inline]
    pub(super) fn is_last(self) -> bool {
        self.node().right.load(Ordering::Relaxed).is_null()
    }

    /// How many of the slots from `from` on, plus `from`, sort before `target`.
    #[inline]
    pub(super) fn lower_bound(self, from: usize, target: &Target<'_>) -> usize {
        let count = self.count();
        let (mut low, mut len) = (from, count.saturating_sub(from));
        while len > 1 {
            let half = len / 2;
            low += half * usize::from(self.head(low + half - 1) < target.head);
            len -= half;
        }
        low += usize::from(len == 1 && self.head(low) < target.head);
        if low < count && self.head(low) == target.head {
            return self.lower_bound_tied(low, count, target);
        }
        low
    }

    /// Among slots whose heads do not decide, from `low` on.
    fn lower_bound_tied(self, mut low: usize, mut high: usize, target: &Target<'_>) -> usize {
        while low < high {
            let middle = low.midpoint(high);
            let is_before = self.head(middle) == target.head
                && self
                    .record(middle)
                    .is_some_and(|record| target.is_behind_tied(record));
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Asks for the lines that a search of this node reads.
    #[inline]
    pub(super) fn prefetch(self) {
        let heads = size_of::<[Head; SLOT_COUNT]>();
        for line in 0..=heads / NODE_ALIGN {
            hint::prefetch_at(
                self.node
                    .as_ptr()
                    .cast::<u8>()
                    .wrapping_add(line * NODE_ALIGN),
            );
        }
    }

    /// Asks for the first line of the record in slot `index`.
    #[inline]
    pub(super) fn prefetch_record(self, index: usize) {
        if let Some(record) = self.node().records.get(index) {
            hint::prefetch_at(record.load(Ordering::Relaxed));
        }
    }

    /// Puts `item` into slot `index`, those from there on one further. The node is locked, or
    /// nobody else knows it, and not full.
    #[inline]
    pub(super) fn insert(self, index: usize, item: Item<'_>) {
        let node = self.node();
        let count = node.count.load(Ordering::Relaxed);
        assert!(index <= count && count < SLOT_COUNT);
        for to in (index + 1..=count).rev() {
            node.heads[to].store(node.heads[to - 1].load());
            move_pointer(&node.records[to - 1], &node.records[to]);
        }
        if node.level > 0 {
            let children = self.children();
            for to in (index + 1..=count).rev() {
                move_pointer(&children[to - 1], &children[to]);
            }
        }
        self.set(index, item);
        node.count.store(count + 1, Ordering::Relaxed);
    }

    fn set(self, index: usize, item: Item<'_>) {
        let node = self.node();
        node.heads[index].store(item.head);
        node.records[index].store(item.record.address().as_ptr(), Ordering::Release);
        if let Some(child) = item.child {
            self.children()[index].store(child.as_ptr(), Ordering::Release);
        }
    }

    /// What is in slot `index` of a node that is locked or not full yet.
    pub(super) fn item(self, index: usize) -> Item<'a> {
        Item {
            head: self.head(index),
            record: self.record(index).expect("the slot is filled"),
            child: (self.level() > 0)
                .then(|| self.child(index).expect("the slot is filled").address()),
        }
    }

    /// Moves what comes from slot `keep` on to the front of `right`, which is empty and which
    /// nobody else knows yet. This node is locked, and out of order until [`NodeRef::lead_to`].
    pub(super) fn move_to(self, keep: usize, right: Self) {
        let count = self.node().count.load(Ordering::Relaxed);
        assert!(keep >= 1 && keep <= count);
        for index in keep..count {
            right.set(index - keep, self.item(index));
        }
        right.node().count.store(count - keep, Ordering::Relaxed);
        self.node().count.store(keep, Ordering::Relaxed);
    }

    /// Makes `right` the next node of the level, with a range that begins at `first` and ends where
    /// that of this node, which is locked, ended so far.
    pub(super) fn lead_to(self, right: Self, first: Item<'_>) {
        let (node, new) = (self.node(), right.node());
        new.bound.head.store(node.bound.head.load());
        move_pointer(&node.bound.record, &new.bound.record);
        move_pointer(&node.right, &new.right);
        node.bound.head.store(first.head);
        let record = first.record.address().as_ptr();
        node.bound.record.store(record, Ordering::Release);
        // Release: pairs with the Acquire in `right`.
        node.right.store(right.node.as_ptr(), Ordering::Release);
    }
}

/// Where tests let another thread come between; nothing otherwise.
#[inline]
pub(super) fn step() {
    #[cfg(test)]
    super::steps::reached();
}

#[inline]
fn wait(spins: &mut u32) {
    *spins += 1;
    #[cfg(test)]
    super::steps::waited();
    if spins.is_multiple_of(SPIN_COUNT) {
        thread::yield_now();
    } else {
        cpu::spin_loop();
    }
}

/// Copies a pointer from one slot to another, so that whoever reads it there sees what it leads to.
#[inline]
fn move_pointer<T>(from: &AtomicPtr<T>, to: &AtomicPtr<T>) {
    to.store(from.load(Ordering::Relaxed), Ordering::Release);
}

#[inline]
fn load_record<'a>(slot: &AtomicPtr<RecordHeader>) -> Option<Record<'a>> {
    step();
    let header = NonNull::new(slot.load(Ordering::Acquire))?;
    // SAFETY: it was stored with Release, by a thread that had stored the record or learned of it
    // in this way; callers are methods of `NodeRef`, whose records outlive its lifetime.
    Some(unsafe { Record::at(header) })
}

/// Writes an empty node of `level` to `place`.
///
/// # Safety
/// - `place` is aligned to `NODE_ALIGN`, has [`node_bytes`] of `level`, and nobody else uses it.
pub(super) unsafe fn init(place: NonNull<u8>, level: usize) -> NonNull<Node> {
    let node = Node {
        version: AtomicU64::new(0),
        count: AtomicUsize::new(0),
        level,
        right: AtomicPtr::new(ptr::null_mut()),
        bound: Slot {
            head: Head::new(),
            record: AtomicPtr::new(ptr::null_mut()),
        },
        heads: [const { Head::new() }; SLOT_COUNT],
        records: [const { AtomicPtr::new(ptr::null_mut()) }; SLOT_COUNT],
    };
    if level == 0 {
        // SAFETY: the caller gives room for a leaf.
        unsafe { place.cast().write(node) };
    } else {
        let children = [const { AtomicPtr::new(ptr::null_mut()) }; SLOT_COUNT];
        // SAFETY: the caller gives room for an inner node.
        unsafe { place.cast().write(Inner { node, children }) };
    }
    place.cast()
}

/// What a node of `level` occupies.
pub(super) fn node_bytes(level: usize) -> usize {
    if level == 0 {
        size_of::<Node>()
    } else {
        size_of::<Inner>()
    }
}
