//! How many threads of the pool each compaction has, so that none waits for another.
//!
//! A compaction cannot be interrupted, and what a pool was given runs in the order in which it
//! came: level 0 would wait for the longest of the deeper ones, if these had all of the threads. So
//! nothing is given to the pool for which it has no thread: a compaction takes the lanes that are
//! free, one a thread, and where none is free it runs on the thread that asked. The operating
//! system then shares the processors between them.

use base::executor::{Inline, Scatter, Task};
use base::sync::{Arc, Mutex};

/// The lanes of one database: as many as its pool is wide.
#[derive(Debug)]
pub struct Lanes {
    pool: Arc<dyn Scatter>,
    /// LOCK: a leaf.
    used: Mutex<usize>,
}

impl Lanes {
    /// The lanes of `pool`, which nobody else gives work to.
    pub fn new(pool: Arc<dyn Scatter>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            used: Mutex::new(0),
        })
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.pool.width().saturating_sub(*self.used.lock())
    }

    /// Takes as many of `wanted` lanes as are free, which may be none, until the return value is
    /// dropped.
    pub fn take(self: &Arc<Self>, wanted: usize) -> Taken {
        let mut used = self.used.lock();
        let count = wanted.min(self.pool.width().saturating_sub(*used));
        *used += count;
        Taken {
            lanes: Arc::clone(self),
            count,
        }
    }
}

/// Lanes that were taken; given back when it is dropped, also by a panic.
#[derive(Debug)]
pub struct Taken {
    lanes: Arc<Lanes>,
    count: usize,
}

impl Taken {
    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What one of `among` jobs may scatter on: its share of the lanes, at least one; without any,
    /// the thread of the caller.
    pub fn share(&self, among: usize) -> Arc<dyn Scatter> {
        if self.count == 0 {
            return Arc::new(Inline);
        }
        Arc::new(Narrowed {
            pool: Arc::clone(&self.lanes.pool),
            width: (self.count / among.max(1)).max(1),
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.lanes.used.lock();
        *used = used.checked_sub(self.count).expect("given back once");
    }
}

/// A part of a pool.
#[derive(Debug)]
struct Narrowed {
    pool: Arc<dyn Scatter>,
    width: usize,
}

impl Scatter for Narrowed {
    /// A job splits itself by the width: so there are not more tasks than that.
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.pool.scatter(tasks);
    }

    fn width(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests;
