//! Amplification by cause, for the whole run and workload by workload, and the levels.

use std::fmt::Write as _;

use super::chart::{Bar, bars};
use super::{MIB, NO_FAILURE, Record, as_f64, escaped, legend};
use crate::bench::report::{Amplification, ratio, theory};
use crate::text::counted;

/// The colours of the causes.
const LOG: (&str, &str) = ("c0", "log");
const FLUSH: (&str, &str) = ("c2", "flush");
const COMPACTION: (&str, &str) = ("c1", "compaction");
const MANIFEST: (&str, &str) = ("c3", "MANIFEST");

fn cause_colour(cause: &str) -> &'static str {
    match cause {
        "log" => LOG.0,
        "MANIFEST" => MANIFEST.0,
        cause if cause.starts_with("flush") => FLUSH.0,
        _ => COMPACTION.0,
    }
}

/// Bytes written for each byte of the user, a bar for each cause.
pub(super) fn causes(amplification: &Amplification) -> Option<String> {
    let user = amplification.totals.user_bytes;
    if user == 0 {
        return None;
    }
    let per_byte = |bytes: f64| bytes / as_f64(user);
    let rows: Vec<Bar> = amplification
        .write_rows()
        .into_iter()
        .map(|row| {
            let payload = per_byte(as_f64(row.charge.payload));
            let pages = per_byte(as_f64(row.charge.pages));
            let mark = theory::expected_bytes(amplification, &row.cause).map(per_byte);
            Bar {
                parts: vec![(cause_colour(&row.cause), payload)],
                figure: format!("{payload:.2} ({pages:.2} in pages)"),
                mark,
                name: row.cause,
            }
        })
        .collect();
    let mut out = String::from(
        "<h2>Write amplification by cause</h2>\n<p class=\"quiet\">Bytes written for each byte \
         that was put, over all databases of the run; upright marks are what theory expects.</p>\n",
    );
    out += &bars("Write amplification by cause", &rows);
    if let Some(device) = amplification.device {
        let pages = amplification.page_bytes();
        writeln!(
            out,
            "<p class=\"quiet\">In pages the causes sum to {:.1} MB; the operating system counted \
             {:.1} MB (write_bytes of /proc/self/io), {}. {}.</p>",
            as_f64(pages) / MIB,
            as_f64(device.written) / MIB,
            amplification.device_excess_percent(pages).map_or_else(
                || "nothing to compare".to_owned(),
                |percent| format!("{percent:+.1} %")
            ),
            escaped(&amplification.explanation().join("; ")),
        )
        .expect(NO_FAILURE);
    }
    Some(out)
}

/// The same, a bar for each workload that wrote.
pub(super) fn workloads(records: &[(String, &Record)]) -> Option<String> {
    let rows: Vec<Bar> = records
        .iter()
        .filter(|(_, record)| record.cost.user_bytes > 0)
        .map(|(name, record)| {
            let cost = &record.cost;
            let part = |(colour, _): (&'static str, &str), bytes: u64| {
                (colour, ratio(bytes, cost.user_bytes).unwrap_or(0.0))
            };
            let sum = ratio(cost.written_bytes(), cost.user_bytes).unwrap_or(0.0);
            Bar {
                name: name.clone(),
                parts: vec![
                    part(LOG, cost.log_bytes),
                    part(FLUSH, cost.flush_bytes),
                    part(COMPACTION, cost.compaction_bytes),
                    part(MANIFEST, cost.manifest_bytes),
                ],
                figure: format!("{sum:.2}"),
                mark: None,
            }
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    Some(format!(
        "<h2>Write amplification by workload</h2>\n<p class=\"quiet\">What was written while it \
         ran; compactions that it left behind count for those after it.</p>\n{}{}",
        legend([LOG, FLUSH, COMPACTION, MANIFEST]),
        bars("Write amplification by workload", &rows)
    ))
}

/// What the levels of the last database hold, and how much of a level what arrives there rewrites.
pub(super) fn levels(amplification: &Amplification) -> Option<String> {
    let space = amplification.space.as_ref()?;
    let used: Vec<_> = space
        .levels
        .iter()
        .filter(|row| row.table_count > 0 || row.written_bytes > 0)
        .collect();
    if used.is_empty() {
        return None;
    }
    let rows: Vec<Bar> = used
        .iter()
        .map(|row| Bar {
            name: format!("L{}, {}", row.level, counted(row.table_count, "table")),
            parts: vec![("c0", as_f64(row.bytes) / MIB)],
            figure: format!("{:.1} MB", as_f64(row.bytes) / MIB),
            mark: None,
        })
        .collect();
    let overlaps: Vec<Bar> = used
        .iter()
        .filter_map(|row| {
            let overlap = row.overlap()?;
            Some(Bar {
                name: format!("into L{}", row.level),
                parts: vec![("c2", 1.0), ("c1", overlap)],
                figure: format!("1 + {overlap:.2}"),
                mark: None,
            })
        })
        .collect();
    let mut out = String::from("<h2>Levels and overlap</h2>\n");
    out += "<h3>Bytes on disk, of the last database</h3>\n";
    out += &bars("Bytes of the levels", &rows);
    if !overlaps.is_empty() {
        out += "<h3>Written for each byte that arrived in a level</h3>\n";
        out += &legend([("c2", "arrived"), ("c1", "lay there and was written again")]);
        out += &bars("Overlap of the levels", &overlaps);
    }
    Some(out)
}
