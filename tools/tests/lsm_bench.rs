//! The `lsm-bench` binary, from outside, with small numbers.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base::fs::{FileSystem, OsFs};
use base::sync::Bell;
use tools::bench::line::ResultLine;

fn lsm_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lsm-bench"))
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn result_lines(text: &str) -> Vec<ResultLine> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn the_default_set_ends_with_the_report_and_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("made");
    let output = Command::new(env!("CARGO_BIN_EXE_lsm-bench"))
        .arg("--num=3000")
        .env("TMPDIR", temporary.path())
        .output()
        .expect("the binary starts");
    let text = stdout(&output);
    let names: Vec<String> = result_lines(&text)
        .into_iter()
        .map(|line| line.name)
        .collect();
    for name in [
        "fillseq",
        "fillrandom",
        "overwrite",
        "readrandom",
        "readmissing",
        "compact",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in\n{text}");
    }
    for part in [
        "Percentiles: P50:",
        "write amplification",
        "space amplification",
        "write_bytes",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (_, report) = text.split_once("Amplification").expect("the report");
    assert!(report.lines().all(|line| line.len() <= 100), "{report}");
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
}

#[test]
fn every_workload_runs_and_counts_its_operations() {
    let all = "fillseq,fillrandom,fillbatch,fillsync,overwrite,deleteseq,deleterandom,fillseq,\
        readrandom,readmissing,multireadrandom,readseq,readreverse,seekrandom,readwhilewriting,\
        compact,waitforcompaction,flush,stats,levelstats";
    let text = stdout(&lsm_bench(&[
        &format!("--benchmarks={all}"),
        "--num=2000",
        "--threads=2",
        "--seek_nexts=5",
        "--histogram",
    ]));
    let lines = result_lines(&text);
    let operations = |name: &str| {
        let line = lines.iter().rfind(|line| line.name == name);
        line.unwrap_or_else(|| panic!("{name} in\n{text}"))
            .operations
    };
    for name in [
        "fillbatch",
        "overwrite",
        "deleteseq",
        "readrandom",
        "seekrandom",
        "readseq",
    ] {
        assert_eq!(operations(name), 4000, "{name}");
    }
    assert_eq!(operations("fillsync"), 4);
    assert_eq!(operations("compact"), 1);
    assert_eq!(operations("readwhilewriting"), 4000);
}

#[test]
fn reads_find_what_was_written() {
    let text = stdout(&lsm_bench(&[
        "--benchmarks=fillseq,readrandom,multireadrandom,readmissing,seekrandom",
        "--num=2000",
    ]));
    for line in result_lines(&text) {
        let Some(found) = line.found else { continue };
        let expected = if line.name == "readmissing" { 0 } else { 2000 };
        assert_eq!((found.found, found.of), (expected, 2000), "{}", line.name);
    }
}

#[test]
fn the_same_seed_makes_the_same_operations() {
    let found = |seed: &str| {
        let text = stdout(&lsm_bench(&[
            "--benchmarks=fillrandom,readrandom",
            "--num=2000",
            seed,
        ]));
        result_lines(&text).last().expect("a line").found
    };
    assert_eq!(found("--seed=7"), found("--seed=7"));
    assert_ne!(found("--seed=7"), found("--seed=8"));
}

#[test]
fn an_existing_database_is_kept_when_asked_to() {
    let dir = tempfile::tempdir().expect("made");
    let db = format!("--db={}", dir.path().join("db").display());
    stdout(&lsm_bench(&["--benchmarks=fillseq", "--num=500", &db]));
    let text = stdout(&lsm_bench(&[
        "--benchmarks=fillrandom,readseq",
        "--num=1000",
        "--use_existing_db=1",
        &db,
    ]));
    assert!(
        text.contains("skipped (--use_existing_db is true)"),
        "{text}"
    );
    assert_eq!(result_lines(&text)[0].operations, 500);
    // Without the flag the run begins with nothing.
    let text = stdout(&lsm_bench(&["--benchmarks=readrandom", "--num=10", &db]));
    assert_eq!(result_lines(&text)[0].found.expect("looked").found, 0);
}

#[test]
fn json_is_one_document() {
    let output = lsm_bench(&["--benchmarks=fillrandom,readrandom", "--num=1000", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(document["results"][0]["name"], "fillrandom");
    assert_eq!(document["results"][0]["operations"], 1000);
    assert_eq!(document["amplification"]["write"]["user_bytes"], 116_000);
    assert_eq!(document["interrupted"], false);
}

#[test]
fn what_is_unknown_is_answered_with_the_nearest_name() {
    for (argument, nearest) in [
        ("--benchmarks=fillrandm", "'fillrandom'"),
        ("--nums=5", "'--num'"),
        ("--value_sise=5", "'--value_size'"),
    ] {
        let output = lsm_bench(&[argument]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{argument}");
        assert!(errors.contains(nearest), "{errors}");
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().expect("made");
    OsFs.create(&dir.path().join("letter.txt"))
        .expect("created");
    let output = lsm_bench(&["--num=10", &format!("--db={}", dir.path().display())]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(OsFs.list(dir.path()).expect("listed").len(), 1);
}

#[test]
fn ctrl_c_ends_with_what_was_measured() {
    let temporary = tempfile::tempdir().expect("made");
    let child = Command::new(env!("CARGO_BIN_EXE_lsm-bench"))
        .args(["--benchmarks=fillrandom,readrandom", "--num=4000000000"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // The run is far longer than this wait; how far it gets meanwhile does not matter.
    let is_running = || {
        OsFs.list(temporary.path())
            .is_ok_and(|entries| !entries.is_empty())
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
    assert_eq!(result_lines(&text)[0].name, "fillrandom", "{text}");
    assert!(
        text.contains("interrupted") && text.contains("write amplification"),
        "{text}"
    );
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
}
