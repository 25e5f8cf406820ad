//! A model of the futex behind a bell: the system compares the word and puts the thread to sleep in
//! one step, under the same lock under which it wakes; storing to the word needs no lock.

use std::time::Duration;

use super::atomic::{AtomicU32, Ordering};
use super::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Word {
    value: AtomicU32,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl Word {
    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }

    pub(super) fn turn(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
        let sleepers = self.sleepers.lock();
        self.woken.notify_all();
        drop(sleepers);
    }

    pub(super) fn rest(&self, seen: u32, _timeout: Option<Duration>) {
        let mut sleepers = self.sleepers.lock();
        if self.value() == seen {
            self.woken.wait(&mut sleepers);
        }
    }
}
