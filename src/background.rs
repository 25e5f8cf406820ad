//! When flush, compaction, sync and sweeping run: the steps that the executor is given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::clock::Clock;
use base::executor::{Executor, Step, StepFn, Worker};
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, Result};
use compaction::policy::ManualStep;
use log::{Log, retention};
use memtable::Memtable;

use crate::commit::{CommitPath, MemtableMaker};
use crate::events::{Event, Listener};
use crate::health::{HealthState, Job};
use crate::reserve::SpaceReserve;
use crate::seams::Seams;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::superversion::{KeyspaceState, Keyspaces};
use crate::sweeper::{Sweeper, Swept};
use crate::tree::{KeyBounds, Tree};
use crate::tuning::Settings;

/// Failed jobs are tried again after this long, doubled each time up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often the sweeper looks whether a reader has let go of what it is to free.
const GRAVE_INTERVAL: Duration = Duration::from_millis(50);

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
}

/// How long a failing step waits before it tries again.
#[derive(Debug, Default)]
struct Backoff {
    last: Option<Duration>,
    full: Option<FullDisk>,
}

/// How a job that found no space left the disk.
#[derive(Clone, Copy, Debug)]
struct FullDisk {
    free_bytes: u64,
    retry_micros: u64,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let next = self
            .last
            .map_or(BACKOFF_MIN, |last| (last * 2).min(BACKOFF_MAX));
        self.last = Some(next);
        next
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
        self.signals.compaction.wake();
        self.signals.helper.wake();
        Ok(())
    }

    fn register(
        self: &Arc<Self>,
        name: &str,
        step: impl Fn(&Self, &mut Backoff) -> Step + Send + 'static,
    ) -> Result<Arc<dyn Worker>> {
        let this = Arc::clone(self);
        let mut backoff = Backoff::default();
        let step: StepFn = Box::new(move || {
            catch_unwind(AssertUnwindSafe(|| step(&this, &mut backoff))).unwrap_or_else(|panic| {
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
        self.tree.cancel();
        self.signals.disconnect();
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            worker.stop();
        }
    }

    fn failed(&self, job: Job, error: Error, backoff: &mut Backoff) -> Step {
        if self.tree.is_cancelled() {
            return Step::Idle;
        }
        if error.kind() != ErrorKind::Poisoned && self.log.poisoned().is_some() {
            self.health.poison(&error);
        }
        let is_full = error.is_no_space();
        self.health.job_failed(job, error);
        self.signals.job_failed();
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        let pause = backoff.next();
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        backoff.full = is_full.then(|| FullDisk {
            free_bytes: self.tree.free_bytes(),
            retry_micros: self.clock.monotonic_micros().saturating_add(micros),
        });
        Step::IdleFor(pause)
    }

    /// How long a job that found no space is not to run: it would write as much again in vain.
    /// Whoever woke it learns that it still fails. It runs when there is more space than it left,
    /// or when its pause is over, since a quota may have been raised unseen.
    fn still_full(&self, backoff: &Backoff) -> Option<Step> {
        let full = backoff.full?;
        let left = full
            .retry_micros
            .saturating_sub(self.clock.monotonic_micros());
        if left == 0 || self.tree.free_bytes() > full.free_bytes {
            return None;
        }
        self.signals.job_failed();
        Some(Step::IdleFor(Duration::from_micros(left)))
    }

    fn succeeded(&self, job: Job, backoff: &mut Backoff) {
        backoff.full = None;
        if backoff.last.take().is_some() {
            self.health.job_succeeded(job);
        }
        self.signals.progress.ring();
    }

    fn flush_step(&self, backoff: &mut Backoff) -> Step {
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        let is_asked = self.is_flush_asked.swap(false, Ordering::AcqRel);
        if !is_asked && let Some(step) = self.still_full(backoff) {
            return step;
        }
        for keyspace in self.keyspaces.all() {
            match self.tree.flush(keyspace, &self.snapshots, Some(&self.log)) {
                Ok(false) => {}
                Ok(true) => {
                    self.retire_segments();
                    self.succeeded(Job::Flush, backoff);
                    self.signals.compaction.wake();
                    return Step::Again;
                }
                Err(error) => return self.failed(Job::Flush, error, backoff),
            }
        }
        Step::Idle
    }

    fn compaction_step(&self, backoff: &mut Backoff) -> Step {
        if self.health.is_poisoned() || self.tree.is_cancelled() {
            return Step::Idle;
        }
        if let Some(step) = self.still_full(backoff) {
            return step;
        }
        for keyspace in self.keyspaces.all() {
            let plans = self.tree.plan(keyspace, &self.snapshots);
            if plans.is_empty() {
                continue;
            }
            match self
                .tree
                .run_plans(keyspace, &self.snapshots, &self.log, &plans)
            {
                Ok(()) => {
                    self.succeeded(Job::Compaction, backoff);
                    return Step::Again;
                }
                Err(error) => return self.failed(Job::Compaction, error, backoff),
            }
        }
        let keyspaces = self.keyspaces.all();
        let waiting = keyspaces.filter_map(|k| Tree::garbage_waits_for(k, &self.snapshots));
        if let Some(seq) = waiting.min() {
            self.snapshots.wake_past(seq, &self.signals);
        }
        self.signals.progress.ring();
        Step::Idle
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
        self.memtables.prepare(self.keyspaces.default().settings());
        // While it is spent and there is no room, puts are refused and nothing is wrong here.
        let _ = self.reserve.refill();
        match self.sweeper.sweep() {
            Swept::Clean => Step::Idle,
            Swept::Waiting => Step::IdleFor(GRAVE_INTERVAL),
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

    /// Lets go of segments that every keyspace has flushed past and that nothing keeps.
    pub(crate) fn retire_segments(&self) {
        let floors = self.keyspaces.all().map(|keyspace| {
            self.tree
                .versions()
                .flushed_upto(keyspace.id)
                .unwrap_or_default()
        });
        let keep = retention::Retention {
            keep_bytes: self.log_keep_bytes,
            keep_micros: u64::try_from(self.log_keep_age.as_micros()).unwrap_or(u64::MAX),
        };
        let floor = floors.min().unwrap_or_default();
        let sealed = self.log.sealed();
        let gone = retention::removable(&sealed, floor, &keep, &[], self.steady_micros());
        self.log.forget(&gone);
        self.sweeper.unlink_segments(&gone);
    }

    /// Waits until `memtable` is in a table.
    pub(crate) fn wait_for_flush(
        &self,
        keyspace: &KeyspaceState,
        memtable: &Arc<Memtable>,
    ) -> Result<()> {
        self.is_flush_asked.store(true, Ordering::Release);
        self.signals.flush.wake();
        self.wait_for(&mut || {
            !keyspace
                .peek()
                .sealed
                .iter()
                .any(|sealed| Arc::ptr_eq(&sealed.memtable, memtable))
        })
    }

    /// Waits until no flush or compaction runs or is needed.
    pub(crate) fn wait_for_rest(&self) -> Result<()> {
        self.signals.flush.wake();
        self.signals.compaction.wake();
        self.wait_for(&mut || {
            self.keyspaces
                .all()
                .all(|keyspace| self.tree.is_at_rest(keyspace, &self.snapshots))
        })
    }

    /// Waits for background progress until `done`, or until the work waited for fails.
    fn wait_for(&self, done: &mut dyn FnMut() -> bool) -> Result<()> {
        let failures = self.signals.failure_count();
        let mut result = Ok(());
        self.executor.wait(&self.signals.progress, &mut || {
            if done() {
                return true;
            }
            if let Err(error) = self.health.check_writable() {
                result = Err(error);
                return true;
            }
            if self.signals.failure_count() != failures {
                let background = self.health.background();
                result = background.map_or(Ok(()), Err);
                return result.is_err();
            }
            false
        });
        result
    }

    /// Compacts everything in `bounds`, level by level, down to the deepest that holds any of it.
    pub(crate) fn compact_range(
        &self,
        keyspace: &KeyspaceState,
        bounds: KeyBounds<'_>,
    ) -> Result<()> {
        let mut request = self.tree.begin_manual(bounds);
        loop {
            self.health.check_writable()?;
            let mut step = ManualStep::Wait;
            self.wait_for(&mut || {
                step = self.tree.step_manual(keyspace, &mut request);
                !matches!(step, ManualStep::Wait)
            })?;
            let ManualStep::Run(plan) = step else {
                return Ok(());
            };
            let plans = std::slice::from_ref(&plan);
            let result = self.guarded(|| {
                self.tree
                    .run_plans(keyspace, &self.snapshots, &self.log, plans)
            });
            match &result {
                Ok(()) => self.health.job_succeeded(Job::Compaction),
                Err(error) => self.health.sync_failed(Job::Compaction, error),
            }
            self.signals.progress.ring();
            self.signals.compaction.wake();
            result?;
        }
    }
}
