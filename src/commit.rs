//! The write path: log order is sequence order, and a commit is published whole.
//!
//! INVARIANT: nothing may fail between taking a sequence range and publishing it, except the log
//! write itself, whose failure closes the door for good.
//! INVARIANT: all operations of a commit go into memtables of one Superversion; a memtable is only
//! sealed between commits.

use base::sync::{Arc, Mutex};
use base::{
    Error, ErrorKind, HashSeed, InternalKey, PinLedger, Result, SequenceNumber, WriteOutcome,
};
use log::{Log, Position, RecordKind};
use memtable::{Memtable, MemtableOptions};

use crate::batch::{Operation, Operations, WriteBatch};
use crate::health::HealthState;
use crate::reserve::SpaceReserve;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::stall::{Gate, Patience, Toll};
use crate::superversion::{KeyspaceState, Keyspaces};
use crate::throttle::Throttled;
use crate::tuning::{Durability, KeyspaceSettings};

mod space;

/// What a write got: its place in the order of all writes, and how safe it is already.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let first = db.put("a", "1")?;
/// let second = db.delete("a")?;
/// assert!(first.seq() < second.seq());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    seq: SequenceNumber,
    is_durable: bool,
    throttled: Option<Throttled>,
}

impl Commit {
    /// The sequence number of its last operation: a snapshot at or after it sees the commit. For an
    /// empty batch, what was visible when it was written.
    pub fn seq(&self) -> SequenceNumber {
        self.seq
    }

    /// Whether it was on the disk when the write returned.
    pub fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// What the write waited for flush or compaction to catch up, if it did. Not what a sync took.
    pub fn throttled(&self) -> Option<Throttled> {
        self.throttled
    }
}

/// Makes empty memtables.
#[derive(Clone, Debug)]
pub(crate) struct MemtableMaker {
    pub(crate) pins: Arc<PinLedger>,
}

impl MemtableMaker {
    pub(crate) fn make(&self, settings: &KeyspaceSettings) -> Arc<Memtable> {
        Memtable::new(MemtableOptions {
            filter_bytes: settings.memtable_filter_bytes(),
            arena_chunk_bytes: settings.arena_chunk_bytes(),
            pins: Arc::clone(&self.pins),
            ..MemtableOptions::default()
        })
    }
}

/// Inserts one operation; the same for a commit and for replay.
#[inline]
pub(crate) fn insert(memtable: &Memtable, hash_seed: HashSeed, operation: &Operation<'_>) {
    let key = InternalKey::new(operation.key, operation.seq, operation.kind);
    memtable.insert(key, hash_seed.hash(operation.key), operation.value);
}

/// The write path of a database.
#[derive(Debug)]
pub(crate) struct CommitPath {
    pub(crate) log: Arc<Log>,
    pub(crate) keyspaces: Arc<Keyspaces>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) gate: Gate,
    pub(crate) signals: Arc<Signals>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) memtables: MemtableMaker,
    pub(crate) hash_seed: HashSeed,
    pub(crate) reserve: Arc<SpaceReserve>,
    pub(crate) log_bytes_max: u64,
    pub(crate) log_segment_bytes: u64,
    pub(crate) value_bytes_max: usize,
    pub(crate) durability: Durability,
    /// LOCK: first in the order commit, manifest, superversion.
    pub(crate) state: Mutex<CommitState>,
}

/// What only the committing thread touches.
#[derive(Debug)]
pub(crate) struct CommitState {
    pub(crate) next_seq: SequenceNumber,
    pub(crate) log_end: Position,
    /// Set by close: no write begins any more.
    pub(crate) is_closing: bool,
}

impl CommitPath {
    /// Commits `batch`.
    pub(crate) fn write(
        &self,
        batch: &WriteBatch,
        durability: Durability,
        patience: Patience,
    ) -> Result<Commit> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        self.health.check_writable()?;
        batch.check(self.value_bytes_max).map_err(rejected)?;
        if batch.op_count() == 0 {
            return self.write_nothing(durability);
        }
        let toll = Toll {
            keyspace: self.keyspaces.default(),
            bytes: batch.user_bytes(),
        };
        self.check_space(batch)?;
        let throttled = match self.gate.pass([toll], patience) {
            Err(refusal) => self.admit_deletes(batch, refusal)?,
            passed => passed?,
        };
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        self.make_room_locked(&state);
        let first_seq = state.next_seq;
        let last_seq = first_seq.plus(u64::from(batch.op_count()) - 1);
        let append = || {
            let (op_count, payload) = (batch.op_count(), batch.payload());
            self.log
                .append(RecordKind::Batch, first_seq, op_count, payload)
        };
        let appended = match append() {
            Err(error) if self.has_freed_space(batch, &error) => append(),
            appended => appended,
        };
        let appended = appended.map_err(|error| self.write_failed(error))?;
        let view = self.keyspaces.default().peek();
        for operation in Operations::new(batch.payload(), first_seq, batch.op_count()) {
            let operation = operation.expect("a batch encodes what it was given");
            debug_assert_eq!(operation.keyspace, self.keyspaces.default().id);
            insert(&view.active, self.hash_seed, &operation);
        }
        drop(view);
        state.next_seq = last_seq.plus(1);
        if self.log_needs_helper(state.log_end, appended.end) {
            self.signals.helper.wake();
        }
        state.log_end = appended.end;
        self.snapshots.publish(last_seq);
        drop(state);
        toll.keyspace
            .ledger
            .add_write(toll.bytes, u64::from(batch.op_count()));
        let is_durable = durability == Durability::Disk;
        if is_durable {
            self.sync_upto(appended.end)?;
        }
        Ok(Commit {
            seq: last_seq,
            is_durable,
            throttled,
        })
    }

    /// Whether the log switched to a new segment, or the live one came to be half full: the time to
    /// seal the old one, or to prepare the next.
    #[inline]
    fn log_needs_helper(&self, before: Position, after: Position) -> bool {
        let half = self.log_segment_bytes / 2;
        before.ordinal != after.ordinal || before.offset < half && after.offset >= half
    }

    /// An empty batch changes nothing, but as a `Disk` write it still waits for all before it.
    fn write_nothing(&self, durability: Durability) -> Result<Commit> {
        let seq = self.snapshots.visible();
        let is_durable = durability == Durability::Disk;
        if is_durable {
            self.sync()?;
        }
        Ok(Commit {
            seq,
            is_durable,
            throttled: None,
        })
    }

    /// Makes every commit that has returned so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.health.check_writable()?;
        self.sync_upto(self.log.end())
    }

    fn sync_upto(&self, end: Position) -> Result<()> {
        self.log.sync_upto(end).map_err(|error| {
            self.health.poison(&error);
            self.signals.progress.ring();
            error.with_outcome(WriteOutcome::Indeterminate)
        })
    }

    fn check_locked(&self, state: &CommitState) -> Result<()> {
        self.health.check_writable()?;
        if state.is_closing {
            return Err(
                Error::new(ErrorKind::Closed, "the database is being closed")
                    .with_outcome(WriteOutcome::Rejected),
            );
        }
        Ok(())
    }

    #[cold]
    fn write_failed(&self, error: Error) -> Error {
        if error.outcome() == Some(WriteOutcome::Rejected) {
            return error;
        }
        self.health.poison(&error);
        self.signals.progress.ring();
        error.with_outcome(WriteOutcome::Indeterminate)
    }

    /// Seals the active memtable if it is full or if the log has outgrown its limit.
    #[inline]
    fn make_room_locked(&self, state: &CommitState) {
        for keyspace in self.keyspaces.all() {
            let view = keyspace.peek();
            let is_full = view.active.bytes() >= keyspace.settings().memtable_bytes_max;
            // A log over its limit is cut by flushing, but not while an earlier flush may do it.
            let is_log_over = view.sealed.is_empty() && self.log.total_bytes() > self.log_bytes_max;
            if is_full || is_log_over && view.active.entry_count() > 0 {
                drop(view);
                self.seal_locked(state, keyspace);
            }
        }
    }

    fn seal_locked(&self, state: &CommitState, keyspace: &KeyspaceState) {
        keyspace.seal(
            self.memtables.make(keyspace.settings()),
            // Not what comes before `next_seq`: an unclean open leaves a gap below that.
            self.snapshots.visible(),
            state.log_end,
        );
        self.signals.flush.wake();
        self.signals.helper.wake();
    }

    /// Seals the active memtable of `keyspace` unless it is empty. Returns the newest sealed one.
    pub(crate) fn seal(&self, keyspace: &KeyspaceState) -> Option<Arc<Memtable>> {
        let state = self.state.lock();
        if keyspace.peek().active.entry_count() > 0 {
            self.seal_locked(&state, keyspace);
        }
        keyspace
            .peek()
            .sealed
            .first()
            .map(|sealed| Arc::clone(&sealed.memtable))
    }

    /// Lets no write begin any more, waits for those under way, and seals what they wrote. Returns
    /// `None` if somebody else has begun to close.
    pub(crate) fn begin_close(&self) -> Option<Vec<(Arc<KeyspaceState>, Arc<Memtable>)>> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_closing, true) {
            return None;
        }
        let mut sealed = Vec::new();
        for keyspace in self.keyspaces.all() {
            if keyspace.peek().active.entry_count() > 0 {
                self.seal_locked(&state, keyspace);
            }
            if let Some(newest) = keyspace.peek().sealed.first() {
                sealed.push((Arc::clone(keyspace), Arc::clone(&newest.memtable)));
            }
        }
        Some(sealed)
    }
}
