//! `stallprobe`: operations that arrive whether the engine keeps up or not.
//!
//! A loop that begins an operation when the one before has ended does not see most of a stall: for
//! as long as it lasts, nothing is measured. Here every operation has a moment at which it is due,
//! drawn beforehand, and its latency runs from that moment (no coordinated omission).

use base::Result;

use super::distribution::{floor_u64, unit};
use super::lane::Lane;
use super::line::as_f64;
use super::measure::Outcome;
use super::pace::wait_until;
use super::write;

/// Latencies in milliseconds whose excess is counted.
const LIMITS_MILLIS: [u64; 4] = [1, 10, 100, 1000];

/// Overwrites random keys at moments that are exponentially far apart.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn run(lane: &mut Lane<'_>) -> Result<()> {
    let options = write::options(lane.args);
    let mean_nanos = 1e9 * as_f64(lane.args.threads as u64) / as_f64(lane.args.arrival_rate);
    let count = lane.args.write_count();
    let mut due = as_f64(lane.meter.last_nanos());
    let mut done = 0;
    loop {
        due += -(1.0 - unit(&mut lane.random)).ln() * mean_nanos;
        let due_nanos = floor_u64(due);
        if !lane.takes_due(done, count, due_nanos) {
            return Ok(());
        }
        wait_until(lane.clock, due_nanos, lane.stop());
        let number = lane.random.below(lane.args.num);
        let key = lane.keys.key(number);
        let value = lane.values.next_value();
        let bytes = (key.len() + value.len()) as u64;
        lane.db.put_with(key, value, &options)?;
        lane.finish_since(due_nanos, bytes);
        done += 1;
    }
}

/// How many operations were later than which limit.
pub(crate) fn note(outcome: &Outcome, arrival_rate: u64) -> String {
    let latencies = &outcome.latencies;
    let late = LIMITS_MILLIS.map(|millis| {
        let upto = latencies.count_between(0, millis * 1_000_000);
        let count = latencies.len().saturating_sub(upto);
        format!("{count} over {millis} ms")
    });
    format!(
        "  {arrival_rate} arrivals a second, timed from when they were due: {}",
        late.join(", ")
    )
}
