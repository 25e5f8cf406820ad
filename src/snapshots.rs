//! Which sequence numbers are pinned, and which is visible.
//!
//! INVARIANT: registering reads `visible` under the lock in which jobs capture (registered and
//! visible), so that a job either sees the snapshot or has dropped nothing that it sees.

use std::collections::BTreeMap;

use base::SequenceNumber;
use base::fork::Origin;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};

/// The registered snapshots of a database, and its visible sequence number.
#[derive(Debug)]
pub(crate) struct Snapshots {
    visible: AtomicU64,
    registered: Mutex<BTreeMap<SequenceNumber, usize>>,
    origin: Origin,
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
        }
    }

    /// Everything up to here may be read.
    #[inline]
    pub(crate) fn visible(&self) -> SequenceNumber {
        // Acquire: pairs with the Release in `publish`; the memtable entries up to it are seen.
        SequenceNumber::new(self.visible.load(Ordering::Acquire)).expect("published from one")
    }

    /// Makes everything up to `seq` visible. Only ever moves forward.
    #[inline]
    pub(crate) fn publish(&self, seq: SequenceNumber) {
        debug_assert!(
            seq.get() >= self.visible.load(Ordering::Relaxed),
            "visible only ratchets up"
        );
        // Release: pairs with the Acquire in `visible`.
        self.visible.store(seq.get(), Ordering::Release);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(value: u64) -> SequenceNumber {
        SequenceNumber::new(value).expect("small")
    }

    #[test]
    fn a_pin_lasts_until_its_last_holder_is_gone() {
        let snapshots = Arc::new(Snapshots::new(seq(5)));
        let first = snapshots.register();
        let second = snapshots.register();
        snapshots.publish(seq(9));
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
