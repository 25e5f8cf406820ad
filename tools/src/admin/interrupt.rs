//! Ctrl-C: the first asks to stop at a sound place, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once the user, or whoever ends the process, wants it to stop.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on. To be called once.
    pub(crate) fn listen() -> Self {
        let interrupt = Self(Arc::new(AtomicBool::new(false)));
        let seen = interrupt.clone();
        let handler = move || {
            if seen.0.swap(true, Ordering::Relaxed) {
                std::process::exit(2);
            }
        };
        // Without a handler the signal ends the process, which loses nothing that was promised.
        let _ = ctrlc::set_handler(handler);
        interrupt
    }

    /// Whether it is time to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
