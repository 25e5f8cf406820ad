//! The amplification report: what the engine wrote, read and keeps for each byte it was given,
//! from its own ledger, beside what the operating system counted.
//!
//! Everything here is arithmetic on numbers that were collected elsewhere.

use siltstone::{KeyspaceAmplification, Stats, WriteAmplification, Written};

use super::line::as_f64;
use super::process::DeviceBytes;

pub mod explain;
pub(crate) mod json;
pub(crate) mod read;
pub(crate) mod text;
pub mod theory;

use theory::Tuning;

/// How far the page figures may lie from the system's, in percent, before that needs a word.
pub const TOLERANCE_PERCENT: f64 = 5.0;

/// Bytes written for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes the engine handed to the system.
    pub payload: u64,
    /// The pages that these bytes made dirty: the system's unit.
    pub pages: u64,
}

impl Charge {
    fn add(&mut self, written: Written) {
        self.payload += written.payload_bytes;
        self.pages += written.page_bytes;
    }
}

/// The ledgers of all databases of a run, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the engine's")]
pub struct Totals {
    pub database_count: u64,
    pub user_bytes: u64,
    pub user_write_count: u64,
    pub log: Charge,
    pub log_sync_count: u64,
    pub flush: Charge,
    pub flush_count: u64,
    pub compaction_bytes_read: u64,
    /// By the level that was written to.
    pub compaction_by_level: Vec<Charge>,
    /// Of these, what came from above.
    pub arrived_by_level: Vec<u64>,
    /// What the levels held when each database was closed, or hold now.
    pub resident_by_level: Vec<u64>,
    pub compaction_count: u64,
    pub move_count: u64,
    pub moved_bytes: u64,
    pub manifest: Charge,
    pub get_count: u64,
    pub get_hit_count: u64,
    pub memtable_hit_count: u64,
    pub filter_negatives: u64,
    pub filter_false_positives: u64,
    pub tables_considered: u64,
    pub index_blocks: u64,
    pub data_blocks: u64,
    pub get_bytes_read: u64,
    pub loaded_blocks: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub seek_count: u64,
    pub seek_run_count: u64,
    pub seek_passed_run_count: u64,
    pub scan_entry_count: u64,
    pub scan_index_blocks: u64,
    pub scan_data_blocks: u64,
    pub scan_cache_hits: u64,
    pub scan_loaded_blocks: u64,
    pub scan_bytes_read: u64,
    pub stall_micros: u64,
    /// Paid by writes that were merely slowed down.
    pub throttle_micros: u64,
}

impl Totals {
    /// Adds the ledger of one database.
    pub fn add(&mut self, stats: &Stats, write: &WriteAmplification) {
        self.database_count += 1;
        self.user_bytes += write.user_bytes;
        self.user_write_count += stats.user_write_count;
        self.log.add(write.log);
        self.log_sync_count += stats.log_sync_count;
        self.flush.add(write.flush);
        self.flush_count += stats.flush_count;
        self.compaction_bytes_read += stats.compaction_bytes_read;
        self.compaction_count += stats.compaction_count;
        self.move_count += stats.move_count;
        self.moved_bytes += write.moved_bytes;
        self.manifest.add(write.manifest);
        self.get_count += stats.get_count;
        self.get_hit_count += stats.get_hit_count;
        self.memtable_hit_count += stats.memtable_hit_count;
        self.filter_negatives += stats.filter_negatives;
        self.filter_false_positives += stats.filter_false_positives;
        self.tables_considered += stats.tables_considered;
        self.index_blocks += stats.index_blocks;
        self.data_blocks += stats.data_blocks;
        self.get_bytes_read += stats.get_bytes_read;
        self.loaded_blocks += stats.loaded_blocks;
        self.cache_hits += stats.cache_hits;
        self.cache_misses += stats.cache_misses;
        self.seek_count += stats.seek_count;
        self.seek_run_count += stats.seek_run_count;
        self.seek_passed_run_count += stats.seek_passed_run_count;
        self.scan_entry_count += stats.scan_entry_count;
        self.scan_index_blocks += stats.scan_index_blocks;
        self.scan_data_blocks += stats.scan_data_blocks;
        self.scan_cache_hits += stats.scan_cache_hits;
        self.scan_loaded_blocks += stats.scan_loaded_blocks;
        self.scan_bytes_read += stats.scan_bytes_read;
        self.stall_micros += stats.stall_micros;
        self.throttle_micros += stats.throttle_micros;
        let level_count = write.compaction.len().max(self.compaction_by_level.len());
        self.compaction_by_level
            .resize(level_count, Charge::default());
        self.arrived_by_level.resize(level_count, 0);
        self.resident_by_level.resize(level_count, 0);
        for (sum, bytes) in self.arrived_by_level.iter_mut().zip(&write.arrived_bytes) {
            *sum += bytes;
        }
        for (sum, level) in self.resident_by_level.iter_mut().zip(&stats.levels) {
            *sum += level.bytes;
        }
        for (sum, written) in self.compaction_by_level.iter_mut().zip(&write.compaction) {
            sum.add(*written);
        }
    }
}

/// What was read for what was returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Bytes of blocks that were touched in mappings or read from files, as stored.
    pub block_bytes: u64,
    /// Bytes of the keys and values that came of it.
    pub bytes: u64,
}

/// Bytes written for one reason, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRow {
    /// The reason.
    pub cause: String,
    /// How much.
    pub charge: Charge,
}

/// One level of the last database.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "the names are those of `siltstone::LevelStats`"
)]
pub struct LevelRow {
    pub level: usize,
    pub table_count: u64,
    pub bytes: u64,
    pub entry_count: u64,
    pub tombstone_count: u64,
    pub raw_bytes: u64,
    /// At 1 and above the level is compacted.
    pub score: f64,
    /// Bytes written to this level by flush and compaction.
    pub written_bytes: u64,
    /// Of what compactions wrote there, what came from above.
    pub arrived_bytes: u64,
    /// Gets that found their value there, and tables of it that gets searched.
    pub get_hit_count: u64,
    pub tables_searched: u64,
}

impl LevelRow {
    /// Bytes that already lay there and were written again, for each byte that arrived.
    pub fn overlap(&self) -> Option<f64> {
        if self.level == 0 {
            return None;
        }
        let again = self.written_bytes.saturating_sub(self.arrived_bytes);
        ratio(again, self.arrived_bytes)
    }
}

/// How the live bytes came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveBytes {
    /// By a scan: keys and values that a reader sees.
    Counted(u64),
    /// From the tables' own counts: keys and values of the deepest level in use.
    Estimated(u64),
}

impl LiveBytes {
    /// The number.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Counted(bytes) | Self::Estimated(bytes) => bytes,
        }
    }
}

/// What the last database of the run keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// From the top.
    pub levels: Vec<LevelRow>,
    /// Of the log's files.
    pub log_bytes: u64,
    /// What the user wrote into this database, since it was opened.
    pub user_bytes: u64,
    /// Point reads of it.
    pub get_count: u64,
    /// Of keys and values.
    pub live: LiveBytes,
}

impl Space {
    /// Bytes of all tables.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }
}

/// Everything the report is made of.
#[derive(Clone, Debug)]
pub struct Amplification {
    /// What the engine counted in all databases of the run.
    pub totals: Totals,
    /// What the system counted meanwhile; `None` where it does not.
    pub device: Option<DeviceBytes>,
    /// What the workloads that only read had to read for what they returned.
    pub returned: Returned,
    /// What is there at the end; `None` if no database was left.
    pub space: Option<Space>,
    /// The keyspaces of the last database one by one.
    pub keyspaces: Vec<KeyspaceAmplification>,
    /// The settings that all of it was measured with.
    pub tuning: Tuning,
}

impl Amplification {
    /// What was written, by cause. Moves are no cause: they write nothing but MANIFEST.
    pub fn write_rows(&self) -> Vec<WriteRow> {
        let totals = &self.totals;
        let row = |cause: &str, charge: Charge| WriteRow {
            cause: cause.to_owned(),
            charge,
        };
        let mut rows = vec![row("log", totals.log), row("flush to L0", totals.flush)];
        for (level, &charge) in totals.compaction_by_level.iter().enumerate() {
            if charge.payload > 0 {
                rows.push(row(&format!("compaction to L{level}"), charge));
            }
        }
        rows.push(row("MANIFEST", totals.manifest));
        rows
    }

    /// Bytes handed to the system for every cause together.
    pub fn payload_bytes(&self) -> u64 {
        self.write_rows().iter().map(|row| row.charge.payload).sum()
    }

    /// The same in pages.
    pub fn page_bytes(&self) -> u64 {
        self.write_rows().iter().map(|row| row.charge.pages).sum()
    }

    /// Bytes handed to the system for each byte the user wrote.
    pub fn write_amplification(&self) -> Option<f64> {
        ratio(self.payload_bytes(), self.totals.user_bytes)
    }

    /// How much more the system counted than `bytes`, in percent; `None` where it counts nothing.
    pub fn device_excess_percent(&self, bytes: u64) -> Option<f64> {
        let written = self.device?.written;
        if written == 0 || bytes == 0 {
            return None;
        }
        Some((as_f64(written) / as_f64(bytes) - 1.0) * 100.0)
    }

    /// Why the engine's figures and the system's differ, or that they do not; one or two sentences.
    pub fn explanation(&self) -> Vec<&'static str> {
        let Some(device) = self.device else {
            return vec!["this system keeps no account of written bytes (/proc/self/io)"];
        };
        let payload = self.payload_bytes();
        let (Some(of_payload), Some(of_pages)) = (
            self.device_excess_percent(payload),
            self.device_excess_percent(self.page_bytes()),
        ) else {
            return vec![match payload {
                0 => "nothing was written",
                _ => "the system counted nothing: the database lies in memory (tmpfs)",
            }];
        };
        let mut reasons = vec![if of_payload.abs() <= TOLERANCE_PERCENT {
            "payload and system agree; the rest is whole pages and metadata"
        } else if of_pages.abs() <= TOLERANCE_PERCENT {
            "pages and system agree: what is synced half full, or made ready, is a whole page"
        } else if of_pages > 0.0 {
            "the system counts more: pages that it wrote by itself, abandoned jobs, metadata"
        } else {
            "the system counts less: pages written to twice before the disk had them"
        }];
        if device.cancelled > 0 {
            reasons.push("cancelled: pages of files that were deleted before the disk had them");
        }
        reasons
    }
}

/// `part / whole`, unless there is no whole.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| as_f64(part) / as_f64(whole))
}

#[cfg(test)]
mod tests;
