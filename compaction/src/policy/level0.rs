//! What is due at level 0: moves, compactions to the base level, and merges within level 0.
//!
//! Level 0 is measured by its depth, which is what a read pays. A compaction begins where it is
//! deepest and takes along, of each table, the older ones that share a key with it, and no others:
//! so it need not be all of level 0, and what is newer stays above.
//!
//! What one compaction may cost. It takes at most `compaction_bytes_max` out of level 0 (or one
//! table with those that must go along), and along with it what lies below in the base level: that
//! is `fan_out / 2` times `level_base_bytes` at most before a level above it is used (`shape`), and
//! more only while compactions are behind, which slows writers. Until its edit it needs as much
//! space again as it reads; memory does not depend on how much that is (`job`). Only a close ends
//! it early: so with the defaults the largest reads 1.6 + 1.3 GB, some 6 seconds of one processor.
//! Flushes, and level 0 elsewhere, go on beside it.

use std::cmp::Reverse;

use base::Level;
use base::sync::Arc;

use super::{MOVE_TABLES_MAX, Picker, plan_move};
use crate::levels::{Run, Table, total_bytes};
use crate::plan::{CompactionPlan, CompactionReason};

/// Level 0 is merged within itself only once it is so many times as deep as makes it due: that
/// writes its entries once more.
const MERGE_DEPTH_FACTOR: usize = 2;
/// So many places are tried, deepest first, before level 0 counts as blocked.
pub(super) const SEEDS_MAX: usize = 64;

impl Picker<'_> {
    /// Tables of level 0 that can move, else the deepest place that can be compacted, unless it
    /// holds too little for that and can be made shallower in itself; else tables that can be
    /// merged while the base level is busy.
    pub(super) fn pick_level0(&self) -> Option<CompactionPlan> {
        if let Some(plan) = self.move_level0() {
            return Some(plan);
        }
        let Some(down) = self.compact_level0() else {
            return self.merge_level0();
        };
        if self.is_worth_it(&down) {
            return Some(down);
        }
        self.join_cheapest(down.bytes() / 2).or(Some(down))
    }

    /// Whether what `plan` takes out of level 0 is a fan-out part, or more, of what it takes along
    /// there: so each byte costs what leveling costs a level anyway, at most.
    pub(super) fn is_worth_it(&self, plan: &CompactionPlan) -> bool {
        let (above, below) = (total_bytes(&plan.inputs), total_bytes(&plan.overlapping));
        below <= above.saturating_mul(self.tuning.fan_out.max(2))
    }

    /// As many runs side by side in age as must become one so that level 0 is not due by its depth,
    /// those that are the least together and at most `bytes_max`.
    ///
    /// Level 0 can be deep and hold next to nothing, when memtables are flushed before they are
    /// full: then everything in the base level would be written again and again for a few entries.
    fn join_cheapest(&self, bytes_max: u64) -> Option<CompactionPlan> {
        let runs = self.version.sublevels();
        let trigger = self.tuning.level0_table_count_trigger.max(2);
        let count = (runs.len() + 2).checked_sub(trigger)?;
        if count < 2 || self.version.level_bytes(Level::ZERO) >= self.tuning.level_base_bytes {
            return None;
        }
        let bytes_max = bytes_max.min(self.tuning.compaction_bytes_max);
        let bytes_of = |runs: &[Run]| runs.iter().map(|run| run.bytes()).sum::<u64>();
        let mut windows: Vec<_> = runs.windows(count).collect();
        windows.retain(|runs| bytes_of(runs) <= bytes_max);
        windows.sort_by_key(|runs| bytes_of(runs));
        windows
            .into_iter()
            .find_map(|runs| self.join(runs, CompactionReason::Level0))
    }

    /// Merges `runs`, which are side by side in age, where they are.
    pub(super) fn join(&self, runs: &[Run], reason: CompactionReason) -> Option<CompactionPlan> {
        let is_in = |table: &&Arc<Table>| {
            let mut joined = runs.iter().flat_map(|run| run.iter());
            joined.any(|other| Arc::ptr_eq(other, table))
        };
        let tables = self.version.level(Level::ZERO).iter();
        let inputs = tables.filter(is_in).cloned().collect();
        let plan = self.plan(Level::ZERO, Level::ZERO, inputs, reason)?;
        self.stands_apart(&plan).then_some(plan)
    }

    /// Those over nothing older, in level 0 or below.
    fn move_level0(&self) -> Option<CompactionPlan> {
        let base = self.shape.base();
        let lowest = self.version.sublevels().last()?;
        let moving = lowest
            .iter()
            .filter(|table| !self.busy.has(table) && self.can_move(table, Level::ZERO, base));
        let moving: Vec<_> = moving.take(MOVE_TABLES_MAX).cloned().collect();
        if moving.is_empty() {
            return None;
        }
        let reason = CompactionReason::Level0;
        Some(plan_move(Level::ZERO, base, moving, reason))
    }

    fn compact_level0(&self) -> Option<CompactionPlan> {
        // Nowhere is level 0 deeper than where one of its tables begins.
        let mut places: Vec<_> = self
            .version
            .level(Level::ZERO)
            .iter()
            .map(|table| {
                let stack = self.stack(&table.meta.smallest.user_key);
                let free = stack.iter().filter(|table| !self.busy.has(table)).count();
                (Reverse(free), table.meta.number, stack)
            })
            .collect();
        places.sort_unstable_by_key(|(free, number, _)| (*free, *number));
        places.iter().take(SEEDS_MAX).find_map(|(_, _, stack)| {
            // What is newer than a table on its way stays until that has arrived.
            stack
                .iter()
                .find_map(|seed| self.plan_level0(seed, CompactionReason::Level0))
        })
    }

    /// The tables of level 0 that can hold `user_key`, newest first.
    fn stack(&self, user_key: &[u8]) -> Vec<&Arc<Table>> {
        let runs = self.version.sublevels().iter();
        runs.filter_map(|run| run.find(user_key)).collect()
    }

    /// A compaction of `seed` with every table of level 0 that must go along; `None` if one of
    /// them, or the place they would go to, is taken.
    pub(super) fn plan_level0(
        &self,
        seed: &Table,
        reason: CompactionReason,
    ) -> Option<CompactionPlan> {
        let with_older = self.with_older(seed);
        if self.busy.has_any(&with_older) {
            return None;
        }
        // Oldest first, so that stopping anywhere leaves only newer tables above.
        let mut inputs: Vec<Arc<Table>> = Vec::new();
        let mut bytes = 0u64;
        for table in with_older.into_iter().rev() {
            bytes = bytes.saturating_add(table.meta.file_bytes);
            if !inputs.is_empty() && bytes > self.tuning.compaction_bytes_max {
                break;
            }
            inputs.push(table);
        }
        inputs.reverse();
        let plan = self.plan(Level::ZERO, self.shape.base(), inputs, reason)?;
        Some(self.widened_level0(plan))
    }

    /// `seed` and every older table of level 0 that shares a key with it, directly or through
    /// others; newest first.
    fn with_older(&self, seed: &Table) -> Vec<Arc<Table>> {
        let mut chosen: Vec<Arc<Table>> = Vec::new();
        for table in self.version.level(Level::ZERO) {
            let below = |newer: &Arc<Table>| newer.meta.overlaps(&table.meta);
            if table.meta.number == seed.meta.number || chosen.iter().any(below) {
                chosen.push(Arc::clone(table));
            }
        }
        chosen
    }

    /// The same plan with further tables of level 0 that lie within its range and over nothing that
    /// stays: what is read below anyway takes them along.
    fn widened_level0(&self, plan: CompactionPlan) -> CompactionPlan {
        let mut bytes = total_bytes(&plan.inputs);
        let mut inputs: Vec<Arc<Table>> = Vec::new();
        let mut staying: Vec<&Arc<Table>> = Vec::new();
        for table in self.version.level(Level::ZERO).iter().rev() {
            let same = |input: &Arc<Table>| input.meta.number == table.meta.number;
            let is_input = plan.inputs.iter().any(same);
            let over_staying = || staying.iter().any(|older| older.meta.overlaps(&table.meta));
            let more = bytes.saturating_add(table.meta.file_bytes);
            let may_join = || {
                plan.range.covers(&table.meta.range())
                    && !self.busy.has(table)
                    && more <= self.tuning.compaction_bytes_max
                    && !over_staying()
            };
            if is_input {
                inputs.push(Arc::clone(table));
            } else if may_join() {
                bytes = more;
                inputs.push(Arc::clone(table));
            } else {
                staying.push(table);
            }
        }
        inputs.reverse();
        let wider = self.plan(Level::ZERO, plan.output_level, inputs, plan.reason);
        wider.unwrap_or(plan)
    }

    /// The newest tables of a level 0 that is far too deep while its way down is blocked.
    ///
    /// They lie side by side in age, so that the outputs are newer than what stays below them and
    /// older than what comes. None is larger than the newer ones together, or a large one would be
    /// written again for every few small ones. (The rules are RocksDB's.)
    fn merge_level0(&self) -> Option<CompactionPlan> {
        let trigger = self.tuning.level0_table_count_trigger.max(2);
        if self.version.level0_depth() < trigger.saturating_mul(MERGE_DEPTH_FACTOR) {
            return None;
        }
        let tables = self.version.level(Level::ZERO);
        let free = tables.iter().skip_while(|table| self.busy.has(table));
        let mut inputs: Vec<Arc<Table>> = Vec::new();
        let mut bytes = 0u64;
        for table in free.take_while(|table| !self.busy.has(table)) {
            let more = bytes.saturating_add(table.meta.file_bytes);
            let is_large = inputs.len() > 1 && table.meta.file_bytes > bytes;
            if is_large || more > self.tuning.compaction_bytes_max {
                break;
            }
            bytes = more;
            inputs.push(Arc::clone(table));
        }
        let joined = |table: &Arc<Table>| inputs.iter().any(|input| Arc::ptr_eq(input, table));
        let runs = self.version.sublevels().iter();
        let depth = runs.filter(|run| run.iter().any(joined)).count();
        if depth < trigger {
            return None;
        }
        let plan = self.plan(Level::ZERO, Level::ZERO, inputs, CompactionReason::Level0)?;
        self.stands_apart(&plan).then_some(plan)
    }

    /// Whether every other table of level 0 within the plan's range is newer, or older, than all
    /// that the plan reads. Tables of one flush are of the same time.
    fn stands_apart(&self, plan: &CompactionPlan) -> bool {
        let inputs = &plan.inputs;
        let low = inputs.iter().map(|table| table.meta.seq_smallest).min();
        let high = inputs.iter().map(|table| table.meta.seq_largest).max();
        let others = self.version.level(Level::ZERO).iter().filter(|table| {
            let is_input = inputs.iter().any(|input| Arc::ptr_eq(input, table));
            !is_input && plan.range.overlaps(&table.meta.range())
        });
        let mut others = others.map(|table| &table.meta);
        others.all(|meta| Some(meta.seq_largest) < low || Some(meta.seq_smallest) > high)
    }
}
