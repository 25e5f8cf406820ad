//! What it all cost: counters that are always on.
//!
//! Striped by thread, so that two readers do not share a cache line; summed when asked for.

use std::cell::Cell;

use base::Level;
use base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sstable::ReadProbe;

const STRIPE_COUNT: usize = 16;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    UserBytesWritten,
    UserWriteCount,
    FlushBytesWritten,
    FlushCount,
    CompactionBytesRead,
    CompactionCount,
    MoveCount,
    ManifestBytes,
    GetCount,
    GetHitCount,
    MemtableHitCount,
    TablesConsidered,
    FilterNegatives,
    FilterFalsePositives,
    IndexBlocks,
    DataBlocks,
    CacheHits,
    CacheMisses,
    ReadBytes,
    StallMicros,
    StallCount,
    ThrottleMicros,
    ThrottleCount,
    SeekCount,
}

const COUNTER_COUNT: usize = Counter::SeekCount as usize + 1;

#[repr(align(128))]
#[derive(Debug)]
struct Stripe([AtomicU64; COUNTER_COUNT]);

/// The counters of one database since it was opened.
#[derive(Debug)]
pub(crate) struct Ledger {
    stripes: [Stripe; STRIPE_COUNT],
    compaction_bytes_written: [AtomicU64; Level::COUNT],
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> =
        Cell::new(NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPE_COUNT);
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            stripes: [const { Stripe([const { AtomicU64::new(0) }; COUNTER_COUNT]) }; STRIPE_COUNT],
            compaction_bytes_written: [const { AtomicU64::new(0) }; Level::COUNT],
        }
    }

    #[inline]
    fn stripe(&self) -> &Stripe {
        // A thread that is ending has lost its number; any stripe will do.
        &self.stripes[STRIPE.try_with(Cell::get).unwrap_or(0)]
    }

    #[inline]
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        self.stripe().0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes in one point read.
    #[inline]
    pub(crate) fn add_get(&self, is_hit: bool, table_count: u32, probe: &ReadProbe) {
        let stripe = &self.stripe().0;
        let add = |counter: Counter, amount: u64| {
            if amount != 0 {
                stripe[counter as usize].fetch_add(amount, Ordering::Relaxed);
            }
        };
        add(Counter::GetCount, 1);
        add(Counter::GetHitCount, u64::from(is_hit));
        if table_count == 0 {
            add(Counter::MemtableHitCount, u64::from(is_hit));
            return;
        }
        add(Counter::TablesConsidered, u64::from(table_count));
        add(Counter::FilterNegatives, u64::from(probe.filter_negatives));
        add(
            Counter::FilterFalsePositives,
            u64::from(probe.filter_false_positives),
        );
        add(Counter::IndexBlocks, u64::from(probe.index_blocks));
        add(Counter::DataBlocks, u64::from(probe.data_blocks));
        add(Counter::CacheHits, u64::from(probe.cache_hits));
        add(Counter::CacheMisses, u64::from(probe.cache_misses));
        add(Counter::ReadBytes, probe.bytes_read);
    }

    pub(crate) fn add_compaction_written(&self, level: Level, bytes: u64) {
        self.compaction_bytes_written[level.index()].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.stripes
            .iter()
            .map(|s| s.0[counter as usize].load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn compaction_written(&self, level: Level) -> u64 {
        self.compaction_bytes_written[level.index()].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_add_up() {
        let ledger = Ledger::new();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..100).for_each(|_| ledger.add(Counter::GetCount, 2)));
            }
        });
        assert_eq!(ledger.get(Counter::GetCount), 8000);
        assert_eq!(ledger.get(Counter::GetHitCount), 0);
    }
}
