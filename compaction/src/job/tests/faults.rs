//! Calls that fail, inputs that are wrong, jobs that end early: no file is left, inputs stay.

use base::FileKind;
use base::OwnedKey;
use base::fs::fault::{Effect, Fault, FaultError, OpKind};

use super::*;
use crate::testing::files_in;

#[test]
fn a_fault_anywhere_leaves_no_file_and_the_inputs() {
    let (mut bed, mut random) = grown(10);
    flush_wide(&mut bed, &mut random);
    let files = files_in(&bed.fs);
    let plan = plan_of_level0(&bed);
    let sound = compact(&bed.context, &bed.version, &plan).expect("a sound disk");
    for (_, meta) in &sound.added {
        bed.context
            .fs
            .remove_file(&FileKind::Table.path(&bed.context.dir, meta.number))
            .expect("");
    }
    let kinds = [
        OpKind::Create,
        OpKind::Write,
        OpKind::Sync,
        OpKind::SyncDir,
        OpKind::Read,
    ];
    let mut failures = 0;
    for kind in kinds {
        for nth in 1.. {
            bed.fs.fail(Fault::new(kind, FaultError::Eio).nth(nth));
            let result = compact(&bed.context, &bed.version, &plan);
            bed.fs.clear_faults();
            match result {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    failures += 1;
                }
                Ok(output) => {
                    for (_, meta) in &output.added {
                        let path = FileKind::Table.path(&bed.context.dir, meta.number);
                        bed.context.fs.remove_file(&path).expect("it was kept");
                    }
                    break;
                }
            }
            assert_eq!(files_in(&bed.fs), files, "{kind:?} {nth}");
        }
    }
    assert!(failures >= kinds.len(), "only {failures} faults were met");
    bed.compact(&plan);
    drop(plan);
    bed.check();
}

#[test]
fn a_fault_in_a_flush_leaves_no_file() {
    for kind in [OpKind::Create, OpKind::Write, OpKind::Sync, OpKind::SyncDir] {
        let mut random = Random::printed("flush fault", 11);
        let mut bed = Bed::new(11, ReadMode::Positioned);
        let run = bed.random_run(&mut random, 300, 300);
        bed.fs.fail(Fault::new(kind, FaultError::Enospc));
        let error = flush(&bed.context, &bed.version, vec![run.clone()]).expect_err("a full disk");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(files_in(&bed.fs).is_empty());
        bed.fs.clear_faults();
        bed.flush(vec![run]);
        bed.check();
    }
}

#[test]
fn a_wrong_or_short_read_is_an_error_and_never_an_output() {
    let (mut bed, mut random) = grown(12);
    let run = bed.random_run(&mut random, 30, 150);
    bed.flush(vec![run]);
    let plan = plan_of_level0(&bed);
    let files = files_in(&bed.fs);
    let reads_before = bed.fs.calls(OpKind::Read);
    let sound = compact(&bed.context, &bed.version, &plan).expect("a sound disk");
    for (_, meta) in &sound.added {
        bed.context
            .fs
            .remove_file(&FileKind::Table.path(&bed.context.dir, meta.number))
            .expect("");
    }
    let reads = bed.fs.calls(OpKind::Read) - reads_before;
    for nth in 1..=reads {
        let flips = [0, 77, 12345].map(|bit| Effect::FlipBit { bit });
        let shorts = [0, 1, 300].map(|bytes| Effect::Short { bytes });
        for effect in flips.into_iter().chain(shorts) {
            bed.fs
                .fail(Fault::with_effect(OpKind::Read, effect).nth(nth));
            let result = compact(&bed.context, &bed.version, &plan);
            bed.fs.clear_faults();
            match result {
                // A bit of the format's version makes a table of a newer one.
                Err(error) => assert!(
                    error.is_corruption() || error.kind() == ErrorKind::Unsupported,
                    "{error}"
                ),
                // The bit lay in bytes that nobody looks at, or in none.
                Ok(output) => {
                    assert_eq!(output.stats.entries_out, sound.stats.entries_out);
                    for (_, meta) in &output.added {
                        let path = FileKind::Table.path(&bed.context.dir, meta.number);
                        bed.context.fs.remove_file(&path).expect("it was kept");
                    }
                }
            }
            assert_eq!(files_in(&bed.fs), files);
        }
    }
}

#[test]
fn an_input_with_another_number_of_entries_is_corruption() {
    let mut bed = Bed::new(13, ReadMode::Positioned);
    let run = (0..9)
        .map(|n| bed.write(&format!("k{n}"), Some("v")))
        .collect();
    let mut output = flush(&bed.context, &bed.version, vec![VecCursor::new(run)]).expect("sound");
    output.added[0].1.entry_count += 1;
    bed.install(&output);
    let files = files_in(&bed.fs);
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let busy = InProgress::default();
    let plan = policy::pick_manual(&bed.version, &busy, &bed.tuning, from, to, level(0));
    let error = compact(&bed.context, &bed.version, &plan.expect("one table")).expect_err("lies");
    assert!(
        error.is_corruption() && error.to_string().contains("wanted=10 found=9"),
        "{error}"
    );
    assert_eq!(files_in(&bed.fs), files);
}

/// A table whose keys lie outside of its bounds in the tree, as after a mix-up of files.
#[test]
fn keys_outside_of_a_tables_bounds_do_not_become_a_panic() {
    let mut bed = Bed::new(14, ReadMode::Positioned);
    let run = vec![bed.write("aaaa1", Some("v")), bed.write("zz", Some("v"))];
    let mut output = flush(&bed.context, &bed.version, vec![VecCursor::new(run)]).expect("sound");
    let meta = &mut output.added[0].1;
    meta.largest = OwnedKey {
        user_key: b"aaaa2".into(),
        ..meta.largest.clone()
    };
    bed.install(&output);
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let busy = InProgress::default();
    let plan = policy::pick_manual(&bed.version, &busy, &bed.tuning, from, to, level(0));
    let error = compact(&bed.context, &bed.version, &plan.expect("one table")).expect_err("lies");
    assert!(error.is_corruption(), "{error}");
}

#[test]
fn a_cancelled_job_ends_and_leaves_no_file() {
    let (mut bed, mut random) = grown(15);
    flush_wide(&mut bed, &mut random);
    let files = files_in(&bed.fs);
    let plan = plan_of_level0(&bed);
    let cancel = Arc::clone(&bed.context.cancel);
    let watched = Arc::clone(&cancel);
    // Cancelled in the middle: when the first output is created.
    bed.fs.set_observer(Some(Arc::new(move |_, op| {
        if op.kind == OpKind::Create {
            watched.store(true, Ordering::SeqCst);
        }
    })));
    let error = compact(&bed.context, &bed.version, &plan).expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Closed);
    bed.fs.set_observer(None);
    assert_eq!(files_in(&bed.fs), files);
    cancel.store(false, Ordering::SeqCst);
    bed.compact(&plan);
    drop(plan);
    bed.check();
}

#[test]
fn a_panic_in_a_job_leaves_no_file() {
    let mut bed = Bed::new(16, ReadMode::Positioned);
    let run = (0..500)
        .map(|n| bed.write(&format!("k{n:04}"), Some("value")))
        .collect();
    let run = VecCursor::new(run);
    let numbers = Arc::clone(&bed.context.numbers);
    bed.context.numbers = Arc::new(move || {
        let number = numbers();
        assert!(number.0 < 2, "the second table");
        number
    });
    let (context, version) = (&bed.context, &bed.version);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        flush(context, version, vec![run])
    }));
    assert!(caught.is_err());
    assert!(files_in(&bed.fs).is_empty());
}

/// One range fails; the others stop, and what they made goes too.
#[test]
fn a_fault_in_one_range_stops_the_others() {
    let (mut bed, mut random) = grown(17);
    bed.context.executor = RayonPool::new(4).expect("threads");
    flush_wide(&mut bed, &mut random);
    let files = files_in(&bed.fs);
    let plan = plan_of_level0(&bed);
    for nth in 1..=4 {
        bed.fs
            .fail(Fault::new(OpKind::Create, FaultError::Eacces).nth(nth));
        let error = compact(&bed.context, &bed.version, &plan).expect_err("no file can be made");
        assert_eq!(
            error.kind(),
            ErrorKind::Io,
            "the cause, not the stop it led to: {error}"
        );
        bed.fs.clear_faults();
        assert_eq!(files_in(&bed.fs), files);
    }
    let next = Arc::clone(&bed.context.numbers);
    let seen = Arc::new(AtomicBool::new(false));
    bed.context.numbers = Arc::new(move || {
        assert!(!seen.swap(true, Ordering::SeqCst), "the second output");
        next()
    });
    let (context, version) = (&bed.context, &bed.version);
    let run = std::panic::AssertUnwindSafe(|| compact(context, version, &plan));
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(files_in(&bed.fs), files);
}
