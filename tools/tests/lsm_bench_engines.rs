//! `lsm-bench --engine`, from outside, with small numbers and the engines that are always there.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base::fs::{FileSystem, OsFs};
use base::sync::Bell;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tools::bench::line::ResultLine;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsm-bench"));
    command.args(arguments);
    command
}

fn lsm_bench(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn refusal(arguments: &[&str]) -> String {
    let output = lsm_bench(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The figures of one engine in the line called `label`, and the whole line.
fn line<'a>(document: &'a Value, label: &str) -> &'a Value {
    let lines = document["table"]["lines"].as_array().expect("lines");
    let found = lines.iter().find(|line| line["label"] == label);
    found.unwrap_or_else(|| panic!("{label} in {lines:#?}"))
}

fn near(a: &Value, b: f64) -> bool {
    a.as_f64().is_some_and(|a| (a - b).abs() <= 1e-6 * b.abs())
}

/// The median of what `figure` takes from the turns of `engine` at the row called `label`.
fn median(document: &Value, label: &str, engine: &str, figure: impl Fn(&Value) -> f64) -> f64 {
    let rows = document["rows"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["label"] == label).expect(label);
    let turns = row["turns"][engine].as_array().expect("turns");
    assert_eq!(turns.len(), 3, "one for each repeat");
    let mut figures: Vec<f64> = turns.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[1]
}

#[test]
fn the_ratio_table_adds_up() {
    let text = stdout(&lsm_bench(&[
        "--engine=siltstone,null",
        "--benchmarks=fillrandom,readrandom,compact,readseq,fillsync",
        "--num=2000",
        "--repeats=3",
        "--json",
    ]));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let rate = |turn: &Value| {
        let number = |name: &str| turn[name].as_f64().expect("a number");
        number("operations") / number("seconds")
    };
    for label in ["fillrandom", "readrandom", "readseq", "fillsync"] {
        let line = line(&document, label);
        let own = median(&document, label, "siltstone", rate);
        let other = median(&document, label, "null", rate);
        assert!(near(&line["figures"]["siltstone"], own), "{line}");
        assert!(near(&line["figures"]["null"], other), "{line}");
        assert!(near(&line["ratio_to_best"], own / other), "{line}");
        assert!(
            line["ratio_to_best_lsm"].is_null(),
            "null is no tree: {line}"
        );
    }
    let compaction = line(&document, "compact");
    assert!(compaction["figures"]["null"].is_null(), "{compaction}");
    assert!(compaction["figures"]["siltstone"].is_number());
    // Both were asked for the same keys; the null engine finds every one.
    let found = |engine| {
        median(&document, "readrandom", engine, |t| {
            t["found"].as_f64().expect("f")
        })
    };
    assert!((1000.0..1600.0).contains(&found("siltstone")));
    assert!(near(&Value::from(2000.0), found("null")));
    assert!(document["settings"]["siltstone"]["version"].is_string());
    assert_eq!(document["interrupted"], false);
}

#[test]
fn the_preset_prints_every_line_and_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("made");
    let report = tempfile::tempdir().expect("made");
    let path = report.path().join("out.md");
    let output = command(&["--engine=siltstone", "--preset=peers", "--num=4000"])
        .arg(format!("--report={}", path.display()))
        .env("TMPDIR", temporary.path())
        .output()
        .expect("the binary starts");
    let text = stdout(&output);
    for part in [
        "| fillseq ",
        "| fillrandom, 2 threads ",
        "| fillsync, 8 threads ",
        "| readwhilewriting, 2 readers ",
        "| full compaction, s ",
        "| compacted: seekrandom + 10 next ",
        "| overwrite max, ms ",
        "| fillrandom bytes written, MB ",
        "| anonymous memory, most, MB ",
        "synced appends a second",
        "## Settings",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // The lines of the run are db_bench's.
    let lines = text
        .lines()
        .filter_map(|line| line.parse::<ResultLine>().ok());
    assert!(lines.filter(|line| line.name == "readrandom").count() >= 4);
    let page = base::fs::read_small_file(&OsFs, &path, 1 << 20).expect("written");
    let page = String::from_utf8(page).expect("text");
    assert!(page.starts_with("# siltstone and its peers") && page.is_ascii());
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
    assert_eq!(OsFs.list(report.path()).expect("listed").len(), 1);
}

#[test]
fn unique_keys_are_written_once_each() {
    for arguments in [
        &["--engine=siltstone", "--json", "--threads=2"][..],
        &["--json", "--threads=1"],
    ] {
        let workloads = "--benchmarks=filluniquerandom,readrandom";
        let text = stdout(&lsm_bench(
            &[arguments, &[workloads, "--num=1000"]].concat(),
        ));
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let result = match &document["rows"] {
            Value::Null => &document["results"][1],
            rows => &rows[1]["turns"]["siltstone"][0],
        };
        assert_eq!(result["found"], result["looked_for"], "{result}");
    }
}

#[test]
fn an_unknown_engine_is_answered_with_the_nearest_name() {
    let errors = refusal(&["--engine=siltstone,leveldbb"]);
    assert!(errors.contains("the nearest is 'leveldb'"), "{errors}");
    let errors = refusal(&["--engine=rocksdb-dbbench"]);
    assert!(errors.contains("'rocksdb-db_bench'"), "{errors}");
    let errors = refusal(&["--engine=siltstone,siltstone"]);
    assert!(errors.contains("twice"), "{errors}");
}

#[test]
fn an_engine_that_is_not_built_in_says_how_to_build_it() {
    let errors = refusal(&["--engine=siltstone,leveldb,fjall,lmdb,redb,rocksdb"]);
    let features = "--features peer-leveldb,peer-fjall,peer-lmdb,peer-redb,peer-rocksdb";
    for part in ["tools/peers/Cargo.toml", features] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn a_program_that_is_not_there_is_named_with_its_package() {
    let nowhere = tempfile::tempdir().expect("made");
    let output = command(&["--engine=siltstone,rocksdb-db_bench"])
        .env("PATH", nowhere.path())
        .env_remove("DB_BENCH")
        .output()
        .expect("the binary starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("apt-get install rocksdb-tools"), "{errors}");
}

/// Does as db_bench does, but for the work: prints a line as it was once printed.
const STAND_IN: &str = r#"#!/bin/sh
echo "RocksDB:    version 7.8.3" >&2
for flag in "$@"; do case "$flag" in --benchmarks=*) name=${flag#--benchmarks=};; esac; done
echo "WARNING: Assertions are enabled; benchmarks unnecessarily slow"
case "$name" in
fillrandom)
    echo "fillrandom : 9.193 micros/op 108752 ops/sec 0.184 seconds 20000 operations; 12.0 MB/s"
    echo "Percentiles: P50: 2.47 P75: 3.07 P99: 13.44 P99.9: 240.00 P99.99: 9900.00";;
readrandom*W1*)
    echo "readrandom : 5.386 micros/op 342512 ops/sec 0.058 seconds 20000 operations;"
    echo "readrandom : 5.010 micros/op 368459 ops/sec 0.054 seconds 20000 operations;";;
compact) echo "it cannot" >&2; exit 1;;
esac
"#;

#[test]
fn a_program_beside_takes_its_turns_like_any_engine() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("made");
    let (text, program) = (dir.path().join("text"), dir.path().join("db_bench"));
    let file = OsFs.create(&text).expect("made");
    file.write_at(0, STAND_IN.as_bytes()).expect("written");
    // By another process: what this one has open for writing is inherited by all that other tests
    // are just starting, and a program that anybody has open so cannot be run.
    let copied = Command::new("cp").args([&text, &program]).status();
    assert!(copied.expect("there is cp").success());
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("made to run");
    let run = |benchmarks: &str| {
        command(&["--engine=siltstone,rocksdb-db_bench", "--num=500", "--json"])
            .arg(format!("--benchmarks={benchmarks}"))
            .env("DB_BENCH", &program)
            .output()
            .expect("the binary starts")
    };
    let text = stdout(&run("fillrandom,readrandom"));
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let rate = |label| line(&document, label)["figures"]["rocksdb-db_bench"].clone();
    assert!(near(&rate("fillrandom"), 108_752.0), "{document}");
    assert!(
        near(&rate("readrandom"), 368_459.0),
        "the second run counts"
    );
    let settings = &document["settings"]["rocksdb-db_bench"];
    assert_eq!(settings["version"], "7.8.3, its own db_bench");
    assert!(settings["it warns"].is_string(), "{settings}");
    // What it complains of is told, and nothing goes on.
    let output = run("fillrandom,compact");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("it cannot"), "{errors}");
}

#[test]
fn the_real_program_is_understood() {
    let output = command(&[
        "--engine=siltstone,rocksdb-db_bench",
        "--num=2000",
        "--json",
    ])
    .arg("--benchmarks=fillrandom,overwrite,readrandom,seekrandom,readseq,compact")
    .env_remove("DB_BENCH")
    .output()
    .expect("the binary starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("apt-get install rocksdb-tools") {
        eprintln!("skipped: no db_bench here");
        return;
    }
    let document: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    for label in [
        "fillrandom",
        "overwrite",
        "readrandom",
        "seekrandom",
        "readseq",
    ] {
        let figure = line(&document, label)["figures"]["rocksdb-db_bench"].as_f64();
        assert!(figure.is_some_and(|rate| rate > 0.0), "{label}: {document}");
    }
    // What a child wrote is in the account of who waited for it, where the system keeps one.
    let written =
        |engine: &str| document["rows"][0]["turns"][engine][0]["device_write_bytes"].clone();
    let (own, theirs) = (written("siltstone"), written("rocksdb-db_bench"));
    let was_counted = |bytes: &Value| bytes.as_u64().expect("a number") > 0;
    assert!(was_counted(&theirs) || !was_counted(&own), "{document}");
}

#[test]
fn a_preset_writes_three_reports_and_a_name_without_ending_all() {
    let dir = tempfile::tempdir().expect("made");
    let output = command(&["--engine=null", "--preset=peers", "--num=1000"])
        .current_dir(dir.path())
        .output()
        .expect("the binary starts");
    let text = stdout(&output);
    let names = |dir: &std::path::Path| {
        let entries = OsFs.list(dir).expect("listed").into_iter();
        let mut names: Vec<String> = entries.map(|entry| entry.name).collect();
        names.sort();
        names
    };
    assert_eq!(names(dir.path()), ["peers.html", "peers.json", "peers.md"]);
    assert!(text.contains("report written to peers.html"), "{text}");
    let other = tempfile::tempdir().expect("made");
    let output = command(&["--engine=null", "--benchmarks=fillseq", "--num=1000"])
        .args(["--report=all", "--report=one.json"])
        .current_dir(other.path())
        .output()
        .expect("the binary starts");
    stdout(&output);
    let all = ["all.html", "all.json", "all.md", "all.tsv", "one.json"];
    assert_eq!(names(other.path()), all);
}

#[test]
fn flags_that_make_no_sense_together_are_refused() {
    for (arguments, part) in [
        (&["--preset=peers"][..], "--engine"),
        (&["--report=x.md"], ".html, .json, .tsv"),
        (&["--engine=null", "--report=x.txt"], ".md"),
        (&["--engine=null", "--repeats=0"], "--repeats"),
        (
            &["--engine=null", "--preset=peers", "--benchmarks=fillseq"],
            "--benchmarks",
        ),
        (&["--engine=null", "--benchmarks=levelstats"], "levelstats"),
        (&["--engine=null", "--benchmarks=fillsek"], "'fillseq'"),
        (
            &["--engine=null", "--db=/x", "--use_existing_db=1"],
            "--use_existing_db",
        ),
    ] {
        let errors = refusal(arguments);
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().expect("made");
    OsFs.create(&dir.path().join("letter.txt"))
        .expect("created");
    let db = format!("--db={}", dir.path().display());
    let errors = refusal(&["--engine=siltstone", "--num=10", &db]);
    assert!(errors.contains("empty"), "{errors}");
    assert_eq!(OsFs.list(dir.path()).expect("listed").len(), 1);
}

#[test]
fn ctrl_c_ends_with_what_was_measured() {
    let temporary = tempfile::tempdir().expect("made");
    let child = command(&[
        "--engine=siltstone,null",
        "--benchmarks=fillseq,readseq,fillrandom",
        "--num=4000000000",
        "--reads=10",
    ])
    .env("TMPDIR", temporary.path())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("the binary starts");
    // The run is far longer than this wait; how far it gets meanwhile does not matter.
    let is_running = || {
        let entries = OsFs.list(temporary.path()).unwrap_or_default();
        let place = entries
            .first()
            .map(|entry| temporary.path().join(&entry.name));
        place.is_some_and(|place| OsFs.list(&place).is_ok_and(|dirs| !dirs.is_empty()))
    };
    while !is_running() {
        Bell::new().wait_past(0, Some(Duration::from_millis(5)));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("Interrupted: rows are missing"), "{text}");
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
}
