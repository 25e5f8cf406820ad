//! What the log still says after a crash.
//!
//! The segments form a chain: each one's begin record names the segment before and how far that
//! counts. Recovery follows the chain from the newest segment back, reads it forward, decides where
//! the log ends, and copies the records of every segment that is not proven to be on the disk into
//! a new, synced one. Segments that the chain leaves out are obsolete. Each step leaves a directory
//! from which recovery comes to the same end.

use std::path::PathBuf;

use base::clock::Clock;
use base::fs::FileSystem;
use base::sync::Arc;
use base::{Error, FileKind, FileNumber, Result, SequenceNumber, ids};

use crate::record::Position;
use crate::segment::SealedSegment;
use crate::writer::{LogConfig, Successor};

mod chain;
mod copy;
mod survey;

use survey::{End, Survey};

/// What to do about a log that does not end cleanly.
///
/// # Examples
/// ```
/// use log::RecoveryMode;
/// assert_eq!(RecoveryMode::default(), RecoveryMode::TornTail);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RecoveryMode {
    /// Any incomplete or damaged record is an error.
    ///
    /// Also after a mere kill of the process: one that comes while several threads write leaves the
    /// records of some of them, and in front of these the unwritten place of another. None of them
    /// was acknowledged; [`TornTail`](Self::TornTail) drops them, reports that, and opens. This
    /// mode refuses, since an unwritten place looks like damage. It is for opens after a clean
    /// close.
    Strict,
    /// The log ends at the first record that is not whole, unless something proves that the damaged
    /// bytes had been synced: that is `Corruption`.
    ///
    /// Damage limited to the last commits, with nothing after it, cannot be told from a torn write.
    #[default]
    TornTail,
    /// The log ends at the first record that is not whole, whatever follows. What is cut off is
    /// reported and kept in the folder `lost`.
    PointInTime,
}

/// How far [`prepare`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Bytes of the log read so far.
    pub read_bytes: u64,
    /// Bytes of the log in all.
    pub total_bytes: u64,
}

/// What [`prepare`] works with.
pub struct RecoverConfig<'a> {
    /// Where the files live.
    pub fs: Arc<dyn FileSystem>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The directory.
    pub dir: PathBuf,
    /// What to do about damage.
    pub mode: RecoveryMode,
    /// Records up to here are not needed: every keyspace has them in tables. Never lower than at an
    /// earlier recovery, since segments below it may be gone.
    pub floor: SequenceNumber,
    /// Something up to here is in tables: the log may not be cut below.
    pub flushed_max: SequenceNumber,
    /// The last sequence number that MANIFEST knows of.
    pub last_seq: SequenceNumber,
    /// What MANIFEST knows to be durable.
    pub durable_upto: Option<Position>,
    /// Names the next file.
    pub numbers: Arc<dyn Fn() -> FileNumber + Send + Sync>,
    /// Which database.
    pub database_id: u128,
    /// The epoch that begins.
    pub epoch: u64,
    /// Whether the log was closed, everything in it flushed and synced.
    pub clean: bool,
    /// How large segments become.
    pub segment_bytes: u64,
    /// Told how far it has come.
    pub on_progress: &'a dyn Fn(RecoveryProgress),
}

/// What was cut off the end of the log.
#[derive(Clone, Debug)]
pub struct DroppedTail {
    /// The segment.
    pub path: PathBuf,
    /// Where the log now ends, in bytes.
    pub offset: u64,
    /// How much of that segment follows, and of later ones.
    pub bytes: u64,
}

/// A log that can be replayed: accepted, durable, and not to be cut any further.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The segments, oldest first.
    pub segments: Vec<SealedSegment>,
    /// Where the log goes on; `first_seq` is still to be chosen.
    pub successor: Successor,
    /// Files that no longer count, to be unlinked once the log goes on.
    pub obsolete: Vec<FileNumber>,
    /// What was cut off, if anything.
    pub dropped: Option<DroppedTail>,
    /// The last sequence number that counts.
    pub last_seq: SequenceNumber,
    /// What was written to make it durable.
    pub copy_cost: CopyCost,
}

/// What it cost to copy the records that were not proven to be on the disk; 0 without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyCost {
    /// Of the new segment.
    pub bytes: u64,
    /// The pages of it and of its index that became dirty, in bytes.
    pub page_bytes: u64,
}

/// What was found in the log, before anything is done about it.
#[derive(Debug)]
pub struct Inspection {
    survey: Survey,
    end: End,
}

/// Finds where the log ends. Writes nothing and takes no file number.
///
/// # Errors
/// `Corruption` if the log is damaged where it must not be, if a segment is missing, or if one
/// belongs to another database, naming file and offset; `Unsupported` for a newer format.
pub fn inspect(config: &RecoverConfig<'_>) -> Result<Inspection> {
    let survey = Survey::take(config)?;
    let end = survey.decide_end(config)?;
    Ok(Inspection { survey, end })
}

/// Finds where the log ends and makes durable what counts: [`inspect`], then
/// [`Inspection::settle`].
///
/// # Errors
/// As for those.
pub fn prepare(config: &RecoverConfig<'_>) -> Result<Prepared> {
    inspect(config)?.settle(config)
}

impl Inspection {
    /// Makes durable what counts, and puts away what does not. `config` is the one that
    /// [`inspect`] was given.
    ///
    /// # Errors
    /// If a file cannot be read, written or moved; the same can be done again from the start.
    pub fn settle(self, config: &RecoverConfig<'_>) -> Result<Prepared> {
        let Self { mut survey, end } = self;
        let dropped = survey.cut(config, &end)?;
        let unproven = survey.split_unproven(config);
        let mut segments = survey.accepted();
        let mut ordinal = survey.next_ordinal;
        let mut copy_cost = CopyCost::default();
        if unproven.iter().any(|segment| segment.has_records) {
            let last = segments.last();
            let place = copy::Place {
                ordinal,
                before: survey.before(&segments),
                commit_micros: last.map_or(0, |last| last.last_commit_micros),
            };
            let made = copy::copy(config, &unproven, &place)?;
            segments.push(made.segment);
            copy_cost = made.cost;
            ordinal += 1;
        }
        let last = segments.iter().map(|segment| segment.last_seq).max();
        let known = if config.clean {
            config.last_seq
        } else {
            SequenceNumber::ZERO
        };
        let last_seq = last.unwrap_or_default().max(config.flushed_max).max(known);
        if last_seq > SequenceNumber::OPENED_MAX {
            let message = "the log uses up every sequence number";
            return Err(Error::corruption(&config.dir, 0, message));
        }
        let successor = Successor {
            ordinal,
            first_seq: last_seq.plus(1),
            predecessor: survey.before(&segments),
            commit_micros: survey.commit_micros,
            sealed: segments.clone(),
        };
        let obsolete = survey.retire(config, &unproven)?;
        Ok(Prepared {
            segments,
            successor,
            obsolete,
            dropped,
            last_seq,
            copy_cost,
        })
    }
}

/// How far apart the entries of the index of a copy are.
const INDEX_INTERVAL_BYTES: u64 = 32 << 10;

fn copy_config(config: &RecoverConfig<'_>) -> LogConfig {
    LogConfig {
        fs: Arc::clone(&config.fs),
        clock: Arc::clone(&config.clock),
        dir: config.dir.clone(),
        numbers: Arc::clone(&config.numbers),
        database_id: config.database_id,
        epoch: config.epoch,
        segment_bytes: config.segment_bytes,
        index_interval_bytes: INDEX_INTERVAL_BYTES,
        reserve: false,
        append: crate::writer::LogAppend::Positioned,
    }
}

/// Moves a segment to the folder `lost`, durably.
fn move_to_lost(config: &RecoverConfig<'_>, number: FileNumber) -> Result<()> {
    let fs = &*config.fs;
    let lost = config.dir.join(ids::LOST);
    fs.create_dir(&lost)?;
    // Before anything is in it: a power cut could keep the move and lose the folder.
    fs.sync_dir(&config.dir)?;
    let name = FileKind::Segment.file_name(number);
    let (from, to) = (config.dir.join(&name), lost.join(&name));
    fs.rename(&from, &to)?;
    if fs.status(&from)?.is_some() {
        // A move that a power cut has halved left both names, and then a rename does nothing.
        fs.remove_file(&from)?;
    }
    fs.sync_dir(&lost)?;
    fs.sync_dir(&config.dir)
}

fn damaged_in_the_middle(path: PathBuf, offset: u64, proof: Position) -> Error {
    Error::corruption(
        path,
        offset,
        "the log is damaged where it had been synced; restore it \
         from a copy, see `siltstone verify`",
    )
    .with_value("synced_upto", proof)
}

#[cfg(test)]
mod tests;
