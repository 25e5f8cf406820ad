//! What it all cost: counters that are always on.
//!
//! Those of a keyspace hang off its state and are kept in stripes, one for each thread that reads
//! or writes it: see `stripe`. What belongs to no keyspace, MANIFEST and waits at the gate, is
//! counted here, and so is what dropped keyspaces have cost.

use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};

use crate::throttle::{ThrottleCause, Throttled};

mod counts;
mod keyspace;
mod stripe;

pub(crate) use counts::Counts;
pub use counts::Written;
pub(crate) use keyspace::{KeyspaceLedger, ReadSource};

/// The unit in which the operating system writes files.
const PAGE_BYTES: u64 = 4096;

/// The counters of one database since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    manifest: AtomicWritten,
    stalls: [Waits; ThrottleCause::COUNT],
    throttles: [Waits; ThrottleCause::COUNT],
    /// What keyspaces had counted when they were dropped. LOCK: a leaf.
    dropped: Mutex<Counts>,
}

/// How often somebody waited, and how long in all.
#[derive(Debug, Default)]
struct Waits {
    count: AtomicU64,
    micros: AtomicU64,
}

/// Bytes as they were handed over, and as pages of the operating system.
#[derive(Debug, Default)]
struct AtomicWritten {
    payload_bytes: AtomicU64,
    page_bytes: AtomicU64,
}

impl AtomicWritten {
    fn add(&self, written: Written) {
        self.payload_bytes
            .fetch_add(written.payload_bytes, Ordering::Relaxed);
        self.page_bytes
            .fetch_add(written.page_bytes, Ordering::Relaxed);
    }

    fn get(&self) -> Written {
        Written {
            payload_bytes: self.payload_bytes.load(Ordering::Relaxed),
            page_bytes: self.page_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Waits for one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitCounts {
    pub(crate) count: u64,
    pub(crate) micros: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Counters for one more keyspace.
    pub(crate) fn keyspace(self: &Arc<Self>) -> KeyspaceLedger {
        KeyspaceLedger::new(Arc::clone(self))
    }

    /// Takes in that MANIFEST, synced after every write, grew from `from` to `upto` bytes.
    pub(crate) fn add_manifest(&self, from: u64, upto: u64) {
        self.manifest.add(Written::synced(from, upto));
    }

    pub(crate) fn manifest(&self) -> Written {
        self.manifest.get()
    }

    /// Takes in that a writer waited until the background had got on.
    pub(crate) fn add_stall(&self, stall: Throttled) {
        self.stalls[stall.cause.index()].add(stall.micros);
    }

    /// Takes in that a writer paid while writes were slowed down.
    pub(crate) fn add_throttle(&self, throttled: Throttled) {
        self.throttles[throttled.cause.index()].add(throttled.micros);
    }

    pub(crate) fn stalls(&self, cause: ThrottleCause) -> WaitCounts {
        self.stalls[cause.index()].get()
    }

    pub(crate) fn throttles(&self, cause: ThrottleCause) -> WaitCounts {
        self.throttles[cause.index()].get()
    }

    /// What dropped keyspaces had counted.
    pub(crate) fn dropped(&self) -> Counts {
        self.dropped.lock().clone()
    }

    fn retire(&self, counts: &Counts) {
        self.dropped.lock().add(counts);
    }
}

impl Waits {
    fn add(&self, micros: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn get(&self) -> WaitCounts {
        WaitCounts {
            count: self.count.load(Ordering::Relaxed),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
