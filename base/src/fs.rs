//! Files, through a seam: the operating system's in life, a simulation under a test.
//!
//! Rules for everyone who uses it:
//! 1. A finished file is made durable by [`File::sync`] *and* [`FileSystem::sync_dir`].
//! 2. After a failed write or sync a file is unfit; it is not written again.
//! 3. A mapped file is never written or truncated, it is only unlinked. The one exception is a live
//!    segment, which is written through its [`LiveMap`] and not truncated while that lives.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

mod count;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
mod live;
mod memory;
mod os;
mod overlay;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

pub use count::{CountingFs, IoCounts};
pub use live::{LiveAhead, LiveMap, LiveRange};
pub use memory::MemoryFile;
pub use os::OsFs;
pub use overlay::OverlayFs;

/// A file system, as much of it as an engine needs. Every method blocks.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Creates `path`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// If it exists (`Io`), or the system refuses.
    fn create(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens `path` for reading.
    ///
    /// # Errors
    /// `NotFound`, or the system refuses.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens `path` for reading without following a symbolic link, for files of unknown origin.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if it is no regular file.
    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Replaces `to` by `from`, atomically.
    ///
    /// # Errors
    /// If the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives the file `from` the name `to` as well, which must not exist.
    ///
    /// # Errors
    /// `Unsupported` where a file can have one name only; otherwise if the system refuses, as it
    /// does between two devices.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let message = "files here have one name only";
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_path(to)
            .with_value("from", from.display()))
    }

    /// Removes the name `path`.
    ///
    /// # Errors
    /// `NotFound`, or the system refuses.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes the directory `path`, which must be empty.
    ///
    /// # Errors
    /// `Unsupported` where directories stay; otherwise if the system refuses.
    fn remove_dir(&self, path: &Path) -> Result<()> {
        let message = "directories are not removed here";
        Err(Error::new(ErrorKind::Unsupported, message).with_path(path))
    }

    /// Creates the directory `path`; it is no error if it exists. Its parent must exist.
    ///
    /// # Errors
    /// If the system refuses, or a file has that name.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// If the system refuses.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// The entries of `dir`, in no order.
    ///
    /// # Errors
    /// `NotFound`, or the system refuses.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>>;

    /// What `path` is, or `None` if there is nothing.
    ///
    /// # Errors
    /// If the system refuses.
    fn status(&self, path: &Path) -> Result<Option<Status>>;

    /// Takes the advisory lock of `path`, creating the file; it is held until the guard is dropped.
    ///
    /// # Errors
    /// `AlreadyOpen` if it is held, in this process or another.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>>;

    /// Bytes that an ordinary user can still write below `dir`.
    ///
    /// # Errors
    /// If the system refuses.
    fn free_bytes(&self, dir: &Path) -> Result<u64>;

    /// Memory that could hold files in the cache of the system: what is free, and what already
    /// does. `None` where it does not say, as for a file system that is not on a disk.
    fn cache_memory_bytes(&self) -> Option<u64> {
        None
    }

    /// Watches the files of `dir` for changes by anybody.
    ///
    /// # Errors
    /// `Unsupported` where the system cannot.
    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>>;

    /// A random number, for file ids and seeds.
    fn random_u64(&self) -> u64;
}

/// Held as long as a directory is in use.
pub trait LockGuard: fmt::Debug + Send + Sync {}

/// Notices changes in a directory.
pub trait Watch: fmt::Debug + Send {
    /// Waits until a file was created, written, renamed or removed since the last call, or for
    /// `timeout`. Returns whether something changed; a change may be reported more than once.
    ///
    /// # Errors
    /// If the system refuses.
    fn wait(&mut self, timeout: Duration) -> Result<bool>;
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the directory. A name that is not UTF-8 is given lossily: it is not ours.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Length in bytes.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// How a mapping will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Here and there: no readahead, which would be megabytes a fault.
    Random,
    /// From front to back.
    Sequential,
}

/// An open file. Positioned reads and writes only: no cursor is shared.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length is asked of the system"
)]
pub trait File: fmt::Debug + Send + Sync {
    /// The path it was opened by.
    fn path(&self) -> &Path;

    /// Length in bytes.
    ///
    /// # Errors
    /// If the system refuses.
    fn len(&self) -> Result<u64>;

    /// Reads at `offset` until `buffer` is full or the file ends; returns how many bytes came.
    /// Interrupted and partial reads are continued.
    ///
    /// # Errors
    /// If the system refuses.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// `NoSpace`, or the system refuses; any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// If the system refuses.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Reserves space so that the file reads as zeros up to `len` and writing there cannot run out.
    /// Returns whether the file system really reserved it.
    ///
    /// # Errors
    /// `NoSpace`, or the system refuses.
    fn reserve(&self, len: u64) -> Result<bool>;

    /// Makes data and length durable (fdatasync; `F_FULLFSYNC` on macOS).
    ///
    /// # Errors
    /// After a failure nothing is known of what was written since the last success.
    fn sync(&self) -> Result<()>;

    /// Asks for the pages in the range to be written soon; promises nothing.
    fn start_writeback(&self, offset: u64, len: u64);

    /// Maps the whole file, which must be finished and synced.
    ///
    /// # Errors
    /// `Unsupported` if the platform cannot; otherwise if the system refuses.
    fn map(&self, access: Access) -> Result<Mapping>;

    /// Maps the first `len` bytes for writing; usable is what [`File::reserve`] has reserved of
    /// them, see [`LiveMap::extend`]. Until the mapping was closed the file is only made longer by
    /// reserving more; it may be written in both ways.
    ///
    /// # Errors
    /// `Unsupported` where a store could meet a full disk although space was reserved, or where
    /// nothing can be mapped; otherwise if the system refuses. The file is as it was.
    fn map_live(&self, len: u64) -> Result<LiveMap> {
        let message = "this file cannot be written through a mapping";
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_path(self.path())
            .with_value("len", len))
    }

    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `Corruption` if the file ends before; otherwise as [`File::read_at`].
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.read_at(offset, buffer)?;
        if read == buffer.len() {
            return Ok(());
        }
        Err(Error::corruption(self.path(), offset, "file ends early")
            .with_value("wanted", buffer.len())
            .with_value("found", read))
    }
}

/// A read-only view of a whole finished file. Cloning shares it.
#[derive(Clone)]
pub struct Mapping(MappingKind);

#[derive(Clone)]
enum MappingKind {
    Os(Arc<memmap2::Mmap>),
    Memory(Arc<[u8]>),
}

impl Mapping {
    /// A view of bytes that are in memory anyway.
    pub fn from_memory(bytes: Arc<[u8]>) -> Self {
        Self(MappingKind::Memory(bytes))
    }
}

impl Mapping {
    /// Asks for the pages in the range to be read soon; promises nothing.
    ///
    /// Works whatever the mapping's [`Access`]: a scan over a mapping made for random access asks
    /// ahead of itself with this.
    pub fn will_need(&self, offset: u64, len: u64) {
        let MappingKind::Os(map) = &self.0 else {
            return;
        };
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else {
            return;
        };
        let len = len.min(map.len().saturating_sub(offset));
        if len > 0 {
            // Advice changes speed only; a system that refuses it still serves the mapping.
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            MappingKind::Os(map) => map,
            MappingKind::Memory(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("len", &self.len()).finish()
    }
}

/// Reads the whole of `path` if it holds at most `bytes_max`.
///
/// # Errors
/// `Corruption` if the file is larger; otherwise as the file system says.
pub fn read_small_file(fs: &dyn FileSystem, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = fs.open(path)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(
            Error::corruption(path, bytes_max, "file is longer than it can be")
                .with_value("len", len)
                .with_value("max", bytes_max),
        );
    }
    let len = usize::try_from(len).map_err(|_| Error::invalid_argument("file too large"))?;
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Creates `path` and every missing directory above it, and makes the new names durable.
///
/// # Errors
/// As the file system says.
pub fn create_dir_all(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = Some(path);
    while let Some(dir) = at {
        if dir.as_os_str().is_empty() || fs.status(dir)?.is_some() {
            break;
        }
        missing.push(dir.to_owned());
        at = dir.parent();
    }
    for dir in missing.iter().rev() {
        fs.create_dir(dir)?;
        fs.sync_dir(parent_of(dir))?;
    }
    Ok(())
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests;
