//! Files in memory for the tests of this crate: fixed ids, bytes that can be changed at will.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::cursor::VecEntry;
use base::fs::{DirEntry, File, FileSystem, LockGuard, MemoryFile, Status, Watch};
pub(crate) use base::random::Random;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, InternalKey, KeyKind, Result, SequenceNumber};

use crate::{ReaderOptions, TableOptions, TableReader, TableSummary, TableWriter};

/// A directory of [`MemoryFile`]s whose random numbers are 1, 2, 3 and so on
#[derive(Debug, Default)]
pub(crate) struct MemFs {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
    random: AtomicU64,
    /// How many of the next opens fail as if descriptors had run out.
    pub(crate) refuse_opens: AtomicU64,
}

fn not_here() -> Error {
    Error::new(ErrorKind::Unsupported, "not in this test")
}

impl FileSystem for MemFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = Arc::new(MemoryFile::new(path, Vec::new()));
        self.files.lock().insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let refuse = self
            .refuse_opens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if refuse.is_ok() {
            return Err(Error::new(ErrorKind::Io, "too many open files").with_path(path));
        }
        match self.files.lock().get(path) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn File>),
            None => Err(Error::new(ErrorKind::NotFound, "open failed").with_path(path)),
        }
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        Err(not_here())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.files.lock().remove(path);
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn list(&self, _dir: &Path) -> Result<Vec<DirEntry>> {
        Err(not_here())
    }

    fn status(&self, _path: &Path) -> Result<Option<Status>> {
        Err(not_here())
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn LockGuard>> {
        Err(not_here())
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        Err(not_here())
    }

    fn watch(&self, _dir: &Path) -> Result<Box<dyn Watch>> {
        Err(not_here())
    }

    fn random_u64(&self) -> u64 {
        self.random.fetch_add(1, Ordering::Relaxed) + 1
    }
}

pub(crate) fn seq(number: u64) -> SequenceNumber {
    SequenceNumber::new(number).expect("56 bits")
}

/// Sorted entries without duplicates.
pub(crate) fn sorted(mut entries: Vec<VecEntry>) -> Vec<VecEntry> {
    entries.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    entries.dedup_by(|a, b| key_of(a) == key_of(b));
    entries
}

pub(crate) fn key_of(entry: &VecEntry) -> InternalKey<'_> {
    InternalKey::new(&entry.0, entry.1, entry.2)
}

pub(crate) fn put(key: impl AsRef<[u8]>, number: u64, value: impl AsRef<[u8]>) -> VecEntry {
    let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
    (key, seq(number), KeyKind::Put, value)
}

pub(crate) fn delete(key: impl AsRef<[u8]>, number: u64) -> VecEntry {
    (
        key.as_ref().to_vec(),
        seq(number),
        KeyKind::Delete,
        Vec::new(),
    )
}

/// A file of these bytes.
pub(crate) fn file(bytes: Vec<u8>) -> Arc<MemoryFile> {
    Arc::new(MemoryFile::new(Path::new("test.sst"), bytes))
}

/// The bytes of a table of `entries`, which are sorted.
pub(crate) fn table(entries: &[VecEntry], options: &TableOptions) -> (Vec<u8>, TableSummary) {
    table_of(&MemFs::default(), entries, options)
}

/// The same with another file id.
pub(crate) fn table_with_id(entries: &[VecEntry], options: &TableOptions, id: u64) -> Vec<u8> {
    let fs = MemFs::default();
    fs.random.store(id - 1, Ordering::Relaxed);
    table_of(&fs, entries, options).0
}

/// Writes a table of `entries` to `test.sst` of `fs`.
pub(crate) fn table_of(
    fs: &MemFs,
    entries: &[VecEntry],
    options: &TableOptions,
) -> (Vec<u8>, TableSummary) {
    let path = Path::new("test.sst");
    let mut writer = TableWriter::create(fs, path, options.clone()).expect("created");
    for entry in entries {
        writer.add(key_of(entry), &entry.3).expect("added");
    }
    assert_eq!(writer.entry_count(), entries.len() as u64);
    let summary = writer.finish().expect("finished");
    let bytes = fs.files.lock()[path].bytes();
    assert_eq!(bytes.len() as u64, summary.file_bytes);
    (bytes, summary)
}

pub(crate) fn open(bytes: &[u8], options: &ReaderOptions) -> Result<Arc<TableReader>> {
    TableReader::open(file(bytes.to_vec()), options, None, 1)
}
