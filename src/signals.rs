//! The bells between the floors: a lower room rings, the background listens.

use base::executor::Worker;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Bell, RwLock};

/// Who is woken for what.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Rung whenever background work got on, failed, or must not be waited for any longer.
    pub(crate) progress: Bell,
    /// A memtable was sealed.
    pub(crate) flush: WorkerSlot,
    /// The tree changed.
    pub(crate) compaction: WorkerSlot,
    /// Level 0 may have become due, or its way down free.
    pub(crate) level0: WorkerSlot,
    /// Something is to be unlinked, freed, sealed or prepared.
    pub(crate) helper: WorkerSlot,
    /// The log needs space ahead of the writers.
    pub(crate) ahead: WorkerSlot,
    failures: AtomicU64,
    /// How many of them were flushes.
    flush_failures: AtomicU64,
}

impl Signals {
    /// Counts a failed flush or compaction and tells those who wait.
    pub(crate) fn job_failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.progress.ring();
    }

    /// How many jobs have failed so far.
    pub(crate) fn failure_count(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Notes that a flush is about to be told as failed.
    pub(crate) fn flush_failed(&self) {
        self.flush_failures.fetch_add(1, Ordering::AcqRel);
    }

    /// How many flushes have failed so far.
    pub(crate) fn flush_failure_count(&self) -> u64 {
        self.flush_failures.load(Ordering::Acquire)
    }

    /// Forgets every worker and returns them, to be stopped.
    pub(crate) fn disconnect(&self) -> Vec<Arc<dyn Worker>> {
        let slots = [
            &self.flush,
            &self.compaction,
            &self.level0,
            &self.helper,
            &self.ahead,
        ];
        slots.into_iter().filter_map(|s| s.set(None)).collect()
    }
}

/// A worker that may not be there yet, or no longer.
#[derive(Debug, Default)]
pub(crate) struct WorkerSlot(RwLock<Option<Arc<dyn Worker>>>);

impl WorkerSlot {
    pub(crate) fn set(&self, worker: Option<Arc<dyn Worker>>) -> Option<Arc<dyn Worker>> {
        std::mem::replace(&mut self.0.write(), worker)
    }

    pub(crate) fn wake(&self) {
        if let Some(worker) = &*self.0.read() {
            worker.wake();
        }
    }
}
