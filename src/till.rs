//! The till of one keyspace: byte credits that writes spend, and the speeds they are measured by.
//!
//! A keyspace that keeps up costs a write one relaxed load. Once it is slowed, writes spend credit
//! with one atomic subtraction; the one that overdraws it comes to the till, pays for all before it
//! by waiting a few milliseconds, and leaves new credit behind. `stall` does the waiting; nothing
//! here blocks or reads a clock.

use std::time::Duration;

use base::sync::Mutex;
use base::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::throttle::{Pace, Verdict};

mod speed;
use speed::Speed;

/// The view of the keyspace changed since the verdict was made.
const STALE: u32 = 1;
/// Writes spend credit.
const METERED: u32 = 2;
/// Writes wait until the background has got on.
const STOPPED: u32 = 4;

/// No write waits longer than this while it is merely slowed, in microseconds; what the machine
/// takes to wake it comes on top.
pub(crate) const WAIT_MICROS_MAX: f64 = 7_000.0;
/// Credit lasts at least so long at the allowed speed, in microseconds, and at most as long as
/// the longest wait.
const QUANTUM_MICROS_MIN: f64 = 2_000.0;
/// For so many writes credit should last: then fewer than one in a thousand waits, and even the
/// thousandth part of the slowest writes does not show the throttle.
const WRITES_PER_QUANTUM: f64 = 1_200.0;
/// Nor is it more than so small a part of a memtable: a span must not be used up in one go.
const CREDITS_PER_MEMTABLE: f64 = 8.0;
/// Shorter waits are not worth their while, in microseconds; they are added to the next.
const WAIT_MICROS_MIN: f64 = 1_000.0;
/// Writes that were slower than allowed for so long may catch up, in microseconds.
const SAVED_MICROS_MAX: f64 = 4_000.0;
/// However large the writes, they owe no more than this, in microseconds.
const OWED_MICROS_MAX: f64 = 1_000_000.0;

/// How writes to one keyspace pay.
#[derive(Debug)]
pub(crate) struct Till {
    state: AtomicU32,
    /// What may be written before somebody must come here again, in bytes.
    credit: AtomicI64,
    /// Writes that spent of the present credit.
    spenders: AtomicU32,
    /// LOCK: a leaf; held for arithmetic only.
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    verdict: Verdict,
    /// The most that is granted at a time, in bytes.
    credit_max: f64,
    /// What was written so far is paid for at this moment.
    due_micros: f64,
    /// What the present credit was at first.
    granted: i64,
    /// The mean length of the writes that spent the last credit, in bytes.
    write_bytes: f64,
    flushes: Speed,
    compactions: Speed,
}

impl Till {
    /// For memtables that hold so many bytes.
    pub(crate) fn new(memtable_bytes: u64) -> Self {
        Self {
            // Recovery may have left the tree in any shape.
            state: AtomicU32::new(STALE),
            credit: AtomicI64::new(0),
            spenders: AtomicU32::new(0),
            book: Mutex::new(Book {
                verdict: Verdict::Free,
                credit_max: as_f64(memtable_bytes) / CREDITS_PER_MEMTABLE,
                due_micros: 0.0,
                granted: 0,
                write_bytes: 0.0,
                flushes: Speed::new(memtable_bytes),
                compactions: Speed::new(memtable_bytes),
            }),
        }
    }

    /// Whether writes pass without a second look. One relaxed load: a write that misses a change
    /// by a moment is one write more.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    /// To be called after every change of the keyspace's view.
    pub(crate) fn view_changed(&self) {
        // Release: pairs with the Acquire in `begin_look`, which sees the new view then.
        self.state.fetch_or(STALE, Ordering::Release);
    }

    /// Whether a write need not come here: nothing is to be looked at and its credit is enough.
    #[inline]
    pub(crate) fn spend_unseen(&self, bytes: u64) -> bool {
        self.state.load(Ordering::Relaxed) == METERED && self.spend(bytes)
    }

    /// Makes a new verdict. `judge` looks at the view as it is now, and is given the speeds with
    /// the jobs under way.
    ///
    /// LOCK: `judge` runs under the lock, so that of two verdicts the later one saw the later view.
    pub(crate) fn look(&self, now_micros: u64, judge: impl FnOnce(Speeds) -> Judgement) -> Turn {
        let mut book = self.book.lock();
        // Acquire: pairs with the Release in `view_changed`. Cleared before the view is looked at:
        // a change that comes later raises it again.
        self.state.fetch_and(!STALE, Ordering::Acquire);
        let judgement = judge(book.speeds(now_micros));
        let next = match judgement.verdict {
            Verdict::Free if judgement.is_watched => METERED,
            Verdict::Free => 0,
            Verdict::Slow(_) => METERED,
            Verdict::Stop(_) => METERED | STOPPED,
        };
        let set = |state: u32| Some(state & STALE | next);
        // The closure always returns a state.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
        let before = std::mem::replace(&mut book.verdict, judgement.verdict);
        Turn {
            before,
            now: judgement.verdict,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.book.lock().verdict
    }

    /// Spends credit for a write of `bytes`. Returns whether it was enough.
    #[inline]
    pub(crate) fn spend(&self, bytes: u64) -> bool {
        let bytes = signed(bytes);
        self.spenders.fetch_add(1, Ordering::Relaxed);
        self.credit.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }

    /// Takes a write back that is not made after all.
    pub(crate) fn refund(&self, bytes: u64) {
        self.credit.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Settles for what was spent, at the speed of the last verdict. Returns how long the caller
    /// must wait before it calls [`grant`](Till::grant), or `None` if nothing is owed and credit
    /// was granted. `watch_bytes` is the credit while the verdict is free.
    pub(crate) fn settle(&self, now_micros: u64, watch_bytes: u64) -> Option<Duration> {
        let mut book = self.book.lock();
        let left = self.credit.swap(0, Ordering::Relaxed);
        let spent = as_f64((book.granted - left).max(0).unsigned_abs());
        let spenders = self.spenders.swap(0, Ordering::Relaxed);
        if spenders > 0 {
            book.write_bytes = spent / f64::from(spenders);
        }
        book.granted = 0;
        let now = as_f64(now_micros);
        let Verdict::Slow(pace) = book.verdict else {
            book.due_micros = now;
            self.grant_locked(&mut book, watch_bytes);
            return None;
        };
        let from = book
            .due_micros
            .clamp(now - SAVED_MICROS_MAX, now + OWED_MICROS_MAX);
        book.due_micros = from + spent / pace.bytes_per_second * 1e6;
        let owed = book.due_micros - now;
        if owed >= WAIT_MICROS_MIN {
            return Some(Duration::from_secs_f64(owed.min(WAIT_MICROS_MAX) / 1e6));
        }
        self.grant_paced_locked(&mut book, pace);
        None
    }

    /// Leaves new credit, after a wait, unless somebody else did.
    pub(crate) fn grant(&self) {
        let mut book = self.book.lock();
        if let Verdict::Slow(pace) = book.verdict
            && book.granted == 0
        {
            self.grant_paced_locked(&mut book, pace);
        }
    }

    fn grant_paced_locked(&self, book: &mut Book, pace: Pace) {
        let micros = (WRITES_PER_QUANTUM * book.write_bytes / pace.bytes_per_second * 1e6)
            .clamp(QUANTUM_MICROS_MIN, WAIT_MICROS_MAX);
        let most = book.credit_max / pace.bytes_per_second * 1e6;
        let bytes = bytes_in(pace.bytes_per_second, micros.min(most));
        self.grant_locked(book, bytes);
    }

    fn grant_locked(&self, book: &mut Book, bytes: u64) {
        book.granted = signed(bytes);
        self.credit.fetch_add(book.granted, Ordering::Relaxed);
    }

    /// Takes in that a job began which should get `bytes` done.
    pub(crate) fn begin_work(&self, kind: WorkKind, now_micros: u64, bytes: u64) -> Work<'_> {
        let id = self.book.lock().speed_mut(kind).begin(now_micros, bytes);
        Work {
            till: self,
            kind,
            id,
            began_micros: now_micros,
        }
    }

    /// What flushes and compactions get done, as measured of those that ended.
    pub(crate) fn speeds(&self) -> Speeds {
        let book = self.book.lock();
        Speeds {
            flush: book.flushes.measured(),
            compaction: book.compactions.measured(),
        }
    }
}

impl Book {
    fn speed_mut(&mut self, kind: WorkKind) -> &mut Speed {
        match kind {
            WorkKind::Flush => &mut self.flushes,
            WorkKind::Compaction => &mut self.compactions,
        }
    }

    fn speeds(&self, now_micros: u64) -> Speeds {
        Speeds {
            flush: self.flushes.by(now_micros),
            compaction: self.compactions.by(now_micros),
        }
    }
}

/// What [`Till::look`] is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// Lets writes spend credit although they are free, so that the next look does not have to
    /// wait for a change of the view.
    pub(crate) is_watched: bool,
}

/// A verdict and the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) before: Verdict,
    pub(crate) now: Verdict,
}

/// How fast the background gets on, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speeds {
    pub(crate) flush: f64,
    pub(crate) compaction: f64,
}

/// Which speed a job is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkKind {
    Flush,
    Compaction,
}

/// A job under way; one that is dropped got nothing done.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    till: &'a Till,
    kind: WorkKind,
    id: u64,
    began_micros: u64,
}

impl Work<'_> {
    /// Takes in that it ended and what it got done; of a compaction, what it took out of level 0.
    /// Returns how long it took, in microseconds.
    pub(crate) fn finish(self, now_micros: u64, bytes: u64) -> u64 {
        let mut book = self.till.book.lock();
        book.speed_mut(self.kind).finish(self.id, now_micros, bytes);
        now_micros.saturating_sub(self.began_micros)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // Nothing is left to abandon after `finish`.
        self.till.book.lock().speed_mut(self.kind).abandon(self.id);
    }
}

fn signed(bytes: u64) -> i64 {
    // Halved, so that no sum of two overflows.
    i64::try_from(bytes).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

#[expect(clippy::cast_precision_loss, reason = "a speed need not be exact")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest number in range"
)]
fn bytes_in(bytes_per_second: f64, micros: f64) -> u64 {
    (bytes_per_second * micros / 1e6) as u64
}

#[cfg(test)]
mod tests;
