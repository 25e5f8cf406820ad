//! `lsm-bench load`: real input, from files and from a pipe, good and bad.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base::fs::{FileSystem, OsFs};
use serde_json::Value;
use siltstone::{Db, Options};
use tools::bench::line::ResultLine;

/// Two keys of three records: the second replaces the first.
const SAMPLE: &str = "\
{\"id\":7,\"user\":{\"name\":\"ann\"},\"text\":\"first\"}
{\"id\":7,\"user\":{\"name\":\"ann\"},\"text\":\"second\"}

{\"id\":8,\"user\":{\"name\":\"bob\"},\"text\":\"third\"}
";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsm-bench"));
    command.arg("load").args(arguments);
    command
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    let file = OsFs.create(&path).expect("made");
    file.write_at(0, bytes).expect("written");
    path
}

fn text_of(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn loaded(text: &str) -> ResultLine {
    let mut lines = text.lines().filter_map(|line| line.parse().ok());
    let line: ResultLine = lines
        .next()
        .unwrap_or_else(|| panic!("a result in\n{text}"));
    assert_eq!(line.name, "load");
    line
}

fn get(db: &Db, key: &str) -> Option<String> {
    let value = db.get(key).expect("a get")?;
    Some(String::from_utf8(value.to_vec()).expect("text"))
}

#[test]
fn a_file_is_put_record_by_record() {
    let dir = tempfile::tempdir().expect("made");
    let packed = zstd::encode_all(SAMPLE.as_bytes(), 1).expect("packed");
    let plain = write(dir.path(), "sample.ndjson", SAMPLE.as_bytes());
    let packed = write(dir.path(), "sample.ndjson.zst", &packed);
    for (index, file) in [plain, packed].iter().enumerate() {
        let db_dir = dir.path().join(format!("db{index}"));
        let output = command(&["--key_field=user.name", "--key_field=id"])
            .arg(file)
            .args(["--value_field=text", "--batch_size=2"])
            .arg(format!("--db={}", db_dir.display()))
            .output()
            .expect("the binary starts");
        let text = text_of(&output);
        assert_eq!(loaded(&text).operations, 3, "{text}");
        for part in ["3 records of 4 lines", "write amplification", "write_bytes"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let db = Db::open(&db_dir).expect("opens");
        assert_eq!(get(&db, "ann/7").as_deref(), Some("second"));
        assert_eq!(get(&db, "bob/8").as_deref(), Some("third"));
        assert_eq!(db.iter().expect("an iterator").count(), 2);
    }
}

#[test]
fn a_pipe_is_read_to_its_end_and_lines_are_kept_whole() {
    let dir = tempfile::tempdir().expect("made");
    let report = dir.path().join("out.json");
    let mut child = command(&["-", "--key_field=id"])
        .arg(format!("--db={}", dir.path().join("db").display()))
        .arg(format!("--report={}", report.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(SAMPLE.as_bytes()).expect("taken");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(loaded(&text_of(&output)).operations, 3);
    let db = Options::new().open(dir.path().join("db")).expect("opens");
    let last = SAMPLE.lines().last().expect("a line");
    assert_eq!(get(&db, "8").as_deref(), Some(last));
    let document = base::fs::read_small_file(&OsFs, &report, 1 << 20).expect("written");
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    assert_eq!(document["results"][0]["name"], "load");
    assert_eq!(document["amplification"]["write"]["user_writes"], 3);
}

#[test]
fn a_bad_line_is_named_or_counted() {
    let dir = tempfile::tempdir().expect("made");
    let bad = format!("{SAMPLE}{{\"id\":\n[]\n{{\"id\":9}}\n");
    let path = write(dir.path(), "bad.ndjson", bad.as_bytes());
    let run = |more: &[&str]| {
        let arguments = [&["--key_field=id"], more].concat();
        let output = command(&arguments).arg(&path).output();
        output.expect("the binary starts")
    };
    let output = run(&[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("line 5: not JSON"), "{errors}");
    let text = text_of(&run(&["--skip_bad_lines"]));
    assert_eq!(loaded(&text).operations, 4);
    assert!(text.contains("2 lines are no record"), "{text}");
    let text = text_of(&run(&["--writes=2"]));
    assert_eq!(loaded(&text).operations, 2);
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let dir = tempfile::tempdir().expect("made");
    let cut = zstd::encode_all(SAMPLE.as_bytes(), 1).expect("packed");
    let cut = write(dir.path(), "cut.zst", &cut[..cut.len() / 2]);
    let cut = cut.to_str().expect("text");
    let sample = write(dir.path(), "sample.ndjson", SAMPLE.as_bytes());
    let sample = sample.to_str().expect("text");
    for (arguments, part) in [
        (&["/nowhere/at/all"][..], "/nowhere/at/all"),
        (&[cut, "--key_field=id"], "cut.zst"),
        (&[], "FILE"),
        (&[sample, "--key_field="], "--key_field"),
        (&[sample, "--engine=null"], "--engine"),
        (&[sample, "--keyfield=id"], "--key_field"),
        (&[sample], "no field 'key'"),
    ] {
        let output = command(arguments).output().expect("the binary starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    }
}

#[test]
fn help_is_about_loading() {
    let output = command(&["--help"]).output().expect("the binary starts");
    let text = text_of(&output);
    for part in [
        "lsm-bench load",
        "--key_field",
        "newline-delimited",
        "Examples:",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// Real input. The file is not part of the repository: it is looked for in the directory that
/// `SILTSTONE_TEST_DATA` names, else beside the repository.
#[test]
fn the_packages_of_debian_are_loaded() {
    let dir = std::env::var_os("SILTSTONE_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let file = dir.join("debian-packages.ndjson.zst");
    if OsFs.status(&file).ok().flatten().is_none() {
        eprintln!("skipped: no {}", file.display());
        return;
    }
    let output = command(&["--value_field=value", "--batch_size=50"])
        .arg(&file)
        .output()
        .expect("the binary starts");
    let text = text_of(&output);
    assert_eq!(loaded(&text).operations, 63_666, "{text}");
    assert!(text.contains("space amplification"), "{text}");
}
