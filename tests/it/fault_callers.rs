//! A close beside work on the threads of callers: it waits for them, and they change nothing in the
//! directory after it has returned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base::executor::{Executor, Inline, Scatter, StepFn, Task, Threads, Worker};
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::fs::sim::SimFs;
use base::sync::Bell;
use siltstone::{Db, ErrorKind, Health, Options, Result};

use crate::support::{Setup, contents, files, tagged};

/// Somebody who stops at a place until let go.
#[derive(Debug, Default)]
struct Stop {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Stop {
    fn change(&self, change: impl Fn(&mut (bool, bool))) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn until(&self, is_there: impl Fn(&(bool, bool)) -> bool) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(state, |state| !is_there(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Stops here, until somebody lets it go.
    fn stop(&self) {
        self.change(|state| state.0 = true);
        self.until(|state| state.1);
    }

    fn wait_stopped(&self) {
        self.until(|state| state.0);
    }

    fn let_go(&self) {
        self.change(|state| state.1 = true);
    }
}

/// Threads that let somebody go once the close has begun to wait.
#[derive(Debug)]
struct Watched {
    inner: Threads,
    stop: Arc<Stop>,
    is_closing: Arc<AtomicBool>,
    has_waited: Arc<AtomicBool>,
}

impl Scatter for Watched {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.inner.scatter(tasks);
    }

    fn width(&self) -> usize {
        self.inner.width()
    }
}

impl Executor for Watched {
    fn register(&self, name: &str, step: StepFn) -> Result<Arc<dyn Worker>> {
        self.inner.register(name, step)
    }

    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool) {
        if self.is_closing.load(Ordering::SeqCst) {
            self.has_waited.store(true, Ordering::SeqCst);
            self.stop.let_go();
        }
        self.inner.wait(bell, done);
    }

    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        self.inner.wait_for(bell, timeout, done)
    }

    fn pause(&self, duration: Duration) {
        self.inner.pause(duration);
    }
}

const DIR: &str = "/db";

fn options(fs: &Arc<FaultFs>) -> Options {
    Setup::of_seed(1)
        .options()
        .memtable_bytes_max(64 << 10)
        .level0_table_count_trigger(20)
        .level0_table_count_max(40)
        .idle_compaction_after(None)
        .file_system(Arc::clone(fs) as _)
}

/// Stops `work` at its first call of `kind` on a file ending in `ending`, closes the database
/// meanwhile, and checks that the close waited for it.
fn close_beside(kind: OpKind, ending: &'static str, work: fn(&Db) -> Result<()>) {
    let sim = SimFs::new(1);
    let fs = FaultFs::new(Arc::clone(&sim) as _);
    let stop = Arc::new(Stop::default());
    let is_closing = Arc::new(AtomicBool::new(false));
    let has_waited = Arc::new(AtomicBool::new(false));
    let executor = Arc::new(Watched {
        inner: Threads::new(Arc::new(Inline)),
        stop: Arc::clone(&stop),
        is_closing: Arc::clone(&is_closing),
        has_waited: Arc::clone(&has_waited),
    });
    let db = options(&fs).executor(executor).open(DIR);
    let db = db.expect("a new database");
    for round in 0..3_u64 {
        for index in 0..50_u64 {
            let value = tagged(round * 100 + index, 100);
            db.put(index.to_be_bytes(), value).expect("a put");
        }
        db.flush().expect("a flush");
    }
    let held = contents(&db).expect("a scan");
    let place = Arc::clone(&stop);
    fs.fail(
        Fault::new(kind, FaultError::Eio)
            .for_ever()
            .only(move |path| {
                if path.to_string_lossy().ends_with(ending) {
                    place.stop();
                }
                false
            }),
    );
    let after_close = thread::scope(|scope| {
        let worker = scope.spawn(|| work(&db));
        stop.wait_stopped();
        is_closing.store(true, Ordering::SeqCst);
        db.close().expect("a clean close");
        let after_close = files_of(&sim);
        stop.let_go();
        if let Err(error) = worker.join().expect("no panic") {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        after_close
    });
    assert!(has_waited.load(Ordering::SeqCst), "it waited for nobody");
    assert!(files_of(&sim) == after_close, "changed after the close");
    fs.clear();
    drop(db);
    let db = options(&fs).open(DIR).expect("a reopen");
    assert!(matches!(db.health(), Health::Good));
    assert!(contents(&db).expect("a scan") == held);
    db.close().expect("a clean close");
}

/// What lies in the directory of the database.
fn files_of(sim: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(sim);
    files.retain(|path, _| path.parent() == Some(Path::new(DIR)));
    files
}

#[test]
fn a_close_waits_for_a_compaction_that_somebody_asked_for() {
    close_beside(OpKind::Sync, ".sst", |db| db.compact_range(..));
}

#[test]
fn a_close_waits_for_a_checkpoint() {
    close_beside(OpKind::Link, ".sst", |db| db.checkpoint("/copy").map(drop));
}
