//! `lsm-bench --engine`, from outside, with small numbers and the engines that are always there.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base::fs::{FileSystem, OsFs};
use base::sync::Bell;
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
    let errors = refusal(&["--engine=siltstone,siltstone"]);
    assert!(errors.contains("twice"), "{errors}");
}

#[test]
fn an_engine_that_is_not_built_in_says_how_to_build_it() {
    let errors = refusal(&["--engine=siltstone,leveldb,fjall,lmdb,redb"]);
    let features = "--features peer-leveldb,peer-fjall,peer-lmdb,peer-redb";
    for part in ["tools/peers/Cargo.toml", features] {
        assert!(errors.contains(part), "{errors}");
    }
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
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(status.success());
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("Interrupted: rows are missing"), "{text}");
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
}
