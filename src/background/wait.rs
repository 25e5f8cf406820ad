//! Waiting for the background, on the thread of a caller.

use base::Result;
use base::sync::Arc;
use base::sync::atomic::Ordering;
use memtable::Memtable;

use super::Background;
use crate::superversion::KeyspaceState;
use crate::tree::Tree;

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
    pub(super) fn wait_for(
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
}
