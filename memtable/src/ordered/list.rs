//! A skip list over records: the plain structure, and the oracle of the tree.
//!
//! Nothing is ever removed or replaced before the whole is dropped: every lifetime that is
//! stretched here rests on that.
#![expect(
    unsafe_code,
    reason = "records lie in the arena, and positions outlive the borrow they came from"
)]

use std::cmp;
use std::ops::Bound;
use std::ptr::NonNull;

use base::sync::Arc;
use base::{MemoryLedger, MemoryShare};
use crossbeam_epoch::{self as epoch, Guard};
use crossbeam_skiplist::base::{Entry, SkipList};

use super::record::{Record, RecordHeader, Target, wide_head};

/// What a node costs in memory: the mean over the heights that the list draws (half of the nodes
/// have height 1, a quarter 2, and so on), with the header and the rounding of a common `malloc`.
pub(super) const NODE_BYTES_MEAN: usize = node_bytes_mean();

const fn node_bytes_mean() -> usize {
    let mut height = 1;
    let mut sum = 0;
    while height <= 32 {
        let node = size_of::<NodeKey>() + size_of::<usize>() + height * size_of::<usize>();
        let allocated = (node + size_of::<usize>()).next_multiple_of(16);
        sum += allocated << (32 - height);
        height += 1;
    }
    sum.div_ceil(1 << 32)
}

/// One node in so many is counted, for as many: the counters are there for all threads.
const COUNTED_NODES: usize = 64;

pub(super) struct List {
    list: SkipList<NodeKey, ()>,
    /// The nodes, by the [`COUNTED_NODES`].
    share: MemoryShare,
}

/// The key type of the list: a record, or a target to search for.
pub(super) struct NodeKey {
    /// The first bytes of the user key: decide most comparisons.
    head: u128,
    sought: Sought,
}

enum Sought {
    /// INVARIANT: a record of the arena that outlives the list.
    Record(NonNull<RecordHeader>),
    /// INVARIANT: a target that outlives this key, which is only lent to a search.
    Target(NonNull<Target<'static>>),
}

// SAFETY: it is a pointer to bytes that never change, valid on every thread.
unsafe impl Send for NodeKey {}
// SAFETY: as for `Send`; nothing in it can be changed through a shared reference.
unsafe impl Sync for NodeKey {}

impl NodeKey {
    #[inline]
    fn seeking(target: &Target<'_>) -> Self {
        Self {
            head: target.head,
            sought: Sought::Target(NonNull::from(target).cast()),
        }
    }

    #[inline]
    fn record(&self) -> Option<Record<'_>> {
        match self.sought {
            // SAFETY: by the invariant of the variant; whoever sees the node got it through the
            // Release and Acquire of the list.
            Sought::Record(header) => Some(unsafe { Record::at(header) }),
            Sought::Target(_) => None,
        }
    }

    /// Whether this target, if it is one, lies behind `record`.
    #[inline]
    fn is_behind(&self, record: Record<'_>) -> bool {
        match &self.sought {
            Sought::Target(target) => {
                // SAFETY: by the invariant of the variant it is alive, and nobody changes it.
                let target = unsafe { target.as_ref() };
                target.is_behind_tied(record)
            }
            Sought::Record(_) => unreachable!("two records are compared by their keys"),
        }
    }
}

impl Ord for NodeKey {
    #[inline]
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.head
            .cmp(&other.head)
            .then_with(|| match (self.record(), other.record()) {
                (Some(record), Some(other)) => record.key().cmp(&other.key()),
                (Some(record), None) if other.is_behind(record) => cmp::Ordering::Less,
                (None, Some(record)) if !self.is_behind(record) => cmp::Ordering::Less,
                _ => cmp::Ordering::Greater,
            })
    }
}

impl PartialOrd for NodeKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NodeKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for NodeKey {}

/// The guard for a list from which nothing is removed.
#[inline]
fn guard() -> &'static Guard {
    // SAFETY: the list is private to this module, which never removes or replaces an entry, so no
    // node is freed while the list can be reached, and nothing is ever deferred.
    unsafe { epoch::unprotected() }
}

/// A node of the list.
pub(super) type Node<'a> = Entry<'a, 'a, NodeKey, ()>;

/// The record of a node.
#[inline]
pub(super) fn record_of<'a>(node: &Node<'a>) -> Record<'a> {
    node.key().record().expect("targets are never inserted")
}

impl List {
    /// An empty list whose nodes are counted in `memory`.
    pub(super) fn new(memory: &Arc<MemoryLedger>) -> Self {
        Self {
            list: SkipList::new(epoch::default_collector().clone()),
            share: MemoryShare::new(memory),
        }
    }

    /// What its nodes have taken, and where that is counted.
    pub(super) fn share(&self) -> &MemoryShare {
        &self.share
    }

    /// Adds `record`; returns whether its key and sequence number were new.
    ///
    /// # Safety
    /// - The record outlives the list.
    #[inline]
    pub(super) unsafe fn insert(&self, record: Record<'_>) -> bool {
        let key = NodeKey {
            head: wide_head(record.user_key()),
            sought: Sought::Record(record.address()),
        };
        // Not `insert`, which replaces an equal key and would free its node under a reader.
        let inserted = self.list.get_or_insert(key, (), guard());
        let found = inserted.key().record().map(Record::address);
        let is_ours = found == Some(record.address());
        inserted.release(guard());
        // Where the record lies is as good as chance (Fibonacci hashing; Knuth 1973).
        let mixed = (record.address().addr().get() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if mixed >> 32 & (COUNTED_NODES as u64 - 1) == 0 {
            self.share.grow(COUNTED_NODES * NODE_BYTES_MEAN);
        }
        is_ours
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The first record behind `target`.
    #[inline]
    pub(super) fn find(&self, target: &Target<'_>) -> Option<Record<'_>> {
        self.after(target)?.key().record()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Node<'_>> {
        self.list.front(guard())
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Node<'_>> {
        self.list.back(guard())
    }

    /// The first node behind `target`.
    #[inline]
    pub(super) fn after(&self, target: &Target<'_>) -> Option<Node<'_>> {
        let key = NodeKey::seeking(target);
        self.list.lower_bound(Bound::Excluded(&key), guard())
    }

    /// The last node before `target`.
    #[inline]
    pub(super) fn before(&self, target: &Target<'_>) -> Option<Node<'_>> {
        let key = NodeKey::seeking(target);
        self.list.upper_bound(Bound::Excluded(&key), guard())
    }
}
