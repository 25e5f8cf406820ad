use base::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A pool that counts what it was given, and runs it at once.
#[derive(Debug)]
struct Counting {
    width: usize,
    task_count: AtomicUsize,
}

impl Scatter for Counting {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.task_count.fetch_add(tasks.len(), Ordering::SeqCst);
        Inline.scatter(tasks);
    }

    fn width(&self) -> usize {
        self.width
    }
}

fn pool(width: usize) -> Arc<Counting> {
    let task_count = AtomicUsize::new(0);
    Arc::new(Counting { width, task_count })
}

#[test]
fn the_pool_is_never_given_more_than_it_has_threads_for() {
    for width in 1..5 {
        let pool = pool(width);
        let lanes = Lanes::new(Arc::clone(&pool) as _);
        let deep = lanes.take(width);
        assert_eq!((deep.count(), lanes.free()), (width, 0));
        // What comes next is not refused: it runs where it is.
        let level0 = lanes.take(width);
        assert_eq!(level0.count(), 0);
        let ran = AtomicUsize::new(0);
        let task = || -> Task<'_> {
            Box::new(|| {
                ran.fetch_add(1, Ordering::SeqCst);
            })
        };
        level0.share(1).scatter(vec![task(), task()]);
        assert_eq!(ran.load(Ordering::SeqCst), 2);
        assert_eq!(pool.task_count.load(Ordering::SeqCst), 0);
        drop(deep);
        assert_eq!(lanes.free(), width);
        drop(level0);
        assert_eq!(lanes.free(), width);
    }
}

#[test]
fn jobs_of_a_batch_share_what_it_took() {
    let lanes = Lanes::new(pool(5));
    let taken = lanes.take(4);
    assert_eq!(lanes.free(), 1);
    assert_eq!(taken.share(2).width(), 2);
    assert_eq!(taken.share(3).width(), 1);
    assert_eq!(taken.share(9).width(), 1);
    assert_eq!(lanes.take(3).share(1).width(), 1);
}

#[test]
fn a_panic_gives_lanes_back() {
    let lanes = Lanes::new(pool(2));
    let inner = Arc::clone(&lanes);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _taken = inner.take(2);
        panic!("as a job may");
    }));
    assert!(result.is_err());
    assert_eq!(lanes.free(), 2);
}
