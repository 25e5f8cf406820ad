//! Work on the threads of callers, which the end of the background waits for.
//!
//! Workers are joined when the database is closed. Compactions that somebody asked for and copies
//! run on the thread of who asked, and may write to MANIFEST and make files: they must be over
//! before the directory is let go of.

use base::sync::Mutex;
use base::{Error, ErrorKind, Result, WriteOutcome};

use super::Background;

/// How many calls are at work.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// LOCK: a leaf.
    state: Mutex<CallersState>,
}

#[derive(Debug, Default)]
struct CallersState {
    count: usize,
    is_ended: bool,
}

/// One call at work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Call<'a>(&'a Background);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.callers.state.lock().count -= 1;
        self.0.signals.progress.ring();
    }
}

impl Background {
    /// Begins work on the thread of a caller.
    ///
    /// # Errors
    /// `Closed` once the background has been told to stop.
    pub(crate) fn begin_call(&self) -> Result<Call<'_>> {
        let mut state = self.callers.state.lock();
        if state.is_ended {
            return Err(being_closed());
        }
        state.count += 1;
        Ok(Call(self))
    }

    /// Fails once the background has been told to stop: who works or waits for it gives up.
    pub(crate) fn check_going(&self) -> Result<()> {
        if self.tree.is_cancelled() {
            return Err(being_closed());
        }
        Ok(())
    }

    /// Lets no call begin any more and waits for those at work, which have been told to give up.
    pub(super) fn end_calls(&self) {
        {
            let mut state = self.callers.state.lock();
            state.is_ended = true;
            if state.count == 0 {
                return;
            }
        }
        // Those who wait for the background look again.
        self.signals.progress.ring();
        self.executor.wait(&self.signals.progress, &mut || {
            self.callers.state.lock().count == 0
        });
    }
}

fn being_closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is being closed")
        .with_outcome(WriteOutcome::Rejected)
}
