//! Keyspaces come and go in MANIFEST, after the log has said so.
//!
//! The log is the truth: what it says durably has happened, also when MANIFEST has no room for it
//! now. Then the edit is owed, and goes ahead of the next one.

use base::sync::Arc;
use base::{Error, KeyspaceId, Result, SequenceNumber};
use compaction::{KeyspaceCreated, KeyspaceEdit, Version, VersionEdit};
use log::Position;

use super::{KeyspaceRecord, State, VersionSet};
use crate::health::Job;
use crate::ledger::Ledger;

impl VersionSet {
    /// Where it is counted what everything costs.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.rooms.ledger
    }

    /// The id for the next keyspace. The caller holds the lock of changes until it is used.
    ///
    /// # Errors
    /// If four billion were used.
    pub(crate) fn next_keyspace_id(&self) -> Result<KeyspaceId> {
        let next = self.state.lock().keyspaces.next_id.max(1);
        if next == u32::MAX {
            return Err(Error::invalid_argument("no id is left for a keyspace"));
        }
        Ok(KeyspaceId(next))
    }

    /// Notes that the log created a keyspace by the write `at`, durably.
    ///
    /// # Errors
    /// As [`VersionSet::settle_change`].
    pub(crate) fn create_keyspace(
        &self,
        id: KeyspaceId,
        created: KeyspaceCreated,
        at: SequenceNumber,
        log_durable_upto: Position,
    ) -> Result<()> {
        self.announce(creation(id, created, at));
        self.settle_change(at, log_durable_upto)
    }

    /// Notes that the log dropped a keyspace by the write `at`, durably. Its tables are unlinked
    /// when nobody reads them any more.
    ///
    /// # Errors
    /// As [`VersionSet::settle_change`].
    pub(crate) fn drop_keyspace(
        &self,
        id: KeyspaceId,
        at: SequenceNumber,
        log_durable_upto: Position,
    ) -> Result<()> {
        self.announce(drop_at(id, at));
        self.settle_change(at, log_durable_upto)
    }

    /// Notes that the log gets a creation or drop. To be called before anything that is written
    /// after it can be flushed: such a flush makes the change too.
    pub(crate) fn announce(&self, change: KeyspaceEdit) {
        self.announced.lock().push(change);
    }

    /// The log did not get what was announced last.
    pub(crate) fn withdraw(&self) {
        self.announced.lock().pop();
    }

    /// The creation or drop with the number `at`, which was announced, is durable in the log: makes
    /// it here, unless a flush has done so.
    ///
    /// # Errors
    /// If MANIFEST cannot be written, which poisons the database. No room for it is no error: it is
    /// owed.
    pub(crate) fn settle_change(
        &self,
        at: SequenceNumber,
        log_durable_upto: Position,
    ) -> Result<()> {
        let mut state = self.state.lock();
        self.take_announced_locked(&mut state, at);
        if state.owed.is_empty() {
            return Ok(());
        }
        state.log_durable_upto = state.log_durable_upto.max(log_durable_upto);
        self.settle_locked(&mut state)
    }

    /// Makes what was announced up to the number `upto`; the next append makes it durable. The log
    /// is durable that far.
    pub(super) fn take_announced_locked(&self, state: &mut State, upto: SequenceNumber) {
        let mut announced = self.announced.lock();
        let due = announced.partition_point(|change| number_of(change) <= upto);
        let changes: Vec<_> = announced.drain(..due).collect();
        drop(announced);
        for change in changes {
            change_locked(state, change);
        }
    }

    /// Tries to write what is owed.
    ///
    /// # Errors
    /// As [`VersionSet::create_keyspace`].
    pub(crate) fn settle(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.owed.is_empty() {
            return Ok(());
        }
        self.settle_locked(&mut state)
    }

    fn settle_locked(&self, state: &mut State) -> Result<()> {
        match self.append_locked(state, VersionEdit::default()) {
            Ok(()) => {
                self.rooms.health.job_succeeded(Job::Manifest);
                self.rotate_if_outgrown_locked(state)
            }
            Err(error) if self.rooms.health.is_poisoned() => Err(error),
            Err(error) => {
                self.rooms.health.job_failed(Job::Manifest, error);
                Ok(())
            }
        }
    }

    /// Makes durable that everything up to `floor` is in tables or was dropped.
    ///
    /// # Errors
    /// As [`VersionSet::apply`].
    pub(crate) fn raise_floor(&self, floor: SequenceNumber, log: Position) -> Result<()> {
        let mut state = self.state.lock();
        if floor <= state.keyspaces.floor() && state.owed.is_empty() {
            return Ok(());
        }
        state.log_durable_upto = state.log_durable_upto.max(log);
        state.last_seq = state.last_seq.max(floor);
        let edit = VersionEdit {
            flushed_floor: Some(floor),
            ..VersionEdit::default()
        };
        self.append_locked(&mut state, edit)?;
        state.keyspaces.flushed_floor = state.keyspaces.flushed_floor.max(floor);
        self.rotate_if_outgrown_locked(&mut state)
    }
}

/// The edit that makes a keyspace.
pub(crate) fn creation(
    id: KeyspaceId,
    created: KeyspaceCreated,
    at: SequenceNumber,
) -> KeyspaceEdit {
    let mut edit = KeyspaceEdit::new(id);
    edit.flushed_upto = Some(at);
    edit.created = Some(created);
    edit
}

/// The edit that drops a keyspace.
pub(crate) fn drop_at(id: KeyspaceId, at: SequenceNumber) -> KeyspaceEdit {
    let mut edit = KeyspaceEdit::new(id);
    edit.dropped_at = Some(at);
    edit
}

/// The sequence number of a creation or drop.
fn number_of(change: &KeyspaceEdit) -> SequenceNumber {
    let number = change.dropped_at.or(change.flushed_upto);
    number.expect("a creation or drop has its number")
}

fn change_locked(state: &mut State, change: KeyspaceEdit) {
    let (id, at) = (change.id, number_of(&change));
    if let Some(created) = &change.created {
        let record = KeyspaceRecord {
            name: created.name.clone(),
            order: created.order,
            options: created.options.clone(),
            flushed_upto: at,
            version: Arc::new(Version::empty()),
        };
        let known = state.keyspaces.alive.insert(id, record);
        assert!(known.is_none(), "an id is given to one keyspace only");
        state.keyspaces.next_id = state.keyspaces.next_id.max(id.0.saturating_add(1));
    } else {
        let Some(record) = state.keyspaces.alive.remove(&id) else {
            return;
        };
        state.keyspaces.dropped.insert(id, at);
        let tables = record.version.tables();
        let tables: Vec<_> = tables.map(|(_, table)| Arc::clone(table)).collect();
        state.owed_gone.extend(tables);
    }
    state.owed.push(change);
    state.last_seq = state.last_seq.max(at);
}
