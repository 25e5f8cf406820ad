//! Whether the database takes writes, and why not.

use std::collections::BTreeMap;

use base::fork::Origin;
use base::sync::atomic::{AtomicU8, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, KeyspaceId, Result, WriteOutcome};

use crate::events::{Event, Listener, is_telling};
use crate::signals::Signals;
use crate::trace;

/// The state of a database, from [`Db::health`](crate::Db::health).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use siltstone::Health;
/// let db = siltstone::Db::open(dir.path())?;
/// assert!(matches!(db.health(), Health::Good));
/// db.close()?;
/// assert!(matches!(db.health(), Health::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Everything works.
    Good,
    /// Reads and writes work; flush or compaction failed last time and is tried again.
    Degraded(Error),
    /// Reads work; writes, flush and compaction fail with this until the database is reopened.
    Poisoned(Error),
    /// The database was closed, or this process was forked from the one that opened it.
    Closed,
}

const GOOD: u8 = 0;
const READ_ONLY: u8 = 1;
const POISONED: u8 = 2;
const CLOSED: u8 = 3;

/// So many failed syncs of a job's output in a row close the door.
const FAILED_SYNC_COUNT_MAX: u32 = 2;

#[derive(Debug)]
pub(crate) struct HealthState {
    /// What can be asked without the lock; changes only under it, and only upwards.
    door: AtomicU8,
    causes: Mutex<Causes>,
    listener: Listener,
    signals: Arc<Signals>,
    origin: Origin,
}

#[derive(Debug, Default)]
struct Causes {
    poison: Option<Error>,
    /// By job and, where each keyspace has its own, by keyspace.
    background: BTreeMap<(Job, Option<KeyspaceId>), Error>,
    /// How often each has failed to sync its output since it last succeeded.
    failed_syncs: BTreeMap<Job, u32>,
}

/// Background work that can fail and be tried again; each has its own last failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    Flush,
    Compaction,
    LogUpkeep,
    Manifest,
    ManifestRotation,
}

impl HealthState {
    pub(crate) fn new(listener: Listener, signals: Arc<Signals>) -> Self {
        Self {
            door: AtomicU8::new(GOOD),
            causes: Mutex::default(),
            listener,
            signals,
            origin: Origin::here(),
        }
    }

    /// Fails if the database is closed, or open in a parent of this process. Two plain loads.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.door.load(Ordering::Relaxed) == CLOSED || self.origin.is_inherited() {
            return Err(self.refusal());
        }
        Ok(())
    }

    /// Whether this process was forked from the one that opened the database: then no lock of it
    /// may be taken, and nothing of it touched.
    pub(crate) fn is_inherited(&self) -> bool {
        self.origin.is_inherited()
    }

    /// Fails if no write may begin.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`; a writer that learns of a failed sync from
        // a waiter finds the door shut.
        if self.door.load(Ordering::Acquire) == GOOD && !self.origin.is_inherited() && !is_telling()
        {
            return Ok(());
        }
        Err(self.refusal())
    }

    #[cold]
    fn refusal(&self) -> Error {
        if self.origin.is_inherited() {
            return inherited();
        }
        if self.door.load(Ordering::Relaxed) == CLOSED {
            return closed();
        }
        if is_telling() {
            return Error::invalid_argument("a listener may only read the database")
                .with_outcome(WriteOutcome::Rejected);
        }
        let causes = self.causes.lock();
        let Some(cause) = causes.poison.clone() else {
            return Error::new(
                ErrorKind::Unsupported,
                "the database was opened for reading only; open it with `Db::open` to write",
            )
            .with_outcome(WriteOutcome::Rejected);
        };
        Error::new(
            ErrorKind::Poisoned,
            "an earlier failure closed the database for writes; reopen it",
        )
        .with_source(cause)
        .with_outcome(WriteOutcome::Rejected)
    }

    /// Closes the door for writes, for good. The first cause stays.
    pub(crate) fn poison(&self, cause: &Error) {
        let mut causes = self.causes.lock();
        if causes.poison.is_some() {
            return;
        }
        causes.poison = Some(cause.clone());
        // Release: pairs with the Acquire in `check_writable`. A closed database stays closed.
        let _ = self
            .door
            .compare_exchange(GOOD, POISONED, Ordering::Release, Ordering::Relaxed);
        drop(causes);
        // Whoever poisons it, and wherever: those who wait for the background learn of it.
        self.signals.progress.ring();
        trace::poisoned(cause);
        self.listener.tell(|| Event::Poisoned {
            error: cause.clone(),
        });
    }

    /// Lets no write through from the start. Only before anybody else has it.
    pub(crate) fn set_read_only(&self) {
        self.door.store(READ_ONLY, Ordering::Release);
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.door.load(Ordering::Acquire) == READ_ONLY
    }

    /// Closes everything. Returns whether it was open.
    pub(crate) fn close(&self) -> bool {
        self.door.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// Notes the failure of a job that will be tried again.
    pub(crate) fn job_failed(&self, job: Job, error: Error) {
        let mut causes = self.causes.lock();
        causes.background.insert((job, None), error.clone());
        drop(causes);
        self.sync_failed(job, &error);
        trace::background_failed(&error);
        self.listener.tell(|| Event::BackgroundError { error });
    }

    /// Counts an output that could not be synced. The first was discarded and made anew; a disk
    /// that fails again is not trusted any more.
    pub(crate) fn sync_failed(&self, job: Job, error: &Error) {
        if !error.is_failed_sync() || error.is_no_space() {
            return;
        }
        let is_poison = {
            let mut causes = self.causes.lock();
            let count = causes.failed_syncs.entry(job).or_default();
            *count += 1;
            *count >= FAILED_SYNC_COUNT_MAX
        };
        if is_poison {
            self.poison(error);
        }
    }

    /// Notes that a job succeeded: its last failure is over.
    pub(crate) fn job_succeeded(&self, job: Job) {
        let mut causes = self.causes.lock();
        causes.background.remove(&(job, None));
        causes.failed_syncs.remove(&job);
    }

    /// Notes the failure of a job of one keyspace.
    pub(crate) fn job_failed_in(&self, job: Job, keyspace: KeyspaceId, error: Error) {
        let mut causes = self.causes.lock();
        let key = (job, Some(keyspace));
        causes.background.insert(key, error.clone());
        drop(causes);
        self.sync_failed(job, &error);
        trace::background_failed(&error);
        self.listener.tell(|| Event::BackgroundError { error });
    }

    /// Notes that a job of one keyspace succeeded, or that there is nothing left to do for it.
    pub(crate) fn job_succeeded_in(&self, job: Job, keyspace: KeyspaceId) {
        let mut causes = self.causes.lock();
        causes.background.remove(&(job, Some(keyspace)));
        causes.failed_syncs.remove(&job);
    }

    /// Notes that a keyspace was dropped: no failure of its jobs counts any more.
    pub(crate) fn forget_keyspace(&self, keyspace: KeyspaceId) {
        let mut causes = self.causes.lock();
        causes
            .background
            .retain(|(_, failing), _| *failing != Some(keyspace));
    }

    /// Why one kind of job is not getting on, in whatever keyspace, if so.
    pub(crate) fn job_anywhere(&self, job: Job) -> Option<Error> {
        let causes = self.causes.lock();
        let mut failed = causes.background.iter();
        let found = failed.find(|((failing, _), _)| *failing == job);
        found.map(|(_, error)| error.clone())
    }

    /// Whether one kind of job found no space, in whatever keyspace.
    pub(crate) fn is_full_for(&self, job: Job) -> bool {
        let causes = self.causes.lock();
        let mut failed = causes.background.iter();
        failed.any(|((failing, _), error)| *failing == job && error.is_no_space())
    }

    /// Why flush or compaction of one keyspace is not getting on, if so.
    pub(crate) fn background_in(&self, keyspace: KeyspaceId) -> Option<Error> {
        let causes = self.causes.lock();
        let mut failed = causes.background.iter();
        let found = failed.find(|((_, id), _)| *id == Some(keyspace));
        found.map(|(_, error)| error.clone())
    }

    /// Why one kind of job of one keyspace is not getting on, if so.
    pub(crate) fn job_in(&self, job: Job, keyspace: KeyspaceId) -> Option<Error> {
        let causes = self.causes.lock();
        causes.background.get(&(job, Some(keyspace))).cloned()
    }

    /// Why flush or compaction is not getting on, if so.
    pub(crate) fn background(&self) -> Option<Error> {
        self.causes.lock().background.values().next().cloned()
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.causes.lock().poison.is_some()
    }

    pub(crate) fn report(&self) -> Health {
        if self.door.load(Ordering::Acquire) == CLOSED || self.origin.is_inherited() {
            return Health::Closed;
        }
        let causes = self.causes.lock();
        match (&causes.poison, causes.background.values().next()) {
            (Some(error), _) => Health::Poisoned(error.clone()),
            (None, Some(error)) => Health::Degraded(error.clone()),
            (None, None) => Health::Good,
        }
    }
}

fn inherited() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the database was opened before a fork and is open in the parent process only",
    )
    .with_outcome(WriteOutcome::Rejected)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database was closed").with_outcome(WriteOutcome::Rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_over_when_the_same_job_succeeds() {
        let health = HealthState::new(Listener::default(), Arc::default());
        health.job_failed(Job::Flush, Error::new(ErrorKind::NoSpace, "no room"));
        health.job_succeeded(Job::Compaction);
        assert!(matches!(health.report(), Health::Degraded(_)));
        assert!(health.check_writable().is_ok());
        health.job_succeeded(Job::Flush);
        assert!(matches!(health.report(), Health::Good));
    }

    #[test]
    fn the_first_poison_stays_and_a_close_ends_everything() {
        let health = HealthState::new(Listener::default(), Arc::default());
        health.poison(&Error::new(ErrorKind::Io, "sync failed"));
        health.poison(&Error::new(ErrorKind::Io, "another"));
        let refusal = health.check_writable().expect_err("poisoned");
        assert_eq!(refusal.kind(), ErrorKind::Poisoned);
        assert!(refusal.to_string().contains("sync failed"), "{refusal}");
        assert!(health.check_open().is_ok(), "reads go on");
        assert!(health.close());
        assert_eq!(
            health.check_open().expect_err("closed").kind(),
            ErrorKind::Closed
        );
    }
}
