//! Writes that flush and compaction cannot keep up with: slowed down smoothly, never lost in a
//! wait, refused at once where the caller wants that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::FileKind;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::sync::Bell;
use siltstone::seam::{CountingFs, OsFs};
use siltstone::{
    Db, Error, ErrorKind, Event, KeyspaceOptions, Options, ThrottleCause, WriteOptions,
    WriteOutcome,
};

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

/// A database with a writer that waits for a flush that is not getting on.
struct Stuck {
    db: Db,
    fs: Arc<FaultFs>,
    /// Lets the flush go on.
    release: Arc<Bell>,
    went_on: Arc<AtomicBool>,
    writer: JoinHandle<Option<Error>>,
    _dir: tempfile::TempDir,
}

impl Stuck {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let [is_flushing, is_stuck, went_on] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let (flushing, stuck) = (Arc::clone(&is_flushing), Arc::clone(&is_stuck));
        let going_on = Arc::clone(&went_on);
        let release = Arc::new(Bell::new());
        let released = Arc::clone(&release);
        let listener = move |event: &Event| match event {
            Event::FlushBegan { .. } => {
                flushing.store(true, Ordering::SeqCst);
                // Whoever hangs is not waited for longer, and fails.
                released.wait_past(0, Some(Duration::from_secs(60)));
                going_on.store(true, Ordering::SeqCst);
            }
            Event::StallBegan { .. } => stuck.store(true, Ordering::SeqCst),
            _ => {}
        };
        let fs = FaultFs::new(Arc::new(OsFs));
        let db = Options::new()
            .memtable_bytes_max(4 << 10)
            .sealed_memtable_count_max(1)
            .sync_interval(None)
            .file_system(Arc::clone(&fs) as _)
            .on_event(Arc::new(listener))
            .open(dir.path())
            .expect("opens");
        // What the flush needs of the log is synced before it begins; what comes now is not.
        let mut number = 20_000_u64;
        while !is_flushing.load(Ordering::SeqCst) {
            if db.stats().sealed_memtable_count == 0 {
                db.put(number.to_be_bytes(), [1; 100]).expect("a put");
                number += 1;
            }
            std::thread::yield_now();
        }
        let writer = {
            let db = db.clone();
            let put = move |n: u64| db.put(n.to_be_bytes(), [1; 100]).err();
            // For longer than any other thread may have to wait for its turn.
            std::thread::spawn(move || (0..1_000_000).find_map(put))
        };
        while !is_stuck.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Self {
            db,
            fs,
            release,
            went_on,
            writer,
            _dir: dir,
        }
    }

    /// Lets the next call of `kind` on a file of this kind fail.
    fn fail(&self, kind: OpKind, file: FileKind) {
        let is_such = move |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let found = name.and_then(FileKind::parse);
            found.is_some_and(|(found, _)| found == file)
        };
        self.fs
            .fail(Fault::new(kind, FaultError::Eio).only(is_such));
    }

    /// What the writer got, while the flush was still stuck.
    fn end(self) -> Error {
        let result = self.writer.join().expect("no panic");
        assert!(
            !self.went_on.load(Ordering::SeqCst),
            "it was the flush that ended the wait"
        );
        self.release.ring();
        result.expect("the writer was ended by an error")
    }
}

#[test]
fn a_close_ends_the_wait() {
    let stuck = Stuck::new();
    let closer = {
        let db = stuck.db.clone();
        std::thread::spawn(move || db.close())
    };
    stuck.release.ring();
    closer.join().expect("no panic").expect("closes");
    let error = stuck.writer.join().expect("no panic");
    let error = error.expect("it was closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[test]
fn a_failed_sync_of_the_log_ends_the_wait() {
    let stuck = Stuck::new();
    stuck.fail(OpKind::Sync, FileKind::Segment);
    let failed = stuck.db.sync().expect_err("the sync fails");
    assert_eq!(failed.kind(), ErrorKind::Io, "{failed}");
    let error = stuck.end();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
    let cause = std::error::Error::source(&error).expect("the cause");
    assert!(cause.to_string().contains("injected"), "{cause}");
}

#[test]
fn a_failed_sync_of_the_manifest_ends_the_wait() {
    let stuck = Stuck::new();
    stuck.fail(OpKind::Sync, FileKind::Manifest);
    let created = stuck
        .db
        .create_keyspace("other", &KeyspaceOptions::default());
    created.expect_err("MANIFEST cannot be synced");
    let error = stuck.end();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
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
