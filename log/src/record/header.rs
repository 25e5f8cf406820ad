//! The header of a record: short where its numbers lie close to those of the segment, wide else.
//!
//! Bytes only, no I/O. How long a header is depends on its record and on the segment's header, and
//! on nothing before it in the segment, so that a place can be handed out before it is filled and
//! a reader can begin anywhere.

use base::SequenceNumber;
use base::checksum::Crc;
use base::coding::{FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader};

use super::{ALIGNMENT, PAYLOAD_BYTES_MAX, Position, RecordKind, RecordMeta};

/// Bytes of the shortest header.
pub(crate) const HEADER_BYTES_MIN: usize = NARROW_BYTES;
/// Bytes of the longest header, which is the wide one.
pub(crate) const HEADER_BYTES_MAX: usize = WIDE_BYTES;

const WIDE_BYTES: usize = 40;
/// A narrow header without anything that it may have more.
const NARROW_BYTES: usize = 16;
/// Where the byte stands that says which form a header has.
const FORM_AT: usize = 8;
/// The form byte of a wide header. In a narrow one its low bits are the kind, never 0.
const WIDE: u8 = 0;
const KIND_MASK: u8 = 0b0000_0111;
/// The payload's length takes three bytes instead of one.
const LONG_PAYLOAD: u8 = 0b0000_1000;
/// There is an operation count, of three bytes; without it there is one operation.
const HAS_COUNT: u8 = 0b0001_0000;
/// The commit time takes four bytes instead of three.
const LONG_TIME: u8 = 0b0010_0000;
/// Which of the forms below the durable position has.
const DURABLE_SHIFT: u32 = 6;
/// Nothing is said.
const DURABLE_NONE: u8 = 0;
/// In the record's segment: words of eight bytes, in three bytes.
const DURABLE_HERE: u8 = 1;
/// In the segment before: likewise.
const DURABLE_BEFORE: u8 = 2;
/// Anywhere: segments back in two bytes, words in four.
const DURABLE_FAR: u8 = 3;
/// Segments back when nothing is known, or when it lies further back than can be said.
const DURABLE_UNKNOWN: u16 = u16::MAX;
/// What three bytes hold.
const THREE_BYTES_MAX: u64 = (1 << 24) - 1;
/// Room for a header and the word that was stored last.
const BUFFER_BYTES: usize = HEADER_BYTES_MAX + 8;

const _: () = assert!(HEADER_BYTES_MIN <= HEADER_BYTES_MAX);
const _: () = assert!(NARROW_BYTES + 2 + 3 + 1 + 6 <= HEADER_BYTES_MAX);

/// What the short numbers of a segment's records are counted from: no larger than those of any
/// record in it, as far as was known when it was made. Stands in the segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Anchor {
    /// A sequence number.
    pub seq: SequenceNumber,
    /// A commit time, in microseconds since the Unix epoch.
    pub commit_micros: u64,
}

impl Anchor {
    /// For records that are numbered from 0, none of them older than `commit_micros`.
    pub const fn since(commit_micros: u64) -> Self {
        Self {
            seq: SequenceNumber::ZERO,
            commit_micros,
        }
    }
}

/// What the records of one segment are framed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Seeds the checksums.
    pub(crate) file_id: u64,
    pub(crate) anchor: Anchor,
}

/// What a record with a payload of `payload_len` bytes occupies at most.
pub(crate) const fn framed_bytes_max(payload_len: usize) -> u64 {
    (HEADER_BYTES_MAX as u64 + payload_len as u64).next_multiple_of(ALIGNMENT)
}

/// Which form the header of one record has: known before the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderForm(u8);

impl HeaderForm {
    /// The shortest that holds what `meta` says, at `at`.
    #[inline]
    pub(crate) fn of(meta: &RecordMeta, payload_len: usize, anchor: Anchor, at: Position) -> Self {
        let seq = meta.first_seq.get().checked_sub(anchor.seq.get());
        let micros = meta.commit_micros.checked_sub(anchor.commit_micros);
        let (Some(seq), Some(micros)) = (seq, micros) else {
            return Self(WIDE);
        };
        // An end record has always the same length: it is looked for from where it ends.
        let fits = seq <= THREE_BYTES_MAX
            && u32::try_from(micros).is_ok()
            && payload_len as u64 <= THREE_BYTES_MAX
            && u64::from(meta.op_count) <= THREE_BYTES_MAX
            && meta.kind != RecordKind::End;
        if !fits {
            return Self(WIDE);
        }
        let mut byte = meta.kind as u8;
        if payload_len > usize::from(u8::MAX) {
            byte |= LONG_PAYLOAD;
        }
        if meta.op_count != 1 {
            byte |= HAS_COUNT;
        }
        if micros > THREE_BYTES_MAX {
            byte |= LONG_TIME;
        }
        Self(byte | durable_form(meta.durable_upto, at.ordinal) << DURABLE_SHIFT)
    }

    /// How long the header is.
    #[inline]
    pub(crate) const fn header_bytes(self) -> usize {
        let Self(byte) = self;
        if byte & KIND_MASK == WIDE {
            return WIDE_BYTES;
        }
        let more = if byte & LONG_PAYLOAD == 0 { 0 } else { 2 };
        let more = more + if byte & HAS_COUNT == 0 { 0 } else { 3 };
        let more = more + if byte & LONG_TIME == 0 { 0 } else { 1 };
        let durable = match byte >> DURABLE_SHIFT {
            DURABLE_NONE => 0,
            DURABLE_HERE | DURABLE_BEFORE => 3,
            _ => 6,
        };
        NARROW_BYTES + more + durable
    }

    /// What a record with a payload of `payload_len` bytes occupies.
    #[inline]
    pub(crate) const fn framed_bytes(self, payload_len: usize) -> u64 {
        (self.header_bytes() as u64 + payload_len as u64).next_multiple_of(ALIGNMENT)
    }

    /// The form of the header that `bytes` begin with, if it is one.
    fn read(bytes: &[u8]) -> Option<Self> {
        let byte = *bytes.get(FORM_AT)?;
        // A wide header has nothing else in this byte.
        (byte == WIDE || byte & KIND_MASK != WIDE).then_some(Self(byte))
    }
}

#[inline]
fn durable_form(durable: Option<Position>, ordinal: u64) -> u8 {
    let Some(durable) = durable else {
        return DURABLE_NONE;
    };
    let is_near = durable.offset / ALIGNMENT <= THREE_BYTES_MAX;
    match ordinal.checked_sub(durable.ordinal) {
        Some(0) if is_near => DURABLE_HERE,
        Some(1) if is_near => DURABLE_BEFORE,
        Some(_) if far_durable(durable, ordinal).is_some() => DURABLE_FAR,
        Some(_) | None => DURABLE_NONE,
    }
}

/// Segments back and words, if they can be said.
fn far_durable(durable: Position, ordinal: u64) -> Option<(u16, u32)> {
    let back = u16::try_from(ordinal.checked_sub(durable.ordinal)?).ok()?;
    let words = u32::try_from(durable.offset / ALIGNMENT).ok()?;
    (back != DURABLE_UNKNOWN).then_some((back, words))
}

/// A header that was encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded {
    bytes: [u8; BUFFER_BYTES],
    len: usize,
}

impl Encoded {
    /// Appends the low `len` bytes of `value`.
    #[inline]
    fn put(&mut self, value: u64, len: usize) {
        let room = self.bytes.get_mut(self.len..self.len + 8);
        room.expect("there is room for a word behind every header")
            .copy_from_slice(&value.to_le_bytes());
        self.len += len;
    }

    /// Its bytes: the first eight, which hold the checksums, and the others.
    #[inline]
    pub(crate) fn split(&self) -> ([u8; 8], &[u8]) {
        let (first, rest) = self.bytes.split_first_chunk().expect("a longer buffer");
        (*first, rest.get(..self.len - 8).unwrap_or_default())
    }

    fn seal(&mut self, payload_crc: u32, frame: &Frame, at: Position) {
        if let Some(place) = self.bytes.get_mut(4..8) {
            place.copy_from_slice(&payload_crc.to_le_bytes());
        }
        let covered = self.bytes.get(4..self.len).unwrap_or_default();
        let crc = Crc::at(frame.file_id, at.offset).and(covered).finish();
        if let Some(place) = self.bytes.get_mut(..4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Writes a record that will lie at `at` of the segment with this frame into `out`, which it
/// clears.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    form: HeaderForm,
    meta: &RecordMeta,
    payload: &[u8],
    frame: &Frame,
    at: Position,
) {
    out.clear();
    let header = form.encode(meta, payload, frame, at);
    let (first, rest) = header.split();
    out.extend_from_slice(&first);
    out.extend_from_slice(rest);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(8), 0);
}

impl HeaderForm {
    /// The header of a record that will lie at `at` of the segment with this frame. What is read
    /// of the payload is its checksum and its length.
    ///
    /// # Panics
    /// If this is not the form of such a record, or nothing can lie at `at`.
    pub(crate) fn encode(
        self,
        meta: &RecordMeta,
        payload: &[u8],
        frame: &Frame,
        at: Position,
    ) -> Encoded {
        assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "payloads are bounded at the door"
        );
        assert!(at.offset.is_multiple_of(ALIGNMENT), "records are aligned");
        let mut out = Encoded {
            bytes: [0; BUFFER_BYTES],
            len: FORM_AT,
        };
        if self == Self(WIDE) {
            put_wide(&mut out, meta, payload.len(), at);
        } else {
            self.put_narrow(&mut out, meta, payload.len(), frame.anchor, at);
        }
        assert_eq!(out.len, self.header_bytes(), "as long as was said");
        let payload_crc = Crc::at(frame.file_id, at.offset).and(payload).finish();
        out.seal(payload_crc, frame, at);
        out
    }

    fn put_narrow(
        self,
        out: &mut Encoded,
        meta: &RecordMeta,
        payload_len: usize,
        anchor: Anchor,
        at: Position,
    ) {
        debug_assert_eq!(self, Self::of(meta, payload_len, anchor, at));
        let Self(byte) = self;
        let (is_long, has_count) = (byte & LONG_PAYLOAD != 0, byte & HAS_COUNT != 0);
        out.put(u64::from(byte), 1);
        out.put(meta.first_seq.get() - anchor.seq.get(), 3);
        let micros = meta.commit_micros - anchor.commit_micros;
        out.put(micros, if byte & LONG_TIME == 0 { 3 } else { 4 });
        out.put(payload_len as u64, if is_long { 3 } else { 1 });
        if has_count {
            out.put(u64::from(meta.op_count), 3);
        }
        let durable = meta.durable_upto.unwrap_or_default();
        match byte >> DURABLE_SHIFT {
            DURABLE_NONE => {}
            DURABLE_HERE | DURABLE_BEFORE => out.put(durable.offset / ALIGNMENT, 3),
            _ => {
                let (back, words) = durable_words(meta.durable_upto, at);
                out.put(u64::from(back), 2);
                out.put(u64::from(words), 4);
            }
        }
    }
}

fn put_wide(out: &mut Encoded, meta: &RecordMeta, payload_len: usize, at: Position) {
    let (back, words) = durable_words(meta.durable_upto, at);
    out.put(u64::from(WIDE), 1);
    out.put(u64::from(meta.kind as u8), 1);
    out.put(u64::from(back), 2);
    out.put(payload_len as u64, 4);
    // Seven bytes; the eighth says that there are no tagged fields.
    out.put(meta.first_seq.get(), 8);
    out.put(meta.commit_micros, 8);
    out.put(u64::from(meta.op_count), 4);
    out.put(u64::from(words), 4);
}

/// Segments back and words as they are stored.
fn durable_words(durable: Option<Position>, at: Position) -> (u16, u32) {
    let far = durable.and_then(|durable| far_durable(durable, at.ordinal));
    far.unwrap_or((DURABLE_UNKNOWN, 0))
}

/// A header as it was read; its checksum is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    len: usize,
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
    /// Reads the header that `bytes` begin with, at `at`, or `None` if there is none: too few
    /// bytes, a wrong checksum, or a number out of range.
    pub(crate) fn read(bytes: &[u8], frame: &Frame, at: Position) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let stored = reader.u32().ok()?;
        // Zeros are most of what is searched behind the end; a checksum is never zero.
        if stored == 0 {
            return None;
        }
        let form = HeaderForm::read(bytes)?;
        let covered = bytes.get(4..form.header_bytes())?;
        if stored != Crc::at(frame.file_id, at.offset).and(covered).finish() {
            return None;
        }
        let header = if form == HeaderForm(WIDE) {
            Self::read_wide(covered, at).ok()?
        } else {
            form.read_narrow(covered, frame.anchor, at).ok()?
        };
        (header.payload_len <= PAYLOAD_BYTES_MAX).then_some(header)
    }

    fn read_wide(covered: &[u8], at: Position) -> Result<Self, Malformed> {
        let mut reader = Reader::new(covered);
        let payload_crc = reader.u32()?;
        let (_form, kind) = (reader.u8()?, reader.u8()?);
        let durable_back = reader.u16()?;
        let payload_len = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        let seq_and_tagged = reader.u64()?;
        let commit_micros = reader.u64()?;
        let (op_count, durable_words) = (reader.u32()?, reader.u32()?);
        let [first_seq @ .., tagged_words] = seq_and_tagged.to_le_bytes();
        Ok(Self {
            len: WIDE_BYTES,
            kind,
            payload_crc,
            payload_len,
            tagged_len: usize::from(tagged_words) * 8,
            first_seq: number(&first_seq),
            commit_micros,
            op_count,
            durable_upto: position(at, durable_back, u64::from(durable_words)),
        })
    }

    /// How long it is itself.
    pub(crate) fn bytes(&self) -> usize {
        self.len
    }

    /// What the whole record occupies, padding included.
    pub(crate) fn framed_bytes(&self) -> u64 {
        let covered = self.tagged_len as u64 + self.payload_len as u64;
        (self.len as u64 + covered).next_multiple_of(ALIGNMENT)
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

impl HeaderForm {
    fn read_narrow(
        self,
        covered: &[u8],
        anchor: Anchor,
        at: Position,
    ) -> Result<Header, Malformed> {
        let Self(byte) = self;
        let (is_long, has_count) = (byte & LONG_PAYLOAD != 0, byte & HAS_COUNT != 0);
        let mut reader = Reader::new(covered);
        let payload_crc = reader.u32()?;
        reader.u8()?;
        let seq = number(reader.bytes(3)?);
        let micros = number(reader.bytes(if byte & LONG_TIME == 0 { 3 } else { 4 })?);
        let payload_len = number(reader.bytes(if is_long { 3 } else { 1 })?);
        let op_count = if has_count {
            number(reader.bytes(3)?)
        } else {
            1
        };
        let durable_upto = match byte >> DURABLE_SHIFT {
            DURABLE_NONE => None,
            DURABLE_HERE => position(at, 0, number(reader.bytes(3)?)),
            DURABLE_BEFORE => position(at, 1, number(reader.bytes(3)?)),
            _ => position(at, reader.u16()?, u64::from(reader.u32()?)),
        };
        let micros = anchor.commit_micros.checked_add(micros);
        Ok(Header {
            len: self.header_bytes(),
            kind: byte & KIND_MASK,
            payload_crc,
            payload_len: usize::try_from(payload_len).map_err(|_| Malformed)?,
            tagged_len: 0,
            first_seq: anchor.seq.get().checked_add(seq).ok_or(Malformed)?,
            commit_micros: micros.ok_or(Malformed)?,
            op_count: u32::try_from(op_count).map_err(|_| Malformed)?,
            durable_upto,
        })
    }
}

/// A number of fewer than eight bytes.
fn number(bytes: &[u8]) -> u64 {
    let byte = |so_far, byte: &u8| so_far << 8 | u64::from(*byte);
    bytes.iter().rev().fold(0, byte)
}

/// The position that a record at `at` calls durable, if it says one.
fn position(at: Position, back: u16, words: u64) -> Option<Position> {
    if back == DURABLE_UNKNOWN {
        return None;
    }
    Some(Position {
        ordinal: at.ordinal.checked_sub(u64::from(back))?,
        offset: words * ALIGNMENT,
    })
}
