//! A file system over another that keeps every change to itself: what an engine or a tool would do
//! to files happens in memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{DirEntry, File, FileSystem, LockGuard, MemoryFile, Status, Watch, parent_of};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

/// Reads from the file system below, writes into memory. Nothing below is changed.
#[derive(Debug)]
pub struct OverlayFs {
    below: Arc<dyn FileSystem>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What a path means here; a path without an entry means what it means below.
    names: BTreeMap<PathBuf, Name>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug)]
enum Name {
    Gone,
    /// Another path of the file system below.
    Below(PathBuf),
    Memory(Arc<MemoryFile>),
}

impl OverlayFs {
    /// A layer over `below`.
    pub fn new(below: Arc<dyn FileSystem>) -> Self {
        Self {
            below,
            state: Mutex::default(),
        }
    }

    fn name(&self, path: &Path) -> Name {
        let state = self.state.lock();
        let found = state.names.get(path).cloned();
        found.unwrap_or_else(|| Name::Below(path.to_owned()))
    }
}

#[derive(Debug)]
struct NoLock;

impl LockGuard for NoLock {}

fn not_found(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such file").with_path(path)
}

impl FileSystem for OverlayFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        if self.status(path)?.is_some() {
            return Err(Error::new(ErrorKind::Io, "the file exists").with_path(path));
        }
        let file = Arc::new(MemoryFile::new(path, Vec::new()));
        let name = Name::Memory(Arc::clone(&file));
        self.state.lock().names.insert(path.to_owned(), name);
        Ok(file)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        match self.name(path) {
            Name::Gone => Err(not_found(path)),
            Name::Below(path) => self.below.open(&path),
            Name::Memory(file) => Ok(file),
        }
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        match self.name(path) {
            Name::Below(path) => self.below.open_untrusted(&path),
            _ => self.open(path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.status(from)?.ok_or_else(|| not_found(from))?;
        let name = self.name(from);
        let mut state = self.state.lock();
        state.names.insert(to.to_owned(), name);
        state.names.insert(from.to_owned(), Name::Gone);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.status(path)?.ok_or_else(|| not_found(path))?;
        self.state.lock().names.insert(path.to_owned(), Name::Gone);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.state.lock().dirs.insert(path.to_owned());
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let state = self.state.lock();
        let mut entries = match self.below.list(dir) {
            Err(error) if error.is_not_found() && state.dirs.contains(dir) => Vec::new(),
            listed => listed?,
        };
        entries.retain(|entry| !state.names.contains_key(&dir.join(&entry.name)));
        for (path, name) in &state.names {
            let is_here = parent_of(path) == dir && !matches!(name, Name::Gone);
            if is_here && let Some(name) = path.file_name() {
                entries.push(DirEntry {
                    name: name.to_string_lossy().into_owned(),
                    is_dir: false,
                });
            }
        }
        Ok(entries)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        match self.name(path) {
            Name::Gone => Ok(None),
            Name::Memory(file) => Ok(Some(Status {
                len: file.len()?,
                is_dir: false,
            })),
            Name::Below(below) => {
                let is_new_dir = self.state.lock().dirs.contains(path);
                let new_dir = is_new_dir.then_some(Status {
                    len: 0,
                    is_dir: true,
                });
                Ok(self.below.status(&below)?.or(new_dir))
            }
        }
    }

    /// Changes stay here, so that nobody need be kept away: no lock is taken below.
    fn lock(&self, _path: &Path) -> Result<Box<dyn LockGuard>> {
        Ok(Box::new(NoLock))
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.below.free_bytes(dir)
    }

    fn cache_memory_bytes(&self) -> Option<u64> {
        self.below.cache_memory_bytes()
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
    use crate::fs::OsFs;

    fn names(fs: &dyn FileSystem, dir: &Path) -> Vec<String> {
        let listed = fs.list(dir).expect("it is there");
        let mut names: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn changes_are_seen_above_and_not_below() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        let below = Arc::new(OsFs);
        for name in ["keep", "move", "remove"] {
            let file = below.create(&dir.join(name)).expect("a new file");
            file.write_at(0, name.as_bytes()).expect("a small write");
        }
        let fs = OverlayFs::new(below.clone());
        fs.create_dir(&dir.join("lost")).expect("in memory");
        let (from, to) = (dir.join("move"), dir.join("lost/moved"));
        fs.rename(&from, &to).expect("in memory");
        fs.remove_file(&dir.join("remove")).expect("in memory");
        let new = fs.create(&dir.join("new")).expect("in memory");
        new.write_at(3, b"bytes").expect("in memory");
        assert!(fs.create(&dir.join("keep")).is_err());
        assert!(fs.open(&dir.join("remove")).is_err());
        assert!(fs.remove_file(&dir.join("remove")).is_err());
        assert_eq!(names(&fs, dir), ["keep", "new"]);
        assert_eq!(names(&fs, &dir.join("lost")), ["moved"]);
        let mut bytes = [0; 8];
        let read = |path: &Path, bytes: &mut [u8]| {
            let file = fs.open(path).expect("it is there");
            file.read_at(0, bytes).expect("readable")
        };
        assert_eq!(read(&to, &mut bytes), 4);
        assert_eq!(&bytes[..4], b"move");
        assert_eq!(read(&dir.join("new"), &mut bytes), 8);
        assert_eq!(&bytes, b"\0\0\0bytes");
        assert_eq!(names(&*below, dir), ["keep", "move", "remove"]);
    }
}
