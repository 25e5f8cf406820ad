//! A writer that is faster than compaction, on a simulated machine: it comes to go as fast as
//! compaction gets on, and neither meets a stop nor waits for long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock::{Clock, ManualClock};
use base::executor::{Executor, Scatter, StepFn, Stepped, Task, Worker};
use base::fs::sim::SimFs;
use base::sync::Bell;
use siltstone::seam::{CountingFs, IoCounts};
use siltstone::{Db, Options};

use crate::support::{for_each_seed, tagged};

/// A machine whose compactions take time, during which the writer goes on.
#[derive(Debug)]
struct Slow {
    steps: Arc<Stepped>,
    clock: Arc<ManualClock>,
    written: Arc<IoCounts>,
    /// What compactions read and write, in bytes a second.
    speed: AtomicU64,
    writer: Mutex<Writer>,
    stops: AtomicU64,
    /// Whether a compaction is under way.
    is_compacting: AtomicBool,
    /// What the writer paid while none was, in microseconds.
    paid_idle_micros: AtomicU64,
    helper: Helper,
}

/// The helper has a thread of its own: what it pauses is nobody else's time.
#[derive(Debug, Default)]
struct Helper {
    is_running: AtomicBool,
    pauses_until: AtomicU64,
}

/// Writes without a pause of its own.
#[derive(Debug, Default)]
struct Writer {
    db: Option<Db>,
    count: u64,
    waits: u64,
    longest_micros: u64,
}

/// Microseconds that a write takes by itself: 34 MB a second of keys and values.
const WRITE_MICROS: u64 = 2;
const WRITE_BYTES: u64 = 68;

impl Slow {
    fn now(&self) -> u64 {
        self.clock.monotonic_micros()
    }

    fn write(&self, writer: &mut Writer) {
        self.clock.advance(WRITE_MICROS);
        let db = writer.db.as_ref().expect("it is open");
        let key = writer.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = tagged(writer.count, 60);
        let commit = db.put(key.to_be_bytes(), value).expect("a put");
        writer.count += 1;
        if let Some(throttled) = commit.throttled() {
            writer.waits += 1;
            writer.longest_micros = writer.longest_micros.max(throttled.micros);
        }
        if writer.count.is_multiple_of(16) {
            self.steps.step_named("siltstone-flush");
            self.help();
        }
    }

    /// Lets the helper go on, unless it is in a pause of its own.
    fn help(&self) {
        let helper = &self.helper;
        if self.now() >= helper.pauses_until.load(Ordering::SeqCst) {
            helper.is_running.store(true, Ordering::SeqCst);
            self.steps.step_named("siltstone-helper");
            helper.is_running.store(false, Ordering::SeqCst);
        }
    }
}

impl Scatter for Slow {
    /// Called by compactions, with no lock held, while they count the time they take.
    fn scatter(&self, tasks: Vec<Task<'_>>) {
        let before = self.written.written_bytes();
        self.steps.scatter(tasks);
        let bytes = 2 * (self.written.written_bytes() - before);
        let end = self.now() + bytes * 1_000_000 / self.speed.load(Ordering::SeqCst);
        self.is_compacting.store(true, Ordering::SeqCst);
        match self.writer.try_lock() {
            Ok(mut writer) => {
                while self.now() < end {
                    self.write(&mut writer);
                }
            }
            // The writer itself waits for this compaction.
            Err(_) => self.clock.set(end),
        }
        self.is_compacting.store(false, Ordering::SeqCst);
    }

    fn width(&self) -> usize {
        1
    }
}

impl Executor for Slow {
    fn register(&self, name: &str, step: StepFn) -> siltstone::Result<Arc<dyn Worker>> {
        self.steps.register(name, step)
    }

    fn wait(&self, bell: &Bell, done: &mut dyn FnMut() -> bool) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.steps.wait(bell, done);
    }

    fn wait_for(&self, bell: &Bell, timeout: Duration, done: &mut dyn FnMut() -> bool) -> bool {
        self.steps.wait_for(bell, timeout, done)
    }

    fn pause(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).expect("a short pause");
        if self.helper.is_running.load(Ordering::SeqCst) {
            let until = self.now() + micros;
            self.helper.pauses_until.store(until, Ordering::SeqCst);
            return;
        }
        if !self.is_compacting.load(Ordering::SeqCst) {
            self.paid_idle_micros.fetch_add(micros, Ordering::SeqCst);
        }
        self.clock.advance(micros);
    }
}

/// What came of a writer against a compaction.
#[derive(Debug)]
struct Outcome {
    /// In the second half, bytes a second.
    speed: u64,
    /// Writes that waited, of a thousand, in the second half.
    waits: u64,
    longest_micros: u64,
    stops: u64,
    /// What the writer paid while there was nothing to compact, in all.
    paid_idle_micros: u64,
}

/// What compactions get done in each half, in bytes a second.
#[derive(Clone, Copy, Debug)]
struct Speeds {
    first: u64,
    second: u64,
}

fn simulate(seed: u64, speeds: Speeds) -> Outcome {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let fs = Arc::new(CountingFs::new(SimFs::new(seed)));
    let machine = Arc::new(Slow {
        steps: Stepped::with_clock(seed, Arc::clone(&clock)),
        clock: Arc::clone(&clock),
        written: fs.counts(),
        speed: AtomicU64::new(speeds.first),
        writer: Mutex::default(),
        stops: AtomicU64::new(0),
        is_compacting: AtomicBool::new(false),
        paid_idle_micros: AtomicU64::new(0),
        helper: Helper::default(),
    });
    let db = Options::new()
        .memtable_bytes_max(256 << 10)
        .level_base_bytes(1 << 20)
        .level0_table_count_max(40)
        .table_bytes_target(64 << 10)
        .file_system(fs)
        .executor(Arc::clone(&machine) as _)
        .clock(clock)
        .sync_interval(None)
        .open("/db")
        .expect("opens");
    {
        let mut writer = machine.writer.lock().expect("unbroken");
        writer.count = seed << 32;
        writer.db = Some(db);
    }
    let run = |until: u64| {
        loop {
            machine.steps.step_named("siltstone-compact");
            let mut writer = machine.writer.lock().expect("unbroken");
            if writer.count >= (seed << 32) + until {
                return (machine.now(), writer.count, writer.waits);
            }
            machine.write(&mut writer);
        }
    };
    let (half_micros, half_count, half_waits) = run(150_000);
    machine.speed.store(speeds.second, Ordering::SeqCst);
    let (micros, count, waits) = run(300_000);
    let mut writer = machine.writer.lock().expect("unbroken");
    drop(writer.db.take());
    Outcome {
        speed: (count - half_count) * WRITE_BYTES * 1_000_000 / (micros - half_micros),
        waits: (waits - half_waits) * 1000 / (count - half_count),
        longest_micros: writer.longest_micros,
        stops: machine.stops.load(Ordering::SeqCst),
        paid_idle_micros: machine.paid_idle_micros.load(Ordering::SeqCst),
    }
}

/// Microseconds that a write may wait: what the till asks for at most, and a little.
const WAIT_MICROS_MAX: u64 = 8000;

#[test]
fn a_writer_too_fast_for_compaction_meets_its_speed_and_never_a_stop() {
    let unhindered = WRITE_BYTES * 1_000_000 / WRITE_MICROS;
    let name = "a_writer_too_fast_for_compaction_meets_its_speed_and_never_a_stop";
    for_each_seed(name, 6, |seed| {
        let [slow, fast] = [52_000_000, 104_000_000].map(|speed| {
            let (first, second) = (speed, speed);
            let outcome = simulate(seed, Speeds { first, second });
            println!("seed {seed}, {speed}: {outcome:?}");
            assert_eq!(outcome.stops, 0, "{outcome:?}");
            assert!(outcome.longest_micros <= WAIT_MICROS_MAX, "{outcome:?}");
            assert!(outcome.speed < unhindered / 2, "not held back: {outcome:?}");
            // So it is not held back further than compaction needs.
            assert_eq!(outcome.paid_idle_micros, 0, "{outcome:?}");
            // What compaction gets done is rewritten some times over; less than this is too slow.
            assert!(outcome.speed > speed / 20, "held back too far: {outcome:?}");
            // At this speed credit for the longest wait is some 400 writes.
            assert!(outcome.waits <= 4, "{outcome:?}");
            outcome.speed
        });
        assert!(
            fast > slow * 3 / 2 && fast < slow * 3,
            "compaction twice as fast took the writer from {slow} to {fast}"
        );
    });
}

#[test]
fn a_disk_that_becomes_slow_is_met_as_well() {
    for_each_seed("a_disk_that_becomes_slow_is_met_as_well", 4, |seed| {
        let (first, second) = (120_000_000, 30_000_000);
        let outcome = simulate(seed, Speeds { first, second });
        println!("{outcome:?}");
        assert_eq!(outcome.stops, 0, "{outcome:?}");
        assert!(outcome.longest_micros <= WAIT_MICROS_MAX, "{outcome:?}");
        assert!(
            (second / 20..second / 5).contains(&outcome.speed),
            "{outcome:?}"
        );
    });
}
