//! What amplification should be by arithmetic, from the settings and the amount of data alone, to
//! be held against what was measured.
//!
//! The model is the textbook's for a leveled tree under random writes (O'Neil et al., "The
//! Log-Structured Merge-Tree", 1996; Dayan et al., "Monkey", SIGMOD 2017), with this engine's
//! shape: level 0 goes down several flushes at a time, and what arrives in a level rewrites what
//! it overlaps there.

use super::{Amplification, Totals};
use crate::bench::args::Args;
use crate::bench::line::as_f64;

/// What a commit takes in the log besides keys and values: a header, and a few bytes an operation.
const LOG_FRAME_BYTES: f64 = 45.0;

/// The settings that steer amplification. Where no flag was given they are the engine's defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the engine's options")]
pub struct Tuning {
    pub memtable_bytes_max: u64,
    pub level_fan_out: u64,
    pub level0_table_count_trigger: u64,
    pub level_base_bytes: u64,
    /// 0 for none.
    pub filter_bits: u32,
    /// Entries of each commit.
    pub batch_size: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            memtable_bytes_max: 64 << 20,
            level_fan_out: 10,
            level0_table_count_trigger: 4,
            level_base_bytes: 256 << 20,
            filter_bits: 10,
            batch_size: 1,
        }
    }
}

impl Tuning {
    /// The settings that `args` ask for.
    pub fn of(args: &Args) -> Self {
        let default = Self::default();
        Self {
            memtable_bytes_max: args
                .write_buffer_size
                .map_or(default.memtable_bytes_max, |bytes| bytes as u64),
            level_fan_out: args
                .max_bytes_for_level_multiplier
                .unwrap_or(default.level_fan_out),
            level0_table_count_trigger: args
                .level0_file_num_compaction_trigger
                .map_or(default.level0_table_count_trigger, |count| count as u64),
            level_base_bytes: args
                .max_bytes_for_level_base
                .unwrap_or(default.level_base_bytes),
            filter_bits: u32::try_from(args.bloom_bits).unwrap_or(default.filter_bits),
            batch_size: args.batch_size,
        }
    }
}

/// How often a filter of so many bits a key passes an absent key: 0.6185^bits, the best that a
/// Bloom filter can do, and a quarter more for keeping to one cache line (Putze et al., 2007).
pub(crate) fn filter_miss_rate(bits: u32) -> f64 {
    if bits == 0 {
        return 1.0;
    }
    (1.25 * 0.6185_f64.powi(i32::try_from(bits).unwrap_or(64))).min(1.0)
}

/// The level that level 0 is compacted to: the first below it that anything was written to.
pub(crate) fn base_level(totals: &Totals) -> Option<usize> {
    let levels = totals.compaction_by_level.iter().enumerate().skip(1);
    let mut written = levels.filter(|(_, charge)| charge.payload > 0);
    written.next().map(|(level, _)| level)
}

/// Bytes that should have been written for the cause called `cause` in
/// [`Amplification::write_rows`]; nothing where theory is silent.
pub(crate) fn expected_bytes(amplification: &Amplification, cause: &str) -> Option<f64> {
    let totals = &amplification.totals;
    let tuning = &amplification.tuning;
    let user = as_f64(totals.user_bytes);
    if cause == "log" {
        let commits = as_f64(totals.user_write_count) / as_f64(tuning.batch_size.max(1));
        return Some(user + LOG_FRAME_BYTES * commits);
    }
    if cause == "flush to L0" {
        return Some(user);
    }
    let level: usize = cause.strip_prefix("compaction to L")?.parse().ok()?;
    let arrived = as_f64(*totals.arrived_by_level.get(level)?);
    if base_level(totals) == Some(level) {
        return base_bytes(totals, tuning, level);
    }
    // Of the tables it overlaps, a table on its way down finds fan-out on average; the level is
    // half full on average, and the one that overlaps least is chosen.
    (level > 0).then(|| arrived * (1.0 + as_f64(tuning.level_fan_out) / 2.0))
}

/// Every compaction of level 0 rewrites the level it goes to, which grows until it has its size.
fn base_bytes(totals: &Totals, tuning: &Tuning, level: usize) -> Option<f64> {
    if totals.flush_count == 0 {
        return None;
    }
    let arrived = as_f64(totals.arrived_by_level[level]);
    let resident = as_f64(*totals.resident_by_level.get(level)?);
    let flush = as_f64(totals.flush.payload) / as_f64(totals.flush_count);
    let compactions = arrived / (flush * as_f64(tuning.level0_table_count_trigger.max(1)));
    let grown = if arrived > resident {
        resident * (1.0 - resident / (2.0 * arrived))
    } else {
        resident / 2.0
    };
    Some((compactions.max(1.0) * grown).max(resident.min(arrived)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use siltstone::Options;

    #[test]
    fn defaults_are_the_engine_s() {
        let said = format!("{:?}", Options::new());
        let tuning = Tuning::default();
        for (name, value) in [
            ("memtable_bytes_max", tuning.memtable_bytes_max),
            ("level_fan_out", tuning.level_fan_out),
            (
                "level0_table_count_trigger",
                tuning.level0_table_count_trigger,
            ),
            ("level_base_bytes", tuning.level_base_bytes),
            ("bits_per_key", u64::from(tuning.filter_bits)),
        ] {
            let part = format!("{name}: {value}");
            assert!(said.contains(&part), "{part} in {said}");
        }
    }

    #[test]
    fn a_filter_of_ten_bits_errs_once_in_a_hundred() {
        assert!((filter_miss_rate(10) - 0.0102).abs() < 0.0005);
        assert!((filter_miss_rate(0) - 1.0).abs() < f64::EPSILON);
        assert!(filter_miss_rate(1) < 1.0);
    }
}
