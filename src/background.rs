//! When flush, compaction, sync and sweeping run: the steps that the executor is given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use base::clock::Clock;
use base::executor::{Executor, Step, StepFn, Worker};
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, Result};
use log::Log;

use crate::commit::{CommitPath, MemtableMaker};
use crate::events::{Event, Listener};
use crate::health::{HealthState, Job};
use crate::registry::Keyspaces;
use crate::reserve::SpaceReserve;
use crate::seams::Seams;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::superversion::{KeyspaceState, Superversion};
use crate::sweeper::{GRAVE_INTERVAL, SWEEP_PAUSE, Sweeper, Swept};
use crate::till::WorkKind;
use crate::tree::Tree;
use crate::tuning::Settings;

mod callers;
mod compact;
mod fit;
mod idle;
mod later;
mod level0;
mod retire;
mod wait;

use later::Later;

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
    idle_compaction_after: Option<Duration>,
    pub(crate) workers: Mutex<Vec<Arc<dyn Worker>>>,
    pub(crate) listener: Listener,
    /// The last segment of the log that the listener was told of.
    told_segment: AtomicU64,
    last_fit: fit::LastFit,
    callers: callers::Callers,
    /// Somebody asked for a flush and waits for it: it is tried, however full the disk was.
    pub(crate) is_flush_asked: AtomicBool,
    /// The same for compaction, whose old failure would otherwise end that wait.
    is_compaction_asked: AtomicBool,
    /// Whether `compaction_step` plans or runs compactions.
    is_compacting: AtomicBool,
    /// A flush found no space: its next try has the disk to itself. Flush and compaction could take
    /// from each other what comes free, time after time.
    is_disk_for_flush: AtomicBool,
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
            idle_compaction_after: settings.idle_compaction_after,
            workers: Mutex::default(),
            listener: seams.listener.clone(),
            told_segment: AtomicU64::new(0),
            last_fit: fit::LastFit::default(),
            callers: callers::Callers::default(),
            is_flush_asked: AtomicBool::new(false),
            is_compacting: AtomicBool::new(false),
            is_disk_for_flush: AtomicBool::new(false),
            is_compaction_asked: AtomicBool::new(false),
        })
    }

    /// Registers the steps: from here on things happen by themselves.
    pub(crate) fn start(self: &Arc<Self>) -> Result<()> {
        let flush = self.register("siltstone-flush", Self::flush_step)?;
        self.signals.flush.set(Some(flush));
        let compaction = self.register("siltstone-compact", Self::compaction_step)?;
        self.signals.compaction.set(Some(compaction));
        let level0 = self.register("siltstone-level0", Self::level0_step)?;
        self.signals.level0.set(Some(level0));
        let helper = self.register("siltstone-helper", |this, _| this.helper_step())?;
        self.signals.helper.set(Some(helper));
        let ahead = self.register("siltstone-ahead", |this, _| this.ahead_step())?;
        self.signals.ahead.set(Some(ahead));
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

    /// Runs `step` as well, from now on until the end.
    pub(crate) fn start_more(&self, name: &str, step: StepFn) -> Result<()> {
        let worker = self.executor.register(name, step)?;
        worker.wake();
        self.workers.lock().push(worker);
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

    /// Stops every step and every call, and waits for those running. Called once, by close.
    pub(crate) fn stop(&self) {
        self.tree.cancel(&self.keyspaces.all());
        self.end_calls();
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
            self.health.forget_keyspace(keyspace.id);
            return true;
        }
        if error.kind() != ErrorKind::Poisoned && self.log.poisoned().is_some() {
            self.health.poison(&error);
        }
        self.health.job_failed_in(job, keyspace.id, error);
        self.tell_failed(job, keyspace);
        self.signals.job_failed();
        !self.health.is_poisoned()
    }

    /// Flushes one keyspace. Those that fail wait until all others had their turn.
    fn flush_step(&self, later: &mut Later) -> Step {
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        let is_asked = self.is_flush_asked.swap(false, Ordering::AcqRel);
        if !is_asked && let Some(step) = self.still_full(later, Job::Flush) {
            return match later.full_error() {
                Some(error) if !self.refuse_flushes(later, &error) => Step::Idle,
                _ => step,
            };
        }
        let Some(keyspace) = self.keyspaces.to_flush.pop() else {
            // Whichever had found no space is dropped, or flushed by somebody else.
            self.leave_disk(false);
            return later.rest(&self.keyspaces.to_flush);
        };
        if keyspace.check_writable().is_err() {
            // Dropped, and not what was asked for.
            self.is_flush_asked.fetch_or(is_asked, Ordering::AcqRel);
            self.leave_out(later, &keyspace);
            return Step::Again;
        }
        let taken = |view: &Superversion| {
            let bytes = view.sealed.iter().map(|s| s.memtable.taken_bytes());
            bytes.sum::<usize>() as u64
        };
        let taken_bytes = taken(&keyspace.peek());
        let till = self.keyspaces.memory_till();
        let now = || self.clock.monotonic_micros();
        let work = till.begin_work(WorkKind::Flush, now(), taken_bytes);
        match self.tree.flush(&keyspace, &self.snapshots, Some(&self.log)) {
            Ok(is_flushed) => {
                if is_flushed {
                    work.finish(now(), taken_bytes);
                }
                if later.succeeded(&keyspace) {
                    self.health.job_succeeded_in(Job::Flush, keyspace.id);
                }
                self.leave_disk(false);
                if is_flushed {
                    self.keyspaces.note_flushed(&keyspace);
                    self.retire_segments();
                    self.keyspaces.to_compact.push(&keyspace);
                    self.signals.compaction.wake();
                    self.look_at_level0(&keyspace);
                }
                self.signals.progress.ring();
            }
            Err(error) => {
                if !self.failed(Job::Flush, &keyspace, error.clone()) {
                    return Step::Idle;
                }
                if keyspace.check_writable().is_ok() {
                    later.push(keyspace);
                    if error.is_no_space() {
                        return self.no_flush_fits(later, &error);
                    }
                }
            }
        }
        Step::Again
    }

    /// A flush found no space. The others are not tried before there is more.
    fn no_flush_fits(&self, later: &mut Later, error: &Error) -> Step {
        if !self.refuse_flushes(later, error) {
            return Step::Idle;
        }
        // One that had the disk to itself gives it back: a compaction may be what makes space.
        let was_alone = self.is_disk_for_flush();
        let step = self.found_full(later, &self.keyspaces.to_flush, error);
        self.leave_disk(!was_alone);
        if was_alone {
            return step;
        }
        later.look_soon(self.clock.monotonic_micros())
    }

    /// Whoever waits for a flush that is not tried learns it now, not when its turn has come.
    /// Returns whether it may be tried later.
    fn refuse_flushes(&self, later: &mut Later, error: &Error) -> bool {
        let queue = &self.keyspaces.to_flush;
        let mut refused = Vec::new();
        while let Some(keyspace) = queue.pop() {
            let is_known = later.is_failing(keyspace.id);
            if !is_known && !self.failed(Job::Flush, &keyspace, error.clone()) {
                return false;
            }
            if keyspace.check_writable().is_ok() {
                refused.push(keyspace);
            }
        }
        for keyspace in refused {
            later.push(keyspace);
        }
        later.put_back(queue);
        true
    }

    fn sync_step(&self) -> Step {
        let Some(interval) = self.sync_interval else {
            return Step::Idle;
        };
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        // Others may fill the disk while nothing is written here.
        self.refill_reserve();
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
        self.fit_tables();
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
        self.refill_reserve();
        let is_held = self.keyspaces.clear_dropped(&self.snapshots);
        let taken_bytes = self.memtables.memory().taken_bytes();
        let swept = self.sweeper.sweep();
        if self.memtables.memory().taken_bytes() < taken_bytes {
            self.signals.progress.ring();
        }
        match swept {
            Swept::Clean if !is_held => Step::Idle,
            Swept::More => {
                self.executor.pause(SWEEP_PAUSE);
                Step::Again
            }
            Swept::Clean | Swept::Waiting => Step::IdleFor(GRAVE_INTERVAL),
        }
    }

    /// What writers need in time, apart from the helper, whose syncs and unlinks take long.
    fn ahead_step(&self) -> Step {
        if self.health.is_poisoned() {
            return Step::Idle;
        }
        // An error can wait: writers reserve space themselves, and are told of it.
        while let Ok(true) = self.log.reserve_ahead() {}
        self.memtables.prepare_chunks();
        if self.log.needs_upkeep() {
            self.signals.helper.wake();
        }
        self.refill_reserve();
        Step::Idle
    }

    /// Keeps space back again, unless a flush needs what there is.
    fn refill_reserve(&self) {
        if self.reserve.is_spent() && self.health.is_full_for(Job::Flush) {
            return;
        }
        // While it is spent and there is no room, puts are refused and nothing is wrong here.
        let _ = self.reserve.refill();
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
}
