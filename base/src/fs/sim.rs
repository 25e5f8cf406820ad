//! A file system in memory that keeps apart what was synced and what was not, and can make every
//! disk that a power cut could leave. For tests.
//!
//! A file has durable bytes and an ordered list of pending writes and changes of length; its sync
//! makes those durable, and not its name. A directory has durable names and an ordered list of
//! pending links, unlinks and renames; its sync makes those durable. A rename within a directory is
//! atomic; a move to another one may leave both names, never none.
//!
//! ```
//! # use std::path::Path;
//! # use base::fs::{FileSystem, sim::{CrashModel, SimFs}};
//! # fn main() -> base::Result<()> {
//! let fs = SimFs::new(7);
//! let file = fs.create(Path::new("/a"))?;
//! file.write_at(0, b"abc")?;
//! file.sync()?;
//! // The bytes are durable, the name is not.
//! assert!(fs.crash_image(&CrashModel::Synced, 7).open(Path::new("/a")).is_err());
//! fs.sync_dir(Path::new("/"))?;
//! assert!(fs.crash_image(&CrashModel::Synced, 7).open(Path::new("/a")).is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! While it runs, it checks the order of calls as far as a file system can know it, and panics when
//! a rule is broken (see `order`). Paths are absolute, or relative to `/`; `..` is not understood.

use std::fmt;
use std::path::{Path, PathBuf};

use self::content::Content;
pub(super) use self::file::SimLive;
use self::file::{SimFile, SimLock, SimWatch};
use self::state::{NodeId, State, os_error};
use super::fault::{Fault, FaultPlan, OpKind};
use super::{DirEntry, File, FileSystem, LockGuard, Result, Status, Watch};
use crate::error::{Error, ErrorKind};
use crate::sync::{Arc, Mutex, MutexGuard};

mod content;
mod control;
mod file;
mod image;
mod names;
mod order;
mod random;
mod state;

pub use image::{CrashModel, Filler};

/// A mutating call, as an observer sees it before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// What is called; always one for which [`OpKind::is_mutating`] holds.
    pub kind: OpKind,
    /// The path called with; of a file, the one it was opened by; of a rename or link, the old
    /// name.
    pub path: &'a Path,
    /// The new name of a rename or link.
    pub to: Option<&'a Path>,
    /// Of a write or store where it starts; of `set_len` and `reserve` the length; otherwise 0.
    pub offset: u64,
    /// What is written or stored; of a write that a fault cuts short, what is still stored, maybe
    /// nothing.
    pub bytes: &'a [u8],
}

impl<'a> Op<'a> {
    fn new(kind: OpKind, path: &'a Path) -> Self {
        Self {
            kind,
            path,
            to: None,
            offset: 0,
            bytes: &[],
        }
    }
}

/// Sees every mutating call before it is made. It may query the file system and make images of it;
/// mutating calls of its own would be observed in turn.
pub type Observer = Arc<dyn Fn(&SimFs, &Op<'_>) + Send + Sync>;

/// What a failed sync does to the changes it should have made durable (M7). Later syncs succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// They stay pending, and the next sync makes them durable.
    Kept,
    /// Reads still return them, but they are never written: a crash loses them, as on ext4 and XFS.
    Forgotten,
    /// Reads return the bytes of the last successful sync again, as on Btrfs.
    Reverted,
}

/// The simulation; a clone is another handle of the same one.
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
    /// Whether a change or a lock through this handle breaks rule 7.
    only_reads: bool,
}

struct Shared {
    // LOCK: taken by every call and never while an observer runs or a fault is looked up.
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
    faults: FaultPlan,
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").finish_non_exhaustive()
    }
}

impl SimFs {
    /// An empty file system; what it chooses follows from `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        Self::from_state(State::new(seed))
    }

    fn from_state(state: State) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                observer: Mutex::new(None),
                faults: FaultPlan::default(),
            }),
            only_reads: false,
        })
    }

    /// Another handle of the same simulation, for somebody who must change nothing: a mutating call
    /// or a lock through it breaks rule 7 of the order checker.
    pub fn for_reading(&self) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(&self.shared),
            only_reads: true,
        })
    }

    /// The state, for a call that changes nothing.
    fn look(&self, kind: OpKind, path: &Path) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.state.lock();
        if state.crashed {
            return Err(crashed(kind, path));
        }
        Ok(state)
    }

    /// The state, for one mutating call, and whether the system crashes in it.
    fn admit(&self, op: &Op<'_>) -> Result<(MutexGuard<'_, State>, bool)> {
        debug_assert!(op.kind.is_mutating());
        self.check_may_change(op.kind, op.path)?;
        let observer = self.shared.observer.lock().clone();
        if let Some(observer) = observer {
            observer(self, op);
        }
        let mut state = self.look(op.kind, op.path)?;
        state.check_violation()?;
        state.mutations += 1;
        let crashes = state.crash_at == Some(state.mutations);
        if crashes {
            state.crash();
        }
        Ok((state, crashes))
    }

    /// Rule 7: who opened for reading changes nothing and keeps nobody out.
    fn check_may_change(&self, kind: OpKind, path: &Path) -> Result<()> {
        let mut state = self.look(kind, path)?;
        if !self.only_reads || !state.order_checked {
            return Ok(());
        }
        Err(state.violated(format!(
            "a handle for reading would {} file={}",
            kind.verb(),
            path.display()
        )))
    }

    /// Makes one mutating call. When the system crashes in it, it may be done all the same.
    fn mutate<T>(&self, op: &Op<'_>, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let (mut state, crashes) = self.admit(op)?;
        if !crashes {
            return run(&mut state);
        }
        if state.chance.coin() {
            // Nobody hears what became of it.
            let _ = run(&mut state);
        }
        Err(crashed(op.kind, op.path))
    }

    /// Creates an empty file without a handle.
    fn create_node(&self, path: &Path) -> Result<NodeId> {
        self.mutate(&Op::new(OpKind::Create, path), |state| {
            state.create_file(path)
        })
    }
}

fn crashed(kind: OpKind, path: &Path) -> Error {
    Error::new(ErrorKind::Io, format!("{} failed: crashed", kind.verb())).with_path(path)
}

impl FileSystem for SimFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.faults().around(OpKind::Create, path, || {
            let node = self.mutate(&Op::new(OpKind::Create, path), |state| {
                let node = state.create_file(path)?;
                if !state.crashed {
                    state.opened(node);
                }
                Ok(node)
            })?;
            let file: Arc<dyn File> = Arc::new(SimFile::new(self, node, path, true));
            Ok(file)
        })
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.faults().around(OpKind::Open, path, || {
            let mut state = self.look(OpKind::Open, path)?;
            let node = state
                .resolve_file(path)
                .map_err(|errno| os_error(OpKind::Open, path, errno))?;
            state.opened(node);
            drop(state);
            let file: Arc<dyn File> = Arc::new(SimFile::new(self, node, path, false));
            Ok(file)
        })
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        if self.status_now(path)?.is_some_and(|status| status.is_dir) {
            return Err(Error::invalid_argument("not a regular file").with_path(path));
        }
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let op = Op {
            to: Some(to),
            ..Op::new(OpKind::Rename, from)
        };
        self.faults().around(OpKind::Rename, to, || {
            self.mutate(&op, |state| state.rename(from, to))
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let op = Op {
            to: Some(to),
            ..Op::new(OpKind::Link, from)
        };
        self.faults().around(OpKind::Link, to, || {
            self.mutate(&op, |state| state.hard_link(from, to))
        })
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.faults().around(OpKind::Remove, path, || {
            self.mutate(&Op::new(OpKind::Remove, path), |state| {
                state.remove_file(path)
            })
        })
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.faults().around(OpKind::CreateDir, path, || {
            self.mutate(&Op::new(OpKind::CreateDir, path), |state| {
                state.create_dir(path)
            })
        })
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.faults().around(OpKind::SyncDir, dir, || {
            self.mutate(&Op::new(OpKind::SyncDir, dir), |state| state.sync_dir(dir))
        })
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.faults().around(OpKind::List, dir, || {
            let state = self.look(OpKind::List, dir)?;
            let id = state
                .resolve_dir(dir)
                .map_err(|errno| os_error(OpKind::List, dir, errno))?;
            let directory = &state.dirs[&id];
            let entries = directory.live.iter().map(|(name, node)| DirEntry {
                name: name.clone(),
                is_dir: state.dirs.contains_key(node),
            });
            // From back to front: nobody shall rely on an order.
            Ok(entries.rev().collect())
        })
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        self.faults()
            .around(OpKind::Status, path, || self.status_now(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.faults().around(OpKind::Lock, path, || {
            self.check_may_change(OpKind::Lock, path)?;
            let is_there = || Ok(self.look(OpKind::Lock, path)?.resolve_file(path).is_ok());
            if !is_there()?
                && let Err(error) = self.create_node(path)
                // Another thread may have created it first.
                && !is_there()?
            {
                return Err(error);
            }
            let mut state = self.look(OpKind::Lock, path)?;
            let node = state
                .resolve_file(path)
                .map_err(|errno| os_error(OpKind::Lock, path, errno))?;
            if !state.locked.insert(node) {
                return Err(Error::new(
                    ErrorKind::AlreadyOpen,
                    "the directory is in use by another handle or process; close it first",
                )
                .with_path(path));
            }
            state.opened(node);
            drop(state);
            let guard: Box<dyn LockGuard> = Box::new(SimLock {
                fs: self.clone(),
                node,
            });
            Ok(guard)
        })
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.faults().around(OpKind::FreeBytes, dir, || {
            Ok(self.look(OpKind::FreeBytes, dir)?.free_bytes())
        })
    }

    fn cache_memory_bytes(&self) -> Option<u64> {
        self.shared.state.lock().cache_memory_bytes
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        self.faults().around(OpKind::Watch, dir, || {
            let mut state = self.look(OpKind::Watch, dir)?;
            let id = state
                .resolve_dir(dir)
                .map_err(|errno| os_error(OpKind::Watch, dir, errno))?;
            let bell = Arc::clone(state.dir_mut(id).bell.get_or_insert_default());
            drop(state);
            let watch: Box<dyn Watch> = Box::new(SimWatch {
                fs: self.clone(),
                dir: dir.to_owned(),
                seen: bell.epoch(),
                bell,
            });
            Ok(watch)
        })
    }

    fn random_u64(&self) -> u64 {
        self.shared.state.lock().random.next_u64()
    }
}

#[cfg(test)]
mod tests;
