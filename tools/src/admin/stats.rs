//! `stats`, `levels` and `compact`: what the tree is, and making it smaller.

use std::ops::Bound;

use base::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use siltstone::{Db, LevelStats, PinReport, Stats};

use super::args::{Compact, Global, OnlyDatabase};
use super::copies::close;
use super::costs;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::{Columns, Output};
use super::session::{Access, bytes_of, keyspace_of, with_database};
use crate::text::{bytes_for_people, count_for_people, counted};

pub(crate) fn stats(args: &OnlyDatabase, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let stats = db.stats();
        if output.json {
            return output.document(&stats_document(&stats));
        }
        print_stats(db, &stats, output)
    })
}

pub(crate) fn levels(args: &OnlyDatabase, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let stats = db.stats();
        if output.json {
            return output.document(&levels_document(&stats));
        }
        print_levels(&stats, output)
    })
}

pub(crate) fn amplification(
    args: &OnlyDatabase,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let amplification = db.amplification();
        if output.json {
            return output.document(&costs::document(&amplification));
        }
        for line in amplification.to_string().lines() {
            output.line(line)?;
        }
        Ok(())
    })
}

pub(crate) fn compact(args: &Compact, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    compact_until(&Interrupt::listen(), args, global, output)
}

pub(crate) fn compact_until(
    interrupt: &Interrupt,
    args: &Compact,
    global: &Global,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let bound = |argument: &Option<std::ffi::OsString>| {
        let argument = argument.as_ref();
        argument
            .map(|argument| bytes_of(argument, global))
            .transpose()
    };
    let from = bound(&args.from)?.map_or(Bound::Unbounded, Bound::Included);
    let to = bound(&args.to)?.map_or(Bound::Unbounded, Bound::Excluded);
    let clock = SystemClock::new();
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let before = db.stats();
        let keyspace = keyspace_of(db, &args.keyspace)?;
        let compacted = interrupt.during(
            || close(db),
            || {
                keyspace.compact_range((from, to))?;
                db.wait_for_compactions()
            },
        );
        compacted.or_else(|error| {
            interrupt.check("not everything was compacted; the database is whole")?;
            Err(Failure::from(error))
        })?;
        let after = db.stats();
        report_compaction(&before, &after, clock.monotonic_micros(), output)
    })
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn report_compaction(
    before: &Stats,
    after: &Stats,
    micros: u64,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let seconds = micros as f64 / 1e6;
    let (from, to) = (Sum::of(before), Sum::of(after));
    if output.json {
        return output.document(&json!({
            "before": from.document(),
            "after": to.document(),
            "written_bytes": after.compaction_bytes_written,
            "seconds": seconds,
        }));
    }
    output.line(&format!("before: {}", from.line()))?;
    output.line(&format!("after:  {}", to.line()))?;
    let written = bytes_for_people(after.compaction_bytes_written);
    output.line(&format!("{written} written in {seconds:.2} s"))
}

/// The tables of all levels together.
#[derive(Default)]
struct Sum {
    table_count: u64,
    bytes: u64,
    raw_bytes: u64,
    entry_count: u64,
    tombstone_count: u64,
}

impl Sum {
    fn of(stats: &Stats) -> Self {
        let mut sum = Self::default();
        for level in &stats.levels {
            sum.table_count += level.table_count;
            sum.bytes += level.bytes;
            sum.raw_bytes += level.raw_bytes;
            sum.entry_count += level.entry_count;
            sum.tombstone_count += level.tombstone_count;
        }
        sum
    }

    fn line(&self) -> String {
        format!(
            "{}, {}, {} of which {}",
            counted(self.table_count, "table"),
            bytes_for_people(self.bytes),
            counted(self.entry_count, "entry"),
            counted(self.tombstone_count, "tombstone"),
        )
    }

    fn document(&self) -> Value {
        json!({
            "table_count": self.table_count,
            "bytes": self.bytes,
            "raw_bytes": self.raw_bytes,
            "entry_count": self.entry_count,
            "tombstone_count": self.tombstone_count,
        })
    }
}

fn print_levels(stats: &Stats, output: &mut Output<'_>) -> Outcome<()> {
    let mut columns = Columns::new(&[
        "level",
        "tables",
        "size",
        "entries",
        "tombstones",
        "raw",
        "score",
    ]);
    let last = deepest_used(stats);
    for level in &stats.levels[..last] {
        columns.row(vec![
            level.level.to_string(),
            count_for_people(level.table_count),
            bytes_for_people(level.bytes),
            count_for_people(level.entry_count),
            count_for_people(level.tombstone_count),
            bytes_for_people(level.raw_bytes),
            format!("{:.2}", level.score),
        ]);
    }
    let sum = Sum::of(stats);
    columns.row(vec![
        "all".to_owned(),
        count_for_people(sum.table_count),
        bytes_for_people(sum.bytes),
        count_for_people(sum.entry_count),
        count_for_people(sum.tombstone_count),
        bytes_for_people(sum.raw_bytes),
        String::new(),
    ]);
    columns.print(output)
}

/// How many levels there are down to the deepest with a table, at least 1 if there is any.
fn deepest_used(stats: &Stats) -> usize {
    let used = stats.levels.iter().rposition(|level| level.table_count > 0);
    used.map_or(1, |index| index + 1).min(stats.levels.len())
}

fn print_stats(db: &Db, stats: &Stats, output: &mut Output<'_>) -> Outcome<()> {
    let rows = [
        ("health", format!("{:?}", db.health())),
        ("last sequence", count_for_people(stats.visible_seq.get())),
        ("memtables", bytes_for_people(stats.memtable_bytes)),
        (
            "sealed memtables",
            count_for_people(stats.sealed_memtable_count),
        ),
        ("log on disk", bytes_for_people(stats.log_disk_bytes)),
        ("tables", bytes_for_people(stats.table_bytes())),
        ("block cache", bytes_for_people(stats.cache_bytes)),
        ("snapshots", count_for_people(stats.snapshot_count)),
    ];
    for (name, value) in rows {
        output.line(&format!("{name:<18}{value}"))?;
    }
    output.line("")?;
    print_levels(stats, output)?;
    output.line("")?;
    output.line("since it was opened:")?;
    let rows = [
        ("user bytes", bytes_for_people(stats.user_bytes_written)),
        ("log", bytes_for_people(stats.log_bytes)),
        ("flushed", bytes_for_people(stats.flush_bytes_written)),
        (
            "compacted",
            bytes_for_people(stats.compaction_bytes_written),
        ),
        ("MANIFEST", bytes_for_people(stats.manifest_bytes)),
        (
            "amplification",
            format!("{:.2}", stats.write_amplification()),
        ),
    ];
    for (name, value) in rows {
        output.line(&format!("  {name:<16}{value}"))?;
    }
    Ok(())
}

fn levels_document(stats: &Stats) -> Value {
    levels_of(&stats.levels)
}

pub(super) fn levels_of(levels: &[LevelStats]) -> Value {
    let levels = levels.iter().filter(|level| level.table_count > 0);
    Value::Array(levels.map(level_document).collect())
}

fn level_document(level: &LevelStats) -> Value {
    json!({
        "level": level.level.index(),
        "table_count": level.table_count,
        "bytes": level.bytes,
        "entry_count": level.entry_count,
        "tombstone_count": level.tombstone_count,
        "raw_bytes": level.raw_bytes,
        "compaction_bytes_written": level.compaction_bytes_written,
        "score": level.score,
    })
}

fn pins_document(stats: &Stats) -> Value {
    let pins = stats.pins.iter().filter(|pins| pins.count > 0);
    let document = |pins: &PinReport| {
        json!({
            "kind": format!("{:?}", pins.kind).to_lowercase(),
            "count": pins.count,
            "bytes": pins.bytes,
            "oldest_micros": pins.oldest_micros,
        })
    };
    Value::Array(pins.map(document).collect())
}

pub(super) fn stats_document(stats: &Stats) -> Value {
    json!({
        "visible_seq": stats.visible_seq.get(),
        "user_bytes_written": stats.user_bytes_written,
        "user_write_count": stats.user_write_count,
        "log_bytes": stats.log_bytes,
        "log_sync_count": stats.log_sync_count,
        "log_disk_bytes": stats.log_disk_bytes,
        "flush_bytes_written": stats.flush_bytes_written,
        "flush_count": stats.flush_count,
        "compaction_bytes_read": stats.compaction_bytes_read,
        "compaction_bytes_written": stats.compaction_bytes_written,
        "compaction_count": stats.compaction_count,
        "move_count": stats.move_count,
        "manifest_bytes": stats.manifest_bytes,
        "memtable_bytes": stats.memtable_bytes,
        "memtable_taken_bytes": stats.memtable_taken_bytes,
        "sealed_memtable_count": stats.sealed_memtable_count,
        "table_bytes": stats.table_bytes(),
        "levels": levels_document(stats),
        "cache_bytes": stats.cache_bytes,
        "pinned_slice_count": stats.pinned_slice_count,
        "pinned_bytes": stats.pinned_bytes,
        "pins": pins_document(stats),
        "snapshot_count": stats.snapshot_count,
        "stall_micros": stats.stall_micros,
        "write_amplification": stats.write_amplification(),
    })
}
