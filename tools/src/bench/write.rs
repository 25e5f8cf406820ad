//! The workloads that write.

use base::Result;
use siltstone::{Durability, WriteBatch, WriteOptions};

use super::data::Shuffle;
use super::lane::Lane;
use super::workload::Workload;

/// Entries of a commit of `fillbatch`, as in db_bench.
const FILLBATCH_COUNT: u64 = 1000;
/// `fillsync` makes one commit for so many entries of `num`, as in db_bench.
const FILLSYNC_DIVISOR: u64 = 1000;

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
    /// Entries of each lane.
    pub(crate) count: u64,
}

impl WritePlan {
    /// The plan of `workload`, which must be one that writes.
    pub(crate) fn new(workload: Workload, args: &super::args::Args) -> Self {
        let order = match workload {
            Workload::FillSeq | Workload::FillBatch | Workload::DeleteSeq => Order::Sequential,
            Workload::FillUniqueRandom => Order::Shuffled,
            _ => Order::Random,
        };
        let action = match workload {
            Workload::DeleteSeq | Workload::DeleteRandom => Action::Delete,
            _ => Action::Put,
        };
        let is_synced = args.sync || workload == Workload::FillSync;
        Self {
            order,
            action,
            entries_per_commit: match workload {
                Workload::FillBatch if args.batch_size == 1 => FILLBATCH_COUNT,
                _ => args.batch_size,
            },
            options: WriteOptions::new().durability(if is_synced {
                Durability::Disk
            } else {
                Durability::Os
            }),
            shuffle: Shuffle::new(args.num, args.seed),
            count: match workload {
                Workload::FillSync => (args.num / FILLSYNC_DIVISOR).max(1),
                _ => args.num,
            },
        }
    }
}

/// Writes what the plan says, until it is done or interrupted.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn write(lane: &mut Lane<'_>, plan: &WritePlan) -> Result<()> {
    if plan.entries_per_commit == 1 {
        write_singles(lane, plan)
    } else {
        write_batches(lane, plan)
    }
}

fn write_singles(lane: &mut Lane<'_>, plan: &WritePlan) -> Result<()> {
    for index in 0..plan.count {
        if lane.should_stop() {
            break;
        }
        let bytes = write_one(lane, plan, index)?;
        lane.finish(1, bytes);
    }
    Ok(())
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
    let mut batch = WriteBatch::new();
    let mut index = 0;
    while index < plan.count && !lane.should_stop() {
        batch.clear();
        let count = plan.entries_per_commit.min(plan.count - index);
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
        index += count;
    }
    Ok(())
}

#[inline]
fn number(lane: &mut Lane<'_>, plan: &WritePlan, index: u64) -> u64 {
    match plan.order {
        Order::Sequential => index,
        Order::Random => lane.random.below(lane.args.num),
        Order::Shuffled => plan.shuffle.place(index),
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
    let mut count = 0;
    while !is_done() && !lane.should_stop() {
        write_one(lane, plan, count)?;
        count += 1;
    }
    Ok(count)
}
