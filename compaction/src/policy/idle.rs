//! What to compact while nothing is written: level 0, where that is worth it.
//!
//! When writes end, level 0 stays as deep as it may be without being due: every read looks at each
//! of its runs, and what they hide takes space. So it is taken down, or at least made one run.
//! Nobody waits for that, and it may happen after every burst of writes. Therefore what it writes
//! is bounded by what was flushed, not by what the tree holds:
//!
//! - Tables go down only if they take along at most a fan-out of what lies below them: each byte
//!   of them costs `fan_out + 1` bytes, which is what leveling costs a level anyway. What stays is
//!   less than a fan-out part of what it lies over, as it is of each other level.
//! - Within level 0 a run is merged only with newer ones that are as large together: it is written
//!   again when about as much was flushed as it holds.
//!
//! So a few small writes now and then rewrite no large table, and the last level never by itself.

use base::Level;

use super::level0::SEEDS_MAX;
use super::{MOVE_TABLES_MAX, Picker, Shape, Tuning, plan_move};
use crate::levels::{Run, Version};
use crate::plan::{CompactionPlan, CompactionReason, InProgress};

const REASON: CompactionReason = CompactionReason::Idle;

/// The next compaction of a tree that nobody writes to, if one is worth it. To be asked when
/// nothing is due; one plan at a time.
///
/// However often it is asked, it comes to an end: each plan makes level 0 smaller or shallower.
pub fn pick_idle(version: &Version, busy: &InProgress, tuning: &Tuning) -> Option<CompactionPlan> {
    if !busy.is_empty() || version.level(Level::ZERO).is_empty() {
        return None;
    }
    let picker = Picker {
        version,
        busy,
        tuning,
        shape: &Shape::of(version, tuning),
    };
    picker
        .move_idle()
        .or_else(|| picker.take_down_idle())
        .or_else(|| picker.join_runs())
}

impl Picker<'_> {
    /// Tables over nothing older, unless they are small: those would stay small for ever.
    fn move_idle(&self) -> Option<CompactionPlan> {
        let base = self.shape.base();
        let lowest = self.version.sublevels().last()?;
        let moving = lowest.iter().filter(|table| {
            self.is_large(table.meta.file_bytes) && self.can_move(table, Level::ZERO, base)
        });
        let moving: Vec<_> = moving.take(MOVE_TABLES_MAX).cloned().collect();
        (!moving.is_empty()).then(|| plan_move(Level::ZERO, base, moving, REASON))
    }

    /// The newest table that, with the older ones below it, is worth what it takes along.
    fn take_down_idle(&self) -> Option<CompactionPlan> {
        let seeds = self.version.level(Level::ZERO).iter().take(SEEDS_MAX);
        seeds
            .filter_map(|seed| self.plan_level0(seed, REASON))
            .find(|plan| {
                let is_alone = plan.overlapping.is_empty();
                self.is_worth_it(plan) && (!is_alone || self.is_large(plan.bytes()))
            })
    }

    /// The newest runs of level 0 that can become one, none of them larger than those above it.
    fn join_runs(&self) -> Option<CompactionPlan> {
        let runs = self.version.sublevels();
        (0..runs.len().min(SEEDS_MAX)).find_map(|start| {
            let mut above = runs[start].bytes();
            let joins = |run: &&Run| {
                let bytes = run.bytes();
                let fits = bytes <= above
                    && above.saturating_add(bytes) <= self.tuning.compaction_bytes_max;
                above = above.saturating_add(bytes);
                fits
            };
            let count = runs[start + 1..].iter().take_while(joins).count();
            if count == 0 {
                return None;
            }
            self.join(&runs[start..=start + count], REASON)
        })
    }

    /// Whether a table of so many bytes is worth having at the bottom.
    fn is_large(&self, bytes: u64) -> bool {
        bytes >= self.tuning.table_bytes_target / 2
    }
}
