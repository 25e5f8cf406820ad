//! What a log does when the disk refuses.

use base::fs::fault::{Effect, Fault, FaultError, FaultFs};
use base::fs::sim::FailedSync;

use super::*;

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// A store through a mapping does not fail.
fn positioned(fs: &Arc<SimFs>) -> Site {
    Site {
        append: LogAppend::Positioned,
        ..Site::new(fs.clone())
    }
}

/// The calls that make a segment.
const CREATION: [OpKind; 5] = [
    OpKind::Create,
    OpKind::Reserve,
    OpKind::Write,
    OpKind::Sync,
    OpKind::SyncDir,
];

#[test]
fn a_record_is_rejected_if_the_next_segment_cannot_be_made() {
    for kind in CREATION {
        for error in [FaultError::Enospc, FaultError::Eio] {
            for is_done in [false, true] {
                for can_remove in [true, false] {
                    reject_and_go_on(kind, error, is_done, can_remove);
                }
            }
        }
    }
}

fn reject_and_go_on(kind: OpKind, error: FaultError, is_done: bool, can_remove: bool) {
    let case = format!("{kind:?} {error:?} done={is_done} removes={can_remove}");
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    let full = site.segment_bytes - 200;
    while log.end().offset < full {
        feeder.append(&log).expect("appended");
    }
    log.sync().expect("synced");
    let (end, total) = (log.end(), log.total_bytes());
    let first = feeder.next_seq;
    for _ in 0..3 {
        let effect = if is_done {
            Effect::FailAfter(error)
        } else {
            Effect::Fail(error)
        };
        fs.fail(Fault::with_effect(kind, effect));
        if !can_remove {
            fs.fail(Fault::new(OpKind::Remove, FaultError::Eio));
        }
        let failure = log
            .append(RecordKind::Batch, seq(first), 1, &[1; 300])
            .expect_err("no space");
        fs.clear_faults();
        assert_eq!(failure.outcome(), Some(WriteOutcome::Rejected), "{case}");
        assert_eq!(failure.is_no_space(), error == FaultError::Enospc, "{case}");
        assert!(log.poisoned().is_none(), "{case}");
        assert_eq!((log.end(), log.total_bytes()), (end, total), "{case}");
    }
    // The same handle goes on, with the same sequence number.
    feeder.append_many(&log, 30);
    log.sync().expect("synced");
    assert_eq!(log.end().ordinal, 1, "{case}");
    for model in fs.crash_models(4, 2) {
        let image = fs.crash_image(&model, 1);
        assert_eq!(recovered(&image), feeder.appended, "{case} {model:?}");
    }
}

#[test]
fn a_file_that_is_there_already_is_left_alone() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append(&log).expect("appended");
    let number = FileNumber(site.next_number.load(Ordering::SeqCst));
    fs.install(&site.path(number), b"somebody else's")
        .expect("installed");
    let error = log.rotate().expect_err("the name is taken");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
    let found = fs.contents(&site.path(number));
    assert_eq!(found.as_deref(), Some(&b"somebody else's"[..]));
    log.rotate().expect("the next name is free");
}

#[test]
fn a_record_for_which_there_is_no_space_is_rejected() {
    // It fits neither into the live segment, nor into a new one, nor into the one prepared.
    for (before, prepares) in [(0, false), (3, false), (40, true)] {
        let fs = sim(1);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, before);
        if prepares {
            assert!(log.maintain().expect("maintained"));
        }
        fs.set_quota(Some(fs.used_bytes() + 8000));
        let large = vec![7; 20_000];
        let first = seq(feeder.next_seq);
        let end = log.end();
        let error = log
            .append(RecordKind::Batch, first, 1, &large)
            .expect_err("no space");
        assert!(error.is_no_space(), "before={before}: {error}");
        assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{before}");
        assert_eq!(log.end(), end);
        fs.set_quota(None);
        log.append(RecordKind::Batch, first, 1, &large)
            .expect("there is space again");
        log.sync().expect("synced");
        while log.maintain().expect("maintained") {}
    }
}

#[test]
fn a_step_that_cannot_be_reserved_rejects_the_record_and_nothing_else() {
    for (append, is_full) in [LogAppend::Mapped, LogAppend::Positioned]
        .into_iter()
        .flat_map(|form| [(form, false), (form, true)])
    {
        let fs = sim(1);
        let site = Site {
            append,
            segment_bytes: 16 << 10,
            ..Site::new(fs.clone())
        };
        let log = site.start();
        let mut feeder = Feeder::new();
        let mut rejected = 0;
        while log.end().ordinal == 0 {
            let (end, used) = (log.end(), fs.used_bytes());
            let before = fs.contents(&site.path(log.live_number()));
            let first = feeder.next_seq;
            if is_full {
                fs.set_quota(Some(used));
            } else {
                fs.fail(Fault::new(OpKind::Reserve, FaultError::Enospc));
            }
            let refused = feeder.append(&log);
            fs.set_quota(None);
            fs.clear_faults();
            let Err(error) = refused else { continue };
            rejected += 1;
            assert!(error.is_no_space(), "{error}");
            assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
            assert!(log.poisoned().is_none());
            assert_eq!((log.end(), feeder.next_seq), (end, first));
            let path = site.path(log.live_number());
            assert!(fs.contents(&path) == before, "something was written");
            // The helper finds no space either, and makes do without.
            fs.fail(Fault::new(OpKind::Reserve, FaultError::Enospc));
            assert!(log.maintain().expect_err("full").is_no_space());
            fs.clear_faults();
            // The same handle goes on, with the same record.
            feeder.appended.pop();
            feeder.append(&log).expect("there is space again");
        }
        assert!(rejected >= 10, "{append:?}: {rejected} steps");
        log.close().expect("closed");
        for model in fs.crash_models(4, 2) {
            assert_eq!(recovered(&fs.crash_image(&model, 1)), feeder.appended);
        }
    }
}

#[test]
fn a_failed_write_closes_the_log() {
    let effects = [
        Effect::Fail(FaultError::Eio),
        Effect::Fail(FaultError::Enospc),
        Effect::FailAfter(FaultError::Eio),
        Effect::FailPartly {
            bytes: 20,
            error: FaultError::Eio,
        },
        Effect::FailPartly {
            bytes: 45,
            error: FaultError::Eio,
        },
    ];
    // 1: the record itself; 2 and 3: end and begin record of a switch.
    for (effect, rotates) in effects.iter().flat_map(|e| [(e, 0), (e, 1), (e, 2)]) {
        let fs = sim(1);
        let log = positioned(&fs).start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, 5);
        log.sync().expect("synced");
        feeder.append_many(&log, 5);
        // Before the end record comes the header of the new segment.
        let nth = if rotates == 0 { 1 } else { 1 + rotates };
        fs.fail(Fault::with_effect(OpKind::Write, *effect).nth(nth));
        let first = if rotates == 0 {
            feeder.append(&log).expect_err("it fails")
        } else {
            log.rotate().expect_err("it fails")
        };
        assert_eq!(first.outcome(), Some(WriteOutcome::Indeterminate));
        let attempted = feeder.appended.clone();
        let mutations = fs.mutation_count();
        for error in [
            feeder.append(&log).expect_err("poisoned"),
            log.rotate().expect_err("poisoned"),
            log.sync().expect_err("poisoned"),
            log.close().expect_err("poisoned"),
            log.poisoned().expect("poisoned"),
        ] {
            assert_eq!(error.to_string(), first.to_string());
        }
        assert!(!log.needs_maintenance() || log.maintain().is_err());
        assert_eq!(fs.mutation_count(), mutations, "nothing is tried again");
        for model in fs.crash_models(4, 4) {
            let found = recovered(&fs.crash_image(&model, 1));
            assert!(attempted.starts_with(&found), "{effect:?} {model:?}");
            assert!(found.len() >= 5, "{effect:?} {model:?}");
        }
        let count = recovered(&fs).len();
        assert!(count == 10 || count == attempted.len());
    }
}

#[test]
fn a_failed_sync_closes_the_log() {
    for mode in [
        FailedSync::Kept,
        FailedSync::Forgotten,
        FailedSync::Reverted,
    ] {
        // Of the two files to sync, the older or the newer one fails.
        for nth in [1, 2] {
            let fs = sim(1);
            fs.set_failed_sync(mode);
            let log = Site::new(fs.clone()).start();
            let mut feeder = Feeder::new();
            feeder.append_many(&log, 3);
            log.sync().expect("synced");
            let durable = log.durable_upto();
            feeder.append_many(&log, 3);
            log.rotate().expect("rotated");
            feeder.append_many(&log, 3);
            fs.fail(Fault::new(OpKind::Sync, FaultError::Eio).nth(nth));
            let first = log.sync().expect_err("it fails");
            let attempted = feeder.appended.clone();
            let mutations = fs.mutation_count();
            for error in [
                log.sync().expect_err("poisoned"),
                log.sync_upto(durable).expect_err("poisoned"),
                feeder.append(&log).expect_err("poisoned"),
                log.rotate().expect_err("poisoned"),
                log.maintain().expect_err("poisoned"),
                log.close().expect_err("poisoned"),
            ] {
                assert_eq!(error.to_string(), first.to_string());
            }
            assert_eq!(log.durable_upto(), durable);
            assert_eq!(fs.mutation_count(), mutations, "nothing is tried again");
            for model in fs.crash_models(4, 4) {
                let found = recovered(&fs.crash_image(&model, 1));
                assert!(attempted.starts_with(&found), "{mode:?} {model:?}");
                assert!(found.len() >= 3, "{mode:?} {model:?}");
            }
        }
    }
}

#[test]
fn every_waiter_hears_of_a_failed_sync() {
    let faults = FaultFs::new(sim(1));
    let log = Site {
        segment_bytes: 1 << 20,
        ..Site::new(faults.clone())
    }
    .start();
    let syncs = faults.calls(OpKind::Sync);
    faults.fail(Fault::new(OpKind::Sync, FaultError::Eio).nth(3));
    let feeder = Mutex::new(Feeder::new());
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let appended = feeder.lock().append(&log);
                    let result = appended.and_then(|appended| log.sync_upto(appended.end));
                    if let Err(error) = result {
                        assert!(error.to_string().contains("injected"), "{error}");
                        failures.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    assert_eq!(failures.load(Ordering::SeqCst), 8);
    assert_eq!(faults.calls(OpKind::Sync) - syncs, 3, "it is not repeated");
    assert!(log.poisoned().is_some());
}

#[test]
fn what_is_only_a_hint_does_not_fail_a_close() {
    let is_hint = |path: &Path| path.extension().is_some_and(|extension| extension == "idx");
    let fs = sim(1);
    let log = Site::new(fs.clone()).start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 150);
    let full = FaultError::Enospc;
    fs.fail(Fault::new(OpKind::Create, full).for_ever().only(is_hint));
    fs.fail(Fault::new(OpKind::SetLen, FaultError::Eio).for_ever());
    log.close().expect("the end is durable");
    assert_eq!(log.durable_upto(), log.end());
    fs.clear_faults();
    for model in fs.crash_models(4, 4) {
        assert_eq!(recovered(&fs.crash_image(&model, 1)), feeder.appended);
    }
}

#[test]
fn an_index_that_cannot_be_written_keeps_no_segment_from_being_sealed() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 200);
    let rotated = usize::try_from(log.end().ordinal).expect("few");
    assert!(rotated >= 3);
    let is_hint = |path: &Path| path.extension().is_some_and(|extension| extension == "idx");
    fs.fail(Fault::new(OpKind::Create, FaultError::Enospc).only(is_hint));
    let error = log.maintain().expect_err("one index is missing");
    assert!(error.is_no_space());
    assert!(log.poisoned().is_none());
    let sealed = log.sealed();
    assert_eq!(sealed.len(), rotated);
    for (place, segment) in sealed.iter().enumerate() {
        let index = FileKind::SegmentIndex.path(Path::new(DIR), segment.number);
        assert_eq!(fs.contents(&index).is_some(), place > 0);
        // Unused space went back in any case.
        let path = site.path(segment.number);
        let found = fs.contents(&path).expect("there").len() as u64;
        assert!(found < segment.bytes + 100, "{found}");
    }
    while log.maintain().expect("maintained") {}
    feeder.append_many(&log, 5);
    log.close().expect("closed");
    assert_eq!(recovered(&fs), feeder.appended);
}

#[test]
fn a_segment_is_sealed_only_once_it_has_its_index() {
    let fs = sim(1);
    let log = Site::new(fs.clone()).start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 120);
    // Whoever unlinks a sealed segment must not find its index made afterwards.
    let seen = Arc::downgrade(&log);
    fs.set_observer(Some(Arc::new(move |_: &SimFs, op: &Op<'_>| {
        if op.kind == OpKind::Create && !is_segment(op.path) {
            let log = seen.upgrade().expect("in use");
            let sealed = log.sealed().into_iter().map(|segment| segment.number);
            let paths: Vec<_> = sealed
                .map(|number| FileKind::SegmentIndex.path(Path::new(DIR), number))
                .collect();
            assert!(!paths.iter().any(|path| path == op.path));
        }
    })));
    while log.maintain().expect("maintained") {}
    fs.set_observer(None);
    assert!(!log.sealed().is_empty());
}

#[test]
fn a_log_that_cannot_be_started_can_be_started_again() {
    let calls = {
        let fs = sim(1);
        let before = fs.mutation_count();
        drop(positioned(&fs).start());
        fs.mutation_count() - before
    };
    for nth in 1..=calls {
        for error in [FaultError::Enospc, FaultError::Eio] {
            let fs = sim(1);
            let site = positioned(&fs);
            fs.fail(Fault::new(OpKind::AnyMutating, error).nth(nth));
            let started = Log::start(site.config(), Successor::first(seq(1)));
            started.expect_err("it fails");
            fs.clear_faults();
            let prepared = site.recover().expect("recovered");
            assert_eq!(site.records(&prepared), Vec::new());
            let log = Log::start(site.config(), prepared.successor).expect("started");
            let mut feeder = Feeder::new();
            feeder.append_many(&log, 3);
            log.sync().expect("synced");
            for model in fs.crash_models(4, 4) {
                assert_eq!(recovered(&fs.crash_image(&model, 1)), feeder.appended);
            }
        }
    }
}
