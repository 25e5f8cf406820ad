//! What is kept of each run of a workload, for the reports at the end.

use siltstone::{Db, WriteAmplification};

use super::database::level_rows;
use super::line::ResultLine;
use super::measure::Outcome;
use super::moments::{Moments, Pause};
use super::process::{DeviceBytes, MemoryBytes, cpu_parts};
use super::report::LevelRow;

/// One run of a workload.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) line: ResultLine,
    pub(crate) outcome: Outcome,
    pub(crate) threads: usize,
    /// What a thread wrote or was returned that is left out of `outcome`.
    pub(crate) bytes_beside: u64,
    pub(crate) cost: Cost,
    pub(crate) pauses: Vec<Pause>,
    /// The levels when it ended.
    pub(crate) levels: Vec<LevelRow>,
    /// When it ended, in microseconds since 1970.
    pub(crate) ended_micros: u64,
}

/// What one run cost besides time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Of all threads, background included.
    pub(crate) user_cpu_seconds: Option<f64>,
    pub(crate) system_cpu_seconds: Option<f64>,
    /// Pages made dirty, as the system counts them.
    pub(crate) device_bytes: Option<u64>,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) table_count: u64,
    pub(crate) table_bytes: u64,
    pub(crate) user_bytes: u64,
    pub(crate) log_bytes: u64,
    pub(crate) flush_bytes: u64,
    pub(crate) compaction_bytes: u64,
    pub(crate) manifest_bytes: u64,
    /// Of blocks that were touched in mappings or read from files for reads, as stored.
    pub(crate) block_bytes_read: u64,
    pub(crate) compaction_seconds: f64,
    pub(crate) stall_count: u64,
    pub(crate) stall_seconds: f64,
    pub(crate) throttle_seconds: f64,
}

impl Cost {
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        Some(self.user_cpu_seconds? + self.system_cpu_seconds?)
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.log_bytes + self.flush_bytes + self.compaction_bytes + self.manifest_bytes
    }
}

/// The counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    device: Option<DeviceBytes>,
    cpu: Option<(f64, f64)>,
    write: WriteAmplification,
    block_bytes_read: u64,
    stall_micros: u64,
    throttle_micros: u64,
    stall_count: u64,
    compaction_micros: u64,
}

impl Moment {
    /// As they are now.
    pub(crate) fn now(db: &Db, moments: &Moments) -> Self {
        let stats = db.stats();
        let (stall_count, compaction_micros) = moments.sums();
        Self {
            device: DeviceBytes::now(),
            cpu: cpu_parts(),
            write: db.amplification().write,
            block_bytes_read: stats.get_bytes_read + stats.scan_bytes_read,
            stall_micros: stats.stall_micros,
            throttle_micros: stats.throttle_micros,
            stall_count,
            compaction_micros,
        }
    }

    /// What it cost since this moment, and the levels as they are now.
    pub(crate) fn cost(&self, db: &Db, moments: &Moments) -> (Cost, Vec<LevelRow>) {
        let now = Self::now(db, moments);
        let levels = level_rows(&db.stats(), &now.write);
        let compaction = |write: &WriteAmplification| -> u64 {
            write.compaction.iter().map(|w| w.payload_bytes).sum()
        };
        let cpu = now.cpu.zip(self.cpu);
        let cost = Cost {
            user_cpu_seconds: cpu.map(|(now, before)| now.0 - before.0),
            system_cpu_seconds: cpu.map(|(now, before)| now.1 - before.1),
            device_bytes: now
                .device
                .zip(self.device)
                .map(|(now, before)| now.since(before).written),
            peak_memory_bytes: MemoryBytes::now().map(|memory| memory.peak),
            table_count: levels.iter().map(|level| level.table_count).sum(),
            table_bytes: levels.iter().map(|level| level.bytes).sum(),
            user_bytes: now.write.user_bytes - self.write.user_bytes,
            log_bytes: now.write.log.payload_bytes - self.write.log.payload_bytes,
            flush_bytes: now.write.flush.payload_bytes - self.write.flush.payload_bytes,
            compaction_bytes: compaction(&now.write) - compaction(&self.write),
            manifest_bytes: now.write.manifest.payload_bytes - self.write.manifest.payload_bytes,
            block_bytes_read: now.block_bytes_read - self.block_bytes_read,
            compaction_seconds: seconds(now.compaction_micros - self.compaction_micros),
            stall_count: now.stall_count - self.stall_count,
            stall_seconds: seconds(now.stall_micros - self.stall_micros),
            throttle_seconds: seconds(now.throttle_micros - self.throttle_micros),
        };
        (cost, levels)
    }
}

fn seconds(micros: u64) -> f64 {
    super::line::as_f64(micros) / 1e6
}
