//! What may be deleted, and deleting it away from every hot path.

use std::any::Any;
use std::path::PathBuf;

use base::fork::Origin;
use base::fs::FileSystem;
use base::sync::{Arc, Mutex};
use base::{FileKind, FileNumber};

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
    files: Vec<(FileKind, FileNumber)>,
    graves: Vec<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} and {} graves", self.files, self.graves.len())
    }
}

/// What [`Sweeper::sweep`] left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swept {
    Clean,
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
        self.state.lock().files.push((kind, number));
        self.signals.helper.wake();
    }

    /// Takes segments of the log with their indexes.
    pub(crate) fn unlink_segments(&self, numbers: &[FileNumber]) {
        for number in numbers {
            self.unlink(FileKind::Segment, *number);
            self.unlink(FileKind::SegmentIndex, *number);
        }
    }

    /// Unlinks what was given and frees what nobody holds.
    pub(crate) fn sweep(&self) -> Swept {
        let (files, free, waiting) = {
            let mut state = self.state.lock();
            let graves = std::mem::take(&mut state.graves);
            // Nothing hands out new references to what was buried, so that the count of one is
            // final.
            let (free, held): (Vec<_>, Vec<_>) = graves
                .into_iter()
                .partition(|grave| Arc::strong_count(grave) == 1);
            state.graves = held;
            (
                std::mem::take(&mut state.files),
                free,
                !state.graves.is_empty(),
            )
        };
        // May drop the last reference to tables, which then ask to be unlinked.
        drop(free);
        let mut failed = Vec::new();
        for (kind, number) in files {
            let path = kind.path(&self.dir, number);
            match self.fs.remove_file(&path) {
                Err(error) if !error.is_not_found() => failed.push((kind, number)),
                Err(_) => {}
                Ok(()) => self.listener.tell(|| Event::FileDeleted { path }),
            }
        }
        let mut state = self.state.lock();
        let again = !failed.is_empty() || waiting || !state.files.is_empty();
        state.files.append(&mut failed);
        if again { Swept::Waiting } else { Swept::Clean }
    }
}

impl compaction::Reaper for Sweeper {
    fn reap(&self, number: FileNumber) {
        if self.origin.is_inherited() {
            // The file is the parent's, and so may be the lock.
            return;
        }
        self.unlink(FileKind::Table, number);
    }
}
