//! The gate before the write path: writers pay or wait here when flush or compaction is behind.
//!
//! How much is `throttle`'s to say, who pays when is kept by the `till` of each keyspace; here are
//! the clock, the waits, and what ends them: progress, failure, poison, a close, a deadline.

use std::time::Duration;

use base::clock::Clock;
use base::executor::Executor;
use base::sync::Arc;
use base::sync::atomic::{AtomicUsize, Ordering};
use base::{Error, ErrorKind, Result, WriteOutcome};

use crate::batch::WriteBatch;
use crate::events::{Event, Listener};
use crate::health::{HealthState, Job};
use crate::ledger::Ledger;
use crate::registry::Keyspaces;
use crate::signals::Signals;
use crate::superversion::KeyspaceState;
use crate::throttle::{ThrottleCause, Throttled, Verdict};
use crate::till::{Bill, Charge};
use crate::trace;

mod judge;
use judge::Counter;

/// What an entry takes in a memtable beside its key and value, by estimate.
const ENTRY_BYTES: u64 = 48;

/// A keyspace that a write touches, and with how many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Toll<'a> {
    pub(crate) keyspace: &'a KeyspaceState,
    pub(crate) bytes: u64,
    pub(crate) op_count: u64,
    /// Set at the gate.
    is_charged: bool,
}

impl<'a> Toll<'a> {
    /// Of a write of nothing.
    pub(crate) fn new(keyspace: &'a KeyspaceState) -> Self {
        Self {
            keyspace,
            bytes: 0,
            op_count: 0,
            is_charged: false,
        }
    }

    /// Of a write to one keyspace.
    pub(crate) fn of_batch(keyspace: &'a KeyspaceState, batch: &WriteBatch) -> Self {
        Self {
            bytes: batch.user_bytes(),
            op_count: u64::from(batch.op_count()),
            ..Self::new(keyspace)
        }
    }
}

/// How long a write may wait at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Patience {
    /// As long as it takes.
    #[default]
    Endless,
    AtMost(Duration),
}

impl Patience {
    fn longest(self) -> Option<Duration> {
        match self {
            Self::Endless => None,
            Self::AtMost(longest) => Some(longest),
        }
    }

    /// What is left of it after a wait.
    fn after(self, waited: Option<Throttled>) -> Self {
        match (self, waited) {
            (Self::AtMost(longest), Some(waited)) => {
                Self::AtMost(longest.saturating_sub(Duration::from_micros(waited.micros)))
            }
            _ => self,
        }
    }
}

/// What a write paid at one till.
#[derive(Clone, Copy, Debug)]
struct Payment {
    waited: Option<Throttled>,
    is_charged: bool,
}

/// Lets writers pass, lets them pay, or makes them wait.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) keyspaces: Arc<Keyspaces>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) listener: Listener,
    pub(crate) waiting: AtomicUsize,
}

impl Gate {
    /// Passes, pays or waits, for each keyspace that the write touches and for the memory that all
    /// share. Returns what it paid. A write that is refused is charged nowhere.
    ///
    /// Costs one relaxed load a keyspace and one for memory while nothing is behind.
    ///
    /// # Errors
    /// `Busy` if it would have to wait for longer than `patience` allows. If the database was
    /// closed or poisoned, or if the work it would wait for keeps failing: then with the cause, for
    /// instance `NoSpace`. The write is rejected.
    #[inline]
    pub(crate) fn pass(
        &self,
        tolls: &mut [Toll<'_>],
        patience: Patience,
    ) -> Result<Option<Throttled>> {
        let result = self.pass_all(tolls, patience);
        if result.is_err() {
            for toll in tolls.iter().filter(|toll| toll.is_charged) {
                toll.keyspace.till.refund(toll.bytes);
            }
        }
        result
    }

    #[inline]
    fn pass_all(&self, tolls: &mut [Toll<'_>], patience: Patience) -> Result<Option<Throttled>> {
        let (mut paid, mut last, mut weight) = (None, None, 0);
        for toll in tolls {
            last = Some(toll.keyspace);
            weight += toll.bytes + toll.op_count * ENTRY_BYTES;
            let till = &toll.keyspace.till;
            if till.is_open() {
                continue;
            }
            toll.is_charged = till.spend_unseen(toll.bytes);
            if !toll.is_charged {
                let counter = Counter::Keyspace(toll.keyspace);
                let payment = self.pay(counter, toll.bytes, patience.after(paid))?;
                toll.is_charged = payment.is_charged;
                paid = worse(paid, payment.waited);
            }
        }
        let till = self.keyspaces.memory_till();
        if !till.is_open()
            && !till.spend_unseen(weight)
            && let Some(keyspace) = last
        {
            let counter = Counter::Memory(&self.keyspaces, keyspace);
            let payment = self.pay(counter, weight, patience.after(paid))?;
            paid = worse(paid, payment.waited);
        }
        Ok(paid)
    }

    #[cold]
    fn pay(&self, counter: Counter<'_>, bytes: u64, patience: Patience) -> Result<Payment> {
        let (stopped, verdict) = match self.look(counter) {
            Verdict::Stop(cause) => {
                let waited = self.wait(counter, cause, patience)?;
                (Some(waited), counter.till().verdict())
            }
            verdict => (None, verdict),
        };
        match verdict {
            // Also whoever waited for the end of a stop: all that it lets go at once would
            // otherwise come at no pace at all.
            Verdict::Slow(pace) => {
                let patience = patience.after(stopped);
                let payment = self.pay_slowed(counter, bytes, pace.cause, patience)?;
                return Ok(Payment {
                    waited: worse(stopped, payment.waited),
                    ..payment
                });
            }
            // The next one has begun: nobody waits for two.
            Verdict::Stop(_) => {}
            Verdict::Free => {
                let now = self.clock.monotonic_micros();
                counter.till().clear(now, counter.watch_bytes());
            }
        }
        Ok(Payment {
            waited: stopped,
            is_charged: false,
        })
    }

    /// Pays what is owed for writes up to this one, by waiting for milliseconds.
    fn pay_slowed(
        &self,
        counter: Counter<'_>,
        bytes: u64,
        cause: ThrottleCause,
        patience: Patience,
    ) -> Result<Payment> {
        let till = counter.till();
        let began = self.clock.monotonic_micros();
        let bill = till.charge(Charge {
            now_micros: began,
            bytes,
            longest: patience.longest(),
        });
        let waited = match bill {
            Bill::Refused => return Err(busy(cause)),
            Bill::Free | Bill::Paid => None,
            Bill::Wait(owed) => {
                self.executor.pause(owed);
                let ended = self.clock.monotonic_micros();
                till.grant(began..ended);
                let micros = ended.saturating_sub(began);
                let throttled = Throttled { cause, micros };
                self.ledger.add_throttle(throttled);
                Some(throttled)
            }
        };
        Ok(Payment {
            waited,
            is_charged: bill != Bill::Free,
        })
    }

    /// Makes a new verdict, and tells if writes come to be held back, or no longer are.
    fn look(&self, counter: Counter<'_>) -> Verdict {
        let now = self.clock.monotonic_micros();
        let turn = counter.till().look(now, |speeds| counter.judge(speeds));
        let keyspace = || String::from(&*counter.keyspace().name);
        match (turn.before.cause(), turn.now.cause()) {
            (None, Some(cause)) => {
                trace::throttled(&counter.keyspace().name, Some(cause));
                self.listener.tell(|| Event::ThrottleBegan {
                    keyspace: keyspace(),
                    cause,
                });
            }
            (Some(cause), None) => {
                trace::throttled(&counter.keyspace().name, None);
                self.listener.tell(|| Event::ThrottleEnded {
                    keyspace: keyspace(),
                    cause,
                });
            }
            _ => {}
        }
        turn.now
    }

    #[cold]
    fn wait(
        &self,
        counter: Counter<'_>,
        cause: ThrottleCause,
        patience: Patience,
    ) -> Result<Throttled> {
        if patience == Patience::AtMost(Duration::ZERO) {
            return Err(busy(cause));
        }
        let began = self.clock.monotonic_micros();
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            let keyspace = String::from(&*counter.keyspace().name);
            self.listener.tell(|| Event::StallBegan { keyspace, cause });
        }
        let result = self.wait_for_progress(counter, patience);
        let micros = self.clock.monotonic_micros().saturating_sub(began);
        let throttled = Throttled { cause, micros };
        self.ledger.add_stall(throttled);
        trace::stalled(&counter.keyspace().name, throttled);
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.listener.tell(|| Event::StallEnded { micros });
        }
        match result {
            Ok(true) => Ok(throttled),
            Ok(false) => Err(busy(cause)),
            Err(error) => Err(refused(error)),
        }
    }

    /// Returns whether there is progress enough to go on, rather than no patience left.
    fn wait_for_progress(&self, counter: Counter<'_>, patience: Patience) -> Result<bool> {
        let keyspace = counter.keyspace();
        let before = self.failures(keyspace);
        let mut failed = None;
        // Once: whatever is done from here on wakes what it makes possible. A writer that woke them
        // again at each ring would keep them running in a circle.
        self.signals.flush.wake();
        self.signals.compaction.wake();
        let mut done = || {
            if let Err(error) = self.health.check_writable() {
                failed = Some(error);
                return true;
            }
            if keyspace.check_writable().is_err() {
                // Dropped: the commit itself finds it out.
                return true;
            }
            let Verdict::Stop(cause) = self.look(counter) else {
                return true;
            };
            failed = self.failure_behind(cause, keyspace, before);
            failed.is_some()
        };
        let bell = &self.signals.progress;
        let is_done = match patience {
            Patience::Endless => {
                self.executor.wait(bell, &mut done);
                true
            }
            Patience::AtMost(longest) => self.executor.wait_for(bell, longest, &mut done),
        };
        failed.map_or(Ok(is_done), Err)
    }

    fn failures(&self, keyspace: &KeyspaceState) -> Failures {
        Failures {
            jobs: keyspace.failure_count(),
            flushes: keyspace.flush_failure_count(),
            flushes_of_all: self.signals.flush_failure_count(),
        }
    }

    /// Why a stop for `cause` will not end soon, if so: what would end it has failed since
    /// `before`. That something else fails is no reason to refuse a write.
    fn failure_behind(
        &self,
        cause: ThrottleCause,
        keyspace: &KeyspaceState,
        before: Failures,
    ) -> Option<Error> {
        let now = self.failures(keyspace);
        match cause {
            ThrottleCause::Memtables if now.flushes != before.flushes => {
                self.health.job_in(Job::Flush, keyspace.id)
            }
            // Any keyspace may hold what is waited for.
            ThrottleCause::Memory if now.flushes_of_all != before.flushes_of_all => {
                self.health.job_anywhere(Job::Flush)
            }
            ThrottleCause::Level0 | ThrottleCause::Debt if now.jobs != before.jobs => {
                self.health.background_in(keyspace.id)
            }
            _ => None,
        }
    }
}

/// How many jobs have failed so far.
#[derive(Clone, Copy, Debug)]
struct Failures {
    /// Of one keyspace.
    jobs: u64,
    /// Those of them that were flushes.
    flushes: u64,
    /// The flushes of all keyspaces.
    flushes_of_all: u64,
}

/// Both together, under the cause that took longer.
fn worse(before: Option<Throttled>, now: Option<Throttled>) -> Option<Throttled> {
    let (Some(a), Some(b)) = (before, now) else {
        return before.or(now);
    };
    let cause = if a.micros >= b.micros {
        a.cause
    } else {
        b.cause
    };
    let micros = a.micros + b.micros;
    Some(Throttled { cause, micros })
}

#[cold]
fn busy(cause: ThrottleCause) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("the write would have to wait: {cause}"),
    )
    .with_outcome(WriteOutcome::Rejected)
}

fn refused(error: Error) -> Error {
    error
        .context("the write would wait for background work that fails")
        .with_outcome(WriteOutcome::Rejected)
}
