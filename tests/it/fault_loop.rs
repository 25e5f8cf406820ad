//! Every change of the disk fails once, or from then on, with every error that a system gives,
//! while a fixed course of events runs and while its end is recovered.

use std::sync::Arc;

use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::{CrashModel, SimFs};
use siltstone::{Durability, Error, ErrorKind, Health};

use crate::history::{Runner, Write};
use crate::images::{Depth, check_image, check_no_leak};
use crate::support::{PrintOnPanic, contents, rounds};

/// What happens, step by step; the letter stands for one call.
const COURSES: [(&str, &str); 5] = [
    ("durable puts", "DDDDDDDDFDDDDDDDDDDF"),
    (
        "puts and batches, now and then a sync",
        "pbpbpbsppbbbsppppfbbbbsCp",
    ),
    ("mostly deletes", "bbbbbbxxxxxxxFxxxxxxCbbxxxxC"),
    ("one MANIFEST after another", "pFpFpFpFpCpFpFpFpFpCpFpF"),
    ("closed and opened", "bbbfOpppOFxxOCbbo"),
];

/// One call of a course.
fn call(runner: &mut Runner, letter: char) -> Result<(), Error> {
    match letter {
        'p' => runner.put(Durability::Os),
        'D' => runner.put(Durability::Disk),
        'b' => runner.commit(),
        'x' => {
            let deletes: Vec<Write> = (0..3).map(|_| (runner.key(), None)).collect();
            runner.write(&deletes, Durability::Os)
        }
        's' => runner.sync(),
        'f' => {
            runner.step(8);
            Ok(())
        }
        'F' => runner.flush(),
        'C' => runner.compact(),
        'O' => {
            runner.close()?;
            runner.open()
        }
        'o' => {
            runner.drop_handle();
            runner.open()
        }
        other => panic!("no such step: {other}"),
    }
}

fn is_honest(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned
    )
}

/// How many changes of the disk a course makes when nothing fails.
fn count_changes(seed: u64, course: &str) -> u64 {
    let mut runner = Runner::new(seed);
    runner.open().expect("a new database");
    for letter in course.chars() {
        call(&mut runner, letter).expect("nothing fails");
        runner.step(2);
    }
    runner.world.fs.mutation_count()
}

fn run(seed: u64, course: &str, fault: Fault) {
    let mut runner = Runner::new(seed);
    runner.is_faulty = true;
    runner.world.fs.fail(fault);
    if let Err(error) = runner.open() {
        assert!(is_honest(&error), "{error:?}");
        runner.world.fs.clear_faults();
        runner.open().expect("a second try, without a fault");
    }
    for letter in course.chars() {
        if let Err(error) = call(&mut runner, letter) {
            assert!(is_honest(&error), "{error:?}");
        }
        if !runner.is_open() {
            runner.world.fs.clear_faults();
            runner.open().expect("an open after the fault is gone");
        }
        runner.step(2);
    }
    // Reads work with the fault still there: it meets changes only.
    runner.look().expect("a scan");
    runner.world.fs.clear_faults();
    if !matches!(runner.db().health(), Health::Poisoned(_)) {
        runner.put(Durability::Disk).expect("the fault is gone");
        runner.compact().expect("the fault is gone");
    }
    let image = runner.world.fs.crash_image(&CrashModel::Sectors, seed);
    check_image(image, seed, &runner.history, Depth::Quick);
    runner.drop_handle();
    runner.open().expect("a reopen");
    runner.compact().expect("a compaction");
    runner.close().expect("a clean close");
    check_no_leak(&runner.world.fs);
}

/// Error and whether it stays; each course meets them in turn at each of its changes.
const WAYS: [(FaultError, bool); 8] = [
    (FaultError::Eio, false),
    (FaultError::Enospc, true),
    (FaultError::Emfile, false),
    (FaultError::Erofs, true),
    (FaultError::Eio, true),
    (FaultError::Enospc, false),
    (FaultError::Emfile, true),
    (FaultError::Erofs, false),
];

fn fault(kind: OpKind, nth: u64, (error, stays): (FaultError, bool)) -> Fault {
    let fault = Fault::new(kind, error).nth(nth);
    if stays { fault.for_ever() } else { fault }
}

/// So many ways are tried at each change in one round; eight rounds try all.
fn ways(nth: u64) -> impl Iterator<Item = (FaultError, bool)> {
    let count = usize::try_from(rounds()).expect("small").min(WAYS.len());
    let first = usize::try_from(nth).expect("small");
    (0..count).map(move |index| WAYS[(first + index) % WAYS.len()])
}

#[test]
fn every_change_of_every_course_fails() {
    for (index, (name, course)) in COURSES.into_iter().enumerate() {
        let seed = index as u64;
        let changes = count_changes(seed, course);
        assert!(changes > 40, "{name}: only {changes} changes");
        for nth in 1..=changes {
            for way in ways(nth) {
                let _place = PrintOnPanic(format!("{name}: change {nth} fails with {way:?}"));
                run(seed, course, fault(OpKind::AnyMutating, nth, way));
            }
        }
    }
}

/// The disk after a kill in the middle of a course, and what was written to it.
fn killed(seed: u64) -> (Arc<SimFs>, Runner) {
    let mut runner = Runner::new(seed);
    runner.open().expect("a new database");
    for letter in "bbbbfbbbbCbbbbbbsbbbbbbbbbb".chars() {
        call(&mut runner, letter).expect("nothing fails");
    }
    let image = runner.world.fs.crash_image(&CrashModel::Everything, seed);
    (image, runner)
}

#[test]
fn every_call_of_a_recovery_fails() {
    for seed in 0..3 {
        let (image, runner) = killed(seed);
        let copy = || image.crash_image(&CrashModel::Everything, 0);
        let world = crate::support::World::on(copy(), seed);
        let calls = world.fs.calls(OpKind::Any);
        drop(world.open().expect("nothing fails"));
        let calls = world.fs.calls(OpKind::Any) - calls;
        for nth in 1..=calls {
            for way in ways(nth) {
                let _place = PrintOnPanic(format!("seed {seed}: call {nth} fails with {way:?}"));
                let world = crate::support::World::on(copy(), seed);
                world.fs.fail(fault(OpKind::Any, nth, way));
                match world.open() {
                    Ok(db) => drop(db),
                    Err(error) => assert!(is_honest(&error), "{error:?}"),
                }
                world.fs.clear_faults();
                let db = world.open().expect("the fault is gone");
                let found = contents(&db).expect("a scan");
                assert!(found == *runner.history.last(), "something else is there");
                db.put("more", "").expect("a write");
                db.compact_range(..).expect("a compaction");
                db.close().expect("a clean close");
                check_no_leak(&world.fs);
            }
        }
    }
}
