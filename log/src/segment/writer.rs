//! Writing one segment: places for records from front to back, each filled once.
//!
//! A place is filled through the mapping of the reserved space, or with a positioned write. The
//! writer itself fills one after the other; the log lets several threads fill theirs.

use std::path::Path;

use base::fs::{File, FileSystem, LiveAhead, LiveMap, LiveRange};
use base::sync::Arc;
use base::{Error, Result, SequenceNumber};

use super::{END_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, end_meta};
use crate::record::{self, Frame, HeaderForm, Position, RecordMeta};

/// Larger records are written with a positioned write although there is a mapping: that makes no
/// page fault for each page, each of which costs more than copying a page twice.
const MAPPED_BYTES_MAX: u64 = 4096;
/// Buffers grown beyond this by one large record are not kept.
const KEPT_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Appends records to one new file. MANIFEST is written with it as it is.
///
/// Used by one thread at a time. After a failed write it refuses every further one: what follows a
/// half-written record would never be read.
#[derive(Debug)]
pub struct SegmentWriter {
    file: Arc<dyn File>,
    header: SegmentHeader,
    offset: u64,
    reserved_bytes: u64,
    /// The file, mapped; without it, or where it ends, records are written with positioned writes.
    map: Option<LiveMap>,
    buffer: Vec<u8>,
    failed: Option<Error>,
}

impl SegmentWriter {
    /// Creates the file at `path` and writes its header; reserves `reserve_bytes` where that is not
    /// 0 and the file system can.
    ///
    /// Neither the file nor its name is durable before [`SegmentWriter::sync`] and a sync of the
    /// directory.
    ///
    /// # Errors
    /// If the file cannot be created, reserved or written; it is then to be removed.
    pub fn create(
        fs: &dyn FileSystem,
        path: &Path,
        header: SegmentHeader,
        reserve_bytes: u64,
    ) -> Result<Self> {
        Self::begin(fs.create(path)?, header, reserve_bytes)
    }

    /// As [`SegmentWriter::create`], in a file that was just created.
    pub(crate) fn begin(
        file: Arc<dyn File>,
        header: SegmentHeader,
        reserve_bytes: u64,
    ) -> Result<Self> {
        let is_reserved = reserve_bytes > 0 && file.reserve(reserve_bytes)?;
        file.write_at(0, &header.encode())?;
        Ok(Self {
            file,
            header,
            offset: SEGMENT_HEADER_BYTES,
            reserved_bytes: if is_reserved { reserve_bytes } else { 0 },
            map: None,
            buffer: Vec::new(),
            failed: None,
        })
    }

    /// Appends a record and returns where the next one begins. Not durable before
    /// [`SegmentWriter::sync`].
    ///
    /// # Errors
    /// If the write fails, now or before.
    ///
    /// # Panics
    /// If the payload exceeds 1 GiB and 1 MiB.
    pub fn append(&mut self, meta: RecordMeta, payload: &[u8]) -> Result<Position> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut place = self.place(&meta, payload.len(), Form::Mapped);
        if let Err(error) = place.write(&meta, payload, &mut self.buffer) {
            self.offset = place.start.offset;
            self.failed = Some(error.clone());
            return Err(error);
        }
        Ok(place.end)
    }

    /// Hands out the place of the next record, which will say `meta` and whose payload has
    /// `payload_len` bytes. The record is not there before [`Place::write`]; until then nothing
    /// behind it is read.
    ///
    /// # Panics
    /// If space is reserved and the place is not within it: room is made first.
    pub(crate) fn place(&mut self, meta: &RecordMeta, payload_len: usize, form: Form) -> Place {
        let (start, frame) = (self.end(), self.header.frame());
        let header = HeaderForm::of(meta, payload_len, frame.anchor, start);
        let framed = header.framed_bytes(payload_len);
        self.offset += framed;
        assert!(
            self.reserved_bytes == 0 || self.offset <= self.reserved_bytes,
            "nothing is placed where no space was reserved"
        );
        let range = match &mut self.map {
            Some(map) if framed <= MAPPED_BYTES_MAX && form == Form::Mapped => {
                let len = usize::try_from(framed).expect("payloads are bounded at the door");
                map.take(start.offset, len)
            }
            Some(_) | None => None,
        };
        let target = match range {
            Some(range) => Target::Mapped(range),
            None => Target::File(Arc::clone(&self.file)),
        };
        Place {
            start,
            end: self.end(),
            frame,
            header,
            target,
        }
    }

    /// Maps the first `bytes` of the file, so that places are filled through the mapping. Without a
    /// reserve, or where the system refuses, they go on being written with positioned writes.
    pub(crate) fn map(&mut self, bytes: u64) {
        if self.reserved_bytes > 0 && self.map.is_none() {
            // Either form is right; which one it is changes speed only.
            self.map = self.file.map_live(bytes).ok();
        }
    }

    /// Takes the mapping out, to be closed later: [`give_back`](Self::give_back) comes after that.
    pub(crate) fn take_map(&mut self) -> Option<LiveMap> {
        self.map.take()
    }

    /// With what pages of the mapping can be made ready. Nothing is cut while it is held.
    pub(crate) fn ahead(&self) -> Option<LiveAhead> {
        self.map.as_ref().map(LiveMap::ahead)
    }

    /// How far the file is mapped and reserved.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.map.as_ref().map_or(0, LiveMap::bytes)
    }

    /// Whether places are filled through a mapping.
    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Reserves space, where the file system can, so that a record with a payload of `payload_len`
    /// bytes and the end record cannot run out of it; if so, in steps of `step_bytes`.
    ///
    /// # Errors
    /// `NoSpace`: nothing was written, and the file can be used as before.
    pub fn reserve_for(&mut self, payload_len: usize, step_bytes: u64) -> Result<()> {
        let needed = self.offset + record::framed_bytes_max(payload_len) + END_BYTES_MAX;
        if needed <= self.reserved_bytes {
            return Ok(());
        }
        self.reserve_upto(needed.next_multiple_of(step_bytes.max(1)))
    }

    /// Reserves space up to `bytes` if space was reserved at all, so that no write up to there can
    /// run out of it.
    ///
    /// # Errors
    /// `NoSpace`: nothing was written, and the file can be used as before.
    pub(crate) fn reserve_more(&mut self, bytes: u64) -> Result<()> {
        if self.reserved_bytes == 0 || bytes <= self.reserved_bytes {
            return Ok(());
        }
        self.reserve_upto(bytes)
    }

    fn reserve_upto(&mut self, bytes: u64) -> Result<()> {
        if self.file.reserve(bytes)? {
            self.note_reserved(bytes);
        }
        Ok(())
    }

    /// Takes in that space up to `bytes` was reserved in its file, by whomever.
    pub(crate) fn note_reserved(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.max(bytes);
        if let Some(map) = &mut self.map {
            // Where that cannot be found out, places behind are filled with positioned writes.
            let _ = map.extend();
        }
    }

    /// How far space is reserved; 0 if none is.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// If the sync fails; it must not be tried again.
    pub fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// Appends the end record, syncs, and gives back what was reserved and not used.
    ///
    /// # Errors
    /// If a write or sync fails.
    pub fn seal(mut self, commit_micros: u64, next_seq: SequenceNumber) -> Result<()> {
        self.append(end_meta(commit_micros, next_seq), &[])?;
        self.sync()?;
        self.give_back()
    }

    /// Cuts what was reserved behind the records. Either length is valid.
    ///
    /// # Panics
    /// If it is still mapped.
    pub(crate) fn give_back(&self) -> Result<()> {
        assert!(!self.is_mapped(), "nothing is cut while it is mapped");
        if self.reserved_bytes > 0 {
            self.file.set_len(self.offset)
        } else {
            Ok(())
        }
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> Position {
        Position {
            ordinal: self.header.ordinal,
            offset: self.offset,
        }
    }

    /// Bytes written so far, header included.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// What the header says.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}

/// How a record is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Through the mapping, if there is one.
    Mapped,
    /// With one positioned write.
    Positioned,
}

/// Where one record goes. Whoever holds it is the only one who writes there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) start: Position,
    pub(crate) end: Position,
    frame: Frame,
    header: HeaderForm,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Mapped(LiveRange),
    File(Arc<dyn File>),
}

impl Place {
    /// Writes the record; `buffer` is used where it has to lie in one piece.
    ///
    /// Through a mapping the first word comes last: a reader that finds it finds all of the
    /// record, and one that finds zeros there knows that the record is still to come.
    ///
    /// # Errors
    /// If the write fails; any part of it may be there.
    pub(crate) fn write(
        &mut self,
        meta: &RecordMeta,
        payload: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let framed = self.end.offset - self.start.offset;
        assert_eq!(
            self.header.framed_bytes(payload.len()),
            framed,
            "the place was made for this payload"
        );
        match &mut self.target {
            Target::Mapped(range) => {
                let header = self.header.encode(meta, payload, &self.frame, self.start);
                let (first, rest) = header.split();
                range.store(8, &[rest, payload])?;
                range.store_word(0, first)
            }
            Target::File(file) => {
                let (frame, start) = (&self.frame, self.start);
                record::encode(buffer, self.header, meta, payload, frame, start);
                debug_assert_eq!(buffer.len() as u64, framed);
                let written = file.write_at(self.start.offset, buffer);
                if buffer.capacity() > KEPT_BUFFER_BYTES_MAX {
                    *buffer = Vec::new();
                }
                written
            }
        }
    }
}
