//! What damaged tables have lost, from a log that goes back further than it had to.
//!
//! INVARIANT: whatever the log says of a key from some place on, without a gap up to where tables
//! have everything, ends with what is newest in them too. So it may be put over what was saved.

use std::path::Path;

use base::error::Result;
use base::fs::OverlayFs;
use base::sync::Arc;
use base::{KeyKind, SequenceNumber};
use log::{Record, RecordKind, Replay, SealedSegment};
use siltstone::WriteBatch;

use super::super::super::failure::Outcome;
use super::super::super::operations::{self, Operation};
use super::super::Report;
use super::{Replayer, flushed_upto};

impl Replayer<'_> {
    /// Puts what the log, which an open accepts, still has of the keys that lay where tables are
    /// damaged. Returns why it cannot be read, if that comes about.
    pub(super) fn put_again(
        &mut self,
        overlay: &Arc<OverlayFs>,
        segments: &[SealedSegment],
        report: &mut Report,
    ) -> Outcome<Result<()>> {
        if self.damaged.values().all(Vec::is_empty) {
            return Ok(Ok(()));
        }
        let dir = &self.plan.directory.path;
        let segments = whole_end(overlay, dir, segments);
        let Some(first) = segments.first() else {
            return Ok(Ok(()));
        };
        let mut count = 0;
        let replay = Replay::open(&**overlay, dir, segments, SequenceNumber::ZERO);
        let mut replay = match replay {
            Ok(replay) => replay,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            match replay.next() {
                Ok(None) => break,
                Ok(Some(record)) => count += self.put_record_again(&record)?,
                Err(error) => return Ok(Err(error)),
            }
        }
        if count > 0 {
            self.operation_count += count;
            report.remarks.push(format!(
                "where tables are damaged, {count} operations were put again that the log still \
                 has: nothing written since sequence number {} is missing there",
                first.first_seq
            ));
        }
        Ok(Ok(()))
    }

    /// Returns how many operations of the record were put again.
    fn put_record_again(&self, record: &Record<'_>) -> Outcome<u64> {
        self.interrupt.check("the repair is not complete")?;
        if record.meta.kind != RecordKind::Batch {
            return Ok(0);
        }
        let mut list = Vec::new();
        let op_count = record.meta.op_count;
        let whole =
            operations::for_each(record.payload, op_count, |operation| list.push(operation));
        if whole.is_err() {
            return Ok(0);
        }
        let mut batch = WriteBatch::new();
        let mut count = 0;
        for (index, operation) in (0..).zip(list) {
            let seq = record.meta.first_seq.plus(index);
            let Some(keyspace) = self.keyspaces.get(&operation.keyspace) else {
                continue;
            };
            if !self.is_lost(&operation, seq) {
                continue;
            }
            match operation.kind {
                KeyKind::Put => batch.put_in(keyspace, operation.key, operation.value),
                KeyKind::Delete => batch.delete_in(keyspace, operation.key),
            };
            count += 1;
        }
        if !batch.is_empty() {
            self.db.write(&batch)?;
        }
        Ok(count)
    }

    /// Whether it should be in a table, and that is damaged where it would be.
    fn is_lost(&self, operation: &Operation<'_>, seq: SequenceNumber) -> bool {
        let source = self.plan.sources.get(&operation.keyspace);
        let (Some(source), Some(state)) = (source, &self.plan.state) else {
            return false;
        };
        let damaged = self.damaged.get(&operation.keyspace).into_iter().flatten();
        let mut lies_in =
            damaged.filter(|(from, upto)| &from[..] <= operation.key && operation.key <= &upto[..]);
        seq <= flushed_upto(source, state) && lies_in.next().is_some()
    }
}

/// The last of `segments`, those behind the last one that is damaged.
fn whole_end<'s>(
    overlay: &Arc<OverlayFs>,
    dir: &Path,
    segments: &'s [SealedSegment],
) -> &'s [SealedSegment] {
    let read = |segment: &SealedSegment| -> Result<()> {
        let alone = std::slice::from_ref(segment);
        let mut replay = Replay::open(&**overlay, dir, alone, SequenceNumber::ZERO)?;
        while replay.next()?.is_some() {}
        Ok(())
    };
    let whole = segments.iter().rev().take_while(|s| read(s).is_ok());
    &segments[segments.len() - whole.count()..]
}
