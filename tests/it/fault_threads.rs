//! Faults under real threads: whoever waits is woken with the error, a panic in a job closes the
//! door and nothing else, and a close under load hangs nobody.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base::fs::OsFs;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::{FileKind, ids};
use siltstone::{Db, Durability, ErrorKind, Event, Health, Options, WriteOptions, WriteOutcome};

use crate::support::{PrintOnPanic, Setup, contents, rounds, tagged};

/// No call takes so long unless it hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `case`, and fails if it does not end.
fn ends(what: &str, case: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        case();
        // Nobody listens any more if it took too long.
        let _ = ended.send(());
    });
    match end.recv_timeout(WATCHDOG) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
    }
}

fn is_kind(path: &Path, kind: FileKind) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(FileKind::parse)
        .is_some_and(|(found, _)| found == kind)
}

fn small(fs: &Arc<FaultFs>) -> Options {
    Setup::of_seed(1)
        .options()
        .memtable_bytes_max(16 << 10)
        // The first syncs are those of writers: no segment is made ahead before.
        .log_segment_bytes(64 << 10)
        .compaction_threads(2)
        .file_system(Arc::clone(fs) as _)
}

fn disk() -> WriteOptions {
    WriteOptions::new().durability(Durability::Disk)
}

/// Writers that wait for one sync, which fails: none is told that its write is safe, none waits on,
/// and what follows is refused with the first cause.
fn fail_sync_under_writers(kind: FileKind, seed: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fs = FaultFs::new(Arc::new(OsFs));
    let db = small(&fs).open(dir.path()).expect("a new database");
    let nth = 1 + seed % 7;
    // Only once: a sync that was tried again would succeed, and acknowledge what is lost.
    let fault = Fault::new(OpKind::Sync, FaultError::Eio).nth(nth);
    fs.fail(fault.only(move |path| is_kind(path, kind)));
    let acknowledged = AtomicU64::new(0);
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in 0..8_u64 {
            let (db, acknowledged, failed) = (&db, &acknowledged, &failed);
            scope.spawn(move || {
                for index in 0..5000_u64 {
                    let key = (writer << 32 | index).to_be_bytes();
                    match db.put_with(key, tagged(index, 200), &disk()) {
                        Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert!(error.outcome().is_some(), "{error:?}");
                            let refusal = db.put("more", "").expect_err("the door is closed");
                            assert_eq!(refusal.kind(), ErrorKind::Poisoned);
                            assert_eq!(refusal.outcome(), Some(WriteOutcome::Rejected));
                            assert!(refusal.to_string().contains("injected"), "{refusal}");
                            failed.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    };
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 8, "a writer went on");
    assert!(matches!(db.health(), Health::Poisoned(_)));
    let syncs = fs.calls(OpKind::Sync);
    for _ in 0..3 {
        let refused = [db.sync(), db.flush(), db.compact_range(..)];
        for result in refused {
            let error = result.expect_err("the door is closed");
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        }
    }
    assert_eq!(fs.calls(OpKind::Sync), syncs, "a sync was tried again");
    assert!(contents(&db).is_ok(), "reads go on");
    db.close().expect_err("not everything was written");
    let db = small(&fs).open(dir.path()).expect("a reopen recovers");
    let found = contents(&db).expect("a scan").len() as u64;
    let acknowledged = acknowledged.into_inner();
    assert!(found >= acknowledged, "{found} of {acknowledged} are there");
    db.put_with("again", "", &disk()).expect("it takes writes");
    db.close().expect("a clean close");
}

#[test]
fn a_failed_sync_wakes_every_writer_and_acknowledges_nothing() {
    for kind in [FileKind::Segment, FileKind::Manifest] {
        for seed in 0..3 * rounds() {
            let _place = PrintOnPanic(format!("{kind:?}, seed {seed}"));
            ends("a failed sync", move || fail_sync_under_writers(kind, seed));
        }
    }
}

/// Makes tables until a compaction in the background meets `panics`, whose message it then tells.
fn panic_in_a_job(panics: impl Fn(&Path) -> bool + Send + Sync + 'static) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fs = FaultFs::new(Arc::new(OsFs));
    let db = small(&fs).open(dir.path()).expect("a new database");
    let meddle = move |path: &Path| {
        assert!(!panics(path), "this panic is meant");
        false
    };
    let fault = Fault::new(OpKind::Create, FaultError::Eio).for_ever();
    fs.fail(fault.only(meddle));
    let mut acknowledged = 0;
    let error = loop {
        let key = u64::to_be_bytes(acknowledged * 0x9e37 % 10_007);
        match db.put(key, tagged(acknowledged, 200)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000_000, "no job ever panicked");
    };
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    match db.health() {
        Health::Poisoned(cause) => {
            assert!(cause.to_string().contains("this panic is meant"), "{cause}");
        }
        other => panic!("it is {other:?}"),
    }
    let before = contents(&db).expect("reads go on");
    db.close().expect_err("not everything was flushed");
    fs.clear();
    let db = small(&fs).open(dir.path()).expect("a reopen recovers");
    assert!(contents(&db).expect("a scan") == before);
    db.compact_range(..).expect("a compaction");
    db.close().expect("a clean close");
}

fn thread_begins(name: &str) -> bool {
    thread::current()
        .name()
        .is_some_and(|found| found.starts_with(name))
}

#[test]
fn a_panic_in_a_flush_closes_the_door_for_writes() {
    ends("a panic in a flush", || {
        panic_in_a_job(|path| is_kind(path, FileKind::Table) && thread_begins("siltstone-flush"));
    });
}

#[test]
fn a_panic_in_one_range_of_a_compaction_closes_the_door_for_writes() {
    ends("a panic in a range", || {
        panic_in_a_job(|path| is_kind(path, FileKind::Table) && thread_begins("siltstone-pool"));
    });
}

#[test]
fn a_panic_in_a_compaction_that_was_asked_for_is_an_error() {
    ends("a panic in a compaction", || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fs = FaultFs::new(Arc::new(OsFs));
        let db = small(&fs).open(dir.path()).expect("a new database");
        for index in 0..100_u64 {
            db.put(index.to_be_bytes(), tagged(index, 100))
                .expect("a put");
        }
        db.flush().expect("a flush");
        db.wait_for_compactions().expect("rest");
        db.put("one", "more").expect("a put");
        db.flush().expect("a flush");
        let fault = Fault::new(OpKind::Create, FaultError::Eio).for_ever();
        fs.fail(fault.only(|path| {
            assert!(!is_kind(path, FileKind::Table), "this panic is meant");
            false
        }));
        let error = db.compact_range(..).expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        assert!(error.to_string().contains("this panic is meant"), "{error}");
        assert!(matches!(db.health(), Health::Poisoned(_)));
        assert_eq!(contents(&db).expect("reads go on").len(), 101);
    });
}

#[test]
fn a_panic_of_the_listener_ends_the_telling_and_nothing_else() {
    ends("a panic of the listener", || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = |event: &Event| {
            assert!(
                !matches!(event, Event::Flushed { .. }),
                "this panic is meant"
            );
        };
        let db = Options::new()
            .on_event(Arc::new(listener))
            .open(dir.path())
            .expect("a new database");
        for _ in 0..3 {
            db.put("key", "value").expect("writes go on");
            db.flush().expect("so do flushes");
        }
        let found = db.get("key").expect("reads go on");
        assert_eq!(found.as_deref(), Some(&b"value"[..]));
        db.close().expect("a clean close");
    });
}

/// Errors that a call may return when the database is closed under it.
fn is_closed(error: &siltstone::Error) -> bool {
    error.kind() == ErrorKind::Closed
}

/// One of those who use the database until it is closed.
fn use_until_closed(db: &Db, role: u64) -> siltstone::Error {
    for index in 0_u64.. {
        let key = (index % 1000).to_be_bytes();
        let result = match role % 6 {
            0 => db.put(key, tagged(index, 100)).map(drop),
            1 => db.put_with(key, tagged(index, 100), &disk()).map(drop),
            2 => db.get(key).map(drop),
            3 => db
                .iter()
                .and_then(|mut all| all.try_for_each(|item| item.map(drop))),
            4 => db
                .snapshot()
                .and_then(|snapshot| snapshot.get(key).map(drop)),
            _ => match index % 3 {
                0 => db.flush(),
                1 => db.wait_for_compactions(),
                _ => db.compact_range(..),
            },
        };
        if let Err(error) = result {
            return error;
        }
    }
    unreachable!("it ends by an error")
}

#[test]
fn a_close_under_load_ends_and_everybody_is_told() {
    for seed in 0..4 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        ends("a close under load", move || {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let fs = FaultFs::new(Arc::new(OsFs));
            let db = small(&fs).open(dir.path()).expect("a new database");
            let slices = thread::scope(|scope| {
                let users: Vec<_> = (0..12)
                    .map(|role| {
                        let db = db.clone();
                        scope.spawn(move || use_until_closed(&db, role))
                    })
                    .collect();
                while db.stats().flush_count < 2 + seed {
                    thread::yield_now();
                }
                let slices: Vec<_> = db
                    .iter()
                    .expect("an iterator")
                    .map(|item| item.expect("a step"))
                    .collect();
                db.close().expect("a clean close");
                for user in users {
                    let error = user.join().expect("nobody panics");
                    assert!(is_closed(&error), "{error:?}");
                }
                slices
            });
            assert!(is_closed(&db.get("key").expect_err("closed")));
            drop(db);
            // The memory that slices point to outlives everything.
            for (key, value) in &slices {
                let tag = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
                assert_eq!(*value, tagged(tag, value.len()));
                assert_eq!(
                    u64::from_be_bytes((**key).try_into().expect("eight")),
                    tag % 1000
                );
            }
            let db = small(&fs).open(dir.path()).expect("a reopen");
            assert!(!contents(&db).expect("a scan").is_empty());
            // And once more by dropping handles while others still read.
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    let (db, stop) = (db.clone(), &stop);
                    scope.spawn(move || {
                        let mut all = db.iter().expect("an iterator");
                        drop(db);
                        while !stop.load(Ordering::SeqCst) {
                            match all.next() {
                                Some(Err(error)) => assert!(is_closed(&error), "{error}"),
                                Some(Ok(_)) => {}
                                None => return,
                            }
                        }
                    });
                }
                drop(db);
                stop.store(true, Ordering::SeqCst);
            });
            let lock = dir.path().join(ids::LOCK);
            base::fs::FileSystem::lock(&OsFs, &lock).expect("the lock is free");
        });
    }
}
