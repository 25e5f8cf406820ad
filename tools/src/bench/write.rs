//! The workloads that write.

use base::Result;
use base::sync::Arc;
use siltstone::{Durability, WriteBatch, WriteOptions};

use super::args::Args;
use super::data::{Lengths, Shuffle};
use super::lane::Lane;
use super::line::as_f64;
use super::pace::Pace;
use super::workload::Workload;

/// Entries of a commit of `fillbatch`, as in db_bench.
const FILLBATCH_COUNT: u64 = 1000;
/// `fillsync` and `fill100K` make one commit for so many entries of `num`, as in db_bench.
const FEW_DIVISOR: u64 = 1000;
/// Bytes of a value of `fill100K`, as in db_bench.
const LARGE_VALUE_BYTES: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Sequential,
    /// Drawn with repetition, as db_bench does.
    Random,
    /// Each once.
    Shuffled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Put,
    Delete,
}

/// What a lane writes.
#[derive(Clone, Debug)]
pub(crate) struct WritePlan {
    order: Order,
    action: Action,
    entries_per_commit: u64,
    options: WriteOptions,
    shuffle: Shuffle,
    /// Bytes a second of each lane; 0 for no limit.
    bytes_per_second: f64,
    /// Of each value, unless they vary.
    value_bytes: Option<usize>,
    /// Entries of each lane.
    pub(crate) count: u64,
}

/// How `args` want commits to be made.
pub(crate) fn options(args: &Args) -> WriteOptions {
    WriteOptions::new().durability(if args.switches.sync {
        Durability::Disk
    } else {
        Durability::Os
    })
}

impl WritePlan {
    /// The plan of `workload`, which must be one that writes.
    pub(crate) fn new(workload: Workload, args: &Args) -> Self {
        let order = match workload {
            Workload::FillSeq | Workload::FillBatch | Workload::DeleteSeq => Order::Sequential,
            Workload::FillUniqueRandom => Order::Shuffled,
            _ => Order::Random,
        };
        let action = match workload {
            Workload::DeleteSeq | Workload::DeleteRandom => Action::Delete,
            _ => Action::Put,
        };
        let count = args.write_count();
        Self {
            order,
            action,
            entries_per_commit: match workload {
                Workload::FillBatch if args.batch_size == 1 => FILLBATCH_COUNT,
                _ => args.batch_size,
            },
            options: match workload {
                Workload::FillSync => WriteOptions::new().durability(Durability::Disk),
                _ => options(args),
            },
            shuffle: Shuffle::new(args.num, args.seed),
            bytes_per_second: as_f64(args.benchmark_write_rate_limit) / as_f64(args.threads as u64),
            value_bytes: (workload == Workload::Fill100K).then_some(LARGE_VALUE_BYTES),
            count: match workload {
                Workload::FillSync | Workload::Fill100K => (count / FEW_DIVISOR).max(1),
                _ => count,
            },
        }
    }

    /// Each key once, in random order, whatever flags say of rates and counts: what workloads that
    /// need data find.
    pub(crate) fn load(args: &Args) -> Self {
        Self {
            count: args.num,
            bytes_per_second: 0.0,
            options: WriteOptions::new(),
            ..Self::new(Workload::FillUniqueRandom, args)
        }
    }
}

/// Writes what the plan says, until it is done or interrupted.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn write(lane: &mut Lane<'_>, plan: &WritePlan) -> Result<()> {
    if let Some(value_bytes) = plan.value_bytes {
        lane.set_lengths(Lengths::Fixed(value_bytes));
    }
    if plan.entries_per_commit == 1 {
        write_singles(lane, plan)
    } else {
        write_batches(lane, plan)
    }
}

fn write_singles(lane: &mut Lane<'_>, plan: &WritePlan) -> Result<()> {
    let mut pace = Pace::new(lane.clock, plan.bytes_per_second);
    let mut index = 0;
    while lane.goes_on(index, plan.count) {
        let bytes = write_one(lane, plan, index)?;
        lane.finish(1, bytes);
        keep_pace(lane, &mut pace, bytes);
        index += 1;
    }
    Ok(())
}

/// Waits until what was written is no more than the rate allows.
#[inline]
fn keep_pace(lane: &mut Lane<'_>, pace: &mut Option<Pace>, bytes: u64) {
    if let Some(pace) = pace {
        pace.wait(bytes, lane.stop());
        lane.meter.skip();
    }
}

#[inline]
fn write_one(lane: &mut Lane<'_>, plan: &WritePlan, index: u64) -> Result<u64> {
    let number = number(lane, plan, index);
    let key = lane.keys.key(number);
    let mut bytes = key.len();
    match plan.action {
        Action::Put => {
            let value = lane.values.next_value();
            bytes += value.len();
            lane.db.put_with(key, value, &plan.options)?;
        }
        Action::Delete => {
            lane.db.delete_with(key, &plan.options)?;
        }
    }
    Ok(bytes as u64)
}

fn write_batches(lane: &mut Lane<'_>, plan: &WritePlan) -> Result<()> {
    let mut pace = Pace::new(lane.clock, plan.bytes_per_second);
    let mut batch = WriteBatch::new();
    let mut index = 0;
    while lane.goes_on(index, plan.count) {
        batch.clear();
        // With --duration there may be more than the plan has.
        let count = match plan.count.saturating_sub(index) {
            0 => plan.entries_per_commit,
            left => plan.entries_per_commit.min(left),
        };
        let mut bytes = 0;
        for index in index..index + count {
            let number = number(lane, plan, index);
            let key = lane.keys.key(number);
            bytes += key.len();
            match plan.action {
                Action::Put => {
                    let value = lane.values.next_value();
                    bytes += value.len();
                    batch.put(key, value);
                }
                Action::Delete => {
                    batch.delete(key);
                }
            }
        }
        lane.db.write_with(&batch, &plan.options)?;
        lane.finish(count, bytes as u64);
        keep_pace(lane, &mut pace, bytes as u64);
        index += count;
    }
    Ok(())
}

#[inline]
fn number(lane: &mut Lane<'_>, plan: &WritePlan, index: u64) -> u64 {
    match plan.order {
        Order::Sequential => index,
        Order::Random => lane.random.below(lane.args.num),
        // With --duration there may be more than num.
        Order::Shuffled => plan.shuffle.place(index % lane.args.num),
    }
}

/// Overwrites random keys until `is_done`; returns how many were written.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn write_until(
    lane: &mut Lane<'_>,
    plan: &WritePlan,
    is_done: &dyn Fn() -> bool,
) -> Result<u64> {
    let clock = Arc::clone(lane.clock);
    // The only writer: the whole rate is its own.
    let rate = as_f64(lane.args.benchmark_write_rate_limit);
    let mut pace = Pace::new(&clock, rate);
    let mut count = 0;
    while !is_done() && !lane.should_stop() {
        let bytes = write_one(lane, plan, count)?;
        lane.finish(1, bytes);
        keep_pace(lane, &mut pace, bytes);
        count += 1;
    }
    Ok(count)
}
