//! Reading the log while it grows: within the process by its bell, from another one by watching
//! the directory.

use std::time::Duration;

use base::sync::Arc;
use base::{Error, ErrorKind, FileKind, Result, SequenceNumber};

use crate::index::SparseIndex;
use crate::reader::{LiveRecord, SegmentReader};
use crate::record::{OwnedRecord, Position, Record, RecordKind};
use crate::segment::Begun;
use crate::writer::{BegunSegment, Log};

mod follow;

pub use follow::Follow;

/// How close to the live end a [`Tail`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TailUpto {
    /// Only what is durable: what a follower may act upon.
    #[default]
    Durable,
    /// Everything that was appended.
    Appended,
}

/// A reader of a log that is being written in this process.
///
/// Reads the files with positioned reads of its own; never slows the writer. It does not keep
/// segments from being retired: to come to one that was before it was read is an error.
#[derive(Debug)]
pub struct Tail {
    log: Listening,
    upto: TailUpto,
    /// The next sequence number to be returned, or one before it.
    from: SequenceNumber,
    reader: SegmentReader,
    /// Where the segment's records end, if it was complete when it was opened.
    bytes: Option<u64>,
}

/// A log that rings its bell for every record while this lives.
#[derive(Debug)]
struct Listening(Arc<Log>);

impl Listening {
    fn new(log: &Arc<Log>) -> Self {
        log.completion().listen();
        Self(Arc::clone(log))
    }
}

impl std::ops::Deref for Listening {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.completion().stop_listening();
    }
}

impl Log {
    /// Reads from the record that holds `from`, or the first after it, and on as the log grows.
    ///
    /// # Errors
    /// `NotFound` if the log does not reach back so far; otherwise if a file cannot be read.
    pub fn tail(self: &Arc<Self>, from: SequenceNumber, upto: TailUpto) -> Result<Tail> {
        let (begun, live_entry) = {
            let segments = self.lock_segments();
            (segments.begun(), segments.live_entry(from))
        };
        let after = begun.partition_point(|segment| segment.first_seq <= from);
        let first = after.saturating_sub(1);
        let segment = begun[first];
        let mut reader = open(self, &segment)?;
        if segment.first_seq > from && !reaches_back(&mut reader, from)? {
            return Err(retired(from).with_value("oldest", segment.first_seq));
        }
        if segment.bytes.is_none() {
            if let Some(entry) = live_entry {
                reader.seek_to_record(entry.offset, entry.seq)?;
            }
        } else {
            let config = self.config();
            let index = FileKind::SegmentIndex.path(&config.dir, segment.number);
            let file_id = reader.header().file_id;
            if let Some(index) = SparseIndex::load(&*config.fs, &index, file_id) {
                index.guide(&mut reader, from)?;
            }
        }
        Ok(Tail {
            log: Listening::new(self),
            upto,
            from,
            reader,
            bytes: segment.bytes,
        })
    }
}

fn open(log: &Log, segment: &BegunSegment) -> Result<SegmentReader> {
    let config = log.config();
    let path = FileKind::Segment.path(&config.dir, segment.number);
    SegmentReader::open(&*config.fs, &path)
}

/// Whether nothing from `from` on lies before this segment, which begins later.
fn reaches_back(reader: &mut SegmentReader, from: SequenceNumber) -> Result<bool> {
    let first = SequenceNumber::ZERO.plus(1);
    Ok(match reader.begun()? {
        Some(Begun {
            before: Some(before),
            ..
        }) => before.last_seq < from,
        Some(Begun { first_seq, .. }) => first_seq <= first,
        None => false,
    })
}

fn retired(from: SequenceNumber) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the log no longer reaches back to this sequence number",
    )
    .with_value("from", from)
}

fn damaged(reader: &SegmentReader) -> Error {
    Error::corruption(
        reader.path(),
        reader.position().offset,
        "the log is damaged; restore it from a copy, see `siltstone verify`",
    )
}

/// Whether a reader that wants operations from `from` on wants this record; if so, the next number.
fn wanted(record: &Record<'_>, from: SequenceNumber) -> Option<SequenceNumber> {
    let last_seq = record.meta.last_seq();
    let is_wanted = record.meta.kind != RecordKind::Begin && last_seq >= from;
    is_wanted.then(|| last_seq.plus(1))
}

impl Tail {
    /// The next record of operations; waits for one up to `timeout`, then returns `None`.
    ///
    /// # Errors
    /// If a file cannot be read; `Corruption` if one is damaged; `NotFound` if what comes next was
    /// retired. Once everything was returned, the cause why the log takes no more.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        let clock = Arc::clone(&self.log.config().clock);
        let timeout = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline = clock.monotonic_micros().saturating_add(timeout);
        loop {
            let seen = self.log.bell().epoch();
            let poisoned = self.log.poisoned();
            let limit = match self.upto {
                TailUpto::Durable => self.log.durable_upto(),
                TailUpto::Appended => self.log.end(),
            };
            if let Some(record) = self.read_before(limit)? {
                return Ok(Some(record));
            }
            if let Some(error) = poisoned {
                return Err(error);
            }
            // Others ring for what this one must not see yet.
            let left = deadline.saturating_sub(clock.monotonic_micros());
            let left = Duration::from_micros(left);
            if left.is_zero() || !self.log.bell().wait_past(seen, Some(left)) {
                return Ok(None);
            }
        }
    }

    /// The next record that ends at or before `limit`.
    fn read_before(&mut self, limit: Position) -> Result<Option<OwnedRecord>> {
        loop {
            let at = self.reader.position();
            if at >= limit {
                return Ok(None);
            }
            let is_live = at.ordinal == limit.ordinal;
            self.reader.set_limit(if is_live {
                limit.offset
            } else {
                self.bytes.unwrap_or(u64::MAX)
            });
            match self.reader.next_live()? {
                LiveRecord::Record(record) => {
                    if let Some(next) = wanted(&record, self.from) {
                        self.from = next;
                        return Ok(Some(record.to_owned_record()));
                    }
                }
                LiveRecord::End | LiveRecord::NotYet if !is_live => self.open_next()?,
                // What is said to be there is not whole.
                LiveRecord::NotYet => return Err(damaged(&self.reader)),
                LiveRecord::End => return Ok(None),
            }
        }
    }

    /// Goes on in the segment that was begun after this one.
    fn open_next(&mut self) -> Result<()> {
        let at = self.reader.position();
        let begun = self.log.lock_segments().begun();
        let next = begun.iter().find(|segment| segment.ordinal > at.ordinal);
        let next = next.ok_or_else(|| retired(self.from))?;
        let mut reader = open(&self.log, next)?;
        let Some(Begun {
            before: Some(before),
            ..
        }) = reader.begun()?
        else {
            return Err(damaged(&reader));
        };
        if before.file_id != self.reader.header().file_id {
            return Err(retired(self.from));
        }
        if at.offset < before.accepted_bytes {
            return Err(damaged(&self.reader));
        }
        self.bytes = next.bytes;
        self.reader = reader;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
