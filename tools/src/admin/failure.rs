//! Why a command did not succeed, and with which code the process ends for it.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use crate::interrupt::EXIT_INTERRUPTED;
use crate::text::escape;

/// The result of a command.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Bytes on disk are not what was written: exit code 1.
    Damage(String),
    /// The call is wrong, something named does not exist, or the system refused: exit code 2.
    Trouble(String),
    /// A signal asked to stop: exit code 130.
    Interrupted(String),
    /// Whoever read the output has had enough; nothing is wrong, and nothing is said.
    OutputClosed,
}

impl Failure {
    /// The caller's mistake, or a thing that is not there.
    pub(crate) fn trouble(message: impl Into<String>) -> Self {
        Self::Trouble(message.into())
    }

    /// Where a database was named, there is none.
    pub(crate) fn no_database(dir: &Path) -> Self {
        let dir = escape(dir.as_os_str().as_bytes());
        Self::Trouble(format!(
            "there is no database in {dir}; `load` or `put --create` makes one"
        ))
    }

    /// A signal asked to stop; `state` says how things are.
    pub(crate) fn interrupted(state: &str) -> Self {
        Self::Interrupted(format!("interrupted: {state}"))
    }

    /// The same with `, line` behind its message.
    pub(crate) fn and(self, line: &str) -> Self {
        match self {
            Self::Damage(message) => Self::Damage(format!("{message}\n{line}")),
            Self::Trouble(message) => Self::Trouble(format!("{message}\n{line}")),
            Self::Interrupted(message) => Self::Interrupted(format!("{message}\n{line}")),
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// The code to end with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Damage(_) => ExitCode::from(1),
            Self::Trouble(_) => ExitCode::from(2),
            Self::Interrupted(_) => ExitCode::from(EXIT_INTERRUPTED),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(message) | Self::Trouble(message) | Self::Interrupted(message) => {
                f.write_str(message)
            }
            Self::OutputClosed => f.write_str("output closed"),
        }
    }
}

impl From<base::Error> for Failure {
    fn from(error: base::Error) -> Self {
        if error.is_corruption() {
            Self::Damage(error.to_string())
        } else {
            Self::Trouble(error.to_string())
        }
    }
}

/// Of writing to standard output: what a command reads comes through other types.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Trouble(format!("writing the output failed: {error}"))
        }
    }
}
