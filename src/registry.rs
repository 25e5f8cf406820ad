//! The keyspaces there are, what is unflushed in them, and whose turn it is.
//!
//! Readers of the list take a snapshot of it and no lock. Whatever is done after each commit or
//! flush looks at the keyspaces with unflushed writes only: a thousand idle ones cost nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arc_swap::ArcSwap;
use base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use base::sync::{Arc, Mutex, MutexGuard};
use base::{Error, ErrorKind, KeyspaceId, MemoryLedger, Result, SequenceNumber, WriteOutcome};

use crate::batch::WriteBatch;
use crate::snapshots::Snapshots;
use crate::superversion::{KeyspaceState, keyspace_gone};
use crate::till::Till;

/// How many keyspaces a database can have at once.
pub(crate) const KEYSPACE_COUNT_MAX: usize = 1 << 16;
/// Active memtables are looked at anew when they have grown by so small a part of the bound.
const LOOKS_PER_BOUND: usize = 32;
/// What readers keep of flushed memtables leaves active ones at least so small a part of the bound.
const ACTIVE_PART_MIN: usize = 8;
/// And slices make them keep at most about such a part of it.
const PINNED_PART_MAX: usize = 4;

/// Where the memtables of a database are counted whose bound is `memtable_bytes_total`.
pub(crate) fn memory_ledger(memtable_bytes_total: usize) -> Arc<MemoryLedger> {
    Arc::new(MemoryLedger::new(memtable_bytes_total / PINNED_PART_MAX))
}

/// The keyspaces of a database.
#[derive(Debug)]
pub(crate) struct Keyspaces {
    default: Arc<KeyspaceState>,
    list: ArcSwap<List>,
    /// LOCK: before commit. Held by whoever creates or drops, and by close.
    changing: Mutex<()>,
    /// The sequence number of a creation or drop that MANIFEST does not have yet; 0 if there is
    /// none.
    pending_change: AtomicU64,
    /// Those with writes that are in no table. LOCK: a leaf.
    unflushed: Mutex<BTreeMap<KeyspaceId, Arc<KeyspaceState>>>,
    /// Dropped ones that a snapshot may still read. LOCK: before superversion.
    dropped: Mutex<Vec<Arc<KeyspaceState>>>,
    /// Those with a sealed memtable.
    pub(crate) to_flush: Queue,
    /// Those whose tree may need a compaction.
    pub(crate) to_compact: Queue,
    /// Those whose level 0 may have become due, or its way down free.
    pub(crate) to_compact_level0: Queue,
    memory: Memory,
}

/// A picture of which keyspaces there are.
#[derive(Clone, Debug, Default)]
struct List {
    by_id: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
    by_name: BTreeMap<Arc<str>, KeyspaceId>,
}

/// Whom background work serves next: everybody once before anybody twice.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    order: VecDeque<Arc<KeyspaceState>>,
    queued: BTreeSet<KeyspaceId>,
}

impl Queue {
    /// Puts a keyspace at the end unless it is in the queue already.
    pub(crate) fn push(&self, keyspace: &Arc<KeyspaceState>) {
        let mut state = self.0.lock();
        if state.queued.insert(keyspace.id) {
            state.order.push_back(Arc::clone(keyspace));
        }
    }

    /// Takes the first.
    pub(crate) fn pop(&self) -> Option<Arc<KeyspaceState>> {
        let mut state = self.0.lock();
        let first = state.order.pop_front()?;
        state.queued.remove(&first.id);
        Some(first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().order.is_empty()
    }
}

/// What the memtables of all keyspaces may take together.
#[derive(Debug)]
struct Memory {
    bytes_max: usize,
    /// What they have taken, those included that only readers or the sweeper still hold.
    ledger: Arc<MemoryLedger>,
    /// Active ones are looked at once they have grown so far.
    look_at: AtomicUsize,
    sealed_count: AtomicUsize,
    /// What writes pay, to whatever keyspace, while memory is tight.
    till: Till,
    /// Held while counting, so that the last count is the newest. LOCK: before `unflushed`.
    counting: Mutex<()>,
}

/// How much memory memtables take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// With what readers or the sweeper still keep of flushed ones.
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
    /// Some of it is about to be given back: a memtable is sealed.
    pub(crate) is_coming_back: bool,
}

/// Memory and log that a memtable holds.
#[derive(Debug)]
pub(crate) struct Unflushed {
    /// The first write in it.
    pub(crate) first_seq: SequenceNumber,
    /// Of entries.
    pub(crate) bytes: usize,
    /// Of memory.
    taken_bytes: usize,
    /// Whether it is on its way to a table.
    pub(crate) is_sealed: bool,
    pub(crate) keyspace: Arc<KeyspaceState>,
}

/// The keyspaces that a commit writes to.
pub(crate) enum Targets<'a> {
    One(&'a Arc<KeyspaceState>),
    Owned(Arc<KeyspaceState>),
    /// In the order of their ids.
    Many(Vec<Arc<KeyspaceState>>),
}

impl Targets<'_> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Arc<KeyspaceState>] {
        match self {
            Self::One(keyspace) => std::slice::from_ref(*keyspace),
            Self::Owned(keyspace) => std::slice::from_ref(keyspace),
            Self::Many(keyspaces) => keyspaces,
        }
    }
}

impl Targets<'_> {
    /// Where keyspace `id` is among them; most often where the last operation went, at `hint`.
    ///
    /// # Panics
    /// If it is not: a batch names each keyspace that it writes to.
    #[inline]
    pub(crate) fn index_of(&self, id: KeyspaceId, hint: usize) -> usize {
        let keyspaces = self.as_slice();
        if keyspaces[hint].id == id {
            return hint;
        }
        let found = keyspaces.binary_search_by_key(&id, |keyspace| keyspace.id);
        found.expect("a batch names each keyspace it writes to")
    }
}

impl Keyspaces {
    /// The keyspaces `all`, among them the default one.
    pub(crate) fn new(
        all: Vec<Arc<KeyspaceState>>,
        memtable_bytes_total: usize,
        ledger: Arc<MemoryLedger>,
    ) -> Self {
        let mut list = List::default();
        for keyspace in all {
            list.insert(keyspace);
        }
        let default = list.by_id.get(&KeyspaceId::DEFAULT);
        Self {
            default: Arc::clone(default.expect("checked when MANIFEST was loaded")),
            list: ArcSwap::from_pointee(list),
            changing: Mutex::new(()),
            pending_change: AtomicU64::new(0),
            unflushed: Mutex::default(),
            dropped: Mutex::default(),
            to_flush: Queue::default(),
            to_compact: Queue::default(),
            to_compact_level0: Queue::default(),
            memory: Memory {
                bytes_max: memtable_bytes_total,
                ledger,
                look_at: AtomicUsize::new(memtable_bytes_total / ACTIVE_PART_MIN),
                sealed_count: AtomicUsize::new(0),
                till: Till::new((memtable_bytes_total / ACTIVE_PART_MIN) as u64),
                counting: Mutex::new(()),
            },
        }
    }

    #[inline]
    pub(crate) fn default(&self) -> &Arc<KeyspaceState> {
        &self.default
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<KeyspaceState>> {
        let list = self.list.load();
        list.by_id.get(list.by_name.get(name)?).cloned()
    }

    pub(crate) fn by_id(&self, id: KeyspaceId) -> Option<Arc<KeyspaceState>> {
        self.list.load().by_id.get(&id).cloned()
    }

    /// Every keyspace as of now, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<KeyspaceState>> {
        self.list.load().by_id.values().cloned().collect()
    }

    /// Their names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.list.load();
        list.by_name.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.list.load().by_id.len()
    }

    /// The keyspaces that `batch` names, in the database `database_id`.
    ///
    /// # Errors
    /// `NotFound` if one was dropped, `InvalidArgument` if it is one of another database.
    pub(crate) fn targets(&self, batch: &WriteBatch, database_id: u128) -> Result<Targets<'_>> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        if !batch.is_for(database_id) {
            let message = "the batch names a keyspace of another database";
            return Err(rejected(Error::invalid_argument(message)));
        }
        let others = batch.other_keyspaces();
        if others.is_empty() {
            return Ok(Targets::One(&self.default));
        }
        let list = self.list.load();
        let find = |(id, name): &(KeyspaceId, Arc<str>)| {
            let found = list.by_id.get(id).cloned();
            found.ok_or_else(|| rejected(keyspace_gone(name)))
        };
        if let ([other], false) = (others, batch.has_default()) {
            return Ok(Targets::Owned(find(other)?));
        }
        let default = batch.has_default().then(|| Arc::clone(&self.default));
        let mut found: Vec<_> = default.into_iter().collect();
        for other in others {
            found.push(find(other)?);
        }
        Ok(Targets::Many(found))
    }

    /// Keeps everybody else from creating, dropping or closing.
    pub(crate) fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Notes that the log gets a creation or drop with the number `seq`: it is needed until
    /// MANIFEST has it. To be called before `seq` becomes visible.
    pub(crate) fn begin_change(&self, seq: SequenceNumber) {
        self.pending_change.store(seq.get(), Ordering::Release);
    }

    /// MANIFEST has it, or it never came to be.
    pub(crate) fn end_change(&self) {
        self.pending_change.store(0, Ordering::Release);
    }

    /// Adds a keyspace. The caller holds the lock of changes.
    pub(crate) fn insert(&self, keyspace: Arc<KeyspaceState>) {
        let mut list = List::clone(&self.list.load());
        list.insert(keyspace);
        self.list.store(Arc::new(list));
    }

    /// Takes a dropped keyspace out. What it holds is let go of once no snapshot from before the
    /// drop is left. The caller holds the lock of changes.
    pub(crate) fn remove(&self, keyspace: &Arc<KeyspaceState>) {
        let mut list = List::clone(&self.list.load());
        list.by_id.remove(&keyspace.id);
        list.by_name.remove(&*keyspace.name);
        self.list.store(Arc::new(list));
        self.unflushed.lock().remove(&keyspace.id);
        self.dropped.lock().push(Arc::clone(keyspace));
        self.recount();
    }

    /// Lets go of what dropped keyspaces hold and no snapshot reads. Returns whether some is left.
    pub(crate) fn clear_dropped(&self, snapshots: &Snapshots) -> bool {
        let mut dropped = self.dropped.lock();
        if dropped.is_empty() {
            return false;
        }
        dropped.retain(|keyspace| {
            let at = keyspace.dropped_at().expect("dropped before it came here");
            let is_read = snapshots.may_be_read_below(at);
            if !is_read {
                keyspace.clear();
            }
            is_read
        });
        !dropped.is_empty()
    }

    /// Lets go of what dropped keyspaces hold: the database was closed.
    pub(crate) fn clear_all_dropped(&self) {
        for keyspace in self.dropped.lock().drain(..) {
            keyspace.clear();
        }
    }

    /// Notes a commit that begins at `seq`. The caller holds the commit lock and has not
    /// published `seq` yet.
    #[inline]
    pub(crate) fn note_commit(&self, targets: &Targets<'_>, seq: SequenceNumber) {
        for keyspace in targets.as_slice() {
            if keyspace.note_assigned(seq) {
                self.unflushed
                    .lock()
                    .insert(keyspace.id, Arc::clone(keyspace));
            }
        }
    }

    /// Notes that `keyspace` has a sealed memtable more.
    pub(crate) fn note_sealed(&self, keyspace: &Arc<KeyspaceState>) {
        self.to_flush.push(keyspace);
        self.recount();
    }

    /// Notes that a flush of `keyspace` was installed.
    pub(crate) fn note_flushed(&self, keyspace: &Arc<KeyspaceState>) {
        let mut unflushed = self.unflushed.lock();
        // A commit that begins after this look puts it back: it needs the same lock for that.
        if !keyspace.has_unflushed() {
            unflushed.remove(&keyspace.id);
        }
        drop(unflushed);
        self.recount();
    }

    /// Every memtable with writes in it, the one with the oldest first.
    pub(crate) fn unflushed(&self) -> Vec<Unflushed> {
        let keyspaces: Vec<_> = self.unflushed.lock().values().cloned().collect();
        let mut found = Vec::with_capacity(keyspaces.len());
        for keyspace in keyspaces {
            // In this order: sealing adds to the view before it clears the number.
            let active_first_seq = keyspace.active_first_seq();
            let view = keyspace.pin();
            found.extend(view.sealed.iter().map(|sealed| Unflushed {
                first_seq: sealed.first_seq,
                bytes: sealed.memtable.bytes(),
                taken_bytes: sealed.memtable.taken_bytes(),
                is_sealed: true,
                keyspace: Arc::clone(&keyspace),
            }));
            found.extend(active_first_seq.map(|first_seq| Unflushed {
                first_seq,
                bytes: view.active.bytes(),
                taken_bytes: view.active.taken_bytes(),
                is_sealed: false,
                keyspace: Arc::clone(&keyspace),
            }));
        }
        found.sort_by_key(|memtable| memtable.first_seq);
        found
    }

    /// Up to where everything is in tables, or was dropped. `visible` was read before.
    ///
    /// A commit whose number is at or below `visible` noted it before it was published, so that it
    /// is seen here although it may be inserted only now.
    pub(crate) fn flushed_floor(&self, visible: SequenceNumber) -> SequenceNumber {
        let pending = self.pending_change.load(Ordering::Acquire);
        let pending = SequenceNumber::new(pending).filter(|_| pending != 0);
        let first = self.unflushed().first().map(|memtable| memtable.first_seq);
        let needed = pending.into_iter().chain(first).min();
        needed.map_or(visible, |needed| visible.min(needed.before()))
    }

    /// Whether memory for memtables is to be looked at anew.
    #[inline]
    pub(crate) fn is_memory_due(&self) -> bool {
        let memory = &self.memory;
        memory.ledger.active_bytes() >= memory.look_at.load(Ordering::Relaxed)
    }

    /// Counts anew how many memtables wait for their flush, and what they have taken. What active
    /// ones may take has changed: the next write looks.
    fn recount(&self) -> usize {
        let _counting = self.memory.counting.lock();
        let keyspaces: Vec<_> = self.unflushed.lock().values().cloned().collect();
        let (mut sealed_bytes, mut sealed_count) = (0, 0);
        for keyspace in keyspaces {
            let view = keyspace.peek();
            let bytes = view.sealed.iter().map(|s| s.memtable.taken_bytes());
            sealed_bytes += bytes.sum::<usize>();
            sealed_count += view.sealed.len();
        }
        let memory = &self.memory;
        memory.sealed_count.store(sealed_count, Ordering::Release);
        let soon = memory.bytes_max / ACTIVE_PART_MIN;
        memory.look_at.store(soon, Ordering::Relaxed);
        memory.till.view_changed();
        sealed_bytes
    }

    /// The active memtables that are to be sealed so that at most half of the memory is in active
    /// ones, the largest first; counts anew. The other half is for those being flushed. Memory of
    /// flushed ones that readers keep is in neither.
    pub(crate) fn too_large(&self) -> Vec<Arc<KeyspaceState>> {
        let sealed_bytes = self.recount();
        let memory = &self.memory;
        let mut left = memory.ledger.active_bytes();
        let taken = memory.ledger.taken_bytes();
        let kept = taken.saturating_sub(left).saturating_sub(sealed_bytes);
        let least = memory.bytes_max / ACTIVE_PART_MIN;
        let active_max = (memory.bytes_max.saturating_sub(kept) / 2).max(least);
        let mut found = Vec::new();
        if left >= active_max {
            let mut active = self.unflushed();
            active.retain(|memtable| !memtable.is_sealed);
            active.sort_by_key(|memtable| std::cmp::Reverse(memtable.taken_bytes));
            for memtable in active {
                if left < active_max {
                    break;
                }
                left = left.saturating_sub(memtable.taken_bytes);
                found.push(memtable.keyspace);
            }
        }
        let step = (memory.bytes_max / LOOKS_PER_BOUND).max(1);
        let next = left.saturating_add(step);
        let next = if left < active_max {
            next.min(active_max)
        } else {
            next
        };
        memory.look_at.store(next, Ordering::Relaxed);
        found
    }

    /// Where writes pay while memory is tight. Marked as stale at each count.
    #[inline]
    pub(crate) fn memory_till(&self) -> &Till {
        &self.memory.till
    }

    /// What memtables take now.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        let memory = &self.memory;
        MemoryUse {
            bytes: memory.ledger.taken_bytes(),
            bytes_max: memory.bytes_max,
            is_coming_back: memory.sealed_count.load(Ordering::Acquire) > 0,
        }
    }
}

impl List {
    fn insert(&mut self, keyspace: Arc<KeyspaceState>) {
        self.by_name.insert(Arc::clone(&keyspace.name), keyspace.id);
        self.by_id.insert(keyspace.id, keyspace);
    }
}

/// What everybody is told who asks for a keyspace that is not there.
pub(crate) fn no_such_keyspace(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such keyspace").with_value("name", name)
}
