//! One pinned read view of a keyspace, and how it is replaced.
//!
//! Readers take no lock: they load the current view and keep it as long as they like. Views are
//! replaced under a short lock with no I/O in it.

use arc_swap::ArcSwap;
use base::sync::{Arc, Mutex};
use base::{KeyspaceId, SequenceNumber};
use compaction::Version;
use log::Position;
use memtable::Memtable;

use crate::ledger::KeyspaceLedger;
use crate::snapshots::Snapshots;
use crate::sweeper::Sweeper;
use crate::till::Till;
use crate::tuning::KeyspaceSettings;

/// A memtable that takes no more writes and waits to be flushed.
#[derive(Clone)]
pub(crate) struct SealedMemtable {
    pub(crate) memtable: Arc<Memtable>,
    /// The last sequence number assigned to it.
    pub(crate) last_seq: SequenceNumber,
    /// The log holds all of it before here.
    pub(crate) log_end: Position,
}

/// Everything a read of one keyspace may look at.
pub(crate) struct Superversion {
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) sealed: Vec<SealedMemtable>,
    pub(crate) version: Arc<Version>,
}

/// The current view of one keyspace.
pub(crate) struct KeyspaceState {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    settings: Arc<KeyspaceSettings>,
    current: ArcSwap<Superversion>,
    /// LOCK: last in the order commit, manifest, superversion. Never held over I/O.
    replacing: Mutex<()>,
    sweeper: Arc<Sweeper>,
    /// What its writes pay while flush or compaction is behind.
    pub(crate) till: Till,
    /// What it costs.
    pub(crate) ledger: Arc<KeyspaceLedger>,
}

impl KeyspaceState {
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        settings: Arc<KeyspaceSettings>,
        active: Arc<Memtable>,
        version: Arc<Version>,
        sweeper: Arc<Sweeper>,
        ledger: KeyspaceLedger,
    ) -> Self {
        let first = Superversion {
            active,
            sealed: Vec::new(),
            version,
        };
        Self {
            id,
            name,
            settings,
            current: ArcSwap::from_pointee(first),
            replacing: Mutex::new(()),
            sweeper,
            till: Till::new(),
            ledger: Arc::new(ledger),
        }
    }

    /// The numbers that steer it.
    #[inline]
    pub(crate) fn settings(&self) -> &Arc<KeyspaceSettings> {
        &self.settings
    }

    /// Pins the current view.
    #[inline]
    pub(crate) fn pin(&self) -> Arc<Superversion> {
        self.current.load_full()
    }

    /// Looks at the current view for a moment, without counting a reference.
    #[inline]
    pub(crate) fn peek(&self) -> arc_swap::Guard<Arc<Superversion>> {
        self.current.load()
    }

    /// Pins a view together with the sequence number up to which it is complete.
    ///
    /// The view is taken first: a number read before could name versions that a compaction
    /// installed in between no longer keeps. Then the view must still be current, or writes up to
    /// the number could lie in a memtable that the view does not have.
    #[inline]
    pub(crate) fn peek_visible(
        &self,
        snapshots: &Snapshots,
    ) -> (arc_swap::Guard<Arc<Superversion>>, SequenceNumber) {
        let mut view = self.current.load();
        loop {
            let seq = snapshots.visible();
            let again = self.current.load();
            if Arc::ptr_eq(&view, &again) {
                return (view, seq);
            }
            view = again;
        }
    }

    fn replace(&self, change: impl FnOnce(&Superversion) -> Superversion) {
        let guard = self.replacing.lock();
        let next = Arc::new(change(&self.current.load()));
        let old = self.current.swap(next);
        drop(guard);
        self.till.view_changed();
        // The last holder frees a memtable, which takes milliseconds: that is the helper's.
        self.sweeper.bury(old);
    }

    /// Seals the active memtable and puts `fresh` in its place.
    pub(crate) fn seal(&self, fresh: Arc<Memtable>, last_seq: SequenceNumber, log_end: Position) {
        self.replace(|old| {
            let memtable = Arc::clone(&old.active);
            let mut sealed = vec![SealedMemtable {
                memtable,
                last_seq,
                log_end,
            }];
            sealed.extend(old.sealed.iter().cloned());
            Superversion {
                active: fresh,
                sealed,
                version: Arc::clone(&old.version),
            }
        });
    }

    /// Installs the version of a flush and drops the memtables it holds, in one step.
    pub(crate) fn install_flush(&self, version: Arc<Version>, flushed: &[Arc<Memtable>]) {
        self.replace(|old| {
            let is_flushed =
                |sealed: &&SealedMemtable| flushed.iter().any(|m| Arc::ptr_eq(m, &sealed.memtable));
            let sealed: Vec<_> = old
                .sealed
                .iter()
                .filter(|s| !is_flushed(s))
                .cloned()
                .collect();
            assert_eq!(
                sealed.len() + flushed.len(),
                old.sealed.len(),
                "flushed what was sealed"
            );
            Superversion {
                active: Arc::clone(&old.active),
                sealed,
                version,
            }
        });
    }

    /// Installs the version of a compaction.
    pub(crate) fn install(&self, version: Arc<Version>) {
        self.replace(|old| Superversion {
            active: Arc::clone(&old.active),
            sealed: old.sealed.clone(),
            version,
        });
    }
}

/// The keyspaces of a database.
#[derive(Debug)]
pub(crate) struct Keyspaces {
    default: Arc<KeyspaceState>,
}

impl Keyspaces {
    pub(crate) fn new(default: Arc<KeyspaceState>) -> Self {
        Self { default }
    }

    #[inline]
    pub(crate) fn default(&self) -> &Arc<KeyspaceState> {
        &self.default
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<KeyspaceState>> {
        (name == self.default.name).then_some(&self.default)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<KeyspaceState>> {
        std::iter::once(&self.default)
    }
}

impl std::fmt::Debug for KeyspaceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyspaceState")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
