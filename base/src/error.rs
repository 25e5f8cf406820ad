//! The one error type. One word wide and `Clone`, because many waiters may share one cause.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything in siltstone that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`]. The numbers are fixed and never reused.
///
/// # Examples
/// ```
/// use base::ErrorKind;
/// assert_eq!(ErrorKind::Corruption.code(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ErrorKind {
    /// The operating system refused; look at the source, repair the machine, try again.
    Io = 1,
    /// Bytes on disk are not what was written; restore or repair the named file.
    Corruption = 2,
    /// The call or an option is wrong; change the call.
    InvalidArgument = 3,
    /// Another operation got there first; retry from the start.
    Conflict = 4,
    /// The engine is behind; wait and retry.
    Busy = 5,
    /// An earlier failure closed the door for writes; reopen the database.
    Poisoned = 6,
    /// Written by a newer version, or not possible on this platform.
    Unsupported = 7,
    /// The file system is full; free space and retry, on the same handle.
    NoSpace = 8,
    /// The directory is in use by another handle or process.
    AlreadyOpen = 9,
    /// The database was closed.
    Closed = 10,
    /// The thing named does not exist.
    NotFound = 11,
}

impl ErrorKind {
    const ALL: [Self; 11] = [
        Self::Io,
        Self::Corruption,
        Self::InvalidArgument,
        Self::Conflict,
        Self::Busy,
        Self::Poisoned,
        Self::Unsupported,
        Self::NoSpace,
        Self::AlreadyOpen,
        Self::Closed,
        Self::NotFound,
    ];

    /// The fixed number of this kind, for other languages.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number, if there is one.
    ///
    /// # Examples
    /// ```
    /// use base::ErrorKind;
    /// assert_eq!(ErrorKind::from_code(8), Some(ErrorKind::NoSpace));
    /// assert_eq!(ErrorKind::from_code(0), None);
    /// ```
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// What became of a write that returned an error.
///
/// # Examples
/// ```
/// use base::{Error, ErrorKind, WriteOutcome};
/// let error = Error::new(ErrorKind::NoSpace, "no room for the next segment")
///     .with_outcome(WriteOutcome::Rejected);
/// assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is certainly not in the database, now or after a reopen.
    Rejected,
    /// After a reopen it is there as a whole or not at all; only the reopen tells.
    Indeterminate,
}

/// Why an operation failed: a coarse [`kind`](Error::kind), a message that names the file and the
/// values, and, where there is one, the path, the offset and the cause.
///
/// Cloning is one reference count. There is a single error type because a caller's first question
/// is what to do next, which the kind answers; the rest is for people.
///
/// # Examples
/// ```
/// use base::{Error, ErrorKind};
/// let error = Error::corruption("000012.sst", 4096, "block checksum mismatch");
/// assert_eq!(error.kind(), ErrorKind::Corruption);
/// assert_eq!(error.offset(), Some(4096));
/// assert_eq!(error.to_string(), "block checksum mismatch file=000012.sst offset=4096");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    outcome: Option<WriteOutcome>,
    is_failed_sync: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is lowercase, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            path: None,
            offset: None,
            outcome: None,
            is_failed_sync: false,
            source: None,
        }))
    }

    /// Bytes at `offset` of `path` are not what was written there.
    pub fn corruption(path: impl Into<PathBuf>, offset: u64, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
            .with_path(path)
            .with_offset(offset)
    }

    /// The caller's mistake.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// A failed system call on `path`; `operation` is a verb such as `write`. One that begins with
    /// `sync` makes a failed sync.
    ///
    /// A full disk or quota becomes [`ErrorKind::NoSpace`], a missing file
    /// [`ErrorKind::NotFound`], everything else [`ErrorKind::Io`].
    pub fn io(path: impl Into<PathBuf>, operation: &str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        let is_failed_sync = operation.starts_with("sync");
        Self::new(kind, format!("{operation} failed"))
            .with_path(path)
            .with_source(source)
            .map(|inner| inner.is_failed_sync = is_failed_sync)
    }

    fn map(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The same error about the file `path`.
    pub fn with_path(self, path: impl Into<PathBuf>) -> Self {
        self.map(|inner| inner.path = Some(path.into()))
    }

    /// The same error at `offset` of its file, in bytes.
    pub fn with_offset(self, offset: u64) -> Self {
        self.map(|inner| inner.offset = Some(offset))
    }

    /// The same error with its cause.
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.map(|inner| inner.source = Some(Arc::new(source)))
    }

    /// The same error with `name=value` at the end of its message.
    pub fn with_value(self, name: &str, value: impl fmt::Display) -> Self {
        self.map(|inner| {
            write!(inner.message, " {name}={value}").expect("writing to a String cannot fail");
        })
    }

    /// The same error with `prefix: ` before its message, as it passes through an operation.
    pub fn context(self, prefix: &str) -> Self {
        self.map(|inner| inner.message = format!("{prefix}: {}", inner.message))
    }

    /// The same error, saying what became of the write.
    pub fn with_outcome(self, outcome: WriteOutcome) -> Self {
        self.map(|inner| inner.outcome = Some(outcome))
    }

    /// The same error as another kind; used where a failure changes what the caller can do.
    pub fn with_kind(self, kind: ErrorKind) -> Self {
        self.map(|inner| inner.kind = kind)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file concerned.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Where in the file, in bytes.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// For a failed write: whether it can still turn up after a reopen.
    pub fn outcome(&self) -> Option<WriteOutcome> {
        self.0.outcome
    }

    /// Whether the system could not make a file or a directory durable: then nothing is known of
    /// what was written to it.
    pub fn is_failed_sync(&self) -> bool {
        self.0.is_failed_sync
    }

    /// Whether bytes on disk are damaged.
    pub fn is_corruption(&self) -> bool {
        self.kind() == ErrorKind::Corruption
    }

    /// Whether the thing named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether the file system is full.
    pub fn is_no_space(&self) -> bool {
        self.kind() == ErrorKind::NoSpace
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(path) = &self.0.path {
            write!(f, " file={}", path.display())?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, " offset={offset}")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_values_file_and_offset() {
        let error = Error::corruption("000012.sst", 4096, "block checksum mismatch")
            .with_value("stored", 1)
            .with_value("computed", 2);
        assert_eq!(
            error.to_string(),
            "block checksum mismatch stored=1 computed=2 file=000012.sst offset=4096"
        );
        assert!(error.is_corruption());
    }

    #[test]
    fn every_number_is_of_the_kind_that_has_it() {
        for code in 0..=u8::MAX {
            let kind = ErrorKind::from_code(code);
            assert_eq!(kind.is_some(), (1..=11).contains(&code), "{code}");
            assert!(kind.is_none_or(|kind| kind.code() == code), "{code}");
        }
    }

    #[test]
    fn a_full_disk_is_its_own_kind() {
        let source = io::Error::from_raw_os_error(28);
        assert_eq!(Error::io("x", "write", source).kind(), ErrorKind::NoSpace);
    }
}
