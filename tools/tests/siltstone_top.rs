//! `siltstone top`, run as a user runs it: on files of this process, of nobody, and on no files.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use siltstone::{Db, Options, StatsFile};

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/stats_file.rs"]
mod made;

use fixture::{Ended, Fixture};
use made::{Body, NOBODY, tag};

/// Every way to look at a database that ends by itself.
const LOOKS: [&str; 5] = [
    "top DB",
    "top DB --once",
    "top DB --once --json",
    "top DB --json",
    "top DB --once --interval 0.05",
];

impl Fixture {
    /// A database that nobody has open, and these bytes as its stats file.
    fn with_stats(bytes: &[u8]) -> Self {
        let fixture = Self::with_abc();
        fixture.file("db/STATS", bytes);
        fixture
    }
}

/// Opens a database that tells what it does every `interval`, and waits until it has.
fn told_every(fixture: &Fixture, interval: Duration) -> Db {
    let options = Options::new().stats_file_interval(Some(interval));
    let db = options.open(fixture.db()).expect("a database");
    wait_for_stats(fixture);
    db
}

fn wait_for_stats(fixture: &Fixture) {
    while StatsFile::read(fixture.db()).is_err() {
        std::thread::yield_now();
    }
}

/// Opened at second 100, up for a minute, by a process that is gone.
fn left_behind() -> Body {
    let totals = Body::new()
        .number(tag::USER_BYTES, 6000)
        .number(tag::USER_WRITES, 120);
    Body::of_process(NOBODY, 60, &["default", "events"]).group(tag::TOTALS, &totals)
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON document")
}

fn spawn(command: &mut Command) -> Child {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().expect("the binary was built")
}

#[test]
fn a_database_of_this_process_is_shown() {
    let fixture = Fixture::new();
    let db = told_every(&fixture, Duration::from_secs(3600));
    for line in ["top DB", "top DB --once", "--db DB top"] {
        let out = fixture.out(line);
        let process = format!("process {}", std::process::id());
        for part in [&*process, "health: good", "writes", "levels of default"] {
            assert!(out.contains(part), "{part} in {out}");
        }
        assert!(!out.contains("STALE"), "{out}");
        assert!(
            out.contains("(first look: rates of now come with the next one)"),
            "{out}"
        );
        assert!(
            out.lines()
                .all(|line| line.chars().count() <= 100 || line.contains("process"))
        );
    }
    // What it says does not change within an hour, once the open is over: the worker that writes
    // it may be woken once more.
    let mut looks = (0..3).map(|_| document(&fixture.out("top DB --once --json --interval 0.05")));
    let unchanged = looks.find(|look| look["rates"].is_null());
    let unchanged = unchanged.expect("two looks at the same file");
    assert_eq!(unchanged["process_id"], std::process::id());
    assert_eq!(
        (&unchanged["is_stale"], &unchanged["rates"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(unchanged["health"]["is_good"], true);
    assert_eq!(unchanged["keyspaces"][0]["name"], "default");
    db.close().expect("a clean close");
}

#[test]
fn what_a_killed_process_left_is_shown_with_a_remark() {
    let fixture = Fixture::with_stats(&left_behind().file());
    let out = fixture.out("top DB --once");
    assert!(out.contains("STALE: process 2147483647 is gone"), "{out}");
    assert!(
        out.contains("writes           -        -       2.00    100 B      120"),
        "{out}"
    );
    let one = document(&fixture.out("top DB --once --json"));
    assert_eq!(one["totals"]["writes"], json!({"ops": 120, "bytes": 6000}));
    assert_eq!(
        one["averages"]["writes"],
        json!({"ops": 2.0, "bytes": 100.0})
    );
    assert_eq!(one["averages"]["seconds"], 60.0);
    assert_eq!(
        (&one["rates"], &one["is_stale"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(
        (&one["up_micros"], &one["interval_micros"]),
        (&json!(60_000_000), &json!(1_000_000))
    );
    let names = one["keyspaces"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|k| &k["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["default", "events"]);
    // There is nothing more to come.
    let ended = fixture.run("top DB --json");
    assert_eq!((ended.code, ended.out.lines().count()), (0, 1), "{ended:?}");
    assert!(
        ended.err.contains("process 2147483647 is gone"),
        "{ended:?}"
    );
    assert_eq!(fixture.run("top DB --json --quiet").err, "");
}

#[test]
fn trouble_is_said() {
    let body = left_behind()
        .text(tag::TROUBLE, "degraded: write failed")
        .number(tag::TROUBLE_KIND, 8);
    let fixture = Fixture::with_stats(&body.file());
    let out = fixture.out("top DB");
    assert!(out.contains("health: NO SPACE"), "{out}");
    let health = &document(&fixture.out("top DB --once --json"))["health"];
    let expected =
        json!({"is_good": false, "trouble": "degraded: write failed", "kind": "NoSpace"});
    assert_eq!(*health, expected);
}

#[test]
fn without_a_file_the_remedy_is_named() {
    let fixture = Fixture::with_abc();
    for line in LOOKS {
        let ended = fixture.run(line);
        ended.fails_with(2, "there is no stats file in");
        ended.fails_with(2, "Options::stats_file_interval");
        ended.fails_with(2, "--stats_file_interval_ms=1000");
        assert_eq!(ended.out, "", "{line}");
    }
    let db = Options::new().open(fixture.db()).expect("a database");
    for line in LOOKS {
        let ended = fixture.run(line);
        ended.fails_with(2, "stats file");
        ended.fails_with(2, "Options::stats_file_interval");
    }
    db.close().expect("nobody took its lock");
}

#[test]
fn where_there_is_no_database_it_is_said() {
    let fixture = Fixture::new();
    fixture.file("file", b"not a directory");
    for line in ["top @absent", "top @", "top @absent --json"] {
        fixture.run(line).fails_with(2, "there is no database in");
    }
    fixture.run("top @file").fails_with(2, "not a directory");
    for line in [
        "top",
        "top DB --interval 0",
        "top DB --interval x",
        "top DB --interval NaN",
    ] {
        assert_eq!(fixture.run(line).code, 2, "{line}");
    }
}

#[test]
fn a_damaged_file_ends_with_one_and_a_newer_one_with_two() {
    let whole = left_behind().file();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len())
        .step_by(7)
        .map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        })
        .collect();
    damaged.extend([0, 10, whole.len() - 1].map(|len| whole[..len].to_vec()));
    damaged.push([&whole[..], b"x"].concat());
    let fixture = Fixture::with_stats(&whole);
    for (at, bytes) in damaged.iter().enumerate() {
        fixture.file("db/STATS", bytes);
        let ended = fixture.run(LOOKS[at % LOOKS.len()]);
        ended.fails_with(1, "STATS");
        assert_eq!(ended.out, "");
    }
    fixture.file(
        "db/STATS",
        &left_behind().file_of_version(made::VERSION + 1),
    );
    for line in LOOKS {
        fixture
            .run(line)
            .fails_with(2, "a stats file of another version found=2");
    }
    fixture.file("db/STATS", &left_behind().number(999, 1).file());
    fixture.run("top DB").fails_with(2, "a newer version");
}

#[test]
fn a_stream_ends_when_the_database_is_closed() {
    let fixture = Fixture::new();
    let db = told_every(&fixture, Duration::from_millis(1));
    let mut child = spawn(&mut fixture.command("top DB --json --interval 0.05"));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || document(&lines.next().expect("a line").expect("readable"));
    assert_eq!(next()["rates"], Value::Null, "there was one look");
    db.put("key", "value").expect("a put");
    // Sooner or later both looks and the put are in it.
    let seen = loop {
        let line = next();
        if line["totals"]["writes"]["ops"] == 1 && line["rates"].is_object() {
            break line;
        }
    };
    assert_eq!(seen["totals"]["writes"]["bytes"], 8);
    db.close().expect("a clean close");
    for line in lines {
        document(&line.expect("readable"));
    }
    let ended = Ended::of(child.wait_with_output().expect("it ends"));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.err.contains("remark: the database was closed"),
        "{ended:?}"
    );
}

#[test]
fn a_signal_ends_a_stream_quietly() {
    let fixture = Fixture::new();
    let db = told_every(&fixture, Duration::from_secs(3600));
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = spawn(&mut fixture.command("top DB --json --interval 3600"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        document(&lines.next().expect("a line").expect("readable"));
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).expect("it runs");
        let ended = Ended::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ended.code, &*ended.err), (0, ""), "{ended:?}");
    }
    db.close().expect("a clean close");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let fixture = Fixture::new();
    let db = told_every(&fixture, Duration::from_secs(3600));
    for line in ["top DB --json --interval 0.05", "top DB"] {
        let mut child = spawn(&mut fixture.command(line));
        drop(child.stdout.take());
        let ended = Ended::of(child.wait_with_output().expect("it ends"));
        assert_eq!((ended.code, &*ended.err), (0, ""), "{ended:?}");
    }
    db.close().expect("a clean close");
}

#[test]
fn a_running_benchmark_can_be_watched() {
    let fixture = Fixture::new();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_lsm-bench"));
    bench.arg("--db").arg(fixture.db()).args([
        "--benchmarks=fillseq",
        "--num=1000",
        "--stats_file_interval_ms=20",
        "--hold_open",
    ]);
    let mut bench = spawn(bench.stdin(Stdio::piped()));
    // It holds the database open until its standard input ends.
    let seen = loop {
        wait_for_stats(&fixture);
        let ended = fixture.run("top DB --once --json");
        let count =
            (ended.code == 0).then(|| document(&ended.out)["totals"]["writes"]["ops"].clone());
        if count == Some(json!(1000)) {
            break document(&ended.out);
        }
    };
    assert_eq!(
        (&seen["process_id"], &seen["interval_micros"]),
        (&json!(bench.id()), &json!(20_000))
    );
    drop(bench.stdin.take());
    let ended = Ended::of(bench.wait_with_output().expect("it ends"));
    assert_eq!(ended.code, 0, "{ended:?}");
    let off = Command::new(env!("CARGO_BIN_EXE_lsm-bench"))
        .args([
            "--stats_file_interval_ms=1",
            "--engine=siltstone",
            "--num=10",
        ])
        .output()
        .expect("the binary starts");
    Ended::of(off).fails_with(2, "--stats_file_interval_ms is not for --engine");
}

#[test]
fn help_completions_and_pages_know_it() {
    let fixture = Fixture::new();
    let help = fixture.out("top --help");
    for part in ["--interval <SECONDS>", "--once", "no terminal, it prints"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    assert!(
        fixture
            .out("--help")
            .contains("Watch a database that another process has open")
    );
    assert!(
        fixture
            .out("completions bash")
            .contains("siltstone__subcmd__top")
    );
    let bench = fixture.out("completions bash --tool lsm-bench");
    assert!(bench.contains("--stats_file_interval_ms"));
    fixture.out("man --dir @pages");
    let page = std::fs::read_to_string(fixture.path("pages/siltstone-top.1")).expect("a page");
    assert!(page.contains("stats_file_interval"), "{page}");
}
