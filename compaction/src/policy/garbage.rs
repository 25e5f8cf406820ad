//! Compactions for what they drop: tombstones, what tombstones hide, and hidden versions.
//!
//! A range that was deleted and is never written again makes no level outgrow its target; still it
//! takes space, and a scan walks its tombstones. So tables that are dense with them are compacted
//! while nothing else is due. Two rules keep that from costing more than it brings, and from going
//! on for ever: at least a tenth of the entries of what is read are garbage, and no pin protects
//! any of it, so that each plan drops what it was made for or brings it a level deeper.

use base::sync::Arc;
use base::{Level, SequenceNumber};

use super::{Picker, Shape, Tuning, plan_move};
use crate::levels::{Table, Version};
use crate::plan::{CompactionPlan, CompactionReason, InProgress};

/// Of so many entries that a plan reads one must be garbage: so many are written, at most, to drop
/// one.
const GARBAGE_SHARE: u64 = 10;

/// The compaction that gains most by what it drops and can start beside those that run, if any is
/// worth it. To be asked when [`super::pick`] has nothing.
///
/// `oldest_pin` is the lowest sequence number at which somebody may read.
///
/// Costs a look at the counts of every table.
pub fn pick_garbage(
    version: &Version,
    busy: &InProgress,
    tuning: &Tuning,
    oldest_pin: SequenceNumber,
) -> Option<CompactionPlan> {
    let picker = Picker {
        version,
        busy,
        tuning,
        shape: &Shape::of(version, tuning),
    };
    let may_go = |table: &Arc<Table>| is_dense(table) && table.meta.seq_largest <= oldest_pin;
    let mut dense: Vec<_> = version
        .tables()
        .filter(|(_, table)| may_go(table) && !busy.has(table))
        .collect();
    // Most garbage for the entries first; then the oldest, so that none is passed over for ever.
    dense.sort_by(|(_, a), (_, b)| {
        let left = u128::from(garbage(a)) * u128::from(b.meta.entry_count);
        let right = u128::from(garbage(b)) * u128::from(a.meta.entry_count);
        right.cmp(&left).then(a.meta.number.cmp(&b.meta.number))
    });
    dense
        .into_iter()
        .find_map(|(level, table)| picker.clean(level, table, &may_go))
}

/// The lowest sequence number that pins must leave behind so that [`pick_garbage`] has more to do
/// than it has at `oldest_pin`.
pub fn garbage_waits_for(version: &Version, oldest_pin: SequenceNumber) -> Option<SequenceNumber> {
    version
        .tables()
        .filter(|(_, table)| is_dense(table) && table.meta.seq_largest > oldest_pin)
        .map(|(_, table)| table.meta.seq_largest)
        .min()
}

/// Entries that hide or are hidden.
fn garbage(table: &Table) -> u64 {
    let meta = &table.meta;
    meta.tombstone_count.saturating_add(meta.hidden_count)
}

fn is_dense(table: &Table) -> bool {
    garbage(table) > 0 && garbage(table).saturating_mul(GARBAGE_SHARE) >= table.meta.entry_count
}

impl Picker<'_> {
    fn clean(
        &self,
        level: Level,
        table: &Arc<Table>,
        may_go: &impl Fn(&Arc<Table>) -> bool,
    ) -> Option<CompactionPlan> {
        let reason = CompactionReason::Garbage;
        if level == Level::ZERO {
            let plan = self.plan_level0(table, reason)?;
            return is_dense_enough(&plan).then_some(plan);
        }
        let (lower, upper) = (table.meta.lower(), table.meta.upper());
        if !self.version.has_deeper(level, lower, upper) {
            return self.rewrite(level, table, may_go);
        }
        let below = self.shape.below(self.version, level)?;
        if self.can_move(table, level, below) {
            return Some(plan_move(level, below, vec![Arc::clone(table)], reason));
        }
        let plan = self.plan(level, below, vec![Arc::clone(table)], reason)?;
        is_dense_enough(&plan).then_some(plan)
    }

    /// Writes `table`, which lies over nothing, anew where it is, with those beside it that gain
    /// too: what is left of them makes fewer tables.
    fn rewrite(
        &self,
        level: Level,
        table: &Arc<Table>,
        may_go: &impl Fn(&Arc<Table>) -> bool,
    ) -> Option<CompactionPlan> {
        let tables = self.version.level(level);
        let at = tables.iter().position(|other| Arc::ptr_eq(other, table))?;
        let mut bytes = table.meta.file_bytes;
        let mut joins = |other: &&Arc<Table>| {
            let meta = &other.meta;
            bytes = bytes.saturating_add(meta.file_bytes);
            may_go(other)
                && !self.busy.has(other)
                && bytes <= self.tuning.compaction_bytes_max
                && !self.version.has_deeper(level, meta.lower(), meta.upper())
        };
        let before = tables[..at].iter().rev().take_while(&mut joins).count();
        let behind = tables[at + 1..].iter().take_while(&mut joins).count();
        let inputs = tables[at - before..=at + behind].to_vec();
        self.plan(level, level, inputs, CompactionReason::Garbage)
    }
}

fn is_dense_enough(plan: &CompactionPlan) -> bool {
    let garbage: u64 = plan.inputs.iter().map(|table| garbage(table)).sum();
    let entries: u64 = plan.tables().map(|table| table.meta.entry_count).sum();
    garbage.saturating_mul(GARBAGE_SHARE) >= entries
}
