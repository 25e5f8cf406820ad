//! A stretch of the log, written once more into a segment of its own: for copies of a database.
//!
//! Never touches the log it was read from. Used by whoever makes a copy, one thread at a time.

use std::path::PathBuf;

use base::sync::Arc;
use base::{FileNumber, Result, SequenceNumber};

use crate::record::{Anchor, OwnedRecord, Position, RecordKind, RecordMeta};
use crate::segment::{Predecessor, SegmentWriter, end_meta};
use crate::writer::{Log, LogAppend, LogConfig, create_segment};

/// Writes records into one segment that stands alone: a log of its own, complete once it is
/// finished. Until then recovery passes it over.
#[derive(Debug)]
pub struct History {
    writer: SegmentWriter,
    last_seq: SequenceNumber,
    commit_micros: u64,
}

impl History {
    /// Begins a segment in the directory `dir` that goes on where `before` was the last sequence
    /// number. Named, and marked as of a database and epoch, as a new segment of `log` would be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(log: &Log, dir: PathBuf, before: SequenceNumber) -> Result<Self> {
        let config = log.config();
        let config = LogConfig {
            fs: Arc::clone(&config.fs),
            clock: Arc::clone(&config.clock),
            dir,
            numbers: Arc::clone(&config.numbers),
            reserve: false,
            append: LogAppend::Positioned,
            ..*config
        };
        let ordinal = log.end().ordinal;
        let first_seq = before.plus(1);
        // How old its records are is not known yet.
        let anchor = Anchor {
            seq: first_seq,
            commit_micros: 0,
        };
        let mut writer = create_segment(&config, ordinal, anchor, 0, true)?;
        let commit_micros = writer.header().created_micros;
        let begin = RecordMeta {
            kind: RecordKind::Begin,
            first_seq,
            op_count: 0,
            // No record behind it is older.
            commit_micros: 0,
            durable_upto: None,
        };
        // What came before is in tables; it says so, as where a segment was given up.
        let gone = Predecessor {
            number: FileNumber(0),
            file_id: 0,
            accepted_bytes: 0,
            last_seq: before,
        };
        let gone = (before > SequenceNumber::ZERO).then_some(gone);
        writer.append(begin, &Predecessor::encode(gone.as_ref()))?;
        Ok(Self {
            writer,
            last_seq: before,
            commit_micros,
        })
    }

    /// Appends a record as it was committed.
    ///
    /// # Errors
    /// If the write fails, now or before.
    ///
    /// # Panics
    /// If it does not follow the record before.
    pub fn append(&mut self, record: &OwnedRecord) -> Result<()> {
        assert!(
            record.meta.first_seq > self.last_seq,
            "history is in the order of sequence numbers"
        );
        // Where it was durable meant another file.
        let meta = RecordMeta {
            durable_upto: None,
            ..record.meta
        };
        self.writer.append(meta, &record.payload)?;
        self.last_seq = meta.last_seq();
        self.commit_micros = meta.commit_micros;
        Ok(())
    }

    /// The sequence number of the last operation in it, or before it.
    pub fn last_seq(&self) -> SequenceNumber {
        self.last_seq
    }

    /// Completes the segment and makes it durable. Returns where it ends.
    ///
    /// # Errors
    /// If a write or sync fails.
    pub fn finish(mut self) -> Result<Position> {
        let end = end_meta(self.commit_micros, self.last_seq.plus(1));
        let position = self.writer.append(end, &[])?;
        self.writer.sync()?;
        Ok(position)
    }
}
