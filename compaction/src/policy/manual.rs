//! Compactions that somebody asked for: a range of keys, pushed level by level to the bottom.

use std::ops::Bound;

use base::sync::Arc;
use base::{FileNumber, Level, SequenceNumber};

use super::{MOVE_TABLES_MAX, Picker, Shape, Tuning, plan_move};
use crate::levels::{Table, Version, total_bytes};
use crate::plan::{CompactionPlan, CompactionReason, InProgress};
use crate::range::{borrowed, ends_before};

/// What a manual compaction wants next.
#[derive(Debug)]
pub enum ManualStep {
    /// Carry out this plan, then ask again; asking again at once may give another to run beside it.
    Run(CompactionPlan),
    /// A running compaction is in the way: ask again when one has ended.
    Wait,
    /// The range is compacted.
    Done,
}

/// One request to compact a range to the bottom, from level 0 down.
///
/// Also rewrites tables of the bottommost level in their place if they hold tombstones or hidden
/// versions, or have another compression than they should. Comes to an end however much is written
/// meanwhile: within a level it goes through the keys once, and what is newer than the request it
/// leaves alone.
#[derive(Clone, Debug)]
pub struct ManualCompaction {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    level: Level,
    /// Where to go on within `level`.
    at: Bound<Vec<u8>>,
    /// Tables from here on were made after the request, or by it.
    first_new: FileNumber,
    /// Entries up to here were written before the request. Level 0 is joined in itself now and
    /// then: what is old may come to lie in a new table.
    old_upto: SequenceNumber,
}

impl ManualCompaction {
    /// A request for the keys from `from` to `to`. `first_new` is the next file number to be handed
    /// out: what must be compacted has been flushed before.
    pub fn new(from: Bound<Vec<u8>>, to: Bound<Vec<u8>>, first_new: FileNumber) -> Self {
        Self {
            at: from.clone(),
            from,
            to,
            level: Level::ZERO,
            first_new,
            old_upto: SequenceNumber::ZERO,
        }
    }

    /// The same for whatever was written up to `seq`, also where another compaction takes it to a
    /// new table of level 0 meanwhile.
    #[must_use]
    pub fn written_upto(mut self, seq: SequenceNumber) -> Self {
        self.old_upto = seq;
        self
    }

    /// The next plan. The range it covers counts as done: if the plan fails, so has the request.
    pub fn step(&mut self, version: &Version, busy: &InProgress, tuning: &Tuning) -> ManualStep {
        let picker = Picker {
            version,
            busy,
            tuning,
            shape: &Shape::of(version, tuning),
        };
        loop {
            let bounds = (borrowed(&self.at), borrowed(&self.to));
            match picker.manual(bounds, self.level, (self.first_new, self.old_upto)) {
                Found::Plan(plan) => {
                    if self.level != Level::ZERO {
                        let last = plan.inputs.last().expect("a plan has an input");
                        self.at = match last.meta.upper() {
                            Bound::Excluded(key) => Bound::Included(key.to_vec()),
                            Bound::Included(key) => Bound::Excluded(key.to_vec()),
                            Bound::Unbounded => Bound::Unbounded,
                        };
                    }
                    return ManualStep::Run(plan);
                }
                Found::Taken => return ManualStep::Wait,
                Found::Nothing => {}
            }
            self.at = self.from.clone();
            match self.level.deeper() {
                Some(deeper) if version.deepest_used() >= Some(deeper) => self.level = deeper,
                _ => return ManualStep::Done,
            }
        }
    }
}

/// One step of compacting the keys from `from` to `to`, at `level` only: a plan that takes tables
/// of the range to the next level. `None` at the deepest level, if there is nothing to do, or if a
/// running compaction is in the way.
///
/// Knows nothing of the steps before, and so cannot tell garbage at the bottom from what a snapshot
/// still needs, nor new tables of level 0 from old ones: [`ManualCompaction`] can.
pub fn pick_manual(
    version: &Version,
    busy: &InProgress,
    tuning: &Tuning,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    level: Level,
) -> Option<CompactionPlan> {
    let picker = Picker {
        version,
        busy,
        tuning,
        shape: &Shape::of(version, tuning),
    };
    match picker.manual(
        (from, to),
        level,
        (FileNumber(u64::MAX), SequenceNumber::ZERO),
    ) {
        Found::Plan(plan) if !plan.is_in_place() => Some(plan),
        Found::Plan(_) | Found::Taken | Found::Nothing => None,
    }
}

enum Found {
    Plan(CompactionPlan),
    Taken,
    Nothing,
}

impl From<Option<CompactionPlan>> for Found {
    fn from(plan: Option<CompactionPlan>) -> Self {
        plan.map_or(Self::Taken, Self::Plan)
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);
/// What counts as older than a request: lower file numbers, and at level 0 entries up to a number.
type Age = (FileNumber, SequenceNumber);

impl Picker<'_> {
    fn manual(&self, bounds: Bounds<'_>, level: Level, age: Age) -> Found {
        if ends_before(bounds.1, bounds.0) {
            return Found::Nothing;
        }
        if level == Level::ZERO {
            return self.manual_level0(bounds, age);
        }
        let tables = self.version.overlapping(level, bounds.0, bounds.1);
        match self.shape.below(self.version, level) {
            Some(below) if Some(level) < self.version.deepest_used() => {
                self.manual_down(tables, level, below)
            }
            _ => self.manual_in_place(tables, level, age.0),
        }
    }

    fn manual_level0(&self, (from, to): Bounds<'_>, (first_new, old_upto): Age) -> Found {
        let wanted = |table: &&Arc<Table>| {
            let meta = &table.meta;
            let is_old = meta.number < first_new || meta.seq_smallest <= old_upto;
            is_old && meta.meets(from, to)
        };
        // Newest first: a plan takes along what is older and in its way.
        let tables = self.version.level(Level::ZERO).iter().filter(wanted);
        let mut found = Found::Nothing;
        for seed in tables {
            match self.plan_level0(seed, CompactionReason::Manual) {
                Some(plan) => return Found::Plan(plan),
                None => found = Found::Taken,
            }
        }
        found
    }

    /// The first tables, as many as one plan may read. They move if they can, though not small ones
    /// to the bottom, where they would stay small.
    fn manual_down(&self, tables: &[Arc<Table>], level: Level, deeper: Level) -> Found {
        let may_move = |table: &&Arc<Table>| {
            let (from, to) = (table.meta.lower(), table.meta.upper());
            let is_large = table.meta.file_bytes >= self.tuning.table_bytes_target / 2;
            !self.busy.has(table)
                && (is_large || self.version.has_deeper(deeper, from, to))
                && self.can_move(table, level, deeper)
        };
        let moving: Vec<_> = tables
            .iter()
            .take_while(may_move)
            .take(MOVE_TABLES_MAX)
            .cloned()
            .collect();
        if !moving.is_empty() {
            return Found::Plan(plan_move(level, deeper, moving, CompactionReason::Manual));
        }
        let Some((first, rest)) = tables.split_first() else {
            return Found::Nothing;
        };
        let Some(mut plan) = self.plan(
            level,
            deeper,
            vec![Arc::clone(first)],
            CompactionReason::Manual,
        ) else {
            return Found::Taken;
        };
        for table in rest {
            let mut inputs = plan.inputs.clone();
            inputs.push(Arc::clone(table));
            match self.plan(level, deeper, inputs, CompactionReason::Manual) {
                Some(wider) if wider.bytes() <= self.tuning.compaction_bytes_max => plan = wider,
                _ => break,
            }
        }
        Found::Plan(plan)
    }

    /// The first tables side by side that gain from being written anew. Side by side, because an
    /// output may hold keys of all of them and must not reach across a table that stays.
    fn manual_in_place(&self, tables: &[Arc<Table>], level: Level, first_new: FileNumber) -> Found {
        let gains = |table: &&Arc<Table>| {
            let meta = &table.meta;
            let wrong = meta.compression != self.tuning.bottom_compression;
            let garbage = meta.tombstone_count > 0 || meta.hidden_count > 0;
            meta.number < first_new && (garbage || wrong)
        };
        let Some(start) = tables.iter().position(|table| gains(&table)) else {
            return Found::Nothing;
        };
        let mut inputs: Vec<Arc<Table>> = Vec::new();
        for table in tables[start..].iter().take_while(gains) {
            let bytes = total_bytes(&inputs).saturating_add(table.meta.file_bytes);
            if !inputs.is_empty() && bytes > self.tuning.compaction_bytes_max {
                break;
            }
            inputs.push(Arc::clone(table));
        }
        self.plan(level, level, inputs, CompactionReason::Manual)
            .into()
    }
}
