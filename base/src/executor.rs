//! Background work, through a seam: on threads in life, step by step under a test.
//!
//! The engine registers *steps*, small functions that do one piece of work and say what to do next.
//! It never spawns a thread itself, and it waits for background progress only through
//! [`Executor::wait`], so that a test can run everything on one thread in an order it chooses.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Bell, Mutex};

mod class;
#[cfg(any(test, feature = "testing"))]
mod stepped;
#[cfg(any(test, feature = "testing"))]
pub use stepped::Stepped;

pub use class::work_in_batches;

/// What a background step wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do at once.
    Again,
    /// Nothing to do until woken.
    Idle,
    /// Nothing to do until woken, or until this long has passed.
    IdleFor(Duration),
}

/// One piece of work for [`Scatter::scatter`].
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// A background step: does a bounded piece of work, never waits for another step.
pub type StepFn = Box<dyn FnMut() -> Step + Send>;

/// Runs independent pieces of work side by side and returns when all are done.
pub trait Scatter: fmt::Debug + Send + Sync + 'static {
    /// Runs every task. No lock may be held, and no task may wait for another.
    fn scatter(&self, tasks: Vec<Task<'_>>);

    /// How many tasks can run at once, at least 1.
    fn width(&self) -> usize;
}

/// Runs tasks one after the other on the calling thread.
#[derive(Debug)]
pub struct Inline;

impl Scatter for Inline {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        for task in tasks {
            task();
        }
    }

    fn width(&self) -> usize {
        1
    }
}

/// A registered step.
pub trait Worker: fmt::Debug + Send + Sync {
    /// Makes the step run soon; cheap, callable with locks held.
    fn wake(&self);

    /// Lets a running step finish, then never runs it again and drops it.
    ///
    /// Called from within the step itself it only marks the end.
    fn stop(&self);
}

/// Where background work runs.
pub trait Executor: Scatter {
    /// Runs `step` in the background whenever the worker is woken, starting idle.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    fn register(&self, name: &str, step: StepFn) -> Result<Arc<dyn Worker>>;

    /// Waits until `done` returns true; it is asked again each time `bell` rings.
    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool);

    /// The same, for at most `timeout`. Returns whether `done` returned true.
    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool;

    /// Lets `duration` pass: for waits of milliseconds that nothing ends early.
    fn pause(&self, duration: Duration);
}

/// One thread for each registered step, and a pool of its own for scattered tasks.
#[derive(Debug)]
pub struct Threads {
    pool: Arc<dyn Scatter>,
}

impl Threads {
    /// Scatters on `pool`, which is never rayon's global one: that is the host program's.
    pub fn new(pool: Arc<dyn Scatter>) -> Self {
        Self { pool }
    }
}

impl Scatter for Threads {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.pool.scatter(tasks);
    }

    fn width(&self) -> usize {
        self.pool.width()
    }
}

impl Executor for Threads {
    fn register(&self, name: &str, mut step: StepFn) -> Result<Arc<dyn Worker>> {
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            bell: Bell::new(),
        });
        let seen_by_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // A hint: without it a wake may cost the writer who makes it more.
                work_in_batches();
                seen_by_thread.run(&mut step);
            })
            .map_err(|source| {
                Error::new(
                    crate::ErrorKind::Io,
                    "a background thread could not be started",
                )
                .with_value("name", name)
                .with_source(source)
            })?;
        Ok(Arc::new(ThreadWorker {
            origin: Origin::here(),
            shared,
            thread: Mutex::new(Some(thread)),
        }))
    }

    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool) {
        loop {
            let seen = bell.epoch();
            if done() {
                return;
            }
            bell.wait_past(seen, None);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        let start = Instant::now();
        loop {
            let seen = bell.epoch();
            if done() {
                return true;
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            bell.wait_past(seen, Some(left));
        }
    }

    fn pause(&self, duration: Duration) {
        // A bell that nobody rings.
        Bell::new().wait_past(0, Some(duration));
    }
}

#[derive(Debug)]
struct Shared {
    stopped: AtomicBool,
    bell: Bell,
}

impl Shared {
    fn run(&self, step: &mut StepFn) {
        let mut seen = 0;
        loop {
            // Acquire: pairs with the Release in `stop`.
            if self.stopped.load(Ordering::Acquire) {
                return;
            }
            // A step reports its own failures; one that panics all the same must not be run again
            // on state it left half changed.
            let Ok(next) = catch_unwind(AssertUnwindSafe(&mut *step)) else {
                return;
            };
            let timeout = match next {
                Step::Again => continue,
                Step::Idle => None,
                Step::IdleFor(timeout) => Some(timeout),
            };
            self.bell.wait_past(seen, timeout);
            seen = self.bell.epoch();
        }
    }
}

#[derive(Debug)]
struct ThreadWorker {
    origin: Origin,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker for ThreadWorker {
    fn wake(&self) {
        self.shared.bell.ring();
    }

    fn stop(&self) {
        // Release: pairs with the Acquire in `run`.
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.bell.ring();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in a step was caught above, so that joining cannot fail.
            let _ = thread.join();
        }
    }
}

impl Drop for ThreadWorker {
    fn drop(&mut self) {
        if self.origin.is_inherited() {
            // The thread is not in this process: nothing to tell it, to join, or to detach.
            std::mem::forget(self.thread.get_mut().take());
            return;
        }
        self.stop();
    }
}

#[cfg(test)]
mod tests;
