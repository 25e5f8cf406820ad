//! Latencies by percentile: a line for each workload, the latency on a scale of powers of ten.

use super::chart::Frame;
use super::{Record, as_f64, colour, legend, micros};

const STEPS: [(&str, f64); 7] = [
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
    ("max", 100.0),
];
/// Workloads of one chart.
const LINES_MAX: usize = 8;

const FRAME: Frame = Frame {
    width: 460.0,
    height: 240.0,
    left: 52.0,
    bottom: 20.0,
};

/// The charts; nothing if nothing was timed one by one.
pub(super) fn section(records: &[(String, &Record)]) -> Option<String> {
    let timed: Vec<_> = records
        .iter()
        .filter(|(_, record)| record.outcome.latencies.len() > 1)
        .collect();
    if timed.is_empty() {
        return None;
    }
    let charts: Vec<String> = timed.chunks(LINES_MAX).map(chart).collect();
    Some(format!(
        "<h2>Latency percentiles</h2>\n<p class=\"quiet\">Of single operations; of scans one step \
         in 64 is timed. Powers of ten.</p>\n{}",
        charts.concat()
    ))
}

fn chart(records: &[&(String, &Record)]) -> String {
    let all = records.iter().flat_map(|(_, record)| {
        STEPS.map(|(_, percent)| record.outcome.percentile_micros(percent))
    });
    let (least, most) = all.fold((f64::INFINITY, 0.0_f64), |(least, most), latency| {
        (least.min(latency.max(0.01)), most.max(latency))
    });
    let from = least.log10().floor();
    let upto = most.max(0.1).log10().ceil().max(from + 1.0);
    let height = |latency: f64| (latency.max(0.01).log10() - from) / (upto - from);
    let mut out = FRAME.open("Latency percentiles");
    let mut power = from;
    while power <= upto {
        FRAME.level(
            &mut out,
            (power - from) / (upto - from),
            &micros(10.0_f64.powf(power)),
        );
        power += 1.0;
    }
    let last = as_f64(STEPS.len() as u64 - 1);
    for (index, (name, _)) in (0_u64..).zip(STEPS) {
        FRAME.below(&mut out, as_f64(index) / last, name);
    }
    for (index, (_, record)) in records.iter().enumerate() {
        let points: Vec<(f64, f64)> = (0_u64..)
            .zip(STEPS)
            .map(|(step, (_, percent))| {
                let latency = record.outcome.percentile_micros(percent);
                (as_f64(step) / last, height(latency))
            })
            .collect();
        FRAME.line(&mut out, colour(index), &points);
    }
    out.push_str("</svg>\n");
    let entries = records.iter().enumerate();
    legend(entries.map(|(index, (name, _))| (colour(index), name.as_str()))) + &out
}
