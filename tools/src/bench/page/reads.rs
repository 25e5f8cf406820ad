//! What gets had to touch, and where their blocks came from.

use std::fmt::Write as _;

use super::chart::{Bar, bars};
use super::{NO_FAILURE, as_f64};
use crate::bench::report::read::Blocks;
use crate::bench::report::{Amplification, Totals, ratio};

/// The colours of the places that blocks come from.
const MAPPED: (&str, &str) = ("c2", "lies mapped");
const CACHED: (&str, &str) = ("c0", "block cache");
const LOADED: (&str, &str) = ("c1", "read, expanded");

/// The section; `None` if nothing was read.
pub(super) fn section(amplification: &Amplification) -> Option<String> {
    let totals = &amplification.totals;
    if totals.get_count == 0 {
        return None;
    }
    let mut out = String::from(
        "<h2>What gets had to touch</h2>\n<p class=\"quiet\">On average for each of them, found or \
         not.</p>\n",
    );
    out += &table(totals);
    let returned = amplification.returned;
    if let Some(factor) = ratio(returned.block_bytes, returned.bytes) {
        writeln!(
            out,
            "<p class=\"quiet\">{factor:.2} bytes of blocks were touched for each byte of keys \
             and values returned, by the workloads that only get.</p>"
        )
        .expect(NO_FAILURE);
    }
    out += &sources(totals);
    Some(out)
}

fn table(totals: &Totals) -> String {
    let searched = totals
        .tables_considered
        .saturating_sub(totals.filter_negatives);
    let mut out =
        String::from("<div class=\"scroll narrow\"><table>\n<tr><th></th><th>each get</th></tr>\n");
    for (name, sum) in [
        ("tables considered", totals.tables_considered),
        ("ruled out by their filter", totals.filter_negatives),
        ("searched", searched),
        ("searched in vain", totals.filter_false_positives),
        ("index blocks", totals.index_blocks),
        ("data blocks", totals.data_blocks),
        ("bytes of these, as stored", totals.get_bytes_read),
    ] {
        let mean = ratio(sum, totals.get_count).unwrap_or(0.0);
        writeln!(out, "<tr><td>{name}</td><td>{mean:.2}</td></tr>").expect(NO_FAILURE);
    }
    out.push_str("</table></div>\n");
    out
}

/// Where data blocks came from, as parts of a whole.
fn sources(totals: &Totals) -> String {
    let blocks = Blocks::of_gets(totals);
    let all = blocks.mapped + blocks.cached + blocks.loaded;
    if all == 0 {
        return String::new();
    }
    let row = |(colour, name): (&'static str, &str), blocks: u64| {
        let part = as_f64(blocks) / as_f64(all);
        Bar {
            name: name.to_owned(),
            parts: vec![(colour, part)],
            figure: format!("{:.1} %", part * 100.0),
            mark: None,
        }
    };
    let rows = [
        row(MAPPED, blocks.mapped),
        row(CACHED, blocks.cached),
        row(LOADED, blocks.loaded),
    ];
    format!(
        "<h3>Where their data blocks came from</h3>\n{}",
        bars("Where data blocks came from", &rows)
    )
}
