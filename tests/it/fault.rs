//! Calls that fail: whichever one it is, once or from then on, nothing shown is wrong, nothing
//! acknowledged is lost, and nobody panics.

use std::path::Path;

use base::FileKind;
use base::fs::fault::{Effect, Fault, FaultError, OpKind};
use base::fs::sim::{CrashModel, FailedSync};
use siltstone::{Durability, Error, ErrorKind, Health, WriteOutcome};

use crate::history::Runner;
use crate::images::{Depth, check_image, check_no_leak};
use crate::support::{PrintOnPanic, Rng, for_each_seed, rounds};

fn is_kind(kind: FileKind) -> impl Fn(&Path) -> bool + Send + Sync {
    move |path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        FileKind::parse(name).is_some_and(|(found, _)| found == kind)
    }
}

/// A failed call is reported as what it is.
fn assert_honest(error: &Error) {
    let honest = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Poisoned];
    assert!(
        honest.contains(&error.kind()),
        "a failed call is reported as {error:?}"
    );
}

/// Does random things while `fault` is in wait, then looks at what is left.
fn run_with_fault(seed: u64, fault: Fault, failed_sync: FailedSync) {
    let mut runner = Runner::new(seed);
    runner.is_faulty = true;
    runner.world.fs.set_failed_sync(failed_sync);
    runner.world.fs.fail(fault);
    if let Err(error) = runner.open() {
        assert_honest(&error);
        runner.world.fs.clear_faults();
        runner.open().expect("a second try, without a fault");
    }
    for _ in 0..90 {
        if let Err(error) = runner.anything() {
            assert_honest(&error);
        }
        if !runner.is_open() {
            runner.world.fs.clear_faults();
            runner.open().expect("an open after the fault is gone");
        }
        if runner.rng.chance(5)
            && let Err(error) = runner.look()
        {
            assert_honest(&error);
        }
    }
    runner.world.fs.clear_faults();
    // Whoever found no space tries again now, although no more of it is seen.
    runner.world.clock.advance(60_000_000);
    runner.look().expect("reads work when the fault is gone");
    let image = runner.world.fs.crash_image(&CrashModel::Sectors, seed);
    check_image(image, seed, &runner.history, Depth::Quick);
    match runner.db().health() {
        Health::Poisoned(_) => {
            let error = runner
                .put(Durability::Os)
                .expect_err("poisoned is for good");
            assert_eq!(error.kind(), ErrorKind::Poisoned);
        }
        Health::Good | Health::Degraded(_) => {
            runner
                .put(Durability::Disk)
                .expect("a write when the fault is gone");
            runner
                .compact()
                .expect("a compaction when the fault is gone");
            runner.look().expect("a read when the fault is gone");
        }
        other => panic!("it was not closed: {other:?}"),
    }
    runner.drop_handle();
    runner.open().expect("an open when the fault is gone");
    let image = runner.world.fs.crash_image(&CrashModel::Synced, seed);
    check_image(image, seed, &runner.history, Depth::Whole);
    runner.close().expect("a clean close");
    check_no_leak(&runner.world.fs);
}

/// Lets calls of `kind` fail, each time another one, in every way.
fn fail_everywhere(kind: OpKind, call_count: u64, run_count: u64) {
    let errors = [FaultError::Eio, FaultError::Enospc];
    let after_sync = [
        FailedSync::Forgotten,
        FailedSync::Kept,
        FailedSync::Reverted,
    ];
    let run_count = run_count * rounds();
    for run in 0..run_count {
        let mut rng = Rng::new(run);
        let nth = 1 + run * call_count / run_count;
        let error = errors[rng.below(2)];
        let effect = match rng.below(4) {
            0 => Effect::FailAfter(error),
            1 => Effect::FailPartly {
                bytes: rng.below(300),
                error,
            },
            _ => Effect::Fail(error),
        };
        let fault = Fault::with_effect(kind, effect).nth(nth);
        let fault = if rng.chance(40) {
            fault.for_ever()
        } else {
            fault
        };
        let failed_sync = *rng.pick(&after_sync);
        let _place = PrintOnPanic(format!("run {run}: {fault:?}, {failed_sync:?}"));
        run_with_fault(run, fault, failed_sync);
    }
}

#[test]
fn whichever_change_of_the_disk_fails() {
    fail_everywhere(OpKind::AnyMutating, 300, 300);
}

#[test]
fn whichever_call_fails() {
    fail_everywhere(OpKind::Any, 900, 200);
}

#[test]
fn whichever_call_of_a_rarer_kind_fails() {
    for kind in [
        OpKind::Sync,
        OpKind::SyncDir,
        OpKind::Rename,
        OpKind::Remove,
        OpKind::Create,
    ] {
        fail_everywhere(kind, 60, 40);
    }
    for kind in [
        OpKind::Reserve,
        OpKind::SetLen,
        OpKind::Map,
        OpKind::Open,
        OpKind::Read,
    ] {
        fail_everywhere(kind, 60, 25);
    }
}

#[test]
fn a_failed_sync_of_the_log_closes_the_door_for_writes() {
    for_each_seed(
        "a_failed_sync_of_the_log_closes_the_door_for_writes",
        6,
        |seed| {
            let mut runner = Runner::new(seed);
            runner.is_faulty = true;
            runner.open().expect("a new database");
            for _ in 0..10 {
                runner.put(Durability::Os).expect("a put");
            }
            let fault = Fault::new(OpKind::Sync, FaultError::Eio).only(is_kind(FileKind::Segment));
            runner.world.fs.fail(fault);
            let error = runner.sync().expect_err("the sync fails");
            assert_eq!(error.kind(), ErrorKind::Io);
            assert_eq!(
                error.outcome(),
                Some(WriteOutcome::Indeterminate),
                "{error:?}"
            );
            for durability in [Durability::Os, Durability::Disk] {
                let error = runner.put(durability).expect_err("the door is closed");
                assert_eq!(error.kind(), ErrorKind::Poisoned);
                assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
                let cause = std::error::Error::source(&error).expect("the cause");
                assert!(cause.to_string().contains("injected"), "{cause}");
            }
            assert_eq!(
                runner.flush().expect_err("poisoned").kind(),
                ErrorKind::Poisoned
            );
            assert_eq!(
                runner.compact().expect_err("poisoned").kind(),
                ErrorKind::Poisoned
            );
            assert_eq!(
                runner.sync().expect_err("poisoned").kind(),
                ErrorKind::Poisoned
            );
            assert!(matches!(runner.db().health(), Health::Poisoned(_)));
            runner.step(20);
            runner.look().expect("reads go on");
            runner
                .close()
                .expect_err("it says that not everything was written");
            runner.open().expect("a reopen");
            runner
                .put(Durability::Disk)
                .expect("a write after the reopen");
        },
    );
}

#[test]
fn a_failed_sync_of_a_table_fails_its_job_only() {
    for_each_seed("a_failed_sync_of_a_table_fails_its_job_only", 6, |seed| {
        let mut runner = Runner::new(seed);
        runner.open().expect("a new database");
        for _ in 0..10 {
            runner.commit().expect("a commit");
        }
        let fault = Fault::new(OpKind::Sync, FaultError::Eio).only(is_kind(FileKind::Table));
        runner.world.fs.fail(fault);
        let error = runner.flush().expect_err("the sync fails");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(matches!(runner.db().health(), Health::Degraded(_)));
        runner.look().expect("nothing is lost");
        runner.commit().expect("writes go on");
        runner.flush().expect("it is tried again");
        assert!(matches!(runner.db().health(), Health::Good));
        runner.look().expect("nothing is lost");
        runner.close().expect("a clean close");
        check_no_leak(&runner.world.fs);
    });
}

#[test]
fn a_second_failed_sync_of_a_table_closes_the_door_for_writes() {
    for_each_seed(
        "a_second_failed_sync_of_a_table_closes_the_door_for_writes",
        6,
        |seed| {
            for is_compaction in [false, true] {
                let mut runner = Runner::new(seed);
                runner.is_faulty = true;
                runner.open().expect("a new database");
                for _ in 0..10 {
                    runner.commit().expect("a commit");
                }
                if is_compaction {
                    runner.flush().expect("a flush");
                }
                let fault = Fault::new(OpKind::Sync, FaultError::Eio).for_ever();
                runner.world.fs.fail(fault.only(is_kind(FileKind::Table)));
                let run = |runner: &mut Runner| {
                    let result = if is_compaction {
                        runner.compact()
                    } else {
                        runner.flush()
                    };
                    result.expect_err("its output cannot be synced")
                };
                assert_eq!(run(&mut runner).kind(), ErrorKind::Io);
                assert!(!matches!(runner.db().health(), Health::Poisoned(_)));
                run(&mut runner);
                assert!(matches!(runner.db().health(), Health::Poisoned(_)));
                let error = runner.put(Durability::Os).expect_err("the door is closed");
                assert_eq!(error.kind(), ErrorKind::Poisoned);
                runner.look().expect("reads go on");
                runner.world.fs.clear_faults();
                runner.drop_handle();
                runner.open().expect("a reopen");
                runner.put(Durability::Disk).expect("it takes writes again");
                runner.compact().expect("a compaction");
                runner.close().expect("a clean close");
                check_no_leak(&runner.world.fs);
            }
        },
    );
}

#[test]
fn a_new_segment_that_does_not_fit_is_a_rejected_write() {
    for kind in [OpKind::Create, OpKind::Reserve, OpKind::SyncDir] {
        let mut runner = Runner::new(5);
        runner.open().expect("a new database");
        let fault = Fault::new(kind, FaultError::Enospc).for_ever();
        let fault = if kind == OpKind::SyncDir {
            fault
        } else {
            fault.only(is_kind(FileKind::Segment))
        };
        runner.world.fs.fail(fault);
        let mut rejected = 0;
        for _ in 0..200 {
            let Err(error) = runner.put(Durability::Os) else {
                continue;
            };
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{kind:?}: {error}");
            assert_eq!(
                error.outcome(),
                Some(WriteOutcome::Rejected),
                "{kind:?}: {error}"
            );
            runner.look().expect("reads work");
            rejected += 1;
        }
        assert!(
            rejected > 10,
            "{kind:?}: the log never ran out of its segment"
        );
        runner.world.fs.clear_faults();
        runner
            .put(Durability::Disk)
            .expect("the same handle goes on when there is space");
        runner.flush().expect("a flush");
        runner.look().expect("reads work");
    }
}

#[test]
fn a_full_disk_is_told_and_the_same_handle_goes_on() {
    let step = 1500 / usize::try_from(rounds()).expect("a small number").min(10);
    for room in (200..30_000_u64).step_by(step) {
        let _place = PrintOnPanic(format!("with {room} bytes of room"));
        let mut runner = Runner::new(room);
        runner.is_faulty = true;
        runner.open().expect("a new database");
        for _ in 0..20 {
            runner.commit().expect("a commit");
        }
        let quota = runner.world.fs.used_bytes() + room;
        runner.world.fs.set_quota(Some(quota));
        for _ in 0..150 {
            if let Err(error) = runner.commit() {
                assert!(
                    [ErrorKind::NoSpace, ErrorKind::Poisoned].contains(&error.kind()),
                    "{error}"
                );
            }
            runner.step(1);
        }
        runner.look().expect("reads work on a full disk");
        runner.world.fs.set_quota(None);
        let health = runner.db().health();
        assert!(
            !matches!(health, Health::Poisoned(_)),
            "a full disk is no reason: {health:?}"
        );
        runner
            .put(Durability::Disk)
            .expect("a write when there is space");
        runner.compact().expect("a compaction when there is space");
        runner.look().expect("reads work");
        runner.close().expect("a clean close");
        check_no_leak(&runner.world.fs);
    }
}

#[test]
fn an_edit_for_which_there_is_no_room_changes_nothing() {
    for_each_seed(
        "an_edit_for_which_there_is_no_room_changes_nothing",
        8,
        |seed| {
            let mut runner = Runner::new(seed);
            runner.open().expect("a new database");
            for _ in 0..60 {
                runner.commit().expect("a commit");
            }
            runner.flush().expect("a flush");
            let fault = Fault::new(OpKind::Reserve, FaultError::Enospc).for_ever();
            runner
                .world
                .fs
                .fail(fault.only(is_kind(FileKind::Manifest)));
            let mut refused = 0;
            for _ in 0..20 {
                match runner.compact() {
                    Ok(()) => runner.commit().expect("a commit"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                        refused += 1;
                    }
                }
                runner.look().expect("reads work");
            }
            assert!(refused > 0, "there was room for everything");
            // What the refused edits would have replaced is all still there.
            runner.drop_handle();
            runner.world.fs.clear_faults();
            runner.open().expect("a reopen");
            runner.compact().expect("a compaction");
            assert!(matches!(runner.db().health(), Health::Good));
            runner.close().expect("a clean close");
            check_no_leak(&runner.world.fs);
        },
    );
}

#[test]
fn files_that_cannot_be_unlinked_do_no_harm() {
    let mut runner = Runner::new(3);
    runner.open().expect("a new database");
    runner
        .world
        .fs
        .fail(Fault::new(OpKind::Remove, FaultError::Eio).for_ever());
    for _ in 0..200 {
        runner.commit().expect("a commit");
        runner.step(1);
    }
    runner.compact().expect("a compaction");
    runner.look().expect("reads work");
    runner.world.fs.clear_faults();
    runner.drop_handle();
    runner.open().expect("a reopen");
    runner.close().expect("a clean close");
    check_no_leak(&runner.world.fs);
}
