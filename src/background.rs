//! When flush, compaction, sync and sweeping run: the steps that the executor is given.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::clock::Clock;
use base::executor::{Executor, Step, StepFn, Worker};
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, KeyspaceId, Result, SequenceNumber};
use compaction::CompactionPlan;
use compaction::policy::ManualStep;
use log::Log;
use memtable::Memtable;

use crate::commit::{CommitPath, MemtableMaker};
use crate::events::{Event, Listener};
use crate::health::{HealthState, Job};
use crate::registry::{Keyspaces, Queue};
use crate::reserve::SpaceReserve;
use crate::seams::Seams;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::superversion::KeyspaceState;
use crate::sweeper::{GRAVE_INTERVAL, SWEEP_PAUSE, Sweeper, Swept};
use crate::tree::{KeyBounds, Tree};
use crate::tuning::Settings;

mod retire;

/// Failed jobs are tried again after this long, doubled each time up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The background of one database.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) tree: Tree,
    pub(crate) log: Arc<Log>,
    pub(crate) keyspaces: Arc<Keyspaces>,
    pub(crate) memtables: MemtableMaker,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) reserve: Arc<SpaceReserve>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The wall clock when it began, and the steady one.
    pub(crate) began_micros: (u64, u64),
    pub(crate) log_keep_bytes: u64,
    pub(crate) log_keep_age: Duration,
    pub(crate) sync_interval: Option<Duration>,
    pub(crate) workers: Mutex<Vec<Arc<dyn Worker>>>,
    pub(crate) listener: Listener,
    /// The last segment of the log that the listener was told of.
    told_segment: AtomicU64,
    /// Somebody asked for a flush and waits for it: it is tried, however full the disk was.
    pub(crate) is_flush_asked: AtomicBool,
    /// The same for compaction, whose old failure would otherwise end that wait.
    is_compaction_asked: AtomicBool,
}

/// The keyspaces whose jobs failed, and how long they wait before they are tried again.
#[derive(Debug, Default)]
struct Later {
    /// In the order in which they failed.
    waiting: Vec<Arc<KeyspaceState>>,
    /// Those that failed when they were last tried.
    failing: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
    wait: Option<Duration>,
    full: Option<FullDisk>,
    /// Those in which something can be dropped once no pin is below a number.
    garbage: BTreeMap<KeyspaceId, (SequenceNumber, Arc<KeyspaceState>)>,
}

/// How a job that found no space left the disk.
#[derive(Clone, Copy, Debug)]
struct FullDisk {
    free_bytes: u64,
    retry_micros: u64,
}

impl Later {
    fn push(&mut self, keyspace: Arc<KeyspaceState>) {
        self.failing.insert(keyspace.id, Arc::clone(&keyspace));
        if !self.has(keyspace.id) {
            self.waiting.push(keyspace);
        }
    }

    fn has(&self, id: KeyspaceId) -> bool {
        self.waiting.iter().any(|keyspace| keyspace.id == id)
    }

    /// Whether the keyspace had failed before.
    fn succeeded(&mut self, keyspace: &KeyspaceState) -> bool {
        self.full = None;
        let had_failed = self.failing.remove(&keyspace.id).is_some();
        if self.failing.is_empty() {
            self.wait = None;
        }
        had_failed
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self
            .wait
            .map_or(BACKOFF_MIN, |last| (last * 2).min(BACKOFF_MAX));
        self.wait = Some(wait);
        wait
    }

    /// Puts those that failed back in line, for when the worker is woken or enough time has passed.
    fn rest(&mut self, queue: &Queue) -> Step {
        if self.waiting.is_empty() {
            return Step::Idle;
        }
        for keyspace in self.waiting.drain(..) {
            queue.push(&keyspace);
        }
        Step::IdleFor(self.next_wait())
    }
}

impl Background {
    pub(crate) fn new(
        tree: Tree,
        log: Arc<Log>,
        commit: &CommitPath,
        sweeper: Arc<Sweeper>,
        settings: &Settings,
        seams: &Seams,
    ) -> Arc<Self> {
        Arc::new(Self {
            tree,
            log,
            keyspaces: Arc::clone(&commit.keyspaces),
            memtables: commit.memtables.clone(),
            snapshots: Arc::clone(&commit.snapshots),
            sweeper,
            signals: Arc::clone(&commit.signals),
            health: Arc::clone(&commit.health),
            reserve: Arc::clone(&commit.reserve),
            executor: Arc::clone(&seams.executor),
            clock: Arc::clone(&seams.clock),
            began_micros: (seams.clock.now_micros(), seams.clock.monotonic_micros()),
            log_keep_bytes: settings.log_keep_bytes,
            log_keep_age: settings.log_keep_age,
            sync_interval: settings.sync_interval,
            workers: Mutex::default(),
            listener: seams.listener.clone(),
            told_segment: AtomicU64::new(0),
            is_flush_asked: AtomicBool::new(false),
            is_compaction_asked: AtomicBool::new(false),
        })
    }

    /// Registers the steps: from here on things happen by themselves.
    pub(crate) fn start(self: &Arc<Self>) -> Result<()> {
        let flush = self.register("siltstone-flush", Self::flush_step)?;
        self.signals.flush.set(Some(flush));
        let compaction = self.register("siltstone-compact", Self::compaction_step)?;
        self.signals.compaction.set(Some(compaction));
        let helper = self.register("siltstone-helper", |this, _| this.helper_step())?;
        self.signals.helper.set(Some(helper));
        if self.sync_interval.is_some() {
            let sync = self.register("siltstone-sync", |this, _| this.sync_step())?;
            sync.wake();
        }
        // What the last run flushed before its end was not sealed yet.
        self.retire_segments();
        for keyspace in self.keyspaces.all() {
            self.keyspaces.to_compact.push(&keyspace);
        }
        self.signals.compaction.wake();
        self.signals.helper.wake();
        Ok(())
    }

    fn register(
        self: &Arc<Self>,
        name: &str,
        step: impl Fn(&Self, &mut Later) -> Step + Send + 'static,
    ) -> Result<Arc<dyn Worker>> {
        let this = Arc::clone(self);
        let mut later = Later::default();
        let step: StepFn = Box::new(move || {
            catch_unwind(AssertUnwindSafe(|| step(&this, &mut later))).unwrap_or_else(|panic| {
                this.panicked(&*panic);
                Step::Idle
            })
        });
        let worker = self.executor.register(name, step)?;
        self.workers.lock().push(Arc::clone(&worker));
        Ok(worker)
    }

    /// Runs a job on the thread of a caller, for whom a panic in it is an error like any other.
    fn guarded(&self, job: impl FnOnce() -> Result<()>) -> Result<()> {
        catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
            self.panicked(&*panic);
            self.health.check_writable()
        })
    }

    /// A panic is a broken promise of ours: what it left half done must not be built upon.
    fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let error = Error::new(
            ErrorKind::Poisoned,
            format!("a background job panicked: {message}"),
        );
        self.health.poison(&error);
        self.signals.job_failed();
    }

    /// Stops every step and waits for those running. Called once, by close.
    pub(crate) fn stop(&self) {
        self.tree.cancel(&self.keyspaces.all());
        self.signals.disconnect();
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            worker.stop();
        }
    }

    /// Notes that a job of `keyspace` failed, unless that is what was wanted. Returns whether the
    /// others can go on.
    fn failed(&self, job: Job, keyspace: &KeyspaceState, error: Error) -> bool {
        if self.tree.is_cancelled() {
            return false;
        }
        if keyspace.check_writable().is_err() && !self.health.is_poisoned() {
            // Dropped: whatever was made of it is not wanted any more.
            self.health.job_succeeded_in(job, keyspace.id);
            return true;
        }
        if error.kind() != ErrorKind::Poisoned && self.log.poisoned().is_some() {
            self.health.poison(&error);
        }
        self.health.job_failed_in(job, keyspace.id, error);
        keyspace.job_failed();
        self.signals.job_failed();
        !self.health.is_poisoned()
    }

    /// Notes that a job found no space: it is not tried again, nor is that of another keyspace,
    /// before there is more space or the pause is over.
    fn found_full(&self, later: &mut Later, queue: &Queue) -> Step {
        for keyspace in std::mem::take(&mut later.waiting) {
            queue.push(&keyspace);
        }
        let pause = later.next_wait();
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        later.full = Some(FullDisk {
            free_bytes: self.tree.free_bytes(),
            retry_micros: self.clock.monotonic_micros().saturating_add(micros),
        });
        Step::IdleFor(pause)
    }

    /// How long a job that found no space is not to run: it would write as much again in vain.
    /// Whoever woke it learns that it still fails. It runs when there is more space than it left,
    /// or when its pause is over, since a quota may have been raised unseen.
    fn still_full(&self, later: &Later) -> Option<Step> {
        let full = later.full?;
        let left = full
            .retry_micros
            .saturating_sub(self.clock.monotonic_micros());
        if left == 0 || self.tree.free_bytes() > full.free_bytes {
            return None;
        }
        for keyspace in later.failing.values() {
            keyspace.job_failed();
        }
        self.signals.job_failed();
        Some(Step::IdleFor(Duration::from_micros(left)))
    }

    /// Flushes one keyspace. Those that fail wait until all others had their turn.
    fn flush_step(&self, later: &mut Later) -> Step {
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        let is_asked = self.is_flush_asked.swap(false, Ordering::AcqRel);
        if !is_asked && let Some(step) = self.still_full(later) {
            return step;
        }
        let Some(keyspace) = self.keyspaces.to_flush.pop() else {
            return later.rest(&self.keyspaces.to_flush);
        };
        if keyspace.check_writable().is_err() {
            return Step::Again;
        }
        match self.tree.flush(&keyspace, &self.snapshots, Some(&self.log)) {
            Ok(is_flushed) => {
                if later.succeeded(&keyspace) {
                    self.health.job_succeeded_in(Job::Flush, keyspace.id);
                }
                if is_flushed {
                    self.keyspaces.note_flushed(&keyspace);
                    self.retire_segments();
                    self.keyspaces.to_compact.push(&keyspace);
                    self.signals.compaction.wake();
                }
                self.signals.progress.ring();
            }
            Err(error) => {
                let is_full = error.is_no_space();
                if !self.failed(Job::Flush, &keyspace, error) {
                    return Step::Idle;
                }
                if keyspace.check_writable().is_ok() {
                    later.push(keyspace);
                    if is_full {
                        return self.found_full(later, &self.keyspaces.to_flush);
                    }
                }
            }
        }
        Step::Again
    }

    /// Compacts: as many plans as can run side by side, of as many keyspaces as have some.
    fn compaction_step(&self, later: &mut Later) -> Step {
        if self.health.is_poisoned() || self.tree.is_cancelled() {
            return Step::Idle;
        }
        let is_asked = self.is_compaction_asked.swap(false, Ordering::AcqRel);
        if !is_asked && let Some(step) = self.still_full(later) {
            return step;
        }
        let oldest = self.snapshots.oldest();
        for (_, keyspace) in later.garbage.values().filter(|(seq, _)| *seq <= oldest) {
            self.keyspaces.to_compact.push(keyspace);
        }
        later.garbage.retain(|_, (seq, _)| *seq > oldest);
        let plans = self.plan_compactions(later);
        if plans.is_empty() {
            if let Some(seq) = later.garbage.values().map(|(seq, _)| *seq).min() {
                self.snapshots.wake_past(seq, &self.signals);
            }
            self.signals.progress.ring();
            return later.rest(&self.keyspaces.to_compact);
        }
        let failures = self.tree.run_plans(&self.snapshots, &self.log, &plans);
        let (mut can_go_on, mut is_full) = (true, false);
        for (keyspace, error) in failures {
            is_full |= error.is_no_space();
            can_go_on &= self.failed(Job::Compaction, &keyspace, error);
            if keyspace.check_writable().is_ok() {
                later.push(keyspace);
            }
        }
        for (keyspace, _) in &plans {
            if later.has(keyspace.id) {
                continue;
            }
            if later.succeeded(keyspace) {
                self.health.job_succeeded_in(Job::Compaction, keyspace.id);
            }
            self.keyspaces.to_compact.push(keyspace);
        }
        if can_go_on && is_full {
            self.signals.progress.ring();
            return self.found_full(later, &self.keyspaces.to_compact);
        }
        self.signals.progress.ring();
        if can_go_on { Step::Again } else { Step::Idle }
    }

    /// One plan of each keyspace in turn, as long as there is room for more.
    fn plan_compactions(&self, later: &mut Later) -> Vec<(Arc<KeyspaceState>, CompactionPlan)> {
        let width = self.tree.width();
        let mut plans = Vec::new();
        while plans.len() < width {
            let Some(keyspace) = self.keyspaces.to_compact.pop() else {
                break;
            };
            if keyspace.check_writable().is_err() {
                continue;
            }
            // Alone it gets all there is; among others one, and it stands in line again.
            let is_alone = plans.is_empty() && self.keyspaces.to_compact.is_empty();
            let count_max = if is_alone { width } else { 1 };
            let found = Tree::plan(&keyspace, &self.snapshots, count_max);
            if found.is_empty()
                && let Some(seq) = Tree::garbage_waits_for(&keyspace, &self.snapshots)
            {
                let waiting = (seq, Arc::clone(&keyspace));
                later.garbage.insert(keyspace.id, waiting);
            }
            if !found.is_empty() && !is_alone {
                self.keyspaces.to_compact.push(&keyspace);
            }
            plans.extend(found.into_iter().map(|plan| (Arc::clone(&keyspace), plan)));
        }
        plans
    }

    fn sync_step(&self) -> Step {
        let Some(interval) = self.sync_interval else {
            return Step::Idle;
        };
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        if self.log.durable_upto() < self.log.end()
            && let Err(error) = self.log.sync()
        {
            self.health.poison(&error);
            self.signals.job_failed();
        }
        Step::IdleFor(interval)
    }

    fn helper_step(&self) -> Step {
        self.tell_segment();
        if !self.health.is_poisoned() {
            if let Err(error) = self.tree.versions().settle() {
                self.health.poison(&error);
                self.signals.job_failed();
            }
            match self.log.maintain() {
                Ok(true) => {
                    // What was sealed may be flushed already.
                    self.retire_segments();
                    return Step::Again;
                }
                Ok(false) => self.health.job_succeeded(Job::LogUpkeep),
                Err(error) if self.log.poisoned().is_some() => {
                    self.health.poison(&error);
                    self.signals.job_failed();
                }
                // Sealing and preparing ahead can wait: the writer makes do without.
                Err(error) => self.health.job_failed(Job::LogUpkeep, error),
            }
        }
        self.memtables.pins().turn(self.clock.monotonic_micros());
        self.memtables.prepare(self.keyspaces.default().settings());
        // While it is spent and there is no room, puts are refused and nothing is wrong here.
        let _ = self.reserve.refill();
        let is_held = self.keyspaces.clear_dropped(&self.snapshots);
        match self.sweeper.sweep() {
            Swept::Clean if !is_held => Step::Idle,
            Swept::More => {
                self.executor.pause(SWEEP_PAUSE);
                Step::Again
            }
            Swept::Clean | Swept::Waiting => Step::IdleFor(GRAVE_INTERVAL),
        }
    }

    fn tell_segment(&self) {
        let ordinal = self.log.end().ordinal;
        if self.told_segment.fetch_max(ordinal, Ordering::Relaxed) < ordinal {
            self.listener.tell(|| Event::SegmentCreated { ordinal });
        }
    }

    /// What the wall clock shows, without what it jumped forward since the database was opened: a
    /// jump must not make anything look old enough to go.
    fn steady_micros(&self) -> u64 {
        let (wall, steady) = self.began_micros;
        let passed = self.clock.monotonic_micros().saturating_sub(steady);
        self.clock.now_micros().min(wall.saturating_add(passed))
    }

    /// Waits until `memtable` is in a table.
    pub(crate) fn wait_for_flush(
        &self,
        keyspace: &KeyspaceState,
        memtable: &Arc<Memtable>,
    ) -> Result<()> {
        self.is_flush_asked.store(true, Ordering::Release);
        self.is_compaction_asked.store(true, Ordering::Release);
        self.signals.flush.wake();
        self.wait_for(Some(keyspace), &mut || {
            !keyspace
                .peek()
                .sealed
                .iter()
                .any(|sealed| Arc::ptr_eq(&sealed.memtable, memtable))
        })
    }

    /// Waits until no flush or compaction runs or is needed.
    pub(crate) fn wait_for_rest(&self) -> Result<()> {
        self.is_compaction_asked.store(true, Ordering::Release);
        self.signals.flush.wake();
        self.signals.compaction.wake();
        self.wait_for(None, &mut || {
            let keyspaces = &self.keyspaces;
            let is_at_rest = |k: &Arc<KeyspaceState>| Tree::is_at_rest(k, &self.snapshots);
            keyspaces.to_flush.is_empty()
                && keyspaces.to_compact.is_empty()
                && keyspaces.all().iter().all(is_at_rest)
        })
    }

    /// Waits for background progress until `done`, or until the work waited for fails: that of
    /// `keyspace`, or of any.
    fn wait_for(
        &self,
        keyspace: Option<&KeyspaceState>,
        done: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let failures = || {
            keyspace.map_or_else(
                || self.signals.failure_count(),
                KeyspaceState::failure_count,
            )
        };
        let cause = || {
            keyspace.map_or_else(
                || self.health.background(),
                |keyspace| self.health.background_in(keyspace.id),
            )
        };
        let failures_before = failures();
        let mut result = Ok(());
        self.executor.wait(&self.signals.progress, &mut || {
            if let Some(keyspace) = keyspace
                && let Err(error) = keyspace.check_writable()
            {
                result = Err(error);
                return true;
            }
            if done() {
                return true;
            }
            if let Err(error) = self.health.check_writable() {
                result = Err(error);
                return true;
            }
            if failures() != failures_before {
                result = cause().map_or(Ok(()), Err);
                return result.is_err();
            }
            false
        });
        result
    }

    /// Compacts everything in `bounds`, level by level, down to the deepest that holds any of it.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceState>,
        bounds: KeyBounds<'_>,
    ) -> Result<()> {
        let mut request = self.tree.begin_manual(bounds);
        loop {
            self.health.check_writable()?;
            let mut step = ManualStep::Wait;
            self.wait_for(Some(keyspace), &mut || {
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
            if result.is_err() {
                keyspace.check_writable()?;
            }
            result?;
        }
    }
}
