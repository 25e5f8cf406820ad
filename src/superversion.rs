//! One pinned read view of a keyspace, and how it is replaced.
//!
//! Readers take no lock: they load the current view and keep it as long as they like. Views are
//! replaced under a short lock with no I/O in it.

use arc_swap::ArcSwap;
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, KeyspaceId, Result, SequenceNumber};
use compaction::{InProgress, Version};
use log::Position;
use memtable::{Memtable, MemtableOptions};

use crate::ledger::KeyspaceLedger;
use crate::snapshots::Snapshots;
use crate::sweeper::Sweeper;
use crate::till::Till;
use crate::tuning::KeyspaceSettings;

/// A memtable that takes no more writes and waits to be flushed.
#[derive(Clone)]
pub(crate) struct SealedMemtable {
    pub(crate) memtable: Arc<Memtable>,
    /// The first sequence number assigned to it.
    pub(crate) first_seq: SequenceNumber,
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

/// The current view of one keyspace, and what goes on in it.
pub(crate) struct KeyspaceState {
    pub(crate) id: KeyspaceId,
    pub(crate) name: Arc<str>,
    settings: Arc<KeyspaceSettings>,
    current: ArcSwap<Superversion>,
    /// How often that was replaced.
    replaced_count: AtomicU64,
    /// The sequence number of the drop, once nothing reads it any more but snapshots from before;
    /// 0 until then.
    dropped_at: AtomicU64,
    /// The same, from the moment on when nothing more is written. Changes under the commit lock.
    dropping_at: AtomicU64,
    /// The first sequence number assigned to the active memtable; 0 while none is. Changes under
    /// the commit lock, and before the write becomes visible.
    active_first_seq: AtomicU64,
    /// The tables that compactions have reserved. LOCK: before snapshots, whose oldest pin planning
    /// asks for; nothing else is locked under it.
    pub(crate) in_progress: Mutex<InProgress>,
    /// Makes its jobs fail soon: it was dropped, or the database is being closed.
    pub(crate) cancel: Arc<AtomicBool>,
    /// How many of its jobs have failed.
    failure_count: AtomicU64,
    /// How many of those were flushes.
    flush_failure_count: AtomicU64,
    /// LOCK: last in the order commit, manifest, superversion. Never held over I/O.
    replacing: Mutex<()>,
    sweeper: Arc<Sweeper>,
    /// What its writes pay while flush or compaction is behind.
    pub(crate) till: Till,
    /// What it costs.
    pub(crate) ledger: Arc<KeyspaceLedger>,
}

/// A memtable with fewer tombstones is never sealed for them: a table costs a sync, however small.
const WALKED_TOMBSTONES_MIN: u64 = 4096;
/// A scan walks over so many entries in the time in which one is flushed and compacted. Once so
/// many were walked over in vain for each entry that there is, sealing has paid for itself.
const WALKS_PER_ENTRY: u64 = 32;

/// Whether scans have walked over what is deleted in `memtable` so often that it had better become
/// a table, from which compactions drop it. Without scans never.
#[inline]
fn is_walked_in_vain(memtable: &Memtable) -> bool {
    let walked = memtable.walked_count();
    // One load, as long as nothing is wrong.
    walked >= WALKED_TOMBSTONES_MIN * WALKS_PER_ENTRY
        && memtable.tombstone_count() >= WALKED_TOMBSTONES_MIN
        && walked / WALKS_PER_ENTRY >= memtable.entry_count()
}

impl KeyspaceState {
    pub(crate) fn new(
        id: KeyspaceId,
        name: &str,
        settings: Arc<KeyspaceSettings>,
        active: Arc<Memtable>,
        version: Arc<Version>,
        sweeper: Arc<Sweeper>,
        ledger: Arc<KeyspaceLedger>,
    ) -> Self {
        let first = Superversion {
            active,
            sealed: Vec::new(),
            version,
        };
        let till = Till::new(settings.memtable_bytes_max as u64);
        Self {
            id,
            name: Arc::from(name),
            settings,
            current: ArcSwap::from_pointee(first),
            replaced_count: AtomicU64::new(0),
            dropped_at: AtomicU64::new(0),
            dropping_at: AtomicU64::new(0),
            active_first_seq: AtomicU64::new(0),
            in_progress: Mutex::default(),
            cancel: Arc::default(),
            failure_count: AtomicU64::new(0),
            flush_failure_count: AtomicU64::new(0),
            replacing: Mutex::new(()),
            sweeper,
            till,
            ledger,
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

    /// Whether the active memtable is to be sealed: it is full, or scans lose more with what lies
    /// deleted in it than a flush would cost.
    #[inline]
    pub(crate) fn is_active_due(&self) -> bool {
        let active = &self.peek().active;
        active.bytes() >= self.settings.memtable_bytes_max || is_walked_in_vain(active)
    }

    /// Looks at a view together with the sequence number up to which it is complete.
    #[inline]
    pub(crate) fn peek_visible(
        &self,
        snapshots: &Snapshots,
    ) -> (arc_swap::Guard<Arc<Superversion>>, SequenceNumber) {
        snapshots.with_visible(&self.replaced_count, || self.current.load())
    }

    fn replace(&self, change: impl FnOnce(&Superversion) -> Superversion) {
        let guard = self.replacing.lock();
        let next = Arc::new(change(&self.current.load()));
        let old = self.current.swap(next);
        // Release: pairs with the Acquire in `Snapshots::with_visible`. Under the lock, so that no
        // other view comes in before this one is counted.
        self.replaced_count.fetch_add(1, Ordering::Release);
        drop(guard);
        self.till.view_changed();
        // The last holder frees a memtable, which takes milliseconds: that is the helper's.
        self.sweeper.bury(old);
    }

    /// Notes that the active memtable gets what was written from `seq` on. Returns whether it had
    /// nothing before. The caller holds the commit lock and has not published `seq` yet.
    #[inline]
    pub(crate) fn note_assigned(&self, seq: SequenceNumber) -> bool {
        if self.active_first_seq.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // Release: pairs with the Acquire in `active_first_seq`. Who sees `seq` visible sees this.
        self.active_first_seq.store(seq.get(), Ordering::Release);
        true
    }

    /// The first sequence number assigned to the active memtable, inserted already or not.
    #[inline]
    pub(crate) fn active_first_seq(&self) -> Option<SequenceNumber> {
        let first = self.active_first_seq.load(Ordering::Acquire);
        SequenceNumber::new(first).filter(|_| first != 0)
    }

    /// Whether anything was written that is in no table yet.
    pub(crate) fn has_unflushed(&self) -> bool {
        // In this order: sealing adds to the view before it clears the number.
        self.active_first_seq().is_some() || !self.peek().sealed.is_empty()
    }

    /// From here on nothing is written any more: the drop has the number `seq`. The caller holds
    /// the commit lock.
    pub(crate) fn begin_drop(&self, seq: SequenceNumber) {
        self.dropping_at.store(seq.get(), Ordering::Release);
    }

    /// The drop is durable: only snapshots from before it read on.
    pub(crate) fn finish_drop(&self) {
        let seq = self.dropping_at.load(Ordering::Acquire);
        assert!(seq != 0, "a drop is begun before it is finished");
        self.cancel.store(true, Ordering::Release);
        self.peek().active.seal();
        // Release: pairs with the Acquire in `check_readable`.
        self.dropped_at.store(seq, Ordering::Release);
    }

    /// The sequence number of its drop.
    pub(crate) fn dropped_at(&self) -> Option<SequenceNumber> {
        let at = self.dropped_at.load(Ordering::Acquire);
        SequenceNumber::new(at).filter(|_| at != 0)
    }

    /// Lets go of everything a dropped keyspace held. No snapshot from before the drop is left.
    pub(crate) fn clear(&self) {
        let active = Memtable::new(MemtableOptions::default());
        self.replace(|_| Superversion {
            active,
            sealed: Vec::new(),
            version: Arc::new(Version::empty()),
        });
    }

    /// Fails if the keyspace was dropped. A read checks after it has its view: a view that was
    /// cleared is never taken for an empty keyspace.
    #[inline]
    pub(crate) fn check_readable(&self, snapshot: Option<SequenceNumber>) -> Result<()> {
        // Acquire: pairs with the Release in `finish_drop`.
        let Some(seq) = snapshot else {
            let is_dropped = self.dropped_at.load(Ordering::Acquire) != 0;
            return if is_dropped { Err(self.gone()) } else { Ok(()) };
        };
        // A snapshot that sees the drop sees it from the first read on, durable or not. Acquire:
        // pairs with the Release in `begin_drop`, before the number was published.
        let dropping_at = self.dropping_at.load(Ordering::Acquire);
        if dropping_at == 0 || seq.get() < dropping_at {
            return Ok(());
        }
        Err(self.gone())
    }

    /// Fails if the keyspace takes no more writes. Certain under the commit lock.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.dropping_at.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        Err(self.gone())
    }

    #[cold]
    fn gone(&self) -> Error {
        keyspace_gone(&self.name)
    }

    /// Notes that one of its jobs failed.
    pub(crate) fn job_failed(&self) {
        self.failure_count.fetch_add(1, Ordering::AcqRel);
    }

    /// How many of its jobs have failed so far.
    pub(crate) fn failure_count(&self) -> u64 {
        self.failure_count.load(Ordering::Acquire)
    }

    /// Notes that it was a flush that failed.
    pub(crate) fn flush_failed(&self) {
        self.flush_failure_count.fetch_add(1, Ordering::AcqRel);
    }

    /// How many of its flushes have failed so far.
    pub(crate) fn flush_failure_count(&self) -> u64 {
        self.flush_failure_count.load(Ordering::Acquire)
    }

    /// Seals the active memtable and puts `fresh` in its place. The caller holds the commit lock.
    pub(crate) fn seal(&self, fresh: Arc<Memtable>, last_seq: SequenceNumber, log_end: Position) {
        let first_seq = self.active_first_seq().unwrap_or(last_seq);
        self.replace(|old| {
            old.active.seal();
            let memtable = Arc::clone(&old.active);
            let mut sealed = vec![SealedMemtable {
                memtable,
                first_seq,
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
        // Release: who sees it cleared sees the memtable among the sealed ones.
        self.active_first_seq.store(0, Ordering::Release);
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

/// What everybody is told who still asks for a keyspace that was dropped.
#[cold]
pub(crate) fn keyspace_gone(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "the keyspace was dropped").with_value("name", name)
}

impl std::fmt::Debug for KeyspaceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyspaceState")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
