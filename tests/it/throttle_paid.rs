//! What a slowed write pays: each byte once, whatever it comes in, and nothing if it is refused.

use std::sync::Arc;
use std::time::Duration;

use base::clock::Clock;
use base::executor::{Executor, Scatter, StepFn, Stepped, Task, Worker};
use base::sync::Bell;
use siltstone::{
    Db, ErrorKind, Keyspace, KeyspaceOptions, KeyspaceStats, ThrottleCause, WriteBatch,
    WriteOptions, WriteOutcome,
};

use crate::support::{World, for_each_seed, tagged};

const MEMTABLE_BYTES: usize = 1 << 20;
/// A value that is more than any credit, which is an eighth of a memtable at most.
const LARGE_BYTES: usize = MEMTABLE_BYTES / 6;

/// Databases in which no flush runs, and time passes only where a write waits.
struct Slowed {
    world: World,
    db: Db,
    count: u64,
}

impl Slowed {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let executor = Stepped::with_clock(seed, Arc::clone(&world.clock));
        let options = world.options().executor(executor);
        let db = options.log_bytes_max(1 << 30).open("/db");
        Self {
            world,
            db: db.expect("opens"),
            count: 0,
        }
    }

    /// A keyspace in which one memtable waits to be flushed, and another is the last.
    fn keyspace(&mut self, name: &str) -> Keyspace {
        self.keyspace_of(name, 1)
    }

    /// One whose memtables are so many times as large.
    fn keyspace_of(&mut self, name: &str, factor: usize) -> Keyspace {
        let options = KeyspaceOptions::new()
            .memtable_bytes_max(factor * MEMTABLE_BYTES)
            .sealed_memtable_count_max(1);
        let keyspace = self.db.create_keyspace(name, &options).expect("created");
        while self.sealed_count(&keyspace) == 0 {
            self.put(&keyspace, 4096, &WriteOptions::new())
                .expect("a put");
        }
        keyspace
    }

    fn sealed_count(&self, keyspace: &Keyspace) -> u64 {
        self.stats(keyspace).sealed_memtable_count
    }

    fn stats(&self, keyspace: &Keyspace) -> KeyspaceStats {
        let mut all = self.db.stats().keyspaces.into_iter();
        let found = all.find(|stats| stats.name == keyspace.name());
        found.expect("it is there")
    }

    /// What a large value costs at the speed of the last verdict, in microseconds.
    fn large_micros(&self, keyspace: &Keyspace) -> f64 {
        let throttle = self.stats(keyspace).throttle;
        assert!(throttle.bytes_per_second > 0.0, "slowed, not stopped");
        let bytes = u32::try_from(LARGE_BYTES).expect("a short value");
        f64::from(bytes) / throttle.bytes_per_second * 1e6
    }

    fn put(
        &mut self,
        keyspace: &Keyspace,
        bytes: usize,
        options: &WriteOptions,
    ) -> siltstone::Result<siltstone::Commit> {
        self.count += 1;
        keyspace.put_with(self.count.to_be_bytes(), tagged(self.count, bytes), options)
    }

    /// Puts until one is refused for being slowed.
    fn spend_all(&mut self, keyspace: &Keyspace) {
        let no_wait = WriteOptions::new().no_wait();
        for _ in 0..10_000 {
            if let Err(error) = self.put(keyspace, 500, &no_wait) {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
                let cause = self.stats(keyspace).throttle.cause;
                assert_eq!(cause, Some(ThrottleCause::Memtables));
                assert!(self.large_micros(keyspace) > 0.0);
                return;
            }
        }
        panic!("nobody was ever refused");
    }

    fn now(&self) -> u64 {
        self.world.clock.monotonic_micros()
    }
}

#[test]
fn trying_again_lets_nothing_pass_that_may_not_wait() {
    let name = "trying_again_lets_nothing_pass_that_may_not_wait";
    for_each_seed(name, 4, |seed| {
        let mut slowed = Slowed::new(seed);
        let keyspace = slowed.keyspace("one");
        slowed.spend_all(&keyspace);
        let no_wait = WriteOptions::new().no_wait();
        let soon = WriteOptions::new().deadline(Duration::from_micros(200));
        for _ in 0..500 {
            for options in [&no_wait, &soon] {
                let error = slowed.put(&keyspace, 500, options);
                assert_eq!(error.expect_err("no time passes").kind(), ErrorKind::Busy);
            }
        }
        // All that was refused is owed by nobody: after the longest wait there is credit again.
        slowed.world.clock.advance(8_000);
        slowed.put(&keyspace, 500, &no_wait).expect("time passed");
    });
}

#[test]
fn a_large_value_is_paid_for_once() {
    for_each_seed("a_large_value_is_paid_for_once", 4, |seed| {
        let mut slowed = Slowed::new(seed);
        let keyspace = slowed.keyspace("one");
        // Each waits for those before it, until one would have to wait for longer than any does.
        let (mut paid, mut due, mut cost) = (0, 0.0, 0.0);
        for _ in 0..20 {
            let before = slowed.now();
            slowed
                .put(&keyspace, LARGE_BYTES, &WriteOptions::new())
                .expect("a put");
            paid += slowed.now() - before;
            due += cost;
            cost = slowed.large_micros(&keyspace);
            println!("paid {paid} us of {due}, {cost} more");
            if cost > 6_500.0 {
                break;
            }
        }
        assert!(due > 3_000.0, "{due}");
        let paid = f64::from(u32::try_from(paid).expect("a short time"));
        // What is worth less than a millisecond is left to the next.
        assert!((paid - due).abs() <= 1_000.0, "{paid} of {due}");
    });
}

/// Whoever waits is helped by flushes alone, so that level 0 stays behind.
#[derive(Debug)]
struct FlushesOnly(Arc<Stepped>);

impl Scatter for FlushesOnly {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.0.scatter(tasks);
    }

    fn width(&self) -> usize {
        1
    }
}

impl Executor for FlushesOnly {
    fn register(&self, name: &str, step: StepFn) -> siltstone::Result<Arc<dyn Worker>> {
        self.0.register(name, step)
    }

    fn wait(&self, _: &Bell, done: &mut dyn FnMut() -> bool) {
        while !done() {
            self.0.step_named("siltstone-flush");
        }
    }

    fn wait_for(&self, bell: &Bell, _: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        self.wait(bell, done);
        true
    }

    fn pause(&self, duration: Duration) {
        self.0.pause(duration);
    }
}

#[test]
fn a_write_that_a_stop_lets_go_is_charged_like_any_other() {
    let name = "a_write_that_a_stop_lets_go_is_charged_like_any_other";
    for_each_seed(name, 2, |seed| {
        let world = World::new(seed);
        let steps = Stepped::with_clock(seed, Arc::clone(&world.clock));
        let db = world
            .options()
            .memtable_bytes_max(MEMTABLE_BYTES)
            .sealed_memtable_count_max(1)
            .level0_table_count_trigger(2)
            .level0_table_count_max(7)
            .log_bytes_max(1 << 30)
            .executor(Arc::new(FlushesOnly(steps)))
            .open("/db")
            .expect("opens");
        for _ in 0..4 {
            // Over all keys: each is one more to look at.
            db.put([0], "value").expect("a put");
            db.put([255], "value").expect("a put");
            db.flush().expect("a flush");
        }
        let no_wait = WriteOptions::new().no_wait();
        // Until a memtable waits for its flush and the next one is full.
        for number in 0..10_000_u64 {
            let put = db.put_with(number.to_be_bytes(), tagged(number, 4096), &no_wait);
            if put.is_err() && db.stats().throttle.bytes_per_second <= 0.0 {
                break;
            }
            world.clock.advance(100_000);
        }
        assert_eq!(db.stats().throttle.cause, Some(ThrottleCause::Memtables));
        world.clock.advance(1_000_000);
        let commit = db.put("large", vec![1; MEMTABLE_BYTES / 2]);
        assert!(commit.expect("a put").throttled().is_some(), "it waited");
        // The flush has let it go; level 0 is still behind, and that is paid for.
        let error = db.put_with("small", "value", &no_wait);
        assert_eq!(error.expect_err("it is owed").kind(), ErrorKind::Busy);
        world.clock.advance(100_000);
        db.put_with("small", "value", &no_wait).expect("it is paid");
    });
}

#[test]
fn a_batch_that_is_refused_pays_in_none_of_its_keyspaces() {
    let name = "a_batch_that_is_refused_pays_in_none_of_its_keyspaces";
    for_each_seed(name, 4, |seed| {
        let mut slowed = Slowed::new(seed);
        let first = slowed.keyspace("first");
        let second = slowed.keyspace("second");
        slowed.spend_all(&first);
        slowed.spend_all(&second);
        // New credit for the first one alone.
        slowed.world.clock.advance(8_000);
        let no_wait = WriteOptions::new().no_wait();
        slowed.put(&first, 500, &no_wait).expect("time passed");
        while slowed.put(&second, 500, &no_wait).is_ok() {}
        let mut batch = WriteBatch::new();
        batch.put_in(&first, "key", vec![1; 500]);
        batch.put_in(&second, "key", vec![1; 500]);
        for _ in 0..10_000 {
            let error = slowed.db.write_with(&batch, &no_wait);
            assert_eq!(error.expect_err("no credit").kind(), ErrorKind::Busy);
        }
        let passed = (0..1000).take_while(|_| slowed.put(&first, 500, &no_wait).is_ok());
        let passed = passed.count();
        assert!(passed > 20, "{passed}: refused batches spent the credit");
    });
}

#[test]
fn a_deadline_is_for_all_keyspaces_of_a_batch_together() {
    let name = "a_deadline_is_for_all_keyspaces_of_a_batch_together";
    for_each_seed(name, 2, |seed| {
        let mut slowed = Slowed::new(seed);
        let keyspaces = ["first", "second"].map(|name| slowed.keyspace_of(name, 8));
        // In both so much is owed that whoever comes next waits as long as any does, even once the
        // second has waited, too.
        for _ in 0..4 {
            for keyspace in &keyspaces {
                slowed
                    .put(keyspace, 8 * LARGE_BYTES, &WriteOptions::new())
                    .expect("a put");
            }
        }
        let mut batch = WriteBatch::new();
        for keyspace in &keyspaces {
            // More than the credit that the last one left.
            batch.put_in(keyspace, "key", vec![1; 8 * LARGE_BYTES]);
        }
        let began = slowed.now();
        let soon = WriteOptions::new().deadline(Duration::from_millis(8));
        let error = slowed.db.write_with(&batch, &soon);
        assert_eq!(error.expect_err("too long").kind(), ErrorKind::Busy);
        assert_eq!(slowed.now() - began, 7_000, "for the first alone");
        let later = WriteOptions::new().deadline(Duration::from_millis(14));
        slowed.db.write_with(&batch, &later).expect("in time");
    });
}
