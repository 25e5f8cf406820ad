//! `Log`: appends, rotates, seals, syncs.
//!
//! The header of a segment is durable before the segment is begun, so that a damaged header is
//! never taken for an unfinished one. What is known only at the switch, where the segment before
//! ended, stands in its begin record. A helper calls [`Log::maintain`], which seals what was
//! rotated out and prepares the next segment, so that a switch in the write path costs two appends.

use std::path::PathBuf;

use base::clock::Clock;
use base::fs::FileSystem;
use base::sync::{Arc, Bell, Mutex, MutexGuard};
use base::{Error, FileNumber, Result, SequenceNumber, WriteOutcome};

use crate::completion::{Completed, Completion, IN_FLIGHT_MAX};
use crate::index::IndexEntry;
use crate::record::{self, Position};
use crate::segment::{
    END_BYTES_MAX, NextSegment, Predecessor, SEGMENT_HEADER_BYTES, SealedSegment, SegmentWriter,
    end_meta,
};
use crate::sync::GroupSync;

mod live;
mod pages;
mod slot;
mod upkeep;

pub(crate) use live::create_segment;
use live::{BEGIN_BYTES_MAX, Live, Rotated};
use pages::PageAccount;
pub use slot::LogSlot;

/// What a log works with.
#[derive(Clone)]
pub struct LogConfig {
    /// Where its files live.
    pub fs: Arc<dyn FileSystem>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The directory of its files.
    pub dir: PathBuf,
    /// Names the next file.
    pub numbers: Arc<dyn Fn() -> FileNumber + Send + Sync>,
    /// Stands in every segment.
    pub database_id: u128,
    /// Stands in every segment.
    pub epoch: u64,
    /// How large a segment becomes; a larger record gets a segment of its own size. At most 16 GiB.
    pub segment_bytes: u64,
    /// How far apart the entries of the sparse index are.
    pub index_interval_bytes: u64,
    /// Whether to reserve the space of a segment ahead, a step at a time.
    pub reserve: bool,
    /// How records are written.
    pub append: LogAppend,
}

/// How records come into the live segment. Both forms are equally safe and look the same on disk.
///
/// # Examples
/// ```
/// use log::LogAppend;
/// assert_eq!(LogAppend::default(), LogAppend::Auto);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogAppend {
    /// Whatever is faster: as `Mapped`, but with positioned writes while each record is synced, or
    /// each few.
    #[default]
    Auto,
    /// Through a mapping of reserved space; with positioned writes where the file system cannot
    /// reserve space that stays reserved, or where it cannot be mapped.
    ///
    /// A disk that fails in the middle of a store ends the process with a signal.
    Mapped,
    /// With one positioned write a record: a failing disk is an error.
    Positioned,
}

impl std::fmt::Debug for LogConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogConfig")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Where a log goes on.
#[derive(Clone, Debug, Default)]
pub struct Successor {
    /// The place of the next segment.
    pub ordinal: u64,
    /// The sequence number that comes next.
    pub first_seq: SequenceNumber,
    /// How the segment before ended, if there is one.
    pub predecessor: Option<Predecessor>,
    /// The latest commit time so far, in microseconds since the Unix epoch.
    pub commit_micros: u64,
    /// The segments before, oldest first.
    pub sealed: Vec<SealedSegment>,
}

impl Successor {
    /// The beginning of a new log.
    pub fn first(seq: SequenceNumber) -> Self {
        Self {
            first_seq: seq,
            ..Self::default()
        }
    }
}

/// Where a record went: see [`Log::append`] and [`LogSlot::complete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where the record begins.
    pub start: Position,
    /// Where the next one will.
    pub end: Position,
    /// The commit time it got, in microseconds since the Unix epoch.
    pub commit_micros: u64,
}

/// Counters of a log since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes appended, framing included.
    pub appended_bytes: u64,
    /// Bytes of payloads.
    pub payload_bytes: u64,
    /// Records appended.
    pub record_count: u64,
    /// The pages that became dirty by the segments and their indexes, in bytes: what the operating
    /// system has to write. One that is synced and then written again counts again.
    pub page_bytes: u64,
    /// Syncs that acknowledged something.
    pub sync_count: u64,
    /// Segments there are.
    pub segment_count: u64,
}

/// A log being written.
///
/// `Send` and `Sync`. Places are given out under a lock of its own; records are written into them
/// side by side, and count as far as there is no hole.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    /// LOCK: first. Held by whoever seals, prepares or closes, over all of that.
    upkeep: Mutex<()>,
    /// LOCK: after `upkeep`. Held by whoever reserves space ahead of writers, or cuts it: not both
    /// at once. Writers who come before reserve in their own segment, which is not cut, under
    /// `state`.
    ahead: Mutex<()>,
    /// LOCK: after `ahead`, before `prepared`. Held for one write, at a switch for more.
    state: Mutex<State>,
    /// Its lock is the last of all.
    sync: GroupSync,
    /// The next segment, header durable, made ahead.
    prepared: Mutex<Option<SegmentWriter>>,
    /// Rung after every sync, and after every append while there are tails to listen.
    bell: Bell,
    /// Which records count. LOCK: a leaf, see there.
    completion: Completion,
}

#[derive(Debug)]
struct State {
    live: Live,
    /// Complete with their end records, but not yet known to be durable; oldest first.
    rotated: Vec<Arc<Rotated>>,
    /// Durable and complete; oldest first.
    sealed: Vec<SealedSegment>,
    sealed_bytes: u64,
    commit_micros: u64,
    /// The ticket of the next record in `completion`.
    next_ticket: u64,
    /// What records say was durable when they were written; may lag behind.
    durable_upto: Position,
    /// How far somebody makes pages of the live segment ready for stores, or has done so.
    populated_upto: u64,
    /// How far they are ready.
    ready_upto: u64,
    /// How far pages of the live segment were let go of.
    released_upto: u64,
    /// How much was written between the last two syncs, as far as that was in one segment.
    synced_bytes: u64,
    /// Once the live segment is so long, there is something to do for [`Log::maintain`].
    upkeep_at: u64,
    is_closed: bool,
    stats: LogStats,
    pages: PageAccount,
}

impl Log {
    /// Begins a new segment and makes it durable.
    ///
    /// # Errors
    /// If it cannot be made; the directory may then hold a segment that recovery removes.
    ///
    /// # Panics
    /// If `segment_bytes` exceeds 16 GiB.
    pub fn start(config: LogConfig, after: Successor) -> Result<Arc<Self>> {
        assert!(
            config.segment_bytes <= 16 << 30,
            "offsets are stored in 32 bits of words"
        );
        let anchor = config.anchor(after.first_seq, after.commit_micros);
        let writer = create_segment(&config, after.ordinal, anchor, 0, false)?;
        let mut live = Live::new(writer, after.first_seq);
        let before = after.predecessor.as_ref();
        let commit_micros = live.begin(&config, before, after.commit_micros, None)?;
        live.writer.sync()?;
        let durable = live.writer.end();
        let completed = Completed {
            position: durable,
            seq: live.last_seq,
        };
        let mut pages = PageAccount::default();
        pages.begin(SEGMENT_HEADER_BYTES);
        pages.sync(durable.offset, 0);
        let state = State {
            sealed_bytes: after.sealed.iter().map(|segment| segment.bytes).sum(),
            live,
            rotated: Vec::new(),
            sealed: after.sealed,
            commit_micros,
            next_ticket: 0,
            durable_upto: durable,
            populated_upto: 0,
            ready_upto: 0,
            released_upto: 0,
            synced_bytes: u64::MAX,
            upkeep_at: 0,
            is_closed: false,
            stats: LogStats::default(),
            pages,
        };
        Ok(Arc::new(Self {
            sync: GroupSync::new(durable, Arc::clone(&config.clock)),
            config,
            upkeep: Mutex::new(()),
            ahead: Mutex::new(()),
            state: Mutex::new(state),
            prepared: Mutex::new(None),
            bell: Bell::new(),
            completion: Completion::new(completed, IN_FLIGHT_MAX),
        }))
    }

    /// Switches to a new segment if up to `framed` more bytes do not fit into the live one.
    fn make_room_locked(
        &self,
        state: &mut State,
        framed: u64,
        next_seq: SequenceNumber,
    ) -> Result<()> {
        let writer = &mut state.live.writer;
        let needed = writer
            .bytes()
            .saturating_add(framed)
            .saturating_add(END_BYTES_MAX);
        if needed > self.config.segment_bytes && state.live.record_count > 0 {
            return self.switch_locked(state, framed, next_seq);
        }
        if needed <= writer.reserved_bytes() {
            return Ok(());
        }
        // The helper is late, or the record is large.
        writer
            .reserve_more(self.config.reserved_upto(needed))
            .map_err(|error| error.with_outcome(WriteOutcome::Rejected))
    }

    /// A new segment with room for a record of up to `framed` bytes.
    fn next_writer_locked(&self, state: &State, framed: u64) -> Result<SegmentWriter> {
        let ordinal = state.live.writer.header().ordinal + 1;
        let begin = record::framed_bytes_max(BEGIN_BYTES_MAX);
        let fitted = SEGMENT_HEADER_BYTES + begin + framed + END_BYTES_MAX;
        let prepared = self.prepared.lock().take();
        let Some(mut writer) = prepared else {
            let anchor = state.anchor(&self.config);
            return create_segment(&self.config, ordinal, anchor, fitted, false);
        };
        assert_eq!(
            writer.header().ordinal,
            ordinal,
            "segments are prepared in order"
        );
        match writer.reserve_more(self.config.reserved_upto(fitted)) {
            Ok(()) => Ok(writer),
            Err(error) => {
                *self.prepared.lock() = Some(writer);
                Err(error.with_outcome(WriteOutcome::Rejected))
            }
        }
    }

    fn switch_locked(
        &self,
        state: &mut State,
        framed: u64,
        next_seq: SequenceNumber,
    ) -> Result<()> {
        let writer = self.next_writer_locked(state, framed)?;
        let ticket = self.next_ticket_locked(state)?;
        let accepted = state.live.info(state.commit_micros);
        let end = end_meta(state.commit_micros, next_seq);
        let next = NextSegment::of(writer.header()).encode();
        // Into its place, though records before it may still be filled: should they never be, then
        // the log ends before them, and this record does not count either.
        if let Err(error) = state.live.writer.append(end, &next) {
            return Err(self.poison(&error));
        }
        let mut old = std::mem::replace(&mut state.live, Live::new(writer, next_seq));
        state.stats.appended_bytes += old.writer.bytes() - accepted.bytes;
        let ready_upto = state.ready_upto;
        state.pages.sync(old.writer.bytes(), ready_upto);
        state.pages.begin(SEGMENT_HEADER_BYTES);
        let map = old.writer.take_map();
        state.populated_upto = 0;
        state.ready_upto = 0;
        state.released_upto = 0;
        state.upkeep_at = 0;
        state.rotated.push(Arc::new(Rotated {
            live: old,
            info: accepted,
            map: Mutex::new(map),
        }));
        let durable = Some(state.durable_upto);
        let before = accepted.as_predecessor();
        let begun = state
            .live
            .begin(&self.config, Some(&before), state.commit_micros, durable);
        match begun {
            Ok(commit_micros) => state.commit_micros = commit_micros,
            Err(error) => return Err(self.poison(&error)),
        }
        state.stats.appended_bytes += state.live.writer.bytes();
        let upto = Completed {
            position: state.live.writer.end(),
            seq: accepted.last_seq,
        };
        self.completion.complete(ticket, upto);
        Ok(())
    }

    /// The place of one more record in the order in which they complete. What takes it must
    /// complete it or poison the log.
    fn next_ticket_locked(&self, state: &mut State) -> Result<u64> {
        let ticket = state.next_ticket;
        // Those who complete take no lock but the completion's own.
        let room = self.completion.make_room(ticket);
        room.map_err(|error| error.with_outcome(WriteOutcome::Rejected))?;
        state.next_ticket += 1;
        Ok(ticket)
    }

    /// Fails if nothing may be written any more: after a failed write, and after a failed sync,
    /// which leaves files that are not to be touched again.
    fn check_locked(&self, state: &State) -> Result<()> {
        let usable = self.sync.check().and_then(|()| state.check());
        usable.map_err(|error| error.with_outcome(WriteOutcome::Rejected))
    }

    /// Lets no record be written any more, and wakes everybody who waits for one.
    fn poison(&self, error: &Error) -> Error {
        let error = error.clone().with_outcome(WriteOutcome::Indeterminate);
        self.sync.poison(&error);
        self.completion.fail(&error);
        self.bell.ring();
        error
    }

    /// Makes everything appended so far durable and returns up to where that is.
    ///
    /// # Errors
    /// If a sync fails, now or before: see [`Log::sync_upto`].
    pub fn sync(&self) -> Result<Position> {
        let end = self.end();
        self.sync_upto(end)?;
        Ok(end)
    }

    /// Returns once everything before `end` is durable; waits for a sync under way, or makes one
    /// that serves all who wait.
    ///
    /// # Errors
    /// If a sync fails, now or before. It is never tried again: what the failed one left in the
    /// page cache may look written and not be.
    pub fn sync_upto(&self, end: Position) -> Result<()> {
        let result = self.sync.reach(end, |wanted| self.sync_once(wanted));
        self.bell.ring();
        result
    }

    /// Syncs older segments first: a newer one may not be acknowledged before them. The live one is
    /// left alone if nothing `wanted` is in it: its next stores would take page faults.
    fn sync_once(&self, wanted: Position) -> Result<Position> {
        // INVARIANT: taken before the files: only what was whole by then is sure to be covered, and
        // what lies behind a hole is never said to be durable.
        let whole = self.completion.upto().position;
        let (files, end) = {
            let state = self.state.lock();
            let durable = self.sync.durable_upto();
            let rotated = state.rotated.iter().map(|rotated| &rotated.live.writer);
            // Where the last one ends that is wanted; it is whole if anything behind it is.
            let last = rotated.clone().find(|writer| {
                let ordinal = writer.header().ordinal;
                ordinal == wanted.ordinal && ordinal < whole.ordinal
            });
            let end = last.map_or(whole, SegmentWriter::end);
            let files: Vec<_> = rotated
                .filter(|writer| writer.end() > durable)
                .chain([&state.live.writer])
                .filter(|writer| writer.header().ordinal <= end.ordinal)
                .map(|writer| (writer.header().ordinal, Arc::clone(writer.file())))
                .collect();
            (files, end)
        };
        self.ready_for_syncs();
        for (ordinal, file) in files {
            let dirty = self.dirty_of(ordinal);
            file.sync()?;
            if let Some(dirty) = dirty {
                self.state.lock().note_written(ordinal, dirty);
            }
        }
        self.state.lock().note_synced(end);
        Ok(end)
    }

    /// Every record before this is whole, and no hole is between them. Where the next one begins,
    /// unless some are being written now.
    pub fn end(&self) -> Position {
        self.completion.upto().position
    }

    /// How far the log is whole, without a hole.
    pub fn completed(&self) -> Completed {
        self.completion.upto()
    }

    /// Returns once every record up to `seq`, which was reserved, is whole.
    ///
    /// # Errors
    /// If one of them failed: it never will be.
    pub fn wait_completed(&self, seq: SequenceNumber) -> Result<()> {
        self.completion.wait_seq(seq)
    }

    /// Everything before this is durable.
    pub fn durable_upto(&self) -> Position {
        self.sync.durable_upto()
    }

    /// Why it takes no more appends, if so.
    pub fn poisoned(&self) -> Option<Error> {
        self.sync.failed()
    }

    /// Switches to a new segment unless the live one is empty.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn rotate(&self) -> Result<()> {
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        if state.live.record_count == 0 {
            return Ok(());
        }
        let next_seq = state.live.last_seq.plus(1);
        self.switch_locked(&mut state, 0, next_seq)
    }

    /// The segments before the live one that are complete and durable, oldest first.
    pub fn sealed(&self) -> Vec<SealedSegment> {
        self.state.lock().sealed.clone()
    }

    /// Every file of the log, oldest first: sealed, rotated out, live, prepared. One that is being
    /// made at this moment is not among them.
    pub fn numbers(&self) -> Vec<FileNumber> {
        let state = self.state.lock();
        let prepared = self.prepared.lock();
        state
            .sealed
            .iter()
            .map(|segment| segment.number)
            .chain(state.rotated.iter().map(|rotated| rotated.info.number))
            .chain([state.live.writer.header().number])
            .chain(prepared.iter().map(|writer| writer.header().number))
            .collect()
    }

    /// Drops segments from the list; the caller unlinks them.
    pub fn forget(&self, gone: &[FileNumber]) {
        let mut state = self.state.lock();
        state
            .sealed
            .retain(|segment| !gone.contains(&segment.number));
        state.sealed_bytes = state.sealed.iter().map(|segment| segment.bytes).sum();
    }

    /// The file of the live segment.
    pub fn live_number(&self) -> FileNumber {
        self.state.lock().live.writer.header().number
    }

    /// What the log holds, in bytes; space reserved ahead is not counted.
    pub fn total_bytes(&self) -> u64 {
        let state = self.state.lock();
        let rotated: u64 = state.rotated.iter().map(|rotated| rotated.info.bytes).sum();
        state.sealed_bytes + rotated + state.live.writer.bytes()
    }

    /// Counters since it was started.
    pub fn stats(&self) -> LogStats {
        let state = self.state.lock();
        let segment_count = state.sealed.len() + state.rotated.len() + 1;
        LogStats {
            page_bytes: state.page_bytes(),
            sync_count: self.sync.sync_count(),
            segment_count: segment_count as u64,
            ..state.stats
        }
    }

    pub(crate) fn config(&self) -> &LogConfig {
        &self.config
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(crate) fn completion(&self) -> &Completion {
        &self.completion
    }

    pub(crate) fn lock_segments(&self) -> SegmentsGuard<'_> {
        SegmentsGuard(self.state.lock())
    }
}

/// A look at the segments of a log.
pub(crate) struct SegmentsGuard<'a>(MutexGuard<'a, State>);

/// A segment as a tail sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BegunSegment {
    pub(crate) number: FileNumber,
    pub(crate) ordinal: u64,
    pub(crate) first_seq: SequenceNumber,
    /// Where its records end, unless it is the live one.
    pub(crate) bytes: Option<u64>,
}

impl SegmentsGuard<'_> {
    /// Every begun segment, oldest first.
    pub(crate) fn begun(&self) -> Vec<BegunSegment> {
        let state = &self.0;
        let rotated = state.rotated.iter().map(|rotated| &rotated.info);
        let live = &state.live;
        let header = live.writer.header();
        let live = BegunSegment {
            number: header.number,
            ordinal: header.ordinal,
            first_seq: live.first_seq,
            bytes: None,
        };
        let complete = state.sealed.iter().chain(rotated).map(|info| BegunSegment {
            number: info.number,
            ordinal: info.ordinal,
            first_seq: info.first_seq,
            bytes: Some(info.bytes),
        });
        complete.chain([live]).collect()
    }

    /// The index of the live segment so far, as much of it as leads to `seq`.
    pub(crate) fn live_entry(&self, seq: SequenceNumber) -> Option<IndexEntry> {
        self.0.live.index.lookup(seq)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if self.is_closed {
            return Err(Error::new(base::ErrorKind::Closed, "the log was closed")
                .with_outcome(WriteOutcome::Rejected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
