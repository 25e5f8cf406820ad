//! Framing: how one record lies in a segment.

use std::fmt;

use base::SequenceNumber;
use base::checksum::Crc;
use base::coding::{FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader};

/// Bytes of a record's header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// The largest payload: the largest batch and some room.
pub(crate) const PAYLOAD_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// `durable_back` when nothing is known, or when it lies further back than can be said.
const DURABLE_UNKNOWN: u16 = u16::MAX;

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
    fn from_u8(byte: u8) -> Option<Self> {
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

/// What a record of `payload_len` bytes occupies.
pub(crate) fn framed_bytes(payload_len: usize) -> u64 {
    (HEADER_BYTES as u64 + payload_len as u64).next_multiple_of(ALIGNMENT)
}

/// Writes a record that will lie at `at` of the segment with this id into `out`, which it clears.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    meta: &RecordMeta,
    payload: &[u8],
    file_id: u64,
    at: Position,
) {
    out.clear();
    out.extend_from_slice(&encode_header(meta, payload, file_id, at));
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// The header of a record that will lie at `at` of the segment with this id. What is read of the
/// payload is its checksum and its length.
pub(crate) fn encode_header(
    meta: &RecordMeta,
    payload: &[u8],
    file_id: u64,
    at: Position,
) -> [u8; HEADER_BYTES] {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "payloads are bounded at the door"
    );
    assert!(at.offset.is_multiple_of(ALIGNMENT), "records are aligned");
    let (durable_back, durable_words) = encode_durable(meta.durable_upto, at.ordinal);
    let payload_len = u32::try_from(payload.len()).expect("bounded above");
    let payload_crc = Crc::at(file_id, at.offset).and(payload).finish();
    let mut out = [0; HEADER_BYTES];
    out[4..8].copy_from_slice(&payload_crc.to_le_bytes());
    out[8..12].copy_from_slice(&payload_len.to_le_bytes());
    out[12] = meta.kind as u8;
    out[14..16].copy_from_slice(&durable_back.to_le_bytes());
    out[16..24].copy_from_slice(&meta.first_seq.get().to_le_bytes());
    out[24..32].copy_from_slice(&meta.commit_micros.to_le_bytes());
    out[32..36].copy_from_slice(&meta.op_count.to_le_bytes());
    out[36..].copy_from_slice(&durable_words.to_le_bytes());
    let header_crc = Crc::at(file_id, at.offset).and(&out[4..]).finish();
    out[..4].copy_from_slice(&header_crc.to_le_bytes());
    out
}

fn encode_durable(durable: Option<Position>, ordinal: u64) -> (u16, u32) {
    let encoded = durable.and_then(|durable| {
        let back = u16::try_from(ordinal.checked_sub(durable.ordinal)?).ok()?;
        let words = u32::try_from(durable.offset / ALIGNMENT).ok()?;
        (back != DURABLE_UNKNOWN).then_some((back, words))
    });
    encoded.unwrap_or((DURABLE_UNKNOWN, 0))
}

/// A record's header as it was read; its checksum is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    kind: u8,
    payload_crc: u32,
    payload_len: usize,
    tagged_len: usize,
    first_seq: u64,
    commit_micros: u64,
    op_count: u32,
    durable_upto: Option<Position>,
}

/// Why the bytes at a place are no record that this version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// They are not a whole record.
    Invalid,
    /// They are, with right checksums, but of a newer kind.
    Newer,
}

impl Header {
    /// Reads the header at `at`, or `None` if the checksum is wrong or a number out of range.
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES], file_id: u64, at: Position) -> Option<Self> {
        Self::read_fields(bytes, file_id, at).ok().flatten()
    }

    fn read_fields(
        bytes: &[u8; HEADER_BYTES],
        file_id: u64,
        at: Position,
    ) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(bytes);
        let stored = reader.u32()?;
        // Zeros are most of what is searched behind the end; a checksum is never zero.
        if stored == 0 || stored != Crc::at(file_id, at.offset).and(reader.rest()).finish() {
            return Ok(None);
        }
        let payload_crc = reader.u32()?;
        let payload_len = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        let (kind, tagged_words) = (reader.u8()?, reader.u8()?);
        let durable_back = reader.u16()?;
        let (first_seq, commit_micros) = (reader.u64()?, reader.u64()?);
        let (op_count, durable_words) = (reader.u32()?, reader.u32()?);
        if payload_len > PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        let durable_upto = (durable_back != DURABLE_UNKNOWN)
            .then(|| {
                let ordinal = at.ordinal.checked_sub(u64::from(durable_back))?;
                Some(Position {
                    ordinal,
                    offset: u64::from(durable_words) * ALIGNMENT,
                })
            })
            .flatten();
        Ok(Some(Self {
            kind,
            payload_crc,
            payload_len,
            tagged_len: usize::from(tagged_words) * 8,
            first_seq,
            commit_micros,
            op_count,
            durable_upto,
        }))
    }

    /// What the whole record occupies, padding included.
    pub(crate) fn framed_bytes(&self) -> u64 {
        framed_bytes(self.tagged_len + self.payload_len)
    }

    /// Checks what follows the header. `body` is the rest of the record.
    pub(crate) fn check<'a>(
        &self,
        body: &'a [u8],
        file_id: u64,
        at: Position,
    ) -> Result<(RecordMeta, &'a [u8]), NoRecord> {
        let end = self
            .tagged_len
            .checked_add(self.payload_len)
            .ok_or(NoRecord::Invalid)?;
        let covered = body.get(..end).ok_or(NoRecord::Invalid)?;
        if Crc::at(file_id, at.offset).and(covered).finish() != self.payload_crc {
            return Err(NoRecord::Invalid);
        }
        let (tagged, payload) = covered
            .split_at_checked(self.tagged_len)
            .ok_or(NoRecord::Invalid)?;
        let kind = RecordKind::from_u8(self.kind).ok_or(NoRecord::Newer)?;
        Self::check_fields(tagged)?;
        let first_seq = SequenceNumber::new(self.first_seq).ok_or(NoRecord::Invalid)?;
        let last = self.first_seq.checked_add(u64::from(self.op_count));
        if last.is_none_or(|last| last > SequenceNumber::MAX.get()) {
            return Err(NoRecord::Invalid);
        }
        let meta = RecordMeta {
            kind,
            first_seq,
            op_count: self.op_count,
            commit_micros: self.commit_micros,
            durable_upto: self.durable_upto,
        };
        Ok((meta, payload))
    }

    /// This version writes no tagged fields; it skips those it may and refuses the others. Padding
    /// to whole words is zeros.
    fn check_fields(tagged: &[u8]) -> Result<(), NoRecord> {
        let len = tagged
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        for field in Fields::new(tagged.get(..len).ok_or(NoRecord::Invalid)?) {
            match field {
                Ok((tag, _)) if tag >= FIRST_SKIPPABLE_TAG => {}
                Ok(_) => return Err(NoRecord::Newer),
                // A field that ends in zeros was cut above; only its own length can tell.
                Err(Malformed) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Meta and payload of a record that [`Header::check`] has found whole.
    pub(crate) fn meta_and_payload<'a>(&self, body: &'a [u8]) -> Option<(RecordMeta, &'a [u8])> {
        let meta = RecordMeta {
            kind: RecordKind::from_u8(self.kind)?,
            first_seq: SequenceNumber::new(self.first_seq)?,
            op_count: self.op_count,
            commit_micros: self.commit_micros,
            durable_upto: self.durable_upto,
        };
        let end = self.tagged_len.checked_add(self.payload_len)?;
        Some((meta, body.get(self.tagged_len..end)?))
    }

    /// Whether a header found behind the end of the records is to be believed. Its checksum is
    /// right, but a search through megabytes of noise looks at millions of places.
    pub(crate) fn is_plausible(&self, at: Position) -> bool {
        let last = self.first_seq.checked_add(u64::from(self.op_count));
        last.is_some_and(|last| last <= SequenceNumber::MAX.get())
            && self.durable_upto.is_none_or(|durable| durable <= at)
    }

    /// Everything before this was durable when the record was written.
    pub(crate) fn durable_upto(&self) -> Option<Position> {
        self.durable_upto
    }
}

#[cfg(test)]
mod tests;
