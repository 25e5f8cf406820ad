//! Reading the log while it grows: within the process by its bell, from another one by watching
//! the directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::fs::{FileSystem, Watch};
use base::sync::Arc;
use base::{Error, ErrorKind, FileKind, FileNumber, Result, SequenceNumber};

use crate::index::SparseIndex;
use crate::reader::{LiveRecord, SegmentReader, read_header};
use crate::record::{OwnedRecord, Position, RecordKind};
use crate::writer::Log;

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
/// segments from being retired: one that was before it was read is an error.
#[derive(Debug)]
pub struct Tail {
    log: Arc<Log>,
    upto: TailUpto,
    from: SequenceNumber,
    reader: Option<SegmentReader>,
}

impl Log {
    /// Reads from the record that holds `from`, or the first after it, and on as the log grows.
    ///
    /// # Errors
    /// `NotFound` if the log does not reach back so far.
    pub fn tail(self: &Arc<Self>, from: SequenceNumber, upto: TailUpto) -> Result<Tail> {
        let begun = self.lock_segments().begun();
        let oldest = begun
            .first()
            .map(|(_, _, first_seq)| *first_seq)
            .unwrap_or_default();
        if from < oldest && oldest > SequenceNumber::ZERO.plus(1) {
            return Err(retired(from).with_value("oldest", oldest));
        }
        Ok(Tail {
            log: Arc::clone(self),
            upto,
            from,
            reader: None,
        })
    }
}

fn retired(from: SequenceNumber) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the log no longer reaches back to this sequence number",
    )
    .with_value("from", from)
}

impl Tail {
    /// The next record of operations; waits for one up to `timeout`, then returns `None`.
    ///
    /// # Errors
    /// If a file cannot be read; `NotFound` if the segment it was to read next was retired.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        loop {
            let seen = self.log.bell().epoch();
            let limit = match self.upto {
                TailUpto::Durable => self.log.durable_upto(),
                TailUpto::Appended => self.log.end(),
            };
            if let Some(record) = self.read_before(limit)? {
                return Ok(Some(record));
            }
            if let Some(error) = self.log.poisoned() {
                return Err(error);
            }
            if !self.log.bell().wait_past(seen, Some(timeout)) {
                return Ok(None);
            }
        }
    }

    /// The next record that ends at or before `limit`.
    fn read_before(&mut self, limit: Position) -> Result<Option<OwnedRecord>> {
        loop {
            if self.reader.is_none() {
                self.reader = Some(self.open_first()?);
            }
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            let at = reader.position();
            if at.ordinal > limit.ordinal {
                return Ok(None);
            }
            let bound = if at.ordinal == limit.ordinal {
                limit.offset
            } else {
                u64::MAX
            };
            reader.set_limit(bound);
            match reader.next_live()? {
                LiveRecord::Record(record) => {
                    let meta = record.meta;
                    if meta.kind != RecordKind::Begin && meta.last_seq() >= self.from {
                        return Ok(Some(record.to_owned_record()));
                    }
                }
                LiveRecord::End => self.open_next(at.ordinal)?,
                LiveRecord::NotYet if at.ordinal < limit.ordinal => self.open_next(at.ordinal)?,
                LiveRecord::NotYet => return Ok(None),
            }
        }
    }

    fn open_first(&self) -> Result<SegmentReader> {
        let begun = self.log.lock_segments().begun();
        let after = begun.partition_point(|(_, _, first_seq)| *first_seq <= self.from);
        let (number, _, _) = begun[after.saturating_sub(1)];
        let mut reader = self.open(number)?;
        let config = self.log.config();
        let index = FileKind::SegmentIndex.path(&config.dir, number);
        if let Some(index) = SparseIndex::load(&*config.fs, &index, reader.header().file_id)
            && let Some(offset) = index.lookup(self.from)
        {
            reader.seek(offset);
        }
        Ok(reader)
    }

    fn open_next(&mut self, ordinal: u64) -> Result<()> {
        let begun = self.log.lock_segments().begun();
        let next = begun
            .iter()
            .find(|(_, o, _)| *o > ordinal)
            .ok_or_else(|| retired(self.from))?;
        self.reader = Some(self.open(next.0)?);
        Ok(())
    }

    fn open(&self, number: FileNumber) -> Result<SegmentReader> {
        let config = self.log.config();
        SegmentReader::open(&*config.fs, &FileKind::Segment.path(&config.dir, number))
    }
}

/// A reader of a log that another process may be writing. Writes nothing, takes no lock.
///
/// It sees what was handed to the operating system, durable or not, and stops in front of what is
/// not whole yet.
#[derive(Debug)]
pub struct Follow {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    watch: Box<dyn Watch>,
    from: SequenceNumber,
    reader: Option<SegmentReader>,
}

impl Follow {
    /// Reads the log in `dir` from the record that holds `from`, or the first after it that is
    /// still there.
    ///
    /// # Errors
    /// If the directory cannot be read or watched.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, from: SequenceNumber) -> Result<Self> {
        // Watched before it is looked at, so that nothing is missed in between.
        let watch = fs.watch(dir)?;
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            watch,
            from,
            reader: None,
        })
    }

    /// The next record of operations; waits for one up to `timeout`, then returns `None`.
    ///
    /// # Errors
    /// If a file cannot be read, or the directory is gone.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        loop {
            if let Some(record) = self.read()? {
                return Ok(Some(record));
            }
            if !self.watch.wait(timeout)? {
                return Ok(None);
            }
        }
    }

    fn read(&mut self) -> Result<Option<OwnedRecord>> {
        loop {
            if self.reader.is_none() {
                self.reader = self.open_after(None)?;
            }
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            let ordinal = reader.position().ordinal;
            match reader.next_live()? {
                LiveRecord::Record(record) => {
                    let meta = record.meta;
                    if meta.kind != RecordKind::Begin && meta.last_seq() >= self.from {
                        return Ok(Some(record.to_owned_record()));
                    }
                }
                LiveRecord::End | LiveRecord::NotYet => match self.open_after(Some(ordinal))? {
                    Some(next) => self.reader = Some(next),
                    None => return Ok(None),
                },
            }
        }
    }

    /// The oldest begun segment after `ordinal`; for the first one, of those that may hold `from`.
    fn open_after(&self, ordinal: Option<u64>) -> Result<Option<SegmentReader>> {
        let mut begun = Vec::new();
        for entry in self.fs.list(&self.dir)? {
            let Some((FileKind::Segment, _)) = FileKind::parse(&entry.name) else {
                continue;
            };
            // It may be unlinked while we look; then it is not needed.
            let Ok(file) = self.fs.open(&self.dir.join(&entry.name)) else {
                continue;
            };
            let Some(header) = read_header(&*file)? else {
                continue;
            };
            if ordinal.is_some_and(|ordinal| header.ordinal <= ordinal) {
                continue;
            }
            let mut reader = SegmentReader::new(Arc::clone(&file))?;
            let first_seq = match reader.next_live()? {
                LiveRecord::Record(record) => record.meta.first_seq,
                LiveRecord::End | LiveRecord::NotYet => continue,
            };
            begun.push((header.ordinal, first_seq, file));
        }
        begun.sort_by_key(|(ordinal, _, _)| *ordinal);
        let index = match ordinal {
            Some(_) => 0,
            None => begun
                .partition_point(|(_, first_seq, _)| *first_seq <= self.from)
                .saturating_sub(1),
        };
        match begun.into_iter().nth(index) {
            Some((_, _, file)) => SegmentReader::new(file).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
