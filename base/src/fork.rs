//! Whether this process is the one that made a thing, or was forked from it since.
//!
//! A child of `fork` has the memory of its parent and none of its threads: locks that another
//! thread held stay held for ever, and nobody will ever do background work. What was made before
//! must therefore not be used in it. Finding that out costs one load: a handler that the C library
//! runs in the child moves a counter on. A child that was made by a bare system call, past the C
//! library, is not noticed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// A child that a test started gets so long.
#[cfg(any(test, feature = "testing"))]
const CHILD_SECONDS_MAX: u32 = 60;

/// How many forks lie between this process and the one that registered the handler.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// In which process something was made.
///
/// # Examples
/// ```
/// use base::fork::Origin;
/// base::fork::watch()?;
/// let origin = Origin::here();
/// assert!(!origin.is_inherited());
/// # Ok::<(), base::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u32);

impl Origin {
    /// This process. Forks are noticed from the first [`watch`] on.
    pub fn here() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is a child of the one that was meant, by any number of forks.
    #[inline]
    pub fn is_inherited(self) -> bool {
        // Relaxed: it changes only while a child has a single thread, which is this one.
        self.0 != GENERATION.load(Ordering::Relaxed)
    }
}

/// Makes the C library count forks from now on. To be called before the first [`Origin::here`].
///
/// # Errors
/// `Io` if there is no memory for it.
pub fn watch() -> Result<()> {
    static WATCHED: Mutex<bool> = Mutex::new(false);
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if *watched {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    // SAFETY: the handler is a function of this program with the type that is asked for, and stays
    // for as long as the process: this crate is linked in, never loaded and unloaded by itself. It
    // does nothing but add to an atomic, which is allowed between a fork and whatever comes next.
    let code = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    if code != 0 {
        return Err(Error::new(ErrorKind::Io, "forks cannot be watched for")
            .with_source(std::io::Error::from_raw_os_error(code)));
    }
    *watched = true;
    Ok(())
}

/// Runs in the child, on its only thread, before `fork` returns there.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Runs `child` in a forked child and returns its exit code, or `None` if it was killed. For tests.
///
/// `child` should run on what it was handed and little else: other threads are gone, and what they
/// had locked stays locked. A panic in it is the exit code 101, and a child that hangs is killed.
///
/// # Errors
/// `Io` if the system refuses.
#[cfg(any(test, feature = "testing"))]
pub fn in_forked_child(child: impl FnOnce() -> u8) -> Result<Option<i32>> {
    let refused = |what: &str| {
        Error::new(ErrorKind::Io, what.to_owned()).with_source(std::io::Error::last_os_error())
    };
    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    // SAFETY: the child runs `child` and ends by `_exit`, so that no destructor and no exit handler
    // of the parent runs twice. That locks may be held by threads which are gone is what the tests
    // that call this are about; it leads to a hang at worst, never to a broken reference, since the
    // child's memory is its own.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(refused("fork failed"));
    }
    if pid == 0 {
        #[expect(unsafe_code, reason = "turns a hang into a failure")]
        // SAFETY: it sets a timer of this process and touches no memory.
        unsafe {
            libc::alarm(CHILD_SECONDS_MAX);
        }
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
        #[expect(unsafe_code, reason = "ends without running what is the parent's")]
        // SAFETY: it only ends the process.
        unsafe {
            libc::_exit(i32::from(code))
        }
    }
    let mut status = 0;
    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    // SAFETY: `pid` is a child that nobody else waits for, and `status` outlives the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited != pid {
        return Err(refused("waitpid failed"));
    }
    Ok(libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_knows_what_is_inherited_and_what_is_its_own() {
        watch().expect("memory for a handler");
        watch().expect("once is enough");
        let origin = Origin::here();
        let code = in_forked_child(|| {
            let own = Origin::here();
            let grandchild = || u8::from(own.is_inherited() && origin.is_inherited());
            match in_forked_child(grandchild) {
                Ok(Some(1)) if origin.is_inherited() && !own.is_inherited() => 7,
                _ => 1,
            }
        });
        assert_eq!(code.expect("a fork"), Some(7));
        assert!(!origin.is_inherited());
    }
}
