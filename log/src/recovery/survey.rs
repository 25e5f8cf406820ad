//! Reading the chain forward, and deciding where the log ends.

use std::path::PathBuf;

use base::{Error, FileNumber, Result, SequenceNumber};

use super::chain::{Begin, Candidate, Chain};
use super::{DroppedTail, RecoverConfig, RecoveryMode, RecoveryProgress};
use super::{damaged_in_the_middle, move_to_lost};
use crate::reader::{Ending, SegmentReader};
use crate::record::{Order, Position, RecordKind};
use crate::segment::{EMPTY_END_BYTES, Predecessor, SEGMENT_HEADER_BYTES, SealedSegment};

/// What was read of the log.
#[derive(Debug)]
pub(super) struct Survey {
    segments: Vec<Surveyed>,
    obsolete: Vec<FileNumber>,
    superseded: Vec<FileNumber>,
    /// Everything before this is known to have been durable.
    proof: Position,
    /// The place behind every file that is there.
    seen_ordinals: u64,
    /// The place for the next new segment.
    pub(super) next_ordinal: u64,
    /// The latest commit time.
    pub(super) commit_micros: u64,
    /// What the oldest segment was begun after, long gone.
    before: Option<Predecessor>,
    /// Kept in `lost` instead of being unlinked.
    keep_in_lost: Option<FileNumber>,
}

/// One segment of the chain.
#[derive(Debug)]
pub(super) struct Surveyed {
    path: PathBuf,
    pub(super) info: SealedSegment,
    /// Whether it holds anything beside its beginning and end; assumed of one that was not read.
    pub(super) has_records: bool,
    /// Where what counts ends, the end record included.
    end: Position,
    /// Where what was written ends, whether it counts or not.
    written_end: u64,
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
        let proof = config.durable_upto.unwrap_or_default();
        // A cut may have moved away the segment that MANIFEST speaks of. In its place in the log a
        // new one would seem to be durable that far.
        let is_inside = u64::from(proof.offset > SEGMENT_HEADER_BYTES);
        let spoken_of = proof.ordinal.saturating_add(is_inside);
        let mut survey = Self {
            segments: Vec::new(),
            obsolete: chain.obsolete.clone(),
            superseded: chain.superseded.clone(),
            proof,
            seen_ordinals: chain.next_ordinal,
            next_ordinal: chain.next_ordinal.max(spoken_of),
            commit_micros: 0,
            before: chain.segments.first().and_then(|s| s.begin.before()),
            keep_in_lost: None,
        };
        let total_bytes = chain.segments.iter().map(|s| s.file_bytes).sum();
        let mut read_bytes = 0;
        for (index, segment) in chain.segments.iter().enumerate() {
            let surveyed = match chain.segments.get(index + 1) {
                Some(next) => survey.read_before(config, segment, next.begin)?,
                None => survey.read_last(config, &chain, segment)?,
            };
            survey.segments.push(surveyed);
            read_bytes += segment.file_bytes;
            (config.on_progress)(RecoveryProgress {
                read_bytes,
                total_bytes,
            });
        }
        Ok(survey)
    }

    /// Looks at a segment that another one follows.
    fn read_before(
        &mut self,
        config: &RecoverConfig<'_>,
        segment: &Candidate,
        next: Begin,
    ) -> Result<Surveyed> {
        let mut reader = SegmentReader::new(config.fs.open(&segment.path)?)?;
        let Some(before) = next.before() else {
            let mut surveyed = self.read_records(&mut reader, segment)?;
            surveyed.damage = match reader.ending() {
                Ending::Sealed => None,
                // The next one has no whole beginning; the end record, written before it, is gone:
                // the log ends here.
                Ending::Clean => Some(surveyed.end.offset),
                Ending::Torn { offset } | Ending::Damaged { offset, .. } => Some(offset),
            };
            return Ok(surveyed);
        };
        let end = Position {
            ordinal: segment.header.ordinal,
            offset: before.accepted_bytes,
        };
        let is_needed = before.last_seq > config.floor || end > self.proof;
        if !is_needed && config.mode != RecoveryMode::Strict {
            let commit_micros = next.whole().map_or(0, |begun| begun.commit_micros);
            return Ok(Surveyed::unread(
                segment,
                end.offset,
                end,
                before.last_seq,
                commit_micros,
            ));
        }
        // The next one says how far this one counts; an end record that was lost does not matter.
        reader.set_limit(before.accepted_bytes);
        let mut surveyed = self.read_records(&mut reader, segment)?;
        if surveyed.end.offset < before.accepted_bytes {
            surveyed.damage = Some(surveyed.end.offset);
            surveyed.written_end = surveyed.written_end.max(before.accepted_bytes);
        }
        Ok(surveyed)
    }

    /// Looks at the newest segment.
    fn read_last(
        &mut self,
        config: &RecoverConfig<'_>,
        chain: &Chain,
        segment: &Candidate,
    ) -> Result<Surveyed> {
        if let Some(closed) = self.closed(config, segment)? {
            return Ok(closed);
        }
        let mut reader = SegmentReader::new(config.fs.open(&segment.path)?)?;
        let mut surveyed = self.read_records(&mut reader, segment)?;
        if let Some(next) = reader.end_record().and_then(|end| end.next) {
            chain.check_follower(config, next)?;
        }
        if let Ending::Torn { offset } | Ending::Damaged { offset, .. } = reader.ending() {
            surveyed.damage = Some(offset);
        }
        Ok(surveyed)
    }

    /// What is known of the newest segment of a log that was closed, everything in it flushed: it
    /// need not be read if its end record lies where MANIFEST says.
    fn closed(
        &mut self,
        config: &RecoverConfig<'_>,
        segment: &Candidate,
    ) -> Result<Option<Surveyed>> {
        let is_needed = !config.clean || config.last_seq > config.floor;
        let end = config
            .durable_upto
            .filter(|durable| durable.ordinal == segment.header.ordinal);
        let (Some(end), false, true) = (end, is_needed, config.mode != RecoveryMode::Strict) else {
            return Ok(None);
        };
        let bytes = end.offset.saturating_sub(EMPTY_END_BYTES);
        let mut reader = SegmentReader::new(config.fs.open(&segment.path)?)?;
        reader.seek(bytes);
        reader.set_limit(end.offset);
        if reader.next()?.is_some() || reader.position() != end {
            return Ok(None);
        }
        Ok(reader.end_record().map(|record| {
            self.commit_micros = self.commit_micros.max(record.commit_micros);
            Surveyed::unread(segment, bytes, end, config.last_seq, record.commit_micros)
        }))
    }

    /// Reads a segment up to the first record that is not whole, or to the reader's limit.
    fn read_records(
        &mut self,
        reader: &mut SegmentReader,
        segment: &Candidate,
    ) -> Result<Surveyed> {
        let created = segment.header.created_micros;
        let mut info = segment.info(reader.position().offset, SequenceNumber::ZERO, created);
        info.last_seq = segment.begin.before().map_or(info.last_seq, |b| b.last_seq);
        let mut has_records = false;
        let mut order = Order::default();
        while let Some(record) = reader.next()? {
            let meta = record.meta;
            order.follow(&segment.path, &record)?;
            self.proof = self.proof.max(meta.durable_upto.unwrap_or_default());
            self.commit_micros = self.commit_micros.max(meta.commit_micros);
            info.bytes = record.end.offset;
            info.last_commit_micros = meta.commit_micros;
            if meta.kind != RecordKind::Begin {
                info.last_seq = info.last_seq.max(meta.last_seq());
                has_records = true;
            }
        }
        if let Ending::Damaged { durable_upto, .. } = reader.ending() {
            self.proof = self.proof.max(durable_upto.unwrap_or_default());
        }
        let end = reader.position();
        Ok(Surveyed {
            path: segment.path.clone(),
            info,
            has_records,
            end,
            written_end: reader.rest_end().max(end.offset),
            damage: None,
        })
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
        let path = segment.path.clone();
        match config.mode {
            RecoveryMode::Strict => Err(Error::corruption(
                path,
                offset,
                "the log does not end cleanly; open it with another recovery mode",
            )),
            RecoveryMode::TornTail if self.proof > at => {
                Err(damaged_in_the_middle(path, offset, self.proof))
            }
            RecoveryMode::PointInTime if self.leaves_a_hole(config, index) => {
                Err(damaged_in_the_middle(path, offset, self.proof)
                    .with_value("flushed_upto", config.flushed_max))
            }
            RecoveryMode::TornTail | RecoveryMode::PointInTime => Ok(End::Cut { index, offset }),
        }
    }

    /// Whether a log that ends in segment `index` lacks what the tables of one keyspace hold and
    /// those of another do not. Where everybody holds it, nothing is lost with the log.
    fn leaves_a_hole(&self, config: &RecoverConfig<'_>, index: usize) -> bool {
        let kept = self.segments.iter().take(index + 1);
        let last_seq = kept.map(|segment| segment.info.last_seq).max();
        let last_seq = last_seq.unwrap_or_default().max(config.floor);
        last_seq < config.flushed_max
    }

    /// A log that ends cleanly, but before what is known to have been durable, has lost its end.
    fn check_nothing_is_lost(&self, config: &RecoverConfig<'_>) -> Result<()> {
        let Some(last) = self.segments.last() else {
            return Ok(());
        };
        // A position in front of the first record of a segment says that everything before that
        // segment was durable; the segment itself may never have come.
        let is_before_the_next =
            self.proof.offset <= SEGMENT_HEADER_BYTES && self.proof.ordinal <= self.seen_ordinals;
        let is_whole = self.proof <= last.end || is_before_the_next;
        let is_accepted = config.mode == RecoveryMode::PointInTime
            && !self.leaves_a_hole(config, self.segments.len() - 1);
        if is_whole || is_accepted {
            return Ok(());
        }
        let path = last.path.clone();
        Err(damaged_in_the_middle(path, last.end.offset, self.proof))
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
        // The newest first: each one names the one before, which would be missed if this were cut
        // short.
        for segment in later.iter().rev() {
            bytes += segment.written_end;
            move_to_lost(config, segment.info.number)?;
        }
        let segment = self.segments.last().expect("the damage is in one of them");
        bytes += segment.written_end.saturating_sub(offset);
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
    pub(super) fn split_unproven(&mut self, config: &RecoverConfig<'_>) -> Vec<Surveyed> {
        if config.clean && self.keep_in_lost.is_none() {
            return Vec::new();
        }
        let is_proven = |segment: &Surveyed| segment.damage.is_none() && segment.end <= self.proof;
        let count = self
            .segments
            .iter()
            .take_while(|segment| is_proven(segment))
            .count();
        self.segments.split_off(count)
    }

    /// The segments that stay, oldest first.
    pub(super) fn accepted(&self) -> Vec<SealedSegment> {
        self.segments.iter().map(|segment| segment.info).collect()
    }

    /// What comes before a segment that follows `accepted`.
    pub(super) fn before(&self, accepted: &[SealedSegment]) -> Option<Predecessor> {
        let last = accepted.last().map(SealedSegment::as_predecessor);
        last.or(self.before)
    }

    /// Lets go of what does not belong to the log any more, of which `copied` was until now.
    /// Returns the files to be unlinked once the log goes on.
    pub(super) fn retire(
        self,
        config: &RecoverConfig<'_>,
        copied: &[Surveyed],
    ) -> Result<Vec<FileNumber>> {
        let (mut obsolete, mut superseded) = (self.obsolete, self.superseded);
        for number in copied.iter().map(|segment| segment.info.number) {
            if self.keep_in_lost == Some(number) {
                move_to_lost(config, number)?;
            } else {
                obsolete.push(number);
            }
        }
        if config.mode == RecoveryMode::PointInTime {
            // Among them may be what an earlier attempt has copied and could not move any more.
            for number in superseded.drain(..) {
                move_to_lost(config, number)?;
            }
        }
        obsolete.append(&mut superseded);
        Ok(obsolete)
    }
}

impl Candidate {
    fn info(&self, bytes: u64, last_seq: SequenceNumber, last_commit_micros: u64) -> SealedSegment {
        let first_seq = self.begin.whole().map(|begun| begun.first_seq);
        SealedSegment {
            number: self.number,
            file_id: self.header.file_id,
            ordinal: self.header.ordinal,
            bytes,
            first_seq: first_seq.unwrap_or_default(),
            last_seq,
            last_commit_micros,
        }
    }
}

impl Surveyed {
    /// A segment of which nothing is needed, and of which is known what others say of it.
    fn unread(
        segment: &Candidate,
        bytes: u64,
        end: Position,
        last_seq: SequenceNumber,
        last_commit_micros: u64,
    ) -> Self {
        Self {
            path: segment.path.clone(),
            info: segment.info(bytes, last_seq, last_commit_micros),
            has_records: true,
            end,
            written_end: end.offset,
            damage: None,
        }
    }
}
