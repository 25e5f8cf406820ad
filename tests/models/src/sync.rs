//! `base::sync` over loom.
//!
//! Locks have the face of those of `parking_lot`: no poison, and a condition variable that takes
//! the guard by reference.

use std::fmt;
use std::ops::{Deref, DerefMut};

pub use std::sync::Arc;

pub mod atomic;
#[rustfmt::skip]
#[path = "../../../base/src/sync/bell.rs"]
mod bell;
mod word;
pub use bell::Bell;

/// Looks once: that more looks do no harm is no matter of schedules.
pub fn spin(_count: u32, mut is_so: impl FnMut() -> bool) -> bool {
    is_so()
}

/// A lock.
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// A lock that is held.
pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Takes the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock();
        MutexGuard(Some(guard.expect("a panic ends the model")))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("given back at once")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("given back at once")
    }
}

/// What threads sleep on.
#[derive(Debug, Default)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    /// One that nobody sleeps on.
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    /// Sleeps until it is woken.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("given back at once");
        guard.0 = Some(self.0.wait(held).expect("a panic ends the model"));
    }

    /// Wakes all who sleep.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
