//! In which order records count: many are being written at the same time, and they count from the
//! front, as far as there is no hole.
//!
//! Every record has a ticket; tickets are given out in the order of places. Each is completed once,
//! in any order. What is complete without a hole is the prefix: nothing behind it is acknowledged,
//! read, or claimed to be durable.

use std::fmt;

use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Condvar, Mutex, MutexGuard, spin};
use base::{Error, Result, SequenceNumber};

use crate::record::Position;

/// How many records can be between their reservation and the prefix: far more than threads write
/// at the same time.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;

/// How often a waiter looks before it sleeps: some microseconds, about what an insert takes.
const LOOK_COUNT: u32 = 100;

/// How far the log is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Completed {
    /// Every record before this is whole.
    pub position: Position,
    /// The last sequence number among them, or before them.
    pub seq: SequenceNumber,
}

/// The records in flight, and how far the prefix reaches.
pub(crate) struct Completion {
    in_flight_max: u64,
    /// Every ticket below is in the prefix. Written under the lock of `prefix`.
    completed: AtomicU64,
    /// Raised under the lock of `prefix`, once there is a failure in it.
    is_failed: AtomicBool,
    /// LOCK: a leaf; held for a few instructions.
    prefix: Mutex<Prefix>,
    changed: Condvar,
}

struct Prefix {
    /// What the ticket `n` reaches, at `n` modulo the length, once it is complete and until it is
    /// in the prefix. The length is a power of two.
    entries: Box<[Option<Completed>]>,
    /// The first ticket that is not in the prefix.
    head: u64,
    upto: Completed,
    /// How many threads sleep.
    waiting: usize,
    /// How many want to be told whenever the prefix grows.
    listening: usize,
    failed: Option<Error>,
}

impl Completion {
    pub(crate) fn new(upto: Completed, in_flight_max: usize) -> Self {
        assert!(in_flight_max.is_power_of_two(), "tickets are masked");
        Self {
            in_flight_max: in_flight_max as u64,
            completed: AtomicU64::new(0),
            is_failed: AtomicBool::new(false),
            prefix: Mutex::new(Prefix {
                entries: vec![None; in_flight_max].into_boxed_slice(),
                head: 0,
                upto,
                waiting: 0,
                listening: 0,
                failed: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Returns once there is an entry for `ticket`. The caller must not hold what those who
    /// complete earlier tickets wait for.
    ///
    /// # Errors
    /// If an earlier one failed.
    #[inline]
    pub(crate) fn make_room(&self, ticket: u64) -> Result<()> {
        if ticket - self.completed.load(Ordering::Acquire) < self.in_flight_max {
            return Ok(());
        }
        self.wait_until(|prefix| ticket - prefix.head < self.in_flight_max)
    }

    /// Notes that the record of `ticket` is whole and reaches as far as `upto`. Returns whether
    /// the prefix grew and somebody listens.
    ///
    /// # Panics
    /// If it was complete before.
    pub(crate) fn complete(&self, ticket: u64, upto: Completed) -> bool {
        let mut prefix = self.prefix.lock();
        let ahead = ticket.checked_sub(prefix.head).expect("completed once");
        assert!(ahead < self.in_flight_max, "room was made");
        if ahead > 0 {
            let entry = prefix.entry_mut(ticket);
            assert!(entry.is_none(), "completed once");
            *entry = Some(upto);
            return false;
        }
        let mut head = ticket;
        let mut next = Some(upto);
        while let Some(reached) = next {
            prefix.upto.position = reached.position;
            // A record without operations may reach less far than the one before.
            prefix.upto.seq = prefix.upto.seq.max(reached.seq);
            head += 1;
            next = prefix.entry_mut(head).take();
        }
        prefix.head = head;
        // Release: pairs with the Acquire in `is_complete`; what was done for a record of the
        // prefix before it was completed is seen by who finds it there.
        self.completed.store(head, Ordering::Release);
        if prefix.waiting > 0 {
            self.changed.notify_all();
        }
        prefix.listening > 0
    }

    /// Begins to listen: whoever completes a record from now on is told to say so. What grew before
    /// is seen by whoever looks after this.
    pub(crate) fn listen(&self) {
        self.prefix.lock().listening += 1;
    }

    /// Listens no more.
    pub(crate) fn stop_listening(&self) {
        self.prefix.lock().listening -= 1;
    }

    #[inline]
    fn is_complete(&self, ticket: u64) -> bool {
        // Acquire: pairs with the Release in `complete`.
        self.completed.load(Ordering::Acquire) > ticket
    }

    /// Returns once `ticket` is in the prefix.
    ///
    /// # Errors
    /// If an earlier one failed: it never will be.
    #[inline]
    pub(crate) fn wait(&self, ticket: u64) -> Result<()> {
        spin(LOOK_COUNT, || {
            self.is_complete(ticket) || self.is_failed.load(Ordering::Acquire)
        });
        if self.is_complete(ticket) {
            return Ok(());
        }
        self.wait_until(|prefix| prefix.head > ticket)
    }

    /// Returns once everything before `position` is complete.
    ///
    /// # Errors
    /// If a record before it failed.
    pub(crate) fn wait_position(&self, position: Position) -> Result<()> {
        self.wait_until(|prefix| prefix.upto.position >= position)
    }

    /// Returns once everything up to `seq` is complete.
    ///
    /// # Errors
    /// If a record up to there failed.
    pub(crate) fn wait_seq(&self, seq: SequenceNumber) -> Result<()> {
        self.wait_until(|prefix| prefix.upto.seq >= seq)
    }

    #[cold]
    fn wait_until(&self, is_reached: impl Fn(&Prefix) -> bool) -> Result<()> {
        let mut prefix = self.prefix.lock();
        loop {
            // The prefix before the failure: what came before a record that failed is whole.
            if is_reached(&prefix) {
                return Ok(());
            }
            if let Some(error) = &prefix.failed {
                return Err(error.clone());
            }
            self.sleep(&mut prefix);
        }
    }

    fn sleep(&self, prefix: &mut MutexGuard<'_, Prefix>) {
        prefix.waiting += 1;
        self.changed.wait(prefix);
        prefix.waiting -= 1;
    }

    /// Fails everybody who waits for what is not complete. The first cause counts.
    pub(crate) fn fail(&self, error: &Error) {
        let mut prefix = self.prefix.lock();
        prefix.failed.get_or_insert_with(|| error.clone());
        self.is_failed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// How far the prefix reaches.
    pub(crate) fn upto(&self) -> Completed {
        self.prefix.lock().upto
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("completed", &self.completed)
            .finish_non_exhaustive()
    }
}

impl Prefix {
    fn entry_mut(&mut self, ticket: u64) -> &mut Option<Completed> {
        let mask = self.entries.len() as u64 - 1;
        let index = usize::try_from(ticket & mask).expect("below a length");
        &mut self.entries[index]
    }
}

#[cfg(test)]
mod tests;
