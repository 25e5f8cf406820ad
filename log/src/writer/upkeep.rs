//! What need not be done in the write path: sealing what was rotated out, preparing what comes
//! next, and the end.

use std::ops::Range;

use base::sync::Arc;
use base::{FileKind, Result};

use super::live::{Rotated, create_segment};
use super::{Log, State};
use crate::completion::Completed;
use crate::segment::{SegmentWriter, end_meta};

/// How far ahead of the writers pages are made ready for stores.
const POPULATED_BYTES: u64 = 2 << 20;
/// In what steps.
const POPULATE_STEP_BYTES: u64 = 1 << 20;

impl Log {
    /// Does what need not be done in the write path: makes segments that were rotated out durable,
    /// writes their indexes, seals them, and prepares the next one. Returns whether it did
    /// anything.
    ///
    /// # Errors
    /// If a sync fails, now or before, the log is poisoned. Otherwise something can wait: an index
    /// that could not be written is made do without, and preparing can be tried again.
    pub fn maintain(&self) -> Result<bool> {
        let _upkeep = self.upkeep.lock();
        self.sync.check()?;
        let sealed = self.seal_rotated()?;
        let prepared = self.prepare_next()?;
        let populated = self.populate_ahead();
        Ok(sealed || prepared || populated)
    }

    /// Whether [`Log::maintain`] would find something to do.
    pub fn needs_maintenance(&self) -> bool {
        let state = self.state.lock();
        if self.sync.check().is_err() {
            return false;
        }
        !state.rotated.is_empty() || self.needs_next_locked(&state) || state.unpopulated().is_some()
    }

    /// Whether a segment is to be made ahead.
    fn needs_next_locked(&self, state: &State) -> bool {
        let is_half_full = state.live.writer.bytes() * 2 >= self.config.segment_bytes;
        is_half_full && !state.is_closed && self.prepared.lock().is_none()
    }

    /// Takes the page faults of the next stores. Their cost is that of many copies, and it is borne
    /// here only where syncs are rare: each would write the pages made ready.
    fn populate_ahead(&self) -> bool {
        let (ahead, pages) = {
            let mut state = self.state.lock();
            let Some(pages) = state.unpopulated() else {
                return false;
            };
            state.populated_upto = pages.end;
            let Some(ahead) = state.live.writer.ahead() else {
                return false;
            };
            (ahead, pages)
        };
        // Whether the system can do it changes speed only.
        ahead.populate(pages.start, pages.end)
    }

    /// The caller holds `upkeep`, so that nobody else seals the same ones.
    fn seal_rotated(&self) -> Result<bool> {
        let rotated: Vec<Arc<Rotated>> = self.state.lock().rotated.clone();
        let Some(newest) = rotated.last() else {
            return Ok(false);
        };
        // Writers may still be filling records before the end.
        self.completion.wait_position(newest.live.writer.end())?;
        self.sync_upto(newest.live.writer.end())?;
        // Before they are listed as sealed: from then on somebody else may unlink them.
        let mut result = Ok(true);
        for rotated in &rotated {
            if let Err(error) = rotated.write_out(&self.config) {
                result = result.and(Err(error));
            }
        }
        let mut state = self.state.lock();
        state.rotated.drain(..rotated.len());
        for rotated in rotated {
            state.sealed_bytes += rotated.info.bytes;
            state.sealed.push(rotated.info);
        }
        result
    }

    fn prepare_next(&self) -> Result<bool> {
        let ordinal = {
            let state = self.state.lock();
            if !self.needs_next_locked(&state) {
                return Ok(false);
            }
            state.live.writer.header().ordinal + 1
        };
        let writer = create_segment(&self.config, ordinal, self.config.segment_bytes, false)?;
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
        let mut state = self.state.lock();
        let map = state.live.writer.take_map();
        let _ = state.live.write_out(&self.config, map);
        Ok(())
    }
}

impl State {
    /// Which pages of the live segment are to be made ready.
    fn unpopulated(&self) -> Option<Range<u64>> {
        let writer = &self.live.writer;
        // A segment that may still be mapped anew must not be held. See `reserve_more`.
        if self.live.record_count == 0 || self.is_closed {
            return None;
        }
        let durable = if self.durable_upto.ordinal == writer.end().ordinal {
            self.durable_upto.offset
        } else {
            0
        };
        let is_synced_often = writer.bytes() - durable < POPULATE_STEP_BYTES;
        let end = writer.mapped_bytes().min(writer.bytes() + POPULATED_BYTES);
        let start = self.populated_upto.max(writer.bytes());
        let is_due = end >= start + POPULATE_STEP_BYTES;
        (is_due && !is_synced_often).then_some(start..end)
    }

    /// Whether a record that was placed between these offsets makes [`Log::maintain`] find work.
    pub(super) fn wants_upkeep(&self, from: u64, to: u64, segment_bytes: u64) -> bool {
        let crosses = |at: u64| from < at && to >= at;
        let step = to - to % POPULATE_STEP_BYTES;
        crosses(segment_bytes.div_ceil(2)) || self.live.writer.is_mapped() && crosses(step)
    }
}
