//! Which segments belong to the log, and in what order.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use base::{Error, FileKind, FileNumber, Result, ids};

use super::RecoverConfig;
use crate::reader::{Ending, SegmentReader, is_blank_behind_header, read_header};
use crate::record::Position;
use crate::segment::{Begun, NextSegment, Predecessor, SEGMENT_HEADER_BYTES, SegmentHeader};

/// Far more than a begin record takes.
const BEGIN_BYTES_MAX: u64 = 4096;
/// No log comes so far; what says so is not believed, and cannot make numbers overflow.
const ORDINAL_MAX: u64 = 1 << 62;

/// A file whose header is whole.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) number: FileNumber,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file_bytes: u64,
    pub(super) begin: Begin,
}

/// What stands where the first record should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing: the segment was prepared and never begun, or it has lost everything.
    Never,
    /// No whole record, but something is there.
    Torn,
    /// The begin record.
    Whole(Begun),
}

impl Begin {
    pub(super) fn whole(self) -> Option<Begun> {
        match self {
            Self::Whole(begun) => Some(begun),
            Self::Never | Self::Torn => None,
        }
    }

    /// How the segment before ended, if this one says so.
    pub(super) fn before(self) -> Option<Predecessor> {
        self.whole()?.before
    }
}

/// The files of the log: those that form the chain, oldest first, and the others.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) segments: Vec<Candidate>,
    /// Never begun, or never finished.
    pub(super) obsolete: Vec<FileNumber>,
    /// Begun, and passed over by the chain: a copy was made of them.
    pub(super) superseded: Vec<FileNumber>,
    /// The place behind every file that is there.
    pub(super) next_ordinal: u64,
    /// The ids of all files whose headers are whole.
    file_ids: HashSet<u64>,
}

impl Chain {
    pub(super) fn find(config: &RecoverConfig<'_>) -> Result<Self> {
        let mut chain = Self::default();
        let candidates = chain.candidates(config)?;
        let newest = candidates.iter().map(|c| c.header.ordinal).max();
        chain.next_ordinal = newest.map_or(0, |ordinal| ordinal + 1);
        chain.file_ids = candidates.iter().map(|c| c.header.file_id).collect();
        let named: HashSet<u64> = candidates
            .iter()
            .filter_map(|candidate| candidate.begin.before())
            .map(|before| before.file_id)
            .collect();
        let mut by_ordinal = BTreeMap::new();
        for candidate in candidates {
            // What a later segment was begun after had counted then, whatever is left of it.
            if !named.contains(&candidate.header.file_id) && !counts_unnamed(config, &candidate)? {
                chain.obsolete.push(candidate.number);
                continue;
            }
            let (path, ordinal) = (candidate.path.clone(), candidate.header.ordinal);
            if by_ordinal.insert(ordinal, candidate).is_some() {
                let message = "two segments claim the same place in the log";
                return Err(Error::corruption(path, 0, message).with_value("ordinal", ordinal));
            }
        }
        chain.follow(config, by_ordinal)?;
        Ok(chain)
    }

    fn candidates(&mut self, config: &RecoverConfig<'_>) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for entry in config.fs.list(&config.dir)? {
            let Some((FileKind::Segment, number)) = FileKind::parse(&entry.name) else {
                continue;
            };
            if entry.is_dir {
                continue;
            }
            let path = config.dir.join(&entry.name);
            let file = config.fs.open(&path)?;
            let Some(header) = read_header(&*file)? else {
                // Headers are durable before a segment is begun.
                if is_blank_behind_header(&*file)? {
                    self.obsolete.push(number);
                    continue;
                }
                return Err(damaged_header(&path));
            };
            if header.database_id != config.database_id {
                let message = "the segment belongs to another database; move it away";
                return Err(Error::corruption(path, 0, message));
            }
            if header.ordinal > ORDINAL_MAX {
                return Err(damaged_header(&path));
            }
            let file_bytes = file.len()?;
            let begin = read_begin(SegmentReader::new(file)?)?;
            candidates.push(Candidate {
                number,
                path,
                header,
                file_bytes,
                begin,
            });
        }
        Ok(candidates)
    }

    /// From the newest segment back along the begin records.
    fn follow(
        &mut self,
        config: &RecoverConfig<'_>,
        mut left: BTreeMap<u64, Candidate>,
    ) -> Result<()> {
        while let Some((_, candidate)) = left.pop_last() {
            let begin = candidate.begin;
            self.segments.push(candidate);
            let Some(begun) = begin.whole() else {
                // What has no whole beginning names nothing; it follows the one before by place.
                continue;
            };
            let Some(before) = begun.before else {
                break;
            };
            let place = left
                .iter()
                .find(|(_, candidate)| candidate.header.file_id == before.file_id)
                .map(|(ordinal, _)| *ordinal);
            match place {
                // What lies between was superseded.
                Some(place) => self.give_up(left.split_off(&(place + 1))),
                None if before.last_seq <= config.floor => break,
                None => return Err(missing(config, before.number)),
            }
        }
        self.give_up(left);
        self.segments.reverse();
        let was_durable = config.durable_upto.unwrap_or_default() > Position::default();
        if self.segments.is_empty() && was_durable {
            return Err(Error::corruption(
                &config.dir,
                0,
                "every segment of the log is missing; restore them \
                 from a copy, see `siltstone verify`",
            ));
        }
        Ok(())
    }

    fn give_up(&mut self, superseded: BTreeMap<u64, Candidate>) {
        self.superseded
            .extend(superseded.into_values().map(|candidate| candidate.number));
    }

    /// Checks that the segment which the end record of the newest one names is there, begun or not:
    /// its header and its name were durable before.
    pub(super) fn check_follower(
        &self,
        config: &RecoverConfig<'_>,
        next: NextSegment,
    ) -> Result<()> {
        if self.file_ids.contains(&next.file_id) {
            return Ok(());
        }
        let name = FileKind::Segment.file_name(next.number);
        let (path, lost) = (config.dir.join(&name), config.dir.join(ids::LOST));
        if config.fs.status(&path)?.is_some() {
            return Err(damaged_header(&path));
        }
        // A recovery that was told to cut the log may have moved it.
        if config.fs.status(&lost.join(&name))?.is_some() {
            return Ok(());
        }
        Err(missing(config, next.number))
    }
}

fn damaged_header(path: &Path) -> Error {
    Error::corruption(
        path,
        0,
        "the segment's header is damaged; restore it from a copy, see `siltstone verify`",
    )
}

fn missing(config: &RecoverConfig<'_>, number: FileNumber) -> Error {
    let path = FileKind::Segment.path(&config.dir, number);
    Error::corruption(
        path,
        0,
        "a segment of the log is missing; restore it from a copy, see `siltstone verify`",
    )
}

fn read_begin(mut reader: SegmentReader) -> Result<Begin> {
    // Of a segment that was begun no more than this is read.
    reader.set_limit(SEGMENT_HEADER_BYTES + BEGIN_BYTES_MAX);
    if let Some(begun) = reader.begun()? {
        return Ok(Begin::Whole(begun));
    }
    reader.set_limit(u64::MAX);
    let path = reader.path().to_owned();
    if let Some(record) = reader.next()? {
        return Begun::of(&record, &path).map(Begin::Whole);
    }
    Ok(if reader.ending() == Ending::Clean {
        Begin::Never
    } else {
        Begin::Torn
    })
}

/// Whether a segment counts that no other one was begun after. A copy does only if it is complete:
/// else the recovery that made it was cut off, and what it copied is still there.
fn counts_unnamed(config: &RecoverConfig<'_>, candidate: &Candidate) -> Result<bool> {
    if candidate.begin == Begin::Never || !candidate.header.is_copy {
        return Ok(candidate.begin != Begin::Never);
    }
    let mut reader = SegmentReader::new(config.fs.open(&candidate.path)?)?;
    while reader.next()?.is_some() {}
    Ok(reader.ending() == Ending::Sealed)
}
