//! What is compacted while nothing is written, and since when that is so.
//!
//! Nobody waits for it: one plan at a time, on one thread, and not before `idle_compaction_after`
//! has passed without a write to any keyspace. What is worth it is `policy::pick_idle`'s to say. A
//! database in which nobody has anything to do keeps no timer.

use std::collections::BTreeMap;
use std::time::Duration;

use base::sync::Arc;
use base::{KeyspaceId, SequenceNumber};
use compaction::CompactionPlan;

use super::Background;
use crate::superversion::KeyspaceState;
use crate::tree::Tree;

/// Since when nothing was written, and who has something to do once that has lasted.
#[derive(Debug, Default)]
pub(super) struct Lull {
    /// What was visible when it was last looked at.
    visible: Option<SequenceNumber>,
    since_micros: u64,
    waiting: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
}

/// What there is to do in a lull.
#[derive(Debug)]
pub(super) enum Idle {
    /// This, which is reserved.
    Run(Arc<KeyspaceState>, CompactionPlan),
    /// Something, if nothing is written for so long.
    Wait(Duration),
    Nothing,
}

impl Lull {
    /// Takes in that nothing is due in `keyspace`.
    pub(super) fn note(&mut self, keyspace: &Arc<KeyspaceState>) {
        if Tree::has_idle_work(keyspace) {
            self.waiting.insert(keyspace.id, Arc::clone(keyspace));
        } else {
            self.waiting.remove(&keyspace.id);
        }
    }
}

impl Background {
    /// What to do now that nothing is due anywhere.
    pub(super) fn plan_idle(&self, lull: &mut Lull) -> Idle {
        let Some(after) = self.idle_compaction_after else {
            return Idle::Nothing;
        };
        lull.waiting
            .retain(|_, keyspace| keyspace.check_writable().is_ok());
        let now = self.clock.monotonic_micros();
        let visible = Some(self.snapshots.visible());
        if lull.visible != visible {
            lull.visible = visible;
            lull.since_micros = now;
        }
        if lull.waiting.is_empty() {
            return Idle::Nothing;
        }
        let passed = Duration::from_micros(now.saturating_sub(lull.since_micros));
        let left = after.saturating_sub(passed);
        if !left.is_zero() {
            return Idle::Wait(left);
        }
        while let Some((_, keyspace)) = lull.waiting.pop_first() {
            if let Some(plan) = Tree::plan_idle(&keyspace) {
                return Idle::Run(keyspace, plan);
            }
        }
        Idle::Nothing
    }
}
