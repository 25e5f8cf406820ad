//! The till of one keyspace: byte credits that writes spend, and the speeds they are measured by.
//!
//! A keyspace that keeps up costs a write one relaxed load. Once it is slowed, writes spend credit
//! without a lock; one for which too little is left comes to the till, pays for all before it by
//! waiting a few milliseconds, and leaves new credit behind. What it costs itself is left to those
//! after it; one that may not wait is refused and costs nothing. `stall` does the waiting; nothing
//! here blocks or reads a clock.
//!
//! INVARIANT: each write that passes is charged once, either of the credit or in what is owed;
//! credit is no more than what is left of the last grant; and between two grants somebody has
//! waited, or all was paid. So bytes come at the allowed speed, whatever they come in and however
//! many threads write them, except where a bound below forgives some.

use std::ops::Range;
use std::time::Duration;

use base::sync::Mutex;
use base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
/// takes to wake it comes on top. So writers whose values at the till are together worth more than
/// this come faster than allowed: the background falls further behind, up to the stop.
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
/// However large the writes before it, none finds more owed than this, in microseconds.
const OWED_MICROS_MAX: f64 = 1_000_000.0;

/// How writes to one keyspace pay.
#[derive(Debug)]
pub(crate) struct Till {
    state: AtomicU32,
    /// What may be written before somebody must come here again, in bytes. Raised under the lock
    /// of the book only, never above what was granted.
    credit: AtomicU64,
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
    granted: u64,
    /// When it was left.
    granted_micros: u64,
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
            credit: AtomicU64::new(0),
            spenders: AtomicU32::new(0),
            book: Mutex::new(Book {
                verdict: Verdict::Free,
                credit_max: as_f64(memtable_bytes) / CREDITS_PER_MEMTABLE,
                due_micros: 0.0,
                granted: 0,
                granted_micros: 0,
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

    /// Spends credit for a write of `bytes`, all of it or nothing. Returns whether it was enough.
    #[inline]
    fn spend(&self, bytes: u64) -> bool {
        let rest = |credit: u64| credit.checked_sub(bytes);
        let is_enough = self
            .credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest)
            .is_ok();
        if is_enough {
            self.spenders.fetch_add(1, Ordering::Relaxed);
        }
        is_enough
    }

    /// Charges a write at the speed of the last verdict, after what was spent before it. A write
    /// that is refused owes nothing and leaves others the credit they have.
    pub(crate) fn charge(&self, charge: Charge) -> Bill {
        let mut book = self.book.lock();
        // It came because the view changed, or somebody has left credit meanwhile.
        if self.spend(charge.bytes) {
            return Bill::Paid;
        }
        let Verdict::Slow(pace) = book.verdict else {
            return Bill::Free;
        };
        let now = as_f64(charge.now_micros);
        // Even if the write is refused: time that passes from here on pays for it. Before what is
        // saved is cut: time has paid for the credit while it was spent, however long that took.
        let before = self.settle_locked(&mut book);
        book.due_micros = (book.due_micros + pace.micros(before.bytes))
            .clamp(now - SAVED_MICROS_MAX, now + OWED_MICROS_MAX);
        let owed = book.due_micros - now;
        let wait = if owed < WAIT_MICROS_MIN {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(owed.min(WAIT_MICROS_MAX) / 1e6)
        };
        if charge.longest.is_some_and(|longest| longest < wait) {
            return Bill::Refused;
        }
        // What is left of the credit is taken away: the next grant is to be a whole one.
        let meanwhile = book.granted - self.credit.swap(0, Ordering::Relaxed);
        book.granted = 0;
        book.due_micros += pace.micros(meanwhile) + pace.micros(charge.bytes);
        book.note_writes(before.and(charge.bytes));
        if !wait.is_zero() {
            return Bill::Wait(wait);
        }
        if book.due_micros - now < WAIT_MICROS_MIN {
            self.grant_paced_locked(&mut book, pace, charge.now_micros);
        }
        Bill::Paid
    }

    /// Takes back the charge of a write of `bytes` that is not made after all.
    ///
    /// Credit grows by no more than what was spent of it; the rest is taken off what is owed. So
    /// whoever tries again and again gains nothing by it.
    pub(crate) fn refund(&self, bytes: u64) {
        let mut book = self.book.lock();
        let spent = book.granted - self.credit.load(Ordering::Relaxed);
        let credit = bytes.min(spent);
        self.credit.fetch_add(credit, Ordering::Relaxed);
        if let Verdict::Slow(pace) = book.verdict {
            book.due_micros -= pace.micros(bytes - credit);
        }
    }

    /// Begins anew while the verdict is free: nothing is owed, and so many bytes may be written
    /// before the next look.
    pub(crate) fn clear(&self, now_micros: u64, watch_bytes: u64) {
        let mut book = self.book.lock();
        self.settle_locked(&mut book);
        book.due_micros = as_f64(now_micros);
        self.grant_locked(&mut book, watch_bytes);
    }

    /// What was spent of the credit; only what is left counts as granted from here on.
    fn settle_locked(&self, book: &mut Book) -> Spent {
        let left = self.credit.load(Ordering::Relaxed);
        let spent = Spent {
            bytes: book.granted - left,
            writes: self.spenders.swap(0, Ordering::Relaxed),
        };
        book.granted = left;
        book.note_writes(spent);
        spent
    }

    /// Leaves new credit, after a wait, unless somebody else did since it began: of many that wait
    /// at a time, each could otherwise leave some, one after the other.
    pub(crate) fn grant(&self, waited_micros: Range<u64>) {
        let mut book = self.book.lock();
        if let Verdict::Slow(pace) = book.verdict
            && book.granted == 0
            && book.granted_micros <= waited_micros.start
        {
            self.grant_paced_locked(&mut book, pace, waited_micros.end);
        }
    }

    fn grant_paced_locked(&self, book: &mut Book, pace: Pace, now_micros: u64) {
        book.granted_micros = now_micros;
        let micros = (WRITES_PER_QUANTUM * book.write_bytes / pace.bytes_per_second * 1e6)
            .clamp(QUANTUM_MICROS_MIN, WAIT_MICROS_MAX);
        let most = book.credit_max / pace.bytes_per_second * 1e6;
        let bytes = bytes_in(pace.bytes_per_second, micros.min(most));
        self.grant_locked(book, bytes);
    }

    fn grant_locked(&self, book: &mut Book, bytes: u64) {
        book.granted = bytes;
        // INVARIANT: none is left that a write could spend of at this moment, or it is free.
        self.credit.store(bytes, Ordering::Relaxed);
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
    fn note_writes(&mut self, spent: Spent) {
        if spent.writes > 0 {
            self.write_bytes = as_f64(spent.bytes) / f64::from(spent.writes);
        }
    }

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

impl Pace {
    /// How long `bytes` take, in microseconds.
    fn micros(self, bytes: u64) -> f64 {
        as_f64(bytes) / self.bytes_per_second * 1e6
    }
}

/// What writes have spent of some credit.
#[derive(Clone, Copy, Debug)]
struct Spent {
    bytes: u64,
    writes: u32,
}

impl Spent {
    /// With one more write.
    fn and(self, bytes: u64) -> Self {
        Self {
            bytes: self.bytes.saturating_add(bytes),
            writes: self.writes.saturating_add(1),
        }
    }
}

/// A write that comes to the till.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub(crate) now_micros: u64,
    pub(crate) bytes: u64,
    /// Rather than wait for longer it is not made; `None` if it waits for as long as it takes.
    pub(crate) longest: Option<Duration>,
}

/// What [`Till::charge`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bill {
    /// Nothing: writes are not slowed any more. It is not charged.
    Free,
    /// Nothing more.
    Paid,
    /// To wait for so long, and then to call [`Till::grant`]. It is charged already.
    Wait(Duration),
    /// Not to be made: it may not wait for what those before it owe. It is not charged.
    Refused,
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
