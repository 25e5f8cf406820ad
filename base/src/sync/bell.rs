//! A counter that can be waited on.

use std::time::{Duration, Instant};

use super::atomic::{AtomicU64, AtomicUsize, Ordering};
use super::word::Word;

/// A counter that can be waited on: lower floors ring it, upper floors listen.
///
/// A listener reads the [`epoch`](Bell::epoch), looks at the state it cares about, and then waits
/// for the epoch to move on; a ring between the look and the wait is not lost. While nobody
/// listens, a ring costs one atomic addition.
#[derive(Debug, Default)]
pub struct Bell {
    epoch: AtomicU64,
    waiting: AtomicUsize,
    /// Turned by every ring that somebody waits for; what they sleep on.
    turned: Word,
}

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the epoch on and wakes every listener, all by one call of the system.
    pub fn ring(&self) {
        // SeqCst, here and in `wait_past`: either the listener sees the new epoch, or this thread
        // sees the listener.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.turned.turn();
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
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let began = timeout.map(|_| Began::now());
        loop {
            // Before the look at the epoch: who moved that on turns this afterwards.
            let word = self.turned.value();
            if self.epoch() != seen {
                break;
            }
            let left = timeout.map(|timeout| began.as_ref().map_or(timeout, |b| b.left(timeout)));
            if left == Some(Duration::ZERO) {
                break;
            }
            self.turned.rest(word, left);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.epoch() != seen
    }
}

/// When a wait began.
struct Began(Instant);

impl Began {
    #[expect(
        clippy::disallowed_methods,
        reason = "the limit of a wait in real time"
    )]
    fn now() -> Self {
        Self(Instant::now())
    }

    fn left(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.0.elapsed())
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
    fn a_wait_ends_with_its_timeout_and_not_before() {
        let bell = Bell::new();
        let began = Began::now();
        let timeout = Duration::from_millis(3);
        assert!(!bell.wait_past(0, Some(timeout)));
        assert_eq!(began.left(timeout), Duration::ZERO);
    }

    #[test]
    fn one_ring_wakes_all_who_wait() {
        let bell = Bell::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..200 {
                        assert!(bell.wait_past(round, None));
                    }
                });
            }
            for _ in 0..200 {
                while bell.waiting.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                bell.ring();
            }
        });
        assert_eq!(bell.waiting.load(Ordering::SeqCst), 0);
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
