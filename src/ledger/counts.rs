//! Counters as plain numbers, to be summed and shown.

use base::Level;

use super::PAGE_BYTES;

/// Bytes written: as handed over, and in whole pages, which is what the operating system writes.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// db.put("key", "value")?;
/// db.flush()?;
/// let flushed = db.amplification().write.flush;
/// assert!(flushed.payload_bytes > 8);
/// assert_eq!(flushed.page_bytes, flushed.payload_bytes.next_multiple_of(4096));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// What was handed to the operating system.
    pub payload_bytes: u64,
    /// The pages of 4096 bytes that became dirty by it. A page that is synced and then written
    /// again counts again.
    pub page_bytes: u64,
}

impl Written {
    /// A file that was written from front to back.
    pub(crate) fn file(bytes: u64) -> Self {
        Self {
            payload_bytes: bytes,
            page_bytes: bytes.next_multiple_of(PAGE_BYTES),
        }
    }

    /// A file that was synced when it ended at `from` and now ends at `upto`.
    pub(crate) fn synced(from: u64, upto: u64) -> Self {
        let first_page = from - from % PAGE_BYTES;
        Self {
            payload_bytes: upto.saturating_sub(from),
            page_bytes: upto.next_multiple_of(PAGE_BYTES).saturating_sub(first_page),
        }
    }

    /// The part of it that `mine` is of `all`.
    pub(crate) fn part(self, mine: u64, all: u64) -> Self {
        let part = |bytes: u64| {
            let part = u128::from(bytes) * u128::from(mine) / u128::from(all.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        Self {
            payload_bytes: part(self.payload_bytes),
            page_bytes: part(self.page_bytes),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.payload_bytes += other.payload_bytes;
        self.page_bytes += other.page_bytes;
    }
}

/// What was read from and written into one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelCounts {
    /// Gets that found a value here.
    pub(crate) hit_count: u64,
    /// Tables that a filter spared a get.
    pub(crate) filter_negatives: u64,
    /// Tables that were searched.
    pub(crate) searched: u64,
    /// Tables searched in vain because their filter passed an absent key.
    pub(crate) filter_false_positives: u64,
    /// Written into it by compactions.
    pub(crate) compaction: Written,
    /// What these took from the levels above it.
    pub(crate) arrived_bytes: u64,
}

/// What cursors had to touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanCounts {
    /// Runs that positionings were about, each as often as it was.
    pub(crate) run_count: u64,
    /// Of these, passed over by their bounds.
    pub(crate) passed_run_count: u64,
    /// Entries shown.
    pub(crate) entry_count: u64,
    /// Entries walked over because deletes or newer versions hide them.
    pub(crate) hidden_count: u64,
    pub(crate) index_blocks: u64,
    pub(crate) data_blocks: u64,
    pub(crate) cache_hits: u64,
    pub(crate) loaded_blocks: u64,
    pub(crate) read_bytes: u64,
}

impl ScanCounts {
    fn add(&mut self, other: &Self) {
        self.run_count += other.run_count;
        self.passed_run_count += other.passed_run_count;
        self.entry_count += other.entry_count;
        self.hidden_count += other.hidden_count;
        self.index_blocks += other.index_blocks;
        self.data_blocks += other.data_blocks;
        self.cache_hits += other.cache_hits;
        self.loaded_blocks += other.loaded_blocks;
        self.read_bytes += other.read_bytes;
    }
}

/// Everything that one keyspace has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) user_bytes: u64,
    pub(crate) user_write_count: u64,
    pub(crate) flush: Written,
    pub(crate) flush_count: u64,
    pub(crate) compaction_count: u64,
    pub(crate) compaction_read_bytes: u64,
    pub(crate) move_count: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) active_hit_count: u64,
    pub(crate) sealed_hit_count: u64,
    /// Gets that found a tombstone.
    pub(crate) tombstone_count: u64,
    /// Gets that found nothing at all.
    pub(crate) absent_count: u64,
    pub(crate) data_blocks: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
    pub(crate) loaded_blocks: u64,
    pub(crate) read_bytes: u64,
    pub(crate) seek_count: u64,
    pub(crate) scans: ScanCounts,
    pub(crate) levels: [LevelCounts; Level::COUNT],
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            flush,
            levels,
            user_bytes,
            ..
        } = other;
        self.user_bytes += user_bytes;
        self.user_write_count += other.user_write_count;
        self.flush.add(*flush);
        self.flush_count += other.flush_count;
        self.compaction_count += other.compaction_count;
        self.compaction_read_bytes += other.compaction_read_bytes;
        self.move_count += other.move_count;
        self.moved_bytes += other.moved_bytes;
        self.active_hit_count += other.active_hit_count;
        self.sealed_hit_count += other.sealed_hit_count;
        self.tombstone_count += other.tombstone_count;
        self.absent_count += other.absent_count;
        self.data_blocks += other.data_blocks;
        self.cache_hits += other.cache_hits;
        self.cache_misses += other.cache_misses;
        self.loaded_blocks += other.loaded_blocks;
        self.read_bytes += other.read_bytes;
        self.seek_count += other.seek_count;
        self.scans.add(&other.scans);
        for (mine, theirs) in self.levels.iter_mut().zip(levels) {
            mine.hit_count += theirs.hit_count;
            mine.filter_negatives += theirs.filter_negatives;
            mine.searched += theirs.searched;
            mine.filter_false_positives += theirs.filter_false_positives;
            mine.compaction.add(theirs.compaction);
            mine.arrived_bytes += theirs.arrived_bytes;
        }
    }

    /// Gets that found a value.
    pub(crate) fn hit_count(&self) -> u64 {
        self.memtable_hit_count() + self.sum(|level| level.hit_count)
    }

    pub(crate) fn memtable_hit_count(&self) -> u64 {
        self.active_hit_count + self.sealed_hit_count
    }

    /// Gets in all.
    pub(crate) fn get_count(&self) -> u64 {
        self.hit_count() + self.tombstone_count + self.absent_count
    }

    pub(crate) fn sum(&self, of: impl Fn(&LevelCounts) -> u64) -> u64 {
        self.levels.iter().map(of).sum()
    }

    pub(crate) fn compaction(&self) -> Written {
        let mut all = Written::default();
        for level in &self.levels {
            all.add(level.compaction);
        }
        all
    }
}
