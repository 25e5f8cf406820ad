//! What the memtables of one database have taken of memory, exactly, wherever it is held.
//!
//! Counted is what was taken from the allocator or the system, used already or not, from the moment
//! it is taken until it is given back: a memtable that was flushed counts for as long as a slice, a
//! cursor or a pending clean-up keeps it. Called by `filter`, the memtable and the engine.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// The sums over all [`MemoryShare`]s of a database.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use base::memory::{MemoryLedger, MemoryShare};
/// let ledger = Arc::new(MemoryLedger::new(1 << 20));
/// let share = MemoryShare::new(&ledger);
/// share.grow(4096);
/// assert_eq!((ledger.taken_bytes(), ledger.active_bytes()), (4096, 4096));
/// share.seal();
/// assert_eq!((ledger.taken_bytes(), ledger.active_bytes()), (4096, 0));
/// drop(share);
/// assert_eq!(ledger.taken_bytes(), 0);
/// ```
#[derive(Debug)]
pub struct MemoryLedger {
    taken: AtomicUsize,
    sealed: AtomicUsize,
    pinned: AtomicUsize,
    pinned_bytes_max: usize,
}

impl Default for MemoryLedger {
    /// Counts, and bounds nothing.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl MemoryLedger {
    /// Nothing is taken. Once slices keep about `pinned_bytes_max`, no further share can be pinned.
    pub fn new(pinned_bytes_max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            sealed: AtomicUsize::new(0),
            pinned: AtomicUsize::new(0),
            pinned_bytes_max,
        }
    }

    /// Taken and not given back.
    #[inline]
    pub fn taken_bytes(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// What of it is of memtables that still take writes.
    #[inline]
    pub fn active_bytes(&self) -> usize {
        // Sealed ones first: whatever is counted in between makes the result larger, not negative.
        let sealed = self.sealed.load(Ordering::Relaxed);
        self.taken_bytes().saturating_sub(sealed)
    }

    /// What of it is in shares that were pinned at least once.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned.load(Ordering::Relaxed)
    }
}

/// What one part of a memtable has taken; given back when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    ledger: Arc<MemoryLedger>,
    bytes: AtomicUsize,
    is_pinned: AtomicBool,
    /// Held while sums change, so that every byte is in each sum that it belongs to. LOCK: a leaf.
    is_sealed: Mutex<bool>,
}

impl Default for MemoryShare {
    /// A share of a ledger of its own.
    fn default() -> Self {
        Self::new(&Arc::default())
    }
}

impl MemoryShare {
    /// A share of nothing.
    pub fn new(ledger: &Arc<MemoryLedger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            bytes: AtomicUsize::new(0),
            is_pinned: AtomicBool::new(false),
            is_sealed: Mutex::new(false),
        }
    }

    /// What it has taken.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts `bytes` more.
    pub fn grow(&self, bytes: usize) {
        let is_sealed = self.is_sealed.lock();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.ledger.taken.fetch_add(bytes, Ordering::Relaxed);
        if *is_sealed {
            self.ledger.sealed.fetch_add(bytes, Ordering::Relaxed);
        }
        if self.is_pinned.load(Ordering::Relaxed) {
            self.ledger.pinned.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Notes that the memtable takes no more writes; those under way may still grow it.
    pub fn seal(&self) {
        let mut is_sealed = self.is_sealed.lock();
        if !std::mem::replace(&mut *is_sealed, true) {
            self.ledger
                .sealed
                .fetch_add(self.bytes(), Ordering::Relaxed);
        }
    }

    /// Whether a slice may keep it alive: notes that one does. Not where slices keep so much
    /// already that writers would have too little left.
    #[inline]
    pub fn pin(&self) -> bool {
        // Relaxed: it is never unset.
        self.is_pinned.load(Ordering::Relaxed) || self.pin_first()
    }

    #[cold]
    fn pin_first(&self) -> bool {
        let ledger = &self.ledger;
        if ledger.pinned_bytes().saturating_add(self.bytes()) > ledger.pinned_bytes_max {
            return false;
        }
        let is_sealed = self.is_sealed.lock();
        if !self.is_pinned.swap(true, Ordering::Relaxed) {
            ledger.pinned.fetch_add(self.bytes(), Ordering::Relaxed);
        }
        drop(is_sealed);
        true
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let bytes = self.bytes();
        if *self.is_sealed.lock() {
            self.ledger.sealed.fetch_sub(bytes, Ordering::Relaxed);
        }
        if self.is_pinned.load(Ordering::Relaxed) {
            self.ledger.pinned.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.ledger.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_the_sums_it_belongs_to() {
        let ledger = Arc::new(MemoryLedger::new(100));
        let (a, b) = (MemoryShare::new(&ledger), MemoryShare::new(&ledger));
        a.grow(60);
        b.grow(50);
        assert!(a.pin());
        assert!(!b.pin(), "both would be more than the bound");
        a.grow(7);
        assert_eq!((ledger.taken_bytes(), ledger.pinned_bytes()), (117, 67));
        a.seal();
        a.seal();
        assert_eq!(ledger.active_bytes(), 50);
        a.grow(3);
        assert_eq!(ledger.active_bytes(), 50, "an insert that was under way");
        assert!(a.pin(), "it is pinned already");
        drop(a);
        assert_eq!((ledger.taken_bytes(), ledger.pinned_bytes()), (50, 0));
        assert!(b.pin());
        b.seal();
        drop(b);
        assert_eq!((ledger.taken_bytes(), ledger.active_bytes()), (0, 0));
        assert_eq!(ledger.pinned_bytes(), 0);
    }

    #[test]
    fn threads_that_grow_pin_and_seal_at_once_leave_exact_sums() {
        let ledger = Arc::new(MemoryLedger::default());
        for _ in 0..200 {
            let share = MemoryShare::new(&ledger);
            std::thread::scope(|scope| {
                scope.spawn(|| (0..10).for_each(|n| share.grow(n)));
                scope.spawn(|| assert!(share.pin()));
                scope.spawn(|| share.seal());
            });
            assert_eq!((share.bytes(), ledger.taken_bytes()), (45, 45));
            assert_eq!((ledger.active_bytes(), ledger.pinned_bytes()), (0, 45));
        }
        assert_eq!((ledger.taken_bytes(), ledger.pinned_bytes()), (0, 0));
    }
}
