//! The memtable itself: entries, the filter in front of them, and what they weigh.
//!
//! Called by the engine's write, read and flush paths.

use std::fmt;

use base::filter::GrowingFilter;
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{
    InternalKey, KeyHash, KeyKind, MemoryLedger, MemoryShare, PinLedger, SequenceNumber, Slice,
};

use crate::arena::Ledgers;
use crate::cursor::MemtableCursor;
use crate::ordered::{EntryRef, MemtableStructure, Ordered};
use crate::spare::SpareChunks;

/// The number of probes of the filter follows from this many bits for each expected key.
const FILTER_BITS_PER_KEY: u32 = 10;
const ARENA_CHUNK_BYTES_MAX: usize = 2 << 20;

/// How a [`Memtable`] is laid out.
#[derive(Clone, Debug)]
pub struct MemtableOptions {
    /// Size of the filter in front of point reads; 0 for none. It serves best with at least ten
    /// bits for each key that will come. It is made when keys come.
    pub filter_bytes: usize,
    /// Where slices that keep the memtable's bytes alive are counted.
    pub pins: Arc<PinLedger>,
    /// Where its memory is counted, from when it is taken until it is given back.
    pub memory: Arc<MemoryLedger>,
    /// By how much its memory grows at most; it begins with less. From 2 MiB on it comes in large
    /// pages, where the system has them.
    pub arena_chunk_bytes: usize,
    /// What keeps the entries in order.
    pub structure: MemtableStructure,
    /// Where large pages lie ready, so that no insert waits until one is cleared.
    pub spares: Option<Arc<SpareChunks>>,
}

impl Default for MemtableOptions {
    fn default() -> Self {
        Self {
            filter_bytes: 0,
            pins: Arc::default(),
            memory: Arc::default(),
            arena_chunk_bytes: ARENA_CHUNK_BYTES_MAX,
            structure: MemtableStructure::default(),
            spares: None,
        }
    }
}

/// The newest writes of a keyspace, in key order, in memory.
///
/// Threads may insert, read and walk it at the same time. A read takes no lock; it looks again if
/// an insert was changing the very node it read. Nothing is removed before the whole is dropped,
/// which gives back all its memory: drop it off the write path.
pub struct Memtable {
    entries: Arc<Ordered>,
    filter: Option<GrowingFilter>,
    counters: Counters,
}

/// Kept away from what readers look at: every insert writes here.
#[derive(Debug)]
#[repr(align(128))]
struct Counters {
    tombstone_count: AtomicU64,
    walked_count: AtomicU64,
    user_bytes: AtomicU64,
    seq_smallest: AtomicU64,
    seq_largest: AtomicU64,
    commit_micros_smallest: AtomicU64,
    commit_micros_largest: AtomicU64,
}

/// The newest entry of a key, borrowed from the memtable it was found in.
#[derive(Clone, Copy)]
pub struct MemtableHit<'a> {
    /// When it was written.
    pub seq: SequenceNumber,
    /// What was done to the key.
    pub kind: KeyKind,
    /// The value, where it lies; empty for a tombstone.
    pub value: &'a [u8],
    /// The address of the value: the same for every read of this entry.
    pub place: u64,
    entry: EntryRef<'a>,
}

impl fmt::Debug for MemtableHit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemtableHit")
            .field("key", &self.entry.key())
            .field("value", &self.value.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

impl Memtable {
    /// An empty memtable.
    pub fn new(options: MemtableOptions) -> Arc<Self> {
        let filter = (options.filter_bytes > 0).then(|| {
            let share = MemoryShare::new(&options.memory);
            GrowingFilter::new(options.filter_bytes, FILTER_BITS_PER_KEY, share)
        });
        let ledgers = Ledgers {
            pins: options.pins,
            memory: options.memory,
            spares: options.spares,
        };
        Arc::new(Self {
            entries: Arc::new(Ordered::new(
                options.structure,
                options.arena_chunk_bytes,
                ledgers,
            )),
            filter,
            counters: Counters {
                tombstone_count: AtomicU64::new(0),
                walked_count: AtomicU64::new(0),
                user_bytes: AtomicU64::new(0),
                seq_smallest: AtomicU64::new(u64::MAX),
                seq_largest: AtomicU64::new(0),
                commit_micros_smallest: AtomicU64::new(u64::MAX),
                commit_micros_largest: AtomicU64::new(0),
            },
        })
    }

    /// Adds one entry. `hash` is the hash of the user key; `value` is empty for a tombstone.
    ///
    /// Threads may insert at once, in any order of sequence numbers. When this returns, every read
    /// that starts afterwards finds the entry; a read at the same time finds it whole or not at
    /// all. Cost: one search, one copy of key and value.
    ///
    /// # Panics
    /// If this key was inserted at this sequence number before, or key or value exceed 4 GiB.
    #[inline]
    pub fn insert(&self, key: InternalKey<'_>, hash: KeyHash, value: &[u8]) {
        if let Some(filter) = &self.filter {
            // Before the entry can be found, so that the filter never hides it.
            filter.insert(hash);
        }
        self.counters.take_in(key, value.len());
        self.entries.insert(key, value);
    }

    /// Notes that an entry was committed at `micros` since 1970.
    #[inline]
    pub fn note_commit_time(&self, micros: u64) {
        let counters = &self.counters;
        // Looked at first, as for sequence numbers.
        if micros < counters.commit_micros_smallest.load(Ordering::Relaxed) {
            let smallest = &counters.commit_micros_smallest;
            smallest.fetch_min(micros, Ordering::Relaxed);
        }
        if micros > counters.commit_micros_largest.load(Ordering::Relaxed) {
            let largest = &counters.commit_micros_largest;
            largest.fetch_max(micros, Ordering::Relaxed);
        }
    }

    /// The smallest and the largest commit time noted, in microseconds since 1970.
    pub fn commit_times(&self) -> Option<(u64, u64)> {
        let counters = &self.counters;
        let smallest = counters.commit_micros_smallest.load(Ordering::Relaxed);
        let largest = counters.commit_micros_largest.load(Ordering::Relaxed);
        (smallest <= largest).then_some((smallest, largest))
    }

    /// The newest entry of `user_key` at or below `seq`, a tombstone included.
    ///
    /// `hash` is the hash of the user key under the seed that inserts use.
    #[inline]
    pub fn get(
        &self,
        user_key: &[u8],
        hash: KeyHash,
        seq: SequenceNumber,
    ) -> Option<MemtableHit<'_>> {
        if let Some(filter) = &self.filter
            && !filter.may_contain(hash)
        {
            return None;
        }
        let entry = self.entries.find(user_key, seq)?;
        let value = entry.value();
        Some(MemtableHit {
            seq: entry.seq(),
            kind: entry.kind(),
            value,
            place: value.as_ptr().addr() as u64,
            entry,
        })
    }

    /// Asks for the line of the filter that [`Memtable::get`] reads first.
    #[inline]
    pub fn prefetch_filter(&self, hash: KeyHash) {
        if let Some(filter) = &self.filter {
            filter.prefetch(hash);
        }
    }

    /// The value that `hit` found as an owned slice. From 1 KiB on it keeps the memory of all keys
    /// and values of this memtable, and is counted in the pin ledger; a shorter one is copied, and
    /// any once slices keep as much memory as the memory ledger lets them.
    pub fn pin(self: &Arc<Self>, hit: &MemtableHit<'_>) -> Slice {
        hit.entry.pin()
    }

    /// A cursor over all entries. It keeps the entries alive, may outlive this handle and move to
    /// another thread, and meets entries that are inserted ahead of it while it walks.
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(&self.entries))
    }

    /// What it occupies, as resident memory counts it: keys, values, nodes and the filter.
    ///
    /// Memory that was taken but not handed out yet is not in it: less than one chunk for entries
    /// and one for nodes. The nodes of a skip list are estimated.
    pub fn bytes(&self) -> usize {
        let filter_bytes = self.filter.as_ref().map_or(0, GrowingFilter::bytes);
        self.entries.bytes() + filter_bytes
    }

    /// What it has taken from the system, used already or not.
    pub fn taken_bytes(&self) -> usize {
        let filter_bytes = self.filter.as_ref().map_or(0, GrowingFilter::bytes);
        self.entries.taken_bytes() + filter_bytes
    }

    /// Notes in the memory ledger that only inserts that are under way will still come.
    pub fn seal(&self) {
        self.entries.seal();
        if let Some(filter) = &self.filter {
            filter.seal();
        }
    }

    /// How many entries it holds, tombstones and overwritten versions included.
    pub fn entry_count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many of them are tombstones.
    pub fn tombstone_count(&self) -> u64 {
        self.counters.tombstone_count.load(Ordering::Relaxed)
    }

    /// Takes in that a scan walked over `count` of its entries without showing them.
    ///
    /// To be called once a positioning, not once an entry: inserts write to the same line.
    pub fn note_walked(&self, count: u64) {
        let walked = &self.counters.walked_count;
        walked.fetch_add(count, Ordering::Relaxed);
    }

    /// How many entries scans walked over in vain, each as often as they did.
    #[inline]
    pub fn walked_count(&self) -> u64 {
        self.counters.walked_count.load(Ordering::Relaxed)
    }

    /// Bytes of user keys and values.
    pub fn user_bytes(&self) -> u64 {
        self.counters.user_bytes.load(Ordering::Relaxed)
    }

    /// The smallest and the largest sequence number in it, or `None` if it is empty.
    pub fn seq_range(&self) -> Option<(SequenceNumber, SequenceNumber)> {
        let smallest = SequenceNumber::new(self.counters.seq_smallest.load(Ordering::Relaxed))?;
        let largest = SequenceNumber::new(self.counters.seq_largest.load(Ordering::Relaxed))?;
        Some((smallest, largest.max(smallest)))
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memtable")
            .field("entry_count", &self.entry_count())
            .field("bytes", &self.bytes())
            .field("seq_range", &self.seq_range())
            .finish_non_exhaustive()
    }
}

impl Counters {
    #[inline]
    fn take_in(&self, key: InternalKey<'_>, value_len: usize) {
        let user_bytes = key.user_key.len() + value_len;
        self.user_bytes
            .fetch_add(user_bytes as u64, Ordering::Relaxed);
        if key.kind == KeyKind::Delete {
            self.tombstone_count.fetch_add(1, Ordering::Relaxed);
        }
        let seq = key.seq.get();
        // Looked at first: numbers mostly come upwards, and a load is cheaper than an exchange.
        if seq < self.seq_smallest.load(Ordering::Relaxed) {
            self.seq_smallest.fetch_min(seq, Ordering::Relaxed);
        }
        if seq > self.seq_largest.load(Ordering::Relaxed) {
            self.seq_largest.fetch_max(seq, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
