//! Waiting for the background, on the thread of a caller.

use base::sync::Arc;
use base::sync::atomic::Ordering;
use base::{Error, Result};
use memtable::Memtable;

use super::Background;
use crate::health::Job;
use crate::superversion::KeyspaceState;
use crate::tree::Tree;

/// What somebody waits for, and so whose failure ends the wait.
#[derive(Clone, Copy)]
pub(super) enum Waited<'a> {
    /// A flush of this keyspace. That its tree cannot be compacted is no reason to give up.
    Flush(&'a KeyspaceState),
    /// The end of what is in the way of a compaction of this keyspace, well or badly.
    Room(&'a KeyspaceState),
    /// Whatever there is to do.
    Anything,
}

impl Background {
    /// Waits until `memtable` is in a table.
    pub(crate) fn wait_for_flush(
        &self,
        keyspace: &KeyspaceState,
        memtable: &Arc<Memtable>,
    ) -> Result<()> {
        self.is_flush_asked.store(true, Ordering::Release);
        self.is_compaction_asked.store(true, Ordering::Release);
        self.signals.flush.wake();
        self.wait_for(Waited::Flush(keyspace), &mut || {
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
        self.wait_for(Waited::Anything, &mut || {
            let keyspaces = &self.keyspaces;
            let is_at_rest = |k: &Arc<KeyspaceState>| Tree::is_at_rest(k, &self.snapshots);
            keyspaces.to_flush.is_empty()
                && keyspaces.to_compact.is_empty()
                && keyspaces.all().iter().all(is_at_rest)
        })
    }

    /// Waits for background progress until `done`, or until what is waited for fails.
    pub(super) fn wait_for(
        &self,
        waited: Waited<'_>,
        done: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let failures_before = self.failures_of(waited);
        let mut result = Ok(());
        self.executor.wait(&self.signals.progress, &mut || {
            if let Waited::Flush(keyspace) | Waited::Room(keyspace) = waited
                && let Err(error) = keyspace.check_writable()
            {
                result = Err(error);
                return true;
            }
            if done() {
                return true;
            }
            if let Err(error) = self
                .health
                .check_writable()
                .and_then(|()| self.check_going())
            {
                result = Err(error);
                return true;
            }
            if self.failures_of(waited) != failures_before {
                result = self.cause_of(waited).map_or(Ok(()), Err);
                return result.is_err();
            }
            false
        });
        result
    }

    fn failures_of(&self, waited: Waited<'_>) -> u64 {
        match waited {
            Waited::Flush(keyspace) => keyspace.flush_failure_count(),
            Waited::Room(_) => 0,
            Waited::Anything => self.signals.failure_count(),
        }
    }

    fn cause_of(&self, waited: Waited<'_>) -> Option<Error> {
        match waited {
            Waited::Flush(keyspace) => self.health.job_in(Job::Flush, keyspace.id),
            Waited::Room(_) => None,
            Waited::Anything => self.health.background(),
        }
    }
}
