//! What a database did and holds, as plain numbers.

use base::sync::Arc;
use base::{Level, SequenceNumber};

use crate::db::Handle;
use crate::ledger::Counter;
use crate::superversion::KeyspaceState;
use crate::throttle::{ThrottleCause, Verdict};
use crate::till::Till;
use crate::tree::Tree;

/// Counters since the database was opened, and sizes as of now. Bytes unless the name says else.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// let stats = db.stats();
/// assert_eq!(stats.user_bytes_written, 8);
/// assert!(stats.log_bytes >= 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Keys and values given to writes.
    pub user_bytes_written: u64,
    /// Operations written: puts and deletes.
    pub user_write_count: u64,
    /// Appended to the log, framing included.
    pub log_bytes: u64,
    /// Syncs of the log.
    pub log_sync_count: u64,
    /// What the log's segments occupy now.
    pub log_disk_bytes: u64,
    /// Segments of the log: what is not yet flushed, and what the options keep.
    pub log_segment_count: u64,
    /// Written by flushes.
    pub flush_bytes_written: u64,
    /// Flushes installed.
    pub flush_count: u64,
    /// Read by compactions.
    pub compaction_bytes_read: u64,
    /// Written by compactions.
    pub compaction_bytes_written: u64,
    /// Compactions installed, moves apart.
    pub compaction_count: u64,
    /// Compactions that only moved tables, without writing a byte of them.
    pub move_count: u64,
    /// Written to MANIFEST.
    pub manifest_bytes: u64,
    /// Resident in memtables, sealed ones included.
    pub memtable_bytes: u64,
    /// Memtables that wait to be flushed.
    pub sealed_memtable_count: u64,
    /// The tree, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// Point reads, those of `multi_get` included.
    pub get_count: u64,
    /// Point reads that found a value.
    pub get_hit_count: u64,
    /// Point reads that found it in a memtable.
    pub memtable_hit_count: u64,
    /// Tables whose range held the key of a point read.
    pub tables_considered: u64,
    /// Tables that a filter spared a point read.
    pub filter_negatives: u64,
    /// Tables searched in vain because their filter passed an absent key.
    pub filter_false_positives: u64,
    /// Index blocks searched by point reads.
    pub index_blocks: u64,
    /// Data blocks searched by point reads.
    pub data_blocks: u64,
    /// Blocks that point reads found in the block cache.
    pub cache_hits: u64,
    /// Blocks that point reads had to load.
    pub cache_misses: u64,
    /// Data blocks that point reads read from files or touched in mappings, as stored; what the
    /// block cache had is not counted.
    pub get_bytes_read: u64,
    /// Positionings of cursors and iterators.
    pub seek_count: u64,
    /// Held by the block cache.
    pub cache_bytes: u64,
    /// Slices that keep a table, block or memtable alive.
    pub pinned_slice_count: u64,
    /// What they point to.
    pub pinned_bytes: u64,
    /// Snapshots that are alive.
    pub snapshot_count: u64,
    /// Everything up to here may be read.
    pub visible_seq: SequenceNumber,
    /// Time that writers have waited for flush and compaction, in microseconds.
    pub stall_micros: u64,
    /// How often one waited.
    pub stall_count: u64,
    /// Time that writers have paid while they were merely slowed down, in microseconds.
    pub throttle_micros: u64,
    /// How many writes paid it.
    pub throttle_count: u64,
    /// How writes are held back now, as the last write that looked found it.
    pub throttle: ThrottleStats,
}

/// How writes to a keyspace are held back, and by what measure.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let throttle = db.stats().throttle;
/// assert_eq!(throttle.cause, None);
/// assert!(throttle.bytes_per_second.is_infinite());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ThrottleStats {
    /// Why, or `None` while they are not.
    pub cause: Option<ThrottleCause>,
    /// Bytes of keys and values a second that are let through: infinite while writes are not held
    /// back, 0 while they wait.
    pub bytes_per_second: f64,
    /// What flushes write, in bytes a second of work, the last seconds of it counting most.
    pub flush_bytes_per_second: f64,
    /// What compactions take out of level 0, in bytes a second of work.
    pub compaction_bytes_per_second: f64,
}

impl Default for ThrottleStats {
    /// Not held back, nothing measured.
    fn default() -> Self {
        Self {
            cause: None,
            bytes_per_second: f64::INFINITY,
            flush_bytes_per_second: 0.0,
            compaction_bytes_per_second: 0.0,
        }
    }
}

impl ThrottleStats {
    fn of(till: &Till) -> Self {
        let (verdict, speeds) = (till.verdict(), till.speeds());
        Self {
            cause: verdict.cause(),
            bytes_per_second: match verdict {
                Verdict::Free => f64::INFINITY,
                Verdict::Slow(pace) => pace.bytes_per_second,
                Verdict::Stop(_) => 0.0,
            },
            flush_bytes_per_second: speeds.flush,
            compaction_bytes_per_second: speeds.compaction,
        }
    }
}

/// One level of the tree.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// db.flush()?;
/// let level0 = &db.stats().levels[0];
/// assert_eq!((level0.table_count, level0.entry_count, level0.raw_bytes), (1, 1, 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LevelStats {
    /// Which.
    pub level: Level,
    /// Tables in it.
    pub table_count: u64,
    /// Their files.
    pub bytes: u64,
    /// Entries in them: every version of every key, tombstones included.
    pub entry_count: u64,
    /// Tombstones among those.
    pub tombstone_count: u64,
    /// Keys and values in them, uncompressed.
    pub raw_bytes: u64,
    /// Written into it by compactions since the database was opened.
    pub compaction_bytes_written: u64,
    /// How much it asks to be compacted; at 1 and above it is.
    pub score: f64,
}

impl Stats {
    /// Bytes written to files for each byte of user data: log, flush, compaction and MANIFEST.
    ///
    /// 0 before anything was written.
    pub fn write_amplification(&self) -> f64 {
        let written = self.log_bytes
            + self.flush_bytes_written
            + self.compaction_bytes_written
            + self.manifest_bytes;
        ratio(written, self.user_bytes_written)
    }

    /// The files of the tree.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 {
        0.0
    } else {
        above as f64 / below as f64
    }
}

impl Handle {
    /// Reads every counter; each by itself is exact, together they are of about one moment.
    pub(crate) fn stats(&self) -> Stats {
        let count = |counter| self.reads.ledger.get(counter);
        let log = self.commit.log.stats();
        let keyspace = self.default_keyspace();
        let view = keyspace.pin();
        let sealed_bytes: usize = view.sealed.iter().map(|s| s.memtable.bytes()).sum();
        let levels = self.level_stats(keyspace);
        Stats {
            user_bytes_written: count(Counter::UserBytesWritten),
            user_write_count: count(Counter::UserWriteCount),
            log_bytes: log.appended_bytes,
            log_sync_count: log.sync_count,
            log_disk_bytes: self.commit.log.total_bytes(),
            log_segment_count: log.segment_count,
            flush_bytes_written: count(Counter::FlushBytesWritten),
            flush_count: count(Counter::FlushCount),
            compaction_bytes_read: count(Counter::CompactionBytesRead),
            compaction_bytes_written: levels.iter().map(|l| l.compaction_bytes_written).sum(),
            compaction_count: count(Counter::CompactionCount),
            move_count: count(Counter::MoveCount),
            manifest_bytes: count(Counter::ManifestBytes),
            memtable_bytes: (view.active.bytes() + sealed_bytes) as u64,
            sealed_memtable_count: view.sealed.len() as u64,
            levels,
            get_count: count(Counter::GetCount),
            get_hit_count: count(Counter::GetHitCount),
            memtable_hit_count: count(Counter::MemtableHitCount),
            tables_considered: count(Counter::TablesConsidered),
            filter_negatives: count(Counter::FilterNegatives),
            filter_false_positives: count(Counter::FilterFalsePositives),
            index_blocks: count(Counter::IndexBlocks),
            data_blocks: count(Counter::DataBlocks),
            cache_hits: count(Counter::CacheHits),
            cache_misses: count(Counter::CacheMisses),
            get_bytes_read: count(Counter::ReadBytes),
            seek_count: count(Counter::SeekCount),
            cache_bytes: self.cache.used_bytes(),
            pinned_slice_count: self.pins.count(),
            pinned_bytes: self.pins.bytes(),
            snapshot_count: self.reads.snapshots.count() as u64,
            visible_seq: self.reads.snapshots.visible(),
            stall_micros: count(Counter::StallMicros),
            stall_count: count(Counter::StallCount),
            throttle_micros: count(Counter::ThrottleMicros),
            throttle_count: count(Counter::ThrottleCount),
            throttle: ThrottleStats::of(&keyspace.till),
        }
    }

    fn level_stats(&self, keyspace: &KeyspaceState) -> Vec<LevelStats> {
        let version = Arc::clone(&keyspace.peek().version);
        let scores = Tree::level_scores(keyspace);
        let score = |level| {
            scores
                .iter()
                .find(|(l, _)| *l == level)
                .map_or(0.0, |(_, s)| *s)
        };
        let stats = |level: Level| {
            let tables = version.level(level);
            LevelStats {
                level,
                table_count: tables.len() as u64,
                bytes: tables.iter().map(|t| t.meta.file_bytes).sum(),
                entry_count: tables.iter().map(|t| t.meta.entry_count).sum(),
                tombstone_count: tables.iter().map(|t| t.meta.tombstone_count).sum(),
                raw_bytes: tables.iter().map(|t| t.meta.raw_bytes).sum(),
                compaction_bytes_written: self.reads.ledger.compaction_written(level),
                score: score(level),
            }
        };
        Level::all().map(stats).collect()
    }
}
