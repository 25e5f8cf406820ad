//! What keeps tables, blocks and memtables alive, counted by kind and by age.
//!
//! A pin costs two additions and no look at a clock: it is counted in the era in which it was made,
//! and eras begin when somebody who knows the time says so. Called by `slice` and the engine.

use std::array;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// What holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PinKind {
    /// A slice of a memtable.
    Memtable,
    /// A slice of a mapped table.
    Table,
    /// A slice of a block in memory.
    Block,
    /// A cursor or iterator, which keeps all memtables and tables of its view.
    Cursor,
    /// A snapshot, which keeps versions that later writes replaced.
    Snapshot,
}

impl PinKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Memtable,
        Self::Table,
        Self::Block,
        Self::Cursor,
        Self::Snapshot,
    ];

    const fn index(self) -> usize {
        self as usize
    }
}

const KIND_COUNT: usize = PinKind::ALL.len();
/// More eras tell ages more exactly while some pins stay for long.
const ERA_COUNT: usize = 16;
/// An era is not worth ending before it has lasted so long.
const ERA_MICROS_MIN: u64 = 1_000_000;

/// The pins of one kind that are alive.
///
/// # Examples
/// ```
/// use base::pins::{PinKind, PinLedger};
/// let ledger = PinLedger::default();
/// let report = ledger.report(0);
/// assert!(report.iter().all(|kind| kind.count == 0));
/// assert_eq!(report[0].kind, PinKind::Memtable);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinReport {
    /// What holds.
    pub kind: PinKind,
    /// How many there are.
    pub count: u64,
    /// Bytes of the values that slices point to; 0 for cursors and snapshots, which share what they
    /// hold.
    pub bytes: u64,
    /// An upper bound for the age of the oldest, in microseconds: the time since the era in which
    /// it was made began. `None` if there is none.
    pub oldest_micros: Option<u64>,
}

/// Counts what is pinned.
///
/// Slices taken and given back while others report are counted sooner or later; at rest the numbers
/// are exact.
#[derive(Debug, Default)]
pub struct PinLedger {
    /// In which pins are made now.
    current: AtomicUsize,
    eras: [Era; ERA_COUNT],
    bytes: [AtomicU64; KIND_COUNT],
    turning: Mutex<()>,
}

#[derive(Debug, Default)]
struct Era {
    began_micros: AtomicU64,
    counts: [AtomicU64; KIND_COUNT],
}

/// In which era a pin was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinMark(u8);

impl PinLedger {
    /// Slices alive now.
    pub fn count(&self) -> u64 {
        let slices = [PinKind::Memtable, PinKind::Table, PinKind::Block];
        slices.iter().map(|kind| self.count_of(*kind)).sum()
    }

    /// Bytes they point to.
    pub fn bytes(&self) -> u64 {
        let bytes = self.bytes.iter();
        bytes.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    fn count_of(&self, kind: PinKind) -> u64 {
        let counts = self.eras.iter().map(|era| &era.counts[kind.index()]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Lets an era begin at `now_micros`, of a clock that never goes back, if the last one is old
    /// enough and there is one in which no pin is left. Otherwise the last one goes on, and ages
    /// are told too high rather than too low.
    pub fn turn(&self, now_micros: u64) {
        let Some(_turning) = self.turning.try_lock() else {
            return;
        };
        let current = self.current.load(Ordering::Relaxed);
        let began = self.eras[current].began_micros.load(Ordering::Relaxed);
        if now_micros.saturating_sub(began) < ERA_MICROS_MIN {
            return;
        }
        let Some(free) = self.eras.iter().position(Era::is_empty) else {
            return;
        };
        // A pin that is being made in this very moment may still be counted in an era that is
        // reused here: it is as new as the era then.
        self.eras[free]
            .began_micros
            .store(now_micros, Ordering::Relaxed);
        // Relaxed: counters, which order nothing.
        self.current.store(free, Ordering::Relaxed);
    }

    /// All kinds as of `now_micros`, in the order of [`PinKind::ALL`].
    pub fn report(&self, now_micros: u64) -> [PinReport; KIND_COUNT] {
        self.turn(now_micros);
        array::from_fn(|index| {
            let kind = PinKind::ALL[index];
            let held = self
                .eras
                .iter()
                .filter(|era| era.counts[index].load(Ordering::Relaxed) > 0);
            let began = held.map(|era| era.began_micros.load(Ordering::Relaxed));
            PinReport {
                kind,
                count: self.count_of(kind),
                bytes: self.bytes[index].load(Ordering::Relaxed),
                oldest_micros: began.min().map(|began| now_micros.saturating_sub(began)),
            }
        })
    }

    /// Counts a pin that has no bytes of its own until the result is dropped.
    pub fn hold(self: &Arc<Self>, kind: PinKind) -> Held {
        Held {
            ledger: Arc::clone(self),
            kind,
            mark: self.add(kind, 0),
        }
    }

    #[inline]
    pub(crate) fn add(&self, kind: PinKind, len: u32) -> PinMark {
        let current = self.current.load(Ordering::Relaxed);
        self.eras[current].counts[kind.index()].fetch_add(1, Ordering::Relaxed);
        self.bytes[kind.index()].fetch_add(u64::from(len), Ordering::Relaxed);
        PinMark(u8::try_from(current).expect("there are few eras"))
    }

    #[inline]
    pub(crate) fn remove(&self, kind: PinKind, mark: PinMark, len: u32) {
        let era = &self.eras[usize::from(mark.0)];
        era.counts[kind.index()].fetch_sub(1, Ordering::Relaxed);
        self.bytes[kind.index()].fetch_sub(u64::from(len), Ordering::Relaxed);
    }
}

impl Era {
    fn is_empty(&self) -> bool {
        let mut counts = self.counts.iter();
        counts.all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

/// A pin that is counted as long as this lives. See [`PinLedger::hold`].
#[derive(Debug)]
pub struct Held {
    ledger: Arc<PinLedger>,
    kind: PinKind,
    mark: PinMark,
}

impl Clone for Held {
    /// Another pin of the same kind, made now.
    fn clone(&self) -> Self {
        self.ledger.hold(self.kind)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.remove(self.kind, self.mark, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn ages(ledger: &PinLedger, now_micros: u64) -> [Option<u64>; KIND_COUNT] {
        ledger.report(now_micros).map(|kind| kind.oldest_micros)
    }

    #[test]
    fn the_oldest_pin_of_each_kind_is_told() {
        let ledger = Arc::new(PinLedger::default());
        ledger.turn(5 * SECOND);
        let old = ledger.hold(PinKind::Cursor);
        ledger.turn(8 * SECOND);
        let new = ledger.hold(PinKind::Cursor);
        let snapshot = ledger.hold(PinKind::Snapshot);
        let told = ledger.report(9 * SECOND);
        let cursors = told[PinKind::Cursor.index()];
        assert_eq!((cursors.count, cursors.bytes), (2, 0));
        let (four, one) = (Some(4 * SECOND), Some(SECOND));
        assert_eq!(ages(&ledger, 9 * SECOND), [None, None, None, four, one]);
        drop(old);
        assert_eq!(ages(&ledger, 9 * SECOND), [None, None, None, one, one]);
        drop((new, snapshot));
        assert_eq!(ages(&ledger, 9 * SECOND), [None; KIND_COUNT]);
        assert_eq!(ledger.count(), 0);
    }

    /// With a pin left in every era ages can only be told too high, never too low.
    #[test]
    fn an_age_is_never_told_too_low() {
        let ledger = Arc::new(PinLedger::default());
        let mut held = Vec::new();
        for second in 1..3 * ERA_COUNT as u64 {
            ledger.turn(second * SECOND);
            held.push((second, ledger.hold(PinKind::Snapshot)));
        }
        let now = 100 * SECOND;
        while let Some((made, _)) = held.first() {
            let told = ages(&ledger, now)[PinKind::Snapshot.index()];
            assert!(told.is_some_and(|age| age >= now - made * SECOND));
            held.remove(0);
        }
        assert_eq!(ages(&ledger, now), [None; KIND_COUNT]);
    }

    #[test]
    fn a_short_era_goes_on() {
        let ledger = Arc::new(PinLedger::default());
        ledger.turn(SECOND);
        let held = ledger.hold(PinKind::Cursor);
        ledger.turn(SECOND + 1);
        let other = ledger.hold(PinKind::Cursor);
        drop(held);
        let age = ages(&ledger, SECOND + 2)[PinKind::Cursor.index()];
        assert_eq!(age, Some(2));
        drop(other);
    }
}
