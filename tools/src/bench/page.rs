//! Reports as one HTML page: no script, no network, charts as SVG in the page itself; readable on a
//! narrow screen and in the dark.

use std::fmt::Write as _;

use base::clock::{Clock, SystemClock};

use super::args::Args;
use super::line::as_f64;
use super::record::Record;
use super::report::{Amplification, LiveBytes, ratio, text};
use crate::text::{count_for_people, counted, time_of_micros};

mod amplification;
mod chart;
mod latency;
mod peers;
mod reads;
mod throughput;

pub(crate) use peers::{Peer, PeerLine, peers};

const STYLE: &str = include_str!("page/style.css");
const NO_FAILURE: &str = "writing to a String cannot fail";
const MIB: f64 = 1_048_576.0;

/// `text` as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A page around its sections.
fn whole(title: &str, lead: &str, sections: &[String]) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n<p class=\"quiet\">{}</p>\n",
        escaped(lead)
    );
    for section in sections {
        page.push_str("<section>\n");
        page.push_str(section);
        page.push_str("</section>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// What a legend shows: a colour and a name.
fn legend<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("<div class=\"legend\">");
    for (colour, name) in entries {
        write!(
            out,
            "<span><i style=\"background:var(--{colour})\"></i>{}</span>",
            escaped(name)
        )
        .expect(NO_FAILURE);
    }
    out.push_str("</div>\n");
    out
}

/// The colour of the `index`-th of several.
fn colour(index: usize) -> &'static str {
    const COLOURS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    COLOURS[index % COLOURS.len()]
}

/// A rate for people.
fn rate(per_second: f64) -> String {
    match per_second {
        n if n >= 999_500.0 => format!("{:.2} M/s", n / 1e6),
        n if n >= 999.5 => format!("{:.0} k/s", n / 1e3),
        n => format!("{n:.0} /s"),
    }
}

/// A latency for people.
fn micros(micros: f64) -> String {
    match micros {
        n if n >= 999_500.0 => format!("{:.1} s", n / 1e6),
        n if n >= 9999.5 => format!("{:.0} ms", n / 1e3),
        n if n >= 999.5 => format!("{:.1} ms", n / 1e3),
        n if n >= 99.5 => format!("{n:.0} us"),
        n if n >= 0.995 => format!("{n:.1} us"),
        n => format!("{n:.2} us"),
    }
}

/// The page of a run.
pub(crate) fn run(args: &Args, records: &[Record], amplification: &Amplification) -> String {
    let now = SystemClock::new().now_micros();
    let lead = format!(
        "siltstone {} | {} | {} of {}, values of {}, {}, seed {}",
        env!("CARGO_PKG_VERSION"),
        time_of_micros(now),
        counted(args.num, "key"),
        counted(args.key_size as u64, "byte"),
        counted(args.value_size as u64, "byte"),
        counted(args.threads as u64, "thread"),
        args.seed
    );
    let named = named(records);
    let sections = [
        tiles(amplification),
        Some(words(amplification)),
        results(&named),
        throughput::section(&named),
        latency::section(&named),
        amplification::causes(amplification),
        amplification::workloads(&named),
        reads::section(amplification),
        amplification::levels(amplification),
    ];
    let sections: Vec<String> = sections.into_iter().flatten().collect();
    whole("lsm-bench report", &lead, &sections)
}

/// Records with names of their own: a workload that ran again is numbered.
fn named(records: &[Record]) -> Vec<(String, &Record)> {
    let mut out: Vec<(String, &Record)> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let name = &record.line.name;
        let earlier = records[..index].iter().filter(|r| r.line.name == *name);
        let label = match earlier.count() {
            0 => name.clone(),
            count => format!("{name} ({})", count + 1),
        };
        out.push((label, record));
    }
    out
}

fn tiles(amplification: &Amplification) -> Option<String> {
    let totals = &amplification.totals;
    let mut tiles = Vec::new();
    let mut tile = |number: Option<f64>, what: &str| {
        if let Some(number) = number {
            tiles.push(format!(
                "<div class=\"tile\"><b>{number:.2}</b>{what}</div>\n"
            ));
        }
    };
    tile(
        amplification.write_amplification(),
        "bytes written for each byte put",
    );
    let pages = ratio(amplification.page_bytes(), totals.user_bytes);
    tile(pages, "the same in pages of the system");
    let searched = totals
        .tables_considered
        .saturating_sub(totals.filter_negatives);
    tile(
        ratio(searched, totals.get_count),
        "tables searched for each get",
    );
    if let Some(space) = &amplification.space {
        let what = match space.live {
            LiveBytes::Counted(_) => "bytes in tables for each readable byte",
            LiveBytes::Estimated(_) => "bytes in tables for each readable byte (estimated)",
        };
        tile(ratio(space.table_bytes(), space.live.bytes()), what);
    }
    (!tiles.is_empty()).then(|| format!("<div class=\"tiles\">{}</div>\n", tiles.concat()))
}

fn words(amplification: &Amplification) -> String {
    let mut out = String::from("<h2>In plain words</h2>\n<ul>\n");
    for sentence in text::plain_sentences(amplification) {
        writeln!(out, "<li>{}</li>", escaped(&sentence)).expect(NO_FAILURE);
    }
    out.push_str("</ul>\n");
    out
}

fn results(records: &[(String, &Record)]) -> Option<String> {
    if records.is_empty() {
        return None;
    }
    let mut out = String::from(
        "<h2>Results</h2>\n<div class=\"scroll\"><table>\n<tr><th>workload</th>\
         <th>operations/s</th><th>us each</th><th>p50</th><th>p99</th><th>p99.9</th><th>max</th>\
         <th>MB/s</th><th>written</th><th>per byte put</th><th>stalled</th></tr>\n",
    );
    for (name, record) in records {
        let (line, cost) = (&record.line, &record.cost);
        let percentile = |percent| micros(record.outcome.percentile_micros(percent));
        let or_dash = |number: Option<f64>, decimals: usize| {
            number.map_or_else(|| "-".to_owned(), |n| format!("{n:.decimals$}"))
        };
        let (p50, p99, p999, max) = match record.outcome.latencies.len() {
            0 => ("-".into(), "-".into(), "-".into(), "-".into()),
            _ => (
                percentile(50.0),
                percentile(99.0),
                percentile(99.9),
                micros(record.outcome.max_micros()),
            ),
        };
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{:.2}</td><td>{p50}</td><td>{p99}</td><td>{p999}</td>\
             <td>{max}</td><td>{}</td><td>{:.1} MB</td><td>{}</td><td>{:.2} s</td></tr>",
            escaped(name),
            count_for_people(line.ops_per_sec),
            line.micros_per_op,
            or_dash(line.megabytes_per_sec, 1),
            as_f64(cost.written_bytes()) / MIB,
            or_dash(ratio(cost.written_bytes(), cost.user_bytes), 2),
            cost.stall_seconds,
        )
        .expect(NO_FAILURE);
    }
    out.push_str("</table></div>\n");
    Some(out)
}

#[cfg(test)]
mod tests;
