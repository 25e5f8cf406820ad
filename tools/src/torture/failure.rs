//! How a torture run fails: by a finding, or because it could not be carried out.

use std::fmt;

use base::Error;

/// Why a run ended early.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The engine did something that it must not do.
    Finding(String),
    /// The run itself went wrong: no directory, no process.
    Setup(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finding(text) => f.write_str(text),
            Self::Setup(error) => error.fmt(f),
        }
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// A finding with this text.
pub(crate) fn finding<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::Finding(text.into()))
}

/// Turns an error of the engine into a finding: under torture nothing it does may fail.
pub(crate) trait OrFinding<T> {
    /// `what` says what was being done.
    fn or_finding(self, what: &str) -> Outcome<T>;
}

impl<T> OrFinding<T> for base::Result<T> {
    fn or_finding(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Failure::Finding(format!("{what} failed: {error:?}")))
    }
}

/// Turns an error of the run's own affairs into a failed run.
pub(crate) trait OrSetup<T> {
    fn or_setup(self) -> Outcome<T>;
}

impl<T> OrSetup<T> for base::Result<T> {
    fn or_setup(self) -> Outcome<T> {
        self.map_err(Failure::Setup)
    }
}
