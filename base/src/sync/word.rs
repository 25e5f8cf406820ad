//! A word that threads sleep on until it is turned; one call of the system wakes them all.
//!
//! A condition variable wakes one after the other: each takes the lock, gives it back, and so lets
//! the next one run. Called by `Bell` alone.

use std::time::Duration;

use super::atomic::{AtomicU32, Ordering};
#[cfg(not(target_os = "linux"))]
use super::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Word {
    value: AtomicU32,
    #[cfg(not(target_os = "linux"))]
    door: Mutex<()>,
    #[cfg(not(target_os = "linux"))]
    turned: Condvar,
}

impl Word {
    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }
}

#[cfg(target_os = "linux")]
impl Word {
    /// Wakes everybody who sleeps, and lets nobody sleep who has seen an older value.
    pub(super) fn turn(&self) {
        use rustix::thread::futex;
        self.value.fetch_add(1, Ordering::SeqCst);
        // It fails only for words that are none.
        let _ = futex::wake(&self.value, futex::Flags::PRIVATE, i32::MAX.cast_unsigned());
    }

    /// Sleeps until the word is not `seen`, or for `timeout`; may wake earlier.
    pub(super) fn rest(&self, seen: u32, timeout: Option<Duration>) {
        use rustix::thread::futex;
        // What is too long to be said is as good as for ever.
        let timeout = timeout.and_then(|timeout| futex::Timespec::try_from(timeout).ok());
        // An interruption, a timeout and a word that was turned are all for the caller to see.
        let _ = futex::wait(&self.value, futex::Flags::PRIVATE, seen, timeout.as_ref());
    }
}

#[cfg(not(target_os = "linux"))]
impl Word {
    pub(super) fn turn(&self) {
        {
            let _door = self.door.lock();
            self.value.fetch_add(1, Ordering::SeqCst);
        }
        self.turned.notify_all();
    }

    pub(super) fn rest(&self, seen: u32, timeout: Option<Duration>) {
        let mut door = self.door.lock();
        if self.value() != seen {
            return;
        }
        match timeout {
            None => self.turned.wait(&mut door),
            Some(timeout) => {
                self.turned.wait_for(&mut door, timeout);
            }
        }
    }
}
