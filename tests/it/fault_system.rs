//! A real process whose system calls fail: by a limit of the system, or because a tracer says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use siltstone::{Db, Durability, ErrorKind, Options, ReadMode, WriteOptions, WriteOutcome};

use crate::processes::{again, passes, role};
use crate::support::{Model, PrintOnPanic, contents, rounds, tagged};

const KEY_COUNT: u64 = 60;
const WRITE_COUNT: u64 = 400;

fn options() -> Options {
    Options::new()
        .memtable_bytes_max(8 << 10)
        .table_bytes_target(8 << 10)
        .level_base_bytes(32 << 10)
        .log_segment_bytes(16 << 10)
        .log_bytes_max(64 << 10)
        .manifest_bytes_min(2 << 10)
        .compaction_threads(2)
}

fn key(index: u64) -> Vec<u8> {
    (index % KEY_COUNT).to_be_bytes().to_vec()
}

fn is_honest(error: &siltstone::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned
    )
}

/// Writes and says of each write what became of it, until the door is closed.
fn work(dir: &Path) {
    let db = match options().open(dir) {
        Ok(db) => db,
        Err(error) => {
            assert!(is_honest(&error), "{error:?}");
            println!("\nclosed");
            return;
        }
    };
    for index in 0..WRITE_COUNT {
        let durability = match index % 10 {
            0 => Durability::Disk,
            _ => Durability::Os,
        };
        let how = WriteOptions::new().durability(durability);
        let word = match db.put_with(key(index), tagged(index, 100), &how) {
            Ok(_) => "done",
            Err(error) => {
                assert!(is_honest(&error), "{error:?}");
                match error.outcome() {
                    Some(WriteOutcome::Rejected) => "rejected",
                    Some(WriteOutcome::Indeterminate) => "perhaps",
                    None => panic!("it does not say what became of it: {error:?}"),
                }
            }
        };
        println!("\n{word} {index}");
        if index % 50 == 49
            && let Err(error) = db.flush()
        {
            assert!(is_honest(&error), "{error:?}");
        }
        if let Err(error) = db.get(key(index)) {
            assert!(is_honest(&error), "{error:?}");
        }
    }
    if let Err(error) = db.close() {
        assert!(is_honest(&error), "{error:?}");
    }
    println!("\nclosed");
}

/// What the directory may hold after `output`: with and without the one write that is not known.
fn possible(output: &str) -> Vec<Model> {
    let mut states = vec![Model::new()];
    for line in output.lines() {
        let Some((word, index)) = line.split_once(' ') else {
            continue;
        };
        let Ok(index) = index.parse::<u64>() else {
            continue;
        };
        let mut with = states.clone();
        for state in &mut with {
            state.insert(key(index), tagged(index, 100));
        }
        match word {
            "done" => states = with,
            "perhaps" => states.extend(with),
            _ => {}
        }
    }
    states
}

const INJECTED: &str = "fault_system::a_system_call_that_fails_is_told_and_nothing_is_lost";

fn has_tracer() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    traced.is_ok_and(|output| output.status.success())
}

/// Runs the work with one call failing from its `nth` time on, or once.
fn inject(call: &str, error: &str, nth: u64, stays: bool) {
    let place = format!("{call} fails with {error} from {nth} on, for ever: {stays}");
    let _place = PrintOnPanic(place);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = dir.path().join("db");
    let tracer = format!(
        "exec strace -f -o /dev/null -e trace={call} -e inject={call}:error={error}:when={nth}{}",
        if stays { "+" } else { "" }
    );
    let output = again(INJECTED, "work", &db, &tracer)
        .output()
        .expect("a process can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let has_begun = text.lines().any(|line| line.starts_with("running "));
    if !has_begun {
        // It met the start of the program rather than the database.
        return;
    }
    assert!(
        output.status.success() && text.lines().any(|line| line == "closed"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let opened = options().open(&db).expect("an open without the fault");
    let found = contents(&opened).expect("a scan");
    let states = possible(&text);
    assert!(states.contains(&found), "none of {} states", states.len());
    opened.put("more", "").expect("it takes writes");
    opened.compact_range(..).expect("a compaction");
    opened.close().expect("a clean close");
}

#[test]
fn a_system_call_that_fails_is_told_and_nothing_is_lost() {
    if let Some((_, dir)) = role() {
        return work(Path::new(&dir));
    }
    if !has_tracer() {
        eprintln!("skipped: no strace, or no right to trace");
        return;
    }
    let calls: BTreeMap<&str, [u64; 4]> = BTreeMap::from([
        ("fsync", [1, 2, 4, 9]),
        ("fdatasync", [1, 3, 8, 20]),
        ("pwrite64", [1, 5, 40, 300]),
        ("openat", [45, 60, 80, 120]),
        ("rename", [1, 1, 1, 2]),
        ("fallocate", [1, 2, 3, 6]),
        ("unlink", [1, 2, 5, 9]),
        ("ftruncate", [1, 2, 3, 4]),
    ]);
    for round in 0..rounds() {
        for (index, (call, times)) in calls.iter().enumerate() {
            for (place, nth) in times.iter().enumerate() {
                let turn = index as u64 + place as u64 + round;
                // Two of the four times in one round, in turn.
                if turn.is_multiple_of(2) {
                    let error = ["EIO", "ENOSPC"][usize::from(turn.is_multiple_of(4))];
                    inject(call, error, nth + round, (turn / 2).is_multiple_of(2));
                }
            }
        }
    }
}

/// Far more tables than there are descriptors, all of them read.
fn read_and_write_with_few_files(dir: &Path) {
    let options = options()
        .read_mode(ReadMode::Positioned)
        .open_tables_max(1 << 20)
        .cache_bytes(0)
        .level_base_bytes(1 << 20);
    let db = options.open(dir).expect("an open");
    let tables: u64 = db
        .stats()
        .levels
        .iter()
        .map(|level| level.table_count)
        .sum();
    assert!(tables > 100, "only {tables} tables");
    for _ in 0..2 {
        for index in 0..8000_u64 {
            let found = db
                .get(index.to_be_bytes())
                .expect("room is made by closing");
            assert_eq!(found.as_deref(), Some(&*tagged(index, 200)));
        }
    }
    // A write may fail, and says so; nothing hangs.
    let mut refused = 0;
    for index in 8000..8500_u64 {
        match db.put(index.to_be_bytes(), tagged(index, 200)) {
            Ok(_) => {}
            Err(error) => {
                assert!(is_honest(&error), "{error:?}");
                assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error:?}");
                refused += 1;
            }
        }
    }
    println!("{refused} writes were refused");
    for index in 0..8000_u64 {
        let found = db.get(index.to_be_bytes()).expect("reads go on");
        assert_eq!(found.as_deref(), Some(&*tagged(index, 200)));
    }
    if let Err(error) = db.close() {
        assert!(is_honest(&error), "{error:?}");
    }
}

#[test]
fn few_descriptors_are_made_do_with() {
    if let Some((_, dir)) = role() {
        return read_and_write_with_few_files(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = options().open(dir.path()).expect("a new database");
    for index in 0..8000_u64 {
        db.put(index.to_be_bytes(), tagged(index, 200))
            .expect("a put");
    }
    db.compact_range(..).expect("a compaction");
    db.close().expect("a clean close");
    let test = "fault_system::few_descriptors_are_made_do_with";
    passes(again(test, "few", dir.path(), "ulimit -n 64; exec"));
    let db = Db::open(dir.path()).expect("a reopen");
    let found = contents(&db).expect("a scan").len();
    assert!((8000..=8500).contains(&found), "{found} keys");
}
