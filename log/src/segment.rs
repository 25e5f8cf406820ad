//! One file of the log: a fixed header, records, and at last an end record.

use std::path::Path;

use base::checksum::Crc;
use base::coding::{FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader, put_varint_field};
use base::ids::COUNT_MAX;
use base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};

use crate::record::{self, Anchor, Frame, Position, Record, RecordKind, RecordMeta};

mod writer;

pub use writer::SegmentWriter;
pub(crate) use writer::{Form, Place};

/// Bytes of a segment's header: one sector, so that it is written whole or not at all.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = HEADER_LEN as u64;
pub(crate) const HEADER_LEN: usize = 512;
const MAGIC: [u8; 8] = *b"siltseg\n";
const VERSION: u16 = 2;
/// Where the tagged fields begin, behind their length.
const TAGGED_OFFSET: usize = 80;
/// Room for an end record, with two fields that say which segment follows.
pub(crate) const END_BYTES_MAX: u64 = record::HEADER_BYTES_MAX as u64 + 24;

/// What an end record without a follower occupies: its header is always the longest.
pub(crate) const EMPTY_END_BYTES: u64 = record::framed_bytes_max(0);

const FLAG_IS_COPY: u64 = 1;
const KNOWN_INCOMPATIBLE_FEATURES: u64 = FLAG_IS_COPY;

/// What the header of a segment says. All of it is known before the segment is begun, so that the
/// header can be durable before the first record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random; seeds every checksum in the file.
    pub file_id: u64,
    /// Which database it belongs to.
    pub database_id: u128,
    /// Which of its incarnations wrote it.
    pub epoch: u64,
    /// The number in its name when it was written.
    pub number: FileNumber,
    /// Its place in the log.
    pub ordinal: u64,
    /// When it was created, in microseconds since the Unix epoch.
    pub created_micros: u64,
    /// What the numbers of its records are counted from.
    pub anchor: Anchor,
    /// Made by recovery from the records of older segments; counts only if it is complete.
    pub is_copy: bool,
}

impl SegmentHeader {
    /// What its records are framed with.
    pub(crate) fn frame(&self) -> Frame {
        Frame {
            file_id: self.file_id,
            anchor: self.anchor,
        }
    }

    /// The header as it is written.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let flags = if self.is_copy { FLAG_IS_COPY } else { 0 };
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.file_id.to_le_bytes());
        bytes.extend_from_slice(&self.database_id.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.number.0.to_le_bytes());
        bytes.extend_from_slice(&self.ordinal.to_le_bytes());
        // The tagged part, length first.
        let mut tagged = Vec::new();
        put_varint_field(&mut tagged, TAG_CREATED_MICROS, self.created_micros);
        put_varint_field(&mut tagged, TAG_ANCHOR_SEQ, self.anchor.seq.get());
        put_varint_field(&mut tagged, TAG_ANCHOR_MICROS, self.anchor.commit_micros);
        let tagged_len = u32::try_from(tagged.len()).expect("a few bytes");
        bytes.extend_from_slice(&tagged_len.to_le_bytes());
        debug_assert_eq!(bytes.len(), TAGGED_OFFSET);
        bytes.extend_from_slice(&tagged);
        bytes.resize(508, 0);
        let crc = Crc::at(self.file_id, 0).and(&bytes).finish();
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().expect("filled to 512 bytes")
    }

    /// Reads a header. `None` if it is not whole.
    ///
    /// # Errors
    /// `Unsupported` for another format, whose checksum is right.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN], path: &Path) -> Result<Option<Self>> {
        match Self::read(bytes) {
            Ok(header) => Ok(Some(header)),
            Err(HeaderFault::Damaged) => Ok(None),
            Err(HeaderFault::Other {
                what,
                found,
                supported,
            }) => Err(Error::new(
                ErrorKind::Unsupported,
                if found < supported {
                    format!("segment of an older format, of before the first release: {what}")
                } else {
                    format!("segment of a newer format: {what}")
                },
            )
            .with_value("found", found)
            .with_value("supported", supported)
            .with_path(path)),
        }
    }

    fn read(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderFault> {
        let (covered, stored) = bytes.split_last_chunk::<4>().ok_or(HeaderFault::Damaged)?;
        let mut reader = Reader::new(covered);
        if reader.bytes(8)? != MAGIC {
            return Err(HeaderFault::Damaged);
        }
        let version = reader.u16()?;
        reader.bytes(2)?;
        let _compatible = reader.u64()?;
        let incompatible = reader.u64()?;
        let file_id = reader.u64()?;
        if u32::from_le_bytes(*stored) != Crc::at(file_id, 0).and(covered).finish() {
            return Err(HeaderFault::Damaged);
        }
        let other = |what, found, supported| {
            Err(HeaderFault::Other {
                what,
                found,
                supported,
            })
        };
        if version != VERSION {
            return other("version", u64::from(version), u64::from(VERSION));
        }
        if incompatible & !KNOWN_INCOMPATIBLE_FEATURES != 0 {
            return other("features", incompatible, KNOWN_INCOMPATIBLE_FEATURES);
        }
        let database_id = reader.u128()?;
        let (epoch, number, ordinal) = (reader.u64()?, reader.u64()?, reader.u64()?);
        if [epoch, number, ordinal].iter().any(|&n| n > COUNT_MAX) {
            return Err(HeaderFault::Damaged);
        }
        let tagged_len = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        let mut created_micros = 0;
        let mut anchor = Anchor::default();
        for field in Fields::new(reader.bytes(tagged_len)?) {
            match field? {
                (TAG_CREATED_MICROS, value) => created_micros = Reader::new(value).varint()?,
                (TAG_ANCHOR_SEQ, value) => {
                    let seq = SequenceNumber::new(Reader::new(value).varint()?);
                    anchor.seq = seq.ok_or(HeaderFault::Damaged)?;
                }
                (TAG_ANCHOR_MICROS, value) => {
                    anchor.commit_micros = Reader::new(value).varint()?;
                }
                (tag, _) if tag >= FIRST_SKIPPABLE_TAG => {}
                (tag, _) => return other("field", u64::from(tag), u64::from(TAG_ANCHOR_MICROS)),
            }
        }
        Ok(Self {
            file_id,
            database_id,
            epoch,
            number: FileNumber(number),
            ordinal,
            created_micros,
            anchor,
            is_copy: incompatible & FLAG_IS_COPY != 0,
        })
    }
}

const TAG_CREATED_MICROS: u32 = 1;
const TAG_ANCHOR_SEQ: u32 = 2;
const TAG_ANCHOR_MICROS: u32 = 3;

enum HeaderFault {
    Damaged,
    /// Of another format, newer or older.
    Other {
        what: &'static str,
        found: u64,
        supported: u64,
    },
}

impl From<Malformed> for HeaderFault {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// How the segment before one ended; stands in its begin record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its file.
    pub number: FileNumber,
    /// Its id.
    pub file_id: u64,
    /// Its records count up to here and no further, whatever follows.
    pub accepted_bytes: u64,
    /// The last sequence number in it or before it.
    pub last_seq: SequenceNumber,
}

impl Predecessor {
    /// The payload of a begin record.
    pub(crate) fn encode(before: Option<&Self>) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(before) = before {
            put_varint_field(&mut out, 1, before.number.0);
            put_varint_field(&mut out, 2, before.file_id);
            put_varint_field(&mut out, 3, before.accepted_bytes);
            put_varint_field(&mut out, 4, before.last_seq.get());
        }
        out
    }

    /// Reads the payload of a begin record.
    pub(crate) fn decode(payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(numbers) = read_numbers(payload)? else {
            return Ok(None);
        };
        let [number, file_id, accepted_bytes, last_seq] = numbers;
        // Something must be able to follow it.
        let last_seq = SequenceNumber::new(last_seq).filter(|seq| *seq < SequenceNumber::MAX);
        let last_seq = last_seq.ok_or(Malformed)?;
        Ok(Some(Self {
            number: FileNumber(number),
            file_id,
            accepted_bytes,
            last_seq,
        }))
    }
}

/// What the begin record of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// How the segment before it ended, if there was one.
    pub(crate) before: Option<Predecessor>,
    /// The sequence number that came next.
    pub(crate) first_seq: SequenceNumber,
    /// When it was begun; no record before it is younger, and none behind it older.
    pub(crate) commit_micros: u64,
    /// Everything before this was on the disk when it was begun.
    pub(crate) durable_upto: Option<Position>,
}

impl Begun {
    /// Reads the first record of the segment at `path`.
    ///
    /// # Errors
    /// `Corruption` if it is no begin record, or malformed.
    pub(crate) fn of(record: &Record<'_>, path: &Path) -> Result<Self> {
        let offset = record.position.offset;
        if record.meta.kind != RecordKind::Begin {
            let message = "the segment does not start with its beginning";
            return Err(Error::corruption(path, offset, message));
        }
        let before = Predecessor::decode(record.payload)
            .map_err(|_| Error::corruption(path, offset, "a begin record is malformed"))?;
        Ok(Self {
            before,
            first_seq: record.meta.first_seq,
            commit_micros: record.meta.commit_micros,
            durable_upto: record.meta.durable_upto,
        })
    }
}

/// Which segment follows; stands in the end record. That segment's header and name were durable
/// before, so that it cannot be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextSegment {
    pub(crate) number: FileNumber,
    pub(crate) file_id: u64,
}

impl NextSegment {
    pub(crate) fn of(header: &SegmentHeader) -> Self {
        Self {
            number: header.number,
            file_id: header.file_id,
        }
    }

    /// The payload of an end record.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        put_varint_field(&mut out, 1, self.number.0);
        put_varint_field(&mut out, 2, self.file_id);
        out
    }

    /// Reads the payload of an end record, which is empty where the log was closed.
    pub(crate) fn decode(payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some([number, file_id]) = read_numbers(payload)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            number: FileNumber(number),
            file_id,
        }))
    }
}

/// Reads a payload of tagged numbers, counted from 1: all of them, or nothing at all.
fn read_numbers<const COUNT: usize>(payload: &[u8]) -> Result<Option<[u64; COUNT]>, Malformed> {
    let mut values = [None; COUNT];
    for field in Fields::new(payload) {
        let (tag, value) = field?;
        let slot = usize::try_from(tag).ok().and_then(|tag| tag.checked_sub(1));
        match slot.and_then(|slot| values.get_mut(slot)) {
            Some(slot) => *slot = Some(Reader::new(value).varint()?),
            None if tag >= FIRST_SKIPPABLE_TAG => {}
            None => return Err(Malformed),
        }
    }
    if payload.is_empty() {
        return Ok(None);
    }
    let mut numbers = [0; COUNT];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = value.ok_or(Malformed)?;
    }
    Ok(Some(numbers))
}

/// A segment to which nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its file.
    pub number: FileNumber,
    /// Its id.
    pub file_id: u64,
    /// Its place in the log.
    pub ordinal: u64,
    /// Where its records end.
    pub bytes: u64,
    /// The sequence number of its first record.
    pub first_seq: SequenceNumber,
    /// The last sequence number in it or before it.
    pub last_seq: SequenceNumber,
    /// When its last record was committed, in microseconds since the Unix epoch.
    pub last_commit_micros: u64,
}

impl SealedSegment {
    pub(crate) fn as_predecessor(&self) -> Predecessor {
        Predecessor {
            number: self.number,
            file_id: self.file_id,
            accepted_bytes: self.bytes,
            last_seq: self.last_seq,
        }
    }
}

/// What an end record says.
pub(crate) fn end_meta(commit_micros: u64, next_seq: SequenceNumber) -> RecordMeta {
    RecordMeta {
        kind: RecordKind::End,
        first_seq: next_seq,
        op_count: 0,
        commit_micros,
        durable_upto: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            file_id: 77,
            database_id: 1 << 100,
            epoch: 3,
            number: FileNumber(12),
            ordinal: 9,
            created_micros: 55,
            anchor: Anchor {
                seq: SequenceNumber::MAX,
                commit_micros: u64::MAX,
            },
            is_copy: true,
        }
    }

    #[test]
    fn headers_round_trip_and_every_damage_is_noticed() {
        let bytes = header().encode();
        let path = Path::new("000012.log");
        assert_eq!(
            SegmentHeader::decode(&bytes, path).expect("ours"),
            Some(header())
        );
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(
                SegmentHeader::decode(&damaged, path).expect("not newer"),
                None,
                "{at}"
            );
        }
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        for (version, message) in [
            (
                1,
                "segment of an older format, of before the first release: version found=1",
            ),
            (3, "segment of a newer format: version found=3"),
        ] {
            let mut bytes = header().encode();
            bytes[8] = version;
            let crc = Crc::at(77, 0).and(&bytes[..508]).finish();
            bytes[508..].copy_from_slice(&crc.to_le_bytes());
            let error = SegmentHeader::decode(&bytes, Path::new("000012.log")).expect_err("other");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(message), "{text}");
            assert!(text.contains("supported=2"), "{text}");
        }
    }

    #[test]
    fn begin_records_round_trip() {
        let before = Predecessor {
            number: FileNumber(3),
            file_id: u64::MAX,
            accepted_bytes: 4096,
            last_seq: SequenceNumber::MAX.before(),
        };
        let payload = Predecessor::encode(Some(&before));
        assert_eq!(Predecessor::decode(&payload), Ok(Some(before)));
        assert_eq!(Predecessor::decode(&[]), Ok(None));
        for cut in 1..payload.len() {
            assert!(Predecessor::decode(&payload[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn end_records_round_trip_and_fit() {
        let next = NextSegment {
            number: FileNumber(u64::MAX),
            file_id: u64::MAX,
        };
        let payload = next.encode();
        assert!(record::framed_bytes_max(payload.len()) <= END_BYTES_MAX);
        assert_eq!(NextSegment::decode(&payload), Ok(Some(next)));
        assert_eq!(NextSegment::decode(&[]), Ok(None));
        for cut in 1..payload.len() {
            assert!(NextSegment::decode(&payload[..cut]).is_err(), "{cut}");
        }
    }
}
