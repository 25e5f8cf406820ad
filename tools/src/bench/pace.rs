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
        (per_second > 0.0).then(|| Self::held(clock, per_second))
    }

    /// So many units a second, beginning now; hardly any for 0.
    pub(crate) fn held(clock: &Arc<SystemClock>, per_second: f64) -> Self {
        let mut pace = Self {
            clock: Arc::clone(clock),
            nanos_per_unit: 0.0,
            due_nanos: clock.monotonic_nanos(),
        };
        pace.set_rate(per_second);
        pace
    }

    /// Changes the rate from now on.
    pub(crate) fn set_rate(&mut self, per_second: f64) {
        self.nanos_per_unit = 1e9 / per_second.max(1e-3);
    }

    /// Waits until `units` more are allowed.
    pub(crate) fn wait(&mut self, units: u64, stop: &Stop) {
        self.wait_within(units, u64::MAX, stop);
    }

    /// Waits until `units` more are allowed, or for `limit_nanos` at most: the rate may be another
    /// by then. Returns whether they are, which takes them.
    pub(crate) fn wait_within(&mut self, units: u64, limit_nanos: u64, stop: &Stop) -> bool {
        let now = self.clock.monotonic_nanos();
        let due_nanos = next_due(self.due_nanos, now, self.nanos_per_unit * as_f64(units));
        let limit = now.saturating_add(limit_nanos);
        wait_until(&self.clock, due_nanos.min(limit), stop);
        let is_due = due_nanos <= limit;
        if is_due {
            self.due_nanos = due_nanos;
        }
        is_due
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

    #[test]
    fn a_rate_of_nothing_is_waited_for_only_until_there_is_another() {
        let clock = Arc::new(SystemClock::new());
        let stop = Stop::new();
        let mut pace = Pace::held(&clock, 0.0);
        let from = pace.due_nanos;
        assert!(!pace.wait_within(1, 1000, &stop), "hardly any");
        assert_eq!(pace.due_nanos, from, "nothing was taken");
        pace.set_rate(1e9);
        assert!(pace.wait_within(1, u64::MAX, &stop));
        assert!(pace.due_nanos > from);
    }
}
