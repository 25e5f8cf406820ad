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
    Error, ErrorKind, HashSeed, InternalKey, MemoryLedger, PinLedger, Result, SequenceNumber,
    WriteOutcome,
};
use log::{Log, LogSlot, Position, RecordKind};
use memtable::{Memtable, MemtableOptions, MemtableStructure, SpareChunks};

use crate::batch::{Operation, Operations, WriteBatch};
use crate::health::HealthState;
use crate::registry::{Keyspaces, Targets};
use crate::reserve::SpaceReserve;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::stall::{Gate, Patience, Toll};
use crate::superversion::{KeyspaceState, Superversion};
use crate::throttle::Throttled;
use crate::trace::Span;
use crate::tuning::{Durability, KeyspaceSettings};

mod change;
mod free;
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
    memory: Arc<MemoryLedger>,
    chunks: Arc<SpareChunks>,
    spare: Arc<Mutex<Option<Spare>>>,
}

/// A memtable that nobody uses yet.
#[derive(Debug)]
struct Spare {
    filter_bytes: usize,
    arena_chunk_bytes: usize,
    structure: MemtableStructure,
    memtable: Arc<Memtable>,
}

impl MemtableMaker {
    pub(crate) fn new(pins: Arc<PinLedger>, memory: Arc<MemoryLedger>) -> Self {
        Self {
            pins,
            chunks: SpareChunks::new(&memory),
            memory,
            spare: Arc::default(),
        }
    }

    /// Where what is pinned is counted.
    pub(crate) fn pins(&self) -> &PinLedger {
        &self.pins
    }

    /// Where what memtables take is counted.
    pub(crate) fn memory(&self) -> &Arc<MemoryLedger> {
        &self.memory
    }

    /// The one made ahead, if it fits, or a new one.
    pub(crate) fn make(&self, settings: &KeyspaceSettings) -> Arc<Memtable> {
        let fits = |spare: &mut Spare| {
            spare.filter_bytes == settings.memtable_filter_bytes()
                && spare.arena_chunk_bytes == settings.arena_chunk_bytes()
                && spare.structure == settings.memtable_structure
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
            structure: settings.memtable_structure,
            memtable: self.make_new(settings),
        };
        *self.spare.lock() = Some(spare);
    }

    /// Makes memory ready for the memtables that are being filled. Called by the worker that is
    /// ahead of the writers.
    pub(crate) fn prepare_chunks(&self) {
        self.chunks.prepare();
    }

    fn make_new(&self, settings: &KeyspaceSettings) -> Arc<Memtable> {
        Memtable::new(MemtableOptions {
            filter_bytes: settings.memtable_filter_bytes(),
            arena_chunk_bytes: settings.arena_chunk_bytes(),
            pins: Arc::clone(&self.pins),
            memory: Arc::clone(&self.memory),
            structure: settings.memtable_structure,
            spares: Some(Arc::clone(&self.chunks)),
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

/// What each keyspace of a batch gets; nothing if it is one alone.
fn tolls_of_many<'a>(batch: &WriteBatch, targets: &'a Targets<'_>) -> Vec<Toll<'a>> {
    let Targets::Many(keyspaces) = targets else {
        return Vec::new();
    };
    let mut tolls: Vec<_> = keyspaces
        .iter()
        .map(|keyspace| Toll::new(keyspace))
        .collect();
    let mut at = 0;
    let operations = Operations::new(batch.payload(), SequenceNumber::ZERO, batch.op_count());
    for operation in operations.flatten() {
        at = targets.index_of(operation.keyspace, at);
        tolls[at].bytes += (operation.key.len() + operation.value.len()) as u64;
        tolls[at].op_count += 1;
    }
    tolls
}

/// The memtables that a commit goes into, in the order of its targets.
enum Views {
    One(arc_swap::Guard<Arc<Superversion>>),
    Many(Vec<Arc<Superversion>>),
}

impl Views {
    #[inline]
    fn of(targets: &Targets<'_>) -> Self {
        match targets.as_slice() {
            [keyspace] => Self::One(keyspace.peek()),
            keyspaces => Self::Many(keyspaces.iter().map(|k| k.pin()).collect()),
        }
    }
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
    #[inline]
    pub(crate) fn write(
        &self,
        batch: &WriteBatch,
        targets: &Targets<'_>,
        durability: Durability,
        patience: Patience,
    ) -> Result<Commit> {
        let keyspaces = targets.as_slice();
        let span = Span::commit(batch.op_count(), &keyspaces[0].name, keyspaces.len());
        let now = || self.gate.clock.monotonic_micros();
        let began = span.is_wanted().then(now);
        let result = self.commit(batch, targets, durability, patience);
        if let Some(began) = began {
            span.record(batch.user_bytes(), now().saturating_sub(began));
        }
        result
    }

    fn commit(
        &self,
        batch: &WriteBatch,
        targets: &Targets<'_>,
        durability: Durability,
        patience: Patience,
    ) -> Result<Commit> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        self.health.check_writable()?;
        batch.check(self.value_bytes_max).map_err(rejected)?;
        if batch.op_count() == 0 {
            return self.write_nothing(durability);
        }
        let mut many = tolls_of_many(batch, targets);
        let mut one = [Toll::of_batch(&targets.as_slice()[0], batch)];
        let tolls = if many.is_empty() {
            &mut one[..]
        } else {
            &mut many
        };
        self.check_space(batch)?;
        let throttled = match self.gate.pass(tolls, patience) {
            Err(refusal) => self.admit_deletes(batch, refusal)?,
            passed => passed?,
        };
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        for keyspace in targets.as_slice() {
            keyspace.check_writable().map_err(rejected)?;
        }
        self.make_room_locked(&mut state, targets);
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
        // The memtables belong to the place: who seals them afterwards waits for this commit.
        self.keyspaces.note_commit(targets, first_seq);
        let views = Views::of(targets);
        state.advance(last_seq, slot.end());
        drop(state);
        let end = self.write_out(slot, batch, targets, &views, first_seq)?;
        self.snapshots.publish(last_seq);
        for toll in tolls {
            toll.keyspace.ledger.add_write(toll.bytes, toll.op_count);
        }
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
    /// memtables, and returns once this commit and all before it may be seen, and where the record
    /// ends. Should it panic, the slot poisons the log.
    fn write_out(
        &self,
        mut slot: LogSlot<'_>,
        batch: &WriteBatch,
        targets: &Targets<'_>,
        views: &Views,
        first_seq: SequenceNumber,
    ) -> Result<Position> {
        slot.fill(batch.payload())
            .map_err(|error| self.write_failed(error))?;
        let operations = Operations::new(batch.payload(), first_seq, batch.op_count());
        let operations = operations.map(|op| op.expect("a batch encodes what it was given"));
        let (seed, micros) = (self.hash_seed, slot.commit_micros());
        match views {
            Views::One(view) => {
                operations.for_each(|op| insert(&view.active, seed, &op, micros));
            }
            Views::Many(views) => {
                let mut at = 0;
                for operation in operations {
                    at = targets.index_of(operation.keyspace, at);
                    insert(&views[at].active, seed, &operation, micros);
                }
            }
        }
        if slot.wants_upkeep() {
            self.signals.ahead.wake();
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
        error.with_outcome(WriteOutcome::Indeterminate)
    }

    /// Seals memtables that are full or that scans walk in vain, or that keep more of memory or log
    /// than they should.
    #[inline]
    fn make_room_locked(&self, state: &mut CommitState, targets: &Targets<'_>) {
        for keyspace in targets.as_slice() {
            if keyspace.is_active_due() {
                self.seal_locked(state, keyspace);
            }
        }
        if std::mem::take(&mut state.is_log_switched) {
            self.free_log_locked(state);
        }
        if self.keyspaces.is_memory_due() {
            for keyspace in self.keyspaces.too_large() {
                self.seal_locked(state, &keyspace);
            }
        }
    }

    fn seal_locked(&self, state: &CommitState, keyspace: &Arc<KeyspaceState>) {
        keyspace.seal(
            self.memtables.make(keyspace.settings()),
            state.last_seq,
            state.log_end,
        );
        self.keyspaces.note_sealed(keyspace);
        // What is flushed shall not share a segment with what is not. An error is found by the
        // next write too.
        let _ = self.log.rotate_prepared();
        self.signals.flush.wake();
        self.signals.helper.wake();
    }

    /// Seals the active memtable of `keyspace` unless it is empty. Returns the newest sealed one.
    pub(crate) fn seal(&self, keyspace: &Arc<KeyspaceState>) -> Result<Option<Arc<Memtable>>> {
        let state = self.state.lock();
        keyspace.check_writable()?;
        if keyspace.active_first_seq().is_some() {
            self.seal_locked(&state, keyspace);
        }
        let view = keyspace.peek();
        Ok(view.sealed.first().map(|s| Arc::clone(&s.memtable)))
    }

    /// Lets no write begin any more, waits for those under way, and seals what they wrote. Returns
    /// `None` if somebody else has begun to close.
    pub(crate) fn begin_close(&self) -> Option<Vec<(Arc<KeyspaceState>, Arc<Memtable>)>> {
        // A creation or drop under way comes to its end first.
        let _changes = self.keyspaces.lock_changes();
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_closing, true) {
            return None;
        }
        // Writers do not need the lock any more. Should one fail, then the flush says why.
        let _ = self.log.wait_completed(state.last_seq);
        let mut sealed = Vec::new();
        for memtable in self.keyspaces.unflushed() {
            let keyspace = memtable.keyspace;
            if !memtable.is_sealed {
                self.seal_locked(&state, &keyspace);
            }
            if let Some(newest) = keyspace.peek().sealed.first() {
                sealed.push((Arc::clone(&keyspace), Arc::clone(&newest.memtable)));
            }
        }
        Some(sealed)
    }
}
