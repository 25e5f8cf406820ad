//! One look at the stats file: what it says, how old it is, and why there is none.
//!
//! Opens no database and takes no lock, so that nobody who wants to open it is kept from it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use base::clock::Clock;
use base::fs::{FileSystem, OsFs};
use base::{ErrorKind, ids};
use rustix::process::{Pid, test_kill_process};
use siltstone::StatsFile;

use super::people::time;
use crate::admin::directory::Directory;
use crate::admin::failure::{Failure, Outcome};
use crate::text::{counted, escape};

/// A file is late that is older than so many of its intervals, and this much.
const LATE_INTERVALS: u32 = 3;
const LATE_GRACE: Duration = Duration::from_secs(2);
/// How far the clocks of writer and reader may be apart, or jump.
const CLOCK_SLACK_MICROS: u64 = 1_000_000;
/// A disk with less than this free counts as full.
const FULL_BYTES: u64 = 1 << 20;

const REMEDY: &str = "set Options::stats_file_interval where it is opened \
    (for lsm-bench: --stats_file_interval_ms=1000)";

/// What a look found.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole stats file.
    Told(Box<Told>),
    /// None; why, and what to do about it.
    Nothing(String),
}

/// What the file said, and what else can be seen of its writer.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) file: StatsFile,
    /// When it was read, by the clock of this machine.
    pub(super) seen_micros: u64,
    /// Whether the process that wrote it is there.
    pub(super) is_writer_there: bool,
    /// What the file system has left, where it tells.
    pub(super) free_bytes: Option<u64>,
}

/// Looks at the file of the database in `dir`.
///
/// # Errors
/// Damage, a file of a newer version, and what the system refuses.
pub(super) fn look(dir: &Path, clock: &dyn Clock) -> Outcome<Found> {
    match StatsFile::read(dir) {
        Ok(file) => Ok(Found::Told(Box::new(Told {
            seen_micros: clock.now_micros(),
            is_writer_there: is_there(file.process_id),
            free_bytes: OsFs.free_bytes(dir).ok(),
            file,
        }))),
        Err(error) => {
            if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported) {
                return Err(error.into());
            }
            // Says so if there is no database at all.
            Directory::open(dir)?;
            if error.is_not_found() {
                return Ok(Found::Nothing(why_there_is_none(dir)));
            }
            Err(error.into())
        }
    }
}

/// The same as the end of a command that cannot do without.
pub(super) fn look_or_fail(dir: &Path, clock: &dyn Clock) -> Outcome<Box<Told>> {
    match look(dir, clock)? {
        Found::Told(told) => Ok(told),
        Found::Nothing(why) => Err(Failure::trouble(why)),
    }
}

fn why_there_is_none(dir: &Path) -> String {
    let shown = escape(dir.as_os_str().as_bytes());
    match holder(dir) {
        Some(process_id) => {
            format!("process {process_id} has {shown} open and writes no stats file: {REMEDY}")
        }
        None => format!(
            "there is no stats file in {shown}: no process has it open, or the one that has does \
             not write one; {REMEDY}"
        ),
    }
}

/// The process that holds the lock of the database, where the system tells; nobody is asked for
/// the lock itself.
fn holder(dir: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(dir.join(ids::LOCK)).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev()),
    );
    holder_in(
        &locks,
        &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
    )
}

/// Of lines such as `1: FLOCK  ADVISORY  WRITE 1234 08:01:131074 0 EOF`.
pub(super) fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // Those that wait have an arrow there.
            [_, "FLOCK", _, "WRITE", process_id, found, ..] if found == file => {
                process_id.parse().ok().filter(|id| *id > 0)
            }
            _ => None,
        }
    })
}

/// Whether there is such a process, as far as this one may know.
fn is_there(process_id: u32) -> bool {
    let process_id = i32::try_from(process_id).ok().and_then(Pid::from_raw);
    let asked = process_id.map(test_kill_process);
    !matches!(asked, None | Some(Err(rustix::io::Errno::SRCH)))
}

impl Told {
    /// How long ago it was written; `None` if that lies in the future.
    pub(super) fn age(&self) -> Option<Duration> {
        let written = self.file.written_micros;
        let age = self.seen_micros.saturating_sub(written);
        (written <= self.seen_micros + CLOCK_SLACK_MICROS).then(|| Duration::from_micros(age))
    }

    /// Whether it should have been replaced by now.
    pub(super) fn is_stale(&self) -> bool {
        let limit = self.file.interval.saturating_mul(LATE_INTERVALS) + LATE_GRACE;
        self.age().is_some_and(|age| age > limit)
    }

    /// Whether nobody will ever replace it.
    pub(super) fn is_over(&self) -> bool {
        self.is_stale() && !self.is_writer_there
    }

    /// Whether there is next to no space left.
    pub(super) fn is_disk_full(&self) -> bool {
        self.free_bytes.is_some_and(|bytes| bytes < FULL_BYTES)
    }

    /// What is odd about the file itself.
    pub(super) fn remark(&self) -> Option<String> {
        let file = &self.file;
        let process_id = file.process_id;
        let Some(age) = self.age() else {
            return Some(String::from(
                "it was written in the future, by the clock of this machine: ages are unknown",
            ));
        };
        let age = time(age);
        if self.is_over() {
            return Some(format!(
                "STALE: process {process_id} is gone and did not close the database; what it last \
                 said is {age} old"
            ));
        }
        if self.is_stale() {
            let why = if self.is_disk_full() {
                "the disk is full"
            } else {
                "it is stopped, or cannot write"
            };
            let interval = time(file.interval);
            return Some(format!(
                "STALE: process {process_id} has said nothing for {age}, and should every \
                 {interval}: {why}"
            ));
        }
        let failures = file.stats.stats_file_failure_count;
        let failures = (failures > 0).then(|| counted(failures, "time"));
        failures.map(|times| format!("the stats file could not be written {times}"))
    }
}
