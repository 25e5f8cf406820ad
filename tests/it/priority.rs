//! Level 0 does not wait for what else is compacted.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use base::executor::Stepped;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::SimFs;
use siltstone::{Compression, Db, Event, KeyspaceOptions, Options};

/// No compaction of these few entries takes so long.
const WATCHDOG: Duration = Duration::from_secs(60);

fn options(sim: &Arc<SimFs>) -> Options {
    Options::new()
        .memtable_bytes_max(1 << 20)
        .level0_table_count_trigger(2)
        .level0_table_count_max(4)
        .bottom_compression(Compression::None)
        .idle_compaction_after(None)
        .sync_interval(None)
        .file_system(Arc::clone(sim) as _)
}

fn put(db: &Db, prefix: &str, round: u32) {
    for n in 0..100 {
        let key = format!("{prefix}{n:03}");
        db.put(key, format!("{round:010}")).expect("a sound disk");
    }
    db.flush().expect("a sound disk");
}

/// Tables at the bottom: whatever comes next must be merged.
fn bottom(db: &Db) {
    put(db, "a", 0);
    put(db, "z", 0);
    db.compact_range(..).expect("a sound disk");
}

/// Makes level 0 due with keys that begin with `prefix`.
fn level0(db: &Db, prefix: &str) {
    for round in 1..3 {
        put(db, prefix, round);
    }
}

/// Begins and ends of the compactions that wrote something, and which job it was.
#[derive(Default)]
struct Course(Mutex<Vec<(&'static str, u64)>>);

impl Course {
    fn listener(self: &Arc<Self>) -> Arc<dyn Fn(&Event) + Send + Sync> {
        let this = Arc::clone(self);
        Arc::new(move |event: &Event| {
            let (what, job) = match event {
                Event::CompactionBegan {
                    job,
                    is_move: false,
                    ..
                } => ("began", *job),
                Event::Compacted {
                    job,
                    is_move: false,
                    ..
                } => ("ended", *job),
                _ => return,
            };
            this.0.lock().expect("no panic").push((what, job));
        })
    }

    fn forget(&self) {
        self.0.lock().expect("no panic").clear();
    }

    /// What began and ended, with jobs numbered in the order in which they began.
    fn seen(&self) -> Vec<(&'static str, usize)> {
        let events = self.0.lock().expect("no panic");
        let began: Vec<u64> = events
            .iter()
            .filter(|(what, _)| *what == "began")
            .map(|(_, job)| *job)
            .collect();
        let number = |job| began.iter().position(|other| *other == job);
        events
            .iter()
            .map(|(what, job)| (*what, number(*job).expect("it began")))
            .collect()
    }
}

thread_local! {
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// In the middle of a compaction of some keys level 0 becomes due by others: that is compacted at
/// once, and so is what follows.
#[test]
fn level_0_is_compacted_in_the_middle_of_another_compaction() {
    let sim = SimFs::new(8);
    let executor = Stepped::new(8);
    let course = Arc::new(Course::default());
    let db = options(&sim)
        .executor(Arc::clone(&executor) as _)
        .on_event(course.listener())
        .open("/db")
        .expect("an empty disk");
    bottom(&db);
    course.forget();
    let (inner, stepping, seen) = (db.clone(), Arc::clone(&executor), Arc::clone(&course));
    sim.set_observer(Some(Arc::new(move |_, op| {
        let is_first = op.kind == OpKind::Create && seen.seen() == [("began", 0)];
        if is_first && !IS_INSIDE.replace(true) {
            for _ in 0..2 {
                level0(&inner, "z");
                stepping.run_until_idle();
            }
        }
    })));
    level0(&db, "a");
    db.wait_for_compactions().expect("a sound disk");
    sim.set_observer(None);
    let wanted = [
        ("began", 0),
        ("began", 1),
        ("ended", 1),
        ("began", 2),
        ("ended", 2),
        ("ended", 0),
    ];
    assert_eq!(course.seen(), wanted);
    for prefix in ["a", "z"] {
        let value = db.get(format!("{prefix}050")).expect("a sound disk");
        assert_eq!(value.as_deref(), Some(&b"0000000002"[..]));
    }
}

/// On threads, a compaction that holds every thread of the pool is held up until three others of
/// level 0 have begun and ended beside it; then it ends too.
#[test]
fn level_0_goes_on_while_another_compaction_has_the_whole_pool() {
    const COUNT: u32 = 3;
    let sim = SimFs::new(9);
    let (ended, ends) = mpsc::channel();
    let held: Arc<AtomicBool> = Arc::default();
    let (release, hold) = mpsc::channel::<()>();
    let (reached, reaches) = mpsc::channel();
    let listener = move |event: &Event| {
        if let Event::Compacted { is_move: false, .. } = event {
            // At the end nobody listens any more.
            let _ = ended.send(());
        }
    };
    let db = options(&sim)
        // The first compaction is split in as many ranges as there are threads.
        .table_bytes_target(128 << 10)
        .block_bytes_target(1 << 10)
        .compaction_threads(2)
        .on_event(Arc::new(listener))
        .open("/db")
        .expect("an empty disk");
    bottom(&db);
    let fill = |round: u32| {
        for n in 0..2000 {
            let value = format!("{round:0100}");
            db.put(format!("a{n:06}"), value).expect("a sound disk");
        }
        db.flush().expect("a sound disk");
    };
    fill(0);
    db.compact_range(..).expect("a sound disk");
    db.wait_for_compactions().expect("a sound disk");
    while ends.try_recv().is_ok() {}

    let (is_held, hold) = (Arc::clone(&held), Mutex::new(hold));
    sim.set_observer(Some(Arc::new(move |_, op| {
        let is_pool = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("siltstone-pool"));
        if op.kind == OpKind::Create && is_pool && !is_held.load(Ordering::SeqCst) {
            // Nobody waits any more if the test has failed.
            let _ = reached.send(());
            // The other thread of the pool waits for the lock until this is over.
            let hold = hold.lock().expect("no panic");
            if !is_held.load(Ordering::SeqCst) {
                let _ = hold.recv_timeout(WATCHDOG);
                is_held.store(true, Ordering::SeqCst);
            }
        }
    })));
    fill(1);
    fill(2);
    for _ in 0..2 {
        let is_reached = reaches.recv_timeout(WATCHDOG);
        is_reached.expect("both threads of the pool are at work");
    }
    for _ in 0..COUNT {
        level0(&db, "z");
        let is_ended = ends.recv_timeout(WATCHDOG);
        is_ended.expect("level 0 does not wait for the pool");
        assert!(!held.load(Ordering::SeqCst), "the first one is still held");
    }
    release.send(()).expect("it is held");
    db.wait_for_compactions().expect("a sound disk");
    sim.set_observer(None);
    assert!(ends.try_recv().is_ok(), "the first one ended");
    let value = db.get("a000500").expect("a sound disk");
    assert_eq!(value.as_deref(), Some(format!("{:0100}", 2).as_bytes()));
}

/// Holds a compaction at the first file it creates, until told.
struct Hold {
    reached: Mutex<Option<mpsc::Sender<()>>>,
    release: Mutex<mpsc::Receiver<()>>,
}

impl Hold {
    /// The hold, what tells that it was reached, and what ends it.
    fn new() -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (reached, reaches) = mpsc::channel();
        let (end, release) = mpsc::channel();
        let hold = Self {
            reached: Mutex::new(Some(reached)),
            release: Mutex::new(release),
        };
        (hold, reaches, end)
    }

    /// Returns whether it was free.
    fn meet(&self) -> bool {
        let Some(reached) = self.reached.lock().expect("no panic").take() else {
            return false;
        };
        // Nobody waits any more if the test has failed.
        let _ = reached.send(());
        let release = self.release.lock().expect("no panic");
        let _ = release.recv_timeout(WATCHDOG);
        true
    }
}

fn is_compacting() -> bool {
    let current = std::thread::current();
    let compacts = ["siltstone-compact", "siltstone-level0", "siltstone-pool"];
    let name = current.name().unwrap_or_default();
    compacts.iter().any(|begin| name.starts_with(begin))
}

/// A compaction of level 0 fails after the step that compacts everything else has found level 0
/// taken, and come to rest: somebody must try it again.
#[test]
fn what_fails_beside_a_compaction_that_has_ended_is_tried_again() {
    for error in [FaultError::Enospc, FaultError::Eio] {
        let sim = SimFs::new(10);
        let (ended, ends) = mpsc::channel();
        let (failed, failures) = mpsc::channel();
        let listener = move |event: &Event| match event {
            // At the end nobody listens any more.
            Event::Compacted { is_move: false, .. } => drop(ended.send(())),
            Event::BackgroundError { .. } => drop(failed.send(())),
            _ => {}
        };
        let db = options(&sim)
            .compaction_threads(1)
            .keep_space_for_deletes(false)
            .on_event(Arc::new(listener))
            .open("/db")
            .expect("an empty disk");
        let other = db.create_keyspace(
            "other",
            &KeyspaceOptions::new().level0_table_count_trigger(2),
        );
        let other = other.expect("a new name");
        let put_other = |round: u32| {
            for n in 0..100 {
                let value = format!("{round:010}");
                other.put(format!("{n:03}"), value).expect("a sound disk");
            }
            other.flush().expect("a sound disk");
        };
        bottom(&db);
        put_other(0);
        db.compact_range(..).expect("a sound disk");
        db.wait_for_compactions().expect("a sound disk");
        while ends.try_recv().is_ok() {}

        let (first, first_reaches, first_end) = Hold::new();
        let (second, second_reaches, second_end) = Hold::new();
        sim.set_observer(Some(Arc::new(move |_, op| {
            if op.kind == OpKind::Create && is_compacting() {
                let _ = first.meet() || second.meet();
            }
        })));
        level0(&db, "a");
        first_reaches.recv_timeout(WATCHDOG).expect("it compacts a");
        level0(&db, "z");
        second_reaches
            .recv_timeout(WATCHDOG)
            .expect("it compacts z");
        first_end.send(()).expect("it is held");
        ends.recv_timeout(WATCHDOG).expect("a is compacted");
        // Behind this one in the line: level 0 of `default` was looked at again, and is taken.
        for round in 1..3 {
            put_other(round);
        }
        ends.recv_timeout(WATCHDOG).expect("the other is compacted");
        // Not what the helper may write of the log by now.
        let is_table = |path: &Path| path.extension().is_some_and(|extension| extension == "sst");
        sim.fail(Fault::new(OpKind::Write, error).only(is_table));
        second_end.send(()).expect("it is held");
        failures.recv_timeout(WATCHDOG).expect("z fails");
        ends.recv_timeout(WATCHDOG).expect("z is tried again");
        sim.set_observer(None);
        // It is told before the failure is forgotten.
        while db.wait_for_compactions().is_err() {
            std::thread::yield_now();
        }
        let value = db.get("z050").expect("a sound disk");
        assert_eq!(value.as_deref(), Some(&b"0000000002"[..]));
    }
}
