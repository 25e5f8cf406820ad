//! The amplification report for people: at most 100 columns.

use std::fmt::{self, Write as _};

use super::{Amplification, LiveBytes, Space, Totals, ratio};
use crate::bench::line::as_f64;

/// Bytes as MiB, the unit of the result lines.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", as_f64(bytes) / 1_048_576.0)
}

fn two_digits(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn signed_percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:+.1} %"))
}

impl fmt::Display for Amplification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.totals.database_count;
        let plural = if count == 1 { "" } else { "s" };
        writeln!(
            f,
            "Amplification, from the engine's ledger ({count} database{plural})"
        )?;
        write_part(self, f)?;
        read_part(&self.totals, f)?;
        if let Some(space) = &self.space {
            space_part(space, f)?;
            f.write_str(&level_table(space))?;
        }
        Ok(())
    }
}

fn write_part(amplification: &Amplification, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let totals = &amplification.totals;
    writeln!(
        f,
        "\nWrite{:>34} {:>14} {:>14}",
        "payload", "in pages", "per user byte"
    )?;
    let mut line = |name: &str, payload: u64, pages: Option<u64>| {
        let pages = pages.map_or_else(String::new, megabytes);
        let per_byte = two_digits(ratio(payload, totals.user_bytes));
        writeln!(
            f,
            "  {name:<22} {:>14} {pages:>14} {per_byte:>14}",
            megabytes(payload)
        )
    };
    line("user bytes in", totals.user_bytes, None)?;
    for row in amplification.write_rows() {
        line(&row.cause, row.charge.payload, Some(row.charge.pages))?;
    }
    line(
        "total out",
        amplification.payload_bytes(),
        Some(amplification.page_bytes()),
    )?;
    let payload = amplification.payload_bytes();
    if let Some(device) = amplification.device {
        writeln!(
            f,
            "  {:<22} {:>14} {:>14} {:>14}  of /proc/self/io",
            "write_bytes",
            "",
            megabytes(device.written),
            two_digits(ratio(device.written, totals.user_bytes)),
        )?;
        writeln!(
            f,
            "  {:<22} {:>14} {:>14}  cancelled {}",
            "difference",
            signed_percent(amplification.device_excess_percent(payload)),
            signed_percent(amplification.device_excess_percent(amplification.page_bytes())),
            megabytes(device.cancelled),
        )?;
    }
    for sentence in amplification.explanation() {
        writeln!(f, "  ({sentence})")?;
    }
    writeln!(
        f,
        "  {} flushes, {} compactions, {} moves, {} syncs of the log; stalls {:.3} s, \
         slowed {:.3} s",
        totals.flush_count,
        totals.compaction_count,
        totals.move_count,
        totals.log_sync_count,
        as_f64(totals.stall_micros) / 1e6,
        as_f64(totals.throttle_micros) / 1e6,
    )?;
    writeln!(
        f,
        "  write amplification {} over {} operations",
        two_digits(amplification.write_amplification()),
        totals.user_write_count
    )
}

fn read_part(totals: &Totals, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if totals.get_count == 0 {
        return Ok(());
    }
    let gets = totals.get_count;
    let per_get = |count: u64| two_digits(ratio(count, gets));
    let percent = |part: u64, whole: u64| {
        ratio(part, whole).map_or_else(|| "-".to_owned(), |r| format!("{:.1} %", r * 100.0))
    };
    writeln!(f, "\nRead, of {gets} gets")?;
    writeln!(
        f,
        "  found {}, of these in a memtable {}",
        percent(totals.get_hit_count, gets),
        percent(totals.memtable_hit_count, totals.get_hit_count),
    )?;
    writeln!(
        f,
        "  per get: {} tables, of these {} ruled out by their filter, {} searched for nothing",
        per_get(totals.tables_considered),
        per_get(totals.filter_negatives),
        per_get(totals.filter_false_positives),
    )?;
    writeln!(
        f,
        "  per get: {} index blocks, {} data blocks, {} bytes of them",
        per_get(totals.index_blocks),
        per_get(totals.data_blocks),
        per_get(totals.get_bytes_read),
    )?;
    let asked = totals.filter_negatives + totals.filter_false_positives;
    writeln!(
        f,
        "  filters wrong {} of the times the key was not there",
        percent(totals.filter_false_positives, asked),
    )?;
    let looked_up = totals.cache_hits + totals.cache_misses;
    match looked_up {
        0 => writeln!(f, "  block cache not used"),
        _ => writeln!(
            f,
            "  block cache hits {}",
            percent(totals.cache_hits, looked_up)
        ),
    }
}

fn space_part(space: &Space, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let tables = space.table_bytes();
    let live = space.live.bytes();
    let how = match space.live {
        LiveBytes::Counted(_) => "counted by a scan",
        LiveBytes::Estimated(_) => "estimated: what the deepest level holds",
    };
    writeln!(f, "\nSpace, of the last database")?;
    writeln!(
        f,
        "  live keys and values   {:>14}  ({how})",
        megabytes(live)
    )?;
    writeln!(f, "  tables                 {:>14}", megabytes(tables))?;
    writeln!(
        f,
        "  log                    {:>14}",
        megabytes(space.log_bytes)
    )?;
    writeln!(
        f,
        "  space amplification {}, tables alone {}",
        two_digits(ratio(tables + space.log_bytes, live)),
        two_digits(ratio(tables, live)),
    )
}

/// The levels in use, one a line; write amplification is bytes written there for each user byte.
pub(crate) fn level_table(space: &Space) -> String {
    let mut text = "\n".to_owned();
    let mut line = |cells: [&str; 7]| {
        let [level, tables, bytes, entries, tombstones, score, written] = cells;
        writeln!(
            text,
            "  {level:<5} {tables:>7} {bytes:>12} {entries:>12} {tombstones:>12} {score:>7} \
             {written:>9}"
        )
        .expect("writing to a String cannot fail");
    };
    line([
        "level",
        "tables",
        "bytes",
        "entries",
        "tombstones",
        "score",
        "write-amp",
    ]);
    for row in &space.levels {
        if row.table_count == 0 && row.written_bytes == 0 {
            continue;
        }
        line([
            &format!("L{}", row.level),
            &row.table_count.to_string(),
            &megabytes(row.bytes),
            &row.entry_count.to_string(),
            &row.tombstone_count.to_string(),
            &format!("{:.2}", row.score),
            &two_digits(ratio(row.written_bytes, space.user_bytes)),
        ]);
    }
    text
}
