//! The `siltstone-torture` binary, from outside, with small numbers.

use std::process::{Command, Output};

fn torture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_siltstone-torture"))
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn check(output: &Output, ending: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.trim_end().ends_with(ending), "{text}");
}

#[test]
fn the_model_and_the_engine_agree() {
    for seed in ["1", "2"] {
        let output = torture(&["model", "--ops=20000", "--keys=500", "--seed", seed]);
        check(&output, "model 1; 0 findings");
    }
}

#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let output = torture(&["kill", "--rounds=12", "--seed=1"]);
    check(&output, "kill 1; 0 findings");
}

#[test]
fn keyspaces_come_and_go() {
    let output = torture(&["keyspaces", "--steps=3000", "--seed=1"]);
    check(&output, "keyspaces 1; 0 findings");
}

#[test]
fn a_full_disk_loses_nothing() {
    let output = torture(&["full", "--seed=3"]);
    check(&output, "0 findings");
    let text = String::from_utf8_lossy(&output.stdout);
    // Where nothing may be mounted it says so, and does not count it.
    let is_skipped = text.contains("SKIPPED, no ") && text.contains("full 0 (1 skipped)");
    assert!(is_skipped || text.contains("full 1;"), "{text}");
}

#[test]
fn nothing_stays_behind_and_time_bounds_a_run() {
    let dir = tempfile::tempdir().expect("made");
    let db = dir.path().join("db");
    let db = db.to_str().expect("plain");
    let output = torture(&["model", "--minutes=0.001", "--ops=2000", "--db", db]);
    check(&output, "0 findings");
    assert_eq!(dir.path().read_dir().expect("readable").count(), 0);
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let dir = tempfile::tempdir().expect("made");
    let db = dir.path().join("db");
    let db = db.to_str().expect("plain");
    let model = ["model", "--ops=100", "--keys=100", "--db", db, "--keep"];
    check(&torture(&model), "0 findings");
    let output = torture(&["kill", "--rounds=1", "--db", db]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    assert_eq!(torture(&["modle"]).status.code(), Some(2));
    assert_eq!(torture(&["model", "--keys=3"]).status.code(), Some(2));
    assert_eq!(torture(&["all", "--minutes=-1"]).status.code(), Some(2));
}
