//! The numbers that steer: every option, validated, in one plain struct.
//!
//! `options` is the door to this; the rooms below take what they need from here when they are built
//! and never see the builder.

use std::fmt::Display;
use std::time::Duration;

use base::error::{Error, Result};
use base::key::VALUE_BYTES_HARD_MAX;
use log::{LogAppend, RecoveryMode};
use sstable::{ReadMode, Verify};

mod keyspace;
mod stored;
pub(crate) use keyspace::KeyspaceSettings;

/// When a write counts as done.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use siltstone::{Db, Durability, WriteOptions};
/// let db = Db::open(dir.path())?;
/// assert!(!db.put("a", "in the hands of the operating system")?.is_durable());
/// let disk = WriteOptions::new().durability(Durability::Disk);
/// assert!(db.put_with("b", "on the disk, and so is a", &disk)?.is_durable());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// The operating system has it: it survives the end of this process, however sudden. A power
    /// cut may take a suffix of the commits since the last sync, never one from the middle.
    #[default]
    Os,
    /// The disk has it, and every commit before it.
    Disk,
}

/// Every option of a database. See [`Options`](crate::Options) for what each one means.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) create_if_missing: bool,
    /// Those of the keyspace `default`.
    pub(crate) keyspace: KeyspaceSettings,
    pub(crate) memtable_bytes_total: usize,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_bytes_max: u64,
    pub(crate) keep_space_for_deletes: bool,
    pub(crate) log_keep_bytes: u64,
    pub(crate) log_keep_age: Duration,
    pub(crate) log_append: LogAppend,
    pub(crate) read_mode: ReadMode,
    pub(crate) verify_reads: Verify,
    pub(crate) cache_bytes: u64,
    pub(crate) open_tables_max: usize,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Option<Duration>,
    pub(crate) compaction_threads: usize,
    pub(crate) idle_compaction_after: Option<Duration>,
    pub(crate) stats_file_interval: Option<Duration>,
    pub(crate) value_bytes_max: usize,
    pub(crate) recovery_mode: RecoveryMode,
    pub(crate) manifest_bytes_min: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Default for Settings {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            keyspace: KeyspaceSettings::default(),
            memtable_bytes_total: 512 << 20,
            log_segment_bytes: 64 * MIB,
            log_bytes_max: GIB,
            keep_space_for_deletes: true,
            log_keep_bytes: 0,
            log_keep_age: Duration::ZERO,
            log_append: LogAppend::Auto,
            read_mode: ReadMode::Auto,
            verify_reads: Verify::Once,
            cache_bytes: 256 * MIB,
            open_tables_max: 512,
            durability: Durability::Os,
            sync_interval: Some(Duration::from_secs(1)),
            compaction_threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            idle_compaction_after: Some(Duration::from_secs(10)),
            stats_file_interval: None,
            value_bytes_max: 256 << 20,
            recovery_mode: RecoveryMode::TornTail,
            manifest_bytes_min: MIB,
        }
    }
}

impl Settings {
    /// Checks every number against its range.
    pub(crate) fn validate(&self) -> Result<()> {
        self.keyspace.validate()?;
        let total = self.memtable_bytes_total as u64;
        in_range("memtable_bytes_total", total, 16 * KIB, 1 << 50)?;
        in_range(
            "log_segment_bytes",
            self.log_segment_bytes,
            4 * KIB,
            16 * GIB,
        )?;
        in_range(
            "log_bytes_max",
            self.log_bytes_max,
            self.log_segment_bytes,
            1 << 50,
        )?;
        in_range("log_keep_bytes", self.log_keep_bytes, 0, 1 << 50)?;
        in_range("open_tables_max", self.open_tables_max as u64, 16, 1 << 20)?;
        in_range("cache_bytes", self.cache_bytes, 0, 1 << 50)?;
        in_range("compaction_threads", self.compaction_threads as u64, 1, 256)?;
        let value_max = self.value_bytes_max as u64;
        in_range("value_bytes_max", value_max, 1, VALUE_BYTES_HARD_MAX as u64)?;
        in_range("manifest_bytes_min", self.manifest_bytes_min, KIB, GIB)?;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if let Some(interval) = self.sync_interval.map(millis) {
            in_range("sync_interval (ms)", interval, 1, 3_600_000)?;
        }
        if let Some(after) = self.idle_compaction_after.map(millis) {
            in_range("idle_compaction_after (ms)", after, 1, 86_400_000)?;
        }
        if let Some(interval) = self.stats_file_interval.map(millis) {
            in_range("stats_file_interval (ms)", interval, 1, 3_600_000)?;
        }
        Ok(())
    }

    /// What is kept back for deletes: a segment of the log, and a little for flush and MANIFEST.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        if self.keep_space_for_deletes {
            self.log_segment_bytes / 4 * 5
        } else {
            0
        }
    }
}

fn in_range(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(out_of_range(name, value, min, max))
    }
}

fn out_of_range(name: &str, value: impl Display, min: impl Display, max: impl Display) -> Error {
    Error::invalid_argument("option out of range")
        .with_value("option", name)
        .with_value("value", value)
        .with_value("min", min)
        .with_value("max", max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_extremes_are_not() {
        Settings::default().validate().expect("the defaults");
        let wrong: [fn(&mut Settings); 5] = [
            |s| s.stats_file_interval = Some(Duration::from_secs(3601)),
            |s| s.idle_compaction_after = Some(Duration::from_secs(86_401)),
            |s| s.keyspace.level_fan_out = 1,
            |s| s.open_tables_max = 15,
            |s| s.sync_interval = Some(Duration::ZERO),
        ];
        for change in wrong {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.validate().expect_err("out of range");
            assert_eq!(error.kind(), base::ErrorKind::InvalidArgument);
        }
    }
}
