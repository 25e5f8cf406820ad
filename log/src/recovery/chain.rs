//! Which segments belong to the log, and in what order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::{Error, FileKind, FileNumber, Result};

use super::RecoverConfig;
use crate::reader::{Ending, SegmentReader, is_blank_behind_header, read_header};
use crate::record::RecordKind;
use crate::segment::{Predecessor, SegmentHeader};

/// A file whose header is whole.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) number: FileNumber,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file_bytes: u64,
    pub(super) begin: Begin,
}

/// What the first record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The segment was prepared and never begun.
    Never,
    /// It is not whole, but something is there.
    Torn,
    /// It was begun after this one, or as the first.
    After(Option<Predecessor>),
}

/// The files of the log: those that form the chain, oldest first, and the others.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) segments: Vec<Candidate>,
    pub(super) obsolete: Vec<FileNumber>,
    pub(super) next_ordinal: u64,
}

impl Chain {
    pub(super) fn find(config: &RecoverConfig<'_>) -> Result<Self> {
        let mut chain = Self::default();
        let mut by_ordinal = chain.candidates(config)?;
        let newest = by_ordinal.keys().next_back().copied();
        chain.next_ordinal = newest.map_or(0, |ordinal| ordinal + 1);
        // A copy counts only if it is complete: else the recovery that made it was cut off, and
        // what it copied is still there.
        let copies: Vec<u64> = by_ordinal
            .iter()
            .filter(|(_, c)| c.header.is_copy)
            .map(|(o, _)| *o)
            .collect();
        for ordinal in copies {
            if let Some(copy) = by_ordinal.get(&ordinal)
                && !is_complete(config, copy)?
            {
                chain.obsolete.push(copy.number);
                by_ordinal.remove(&ordinal);
            }
        }
        chain.follow(config, by_ordinal)?;
        Ok(chain)
    }

    fn candidates(&mut self, config: &RecoverConfig<'_>) -> Result<BTreeMap<u64, Candidate>> {
        let mut by_ordinal = BTreeMap::new();
        for entry in config.fs.list(&config.dir)? {
            let Some((FileKind::Segment, number)) = FileKind::parse(&entry.name) else {
                continue;
            };
            let path = config.dir.join(&entry.name);
            let file = config.fs.open(&path)?;
            let Some(header) = read_header(&*file)? else {
                // Headers are durable before a segment is begun.
                if is_blank_behind_header(&*file)? {
                    self.obsolete.push(number);
                    continue;
                }
                return Err(Error::corruption(
                    path,
                    0,
                    "the segment's header is damaged; restore the file or run `siltstone repair`",
                ));
            };
            if header.database_id != config.database_id {
                return Err(Error::corruption(
                    path,
                    0,
                    "the segment belongs to another database; move it away",
                ));
            }
            let file_bytes = file.len()?;
            let begin = read_begin(SegmentReader::new(file)?)?;
            let ordinal = header.ordinal;
            let candidate = Candidate {
                number,
                path: path.clone(),
                header,
                file_bytes,
                begin,
            };
            let Some(other) = by_ordinal.remove(&ordinal) else {
                by_ordinal.insert(ordinal, candidate);
                continue;
            };
            // One that was prepared and given up may have come back, its removal lost.
            let (kept, given_up) = match (other.begin, candidate.begin) {
                (_, Begin::Never) => (other, candidate),
                (Begin::Never, _) => (candidate, other),
                _ => {
                    return Err(Error::corruption(
                        path,
                        0,
                        "two segments claim the same place in the log",
                    )
                    .with_value("ordinal", ordinal));
                }
            };
            self.obsolete.push(given_up.number);
            by_ordinal.insert(ordinal, kept);
        }
        Ok(by_ordinal)
    }

    /// From the newest segment back along the begin records.
    fn follow(
        &mut self,
        config: &RecoverConfig<'_>,
        mut left: BTreeMap<u64, Candidate>,
    ) -> Result<()> {
        while let Some((_, candidate)) = left.pop_last() {
            let begin = candidate.begin;
            if begin == Begin::Never {
                self.obsolete.push(candidate.number);
                continue;
            }
            self.segments.push(candidate);
            match begin {
                // What has no whole beginning names nothing; it follows the one before by its place.
                Begin::Never | Begin::Torn => {}
                Begin::After(None) => break,
                Begin::After(Some(before)) => {
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
            }
        }
        self.give_up(left);
        self.segments.reverse();
        if self.segments.is_empty() && config.durable_upto.is_some() {
            return Err(Error::corruption(
                &config.dir,
                0,
                "every segment of the log is missing; restore them or run `siltstone repair`",
            ));
        }
        Ok(())
    }

    fn give_up(&mut self, superseded: BTreeMap<u64, Candidate>) {
        self.obsolete
            .extend(superseded.into_values().map(|candidate| candidate.number));
    }
}

fn missing(config: &RecoverConfig<'_>, number: FileNumber) -> Error {
    let path = FileKind::Segment.path(&config.dir, number);
    Error::corruption(
        path,
        0,
        "a segment of the log is missing; restore it or run `siltstone repair`",
    )
}

fn read_begin(mut reader: SegmentReader) -> Result<Begin> {
    let path = reader.path().to_owned();
    if let Some(record) = reader.next()? {
        if record.meta.kind != RecordKind::Begin {
            return Err(Error::corruption(
                path,
                512,
                "the segment does not start with its beginning",
            ));
        }
        let before = Predecessor::decode(record.payload)
            .map_err(|_| Error::corruption(path, 512, "a begin record is malformed"))?;
        return Ok(Begin::After(before));
    }
    Ok(if reader.ending() == Ending::Clean {
        Begin::Never
    } else {
        Begin::Torn
    })
}

fn is_complete(config: &RecoverConfig<'_>, copy: &Candidate) -> Result<bool> {
    let mut reader = SegmentReader::new(config.fs.open(&copy.path)?)?;
    while reader.next()?.is_some() {}
    Ok(reader.ending() == Ending::Sealed)
}
