//! Writers that fill more memory than flushes give back, on a simulated machine: they are slowed to
//! what flushes get done before memory is full, and never stopped. Who keeps within its own bounds
//! is not slowed for the sake of memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock::{Clock, ManualClock};
use base::executor::{Executor, Scatter, Step, StepFn, Stepped, Task, Worker};
use base::fs::sim::SimFs;
use base::sync::Bell;
use siltstone::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, ThrottleCause, WriteOptions};

use crate::support::{Rng, World, for_each_seed, tagged};

/// A machine whose flushes take time, during which the writer goes on. It is its own clock: a flush
/// reads that to date its table, with no lock held, and then time passes.
#[derive(Debug)]
struct Machine {
    steps: Arc<Stepped>,
    clock: ManualClock,
    /// What flushes get done, in bytes of memtables a second.
    speed: u64,
    /// A flush has begun and not taken its time yet.
    is_due: Arc<AtomicBool>,
    is_flushing: AtomicBool,
    /// What the writer paid while nothing was flushed, in microseconds.
    paid_idle_micros: AtomicU64,
    stops: AtomicU64,
    /// A helper's pause is its own.
    is_helping: AtomicBool,
    writer: Mutex<Writer>,
}

/// Writes to all its keyspaces in turn, without a pause of its own.
#[derive(Debug, Default)]
struct Writer {
    db: Option<Db>,
    keyspaces: Vec<Keyspace>,
    count: u64,
    memory_bytes_most: u64,
    waits: u64,
    longest_micros: u64,
    causes: Vec<ThrottleCause>,
}

/// Microseconds that a write takes by itself.
const WRITE_MICROS: u64 = 2;
const WRITE_BYTES: u64 = 68;

impl Machine {
    fn new(seed: u64, speed: u64) -> Arc<Self> {
        Arc::new(Self {
            steps: Stepped::new(seed),
            clock: ManualClock::new(1_000_000),
            speed,
            is_due: Arc::default(),
            is_flushing: AtomicBool::new(false),
            paid_idle_micros: AtomicU64::new(0),
            stops: AtomicU64::new(0),
            is_helping: AtomicBool::new(false),
            writer: Mutex::default(),
        })
    }

    fn now(&self) -> u64 {
        self.clock.monotonic_micros()
    }

    fn write(&self, writer: &mut Writer) {
        self.clock.advance(WRITE_MICROS);
        let key = writer.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = usize::try_from(key >> 40).expect("few bits") % writer.keyspaces.len();
        let value = tagged(writer.count, 60);
        let commit = writer.keyspaces[at].put(key.to_be_bytes(), value);
        writer.count += 1;
        if let Some(throttled) = commit.expect("a put").throttled() {
            writer.waits += 1;
            writer.longest_micros = writer.longest_micros.max(throttled.micros);
            if !writer.causes.contains(&throttled.cause) {
                writer.causes.push(throttled.cause);
            }
        }
        if writer.count.is_multiple_of(64) {
            let db = writer.db.as_ref().expect("it is open");
            writer.memory_bytes_most = writer
                .memory_bytes_most
                .max(db.stats().memtable_taken_bytes);
            self.is_helping.store(true, Ordering::SeqCst);
            self.steps.step_named("siltstone-helper");
            self.is_helping.store(false, Ordering::SeqCst);
        }
    }

    /// Lets a flush take its time.
    fn take_time(&self) {
        let mut writer = self.writer.try_lock().expect("nobody waits for a flush");
        let stats = writer.db.as_ref().expect("it is open").stats();
        let sealed = stats
            .keyspaces
            .iter()
            .filter(|k| k.sealed_memtable_count > 0);
        // One keyspace is flushed at a time.
        let bytes = sealed.map(|k| k.memtable_bytes).max().unwrap_or(0);
        let end = self.now() + bytes * 1_000_000 / self.speed;
        self.is_flushing.store(true, Ordering::SeqCst);
        while self.now() < end {
            self.write(&mut writer);
        }
        self.is_flushing.store(false, Ordering::SeqCst);
    }

    /// Writes until there are `until` writes. Returns when that was.
    fn run(&self, until: u64) -> u64 {
        loop {
            self.steps.step_named("siltstone-flush");
            let mut writer = self.writer.lock().expect("unbroken");
            if writer.count & 0xffff_ffff >= until {
                return self.now();
            }
            self.write(&mut writer);
        }
    }

    /// Opens a database of `keyspace_count` keyspaces that this machine runs.
    fn open(self: &Arc<Self>, seed: u64, options: &Options, keyspace_count: usize) {
        let db = options
            .clone()
            .file_system(SimFs::new(seed))
            .executor(Arc::clone(self) as _)
            .clock(Arc::clone(self) as _)
            .sync_interval(None)
            .open("/db")
            .expect("opens");
        let mut writer = self.writer.lock().expect("unbroken");
        writer.keyspaces = vec![db.keyspace("default").expect("it is there")];
        while writer.keyspaces.len() < keyspace_count {
            let name = writer.keyspaces.len().to_string();
            let made = db.create_keyspace(&name, &keyspace_options());
            writer.keyspaces.push(made.expect("created"));
        }
        writer.count = seed << 32;
        writer.db = Some(db);
    }

    /// Ends it, so that nobody holds anybody any more.
    fn close(&self) {
        let mut writer = self.writer.lock().expect("unbroken");
        let keyspaces = std::mem::take(&mut writer.keyspaces);
        let db = writer.db.take();
        drop(writer);
        drop((keyspaces, db));
    }
}

impl Clock for Machine {
    fn now_micros(&self) -> u64 {
        if self.is_due.swap(false, Ordering::SeqCst) {
            self.take_time();
        }
        self.clock.now_micros()
    }

    fn monotonic_micros(&self) -> u64 {
        self.clock.monotonic_micros()
    }
}

impl Scatter for Machine {
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        self.steps.scatter(tasks);
    }

    fn width(&self) -> usize {
        1
    }
}

impl Executor for Machine {
    fn register(&self, name: &str, mut step: StepFn) -> siltstone::Result<Arc<dyn Worker>> {
        if name != "siltstone-flush" {
            return self.steps.register(name, step);
        }
        let is_due = Arc::clone(&self.is_due);
        let slow_step = move || -> Step {
            is_due.store(true, Ordering::SeqCst);
            let result = step();
            // There was nothing to flush.
            is_due.store(false, Ordering::SeqCst);
            result
        };
        self.steps.register(name, Box::new(slow_step))
    }

    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.steps.wait(bell, done);
    }

    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        self.steps.wait_for(bell, timeout, done)
    }

    fn pause(&self, duration: Duration) {
        if self.is_helping.load(Ordering::SeqCst) {
            return;
        }
        let micros = u64::try_from(duration.as_micros()).expect("a short pause");
        if !self.is_flushing.load(Ordering::SeqCst) {
            self.paid_idle_micros.fetch_add(micros, Ordering::SeqCst);
        }
        self.clock.advance(micros);
    }
}

/// Nothing but memory is to hold anybody back.
fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .memtable_bytes_max(1 << 20)
        .sealed_memtable_count_max(16)
        .level0_table_count_trigger(900)
        .level0_table_count_max(1000)
}

fn options() -> Options {
    Options::new()
        .memtable_bytes_max(1 << 20)
        .sealed_memtable_count_max(16)
        .level0_table_count_trigger(900)
        .level0_table_count_max(1000)
}

const TOTAL: u64 = 4 << 20;
/// Microseconds that a write may wait: what the till asks for at most, and a little.
const WAIT_MICROS_MAX: u64 = 8000;

/// The steady speed of a writer to eight keyspaces, in bytes of keys and values a second.
fn simulate(seed: u64, speed: u64) -> u64 {
    let machine = Machine::new(seed, speed);
    let total = usize::try_from(TOTAL).expect("it fits");
    machine.open(seed, &options().memtable_bytes_total(total), 8);
    let half = 40_000;
    let from = machine.run(half);
    let upto = machine.run(2 * half);
    let writer = machine.writer.lock().expect("unbroken");
    let written = WRITE_BYTES * half * 1_000_000 / (upto - from);
    println!(
        "seed {seed}, flushes {speed}: {written}, {} waits, longest {} us, most {} bytes",
        writer.waits, writer.longest_micros, writer.memory_bytes_most
    );
    assert_eq!(machine.stops.load(Ordering::SeqCst), 0, "it was stopped");
    assert_eq!(writer.causes, [ThrottleCause::Memory]);
    assert!(
        writer.memory_bytes_most < TOTAL,
        "{}",
        writer.memory_bytes_most
    );
    assert!(
        writer.longest_micros <= WAIT_MICROS_MAX,
        "{}",
        writer.longest_micros
    );
    assert_eq!(machine.paid_idle_micros.load(Ordering::SeqCst), 0);
    drop(writer);
    machine.close();
    written
}

#[test]
fn writers_that_fill_memory_too_fast_come_to_go_as_fast_as_flushes() {
    let name = "writers_that_fill_memory_too_fast_come_to_go_as_fast_as_flushes";
    for_each_seed(name, 4, |seed| {
        let [slow, fast] = [5_000_000, 10_000_000].map(|speed| simulate(seed, speed));
        assert!(
            fast > slow * 3 / 2 && fast < slow * 3,
            "flushes twice as fast took the writer from {slow} to {fast}"
        );
    });
}

#[test]
fn a_keyspace_within_its_own_bounds_is_never_slowed_for_memory() {
    // The two that may wait to be flushed and the active one take three quarters of all memory.
    // Flushes are faster than the writer, and slower.
    for (speed, is_slowed) in [(200_000_000, false), (45_000_000, true)] {
        let machine = Machine::new(1, speed);
        let options = options()
            .memtable_bytes_max(1 << 20)
            .sealed_memtable_count_max(2);
        machine.open(1, &options.memtable_bytes_total(4 << 20), 1);
        machine.run(40_000);
        let writer = machine.writer.lock().expect("unbroken");
        println!("flushes {speed}: {} waits", writer.waits);
        let causes = [ThrottleCause::Memtables];
        let causes = if is_slowed { &causes[..] } else { &[] };
        assert_eq!(writer.causes, causes, "flushes {speed}");
        assert_eq!(machine.stops.load(Ordering::SeqCst), 0);
        drop(writer);
        machine.close();
    }
}

#[test]
fn a_large_memtable_alone_slows_nobody() {
    let machine = Machine::new(2, 1_000_000);
    let total = usize::try_from(2 * TOTAL).expect("it fits");
    machine.open(2, &options().memtable_bytes_total(total), 1);
    // Half of the memory, by far most of it in the one memtable.
    let mut writer = machine.writer.lock().expect("unbroken");
    while writer.memory_bytes_most < TOTAL - TOTAL / 16 {
        machine.write(&mut writer);
    }
    assert_eq!(writer.waits, 0, "nothing is flushed that it could wait for");
    drop(writer);
    machine.close();
}

#[test]
fn slowing_comes_before_the_stop() {
    for_each_seed("slowing_comes_before_the_stop", 4, |seed| {
        let world = World::new(seed);
        let mut rng = Rng::new(seed);
        let total = 1 << 20;
        let db = world
            .options()
            .memtable_bytes_max(128 << 10)
            .memtable_bytes_total(total)
            .log_bytes_max(1 << 30)
            .open("/db")
            .expect("opens");
        let keyspaces: Vec<_> = (0..4)
            .map(|n| {
                db.create_keyspace(
                    &n.to_string(),
                    &keyspace_options().memtable_bytes_max(128 << 10),
                )
            })
            .collect();
        let no_wait = WriteOptions::new().no_wait();
        let put = |rng: &mut Rng| {
            let keyspace = rng.pick(&keyspaces).as_ref().expect("created");
            let number = rng.next();
            keyspace.put_with(number.to_be_bytes(), tagged(number, 60), &no_wait)
        };
        // No flush runs: whoever may not wait is refused while there is a good deal left.
        let error = loop {
            if let Err(error) = put(&mut rng) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("too much memory"), "{error}");
        let used = usize::try_from(db.stats().memtable_taken_bytes).expect("it fits");
        assert!(
            (total * 3 / 4..total * 15 / 16).contains(&used),
            "refused at {used} of {total}"
        );
        let throttle = db.stats().throttle;
        assert_eq!(throttle.cause, Some(ThrottleCause::Memory));
        assert!(throttle.bytes_per_second > 0.0, "slowed, not stopped");
        // With time that passes more is let through, up to the stop, which is at the bound.
        let mut longest = Duration::ZERO;
        while db.stats().throttle.bytes_per_second > 0.0 && longest < Duration::from_secs(60) {
            if put(&mut rng).is_err() {
                world.clock.advance(10_000);
                longest += Duration::from_millis(10);
            }
        }
        let used = usize::try_from(db.stats().memtable_taken_bytes).expect("it fits");
        assert!(
            (total * 31 / 32..total * 33 / 32).contains(&used),
            "stopped at {used} of {total}"
        );
        world.executor.run_until_idle();
        put(&mut rng).expect("memory was given back");
        assert_eq!(db.stats().throttle.cause, None);
    });
}
