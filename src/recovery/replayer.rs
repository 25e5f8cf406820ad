//! Puts the accepted log back into memtables, and full ones through a flush.
//!
//! What the log says of keyspaces is done again where MANIFEST does not have it yet. Nothing here
//! depends on whether it is done the first time.

use base::sync::Arc;
use base::{Error, ErrorKind, HashSeed, KeyspaceId, Result, SequenceNumber};
use log::recovery::Prepared;
use log::{Position, Record, RecordKind, Replay};

use super::keyspace_of;
use crate::batch::{Operation, Operations};
use crate::change::{check_name, decode_create, decode_drop};
use crate::commit::{self, MemtableMaker};
use crate::manifest::{KeyspaceFacts, KeyspaceRecord, Rooms};
use crate::registry::{Keyspaces, Targets};
use crate::snapshots::Snapshots;
use crate::superversion::KeyspaceState;
use crate::tree::Tree;
use crate::tuning::KeyspaceSettings;

/// One run over the log.
pub(super) struct Replayer<'a> {
    rooms: &'a Rooms,
    tree: Tree,
    keyspaces: &'a Keyspaces,
    memtables: &'a MemtableMaker,
    hash_seed: HashSeed,
    /// What MANIFEST knew before the run.
    known: KeyspaceFacts,
    /// The keyspace of the last operation, and from where on it needs the log.
    last: Option<(Arc<KeyspaceState>, SequenceNumber)>,
    /// Those that the current record writes to beside the last.
    touched: Vec<Arc<KeyspaceState>>,
    /// What is in memtables or tables so far: a flush in between may claim no more than this.
    pub(super) replayed_upto: SequenceNumber,
    pub(super) replayed_count: u64,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(
        rooms: &'a Rooms,
        tree: Tree,
        keyspaces: &'a Keyspaces,
        memtables: &'a MemtableMaker,
        hash_seed: HashSeed,
    ) -> Self {
        let known = tree.versions().keyspaces();
        Self {
            rooms,
            tree,
            keyspaces,
            memtables,
            hash_seed,
            replayed_upto: known.floor(),
            replayed_count: 0,
            last: None,
            touched: Vec::new(),
            known,
        }
    }

    pub(super) fn run(&mut self, prepared: &Prepared) -> Result<()> {
        let (fs, dir) = (&*self.rooms.fs, &self.rooms.dir);
        let from = self.known.floor().plus(1);
        let mut replay = Replay::open(fs, dir, &prepared.segments, from)?;
        while let Some(record) = replay.next()? {
            match record.meta.kind {
                RecordKind::Batch => self.replay_batch(&record)?,
                RecordKind::KeyspaceCreate => self.replay_create(&record)?,
                RecordKind::KeyspaceDrop => self.replay_drop(&record)?,
                _ => continue,
            }
            self.replayed_upto = self.replayed_upto.max(record.meta.last_seq());
            self.make_room()?;
        }
        Ok(())
    }

    fn corrupt(&self, record: &Record<'_>, message: &str) -> Error {
        Error::new(ErrorKind::Corruption, message)
            .with_path(&self.rooms.dir)
            .with_value("seq", record.meta.first_seq)
    }

    fn replay_batch(&mut self, record: &Record<'_>) -> Result<()> {
        let (first_seq, op_count) = (record.meta.first_seq, record.meta.op_count);
        for operation in Operations::new(record.payload, first_seq, op_count) {
            let message = "a record of the log holds a malformed batch";
            let operation = operation.map_err(|_| self.corrupt(record, message))?;
            if self.is_moot(&operation) {
                continue;
            }
            let Some((keyspace, floor)) = self.target(operation.keyspace) else {
                let message = "a record of the log is for an unknown keyspace";
                let error = self.corrupt(record, message);
                return Err(error.with_value("keyspace", operation.keyspace));
            };
            if operation.seq > floor {
                let targets = Targets::One(&keyspace);
                self.keyspaces.note_commit(&targets, operation.seq);
                let active = &keyspace.peek().active;
                commit::insert(
                    active,
                    self.hash_seed,
                    &operation,
                    record.meta.commit_micros,
                );
                self.replayed_count += 1;
            }
            self.last = Some((keyspace, floor));
        }
        Ok(())
    }

    /// Whether the keyspace of an operation was dropped later.
    fn is_moot(&self, operation: &Operation<'_>) -> bool {
        let dropped = &self.known.dropped;
        !dropped.is_empty()
            && dropped
                .get(&operation.keyspace)
                .is_some_and(|at| operation.seq < *at)
    }

    /// A keyspace, and up to where its tables have what the log holds.
    fn target(&mut self, id: KeyspaceId) -> Option<(Arc<KeyspaceState>, SequenceNumber)> {
        if let Some(last) = self.last.take_if(|(keyspace, _)| keyspace.id == id) {
            return Some(last);
        }
        self.touched.extend(self.last.take().map(|(last, _)| last));
        let keyspace = self.keyspaces.by_id(id)?;
        // One that this run created has nothing in tables yet but what this run put there.
        let known = self.known.alive.get(&id);
        let floor = known.map_or(SequenceNumber::ZERO, |record| record.flushed_upto);
        Some((keyspace, floor.max(self.known.flushed_floor)))
    }

    fn replay_create(&mut self, record: &Record<'_>) -> Result<()> {
        let wrong = |what: &str| self.corrupt(record, what);
        let (id, created) = decode_create(record.payload)
            .map_err(|_| wrong("a record of the log creates a keyspace and is malformed"))?;
        let is_known = id.0 < self.known.next_id || id == KeyspaceId::DEFAULT;
        if is_known || self.keyspaces.by_id(id).is_some() {
            return Ok(());
        }
        if created.order != 0 {
            let error = Error::new(ErrorKind::Unsupported, "unknown key order");
            return Err(error.with_value("order", created.order));
        }
        KeyspaceSettings::decode(&created.options)
            .map_err(|error| error.with_path(&self.rooms.dir))?;
        let name = std::str::from_utf8(&created.name).unwrap_or_default();
        check_name(name)
            .map_err(|_| wrong("a record of the log creates a keyspace without a proper name"))?;
        if self.keyspaces.by_name(name).is_some() {
            return Err(wrong(
                "a record of the log creates a keyspace that is there",
            ));
        }
        let at = record.meta.first_seq;
        let manifest_record = KeyspaceRecord {
            name: created.name.clone(),
            order: created.order,
            options: created.options.clone(),
            flushed_upto: at,
            version: Arc::default(),
        };
        let sweeper = Arc::clone(&self.rooms.sweeper);
        let ledger = self.rooms.ledger.keyspace();
        let keyspace = keyspace_of(id, &manifest_record, self.memtables, sweeper, ledger)?;
        // INVARIANT: MANIFEST claims no place in the log here, see `flush`.
        let versions = self.tree.versions();
        versions.create_keyspace(id, created, at, Position::default())?;
        self.keyspaces.insert(keyspace);
        Ok(())
    }

    fn replay_drop(&mut self, record: &Record<'_>) -> Result<()> {
        let id = decode_drop(record.payload).map_err(|_| {
            self.corrupt(
                record,
                "a record of the log drops a keyspace and is malformed",
            )
        })?;
        if id == KeyspaceId::DEFAULT {
            return Err(self.corrupt(record, "a record of the log drops the default keyspace"));
        }
        let Some(keyspace) = self.keyspaces.by_id(id) else {
            return Ok(());
        };
        let at = record.meta.first_seq;
        let versions = self.tree.versions();
        versions.drop_keyspace(id, at, Position::default())?;
        keyspace.begin_drop(at);
        keyspace.finish_drop();
        self.keyspaces.remove(&keyspace);
        self.keyspaces.clear_all_dropped();
        self.last = None;
        Ok(())
    }

    /// Flushes what is full, and the largest when all together take too much memory.
    fn make_room(&mut self) -> Result<()> {
        let last = self.last.as_ref().map(|(keyspace, _)| Arc::clone(keyspace));
        let touched = std::mem::take(&mut self.touched);
        for keyspace in touched.into_iter().chain(last) {
            if keyspace.peek().active.bytes() >= keyspace.settings().memtable_bytes_max {
                self.flush(&keyspace)?;
            }
        }
        if self.keyspaces.is_memory_due() {
            for keyspace in self.keyspaces.too_large() {
                self.flush(&keyspace)?;
            }
        }
        Ok(())
    }

    /// Everything replayed is durable already, so that a table may be made from it.
    fn flush(&self, keyspace: &Arc<KeyspaceState>) -> Result<()> {
        // INVARIANT: MANIFEST claims no place in the log here. Until the new segment has begun, a
        // segment whose torn end was cut still counts as the newest, and would look damaged.
        let log_end = Position::default();
        let fresh = self.memtables.make(keyspace.settings());
        keyspace.seal(fresh, self.replayed_upto, log_end);
        let snapshots = Snapshots::new(self.replayed_upto);
        self.tree.flush(keyspace, &snapshots, None)?;
        self.keyspaces.note_flushed(keyspace);
        // There is no helper yet, and what is replayed may be many times the memory there is.
        self.rooms.sweeper.free();
        Ok(())
    }
}
