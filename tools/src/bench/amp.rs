//! `amp`: amplification as it grows under overwrites, a line for each tenth of them.

use std::fmt::Write as _;

use base::Result;
use siltstone::{Amplification, Db};

use super::lane::{Track, run_lanes};
use super::line::as_f64;
use super::measure::Outcome;
use super::work::Measured;
use super::workload::Workload;
use super::write::{self, WritePlan};

/// Into so many parts the writes are cut.
const STEP_COUNT: u64 = 10;

/// Overwrites random keys, and looks at the ledger after each tenth.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn run(track: &Track<'_>) -> Result<Measured> {
    let mut plan = WritePlan::new(Workload::Overwrite, track.args);
    let total = plan.count;
    let mut table = heading();
    let mut meters = Vec::new();
    let first = track.db.amplification();
    let mut before = first.clone();
    let mut done = 0;
    for step in 1..=STEP_COUNT {
        let upto = u64::try_from(u128::from(total) * u128::from(step) / u128::from(STEP_COUNT))
            .unwrap_or(total);
        plan.count = upto - done;
        done = upto;
        if plan.count == 0 || track.stop.is_set() {
            continue;
        }
        let track = track.part(step);
        let part = run_lanes(&track, track.args.threads, |_, lane| {
            write::write(lane, &plan)
        })?;
        let now = track.db.amplification();
        let rate = as_f64(plan.count * track.args.threads as u64)
            / Outcome::merge(&part).elapsed_seconds.max(1e-9);
        push_line(&mut table, track.db, [&first, &before, &now], rate);
        before = now;
        meters.extend(part);
    }
    if meters.is_empty() {
        meters = run_lanes(track, 1, |_, _| Ok(()))?;
    }
    Ok(Measured {
        note: Some(table.trim_end().to_owned()),
        ..meters.into()
    })
}

fn heading() -> String {
    let mut text =
        String::from("  bytes written for each byte of the user, in this part and so far\n");
    writeln!(
        text,
        "  {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>6}",
        "user MB",
        "ops/sec",
        "log",
        "flush",
        "compact",
        "part",
        "so far",
        "in pages",
        "space",
        "depth"
    )
    .expect("writing to a String cannot fail");
    text
}

/// One line: what was written between `before` and `now`, and since `first`.
fn push_line(text: &mut String, db: &Db, moments: [&Amplification; 3], rate: f64) {
    let [first, before, now] = moments.map(|moment| &moment.write);
    let sums = |moment: &siltstone::WriteAmplification| {
        let compaction: u64 = moment.compaction.iter().map(|w| w.payload_bytes).sum();
        [
            moment.log.payload_bytes,
            moment.flush.payload_bytes,
            compaction,
            moment.total().payload_bytes,
            moment.total().page_bytes,
        ]
    };
    let ratio = |from: &siltstone::WriteAmplification, index: usize| {
        let bytes = sums(now)[index].saturating_sub(sums(from)[index]);
        let user = now.user_bytes.saturating_sub(from.user_bytes);
        as_f64(bytes) / as_f64(user.max(1))
    };
    let stats = db.stats();
    let space = moments[2].space.factor();
    writeln!(
        text,
        "  {:>9.1} {rate:>9.0} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>8.2} {:>8.2} {space:>7.2} {:>6}",
        as_f64(now.user_bytes - first.user_bytes) / 1_048_576.0,
        ratio(before, 0),
        ratio(before, 1),
        ratio(before, 2),
        ratio(before, 3),
        ratio(first, 3),
        ratio(first, 4),
        stats.levels.first().map_or(0, |level| level.table_count),
    )
    .expect("writing to a String cannot fail");
}
