//! The groups of numbers in the stats file: each names its fields and their tags once, for both
//! directions.

#![deny(clippy::indexing_slicing)]

use base::coding::{FIRST_SKIPPABLE_TAG, Fields, put_field, put_varint_field};
use base::{PinLedger, PinReport, Result, SequenceNumber};
use sstable::ReadMode;

use super::format::{NUMBER_MAX, malformed, number, text, unknown};
use crate::ledger::{Counts, LevelCounts, Written};
use crate::stats::{KeyspaceStats, LevelStats, Stats, ThrottleStats, WaitStats, empty_levels};
use crate::throttle::ThrottleCause;

/// Writes fields of a struct, and takes one back by its tag; false if it has none of that.
trait Numbers {
    fn put(&self, out: &mut Vec<u8>);
    fn take(&mut self, tag: u32, content: &[u8]) -> Result<bool>;
}

/// Tags are part of the format: append only.
macro_rules! numbers {
    ($type:ty { $($tag:literal $($field:ident).+,)* }) => {
        impl Numbers for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$($field).+.put_number($tag, out);)*
            }

            fn take(&mut self, tag: u32, content: &[u8]) -> Result<bool> {
                match tag {
                    $($tag => self.$($field).+ = Number::take_number(tag, content)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

numbers!(Stats {
    1 user_bytes_written,
    2 user_write_count,
    3 log_bytes,
    4 log_sync_count,
    5 log_disk_bytes,
    6 log_segment_count,
    7 flush_bytes_written,
    8 flush_count,
    9 compaction_bytes_read,
    10 compaction_bytes_written,
    11 compaction_count,
    12 move_count,
    13 manifest_bytes,
    14 stats_file_bytes,
    15 stats_file_failure_count,
    16 memtable_bytes,
    17 memtable_taken_bytes,
    18 memtable_pinned_bytes,
    19 sealed_memtable_count,
    20 get_count,
    21 get_hit_count,
    22 memtable_hit_count,
    23 sealed_hit_count,
    24 get_tombstone_count,
    25 tables_considered,
    26 filter_negatives,
    27 filter_false_positives,
    28 index_blocks,
    29 data_blocks,
    30 cache_hits,
    31 cache_misses,
    32 loaded_blocks,
    33 get_bytes_read,
    34 seek_count,
    35 cache_bytes,
    36 pinned_slice_count,
    37 pinned_bytes,
    38 snapshot_count,
    39 visible_seq,
    40 stall_micros,
    41 stall_count,
    42 throttle_micros,
    43 throttle_count,
    46 seek_run_count,
    47 seek_passed_run_count,
    48 scan_entry_count,
    49 scan_index_blocks,
    50 scan_data_blocks,
    51 scan_cache_hits,
    52 scan_loaded_blocks,
    53 scan_bytes_read,
    54 scan_hidden_entry_count,
});
/// An optional number that may be 0, and one of a list: written by hand, after the others.
const TAG_OLDEST_SNAPSHOT: u32 = 44;
const TAG_READ_MODE: u32 = 45;

numbers!(Counts {
    1 user_bytes,
    2 user_write_count,
    3 flush.payload_bytes,
    4 flush.page_bytes,
    5 flush_count,
    6 compaction_count,
    7 compaction_read_bytes,
    8 move_count,
    9 moved_bytes,
    10 active_hit_count,
    11 sealed_hit_count,
    12 tombstone_count,
    13 absent_count,
    14 data_blocks,
    15 cache_hits,
    16 cache_misses,
    17 loaded_blocks,
    18 read_bytes,
    19 seek_count,
    20 scans.run_count,
    21 scans.passed_run_count,
    22 scans.entry_count,
    23 scans.index_blocks,
    24 scans.data_blocks,
    25 scans.cache_hits,
    26 scans.loaded_blocks,
    27 scans.read_bytes,
    28 scans.hidden_count,
});

/// What lies in a level, and what was counted there.
struct LevelRow {
    held: LevelStats,
    counted: LevelCounts,
}

numbers!(LevelRow {
    2 held.table_count,
    3 held.bytes,
    4 held.entry_count,
    5 held.tombstone_count,
    6 held.raw_bytes,
    7 held.score,
    8 counted.hit_count,
    9 counted.filter_negatives,
    10 counted.searched,
    11 counted.filter_false_positives,
    12 counted.compaction.payload_bytes,
    13 counted.compaction.page_bytes,
    14 counted.arrived_bytes,
    15 held.distinct_bytes,
});

numbers!(ThrottleStats {
    2 bytes_per_second,
    3 flush_bytes_per_second,
    4 compaction_bytes_per_second,
});

numbers!(WaitStats {
    2 stall_count,
    3 stall_micros,
    4 throttle_count,
    5 throttle_micros,
});

numbers!(Written {
    1 payload_bytes,
    2 page_bytes,
});

numbers!(PinReport {
    2 count,
    3 bytes,
});

/// Says what a group is about: a level by its index, a cause or a kind by its place from 1 on.
const TAG_OF: u32 = 1;
/// An optional number that may be 0.
const TAG_OLDEST_PIN: u32 = 4;

/// Tags of a keyspace.
mod tag {
    pub(super) const NAME: u32 = 1;
    pub(super) const MEMTABLE_BYTES: u32 = 2;
    pub(super) const SEALED_COUNT: u32 = 3;
    pub(super) const THROTTLE: u32 = 4;
    pub(super) const COUNTS: u32 = 5;
    /// Again for each level.
    pub(super) const LEVEL: u32 = 6;
}

/// A number as it stands in a field.
trait Number: Sized {
    fn put_number(&self, tag: u32, out: &mut Vec<u8>);
    fn take_number(tag: u32, content: &[u8]) -> Result<Self>;
}

impl Number for u64 {
    fn put_number(&self, tag: u32, out: &mut Vec<u8>) {
        if *self != 0 {
            put_varint_field(out, tag, (*self).min(NUMBER_MAX));
        }
    }

    fn take_number(tag: u32, content: &[u8]) -> Result<Self> {
        number(tag, content)
    }
}

/// Eight bytes. What is not a number, or below 0, is refused: nothing here is.
impl Number for f64 {
    fn put_number(&self, tag: u32, out: &mut Vec<u8>) {
        if *self > 0.0 {
            put_field(out, tag, &self.to_le_bytes());
        }
    }

    fn take_number(tag: u32, content: &[u8]) -> Result<Self> {
        let bytes = content.try_into().map_err(|_| malformed(tag))?;
        let number = Self::from_le_bytes(bytes);
        if number >= 0.0 {
            Ok(number)
        } else {
            Err(malformed(tag))
        }
    }
}

impl Number for SequenceNumber {
    fn put_number(&self, tag: u32, out: &mut Vec<u8>) {
        put_varint_field(out, tag, self.get());
    }

    fn take_number(tag: u32, content: &[u8]) -> Result<Self> {
        Self::new(number(tag, content)?).ok_or_else(|| malformed(tag))
    }
}

/// Reads a group; `rest` takes what is no plain number of `target`.
fn take_group_of<T: Numbers>(
    target: &mut T,
    bytes: &[u8],
    mut rest: impl FnMut(&mut T, u32, &[u8]) -> Result<()>,
) -> Result<()> {
    for field in Fields::new(bytes) {
        let (tag, content) = field.map_err(|_| malformed(0))?;
        if !target.take(tag, content)? {
            rest(target, tag, content)?;
        }
    }
    Ok(())
}

fn skip_or_refuse(tag: u32) -> Result<()> {
    if tag >= FIRST_SKIPPABLE_TAG {
        Ok(())
    } else {
        Err(unknown(tag))
    }
}

fn numbers_of<T: Numbers>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// A group that says in front what it is about.
fn numbers_about<T: Numbers>(about: u64, value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint_field(&mut out, TAG_OF, about);
    value.put(&mut out);
    out
}

pub(super) fn put_totals(stats: &Stats) -> Vec<u8> {
    let mut out = numbers_of(stats);
    if let Some(oldest) = stats.oldest_snapshot_seq {
        oldest.put_number(TAG_OLDEST_SNAPSHOT, &mut out);
    }
    let mode = match stats.read_mode {
        ReadMode::Mapped => 0,
        ReadMode::Positioned => 1,
        ReadMode::Auto => 2,
    };
    put_varint_field(&mut out, TAG_READ_MODE, mode);
    out
}

pub(super) fn take_totals(stats: &mut Stats, bytes: &[u8]) -> Result<()> {
    take_group_of(stats, bytes, |stats, tag, content| {
        match tag {
            TAG_OLDEST_SNAPSHOT => {
                stats.oldest_snapshot_seq = Some(SequenceNumber::take_number(tag, content)?);
            }
            TAG_READ_MODE => {
                stats.read_mode = match number(tag, content)? {
                    0 => ReadMode::Mapped,
                    1 => ReadMode::Positioned,
                    2 => ReadMode::Auto,
                    _ => return Err(malformed(tag)),
                };
            }
            _ => skip_or_refuse(tag)?,
        }
        Ok(())
    })
}

pub(super) fn put_written(written: Written) -> Vec<u8> {
    numbers_of(&written)
}

pub(super) fn take_written(bytes: &[u8]) -> Result<Written> {
    let mut written = Written::default();
    take_group_of(&mut written, bytes, |_, tag, _| skip_or_refuse(tag))?;
    Ok(written)
}

/// A keyspace, or all of them together.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) memtable_bytes: u64,
    pub(super) sealed_memtable_count: u64,
    pub(super) throttle: ThrottleStats,
    pub(super) counts: Counts,
    pub(super) levels: Vec<LevelStats>,
}

impl Group {
    pub(super) fn all(stats: &Stats, counts: &Counts) -> Self {
        Self {
            name: String::new(),
            memtable_bytes: stats.memtable_bytes,
            sealed_memtable_count: stats.sealed_memtable_count,
            throttle: stats.throttle,
            counts: counts.clone(),
            levels: stats.levels.clone(),
        }
    }

    pub(super) fn of(keyspace: &KeyspaceStats, counts: &Counts) -> Self {
        Self {
            name: keyspace.name.clone(),
            memtable_bytes: keyspace.memtable_bytes,
            sealed_memtable_count: keyspace.sealed_memtable_count,
            throttle: keyspace.throttle,
            counts: counts.clone(),
            levels: keyspace.levels.clone(),
        }
    }
}

impl From<Group> for KeyspaceStats {
    fn from(group: Group) -> Self {
        Self {
            name: group.name,
            user_bytes_written: group.counts.user_bytes,
            user_write_count: group.counts.user_write_count,
            memtable_bytes: group.memtable_bytes,
            sealed_memtable_count: group.sealed_memtable_count,
            get_count: group.counts.get_count(),
            get_hit_count: group.counts.hit_count(),
            levels: group.levels,
            throttle: group.throttle,
        }
    }
}

pub(super) fn put_group(group: &Group) -> Vec<u8> {
    let mut out = Vec::new();
    put_field(&mut out, tag::NAME, group.name.as_bytes());
    group
        .memtable_bytes
        .put_number(tag::MEMTABLE_BYTES, &mut out);
    let sealed_count = group.sealed_memtable_count;
    sealed_count.put_number(tag::SEALED_COUNT, &mut out);
    let cause = group.throttle.cause.map_or(0, place_of_cause);
    let throttle = numbers_about(cause, &group.throttle);
    put_field(&mut out, tag::THROTTLE, &throttle);
    put_field(&mut out, tag::COUNTS, &numbers_of(&group.counts));
    for (held, counted) in group.levels.iter().zip(&group.counts.levels) {
        let level = held.level.index() as u64;
        let row = LevelRow {
            held: held.clone(),
            counted: *counted,
        };
        put_field(&mut out, tag::LEVEL, &numbers_about(level, &row));
    }
    out
}

pub(super) fn take_group(bytes: &[u8]) -> Result<Group> {
    let mut group = Group {
        name: String::new(),
        memtable_bytes: 0,
        sealed_memtable_count: 0,
        throttle: ThrottleStats::default(),
        counts: Counts::default(),
        levels: empty_levels(),
    };
    for field in Fields::new(bytes) {
        let (tag, content) = field.map_err(|_| malformed(0))?;
        match tag {
            tag::NAME => group.name = text(tag, content)?,
            tag::MEMTABLE_BYTES => group.memtable_bytes = number(tag, content)?,
            tag::SEALED_COUNT => group.sealed_memtable_count = number(tag, content)?,
            tag::THROTTLE => group.throttle = take_throttle(content)?,
            tag::COUNTS => {
                take_group_of(&mut group.counts, content, |_, tag, _| skip_or_refuse(tag))?;
            }
            tag::LEVEL => take_level(&mut group, content)?,
            _ => skip_or_refuse(tag)?,
        }
    }
    for (held, counted) in group.levels.iter_mut().zip(&group.counts.levels) {
        held.set_counted(counted);
    }
    Ok(group)
}

fn take_throttle(bytes: &[u8]) -> Result<ThrottleStats> {
    let mut throttle = ThrottleStats {
        cause: None,
        bytes_per_second: 0.0,
        flush_bytes_per_second: 0.0,
        compaction_bytes_per_second: 0.0,
    };
    take_group_of(&mut throttle, bytes, |throttle, tag, content| {
        if tag == TAG_OF {
            let place = number(tag, content)?;
            throttle.cause = match place {
                0 => None,
                _ => Some(cause_at(place).ok_or_else(|| malformed(tag))?),
            };
            return Ok(());
        }
        skip_or_refuse(tag)
    })?;
    Ok(throttle)
}

/// What a group says that it is about, in its first field.
fn about(bytes: &[u8]) -> Result<u64> {
    match Fields::new(bytes).next() {
        Some(Ok((TAG_OF, content))) => number(TAG_OF, content),
        _ => Err(malformed(TAG_OF)),
    }
}

fn skip_about(tag: u32) -> Result<()> {
    if tag == TAG_OF {
        Ok(())
    } else {
        skip_or_refuse(tag)
    }
}

fn take_level(group: &mut Group, bytes: &[u8]) -> Result<()> {
    let index = usize::try_from(about(bytes)?).map_err(|_| malformed(TAG_OF))?;
    let held = group.levels.get_mut(index);
    let (Some(held), Some(counted)) = (held, group.counts.levels.get_mut(index)) else {
        return Err(malformed(TAG_OF));
    };
    let mut row = LevelRow {
        held: held.clone(),
        counted: *counted,
    };
    take_group_of(&mut row, bytes, |_, tag, _| skip_about(tag))?;
    (*held, *counted) = (row.held, row.counted);
    Ok(())
}

fn place_of_cause(cause: ThrottleCause) -> u64 {
    cause.index() as u64 + 1
}

fn cause_at(place: u64) -> Option<ThrottleCause> {
    let mut causes = ThrottleCause::ALL.into_iter();
    causes.find(|cause| place_of_cause(*cause) == place)
}

pub(super) fn put_wait(wait: &WaitStats) -> Vec<u8> {
    numbers_about(place_of_cause(wait.cause), wait)
}

pub(super) fn take_wait(waits: &mut Vec<WaitStats>, bytes: &[u8]) -> Result<()> {
    let cause = cause_at(about(bytes)?).ok_or_else(|| malformed(TAG_OF))?;
    if waits.iter().any(|wait| wait.cause == cause) {
        return Err(malformed(TAG_OF));
    }
    let mut wait = WaitStats {
        cause,
        stall_count: 0,
        stall_micros: 0,
        throttle_count: 0,
        throttle_micros: 0,
    };
    take_group_of(&mut wait, bytes, |_, tag, _| skip_about(tag))?;
    waits.push(wait);
    Ok(())
}

pub(super) fn put_pin(place: u64, pin: &PinReport) -> Vec<u8> {
    let mut out = numbers_about(place, pin);
    if let Some(oldest) = pin.oldest_micros {
        put_varint_field(&mut out, TAG_OLDEST_PIN, oldest.min(NUMBER_MAX));
    }
    out
}

pub(super) fn take_pin(pins: &mut Vec<PinReport>, bytes: &[u8]) -> Result<()> {
    if pins.is_empty() {
        // All kinds, with nothing pinned.
        pins.extend(PinLedger::default().report(0));
    }
    let place = about(bytes)?;
    let mut numbered = (1..).zip(pins);
    let found = numbered.find(|(at, _)| *at == place);
    let (_, pin) = found.ok_or_else(|| malformed(TAG_OF))?;
    take_group_of(pin, bytes, |pin, tag, content| {
        if tag == TAG_OLDEST_PIN {
            pin.oldest_micros = Some(number(tag, content)?);
            return Ok(());
        }
        skip_about(tag)
    })
}
