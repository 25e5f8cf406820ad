//! Waiting on purpose: for the rate a load is held to, and for the moment an operation is due.

use std::time::Duration;

use base::clock::{Clock, SystemClock};
use base::sync::{Arc, Bell};

use super::distribution::floor_u64;
use super::line::as_f64;
use crate::interrupt::Stop;

/// Timers are late by some tens of microseconds: what is nearer than this is waited for by looking
/// at the clock.
const SPIN_NANOS: u64 = 100_000;
/// Longer waits look every so often whether the work should end.
const WAIT_NANOS_MAX: u64 = 50_000_000;
/// What was not used of a rate for longer than this is lost.
const CREDIT_NANOS_MAX: u64 = 100_000_000;

/// Waits until `due_nanos`, or until the work should end.
pub(crate) fn wait_until(clock: &SystemClock, due_nanos: u64, stop: &Stop) {
    loop {
        let now = clock.monotonic_nanos();
        let left = due_nanos.saturating_sub(now);
        if left == 0 || stop.is_set() {
            return;
        }
        if left <= SPIN_NANOS {
            std::hint::spin_loop();
        } else {
            let nanos = (left - SPIN_NANOS / 2).min(WAIT_NANOS_MAX);
            Bell::new().wait_past(0, Some(Duration::from_nanos(nanos)));
        }
    }
}

/// Holds one thread to a rate.
#[derive(Debug)]
pub(crate) struct Pace {
    clock: Arc<SystemClock>,
    nanos_per_unit: f64,
    due_nanos: u64,
}

impl Pace {
    /// So many units a second, beginning now; `None` for 0, which is no limit.
    pub(crate) fn new(clock: &Arc<SystemClock>, per_second: f64) -> Option<Self> {
        (per_second > 0.0).then(|| Self {
            clock: Arc::clone(clock),
            nanos_per_unit: 1e9 / per_second,
            due_nanos: clock.monotonic_nanos(),
        })
    }

    /// Changes the rate from now on.
    pub(crate) fn set_rate(&mut self, per_second: f64) {
        self.nanos_per_unit = 1e9 / per_second.max(1e-3);
    }

    /// Waits until `units` more are allowed.
    pub(crate) fn wait(&mut self, units: u64, stop: &Stop) {
        let now = self.clock.monotonic_nanos();
        self.due_nanos = next_due(self.due_nanos, now, self.nanos_per_unit * as_f64(units));
        wait_until(&self.clock, self.due_nanos, stop);
    }
}

/// When the units that follow on those due at `due_nanos` are due.
fn next_due(due_nanos: u64, now: u64, nanos: f64) -> u64 {
    let from = due_nanos.max(now.saturating_sub(CREDIT_NANOS_MAX));
    from.saturating_add(floor_u64(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_is_lost_after_a_while() {
        assert_eq!(next_due(1000, 2000, 500.0), 1500, "in arrears: no wait");
        assert_eq!(next_due(5000, 2000, 500.0), 5500, "ahead: wait");
        let now = 10 * CREDIT_NANOS_MAX;
        assert_eq!(next_due(0, now, 7.0), now - CREDIT_NANOS_MAX + 7);
    }

    #[test]
    fn no_rate_is_no_limit_and_a_stop_ends_a_wait() {
        let clock = Arc::new(SystemClock::new());
        assert!(Pace::new(&clock, 0.0).is_none());
        let stop = Stop::new();
        stop.set();
        let mut pace = Pace::new(&clock, 1e-6).expect("a rate");
        pace.wait(1_000_000, &stop);
    }
}
