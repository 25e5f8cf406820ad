//! Stripes: counters that one thread alone adds to, so that adding is a load and a store.
//!
//! A thread takes a slot at its first count and gives it back when it ends; the slot says which
//! stripe of every keyspace is its own. Threads beyond the number of slots share the last stripe
//! and add atomically. Either way nothing is ever lost: sums are exact once a thread is done, and
//! at any time off by no more than what is just being counted.

use std::cell::Cell;

use base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sstable::ReadProbe;

use base::Level;

/// Slots that belong to one thread; what comes after them is shared.
pub(super) const OWN_COUNT: usize = 16;
pub(super) const SLOT_COUNT: usize = OWN_COUNT + 1;
const SHARED: usize = OWN_COUNT;
const UNKNOWN: usize = usize::MAX;

/// Which counter of a stripe.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Counter {
    UserBytes,
    UserWrites,
    ActiveHits,
    SealedHits,
    Tombstones,
    Absent,
    DataBlocks,
    CacheHits,
    CacheMisses,
    LoadedBlocks,
    ReadBytes,
    Seeks,
    /// Runs that positionings were about.
    SeekRuns,
    /// Of these, passed over by their bounds.
    SeekPassedRuns,
    /// Entries that cursors showed.
    ScanEntries,
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
    Hits,
    FilterNegatives,
    Searched,
    FilterFalsePositives,
}

const LEVEL_COUNTER_COUNT: usize = LevelCounter::FilterFalsePositives as usize + 1;

#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Stripe {
    counters: [AtomicU64; COUNTER_COUNT],
    levels: [[AtomicU64; LEVEL_COUNTER_COUNT]; Level::COUNT],
}

impl Stripe {
    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    pub(super) fn get_level(&self, level: Level, counter: LevelCounter) -> u64 {
        self.levels[level.index()][counter as usize].load(Ordering::Relaxed)
    }
}

/// The stripe of the calling thread, to be added to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a> {
    stripe: &'a Stripe,
    is_shared: bool,
}

impl<'a> Tally<'a> {
    #[inline]
    pub(super) fn new(stripe: &'a Stripe, slot: usize) -> Self {
        Self {
            stripe,
            is_shared: slot == SHARED,
        }
    }

    #[inline]
    fn add_to(self, counter: &AtomicU64, amount: u64) {
        if self.is_shared {
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

    /// Takes in what one table of `level` had to be asked.
    #[inline]
    pub(crate) fn add_table(self, level: Level, probe: &ReadProbe) {
        if probe.filter_negatives != 0 {
            self.add_level(level, LevelCounter::FilterNegatives);
            return;
        }
        self.add_level(level, LevelCounter::Searched);
        if probe.filter_false_positives != 0 {
            self.add_level(level, LevelCounter::FilterFalsePositives);
        }
        self.add(Counter::DataBlocks, u64::from(probe.data_blocks));
        self.add(Counter::ReadBytes, probe.bytes_read);
        if probe.cache_hits | probe.cache_misses | probe.loaded_blocks != 0 {
            self.add(Counter::CacheHits, u64::from(probe.cache_hits));
            self.add(Counter::CacheMisses, u64::from(probe.cache_misses));
            self.add(Counter::LoadedBlocks, u64::from(probe.loaded_blocks));
        }
    }
}

/// Which slots are taken, a bit each.
static TAKEN: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(UNKNOWN) };
    static HOLD: Hold = Hold::take();
}

/// The slot of the calling thread.
#[inline]
pub(super) fn slot() -> usize {
    let slot = SLOT.get();
    if slot == UNKNOWN { first_slot() } else { slot }
}

#[cold]
fn first_slot() -> usize {
    // A thread that is ending has given its slot back already.
    let slot = HOLD.try_with(|hold| hold.slot).unwrap_or(SHARED);
    SLOT.set(slot);
    slot
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
