//! The write path: log order is sequence order, and a commit is published whole.
//!
//! One short critical section gives a commit its sequence numbers, its place in the log and its
//! memtable. Copies, checksums and inserts are done outside, by all writers side by side. Commits
//! are published in order, as far as there is no hole; a write returns once its own is.
//!
//! INVARIANT: nothing may fail between taking a sequence range and publishing it, except the log
//! write itself, whose failure closes the door for good.
//! INVARIANT: all operations of a commit go into memtables of one Superversion. One that is sealed
//! may still be filled; it is flushed once everything assigned before the seal is published.

use base::sync::{Arc, Mutex};
use base::{
    Error, ErrorKind, HashSeed, InternalKey, PinLedger, Result, SequenceNumber, WriteOutcome,
};
use log::{Log, LogSlot, Position, RecordKind};
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

/// Makes empty memtables, and keeps one that was made ahead of its time.
#[derive(Clone, Debug)]
pub(crate) struct MemtableMaker {
    pins: Arc<PinLedger>,
    spare: Arc<Mutex<Option<Spare>>>,
}

/// A memtable that nobody uses yet.
#[derive(Debug)]
struct Spare {
    filter_bytes: usize,
    arena_chunk_bytes: usize,
    memtable: Arc<Memtable>,
}

impl MemtableMaker {
    pub(crate) fn new(pins: Arc<PinLedger>) -> Self {
        Self {
            pins,
            spare: Arc::default(),
        }
    }

    /// The one made ahead, if it fits, or a new one.
    pub(crate) fn make(&self, settings: &KeyspaceSettings) -> Arc<Memtable> {
        let fits = |spare: &mut Spare| {
            spare.filter_bytes == settings.memtable_filter_bytes()
                && spare.arena_chunk_bytes == settings.arena_chunk_bytes()
        };
        let spare = self.spare.lock().take_if(fits);
        spare.map_or_else(|| self.make_new(settings), |spare| spare.memtable)
    }

    /// Makes one ahead, so that sealing a memtable costs the write path no more than a swap. Called
    /// by the helper.
    pub(crate) fn prepare(&self, settings: &KeyspaceSettings) {
        if self.spare.lock().is_some() {
            return;
        }
        let spare = Spare {
            filter_bytes: settings.memtable_filter_bytes(),
            arena_chunk_bytes: settings.arena_chunk_bytes(),
            memtable: self.make_new(settings),
        };
        *self.spare.lock() = Some(spare);
    }

    fn make_new(&self, settings: &KeyspaceSettings) -> Arc<Memtable> {
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
pub(crate) fn insert(
    memtable: &Memtable,
    hash_seed: HashSeed,
    operation: &Operation<'_>,
    commit_micros: u64,
) {
    memtable.note_commit_time(commit_micros);
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
    pub(crate) value_bytes_max: usize,
    pub(crate) durability: Durability,
    /// LOCK: first in the order commit, manifest, superversion.
    pub(crate) state: Mutex<CommitState>,
}

/// What the next commit follows.
#[derive(Debug)]
pub(crate) struct CommitState {
    pub(crate) next_seq: SequenceNumber,
    /// The last one that was assigned. Not what comes before `next_seq`: an unclean open leaves a
    /// gap below that.
    pub(crate) last_seq: SequenceNumber,
    /// Where the place of the last commit ends.
    pub(crate) log_end: Position,
    /// The log began a segment since its size was last looked at.
    pub(crate) is_log_switched: bool,
    /// Set by close: no write begins any more.
    pub(crate) is_closing: bool,
}

impl CommitState {
    /// Notes a commit that took its place.
    #[inline]
    fn advance(&mut self, last_seq: SequenceNumber, log_end: Position) {
        self.is_log_switched |= self.log_end.ordinal != log_end.ordinal;
        self.next_seq = last_seq.plus(1);
        self.last_seq = last_seq;
        self.log_end = log_end;
    }
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
        self.make_room_locked(&mut state);
        let first_seq = state.next_seq;
        let last_seq = first_seq.plus(u64::from(batch.op_count()) - 1);
        let reserve = || {
            let (op_count, payload_len) = (batch.op_count(), batch.payload().len());
            self.log
                .reserve(RecordKind::Batch, first_seq, op_count, payload_len)
        };
        let slot = match reserve() {
            Err(error) if self.has_freed_space(batch, &error) => reserve(),
            slot => slot,
        };
        let slot = slot.map_err(|error| self.write_failed(error))?;
        // The memtable belongs to the place: who seals it afterwards waits for this commit.
        let view = self.keyspaces.default().peek();
        state.advance(last_seq, slot.end());
        drop(state);
        let end = self.write_out(slot, batch, &view.active, first_seq)?;
        self.snapshots.publish(last_seq);
        toll.keyspace
            .ledger
            .add_write(toll.bytes, u64::from(batch.op_count()));
        let is_durable = durability == Durability::Disk;
        if is_durable {
            self.sync_upto(end)?;
        }
        Ok(Commit {
            seq: last_seq,
            is_durable,
            throttled,
        })
    }

    /// What commits do side by side: writes the record into its place and the operations into the
    /// memtable, and returns once this commit and all before it may be seen, and where the record
    /// ends. Should it panic, the slot poisons the log.
    fn write_out(
        &self,
        mut slot: LogSlot<'_>,
        batch: &WriteBatch,
        memtable: &Memtable,
        first_seq: SequenceNumber,
    ) -> Result<Position> {
        slot.fill(batch.payload())
            .map_err(|error| self.write_failed(error))?;
        for operation in Operations::new(batch.payload(), first_seq, batch.op_count()) {
            let operation = operation.expect("a batch encodes what it was given");
            debug_assert_eq!(operation.keyspace, self.keyspaces.default().id);
            insert(memtable, self.hash_seed, &operation, slot.commit_micros());
        }
        if slot.wants_upkeep() {
            self.signals.helper.wake();
        }
        let appended = slot.complete().map_err(|error| self.write_failed(error))?;
        Ok(appended.end)
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
        let is_rejected = error.outcome() == Some(WriteOutcome::Rejected);
        if is_rejected && self.log.poisoned().is_none() {
            return error;
        }
        // It may be another writer, one that panicked, who has poisoned the log.
        self.health.poison(&error);
        if is_rejected {
            return error;
        }
        self.signals.progress.ring();
        error.with_outcome(WriteOutcome::Indeterminate)
    }

    /// Seals the active memtable if it is full or if the log has outgrown its limit.
    #[inline]
    fn make_room_locked(&self, state: &mut CommitState) {
        for keyspace in self.keyspaces.all() {
            let view = keyspace.peek();
            let is_full = view.active.bytes() >= keyspace.settings().memtable_bytes_max;
            // A log over its limit is cut by flushing, but not while an earlier flush may do it.
            let is_due = state.is_log_switched && view.sealed.is_empty();
            let is_log_over = is_due && self.log.total_bytes() > self.log_bytes_max;
            state.is_log_switched &= !is_due;
            if is_full || is_log_over && view.active.entry_count() > 0 {
                drop(view);
                self.seal_locked(state, keyspace);
            }
        }
    }

    fn seal_locked(&self, state: &CommitState, keyspace: &KeyspaceState) {
        keyspace.seal(
            self.memtables.make(keyspace.settings()),
            state.last_seq,
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
        // Writers do not need the lock any more. Should one fail, then the flush says why.
        let _ = self.log.wait_completed(state.last_seq);
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
