//! How the scheduler of the system treats a thread of the background.
//!
//! A thread that is woken may push aside the one that woke it, and what was woken here is never
//! more urgent than the write or read that did it: with as many processors as there are busy
//! threads, a put that wakes a worker would wait for all that the worker does. Called by whoever
//! starts threads.

/// Lets the calling thread, when it is woken, wait until those that run have had their turn. Its
/// share of the processors stays the same. Returns whether the system does so: a hint for Linux.
///
/// A thread to which somebody gave another class, real time say, keeps that.
///
/// # Examples
/// ```
/// std::thread::spawn(|| {
///     base::executor::work_in_batches();
/// });
/// ```
pub fn work_in_batches() -> bool {
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
        // SAFETY: it takes a number and only reads what the system knows; 0 is this thread.
        let class = unsafe { libc::sched_getscheduler(0) };
        class == libc::SCHED_OTHER && set_batch()
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

#[cfg(target_os = "linux")]
fn set_batch() -> bool {
    #[expect(
        unsafe_code,
        reason = "the structure has more fields with some C libraries"
    )]
    // SAFETY: a structure of numbers, of which zeros are what an ordinary class asks for.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    // SAFETY: the structure lives until the call returns; 0 is this thread.
    let code = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    code == 0
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::sync::mpsc;

    use crate::executor::{Executor, Inline, Step, Threads};
    use crate::sync::Arc;

    use super::*;

    #[expect(unsafe_code, reason = "the call is offered by no safe crate of ours")]
    fn class() -> i32 {
        // SAFETY: it takes a number and only reads what the system knows; 0 is this thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn workers_are_in_the_class_that_pushes_nobody_aside() {
        let can = std::thread::spawn(|| (work_in_batches(), class()));
        let (is_set, found) = can.join().expect("no panic");
        assert_eq!(is_set, found == libc::SCHED_BATCH);
        let (tell, told) = mpsc::channel();
        let executor = Threads::new(Arc::new(Inline));
        let step = move || {
            // Told once; nobody listens any more when it stops.
            let _ = tell.send(class());
            Step::Idle
        };
        let worker = executor
            .register("worker", Box::new(step))
            .expect("a thread");
        assert_eq!(told.recv().expect("it runs at once"), found);
        worker.stop();
        assert_ne!(
            class(),
            libc::SCHED_BATCH,
            "the thread of the caller is not touched"
        );
    }
}
