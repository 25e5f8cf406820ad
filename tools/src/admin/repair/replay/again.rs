//! What damaged tables have lost, from a log that goes back further than it had to.
//!
//! INVARIANT: whatever the log says of a key from some place on, without a gap up to where tables
//! have everything, ends with what is newest in them too. So it may be put over what was saved.

use base::error::{Error, Result};
use base::fs::OverlayFs;
use base::sync::Arc;
use base::{KeyKind, SequenceNumber};
use log::{Record, RecordKind, Replay, SealedSegment};
use siltstone::WriteBatch;

use super::super::super::failure::Outcome;
use super::super::super::operations::{self, Operation};
use super::super::Report;
use super::{Replayer, flushed_upto};

/// What was put again.
pub(super) struct Again {
    count: u64,
    /// From here on, the log has everything.
    since: SequenceNumber,
}

impl Again {
    /// What to say of it; `is_whole` if the rest of the log was replayed to its end.
    pub(super) fn remark(&self, is_whole: bool) -> String {
        let Self { count, since } = self;
        let again = format!(
            "where tables are damaged, {count} operations were put again that the log still has"
        );
        if !is_whole {
            return again;
        }
        format!("{again}: nothing written since sequence number {since} is missing there")
    }
}

impl Replayer<'_> {
    /// Puts what the log, which an open accepts, still has of the keys that lay where tables are
    /// damaged.
    pub(super) fn put_again(
        &mut self,
        overlay: &Arc<OverlayFs>,
        segments: &[SealedSegment],
        report: &mut Report,
    ) -> Outcome<Option<Again>> {
        if self.damaged.values().all(Vec::is_empty) {
            return Ok(None);
        }
        let segments = self.whole_end(overlay, segments)?;
        let Some(first) = segments.first() else {
            return Ok(None);
        };
        let mut count = 0;
        // INVARIANT: nothing is written before all of it has proved to be whole and in order. What
        // ends in the middle ends with what is older than tables have.
        let mut end = self.read(overlay, segments, |_| Ok(()))?;
        if end.is_ok() {
            end = self.read(overlay, segments, |record| {
                count += self.put_record_again(record)?;
                Ok(())
            })?;
        }
        if let Err(error) = end {
            report.remarks.push(format!(
                "what the log still has of damaged tables was not put again: {error}"
            ));
        }
        self.operation_count += count;
        let since = first.first_seq;
        Ok((count > 0).then_some(Again { count, since }))
    }

    /// Hands every record of `segments` to `visit`. Returns why they cannot be read, or that a
    /// batch is malformed, if that comes about.
    fn read(
        &self,
        overlay: &Arc<OverlayFs>,
        segments: &[SealedSegment],
        mut visit: impl FnMut(&Record<'_>) -> Outcome<()>,
    ) -> Outcome<Result<()>> {
        let dir = &self.plan.directory.path;
        let mut replay = match Replay::open(&**overlay, dir, segments, SequenceNumber::ZERO) {
            Ok(replay) => replay,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            self.interrupt.check("the repair is not complete")?;
            let record = match replay.next() {
                Ok(None) => return Ok(Ok(())),
                Ok(Some(record)) => record,
                Err(error) => return Ok(Err(error)),
            };
            let is_batch = record.meta.kind == RecordKind::Batch;
            let op_count = record.meta.op_count;
            if is_batch && operations::for_each(record.payload, op_count, |_| {}).is_err() {
                let offset = record.position.offset;
                let error = Error::corruption(dir, offset, "a batch of the log is malformed");
                let ordinal = record.position.ordinal;
                return Ok(Err(error.with_value("segment_ordinal", ordinal)));
            }
            visit(&record)?;
        }
    }

    /// The last of `segments`, those behind the last one that is damaged.
    fn whole_end<'s>(
        &self,
        overlay: &Arc<OverlayFs>,
        segments: &'s [SealedSegment],
    ) -> Outcome<&'s [SealedSegment]> {
        let mut whole = segments.len();
        for (index, segment) in segments.iter().enumerate().rev() {
            let alone = std::slice::from_ref(segment);
            if self.read(overlay, alone, |_| Ok(()))?.is_err() {
                break;
            }
            whole = index;
        }
        Ok(&segments[whole..])
    }

    /// Returns how many operations of the record were put again.
    fn put_record_again(&self, record: &Record<'_>) -> Outcome<u64> {
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
