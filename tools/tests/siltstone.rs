//! The `siltstone` binary, run as a user runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use siltstone::{Durability, Options};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Ended, Fixture, Still, records};

fn numbered_records(count: usize) -> String {
    let mut lines = String::new();
    for n in 0..count {
        lines.push_str(&records([(
            &*format!("key-{n:06}"),
            &*format!("value of {n}"),
        )]));
    }
    lines
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("one JSON document")
}

#[test]
fn a_value_comes_back() {
    let fixture = Fixture::new();
    fixture.out("put DB k v --create");
    assert_eq!(fixture.out("get DB k"), "v\n");
    assert_eq!(fixture.out("get DB k --raw"), "v");
    assert_eq!(json(&fixture.out("get DB k --json"))["value"], "v");
    fixture.out("put DB k -1 --sync");
    assert_eq!(fixture.out("get DB k"), "-1\n");
    fixture.out("delete DB k absent");
    fixture
        .run("get DB k")
        .fails_with(2, "there is no such key: k");
}

#[test]
fn the_database_can_be_named_by_an_option() {
    let fixture = Fixture::with_abc();
    assert_eq!(fixture.out("get --db DB b"), "2\n");
    assert_eq!(fixture.out("--db DB scan --count"), "3\n");
}

#[test]
fn a_missing_database_is_not_made_by_reading() {
    let fixture = Fixture::new();
    for line in [
        "get DB k",
        "scan DB",
        "stats DB",
        "levels DB",
        "compact DB",
        "put DB k v",
    ] {
        fixture.run(line).fails_with(2, "there is no database in");
        assert!(!fixture.db().exists(), "{line}");
    }
}

#[test]
fn wrong_calls_end_with_two() {
    let fixture = Fixture::with_abc();
    for line in [
        "",
        "frobnicate DB",
        "get DB",
        "scan DB --limit x",
        "load DB - --batch-size 0",
    ] {
        assert_eq!(fixture.run(line).code, 2, "{line}");
    }
    fixture
        .run("get DB 6x --hex")
        .fails_with(2, "--hex: not hexadecimal digits: 6x");
    fixture
        .run("put DB k v --memtable-bytes 1")
        .fails_with(2, "memtable_bytes_max");
}

/// The commands that the help of `line` lists.
fn commands_in(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| *name != "help").map(str::to_owned);
    names.collect()
}

#[test]
fn the_help_of_every_command_has_examples() {
    let fixture = Fixture::new();
    let mut lines = vec![String::new()];
    let mut count = 0;
    while let Some(line) = lines.pop() {
        let help = fixture.out(format!("{line} --help").trim_start());
        let examples = help.split("Examples:\n").nth(1);
        let examples = examples.unwrap_or_else(|| panic!("{line}: {help}"));
        assert!(examples.contains(&format!("siltstone {line}")), "{help}");
        let first = help.lines().next().expect("what it does");
        assert!(first.len() > 10 && !first.starts_with("Usage"), "{help}");
        let inner = commands_in(&help).into_iter();
        lines.extend(inner.map(|name| format!("{line} {name}").trim_start().to_owned()));
        count += 1;
    }
    assert!(count > 20, "{count}");
    let told = |line: &str, part: &str| {
        let help = fixture.out(line);
        assert!(help.contains(part), "{part} in {help}");
    };
    told("load --help", "nothing behind it");
    told("dump --help", "in key order");
    told(
        "repair --help",
        "Nothing is written to the damaged database",
    );
}

#[test]
fn a_scan_keeps_to_its_bounds() {
    let fixture = Fixture::new();
    let input = records([
        ("a", "1"),
        ("ab", "2"),
        ("abc", "3"),
        ("b", "4"),
        ("c", "5"),
    ]);
    fixture.run_with_input("load DB -", input.as_bytes());
    let keys = |options: &str| {
        let out = fixture.out(&format!("scan DB --keys-only {options}"));
        out.lines().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys("--from a"), "a ab abc b c");
    assert_eq!(keys("--prefix ab"), "ab abc");
    assert_eq!(keys("--from ab --to c"), "ab abc b");
    assert_eq!(keys("--reverse --limit 2"), "c b");
    assert_eq!(keys("--reverse --to b"), "abc ab a");
    assert_eq!(keys("--reverse --to bb --from abc"), "b abc");
    assert_eq!(keys("--prefix ab --to abc"), "ab");
    assert_eq!(keys("--prefix x"), "");
    assert_eq!(keys("--limit 0"), "");
    assert_eq!(fixture.out("scan DB --count --prefix a"), "3\n");
    assert_eq!(fixture.out("scan DB --limit 1"), "a\t1\n");
}

#[test]
fn bytes_that_are_no_text_are_escaped_and_survive_a_round() {
    let fixture = Fixture::new();
    fixture.out("put DB ff00 1b5b410a --hex --create");
    fixture.out("put DB tab\\t back\\slash");
    assert_eq!(
        fixture.out("scan DB"),
        "tab\\\\t\tback\\\\slash\n\\xff\\x00\t\\x1b[A\\n\n"
    );
    assert_eq!(fixture.out("get DB ff00 --hex"), "1b5b410a\n");
    assert_eq!(fixture.out("get DB tab\\t"), "back\\slash\n");
    let dump = fixture.out("scan DB --json");
    assert!(
        dump.contains(r#"{"key_hex":"ff00","value":"\u001b[A\n"}"#),
        "{dump}"
    );
    let again = Fixture::new();
    let ended = again.run_with_input("load DB -", dump.as_bytes());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(again.out("scan DB --json"), dump);
}

#[test]
fn a_load_says_what_it_did() {
    let fixture = Fixture::new();
    fixture.file("in.ndjson", numbered_records(2500).as_bytes());
    let out = fixture.out("load DB @in.ndjson");
    assert!(out.starts_with("loaded 2,500 records ("), "{out}");
    assert_eq!(fixture.out("scan DB --count"), "2500\n");
    assert_eq!(fixture.out("get DB key-001234"), "value of 1234\n");
    let again = json(&fixture.out("load DB @in.ndjson --json --batch-size 100 --sync"));
    assert_eq!(again["records"], 2500);
    assert_eq!(again["batches"], 25);
    assert_eq!(fixture.out("scan DB --count"), "2500\n");
}

#[test]
fn a_packed_file_is_known_by_name_or_content() {
    let fixture = Fixture::new();
    let packed = zstd::encode_all(numbered_records(300).as_bytes(), 3).expect("in memory");
    fixture.file("in.ndjson.zst", &packed);
    fixture.file("no-extension", &packed);
    fixture.out("load DB @in.ndjson.zst");
    assert_eq!(fixture.out("scan DB --count"), "300\n");
    fixture.out("load DB @no-extension");
    let ended = fixture.run_with_input("load DB - --json", &packed);
    assert_eq!(json(&ended.out)["records"], 300, "{ended:?}");
    fixture.file("cut.zst", &packed[..packed.len() / 2]);
    fixture
        .run("load DB @cut.zst")
        .fails_with(2, "reading failed");
    fixture.file("plain.zst", b"{}");
    fixture
        .run("load DB @plain.zst")
        .fails_with(2, "line 1: reading failed");
}

#[test]
fn a_malformed_line_stops_a_load_with_everything_before_it_put() {
    let fixture = Fixture::new();
    let mut lines = numbered_records(41);
    lines.push_str("{\"key\": \"bad\", \"value\": 7}\n");
    lines.push_str(&numbered_records(50));
    fixture.file("in.ndjson", lines.as_bytes());
    let ended = fixture.run("load DB @in.ndjson --batch-size 10");
    ended.fails_with(
        2,
        "line 42: field \"value\" must be a string, found a number",
    );
    ended.fails_with(
        2,
        "41 records were put before that, up to line 41; --skip-lines 41",
    );
    assert_eq!(fixture.out("scan DB --count"), "41\n");
    let skipping = json(&fixture.out("load DB @in.ndjson --skip-bad --json"));
    assert_eq!(skipping["records"], 91);
    assert_eq!(skipping["bad_lines"], 1);
    assert_eq!(fixture.out("scan DB --count"), "50\n");
    let behind = json(&fixture.out("load DB @in.ndjson --skip-lines 42 --json"));
    assert_eq!(behind["records"], 50);
}

#[test]
fn a_load_names_its_first_line_when_that_is_bad() {
    let fixture = Fixture::new();
    let ended = fixture.run_with_input("load DB -", b"not json\n");
    ended.fails_with(2, "line 1: not JSON");
    ended.fails_with(2, "no record was put before that");
    let long = format!("{{\"key\":\"{}\",\"value\":\"\"}}", "k".repeat(65_536));
    let ended = fixture.run_with_input("load DB -", long.as_bytes());
    ended.fails_with(2, "line 1: the key has 65536 bytes, more than 65535");
}

#[test]
fn a_missing_file_leaves_no_database_behind() {
    let fixture = Fixture::new();
    fixture.run("load DB @absent").fails_with(2, "absent");
    assert!(!fixture.db().exists());
}

#[test]
fn a_closed_pipe_ends_a_scan_quietly() {
    let fixture = Fixture::new();
    fixture.run_with_input("load DB -", numbered_records(20_000).as_bytes());
    let mut child = fixture
        .command("scan DB")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    drop(child.stdout.take());
    let ended = Ended::of(child.wait_with_output().expect("it ends"));
    assert_eq!((ended.code, &*ended.err), (0, ""), "{ended:?}");
}

#[test]
fn the_levels_are_a_table() {
    let fixture = Fixture::with_abc();
    let out = fixture.out("levels DB");
    assert!(out.starts_with("level  tables"), "{out}");
    let stats = json(&fixture.out("stats DB --json"));
    assert!(stats["visible_seq"].is_u64(), "{stats}");
    assert!(fixture.out("stats DB").contains("since it was opened:"));
    assert!(fixture.out("compact DB").contains("after:"));
    assert_eq!(fixture.out("scan DB --count"), "3\n");
}

/// The files of a directory and their bytes.
#[expect(clippy::disallowed_methods, reason = "a look from outside")]
fn files_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("ours are ASCII");
        if entry.file_type().expect("readable").is_file() {
            files.push((name, std::fs::read(entry.path()).expect("readable")));
        }
    }
    files.sort();
    files
}

impl Fixture {
    /// A database as a kill leaves it: 200 commits in the log, each synced, none in a table.
    fn with_log() -> Self {
        let fixture = Self::new();
        let (live, still) = (fixture.path("live"), Still::new());
        let options = Options::new().durability(Durability::Disk);
        let db = still.options(options).open(&live).expect("a new database");
        for n in 0..200 {
            let value = format!("value of {n}");
            db.put(format!("key-{n:03}"), value).expect("a put");
        }
        still.copy(&live, &fixture.db());
        db.close().expect("a sound database");
        fixture
    }

    /// Changes one byte of the first file with this ending, `at` bytes from its start.
    #[expect(clippy::disallowed_methods, reason = "damage is done from outside")]
    fn damage(&self, ending: &str, at: impl FnOnce(&[u8]) -> usize) -> String {
        let (name, mut bytes) = files_of(&self.db())
            .into_iter()
            .find(|(name, _)| name.ends_with(ending) || name.starts_with(ending))
            .expect("there is one");
        let at = at(&bytes);
        bytes[at] ^= 0x40;
        std::fs::write(self.db().join(&name), bytes).expect("writable");
        name
    }

    #[track_caller]
    fn is_damaged(&self, command: &str, file: &str) {
        let ended = self.run(command);
        assert_eq!(ended.code, 1, "{command}: {ended:?}");
        assert!(
            ended.out.contains(file) || ended.err.contains(file),
            "{ended:?}"
        );
    }
}

/// Where `needle` is in `bytes`.
fn find(bytes: &[u8], needle: &str) -> usize {
    let mut windows = bytes.windows(needle.len());
    windows
        .position(|window| window == needle.as_bytes())
        .expect("it is there")
}

#[test]
fn a_sound_database_is_found_sound_and_left_alone() {
    for fixture in [Fixture::with_abc(), Fixture::with_log()] {
        let before = files_of(&fixture.db());
        assert!(fixture.out("verify DB").contains("no damage found"));
        assert_eq!(
            json(&fixture.out("verify DB --json"))["damage"],
            serde_json::json!([])
        );
        fixture.out("wal verify DB");
        fixture.out("wal dump DB");
        assert!(
            fixture
                .out("manifest dump DB")
                .contains("created as default")
        );
        assert!(fixture.out("keyspaces DB").contains("default"));
        assert_eq!(files_of(&fixture.db()), before);
    }
}

#[test]
fn damage_is_named_and_ends_with_one() {
    let fixture = Fixture::with_abc();
    let name = fixture.damage(".sst", |_| 20);
    fixture.is_damaged("verify DB", &name);
    fixture.is_damaged("scan DB", &name);
    let report = fixture.run("verify DB --json").out;
    assert!(
        json(&report)["damage"][0]["file"]
            .as_str()
            .expect("a path")
            .ends_with(&name)
    );

    let fixture = Fixture::with_abc();
    let name = fixture.damage("MANIFEST-", |bytes| find(bytes, "default"));
    fixture.is_damaged("verify DB", &name);
    fixture.is_damaged("keyspaces DB", &name);

    let fixture = Fixture::with_log();
    let name = fixture.damage(".log", |bytes| find(bytes, "value of 100"));
    fixture.is_damaged("verify DB", &name);
    fixture.is_damaged("wal verify DB", &name);
    for line in ["wal dump DB", "wal dump DB --quiet", "wal dump DB --json"] {
        fixture.is_damaged(line, &name);
    }
    let out = fixture.run("wal dump DB").out;
    assert_eq!(out.matches("PUT").count(), 100, "up to the damage: {out}");
    fixture.is_damaged("scan DB", &name);
}

#[test]
fn every_damaged_place_of_the_log_is_named() {
    let fixture = Fixture::with_log();
    let mut name = String::new();
    for number in [30, 31, 90, 150] {
        // With what follows it, so that no other value is meant.
        name = fixture.damage(".log", |bytes| find(bytes, &format!("value of {number}")));
    }
    for line in ["verify DB", "wal verify DB"] {
        let ended = fixture.run(line);
        assert_eq!(ended.code, 1, "{ended:?}");
        let places: Vec<&str> = ended
            .out
            .lines()
            .filter(|line| line.starts_with("damage: ") && line.contains(&name))
            .collect();
        // Neighbours are one place.
        assert_eq!(places.len(), 3, "{ended:?}");
        let is_placed = |place: &&str| place.contains("offset=") && place.contains("bytes=");
        assert!(places.iter().all(is_placed), "{ended:?}");
        assert!(ended.err.contains("in 3 places"), "{ended:?}");
    }
    let report = json(&fixture.run("verify DB --json").out);
    let damage = report["damage"].as_array().expect("a list");
    let offsets: Vec<u64> = damage
        .iter()
        .map(|place| place["offset"].as_u64().expect("an offset"))
        .collect();
    assert_eq!(offsets.len(), 3, "{report}");
    assert!(offsets.is_sorted(), "{report}");
    // A torn end adds none.
    fixture.damage(".log", |bytes| find(bytes, "value of 199"));
    let out = fixture.run("verify DB").out;
    assert_eq!(out.matches("damage: ").count(), 3, "{out}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "damage is done from outside")]
fn a_lost_current_is_damage_and_not_a_new_database() {
    let fixture = Fixture::with_abc();
    std::fs::remove_file(fixture.db().join("CURRENT")).expect("it was there");
    for command in [
        "verify DB",
        "manifest dump DB",
        "scan DB",
        "put DB k v --create",
    ] {
        fixture.is_damaged(command, "CURRENT");
    }
}

#[test]
fn a_torn_end_of_the_log_is_a_remark() {
    let fixture = Fixture::with_log();
    let name = fixture.damage(".log", |bytes| find(bytes, "value of 199"));
    let out = fixture.out("verify DB");
    assert!(
        out.contains("remark: the log ends in a record that is not whole"),
        "{out}"
    );
    assert!(out.contains(&name), "{out}");
    let ended = fixture.run("wal dump DB");
    assert_eq!((ended.code, ended.out.matches("PUT").count()), (0, 199));
    assert!(ended.err.starts_with("remark: "), "{ended:?}");
    let ended = fixture.run("scan DB --count");
    assert_eq!((ended.code, &*ended.out), (0, "199\n"));
    assert!(ended.err.contains("dropped"), "{ended:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "damage is done from outside")]
fn a_segment_that_others_follow_must_be_whole() {
    let fixture = Fixture::new();
    let options = Options::new()
        .durability(Durability::Disk)
        .log_segment_bytes(64 << 10);
    let still = Still::new();
    let db = still.options(options).open(fixture.path("live"));
    let db = db.expect("a new database");
    for n in 0..200 {
        let value = format!("{n:01000}");
        db.put(format!("key-{n:03}"), value).expect("a put");
    }
    still.copy(&fixture.path("live"), &fixture.db());
    db.close().expect("a sound database");
    assert_eq!(fixture.out("wal dump DB").matches("PUT").count(), 200);
    let logs = files_of(&fixture.db()).into_iter();
    let logs: Vec<_> = logs.filter(|(name, _)| name.contains(".log")).collect();
    assert!(logs.len() > 1, "{}", logs.len());
    let (name, bytes) = &logs[0];
    let cut = find(bytes, "key-020") + 500;
    std::fs::write(fixture.db().join(name), &bytes[..cut]).expect("writable");
    fixture.is_damaged("wal dump DB", name);
    fixture.is_damaged("wal dump DB --quiet", name);
}

#[test]
fn a_torn_end_that_an_open_cut_off_is_no_damage() {
    let fixture = Fixture::with_log();
    fixture.damage(".log", |bytes| find(bytes, "value of 199"));
    let still = Still::new();
    let db = still.options(Options::new()).open(fixture.db());
    let db = db.expect("it is cut off");
    db.put("key-200", "behind it").expect("a put");
    still.copy(&fixture.db(), &fixture.path("again"));
    db.close().expect("a sound database");
    let ended = fixture.run("wal dump @again");
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("behind it"), "{ended:?}");
}

#[test]
fn the_log_is_shown_operation_by_operation() {
    let fixture = Fixture::with_log();
    let out = fixture.out("wal dump DB");
    assert!(out.contains("PUT 0:key-000\tvalue of 0\n"), "{out}");
    assert_eq!(out.matches("PUT").count(), 200);
    let from = fixture.out("wal dump DB --from-seq 191 --json");
    let keys: Vec<_> = from
        .lines()
        .map(json)
        .filter(|record| record["kind"] == "Batch")
        .map(|record| record["operations"][0]["key"].clone())
        .collect();
    assert_eq!(keys.len(), 10);
    assert_eq!(keys[0], "key-190");
    assert!(!fixture.out("wal dump DB --summary").contains("PUT"));
}

#[test]
fn a_follower_sees_what_another_process_writes() {
    let fixture = Fixture::new();
    let db = Options::new()
        .durability(Durability::Disk)
        .open(fixture.db())
        .expect("a new database");
    db.put("before", "1").expect("a put");
    let mut child = fixture
        .command("wal dump DB --follow --quiet")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut wait_for = |text: &str| {
        let found = lines.find(|line| line.as_ref().expect("readable").contains(text));
        assert!(found.is_some(), "{text}");
    };
    wait_for("PUT 0:before");
    db.put("after", "2").expect("a put");
    wait_for("PUT 0:after");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
