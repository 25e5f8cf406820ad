//! What the `siltstone` binary refuses before it does anything.

use base::fs::{FileSystem, OsFs};
use siltstone::Options;

#[path = "support/fixture.rs"]
mod fixture;

use fixture::Fixture;

#[test]
fn a_database_in_use_is_not_opened_twice() {
    let fixture = Fixture::new();
    let _db = Options::new().open(fixture.db()).expect("a new database");
    for command in ["get DB k", "verify DB", "wal verify DB"] {
        fixture.run(command).fails_with(2, "in use");
    }
    fixture.out("keyspaces DB");
}

#[test]
fn a_copy_inside_the_database_is_refused() {
    let fixture = Fixture::with_abc();
    for command in ["checkpoint", "repair"] {
        for place in ["inside", "deeper/inside", "../db/inside"] {
            let ended = fixture.run(&format!("{command} DB @db/{place}"));
            ended.fails_with(2, "inside the database itself");
        }
        fixture
            .run(&format!("{command} DB DB"))
            .fails_with(2, "new or an empty directory");
    }
    for place in ["inside", "deeper"] {
        assert!(!fixture.db().join(place).exists());
    }
    fixture.out("checkpoint DB @beside");
}

#[test]
fn the_database_is_named_once() {
    let fixture = Fixture::with_abc();
    fixture
        .run("--db DB --db DB stats")
        .fails_with(2, "--db is given more than once");
    fixture
        .run("--db DB")
        .fails_with(2, "requires a subcommand");
    fixture.out("--db DB stats");
}

#[test]
fn what_is_no_database_is_said_to_be_none() {
    let fixture = Fixture::new();
    fixture.file("foreign", b"not ours");
    OsFs.create_dir(&fixture.path("empty")).expect("made");
    for command in ["verify @", "wal dump @", "manifest dump @"] {
        let ended = fixture.run(command);
        ended.fails_with(2, "there is no database in");
    }
    for command in [
        "amplification",
        "checkpoint",
        "compact",
        "delete",
        "dump",
        "explain get",
        "get",
        "keyspaces",
        "levels",
        "manifest dump",
        "put",
        "repair",
        "scan",
        "stats",
        "verify",
        "wal dump",
        "wal verify",
    ] {
        let behind = match command {
            "checkpoint" | "repair" => " @copy",
            "delete" | "explain get" | "get" => " k",
            "put" => " k v",
            _ => "",
        };
        for place in ["@empty", "@absent", "@absent/deeper"] {
            let ended = fixture.run(&format!("{command} {place}{behind}"));
            ended.fails_with(2, "there is no database in");
            ended.fails_with(2, "`load` or `put --create` makes one");
        }
        let ended = fixture.run(&format!("{command} @foreign{behind}"));
        ended.fails_with(2, "not a directory");
    }
    assert!(!fixture.path("copy").exists());
}
