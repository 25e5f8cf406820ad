//! Framing: how one record lies in a segment.

use std::fmt;
use std::path::Path;

use base::{Error, Result, SequenceNumber};

mod header;

pub use header::Anchor;
pub(crate) use header::{
    Frame, HEADER_BYTES_MAX, HEADER_BYTES_MIN, Header, HeaderForm, NoRecord, encode,
    framed_bytes_max,
};

/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// The largest payload: the largest batch and some room.
pub(crate) const PAYLOAD_BYTES_MAX: usize = (1 << 30) + (1 << 20);

/// A place in the log: which segment, counted from the first ever, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The number of segments before, since the log was begun; never reused.
    pub ordinal: u64,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ordinal, self.offset)
    }
}

/// What a record is. Values are part of the format: append only, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The operations of one commit.
    Batch = 1,
    /// A keyspace was created.
    KeyspaceCreate = 2,
    /// A keyspace was dropped.
    KeyspaceDrop = 3,
    /// An edit of MANIFEST.
    Edit = 4,
    /// A part of a state whose last part is an [`RecordKind::Edit`].
    EditPart = 5,
    /// The segment is complete; nothing follows.
    End = 6,
    /// The segment's first record: how the segment before it ended.
    Begin = 7,
}

impl RecordKind {
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::KeyspaceCreate,
            3 => Self::KeyspaceDrop,
            4 => Self::Edit,
            5 => Self::EditPart,
            6 => Self::End,
            7 => Self::Begin,
            _ => return None,
        })
    }
}

/// What a record says beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// What it is.
    pub kind: RecordKind,
    /// The sequence number of its first operation.
    pub first_seq: SequenceNumber,
    /// How many operations it holds; the n-th has `first_seq` plus n.
    pub op_count: u32,
    /// When it was committed, in microseconds since the Unix epoch; never decreases in a log.
    pub commit_micros: u64,
    /// Everything before this was on the disk when the record was written.
    pub durable_upto: Option<Position>,
}

impl RecordMeta {
    /// The sequence number of its last operation; of a record without operations, the one before.
    pub fn last_seq(&self) -> SequenceNumber {
        self.first_seq.plus(u64::from(self.op_count)).before()
    }
}

/// A record, borrowed until the reader moves on.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it says beside its payload.
    pub meta: RecordMeta,
    /// Its payload, checked.
    pub payload: &'a [u8],
    /// Where it begins.
    pub position: Position,
    /// Where the next one begins.
    pub end: Position,
}

impl Record<'_> {
    /// The record with its own copy of the payload.
    pub fn to_owned_record(&self) -> OwnedRecord {
        OwnedRecord {
            meta: self.meta,
            payload: self.payload.to_vec(),
            position: self.position,
            end: self.end,
        }
    }
}

/// Whether records are in the order of their sequence numbers, as everything that is built on a log
/// takes for granted. A right checksum does not say so.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last_seq: SequenceNumber,
}

impl Order {
    /// Takes in the next record of the segment at `path`.
    ///
    /// # Errors
    /// `Corruption` if it begins with a number that the ones before have used.
    pub(crate) fn follow(&mut self, path: &Path, record: &Record<'_>) -> Result<()> {
        let meta = &record.meta;
        if meta.kind == RecordKind::Begin {
            return Ok(());
        }
        if meta.first_seq <= self.last_seq {
            let message = "a record of the log has a sequence number that was used before it; \
                           restore it from a copy, see `siltstone verify`";
            let error = Error::corruption(path, record.position.offset, message);
            return Err(error
                .with_value("seq", meta.first_seq)
                .with_value("last_seq", self.last_seq));
        }
        self.last_seq = meta.last_seq();
        Ok(())
    }
}

/// A record that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// What it says beside its payload.
    pub meta: RecordMeta,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Where it begins.
    pub position: Position,
    /// Where the next one begins.
    pub end: Position,
}

#[cfg(test)]
mod tests;
