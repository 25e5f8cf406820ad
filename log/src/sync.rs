//! Group sync: threads that wait for durability share one sync.
//!
//! One syncer at a time, which is one of the waiters itself: no hand-over, no extra thread. Whoever
//! comes while it is under way waits for the next one, which covers everybody who came meanwhile.
//!
//! Writers that commit in a closed loop would split into two groups, one at work while the other
//! waits for its sync, and each sync would serve half of them. So the syncer looks out for a moment
//! for those who were there when the last sync ended.

use base::clock::Clock;
use base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use base::sync::{Arc, Bell, Mutex};
use base::{Error, Result};

use crate::record::Position;

/// How long the syncer looks at most whether the writers of the last round have come back, giving
/// way to them each time; and no longer than this part of what the last sync took. Eight writers
/// on two processors come back within 60 us; whoever is missed waits for a whole sync more.
const LOOK_OUT_NANOS_MAX: u64 = 100_000;
const LOOK_OUT_PART: u64 = 2;
/// It looks no more often than this, should the clock stand still.
const LOOK_COUNT_MAX: u32 = 200;

/// How far the log is durable, and who is making it more so.
#[derive(Debug)]
pub(crate) struct GroupSync {
    /// Raised under the lock of `state`, once there is a failure in it.
    is_failed: AtomicBool,
    /// How many wait for the next sync. Written under the lock of `state`.
    waiting: AtomicUsize,
    /// Those who were counted in a round before this one have what they wait for, whatever fails
    /// later. Written under the lock of `state`.
    served_rounds: AtomicU64,
    state: Mutex<SyncState>,
    /// Rung when a sync has ended, and at a failure.
    ended: Bell,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct SyncState {
    durable_upto: Position,
    is_syncing: bool,
    sync_count: u64,
    /// How long the last one took.
    sync_nanos: u64,
    /// Rises whenever a sync takes in those who wait.
    round: u64,
    /// The furthest that those wait for who were not taken in yet.
    wanted: Position,
    /// How many were served by the last sync or came while it was under way.
    expected: usize,
    failed: Option<Error>,
}

impl GroupSync {
    pub(crate) fn new(durable_upto: Position, clock: Arc<dyn Clock>) -> Self {
        let state = SyncState {
            durable_upto,
            is_syncing: false,
            sync_count: 0,
            sync_nanos: 0,
            round: 0,
            wanted: Position::default(),
            expected: 0,
            failed: None,
        };
        Self {
            is_failed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            served_rounds: AtomicU64::new(0),
            state: Mutex::new(state),
            ended: Bell::new(),
            clock,
        }
    }

    pub(crate) fn durable_upto(&self) -> Position {
        self.state.lock().durable_upto
    }

    /// Says why it will never be durable any further, if so. Costs one load while it can be.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        // Acquire: pairs with the Release in `fail_locked`.
        if self.is_failed.load(Ordering::Acquire) {
            return self.failed().map_or(Ok(()), Err);
        }
        Ok(())
    }

    pub(crate) fn sync_count(&self) -> u64 {
        self.state.lock().sync_count
    }

    pub(crate) fn failed(&self) -> Option<Error> {
        self.state.lock().failed.clone()
    }

    /// Fails everybody who waits and everybody who comes, with the first cause.
    pub(crate) fn poison(&self, error: &Error) {
        self.fail_locked(&mut self.state.lock(), || error.clone());
        self.ended.ring();
    }

    fn fail_locked(&self, state: &mut SyncState, error: impl FnOnce() -> Error) {
        state.failed.get_or_insert_with(error);
        self.is_failed.store(true, Ordering::Release);
    }

    /// Returns once everything before `target` is durable.
    ///
    /// `sync` makes durable what was appended before it was called, up to the position it is given
    /// at least, and says up to where; it is never called by two threads at once, and never again
    /// after it failed.
    pub(crate) fn reach(
        &self,
        target: Position,
        sync: impl Fn(Position) -> Result<Position>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        // The round for which this thread was counted as waiting.
        let mut counted = None;
        loop {
            // INVARIANT: the failure is looked at before the position. A sync that failed has made
            // nothing more durable, but one that overlapped it may not acknowledge either.
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.durable_upto >= target {
                return Ok(());
            }
            // Who was counted and taken in by the sync under way is not counted again.
            if counted.is_none_or(|round| round != state.round && !state.is_syncing) {
                counted = Some(state.round);
                state.wanted = state.wanted.max(target);
                self.waiting.fetch_add(1, Ordering::Relaxed);
            }
            if state.is_syncing {
                // Seen under the lock: it is rung once the sync under way has ended.
                let seen = self.ended.epoch();
                drop(state);
                self.ended.wait_past(seen, None);
                if counted.is_some_and(|round| self.is_served(round)) {
                    return Ok(());
                }
                state = self.state.lock();
                continue;
            }
            state.is_syncing = true;
            let (expected, look_out_nanos) = (state.expected, state.look_out_nanos());
            drop(state);
            let mut syncing = Syncing {
                group: self,
                is_done: false,
            };
            self.look_out_for(expected, look_out_nanos);
            let (served, wanted) = self.take_in();
            let began = self.clock.monotonic_nanos();
            let reached = sync(wanted);
            let sync_nanos = self.clock.monotonic_nanos().saturating_sub(began);
            state = self.state.lock();
            // INVARIANT: a failure is known before the next sync can begin: that one could succeed
            // and acknowledge what the failed one has lost.
            syncing.is_done = true;
            state.is_syncing = false;
            state.expected = served + self.waiting.load(Ordering::Relaxed);
            self.note_locked(&mut state, reached, wanted, sync_nanos);
            // Without the lock: those who are woken take it.
            drop(state);
            self.ended.ring();
            state = self.state.lock();
        }
    }
}

impl GroupSync {
    /// Takes in how a sync ended that took so long.
    fn note_locked(
        &self,
        state: &mut SyncState,
        reached: Result<Position>,
        wanted: Position,
        nanos: u64,
    ) {
        match reached {
            Ok(position) => {
                state.durable_upto = state.durable_upto.max(position);
                state.sync_count += 1;
                state.sync_nanos = nanos;
                // INVARIANT: not after a failure that came while it was under way.
                if state.failed.is_none() && position >= wanted {
                    // Release: pairs with the Acquire in `is_served`.
                    self.served_rounds.store(state.round, Ordering::Release);
                }
            }
            Err(error) => self.fail_locked(state, || error),
        }
    }

    /// Whether a sync has ended well that took in those counted in this round.
    fn is_served(&self, round: u64) -> bool {
        self.served_rounds.load(Ordering::Acquire) > round
    }

    /// Waits until so many wait, but no longer than for a moment.
    fn look_out_for(&self, expected: usize, nanos_max: u64) {
        // Relaxed: it decides only when to begin.
        let have_come = || self.waiting.load(Ordering::Relaxed) >= expected;
        if have_come() {
            return;
        }
        let began = self.clock.monotonic_nanos();
        for _ in 0..LOOK_COUNT_MAX {
            std::thread::yield_now();
            let passed = self.clock.monotonic_nanos().saturating_sub(began);
            if have_come() || passed > nanos_max {
                return;
            }
        }
    }

    /// Takes in everybody who waits now; whoever comes later is for the next sync. Returns how many
    /// they are, and what they wait for.
    fn take_in(&self) -> (usize, Position) {
        let mut state = self.state.lock();
        state.round += 1;
        let wanted = std::mem::take(&mut state.wanted);
        (self.waiting.swap(0, Ordering::Relaxed), wanted)
    }
}

impl SyncState {
    fn look_out_nanos(&self) -> u64 {
        LOOK_OUT_NANOS_MAX.min(self.sync_nanos / LOOK_OUT_PART)
    }
}

/// Gives the syncer's place back when the sync panics: others must not wait for ever.
struct Syncing<'a> {
    group: &'a GroupSync,
    is_done: bool,
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.group.state.lock();
        state.is_syncing = false;
        self.group.fail_locked(&mut state, || {
            Error::new(
                base::ErrorKind::Poisoned,
                "a thread panicked while it synced the log",
            )
        });
        drop(state);
        self.group.ended.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use base::ErrorKind;
    use base::clock::ManualClock;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { ordinal: 0, offset }
    }

    #[test]
    fn waiters_share_syncs_and_nobody_returns_early() {
        let group = GroupSync::new(at(0), Arc::new(ManualClock::new(0)));
        let appended = AtomicU64::new(0);
        let synced = AtomicU64::new(0);
        let calls = AtomicU64::new(0);
        let commits = 8 * 200;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let target = appended.fetch_add(1, Ordering::SeqCst) + 1;
                        let sync = |_| {
                            calls.fetch_add(1, Ordering::SeqCst);
                            let upto = appended.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            synced.store(upto, Ordering::SeqCst);
                            Ok(at(upto))
                        };
                        group.reach(at(target), sync).expect("no failure");
                        assert!(synced.load(Ordering::SeqCst) >= target);
                    }
                });
            }
        });
        assert!(calls.load(Ordering::SeqCst) <= commits);
        assert_eq!(group.durable_upto(), at(commits));
    }

    #[test]
    fn a_sync_looks_out_for_the_writers_of_the_last_one() {
        let group = GroupSync::new(at(0), Arc::new(ManualClock::new(0)));
        group.reach(at(1), |_| Ok(at(1))).expect("fine");
        assert_eq!(group.durable_upto(), at(1));
        assert_eq!(group.state.lock().expected, 1);
        // Three come while the sync of one is under way.
        std::thread::scope(|scope| {
            let come = |target| group.reach(at(target), |_| Ok(at(9))).expect("fine");
            let sync = |_| {
                for target in 3..6 {
                    scope.spawn(move || come(target));
                }
                while group.waiting.load(Ordering::Relaxed) < 3 {
                    std::thread::yield_now();
                }
                Ok(at(2))
            };
            group.reach(at(2), sync).expect("fine");
        });
        // One sync served the three; who comes next looks out for them and not for the first.
        assert_eq!(group.sync_count(), 3);
        assert_eq!(group.state.lock().expected, 3);
        assert_eq!(group.waiting.load(Ordering::Relaxed), 0);
        // They do not come again: it goes on without them.
        group.reach(at(10), |_| Ok(at(10))).expect("fine");
        assert_eq!(group.state.lock().expected, 1);
    }

    #[test]
    fn a_sync_that_a_failure_overtakes_acknowledges_nobody() {
        let group = GroupSync::new(at(0), Arc::new(ManualClock::new(0)));
        std::thread::scope(|scope| {
            let come = || group.reach(at(2), |_| Ok(at(9)));
            let (sent, waiter) = std::sync::mpsc::channel();
            let sync = |_| {
                sent.send(scope.spawn(come)).expect("it is taken");
                while group.waiting.load(Ordering::Relaxed) < 1 {
                    std::thread::yield_now();
                }
                group.poison(&Error::new(ErrorKind::Io, "a write failed"));
                Ok(at(1))
            };
            let error = group.reach(at(1), sync).expect_err("poisoned");
            assert_eq!(error.kind(), ErrorKind::Io);
            let waited = waiter.recv().expect("sent").join().expect("no panic");
            assert_eq!(waited.expect_err("poisoned").kind(), ErrorKind::Io);
        });
        assert!(!group.is_served(0));
    }

    #[test]
    fn a_sync_waits_for_writers_no_longer_than_half_of_the_last() {
        let clock = Arc::new(ManualClock::new(0));
        let group = GroupSync::new(at(0), Arc::clone(&clock) as Arc<dyn Clock>);
        for (target, micros, expected) in [(1, 40, 20), (2, 7, 3), (3, 8_000, 100)] {
            let sync = |_| {
                clock.advance(micros);
                Ok(at(target))
            };
            group.reach(at(target), sync).expect("fine");
            let found = group.state.lock().look_out_nanos();
            assert_eq!(found / 1000, expected, "after a sync of {micros} us");
        }
    }

    #[test]
    fn a_panic_in_a_sync_leaves_nobody_waiting() {
        let group = GroupSync::new(at(0), Arc::new(ManualClock::new(0)));
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| group.reach(at(1), |_| panic!("this one is meant")));
            assert!(panicking.join().is_err());
            for target in 1..=4 {
                let group = &group;
                scope.spawn(move || {
                    let error = group
                        .reach(at(target), |_| Ok(at(9)))
                        .expect_err("poisoned");
                    assert_eq!(error.kind(), ErrorKind::Poisoned);
                });
            }
        });
        assert_eq!(group.durable_upto(), at(0));
    }

    #[test]
    fn a_failure_reaches_every_waiter_and_is_not_tried_again() {
        let group = GroupSync::new(at(0), Arc::new(ManualClock::new(0)));
        let calls = AtomicU64::new(0);
        let fail = |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            Err(Error::new(ErrorKind::Io, "sync failed"))
        };
        std::thread::scope(|scope| {
            for target in 1..=8 {
                let (group, fail) = (&group, &fail);
                scope.spawn(move || {
                    let error = group.reach(at(target), fail).expect_err("failed");
                    assert_eq!(error.kind(), ErrorKind::Io);
                });
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(group.durable_upto(), at(0));
    }
}
