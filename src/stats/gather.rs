//! Reads every counter there is.

use base::clock::Clock;
use base::memory::MemoryLedger;
use base::sync::Arc;
use base::{Level, PinLedger};
use compaction::TableMeta;
use log::Log;
use sstable::BlockCache;

use super::{KeyspaceStats, LevelStats, Stats, ThrottleStats, WaitStats};
use crate::db::Handle;
use crate::ledger::{Counts, Ledger, LevelCounts, Written};
use crate::manifest::VersionSet;
use crate::registry::Keyspaces;
use crate::snapshots::Snapshots;
use crate::superversion::KeyspaceState;
use crate::throttle::ThrottleCause;
use crate::tree::Tree;

/// The rooms that have numbers to tell. They keep neither the database open nor its directory.
pub(crate) struct Sources {
    pub(crate) keyspaces: Arc<Keyspaces>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) log: Arc<Log>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) memory: Arc<MemoryLedger>,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) pins: Arc<PinLedger>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The numbers of one look, and the books they were taken from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) stats: Stats,
    /// Of all keyspaces there have been.
    pub(crate) counts: Counts,
    /// Of each that is open, in the order of `stats.keyspaces`.
    pub(crate) counts_by_keyspace: Vec<Counts>,
    pub(crate) log: Written,
    pub(crate) manifest: Written,
    pub(crate) stats_file: Written,
}

impl Handle {
    pub(crate) fn stats(&self) -> Stats {
        self.sources.gather().stats
    }
}

impl Sources {
    /// The numbers, and the books they were taken from.
    pub(crate) fn gather(&self) -> Gathered {
        let mut levels = empty_levels();
        let (mut keyspaces, mut counts_by_keyspace) = (Vec::new(), Vec::new());
        for state in self.keyspaces.all() {
            let own = state.ledger.counts();
            let stats = keyspace_stats(&state, &own, self.throttle(&state));
            for (all, level) in levels.iter_mut().zip(&stats.levels) {
                add_level(all, level);
            }
            keyspaces.push(stats);
            counts_by_keyspace.push(own);
        }
        // Afterwards, so that no part is larger than the whole.
        let counts = self.ledger.total();
        for (stats, counted) in levels.iter_mut().zip(&counts.levels) {
            stats.set_counted(counted);
        }
        let mut stats = self.totals(&counts);
        stats.memtable_bytes = keyspaces.iter().map(|k| k.memtable_bytes).sum();
        stats.sealed_memtable_count = keyspaces.iter().map(|k| k.sealed_memtable_count).sum();
        stats.levels = levels;
        stats.keyspaces = keyspaces;
        stats.waits = waits(&self.ledger);
        stats.stall_count = stats.waits.iter().map(|w| w.stall_count).sum();
        stats.stall_micros = stats.waits.iter().map(|w| w.stall_micros).sum();
        stats.throttle_count = stats.waits.iter().map(|w| w.throttle_count).sum();
        stats.throttle_micros = stats.waits.iter().map(|w| w.throttle_micros).sum();
        let log = Written {
            payload_bytes: stats.log_bytes,
            page_bytes: self.log.stats().page_bytes + self.ledger.log_copy().page_bytes,
        };
        Gathered {
            stats,
            counts,
            counts_by_keyspace,
            log,
            manifest: self.ledger.manifest(),
            stats_file: self.ledger.stats_file(),
        }
    }

    fn throttle(&self, keyspace: &KeyspaceState) -> ThrottleStats {
        ThrottleStats::of(&keyspace.till, self.keyspaces.memory_till())
    }

    /// What does not come keyspace by keyspace.
    fn totals(&self, counts: &Counts) -> Stats {
        let log = self.log.stats();
        let snapshots = &self.snapshots;
        let searched = counts.sum(|level| level.searched);
        let filter_negatives = counts.sum(|level| level.filter_negatives);
        Stats {
            user_bytes_written: counts.user_bytes,
            user_write_count: counts.user_write_count,
            log_bytes: log.appended_bytes + self.ledger.log_copy().payload_bytes,
            log_sync_count: log.sync_count,
            log_disk_bytes: self.log.total_bytes(),
            log_segment_count: log.segment_count,
            flush_bytes_written: counts.flush.payload_bytes,
            flush_count: counts.flush_count,
            compaction_bytes_read: counts.compaction_read_bytes,
            compaction_bytes_written: counts.compaction().payload_bytes,
            compaction_count: counts.compaction_count,
            move_count: counts.move_count,
            manifest_bytes: self.ledger.manifest().payload_bytes,
            stats_file_bytes: self.ledger.stats_file().payload_bytes,
            stats_file_failure_count: self.ledger.stats_file_failure_count(),
            get_count: counts.get_count(),
            get_hit_count: counts.hit_count(),
            memtable_hit_count: counts.memtable_hit_count(),
            sealed_hit_count: counts.sealed_hit_count,
            get_tombstone_count: counts.tombstone_count,
            tables_considered: searched + filter_negatives,
            filter_negatives,
            filter_false_positives: counts.sum(|level| level.filter_false_positives),
            index_blocks: searched,
            data_blocks: counts.data_blocks,
            cache_hits: counts.cache_hits,
            cache_misses: counts.cache_misses,
            loaded_blocks: counts.loaded_blocks,
            get_bytes_read: counts.read_bytes,
            seek_count: counts.seek_count,
            seek_run_count: counts.scans.run_count,
            seek_passed_run_count: counts.scans.passed_run_count,
            scan_entry_count: counts.scans.entry_count,
            scan_hidden_entry_count: counts.scans.hidden_count,
            scan_index_blocks: counts.scans.index_blocks,
            scan_data_blocks: counts.scans.data_blocks,
            scan_cache_hits: counts.scans.cache_hits,
            scan_loaded_blocks: counts.scans.loaded_blocks,
            scan_bytes_read: counts.scans.read_bytes,
            cache_bytes: self.cache.used_bytes(),
            pinned_slice_count: self.pins.count(),
            pinned_bytes: self.pins.bytes(),
            pins: self.pins.report(self.clock.monotonic_micros()).to_vec(),
            snapshot_count: snapshots.count() as u64,
            oldest_snapshot_seq: snapshots.capture().registered.first().copied(),
            visible_seq: snapshots.visible(),
            throttle: self.throttle(self.keyspaces.default()),
            read_mode: self.versions.tables().mode(),
            memtable_taken_bytes: self.memory.taken_bytes() as u64,
            memtable_pinned_bytes: self.memory.pinned_bytes() as u64,
            ..Stats::default()
        }
    }
}

fn waits(ledger: &Ledger) -> Vec<WaitStats> {
    let waits = ThrottleCause::ALL.map(|cause| {
        let (stalls, throttles) = (ledger.stalls(cause), ledger.throttles(cause));
        WaitStats {
            cause,
            stall_count: stalls.count,
            stall_micros: stalls.micros,
            throttle_count: throttles.count,
            throttle_micros: throttles.micros,
        }
    });
    let were_any = |waits: &WaitStats| waits.stall_count + waits.throttle_count > 0;
    waits.into_iter().filter(were_any).collect()
}

pub(crate) fn empty_levels() -> Vec<LevelStats> {
    let empty = |level| LevelStats {
        level,
        table_count: 0,
        bytes: 0,
        entry_count: 0,
        tombstone_count: 0,
        raw_bytes: 0,
        distinct_bytes: 0,
        compaction_bytes_written: 0,
        get_hit_count: 0,
        filter_negatives: 0,
        tables_searched: 0,
        filter_false_positives: 0,
        score: 0.0,
    };
    Level::all().map(empty).collect()
}

impl LevelStats {
    /// What was counted, rather than what is there.
    pub(crate) fn set_counted(&mut self, counted: &LevelCounts) {
        self.compaction_bytes_written = counted.compaction.payload_bytes;
        self.get_hit_count = counted.hit_count;
        self.filter_negatives = counted.filter_negatives;
        self.tables_searched = counted.searched;
        self.filter_false_positives = counted.filter_false_positives;
    }
}

/// What is there, level by level. The levels of all keyspaces taken together have the score of the
/// neediest.
fn add_level(all: &mut LevelStats, level: &LevelStats) {
    all.table_count += level.table_count;
    all.bytes += level.bytes;
    all.entry_count += level.entry_count;
    all.tombstone_count += level.tombstone_count;
    all.raw_bytes += level.raw_bytes;
    all.distinct_bytes += level.distinct_bytes;
    all.score = all.score.max(level.score);
}

/// What a table holds besides tombstones. These are keys only; taking them as long as the rest errs
/// downwards.
fn distinct_bytes(meta: &TableMeta) -> u64 {
    let live_count = meta.entry_count.saturating_sub(meta.tombstone_count);
    let share = u128::from(meta.raw_bytes) * u128::from(live_count);
    u64::try_from(share / u128::from(meta.entry_count.max(1))).unwrap_or(u64::MAX)
}

fn keyspace_stats(
    keyspace: &KeyspaceState,
    counts: &Counts,
    throttle: ThrottleStats,
) -> KeyspaceStats {
    let view = keyspace.pin();
    let sealed_bytes: usize = view.sealed.iter().map(|s| s.memtable.bytes()).sum();
    let mut levels = empty_levels();
    for (stats, counted) in levels.iter_mut().zip(&counts.levels) {
        let tables = view.version.level(stats.level);
        stats.table_count = tables.len() as u64;
        stats.bytes = tables.iter().map(|t| t.meta.file_bytes).sum();
        stats.entry_count = tables.iter().map(|t| t.meta.entry_count).sum();
        stats.tombstone_count = tables.iter().map(|t| t.meta.tombstone_count).sum();
        stats.raw_bytes = tables.iter().map(|t| t.meta.raw_bytes).sum();
        let runs = view.version.runs().iter();
        let runs = runs.filter(|(level, _)| *level == stats.level);
        let distinct = runs.map(|(_, run)| run.iter().map(|t| distinct_bytes(&t.meta)).sum());
        stats.distinct_bytes = distinct.max().unwrap_or(0);
        stats.set_counted(counted);
    }
    for (level, score) in Tree::level_scores(keyspace) {
        levels[level.index()].score = score;
    }
    KeyspaceStats {
        name: String::from(&*keyspace.name),
        user_bytes_written: counts.user_bytes,
        user_write_count: counts.user_write_count,
        memtable_bytes: (view.active.bytes() + sealed_bytes) as u64,
        sealed_memtable_count: view.sealed.len() as u64,
        get_count: counts.get_count(),
        get_hit_count: counts.hit_count(),
        levels,
        throttle,
    }
}
