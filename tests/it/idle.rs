//! What is compacted while nothing is written.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use base::Level;
use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::sim::SimFs;
use siltstone::{Compression, Db, Event, Options};

const MICROS: u64 = 1_000_000;
const AFTER: Duration = Duration::from_secs(10);
/// No compaction of these few entries takes so long.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A machine whose steps and time are the test's.
struct Machine {
    executor: Arc<Stepped>,
    clock: Arc<ManualClock>,
    db: Db,
}

impl Machine {
    fn new(after: Option<Duration>) -> Self {
        let executor = Stepped::new(3);
        let clock = Arc::new(ManualClock::new(1_000 * MICROS));
        let db = options()
            .idle_compaction_after(after)
            .executor(Arc::clone(&executor) as _)
            .clock(Arc::clone(&clock) as _)
            .file_system(SimFs::new(3))
            .open("/db")
            .expect("an empty disk");
        Self {
            executor,
            clock,
            db,
        }
    }

    /// Lets time pass, and everything run that is then to be done.
    fn pass(&self, seconds: u64) {
        self.clock.advance(seconds * MICROS);
        self.executor.step_named("siltstone-compact");
        self.executor.run_until_idle();
    }

    fn depth(&self) -> u64 {
        self.tables(Level::ZERO)
    }

    fn tables(&self, level: Level) -> u64 {
        let stats = self.db.stats();
        stats.levels[level.index()].table_count
    }

    /// Bytes written by flushes and by compactions.
    fn written(&self) -> (u64, u64) {
        let stats = self.db.stats();
        (stats.flush_bytes_written, stats.compaction_bytes_written)
    }
}

fn options() -> Options {
    Options::new()
        .memtable_bytes_max(1 << 20)
        .table_bytes_target(64 << 10)
        .level_base_bytes(1 << 20)
        .level0_table_count_trigger(4)
        .bottom_compression(Compression::None)
        .sync_interval(None)
}

fn put(db: &Db, keys: impl Iterator<Item = u32>, round: u32) {
    for key in keys {
        let value = format!("{round:0100}");
        db.put(format!("{key:06}"), value).expect("a sound disk");
    }
    db.flush().expect("a sound disk");
    db.wait_for_compactions().expect("a sound disk");
}

/// 2000 keys at the bottom and three tables of level 0 over all of them.
fn overwritten(db: &Db) {
    put(db, 0..2000, 0);
    db.compact_range(..).expect("a sound disk");
    for round in 1..4 {
        put(db, (0..2000).step_by(4), round);
    }
}

#[test]
fn level_0_goes_down_once_nothing_was_written_for_long_enough() {
    let machine = Machine::new(Some(AFTER));
    overwritten(&machine.db);
    assert_eq!(machine.depth(), 3, "not due");
    machine.pass(1);
    machine.pass(8);
    assert_eq!(machine.depth(), 3, "too early");
    machine
        .db
        .put("key", "and again from the beginning")
        .expect("a sound disk");
    machine.pass(9);
    machine.pass(9);
    assert_eq!(machine.depth(), 3, "too early after a write");
    machine.pass(1);
    assert_eq!(machine.depth(), 0);
    let space = machine.db.amplification().space;
    let least = space.live_bytes;
    assert!(space.table_bytes <= least + least / 8, "{space:?}");
    let found = machine.db.iter().expect("a sound disk").count();
    assert_eq!(found, 2001);
    let newest = machine.db.get("000004").expect("a sound disk");
    assert_eq!(newest.as_deref(), Some(format!("{:0100}", 3).as_bytes()));
    let before = machine.written();
    machine.pass(1000);
    assert_eq!(machine.written(), before, "it has come to rest");
}

#[test]
fn it_can_be_turned_off() {
    let machine = Machine::new(None);
    overwritten(&machine.db);
    machine.pass(1_000_000);
    assert_eq!(machine.depth(), 3);
}

/// A few writes an hour into a tree of a thousand times their size: what is written again for them
/// is bounded by what was flushed, with pauses or without.
#[test]
fn a_write_an_hour_rewrites_nothing_large() {
    for after in [None, Some(AFTER)] {
        let machine = Machine::new(after);
        put(&machine.db, 0..20_000, 0);
        machine.db.compact_range(..).expect("a sound disk");
        let (flushed_before, compacted_before) = machine.written();
        for hour in 1..100u32 {
            let first = hour * 37 % 200;
            put(&machine.db, (first..20_000).step_by(997), hour);
            machine.pass(3600);
        }
        let (flushed, compacted) = machine.written();
        let (flushed, compacted) = (flushed - flushed_before, compacted - compacted_before);
        println!("flushed {flushed}, compacted {compacted} with {after:?}");
        // A byte goes down once, with ten below it, and is joined some times before.
        assert!(compacted <= flushed * (11 + 19), "{compacted} of {flushed}");
    }
}

/// On threads and by the real clock it happens by itself.
#[test]
fn threads_do_it_by_themselves() {
    let (ended, ends) = mpsc::channel();
    let listener = move |event: &Event| {
        if let Event::Compacted { input_level, .. } = event
            && *input_level == Level::ZERO
        {
            // At the end nobody listens any more.
            let _ = ended.send(());
        }
    };
    let db = options()
        .idle_compaction_after(Some(Duration::from_millis(1)))
        .file_system(SimFs::new(4))
        .on_event(Arc::new(listener))
        .open("/db")
        .expect("an empty disk");
    put(&db, 0..500, 0);
    ends.recv_timeout(WATCHDOG).expect("level 0 goes down");
}
