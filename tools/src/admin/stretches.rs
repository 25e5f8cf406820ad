//! Stretches of segments that cannot be read, and the records beyond them.
//!
//! For `verify`, which names every one, and for `repair`, which saves what lies between.

use std::collections::BTreeSet;
use std::path::Path;

use base::coding::{Fields, Reader};
use base::error::Error;
use base::sync::Arc;
use base::{FileKind, SequenceNumber};
use log::{Ending, Record, RecordKind, SegmentReader};

use super::directory::{Directory, State};
use super::failure::Outcome;
use super::repair::holes::Holes;
use crate::read_only_fs::{ReadOnlyFs, Reads};

/// A stretch of a segment that cannot be read.
pub(super) struct Stretch {
    pub(super) offset: u64,
    /// Where records follow it, if they do.
    pub(super) later: Option<u64>,
    error: Option<Error>,
}

impl Stretch {
    /// How long it is, if records follow it.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.later.map(|later| later.saturating_sub(self.offset))
    }

    /// What is wrong with it.
    pub(super) fn message(&self) -> String {
        match (&self.error, self.later) {
            (Some(error), _) => error.to_string(),
            (None, Some(_)) => "records of the log cannot be read; later ones can".to_owned(),
            (None, None) => "the log ends in a record that is not whole".to_owned(),
        }
    }
}

/// What is found in a segment.
pub(super) enum Found<'a> {
    Record(&'a Record<'a>),
    Stretch(Stretch),
}

/// Hands every record that can be read to `visit`, and every stretch that cannot, in their order.
///
/// # Errors
/// Those of `visit`, and no others.
pub(super) fn read_past_damage(
    reader: &mut SegmentReader,
    visit: &mut dyn FnMut(Found<'_>) -> Outcome<()>,
) -> Outcome<()> {
    loop {
        let offset = reader.position().offset;
        let mut stretch = Stretch {
            offset,
            later: None,
            error: None,
        };
        match reader.next() {
            Ok(Some(record)) => {
                visit(Found::Record(&record))?;
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                stretch.error = Some(error);
                return visit(Found::Stretch(stretch));
            }
        }
        match reader.ending() {
            Ending::Damaged {
                offset,
                later_offset,
                ..
            } => (stretch.offset, stretch.later) = (offset, Some(later_offset)),
            Ending::Torn { offset } => stretch.offset = offset,
            _ => return Ok(()),
        }
        let later = stretch.later;
        visit(Found::Stretch(stretch))?;
        match later {
            Some(later) => reader.skip_to(later),
            None => return Ok(()),
        }
    }
}

/// What the begin record of a segment says of the log before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Which segment comes before.
    before: u64,
    /// The last sequence number in that or before it.
    pub(super) last_seq: SequenceNumber,
    /// The first one here: those between were never given to a write.
    pub(super) first_seq: SequenceNumber,
}

impl Begun {
    /// Of `record`, if it begins a segment that another one comes before.
    pub(super) fn of(record: &Record<'_>) -> Option<Self> {
        if record.meta.kind != RecordKind::Begin {
            return None;
        }
        let field = |wanted| {
            let mut fields = Fields::new(record.payload).filter_map(Result::ok);
            let (_, value) = fields.find(|(tag, _)| *tag == wanted)?;
            Reader::new(value).varint().ok()
        };
        Some(Self {
            before: field(2)?,
            last_seq: SequenceNumber::new(field(4)?)?,
            first_seq: record.meta.first_seq,
        })
    }

    fn read(reader: &mut SegmentReader) -> Option<Self> {
        let record = reader.next().ok().flatten();
        let begun = record.and_then(|record| Self::of(&record));
        // Back to where it began.
        reader.skip_to(0);
        begun
    }
}

/// The ids of those segments of which every write is in tables, as what follows them says, if
/// tables have every write up to `floor`.
pub(super) fn flushed_ids(readers: &mut [SegmentReader], floor: SequenceNumber) -> BTreeSet<u64> {
    let begun = readers.iter_mut().filter_map(Begun::read);
    let flushed = begun.filter(|begun| begun.last_seq <= floor);
    flushed.map(|begun| begun.before).collect()
}

/// What becomes of the stretches before a record, once it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Whatever lies before it in its segment is in tables.
    Flushed,
    /// What lies before it is missed.
    Missed,
    /// It says nothing of that.
    Unknown,
}

impl Before {
    /// Of `record`, if every write up to `floor` is in tables.
    pub(super) fn of(record: &Record<'_>, floor: SequenceNumber) -> Self {
        if !is_numbered(record) {
            return Self::Unknown;
        }
        if record.meta.first_seq <= floor.plus(1) {
            Self::Flushed
        } else {
            Self::Missed
        }
    }
}

/// Whether the record takes sequence numbers, and so has a place among the writes.
pub(super) fn is_numbered(record: &Record<'_>) -> bool {
    matches!(
        record.meta.kind,
        RecordKind::Batch | RecordKind::KeyspaceCreate | RecordKind::KeyspaceDrop
    )
}

/// Every place of the log whose records an open would miss, if it refuses the log for `reason`,
/// which is one of them unless it lies in no single file.
///
/// What the disk does not give back is such a place too. A torn end that nothing follows is none:
/// it may never have been more.
pub(super) fn missed_places(directory: &Directory, state: &State, reason: &Error) -> Vec<Error> {
    let holes = Arc::new(Holes::default());
    let reads: Arc<dyn Reads> = Arc::clone(&holes) as _;
    let fs = ReadOnlyFs::read_through(Arc::clone(&directory.fs), reads);
    let mut readers: Vec<SegmentReader> = directory
        .numbers(FileKind::Segment)
        .filter_map(|number| {
            let path = directory.file(FileKind::Segment, number);
            // What has no whole header is reported already.
            SegmentReader::open(&fs, &path).ok()
        })
        .collect();
    readers.sort_by_key(|reader| reader.header().ordinal);
    // What an earlier open has made copies of, it has judged.
    let copied = readers.iter().rposition(|reader| reader.header().is_copy);
    let newest = readers.len().saturating_sub(1);
    let flushed = flushed_ids(&mut readers, state.floor());
    let mut places = Vec::new();
    for (index, reader) in readers.iter_mut().enumerate() {
        let is_named = reason.path() == Some(reader.path());
        if copied.is_some_and(|copied| index < copied) && !is_named {
            continue;
        }
        let is_flushed = flushed.contains(&reader.header().file_id);
        let stretches = missed_stretches(reader, state.floor(), is_flushed);
        for stretch in stretches {
            if stretch.later.is_some() || index < newest {
                places.push(place(&stretch, reader.path(), reason, &holes));
            }
        }
    }
    places
}

/// The stretches of a segment that records beyond `floor` follow, or none at all, unless all of the
/// segment is in tables.
fn missed_stretches(
    reader: &mut SegmentReader,
    floor: SequenceNumber,
    is_flushed: bool,
) -> Vec<Stretch> {
    let (mut missed, mut pending) = (Vec::new(), Vec::<Stretch>::new());
    let read = read_past_damage(reader, &mut |found| {
        match found {
            Found::Stretch(stretch) => match pending.last_mut() {
                // The header of its first record is whole, and that is all.
                Some(before) if before.later == Some(stretch.offset) => {
                    before.later = stretch.later;
                }
                _ => pending.push(stretch),
            },
            Found::Record(record) => match Before::of(record, floor) {
                Before::Flushed => pending.clear(),
                Before::Missed => missed.append(&mut pending),
                Before::Unknown => {}
            },
        }
        Ok(())
    });
    debug_assert!(read.is_ok(), "nothing above fails");
    if !is_flushed {
        missed.append(&mut pending);
    }
    missed
}

fn place(stretch: &Stretch, path: &Path, reason: &Error, holes: &Holes) -> Error {
    let end = stretch.later.unwrap_or(u64::MAX);
    let is_reason = reason.is_corruption()
        && reason.path() == Some(path)
        && reason.offset() == Some(stretch.offset);
    let error = if is_reason {
        reason.clone()
    } else {
        let message = match holes.message_in(path, stretch.offset, end) {
            Some(message) => format!("{}: {message}", stretch.message()),
            None => stretch.message(),
        };
        Error::corruption(path, stretch.offset, message)
    };
    match stretch.bytes() {
        Some(bytes) => error.with_value("bytes", bytes),
        None => error,
    }
}
