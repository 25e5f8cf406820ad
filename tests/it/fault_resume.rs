//! A full disk that has space again: who waits learns of it soon, and no failure that is over keeps
//! anybody waiting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::FileKind;
use base::executor::{Executor, Scatter, Step, StepFn, Stepped, Task, Worker};
use base::fs::fault::{Fault, FaultError, OpKind};
use base::sync::Bell;
use siltstone::{Db, ErrorKind, Health, Options};

use crate::support::{DIR, Model, World, assert_same, tagged};

/// What an operator who made space may expect.
const SOON: Duration = Duration::from_secs(1);

/// Steps that run when the test says so, and for how long each wanted to rest.
#[derive(Debug)]
struct Rests {
    inner: Arc<Stepped>,
    last: Arc<Mutex<BTreeMap<String, Step>>>,
}

impl Rests {
    fn on(inner: &Arc<Stepped>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            last: Arc::default(),
        })
    }

    fn last(&self, name: &str) -> Step {
        self.last.lock().expect("no panic")[name]
    }
}

impl Scatter for Rests {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.inner.scatter(tasks);
    }

    fn width(&self) -> usize {
        self.inner.width()
    }
}

impl Executor for Rests {
    fn register(&self, name: &str, mut step: StepFn) -> base::Result<Arc<dyn Worker>> {
        let (last, key) = (Arc::clone(&self.last), name.to_owned());
        let noting: StepFn = Box::new(move || {
            let outer = STEP.replace(key.clone());
            let next = step();
            STEP.set(outer);
            last.lock().expect("no panic").insert(key.clone(), next);
            next
        });
        self.inner.register(name, noting)
    }

    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool) {
        self.inner.wait(bell, done);
    }

    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        self.inner.wait_for(bell, timeout, done)
    }

    fn pause(&self, duration: Duration) {
        self.inner.pause(duration);
    }
}

fn options(world: &World) -> Options {
    world
        .options()
        .memtable_bytes_max(8 << 10)
        .log_segment_bytes(256 << 10)
        .log_bytes_max(512 << 10)
        .level0_table_count_trigger(2)
        .level0_table_count_max(6)
        .idle_compaction_after(None)
}

fn is_table(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let kind = name.and_then(FileKind::parse).map(|(kind, _)| kind);
    kind == Some(FileKind::Table)
}

fn put(db: &Db, model: &mut Model, index: u64) -> siltstone::Result<()> {
    let (key, value) = (format!("key{index:06}").into_bytes(), tagged(index, 150));
    db.put(&key, &value)?;
    model.insert(key, value);
    Ok(())
}

#[test]
fn a_full_disk_is_looked_at_every_second_however_long_it_has_been_full() {
    const FLUSH: &str = "siltstone-flush";
    let world = World::new(21);
    let rests = Rests::on(&world.executor);
    let db = options(&world)
        .keep_space_for_deletes(false)
        .executor(Arc::clone(&rests) as _)
        .open(DIR)
        .expect("a new database");
    let mut model = Model::new();
    for index in 0..60 {
        put(&db, &mut model, index).expect("there is space");
    }
    world.executor.run_until_idle();
    // There is room for the log, and for no table.
    world.fs.set_quota(Some(world.fs.used_bytes() + (1 << 20)));
    let fault = Fault::new(OpKind::Write, FaultError::Enospc).for_ever();
    world.fs.fail(fault.only(is_table));
    let refused = (60..2000).find_map(|index| put(&db, &mut model, index).err());
    assert_eq!(refused.expect("it gets full").kind(), ErrorKind::NoSpace);
    world.executor.run_until_idle();
    // Tried in vain again and again, and rarer each time.
    for round in 0..12 {
        world.clock.advance(61_000_000);
        assert!(world.executor.step_named(FLUSH), "round {round}");
        let Step::IdleFor(rest) = rests.last(FLUSH) else {
            panic!("round {round}: a flush that found no space is to be tried again");
        };
        assert!(rest <= SOON, "round {round}: it rests for {rest:?}");
        assert!(matches!(db.health(), Health::Degraded(_)), "round {round}");
    }
    // Nobody wakes it: it looks by itself, and at once does what could not be done.
    world.fs.clear_faults();
    world.fs.set_quota(None);
    world.clock.advance(1_000_000);
    assert!(world.executor.step_named(FLUSH));
    world.executor.run_until_idle();
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    put(&db, &mut model, 5000).expect("there is space");
    assert_same(&db, &model, &[b"key000001".to_vec()]);
}

#[test]
fn a_failure_that_is_over_keeps_no_writer_waiting() {
    let world = World::new(22);
    let rests = Rests::on(&world.executor);
    let db = options(&world)
        .executor(Arc::clone(&rests) as _)
        .open(DIR)
        .expect("a new database");
    let mut model = Model::new();
    for index in 0..100 {
        put(&db, &mut model, index).expect("there is space");
    }
    db.compact_range(..).expect("a sound disk");
    world.executor.run_until_idle();
    // The background finds no room for what it compacts, whoever asks for a compaction does. The
    // disk never looks emptier, and no time passes.
    let fault = Fault::new(OpKind::Write, FaultError::Enospc).for_ever();
    let is_compacting = || STEP.with_borrow(|step| step == "siltstone-compact");
    world
        .fs
        .fail(fault.only(move |path| is_table(path) && is_compacting()));
    let mut index = 100;
    while !matches!(db.health(), Health::Degraded(_)) {
        put(&db, &mut model, index % 100).expect("level 0 is not full so soon");
        index += 1;
        world.executor.run_until_idle();
        assert!(index < 1000, "no compaction was tried");
    }
    db.compact_range(..).expect("the caller's own has room");
    world.executor.run_until_idle();
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    world.fs.clear_faults();
    for more in 0..1000 {
        put(&db, &mut model, (index + more) % 100).expect("level 0 is compacted");
    }
    world.executor.run_until_idle();
    assert_same(&db, &model, &[b"key000001".to_vec()]);
}

thread_local! {
    /// The worker whose step runs on this thread.
    static STEP: RefCell<String> = const { RefCell::new(String::new()) };
}
