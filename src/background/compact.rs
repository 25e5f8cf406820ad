//! The step that compacts, and compactions that somebody asked for.

use std::time::Duration;

use base::Result;
use base::executor::Step;
use base::sync::Arc;
use base::sync::atomic::Ordering;
use compaction::CompactionPlan;
use compaction::policy::ManualStep;

use super::Background;
use super::idle::Idle;
use super::later::{LOOK_INTERVAL, Later};
use super::wait::Waited;
use crate::health::Job;
use crate::registry::Queue;
use crate::superversion::KeyspaceState;
use crate::tree::{KeyBounds, Tree};

impl Background {
    /// Compacts: as many plans as can run side by side, of as many keyspaces as have some.
    pub(super) fn compaction_step(&self, later: &mut Later) -> Step {
        if self.health.is_poisoned() || self.tree.is_cancelled() {
            return Step::Idle;
        }
        let is_asked = self.is_compaction_asked.swap(false, Ordering::AcqRel);
        if !is_asked && let Some(step) = self.still_full(later, Job::Compaction) {
            return step;
        }
        if !is_asked && self.is_disk_for_flush() {
            return Step::IdleFor(LOOK_INTERVAL);
        }
        let oldest = self.snapshots.oldest();
        for (_, keyspace) in later.garbage.values().filter(|(seq, _)| *seq <= oldest) {
            self.keyspaces.to_compact.push(keyspace);
        }
        later.garbage.retain(|_, (seq, _)| *seq > oldest);
        // Release: pairs with the Acquire in `level0_step`. Before it plans: what becomes due from
        // here on one of the two steps sees.
        self.is_compacting.store(true, Ordering::Release);
        let step = self.compact(later);
        self.is_compacting.store(false, Ordering::Release);
        step
    }

    /// What is due, or what is worth doing while nothing is written.
    fn compact(&self, later: &mut Later) -> Step {
        let mut plans = self.plan_compactions(later);
        if plans.is_empty() {
            match self.plan_idle(&mut later.lull) {
                Idle::Run(keyspace, plan) => plans.push((keyspace, plan)),
                Idle::Wait(left) => return sooner(self.rest(later), left),
                Idle::Nothing => return self.rest(later),
            }
        }
        self.run_plans(later, &self.keyspaces.to_compact, &plans)
    }

    /// Ends a step that found nothing due.
    fn rest(&self, later: &mut Later) -> Step {
        if let Some(seq) = later.garbage.values().map(|(seq, _)| *seq).min() {
            self.snapshots.wake_past(seq, &self.signals);
        }
        self.signals.progress.ring();
        later.rest(&self.keyspaces.to_compact)
    }

    /// Runs reserved plans and takes in what became of them; what failed goes back to `queue` when
    /// it is tried again.
    pub(super) fn run_plans(
        &self,
        later: &mut Later,
        queue: &Queue,
        plans: &[(Arc<KeyspaceState>, CompactionPlan)],
    ) -> Step {
        // Each by itself: level 0 may have waited for just one of them, and so may writers.
        let ended = |keyspace: &Arc<KeyspaceState>| {
            self.look_at_level0(keyspace);
            self.signals.progress.ring();
        };
        let failures = self
            .tree
            .run_plans(&self.snapshots, &self.log, plans, &ended);
        let (mut can_go_on, mut full) = (true, None);
        for (keyspace, error) in failures {
            if error.is_no_space() {
                full = Some(error.clone());
            }
            can_go_on &= self.failed(Job::Compaction, &keyspace, error);
            if keyspace.check_writable().is_ok() {
                later.push(keyspace);
            }
        }
        for (keyspace, _) in plans {
            if later.has(keyspace.id) {
                continue;
            }
            later.succeeded(keyspace);
            // It may have failed in the other step.
            self.health.job_succeeded_in(Job::Compaction, keyspace.id);
            self.keyspaces.to_compact.push(keyspace);
        }
        self.signals.progress.ring();
        if can_go_on && let Some(error) = full {
            return self.found_full(later, queue, &error);
        }
        if can_go_on { Step::Again } else { Step::Idle }
    }

    /// One plan of each keyspace in turn, as long as there is room for more.
    fn plan_compactions(&self, later: &mut Later) -> Vec<(Arc<KeyspaceState>, CompactionPlan)> {
        let width = self.tree.free_lanes().max(1);
        let mut plans = Vec::new();
        while plans.len() < width {
            let Some(keyspace) = self.keyspaces.to_compact.pop() else {
                break;
            };
            if keyspace.check_writable().is_err() {
                self.leave_out(later, &keyspace);
                continue;
            }
            // Alone it gets all there is; among others one, and it stands in line again.
            let is_alone = plans.is_empty() && self.keyspaces.to_compact.is_empty();
            let count_max = if is_alone { width } else { 1 };
            let found = Tree::plan(&keyspace, &self.snapshots, count_max);
            if found.is_empty() {
                if let Some(seq) = Tree::garbage_waits_for(&keyspace, &self.snapshots) {
                    let waiting = (seq, Arc::clone(&keyspace));
                    later.garbage.insert(keyspace.id, waiting);
                }
                if self.idle_compaction_after.is_some() {
                    later.lull.note(&keyspace);
                }
            }
            if !found.is_empty() && !is_alone {
                self.keyspaces.to_compact.push(&keyspace);
            }
            plans.extend(found.into_iter().map(|plan| (Arc::clone(&keyspace), plan)));
        }
        plans
    }

    /// Compacts everything in `bounds`, level by level, down to the deepest that holds any of it.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceState>,
        bounds: KeyBounds<'_>,
    ) -> Result<()> {
        let _call = self.begin_call()?;
        let visible = self.snapshots.visible();
        let mut request = self.tree.begin_manual(bounds, visible);
        loop {
            self.health.check_writable()?;
            self.check_going()?;
            let mut step = ManualStep::Wait;
            self.wait_for(Waited::Room(keyspace), &mut || {
                step = Tree::step_manual(keyspace, &mut request);
                !matches!(step, ManualStep::Wait)
            })?;
            let ManualStep::Run(plan) = step else {
                return Ok(());
            };
            let run = || {
                self.tree
                    .run_plan(keyspace, &self.snapshots, &self.log, &plan)
            };
            let result = self.guarded(run);
            match &result {
                Ok(()) => self.health.job_succeeded_in(Job::Compaction, keyspace.id),
                Err(error) => self.health.sync_failed(Job::Compaction, error),
            }
            self.signals.progress.ring();
            self.keyspaces.to_compact.push(keyspace);
            self.signals.compaction.wake();
            self.look_at_level0(keyspace);
            if result.is_err() {
                keyspace.check_writable()?;
            }
            result?;
        }
    }
}

/// The same end of a step, with another look after `left` at the latest.
fn sooner(step: Step, left: Duration) -> Step {
    match step {
        Step::Idle => Step::IdleFor(left),
        Step::IdleFor(wait) => Step::IdleFor(wait.min(left)),
        Step::Again => Step::Again,
    }
}
