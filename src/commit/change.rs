//! Creating and dropping keyspaces.
//!
//! One at a time. The log says it first, durably; then MANIFEST; then memory. Writers are held up
//! for the append alone.

use base::error::ErrorKind;
use base::sync::Arc;
use base::{Error, KeyspaceId, Result, SequenceNumber, WriteOutcome};
use compaction::{KeyspaceCreated, KeyspaceEdit, Version};
use log::{Position, RecordKind};

use super::CommitPath;
use crate::change::{check_name, encode_create, encode_drop};
use crate::events::Event;
use crate::manifest::{VersionSet, creation, drop_at};
use crate::registry::{KEYSPACE_COUNT_MAX, no_such_keyspace};
use crate::superversion::KeyspaceState;
use crate::sweeper::Sweeper;
use crate::tuning::KeyspaceSettings;

/// The only order of keys in this version.
const ORDER_BYTEWISE: u8 = 0;

impl CommitPath {
    /// Creates a keyspace.
    pub(crate) fn create_keyspace(
        &self,
        versions: &VersionSet,
        sweeper: &Arc<Sweeper>,
        name: &str,
        settings: &KeyspaceSettings,
    ) -> Result<Arc<KeyspaceState>> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        check_name(name).map_err(rejected)?;
        settings.validate().map_err(rejected)?;
        self.health.check_writable()?;
        let changes = self.keyspaces.lock_changes();
        if self.keyspaces.by_name(name).is_some() {
            let exists = Error::new(ErrorKind::Conflict, "there is a keyspace of this name");
            return Err(rejected(exists.with_value("name", name)));
        }
        if self.keyspaces.count() >= KEYSPACE_COUNT_MAX {
            let many = Error::invalid_argument("no more keyspaces can be created");
            return Err(rejected(many.with_value("max", KEYSPACE_COUNT_MAX)));
        }
        let id = versions.next_keyspace_id().map_err(rejected)?;
        let created = KeyspaceCreated {
            name: name.as_bytes().to_vec(),
            order: ORDER_BYTEWISE,
            options: settings.encode(),
        };
        let payload = encode_create(id, &created);
        let kind = RecordKind::KeyspaceCreate;
        let edit = |seq| creation(id, created, seq);
        let (seq, end) = self.append_change(kind, &payload, None, versions, edit)?;
        self.sync_upto(end)?;
        versions.settle_change(seq, self.log.durable_upto())?;
        let settings = Arc::new(settings.clone());
        let keyspace = Arc::new(KeyspaceState::new(
            id,
            name,
            Arc::clone(&settings),
            self.memtables.make(&settings),
            Arc::new(Version::empty()),
            Arc::clone(sweeper),
            versions.ledger().keyspace(),
        ));
        self.keyspaces.insert(Arc::clone(&keyspace));
        self.keyspaces.end_change();
        // Under the lock, so that they are told in the order in which they happen.
        self.gate.listener.tell(|| Event::KeyspaceCreated {
            keyspace: name.to_owned(),
        });
        drop(changes);
        Ok(keyspace)
    }

    /// Drops a keyspace.
    pub(crate) fn drop_keyspace(&self, versions: &VersionSet, name: &str) -> Result<()> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        self.health.check_writable()?;
        let changes = self.keyspaces.lock_changes();
        let keyspace = self.keyspaces.by_name(name);
        let keyspace = keyspace.ok_or_else(|| rejected(no_such_keyspace(name)))?;
        if keyspace.id == KeyspaceId::DEFAULT {
            let message = "the default keyspace cannot be dropped";
            return Err(rejected(Error::invalid_argument(message)));
        }
        let payload = encode_drop(keyspace.id);
        let kind = RecordKind::KeyspaceDrop;
        let edit = |seq| drop_at(keyspace.id, seq);
        let (seq, end) = self.append_change(kind, &payload, Some(&keyspace), versions, edit)?;
        self.sync_upto(end)?;
        versions.settle_change(seq, self.log.durable_upto())?;
        keyspace.finish_drop();
        self.keyspaces.remove(&keyspace);
        self.keyspaces.end_change();
        self.keyspaces.clear_dropped(&self.snapshots);
        self.health.forget_keyspace(keyspace.id);
        self.gate.listener.tell(|| Event::KeyspaceDropped {
            keyspace: name.to_owned(),
        });
        drop(changes);
        // Whoever waits for a flush or compaction of it, or to write to it.
        self.signals.progress.ring();
        self.signals.helper.wake();
        Ok(())
    }

    /// Appends the record of a change, which takes one sequence number, and announces its `edit` of
    /// MANIFEST. After that nothing more is written to the keyspace `dropped`.
    fn append_change(
        &self,
        kind: RecordKind,
        payload: &[u8],
        dropped: Option<&KeyspaceState>,
        versions: &VersionSet,
        edit: impl FnOnce(SequenceNumber) -> KeyspaceEdit,
    ) -> Result<(SequenceNumber, Position)> {
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        let seq = state.next_seq;
        self.keyspaces.begin_change(seq);
        versions.announce(edit(seq));
        let slot = self.log.reserve(kind, seq, 1, payload.len());
        let mut slot = slot.map_err(|error| {
            versions.withdraw();
            self.keyspaces.end_change();
            self.write_failed(error)
        })?;
        if let Some(keyspace) = dropped {
            keyspace.begin_drop(seq);
        }
        state.advance(seq, slot.end());
        drop(state);
        let failed = |error| self.write_failed(error);
        slot.fill(payload).map_err(failed)?;
        if slot.wants_upkeep() {
            self.signals.ahead.wake();
        }
        let appended = slot.complete().map_err(failed)?;
        self.snapshots.publish(seq);
        Ok((seq, appended.end))
    }
}

#[cfg(test)]
mod tests;
