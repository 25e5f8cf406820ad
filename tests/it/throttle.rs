//! Writes that flush and compaction cannot keep up with: slowed down smoothly, never lost in a
//! wait, refused at once where the caller wants that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::sync::Bell;
use siltstone::seam::CountingFs;
use siltstone::{Db, ErrorKind, Options, ThrottleCause, WriteOptions, WriteOutcome};

use crate::support::{World, for_each_seed, tagged};

/// A database whose level 0 is full and stays so until steps are run.
fn stalled(world: &World) -> Db {
    let db = world
        .options()
        .level0_table_count_trigger(2)
        .level0_table_count_max(3)
        .sealed_memtable_count_max(1)
        .open("/db")
        .expect("opens");
    let no_wait = WriteOptions::new().no_wait();
    for number in 0..10_000_u64 {
        if let Err(error) = db.put_with(number.to_be_bytes(), tagged(number, 60), &no_wait) {
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
            assert!(error.to_string().contains("memtables"), "{error}");
            assert_eq!(db.get(number.to_be_bytes()).expect("a get"), None);
            return db;
        }
    }
    panic!("nothing was ever behind");
}

#[test]
fn a_write_that_must_not_wait_is_refused_with_the_cause() {
    for_each_seed(
        "a_write_that_must_not_wait_is_refused_with_the_cause",
        6,
        |seed| {
            let world = World::new(seed);
            let db = stalled(&world);
            let throttle = db.stats().throttle;
            assert_eq!(throttle.cause, Some(ThrottleCause::Memtables));
            // With time, the background gets on, and the same write goes through.
            let soon = WriteOptions::new().deadline(Duration::from_secs(1));
            let commit = db.put_with("key", "value", &soon).expect("in time");
            let throttled = commit.throttled().expect("it waited");
            assert_eq!(throttled.cause, ThrottleCause::Memtables);
            let stats = db.stats();
            assert_eq!(stats.stall_count, 1);
            assert_eq!(stats.waits[0].cause, ThrottleCause::Memtables);
        },
    );
}

#[test]
fn a_close_and_a_poison_end_the_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let is_stuck = Arc::new(AtomicBool::new(false));
    let stuck = Arc::clone(&is_stuck);
    // The flush waits in the listener, so that the writer must wait for it.
    let release = Arc::new(Bell::new());
    let released = Arc::clone(&release);
    let listener = move |event: &siltstone::Event| match event {
        siltstone::Event::FlushBegan { .. } => {
            released.wait_past(0, Some(Duration::from_secs(60)));
        }
        siltstone::Event::StallBegan { .. } => stuck.store(true, Ordering::SeqCst),
        _ => {}
    };
    let db = Options::new()
        .memtable_bytes_max(4 << 10)
        .sealed_memtable_count_max(1)
        .on_event(Arc::new(listener))
        .open(dir.path())
        .expect("opens");
    let writer = {
        let db = db.clone();
        std::thread::spawn(move || {
            (0..10_000_u64).find_map(|n| db.put(n.to_be_bytes(), [1; 100]).err())
        })
    };
    while !is_stuck.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let closer = {
        let db = db.clone();
        std::thread::spawn(move || db.close())
    };
    release.ring();
    closer.join().expect("no panic").expect("closes");
    let error = writer.join().expect("no panic").expect("it was closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[test]
fn a_full_disk_is_not_written_to_again_and_again() {
    for_each_seed("a_full_disk_is_not_written_to_again_and_again", 8, |seed| {
        let world = World::new(seed);
        let fs = Arc::new(CountingFs::new(world.fs.clone()));
        let counts = fs.counts();
        let db = world.options().file_system(fs).open("/db").expect("opens");
        let mut acknowledged = 0_u64;
        let put = |number: u64| db.put(number.to_be_bytes(), tagged(number, 60));
        while acknowledged < 100 {
            put(acknowledged).expect("a put");
            acknowledged += 1;
        }
        world.executor.run_until_idle();
        world.fs.set_quota(Some(24 << 10));
        let error = loop {
            match put(acknowledged) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
            world.executor.run_until_idle();
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let before = counts.written_bytes();
        for _ in 0..500 {
            let error = put(acknowledged).expect_err("still full");
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
            world.executor.run_until_idle();
        }
        let written = counts.written_bytes() - before;
        let job = db.stats().memtable_bytes;
        assert!(
            written <= 2 * job,
            "{written} bytes written while full; a job has {job}"
        );
        world.fs.set_quota(None);
        while put(acknowledged).is_err() {
            world.clock.advance(100_000);
        }
        db.flush().expect("there is room");
        for number in 0..=acknowledged {
            assert!(db.get(number.to_be_bytes()).expect("a get").is_some());
        }
    });
}
