//! Reading the records of one segment, and judging how it ends.

use std::path::Path;

use base::fs::{File, FileSystem};
use base::sync::Arc;
use base::{Error, ErrorKind, Result, SequenceNumber};

use crate::record::{
    ALIGNMENT, HEADER_BYTES_MAX, HEADER_BYTES_MIN, Header, NoRecord, Position, Record, RecordKind,
    RecordMeta,
};
use crate::segment::{Begun, HEADER_LEN, NextSegment, SEGMENT_HEADER_BYTES, SegmentHeader};

/// How much is read at once; a larger record makes the buffer grow to its size.
const WINDOW_BYTES: usize = 128 << 10;

/// How a segment ends, known once its reader has come to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// With its end record.
    Sealed,
    /// Only zeros follow the last record, or nothing.
    Clean,
    /// Something follows that is not a whole record, and no header of a record after it.
    Torn {
        /// Where the records end.
        offset: u64,
    },
    /// Something follows that is not a whole record, and headers of records after it; their
    /// payloads may be whole or not.
    Damaged {
        /// Where the records end.
        offset: u64,
        /// Where the next whole header lies.
        later_offset: u64,
        /// Everything before this was durable when some later record was written.
        durable_upto: Option<Position>,
    },
}

/// Reads the records of one segment in order, with positioned reads; memory bounded by the largest
/// record.
#[derive(Debug)]
pub struct SegmentReader {
    file: Arc<dyn File>,
    header: SegmentHeader,
    file_bytes: u64,
    /// Where the next record begins.
    offset: u64,
    /// Records count up to here.
    limit: u64,
    window: Vec<u8>,
    window_offset: u64,
    ending: Option<Ending>,
    /// What the end record says, once it was read.
    end_record: Option<EndRecord>,
    /// Behind the last byte that is not zero, once the rest was judged.
    rest_end: u64,
}

impl SegmentReader {
    /// Opens the segment at `path`.
    ///
    /// # Errors
    /// `NotFound`; `Corruption` if its header is damaged; `Unsupported` if it is of a newer format.
    pub fn open(fs: &dyn FileSystem, path: &Path) -> Result<Self> {
        Self::new(fs.open(path)?)
    }

    /// Reads the segment in an open file.
    ///
    /// # Errors
    /// As [`SegmentReader::open`].
    pub fn new(file: Arc<dyn File>) -> Result<Self> {
        let header = read_header(&*file)?.ok_or_else(|| {
            Error::corruption(
                file.path(),
                0,
                "the segment's header is damaged; restore it from a copy, see `siltstone verify`",
            )
        })?;
        let file_bytes = file.len()?;
        Ok(Self {
            file,
            header,
            file_bytes,
            offset: SEGMENT_HEADER_BYTES,
            limit: u64::MAX,
            window: Vec::new(),
            window_offset: 0,
            ending: None,
            end_record: None,
            rest_end: 0,
        })
    }

    /// What its header says.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The file it reads.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        Position {
            ordinal: self.header.ordinal,
            offset: self.offset,
        }
    }

    /// Goes on behind damage, at the `later_offset` of [`Ending::Damaged`]: for those who save
    /// what can be read, whatever it is worth.
    pub fn skip_to(&mut self, offset: u64) {
        self.seek(offset);
    }

    /// Goes on at `offset`, where a record must begin.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.offset = offset.max(SEGMENT_HEADER_BYTES);
        self.ending = None;
    }

    /// Goes to `offset` if a record that begins with `first_seq` is there, and stays otherwise.
    pub(crate) fn seek_to_record(&mut self, offset: u64, first_seq: SequenceNumber) -> Result<()> {
        let at = Position {
            ordinal: self.header.ordinal,
            offset,
        };
        let is_there = offset >= SEGMENT_HEADER_BYTES
            && matches!(self.load(at)?, Loaded::Whole { .. })
            && self.again(at).meta.first_seq == first_seq;
        if is_there {
            self.seek(offset);
        }
        Ok(())
    }

    /// Reads the begin record, which is the first; `None` if it is not whole yet.
    pub(crate) fn begun(&mut self) -> Result<Option<Begun>> {
        let path = self.path().to_owned();
        match self.next_live()? {
            LiveRecord::Record(record) => Begun::of(&record, &path).map(Some),
            LiveRecord::End | LiveRecord::NotYet => Ok(None),
        }
    }

    /// Lets records count only up to `limit`; nothing behind it is read.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Forgets what was read ahead, and asks for the length again: somebody may have appended.
    fn refresh(&mut self) -> Result<()> {
        self.file_bytes = self.file.len()?;
        self.window.clear();
        Ok(())
    }

    /// What the end record says; known once the ending is [`Ending::Sealed`].
    pub(crate) fn end_record(&self) -> Option<EndRecord> {
        self.end_record
    }

    /// Where what follows the records ends, reserved space left out; known once
    /// [`SegmentReader::next`] has returned `None` and the ending is none of the good ones.
    pub(crate) fn rest_end(&self) -> u64 {
        self.rest_end
    }

    /// How it ended; known once [`SegmentReader::next`] has returned `None`.
    pub fn ending(&self) -> Ending {
        self.ending.unwrap_or(Ending::Clean)
    }

    /// The next record, or `None` at the end, which [`SegmentReader::ending`] then describes.
    ///
    /// The end record itself is not returned.
    ///
    /// # Errors
    /// If the file cannot be read; `Unsupported` for a record of a newer kind.
    #[expect(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        if self.ending.is_some() {
            return Ok(None);
        }
        if self.offset >= self.limit {
            self.ending = Some(Ending::Clean);
            return Ok(None);
        }
        let at = self.position();
        match self.load(at)? {
            Loaded::Whole {
                framed,
                kind: RecordKind::End,
            } => {
                self.offset += framed;
                self.end_record = Some(self.read_end_record(at)?);
                self.ending = Some(Ending::Sealed);
                Ok(None)
            }
            Loaded::Whole { framed, .. } => {
                self.offset += framed;
                Ok(Some(self.again(at)))
            }
            Loaded::Newer => Err(self.newer(at)),
            Loaded::Not => {
                self.ending = Some(self.judge_rest(at.offset)?);
                Ok(None)
            }
        }
    }

    /// Like [`SegmentReader::next`] at the live end: what is not whole yet is no ending.
    pub(crate) fn next_live(&mut self) -> Result<LiveRecord<'_>> {
        let at = self.position();
        if at.offset >= self.limit {
            return Ok(LiveRecord::NotYet);
        }
        let mut loaded = self.load(at)?;
        if matches!(loaded, Loaded::Not) {
            // What was read ahead may be older than the record.
            self.refresh()?;
            loaded = self.load(at)?;
        }
        match loaded {
            Loaded::Whole {
                kind: RecordKind::End,
                ..
            } => Ok(LiveRecord::End),
            Loaded::Whole { framed, .. } => {
                self.offset += framed;
                Ok(LiveRecord::Record(self.again(at)))
            }
            Loaded::Newer => Err(self.newer(at)),
            Loaded::Not => Ok(LiveRecord::NotYet),
        }
    }

    /// Whether a record that is not whole may still be coming, although later ones are there: they
    /// are written side by side. Through a mapping the first word comes last, and a positioned
    /// write fills its place from the front.
    pub(crate) fn may_come(&mut self) -> Result<bool> {
        self.refresh()?;
        let at = self.position();
        // Less than the longest header may be the front of one.
        if !self.fill(at.offset, HEADER_BYTES_MAX)? {
            return Ok(true);
        }
        let is_empty = self.window_from(at.offset).iter().take(8).all(|b| *b == 0);
        Ok(is_empty || self.header_at(at).is_some())
    }

    /// The record at `at` once more, which was the last to be loaded.
    ///
    /// # Panics
    /// If it was not.
    pub(crate) fn again(&self, at: Position) -> Record<'_> {
        let (meta, payload) = self.loaded(at).expect("it was whole a moment ago");
        Record {
            meta,
            payload,
            position: at,
            end: self.position(),
        }
    }

    fn read_end_record(&self, at: Position) -> Result<EndRecord> {
        let record = self.again(at);
        let next = NextSegment::decode(record.payload)
            .map_err(|_| Error::corruption(self.path(), at.offset, "an end record is malformed"))?;
        Ok(EndRecord {
            commit_micros: record.meta.commit_micros,
            next,
        })
    }

    fn newer(&self, at: Position) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            "the log holds a record of a newer kind",
        )
        .with_path(self.path())
        .with_offset(at.offset)
    }

    /// Loads the record at `at` into the window and checks it.
    fn load(&mut self, at: Position) -> Result<Loaded> {
        if !self.fill_header(at.offset)? {
            return Ok(Loaded::Not);
        }
        let Some(header) = self.header_at(at) else {
            return Ok(Loaded::Not);
        };
        let framed = header.framed_bytes();
        let Ok(len) = usize::try_from(framed) else {
            return Ok(Loaded::Not);
        };
        if !self.fill(at.offset, len)? {
            return Ok(Loaded::Not);
        }
        let body = self.window_from(at.offset + header.bytes() as u64);
        Ok(match header.check(body, self.header.file_id, at) {
            Ok((meta, _)) => Loaded::Whole {
                framed,
                kind: meta.kind,
            },
            Err(NoRecord::Newer) => Loaded::Newer,
            Err(NoRecord::Invalid) => Loaded::Not,
        })
    }

    fn loaded(&self, at: Position) -> Option<(RecordMeta, &[u8])> {
        let header = self.header_at(at)?;
        let body = self.window_from(at.offset + header.bytes() as u64);
        header.meta_and_payload(body)
    }

    fn header_at(&self, at: Position) -> Option<Header> {
        Header::read(self.window_from(at.offset), &self.header.frame(), at)
    }

    fn window_from(&self, offset: u64) -> &[u8] {
        let start = offset
            .checked_sub(self.window_offset)
            .and_then(|s| usize::try_from(s).ok());
        start
            .and_then(|start| self.window.get(start..))
            .unwrap_or(&[])
    }

    /// Makes as many bytes at `offset` lie in the window as a header may have, or the last of the
    /// file. Returns whether they can be a header.
    fn fill_header(&mut self, offset: u64) -> Result<bool> {
        if self.fill(offset, HEADER_BYTES_MAX)? {
            return Ok(true);
        }
        let left = self.file_bytes.min(self.limit).saturating_sub(offset);
        let left = usize::try_from(left).unwrap_or(HEADER_BYTES_MAX);
        let last = left.min(HEADER_BYTES_MAX);
        Ok(last >= HEADER_BYTES_MIN && self.fill(offset, last)?)
    }

    /// Makes `len` bytes at `offset` lie in the window. Returns whether the file has them before
    /// the limit.
    fn fill(&mut self, offset: u64, len: usize) -> Result<bool> {
        if self.window_from(offset).len() >= len {
            return Ok(true);
        }
        // Compared with what the file holds before anything is allocated for it.
        let left = self.file_bytes.min(self.limit).saturating_sub(offset);
        if left < len as u64 {
            return Ok(false);
        }
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(len.max(WINDOW_BYTES));
        if self.window.capacity() > 8 * WINDOW_BYTES && want <= WINDOW_BYTES {
            self.window = Vec::new();
        }
        self.window.resize(want, 0);
        self.window_offset = offset;
        let read = match read_in_full(&*self.file, offset, &mut self.window) {
            Ok(read) => read,
            Err(error) => {
                self.window.clear();
                return Err(error);
            }
        };
        if read < want {
            // Reserved space was given back meanwhile.
            self.file_bytes = offset + read as u64;
            self.window.truncate(read);
        }
        Ok(read >= len)
    }

    /// Looks at every aligned offset behind `end` for the header of a record. Linear in what is
    /// left. A header alone proves that the record was written; its payload may have been torn.
    fn judge_rest(&mut self, end: u64) -> Result<Ending> {
        let ordinal = self.header.ordinal;
        let mut later = None;
        let mut durable: Option<Position> = None;
        let mut offset = end;
        self.rest_end = end;
        while self.fill(offset, 1)? {
            let window = self.window_from(offset);
            let zeros = window
                .iter()
                .position(|byte| *byte != 0)
                .unwrap_or(window.len()) as u64;
            let skip = zeros / ALIGNMENT * ALIGNMENT;
            if skip > 0 {
                offset += skip;
                continue;
            }
            let mut word = window.iter().take(8);
            if let Some(last) = word.rposition(|byte| *byte != 0) {
                self.rest_end = offset + last as u64 + 1;
            }
            let at = Position { ordinal, offset };
            if offset > end
                && self.fill_header(offset)?
                && let Some(header) = self.header_at(at)
                && header.is_plausible(at)
            {
                later.get_or_insert(offset);
                durable = durable.max(header.durable_upto());
            }
            offset += ALIGNMENT;
        }
        Ok(match later {
            Some(later_offset) => Ending::Damaged {
                offset: end,
                later_offset,
                durable_upto: durable,
            },
            None if self.rest_end == end => Ending::Clean,
            None => Ending::Torn { offset: end },
        })
    }
}

/// What an end record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndRecord {
    pub(crate) commit_micros: u64,
    /// The segment that follows, unless the log was closed.
    pub(crate) next: Option<NextSegment>,
}

enum Loaded {
    Whole { framed: u64, kind: RecordKind },
    Newer,
    Not,
}

/// What stands at the live end of a segment.
pub(crate) enum LiveRecord<'a> {
    Record(Record<'a>),
    /// The segment is complete: go on with the next.
    End,
    /// Nothing whole yet.
    NotYet,
}

/// The header of a segment's file, or `None` if it is not whole.
pub(crate) fn read_header(file: &dyn File) -> Result<Option<SegmentHeader>> {
    let mut bytes = [0; HEADER_LEN];
    if file.len()? < SEGMENT_HEADER_BYTES || read_in_full(file, 0, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    SegmentHeader::decode(&bytes, file.path())
}

/// Whether a file without a whole header holds nothing behind it either: its creation was cut off.
pub(crate) fn is_blank_behind_header(file: &dyn File) -> Result<bool> {
    let mut window = vec![0; WINDOW_BYTES];
    let mut offset = SEGMENT_HEADER_BYTES;
    loop {
        let left = file.len()?.saturating_sub(offset);
        let want = usize::try_from(left).unwrap_or(WINDOW_BYTES);
        let want = want.min(WINDOW_BYTES);
        let Some(window) = window.get_mut(..want).filter(|window| !window.is_empty()) else {
            return Ok(true);
        };
        let read = read_in_full(file, offset, window)?;
        if window.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += read as u64;
    }
}

/// Reads bytes that the file was said to have. Fewer come only if it has become shorter since.
///
/// # Errors
/// If a read ends early although the file does not: taken for the end, it would cut the log there.
fn read_in_full(file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let read = file.read_at(offset, buffer)?;
    let end = offset.saturating_add(read as u64);
    if read == buffer.len() || file.len()? <= end {
        return Ok(read);
    }
    Err(Error::new(ErrorKind::Io, "a read ended before the file")
        .with_path(file.path())
        .with_offset(end))
}

#[cfg(test)]
mod tests;
