//! A file system for tools that look at files they did not write: nothing is changed through it,
//! and no link is followed.

use std::path::Path;

use base::error::{Error, ErrorKind, Result};
use base::fs::{DirEntry, File, FileSystem, LockGuard, OsFs, Status, Watch};
use base::sync::Arc;

/// The operating system's files, for reading. Everything that would change one is `Unsupported`.
#[derive(Debug, Default)]
pub struct ReadOnlyFs(OsFs);

impl ReadOnlyFs {
    /// The files of this machine.
    pub fn new() -> Self {
        Self::default()
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
        self.0.open_untrusted(path)
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.0.open_untrusted(path)
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
        self.0.list(dir)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        self.0.status(path)
    }

    /// Holds off other processes, but only where a lock file is already.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        match self.0.status(path)? {
            Some(_) => self.0.lock(path),
            None => refused(path),
        }
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.0.free_bytes(dir)
    }

    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        self.0.watch(dir)
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
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
