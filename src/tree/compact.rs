//! The way of a compaction through the corridor, and what it runs on.

use base::executor::{Scatter, Task};
use base::sync::atomic::{AtomicUsize, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, Level, Result, SequenceNumber};
use compaction::policy::{ManualCompaction, ManualStep};
use compaction::{
    CompactionPlan, CompactionReason, InProgress, JobOutput, KeyspaceEdit, Version, job, policy,
};
use log::Log;
use sstable::{CommitTimes, TableReader};

use super::{KeyBounds, OutputTables, Tree, sizes};
use crate::events::Event;
use crate::snapshots::Snapshots;
use crate::superversion::KeyspaceState;
use crate::till::WorkKind;
use crate::trace::{JobTrace, Span};

impl Tree {
    /// The compaction that is most due or, if none is, one that is worth what it drops.
    fn pick(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        version: &Version,
        in_progress: &InProgress,
    ) -> Option<CompactionPlan> {
        let tuning = keyspace.settings().compaction_tuning();
        policy::pick(version, in_progress, &tuning).or_else(|| {
            let oldest = snapshots.oldest();
            policy::pick_garbage(version, in_progress, &tuning, oldest)
        })
    }

    /// Plans what the tree of `keyspace` needs most and reserves it, up to `count_max` plans.
    pub(crate) fn plan(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        count_max: usize,
    ) -> Vec<CompactionPlan> {
        let mut in_progress = keyspace.in_progress.lock();
        // LOCK: looked at only now: an edit that came before would have taken tables away that
        // nothing in progress names any more.
        let version = Arc::clone(&keyspace.peek().version);
        let mut plans = Vec::new();
        while plans.len() < count_max {
            let Some(plan) = Self::pick(keyspace, snapshots, &version, &in_progress) else {
                break;
            };
            in_progress.insert(&plan);
            plans.push(plan);
        }
        plans
    }

    /// Plans and reserves what level 0 of `keyspace` needs, if it is due.
    pub(crate) fn plan_level0(keyspace: &KeyspaceState) -> Option<CompactionPlan> {
        let tuning = keyspace.settings().compaction_tuning();
        let mut in_progress = keyspace.in_progress.lock();
        // LOCK: looked at only now, as in `plan`.
        let version = Arc::clone(&keyspace.peek().version);
        let plan = policy::pick_level0(&version, &in_progress, &tuning)?;
        in_progress.insert(&plan);
        Some(plan)
    }

    /// Plans and reserves what is worth doing in `keyspace` while nothing is written.
    pub(crate) fn plan_idle(keyspace: &KeyspaceState) -> Option<CompactionPlan> {
        let mut in_progress = keyspace.in_progress.lock();
        let plan = Self::pick_idle(keyspace, &in_progress)?;
        in_progress.insert(&plan);
        Some(plan)
    }

    /// Whether [`Tree::plan_idle`] has something as of now.
    pub(crate) fn has_idle_work(keyspace: &KeyspaceState) -> bool {
        let in_progress = keyspace.in_progress.lock();
        Self::pick_idle(keyspace, &in_progress).is_some()
    }

    fn pick_idle(keyspace: &KeyspaceState, in_progress: &InProgress) -> Option<CompactionPlan> {
        let tuning = keyspace.settings().compaction_tuning();
        // LOCK: looked at only now, as in `plan`.
        policy::pick_idle(&keyspace.peek().version, in_progress, &tuning)
    }

    /// The number that the oldest pin must reach before more can be dropped from `keyspace`.
    pub(crate) fn garbage_waits_for(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
    ) -> Option<SequenceNumber> {
        policy::garbage_waits_for(&keyspace.peek().version, snapshots.oldest())
    }

    /// Whether nothing is running and nothing needs to run.
    pub(crate) fn is_at_rest(keyspace: &KeyspaceState, snapshots: &Snapshots) -> bool {
        let in_progress = keyspace.in_progress.lock();
        let view = keyspace.peek();
        in_progress.is_empty()
            && view.sealed.is_empty()
            && Self::pick(keyspace, snapshots, &view.version, &in_progress).is_none()
    }

    /// How many lanes nobody uses: so many plans can start and run side by side.
    pub(crate) fn free_lanes(&self) -> usize {
        self.lanes.free()
    }

    /// Runs reserved plans, of whatever keyspaces, side by side as far as there are lanes, and
    /// installs each as it ends; then calls `ended`. Returns what failed.
    pub(crate) fn run_plans(
        &self,
        snapshots: &Snapshots,
        log: &Log,
        plans: &[(Arc<KeyspaceState>, CompactionPlan)],
        ended: &(dyn Fn(&Arc<KeyspaceState>) + Sync),
    ) -> Vec<(Arc<KeyspaceState>, Error)> {
        let wanted = plans.iter().map(|(k, plan)| wanted_lanes(k, plan)).sum();
        let taken = self.lanes.take(wanted);
        let share = taken.share(plans.len());
        let run = |(keyspace, plan): &(Arc<KeyspaceState>, CompactionPlan)| {
            let result = self.run_on(&share, keyspace, snapshots, log, plan);
            ended(keyspace);
            result.err().map(|error| (Arc::clone(keyspace), error))
        };
        if plans.len() == 1 || taken.count() < 2 {
            return plans.iter().filter_map(run).collect();
        }
        let failed = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let task = |_| {
            let (failed, next, run) = (&failed, &next, &run);
            Box::new(move || {
                // Relaxed: it only hands out numbers.
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failed.lock().extend(run(plan));
                }
            }) as Task<'_>
        };
        let task_count = plans.len().min(taken.count());
        self.executor.scatter((0..task_count).map(task).collect());
        failed.into_inner()
    }

    /// Runs one reserved plan and gives the reservation back, whatever happens.
    pub(crate) fn run_plan(
        &self,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: &Log,
        plan: &CompactionPlan,
    ) -> Result<()> {
        let taken = self.lanes.take(wanted_lanes(keyspace, plan));
        self.run_on(&taken.share(1), keyspace, snapshots, log, plan)
    }

    fn run_on(
        &self,
        scatter: &Arc<dyn Scatter>,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: &Log,
        plan: &CompactionPlan,
    ) -> Result<()> {
        let reservation = Reservation {
            in_progress: &keyspace.in_progress,
            plan,
        };
        let version = Arc::clone(&keyspace.peek().version);
        let tables = OutputTables {
            is_bottom: version
                .deepest_used()
                .is_none_or(|deepest| deepest <= plan.output_level),
            commit_times: times_of_inputs(plan),
        };
        let context = self.context(Arc::clone(scatter), keyspace, snapshots, tables);
        let job = self.next_job();
        let span = Span::compaction(JobTrace {
            keyspace: &keyspace.name,
            job,
            input_level: plan.input_level,
            level: plan.output_level,
            input_bytes: plan.bytes(),
        });
        self.listener.tell(|| Event::CompactionBegan {
            keyspace: String::from(&*keyspace.name),
            job,
            input_level: plan.input_level,
            output_level: plan.output_level,
            table_count: plan.tables().count() as u64,
            input_bytes: plan.bytes(),
            is_move: plan.is_move,
        });
        let began_micros = self.clock.monotonic_micros();
        let level0_bytes = level0_bytes(plan);
        let work = keyspace
            .till
            .begin_work(WorkKind::Compaction, began_micros, level0_bytes);
        let output = job::compact(&context, &version, plan)?;
        if !plan.is_move {
            self.tell_created(keyspace, job, &output);
        }
        let stats = output.stats;
        self.install(keyspace, snapshots, log, output, plan)?;
        let micros = work.finish(self.clock.monotonic_micros(), level0_bytes);
        span.record(stats.written_bytes, micros);
        self.listener.tell(|| Event::Compacted {
            keyspace: String::from(&*keyspace.name),
            job,
            input_level: plan.input_level,
            output_level: plan.output_level,
            is_move: plan.is_move,
            read_bytes: stats.read_bytes,
            written_bytes: stats.written_bytes,
            micros,
        });
        drop(reservation);
        Ok(())
    }

    fn install(
        &self,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: &Log,
        output: JobOutput,
        plan: &CompactionPlan,
    ) -> Result<()> {
        let table_bytes = sizes(&output);
        let mut edit = KeyspaceEdit::new(keyspace.id);
        edit.added = output.added;
        edit.removed = output.removed;
        self.versions
            .apply(edit, log.durable_upto(), snapshots.visible(), |version| {
                keyspace.install(Arc::clone(version));
            })?;
        if plan.is_move {
            keyspace.ledger.add_move(plan.bytes());
        } else {
            let (level, read_bytes) = (plan.output_level, output.stats.read_bytes);
            let ledger = &keyspace.ledger;
            ledger.add_compaction(level, read_bytes, table_bytes.into_iter());
            if !plan.is_in_place() {
                let arrived = plan.inputs.iter().map(|table| table.meta.file_bytes);
                ledger.add_arrival(level, arrived.sum());
            }
        }
        Ok(())
    }

    /// Begins a manual compaction of what has been flushed so far.
    pub(crate) fn begin_manual(
        &self,
        (from, to): KeyBounds<'_>,
        visible: SequenceNumber,
    ) -> ManualCompaction {
        let first_new = self.versions.peek_file_number();
        let (from, to) = (from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec));
        ManualCompaction::new(from, to, first_new).written_upto(visible)
    }

    /// Plans the next piece of a manual compaction and reserves it.
    pub(crate) fn step_manual(
        keyspace: &KeyspaceState,
        request: &mut ManualCompaction,
    ) -> ManualStep {
        let tuning = keyspace.settings().compaction_tuning();
        let mut in_progress = keyspace.in_progress.lock();
        let version: Arc<Version> = Arc::clone(&keyspace.peek().version);
        let step = request.step(&version, &in_progress, &tuning);
        if let ManualStep::Run(plan) = &step {
            in_progress.insert(plan);
        }
        step
    }

    pub(crate) fn level_scores(keyspace: &KeyspaceState) -> Vec<(Level, f64)> {
        let tuning = keyspace.settings().compaction_tuning();
        policy::scores(&keyspace.peek().version, &tuning)
    }
}

/// As many lanes as `plan` can be split for; one for what nobody waits for.
fn wanted_lanes(keyspace: &KeyspaceState, plan: &CompactionPlan) -> usize {
    if plan.is_move || plan.reason == CompactionReason::Idle {
        return 1;
    }
    let table_count = plan.bytes() / keyspace.settings().table_bytes_target.max(1);
    // More than any pool has.
    usize::try_from(table_count.clamp(1, 1 << 10)).expect("small")
}

/// What a plan takes out of level 0.
fn level0_bytes(plan: &CompactionPlan) -> u64 {
    if plan.input_level != Level::ZERO || plan.is_in_place() {
        return 0;
    }
    plan.inputs.iter().map(|table| table.meta.file_bytes).sum()
}

/// The commit times of all inputs of `plan`; unknown if those of one are. A move keeps its own.
fn times_of_inputs(plan: &CompactionPlan) -> Option<CommitTimes> {
    if plan.is_move {
        return None;
    }
    let times = plan.tables().map(|table| {
        // What cannot be read costs the times, not the compaction: it meets the damage itself if
        // there is more.
        let look = |reader: &TableReader| reader.properties().map(|found| found.commit_times);
        table.glance(look).ok()?.ok()?
    });
    let times: Option<Vec<CommitTimes>> = times.collect();
    times?.into_iter().reduce(CommitTimes::union)
}

/// Gives the tables of a plan back, also when its job panics.
struct Reservation<'a> {
    in_progress: &'a Mutex<InProgress>,
    plan: &'a CompactionPlan,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.in_progress.lock().remove(self.plan);
    }
}
