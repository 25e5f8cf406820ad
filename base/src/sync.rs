//! Locks, atomics and bells. Everything above takes them from here, so that a model checker can be
//! put in their place.

use std::time::Duration;

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub use std::sync::Arc;
pub use std::sync::atomic;

use atomic::{AtomicU64, AtomicUsize, Ordering};

/// A counter that can be waited on: lower floors ring it, upper floors listen.
///
/// A listener reads the [`epoch`](Bell::epoch), looks at the state it cares about, and then waits
/// for the epoch to move on; a ring between the look and the wait is not lost. While nobody
/// listens, a ring costs one atomic addition.
#[derive(Debug, Default)]
pub struct Bell {
    epoch: AtomicU64,
    waiting: AtomicUsize,
    /// Taken by whoever waits, and by whoever rings while somebody does.
    door: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the epoch on and wakes every listener.
    pub fn ring(&self) {
        // SeqCst, here and in `wait_past`: either the listener sees the new epoch, or this thread
        // sees the listener.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.door.lock());
            self.rung.notify_all();
        }
    }

    /// How often it has been rung.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Waits until the epoch differs from `seen`, or for `timeout`, or for ever. Returns whether it
    /// was rung.
    pub fn wait_past(&self, seen: u64, timeout: Option<Duration>) -> bool {
        if self.epoch() != seen {
            return true;
        }
        let mut door = self.door.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut is_in_time = true;
        while is_in_time && self.epoch() == seen {
            match timeout {
                None => self.rung.wait(&mut door),
                Some(timeout) => {
                    let is_unrung = |(): &mut ()| self.epoch() == seen;
                    let result = self.rung.wait_while_for(&mut door, is_unrung, timeout);
                    is_in_time = !result.timed_out();
                }
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.epoch() != seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_between_look_and_wait_is_not_lost() {
        let bell = Bell::new();
        let seen = bell.epoch();
        bell.ring();
        assert!(bell.wait_past(seen, None));
        assert!(!bell.wait_past(bell.epoch(), Some(Duration::from_micros(1))));
    }

    #[test]
    fn two_threads_that_ring_for_each_other_both_get_on() {
        let (ping, pong) = (Bell::new(), Bell::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000 {
                    ping.wait_past(round, None);
                    pong.ring();
                }
            });
            for round in 0..20_000 {
                ping.ring();
                pong.wait_past(round, None);
            }
        });
        assert_eq!((ping.epoch(), pong.epoch()), (20_000, 20_000));
    }
}
