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
use base::{Error, FileKind, FileNumber, Result, SequenceNumber, WriteOutcome};

use crate::index::{IndexEntry, SparseIndex};
use crate::record::{self, Position, RecordKind, RecordMeta};
use crate::segment::{
    END_BYTES, Predecessor, SEGMENT_HEADER_BYTES, SealedSegment, SegmentHeader, SegmentWriter,
    end_meta,
};
use crate::sync::GroupSync;

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
    /// Whether to reserve the space of a segment ahead.
    pub reserve: bool,
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

/// What [`Log::append`] did.
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
    /// Syncs that acknowledged something.
    pub sync_count: u64,
    /// Segments there are.
    pub segment_count: u64,
}

/// A log being written.
///
/// `Send` and `Sync`; appends are serialised by a lock of its own.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    /// LOCK: before `prepared`. Held for one positioned write, at a switch for a few.
    state: Mutex<State>,
    sync: GroupSync,
    /// The next segment, header durable, made ahead.
    prepared: Mutex<Option<SegmentWriter>>,
    /// Rung after every append and every sync; tails listen.
    bell: Bell,
}

#[derive(Debug)]
struct State {
    live: Live,
    /// Complete with their end records, but not yet known to be durable; oldest first.
    rotated: Vec<Rotated>,
    /// Durable and complete; oldest first.
    sealed: Vec<SealedSegment>,
    sealed_bytes: u64,
    commit_micros: u64,
    failed: Option<Error>,
    is_closed: bool,
    stats: LogStats,
}

#[derive(Debug)]
struct Live {
    writer: SegmentWriter,
    index: SparseIndex,
    first_seq: SequenceNumber,
    last_seq: SequenceNumber,
    record_count: u64,
}

#[derive(Debug)]
struct Rotated {
    live: Live,
    info: SealedSegment,
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
        let writer = create_segment(&config, after.ordinal, config.segment_bytes, false)?;
        let mut live = Live::new(writer, after.first_seq);
        live.begin(
            &config,
            after.predecessor.as_ref(),
            after.commit_micros,
            None,
        )?;
        live.writer.sync()?;
        let durable = live.writer.end();
        let state = State {
            sealed_bytes: after.sealed.iter().map(|segment| segment.bytes).sum(),
            live,
            rotated: Vec::new(),
            sealed: after.sealed,
            commit_micros: after.commit_micros,
            failed: None,
            is_closed: false,
            stats: LogStats::default(),
        };
        Ok(Arc::new(Self {
            config,
            state: Mutex::new(state),
            sync: GroupSync::new(durable),
            prepared: Mutex::new(None),
            bell: Bell::new(),
        }))
    }

    /// Appends one record and hands it to the operating system.
    ///
    /// Amortised cost: encoding, a checksum and one positioned write; at a switch of segments three
    /// more writes, and where no segment was prepared its creation and two syncs.
    ///
    /// # Errors
    /// With outcome `Rejected` if the next segment cannot be made: the log is as it was. With
    /// outcome `Indeterminate` if the write fails: the log takes no more appends.
    pub fn append(
        &self,
        kind: RecordKind,
        first_seq: SequenceNumber,
        op_count: u32,
        payload: &[u8],
    ) -> Result<Appended> {
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        self.make_room_locked(&mut state, record::framed_bytes(payload.len()), first_seq)?;
        let commit_micros = self.config.clock.now_micros().max(state.commit_micros);
        let durable_upto = Some(self.sync.durable_upto());
        let meta = RecordMeta {
            kind,
            first_seq,
            op_count,
            commit_micros,
            durable_upto,
        };
        let start = state.live.writer.end();
        let end = match state.live.append(&self.config, meta, payload) {
            Ok(end) => end,
            Err(error) => return Err(self.fail_locked(&mut state, error)),
        };
        state.commit_micros = commit_micros;
        state.stats.appended_bytes += end.offset - start.offset;
        state.stats.payload_bytes += payload.len() as u64;
        state.stats.record_count += 1;
        drop(state);
        self.bell.ring();
        Ok(Appended {
            start,
            end,
            commit_micros,
        })
    }

    /// Switches to a new segment if `framed` more bytes do not fit into the live one.
    fn make_room_locked(
        &self,
        state: &mut State,
        framed: u64,
        next_seq: SequenceNumber,
    ) -> Result<()> {
        let needed = state
            .live
            .writer
            .bytes()
            .saturating_add(framed)
            .saturating_add(END_BYTES);
        if needed <= self.config.segment_bytes || state.live.record_count == 0 {
            return Ok(());
        }
        self.switch_locked(state, framed, next_seq)
    }

    fn switch_locked(
        &self,
        state: &mut State,
        framed: u64,
        next_seq: SequenceNumber,
    ) -> Result<()> {
        let ordinal = state.live.writer.header().ordinal + 1;
        let fitted = SEGMENT_HEADER_BYTES + record::framed_bytes(256) + framed + END_BYTES;
        let prepared = self.prepared.lock().take();
        // A prepared one is of the ordinary size; what does not fit makes its file grow.
        let writer = match prepared {
            Some(writer) => writer,
            None => create_segment(
                &self.config,
                ordinal,
                fitted.max(self.config.segment_bytes),
                false,
            )
            .map_err(|error| error.with_outcome(WriteOutcome::Rejected))?,
        };
        assert_eq!(
            writer.header().ordinal,
            ordinal,
            "segments are prepared in order"
        );
        let end = end_meta(state.commit_micros, next_seq);
        let accepted = state.live.info(state.commit_micros);
        if let Err(error) = state.live.writer.append(end, &[]) {
            return Err(self.fail_locked(state, error));
        }
        let live = Live::new(writer, next_seq);
        let old = std::mem::replace(&mut state.live, live);
        state.rotated.push(Rotated {
            live: old,
            info: accepted,
        });
        let durable = Some(self.sync.durable_upto());
        let before = accepted.as_predecessor();
        let begun = state
            .live
            .begin(&self.config, Some(&before), state.commit_micros, durable);
        if let Err(error) = begun {
            return Err(self.fail_locked(state, error));
        }
        state.stats.appended_bytes += END_BYTES + state.live.writer.bytes();
        Ok(())
    }

    /// Fails if nothing may be written any more: after a failed write, and after a failed sync,
    /// which leaves files that are not to be touched again.
    fn check_locked(&self, state: &State) -> Result<()> {
        let usable = state.check().and_then(|()| self.sync.check());
        usable
            .map(|_| ())
            .map_err(|error| error.with_outcome(WriteOutcome::Rejected))
    }

    fn fail_locked(&self, state: &mut State, error: Error) -> Error {
        let error = error.with_outcome(WriteOutcome::Indeterminate);
        state.failed.get_or_insert_with(|| error.clone());
        self.sync.poison(&error);
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
        let result = self.sync.reach(end, || self.sync_once());
        self.bell.ring();
        result.map(|_| ())
    }

    /// Syncs older segments first: a newer one may not be acknowledged before them.
    fn sync_once(&self) -> Result<Position> {
        let (files, end) = {
            let state = self.state.lock();
            let files: Vec<_> = state
                .rotated
                .iter()
                .map(|rotated| &rotated.live)
                .chain([&state.live])
                .map(|live| Arc::clone(live.writer.file()))
                .collect();
            (files, state.live.writer.end())
        };
        for file in files {
            file.sync()?;
        }
        Ok(end)
    }

    /// Where the next record will begin.
    pub fn end(&self) -> Position {
        self.state.lock().live.writer.end()
    }

    /// Everything before this is durable.
    pub fn durable_upto(&self) -> Position {
        self.sync.durable_upto()
    }

    /// Why it takes no more appends, if so.
    pub fn poisoned(&self) -> Option<Error> {
        self.sync.failed()
    }

    /// Does what need not be done in the write path: makes segments that were rotated out durable,
    /// seals them, writes their indexes, and prepares the next one. Returns whether it did anything.
    ///
    /// # Errors
    /// If a sync fails the log is poisoned; other failures change nothing and can be tried again.
    pub fn maintain(&self) -> Result<bool> {
        let sealed = self.seal_rotated()?;
        let prepared = self.prepare_next()?;
        Ok(sealed || prepared)
    }

    fn seal_rotated(&self) -> Result<bool> {
        let target = {
            let state = self.state.lock();
            let Some(newest) = state.rotated.last() else {
                return Ok(false);
            };
            newest.live.writer.end()
        };
        self.sync_upto(target)?;
        let ready: Vec<Rotated> = {
            let mut state = self.state.lock();
            let count = state
                .rotated
                .iter()
                .filter(|r| r.live.writer.end() <= target)
                .count();
            let ready: Vec<_> = state.rotated.drain(..count).collect();
            for rotated in &ready {
                state.sealed_bytes += rotated.info.bytes;
                state.sealed.push(rotated.info);
            }
            ready
        };
        for rotated in ready {
            rotated.live.finish(&self.config)?;
        }
        Ok(true)
    }

    fn prepare_next(&self) -> Result<bool> {
        let ordinal = {
            let state = self.state.lock();
            let is_half_full = state.live.writer.bytes() * 2 >= self.config.segment_bytes;
            if !is_half_full || state.failed.is_some() || state.is_closed {
                return Ok(false);
            }
            state.live.writer.header().ordinal + 1
        };
        if self.prepared.lock().is_some() {
            return Ok(false);
        }
        let writer = create_segment(&self.config, ordinal, self.config.segment_bytes, false)?;
        let state = self.state.lock();
        let mut prepared = self.prepared.lock();
        let is_wanted = state.live.writer.header().ordinal + 1 == ordinal
            && prepared.is_none()
            && !state.is_closed;
        if is_wanted {
            *prepared = Some(writer);
            return Ok(true);
        }
        drop((state, prepared));
        // The write path was faster and made its own.
        self.remove_unused(&writer)?;
        Ok(true)
    }

    fn remove_unused(&self, writer: &SegmentWriter) -> Result<()> {
        let path = FileKind::Segment.path(&self.config.dir, writer.header().number);
        self.config.fs.remove_file(&path)
    }

    /// Whether [`Log::maintain`] would find something to do.
    pub fn needs_maintenance(&self) -> bool {
        let state = self.state.lock();
        let is_half_full = state.live.writer.bytes() * 2 >= self.config.segment_bytes;
        !state.rotated.is_empty() || is_half_full && self.prepared.lock().is_none()
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

    /// Ends the log: end record, sync, index. No append is taken afterwards.
    ///
    /// # Errors
    /// If the end cannot be made durable.
    pub fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        let end = end_meta(state.commit_micros, state.live.last_seq.plus(1));
        if let Err(error) = state.live.writer.append(end, &[]) {
            return Err(self.fail_locked(&mut state, error));
        }
        state.is_closed = true;
        drop(state);
        self.sync()?;
        self.seal_rotated()?;
        if let Some(unused) = self.prepared.lock().take() {
            self.remove_unused(&unused)?;
        }
        let state = self.state.lock();
        state.live.write_out(&self.config)
    }

    /// The segments before the live one that are complete and durable, oldest first.
    pub fn sealed(&self) -> Vec<SealedSegment> {
        self.state.lock().sealed.clone()
    }

    /// Every file of the log, oldest first: sealed, rotated out, live, prepared.
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

    pub(crate) fn lock_segments(&self) -> SegmentsGuard<'_> {
        SegmentsGuard(self.state.lock())
    }
}

/// A look at the segments of a log.
pub(crate) struct SegmentsGuard<'a>(MutexGuard<'a, State>);

impl SegmentsGuard<'_> {
    /// Number, ordinal and first sequence number of every begun segment, oldest first.
    pub(crate) fn begun(&self) -> Vec<(FileNumber, u64, SequenceNumber)> {
        let state = &self.0;
        let sealed = state
            .sealed
            .iter()
            .chain(state.rotated.iter().map(|rotated| &rotated.info));
        let live = &state.live;
        let header = live.writer.header();
        sealed
            .map(|info| (info.number, info.ordinal, info.first_seq))
            .chain([(header.number, header.ordinal, live.first_seq)])
            .collect()
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.is_closed {
            return Err(Error::new(base::ErrorKind::Closed, "the log was closed")
                .with_outcome(WriteOutcome::Rejected));
        }
        Ok(())
    }
}

impl Live {
    fn new(writer: SegmentWriter, first_seq: SequenceNumber) -> Self {
        let index = SparseIndex::default();
        Self {
            writer,
            index,
            first_seq,
            last_seq: first_seq.before(),
            record_count: 0,
        }
    }

    /// Writes the begin record.
    fn begin(
        &mut self,
        config: &LogConfig,
        before: Option<&Predecessor>,
        commit_micros: u64,
        durable_upto: Option<Position>,
    ) -> Result<()> {
        let meta = RecordMeta {
            kind: RecordKind::Begin,
            first_seq: self.first_seq,
            op_count: 0,
            commit_micros: commit_micros.max(config.clock.now_micros()),
            durable_upto,
        };
        self.writer
            .append(meta, &Predecessor::encode(before))
            .map(|_| ())
    }

    fn append(&mut self, config: &LogConfig, meta: RecordMeta, payload: &[u8]) -> Result<Position> {
        let offset = self.writer.bytes();
        let end = self.writer.append(meta, payload)?;
        let entry = IndexEntry {
            seq: meta.first_seq,
            offset,
            commit_micros: meta.commit_micros,
        };
        self.index.note(entry, config.index_interval_bytes);
        self.last_seq = self.last_seq.max(meta.last_seq());
        self.record_count += 1;
        Ok(end)
    }

    fn info(&self, commit_micros: u64) -> SealedSegment {
        let header = self.writer.header();
        SealedSegment {
            number: header.number,
            file_id: header.file_id,
            ordinal: header.ordinal,
            bytes: self.writer.bytes(),
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            last_commit_micros: commit_micros,
        }
    }

    /// Gives back unused space and writes the index; the records are durable already.
    fn write_out(&self, config: &LogConfig) -> Result<()> {
        self.writer.give_back()?;
        let header = self.writer.header();
        let path = FileKind::SegmentIndex.path(&config.dir, header.number);
        self.index.write(&*config.fs, &path, header.file_id)
    }

    fn finish(self, config: &LogConfig) -> Result<()> {
        self.write_out(config)
    }
}

/// Creates a segment whose header and name are durable on return.
pub(crate) fn create_segment(
    config: &LogConfig,
    ordinal: u64,
    bytes: u64,
    is_copy: bool,
) -> Result<SegmentWriter> {
    let number = (config.numbers)();
    let header = SegmentHeader {
        file_id: config.fs.random_u64(),
        database_id: config.database_id,
        epoch: config.epoch,
        number,
        ordinal,
        created_micros: config.clock.now_micros(),
        is_copy,
    };
    let path = FileKind::Segment.path(&config.dir, number);
    let reserve = if config.reserve { bytes } else { 0 };
    let make = || {
        let writer = SegmentWriter::create(&*config.fs, &path, header, reserve)?;
        writer.sync()?;
        config.fs.sync_dir(&config.dir)?;
        Ok(writer)
    };
    make().inspect_err(|_| {
        // Recovery would remove it as well; this only frees its space sooner.
        let _ = config.fs.remove_file(&path);
    })
}

#[cfg(test)]
mod tests;
