//! A file system that counts what passes through it.

use std::path::Path;

use super::{
    Access, Arc, AtomicU64, DirEntry, File, FileSystem, LiveMap, LockGuard, Mapping, Ordering,
    Result, Status, Watch,
};

/// What passed through a [`CountingFs`].
#[derive(Debug, Default)]
pub struct IoCounts {
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

impl IoCounts {
    /// Bytes returned by positioned reads. What a mapping touches only the operating system
    /// knows.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to writes, or stored through live mappings.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Successful syncs of files.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// Passes everything on to another file system, and counts.
#[derive(Debug)]
pub struct CountingFs {
    inner: Arc<dyn FileSystem>,
    counts: Arc<IoCounts>,
}

impl CountingFs {
    /// Counts what passes to `inner`.
    pub fn new(inner: Arc<dyn FileSystem>) -> Self {
        Self {
            inner,
            counts: Arc::default(),
        }
    }

    /// The counters, which go on counting.
    pub fn counts(&self) -> Arc<IoCounts> {
        Arc::clone(&self.counts)
    }

    fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CountedFile {
            inner,
            counts: self.counts(),
        })
    }
}

impl FileSystem for CountingFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(self.wrap(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(self.wrap(self.inner.open(path)?))
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        Ok(self.wrap(self.inner.open_untrusted(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.inner.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.inner.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.inner.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        self.inner.status(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn cache_memory_bytes(&self) -> Option<u64> {
        self.inner.cache_memory_bytes()
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        self.inner.watch(dir)
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}

#[derive(Debug)]
struct CountedFile {
    inner: Arc<dyn File>,
    counts: Arc<IoCounts>,
}

impl File for CountedFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read_at(offset, buffer)?;
        self.counts
            .read_bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.inner.write_at(offset, bytes)?;
        self.counts.wrote(bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn reserve(&self, len: u64) -> Result<bool> {
        self.inner.reserve(len)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()?;
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.inner.start_writeback(offset, len);
    }

    fn map(&self, access: Access) -> Result<Mapping> {
        self.inner.map(access)
    }

    fn map_live(&self, len: u64) -> Result<LiveMap> {
        let map = self.inner.map_live(len)?;
        Ok(map.counted(Arc::clone(&self.counts)))
    }
}
