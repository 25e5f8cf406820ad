//! A bar over the bytes of all tables, if it takes long and somebody looks.

use std::io::{self, IsTerminal};

use base::clock::{Clock, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};

/// Work that is done sooner needs no bar.
const QUIET_MICROS: u64 = 1_000_000;

/// How far the work has come.
#[derive(Debug)]
pub(super) struct Progress {
    clock: SystemClock,
    bar: Option<ProgressBar>,
    is_watched: bool,
    bytes_total: u64,
    /// Bytes of the tables that are done.
    bytes_before: u64,
}

impl Progress {
    /// Nothing of `bytes_total` is done yet. `prints` says that results appear as they come, which
    /// is progress enough.
    pub(super) fn new(bytes_total: u64, prints: bool) -> Self {
        Self {
            clock: SystemClock::new(),
            bar: None,
            is_watched: !prints && io::stdout().is_terminal() && io::stderr().is_terminal(),
            bytes_total,
            bytes_before: 0,
        }
    }

    /// `offset` bytes of the current table are done.
    pub(super) fn reached(&mut self, offset: u64) {
        if !self.is_watched || self.clock.monotonic_micros() < QUIET_MICROS {
            return;
        }
        let total = self.bytes_total;
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}");
            let bar = ProgressBar::new(total);
            // The template is a constant that parses; if it did not, there is a default.
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(self.bytes_before.saturating_add(offset));
    }

    /// The current table, of `bytes`, is done.
    pub(super) fn finished(&mut self, bytes: u64) {
        self.bytes_before = self.bytes_before.saturating_add(bytes);
        self.reached(0);
    }

    /// Takes the bar off the screen while something is printed.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
