//! What a cursor had to touch, and how that comes into the ledger: while it moves it counts for
//! itself, so that a step touches nothing that is shared.

use memtable::Memtable;
use sstable::ReadProbe;

use super::run::RunCursor;
use crate::ledger::{Counter, KeyspaceLedger};

/// After so many positionings the ledger hears of it, though the cursor lives on.
const SEEKS_MAX: u32 = 64;

/// What one move of a cursor walked over because deletes or newer versions hide it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    pub(super) hidden_count: u64,
    /// How many of these lie in the memtable that was active when the cursor was made.
    pub(super) active_count: u64,
}

/// What one cursor has counted.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Entries shown since the ledger last heard of it.
    pub(super) shown_count: u64,
    /// Entries walked over since then because deletes or newer versions hide them.
    hidden_count: u64,
    seek_count: u32,
    /// What the ledger has of the runs' own counts.
    booked: ReadProbe,
    booked_passed_count: u64,
}

impl Account {
    /// Takes in that the cursor is about to be positioned in all `runs`.
    #[inline]
    pub(super) fn add_seek(&mut self, ledger: &KeyspaceLedger, runs: &[RunCursor]) {
        let tally = ledger.tally();
        tally.add(Counter::Seeks, 1);
        tally.add(Counter::SeekRuns, runs.len() as u64);
        self.seek_count += 1;
        if self.seek_count >= SEEKS_MAX {
            self.settle(ledger, runs);
        }
    }

    /// Takes in what a move walked over in vain, and tells the active memtable its part of it.
    #[cold]
    pub(super) fn add_walk(&mut self, walk: Walk, active: &Memtable) {
        self.hidden_count += walk.hidden_count;
        if walk.active_count > 0 {
            active.note_walked(walk.active_count);
        }
    }

    /// Brings everything into the ledger.
    pub(super) fn settle(&mut self, ledger: &KeyspaceLedger, runs: &[RunCursor]) {
        self.seek_count = 0;
        let (mut probe, mut passed_count) = (ReadProbe::default(), 0);
        for run in runs {
            if let RunCursor::Level(cursor) = run {
                probe.add(&cursor.probe());
                passed_count += cursor.passed_count();
            }
        }
        let (before, tally) = (&self.booked, ledger.tally());
        let since = |now: u32, before: u32| u64::from(now.wrapping_sub(before));
        for (counter, amount) in [
            (Counter::ScanEntries, self.shown_count),
            (Counter::ScanHidden, self.hidden_count),
            (
                Counter::SeekPassedRuns,
                passed_count - self.booked_passed_count,
            ),
            (
                Counter::ScanIndexBlocks,
                since(probe.index_blocks, before.index_blocks),
            ),
            (
                Counter::ScanDataBlocks,
                since(probe.data_blocks, before.data_blocks),
            ),
            (
                Counter::ScanCacheHits,
                since(probe.cache_hits, before.cache_hits),
            ),
            (
                Counter::ScanLoadedBlocks,
                since(probe.loaded_blocks, before.loaded_blocks),
            ),
            (Counter::ScanReadBytes, probe.bytes_read - before.bytes_read),
        ] {
            if amount > 0 {
                tally.add(counter, amount);
            }
        }
        self.shown_count = 0;
        self.hidden_count = 0;
        self.booked = probe;
        self.booked_passed_count = passed_count;
    }
}
