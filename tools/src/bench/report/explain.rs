//! What the numbers mean, in plain sentences: what dominates, why, which setting would change it,
//! and what it would then be.

use super::theory::{Tuning, base_level, filter_miss_rate};
use super::{Amplification, LiveBytes, Totals, ratio};
use crate::bench::line::as_f64;
use crate::text::{bytes_for_people, counted};

/// By how much a memtable is made larger in an advice.
const MEMTABLE_FACTOR: u64 = 4;
/// By how much a commit is made larger in an advice.
const BATCH_FACTOR: u64 = 10;
/// Filter bits of an advice.
const FILTER_BITS: u32 = 10;
/// Memtables are worth a word where each byte that arrives rewrites so many that lie there.
const OVERLAP_MIN: f64 = 0.5;
/// An advice must promise to save at least this part.
const GAIN_MIN: f64 = 0.05;

/// One setting that would change one number.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// What dominates, and why.
    pub finding: String,
    /// The flag and its value; the option of the engine stands in `option`.
    pub flag: String,
    /// As a program sets it.
    pub option: String,
    /// Which number it changes.
    pub number: &'static str,
    /// What it is now.
    pub now: f64,
    /// What it would be.
    pub then: f64,
}

impl Advice {
    /// The part it would save, of 1.
    pub fn gain(&self) -> f64 {
        1.0 - self.then / self.now.max(f64::MIN_POSITIVE)
    }

    /// As sentences.
    pub fn sentences(&self) -> String {
        format!(
            "{} With {} ({}) {} would be about {:.2} instead of {:.2}.",
            self.finding, self.flag, self.option, self.number, self.then, self.now
        )
    }
}

/// What could be changed, the most useful first; only what promises something.
pub fn advise(amplification: &Amplification) -> Vec<Advice> {
    let all = [
        larger_memtable(amplification),
        larger_commits(amplification),
        smaller_fan_out(amplification),
        filters(amplification),
        compaction(amplification),
    ];
    let mut advices: Vec<Advice> = all
        .into_iter()
        .flatten()
        .filter(|advice| advice.now.is_finite() && advice.gain() >= GAIN_MIN)
        .collect();
    advices.sort_by(|a, b| b.gain().total_cmp(&a.gain()));
    advices
}

/// The level that most of the compactions' bytes went to.
fn heaviest_level(totals: &Totals) -> Option<(usize, u64)> {
    let levels = totals.compaction_by_level.iter().enumerate().skip(1);
    levels
        .map(|(level, charge)| (level, charge.payload))
        .filter(|(_, bytes)| *bytes > 0)
        .max_by_key(|(_, bytes)| *bytes)
}

/// How many bytes that lay there a byte that arrives in `level` rewrites.
fn overlap(totals: &Totals, level: usize) -> Option<f64> {
    let written = totals.compaction_by_level.get(level)?.payload;
    let arrived = *totals.arrived_by_level.get(level)?;
    ratio(written.saturating_sub(arrived), arrived)
}

fn per_user_byte(totals: &Totals, bytes: f64) -> f64 {
    bytes / as_f64(totals.user_bytes.max(1))
}

/// Level 0 is compacted to the heaviest level: with larger memtables as much is rewritten there,
/// but less often.
fn larger_memtable(amplification: &Amplification) -> Option<Advice> {
    let totals = &amplification.totals;
    let (level, written) = heaviest_level(totals)?;
    let overlap = overlap(totals, level)?;
    if base_level(totals) != Some(level) || overlap < OVERLAP_MIN {
        return None;
    }
    let wanted = amplification.tuning.memtable_bytes_max * MEMTABLE_FACTOR;
    // What the level holds was written there once in any case.
    let grown = as_f64(*totals.resident_by_level.get(level)?).min(as_f64(written));
    let again = as_f64(written) - grown;
    let saved = again * (1.0 - 1.0 / as_f64(MEMTABLE_FACTOR));
    let now = amplification.write_amplification()?;
    let finding = format!(
        "Most of what compactions wrote went into L{level}: {:.2} bytes for each byte of yours, \
         {overlap:.1} already there for each that arrived. Memtables are flushed at {}, and {} \
         flushes go down together.",
        per_user_byte(totals, as_f64(written)),
        bytes_for_people(amplification.tuning.memtable_bytes_max),
        amplification.tuning.level0_table_count_trigger,
    );
    Some(Advice {
        finding,
        flag: format!("--write_buffer_size={wanted}"),
        option: format!("memtable_bytes_max({wanted})"),
        number: "write amplification",
        now,
        then: now - per_user_byte(totals, saved),
    })
}

/// Synced commits that do not fill a page write it again and again.
fn larger_commits(amplification: &Amplification) -> Option<Advice> {
    let totals = &amplification.totals;
    let wasted = totals.log.pages.saturating_sub(totals.log.payload);
    let pages = amplification.page_bytes();
    if totals.log_sync_count < 10 || wasted < pages / 5 {
        return None;
    }
    let wanted = amplification.tuning.batch_size * BATCH_FACTOR;
    let saved = as_f64(wasted) * (1.0 - 1.0 / as_f64(BATCH_FACTOR));
    let now = ratio(pages, totals.user_bytes)?;
    let finding = format!(
        "The log was synced {}, {} a time, and each sync writes whole pages of 4096 bytes: \
         {:.1} times what was in them.",
        counted(totals.log_sync_count, "time"),
        bytes_for_people(totals.log.payload / totals.log_sync_count),
        ratio(totals.log.pages, totals.log.payload).unwrap_or(0.0),
    );
    Some(Advice {
        finding,
        flag: format!("--batch_size={wanted}"),
        option: format!("{wanted} operations in each WriteBatch"),
        number: "write amplification in pages",
        now,
        then: now - per_user_byte(totals, saved),
    })
}

/// The heaviest level lies below the one that level 0 goes to: what arrives there rewrites in
/// proportion to the fan-out. With half of it, and levels that begin twice as large so that there
/// are no more of them, the level that level 0 goes to is twice as large too.
fn smaller_fan_out(amplification: &Amplification) -> Option<Advice> {
    let totals = &amplification.totals;
    let tuning = &amplification.tuning;
    let (level, written) = heaviest_level(totals)?;
    let base = base_level(totals)?;
    if level == base || tuning.level_fan_out < 4 {
        return None;
    }
    let again = |level: usize| {
        let written = totals.compaction_by_level[level].payload;
        let arrived = totals.arrived_by_level.get(level).copied().unwrap_or(0);
        as_f64(written.saturating_sub(arrived))
    };
    let below: f64 = (base + 1..totals.compaction_by_level.len())
        .map(again)
        .sum();
    let (fan_out, base_bytes) = (tuning.level_fan_out / 2, tuning.level_base_bytes * 2);
    let now = amplification.write_amplification()?;
    let finding = format!(
        "Most of what compactions wrote went into L{level}: {:.2} bytes for each byte of yours, \
         {:.1} already there for each that arrived; levels grow {} times from one to the next.",
        per_user_byte(totals, as_f64(written)),
        overlap(totals, level).unwrap_or(0.0),
        tuning.level_fan_out,
    );
    Some(Advice {
        finding,
        flag: format!(
            "--max_bytes_for_level_multiplier={fan_out} --max_bytes_for_level_base={base_bytes}"
        ),
        option: format!("level_fan_out({fan_out}) and level_base_bytes({base_bytes})"),
        number: "write amplification",
        now,
        then: now - per_user_byte(totals, below / 2.0 - again(base)),
    })
}

/// Tables that were searched for keys they do not hold.
fn filters(amplification: &Amplification) -> Option<Advice> {
    let totals = &amplification.totals;
    let bits = amplification.tuning.filter_bits;
    if totals.get_count == 0 || bits >= FILTER_BITS {
        return None;
    }
    let searched = totals.tables_considered - totals.filter_negatives;
    let useful = totals
        .get_hit_count
        .saturating_sub(totals.memtable_hit_count);
    let vain = as_f64(searched.saturating_sub(useful));
    let asked = vain / filter_miss_rate(bits);
    let per_get = |count: f64| count / as_f64(totals.get_count);
    let finding = format!(
        "A get searched {:.2} tables, {:.2} of them for a key they do not hold: {}.",
        per_get(as_f64(searched)),
        per_get(vain),
        match bits {
            0 => "tables have no filters".to_owned(),
            bits => format!("filters have {bits} bits a key"),
        }
    );
    Some(Advice {
        finding,
        flag: format!("--bloom_bits={FILTER_BITS}"),
        option: format!("FilterPolicy::Blocked {{ bits_per_key: {FILTER_BITS} }}"),
        number: "tables searched for each get",
        now: per_get(as_f64(searched)),
        then: per_get(as_f64(useful) + asked * filter_miss_rate(FILTER_BITS)),
    })
}

/// Versions and tombstones that nobody sees any more.
fn compaction(amplification: &Amplification) -> Option<Advice> {
    let space = amplification.space.as_ref()?;
    let LiveBytes::Counted(live) = space.live else {
        return None;
    };
    let deepest = space
        .levels
        .iter()
        .rev()
        .find(|level| level.table_count > 0)?;
    if live == 0 || deepest.level == 0 {
        return None;
    }
    let raw: u64 = space.levels.iter().map(|level| level.raw_bytes).sum();
    let packed = ratio(deepest.bytes, deepest.raw_bytes)?;
    let finding = format!(
        "Tables hold {} of keys and values, of which {} can still be read; the rest are older \
         versions and tombstones that no compaction has met yet.",
        bytes_for_people(raw),
        bytes_for_people(live),
    );
    Some(Advice {
        finding,
        flag: "a full compaction (--benchmarks=...,compact)".to_owned(),
        option: "Db::compact_range(..)".to_owned(),
        number: "space amplification of the tables",
        now: ratio(space.table_bytes(), live)?,
        then: packed,
    })
}

/// The settings of the report itself, for those who want to see what was assumed.
pub(crate) fn assumptions(tuning: &Tuning) -> String {
    format!(
        "memtables of {}, level 0 compacted at depth {}, levels from {} growing {} times, {} \
         filter bits a key",
        bytes_for_people(tuning.memtable_bytes_max),
        tuning.level0_table_count_trigger,
        bytes_for_people(tuning.level_base_bytes),
        tuning.level_fan_out,
        tuning.filter_bits,
    )
}

#[cfg(test)]
mod tests;
