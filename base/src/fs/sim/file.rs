//! Open files, locks and watches of a simulated file system.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::state::{NodeId, os_error};
use super::{Op, SimFs, crashed};
use crate::error::Result;
use crate::fs::fault::{Effect, OpKind, flip};
use crate::fs::live::LiveKind;
use crate::fs::{Access, File, LiveMap, LockGuard, Mapping, Watch};
use crate::sync::{Arc, Bell};

pub(super) struct SimFile {
    fs: SimFs,
    node: NodeId,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// A handle of `node`, which the caller has counted with `State::opened`.
    pub(super) fn new(fs: &SimFs, node: NodeId, path: &Path, writable: bool) -> Self {
        Self {
            fs: fs.clone(),
            node,
            path: path.to_owned(),
            writable,
        }
    }

    fn op(&self, kind: OpKind, offset: u64) -> Op<'_> {
        Op {
            offset,
            ..Op::new(kind, &self.path)
        }
    }

    fn check_writable(&self, kind: OpKind) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(os_error(kind, &self.path, Errno::BADF))
    }

    /// Writes, and when the system crashes in it, only a part.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let op = Op {
            bytes,
            ..self.op(OpKind::Write, offset)
        };
        let (mut state, crashes) = self.fs.admit(&op)?;
        if !crashes {
            return state.write(self.node, &self.path, offset, bytes);
        }
        let kept = state.chance.index(bytes.len() + 1);
        state.write_unchecked(self.node, offset, &bytes[..kept]);
        Err(crashed(OpKind::Write, &self.path))
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.fs.shared.state.lock().closed(self.node);
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.fs.faults().around(OpKind::Status, &self.path, || {
            let state = self.fs.look(OpKind::Status, &self.path)?;
            Ok(state.file(self.node).current.len())
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = |buffer: &mut [u8]| {
            let state = self.fs.look(OpKind::Read, &self.path)?;
            Ok(state.file(self.node).current.read(offset, buffer))
        };
        self.fs.faults().around_read(&self.path, buffer, read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_writable(OpKind::Write)?;
        let (kept, error) = match self.fs.faults().decide(OpKind::Write, &self.path) {
            None | Some(Effect::Short { .. } | Effect::FlipBit { .. }) => {
                return self.write(offset, bytes);
            }
            Some(Effect::Fail(error)) => (0, error),
            Some(Effect::FailAfter(error)) => (bytes.len(), error),
            Some(Effect::FailPartly { bytes: kept, error }) => (kept.min(bytes.len()), error),
        };
        // A call that stores nothing is a call all the same: it is seen, counted and checked.
        self.write(offset, &bytes[..kept])?;
        self.fs.shared.state.lock().write_failed(self.node, offset);
        Err(error
            .to_error(OpKind::Write, &self.path)
            .with_offset(offset))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable(OpKind::SetLen)?;
        self.fs.faults().around(OpKind::SetLen, &self.path, || {
            self.fs.mutate(&self.op(OpKind::SetLen, len), |state| {
                state.set_len(self.node, &self.path, len)
            })
        })
    }

    fn reserve(&self, len: u64) -> Result<bool> {
        self.check_writable(OpKind::Reserve)?;
        self.fs.faults().around(OpKind::Reserve, &self.path, || {
            self.fs.mutate(&self.op(OpKind::Reserve, len), |state| {
                state.reserve(self.node, &self.path, len)?;
                Ok(true)
            })
        })
    }

    fn sync(&self) -> Result<()> {
        let effect = self.fs.faults().decide(OpKind::Sync, &self.path);
        let error = match effect {
            None | Some(Effect::Short { .. } | Effect::FlipBit { .. }) => None,
            Some(
                Effect::Fail(error) | Effect::FailPartly { error, .. } | Effect::FailAfter(error),
            ) => Some(error),
        };
        self.fs.mutate(&self.op(OpKind::Sync, 0), |state| {
            let Some(error) = error else {
                state.sync(self.node);
                return Ok(());
            };
            if matches!(effect, Some(Effect::FailAfter(_))) {
                state.sync(self.node);
            }
            state.sync_failed(self.node);
            Err(error.to_error(OpKind::Sync, &self.path))
        })
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {
        // What is pending may always have reached the disk already.
    }

    fn map(&self, _access: Access) -> Result<Mapping> {
        let effect = self.fs.faults().decide(OpKind::Map, &self.path);
        if let Some(
            Effect::Fail(error) | Effect::FailPartly { error, .. } | Effect::FailAfter(error),
        ) = effect
        {
            return Err(error.to_error(OpKind::Map, &self.path));
        }
        let mut state = self.fs.look(OpKind::Map, &self.path)?;
        state.check_map(self.node, &self.path)?;
        let file = state.file_mut(self.node);
        file.mapped = true;
        let bytes = file.contiguous();
        drop(state);
        let Some(Effect::FlipBit { bit }) = effect else {
            return Ok(Mapping::from_memory(bytes));
        };
        let mut damaged = bytes.to_vec();
        flip(&mut damaged, bit);
        Ok(Mapping::from_memory(Arc::from(damaged)))
    }

    fn map_live(&self, len: u64) -> Result<LiveMap> {
        self.check_writable(OpKind::MapLive)?;
        self.fs.faults().around(OpKind::MapLive, &self.path, || {
            let mut state = self.fs.look(OpKind::MapLive, &self.path)?;
            state.map_live(self.node, &self.path)?;
            let live = SimLive {
                fs: self.fs.clone(),
                node: self.node,
                path: self.path.clone(),
            };
            drop(state);
            let mut map = LiveMap::new(LiveKind::Sim(live), len);
            map.extend()?;
            Ok(map)
        })
    }
}

/// A live mapping of a simulated file. A store is a write that rings no watch and cannot run out of
/// space; a power cut may keep any of its sectors, in any order.
pub(in crate::fs) struct SimLive {
    fs: SimFs,
    node: NodeId,
    path: PathBuf,
}

impl SimLive {
    /// How long the file is.
    pub(in crate::fs) fn len(&self) -> Result<u64> {
        let state = self.fs.look(OpKind::Status, &self.path)?;
        Ok(state.file(self.node).current.len())
    }

    /// Stores, and when the system crashes in it, only a part.
    pub(in crate::fs) fn store(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let op = Op {
            offset,
            bytes,
            ..Op::new(OpKind::Store, &self.path)
        };
        let (mut state, crashes) = self.fs.admit(&op)?;
        if !crashes {
            return state.store(self.node, &self.path, offset, bytes);
        }
        let kept = state.chance.index(bytes.len() + 1);
        state.write_unchecked(self.node, offset, &bytes[..kept]);
        Err(crashed(OpKind::Store, &self.path))
    }
}

impl Drop for SimLive {
    fn drop(&mut self) {
        self.fs.shared.state.lock().unmap_live(self.node);
    }
}

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) fs: SimFs,
    pub(super) node: NodeId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.fs.shared.state.lock();
        state.locked.remove(&self.node);
        state.closed(self.node);
    }
}

#[derive(Debug)]
pub(super) struct SimWatch {
    pub(super) fs: SimFs,
    pub(super) dir: PathBuf,
    pub(super) bell: Arc<Bell>,
    pub(super) seen: u64,
}

impl Watch for SimWatch {
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        drop(self.fs.look(OpKind::Watch, &self.dir)?);
        let changed = self.bell.wait_past(self.seen, Some(timeout));
        self.seen = self.bell.epoch();
        drop(self.fs.look(OpKind::Watch, &self.dir)?);
        Ok(changed)
    }
}
