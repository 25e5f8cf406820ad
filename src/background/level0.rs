//! Level 0 beside a compaction that is at work.
//!
//! `compaction_step` looks at everything and starts what is most due; what it has started cannot
//! be interrupted, and it waits for all of it. Level 0 must not wait: writers stop when it is too
//! deep. So a step of its own looks at it whenever that may have changed, and compacts it beside
//! the others, on lanes that they left or on its own thread. While the other step is at rest this
//! one does nothing: that one looks at level 0 by itself, and weighs it against the base level.

use base::executor::Step;
use base::sync::Arc;
use base::sync::atomic::Ordering;

use super::Background;
use super::later::{LOOK_INTERVAL, Later};
use crate::health::Job;
use crate::superversion::KeyspaceState;
use crate::tree::Tree;

impl Background {
    /// Level 0 of `keyspace` has become deeper, or something in its way has ended.
    pub(super) fn look_at_level0(&self, keyspace: &Arc<KeyspaceState>) {
        self.keyspaces.to_compact_level0.push(keyspace);
        self.signals.level0.wake();
    }

    /// Compacts level 0 where it has become due while `compaction_step` is at work.
    pub(super) fn level0_step(&self, later: &mut Later) -> Step {
        if self.health.is_poisoned() || self.tree.is_cancelled() {
            return Step::Idle;
        }
        let queue = &self.keyspaces.to_compact_level0;
        // Acquire: pairs with the Release in `compaction_step`, which looks by itself next. What
        // failed here it has in its queue.
        if !self.is_compacting.load(Ordering::Acquire) {
            while queue.pop().is_some() {}
            *later = Later::default();
            return Step::Idle;
        }
        if let Some(step) = self.still_full(later, Job::Compaction) {
            return step;
        }
        if self.is_disk_for_flush() {
            return Step::IdleFor(LOOK_INTERVAL);
        }
        let Some(keyspace) = queue.pop() else {
            return later.rest(queue);
        };
        if keyspace.check_writable().is_err() {
            self.leave_out(later, &keyspace);
            return Step::Again;
        }
        let Some(plan) = Tree::plan_level0(&keyspace) else {
            return Step::Again;
        };
        let step = self.run_plans(later, queue, &[(keyspace, plan)]);
        // The other step may have come to rest meanwhile, since level 0 was taken when it looked:
        // what failed here is then its own to try again.
        for keyspace in later.failing() {
            self.keyspaces.to_compact.push(keyspace);
        }
        // Deeper levels may have become due.
        self.signals.compaction.wake();
        step
    }
}
