//! What may be deleted, and deleting it away from every hot path.
//!
//! Whoever drops the last holder of something only puts it in line here. The helper frees it; files
//! it closes, unmaps and unlinks a few at a time: file systems that discard what is unlinked make
//! every sync wait for that.

use std::any::Any;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use base::fork::Origin;
use base::fs::FileSystem;
use base::sync::{Arc, Mutex};
use base::{FileKind, FileNumber};
use sstable::TableHandle;

use crate::events::{Event, Listener};
use crate::signals::Signals;

/// Unlinks files that nothing names any more and frees what readers have let go of.
#[derive(Debug)]
pub(crate) struct Sweeper {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    state: Mutex<State>,
    signals: Arc<Signals>,
    origin: Origin,
    listener: Listener,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    files: VecDeque<Doomed>,
    graves: Vec<Arc<dyn Any + Send + Sync>>,
}

/// A file to be unlinked.
#[derive(Debug)]
struct Doomed {
    kind: FileKind,
    number: FileNumber,
    /// Of a table, what closes and unmaps it.
    table: Option<Arc<TableHandle>>,
}

/// How long to wait before looking again whether a reader has let go of what is to be freed.
pub(crate) const GRAVE_INTERVAL: Duration = Duration::from_millis(50);
/// The pause between one handful and the next, so that syncs pass in between: some four hundred
/// files a second go all the same.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// So many files are unlinked in one go. Views are freed as they come: writers wait for the memory,
/// and it costs the disk nothing.
const SWEEP_COUNT_MAX: usize = 4;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} and {} graves", self.files, self.graves.len())
    }
}

/// What [`Sweeper::sweep`] left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swept {
    Clean,
    /// There is more that can go at once.
    More,
    /// Something is still held by a reader, or a file could not be unlinked: look again later.
    Waiting,
}

impl Sweeper {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        signals: Arc<Signals>,
        listener: Listener,
    ) -> Arc<Self> {
        Arc::new(Self {
            fs,
            dir,
            state: Mutex::default(),
            signals,
            origin: Origin::here(),
            listener,
        })
    }

    /// Takes a reference that was replaced; frees it once it is the last.
    pub(crate) fn bury(&self, grave: Arc<dyn Any + Send + Sync>) {
        self.state.lock().graves.push(grave);
        self.signals.helper.wake();
    }

    /// Takes a file that no durable edit names any more.
    pub(crate) fn unlink(&self, kind: FileKind, number: FileNumber) {
        self.doom(Doomed {
            kind,
            number,
            table: None,
        });
    }

    fn doom(&self, file: Doomed) {
        self.state.lock().files.push_back(file);
        self.signals.helper.wake();
    }

    /// Takes segments of the log with their indexes.
    pub(crate) fn unlink_segments(&self, numbers: &[FileNumber]) {
        for number in numbers {
            self.unlink(FileKind::Segment, *number);
            self.unlink(FileKind::SegmentIndex, *number);
        }
    }

    /// Unlinks some of what was given and frees some of what nobody holds.
    pub(crate) fn sweep(&self) -> Swept {
        let (files, free) = {
            let mut state = self.state.lock();
            // Nothing hands out new references to what was buried, so that the count of one is
            // final.
            let is_free = |grave: &mut Arc<_>| Arc::strong_count(grave) == 1;
            let free: Vec<_> = state.graves.extract_if(.., is_free).collect();
            let count = state.files.len().min(SWEEP_COUNT_MAX);
            (state.files.drain(..count).collect::<Vec<_>>(), free)
        };
        // May drop the last reference to tables, which then ask to be unlinked.
        drop(free);
        let mut failed = Vec::new();
        for mut file in files {
            drop(file.table.take());
            let path = file.kind.path(&self.dir, file.number);
            match self.fs.remove_file(&path) {
                Err(error) if !error.is_not_found() => failed.push(file),
                Err(_) => {}
                Ok(()) => self.listener.tell(|| Event::FileDeleted { path }),
            }
        }
        let has_failed = !failed.is_empty();
        let mut state = self.state.lock();
        let is_more = !state.files.is_empty()
            || state
                .graves
                .iter()
                .any(|grave| Arc::strong_count(grave) == 1);
        state.files.extend(failed);
        if has_failed || (!is_more && !state.graves.is_empty()) {
            Swept::Waiting
        } else if is_more {
            Swept::More
        } else {
            Swept::Clean
        }
    }

    /// Frees what nobody holds any more, and unlinks nothing.
    pub(crate) fn free(&self) {
        let mut graves = std::mem::take(&mut self.state.lock().graves);
        graves.retain(|grave| Arc::strong_count(grave) > 1);
        self.state.lock().graves.append(&mut graves);
    }

    /// Does all that can be done, without a pause: where nobody waits for a sync.
    pub(crate) fn sweep_all(&self) {
        while self.sweep() == Swept::More {}
    }
}

impl compaction::Reaper for Sweeper {
    fn reap(&self, table: Arc<TableHandle>) {
        if self.origin.is_inherited() {
            // The file is the parent's, and so may be the lock.
            return;
        }
        self.doom(Doomed {
            kind: FileKind::Table,
            number: table.number(),
            table: Some(table),
        });
    }
}

#[cfg(test)]
mod tests;
