//! What a database costs, cause by cause: for writes, reads and space.

use std::fmt;

use base::Level;

use crate::db::Handle;
use crate::ledger::{Counts, Written};
use crate::stats::{Gathered, LevelStats, ratio};

/// What a database costs since it was opened: of all keyspaces together, dropped ones included,
/// and one by one.
///
/// Shown as text by `Display`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let none = siltstone::Compression::None;
/// # let db = siltstone::Options::new().bottom_compression(none).open(dir.path())?;
/// for number in 0..1000_u32 {
///     db.put(number.to_be_bytes(), [7; 100])?;
/// }
/// db.flush()?;
/// let amplification = db.amplification();
/// // Once into the log, once into a table.
/// assert!((2.0..3.0).contains(&amplification.write.factor()));
/// db.get(5_u32.to_be_bytes())?;
/// assert_eq!(db.amplification().read.tables_searched, 1.0);
/// println!("{amplification}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Amplification {
    /// Bytes written, by cause.
    pub write: WriteAmplification,
    /// What a point read touched on average.
    pub read: ReadAmplification,
    /// Bytes on disk and what they are worth.
    pub space: SpaceAmplification,
    /// The keyspaces one by one. Log and MANIFEST are shared: of these each is charged the part
    /// that its user data is of all.
    pub keyspaces: Vec<KeyspaceAmplification>,
}

/// What one keyspace costs.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// let keyspace = &db.amplification().keyspaces[0];
/// assert_eq!((&*keyspace.name, keyspace.write.user_bytes), ("default", 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyspaceAmplification {
    /// What it is called.
    pub name: String,
    /// Bytes written, by cause.
    pub write: WriteAmplification,
    /// What a point read touched on average.
    pub read: ReadAmplification,
    /// Bytes on disk and what they are worth; of the log nothing.
    pub space: SpaceAmplification,
}

/// Bytes written, by cause.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// let write = db.amplification().write;
/// assert_eq!((write.user_bytes, write.flush.payload_bytes), (8, 0));
/// assert!(write.log.payload_bytes > 8, "a record has a frame");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteAmplification {
    /// Keys and values given to writes.
    pub user_bytes: u64,
    /// Into the log, with what the open copied of it after a kill. Its pages are those that became
    /// dirty between syncs: by records, by what was made ready for them, and by indexes, which are
    /// no part of the payload.
    pub log: Written,
    /// Into tables of level 0, by flushes.
    pub flush: Written,
    /// Into tables of each level, by compactions; from level 0 down.
    pub compaction: Vec<Written>,
    /// What compactions into each level took from the levels above it; from level 0 down. The rest
    /// of what they wrote lay there already, and was written again because it overlapped.
    pub arrived_bytes: Vec<u64>,
    /// Tables that changed level without being written, in bytes. Not part of any sum.
    pub moved_bytes: u64,
    /// Into MANIFEST.
    pub manifest: Written,
    /// Into the file of [`Options::stats_file_interval`](crate::Options::stats_file_interval).
    pub stats_file: Written,
}

impl WriteAmplification {
    /// All causes together.
    pub fn total(&self) -> Written {
        let mut total = self.log;
        total.add(self.flush);
        for written in &self.compaction {
            total.add(*written);
        }
        total.add(self.manifest);
        total.add(self.stats_file);
        total
    }

    /// Bytes handed to the operating system for each byte of user data; 0 before the first.
    pub fn factor(&self) -> f64 {
        ratio(self.total().payload_bytes, self.user_bytes)
    }

    /// Bytes written by the operating system, in whole pages, for each byte of user data.
    pub fn page_factor(&self) -> f64 {
        ratio(self.total().page_bytes, self.user_bytes)
    }
}

/// What a point read touched on average. 0 before the first.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// db.get("key")?;
/// let read = db.amplification().read;
/// assert_eq!((read.get_count, read.from_active, read.tables_considered), (1, 1.0, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ReadAmplification {
    /// Point reads.
    pub get_count: u64,
    /// Part of them that found a value in the active memtable, from 0 to 1.
    pub from_active: f64,
    /// In a sealed one.
    pub from_sealed: f64,
    /// In each level, from level 0 down.
    pub from_levels: Vec<f64>,
    /// That found a tombstone, or nothing.
    pub not_found: f64,
    /// Tables whose range held the key.
    pub tables_considered: f64,
    /// Of these, ruled out by their filter.
    pub filter_negatives: f64,
    /// Of these, searched.
    pub tables_searched: f64,
    /// Searched in vain because the filter passed an absent key.
    pub filter_false_positives: f64,
    /// Data blocks searched where they lie mapped.
    pub blocks_from_map: f64,
    /// Data blocks found in the block cache.
    pub blocks_from_cache: f64,
    /// Data blocks read from a file or expanded.
    pub blocks_loaded: f64,
    /// Bytes of data blocks touched in mappings or read from files, as stored.
    pub bytes: f64,
    /// What cursors and iterators had to touch.
    pub scan: ScanAmplification,
}

/// What a positioning of a cursor or iterator, with the steps that follow on it, had to touch on
/// average. Filters are of no use to it. Counted when the cursor is dropped, and every 64
/// positionings.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// db.flush()?;
/// assert_eq!(db.iter()?.count(), 1);
/// let scan = db.amplification().read.scan;
/// assert_eq!((scan.seek_count, scan.entries, scan.runs), (1, 1.0, 1.0));
/// assert_eq!(scan.blocks_from_map + scan.blocks_from_cache + scan.blocks_loaded, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ScanAmplification {
    /// Positionings.
    pub seek_count: u64,
    /// Entries shown.
    pub entries: f64,
    /// Sorted runs considered: memtables, runs of level 0, levels.
    pub runs: f64,
    /// Of these, passed over by their bounds.
    pub runs_passed: f64,
    /// Index blocks searched.
    pub index_blocks: f64,
    /// Data blocks entered where they lie mapped.
    pub blocks_from_map: f64,
    /// Data blocks found in the block cache.
    pub blocks_from_cache: f64,
    /// Data blocks read from a file or expanded.
    pub blocks_loaded: f64,
    /// Bytes of data blocks touched in mappings or read from files, as stored.
    pub bytes: f64,
}

/// Bytes on disk and what they are worth.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// db.flush()?;
/// let space = db.amplification().space;
/// assert_eq!(space.live_bytes, 8);
/// assert!(space.table_bytes > 8 && space.log_bytes > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SpaceAmplification {
    /// Files of the tree.
    pub table_bytes: u64,
    /// Files of the log.
    pub log_bytes: u64,
    /// Keys and values that certainly count, uncompressed: of each keyspace those of its deepest
    /// level without tombstones; if that is level 0, of the longest of its sorted runs. What lies
    /// above may be new or may replace what lies there.
    pub live_bytes: u64,
    /// The levels, from level 0 down.
    pub levels: Vec<LevelSpace>,
}

/// What a level holds.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.delete("key")?;
/// db.flush()?;
/// let level0 = db.amplification().space.levels[0];
/// assert_eq!((level0.entry_count, level0.tombstone_count), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelSpace {
    /// Which.
    pub level: Level,
    /// Its files.
    pub bytes: u64,
    /// Every version of every key, tombstones included.
    pub entry_count: u64,
    /// Tombstones among those.
    pub tombstone_count: u64,
}

impl SpaceAmplification {
    /// Bytes of tables for each byte that certainly counts; 0 without any.
    pub fn factor(&self) -> f64 {
        ratio(self.table_bytes, self.live_bytes)
    }

    fn of(levels: &[LevelStats]) -> Self {
        let deepest = levels.iter().rev().find(|level| level.table_count > 0);
        let live_bytes = deepest.map_or(0, |level| level.distinct_bytes);
        let space = |level: &LevelStats| LevelSpace {
            level: level.level,
            bytes: level.bytes,
            entry_count: level.entry_count,
            tombstone_count: level.tombstone_count,
        };
        Self {
            table_bytes: levels.iter().map(|level| level.bytes).sum(),
            log_bytes: 0,
            live_bytes,
            levels: levels.iter().map(space).collect(),
        }
    }
}

impl ReadAmplification {
    fn of(counts: &Counts) -> Self {
        let get_count = counts.get_count();
        let each = |sum: u64| ratio(sum, get_count);
        let searched = counts.sum(|level| level.searched);
        let filter_negatives = counts.sum(|level| level.filter_negatives);
        let elsewhere = counts.cache_hits + counts.loaded_blocks;
        Self {
            get_count,
            from_active: each(counts.active_hit_count),
            from_sealed: each(counts.sealed_hit_count),
            from_levels: counts.levels.iter().map(|l| each(l.hit_count)).collect(),
            not_found: each(counts.tombstone_count + counts.absent_count),
            tables_considered: each(searched + filter_negatives),
            filter_negatives: each(filter_negatives),
            tables_searched: each(searched),
            filter_false_positives: each(counts.sum(|level| level.filter_false_positives)),
            blocks_from_map: each(counts.data_blocks.saturating_sub(elsewhere)),
            blocks_from_cache: each(counts.cache_hits),
            blocks_loaded: each(counts.loaded_blocks),
            bytes: each(counts.read_bytes),
            scan: ScanAmplification::of(counts),
        }
    }
}

impl ScanAmplification {
    fn of(counts: &Counts) -> Self {
        let scans = &counts.scans;
        let each = |sum: u64| ratio(sum, counts.seek_count);
        let elsewhere = scans.cache_hits + scans.loaded_blocks;
        Self {
            seek_count: counts.seek_count,
            entries: each(scans.entry_count),
            runs: each(scans.run_count),
            runs_passed: each(scans.passed_run_count),
            index_blocks: each(scans.index_blocks),
            blocks_from_map: each(scans.data_blocks.saturating_sub(elsewhere)),
            blocks_from_cache: each(scans.cache_hits),
            blocks_loaded: each(scans.loaded_blocks),
            bytes: each(scans.read_bytes),
        }
    }
}

impl WriteAmplification {
    /// Of one keyspace or all of them; of what is shared the part that falls to it.
    fn of(counts: &Counts, found: &Gathered) -> Self {
        let part = |all: Written| all.part(counts.user_bytes, found.counts.user_bytes);
        Self {
            user_bytes: counts.user_bytes,
            log: part(found.log),
            flush: counts.flush,
            compaction: counts.levels.iter().map(|l| l.compaction).collect(),
            arrived_bytes: counts.levels.iter().map(|l| l.arrived_bytes).collect(),
            moved_bytes: counts.moved_bytes,
            manifest: part(found.manifest),
            stats_file: part(found.stats_file),
        }
    }
}

impl Handle {
    pub(crate) fn amplification(&self) -> Amplification {
        Amplification::of(&self.sources.gather())
    }
}

impl Amplification {
    pub(crate) fn of(found: &Gathered) -> Self {
        let (stats, counts) = (&found.stats, &found.counts);
        let keyspaces: Vec<_> = stats
            .keyspaces
            .iter()
            .zip(&found.counts_by_keyspace)
            .map(|(keyspace, own)| KeyspaceAmplification {
                name: keyspace.name.clone(),
                write: WriteAmplification::of(own, found),
                read: ReadAmplification::of(own),
                space: SpaceAmplification::of(&keyspace.levels),
            })
            .collect();
        let mut space = SpaceAmplification::of(&stats.levels);
        space.log_bytes = stats.log_disk_bytes;
        space.live_bytes = keyspaces.iter().map(|k| k.space.live_bytes).sum();
        Self {
            write: WriteAmplification {
                log: found.log,
                manifest: found.manifest,
                stats_file: found.stats_file,
                ..WriteAmplification::of(counts, found)
            },
            read: ReadAmplification::of(counts),
            space,
            keyspaces,
        }
    }
}

impl fmt::Display for Amplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.write)?;
        writeln!(f, "{}", self.read)?;
        write!(f, "{}", self.space)?;
        if self.keyspaces.len() > 1 {
            for keyspace in &self.keyspaces {
                let (write, space) = (keyspace.write.factor(), keyspace.space.factor());
                // Any UTF-8 is a name, and a terminal acts on what it is sent.
                let name = keyspace.name.escape_debug();
                write!(f, "\n  {name}: write {write:.2}, space {space:.2}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for WriteAmplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user_bytes;
        write!(
            f,
            "write {:.2} ({:.2} in pages) of {user} bytes: log {:.2}, flush {:.2}",
            self.factor(),
            self.page_factor(),
            ratio(self.log.payload_bytes, user),
            ratio(self.flush.payload_bytes, user),
        )?;
        for (level, written) in Level::all().zip(&self.compaction) {
            if written.payload_bytes > 0 {
                write!(f, ", {level} {:.2}", ratio(written.payload_bytes, user))?;
            }
        }
        let manifest = ratio(self.manifest.payload_bytes, user);
        write!(f, ", manifest {manifest:.2}")?;
        if self.stats_file.payload_bytes > 0 {
            let stats_file = ratio(self.stats_file.payload_bytes, user);
            write!(f, ", stats file {stats_file:.2}")?;
        }
        write!(f, "; moved {}", self.moved_bytes)
    }
}

impl fmt::Display for ReadAmplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read of {} gets: {:.3} tables ({:.3} ruled out, {:.3} searched, {:.4} in vain), \
             blocks {:.3} mapped {:.3} cached {:.3} loaded, {:.0} bytes; \
             found in memtables {:.3}",
            self.get_count,
            self.tables_considered,
            self.filter_negatives,
            self.tables_searched,
            self.filter_false_positives,
            self.blocks_from_map,
            self.blocks_from_cache,
            self.blocks_loaded,
            self.bytes,
            self.from_active + self.from_sealed,
        )?;
        for (level, part) in Level::all().zip(&self.from_levels) {
            if *part > 0.0 {
                write!(f, ", {level} {part:.3}")?;
            }
        }
        if self.scan.seek_count > 0 {
            write!(f, "\n{}", self.scan)?;
        }
        Ok(())
    }
}

impl fmt::Display for ScanAmplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "scan of {} positionings: {:.2} entries, {:.2} runs ({:.2} passed over), blocks {:.2} \
             of indexes, {:.2} mapped {:.2} cached {:.2} loaded, {:.0} bytes",
            self.seek_count,
            self.entries,
            self.runs,
            self.runs_passed,
            self.index_blocks,
            self.blocks_from_map,
            self.blocks_from_cache,
            self.blocks_loaded,
            self.bytes,
        )
    }
}

impl fmt::Display for SpaceAmplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "space {:.2}: {} bytes of tables over {} live, log {}",
            self.factor(),
            self.table_bytes,
            self.live_bytes,
            self.log_bytes
        )?;
        let tombstones: u64 = self.levels.iter().map(|level| level.tombstone_count).sum();
        write!(f, "; {tombstones} tombstones")
    }
}
