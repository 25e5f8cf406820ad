//! The operating system's files. All memory mapping of siltstone happens here.

use std::collections::HashSet;
use std::fs;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

#[cfg(target_os = "linux")]
use super::live::LiveKind;
use super::{
    Access, Arc, DirEntry, File, FileSystem, LockGuard, Mapping, MappingKind, Result, Status, Watch,
};
use crate::error::{Error, ErrorKind};
use crate::fork::Origin;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
impl FileSystem for OsFs {
    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| Error::io(path, "create", source))?;
        Ok(Arc::new(OsFile {
            file: Arc::new(file),
            path: path.to_owned(),
        }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = fs::File::open(path).map_err(|source| Error::io(path, "open", source))?;
        Ok(Arc::new(OsFile {
            file: Arc::new(file),
            path: path.to_owned(),
        }))
    }

    fn open_untrusted(&self, path: &Path) -> Result<Arc<dyn File>> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).expect("open flags fit an int"))
            .open(path)
            .map_err(|source| Error::io(path, "open", source))?;
        let metadata = file
            .metadata()
            .map_err(|source| Error::io(path, "stat", source))?;
        if !metadata.is_file() {
            return Err(Error::invalid_argument("not a regular file").with_path(path));
        }
        Ok(Arc::new(OsFile {
            file: Arc::new(file),
            path: path.to_owned(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|source| Error::io(to, "rename", source))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to).map_err(|source| Error::io(to, "link", source))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|source| Error::io(path, "unlink", source))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        fs::remove_dir(path).map_err(|source| Error::io(path, "remove directory", source))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result.map_err(|source| Error::io(path, "create directory", source)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let file = fs::File::open(dir).map_err(|source| Error::io(dir, "open", source))?;
        file.sync_all()
            .map_err(|source| Error::io(dir, "sync directory", source))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let error = |source| Error::io(dir, "list directory", source);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: entry.file_type().map_err(error)?.is_dir(),
            });
        }
        Ok(entries)
    }

    fn status(&self, path: &Path) -> Result<Option<Status>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Status {
                len: metadata.len(),
                is_dir: metadata.is_dir(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(path, "stat", source)),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let stat =
            rustix::fs::statvfs(dir).map_err(|source| Error::io(dir, "statvfs", source.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn cache_memory_bytes(&self) -> Option<u64> {
        crate::machine::available_bytes()
    }

    #[cfg(target_os = "linux")]
    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        use rustix::fs::inotify;
        let error = |source: rustix::io::Errno| Error::io(dir, "watch", source.into());
        let descriptor =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
                .map_err(error)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&descriptor, dir, events).map_err(error)?;
        Ok(Box::new(OsWatch {
            descriptor,
            dir: dir.to_owned(),
        }))
    }

    #[cfg(not(target_os = "linux"))]
    fn watch(&self, dir: &Path) -> Result<Box<dyn Watch>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "directories cannot be watched on this system",
        )
        .with_path(dir))
    }

    #[cfg(target_os = "linux")]
    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .expect("eight random bytes are always to be had after boot");
        u64::from_le_bytes(bytes)
    }

    #[cfg(not(target_os = "linux"))]
    fn random_u64(&self) -> u64 {
        use std::io::Read;
        let mut bytes = [0; 8];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .expect("every Unix has random bytes there");
        u64::from_le_bytes(bytes)
    }
}

#[derive(Clone, Debug)]
struct OsFile {
    file: Arc<fs::File>,
    path: PathBuf,
}

impl OsFile {
    fn error(&self, operation: &str, offset: u64, source: io::Error) -> Error {
        Error::io(&self.path, operation, source).with_offset(offset)
    }
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        let metadata = self
            .file
            .metadata()
            .map_err(|source| Error::io(&self.path, "stat", source))?;
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..)
            && !rest.is_empty()
        {
            let at = offset.saturating_add(read as u64);
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.error("read", at, source)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|source| self.error("write", offset, source))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(|source| self.error("truncate", len, source))
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, len: u64) -> Result<bool> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(source) => Err(self.error("reserve", len, source.into())),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, _len: u64) -> Result<bool> {
        Ok(false)
    }

    fn sync(&self) -> Result<()> {
        // On macOS the standard library turns this into F_FULLFSYNC.
        self.file
            .sync_data()
            .map_err(|source| Error::io(&self.path, "sync", source))
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        start_writeback(&self.file, offset, len);
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    fn map(&self, access: Access) -> Result<Mapping> {
        if self.len()? == 0 {
            return Ok(Mapping::from_memory(Arc::from([])));
        }
        #[expect(unsafe_code, reason = "all mapping happens in this module")]
        // SAFETY: the file is finished. The house never writes or truncates a finished file, it
        // only unlinks it (fs rule 3), so the mapping cannot shrink or change while it lives.
        let map = unsafe { memmap2::Mmap::map(&self.file) }
            .map_err(|source| Error::io(&self.path, "map", source))?;
        let advice = match access {
            Access::Random => memmap2::Advice::Random,
            Access::Sequential => memmap2::Advice::Sequential,
        };
        // Advice changes speed only; a system that refuses it still serves the mapping.
        let _ = map.advise(advice);
        Ok(Mapping(MappingKind::Os(Arc::new(map))))
    }

    #[cfg(target_os = "linux")]
    fn map_live(&self, len: u64) -> Result<super::LiveMap> {
        let error = |source| Error::io(&self.path, "map", source);
        let unsupported =
            |message: &str| Err(Error::new(ErrorKind::Unsupported, message).with_path(&self.path));
        if !overwrites_in_place(&self.file).map_err(|errno| error(errno.into()))? {
            return unsupported("the file system may need space to write what was reserved");
        }
        let Ok(bytes) = usize::try_from(len) else {
            return unsupported("the file does not fit into memory");
        };
        let map = memmap2::MmapOptions::new()
            .len(bytes)
            .map_raw(&*self.file)
            .map_err(error)?;
        let mut map = super::LiveMap::new(LiveKind::Os(map, Box::new(self.clone())), len);
        map.extend()?;
        Ok(map)
    }
}

/// Whether this file system keeps reserved blocks where they are, however often they are written.
/// One that copies on write needs new space for every page that a sync has cleaned; a store that
/// finds none ends the process.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &fs::File) -> Result<bool, rustix::io::Errno> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(matches!(
        kind,
        libc::EXT4_SUPER_MAGIC | libc::XFS_SUPER_MAGIC | libc::TMPFS_MAGIC
    ))
}

/// Starts to write the dirty pages of the range, without waiting for any.
#[cfg(target_os = "linux")]
fn start_writeback(file: &fs::File, offset: u64, len: u64) {
    // Only this flag: the two that wait would also take note of a write error, and the sync that
    // must report it would then succeed.
    const FLAGS: libc::c_uint = libc::SYNC_FILE_RANGE_WRITE;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return;
    };
    if len == 0 {
        // To the system call that would mean up to the end of the file.
        return;
    }
    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    // SAFETY: the descriptor is open, because `file` is borrowed for the whole call. The other
    // arguments are plain numbers, and the system writes to no memory of this process.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, FLAGS) };
    // A hint: a system that refuses it still writes the pages at the sync.
    let _ = result;
}

/// Files locked by this process, by device and inode. An advisory lock does not exclude a second
/// handle of the same process everywhere, and opening a locked file to look at it must not be able
/// to release the lock.
static LOCKED: LazyLock<Mutex<HashSet<(u64, u64)>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
struct OsLock {
    identity: (u64, u64),
    origin: Origin,
    // Only ever closed, never explicitly unlocked: an unlock would also release the lock of a
    // forked copy of this descriptor.
    _file: fs::File,
}

impl LockGuard for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        if self.origin.is_inherited() {
            // A thread that is not here may hold the table for ever. Whatever it says, the system
            // lets nobody lock the file while the parent has it.
            if let Ok(mut locked) = LOCKED.try_lock() {
                locked.remove(&self.identity);
            }
            return;
        }
        LOCKED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.identity);
    }
}

/// How often, and after how long, a lock that another process holds is tried again.
const LOCK_RETRY_COUNT: u32 = 20;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(5);

fn lock(path: &Path) -> Result<Box<dyn LockGuard>> {
    let in_use = || {
        Error::new(
            ErrorKind::AlreadyOpen,
            "the directory is in use by another handle or process; close it first",
        )
        .with_path(path)
    };
    // Held across the whole attempt, so that two threads cannot both find the table empty.
    let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|source| Error::io(path, "open", source))?;
    let metadata = file
        .metadata()
        .map_err(|source| Error::io(path, "stat", source))?;
    let identity = (metadata.dev(), metadata.ino());
    if locked.contains(&identity) {
        return Err(in_use());
    }
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    let mut taken = rustix::fs::flock(&file, exclusive);
    // A program that another thread starts holds our descriptors, and with them a lock just given
    // up, from its fork until its exec: that passes within milliseconds.
    for _ in 0..LOCK_RETRY_COUNT {
        if taken != Err(rustix::io::Errno::WOULDBLOCK) {
            break;
        }
        std::thread::park_timeout(LOCK_RETRY_PAUSE);
        taken = rustix::fs::flock(&file, exclusive);
    }
    match taken {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use()),
        Err(source) => return Err(Error::io(path, "lock", source.into())),
    }
    locked.insert(identity);
    Ok(Box::new(OsLock {
        identity,
        origin: Origin::here(),
        _file: file,
    }))
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct OsWatch {
    descriptor: rustix::fd::OwnedFd,
    dir: PathBuf,
}

#[cfg(target_os = "linux")]
impl Watch for OsWatch {
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::io::Errno;
        let error = |source: Errno| Error::io(&self.dir, "watch", source.into());
        let timeout =
            Timespec::try_from(timeout).map_err(|_| Error::invalid_argument("timeout too long"))?;
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(source) => return Err(error(source)),
        }
        // Which file it was does not matter: the caller looks for itself.
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.descriptor, &mut events) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(true),
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(error(source)),
            }
        }
    }
}
