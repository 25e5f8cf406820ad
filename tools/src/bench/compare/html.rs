//! A comparison as a page with charts.

use base::clock::{Clock, SystemClock};

use super::markdown::NOTES;
use super::results::Results;
use super::table::{Line, Table};
use crate::bench::args::Args;
use crate::bench::page::{self, Peer, PeerLine};
use crate::text::{counted, time_of_micros};

/// The whole page.
pub(super) fn page(results: &Results, args: &Args, table: &Table, is_interrupted: bool) -> String {
    let lead = format!(
        "siltstone {} | {} | {} of {}, values of {}, seed {}; medians of {}{}",
        env!("CARGO_PKG_VERSION"),
        time_of_micros(SystemClock::new().now_micros()),
        counted(args.num, "key"),
        counted(args.key_size as u64, "byte"),
        counted(args.value_size as u64, "byte"),
        args.seed,
        counted(args.repeats as u64, "interleaved run"),
        if is_interrupted {
            "; interrupted: rows are missing"
        } else {
            ""
        },
    );
    let settings = results.settings();
    let engines: Vec<Peer> = table
        .engines
        .iter()
        .map(|engine| {
            let own = settings.iter().find(|(name, _)| name == engine);
            let pairs = own.map_or(&[][..], |(_, pairs)| pairs.as_slice());
            let pairs: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}: {v}")).collect();
            Peer {
                name: engine.name().to_owned(),
                settings: pairs.join("; "),
            }
        })
        .collect();
    let lines: Vec<PeerLine> = table.lines.iter().map(line).collect();
    page::peers(&lead, NOTES, &engines, &lines)
}

fn line(line: &Line) -> PeerLine {
    let shown = |figure: &Option<f64>| figure.map(|figure| (figure, line.unit.show(figure)));
    PeerLine {
        label: format!("{}{}", line.label, line.unit.suffix()),
        figures: line.figures.iter().map(shown).collect(),
        is_more_better: line.unit.is_more_better(),
        ratio: line.against_all,
    }
}
