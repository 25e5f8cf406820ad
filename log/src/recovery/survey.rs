//! Reading the chain forward, and deciding where the log ends.

use std::path::PathBuf;

use base::{Error, FileNumber, Result, SequenceNumber};

use super::chain::{Begin, Candidate, Chain};
use super::{DroppedTail, RecoverConfig, RecoveryMode, RecoveryProgress};
use super::{damaged_in_the_middle, move_to_lost};
use crate::reader::{Ending, SegmentReader};
use crate::record::{Position, RecordKind};
use crate::segment::{Predecessor, SealedSegment};

/// What was read of the log.
#[derive(Debug)]
pub(super) struct Survey {
    segments: Vec<Surveyed>,
    obsolete: Vec<FileNumber>,
    /// Everything before this is known to have been durable.
    proof: Position,
    /// The place for the next new segment.
    pub(super) next_ordinal: u64,
    /// The latest commit time.
    pub(super) commit_micros: u64,
    /// Kept in `lost` instead of being unlinked.
    keep_in_lost: Option<FileNumber>,
}

/// One segment of the chain.
#[derive(Debug)]
struct Surveyed {
    path: PathBuf,
    file_bytes: u64,
    info: SealedSegment,
    /// Where what counts ends, the end record included.
    end: Position,
    /// Records end here although they should go on, or something follows them.
    damage: Option<u64>,
}

/// Where the log ends.
#[derive(Debug)]
pub(super) enum End {
    /// After its last record.
    Whole,
    /// In segment `index` at `offset`; what follows does not count.
    Cut { index: usize, offset: u64 },
}

impl Survey {
    /// Reads every segment that may hold something after the floor.
    pub(super) fn take(config: &RecoverConfig<'_>) -> Result<Self> {
        let chain = Chain::find(config)?;
        let total_bytes = chain
            .segments
            .iter()
            .map(|segment| segment.file_bytes)
            .sum();
        let mut survey = Self {
            segments: Vec::new(),
            obsolete: chain.obsolete,
            proof: config.durable_upto.unwrap_or_default(),
            next_ordinal: chain.next_ordinal,
            commit_micros: 0,
            keep_in_lost: None,
        };
        let mut read_bytes = 0;
        for (index, segment) in chain.segments.iter().enumerate() {
            let next = chain.segments.get(index + 1).map(|next| next.begin);
            let surveyed = survey.read(config, segment, next)?;
            survey.segments.push(surveyed);
            read_bytes += segment.file_bytes;
            (config.on_progress)(RecoveryProgress {
                read_bytes,
                total_bytes,
            });
        }
        Ok(survey)
    }

    fn read(
        &mut self,
        config: &RecoverConfig<'_>,
        segment: &Candidate,
        next: Option<Begin>,
    ) -> Result<Surveyed> {
        let mut info = SealedSegment {
            number: segment.number,
            file_id: segment.header.file_id,
            ordinal: segment.header.ordinal,
            bytes: segment.file_bytes,
            first_seq: SequenceNumber::ZERO,
            last_seq: SequenceNumber::ZERO,
            last_commit_micros: segment.header.created_micros,
        };
        let accepted = match next {
            Some(Begin::After(before)) => before,
            _ => None,
        };
        if let Some(last_seq) = Self::known_last_seq(config, accepted, next.is_none()) {
            // Nothing in it is needed, and how it ended is known: it need not be read.
            info.last_seq = last_seq;
            info.bytes = accepted.map_or(segment.file_bytes, |before| before.accepted_bytes);
            let end = Position {
                ordinal: info.ordinal,
                offset: segment.file_bytes,
            };
            let (path, file_bytes) = (segment.path.clone(), segment.file_bytes);
            return Ok(Surveyed {
                path,
                file_bytes,
                info,
                end,
                damage: None,
            });
        }
        let mut reader = SegmentReader::new(config.fs.open(&segment.path)?)?;
        if let Some(before) = accepted {
            reader.set_limit(before.accepted_bytes);
        }
        self.read_records(&mut reader, &mut info)?;
        let ending = reader.ending();
        let offset = reader.position().offset;
        let damage = judge(ending, offset, accepted, next);
        if let Ending::Damaged { durable_upto, .. } = ending {
            self.proof = self.proof.max(durable_upto.unwrap_or_default());
        }
        Ok(Surveyed {
            path: segment.path.clone(),
            file_bytes: segment.file_bytes,
            end: Position {
                ordinal: info.ordinal,
                offset,
            },
            info,
            damage,
        })
    }

    /// The last sequence number of a segment that need not be read.
    fn known_last_seq(
        config: &RecoverConfig<'_>,
        accepted: Option<Predecessor>,
        is_last: bool,
    ) -> Option<SequenceNumber> {
        let known = match accepted {
            Some(before) => Some(before.last_seq),
            None if is_last && config.clean => Some(config.last_seq),
            None => None,
        };
        known.filter(|last_seq| *last_seq <= config.floor)
    }

    fn read_records(&mut self, reader: &mut SegmentReader, info: &mut SealedSegment) -> Result<()> {
        info.bytes = reader.position().offset;
        while let Some(record) = reader.next()? {
            let meta = record.meta;
            self.proof = self.proof.max(meta.durable_upto.unwrap_or_default());
            self.commit_micros = self.commit_micros.max(meta.commit_micros);
            info.bytes = record.end.offset;
            info.last_commit_micros = meta.commit_micros;
            if meta.kind == RecordKind::Begin {
                info.first_seq = meta.first_seq;
                let before = Predecessor::decode(record.payload).ok().flatten();
                info.last_seq = before.map_or(SequenceNumber::ZERO, |before| before.last_seq);
            } else {
                info.last_seq = info.last_seq.max(meta.last_seq());
            }
        }
        Ok(())
    }

    /// Decides where the log ends.
    pub(super) fn decide_end(&self, config: &RecoverConfig<'_>) -> Result<End> {
        let damaged = self
            .segments
            .iter()
            .enumerate()
            .find_map(|(index, s)| Some((index, s.damage?, s)));
        let Some((index, offset, segment)) = damaged else {
            return self.check_nothing_is_lost(config).map(|()| End::Whole);
        };
        let at = Position {
            ordinal: segment.info.ordinal,
            offset,
        };
        match config.mode {
            RecoveryMode::Strict => Err(Error::corruption(
                &segment.path,
                offset,
                "the log does not end cleanly; open it with another recovery mode",
            )),
            RecoveryMode::TornTail if self.proof > at => Err(damaged_in_the_middle(
                segment.path.clone(),
                offset,
                self.proof,
            )),
            RecoveryMode::PointInTime if segment.info.last_seq < config.flushed_max => Err(
                damaged_in_the_middle(segment.path.clone(), offset, self.proof)
                    .with_value("flushed_upto", config.flushed_max),
            ),
            RecoveryMode::TornTail | RecoveryMode::PointInTime => Ok(End::Cut { index, offset }),
        }
    }

    /// A log that ends cleanly, but before what is known to have been durable, has lost its end.
    fn check_nothing_is_lost(&self, config: &RecoverConfig<'_>) -> Result<()> {
        let Some(last) = self.segments.last() else {
            return Ok(());
        };
        let is_short = self.proof > last.end;
        if is_short
            && (config.mode != RecoveryMode::PointInTime || last.info.last_seq < config.flushed_max)
        {
            return Err(damaged_in_the_middle(
                last.path.clone(),
                last.end.offset,
                self.proof,
            ));
        }
        Ok(())
    }

    /// Puts away what follows the end.
    pub(super) fn cut(
        &mut self,
        config: &RecoverConfig<'_>,
        end: &End,
    ) -> Result<Option<DroppedTail>> {
        let End::Cut { index, offset } = *end else {
            return Ok(None);
        };
        let later = self.segments.split_off(index + 1);
        let mut bytes: u64 = 0;
        for segment in &later {
            bytes += segment.file_bytes;
            move_to_lost(config, segment.info.number)?;
        }
        let segment = self.segments.last().expect("the damage is in one of them");
        bytes += segment.file_bytes.saturating_sub(offset);
        if config.mode == RecoveryMode::PointInTime {
            self.keep_in_lost = Some(segment.info.number);
        }
        Ok(Some(DroppedTail {
            path: segment.path.clone(),
            offset,
            bytes,
        }))
    }

    /// Takes out the segments that are not proven to be wholly on the disk: always the newest ones.
    pub(super) fn split_unproven(&mut self, config: &RecoverConfig<'_>) -> Vec<SealedSegment> {
        if config.clean && self.keep_in_lost.is_none() {
            return Vec::new();
        }
        let is_proven = |segment: &Surveyed| segment.damage.is_none() && segment.end <= self.proof;
        let count = self
            .segments
            .iter()
            .take_while(|segment| is_proven(segment))
            .count();
        self.segments
            .split_off(count)
            .into_iter()
            .map(|segment| segment.info)
            .collect()
    }

    /// The segments that stay, oldest first.
    pub(super) fn accepted(&self) -> Vec<SealedSegment> {
        self.segments.iter().map(|segment| segment.info).collect()
    }

    /// Files that do not belong to the log any more.
    pub(super) fn obsolete_numbers(&self) -> Vec<FileNumber> {
        self.obsolete.clone()
    }

    /// Lets go of a segment whose records have been copied.
    pub(super) fn retire(
        &self,
        config: &RecoverConfig<'_>,
        segment: &SealedSegment,
        obsolete: &mut Vec<FileNumber>,
    ) -> Result<()> {
        if self.keep_in_lost == Some(segment.number) {
            return move_to_lost(config, segment.number);
        }
        obsolete.push(segment.number);
        Ok(())
    }
}

/// Whether a segment ends where it must not.
fn judge(
    ending: Ending,
    offset: u64,
    accepted: Option<Predecessor>,
    next: Option<Begin>,
) -> Option<u64> {
    if let Some(before) = accepted {
        // The next one says how far this one counts; an end record that was lost does not matter.
        return (offset < before.accepted_bytes).then_some(offset);
    }
    match ending {
        // A next one that has no whole beginning shows that the end record, written before it, is
        // gone: the log ends here.
        Ending::Clean if next.is_some() => Some(offset),
        Ending::Sealed | Ending::Clean => None,
        Ending::Torn { offset } | Ending::Damaged { offset, .. } => Some(offset),
    }
}
