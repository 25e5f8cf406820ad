//! Turns a hang into a failure: ends the process when nothing has moved for too long.

use std::time::Duration;

use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Bell};

use crate::interrupt;
use crate::say::tell;

/// The exit code of a run with a finding.
pub(crate) const EXIT_FINDING: u8 = 1;
/// How long nothing may happen.
const PATIENCE_SECONDS: u64 = 120;

/// Counts steps; while it lives, steps must keep coming.
#[derive(Debug)]
pub(crate) struct Watchdog {
    steps: Arc<AtomicU64>,
    ended: Arc<Bell>,
}

impl Watchdog {
    /// Watches from now on; `what` is what hangs, if something does.
    pub(crate) fn new(what: String) -> Self {
        let steps = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(Bell::new());
        let (watched, bell) = (Arc::clone(&steps), Arc::clone(&ended));
        std::thread::spawn(move || {
            let mut seen = watched.load(Ordering::Relaxed);
            while !bell.wait_past(0, Some(Duration::from_secs(PATIENCE_SECONDS))) {
                let now = watched.load(Ordering::Relaxed);
                if now == seen {
                    tell(format_args!(
                        "FINDING: {what}: no step for {PATIENCE_SECONDS} s, it hangs"
                    ));
                    interrupt::clean_up();
                    std::process::exit(i32::from(EXIT_FINDING));
                }
                seen = now;
            }
        });
        Self { steps, ended }
    }

    /// Something moved.
    #[inline]
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.ring();
    }
}
