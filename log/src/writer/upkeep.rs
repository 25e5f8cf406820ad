//! What need not be done in the write path: sealing what was rotated out, preparing what comes
//! next, and the end.

use std::ops::Range;

use base::fs::LiveMap;
use base::sync::Arc;
use base::{FileKind, Result, SequenceNumber};

use super::live::{Rotated, create_segment};
use super::pages::PAGE_BYTES;
use super::{Log, LogConfig, State};
use crate::completion::Completed;
use crate::record::Anchor;
use crate::segment::{SegmentWriter, end_meta};

/// Space is reserved in steps of at most this.
const RESERVE_STEP_BYTES_MAX: u64 = 4 << 20;
/// Into so many steps a smaller segment is divided.
const RESERVE_STEPS: u64 = 16;
/// The first step of a segment is shorter by so many powers of two, and each doubles what there is
/// until the steps are whole: a log that is hardly written keeps little space.
const RESERVE_DOUBLINGS: u32 = 6;

/// How far ahead of the writers pages are made ready for stores.
const POPULATED_BYTES: u64 = 2 << 20;
/// In what steps.
const POPULATE_STEP_BYTES: u64 = 1 << 19;
/// At most this part of what was written since the last sync: the next one writes the pages made
/// ready as well, and once they are stored to it is done again.
const POPULATED_PART: u64 = 16;

/// Where each sync writes less than a page, pages are made ready in steps of this, and the sync
/// that follows writes them all: the first write of a reserved page costs a sync half as much again
/// for what the file system has to note down, and so it is borne once for many pages.
const SYNCED_STEP_BYTES: u64 = 64 << 10;
const SYNCED_BYTES_MAX: u64 = PAGE_BYTES;

/// A live segment that is flushed is rotated out once it holds this, or a smaller part of a small
/// segment.
const RETIRED_BYTES: u64 = 1 << 20;
const RETIRED_PART: u64 = 4;
/// A segment that holds this part of what it may is followed by one made ahead.
const FOLLOWED_PART: u64 = 4;

impl Log {
    /// Does what need not be done in the write path: makes segments that were rotated out durable,
    /// writes their indexes, seals them, prepares the next one, and does what
    /// [`Log::reserve_ahead`] does. Returns whether it did anything.
    ///
    /// # Errors
    /// If a sync fails, now or before, the log is poisoned. Otherwise something can wait: an index
    /// that could not be written is made do without, and preparing can be tried again.
    pub fn maintain(&self) -> Result<bool> {
        let _upkeep = self.upkeep.lock();
        self.sync.check()?;
        // First: sealed segments can go, and then there is more space.
        let sealed = self.seal_rotated()?;
        let reserved = self.reserve_ahead()?;
        let prepared = self.prepare_next()?;
        Ok(sealed || reserved || prepared)
    }

    /// Reserves space ahead of the writers and makes its pages ready: what must be done in time for
    /// them to be fast, and never waits for a sync. Returns whether it did anything.
    ///
    /// # Errors
    /// If the log is poisoned. Otherwise it can wait: writers do it themselves.
    pub fn reserve_ahead(&self) -> Result<bool> {
        self.sync.check()?;
        let reserved = self.reserve_step()?;
        self.release_step();
        let populated = self.populate_step();
        Ok(reserved || populated)
    }

    /// Whether [`Log::maintain`] has more to do than [`Log::reserve_ahead`].
    pub fn needs_upkeep(&self) -> bool {
        let state = self.state.lock();
        !state.rotated.is_empty() || self.needs_next_locked(&state)
    }

    /// Whether [`Log::maintain`] would find something to do.
    pub fn needs_maintenance(&self) -> bool {
        let state = self.state.lock();
        if self.sync.check().is_err() {
            return false;
        }
        !state.rotated.is_empty()
            || self.needs_next_locked(&state)
            || state.unreserved(&self.config).is_some()
            || state.unpopulated().is_some()
    }

    /// Reserves the next step of the live segment before a writer comes to it.
    fn reserve_step(&self) -> Result<bool> {
        // Not cut meanwhile: it would be left longer than it is known to be.
        let _ahead = self.ahead.lock();
        let (file, at, upto) = {
            let state = self.state.lock();
            let Some(upto) = state.unreserved(&self.config) else {
                return Ok(false);
            };
            let writer = &state.live.writer;
            (Arc::clone(writer.file()), writer.header().ordinal, upto)
        };
        let is_reserved = file.reserve(upto)?;
        let mut state = self.state.lock();
        let writer = &mut state.live.writer;
        // One that was rotated out meanwhile is cut when it is sealed.
        if is_reserved && writer.header().ordinal == at {
            writer.note_reserved(upto);
        }
        Ok(is_reserved)
    }

    /// Whether a segment is to be made ahead.
    fn needs_next_locked(&self, state: &State) -> bool {
        let is_due = state.live.writer.bytes() >= self.config.followed_bytes();
        is_due && !state.is_closed && self.prepared.lock().is_none()
    }

    /// Lets go of the pages behind the writers.
    fn release_step(&self) {
        let whole = self.completion.upto().position;
        let (ahead, start) = {
            let mut state = self.state.lock();
            let start = state.released_upto;
            let is_live = whole.ordinal == state.live.writer.end().ordinal;
            if !is_live || whole.offset < start + POPULATE_STEP_BYTES {
                return;
            }
            state.released_upto = whole.offset - whole.offset % POPULATE_STEP_BYTES;
            (state.live.writer.ahead(), start)
        };
        if let Some(ahead) = ahead {
            ahead.release(start, whole.offset);
        }
    }

    /// Takes the page faults of the next stores. Their cost is that of many copies, and it is borne
    /// here only where syncs are rare: each would write the pages made ready.
    fn populate_step(&self) -> bool {
        let (ahead, ordinal, pages) = {
            let mut state = self.state.lock();
            let Some(pages) = state.unpopulated() else {
                return false;
            };
            state.populated_upto = pages.end;
            let Some(ahead) = state.live.writer.ahead() else {
                return false;
            };
            (ahead, state.live.writer.header().ordinal, pages)
        };
        // Whether the system can do it changes speed only.
        let is_ready = ahead.populate(pages.start, pages.end);
        if is_ready {
            self.state.lock().note_ready(ordinal, pages);
        }
        is_ready
    }

    /// Has the file system note down the next pages where few records are synced at a time.
    pub(super) fn ready_for_syncs(&self) {
        let (ahead, ordinal, pages) = {
            let mut state = self.state.lock();
            let Some(pages) = state.unready_for_syncs() else {
                return;
            };
            state.populated_upto = pages.end;
            let Some(ahead) = state.live.writer.ahead() else {
                return;
            };
            (ahead, state.live.writer.header().ordinal, pages)
        };
        // Whether the system can do it changes speed only.
        if ahead.populate(pages.start, pages.end) {
            // They are written to by calls of the system, and those of mapped pages take longer.
            ahead.release(pages.start, pages.end);
            self.state.lock().note_ready(ordinal, pages);
        }
    }

    /// The caller holds `upkeep`, so that nobody else seals the same ones.
    fn seal_rotated(&self) -> Result<bool> {
        let rotated: Vec<Arc<Rotated>> = self.state.lock().rotated.clone();
        let Some(newest) = rotated.last() else {
            return Ok(false);
        };
        // Writers may still be filling records before the end.
        self.completion.wait_position(newest.live.writer.end())?;
        // Before the sync, which takes far longer if it finds the pages mapped.
        let unmapped: Vec<_> = rotated.iter().map(|rotated| rotated.unmap()).collect();
        // INVARIANT: a sealed segment, which may go, is followed by one that was durably begun. The
        // switch completes with the begin record behind the end.
        let begun = self.completion.upto().position;
        assert!(begun.ordinal > newest.info.ordinal, "it was switched");
        self.sync_upto(begun)?;
        // Before they are listed as sealed: from then on somebody else may unlink them.
        let mut result = Ok(true);
        for (rotated, is_unmapped) in rotated.iter().zip(unmapped) {
            let written = rotated.write_out(&self.config, &self.ahead, is_unmapped);
            if let Err(error) = written {
                result = result.and(Err(error));
            }
        }
        let mut state = self.state.lock();
        state.rotated.drain(..rotated.len());
        for rotated in rotated {
            state.pages.file(rotated.live.index.file_bytes());
            state.sealed_bytes += rotated.info.bytes;
            state.sealed.push(rotated.info);
        }
        result
    }

    fn prepare_next(&self) -> Result<bool> {
        let (ordinal, anchor) = {
            let state = self.state.lock();
            if !self.needs_next_locked(&state) {
                return Ok(false);
            }
            let ordinal = state.live.writer.header().ordinal + 1;
            (ordinal, state.anchor(&self.config))
        };
        // Writers who have come so far will need more than the beginning.
        self.prepare(ordinal, anchor, self.config.reserve_step_bytes())
    }

    /// Makes the segment with this place ahead, with space for `needed` bytes; the caller holds
    /// `upkeep`. None of its pages are made ready: what comes before it is sealed after it was
    /// begun, with a sync that would write them all.
    fn prepare(&self, ordinal: u64, anchor: Anchor, needed: u64) -> Result<bool> {
        let writer = create_segment(&self.config, ordinal, anchor, needed, false)?;
        let state = self.state.lock();
        if state.live.writer.header().ordinal + 1 == ordinal && !state.is_closed {
            *self.prepared.lock() = Some(writer);
            return Ok(true);
        }
        drop(state);
        // The write path was faster and made its own. Should the removal be lost in a crash, then
        // two files have the same place in the log, and only one of them was begun.
        self.remove_unused(&writer)?;
        Ok(true)
    }

    /// Switches to a new segment if the live one holds more than a little, and nothing behind
    /// `flushed_upto`: sealed by [`Log::maintain`], it can be retired, and the space it has is not
    /// kept for writes that may never come. Returns whether it did.
    ///
    /// # Errors
    /// As [`Log::append`]; a segment that cannot be made leaves everything as it was.
    pub fn rotate_flushed(&self, flushed_upto: SequenceNumber) -> Result<bool> {
        let _upkeep = self.upkeep.lock();
        let (ordinal, anchor) = {
            let state = self.state.lock();
            if !self.is_flushed_locked(&state, flushed_upto) {
                return Ok(false);
            }
            let ordinal = state.live.writer.header().ordinal + 1;
            (ordinal, state.anchor(&self.config))
        };
        // Not under the lock of the writers: it takes two syncs.
        if self.prepared.lock().is_none() {
            self.prepare(ordinal, anchor, 0)?;
        }
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        if !self.is_flushed_locked(&state, flushed_upto) {
            return Ok(false);
        }
        let next_seq = state.live.last_seq.plus(1);
        self.switch_locked(&mut state, 0, next_seq)?;
        Ok(true)
    }

    fn is_flushed_locked(&self, state: &State, flushed_upto: SequenceNumber) -> bool {
        let live = &state.live;
        let worth_it = RETIRED_BYTES.min(self.config.segment_bytes / RETIRED_PART);
        let is_worth_it = live.writer.bytes() >= worth_it;
        let is_flushed = live.record_count > 0 && live.last_seq <= flushed_upto;
        is_worth_it && is_flushed && !state.is_closed
    }

    /// Switches to the next segment if that was made ahead, so that what is flushed together with
    /// the records so far can be retired together with them. Returns whether it did.
    ///
    /// Costs two appends. To be called where records come to an end that will be flushed at once.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn rotate_prepared(&self) -> Result<bool> {
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        let live = &state.live;
        let is_due = live.record_count > 0 && live.writer.bytes() >= self.config.followed_bytes();
        if !is_due || self.prepared.lock().is_none() {
            return Ok(false);
        }
        let next_seq = state.live.last_seq.plus(1);
        self.switch_locked(&mut state, 0, next_seq)?;
        Ok(true)
    }

    fn remove_unused(&self, writer: &SegmentWriter) -> Result<()> {
        let path = FileKind::Segment.path(&self.config.dir, writer.header().number);
        self.config.fs.remove_file(&path)
    }

    /// Ends the log: end record, sync, indexes. No append is taken afterwards.
    ///
    /// # Errors
    /// If the end cannot be made durable; `Closed` if it was closed before. An index that cannot be
    /// written or a file that cannot be removed is no error: recovery does without.
    pub fn close(&self) -> Result<()> {
        let _upkeep = self.upkeep.lock();
        let mut state = self.state.lock();
        self.check_locked(&state)?;
        let end = end_meta(state.commit_micros, state.live.last_seq.plus(1));
        let ticket = self.next_ticket_locked(&mut state)?;
        if let Err(error) = state.live.writer.append(end, &[]) {
            return Err(self.poison(&error));
        }
        state.is_closed = true;
        let upto = Completed {
            position: state.live.writer.end(),
            seq: state.live.last_seq,
        };
        drop(state);
        self.completion.complete(ticket, upto);
        // Writers may still be filling records before the end.
        self.completion.wait(ticket)?;
        self.sync()?;
        // From here on everything is durable, and these three only save work or space.
        let _ = self.seal_rotated();
        if let Some(unused) = self.prepared.lock().take() {
            let _ = self.remove_unused(&unused);
        }
        let _ahead = self.ahead.lock();
        let mut state = self.state.lock();
        let map = state.live.writer.take_map();
        let _ = state.live.give_back(map.is_none_or(LiveMap::close));
        let _ = state.live.write_index(&self.config);
        let index_bytes = state.live.index.file_bytes();
        state.pages.file(index_bytes);
        Ok(())
    }
}

impl LogConfig {
    /// In what steps space is reserved, once they are whole.
    pub(crate) fn reserve_step_bytes(&self) -> u64 {
        let step = self.segment_bytes.div_ceil(RESERVE_STEPS);
        step.clamp(1, RESERVE_STEP_BYTES_MAX)
    }

    /// How far to reserve so that `needed` bytes of a segment have space: whole steps, but no more
    /// than the segment will have.
    pub(crate) fn reserved_upto(&self, needed: u64) -> u64 {
        let whole = self.reserve_step_bytes();
        let mut steps = (1..=RESERVE_DOUBLINGS)
            .rev()
            .map(|halvings| whole >> halvings);
        let short = steps.find(|step| *step >= needed);
        let stepped = short.unwrap_or_else(|| needed.next_multiple_of(whole));
        stepped.min(self.segment_bytes.max(needed))
    }

    /// A segment that holds so much is followed by one made ahead.
    fn followed_bytes(&self) -> u64 {
        self.segment_bytes.div_ceil(FOLLOWED_PART)
    }
}

impl State {
    /// How far more space of the live segment is to be reserved: there is as much between the
    /// writers and the end of it as they have written, or one whole step.
    fn unreserved(&self, config: &LogConfig) -> Option<u64> {
        let writer = &self.live.writer;
        let reserved = writer.reserved_bytes();
        let ahead = config.reserve_step_bytes().min(writer.bytes());
        let wanted = config.reserved_upto(writer.bytes().saturating_add(ahead));
        let wanted = wanted.min(config.segment_bytes);
        (reserved > 0 && wanted > reserved && !self.is_closed).then_some(wanted)
    }

    /// Which pages of the live segment are to be made ready.
    fn unpopulated(&self) -> Option<Range<u64>> {
        let writer = &self.live.writer;
        // One that was rotated out is sealed soon, and this one is synced with it.
        if self.live.record_count == 0 || self.is_closed || !self.rotated.is_empty() {
            return None;
        }
        let durable = self.durable_upto;
        let is_here = durable.ordinal == writer.end().ordinal;
        let unsynced = writer.bytes() - if is_here { durable.offset } else { 0 };
        let ahead = POPULATED_BYTES.min(unsynced / POPULATED_PART);
        let end = writer.mapped_bytes().min(writer.bytes() + ahead);
        let start = self.populated_upto.max(writer.bytes());
        let is_due = end >= start + POPULATE_STEP_BYTES;
        is_due.then_some(start..end)
    }

    /// Which pages of the live segment the next sync is to write beside its records.
    fn unready_for_syncs(&self) -> Option<Range<u64>> {
        let writer = &self.live.writer;
        let durable = self.durable_upto;
        let is_here = durable.ordinal == writer.end().ordinal;
        let unsynced = writer.bytes() - if is_here { durable.offset } else { 0 };
        let is_synced_often = self.synced_bytes.max(unsynced) < SYNCED_BYTES_MAX;
        if !is_synced_often || self.is_closed || writer.bytes() <= self.populated_upto {
            return None;
        }
        let start = writer.bytes().next_multiple_of(PAGE_BYTES);
        let end = (start + SYNCED_STEP_BYTES).min(writer.mapped_bytes());
        let end = end.min(writer.reserved_bytes());
        (end > start).then_some(start..end)
    }

    /// Whether the record that was placed last makes [`Log::maintain`] find work.
    #[inline]
    pub(super) fn wants_upkeep(&mut self, config: &LogConfig) -> bool {
        let is_due = self.live.writer.bytes() >= self.upkeep_at;
        if is_due {
            self.upkeep_at = self.next_upkeep(config);
        }
        is_due
    }

    /// The next length of the live segment at which something is to be reserved, made ready or
    /// prepared.
    fn next_upkeep(&self, config: &LogConfig) -> u64 {
        let writer = &self.live.writer;
        let bytes = writer.bytes();
        let followed = Some(config.followed_bytes()).filter(|followed| *followed > bytes);
        // As `unreserved` has it: with the first byte behind a step, and half of a short one.
        let reserve = (writer.reserved_bytes() > 0).then(|| {
            let whole = config.reserve_step_bytes();
            let halves = (1..=RESERVE_DOUBLINGS + 1)
                .rev()
                .map(|halvings| whole >> halvings);
            let short = halves.clone().find(|half| *half >= bytes);
            short.unwrap_or_else(|| bytes.next_multiple_of(whole)) + 1
        });
        let step = POPULATE_STEP_BYTES;
        let populate = writer
            .is_mapped()
            .then(|| (bytes + 1).next_multiple_of(step));
        let next = [followed, reserve, populate].into_iter().flatten().min();
        next.unwrap_or(u64::MAX)
    }
}
