//! Writes on a full disk: deletes are let through as long as anything is left, puts wait for space.

use base::{Error, KeyKind, Result, SequenceNumber, WriteOutcome};

use super::CommitPath;
use crate::batch::{Operations, WriteBatch};
use crate::health::Job;
use crate::throttle::Throttled;

/// Whether `batch` only removes keys.
fn only_deletes(batch: &WriteBatch) -> bool {
    let seq = SequenceNumber::ZERO.plus(1);
    let mut operations = Operations::new(batch.payload(), seq, batch.op_count());
    operations.all(|operation| operation.is_ok_and(|operation| operation.kind == KeyKind::Delete))
}

impl CommitPath {
    /// Refuses puts while what is left is kept for deletes. One load unless the disk is full.
    #[inline]
    pub(super) fn check_space(&self, batch: &WriteBatch) -> Result<()> {
        if self.reserve.is_spent() && !only_deletes(batch) {
            // A flush needs what there is before it is kept back again.
            if self.health.is_full_for(Job::Flush) {
                return self.reserve.check_room();
            }
            return self.reserve.refill();
        }
        Ok(())
    }

    /// Lets deletes pass a gate that is shut because flush or compaction finds no space: they are
    /// what makes some. Bounded to one memtable more than puts may fill.
    pub(super) fn admit_deletes(
        &self,
        batch: &WriteBatch,
        refusal: Error,
    ) -> Result<Option<Throttled>> {
        let has_room = self.keyspaces.all().iter().all(|keyspace| {
            let (view, settings) = (keyspace.peek(), keyspace.settings());
            view.sealed.len() <= settings.sealed_memtable_count_max + 1
                || view.active.bytes() < settings.memtable_bytes_max
        });
        if refusal.is_no_space() && has_room && only_deletes(batch) {
            return Ok(None);
        }
        Err(refusal)
    }

    /// After an append that found no space: whether there is some now, kept back for `batch`.
    pub(super) fn has_freed_space(&self, batch: &WriteBatch, error: &Error) -> bool {
        let is_rejected = error.outcome() == Some(WriteOutcome::Rejected);
        is_rejected && error.is_no_space() && only_deletes(batch) && self.reserve.spend()
    }
}
