//! What a simulated disk holds: the files with what is durable and what is pending, and the
//! counters around them. One lock guards all of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Component, Path};

use rustix::io::Errno;

use super::FailedSync;
use super::content::Content;
use super::names::Directory;
use super::random::Random;
use crate::error::{Error, Result};
use crate::fs::fault::OpKind;
use crate::sync::Arc;

/// Identifies a file or directory for the life of one simulation.
pub(super) type NodeId = u64;

/// The directory `/`.
pub(super) const ROOT: NodeId = 0;

/// The longest file, so that a wild offset is an error and no allocation.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 40;

/// How many deleted files are remembered, for their stale bytes.
const DELETED_COUNT_MAX: usize = 4;

/// Deletions between two searches for files that nothing refers to.
const DELETIONS_PER_SWEEP: u32 = 64;

/// A change of a file that no sync has covered yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Place in the order of all changes of the file system.
    pub(super) seq: u64,
    pub(super) change: FileChange,
}

#[derive(Debug)]
pub(super) enum FileChange {
    Write { offset: u64, bytes: Box<[u8]> },
    SetLen(u64),
}

impl FileChange {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::SetLen(len) => content.set_len(*len),
        }
    }

    /// The length of a file of `len` bytes after this change.
    pub(super) fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { offset, bytes } => len.max(offset + bytes.len() as u64),
            Self::SetLen(len) => *len,
        }
    }
}

/// Whether a file may still be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Fine,
    /// A write at `offset` failed; a segment may still be sealed there.
    WriteFailed {
        offset: u64,
    },
    /// A segment was sealed after a failed write.
    Sealed,
    /// What was written since the last successful sync may be gone.
    SyncFailed,
}

/// A file: what reads see, what a power cut leaves at least, and the changes between.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) current: Content,
    pub(super) durable: Content,
    pub(super) pending: Vec<Pending>,
    /// Whether a failed sync dropped changes, so that durable and pending do not add up to what
    /// reads see.
    pub(super) diverged: bool,
    pub(super) health: Health,
    pub(super) mapped: bool,
    /// How many live mappings there are.
    pub(super) live_maps: u32,
    /// The last contiguous copy, and of what.
    pub(super) snapshot: Option<(Content, Arc<[u8]>)>,
    pub(super) links: u32,
    pub(super) handles: u32,
    /// The directory that was last given a name of it, for those who watch.
    pub(super) dir: NodeId,
}

impl FileNode {
    pub(super) fn new(content: Content, dir: NodeId) -> Self {
        Self {
            current: content.clone(),
            durable: content,
            pending: Vec::new(),
            diverged: false,
            health: Health::Fine,
            mapped: false,
            live_maps: 0,
            snapshot: None,
            links: 1,
            handles: 0,
            dir,
        }
    }

    /// What a disk holds once everything pending has reached it.
    pub(super) fn settled(&self) -> Content {
        if !self.diverged {
            return self.current.clone();
        }
        let mut content = self.durable.clone();
        for pending in &self.pending {
            pending.change.apply(&mut content);
        }
        content
    }

    pub(super) fn is_synced(&self) -> bool {
        self.pending.is_empty() && !self.diverged
    }

    /// Whether the first `upto` bytes are there and durable.
    pub(super) fn is_synced_upto(&self, upto: u64) -> bool {
        let touches = |pending: &Pending| match &pending.change {
            FileChange::Write { offset, .. } => *offset < upto,
            FileChange::SetLen(len) => *len < upto,
        };
        let there = self.durable.len() >= upto && self.current.len() >= upto;
        there && !self.diverged && !self.pending.iter().any(touches)
    }

    /// The whole file in one piece, made once for each version of it.
    pub(super) fn contiguous(&mut self) -> Arc<[u8]> {
        if let Some((content, bytes)) = &self.snapshot
            && content.is_shared_with(&self.current)
        {
            return Arc::clone(bytes);
        }
        let bytes: Arc<[u8]> = Arc::from(self.current.to_vec());
        self.snapshot = Some((self.current.clone(), Arc::clone(&bytes)));
        bytes
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) files: HashMap<NodeId, FileNode>,
    pub(super) dirs: HashMap<NodeId, Directory>,
    pub(super) next_node: NodeId,
    next_seq: u64,
    /// Gives the numbers that `random_u64` hands out.
    pub(super) random: Random,
    /// Decides what the call at which the system crashes still does.
    pub(super) chance: Random,
    pub(super) quota: Option<u64>,
    pub(super) cache_memory_bytes: Option<u64>,
    used_bytes: u64,
    pub(super) locked: HashSet<NodeId>,
    pub(super) mutations: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) failed_sync: FailedSync,
    pub(super) order_checked: bool,
    pub(super) violation: Option<String>,
    pub(super) deleted: VecDeque<Content>,
    deletions: u32,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            files: HashMap::new(),
            dirs: HashMap::from([(ROOT, Directory::default())]),
            next_node: ROOT + 1,
            next_seq: 1,
            random: Random::new(seed),
            chance: Random::new(!seed),
            quota: None,
            cache_memory_bytes: None,
            used_bytes: 0,
            locked: HashSet::new(),
            mutations: 0,
            crash_at: None,
            crashed: false,
            failed_sync: FailedSync::Forgotten,
            order_checked: true,
            violation: None,
            deleted: VecDeque::new(),
            deletions: 0,
        }
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    pub(super) fn file(&self, id: NodeId) -> &FileNode {
        self.files.get(&id).expect("a file with a handle is kept")
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> &mut FileNode {
        self.files
            .get_mut(&id)
            .expect("a file with a handle is kept")
    }

    /// The file or directory at `path`, or why there is none.
    pub(super) fn resolve(&self, path: &Path) -> Result<NodeId, Errno> {
        let mut at = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let dir = self.dirs.get(&at).ok_or(Errno::NOTDIR)?;
                    let name = name.to_str().ok_or(Errno::INVAL)?;
                    at = *dir.live.get(name).ok_or(Errno::NOENT)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
            }
        }
        Ok(at)
    }

    /// The directory at `path`.
    pub(super) fn resolve_dir(&self, path: &Path) -> Result<NodeId, Errno> {
        let id = self.resolve(path)?;
        let is_dir = self.dirs.contains_key(&id);
        is_dir.then_some(id).ok_or(Errno::NOTDIR)
    }

    /// The file at `path`.
    pub(super) fn resolve_file(&self, path: &Path) -> Result<NodeId, Errno> {
        let id = self.resolve(path)?;
        let is_file = self.files.contains_key(&id);
        is_file.then_some(id).ok_or(Errno::ISDIR)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that can still be written.
    pub(super) fn free_bytes(&self) -> u64 {
        match self.quota {
            Some(quota) => quota.saturating_sub(self.used_bytes),
            None => FILE_BYTES_MAX.saturating_sub(self.used_bytes),
        }
    }

    /// Writes, as far as there is space. What fits is written even if not all does.
    pub(super) fn write(
        &mut self,
        id: NodeId,
        path: &Path,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        self.check_write(id, path, offset, bytes.len())?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > FILE_BYTES_MAX {
            return Err(os_error(OpKind::Write, path, Errno::FBIG));
        }
        let len = self.file(id).current.len();
        let growth = end.saturating_sub(len);
        let missing = growth.saturating_sub(self.free_bytes());
        let kept =
            bytes.len() - usize::try_from(missing).map_or(bytes.len(), |m| m.min(bytes.len()));
        self.write_unchecked(id, offset, &bytes[..kept]);
        if missing == 0 {
            return Ok(());
        }
        self.write_failed(id, offset);
        Err(os_error(OpKind::Write, path, Errno::NOSPC).with_offset(offset))
    }

    /// Notes that a write at `offset` failed.
    pub(super) fn write_failed(&mut self, id: NodeId, offset: u64) {
        let file = self.file_mut(id);
        if file.health == Health::Fine {
            file.health = Health::WriteFailed { offset };
        }
    }

    /// Stores through a live mapping. Nobody who watches the directory hears of it.
    pub(super) fn store(
        &mut self,
        id: NodeId,
        path: &Path,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        self.check_store(id, path, offset, bytes.len())?;
        let change = FileChange::Write {
            offset,
            bytes: Box::from(bytes),
        };
        self.change_quietly(id, change);
        Ok(())
    }

    /// Counts a live mapping, which is a handle too.
    pub(super) fn map_live(&mut self, id: NodeId, path: &Path) -> Result<()> {
        self.check_map_live(id, path)?;
        self.opened(id);
        self.file_mut(id).live_maps += 1;
        Ok(())
    }

    pub(super) fn unmap_live(&mut self, id: NodeId) {
        self.file_mut(id).live_maps -= 1;
        self.closed(id);
    }

    pub(super) fn write_unchecked(&mut self, id: NodeId, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let change = FileChange::Write {
            offset,
            bytes: Box::from(bytes),
        };
        self.change(id, change);
    }

    pub(super) fn set_len(&mut self, id: NodeId, path: &Path, len: u64) -> Result<()> {
        self.check_resize(id, path, OpKind::SetLen, len)?;
        self.resize(id, path, OpKind::SetLen, len)
    }

    pub(super) fn reserve(&mut self, id: NodeId, path: &Path, len: u64) -> Result<()> {
        if len <= self.file(id).current.len() {
            return Ok(());
        }
        self.check_resize(id, path, OpKind::Reserve, len)?;
        self.resize(id, path, OpKind::Reserve, len)
    }

    fn resize(&mut self, id: NodeId, path: &Path, kind: OpKind, len: u64) -> Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(os_error(kind, path, Errno::FBIG));
        }
        let before = self.file(id).current.len();
        if len.saturating_sub(before) > self.free_bytes() {
            return Err(os_error(kind, path, Errno::NOSPC).with_offset(len));
        }
        if len != before {
            self.change(id, FileChange::SetLen(len));
        }
        Ok(())
    }

    fn change(&mut self, id: NodeId, change: FileChange) {
        self.change_quietly(id, change);
        let dir = self.file(id).dir;
        self.ring(dir);
    }

    fn change_quietly(&mut self, id: NodeId, change: FileChange) {
        let seq = self.next_seq();
        let file = self.file_mut(id);
        let before = file.current.len();
        change.apply(&mut file.current);
        let after = file.current.len();
        file.pending.push(Pending { seq, change });
        self.used_bytes = self.used_bytes + after - before;
    }

    pub(super) fn sync(&mut self, id: NodeId) {
        let file = self.file_mut(id);
        let is_write = |pending: &Pending| matches!(pending.change, FileChange::Write { .. });
        if file.diverged || !file.pending.iter().all(is_write) {
            file.durable = file.settled();
            file.pending.clear();
            return;
        }
        // Only what was written is touched, or a sync of each record of a long file would cost the
        // length of the file.
        for pending in file.pending.drain(..) {
            if let FileChange::Write { offset, bytes } = pending.change {
                file.durable.adopt(&file.current, offset, bytes.len());
            }
        }
    }

    /// Notes that a sync failed, which takes the dirty mark off the pages.
    pub(super) fn sync_failed(&mut self, id: NodeId) {
        let mode = self.failed_sync;
        let file = self.file_mut(id);
        let before = file.current.len();
        file.health = Health::SyncFailed;
        match mode {
            FailedSync::Kept => {}
            FailedSync::Forgotten => {
                file.diverged |= !file.pending.is_empty();
                file.pending.clear();
            }
            FailedSync::Reverted => {
                file.current = file.durable.clone();
                file.pending.clear();
                file.diverged = false;
            }
        }
        let after = file.current.len();
        self.used_bytes = self.used_bytes + after - before;
    }

    /// Counts a new file that already has content.
    pub(super) fn charge(&mut self, content: &Content) {
        self.used_bytes += content.len();
    }

    pub(super) fn opened(&mut self, id: NodeId) {
        self.file_mut(id).handles += 1;
    }

    pub(super) fn closed(&mut self, id: NodeId) {
        self.file_mut(id).handles -= 1;
        self.release_if_unused(id);
    }

    /// One name of the file is gone.
    pub(super) fn unlinked(&mut self, id: NodeId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        file.links -= 1;
        if file.links == 0 {
            let content = file.current.clone();
            if self.deleted.len() == DELETED_COUNT_MAX {
                self.deleted.pop_front();
            }
            self.deleted.push_back(content);
        }
        self.release_if_unused(id);
    }

    fn release_if_unused(&mut self, id: NodeId) {
        let file = self.file(id);
        if file.links > 0 || file.handles > 0 {
            return;
        }
        self.used_bytes -= file.current.len();
        self.deletions += 1;
        if self.deletions >= DELETIONS_PER_SWEEP {
            self.deletions = 0;
            self.sweep();
        }
    }

    /// Forgets files that no name, durable or not, and no handle refers to.
    fn sweep(&mut self) {
        let mut named = HashSet::new();
        for dir in self.dirs.values() {
            dir.collect_nodes(&mut named);
        }
        self.files
            .retain(|id, file| file.links > 0 || file.handles > 0 || named.contains(id));
    }

    /// Tells those who watch `dir` that something in it changed.
    pub(super) fn ring(&self, dir: NodeId) {
        if let Some(bell) = self.dirs.get(&dir).and_then(|dir| dir.bell.as_ref()) {
            bell.ring();
        }
    }

    pub(super) fn crash(&mut self) {
        self.crashed = true;
        for dir in self.dirs.keys() {
            self.ring(*dir);
        }
    }
}

pub(super) fn os_error(kind: OpKind, path: &Path, errno: Errno) -> Error {
    Error::io(path, kind.verb(), errno.into())
}
