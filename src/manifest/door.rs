//! Whether edits are taken.

use base::{Error, ErrorKind, Result, WriteOutcome};

use super::{State, VersionSet};

impl VersionSet {
    /// Refuses every edit from here on: the directory may be somebody else's.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
    }

    /// Fails after an earlier failure, and after the close.
    pub(super) fn check_locked(&self, state: &State) -> Result<()> {
        if self.rooms.health.is_poisoned() {
            self.rooms.health.check_writable()?;
        }
        if state.is_closed {
            let closed = Error::new(ErrorKind::Closed, "the database was closed");
            return Err(closed.with_outcome(WriteOutcome::Rejected));
        }
        Ok(())
    }
}
