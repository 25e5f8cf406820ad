//! The distribution of latencies as text.

use std::fmt::Write as _;

use crate::bench::line::as_f64;
use crate::bench::measure::{Outcome, micros};

/// Each bar of a histogram covers twice the latency of the one before, from this one on.
const FIRST_BAR_NANOS: u64 = 125;
/// Marks of a bar that holds everything.
const BAR_MARKS: f64 = 40.0;

/// The lines above the percentiles, as db_bench has them.
pub(super) fn heading(outcome: &Outcome) -> String {
    let latencies = &outcome.latencies;
    format!(
        "Microseconds per operation:\nCount: {} Average: {:.4}  StdDev: {:.2}\n\
         Min: {:.0}  Median: {:.4}  Max: {:.0}",
        latencies.len(),
        latencies.mean() / 1e3,
        latencies.stdev() / 1e3,
        micros(latencies.min()),
        outcome.percentile_micros(50.0),
        outcome.max_micros(),
    )
}

/// One line for each bar.
pub(super) fn bars(outcome: &Outcome) -> String {
    let total = as_f64(outcome.latencies.len());
    let mut text = String::new();
    let mut sum = 0;
    for bar in outcome.latencies.iter_log(FIRST_BAR_NANOS, 2.0) {
        let count = bar.count_since_last_iteration();
        if count == 0 {
            continue;
        }
        sum += count;
        let part = as_f64(count) / total;
        writeln!(
            text,
            "  up to {:>12.3} {count:>12} {:>8.3} % {:>8.3} % {}",
            micros(bar.value_iterated_to()),
            part * 100.0,
            as_f64(sum) / total * 100.0,
            "#".repeat(marks(part)),
        )
        .expect("writing to a String cannot fail");
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the length of a bar"
)]
fn marks(part: f64) -> usize {
    (part * BAR_MARKS).round() as usize
}
