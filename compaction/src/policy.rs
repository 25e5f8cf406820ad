//! Which compaction is due. Pure: a tree, what runs already and the tuning go in, a plan comes out.
//!
//! Leveled compaction: each level from 1 on is one sorted run with a target size, a fan-out less
//! than the one below it (`shape`); the level that exceeds its target most gives a table to the
//! next one. Level 0 holds flushed tables as they are and is measured by its depth, because every
//! read looks at all that overlap (`level0`). When no level is due, tables full of tombstones are
//! compacted for what that drops (`garbage`), and when nothing is written either, level 0 is
//! emptied where that is cheap (`idle`).
//!
//! The rule that everything rests on: for a user key, what lies higher is newer. So a table leaves
//! level 0 only together with every older one that shares a key with it, takes with it all that it
//! overlaps in the level it goes to, and passes over no level that holds a key of its range; nobody
//! else may work there until the edit is applied.

use base::Level;
use base::sync::Arc;

use crate::levels::{Table, Version, total_bytes};
use crate::plan::{CompactionPlan, CompactionReason, InProgress};
use crate::range::UserRange;

mod garbage;
mod idle;
mod level0;
mod manual;
mod shape;

pub use garbage::{garbage_waits_for, pick_garbage};
pub use idle::pick_idle;
pub use manual::{ManualCompaction, ManualStep, pick_manual};
pub use shape::Shape;

/// The numbers that steer the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// So many tables of level 0 on top of one another make a compaction due.
    pub level0_table_count_trigger: usize,
    /// The level to which level 0 is compacted is the one whose target is nearest to this. So many
    /// bytes in level 0 make a compaction due too.
    pub level_base_bytes: u64,
    /// Each level's target is the size of the next one divided by this.
    pub fan_out: u64,
    /// Size at which output tables are cut.
    pub table_bytes_target: u64,
    /// A plan grows no further once it reads this much; a single table with all that it overlaps is
    /// always allowed.
    pub compaction_bytes_max: u64,
    /// How tables of the bottommost level are compressed, as the table format numbers it.
    pub bottom_compression: u8,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            level0_table_count_trigger: 4,
            level_base_bytes: 256 << 20,
            fan_out: 10,
            table_bytes_target: 64 << 20,
            compaction_bytes_max: 25 * (64 << 20),
            bottom_compression: 0,
        }
    }
}

impl Tuning {
    /// A table may overlap this many bytes two levels down before it is cut or not moved: the
    /// compaction that takes it further would read them all.
    pub(crate) fn grandparent_bytes_max(&self) -> u64 {
        grandparent_bytes_max(self.table_bytes_target)
    }
}

/// Ten tables, as in LevelDB.
pub(crate) fn grandparent_bytes_max(table_bytes_target: u64) -> u64 {
    table_bytes_target.saturating_mul(10)
}

/// Level 0 becomes due by the number of its tables at so many times the depth: tables side by side
/// cost reads little, but every edit looks at each.
const LEVEL0_COUNT_FACTOR: u64 = 8;
/// The most tables that one plan moves: an edit stays small, and so does what a failure repeats.
const MOVE_TABLES_MAX: usize = 64;

/// How urgent each level is: 1.0 and above is due. The last level never is.
pub fn scores(version: &Version, tuning: &Tuning) -> Vec<(Level, f64)> {
    let shape = Shape::of(version, tuning);
    scores_beside(version, &InProgress::default(), tuning, &shape)
}

/// The same, not counting tables that are about to leave their level.
fn scores_beside(
    version: &Version,
    busy: &InProgress,
    tuning: &Tuning,
    shape: &Shape,
) -> Vec<(Level, f64)> {
    Level::all()
        .filter(|level| *level != Level::LAST)
        .map(|level| {
            let staying = version.level(level).iter().filter(|t| !busy.leaves(t));
            let bytes = total_bytes(staying.clone());
            let score = if level == Level::ZERO {
                let depth = depth_beside(version, busy);
                let trigger = tuning.level0_table_count_trigger.max(1) as u64;
                let count = staying.clone().count() as u64;
                let by_count = ratio(count, trigger.saturating_mul(LEVEL0_COUNT_FACTOR));
                let by_bytes = ratio(bytes, tuning.level_base_bytes.max(1));
                ratio(depth as u64, trigger).max(by_bytes).max(by_count)
            } else if bytes == 0 {
                0.0
            } else if shape.is_drained(level) {
                1.0 + ratio(bytes, tuning.level_base_bytes.max(1))
            } else {
                ratio(bytes, shape.target(level).max(1))
            };
            (level, score)
        })
        .collect()
}

/// How deep level 0 is once what runs has ended: what is merged there becomes one run.
fn depth_beside(version: &Version, busy: &InProgress) -> usize {
    let runs = version.sublevels().iter();
    let staying = runs.filter(|run| run.iter().any(|t| !busy.leaves(t)));
    let (joined, others): (Vec<_>, Vec<_>) =
        staying.partition(|run| run.iter().all(|t| busy.has(t)));
    others.len() + joined.len().min(1)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a score of this size need not be exact"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// The compaction that is most due and can start beside those that run, if any is.
///
/// Costs a look at every table of a level that is due.
pub fn pick(version: &Version, busy: &InProgress, tuning: &Tuning) -> Option<CompactionPlan> {
    let shape = &Shape::of(version, tuning);
    let picker = Picker {
        version,
        busy,
        tuning,
        shape,
    };
    let mut due = scores_beside(version, busy, tuning, shape);
    due.retain(|(_, score)| *score >= 1.0);
    // Stable: of two equal scores the upper level goes first, since reads suffer from it more.
    due.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut level0_waits = false;
    for (level, _) in due {
        let Some(below) = shape.below(version, level) else {
            continue;
        };
        if level == Level::ZERO {
            if let Some(plan) = picker.pick_level0() {
                return Some(plan);
            }
            level0_waits = true;
        } else if level == shape.base() && level0_waits {
            // Level 0 waits for tables of the base level that are being compacted. Taking more of
            // them could go on for ever. (The concept is RocksDB's.)
        } else if let Some(plan) = picker.pick_level(level, below) {
            return Some(plan);
        }
    }
    None
}

/// The same, of level 0 alone.
pub fn pick_level0(
    version: &Version,
    busy: &InProgress,
    tuning: &Tuning,
) -> Option<CompactionPlan> {
    let shape = &Shape::of(version, tuning);
    let scores = scores_beside(version, busy, tuning, shape);
    let is_due = |(level, score): &(Level, f64)| *level == Level::ZERO && *score >= 1.0;
    if !scores.iter().any(is_due) {
        return None;
    }
    let picker = Picker {
        version,
        busy,
        tuning,
        shape,
    };
    picker.pick_level0()
}

/// What all decisions look at.
#[derive(Clone, Copy)]
struct Picker<'a> {
    version: &'a Version,
    busy: &'a InProgress,
    tuning: &'a Tuning,
    shape: &'a Shape,
}

impl<'a> Picker<'a> {
    /// Tables of `level` that can move, until it is back at its target; else the table that drags
    /// the least of the next level with it.
    fn pick_level(&self, level: Level, deeper: Level) -> Option<CompactionPlan> {
        let mut candidates: Vec<_> = self
            .version
            .level(level)
            .iter()
            .filter(|table| !self.busy.has(table))
            .map(|table| (table, self.overlap(deeper, table)))
            .collect();
        // Least overlap for the bytes it brings down; of equals the one that has waited longest,
        // so that no part of the keys is passed over for ever.
        candidates.sort_by(|(a, over_a), (b, over_b)| {
            let (a, b) = (&a.meta, &b.meta);
            let left = u128::from(*over_a) * u128::from(b.file_bytes.max(1));
            let right = u128::from(*over_b) * u128::from(a.file_bytes.max(1));
            left.cmp(&right).then(a.number.cmp(&b.number))
        });
        let mut surplus = self
            .version
            .level_bytes(level)
            .saturating_sub(self.shape.target(level));
        let mut moving: Vec<Arc<Table>> = Vec::new();
        for (table, _) in candidates.iter().take_while(|(_, overlap)| *overlap == 0) {
            // At its target exactly a level is due and has no surplus: one table still goes.
            let wanted = moving.is_empty() || (surplus > 0 && moving.len() < MOVE_TABLES_MAX);
            if wanted && self.can_move(table, level, deeper) {
                surplus = surplus.saturating_sub(table.meta.file_bytes);
                moving.push(Arc::clone(table));
            }
        }
        if !moving.is_empty() {
            moving.sort_by(|a, b| a.meta.smallest.user_key.cmp(&b.meta.smallest.user_key));
            return Some(plan_move(
                level,
                deeper,
                moving,
                CompactionReason::LevelBytes,
            ));
        }
        candidates.into_iter().find_map(|(table, _)| {
            let seed = vec![Arc::clone(table)];
            let plan = self.plan(level, deeper, seed, CompactionReason::LevelBytes)?;
            Some(self.widened(plan))
        })
    }

    /// How many bytes of `level` share a range with `table`.
    fn overlap(&self, level: Level, table: &Table) -> u64 {
        total_bytes(
            self.version
                .overlapping(level, table.meta.lower(), table.meta.upper()),
        )
    }

    /// The plan that merges `inputs` into the next level; `None` if something there is taken.
    ///
    /// A user key lies in one table of a level only, so whole tables are a clean cut.
    fn plan(
        &self,
        input_level: Level,
        output_level: Level,
        inputs: Vec<Arc<Table>>,
        reason: CompactionReason,
    ) -> Option<CompactionPlan> {
        let mut range = hull(&inputs)?;
        // Level 0 in its place, too: what stands beside the inputs there is newer, or older.
        let overlapping = if input_level == output_level {
            Vec::new()
        } else {
            self.version
                .overlapping(output_level, range.lower(), range.upper())
                .to_vec()
        };
        for table in &overlapping {
            range.include(&table.meta.range());
        }
        let taken = self.busy.has_any(&inputs)
            || self.busy.has_any(&overlapping)
            || self.busy.writes_to(output_level, &range);
        if taken || self.passes_over(input_level, output_level, &range) {
            return None;
        }
        let grandparents = self.deeper_tables(output_level, &range).to_vec();
        let is_move = false;
        Some(CompactionPlan {
            input_level,
            output_level,
            inputs,
            overlapping,
            grandparents,
            range,
            reason,
            is_move,
        })
    }

    /// The same plan with more inputs, as far as that brings in no further table of the output
    /// level: what is read there anyway takes more along.
    fn widened(&self, plan: CompactionPlan) -> CompactionPlan {
        let level = self.version.level(plan.input_level);
        let within = |table: &&Arc<Table>| plan.range.covers(&table.meta.range());
        let more: Vec<_> = level.iter().filter(within).cloned().collect();
        if more.len() <= plan.inputs.len() || self.busy.has_any(&more) {
            return plan;
        }
        let wider = self.plan(plan.input_level, plan.output_level, more, plan.reason);
        match wider {
            Some(wider)
                if wider.overlapping.len() == plan.overlapping.len()
                    && wider.bytes() <= self.tuning.compaction_bytes_max =>
            {
                wider
            }
            _ => plan,
        }
    }

    /// Whether something of `range` is, or will be, on a level between the two: it would then lie
    /// above what is newer.
    fn passes_over(&self, from: Level, to: Level, range: &UserRange) -> bool {
        let (lower, upper) = (range.lower(), range.upper());
        Level::all()
            .filter(|level| from < *level && *level < to)
            .any(|level| {
                let here = self.version.overlapping(level, lower, upper);
                !here.is_empty() || self.busy.writes_to(level, range)
            })
    }

    fn deeper_tables(&self, level: Level, range: &UserRange) -> &'a [Arc<Table>] {
        match level.deeper() {
            Some(deeper) => self
                .version
                .overlapping(deeper, range.lower(), range.upper()),
            None => &[],
        }
    }

    /// Whether `table` may change from `level` to `output_level` as it is.
    ///
    /// Not into the bottommost run of its range with tombstones or hidden versions, which would
    /// stay there for ever; not into the bottommost level with another compression than that level
    /// is to have; not over too much of the level below it.
    fn can_move(&self, table: &Table, level: Level, output_level: Level) -> bool {
        let meta = &table.meta;
        let range = meta.range();
        let overlapping = self
            .version
            .overlapping(output_level, meta.lower(), meta.upper());
        if !overlapping.is_empty()
            || self.busy.writes_to(output_level, &range)
            || self.passes_over(level, output_level, &range)
        {
            return false;
        }
        let is_bottom = !self
            .version
            .has_deeper(output_level, meta.lower(), meta.upper());
        if is_bottom && (meta.tombstone_count > 0 || meta.hidden_count > 0) {
            return false;
        }
        let is_last = self
            .version
            .deepest_used()
            .is_none_or(|deepest| deepest <= output_level);
        if is_last && meta.compression != self.tuning.bottom_compression {
            return false;
        }
        let grandparents = self.deeper_tables(output_level, &range);
        total_bytes(grandparents) <= self.tuning.grandparent_bytes_max()
    }
}

fn plan_move(
    input_level: Level,
    output_level: Level,
    inputs: Vec<Arc<Table>>,
    reason: CompactionReason,
) -> CompactionPlan {
    let range = hull(&inputs).expect("a move has an input");
    CompactionPlan {
        input_level,
        output_level,
        inputs,
        overlapping: Vec::new(),
        grandparents: Vec::new(),
        range,
        reason,
        is_move: true,
    }
}

/// The smallest range that holds all of `tables`.
fn hull(tables: &[Arc<Table>]) -> Option<UserRange> {
    let (first, rest) = tables.split_first()?;
    let mut range = first.meta.range();
    for table in rest {
        range.include(&table.meta.range());
    }
    Some(range)
}

#[cfg(test)]
mod tests;
