//! The threads on which the key ranges of a compaction run side by side.

use std::fmt;

use base::error::{Error, ErrorKind, Result};
use base::executor::{Scatter, Task, work_in_batches};
use base::fork::Origin;
use base::sync::Arc;

/// A rayon pool of our own. Rayon's global one is the host program's and is never used.
///
/// Can be shared by several databases. Its threads sleep while nothing is scattered and end when
/// the last holder lets go.
pub struct RayonPool {
    /// Always there until the drop.
    pool: Option<rayon::ThreadPool>,
    origin: Origin,
}

impl RayonPool {
    /// A pool of so many threads, at least one.
    ///
    /// # Errors
    /// `Io` if the operating system gives no threads.
    pub fn new(threads: usize) -> Result<Arc<Self>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("siltstone-pool-{index}"))
            // A hint: without it those who wake a thread may wait for what it does.
            .start_handler(|_| {
                work_in_batches();
            })
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Io, "cannot start pool threads").with_source(error)
            })?;
        Ok(Arc::new(Self {
            pool: Some(pool),
            origin: Origin::here(),
        }))
    }
}

impl RayonPool {
    fn pool(&self) -> &rayon::ThreadPool {
        self.pool.as_ref().expect("taken by the drop only")
    }
}

impl Drop for RayonPool {
    fn drop(&mut self) {
        if self.origin.is_inherited() {
            // Its threads are not in this process, and one of them may have held a lock of it.
            std::mem::forget(self.pool.take());
        }
    }
}

impl Scatter for RayonPool {
    /// A panic of a task is passed on once all have ended.
    fn scatter(&self, mut tasks: Vec<Task<'_>>) {
        if tasks.len() == 1 {
            // Not worth waking a thread; the caller would only wait for it.
            return tasks.remove(0)();
        }
        self.pool().scope(|scope| {
            for task in tasks {
                scope.spawn(move |_| task());
            }
        });
    }

    fn width(&self) -> usize {
        self.pool().current_num_threads()
    }
}

impl fmt::Debug for RayonPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RayonPool")
            .field("width", &self.width())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use base::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_task_runs_before_scatter_returns() {
        let pool = RayonPool::new(2).expect("two threads");
        assert_eq!(pool.width(), 2);
        for count in [0, 1, 2, 37] {
            let ran = AtomicUsize::new(0);
            let task = || -> Task<'_> {
                Box::new(|| {
                    ran.fetch_add(1, Ordering::SeqCst);
                })
            };
            pool.scatter((0..count).map(|_| task()).collect());
            assert_eq!(ran.into_inner(), count);
        }
    }
}
