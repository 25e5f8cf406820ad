//! A file system that fails when told to, in front of any other one.
//!
//! In front of a [`SimFs`](super::sim::SimFs) use its own [`faults`](super::sim::SimFs::faults)
//! instead: the simulation must know of a failed write or sync, to lose the right bytes in a crash
//! and to notice that the file is used again.

use std::path::Path;

use super::{
    Access, Arc, DirEntry, File, FileSystem, LiveMap, LockGuard, Mapping, Result, Status, Watch,
};

mod plan;

pub(crate) use plan::flip;
pub use plan::{Effect, Fault, FaultError, FaultPlan, OpKind, PathFilter, Repeat};

/// Passes calls on to another file system, except for those that shall fail.
#[derive(Debug)]
pub struct FaultFs {
    inner: Arc<dyn FileSystem>,
    plan: Arc<FaultPlan>,
}

impl FaultFs {
    /// Stands in front of `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn FileSystem>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plan: Arc::default(),
        })
    }

    /// Plans one more fault.
    ///
    /// # Panics
    /// If `fault.nth` is 0: calls are counted from 1.
    pub fn fail(&self, fault: Fault) {
        self.plan.fail(fault);
    }

    /// Forgets every planned fault; the counters stay.
    pub fn clear(&self) {
        self.plan.clear();
    }

    /// How many calls of `kind` were made, whether or not they failed.
    pub fn calls(&self, kind: OpKind) -> u64 {
        self.plan.calls(kind)
    }

    /// The plan itself, which also tells how many faults fired.
    pub fn faults(&self) -> &FaultPlan {
        &self.plan
    }

    fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultFile {
            inner,
            plan: Arc::clone(&self.plan),
        })
    }
}

impl FileSystem for FaultFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let create = || self.inner.create(path);
        Ok(self.wrap(self.plan.around(OpKind::Create, path, create)?))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let open = || self.inner.open(path);
        Ok(self.wrap(self.plan.around(OpKind::Open, path, open)?))
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        let open = || self.inner.open_untrusted(path);
        Ok(self.wrap(self.plan.around(OpKind::Open, path, open)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = || self.inner.rename(from, to);
        self.plan.around(OpKind::Rename, to, rename)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let link = || self.inner.hard_link(from, to);
        self.plan.around(OpKind::Link, to, link)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let remove = || self.inner.remove_file(path);
        self.plan.around(OpKind::Remove, path, remove)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let remove = || self.inner.remove_dir(path);
        self.plan.around(OpKind::Remove, path, remove)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let create = || self.inner.create_dir(path);
        self.plan.around(OpKind::CreateDir, path, create)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let sync = || self.inner.sync_dir(dir);
        self.plan.around(OpKind::SyncDir, dir, sync)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let list = || self.inner.list(dir);
        self.plan.around(OpKind::List, dir, list)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        let status = || self.inner.status(path);
        self.plan.around(OpKind::Status, path, status)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        let lock = || self.inner.lock(path);
        self.plan.around(OpKind::Lock, path, lock)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let free = || self.inner.free_bytes(dir);
        self.plan.around(OpKind::FreeBytes, dir, free)
    }

    fn cache_memory_bytes(&self) -> Option<u64> {
        self.inner.cache_memory_bytes()
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        let watch = || self.inner.watch(dir);
        self.plan.around(OpKind::Watch, dir, watch)
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    plan: Arc<FaultPlan>,
}

impl File for FaultFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        let len = || self.inner.len();
        self.plan.around(OpKind::Status, self.path(), len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = |buffer: &mut [u8]| self.inner.read_at(offset, buffer);
        self.plan.around_read(self.path(), buffer, read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let (bytes, error) = match self.plan.decide(OpKind::Write, self.path()) {
            None | Some(Effect::Short { .. } | Effect::FlipBit { .. }) => (bytes, None),
            Some(Effect::Fail(error)) => (&bytes[..0], Some(error)),
            Some(Effect::FailAfter(error)) => (bytes, Some(error)),
            Some(Effect::FailPartly { bytes: kept, error }) => {
                (&bytes[..kept.min(bytes.len())], Some(error))
            }
        };
        if !bytes.is_empty() {
            self.inner.write_at(offset, bytes)?;
        }
        match error {
            None => Ok(()),
            Some(error) => Err(error
                .to_error(OpKind::Write, self.path())
                .with_offset(offset)),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let set_len = || self.inner.set_len(len);
        self.plan.around(OpKind::SetLen, self.path(), set_len)
    }

    fn reserve(&self, len: u64) -> Result<bool> {
        let reserve = || self.inner.reserve(len);
        self.plan.around(OpKind::Reserve, self.path(), reserve)
    }

    fn sync(&self) -> Result<()> {
        let sync = || self.inner.sync();
        self.plan.around(OpKind::Sync, self.path(), sync)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.inner.start_writeback(offset, len);
    }

    fn map(&self, access: Access) -> Result<Mapping> {
        match self.plan.decide(OpKind::Map, self.path()) {
            None | Some(Effect::Short { .. }) => self.inner.map(access),
            Some(Effect::FlipBit { bit }) => {
                let mut bytes = self.inner.map(access)?.to_vec();
                flip(&mut bytes, bit);
                Ok(Mapping::from_memory(Arc::from(bytes)))
            }
            Some(
                Effect::Fail(error) | Effect::FailPartly { error, .. } | Effect::FailAfter(error),
            ) => Err(error.to_error(OpKind::Map, self.path())),
        }
    }

    /// The mapping may be refused; a store through it never fails.
    fn map_live(&self, len: u64) -> Result<LiveMap> {
        let map = || self.inner.map_live(len);
        self.plan.around(OpKind::MapLive, self.path(), map)
    }
}

#[cfg(test)]
mod tests;
