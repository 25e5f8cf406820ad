//! `lsm-bench` in trouble: pipes that close early, wrong values, full disks; and its reports.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use base::fs::{FileSystem, OsFs};
use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsm-bench"));
    command.args(arguments);
    command
}

fn lsm_bench(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

fn errors(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn read(path: &Path) -> String {
    let bytes = base::fs::read_small_file(&OsFs, path, 16 << 20).expect("written");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let temporary = tempfile::tempdir().expect("made");
    let mut child = command(&["--benchmarks=fillseq,stats,readseq", "--num=3000"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(errors(&output), "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(OsFs.list(temporary.path()).expect("listed"), []);
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else {
        eprintln!("skipped: no /dev/full here");
        return;
    };
    let output = command(&["--benchmarks=fillseq", "--num=10"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
        .wait_with_output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors(&output).contains("standard output"),
        "{}",
        errors(&output)
    );
}

#[track_caller]
fn is_refused(arguments: &[&str], part: &str) {
    let output = lsm_bench(arguments);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(text.contains(part), "{arguments:?}: {text}");
}

#[test]
fn wrong_values_are_refused_with_the_name_of_their_flag() {
    for (arguments, part) in [
        (&["--num=many"][..], "--num"),
        (&["--threads=0"], "--threads"),
        (&["--readwritepercent=101"], "--readwritepercent"),
        (&["--value_size_distribution_type=zipf"], "uniform"),
        (
            &["--value_size_min=9", "--value_size_max=8"],
            "--value_size_min",
        ),
        (&["--mmap_read=1", "--read_mode=mapped"], "--mmap_read"),
        (&["--mix_get_ratio=2"], "--mix_get_ratio"),
        (&["--keyrange_num=0"], "--keyrange_num"),
        (&["--arrival_rate=0"], "--arrival_rate"),
        (&["--benchmarks=fillseq[3]"], "[X5-W2]"),
        (&["--benchmarks=ycsbg"], "'ycsb"),
        (&["--benchmark=fillseq"], "--benchmarks"),
        (&["--sync=maybe"], "--sync"),
        (
            &["--report_interval_seconds=1", "--report_file=/no/where"],
            "/no/where",
        ),
        (&["--benchmarks="], "names no workload"),
        (&["--report=x.txt"], ".html"),
        (
            &["--benchmarks=queue", "--key_size=7", "--num=9"],
            "--key_size",
        ),
        (
            &["--subcompactions=0", "--benchmarks=fillseq"],
            "--max_background_jobs",
        ),
        (&["--engine=siltston"], "'siltstone'"),
        (&["--engine=null", "--benchmarks=fillseq[X2]"], "--repeats"),
    ] {
        is_refused(arguments, part);
    }
}

#[test]
fn what_cannot_work_is_refused_before_it_begins() {
    for (arguments, part) in [
        (
            &["--write_buffer_size=1", "--benchmarks=fillseq"][..],
            "--write_buffer_size",
        ),
        (
            &["--db_write_buffer_size=1", "--benchmarks=fillseq"][..],
            "--db_write_buffer_size",
        ),
        (&["--bloom_bits=99", "--benchmarks=fillseq"], "--bloom_bits"),
        (
            &[
                "--compression_type=zstd",
                "--compression_level=99",
                "--benchmarks=fillseq",
            ],
            "--compression_level",
        ),
        // An allocation of that much would end the process.
        (&["--value_size=99999999999"], "--value_size"),
        (
            &[
                "--value_size_distribution_type=uniform",
                "--value_size_max=99999999999",
            ],
            "--value_size_max",
        ),
        (
            &["--mix_max_value_size=99999999999"],
            "--mix_max_value_size",
        ),
        (&["--value_k=inf"], "--value_k"),
        (&["--key_dist_a=NaN"], "--key_dist_a"),
        (&["--iter_sigma=-5"], "--iter_sigma"),
        // It would wait for ever.
        (&["--sine_mix_rate", "--sine_d=-1e9"], "--sine_d"),
        (&["--sine_a=NaN"], "--sine_a"),
        (
            &["--sine_mix_rate_interval_milliseconds=0"],
            "--sine_mix_rate_interval_milliseconds",
        ),
        // Told before the run, and not at its end.
        (&["--report=/no/where/x.html"], "/no/where/x.html"),
        (&["fillseq"], "--benchmarks=fillseq"),
    ] {
        is_refused(arguments, part);
    }
}

#[test]
fn a_database_that_is_to_be_kept_and_does_not_exist_is_not_made() {
    let dir = tempfile::tempdir().expect("made");
    let missing = dir.path().join("missing");
    let flag = format!("--db={}", missing.display());
    let output = lsm_bench(&["--use_existing_db", &flag, "--benchmarks=readrandom"]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("leave --use_existing_db out"), "{text}");
    assert!(!missing.exists());
}

fn is_table(name: &str) -> bool {
    matches!(
        base::FileKind::parse(name),
        Some((base::FileKind::Table, _))
    )
}

#[test]
fn a_database_that_is_damaged_or_in_use_is_told_and_left_alone() {
    let dir = tempfile::tempdir().expect("made");
    let db = format!("--db={}", dir.path().join("db").display());
    let made = lsm_bench(&[&db, "--benchmarks=fillseq,compact", "--num=3000"]);
    assert!(made.status.success(), "{}", errors(&made));
    let again = ["--use_existing_db", "--benchmarks=readseq,readrandom"];
    {
        let _open = siltstone::Db::open(dir.path().join("db")).expect("opens");
        for more in [&again[..], &["--benchmarks=fillseq"]] {
            let output = lsm_bench(&[&[&*db, "--num=3000"], more].concat());
            assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
            let text = errors(&output);
            assert!(text.contains("LOCK") || text.contains("open"), "{text}");
        }
    }
    let find = |is_wanted: &dyn Fn(&str) -> bool| {
        let dir = dir.path().join("db");
        let names = OsFs.list(&dir).expect("listed");
        let found = names.iter().find(|entry| is_wanted(&entry.name));
        dir.join(&found.expect("there is one").name)
    };
    let path = find(&is_table);
    let damage = |path: &Path, bytes: &[u8]| {
        OsFs.remove_file(path).expect("removed");
        let file = OsFs.create(path).expect("made");
        file.write_at(0, bytes).expect("written");
    };
    let whole = base::fs::read_small_file(&OsFs, &path, 16 << 20).expect("readable");
    let mut bytes = whole.clone();
    for byte in &mut bytes[100..200] {
        *byte ^= 0xff;
    }
    damage(&path, &bytes);
    for more in [
        &again[..],
        &["--use_existing_db", "--benchmarks=verifychecksum"],
    ] {
        let output = lsm_bench(&[&[&*db, "--num=3000"], more].concat());
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(".sst"), "the file is named: {text}");
    }
    damage(&path, &whole);
    // Each open makes a new one.
    let path = find(&|name| name.starts_with("MANIFEST"));
    damage(&path, b"no manifest");
    let output = lsm_bench(&[&[&*db, "--num=3000"], &again[..]].concat());
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("MANIFEST"), "the file is named: {text}");
}

#[test]
fn a_message_that_nobody_hears_changes_no_exit_code() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut run = command(&["--db=/dev/null/db", "--benchmarks=fillseq", "--num=10"]);
    let status = run.stderr(writer).status().expect("the binary starts");
    assert_eq!(status.code(), Some(2));
}

#[test]
fn words_that_are_no_text_are_refused_and_no_panic() {
    use std::os::unix::ffi::OsStrExt;
    let word = std::ffi::OsStr::from_bytes(b"\xff");
    for words in [&[word][..], &["--db".as_ref(), word, "--list".as_ref()]] {
        let output = command(&[]).args(words).output().expect("it starts");
        let text = errors(&output);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 2)), "{words:?}: {code:?} {text}");
    }
}

#[test]
fn names_of_keyspaces_are_escaped_in_the_report() {
    let dir = tempfile::tempdir().expect("made");
    let path = dir.path().join("db");
    let name = "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}";
    let db = siltstone::Db::open(&path).expect("opens");
    db.create_keyspace(name, &siltstone::KeyspaceOptions::new())
        .expect("created");
    db.close().expect("closed");
    let db = format!("--db={}", path.display());
    for more in [&[][..], &["--json"]] {
        let words = [
            &*db,
            "--use_existing_db",
            "--benchmarks=readseq",
            "--num=10",
        ];
        let output = lsm_bench(&[&words[..], more].concat());
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        assert!(text.contains("[2J"), "it is named: {text}");
        let may_stand = |c: char| matches!(c, '\n' | ' '..='~');
        assert!(text.chars().all(may_stand), "{text:?}");
    }
}

/// A file system of so many bytes, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// None if this process may not mount.
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("made");
        let status = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={bytes}"),
                "siltstone-test",
            ])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a process that another test is just starting may still have a file of it open.
        let status = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "unmounted");
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_worse() {
    let Some(disk) = Small::mount(16 << 20) else {
        eprintln!("skipped: this process may not mount");
        return;
    };
    let db = format!("--db={}", disk.0.path().join("db").display());
    let output = lsm_bench(&["--benchmarks=fillrandom", "--num=400000", &db]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.to_lowercase().contains("space"), "{text}");
}

#[test]
fn a_report_that_finds_no_space_leaves_the_older_one() {
    let Some(disk) = Small::mount(64 << 10) else {
        eprintln!("skipped: this process may not mount");
        return;
    };
    let path = disk.0.path().join("out.json");
    let file = OsFs.create(&path).expect("created");
    file.write_at(0, b"older").expect("written");
    let ballast = OsFs
        .create(&disk.0.path().join("ballast"))
        .expect("created");
    let mut at = 0;
    while ballast.write_at(at, &[1; 4096]).is_ok() {
        at += 4096;
    }
    let report = format!("--report={}", path.display());
    let output = lsm_bench(&["--benchmarks=fillseq", "--num=10", &report]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("out.json"), "{}", errors(&output));
    assert_eq!(read(&path), "older");
    assert_eq!(OsFs.list(disk.0.path()).expect("listed").len(), 2);
}

#[test]
fn reports_come_in_three_forms() {
    let dir = tempfile::tempdir().expect("made");
    let run = |name: &str, more: &[&str]| {
        let path = dir.path().join(name);
        let report = format!("--report={}", path.display());
        let arguments = [&["--num=2000", &report], more].concat();
        let output = lsm_bench(&arguments);
        assert!(output.status.success(), "{}", errors(&output));
        read(&path)
    };
    let benchmarks = "--benchmarks=fillrandom,overwrite,overwrite,readrandom,flush,compact";
    let page = run("out.html", &[benchmarks]);
    for part in [
        "<!doctype html>",
        "width=device-width",
        "prefers-color-scheme: dark",
        "In plain words",
        "overwrite (2)",
        "Latency percentiles",
        "Write amplification by cause",
        "Levels and overlap",
        "</html>",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    for part in ["http:", "https:", "<script", "url(", "@import"] {
        assert!(!page.contains(part), "nothing is loaded: {part}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());

    let document: Value = serde_json::from_str(&run("out.json", &[benchmarks])).expect("JSON");
    let results = document["results"].as_array().expect("results");
    assert_eq!(results.len(), 6);
    assert_eq!(document["amplification"]["keyspaces"][0]["name"], "default");
    let user = document["amplification"]["write"]["user_bytes"]
        .as_u64()
        .expect("counted");
    let parts = results
        .iter()
        .map(|r| r["user_bytes"].as_u64().expect("counted"));
    assert_eq!(parts.sum::<u64>(), user, "the workloads sum to the run");

    let table = run("out.tsv", &[benchmarks]);
    let mut lines = table
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let head = lines.next().expect("a header");
    assert_eq!(&head[..4], ["ops_sec", "mb_sec", "lsm_sz", "blob_sz"]);
    assert_eq!(
        &head[22..28],
        ["rss", "test", "date", "version", "job_id", "githash"]
    );
    let rows: Vec<_> = lines.collect();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        assert!(row[0].parse::<u64>().is_ok(), "{row:?}");
    }
    assert_eq!(rows[3][23], "readrandom");
}

#[test]
fn engines_beside_each_other_get_a_page_too() {
    let dir = tempfile::tempdir().expect("made");
    for (name, part) in [
        ("out.html", "Row by row"),
        ("out.tsv", "row\tunit\tsiltstone\tnull"),
    ] {
        let path = dir.path().join(name);
        let report = format!("--report={}", path.display());
        let output = lsm_bench(&[
            "--engine=siltstone,null",
            "--benchmarks=fillseq,readrandom",
            "--num=500",
            &report,
        ]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(read(&path).contains(part), "{}", read(&path));
    }
}
