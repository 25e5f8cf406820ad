//! `dump`, `load`, `checkpoint`, `explain` and `repair` of the `siltstone` binary, run as a user
//! runs them, on databases that are whole and on some that are not.
#![expect(clippy::disallowed_methods, reason = "damage is done from outside")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use siltstone::{Durability, KeyspaceOptions, Options};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Everything, Fixture, Still, copy, everything, opened};

/// The files of a database whose names begin or end so, the largest last.
fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("listed").path())
        .filter(|path| {
            let name = path.file_name().expect("a file").to_string_lossy();
            name.starts_with(part) || name.ends_with(part)
        })
        .collect();
    paths.sort_by_key(|path| std::fs::metadata(path).expect("there").len());
    paths
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("there");
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).expect("writable");
}

fn place_of(path: &Path, needle: &str) -> usize {
    let bytes = std::fs::read(path).expect("there");
    let mut windows = bytes.windows(needle.len());
    windows
        .position(|w| w == needle.as_bytes())
        .expect("it is there")
}

#[test]
fn what_was_dumped_is_loaded_byte_for_byte() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    let dumped = fixture.out("dump @db");
    std::fs::write(fixture.path("all.ndjson"), &dumped).expect("written");
    fixture.out("load @again @all.ndjson");
    assert_eq!(opened(&fixture.path("again")), expected);
    assert_eq!(fixture.out("dump @again"), dumped);
    let part = fixture.out("dump @db --keyspace void");
    assert!(part.starts_with("{\"keyspace\":\"void\",\"options_hex\":\""));
    assert_eq!(part.lines().count(), 1, "it has no records: {part}");
    assert!(dumped.contains(&part), "as in the dump of all: {part}");
    let ended = fixture.run("dump @db --keyspace nowhere");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("there are: default, "), "{ended:?}");
}

#[test]
fn commands_work_in_the_keyspace_that_is_named() {
    let fixture = Fixture::new();
    let line = "{\"keyspace\":\"events\",\"key\":\"a\",\"value\":\"1\"}\n{\"keyspace\":\"void\"}\n";
    std::fs::write(fixture.path("in"), line).expect("written");
    fixture.out("load @db @in");
    assert_eq!(fixture.out("get @db a --keyspace events"), "1\n");
    assert_eq!(fixture.run("get @db a").code, 2);
    fixture.out("put @db b 2 --keyspace events");
    fixture.out("delete @db a --keyspace events");
    assert_eq!(fixture.out("scan @db --keyspace events"), "b\t2\n");
    assert_eq!(fixture.out("scan @db --count"), "0\n");
    fixture.out("compact @db --keyspace events");
    let ended = fixture.run("scan @db --keyspace event");
    assert!(
        ended
            .err
            .contains("there is no keyspace event; there are: default, events, void")
    );
}

#[test]
fn a_checkpoint_is_a_database() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    let made = fixture.json("checkpoint @db @copy --json");
    assert!(made["table_count"].as_u64().expect("a count") > 2, "{made}");
    assert_eq!(made["copied_bytes"], 0);
    fixture.out("put @db new x");
    assert_eq!(opened(&fixture.path("copy")), expected);
    assert!(fixture.out("verify @copy").contains("no damage found"));
    let ended = fixture.run("checkpoint @db @copy");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("new or an empty directory"), "{ended:?}");
}

#[test]
fn a_get_and_the_costs_are_explained() {
    let fixture = Fixture::new();
    fixture.killed("db");
    let text = fixture.out("explain get @db key0599");
    assert!(
        text.contains("tombstone") && text.contains("<- decides"),
        "{text}"
    );
    let found = fixture.json("explain get @db --json key0200");
    let steps = found["steps"].as_array().expect("a list");
    let place = found["decides"].as_u64().expect("a place");
    let winner = &steps[usize::try_from(place).expect("small")];
    assert_eq!(
        (&winner["outcome"], &winner["value_bytes"]),
        (&"value".into(), &12.into())
    );
    let absent = fixture.json("explain get @db --json nobody");
    assert_eq!(absent["decides"], Value::Null);
    let placed = fixture.out("explain get --db @db key0599");
    // The tool has flushed what it replayed when it closed the database.
    assert!(placed.contains("tombstone"), "{placed}");
    assert_eq!(placed.matches("<- decides").count(), 1, "{placed}");
}

#[test]
fn amplification_is_shown() {
    let fixture = Fixture::new();
    fixture.killed("db");
    let text = fixture.out("amplification @db");
    assert!(text.lines().count() > 3, "{text}");
    let found = fixture.json("amplification @db --json");
    assert!(
        found["live_bytes"].as_u64().expect("a count") > 0,
        "{found}"
    );
    assert_eq!(found["keyspaces"].as_array().expect("a list").len(), 3);
    // Since it was opened the log was replayed and closed; all it holds lies in some level.
    let causes = found["write"]["by_cause"].as_array().expect("a list");
    for bytes in ["payload_bytes", "page_bytes"] {
        let sum: u64 = causes
            .iter()
            .filter_map(|cause| cause[bytes].as_u64())
            .sum();
        assert_eq!(found[bytes], sum, "{found:#}");
        assert!(sum > 0, "{found:#}");
    }
    let levels = found["space"]["levels"].as_array().expect("a list");
    let sum: u64 = levels.iter().filter_map(|l| l["bytes"].as_u64()).sum();
    assert_eq!(found["table_bytes"], sum, "{found:#}");
    assert_eq!(found["read"]["get_count"], 0);
    let parts = found["keyspaces"].as_array().expect("a list").iter();
    let sum: u64 = parts
        .filter_map(|k| k["space"]["table_bytes"].as_u64())
        .sum();
    assert_eq!(found["table_bytes"], sum, "{found:#}");
}

/// Repairs `db` and returns what it said, and what is in the new database.
#[track_caller]
fn repaired(fixture: &Fixture, code: i32) -> (Value, Everything) {
    let before: Vec<_> = files(&fixture.path("db"), "");
    let ended = fixture.run("repair @db @saved --json");
    assert_eq!(ended.code, code, "{ended:?}");
    assert_eq!(
        files(&fixture.path("db"), ""),
        before,
        "the damaged one is left alone"
    );
    assert!(fixture.out("verify @saved").contains("no damage found"));
    let report = serde_json::from_str(ended.out.trim_end()).expect("one document");
    (report, opened(&fixture.path("saved")))
}

/// How many keys of `expected` are missing, and that nothing else is.
#[track_caller]
fn missing(found: &Everything, expected: &Everything) -> usize {
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    let mut missing = 0;
    for (name, expected) in expected {
        let found = &found[name];
        for (key, value) in expected {
            missing += usize::from(found.get(key) != Some(value));
        }
    }
    missing
}

#[test]
fn a_sound_database_is_repaired_to_itself() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    let (report, found) = repaired(&fixture, 0);
    assert_eq!(report["losses"], serde_json::json!([]));
    assert_eq!(found, expected);
    assert_eq!(fixture.run("repair @db @saved").code, 2);
}

#[test]
fn what_a_killed_repair_left_is_no_database_and_goes() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    let unfinished = fixture.path("saved/repair.unfinished");
    std::fs::create_dir_all(&unfinished).expect("made");
    std::fs::write(unfinished.join("CURRENT"), "MANIFEST-000001\n").expect("written");
    let refused = fixture.run("get @saved key");
    refused.fails_with(2, "found=repair.unfinished");
    let (_, found) = repaired(&fixture, 0);
    assert_eq!(found, expected);
    assert!(!unfinished.exists());
}

/// The same database, whose log goes back no further than to when it was last opened.
fn killed_long_ago(fixture: &Fixture) -> Everything {
    let expected = fixture.killed("db");
    assert_eq!(opened(&fixture.path("db")), expected);
    expected
}

#[test]
fn verify_names_every_damaged_block_of_a_table() {
    let fixture = Fixture::new();
    fixture.killed("db");
    let tables = files(&fixture.path("db"), ".sst");
    let table = tables.last().expect("there are tables");
    let mut bytes = std::fs::read(table).expect("there");
    let middle = bytes.len() / 2;
    for at in [10, middle] {
        bytes[at] ^= 1;
    }
    std::fs::write(table, bytes).expect("writable");
    let ended = fixture.run("verify @db");
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("in 2 places"), "{ended:?}");
    let name = table.file_name().expect("a name").to_string_lossy();
    let damage = ended.out.lines().filter(|line| line.contains(&*name));
    let damage: Vec<&str> = damage.collect();
    assert_eq!(damage.len(), 2, "{ended:?}");
    assert!(damage[0].ends_with(" offset=0"), "{ended:?}");
    assert!(
        damage.iter().all(|line| line.starts_with("damage: ")),
        "{ended:?}"
    );
    // The same as the dump of the table says.
    let ended = fixture.run("verify @db --json");
    let report: Value = serde_json::from_str(ended.out.trim_end()).expect("JSON");
    let offsets = report["damage"].as_array().expect("a list").iter();
    let offsets: Vec<_> = offsets.map(|place| place["offset"].as_u64()).collect();
    assert!(offsets[0] == Some(0) && offsets[1] > Some(10), "{report}");
    assert!(offsets[1] <= Some(middle as u64), "{report}");
}

#[test]
fn a_damaged_block_costs_its_own_keys_and_no_more() {
    let fixture = Fixture::new();
    let expected = killed_long_ago(&fixture);
    let tables = files(&fixture.path("db"), ".sst");
    let table = tables.last().expect("there are tables");
    flip(table, 5_000);
    let (report, found) = repaired(&fixture, 1);
    let losses = report["losses"].as_array().expect("a list");
    assert_eq!(losses.len(), 1, "{report}");
    assert!(losses[0]["file"].to_string().contains(".sst"));
    let (offset, bytes) = (&losses[0]["offset"], &losses[0]["bytes"]);
    let offset = offset.as_u64().expect("an offset");
    assert!(
        offset <= 5_000 && 5_000 < offset + bytes.as_u64().expect("a size") + 5,
        "{report}"
    );
    let lost = missing(&found, &expected);
    assert!(
        (1..100).contains(&lost),
        "{lost} keys of a block of 4 KiB: {report}"
    );
}

#[test]
fn a_damaged_filter_costs_nothing() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    for table in files(&fixture.path("db"), ".sst") {
        let output = Command::new(env!("CARGO_BIN_EXE_sst-dump"))
            .arg(&table)
            .args(["--command=raw", "--json"])
            .output()
            .expect("it was built");
        let out = String::from_utf8(output.stdout).expect("text");
        let parts = out
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).expect("one object a line") });
        let filter = parts.into_iter().find(|part| part["part"] == "filter");
        let offset = filter.expect("there is one")["offset"]
            .as_u64()
            .expect("a place");
        flip(&table, usize::try_from(offset).expect("small") + 70);
    }
    assert_eq!(fixture.run("verify @db").code, 1);
    let (report, found) = repaired(&fixture, 0);
    assert_eq!(missing(&found, &expected), 0, "{report}");
}

#[test]
fn a_table_without_its_footer_is_lost_by_name_and_range() {
    let fixture = Fixture::new();
    let expected = killed_long_ago(&fixture);
    let tables = files(&fixture.path("db"), ".sst");
    let table = tables.last().expect("there are tables");
    let len = std::fs::metadata(table).expect("there").len();
    flip(table, usize::try_from(len).expect("small") - 30);
    let (report, found) = repaired(&fixture, 1);
    let loss = &report["losses"][0];
    let has_range = !loss["from"].is_null() || !loss["from_hex"].is_null();
    assert!(has_range, "{report}");
    let lost = missing(&found, &expected);
    assert!(lost > 20 && lost < 600, "{lost}");
}

#[test]
fn the_log_is_saved_beyond_its_damage() {
    let fixture = Fixture::new();
    let expected = fixture.killed("db");
    let logs = files(&fixture.path("db"), ".log");
    let log = logs.iter().find(|path| {
        let bytes = std::fs::read(path).expect("there");
        bytes.windows(13).any(|window| window == b"in the log 20")
    });
    let log = log.expect("it is in the log");
    flip(log, place_of(log, "in the log 20"));
    assert_ne!(fixture.run("scan @db").code, 0);
    let (report, found) = repaired(&fixture, 1);
    assert!(report["losses"].to_string().contains(".log"), "{report}");
    assert_eq!(missing(&found, &expected), 1, "{report}");
    let later = &found["default"][&b"key0239"[..]];
    assert_eq!(later, b"in the log 39");
}

#[test]
fn without_manifest_or_current_tables_and_log_are_enough() {
    for damage in [
        "no CURRENT",
        "no MANIFEST",
        "torn CURRENT",
        "damaged MANIFEST",
    ] {
        let fixture = Fixture::new();
        let expected = fixture.killed("db");
        let db = fixture.path("db");
        let manifest = files(&db, "MANIFEST-").pop().expect("there is one");
        match damage {
            "no CURRENT" => std::fs::remove_file(db.join("CURRENT")).expect("removed"),
            "no MANIFEST" => std::fs::remove_file(manifest).expect("removed"),
            "torn CURRENT" => flip(&db.join("CURRENT"), 3),
            _ => flip(&manifest, 560),
        }
        assert_ne!(fixture.run("scan @db").code, 0, "{damage}");
        let (report, found) = repaired(&fixture, 1);
        assert_eq!(
            report["losses"].as_array().expect("a list").len(),
            1,
            "{damage}: {report}"
        );
        if found.contains_key("\u{fc}mlaut") {
            assert_eq!(missing(&found, &expected), 0, "{damage}: {report}");
            assert_eq!(found, expected, "{damage}: {report}");
        } else {
            // Only MANIFEST had the name: the log of its creation is gone.
            assert_eq!(damage, "no MANIFEST", "{report}");
            assert_eq!(found["default"], expected["default"], "{damage}: {report}");
            let named = report["remarks"].to_string();
            assert!(named.contains("keyspace-2"), "{damage}: {report}");
            assert_eq!(
                found["keyspace-2"], expected["\u{fc}mlaut"],
                "{damage}: {report}"
            );
        }
    }
}

/// How the databases are made whose log is kept.
fn with_its_log() -> Options {
    Options::new()
        .durability(Durability::Disk)
        .sync_interval(None)
        .log_keep_bytes(1 << 30)
}

/// The segment of the log that holds `needle`.
#[track_caller]
fn segment_with(db: &Path, needle: &str) -> PathBuf {
    let mut logs = files(db, ".log").into_iter();
    let found = logs.find(|path| {
        let bytes = std::fs::read(path).expect("there");
        bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
    });
    found.expect("it is in the log")
}

/// A database whose log goes back to a keyspace that was dropped and made again since, and whose
/// MANIFEST has forgotten the first one. The last writes are in the log only.
fn with_a_keyspace_made_again(fixture: &Fixture) -> Everything {
    let live = fixture.path("live");
    let db = with_its_log().open(&live).expect("a new database");
    let options = KeyspaceOptions::new();
    let first = db.create_keyspace("a", &options).expect("created");
    first.put("x", "of the first").expect("put");
    db.put("d", "flushed").expect("put");
    db.drop_keyspace("a").expect("dropped");
    let second = db.create_keyspace("a", &options).expect("created");
    second.put("k", "of the second").expect("put");
    db.flush().expect("flushed");
    db.close().expect("closed");
    let reopened = with_its_log().open(&live).expect("it is whole");
    reopened.close().expect("closed");
    let still = Still::new();
    let db = still.options(with_its_log()).open(&live);
    let db = db.expect("it is whole");
    let second = db.keyspace("a").expect("there");
    for n in 0..4 {
        second
            .put(format!("l{n}"), format!("in the log {n}"))
            .expect("put");
    }
    let expected = everything(&db);
    still.copy(&live, &fixture.path("db"));
    db.close().expect("closed");
    // What is flipped below has to be what the log keeps.
    segment_with(&fixture.path("db"), "of the first");
    expected
}

#[test]
fn a_keyspace_made_again_is_not_dropped_with_the_first() {
    let fixture = Fixture::new();
    let expected = with_a_keyspace_made_again(&fixture);
    let (report, found) = repaired(&fixture, 0);
    assert_eq!(found, expected, "{report}");
    // Nobody needs what is damaged here.
    let fixture = Fixture::new();
    let expected = with_a_keyspace_made_again(&fixture);
    let log = segment_with(&fixture.path("db"), "of the first");
    flip(&log, place_of(&log, "of the first"));
    let (report, found) = repaired(&fixture, 0);
    assert_eq!(found, expected, "{report}");
}

#[test]
fn a_keyspace_made_again_is_saved_past_a_damaged_log() {
    for damage in ["in the log 1", "of the first"] {
        let fixture = Fixture::new();
        let expected = with_a_keyspace_made_again(&fixture);
        let log = segment_with(&fixture.path("db"), "in the log 1");
        flip(&log, place_of(&log, "in the log 1"));
        let mut lost = 1;
        if damage == "of the first" {
            // And nothing says any more what there was.
            let log = segment_with(&fixture.path("db"), damage);
            flip(&log, place_of(&log, damage));
            let manifest = files(&fixture.path("db"), "MANIFEST-").pop();
            std::fs::remove_file(manifest.expect("there is one")).expect("removed");
            lost = 3;
        }
        let (report, found) = repaired(&fixture, 1);
        assert_eq!(missing(&found, &expected), 1, "{damage}: {report}");
        assert_eq!(found["a"].get(&b"x"[..]), None, "{damage}: {report}");
        let losses = report["losses"].as_array().expect("a list");
        assert_eq!(losses.len(), lost, "{damage}: {report}");
    }
}

#[test]
fn a_segment_that_no_open_reads_may_be_damaged() {
    let fixture = Fixture::new();
    let (live, db) = (fixture.path("live"), fixture.path("db"));
    let live_db = with_its_log().open(&live).expect("a new database");
    for n in 0..300 {
        live_db
            .put(format!("key{n:04}"), format!("to be flushed {n:04}"))
            .expect("put");
    }
    live_db.close().expect("closed");
    // In a segment of its own.
    let still = Still::new();
    let live_db = still.options(with_its_log()).open(&live);
    let live_db = live_db.expect("it is whole");
    for n in 0..4 {
        live_db
            .put(format!("later{n}"), format!("in the log {n}"))
            .expect("put");
    }
    let expected = everything(&live_db);
    still.copy(&live, &db);
    live_db.close().expect("closed");
    let log = segment_with(&db, "to be flushed 0150");
    assert_ne!(log, segment_with(&db, "in the log 0"));
    flip(&log, place_of(&log, "to be flushed 0150"));
    copy(&db, &fixture.path("opened"));
    assert_eq!(opened(&fixture.path("opened")), expected);
    let (report, found) = repaired(&fixture, 0);
    assert_eq!(found, expected, "{report}");
    let remarks = report["remarks"].as_array().expect("a list");
    assert_eq!(remarks.len(), 0, "{report}");

    std::fs::remove_dir_all(fixture.path("saved")).expect("removed");
    let table = files(&db, ".sst").pop().expect("there is one");
    flip(&table, 100);
    let (report, found) = repaired(&fixture, 1);
    assert_eq!(report["losses"].as_array().expect("a list").len(), 1);
    assert!(missing(&found, &expected) > 0, "{report}");
    assert_eq!(found["default"][&b"later3"[..]], b"in the log 3");

    std::fs::remove_dir_all(fixture.path("saved")).expect("removed");
    let log = segment_with(&db, "in the log 1");
    flip(&log, place_of(&log, "in the log 1"));
    let (report, found) = repaired(&fixture, 1);
    // That of the first segment is none: its records are in tables, or lost with these.
    assert_eq!(report["losses"].as_array().expect("a list").len(), 2);
    assert_eq!(found["default"][&b"later2"[..]], b"in the log 2");
}

#[test]
fn shells_and_manual_pages_are_served() {
    let fixture = Fixture::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = fixture.out(&format!("completions {shell}"));
        assert!(script.contains("checkpoint"), "{shell}");
        let script = fixture.out(&format!("completions {shell} --tool sst-dump"));
        assert!(script.contains("compression_types"), "{shell}");
        let script = fixture.out(&format!("completions {shell} --tool lsm-bench"));
        assert!(script.contains("benchmarks"), "{shell}");
        let script = fixture.out(&format!("completions {shell} --tool siltstone-torture"));
        assert!(script.contains("reopens"), "{shell}");
    }
    let page = fixture.out("man");
    assert!(page.contains(".TH siltstone 1") && page.contains("siltstone repair DB SAVED"));
    fixture.out("man --dir @pages");
    fixture.out("man --dir @pages");
    for name in [
        "siltstone.1",
        "siltstone-get.1",
        "siltstone-wal-dump.1",
        "sst-dump.1",
        "lsm-bench.1",
        "siltstone-torture.1",
        "siltstone-torture-kill.1",
    ] {
        let page = std::fs::read_to_string(fixture.path("pages").join(name)).expect(name);
        assert!(page.contains(".TH"), "{name}");
    }
    let ended = fixture.run("chekpoint @db @copy");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("'checkpoint'"), "{ended:?}");
    let ended = fixture.run("scan @db --kespace x");
    assert!(ended.err.contains("'--keyspace'"), "{ended:?}");
}

/// A file system of one megabyte, where that can be made.
#[test]
fn a_full_disk_is_told_in_one_line() {
    let fixture = Fixture::new();
    let place = fixture.path("small");
    std::fs::create_dir(&place).expect("made");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&place)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: only root can mount");
        return;
    }
    let line = |n: u64| {
        let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{{\"key\":\"key{n}\",\"value\":\"{noise:x}{noise:b}\"}}\n")
    };
    let lines: Vec<String> = (0..20_000).map(line).collect();
    let lines = lines.concat();
    std::fs::write(fixture.path("in"), lines).expect("written");
    let ended = fixture.run("load @small/db @in");
    let unmounted = Command::new("umount").arg("-l").arg(&place).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("space"), "{ended:?}");
    assert!(!ended.err.contains("panicked"), "{ended:?}");
}
