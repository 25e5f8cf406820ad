//! Large chunks made ready before an arena needs them.
//!
//! The first touch of a large page waits until the system has cleared all of it: hundreds of
//! microseconds, which one insert in some ten thousand would pay. So whoever fills memtables lets
//! another thread pay it ahead. Nothing is made ready that was not asked for before: a chunk for
//! each that was taken, and never more than a few. Called by `arena` and the engine.

use base::pages::{HUGE_PAGE_BYTES, Pages};
use base::sync::{Arc, Mutex};
use base::{MemoryLedger, MemoryShare};

/// So many lie ready at most: a memtable takes its entries and its nodes from chunks of their own.
const READY_COUNT_MAX: usize = 2;

/// Chunks of one large page each that nobody uses yet, for all memtables of a database.
///
/// They count as memory that was taken, and not as that of a memtable which takes writes.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// use base::MemoryLedger;
/// use memtable::SpareChunks;
/// let memory = Arc::new(MemoryLedger::default());
/// let spares = SpareChunks::new(&memory);
/// spares.prepare();
/// assert_eq!(memory.taken_bytes(), 0, "nobody has needed any so far");
/// ```
#[derive(Debug)]
pub struct SpareChunks {
    memory: Arc<MemoryLedger>,
    /// LOCK: a leaf. Never held while a page is cleared.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Spare>,
    /// How many were taken since the last were made ready.
    wanted: usize,
}

#[derive(Debug)]
struct Spare {
    pages: Pages,
    #[expect(dead_code, reason = "counts the pages until they are taken")]
    share: MemoryShare,
}

impl SpareChunks {
    /// None so far; they will be counted in `memory`.
    pub fn new(memory: &Arc<MemoryLedger>) -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::clone(memory),
            state: Mutex::default(),
        })
    }

    /// Makes as many ready as were asked for lately. Takes a fraction of a millisecond for each.
    ///
    /// Where the system has no memory for it, nothing is made ready: whoever needs it finds out.
    pub fn prepare(&self) {
        // Miri knows no mappings.
        while !cfg!(miri) && self.is_wanted() {
            let Ok(mut pages) = Pages::new(HUGE_PAGE_BYTES) else {
                return;
            };
            pages.touch();
            let share = MemoryShare::new(&self.memory);
            share.grow(pages.len());
            share.seal();
            let mut state = self.state.lock();
            // More may have been asked for meanwhile.
            if state.ready.len() < READY_COUNT_MAX {
                state.ready.push(Spare { pages, share });
            }
        }
    }

    /// Whether one more is to be made ready; it then counts as made.
    fn is_wanted(&self) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.wanted > 0;
        state.wanted = state.wanted.saturating_sub(1);
        is_wanted
    }

    /// One large page that was touched before, if there is one. Another will be made ready.
    pub(crate) fn take(&self) -> Option<Pages> {
        let mut state = self.state.lock();
        let spare = state.ready.pop();
        state.wanted = (state.wanted + 1).min(READY_COUNT_MAX - state.ready.len());
        spare.map(|spare| spare.pages)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};

    use crate::{Memtable, MemtableOptions};

    use super::*;

    #[test]
    fn as_many_are_made_ready_as_were_taken_and_never_more_than_a_few() {
        let memory = Arc::new(MemoryLedger::default());
        let spares = SpareChunks::new(&memory);
        let ready = || {
            spares.prepare();
            assert_eq!(memory.active_bytes(), 0);
            memory.taken_bytes() / HUGE_PAGE_BYTES
        };
        assert_eq!(ready(), 0);
        assert!(spares.take().is_none());
        assert_eq!(ready(), 1);
        let taken = spares.take().expect("it was made ready");
        assert_eq!(taken.len(), HUGE_PAGE_BYTES);
        assert_eq!(memory.taken_bytes(), 0, "whoever takes it counts it");
        for _ in 0..7 {
            assert!(spares.take().is_none());
        }
        assert_eq!(ready(), READY_COUNT_MAX);
        assert_eq!(ready(), READY_COUNT_MAX);
        assert!(spares.take().is_some());
        assert_eq!(ready(), READY_COUNT_MAX);
        drop(spares);
        assert_eq!(memory.taken_bytes(), 0);
    }

    #[test]
    fn a_memtable_takes_what_lies_ready() {
        let memory = Arc::new(MemoryLedger::default());
        let spares = SpareChunks::new(&memory);
        let memtable = Memtable::new(MemtableOptions {
            memory: Arc::clone(&memory),
            spares: Some(Arc::clone(&spares)),
            ..MemtableOptions::default()
        });
        let mut seq = 0;
        let mut grow_beyond = |bytes: usize| {
            while memtable.taken_bytes() < bytes {
                seq += 1;
                let at = SequenceNumber::new(seq).expect("few");
                let key = InternalKey::new(b"key", at, KeyKind::Put);
                memtable.insert(key, HashSeed(1).hash(b"key"), &[7; 1000]);
            }
        };
        grow_beyond(8 << 20);
        assert!(spares.state.lock().wanted > 0, "it would have taken some");
        spares.prepare();
        let ready = spares.state.lock().ready.len();
        assert!(ready > 0);
        // What is not entries needs far less than a chunk.
        grow_beyond(memtable.taken_bytes() + HUGE_PAGE_BYTES);
        let left = spares.state.lock().ready.len();
        assert!(left < ready);
        assert_eq!(
            memory.taken_bytes() - memtable.taken_bytes(),
            left * HUGE_PAGE_BYTES
        );
        assert_eq!(memtable.entry_count(), seq);
    }
}
