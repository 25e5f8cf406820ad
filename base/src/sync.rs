//! Locks, atomics and bells. Everything above takes them from here, so that a model checker can be
//! put in their place.

use std::time::Duration;

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub use std::sync::Arc;
pub use std::sync::atomic;

/// A counter that can be waited on: lower floors ring it, upper floors listen.
///
/// A listener reads the [`epoch`](Bell::epoch), looks at the state it cares about, and then waits
/// for the epoch to move on; a ring between the look and the wait is not lost.
#[derive(Debug, Default)]
pub struct Bell {
    epoch: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the epoch on and wakes every listener.
    pub fn ring(&self) {
        *self.epoch.lock() += 1;
        self.rung.notify_all();
    }

    /// How often it has been rung.
    pub fn epoch(&self) -> u64 {
        *self.epoch.lock()
    }

    /// Waits until the epoch differs from `seen`, or for `timeout`, or for ever. Returns whether it
    /// was rung.
    pub fn wait_past(&self, seen: u64, timeout: Option<Duration>) -> bool {
        let mut epoch = self.epoch.lock();
        while *epoch == seen {
            match timeout {
                None => self.rung.wait(&mut epoch),
                Some(timeout) => {
                    let result = self
                        .rung
                        .wait_while_for(&mut epoch, |e| *e == seen, timeout);
                    if result.timed_out() {
                        return *epoch != seen;
                    }
                }
            }
        }
        true
    }
}
