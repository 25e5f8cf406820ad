//! The gate before the write path: writers wait here when flush or compaction is too far behind.

use base::clock::Clock;
use base::executor::Executor;
use base::sync::Arc;
use base::sync::atomic::{AtomicUsize, Ordering};
use base::{Error, Level, Result, WriteOutcome};

use crate::events::{Event, Listener};
use crate::health::HealthState;
use crate::ledger::{Counter, Ledger};
use crate::signals::Signals;
use crate::superversion::KeyspaceState;

/// Lets writers pass or makes them wait.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) listener: Listener,
    pub(crate) waiting: AtomicUsize,
}

impl Gate {
    /// Why a write to `keyspace` may not go on now.
    fn obstacle(keyspace: &KeyspaceState) -> Option<&'static str> {
        let (view, settings) = (keyspace.peek(), keyspace.settings());
        if view.sealed.len() > settings.sealed_memtable_count_max {
            Some("memtables wait to be flushed")
        } else if view.version.level(Level::ZERO).len() >= settings.level0_table_count_max {
            Some("level 0 waits to be compacted")
        } else {
            None
        }
    }

    /// Passes, or waits for background work.
    ///
    /// # Errors
    /// If the database was closed or poisoned, or if the work it would wait for keeps failing: then
    /// with the cause, for instance `NoSpace`.
    #[inline]
    pub(crate) fn pass(&self, keyspace: &KeyspaceState) -> Result<()> {
        match Self::obstacle(keyspace) {
            None => Ok(()),
            Some(cause) => self.wait(keyspace, cause),
        }
    }

    #[cold]
    fn wait(&self, keyspace: &KeyspaceState, cause: &'static str) -> Result<()> {
        let begin = self.clock.monotonic_micros();
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.listener.tell(|| Event::StallBegan { cause });
        }
        let failures = self.signals.failure_count();
        let mut failed = None;
        self.executor.wait(&self.signals.progress, &mut || {
            if let Err(error) = self.health.check_writable() {
                failed = Some(error);
            } else if self.signals.failure_count() != failures {
                failed = self.health.background();
            }
            if failed.is_none() && Self::obstacle(keyspace).is_some() {
                self.signals.flush.wake();
                self.signals.compaction.wake();
                return false;
            }
            true
        });
        let micros = self.clock.monotonic_micros().saturating_sub(begin);
        self.ledger.add(Counter::StallMicros, micros);
        self.ledger.add(Counter::StallCount, 1);
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.listener.tell(|| Event::StallEnded { micros });
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(refused(error)),
        }
    }
}

fn refused(error: Error) -> Error {
    error
        .context("the write would wait for background work that fails")
        .with_outcome(WriteOutcome::Rejected)
}
