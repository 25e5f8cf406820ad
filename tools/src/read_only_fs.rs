//! A file system for tools that look at files they did not write: nothing is changed through it,
//! and no link is followed.

use std::path::Path;

use base::error::{Error, ErrorKind, Result};
use base::fs::{Access, DirEntry, File, FileSystem, LockGuard, Mapping, OsFs, Status, Watch};
use base::sync::Arc;

/// Files for reading. Everything that would change one is `Unsupported`.
#[derive(Debug)]
pub struct ReadOnlyFs {
    below: Arc<dyn FileSystem>,
    reads: Option<Arc<dyn Reads>>,
}

/// Reads in place of the files themselves.
pub trait Reads: std::fmt::Debug + Send + Sync + 'static {
    /// Reads from `file` as [`File::read_at`] does.
    ///
    /// # Errors
    /// Up to the implementation.
    fn read_at(&self, file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize>;
}

impl ReadOnlyFs {
    /// The files of this machine.
    pub fn new() -> Self {
        Self {
            below: Arc::new(OsFs),
            reads: None,
        }
    }

    /// Those of `below`, read through `reads` and never mapped.
    pub fn read_through(below: Arc<dyn FileSystem>, reads: Arc<dyn Reads>) -> Self {
        Self {
            below,
            reads: Some(reads),
        }
    }
}

impl Default for ReadOnlyFs {
    fn default() -> Self {
        Self::new()
    }
}

/// A file that is read through something else.
#[derive(Debug)]
struct ReadThrough {
    file: Arc<dyn File>,
    reads: Arc<dyn Reads>,
}

impl File for ReadThrough {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.reads.read_at(&*self.file, offset, buffer)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        refused(self.path())
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        refused(self.path())
    }

    fn reserve(&self, _len: u64) -> Result<bool> {
        refused(self.path())
    }

    fn sync(&self) -> Result<()> {
        refused(self.path())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn map(&self, _access: Access) -> Result<Mapping> {
        refused(self.path())
    }
}

fn refused<T>(path: &Path) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "opened for reading only").with_path(path))
}

impl FileSystem for ReadOnlyFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        refused(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open_untrusted(path)
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.below.open_untrusted(path)?;
        Ok(match &self.reads {
            None => file,
            Some(reads) => Arc::new(ReadThrough {
                file,
                reads: Arc::clone(reads),
            }),
        })
    }

    fn rename(&self, from: &Path, _to: &Path) -> Result<()> {
        refused(from)
    }

    fn hard_link(&self, _from: &Path, to: &Path) -> Result<()> {
        refused(to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        refused(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        refused(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        refused(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        refused(dir)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.below.list(dir)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        self.below.status(path)
    }

    /// Holds off other processes, but only where a lock file is already.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        match self.below.status(path)? {
            Some(_) => self.below.lock(path),
            None => refused(path),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.below.free_bytes(dir)
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        self.below.watch(dir)
    }

    fn random_u64(&self) -> u64 {
        self.below.random_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_changed_through_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let fs = ReadOnlyFs::new();
        let refusals = [
            fs.create(&path).map(drop),
            fs.rename(&path, &path),
            fs.remove_file(&path),
            fs.create_dir(&path),
            fs.sync_dir(dir.path()),
            fs.lock(&path).map(drop),
        ];
        for refusal in refusals {
            let error = refusal.expect_err("it changes something");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        assert_eq!(fs.list(dir.path()).expect("it is there"), []);
    }
}
