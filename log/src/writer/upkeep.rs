//! What need not be done in the write path: sealing what was rotated out, preparing what comes
//! next, and the end.

use base::sync::Arc;
use base::{FileKind, Result};

use super::live::{Rotated, create_segment};
use super::{Log, State};
use crate::segment::{SegmentWriter, end_meta};

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
        Ok(sealed || prepared)
    }

    /// Whether [`Log::maintain`] would find something to do.
    pub fn needs_maintenance(&self) -> bool {
        let state = self.state.lock();
        if state.failed.is_some() || self.sync.failed().is_some() {
            return false;
        }
        !state.rotated.is_empty() || self.needs_next_locked(&state)
    }

    /// Whether a segment is to be made ahead.
    fn needs_next_locked(&self, state: &State) -> bool {
        let is_half_full = state.live.writer.bytes() * 2 >= self.config.segment_bytes;
        is_half_full && !state.is_closed && self.prepared.lock().is_none()
    }

    /// The caller holds `upkeep`, so that nobody else seals the same ones.
    fn seal_rotated(&self) -> Result<bool> {
        let rotated: Vec<Arc<Rotated>> = self.state.lock().rotated.clone();
        let Some(newest) = rotated.last() else {
            return Ok(false);
        };
        self.sync_upto(newest.live.writer.end())?;
        // Before they are listed as sealed: from then on somebody else may unlink them.
        let mut result = Ok(true);
        for rotated in &rotated {
            if let Err(error) = rotated.live.write_out(&self.config) {
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
        if let Err(error) = state.live.writer.append(end, &[]) {
            return Err(self.fail_locked(&mut state, error));
        }
        state.is_closed = true;
        drop(state);
        self.sync()?;
        // From here on everything is durable, and these three only save work or space.
        let _ = self.seal_rotated();
        if let Some(unused) = self.prepared.lock().take() {
            let _ = self.remove_unused(&unused);
        }
        let _ = self.state.lock().live.write_out(&self.config);
        Ok(())
    }
}
