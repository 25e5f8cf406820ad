//! Ctrl-C: the first one asks the work to end at its next step, the second one ends the process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base::sync::atomic::{AtomicBool, Ordering};
use base::sync::{Arc, Mutex};

use crate::say::say;
use crate::scratch;

/// Whether the work should end early. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that nobody has asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the work should end; cheap enough to ask before every operation.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks the work to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Directories to be removed if the process is ended by a second Ctrl-C.
static DOOMED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// File systems to be unmounted before that.
static MOUNTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static STOP: OnceLock<Stop> = OnceLock::new();

/// The exit code of a run that Ctrl-C ended, as shells have it.
pub const EXIT_INTERRUPTED: u8 = 130;

/// The flag that Ctrl-C, a termination and a hang-up set from now on in this process.
///
/// A second one removes the temporary directories and ends the process on the spot, with
/// [`EXIT_INTERRUPTED`]. Where no handler can be installed the flag is simply never set.
pub fn stop_on_ctrl_c() -> Stop {
    STOP.get_or_init(|| {
        let stop = Stop::new();
        let seen = stop.clone();
        // Without a handler Ctrl-C ends the process as it always does, which is no worse.
        let _ = ctrlc::set_handler(move || {
            if seen.is_set() {
                clean_up();
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
            seen.set();
            say("\ninterrupted: ending with what there is so far (again to quit at once)");
        });
        stop
    })
    .clone()
}

/// Lets Ctrl-C, a termination and a hang-up end the process at once from now on, with
/// [`EXIT_INTERRUPTED`]: for a tool that leaves nothing behind wherever it ends.
pub(crate) fn end_on_ctrl_c() {
    // Without a handler the signal ends it all the same.
    let _ = ctrlc::set_handler(|| std::process::exit(i32::from(EXIT_INTERRUPTED)));
}

/// As [`stop_on_ctrl_c`], for a process that another one speaks for: nothing is said, and a second
/// one does no more than the first.
pub(crate) fn stop_in_silence() -> Stop {
    STOP.get_or_init(|| {
        let stop = Stop::new();
        let seen = stop.clone();
        // As above.
        let _ = ctrlc::set_handler(move || seen.set());
        stop
    })
    .clone()
}

pub(crate) fn doom(dir: PathBuf) {
    DOOMED.lock().push(dir);
}

pub(crate) fn spare(dir: &PathBuf) {
    DOOMED.lock().retain(|doomed| doomed != dir);
}

/// Removes at once what is to go when the process ends: for one that is about to end itself.
pub(crate) fn clean_up() {
    for dir in MOUNTS.lock().drain(..).rev() {
        unmount(&dir);
    }
    for dir in DOOMED.lock().drain(..) {
        scratch::remove_tree(&dir);
    }
}

pub(crate) fn doom_mount(dir: PathBuf) {
    MOUNTS.lock().push(dir);
}

pub(crate) fn spare_mount(dir: &Path) {
    MOUNTS.lock().retain(|doomed| doomed != dir);
}

/// Takes the file system at `dir` out of the tree, though files of it may still be open.
pub(crate) fn unmount(dir: &Path) {
    // One that cannot be unmounted is as great a nuisance as a directory that cannot be removed.
    let _ = Command::new("umount")
        .arg("--lazy")
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
