//! Clocks that jump: commit times never decrease, and nothing is deleted or stuck because of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock::Clock;
use siltstone::Db;

use crate::order;
use crate::support::{DIR, World, contents, for_each_seed, tagged};

const HOUR: u64 = 3_600_000_000;
const START: u64 = 1_700_000_000_000_000;

/// A wall clock that somebody sets, and a steady one beside it.
#[derive(Debug)]
struct JumpingClock {
    wall: AtomicU64,
    steady: AtomicU64,
}

impl JumpingClock {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicU64::new(START),
            steady: AtomicU64::new(0),
        })
    }

    fn jump_to(&self, micros: u64) {
        self.wall.store(micros, Ordering::SeqCst);
    }

    /// Time goes by.
    fn pass(&self, micros: u64) {
        self.wall.fetch_add(micros, Ordering::SeqCst);
        self.steady.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn now_micros(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_micros(&self) -> u64 {
        self.steady.load(Ordering::SeqCst)
    }
}

fn write(db: &Db, world: &World, clock: &JumpingClock, from: u64) {
    for index in from..from + 40 {
        db.put(index.to_be_bytes(), tagged(index, 200))
            .expect("a put");
        clock.pass(1000);
        world.executor.step();
    }
}

#[test]
fn commit_times_never_decrease_whatever_the_clock_says() {
    for_each_seed(
        "commit_times_never_decrease_whatever_the_clock_says",
        6,
        |seed| {
            let world = World::new(seed);
            let clock = JumpingClock::new();
            let options = || {
                let options = world.options().clock(clock.clone());
                options.log_keep_bytes(1 << 30)
            };
            let mut db = options().open(DIR).expect("a new database");
            let jumps = [
                START - 24 * HOUR,
                START + 87_600 * HOUR,
                0,
                START,
                START / 2,
            ];
            for (index, jump) in jumps.into_iter().enumerate() {
                write(&db, &world, &clock, 40 * index as u64);
                clock.jump_to(jump);
                if seed % 2 == 0 {
                    drop(db);
                    db = options().open(DIR).expect("a reopen");
                }
            }
            write(&db, &world, &clock, 200);
            db.sync().expect("a sync");
            let mut times = Vec::new();
            for path in order::segments(&world.fs, Path::new(DIR)) {
                let bytes = world.fs.contents(&path).expect("it was listed");
                for record in order::parse(&path, &bytes) {
                    times.push((record.first_seq, record.commit_micros));
                }
            }
            times.sort_unstable();
            assert!(times.len() > 200, "only {} records", times.len());
            for pair in times.windows(2) {
                let (earlier, later) = (pair[0], pair[1]);
                assert!(earlier.1 <= later.1, "{earlier:?} before {later:?}");
            }
            assert_eq!(contents(&db).expect("a scan").len(), 240);
        },
    );
}

#[test]
fn a_jump_deletes_nothing_that_is_to_be_kept_for_a_time() {
    let world = World::new(5);
    let clock = JumpingClock::new();
    let options = world.options().clock(clock.clone());
    let options = options.log_keep_age(Duration::from_secs(3600));
    let db = options.open(DIR).expect("a new database");
    write(&db, &world, &clock, 0);
    db.flush().expect("a flush");
    let segments = || order::segments(&world.fs, Path::new(DIR));
    let first = segments().remove(0);
    for jump in [START - 24 * HOUR, START + 87_600 * HOUR, 0, START] {
        clock.jump_to(jump);
        write(&db, &world, &clock, 1000);
        db.flush().expect("a flush");
        world.executor.run_until_idle();
        assert_eq!(segments()[0], first, "deleted by a jump to {jump}");
    }
    // When the time has really passed it goes.
    clock.pass(2 * HOUR);
    write(&db, &world, &clock, 2000);
    db.flush().expect("a flush");
    world.executor.run_until_idle();
    assert_ne!(segments()[0], first, "kept for ever");
}

#[test]
fn background_work_goes_on_whatever_the_clock_says() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = JumpingClock::new();
    let db = siltstone::Options::new()
        .clock(clock.clone())
        .sync_interval(Some(Duration::from_millis(1)))
        .open(dir.path())
        .expect("a new database");
    for jump in [0, u64::MAX / 2, 1, START] {
        clock.jump_to(jump);
        let before = db.stats().log_sync_count;
        db.put("key", tagged(jump, 100)).expect("a put");
        while db.stats().log_sync_count == before {
            std::thread::yield_now();
        }
        db.flush().expect("a flush");
        db.compact_range(..).expect("a compaction");
    }
    db.close().expect("a clean close");
}
