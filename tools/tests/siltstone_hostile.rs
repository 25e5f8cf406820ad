//! Names, keys and values that a terminal would act on, through every command of `siltstone`.

use std::path::Path;

use siltstone::{Db, KeyspaceOptions};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Ended, Fixture, opened};

/// Sets a title, clears the screen, once with the control character of one code point, and turns
/// the order of the text around.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\r";

/// A database with such a name, key and value, closed.
fn hostile() -> Fixture {
    let fixture = Fixture::new();
    let db = Db::open(fixture.db()).expect("a new database");
    let keyspace = db.create_keyspace(HOSTILE, &KeyspaceOptions::new());
    let keyspace = keyspace.expect("any text is a name");
    for place in [&keyspace, &db.keyspace("default").expect("there")] {
        place.put(HOSTILE, HOSTILE).expect("put");
        place.flush().expect("flushed");
        place.put(format!("{HOSTILE}2"), HOSTILE).expect("put");
    }
    db.close().expect("closed");
    fixture
}

#[track_caller]
fn is_plain(line: &str, ended: &Ended) {
    let may_stand = |c: char| matches!(c, '\n' | '\t' | ' '..='~');
    for text in [&ended.out, &ended.err] {
        assert!(text.chars().all(may_stand), "{line}: {text:?}");
    }
}

fn copy_of(fixture: &Fixture, name: &str) {
    fixture::copy(&fixture.db(), &fixture.path(name));
}

#[test]
fn nothing_that_came_out_of_a_file_is_printed_unescaped() {
    let fixture = hostile();
    // As it was closed: the commands that open it write to it.
    copy_of(&fixture, "kept");
    for line in [
        "amplification @db",
        "compact @db",
        "dump @db",
        "explain get @db key",
        "keyspaces @db",
        "levels @db",
        "manifest dump @kept",
        "scan @db",
        "scan @db --keys-only",
        "stats @db",
        "verify @kept",
        "wal dump @kept",
        "wal verify @kept",
    ] {
        for form in ["", " --json"] {
            let line = format!("{line}{form}");
            let ended = fixture.run(&line);
            assert_eq!(ended.code, 0, "{line}: {ended:?}");
            is_plain(&line, &ended);
        }
    }
    let mut command = fixture.command("get @db");
    let output = command.arg(HOSTILE).output().expect("it was built");
    is_plain("get", &Ended::of(output));
}

#[test]
fn a_stats_file_with_such_a_name_is_shown_escaped() {
    let fixture = hostile();
    let options =
        siltstone::Options::new().stats_file_interval(Some(std::time::Duration::from_secs(3600)));
    let db = options.open(fixture.db()).expect("a database");
    while siltstone::StatsFile::read(fixture.db()).is_err() {
        std::thread::yield_now();
    }
    for line in ["top DB --once", "top DB --once --json"] {
        let ended = fixture.run(line);
        assert_eq!(ended.code, 0, "{line}: {ended:?}");
        assert!(ended.out.contains("[2J"), "the name is shown: {ended:?}");
        is_plain(line, &ended);
    }
    db.close().expect("closed");
}

#[test]
fn messages_about_such_names_are_escaped() {
    let fixture = hostile();
    for (line, argument) in [
        ("scan DB --keyspace", HOSTILE),
        ("scan DB --keyspace", "\u{1b}[2J"),
        ("verify", "/no/\u{1b}[2J"),
        ("load DB", "/no/\u{1b}[2J"),
    ] {
        let mut command = fixture.command(line);
        let output = command.arg(argument).output().expect("it was built");
        is_plain(line, &Ended::of(output));
    }
    let line = "{\"key\":\"\\u001b[2J\u{9b}\",\"\u{9b}\":1}";
    let ended = fixture.run_with_input("load DB -", line.as_bytes());
    assert_eq!(ended.code, 2, "{ended:?}");
    is_plain("load", &ended);
}

#[test]
fn what_is_escaped_in_json_is_loaded_as_it_was() {
    let fixture = hostile();
    let expected = opened(&fixture.db());
    let dumped = fixture.run("dump DB");
    is_plain("dump", &dumped);
    let loaded = fixture.run_with_input("load @again -", dumped.out.as_bytes());
    assert_eq!(loaded.code, 0, "{loaded:?}");
    assert_eq!(opened(Path::new(&fixture.path("again"))), expected);
}
