//! Following a log that another process writes, with nothing but its files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::clock::{Clock, SystemClock};
use base::fs::{FileSystem, Watch};
use base::sync::Arc;
use base::{FileKind, FileNumber, Result, SequenceNumber};

use super::{damaged, retired, wanted};
use crate::reader::{Ending, LiveRecord, SegmentReader, read_header};
use crate::record::OwnedRecord;
use crate::segment::Begun;

/// A reader of a log that another process may be writing. Writes nothing, takes no lock.
///
/// It sees what was handed to the operating system, durable or not, and stops in front of what is
/// not whole yet. A recovery of the writer does not disturb it: what it has returned it does not
/// return again.
#[derive(Debug)]
pub struct Follow {
    fs: Arc<dyn FileSystem>,
    clock: SystemClock,
    dir: PathBuf,
    watch: Box<dyn Watch>,
    /// The next sequence number to be returned, or one before it.
    from: SequenceNumber,
    current: Option<SegmentReader>,
    /// Files that lie at or before the current segment, as far as they are known.
    passed: HashSet<FileNumber>,
}

/// How long to wait before looking again: a store through a mapping is no change of the directory
/// that a watch hears of.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often to look at a header that is not whole: it is copied in a moment.
const HEADER_LOOK_COUNT: usize = 100;

/// A begun segment, and what its begin record says.
struct Found {
    ordinal: u64,
    begun: Begun,
    reader: SegmentReader,
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
            clock: SystemClock::new(),
            dir: dir.to_owned(),
            watch,
            from,
            current: None,
            passed: HashSet::new(),
        })
    }

    /// The next record of operations; waits for one up to `timeout`, then returns `None`.
    ///
    /// # Errors
    /// If a file cannot be read; `Corruption` if one is damaged; `NotFound` if what comes next was
    /// retired before it was read.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<OwnedRecord>> {
        let timeout = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline = self.clock.monotonic_micros().saturating_add(timeout);
        loop {
            if let Some(record) = self.read()? {
                return Ok(Some(record));
            }
            // Much may change in the directory that is no record.
            let left = deadline.saturating_sub(self.clock.monotonic_micros());
            if left == 0 {
                return Ok(None);
            }
            let left = Duration::from_micros(left);
            self.watch.wait(left.min(LOOK_INTERVAL))?;
        }
    }

    fn read(&mut self) -> Result<Option<OwnedRecord>> {
        loop {
            if let Some(record) = self.read_current()? {
                return Ok(Some(record));
            }
            let Some(next) = self.find_next()? else {
                return Ok(None);
            };
            // Once more: what was appended between the two looks would be passed over. Now that the
            // next segment was begun, nothing more can come.
            if let Some(record) = self.read_current()? {
                return Ok(Some(record));
            }
            if !self.is_passed(&next.begun)? {
                return Ok(None);
            }
            self.current = Some(next.reader);
        }
    }

    /// The next wanted record of the current segment.
    fn read_current(&mut self) -> Result<Option<OwnedRecord>> {
        let Some(reader) = &mut self.current else {
            return Ok(None);
        };
        loop {
            match reader.next_live()? {
                LiveRecord::Record(record) => {
                    if let Some(next) = wanted(&record, self.from) {
                        self.from = next;
                        return Ok(Some(record.to_owned_record()));
                    }
                }
                LiveRecord::End | LiveRecord::NotYet => return Ok(None),
            }
        }
    }

    /// Whether the current segment was read as far as the one begun after it says it counts. If
    /// not, then a writer is still at it, or never will be again and a recovery cuts it there.
    ///
    /// # Errors
    /// `Corruption` if neither can be.
    fn is_passed(&mut self, next: &Begun) -> Result<bool> {
        let (Some(current), Some(before)) = (&mut self.current, next.before) else {
            return Ok(true);
        };
        let is_next = before.file_id == current.header().file_id;
        let at = current.position();
        if !is_next || at.offset >= before.accepted_bytes {
            return Ok(true);
        }
        // What is durable was whole, and so was everything before it.
        let was_whole = next.durable_upto.is_some_and(|durable| durable > at);
        if !was_whole {
            for _ in 0..HEADER_LOOK_COUNT {
                if current.may_come()? {
                    return Ok(false);
                }
                std::thread::yield_now();
            }
        }
        Err(damaged(current))
    }

    /// The segment to go on with, if there is one.
    fn find_next(&mut self) -> Result<Option<Found>> {
        let mut found = self.begun_later()?;
        let durable = found.iter().map(|found| found.begun.durable_upto).max();
        let Some(durable) = durable else {
            return Ok(None);
        };
        found.sort_by_key(|found| found.ordinal);
        let current = self.current.as_ref().map(|c| c.header().file_id);
        let before = |found: &Found| found.begun.before;
        let follows = |found: &Found| before(found).map(|b| b.file_id) == current;
        // A copy that a recovery has made holds what it superseded: the newest segment that leaves
        // out nothing that is still wanted.
        let covers = |found: &Found| before(found).is_none_or(|b| b.last_seq < self.from);
        let direct = found
            .iter()
            .rposition(|found| current.is_some() && follows(found));
        let place = match direct.or_else(|| found.iter().rposition(covers)) {
            Some(place) => place,
            None if current.is_none() => 0,
            None => return Err(retired(self.from)),
        };
        let mut next = found.swap_remove(place);
        // Of all that say something about it, the one that knows most.
        next.begun.durable_upto = durable;
        Ok(Some(next))
    }

    /// Every segment that was begun after the current one, in no order.
    fn begun_later(&mut self) -> Result<Vec<Found>> {
        let current = self.current.as_ref().map(|c| c.position().ordinal);
        let mut found = Vec::new();
        let mut passed = HashSet::new();
        for entry in self.fs.list(&self.dir)? {
            let Some((FileKind::Segment, number)) = FileKind::parse(&entry.name) else {
                continue;
            };
            if entry.is_dir || self.passed.contains(&number) {
                passed.insert(number);
                continue;
            }
            let file = match self.fs.open(&self.dir.join(&entry.name)) {
                Ok(file) => file,
                // Unlinked while we look; whether it is missed will show.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let Some(header) = read_header(&*file)? else {
                continue;
            };
            if current.is_some_and(|current| header.ordinal <= current) {
                passed.insert(number);
                continue;
            }
            // A copy that is not finished may never be.
            if header.is_copy && !is_complete(SegmentReader::new(Arc::clone(&file))?)? {
                continue;
            }
            let mut reader = SegmentReader::new(file)?;
            if let Some(begun) = reader.begun()? {
                found.push(Found {
                    ordinal: header.ordinal,
                    begun,
                    reader,
                });
            }
        }
        self.passed = passed;
        Ok(found)
    }
}

fn is_complete(mut copy: SegmentReader) -> Result<bool> {
    while copy.next()?.is_some() {}
    Ok(copy.ending() == Ending::Sealed)
}
