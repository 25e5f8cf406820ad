//! Which compaction is due. Pure: a tree, what runs already and the tuning go in, a plan comes out.
//!
//! Leveled compaction, as in LevelDB: each level from 1 on is one sorted run with a target size
//! that grows by a factor; the level that exceeds its target most gives a table to the next one.
//! Level 0 holds flushed tables as they are and is measured by their count, because every read
//! looks at all of them.
//!
//! The rule that everything rests on: for a user key, what lies higher is newer. So a table leaves
//! level 0 only together with every older one that shares a key with it, and takes with it all that
//! it overlaps in the level below; nobody else may work there until the edit is applied.

use base::Level;
use base::sync::Arc;

use crate::levels::{Table, Version, total_bytes};
use crate::plan::{CompactionPlan, CompactionReason, InProgress};
use crate::range::UserRange;

mod manual;

pub use manual::{ManualCompaction, ManualStep, pick_manual};

/// The numbers that steer the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// So many tables at level 0 make a compaction due.
    pub level0_table_count_trigger: usize,
    /// Target size of level 1.
    pub level_base_bytes: u64,
    /// Each level's target is this many times the one above.
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
    /// The size from which `level`, from 1 on, gives tables away.
    pub fn level_bytes_target(&self, level: Level) -> u64 {
        let factor = u32::from(level.as_u8().saturating_sub(1));
        self.level_base_bytes
            .saturating_mul(self.fan_out.saturating_pow(factor))
            .max(1)
    }

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

/// The most tables that one plan moves: an edit stays small, and so does what a failure repeats.
const MOVE_TABLES_MAX: usize = 64;

/// How urgent each level is: 1.0 and above is due. The deepest level never is.
pub fn scores(version: &Version, tuning: &Tuning) -> Vec<(Level, f64)> {
    scores_beside(version, &InProgress::default(), tuning)
}

/// The same, not counting tables that are about to leave their level.
fn scores_beside(version: &Version, busy: &InProgress, tuning: &Tuning) -> Vec<(Level, f64)> {
    Level::all()
        .filter(|level| *level != Level::LAST)
        .map(|level| {
            let staying = version
                .level(level)
                .iter()
                .filter(|table| !busy.leaves(table));
            if level == Level::ZERO {
                let count = staying.clone().count() as u64;
                let trigger = tuning.level0_table_count_trigger.max(1) as u64;
                let by_bytes = ratio(total_bytes(staying), tuning.level_base_bytes.max(1));
                (level, ratio(count, trigger).max(by_bytes))
            } else {
                (
                    level,
                    ratio(total_bytes(staying), tuning.level_bytes_target(level)),
                )
            }
        })
        .collect()
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
    let picker = Picker {
        version,
        busy,
        tuning,
    };
    let mut due = scores_beside(version, busy, tuning);
    due.retain(|(_, score)| *score >= 1.0);
    // Stable: of two equal scores the upper level goes first, since reads suffer from it more.
    due.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut level0_waits = false;
    for (level, _) in due {
        let Some(deeper) = level.deeper() else {
            continue;
        };
        if level == Level::ZERO {
            if let Some(plan) = picker.pick_level0() {
                return Some(plan);
            }
            level0_waits = true;
        } else if deeper.index() == 2 && level0_waits {
            // Level 0 waits for tables of level 1 that are being compacted. Taking more of them
            // could go on for ever. (The concept is RocksDB's.)
        } else if let Some(plan) = picker.pick_level(level, deeper) {
            return Some(plan);
        }
    }
    None
}

/// What all decisions look at.
#[derive(Clone, Copy)]
struct Picker<'a> {
    version: &'a Version,
    busy: &'a InProgress,
    tuning: &'a Tuning,
}

impl<'a> Picker<'a> {
    /// Tables of level 0 that can move, else the oldest one that can be compacted.
    fn pick_level0(&self) -> Option<CompactionPlan> {
        let level1 = Level::ZERO.deeper().expect("there is a level 1");
        let tables = self.version.level(Level::ZERO);
        let oldest_first = || tables.iter().rev().filter(|table| !self.busy.has(table));
        let alone = |table: &&Arc<Table>| {
            let sharing = tables
                .iter()
                .filter(|other| other.meta.overlaps(&table.meta))
                .count();
            sharing == 1 && self.can_move(table, level1)
        };
        let mut moving: Vec<_> = oldest_first()
            .filter(alone)
            .take(MOVE_TABLES_MAX)
            .cloned()
            .collect();
        if !moving.is_empty() {
            moving.reverse();
            return Some(plan_move(
                Level::ZERO,
                level1,
                moving,
                CompactionReason::Level0,
            ));
        }
        oldest_first().find_map(|seed| self.plan_level0(seed, CompactionReason::Level0))
    }

    /// A compaction of `seed` with every table of level 0 that must go along; `None` if one of
    /// them, or the place they would go to, is taken.
    fn plan_level0(&self, seed: &Arc<Table>, reason: CompactionReason) -> Option<CompactionPlan> {
        let level1 = Level::ZERO.deeper()?;
        let cluster = self.cluster(seed);
        if self.busy.has_any(&cluster) {
            return None;
        }
        // Oldest first, so that stopping anywhere leaves only newer tables above.
        let mut inputs: Vec<Arc<Table>> = Vec::new();
        let mut bytes = 0u64;
        for table in cluster.into_iter().rev() {
            bytes = bytes.saturating_add(table.meta.file_bytes);
            if !inputs.is_empty() && bytes > self.tuning.compaction_bytes_max {
                break;
            }
            inputs.push(table);
        }
        inputs.reverse();
        self.plan(Level::ZERO, level1, inputs, reason)
    }

    /// `seed` and every table of level 0 that overlaps it, directly or through others; newest
    /// first.
    fn cluster(&self, seed: &Table) -> Vec<Arc<Table>> {
        let tables = self.version.level(Level::ZERO);
        let mut range = seed.meta.range();
        let mut count = 0;
        loop {
            let inside: Vec<_> = tables
                .iter()
                .filter(|table| table.meta.meets(range.lower(), range.upper()))
                .cloned()
                .collect();
            if inside.len() == count {
                return inside;
            }
            count = inside.len();
            for table in &inside {
                range.include(&table.meta.range());
            }
        }
    }

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
            .saturating_sub(self.tuning.level_bytes_target(level));
        let mut moving: Vec<Arc<Table>> = Vec::new();
        for (table, _) in candidates.iter().take_while(|(_, overlap)| *overlap == 0) {
            // At its target exactly a level is due and has no surplus: one table still goes.
            let wanted = moving.is_empty() || (surplus > 0 && moving.len() < MOVE_TABLES_MAX);
            if wanted && self.can_move(table, deeper) {
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
        if taken {
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

    fn deeper_tables(&self, level: Level, range: &UserRange) -> &'a [Arc<Table>] {
        match level.deeper() {
            Some(deeper) => self
                .version
                .overlapping(deeper, range.lower(), range.upper()),
            None => &[],
        }
    }

    /// Whether `table` may change to `output_level` as it is.
    ///
    /// Not into the bottommost run of its range with tombstones or hidden versions, which would
    /// stay there for ever; not into the bottommost level with another compression than that level
    /// is to have; not over too much of the level below it.
    fn can_move(&self, table: &Table, output_level: Level) -> bool {
        let meta = &table.meta;
        let range = meta.range();
        let overlapping = self
            .version
            .overlapping(output_level, meta.lower(), meta.upper());
        if !overlapping.is_empty() || self.busy.writes_to(output_level, &range) {
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
