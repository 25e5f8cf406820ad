//! What reads had to touch: a table for gets and scans, and where their blocks came from.

use std::fmt::Write as _;

use super::chart::{Bar, bars};
use super::{NO_FAILURE, as_f64, legend};
use crate::bench::report::read::Blocks;
use crate::bench::report::{Amplification, Totals, ratio};

/// The colours of the places that blocks come from.
const MAPPED: (&str, &str) = ("c2", "lies mapped");
const CACHED: (&str, &str) = ("c0", "block cache");
const LOADED: (&str, &str) = ("c1", "read, expanded");

/// The section; `None` if nothing was read.
pub(super) fn section(amplification: &Amplification) -> Option<String> {
    let totals = &amplification.totals;
    if totals.get_count + totals.seek_count == 0 {
        return None;
    }
    let mut out = String::from(
        "<h2>What reads had to touch</h2>\n<p class=\"quiet\">On average for each get, and for \
         each scan: a cursor sent to a key, and the steps from there.</p>\n",
    );
    out += &table(totals);
    let returned = amplification.returned;
    if let Some(factor) = ratio(returned.block_bytes, returned.bytes) {
        writeln!(
            out,
            "<p class=\"quiet\">{factor:.2} bytes of blocks were touched for each byte of keys \
             and values returned, by the workloads that only read.</p>"
        )
        .expect(NO_FAILURE);
    }
    out += &sources(totals);
    Some(out)
}

/// What is told of gets and of scans; `None` where it has no sense.
fn rows(totals: &Totals) -> [(&'static str, Option<u64>, Option<u64>); 9] {
    let searched = totals
        .tables_considered
        .saturating_sub(totals.filter_negatives);
    let runs = totals
        .seek_run_count
        .saturating_sub(totals.seek_passed_run_count);
    let both = |name, get, scan| (name, Some(get), Some(scan));
    let of_gets = |name, get| (name, Some(get), None);
    let of_scans = |name, scan| (name, None, Some(scan));
    [
        both(
            "tables or runs considered",
            totals.tables_considered,
            totals.seek_run_count,
        ),
        of_scans("passed over by their bounds", totals.seek_passed_run_count),
        of_gets("ruled out by their filter", totals.filter_negatives),
        both("searched", searched, runs),
        of_gets("searched in vain", totals.filter_false_positives),
        both(
            "index blocks",
            totals.index_blocks,
            totals.scan_index_blocks,
        ),
        both("data blocks", totals.data_blocks, totals.scan_data_blocks),
        both(
            "bytes of these, as stored",
            totals.get_bytes_read,
            totals.scan_bytes_read,
        ),
        of_scans("entries shown", totals.scan_entry_count),
    ]
}

fn table(totals: &Totals) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table>\n<tr><th></th><th>each get</th><th>each scan</th></tr>\n",
    );
    let mean = |sum: Option<u64>, count: u64| {
        let mean = sum.and_then(|sum| ratio(sum, count));
        mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.2}"))
    };
    for (name, of_gets, of_scans) in rows(totals) {
        let get = mean(of_gets, totals.get_count);
        let scan = mean(of_scans, totals.seek_count);
        writeln!(out, "<tr><td>{name}</td><td>{get}</td><td>{scan}</td></tr>").expect(NO_FAILURE);
    }
    out.push_str("</table></div>\n");
    out
}

/// A bar for gets and one for scans, each a whole.
fn sources(totals: &Totals) -> String {
    let bar = |name: &str, blocks: Blocks, count: u64| {
        let all = blocks.mapped + blocks.cached + blocks.loaded;
        let part = |(colour, _): (&'static str, &str), blocks: u64| {
            (colour, as_f64(blocks) / as_f64(all.max(1)))
        };
        (all > 0).then(|| Bar {
            name: name.to_owned(),
            parts: vec![
                part(MAPPED, blocks.mapped),
                part(CACHED, blocks.cached),
                part(LOADED, blocks.loaded),
            ],
            figure: format!("{:.2} blocks each", as_f64(all) / as_f64(count.max(1))),
            mark: None,
        })
    };
    let rows: Vec<Bar> = [
        bar("gets", Blocks::of_gets(totals), totals.get_count),
        bar("scans", Blocks::of_scans(totals), totals.seek_count),
    ]
    .into_iter()
    .flatten()
    .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h3>Where their data blocks came from</h3>\n{}{}",
        legend([MAPPED, CACHED, LOADED]),
        bars("Where data blocks came from", &rows)
    )
}
