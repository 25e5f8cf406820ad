//! A crash at every call of a workload, under every model of what a disk may keep; and then a crash
//! at every call of the recovery from it.

use base::WriteOutcome;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::FailedSync;

use super::*;
use crate::testing::Random;

/// What was promised before a crash.
#[derive(Debug)]
struct Account {
    feeder: Feeder,
    /// So many of the appended records were acknowledged as durable.
    acknowledged: usize,
    /// What a MANIFEST could know of it.
    durable: Position,
}

fn site(fs: &Arc<SimFs>) -> Site {
    Site {
        segment_bytes: 1536,
        ..Site::new(fs.clone())
    }
}

/// Odd seeds stand for file systems that cannot reserve space.
fn first_site(fs: &Arc<SimFs>, seed: u64) -> Site {
    Site {
        reserve: seed.is_multiple_of(2),
        ..site(fs)
    }
}

/// Appends, syncs, rotates and maintains as `seed` says, until the disk crashes or all is done.
fn run(fs: &Arc<SimFs>, seed: u64, steps: usize) -> Account {
    let mut account = Account {
        feeder: Feeder::new(),
        acknowledged: 0,
        durable: Position::default(),
    };
    let site = first_site(fs, seed);
    let Ok(log) = Log::start(site.config(), Successor::first(seq(1))) else {
        return account;
    };
    let mut random = Random(seed);
    for step in 0..steps {
        let done = match random.below(12) {
            0 | 1 => {
                let count = account.feeder.appended.len();
                log.sync().map(|_| account.acknowledged = count)
            }
            2 => log.rotate(),
            3 | 4 => log.maintain().map(|_| ()),
            5 if step + 10 > steps => log.close(),
            _ => account.feeder.append(&log).map(|_| ()),
        };
        account.durable = log.durable_upto();
        if let Err(error) = done {
            let is_meant = fs.has_crashed() || fs.faults().fired() > 0;
            let is_closed = error.kind() == ErrorKind::Closed;
            assert!(is_meant || is_closed, "seed={seed} step={step}: {error}");
            if error.outcome() == Some(WriteOutcome::Rejected) {
                // That record never came to the disk.
                account.feeder.appended.truncate(account.feeder.ends.len());
            }
            if fs.has_crashed() || is_closed || log.poisoned().is_some() {
                break;
            }
        }
    }
    account
}

/// How many mutating calls the whole workload makes.
fn calls(seed: u64, steps: usize) -> u64 {
    let fs = sim(seed);
    let before = fs.mutation_count();
    run(&fs, seed, steps);
    fs.mutation_count() - before
}

fn recover(fs: &Arc<SimFs>, durable: Option<Position>) -> Result<(Site, Prepared)> {
    let site = site(fs);
    let prepared = site.recover_with(|config| config.durable_upto = durable)?;
    Ok((site, prepared))
}

/// Checks a disk after a crash, and returns what was found on it.
fn check(account: &Account, image: &Arc<SimFs>, knows: bool, case: &str) -> Vec<u64> {
    let durable = knows.then_some(account.durable);
    let durable = durable.filter(|durable| *durable > Position::default());
    let (site, prepared) =
        recover(image, durable).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = site.records(&prepared);
    assert!(
        account.feeder.appended.starts_with(&found),
        "{case}: {found:?} of {account:?}"
    );
    assert!(found.len() >= account.acknowledged, "{case}: {found:?}");
    let last = found.last().map_or(0, |first| {
        first + u64::from(crate::testing::op_count(*first)) - 1
    });
    assert_eq!(prepared.last_seq, seq(last), "{case}");
    // What was accepted is durable now, whether or not anything follows.
    let crashed = image_of(image, CrashModel::Synced);
    let site = Site {
        fs: crashed,
        ..site
    };
    assert_eq!(site.records(&prepared), found, "{case}");
    found
}

#[test]
fn after_every_crash_the_log_is_a_prefix_with_all_that_was_acknowledged() {
    for seed in 0..8 {
        let steps = 45;
        for call in 1..=calls(seed, steps) {
            let fs = sim(seed);
            fs.crash_after(call);
            let account = run(&fs, seed, steps);
            for (index, model) in fs.crash_models(6, 5).iter().enumerate() {
                let image = || fs.crash_image(model, call * 31 + index as u64);
                let case = format!("seed={seed} call={call} index={index} {model:?}");
                let found = check(&account, &image(), false, &case);
                let known = check(&account, &image(), true, &case);
                assert_eq!(found, known, "{case}");
            }
        }
    }
}

#[test]
fn a_call_that_fails_before_the_crash_changes_nothing_of_that() {
    let modes = [
        FailedSync::Kept,
        FailedSync::Forgotten,
        FailedSync::Reverted,
    ];
    for seed in 30..36 {
        let steps = 40;
        for (nth, error) in (1..=calls(seed, steps))
            .flat_map(|nth| [FaultError::Eio, FaultError::Enospc].map(|error| (nth, error)))
        {
            let fs = sim(seed);
            fs.set_failed_sync(modes[usize::try_from(nth % 3).expect("small")]);
            fs.fail(Fault::new(OpKind::AnyMutating, error).nth(nth));
            let account = run(&fs, seed, steps);
            for (index, model) in fs.crash_models(3, 2).iter().enumerate() {
                let image = fs.crash_image(model, nth * 47 + index as u64);
                let case = format!("seed={seed} {error:?} {nth} index={index} {model:?}");
                check(&account, &image, index % 2 == 0, &case);
            }
        }
    }
}

#[test]
fn a_log_goes_on_after_every_crash() {
    for seed in 10..14 {
        let steps = 30;
        for call in 1..=calls(seed, steps) {
            let fs = sim(seed);
            fs.crash_after(call);
            let account = run(&fs, seed, steps);
            for (index, model) in fs.crash_models(2, 3).iter().enumerate() {
                let case = format!("seed={seed} call={call} index={index} {model:?}");
                let mut fs = fs.crash_image(model, call * 37 + index as u64);
                let mut durable = Some(account.durable).filter(|at| *at > Position::default());
                let mut expected = None;
                // Three more lives, each with a crash at its end.
                for _ in 0..3 {
                    let (site, prepared) =
                        recover(&fs, durable).unwrap_or_else(|error| panic!("{case}: {error}"));
                    let found = site.records(&prepared);
                    assert!(expected.is_none_or(|expected| expected == found), "{case}");
                    let log = go_on(&site, &prepared).expect("started");
                    durable = Some(log.durable_upto());
                    let mut feeder = Feeder::after(found);
                    feeder.append_many(&log, 3);
                    log.sync().expect("synced");
                    expected = Some(feeder.appended.clone());
                    let models = [CrashModel::Synced, CrashModel::Data, CrashModel::Sectors];
                    fs = image_of(&fs, models[index % 3]);
                }
            }
        }
    }
}

#[test]
fn writers_that_share_syncs_lose_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let fs = sim(seed);
        let log = site(&fs).start();
        fs.crash_after(20 + seed * 7);
        let shared = base::sync::Mutex::new(Feeder::new());
        let acknowledged = base::sync::Mutex::new(0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (log, shared, acknowledged) = (&log, &shared, &acknowledged);
                scope.spawn(move || {
                    loop {
                        let (first, appended) = {
                            let mut feeder = shared.lock();
                            (feeder.next_seq, feeder.append(log))
                        };
                        let synced = appended.and_then(|appended| log.sync_upto(appended.end));
                        if synced.is_err() || writer == 0 && log.maintain().is_err() {
                            return;
                        }
                        let mut last = acknowledged.lock();
                        *last = first.max(*last);
                    }
                });
            }
        });
        assert!(fs.has_crashed(), "seed={seed}");
        let (mut attempted, acknowledged) = (shared.into_inner().appended, *acknowledged.lock());
        // After the crash one number was tried again and again.
        attempted.dedup();
        for (index, model) in fs.crash_models(4, 4).iter().enumerate() {
            let image = fs.crash_image(model, seed * 43 + index as u64);
            let found = records_on(&image);
            assert!(attempted.starts_with(&found), "seed={seed} {model:?}");
            assert!(
                acknowledged == 0 || found.contains(&acknowledged),
                "seed={seed} {model:?}: {acknowledged} is missing in {found:?}"
            );
        }
    }
}

/// Recovers and begins the log again.
fn reopen(fs: &Arc<SimFs>, durable: Option<Position>) -> Result<Vec<u64>> {
    let (site, prepared) = recover(fs, durable)?;
    let found = site.records_from(&prepared.segments, SequenceNumber::ZERO)?;
    go_on(&site, &prepared)?;
    Ok(found)
}

#[test]
fn a_recovery_that_crashes_can_be_repeated() {
    for seed in 20..24 {
        let steps = 40;
        for call in (1..=calls(seed, steps)).step_by(5) {
            let fs = sim(seed);
            fs.crash_after(call);
            let account = run(&fs, seed, steps);
            let durable = Some(account.durable).filter(|at| *at > Position::default());
            for (index, model) in fs.crash_models(0, 2).iter().enumerate() {
                let image = || fs.crash_image(model, call * 41 + index as u64);
                let case = format!("seed={seed} call={call} index={index} {model:?}");
                let whole = image();
                let found = reopen(&whole, durable).unwrap_or_else(|e| panic!("{case}: {e}"));
                crash_in_recovery(&image, whole.mutation_count(), durable, &found, &case);
            }
        }
    }
}

fn crash_in_recovery(
    image: &dyn Fn() -> Arc<SimFs>,
    calls: u64,
    durable: Option<Position>,
    found: &[u64],
    case: &str,
) {
    for call in 1..=calls {
        let crashing = image();
        crashing.crash_after(call);
        // It fails, unless the call was one whose failure does not matter.
        let _ = reopen(&crashing, durable);
        assert!(crashing.has_crashed(), "{case} recovery call={call}");
        for model in crashing.crash_models(1, 1) {
            let again = image_of(&crashing, model);
            let result = reopen(&again, durable)
                .unwrap_or_else(|error| panic!("{case} recovery call={call} {model:?}: {error}"));
            assert_eq!(result, found, "{case} recovery call={call} {model:?}");
        }
    }
}

#[test]
fn what_manifest_notes_during_a_recovery_does_not_stop_the_next_one() {
    // A flush during the replay notes that everything before the next segment is durable, and then
    // the next segment never comes.
    for count in 0..4 {
        let mut made = Made::segments(count + 1);
        made.sync();
        let fs = made.killed();
        let site = Site::new(fs.clone());
        let prepared = site.recover().expect("recovered");
        let ordinal = prepared.successor.ordinal;
        for offset in [0, 512] {
            let noted = Some(Position { ordinal, offset });
            let image = image_of(&fs, CrashModel::Synced);
            let (site, prepared) = recover(&image, noted).expect("recovered");
            assert_eq!(site.records(&prepared), made.feeder.appended);
            assert!(prepared.successor.ordinal >= ordinal);
        }
    }
}
