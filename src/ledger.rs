//! What it all cost: counters that are always on.
//!
//! Those of a keyspace hang off its state and are kept in stripes, one for each thread that reads
//! or writes it: see `stripe`. What belongs to no keyspace, MANIFEST and waits at the gate, is
//! counted here, and every keyspace is in the books here until nobody can count for it any more:
//! then what it has cost, dropped or not, is added to that of the database.

use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use log::recovery::CopyCost;

use crate::throttle::{ThrottleCause, Throttled};

mod counts;
mod keyspace;
mod stripe;

pub use counts::Written;
pub(crate) use counts::{Counts, LevelCounts};
pub(crate) use keyspace::KeyspaceLedger;
pub(crate) use stripe::{Counter, Tally};

/// The unit in which the operating system writes files.
const PAGE_BYTES: u64 = 4096;

/// The counters of one database since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    manifest: AtomicWritten,
    log_copy: AtomicWritten,
    stats_file: AtomicWritten,
    stats_file_failure_count: AtomicU64,
    stalls: [Waits; ThrottleCause::COUNT],
    throttles: [Waits; ThrottleCause::COUNT],
    /// LOCK: a leaf.
    books: Mutex<Books>,
}

/// What all keyspaces there have been have counted.
#[derive(Debug, Default)]
struct Books {
    /// By those of which nothing is left.
    closed: Counts,
    /// By those that somebody may still count for: open ones, and dropped ones that are read.
    open: Vec<Arc<KeyspaceLedger>>,
    /// So many open ones are looked through for some to close.
    close_at: usize,
}

/// Fewer than this are never looked through, so that a keyspace more costs next to nothing.
const CLOSE_AT_MIN: usize = 64;

impl Books {
    /// Closes the books of those that nobody can count for any more.
    fn close(&mut self) {
        let closed = &mut self.closed;
        self.open.retain(|ledger| {
            // INVARIANT: whoever counts holds a reference, and gets it from one who has one: that
            // this is the last is final.
            let is_open = Arc::strong_count(ledger) > 1;
            if !is_open {
                closed.add(&ledger.counts());
            }
            is_open
        });
        self.close_at = (self.open.len() * 2).max(CLOSE_AT_MIN);
    }
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
    pub(crate) fn keyspace(&self) -> Arc<KeyspaceLedger> {
        let ledger = Arc::new(KeyspaceLedger::new());
        let mut books = self.books.lock();
        if books.open.len() >= books.close_at {
            books.close();
        }
        books.open.push(Arc::clone(&ledger));
        ledger
    }

    /// Takes in that MANIFEST, synced after every write, grew from `from` to `upto` bytes.
    pub(crate) fn add_manifest(&self, from: u64, upto: u64) {
        self.manifest.add(Written::synced(from, upto));
    }

    /// Takes in that recovery has copied records of the log.
    pub(crate) fn add_log_copy(&self, cost: CopyCost) {
        self.log_copy.add(Written {
            payload_bytes: cost.bytes,
            page_bytes: cost.page_bytes,
        });
    }

    pub(crate) fn log_copy(&self) -> Written {
        self.log_copy.get()
    }

    pub(crate) fn manifest(&self) -> Written {
        self.manifest.get()
    }

    /// Takes in that the file for other processes was written anew, with so many bytes.
    pub(crate) fn add_stats_file(&self, bytes: u64) {
        self.stats_file.add(Written::file(bytes));
    }

    /// Takes in that it could not be written.
    pub(crate) fn add_stats_file_failure(&self) {
        self.stats_file_failure_count
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats_file(&self) -> Written {
        self.stats_file.get()
    }

    pub(crate) fn stats_file_failure_count(&self) -> u64 {
        self.stats_file_failure_count.load(Ordering::Relaxed)
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

    /// What all keyspaces have counted together, dropped ones included.
    pub(crate) fn total(&self) -> Counts {
        let mut books = self.books.lock();
        books.close();
        let mut total = books.closed.clone();
        for ledger in &books.open {
            total.add(&ledger.counts());
        }
        total
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
