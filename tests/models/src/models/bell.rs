//! Bells: no ring is lost between a look and the sleep after it.

use loom::thread;

use super::explore;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Bell};

/// Waits as everybody does who listens to a bell: epoch, look, sleep.
fn wait_until(bell: &Bell, is_so: impl Fn() -> bool) {
    loop {
        let seen = bell.epoch();
        if is_so() {
            return;
        }
        bell.wait_past(seen, None);
    }
}

/// One rings after it has changed what another looks at.
pub fn a_ring_after_the_look_is_heard() {
    explore(|| {
        let shared = Arc::new((Bell::new(), AtomicBool::new(false)));
        let there = Arc::clone(&shared);
        let ringer = thread::spawn(move || {
            there.1.store(true, Ordering::Release);
            there.0.ring();
        });
        wait_until(&shared.0, || shared.1.load(Ordering::Acquire));
        ringer.join().expect("a panic ends the model");
    });
}

/// Two listen, and one ring is enough for both; a second bell answers.
pub fn all_who_listen_hear_one_ring() {
    explore(|| {
        let shared = Arc::new((Bell::new(), Bell::new()));
        let listener = || {
            let there = Arc::clone(&shared);
            thread::spawn(move || {
                assert!(there.0.wait_past(0, None));
                there.1.ring();
            })
        };
        let listeners = [listener(), listener()];
        shared.0.ring();
        wait_until(&shared.1, || shared.1.epoch() == 2);
        for listener in listeners {
            listener.join().expect("a panic ends the model");
        }
    });
}
