//! The counters of one keyspace.

use std::fmt;
use std::sync::OnceLock;

use base::Level;
use base::sync::atomic::{AtomicU64, Ordering};
use sstable::BlockSource;

use super::stripe::{Counter, LevelCounter, OWN_COUNT, Stripe, Tally, slot, slot_or_unknown};
use super::{AtomicWritten, Counts, Written};

/// Counts what one keyspace costs. Some hundred bytes until somebody reads or writes it; then a
/// stripe for each thread that does.
pub(crate) struct KeyspaceLedger {
    /// By slot; that of the threads without one of their own is `shared`.
    stripes: [OnceLock<Box<Stripe>>; OWN_COUNT],
    shared: OnceLock<Box<Stripe>>,
    flush: AtomicWritten,
    flush_count: AtomicU64,
    compactions: [AtomicWritten; Level::COUNT],
    /// Bytes of tables that compactions into each level took from above it.
    arrived: [AtomicU64; Level::COUNT],
    compaction_count: AtomicU64,
    compaction_read_bytes: AtomicU64,
    move_count: AtomicU64,
    moved_bytes: AtomicU64,
}

impl KeyspaceLedger {
    pub(super) fn new() -> Self {
        Self {
            stripes: Default::default(),
            shared: OnceLock::new(),
            flush: AtomicWritten::default(),
            flush_count: AtomicU64::default(),
            compactions: Default::default(),
            arrived: Default::default(),
            compaction_count: AtomicU64::default(),
            compaction_read_bytes: AtomicU64::default(),
            move_count: AtomicU64::default(),
            moved_bytes: AtomicU64::default(),
        }
    }

    /// What the calling thread adds to.
    #[inline]
    pub(crate) fn tally(&self) -> Tally<'_> {
        let slot = slot_or_unknown();
        match self.stripes.get(slot).and_then(OnceLock::get) {
            Some(stripe) => Tally::new(stripe),
            None => self.first_tally(),
        }
    }

    /// The same for a thread that counts here for the first time, or shares its stripe.
    #[cold]
    fn first_tally(&self) -> Tally<'_> {
        let slot = slot();
        let stripe = self.stripes.get(slot).unwrap_or(&self.shared);
        Tally::new(stripe.get_or_init(|| Stripe::new(slot)))
    }

    pub(crate) fn add_write(&self, user_bytes: u64, op_count: u64) {
        let tally = self.tally();
        tally.add(Counter::UserBytes, user_bytes);
        tally.add(Counter::UserWrites, op_count);
    }

    /// Takes in a flush that wrote tables of these sizes.
    pub(crate) fn add_flush(&self, table_bytes: impl Iterator<Item = u64>) {
        self.flush_count.fetch_add(1, Ordering::Relaxed);
        table_bytes.for_each(|bytes| self.flush.add(Written::file(bytes)));
    }

    /// Takes in a compaction that wrote tables of these sizes into `level`.
    pub(crate) fn add_compaction(
        &self,
        level: Level,
        read_bytes: u64,
        table_bytes: impl Iterator<Item = u64>,
    ) {
        self.compaction_count.fetch_add(1, Ordering::Relaxed);
        self.compaction_read_bytes
            .fetch_add(read_bytes, Ordering::Relaxed);
        let written = &self.compactions[level.index()];
        table_bytes.for_each(|bytes| written.add(Written::file(bytes)));
    }

    /// Takes in that a compaction into `level` took tables of so many bytes from above it.
    pub(crate) fn add_arrival(&self, level: Level, bytes: u64) {
        self.arrived[level.index()].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes in that tables changed level without being written.
    pub(crate) fn add_move(&self, bytes: u64) {
        self.move_count.fetch_add(1, Ordering::Relaxed);
        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The sums as of now.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            flush: self.flush.get(),
            flush_count: self.flush_count.load(Ordering::Relaxed),
            compaction_count: self.compaction_count.load(Ordering::Relaxed),
            compaction_read_bytes: self.compaction_read_bytes.load(Ordering::Relaxed),
            move_count: self.move_count.load(Ordering::Relaxed),
            moved_bytes: self.moved_bytes.load(Ordering::Relaxed),
            ..Counts::default()
        };
        for (level, written) in counts.levels.iter_mut().zip(&self.compactions) {
            level.compaction = written.get();
        }
        for (level, bytes) in counts.levels.iter_mut().zip(&self.arrived) {
            level.arrived_bytes = bytes.load(Ordering::Relaxed);
        }
        let stripes = self.stripes.iter().chain([&self.shared]);
        for stripe in stripes.filter_map(OnceLock::get) {
            counts.user_bytes += stripe.get(Counter::UserBytes);
            counts.user_write_count += stripe.get(Counter::UserWrites);
            counts.active_hit_count += stripe.get(Counter::ActiveHits);
            counts.sealed_hit_count += stripe.get(Counter::SealedHits);
            counts.tombstone_count += stripe.get(Counter::Tombstones);
            counts.absent_count += stripe.get(Counter::Absent);
            let (mapped, cached) = (BlockSource::Mapped, BlockSource::Cached);
            let missed = stripe.blocks(BlockSource::Missed);
            let loaded = missed + stripe.blocks(BlockSource::Uncached);
            counts.data_blocks += stripe.blocks(mapped) + stripe.blocks(cached) + loaded;
            counts.cache_hits += stripe.blocks(cached);
            counts.cache_misses += missed;
            counts.loaded_blocks += loaded;
            counts.read_bytes += stripe.get(Counter::ReadBytes);
            counts.seek_count += stripe.get(Counter::Seeks);
            let scans = &mut counts.scans;
            scans.run_count += stripe.get(Counter::SeekRuns);
            scans.passed_run_count += stripe.get(Counter::SeekPassedRuns);
            scans.entry_count += stripe.get(Counter::ScanEntries);
            scans.hidden_count += stripe.get(Counter::ScanHidden);
            scans.index_blocks += stripe.get(Counter::ScanIndexBlocks);
            scans.data_blocks += stripe.get(Counter::ScanDataBlocks);
            scans.cache_hits += stripe.get(Counter::ScanCacheHits);
            scans.loaded_blocks += stripe.get(Counter::ScanLoadedBlocks);
            scans.read_bytes += stripe.get(Counter::ScanReadBytes);
            for level in Level::all() {
                let of = |counter| stripe.get_level(level, counter);
                let (hits, tombstones) = (stripe.hits(level), of(LevelCounter::Tombstones));
                let false_positives = of(LevelCounter::FilterFalsePositives);
                let in_vain = false_positives + of(LevelCounter::Vain);
                counts.tombstone_count += tombstones;
                let counts = &mut counts.levels[level.index()];
                counts.hit_count += hits;
                counts.filter_negatives += of(LevelCounter::FilterNegatives);
                counts.searched += hits + tombstones + in_vain;
                counts.filter_false_positives += false_positives;
            }
        }
        counts
    }
}

impl Tally<'_> {
    /// Takes in that a get ended in a memtable.
    #[inline]
    pub(crate) fn add_in_memtable(self, is_active: bool, is_put: bool) {
        let hits = [Counter::SealedHits, Counter::ActiveHits][usize::from(is_active)];
        self.add([Counter::Tombstones, hits][usize::from(is_put)], 1);
    }

    /// Takes in that a get found nothing.
    #[inline]
    pub(crate) fn add_absent(self) {
        self.add(Counter::Absent, 1);
    }
}

impl fmt::Debug for KeyspaceLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}
