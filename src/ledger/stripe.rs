//! Stripes: counters that one thread alone adds to, so that adding is a load and a store.
//!
//! A thread takes a slot at its first count and gives it back when it ends; the slot says which
//! stripe of every keyspace is its own. Threads beyond the number of slots share the last stripe
//! and add atomically. Either way nothing is ever lost: sums are exact once a thread is done, and
//! at any time off by no more than what is just being counted.

use std::cell::Cell;

use base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sstable::{BlockSource, SearchedBlock};

use base::Level;

/// Slots that belong to one thread.
pub(super) const OWN_COUNT: usize = 16;
/// What the other threads have for one.
const SHARED: usize = OWN_COUNT;
/// Of a thread that has not asked for a slot yet: not one of its own.
const UNKNOWN: usize = usize::MAX;

/// Which counter of a stripe.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Counter {
    UserBytes,
    UserWrites,
    ActiveHits,
    SealedHits,
    /// That memtables had.
    Tombstones,
    Absent,
    ReadBytes,
    Seeks,
    /// Runs that positionings were about.
    SeekRuns,
    /// Of these, passed over by their bounds.
    SeekPassedRuns,
    /// Entries that cursors showed.
    ScanEntries,
    /// Entries that they walked over because deletes or newer versions hide them.
    ScanHidden,
    ScanIndexBlocks,
    ScanDataBlocks,
    ScanCacheHits,
    ScanLoadedBlocks,
    ScanReadBytes,
}

const COUNTER_COUNT: usize = Counter::ScanReadBytes as usize + 1;

/// Which counter of a level.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum LevelCounter {
    FilterNegatives,
    /// Searched in vain though a filter was asked.
    FilterFalsePositives,
    /// Searched in vain, without a filter.
    Vain,
    Tombstones,
}

const LEVEL_COUNTER_COUNT: usize = LevelCounter::Tombstones as usize + 1;

#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Stripe {
    /// Here, so that what an addition needs is one pointer.
    is_shared: bool,
    counters: [AtomicU64; COUNTER_COUNT],
    /// Searches that ended with a value: most do, so that they are one sum by level and source.
    hits: [[AtomicU64; BlockSource::COUNT]; Level::COUNT],
    /// Blocks of those that did not.
    other_blocks: [AtomicU64; BlockSource::COUNT],
    levels: [[AtomicU64; LEVEL_COUNTER_COUNT]; Level::COUNT],
}

impl Stripe {
    /// The one that `slot` counts in.
    pub(super) fn new(slot: usize) -> Box<Self> {
        Box::new(Self {
            is_shared: slot >= OWN_COUNT,
            ..Self::default()
        })
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    pub(super) fn get_level(&self, level: Level, counter: LevelCounter) -> u64 {
        self.levels[level.index()][counter as usize].load(Ordering::Relaxed)
    }

    /// Values found in `level`.
    pub(super) fn hits(&self, level: Level) -> u64 {
        let hits = &self.hits[level.index()];
        hits.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Data blocks that gets searched.
    pub(super) fn blocks(&self, source: BlockSource) -> u64 {
        let hits = self.hits.iter().map(|of_level| &of_level[source.index()]);
        hits.chain([&self.other_blocks[source.index()]])
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// The stripe of the calling thread, to be added to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a> {
    stripe: &'a Stripe,
}

impl<'a> Tally<'a> {
    #[inline]
    pub(super) fn new(stripe: &'a Stripe) -> Self {
        Self { stripe }
    }

    #[inline]
    fn add_to(self, counter: &AtomicU64, amount: u64) {
        if self.stripe.is_shared {
            counter.fetch_add(amount, Ordering::Relaxed);
        } else {
            // INVARIANT: nobody else adds to this stripe while the thread holds its slot.
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(amount),
                Ordering::Relaxed,
            );
        }
    }

    #[inline]
    pub(crate) fn add(self, counter: Counter, amount: u64) {
        self.add_to(&self.stripe.counters[counter as usize], amount);
    }

    #[inline]
    pub(crate) fn add_level(self, level: Level, counter: LevelCounter) {
        let counters = &self.stripe.levels[level.index()];
        self.add_to(&counters[counter as usize], 1);
    }

    /// Takes in that a filter spared a get a table of `level`.
    #[inline]
    pub(crate) fn add_denied(self, level: Level) {
        self.add_level(level, LevelCounter::FilterNegatives);
    }

    /// Takes in that a get found its value in a table of `level`.
    #[inline]
    pub(crate) fn add_hit(self, level: Level, block: SearchedBlock) {
        let hits = &self.stripe.hits[level.index()];
        self.add_to(&hits[block.source.index()], 1);
        self.add_bytes(block);
    }

    /// Takes in that it found a tombstone there.
    #[inline]
    pub(crate) fn add_tombstone(self, level: Level, block: SearchedBlock) {
        self.add_without_value(level, LevelCounter::Tombstones, Some(block));
    }

    /// Takes in that a table of `level` was searched in vain. There is a block unless the index
    /// had none.
    #[inline]
    pub(crate) fn add_vain(self, level: Level, has_filter: bool, block: Option<SearchedBlock>) {
        let counters = [LevelCounter::Vain, LevelCounter::FilterFalsePositives];
        self.add_without_value(level, counters[usize::from(has_filter)], block);
    }

    fn add_without_value(self, level: Level, counter: LevelCounter, block: Option<SearchedBlock>) {
        self.add_level(level, counter);
        if let Some(block) = block {
            self.add_to(&self.stripe.other_blocks[block.source.index()], 1);
            self.add_bytes(block);
        }
    }

    #[inline]
    fn add_bytes(self, block: SearchedBlock) {
        if block.source.touches_stored() {
            self.add(Counter::ReadBytes, u64::from(block.stored_bytes));
        }
    }
}

/// Which slots are taken, a bit each.
static TAKEN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(UNKNOWN) };
    static HOLD: Hold = Hold::take();
}

/// The slot of the calling thread; one it cannot own if it has not asked for any.
#[inline]
pub(super) fn slot_or_unknown() -> usize {
    SLOT.get()
}

/// The slot of the calling thread, which asks for one if it has not.
pub(super) fn slot() -> usize {
    if SLOT.get() == UNKNOWN {
        // A thread that is ending has given its slot back already.
        SLOT.set(HOLD.try_with(|hold| hold.slot).unwrap_or(SHARED));
    }
    SLOT.get()
}

/// Holds a slot for as long as its thread lives.
struct Hold {
    slot: usize,
}

impl Hold {
    fn take() -> Self {
        let free = |taken: u32| {
            let slot = taken.trailing_ones();
            (slot < u32::try_from(OWN_COUNT).expect("few")).then(|| taken | 1 << slot)
        };
        // Acquire: pairs with the Release in `drop`; what the thread before has counted is seen.
        let before = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, free);
        Self {
            slot: before.map_or(SHARED, |taken| taken.trailing_ones() as usize),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        SLOT.set(SHARED);
        if self.slot < OWN_COUNT {
            // Release: pairs with the Acquire in `take`.
            TAKEN.fetch_and(!(1 << self.slot), Ordering::Release);
        }
    }
}
