//! What failed, and when it is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use base::executor::Step;
use base::sync::Arc;
use base::sync::atomic::Ordering;
use base::{Error, KeyspaceId, SequenceNumber};

use super::Background;
use super::idle::Lull;
use crate::health::Job;
use crate::registry::Queue;
use crate::superversion::KeyspaceState;

/// Failed jobs are tried again after this long, doubled each time up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often a full disk is looked at meanwhile, which costs one call of the system.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The keyspaces whose jobs failed, and how long they wait before they are tried again.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// In the order in which they failed.
    waiting: Vec<Arc<KeyspaceState>>,
    /// Those that failed when they were last tried.
    failing: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
    wait: Option<Duration>,
    full: Option<FullDisk>,
    /// Those in which something can be dropped once no pin is below a number.
    pub(super) garbage: BTreeMap<KeyspaceId, (SequenceNumber, Arc<KeyspaceState>)>,
    /// Those in which something is to be done once nothing is written.
    pub(super) lull: Lull,
}

/// How a job that found no space left the disk.
#[derive(Debug)]
struct FullDisk {
    error: Error,
    free_bytes: u64,
    retry_micros: u64,
}

impl Later {
    pub(super) fn push(&mut self, keyspace: Arc<KeyspaceState>) {
        self.failing.insert(keyspace.id, Arc::clone(&keyspace));
        if !self.has(keyspace.id) {
            self.waiting.push(keyspace);
        }
    }

    pub(super) fn has(&self, id: KeyspaceId) -> bool {
        self.waiting.iter().any(|keyspace| keyspace.id == id)
    }

    /// Whether the keyspace had failed before.
    pub(super) fn succeeded(&mut self, keyspace: &KeyspaceState) -> bool {
        self.full = None;
        let had_failed = self.failing.remove(&keyspace.id).is_some();
        if self.failing.is_empty() {
            self.wait = None;
        }
        had_failed
    }

    /// Forgets a keyspace that was dropped.
    fn leave_out(&mut self, id: KeyspaceId) {
        self.garbage.remove(&id);
        self.failing.remove(&id);
        self.waiting.retain(|keyspace| keyspace.id != id);
        if self.failing.is_empty() {
            self.wait = None;
        }
    }

    /// Puts those that failed back in line.
    pub(super) fn put_back(&mut self, queue: &Queue) {
        for keyspace in self.waiting.drain(..) {
            queue.push(&keyspace);
        }
    }

    /// Why no job is run for now.
    pub(super) fn full_error(&self) -> Option<Error> {
        self.full.as_ref().map(|full| full.error.clone())
    }

    pub(super) fn is_failing(&self, id: KeyspaceId) -> bool {
        self.failing.contains_key(&id)
    }

    /// Forgets failures that are over, since the same job has succeeded elsewhere, and with them
    /// how full the disk was. Returns whether there were any.
    fn forget_past(&mut self, is_past: impl Fn(&KeyspaceState) -> bool) -> bool {
        let count = self.failing.len();
        self.failing.retain(|_, keyspace| !is_past(keyspace));
        let is_any = self.failing.len() < count;
        if is_any {
            self.full = None;
        }
        is_any
    }

    /// Lets nobody wait for a job that found no space for longer than until the next look.
    pub(super) fn look_soon(&mut self, now_micros: u64) -> Step {
        let left = LOOK_INTERVAL.min(self.wait.unwrap_or(LOOK_INTERVAL));
        if let Some(full) = &mut self.full {
            let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
            full.retry_micros = full.retry_micros.min(now_micros.saturating_add(micros));
        }
        Step::IdleFor(left)
    }

    /// Those that failed when they were last tried.
    pub(super) fn failing(&self) -> impl Iterator<Item = &Arc<KeyspaceState>> {
        self.failing.values()
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self
            .wait
            .map_or(BACKOFF_MIN, |last| (last * 2).min(BACKOFF_MAX));
        self.wait = Some(wait);
        wait
    }

    /// Puts those that failed back in line, for when the worker is woken or enough time has passed.
    pub(super) fn rest(&mut self, queue: &Queue) -> Step {
        if self.waiting.is_empty() {
            return Step::Idle;
        }
        self.put_back(queue);
        Step::IdleFor(self.next_wait())
    }
}

impl Background {
    /// Notes that a job found no space: it is not tried again, nor is that of another keyspace,
    /// before there is more space or the pause is over.
    pub(super) fn found_full(&self, later: &mut Later, queue: &Queue, error: &Error) -> Step {
        later.put_back(queue);
        let pause = later.next_wait();
        let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        later.full = Some(FullDisk {
            error: error.clone(),
            free_bytes: self.tree.free_bytes(),
            retry_micros: self.clock.monotonic_micros().saturating_add(micros),
        });
        Step::IdleFor(pause.min(LOOK_INTERVAL))
    }

    /// Whether compactions are to leave what space there is to a flush.
    pub(super) fn is_disk_for_flush(&self) -> bool {
        // Acquire: pairs with the swap in `leave_disk`; a guess that lags behind costs one try.
        self.is_disk_for_flush.load(Ordering::Acquire)
    }

    /// Keeps compactions from starting for the sake of a flush, or lets them start again.
    pub(super) fn leave_disk(&self, is_for_flush: bool) {
        let was = self.is_disk_for_flush.swap(is_for_flush, Ordering::AcqRel);
        if was && !is_for_flush {
            self.signals.compaction.wake();
            self.signals.level0.wake();
        }
    }

    /// Takes in that a keyspace in line was dropped: nothing of it fails any more, and nobody waits
    /// for it.
    pub(super) fn leave_out(&self, later: &mut Later, keyspace: &KeyspaceState) {
        later.leave_out(keyspace.id);
        self.health.forget_keyspace(keyspace.id);
        self.signals.progress.ring();
    }

    /// How long a `job` that found no space is not to run: it would write as much again in vain.
    /// Whoever waits for it learns that it still fails. It runs when there is more space than it
    /// left, which is looked at every second; when the same job has succeeded elsewhere; or when
    /// its pause is over, since a quota may have been raised unseen.
    pub(super) fn still_full(&self, later: &mut Later, job: Job) -> Option<Step> {
        // Nobody would tell those who wait: a failure that is over is none.
        if later.full.is_some() && later.forget_past(|k| self.health.job_in(job, k.id).is_none()) {
            return None;
        }
        let full = later.full.as_ref()?;
        let left = full
            .retry_micros
            .saturating_sub(self.clock.monotonic_micros());
        if left == 0 || self.tree.free_bytes() > full.free_bytes {
            return None;
        }
        for keyspace in later.failing.values() {
            self.tell_failed(job, keyspace);
        }
        self.signals.job_failed();
        Some(Step::IdleFor(
            Duration::from_micros(left).min(LOOK_INTERVAL),
        ))
    }

    /// Counts a failure where those look who wait.
    pub(super) fn tell_failed(&self, job: Job, keyspace: &KeyspaceState) {
        keyspace.job_failed();
        if job == Job::Flush {
            keyspace.flush_failed();
            self.signals.flush_failed();
        }
    }
}
