//! Background steps on the thread of a test, in an order that a seed decides.

use std::fmt;
use std::time::Duration;

use super::{Executor, Scatter, Step, StepFn, Task, Worker};
use crate::clock::ManualClock;
use crate::error::Result;
use crate::random::mix;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Bell, Mutex};

/// An executor without threads: steps run when the test says so, or when something waits for them.
///
/// Which of the runnable steps goes first follows from the seed alone. With a clock, waiting for
/// time to pass moves it on; without one, all time has always passed.
#[derive(Debug)]
pub struct Stepped {
    random: AtomicU64,
    clock: Option<Arc<ManualClock>>,
    workers: Mutex<Vec<Arc<StepWorker>>>,
}

impl Stepped {
    /// An executor whose choices follow from `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        Self::on(seed, None)
    }

    /// The same, with the clock that waiting moves on.
    pub fn with_clock(seed: u64, clock: Arc<ManualClock>) -> Arc<Self> {
        Self::on(seed, Some(clock))
    }

    fn on(seed: u64, clock: Option<Arc<ManualClock>>) -> Arc<Self> {
        Arc::new(Self {
            random: AtomicU64::new(seed),
            clock,
            workers: Mutex::new(Vec::new()),
        })
    }

    fn pass(&self, duration: Duration) {
        if let Some(clock) = &self.clock {
            clock.advance(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Runs one step that was woken, chosen by the seed. Returns whether there was one.
    pub fn step(&self) -> bool {
        let mut runnable: Vec<_> = {
            let mut workers = self.workers.lock();
            workers.retain(|worker| !worker.stopped.load(Ordering::SeqCst));
            workers
                .iter()
                .filter(|w| w.woken.load(Ordering::SeqCst) || w.again.load(Ordering::SeqCst))
                .cloned()
                .collect()
        };
        while !runnable.is_empty() {
            let choice = self.next_random() % runnable.len() as u64;
            let worker = runnable.swap_remove(usize::try_from(choice).expect("below a length"));
            if worker.run() {
                return true;
            }
        }
        false
    }

    /// Runs one step of the worker with this name, woken or not. Returns whether it ran.
    pub fn step_named(&self, name: &str) -> bool {
        let worker = self
            .workers
            .lock()
            .iter()
            .find(|worker| worker.name == name)
            .cloned();
        worker.is_some_and(|worker| worker.run())
    }

    /// Runs steps until none is runnable.
    ///
    /// # Panics
    /// After a million steps: something wakes itself for ever.
    pub fn run_until_idle(&self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("background steps never come to rest");
    }

    // splitmix64 (Steele, Lea, Flood 2014): enough for choosing an order.
    fn next_random(&self) -> u64 {
        let state = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }
}

impl Scatter for Stepped {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        for task in tasks {
            task();
        }
    }

    fn width(&self) -> usize {
        // More than one, so that ranges are split as they are in life.
        2
    }
}

impl Executor for Stepped {
    fn register(&self, name: &str, step: StepFn) -> Result<Arc<dyn Worker>> {
        let worker = Arc::new(StepWorker {
            name: name.to_owned(),
            woken: AtomicBool::new(false),
            again: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            step: Mutex::new(Some(step)),
        });
        self.workers.lock().push(Arc::clone(&worker));
        Ok(worker)
    }

    fn wait(&self, _bell: &Bell, done: &mut dyn FnMut() -> bool) {
        while !done() {
            assert!(
                self.step(),
                "waiting for background work, but no step is runnable"
            );
        }
    }

    /// Time passes when no step is runnable any more.
    fn wait_for(&self, _bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        while !done() {
            if timeout.is_zero() || !self.step() {
                self.pass(timeout);
                return done();
            }
        }
        true
    }

    fn pause(&self, duration: Duration) {
        self.pass(duration);
    }
}

struct StepWorker {
    name: String,
    woken: AtomicBool,
    /// The step asked to be run again. Apart from `woken`: who wakes it is owed a run that began
    /// after that and was not merely the rest of what was going on.
    again: AtomicBool,
    stopped: AtomicBool,
    step: Mutex<Option<StepFn>>,
}

impl StepWorker {
    /// Runs once unless stopped or already running further up the stack.
    fn run(&self) -> bool {
        let Some(mut slot) = self.step.try_lock() else {
            return false;
        };
        if self.stopped.load(Ordering::SeqCst) {
            *slot = None;
            return false;
        }
        let Some(step) = slot.as_mut() else {
            return false;
        };
        if !self.again.swap(false, Ordering::SeqCst) {
            self.woken.store(false, Ordering::SeqCst);
        }
        if step() == Step::Again {
            self.again.store(true, Ordering::SeqCst);
        }
        true
    }
}

impl fmt::Debug for StepWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepWorker")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Worker for StepWorker {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Not there when the step stops itself; it is dropped at its next turn.
        if let Some(mut slot) = self.step.try_lock() {
            *slot = None;
        }
    }
}
