//! Which call fails, how, and how often: the part that every failing file system shares.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

/// The kinds of call to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// `FileSystem::create`, and a `lock` that creates its file.
    Create,
    /// `FileSystem::open` and `open_untrusted`.
    Open,
    /// `File::read_at`.
    Read,
    /// `File::write_at`.
    Write,
    /// `File::set_len`.
    SetLen,
    /// `File::reserve`.
    Reserve,
    /// `File::sync`.
    Sync,
    /// `File::map`.
    Map,
    /// `File::map_live`.
    MapLive,
    /// A store through a live mapping, which is counted and seen, and never fails.
    Store,
    /// `FileSystem::rename`.
    Rename,
    /// `FileSystem::hard_link`.
    Link,
    /// `FileSystem::remove_file` and `remove_dir`.
    Remove,
    /// `FileSystem::create_dir`.
    CreateDir,
    /// `FileSystem::sync_dir`.
    SyncDir,
    /// `FileSystem::list`.
    List,
    /// `FileSystem::status` and `File::len`.
    Status,
    /// `FileSystem::lock`.
    Lock,
    /// `FileSystem::free_bytes`.
    FreeBytes,
    /// `FileSystem::watch`.
    Watch,
    /// Every call that changes something; see [`OpKind::is_mutating`]. Only to choose with.
    AnyMutating,
    /// Every call. Only to choose with.
    Any,
}

/// How many kinds a call can have.
const KIND_COUNT: usize = OpKind::Watch as usize + 1;

impl OpKind {
    /// Whether a call of this kind can change what is stored: create, write, set_len, reserve,
    /// sync, rename, link, remove, create_dir, sync_dir, store.
    pub const fn is_mutating(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Write
                | Self::Store
                | Self::SetLen
                | Self::Reserve
                | Self::Sync
                | Self::Rename
                | Self::Link
                | Self::Remove
                | Self::CreateDir
                | Self::SyncDir
                | Self::AnyMutating
        )
    }

    /// Whether a call of kind `call` is meant by this choice.
    pub fn includes(self, call: Self) -> bool {
        match self {
            Self::Any => true,
            Self::AnyMutating => call.is_mutating(),
            kind => kind == call,
        }
    }

    /// The verb that error messages use.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "truncate",
            Self::Reserve => "reserve",
            Self::Sync => "sync",
            Self::Map | Self::MapLive => "map",
            Self::Store => "store",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Remove => "unlink",
            Self::CreateDir => "create directory",
            Self::SyncDir => "sync directory",
            Self::List => "list directory",
            Self::Status => "stat",
            Self::Lock => "lock",
            Self::FreeBytes => "statvfs",
            Self::Watch => "watch",
            Self::AnyMutating | Self::Any => "call",
        }
    }
}

/// What the operating system would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// The device failed.
    Eio,
    /// The file system is full.
    Enospc,
    /// The user's quota is used up.
    Edquot,
    /// The process has too many open files.
    Emfile,
    /// Permission denied.
    Eacces,
    /// The file system is mounted read-only.
    Erofs,
}

impl FaultError {
    /// This failure as the standard library reports it.
    pub fn to_io(self) -> io::Error {
        match self {
            Self::Eio => Errno::IO,
            Self::Enospc => Errno::NOSPC,
            Self::Edquot => Errno::DQUOT,
            Self::Emfile => Errno::MFILE,
            Self::Eacces => Errno::ACCESS,
            Self::Erofs => Errno::ROFS,
        }
        .into()
    }

    /// This failure of a call of `kind` on `path`.
    pub fn to_error(self, kind: OpKind, path: &Path) -> Error {
        Error::io(path, kind.verb(), self.to_io()).with_value("injected", "true")
    }
}

/// What happens to the call that a [`Fault`] meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is done; the call fails.
    Fail(FaultError),
    /// Everything is done; the call fails all the same.
    FailAfter(FaultError),
    /// A write stores its first `bytes` bytes, then fails. Other calls: as [`Effect::Fail`].
    FailPartly {
        /// How much is stored.
        bytes: usize,
        /// What the call says then.
        error: FaultError,
    },
    /// A read returns at most `bytes` bytes, as if the file ended there. Other calls: none.
    Short {
        /// How much is returned.
        bytes: usize,
    },
    /// A read or a mapping comes back with one bit wrong. Other calls: none.
    FlipBit {
        /// Which bit of what was returned, modulo its length.
        bit: u64,
    },
}

/// Whether a [`Fault`] goes on after the first call it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// One call only.
    Once,
    /// That call and every later one.
    ForEver,
}

/// Chooses files by their path.
pub type PathFilter = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// One failure to come.
#[derive(Clone)]
pub struct Fault {
    /// The kind of call that it meets.
    pub kind: OpKind,
    /// Which of the calls of that kind since the fault was planned, counted from 1.
    pub nth: u64,
    /// Whether later ones are met too.
    pub repeat: Repeat,
    /// What happens to them.
    pub effect: Effect,
    /// Only calls on these paths count. A rename is asked for with its target.
    pub only: Option<PathFilter>,
}

impl Fault {
    /// The next call of `kind` fails once, with nothing done.
    pub fn new(kind: OpKind, error: FaultError) -> Self {
        Self::with_effect(kind, Effect::Fail(error))
    }

    /// The next call of `kind` meets `effect`, once.
    pub fn with_effect(kind: OpKind, effect: Effect) -> Self {
        Self {
            kind,
            nth: 1,
            repeat: Repeat::Once,
            effect,
            only: None,
        }
    }

    /// The same fault, for the `nth` matching call from now, counted from 1.
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    /// The same fault, for every matching call from that one on.
    pub fn for_ever(mut self) -> Self {
        self.repeat = Repeat::ForEver;
        self
    }

    /// The same fault, counting and meeting only calls on paths that `filter` accepts.
    pub fn only(mut self, filter: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        self.only = Some(Arc::new(filter));
        self
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("kind", &self.kind)
            .field("nth", &self.nth)
            .field("repeat", &self.repeat)
            .field("effect", &self.effect)
            .field("filtered", &self.only.is_some())
            .finish()
    }
}

/// The planned failures of one file system, and how often each kind of call was made.
#[derive(Debug, Default)]
pub struct FaultPlan {
    calls: [AtomicU64; KIND_COUNT],
    fired: AtomicU64,
    /// Whether `armed` holds anything, so that an idle plan costs no lock.
    any: AtomicBool,
    armed: Mutex<Vec<Arc<Armed>>>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: AtomicU64,
}

impl FaultPlan {
    /// Plans one more fault. Faults count side by side; of several that meet one call, the one
    /// planned first has its way.
    ///
    /// # Panics
    /// If `fault.nth` is 0: calls are counted from 1.
    pub fn fail(&self, fault: Fault) {
        assert!(fault.nth > 0, "calls are counted from 1");
        let mut armed = self.armed.lock();
        armed.push(Arc::new(Armed {
            fault,
            seen: AtomicU64::new(0),
        }));
        // Release: pairs with the Acquire in `decide`.
        self.any.store(true, Ordering::Release);
    }

    /// Forgets every planned fault; the counters stay.
    pub fn clear(&self) {
        let mut armed = self.armed.lock();
        armed.clear();
        self.any.store(false, Ordering::Release);
    }

    /// How many calls of `kind` were made, whether or not they failed.
    pub fn calls(&self, kind: OpKind) -> u64 {
        ALL.iter()
            .filter(|call| kind.includes(**call))
            .map(|call| self.calls[*call as usize].load(Ordering::Relaxed))
            .sum()
    }

    /// How many calls met a fault.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// Counts a call of `kind` on `path` and says what shall happen to it.
    pub fn decide(&self, kind: OpKind, path: &Path) -> Option<Effect> {
        self.calls[kind as usize].fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the Release in `fail`.
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        // Without the lock: a filter may make calls of its own.
        let planned = self.armed.lock().clone();
        let mut effect = None;
        for armed in &planned {
            let fault = &armed.fault;
            if !fault.kind.includes(kind) || !fault.only.as_ref().is_none_or(|only| only(path)) {
                continue;
            }
            let seen = armed.seen.fetch_add(1, Ordering::Relaxed) + 1;
            let met = match fault.repeat {
                Repeat::Once => seen == fault.nth,
                Repeat::ForEver => seen >= fault.nth,
            };
            if met && effect.is_none() {
                effect = Some(fault.effect);
            }
        }
        if effect.is_some() {
            self.fired.fetch_add(1, Ordering::Relaxed);
        }
        effect
    }

    /// Makes the call `run` of `kind` on `path`, unless a fault says otherwise.
    pub(crate) fn around<T>(
        &self,
        kind: OpKind,
        path: &Path,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.decide(kind, path) {
            None | Some(Effect::Short { .. } | Effect::FlipBit { .. }) => run(),
            Some(Effect::Fail(error) | Effect::FailPartly { error, .. }) => {
                Err(error.to_error(kind, path))
            }
            Some(Effect::FailAfter(error)) => {
                run()?;
                Err(error.to_error(kind, path))
            }
        }
    }

    /// Reads through `read` into `buffer`, unless a fault says otherwise.
    pub(crate) fn around_read(
        &self,
        path: &Path,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<usize> {
        match self.decide(OpKind::Read, path) {
            None => read(buffer),
            Some(Effect::Short { bytes }) => {
                let wanted = buffer.len().min(bytes);
                read(&mut buffer[..wanted])
            }
            Some(Effect::FlipBit { bit }) => {
                let count = read(buffer)?;
                flip(&mut buffer[..count], bit);
                Ok(count)
            }
            Some(
                Effect::Fail(error) | Effect::FailPartly { error, .. } | Effect::FailAfter(error),
            ) => Err(error.to_error(OpKind::Read, path)),
        }
    }
}

/// Turns over one bit of `bytes`, if there are any.
pub(crate) fn flip(bytes: &mut [u8], bit: u64) {
    if bytes.is_empty() {
        return;
    }
    let bit = bit % (bytes.len() as u64 * 8);
    let index = usize::try_from(bit / 8).expect("below a length");
    bytes[index] ^= 1 << (bit % 8);
}

const ALL: [OpKind; KIND_COUNT] = [
    OpKind::Create,
    OpKind::Open,
    OpKind::Read,
    OpKind::Write,
    OpKind::SetLen,
    OpKind::Reserve,
    OpKind::Sync,
    OpKind::Map,
    OpKind::MapLive,
    OpKind::Store,
    OpKind::Rename,
    OpKind::Link,
    OpKind::Remove,
    OpKind::CreateDir,
    OpKind::SyncDir,
    OpKind::List,
    OpKind::Status,
    OpKind::Lock,
    OpKind::FreeBytes,
    OpKind::Watch,
];
