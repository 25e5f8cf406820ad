//! Ctrl-C: the first asks to stop at a sound place, the second stops at once.

use std::time::Duration;

use base::sync::atomic::{AtomicBool, Ordering};
use base::sync::{Arc, Bell};

use super::failure::{Failure, Outcome};
use crate::interrupt::EXIT_INTERRUPTED;
use crate::say::say;

/// Set once the user, or whoever ends the process, wants it to stop. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_set: AtomicBool,
    bell: Bell,
}

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on. To be called once.
    pub(crate) fn listen() -> Self {
        let tell = || say("interrupted: ending where that is sound (again to quit at once)");
        Self::listen_and(tell, || {})
    }

    /// The same for a command that is meant to be ended so, and says nothing.
    pub(crate) fn listen_in_silence() -> Self {
        Self::listen_and(|| {}, || {})
    }

    /// The same, with something that must be put in order before a second signal ends the process.
    pub(crate) fn listen_and_restore(restore: impl Fn() + Send + 'static) -> Self {
        Self::listen_and(|| {}, restore)
    }

    fn listen_and(tell: impl Fn() + Send + 'static, restore: impl Fn() + Send + 'static) -> Self {
        let interrupt = Self::default();
        let seen = interrupt.clone();
        let handler = move || {
            if seen.set() {
                restore();
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
            tell();
        };
        // Without a handler the signal ends the process, which loses nothing that was promised.
        let _ = ctrlc::set_handler(handler);
        interrupt
    }

    /// Asks to stop. Returns whether that was asked before.
    pub(crate) fn set(&self) -> bool {
        // Release: pairs with the Acquire in `is_set`.
        let was_set = self.0.is_set.swap(true, Ordering::AcqRel);
        self.0.bell.ring();
        was_set
    }

    /// Whether it is time to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }

    /// Waits until it is time to stop, no longer than `timeout`. Returns whether it is.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let seen = self.0.bell.epoch();
        if !self.is_set() {
            self.0.bell.wait_past(seen, Some(timeout));
        }
        self.is_set()
    }

    /// Nothing, or the end of the command; `state` says how things are then.
    pub(crate) fn check(&self, state: &str) -> Outcome<()> {
        if self.is_set() {
            return Err(Failure::interrupted(state));
        }
        Ok(())
    }

    /// Does `work`, which cannot ask whether it is time to stop: `cancel` makes it end, on another
    /// thread, as soon as it is.
    pub(crate) fn during<R>(&self, cancel: impl FnOnce() + Send, work: impl FnOnce() -> R) -> R {
        let is_done = AtomicBool::new(false);
        let bell = &self.0.bell;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    let seen = bell.epoch();
                    if self.is_set() {
                        return cancel();
                    }
                    // Acquire: pairs with the Release below.
                    if is_done.load(Ordering::Acquire) {
                        return;
                    }
                    bell.wait_past(seen, None);
                }
            });
            let done = Done(&is_done, bell);
            let result = work();
            drop(done);
            result
        })
    }
}

/// Lets the thread that waits for an interrupt go, also when the work panics.
struct Done<'a>(&'a AtomicBool, &'a Bell);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_cannot_ask_is_cancelled() {
        let interrupt = Interrupt::default();
        let cancelled = Bell::new();
        let asked = interrupt.clone();
        let result = interrupt.during(
            || cancelled.ring(),
            || {
                assert!(!asked.set(), "for the first time");
                // Without a cancel this never ends.
                cancelled.wait_past(0, None);
                7
            },
        );
        assert_eq!(result, 7);
        assert!(interrupt.set(), "the second asks to stop at once");
        let failure = interrupt.check("half is done").expect_err("it is set");
        assert_eq!(failure.to_string(), "interrupted: half is done");
    }

    #[test]
    fn work_that_ends_by_itself_is_not_cancelled() {
        let interrupt = Interrupt::default();
        let cancel = || panic!("nobody asked for it");
        assert_eq!(interrupt.during(cancel, || 7), 7);
        assert!(!interrupt.wait(Duration::ZERO));
        interrupt.check("").expect("nothing was asked");
    }
}
