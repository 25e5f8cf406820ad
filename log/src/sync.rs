//! Group sync: threads that wait for durability share one sync.
//!
//! One syncer at a time, which is one of the waiters itself: no hand-over, no extra thread. Whoever
//! comes while it is under way waits for the next one, which covers everybody who came meanwhile.

use base::sync::atomic::{AtomicBool, Ordering};
use base::sync::{Condvar, Mutex};
use base::{Error, Result};

use crate::record::Position;

/// How far the log is durable, and who is making it more so.
#[derive(Debug)]
pub(crate) struct GroupSync {
    /// Raised under the lock of `state`, once there is a failure in it.
    is_failed: AtomicBool,
    state: Mutex<SyncState>,
    changed: Condvar,
}

#[derive(Debug)]
struct SyncState {
    durable_upto: Position,
    is_syncing: bool,
    sync_count: u64,
    failed: Option<Error>,
}

impl GroupSync {
    pub(crate) fn new(durable_upto: Position) -> Self {
        let state = SyncState {
            durable_upto,
            is_syncing: false,
            sync_count: 0,
            failed: None,
        };
        Self {
            is_failed: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
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
        let mut state = self.state.lock();
        self.fail_locked(&mut state, || error.clone());
        self.changed.notify_all();
    }

    fn fail_locked(&self, state: &mut SyncState, error: impl FnOnce() -> Error) {
        state.failed.get_or_insert_with(error);
        self.is_failed.store(true, Ordering::Release);
    }

    /// Returns once everything before `target` is durable.
    ///
    /// `sync` makes durable whatever was appended before it was called and says up to where; it is
    /// never called by two threads at once, and never again after it failed.
    pub(crate) fn reach(
        &self,
        target: Position,
        sync: impl Fn() -> Result<Position>,
    ) -> Result<Position> {
        let mut state = self.state.lock();
        loop {
            // INVARIANT: the failure is looked at before the position. A sync that failed has made
            // nothing more durable, but one that overlapped it may not acknowledge either.
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.durable_upto >= target {
                return Ok(state.durable_upto);
            }
            if state.is_syncing {
                self.changed.wait(&mut state);
                continue;
            }
            state.is_syncing = true;
            drop(state);
            let mut syncing = Syncing {
                group: self,
                is_done: false,
            };
            let reached = sync();
            state = self.state.lock();
            // INVARIANT: a failure is known before the next sync can begin: that one could succeed
            // and acknowledge what the failed one has lost.
            syncing.is_done = true;
            state.is_syncing = false;
            match reached {
                Ok(position) => {
                    state.durable_upto = state.durable_upto.max(position);
                    state.sync_count += 1;
                }
                Err(error) => {
                    self.fail_locked(&mut state, || error);
                }
            }
            self.changed.notify_all();
        }
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
        self.group.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use base::ErrorKind;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { ordinal: 0, offset }
    }

    #[test]
    fn waiters_share_syncs_and_nobody_returns_early() {
        let group = GroupSync::new(at(0));
        let appended = AtomicU64::new(0);
        let synced = AtomicU64::new(0);
        let calls = AtomicU64::new(0);
        let commits = 8 * 200;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let target = appended.fetch_add(1, Ordering::SeqCst) + 1;
                        let sync = || {
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
    fn a_panic_in_a_sync_leaves_nobody_waiting() {
        let group = GroupSync::new(at(0));
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| group.reach(at(1), || panic!("this one is meant")));
            assert!(panicking.join().is_err());
            for target in 1..=4 {
                let group = &group;
                scope.spawn(move || {
                    let error = group.reach(at(target), || Ok(at(9))).expect_err("poisoned");
                    assert_eq!(error.kind(), ErrorKind::Poisoned);
                });
            }
        });
        assert_eq!(group.durable_upto(), at(0));
    }

    #[test]
    fn a_failure_reaches_every_waiter_and_is_not_tried_again() {
        let group = GroupSync::new(at(0));
        let calls = AtomicU64::new(0);
        let fail = || {
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
