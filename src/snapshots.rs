//! Which sequence numbers are pinned, and which is visible.
//!
//! INVARIANT: registering reads `visible` under the lock in which jobs capture (registered and
//! visible), so that a job either sees the snapshot or has dropped nothing that it sees.

use std::collections::BTreeMap;

use base::SequenceNumber;
use base::fork::Origin;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};

use crate::signals::Signals;

/// The registered snapshots of a database, and its visible sequence number.
#[derive(Debug)]
pub(crate) struct Snapshots {
    visible: AtomicU64,
    registered: Mutex<BTreeMap<SequenceNumber, usize>>,
    origin: Origin,
    /// Who is to be woken once no pin is below a number.
    waiting: Mutex<Option<(SequenceNumber, Arc<Signals>)>>,
}

/// What must survive a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Every registered sequence number, ascending.
    pub(crate) registered: Vec<SequenceNumber>,
    pub(crate) visible: SequenceNumber,
}

impl Snapshots {
    pub(crate) fn new(visible: SequenceNumber) -> Self {
        Self {
            visible: AtomicU64::new(visible.get()),
            registered: Mutex::default(),
            origin: Origin::here(),
            waiting: Mutex::default(),
        }
    }

    /// Everything up to here may be read.
    #[inline]
    pub(crate) fn visible(&self) -> SequenceNumber {
        // Acquire: pairs with the Release in `publish`; the memtable entries up to it are seen.
        SequenceNumber::new(self.visible.load(Ordering::Acquire)).expect("published from one")
    }

    /// Makes everything up to `seq` visible, all of which is whole in the log and in memtables.
    /// Only ever moves forward, in whatever order writers come.
    #[inline]
    pub(crate) fn publish(&self, seq: SequenceNumber) {
        // Release: pairs with the Acquire in `visible`.
        self.visible.fetch_max(seq.get(), Ordering::Release);
    }

    /// A view together with the sequence number up to which it is complete. `load` gives the
    /// current view; `replaced_count` is how often it was replaced, counted behind each time by
    /// whoever did, with Release and before a write is published that only the next view has.
    ///
    /// The view is taken first: a number read before could name versions that a compaction
    /// installed in between no longer keeps. Then the view must still be current, or writes up to
    /// the number could lie in a memtable that the view does not have.
    #[inline]
    pub(crate) fn with_visible<V>(
        &self,
        replaced_count: &AtomicU64,
        load: impl Fn() -> V,
    ) -> (V, SequenceNumber) {
        loop {
            // Acquire: pairs with the Release of the count; the view it was counted for is loaded.
            let before = replaced_count.load(Ordering::Acquire);
            let view = load();
            // Whoever published it had counted the view before that: seen below, if not above.
            let seq = self.visible();
            if replaced_count.load(Ordering::Relaxed) == before {
                return (view, seq);
            }
        }
    }

    /// Pins what is visible now.
    pub(crate) fn register(self: &Arc<Self>) -> Registration {
        let mut registered = self.registered.lock();
        let seq = self.visible();
        *registered.entry(seq).or_default() += 1;
        Registration {
            snapshots: Arc::clone(self),
            seq,
        }
    }

    /// What a job that starts now must keep.
    pub(crate) fn capture(&self) -> Captured {
        let registered = self.registered.lock();
        Captured {
            registered: registered.keys().copied().collect(),
            visible: self.visible(),
        }
    }

    /// The lowest number at which somebody may read. Only ever rises.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        let registered = self.registered.lock();
        let first = registered.keys().next().copied();
        first.unwrap_or_else(|| self.visible())
    }

    /// Wakes compaction as soon as no registered snapshot is below `seq`. Only the last call
    /// counts, and only once.
    pub(crate) fn wake_past(&self, seq: SequenceNumber, signals: &Arc<Signals>) {
        *self.waiting.lock() = Some((seq, Arc::clone(signals)));
        // The last one may have gone in between.
        self.wake_if_past();
    }

    fn wake_if_past(&self) {
        let oldest = self.oldest();
        let mut waiting = self.waiting.lock();
        let due = waiting.take_if(|(seq, _)| oldest >= *seq);
        drop(waiting);
        if let Some((_, signals)) = due {
            signals.compaction.wake();
        }
    }

    /// Whether something is or may yet be registered that does not see the write `at`.
    pub(crate) fn may_be_read_below(&self, at: SequenceNumber) -> bool {
        let registered = self.registered.lock();
        let oldest = registered.keys().next().copied();
        self.visible() < at || oldest.is_some_and(|oldest| oldest < at)
    }

    pub(crate) fn count(&self) -> usize {
        self.registered.lock().values().sum()
    }
}

/// A pinned sequence number; released when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    snapshots: Arc<Snapshots>,
    seq: SequenceNumber,
}

impl Registration {
    pub(crate) fn seq(&self) -> SequenceNumber {
        self.seq
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.snapshots.origin.is_inherited() {
            // A thread that is not in this process may hold the lock for ever.
            return;
        }
        let mut registered = self.snapshots.registered.lock();
        if let Some(count) = registered.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                registered.remove(&self.seq);
            }
        }
        drop(registered);
        self.snapshots.wake_if_past();
    }
}

#[cfg(test)]
mod tests {
    use base::executor::Worker;

    use super::*;

    fn seq(value: u64) -> SequenceNumber {
        SequenceNumber::new(value).expect("small")
    }

    #[derive(Debug, Default)]
    struct Woken(AtomicU64);

    impl Worker for Woken {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn stop(&self) {}
    }

    /// What a snapshot protects goes when it does, though nothing else happens.
    #[test]
    fn compaction_is_woken_when_what_it_waits_for_is_released() {
        let woken = Arc::new(Woken::default());
        let count = || woken.0.load(Ordering::SeqCst);
        let signals = Arc::new(Signals::default());
        signals.compaction.set(Some(Arc::<Woken>::clone(&woken)));
        let snapshots = Arc::new(Snapshots::new(seq(5)));
        let old = snapshots.register();
        snapshots.publish(seq(9));
        let newer = snapshots.register();
        snapshots.wake_past(seq(7), &signals);
        drop(newer);
        assert_eq!(count(), 0, "the older one still protects it");
        drop(old);
        assert_eq!(count(), 1);
        drop(snapshots.register());
        assert_eq!(count(), 1, "once is enough");
        snapshots.wake_past(seq(9), &signals);
        assert_eq!(count(), 2, "it had gone before anybody waited");
    }

    #[test]
    fn a_pin_lasts_until_its_last_holder_is_gone() {
        let snapshots = Arc::new(Snapshots::new(seq(5)));
        let first = snapshots.register();
        let second = snapshots.register();
        snapshots.publish(seq(9));
        // A writer that comes late takes nothing back.
        snapshots.publish(seq(7));
        assert_eq!(
            snapshots.capture(),
            Captured {
                registered: vec![seq(5)],
                visible: seq(9)
            }
        );
        drop(first);
        assert_eq!((snapshots.count(), snapshots.oldest()), (1, seq(5)));
        drop(second);
        assert_eq!(snapshots.oldest(), seq(9));
        assert_eq!(snapshots.capture().registered, []);
    }
}
