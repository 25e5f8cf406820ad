//! Several processes and one directory: locks, forks, and the limits that a system sets.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use base::fork::in_forked_child;
use siltstone::{Db, Durability, ErrorKind, Health, Options, WriteBatch, WriteOptions};

use crate::processes::{Killed, again, passes, role};
use crate::support::{contents, tagged};

/// Small enough that a few thousand writes make many tables.
fn small() -> Options {
    Options::new()
        .memtable_bytes_max(16 << 10)
        .table_bytes_target(8 << 10)
        .level_base_bytes(32 << 10)
        .log_segment_bytes(32 << 10)
        .compaction_threads(2)
}

fn disk() -> WriteOptions {
    WriteOptions::new().durability(Durability::Disk)
}

/// Locks what `hold` took, says so, and waits until its input ends.
fn hold(dir: &Path) {
    let db = Db::open(dir).expect("nobody else has it");
    db.put_with("held", "yes", &disk()).expect("a put");
    println!("\nopen");
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .expect("the end of the input");
    db.close().expect("a clean close");
}

#[test]
fn a_second_process_is_refused_at_once_and_until_the_first_is_gone() {
    if let Some((_, dir)) = role() {
        return hold(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = "fault_process::a_second_process_is_refused_at_once_and_until_the_first_is_gone";
    for is_killed in [true, false] {
        let child = again(test, "hold", dir.path(), "").spawn();
        let mut child = Killed(child.expect("a process can be started"));
        let output = child.0.stdout.take().expect("it is a pipe");
        let mut lines = BufReader::new(output).lines();
        let is_open = lines.any(|line| line.expect("a line of text") == "open");
        assert!(is_open, "the other process could not open it");
        for _ in 0..3 {
            let error = Db::open(dir.path()).expect_err("another process has it");
            assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
        }
        if is_killed {
            child.0.kill().expect("it is still there");
        } else {
            drop(child.0.stdin.take());
        }
        // The rest of its output ends with it.
        lines.for_each(drop);
        let status = child.0.wait().expect("it ends");
        assert_eq!(status.success(), !is_killed);
        let db = Db::open(dir.path()).expect("the lock went with the process");
        assert_eq!(db.get("held").expect("a get").as_deref(), Some(&b"yes"[..]));
    }
}

/// The test that plays the second process for others too.
const SECOND_OPEN: &str =
    "fault_process::a_refused_open_in_the_same_process_does_not_give_the_lock_away";

/// Other handles of the same process open, fail and close; the lock must not get lost by it.
#[test]
fn a_refused_open_in_the_same_process_does_not_give_the_lock_away() {
    if let Some((role, dir)) = role() {
        let result = Db::open(dir);
        let kind = result.map_err(|error| error.kind()).err();
        let expected = (role == "refused").then_some(ErrorKind::AlreadyOpen);
        assert_eq!(kind, expected);
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = SECOND_OPEN;
    let db = Db::open(dir.path()).expect("a new database");
    let clone = db.clone();
    for _ in 0..3 {
        let error = Db::open(dir.path()).expect_err("it is open here");
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
        passes(again(test, "refused", dir.path(), ""));
    }
    drop(db);
    passes(again(test, "refused", dir.path(), ""));
    clone.close().expect("a clean close");
    passes(again(test, "opened", dir.path(), ""));
}

/// Runs in a process of its own, where nothing else runs while it forks.
fn fork_and_look(dir: &Path) {
    let options = small().sync_interval(Some(std::time::Duration::from_millis(1)));
    let db = options.open(dir).expect("a new database");
    for index in 0..2000_u64 {
        db.put(index.to_be_bytes(), tagged(index, 100))
            .expect("a put");
    }
    let keyspace = db.keyspace("default").expect("it is there");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Locks are held at any moment of it.
        for thread in 0..2_u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut index = thread << 32;
                while !stop.load(Ordering::SeqCst) {
                    db.put(index.to_be_bytes(), tagged(index, 100))
                        .expect("a put");
                    drop(db.snapshot().expect("a snapshot"));
                    index += 1;
                }
            });
        }
        for round in 0..40 {
            let mut iterator = db.iter().expect("an iterator");
            iterator.next();
            let slice = db.get(0_u64.to_be_bytes()).expect("a get");
            let slice = slice.expect("it is there");
            let snapshot = db.snapshot().expect("a snapshot");
            let handles = (db.clone(), keyspace.clone(), snapshot, iterator, slice);
            // Not moved into the child: the parent uses and drops them too.
            let code = in_forked_child(|| in_child(&handles.0, &handles.1, dir));
            assert_eq!(code.expect("a fork"), Some(0), "round {round}");
            let code = in_forked_child(|| {
                drop(handles);
                0
            });
            assert_eq!(code.expect("a fork"), Some(0), "round {round}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    db.put_with("after", "all", &disk()).expect("a put");
    drop(keyspace);
    let before = contents(&db).expect("a scan");
    let mut last = Some(db);
    // The last handle there is, dropped by a child: nothing may happen to the files.
    let code = in_forked_child(|| {
        last.take();
        let error = Db::open(dir).expect_err("the parent has it");
        u8::from(error.kind() != ErrorKind::AlreadyOpen)
    });
    assert_eq!(code.expect("a fork"), Some(0));
    passes(again(SECOND_OPEN, "refused", dir, ""));
    let db = last.take().expect("the child took its own");
    db.put_with("still", "open", &disk()).expect("a put");
    db.close().expect("a clean close");
    let db = Db::open(dir).expect("a reopen");
    assert_eq!(contents(&db).expect("a scan").len(), before.len() + 1);
}

fn in_child(db: &Db, keyspace: &siltstone::Keyspace, dir: &Path) -> u8 {
    let mut batch = WriteBatch::new();
    batch.put("a", "b");
    let results = [
        db.get("key").map(drop),
        db.put("key", "value").map(drop),
        db.delete_with("key", &disk()).map(drop),
        db.write(&batch).map(drop),
        db.write(&WriteBatch::new()).map(drop),
        db.iter().map(drop),
        db.multi_get(["a", "b"]).map(drop),
        db.snapshot().map(drop),
        db.keyspace("default").map(drop),
        db.flush(),
        db.sync(),
        db.compact_range(..),
        db.wait_for_compactions(),
        db.close(),
        keyspace.get("key").map(drop),
        keyspace.put("key", "value").map(drop),
        keyspace.flush(),
    ];
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Err(error) if error.kind() == ErrorKind::Closed => {}
            other => panic!("call {index} in a child: {other:?}"),
        }
    }
    assert!(matches!(db.health(), Health::Closed));
    assert_eq!(db.stats().user_write_count, 0);
    let error = Db::open(dir).expect_err("the parent has it");
    u8::from(error.kind() != ErrorKind::AlreadyOpen)
}

#[test]
fn a_child_of_a_fork_gets_errors_and_changes_nothing() {
    if let Some((_, dir)) = role() {
        return fork_and_look(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = "fault_process::a_child_of_a_fork_gets_errors_and_changes_nothing";
    passes(again(test, "fork", dir.path(), ""));
}
