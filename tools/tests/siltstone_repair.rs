//! What `siltstone repair` can save beyond what tables and MANIFEST say, and what it says of the
//! rest.
#![expect(clippy::disallowed_methods, reason = "damage is done from outside")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use siltstone::{Compression, Db, Durability, KeyspaceOptions, Options};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Everything, Fixture, Still, everything, opened};

/// How the databases are made whose log is kept.
fn with_its_log() -> Options {
    Options::new()
        .durability(Durability::Disk)
        .compression(Compression::None)
        .bottom_compression(Compression::None)
        .log_keep_bytes(1 << 30)
}

/// The files in `dir` with this ending, in the order of their numbers.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("listed").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    paths.sort();
    paths
}

fn manifest(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("listed").path());
    let is_it = |path: &PathBuf| path.to_string_lossy().contains("MANIFEST-");
    paths.filter(is_it).max().expect("there is one")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("there");
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).expect("writable");
}

fn has(path: &Path, needle: &str) -> Option<usize> {
    let bytes = std::fs::read(path).expect("there");
    let mut windows = bytes.windows(needle.len());
    windows.position(|window| window == needle.as_bytes())
}

/// Repairs `db`, of which something is lost; what it said, and what is in the new database.
#[track_caller]
fn repaired(fixture: &Fixture) -> (Value, Everything) {
    let ended = fixture.run("repair @db @saved --json");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(fixture.out("verify @saved").contains("no damage found"));
    let report = serde_json::from_str(ended.out.trim_end()).expect("one document");
    (report, opened(&fixture.path("saved")))
}

fn key(n: u32) -> String {
    format!("key{n:04}")
}

/// Runs `change` on the database in `dir` and flushes and compacts what it has done.
fn session(dir: &Path, change: impl FnOnce(&Db)) -> Everything {
    let db = with_its_log().open(dir).expect("a sound database");
    change(&db);
    db.compact_range(..).expect("compacted");
    let expected = everything(&db);
    db.close().expect("closed");
    expected
}

/// A database of one table, whose log has all of it in two segments: in the second, every third
/// key of the first is deleted, and the next overwritten.
fn in_one_table(fixture: &Fixture) -> Everything {
    let db = fixture.path("db");
    session(&db, |db| {
        for n in 0..400 {
            db.put(key(n), format!("first {n:04} {:60}", ""))
                .expect("put");
        }
    });
    let expected = session(&db, |db| {
        for n in (0..400).step_by(3) {
            db.delete(key(n)).expect("deleted");
            db.put(key(n + 1), format!("second {n}")).expect("put");
        }
    });
    assert_eq!(files(&db, ".sst").len(), 1);
    expected
}

#[test]
fn what_a_table_has_lost_is_put_again_if_the_log_has_it() {
    for is_whole_lost in [false, true] {
        let fixture = Fixture::new();
        let expected = in_one_table(&fixture);
        let table = files(&fixture.path("db"), ".sst").remove(0);
        let len = std::fs::metadata(&table).expect("there").len();
        let len = usize::try_from(len).expect("small");
        flip(&table, if is_whole_lost { len - 30 } else { 5_000 });
        let (report, found) = repaired(&fixture);
        assert_eq!(found, expected, "{report}");
        let remarks = report["remarks"].to_string();
        assert!(remarks.contains("were put again"), "{report}");
    }
}

#[test]
fn what_a_damaged_log_has_of_it_is_put_again_from_behind_the_damage_on() {
    let fixture = Fixture::new();
    let expected = in_one_table(&fixture);
    let db = fixture.path("db");
    let table = files(&db, ".sst").remove(0);
    let len = std::fs::metadata(&table).expect("there").len();
    flip(&table, usize::try_from(len).expect("small") - 30);
    let logs = files(&db, ".log").into_iter();
    let mut damaged = logs.filter_map(|log| Some((has(&log, "first 0200")?, log)));
    let (at, log) = damaged.next().expect("it is kept");
    flip(&log, at);
    let (report, found) = repaired(&fixture);
    // Nothing of the first segment: what came before the damage may have been deleted in it.
    let second = |(_, value): &(&Vec<u8>, &Vec<u8>)| value.starts_with(b"second");
    let expected: Vec<_> = expected["default"].iter().filter(second).collect();
    assert_eq!(
        found["default"].iter().collect::<Vec<_>>(),
        expected,
        "{report}"
    );
    assert_eq!(expected.len(), 134);
}

#[test]
fn an_older_value_that_comes_back_is_not_passed_over_in_silence() {
    let fixture = Fixture::new();
    let options = Options::new()
        .durability(Durability::Disk)
        .idle_compaction_after(None);
    let db = options.open(fixture.path("db")).expect("a new database");
    for n in 0..1000 {
        db.put(key(n), "old").expect("put");
    }
    db.compact_range(..).expect("compacted");
    db.delete(key(500)).expect("deleted");
    // Far from so many deletes that they are compacted by themselves.
    for n in 0..100 {
        db.put(format!("new{n:04}"), "value").expect("put");
    }
    db.close().expect("closed");
    // The log goes back to this open only.
    let expected = opened(&fixture.path("db"));
    assert!(!expected["default"].contains_key(key(500).as_bytes()));
    let tables = files(&fixture.path("db"), ".sst");
    assert_eq!(tables.len(), 2);
    flip(&tables[1], 20);
    let (report, found) = repaired(&fixture);
    assert_eq!(found["default"][key(500).as_bytes()], b"old", "{report}");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("may be there again"), "{report}");
}

/// Nothing says what the first keyspace was called, and the second has the name that it would get.
#[test]
fn a_keyspace_without_a_name_takes_that_of_no_other() {
    let fixture = Fixture::new();
    let live = fixture.path("live");
    let options = || Options::new().durability(Durability::Disk);
    let db = options().open(&live).expect("a new database");
    let first = db.create_keyspace("a", &KeyspaceOptions::new());
    first
        .expect("created")
        .put("k", "of the first")
        .expect("put");
    db.close().expect("closed");
    let still = Still::new();
    let db = still.options(options()).open(&live).expect("it is whole");
    let second = db.create_keyspace("keyspace-1", &KeyspaceOptions::new());
    second
        .expect("created")
        .put("k", "of the second")
        .expect("put");
    still.copy(&live, &fixture.path("db"));
    db.close().expect("closed");
    std::fs::remove_file(manifest(&fixture.path("db"))).expect("removed");
    let (report, found) = repaired(&fixture);
    assert_eq!(found["keyspace-1"][&b"k"[..]], b"of the second", "{report}");
    assert_eq!(found["keyspace-1+"][&b"k"[..]], b"of the first", "{report}");
}

#[test]
fn a_segment_that_is_missing_without_a_manifest_is_told() {
    let fixture = Fixture::new();
    let db = fixture.path("db");
    let mut expected = Everything::new();
    for round in 0..3 {
        expected = session(&db, |db| {
            for n in 0..10 {
                db.put(key(10 * round + n), format!("in round {round}"))
                    .expect("put");
            }
        });
    }
    std::fs::remove_file(manifest(&db)).expect("removed");
    let logs = files(&db, ".log").into_iter();
    let gone: Vec<_> = logs
        .filter(|log| has(log, "in round 1").is_some())
        .collect();
    assert_eq!(gone.len(), 1);
    std::fs::remove_file(&gone[0]).expect("removed");
    let (report, found) = repaired(&fixture);
    assert_eq!(found, expected, "tables have it: {report}");
    let remarks = report["remarks"].to_string();
    let told = "nothing of the sequence numbers 11 to 20";
    assert!(remarks.contains(told), "{report}");
}

/// An open that comes after a kill leaves out numbers that nothing was written with.
#[test]
fn numbers_that_an_open_has_left_out_are_not_missed() {
    let fixture = Fixture::new();
    let (live, db) = (fixture.path("live"), fixture.path("db"));
    let still = Still::new();
    let killed = still
        .options(with_its_log())
        .open(&live)
        .expect("a new one");
    for n in 0..10 {
        killed.put(key(n), "before the kill").expect("put");
    }
    still.copy(&live, &db);
    killed.close().expect("closed");
    let expected = session(&db, |db| {
        for n in 10..20 {
            db.put(key(n), "after it").expect("put");
        }
    });
    std::fs::remove_file(manifest(&db)).expect("removed");
    for log in files(&db, ".log") {
        assert!(has(&log, "before the kill").is_some() || has(&log, "after it").is_some());
    }
    assert!(files(&db, ".log").len() > 1);
    let (report, found) = repaired(&fixture);
    assert_eq!(found, expected, "{report}");
    let remarks = report["remarks"].to_string();
    assert!(!remarks.contains("of the sequence numbers"), "{report}");
}

#[test]
fn the_damaged_end_of_a_segment_that_tables_have_is_not_missed() {
    let fixture = Fixture::new();
    let (live, db) = (fixture.path("live"), fixture.path("db"));
    for round in 0..2 {
        session(&live, |db| {
            for n in 0..10 {
                db.put(key(n), format!("in round {round} {n}"))
                    .expect("put");
            }
        });
    }
    let still = Still::new();
    let killed = still.options(with_its_log()).open(&live).expect("whole");
    for n in 0..10 {
        killed.put(key(n), format!("killed {n}")).expect("put");
    }
    still.copy(&live, &db);
    killed.close().expect("closed");
    let with = |needle: &str| {
        let logs = files(&db, ".log").into_iter();
        let mut found = logs.filter_map(|log| Some((has(&log, needle)?, log)));
        found.next().expect("it is kept")
    };
    let (at, old) = with("in round 0 9");
    let file = std::fs::OpenOptions::new().write(true).open(&old);
    file.and_then(|file| file.set_len(at as u64 + 2))
        .expect("cut");
    let (at, newest) = with("killed 4");
    flip(&newest, at);
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let (old, newest) = (name(&old).expect("it has"), name(&newest).expect("it has"));
    let ended = fixture.run("verify @db");
    assert!(ended.out.contains(&newest), "{ended:?}");
    assert!(!ended.out.contains(&old), "{ended:?}");
    let (report, _) = repaired(&fixture);
    let losses = report["losses"].to_string();
    assert!(losses.contains(&newest), "{report}");
    assert!(!losses.contains(&old), "{report}");
}
