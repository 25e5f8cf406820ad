//! Operations a second over time, a chart for each workload that ran long enough, with the times
//! marked at which writes were held back.

use super::chart::{Frame, round_up};
use super::{Record, as_f64, escaped, legend, rate};
use crate::bench::moments::PauseKind;
use crate::bench::series::{SPAN_NANOS, Series};

/// A chart of fewer points says nothing, and so does one of fewer operations.
const POINTS_MIN: usize = 4;
const OPERATIONS_MIN: u64 = 100;
/// More points than this are put together: a line is not wider than a screen.
const POINTS_MAX: usize = 240;

const FRAME: Frame = Frame {
    width: 360.0,
    height: 150.0,
    left: 58.0,
    bottom: 20.0,
};

/// The charts; nothing if every workload was over at once.
pub(super) fn section(records: &[(String, &Record)]) -> Option<String> {
    let charts: Vec<String> = records
        .iter()
        .filter_map(|(name, record)| chart(name, record))
        .collect();
    if charts.is_empty() {
        return None;
    }
    let key = legend([
        ("c0", "operations a second"),
        ("stall", "writes waited (stall)"),
        ("slow", "writes were slowed down"),
    ]);
    Some(format!(
        "<h2>Throughput over time</h2>\n{key}<div class=\"grid\">\n{}</div>\n",
        charts.concat()
    ))
}

fn chart(name: &str, record: &Record) -> Option<String> {
    let counts = whole_spans(&record.outcome.series.counts);
    if counts.len() < POINTS_MIN || record.outcome.done < OPERATIONS_MIN {
        return None;
    }
    let series = Series {
        first: record.outcome.series.first + 1,
        counts: counts.to_vec(),
    };
    let rates = series.per_interval(counts.len().div_ceil(POINTS_MAX));
    let top = round_up(as_f64(*rates.iter().max()?));
    let seconds = as_f64(counts.len() as u64 * SPAN_NANOS) / 1e9;
    let mut out = FRAME.open(&format!("Operations a second of {name}"));
    let begin = series.first * SPAN_NANOS;
    let length = counts.len() as u64 * SPAN_NANOS;
    let part = |nanos: u64| (as_f64(nanos.saturating_sub(begin)) / as_f64(length)).min(1.0);
    for pause in &record.pauses {
        let colour = match pause.kind {
            PauseKind::Stall => "stall",
            PauseKind::Throttle => "slow",
        };
        FRAME.band(
            &mut out,
            colour,
            part(pause.from_nanos),
            part(pause.upto_nanos),
        );
    }
    for step in [0.0, 0.5, 1.0] {
        FRAME.level(&mut out, step, &rate(step * top));
    }
    FRAME.below(&mut out, 0.0, "0 s");
    FRAME.below(&mut out, 1.0, &format!("{seconds:.1} s"));
    let last = as_f64(rates.len() as u64 - 1).max(1.0);
    let points: Vec<(f64, f64)> = (0_u64..)
        .zip(&rates)
        .map(|(index, rate)| (as_f64(index) / last, as_f64(*rate) / top))
        .collect();
    FRAME.line(&mut out, "c0", &points);
    out.push_str("</svg>\n");
    Some(format!("<div><h3>{}</h3>\n{out}</div>\n", escaped(name)))
}

/// The spans without the first and the last, of which the workload had only a part.
fn whole_spans(counts: &[u64]) -> &[u64] {
    match counts {
        [_, whole @ .., _] => whole,
        _ => &[],
    }
}
