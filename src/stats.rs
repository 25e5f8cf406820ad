//! What a database did and holds, as plain numbers.
//!
//! `gather` reads them; each by itself is exact, together they are of about one moment.

use base::{Level, PinReport, SequenceNumber};
use sstable::ReadMode;

use crate::throttle::{ThrottleCause, Verdict};
use crate::till::Till;

mod gather;
pub(crate) use gather::{Gathered, Sources, empty_levels};

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
    /// Appended to the log, framing included; with what the open copied because a kill had left
    /// it unproven that the disk has it.
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
    /// Written to the file of [`Options::stats_file_interval`](crate::Options).
    pub stats_file_bytes: u64,
    /// How often that file could not be written.
    pub stats_file_failure_count: u64,
    /// Resident in memtables, sealed ones included.
    pub memtable_bytes: u64,
    /// Taken from the system for memtables, used already or not; with those that were flushed and
    /// that slices, cursors or a pending clean-up still keep. `memtable_bytes_total` bounds it.
    pub memtable_taken_bytes: u64,
    /// Of it, in memtables that slices keep or would keep.
    pub memtable_pinned_bytes: u64,
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
    /// Point reads that found it in a sealed memtable; those of levels are in `levels`.
    pub sealed_hit_count: u64,
    /// Point reads that found a tombstone.
    pub get_tombstone_count: u64,
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
    /// Blocks that point reads did not find in it.
    pub cache_misses: u64,
    /// Data blocks that point reads read from files, or expanded from mappings. Others were cached
    /// or searched where they lie mapped.
    pub loaded_blocks: u64,
    /// Data blocks that point reads read from files or touched in mappings, as stored; what the
    /// block cache had is not counted.
    pub get_bytes_read: u64,
    /// Positionings of cursors and iterators.
    pub seek_count: u64,
    /// Sorted runs that these were about: memtables, runs of level 0, levels. This and what follows
    /// of scans is counted when a cursor or iterator is dropped, and every 64 positionings.
    pub seek_run_count: u64,
    /// Of these, passed over because by their bounds nothing lies where it was positioned.
    pub seek_passed_run_count: u64,
    /// Entries that cursors and iterators stood on.
    pub scan_entry_count: u64,
    /// Entries that they walked over on their way: deletes, and what deletes or newer versions
    /// hide.
    pub scan_hidden_entry_count: u64,
    /// Index blocks searched by them.
    pub scan_index_blocks: u64,
    /// Data blocks that they entered.
    pub scan_data_blocks: u64,
    /// Of these, found in the block cache.
    pub scan_cache_hits: u64,
    /// Of these, read from files or expanded from mappings. The rest was searched where it lies
    /// mapped.
    pub scan_loaded_blocks: u64,
    /// Bytes of data blocks that they read from files or touched in mappings, as stored.
    pub scan_bytes_read: u64,
    /// How tables are read that are opened now: mapped or positioned.
    pub read_mode: ReadMode,
    /// Held by the block cache.
    pub cache_bytes: u64,
    /// Slices that keep a table, block or memtable alive.
    pub pinned_slice_count: u64,
    /// What they point to.
    pub pinned_bytes: u64,
    /// Slices, cursors and snapshots that keep something alive, kind by kind: how many, the bytes
    /// of slices, and the age of the oldest.
    pub pins: Vec<PinReport>,
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
    /// Both kinds of waiting by their cause; causes of which there was none are left out.
    pub waits: Vec<WaitStats>,
    /// How writes to the keyspace `default` are held back now, as the last write that looked found
    /// it. Those of the others are in `keyspaces`; what memory does is the same for all.
    pub throttle: ThrottleStats,
    /// The oldest sequence number that a snapshot keeps.
    pub oldest_snapshot_seq: Option<SequenceNumber>,
    /// The keyspaces one by one; numbers above are of all together, dropped ones included.
    pub keyspaces: Vec<KeyspaceStats>,
}

/// Waits of writers for one cause.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// assert!(db.stats().waits.is_empty(), "nobody had to wait");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitStats {
    /// What was waited for.
    pub cause: ThrottleCause,
    /// Writes that waited until flush or compaction had got on.
    pub stall_count: u64,
    /// How long, in microseconds.
    pub stall_micros: u64,
    /// Writes that paid while writes were merely slowed down.
    pub throttle_count: u64,
    /// How much, in microseconds.
    pub throttle_micros: u64,
}

/// One keyspace.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// let keyspace = &db.stats().keyspaces[0];
/// assert_eq!((&*keyspace.name, keyspace.user_bytes_written), ("default", 8));
/// assert_eq!(keyspace.levels.len(), 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// What it is called.
    pub name: String,
    /// Keys and values given to writes.
    pub user_bytes_written: u64,
    /// Operations written: puts and deletes.
    pub user_write_count: u64,
    /// Resident in its memtables, sealed ones included.
    pub memtable_bytes: u64,
    /// Its memtables that wait to be flushed.
    pub sealed_memtable_count: u64,
    /// Point reads.
    pub get_count: u64,
    /// Point reads that found a value.
    pub get_hit_count: u64,
    /// Its tree, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// How writes to it are held back, as the last write that looked found it.
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
    /// Keys and values that flushes write, in bytes a second of work, the last seconds of it
    /// counting most.
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
    /// Of a keyspace, by the slower of its own till and that of memory.
    fn of(till: &Till, memory: &Till) -> Self {
        let speed = |verdict: &Verdict| match verdict {
            Verdict::Free => f64::INFINITY,
            Verdict::Slow(pace) => pace.bytes_per_second,
            Verdict::Stop(_) => 0.0,
        };
        let (own, shared) = (till.verdict(), memory.verdict());
        let slower = speed(&shared) < speed(&own);
        let (verdict, speeds) = (if slower { shared } else { own }, till.speeds());
        Self {
            cause: verdict.cause(),
            bytes_per_second: speed(&verdict),
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
    /// About how much of those is of keys that are in it for certain, each once: the longest sorted
    /// run without its tombstones. At level 0 there may be several runs, elsewhere there is one.
    pub distinct_bytes: u64,
    /// Written into it by compactions since the database was opened.
    pub compaction_bytes_written: u64,
    /// Point reads that found their value in it.
    pub get_hit_count: u64,
    /// Tables of it that a filter spared a point read.
    pub filter_negatives: u64,
    /// Tables of it that point reads searched.
    pub tables_searched: u64,
    /// Tables of it searched in vain because their filter passed an absent key.
    pub filter_false_positives: u64,
    /// How much it asks to be compacted; at 1 and above it is.
    pub score: f64,
}

impl Stats {
    /// Bytes written to files for each byte of user data: log, flush, compaction, MANIFEST and the
    /// stats file.
    ///
    /// 0 before anything was written.
    pub fn write_amplification(&self) -> f64 {
        let written = self.log_bytes
            + self.flush_bytes_written
            + self.compaction_bytes_written
            + self.manifest_bytes
            + self.stats_file_bytes;
        ratio(written, self.user_bytes_written)
    }

    /// The files of the tree.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
pub(crate) fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 {
        0.0
    } else {
        above as f64 / below as f64
    }
}
