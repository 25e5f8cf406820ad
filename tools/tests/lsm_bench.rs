//! The `lsm-bench` binary, from outside, with small numbers.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base::FileKind;
use base::fs::{FileSystem, OsFs};
use base::sync::Bell;
use rustix::process::{Pid, Signal, kill_process};
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

/// Every workload that `--list` names.
fn all_workloads() -> Vec<String> {
    let text = stdout(&lsm_bench(&["--list"]));
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    text.lines().filter_map(first).collect()
}

/// A result line, taken apart as db_bench's own scripts do it: by words in their places.
fn words_in_their_places(line: &str) -> Option<(String, f64, u64, f64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let units = [1, 3, 5, 7].map(|index| words.get(index).copied());
    if units != [":", "micros/op", "ops/sec", "seconds"].map(Some) {
        return None;
    }
    assert_eq!(words[9], "operations;", "{line}");
    if let Some(speed) = words.get(10).filter(|word| !word.starts_with('(')) {
        speed.parse::<f64>().expect(line);
        assert_eq!(words[11], "MB/s", "{line}");
    }
    // db_bench's format is "%-12s : %11.3f micros/op %ld ops/sec %.3f seconds ...".
    let (name, rest) = line.split_once(" : ").expect(line);
    assert!(name.len() >= 12, "{line}");
    assert!(rest.find(" micros/op").expect(line) >= 11, "{line}");
    let decimals = |word: &str| word.split_once('.').expect(line).1.len();
    assert_eq!((decimals(words[2]), decimals(words[6])), (3, 3), "{line}");
    Some((
        words[0].to_owned(),
        words[2].parse().expect(line),
        words[4].parse().expect(line),
        words[6].parse().expect(line),
        words[8].parse().expect(line),
    ))
}

#[test]
fn every_workload_runs_and_counts_its_operations() {
    let all = all_workloads();
    assert!(all.len() >= 45, "{all:?}");
    // Those that lose their data, or cannot be had everywhere, have tests of their own.
    let others = ["recover", "diskfull", "queue"];
    let list: Vec<&str> = all
        .iter()
        .map(|name| &**name)
        .filter(|n| !others.contains(n))
        .collect();
    let text = stdout(&lsm_bench(&[
        &format!("--benchmarks={}", list.join(",")),
        "--num=2000",
        "--threads=2",
        "--seek_nexts=5",
        "--reads=2000",
        "--arrival_rate=1000000",
        "--histogram",
        "--statistics",
    ]));
    let lines = result_lines(&text);
    let by_words: Vec<_> = text.lines().filter_map(words_in_their_places).collect();
    assert_eq!(
        by_words.len(),
        lines.len(),
        "another parser reads the same\n{text}"
    );
    for (line, (name, micros, rate, seconds, count)) in lines.iter().zip(by_words) {
        assert_eq!(
            (&line.name, line.ops_per_sec, line.operations),
            (&name, rate, count)
        );
        assert!(line.micros_per_op.to_bits() == micros.to_bits());
        assert!(line.seconds.to_bits() == seconds.to_bits());
    }
    let operations = |name: &str| {
        let line = lines.iter().rfind(|line| line.name == name);
        line.unwrap_or_else(|| panic!("{name} in\n{text}"))
            .operations
    };
    let silent = ["stats", "levelstats", "sstables"];
    for name in list.into_iter().filter(|name| !silent.contains(name)) {
        let expected = match name {
            "fillsync" | "fill100K" => 4,
            "compact" | "waitforcompaction" | "flush" => 1,
            // As many as there are tables, and as many as were not deleted.
            "verifychecksum" | "readseq" | "readreverse" => operations(name),
            _ => 4000,
        };
        assert_eq!(operations(name), expected, "{name}");
    }
    assert!(text.contains("so far"), "the table of amp in\n{text}");
    assert!(
        text.contains("over 10 ms"),
        "the note of stallprobe in\n{text}"
    );
    assert!(text.contains("--- L"), "the tables of sstables in\n{text}");
    assert!(text.contains("STATISTICS:"), "{text}");
}

#[test]
fn a_queue_gives_back_everything_in_its_order() {
    let text = stdout(&lsm_bench(&[
        "--benchmarks=queue",
        "--num=500",
        "--threads=2",
    ]));
    let found = result_lines(&text)[0]
        .found
        .expect("every head is looked for");
    assert_eq!((found.found, found.of), (1000, 1000), "{text}");
}

#[test]
fn what_a_killed_process_wrote_is_there() {
    let text = stdout(&lsm_bench(&[
        "--benchmarks=recover,readrandom",
        "--num=3000",
        "--threads=1",
        "--seed=5",
    ]));
    let lines = result_lines(&text);
    assert_eq!((&*lines[0].name, lines[0].operations), ("recover", 1));
    assert!(text.contains("3,000 operations replayed"), "{text}");
    let found = lines[1].found.expect("looked for").found;
    assert!(
        (1500..2400).contains(&found),
        "of 3000 drawn with repetition: {found}"
    );
}

#[test]
fn a_full_disk_is_survived() {
    let text = stdout(&lsm_bench(&[
        "--benchmarks=diskfull",
        "--num=40000",
        "--value_size=1000",
    ]));
    if text.contains("diskfull     : skipped") {
        eprintln!("skipped: {text}");
        return;
    }
    let lines = result_lines(&text);
    assert!(lines[0].operations > 1000, "{text}");
    assert!(text.contains("1000 puts went on"), "{text}");
}

#[test]
fn repeats_are_summed_up_and_warm_ups_are_not_counted() {
    let text = stdout(&lsm_bench(&[
        "--benchmarks=fillseq,readrandom[X3-W2]",
        "--num=500",
    ]));
    let names: Vec<_> = result_lines(&text)
        .into_iter()
        .map(|line| line.name)
        .collect();
    assert_eq!(names, ["fillseq", "readrandom", "readrandom", "readrandom"]);
    for part in [
        "readrandom [AVG    3 runs] : ",
        "readrandom [MEDIAN 3 runs] : ",
        "warm-up 2: ",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn mixes_draw_the_same_operations_from_the_same_seed() {
    let run = |seed: &str| -> Vec<(String, Option<String>)> {
        let text = stdout(&lsm_bench(&[
            "--benchmarks=mixgraph,ycsba,ycsbd,ycsbe,ycsbf,readrandomwriterandom",
            "--num=3000",
            "--value_size_distribution_type=normal",
            "--value_size_min=10",
            "--value_size_max=90",
            seed,
        ]));
        let lines = result_lines(&text);
        assert_eq!(lines.len(), 6, "{text}");
        lines
            .into_iter()
            .map(|line| (line.name, line.message))
            .collect()
    };
    let first = run("--seed=7");
    assert_eq!(first, run("--seed=7"));
    let other = run("--seed=8");
    for ((name, one), (_, two)) in first.iter().zip(&other).take(5) {
        assert_ne!(one, two, "{name}: another seed, other operations");
    }
    let message = first[0].1.as_deref().expect("mixgraph has one");
    assert!(
        message.contains("reads") && message.ends_with(" scan)"),
        "{message}"
    );
    let part = |text: &str, name: &str| -> f64 {
        let (_, rest) = text.split_once(name).expect(name);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<f64>().expect(text) / 3000.0
    };
    for (name, expected) in [("Gets:", 0.83), ("Puts:", 0.14), ("Seek:", 0.03)] {
        assert!((part(message, name) - expected).abs() < 0.03, "{message}");
    }
    let ycsbe = first[3].1.as_deref().expect("it has one");
    assert!((part(ycsbe, "scans:") - 0.95).abs() < 0.03, "{ycsbe}");
    let last = first[5].1.as_deref().expect("it has one");
    assert!(
        last.contains("( reads:2700 writes:300 total:3000 found:"),
        "{last}"
    );
}

#[test]
fn one_dash_does_as_well_as_two() {
    let text = stdout(&lsm_bench(&[
        "-benchmarks=fillseq",
        "-num=50",
        "-value_size=10",
    ]));
    assert_eq!(result_lines(&text)[0].operations, 50);
}

#[test]
fn operations_over_time_go_into_a_file() {
    let dir = tempfile::tempdir().expect("made");
    let path = dir.path().join("rates.csv");
    let file = format!("--report_file={}", path.display());
    stdout(&lsm_bench(&[
        "--benchmarks=fillseq",
        "--num=500",
        "--report_interval_seconds=1",
        &file,
    ]));
    let text = base::fs::read_small_file(&OsFs, &path, 1 << 20).expect("written");
    let text = String::from_utf8(text).expect("text");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("secs_elapsed,interval_qps"));
    let first = lines.next().expect("one interval");
    assert!(first.starts_with("1,"), "{text}");
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
fn the_report_tells_what_scans_had_to_touch() {
    let workloads = "--benchmarks=fillseq,compact,readseq,readreverse";
    let document = stdout(&lsm_bench(&[workloads, "--num=2000", "--json"]));
    let document: serde_json::Value = serde_json::from_str(&document).expect("one document");
    let scan = &document["amplification"]["scan"];
    assert_eq!(
        (&scan["seeks"], &scan["entries"]),
        (&2.into(), &4000.into())
    );
    let blocks = scan["data_blocks"].as_u64().expect("a number");
    assert!(
        blocks > 2 && blocks.is_multiple_of(2),
        "there and back: {scan}"
    );
    let read = &document["amplification"]["read"];
    assert_eq!(read["block_bytes_of_reading_workloads"], scan["bytes_read"]);
    assert_eq!(read["returned_bytes_of_reading_workloads"], 4000 * 116);
    let text = stdout(&lsm_bench(&[workloads, "--num=2000"]));
    assert!(text.contains("Read, of 2 scans"), "{text}");
    assert!(text.contains("per scan: 2000.00 entries"), "{text}");
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
        .arg("--write_buffer_size=65536")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // The run is far longer than this wait; how far it gets meanwhile does not matter.
    let is_running = || {
        let places = OsFs.list(temporary.path()).unwrap_or_default();
        let dir = |place: &base::fs::DirEntry| temporary.path().join(&place.name).join("db");
        let files = places
            .iter()
            .filter_map(|place| OsFs.list(&dir(place)).ok());
        // The first workload has come far enough for a flush.
        let kinds = files.flatten().map(|file| FileKind::parse(&file.name));
        let mut kinds = kinds.flatten().map(|(kind, _)| kind);
        kinds.any(|kind| kind == FileKind::Table)
    };
    while !is_running() {
        Bell::new().wait_past(0, Some(Duration::from_millis(5)));
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
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

#[test]
fn what_one_run_of_ycsb_inserts_is_there_in_the_next() {
    let place = tempfile::tempdir().expect("made");
    let dir = place.path().join("db").display().to_string();
    let arguments = [
        "--benchmarks=ycsbd[X3]",
        "--num=1000",
        "--reads=2000",
        "--seed=1",
    ];
    let db = format!("--db={dir}");
    stdout(&lsm_bench(&[&arguments[..], &[&db]].concat()));
    let db = siltstone::Db::open(dir).expect("it opens");
    let count = db.iter().expect("an iterator").count();
    // One in twenty of three times 2000 is an insert; the same keys again would be a third of that.
    assert!((1200..1400).contains(&count), "{count} records");
}
