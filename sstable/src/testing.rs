//! Files in memory for the tests of this crate: fixed ids, bytes that can be changed at will.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::cursor::VecEntry;
use base::fs::{Access, DirEntry, File, FileSystem, LockGuard, Mapping, Status, Watch};
pub(crate) use base::random::Random;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, InternalKey, KeyKind, Result, SequenceNumber};

use crate::{ReaderOptions, TableOptions, TableReader, TableSummary, TableWriter};

#[derive(Debug)]
pub(crate) struct MemFile {
    path: PathBuf,
    bytes: Mutex<Vec<u8>>,
    /// Bytes returned by positioned reads.
    pub(crate) read_bytes: AtomicU64,
}

impl MemFile {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Self::at(Path::new("test.sst"), bytes)
    }

    fn at(path: &Path, bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            bytes: Mutex::new(bytes),
            read_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }
}

impl File for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.bytes.lock();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        self.read_bytes.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    fn write_at(&self, offset: u64, written: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.lock();
        let start = usize::try_from(offset).expect("small");
        let len = bytes.len().max(start + written.len());
        bytes.resize(len, 0);
        bytes[start..start + written.len()].copy_from_slice(written);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes
            .lock()
            .resize(usize::try_from(len).expect("small"), 0);
        Ok(())
    }

    fn reserve(&self, _len: u64) -> Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) {}

    fn map(&self, _access: Access) -> Result<Mapping> {
        Ok(Mapping::from_memory(Arc::from(self.bytes())))
    }
}

/// A directory of [`MemFile`]s whose random numbers are 1, 2, 3 and so on
#[derive(Debug, Default)]
pub(crate) struct MemFs {
    files: Mutex<BTreeMap<PathBuf, Arc<MemFile>>>,
    random: AtomicU64,
    /// How many of the next opens fail as if descriptors had run out.
    pub(crate) refuse_opens: AtomicU64,
}

fn not_here() -> Error {
    Error::new(ErrorKind::Unsupported, "not in this test")
}

impl FileSystem for MemFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = MemFile::at(path, Vec::new());
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
    TableReader::open(MemFile::new(bytes.to_vec()), options, None, 1)
}
