//! Writers side by side: what they were promised, what readers may see of them, and what becomes of
//! all of them when one fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use base::fs::FileSystem;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::fs::sim::{CrashModel, SimFs};
use siltstone::{Db, Durability, ErrorKind, Health, WriteBatch, WriteOptions, WriteOutcome};

use crate::support::{DIR, PrintOnPanic, Rng, Setup, log_append, rounds};

const WRITER_COUNT: u64 = 4;

fn open(fs: &Arc<dyn FileSystem>, seed: u64) -> siltstone::Result<Db> {
    Setup::of_seed(seed)
        .options()
        .memtable_bytes_max(16 << 10)
        .log_segment_bytes(16 << 10)
        .file_system(Arc::clone(fs))
        .open(DIR)
}

fn with(durability: Durability) -> WriteOptions {
    WriteOptions::new().durability(durability)
}

/// A commit that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    seq: u64,
    writer: u64,
    index: u64,
    is_durable: bool,
}

fn key(writer: u64, index: u64, part: u64) -> String {
    format!("{writer}/{index:06}/{part}")
}

/// How many operations that commit has: one or three.
fn parts(index: u64) -> u64 {
    1 + index % 2 * 2
}

/// Commits until something fails, and says what was acknowledged.
fn write_until_failure(db: &Db, writer: u64, seed: u64) -> Vec<Acknowledged> {
    let mut rng = Rng::new(seed ^ writer);
    let mut acknowledged = Vec::new();
    for index in 0..5000 {
        let mut batch = WriteBatch::new();
        for part in 0..parts(index) {
            batch.put(key(writer, index, part), vec![7; 20 + rng.below(80)]);
        }
        let is_durable = rng.chance(10);
        let durability = if is_durable {
            Durability::Disk
        } else {
            Durability::Os
        };
        match db.write_with(&batch, &with(durability)) {
            Ok(commit) => acknowledged.push(Acknowledged {
                seq: commit.seq().get(),
                writer,
                index,
                is_durable,
            }),
            Err(_) => break,
        }
    }
    acknowledged
}

/// Checks a database after a crash: whole commits, no hole, and nothing promised is missing.
fn check_recovered(db: &Db, acknowledged: &[Acknowledged], model: CrashModel) {
    let is_there = |commit: &Acknowledged| {
        let mut found = (0..parts(commit.index)).map(|part| {
            let key = key(commit.writer, commit.index, part);
            db.get(key).expect("a get").is_some()
        });
        let first = found.next().expect("at least one");
        assert!(
            found.all(|other| other == first),
            "a half commit {commit:?}"
        );
        first
    };
    let mut sorted = acknowledged.to_vec();
    sorted.sort_by_key(|commit| commit.seq);
    let there: Vec<bool> = sorted.iter().map(is_there).collect();
    let first_lost = there.iter().position(|there| !there);
    if let Some(first_lost) = first_lost {
        let hole = there[first_lost..].iter().any(|there| *there);
        assert!(!hole, "a hole at {:?}", sorted[first_lost]);
        let promised = sorted[first_lost..].iter().find(|c| c.is_durable);
        assert!(promised.is_none(), "lost {promised:?}");
        let is_kill = model == CrashModel::Everything;
        assert!(!is_kill, "a kill has lost {:?}", sorted[first_lost]);
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_a_power_cut_at_any_moment() {
    for seed in 0..12 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let sim = SimFs::new(seed);
        let fs: Arc<dyn FileSystem> = sim.clone();
        let db = open(&fs, seed).expect("a new database");
        sim.crash_after(100 + Rng::new(seed).next() % 3000);
        let acknowledged: Vec<Acknowledged> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITER_COUNT)
                .map(|writer| {
                    let db = &db;
                    scope.spawn(move || write_until_failure(db, writer, seed))
                })
                .collect();
            let joined = writers.into_iter().map(|w| w.join().expect("no panic"));
            joined.flatten().collect()
        });
        assert!(sim.has_crashed());
        for (index, model) in sim.crash_models(1, 2).into_iter().enumerate() {
            let _place = PrintOnPanic(format!("index {index} {model:?}"));
            let image: Arc<dyn FileSystem> = sim.crash_image(&model, seed * 59 + index as u64);
            let recovered = open(&image, seed).expect("it opens");
            check_recovered(&recovered, &acknowledged, model);
        }
    }
}

#[test]
fn what_is_visible_has_no_hole() {
    for seed in 0..2 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let fs: Arc<dyn FileSystem> = SimFs::new(seed);
        let db = open(&fs, seed).expect("a new database");
        // Every commit adds one key: so many are there as sequence numbers were published.
        let begin = db.snapshot().expect("a snapshot").seq().get();
        let is_done = AtomicBool::new(false);
        let looks = AtomicU64::new(0);
        thread::scope(|scope| {
            let (db, is_done, looks) = (&db, &is_done, &looks);
            scope.spawn(move || {
                // Once at least, however late this thread gets its turn.
                loop {
                    let is_last = is_done.load(Ordering::SeqCst);
                    let snapshot = db.snapshot().expect("a snapshot");
                    let count = snapshot.iter().expect("an iterator").count() as u64;
                    assert_eq!(count, snapshot.seq().get() - begin);
                    looks.fetch_add(1, Ordering::SeqCst);
                    if is_last {
                        break;
                    }
                }
            });
            let writers: Vec<_> = (0..WRITER_COUNT)
                .map(|writer| {
                    scope.spawn(move || {
                        for index in 0..600 {
                            let commit = db.put(key(writer, index, 0), "x").expect("a put");
                            assert!(
                                db.snapshot().expect("a snapshot").seq() >= commit.seq(),
                                "its own is visible"
                            );
                        }
                    })
                })
                .collect();
            let results: Vec<_> = writers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            is_done.store(true, Ordering::SeqCst);
            assert!(results.into_iter().all(|result| result.is_ok()));
        });
        assert!(looks.load(Ordering::SeqCst) > 0);
        let last = db.snapshot().expect("a snapshot").seq().get();
        assert_eq!(last - begin, WRITER_COUNT * 600);
        db.close().expect("closed");
    }
}

#[test]
fn a_failed_sync_reaches_every_writer_that_waits_for_it() {
    for seed in 0..4 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let faults = FaultFs::new(SimFs::new(seed));
        let fs: Arc<dyn FileSystem> = faults.clone();
        let db = open(&fs, seed).expect("a new database");
        let is_log = |path: &Path| path.extension().is_some_and(|e| e == "log");
        let nth = 1 + seed * 7;
        faults.fail(
            Fault::new(OpKind::Sync, FaultError::Eio)
                .nth(nth)
                .only(is_log),
        );
        thread::scope(|scope| {
            for writer in 0..8 {
                let db = &db;
                scope.spawn(move || {
                    for index in 0.. {
                        let written =
                            db.put_with(key(writer, index, 0), "x", &with(Durability::Disk));
                        let Err(error) = written else { continue };
                        // The first failure of each: by the sync, or by the door that it closed.
                        assert!(error.to_string().contains("injected"), "{error}");
                        break;
                    }
                });
            }
        });
        let error = db.put("later", "x").expect_err("the door is closed");
        assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
        assert!(matches!(db.health(), Health::Poisoned(_)));
        db.get(key(0, 0, 0)).expect("reads go on");
    }
}

#[test]
fn a_writer_that_panics_in_the_middle_fails_the_others_and_hangs_nobody() {
    let sim = SimFs::new(1);
    let fs: Arc<dyn FileSystem> = sim.clone();
    let db = open(&fs, 1).expect("a new database");
    for index in 0..20 {
        db.put(key(9, index, 0), "before").expect("a put");
    }
    let left = Arc::new(AtomicU64::new(40));
    let count_down = Arc::clone(&left);
    // In the middle of filling its place in the log.
    sim.set_observer(Some(Arc::new(move |_, op| {
        let is_record = matches!(op.kind, OpKind::Store | OpKind::Write)
            && op.path.extension().is_some_and(|e| e == "log");
        if is_record && thread::current().name() == Some("writer") {
            assert!(
                count_down.fetch_sub(1, Ordering::SeqCst) != 1,
                "this one is meant"
            );
        }
    })));
    let panics = AtomicU64::new(0);
    let errors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITER_COUNT)
            .map(|writer| {
                let (db, errors) = (&db, &errors);
                let run = move || {
                    for index in 0.. {
                        if let Err(error) = db.put(key(writer, index, 0), "x") {
                            let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                            errors.push(error);
                            return;
                        }
                    }
                };
                let named = thread::Builder::new().name("writer".into());
                named.spawn_scoped(scope, run).expect("a thread")
            })
            .collect();
        for writer in writers {
            panics.fetch_add(u64::from(writer.join().is_err()), Ordering::SeqCst);
        }
    });
    sim.set_observer(None);
    assert_eq!(panics.load(Ordering::SeqCst), 1);
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(errors.len() as u64, WRITER_COUNT - 1);
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    }
    assert!(matches!(db.health(), Health::Poisoned(_)));
    assert_eq!(
        db.get(key(9, 3, 0)).expect("reads go on").as_deref(),
        Some(&b"before"[..])
    );
    let error = db.put("later", "x").expect_err("the door is closed");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
    drop(db);
    let image: Arc<dyn FileSystem> = sim.crash_image(&CrashModel::Everything, 1);
    let db = open(&image, 1).expect("it opens");
    assert!(db.get(key(9, 19, 0)).expect("a get").is_some());
}

#[test]
fn the_form_of_the_log_is_the_one_asked_for() {
    for (form, is_mapped) in [
        (siltstone::LogAppend::Mapped, true),
        (siltstone::LogAppend::Positioned, false),
    ] {
        let sim = SimFs::new(1);
        let options = Setup::of_seed(1).options().log_append(form);
        let db = options.file_system(sim.clone()).open(DIR).expect("opened");
        let stores = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&stores);
        sim.set_observer(Some(Arc::new(move |_, op| {
            counted.fetch_add(u64::from(op.kind == OpKind::Store), Ordering::SeqCst);
        })));
        db.put("key", "value").expect("a put");
        assert_eq!(stores.load(Ordering::SeqCst) > 0, is_mapped, "{form:?}");
        sim.set_observer(None);
    }
    // What the other tests run with is what the environment says.
    let _ = log_append();
}
