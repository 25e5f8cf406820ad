//! The amplification report for people: at most 100 columns.

use std::fmt::{self, Write as _};

use super::{Amplification, LiveBytes, Space, explain, ratio, read, theory};
use crate::bench::line::as_f64;
use crate::text::{counted, escape};

const NO_FAILURE: &str = "writing to a String cannot fail";

/// Bytes as MiB, the unit of the result lines.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", as_f64(bytes) / 1_048_576.0)
}

pub(super) fn two_digits(value: Option<f64>) -> String {
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
        f.write_str(&read::text(self))?;
        if let Some(space) = &self.space {
            space_part(space, f)?;
            f.write_str(&level_table(space))?;
        }
        if self.keyspaces.len() > 1 {
            writeln!(f, "\nKeyspaces of the last database")?;
            for keyspace in &self.keyspaces {
                writeln!(
                    f,
                    "  {:<22} write {:>7.2}, tables searched for each get {:>6.2}, space {:>6.2}",
                    escape(keyspace.name.as_bytes()),
                    keyspace.write.factor(),
                    keyspace.read.tables_searched,
                    keyspace.space.factor(),
                )?;
            }
        }
        plain_part(self, f)
    }
}

/// The same in words.
fn plain_part(amplification: &Amplification, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\nIn plain words")?;
    for sentence in plain_sentences(amplification) {
        for (index, line) in wrapped(&sentence).iter().enumerate() {
            writeln!(f, "  {}{line}", if index == 0 { "* " } else { "  " })?;
        }
    }
    Ok(())
}

/// What somebody who has never seen the tables above should know.
pub(crate) fn plain_sentences(amplification: &Amplification) -> Vec<String> {
    let totals = &amplification.totals;
    let mut sentences = Vec::new();
    if let Some(factor) = amplification.write_amplification() {
        let rows = amplification.write_rows();
        let largest = rows.iter().max_by_key(|row| row.charge.payload);
        let largest = largest.map_or("", |row| &row.cause);
        sentences.push(format!(
            "Write amplification {factor:.2}: for each byte that was put, the engine wrote \
             {factor:.2} bytes to files, most of them for: {largest}. Every byte goes into the log \
             and into a table once, so that without compaction 2 would be the least; less is \
             possible only because values shrink when compressed, and because keys that are \
             overwritten in memory never reach a table."
        ));
    }
    if totals.get_count > 0 {
        let searched = totals
            .tables_considered
            .saturating_sub(totals.filter_negatives);
        sentences.push(format!(
            "Read amplification: a get looked into {} tables and {} data blocks on average; \
             filters spared it {} other tables.",
            two_digits(ratio(searched, totals.get_count)),
            two_digits(ratio(totals.data_blocks, totals.get_count)),
            two_digits(ratio(totals.filter_negatives, totals.get_count)),
        ));
    }
    sentences.extend(read::scan_sentence(amplification));
    if let Some(space) = &amplification.space
        && space.table_bytes() > 0
        && let Some(factor) = ratio(space.table_bytes(), space.live.bytes())
    {
        sentences.push(format!(
            "Space amplification {factor:.2}: tables take {factor:.2} bytes for each byte of keys \
             and values that can be read{}.",
            if factor < 1.0 {
                ", because they are compressed"
            } else {
                ""
            }
        ));
    }
    let advices = explain::advise(amplification);
    sentences.extend(advices.iter().map(explain::Advice::sentences));
    if advices.is_empty() && totals.user_bytes > 0 {
        sentences.push("No setting promises to save a twentieth of any of it.".to_owned());
    }
    sentences.push(format!(
        "Assumed: {}.",
        explain::assumptions(&amplification.tuning)
    ));
    sentences
}

/// Lines of at most 96 columns.
fn wrapped(text: &str) -> Vec<String> {
    const COLUMNS: usize = 94;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if !last.is_empty() && last.len() + 1 + word.len() > COLUMNS {
            lines.push(word.to_owned());
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines
}

fn write_part(amplification: &Amplification, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let totals = &amplification.totals;
    writeln!(
        f,
        "\nWrite{:>34} {:>14} {:>14} {:>12}",
        "payload", "in pages", "per user byte", "by theory"
    )?;
    let mut line = |name: &str, payload: u64, pages: Option<u64>, expected: Option<f64>| {
        let pages = pages.map_or_else(String::new, megabytes);
        let per_byte = two_digits(ratio(payload, totals.user_bytes));
        let expected = expected.map_or_else(String::new, |bytes| {
            two_digits(Some(bytes / as_f64(totals.user_bytes.max(1))))
        });
        writeln!(
            f,
            "  {name:<22} {:>14} {pages:>14} {per_byte:>14} {expected:>12}",
            megabytes(payload)
        )
    };
    line("user bytes in", totals.user_bytes, None, None)?;
    for row in amplification.write_rows() {
        let expected = theory::expected_bytes(amplification, &row.cause);
        line(
            &row.cause,
            row.charge.payload,
            Some(row.charge.pages),
            expected,
        )?;
    }
    line(
        "total out",
        amplification.payload_bytes(),
        Some(amplification.page_bytes()),
        None,
    )?;
    device_lines(amplification, f)?;
    for sentence in amplification.explanation() {
        writeln!(f, "  ({sentence})")?;
    }
    writeln!(
        f,
        "  {}, {}, {}, {} of the log; stalls {:.3} s, slowed {:.3} s",
        counted(totals.flush_count, "flush"),
        counted(totals.compaction_count, "compaction"),
        counted(totals.move_count, "move"),
        counted(totals.log_sync_count, "sync"),
        as_f64(totals.stall_micros) / 1e6,
        as_f64(totals.throttle_micros) / 1e6,
    )?;
    writeln!(
        f,
        "  write amplification {} over {}",
        two_digits(amplification.write_amplification()),
        counted(totals.user_write_count, "operation")
    )
}

/// What the operating system counted, and how far that is from the engine's own figures.
fn device_lines(amplification: &Amplification, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let totals = &amplification.totals;
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
    Ok(())
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

/// The levels in use, one a line. Write amplification is bytes written there for each user byte;
/// overlap is bytes that already lay there and were written again, for each that arrived; for each
/// get, how many found their value there, and how many tables of it were searched.
pub(crate) fn level_table(space: &Space) -> String {
    let mut text = "\n".to_owned();
    let mut line = |cells: [&str; 10]| {
        const WIDTHS: [usize; 9] = [6, 11, 11, 10, 6, 9, 8, 7, 8];
        let [level, others @ ..] = cells;
        write!(text, "  {level:<5}").expect(NO_FAILURE);
        for (cell, width) in others.iter().zip(WIDTHS) {
            write!(text, " {cell:>width$}").expect(NO_FAILURE);
        }
        text.push('\n');
    };
    line([
        "level",
        "tables",
        "bytes",
        "entries",
        "tombstones",
        "score",
        "write-amp",
        "overlap",
        "found",
        "searched",
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
            &two_digits(row.overlap()),
            &two_digits(ratio(row.get_hit_count, space.get_count)),
            &two_digits(ratio(row.tables_searched, space.get_count)),
        ]);
    }
    text
}
