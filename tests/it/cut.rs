//! Somebody cuts the live segment of the log under the writer: the next store into its mapping
//! behind the end of the file is answered with SIGBUS. That ends the process, and nothing that was
//! acknowledged as durable is lost by it. Positioned appends go on.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base::FileKind;
use base::fs::{FileSystem, OsFs};
use siltstone::{Db, Durability, LogAppend, Options, WriteOptions};

use crate::support::contents;

const CHILD: &str = "SILTSTONE_CUT_CHILD";
/// SIGBUS on Linux, on every processor but a few old ones.
const SIGBUS: i32 = 7;
const DURABLE_COUNT: u64 = 100;
/// Far more than one page takes.
const MORE_COUNT: u64 = 1000;

fn options(append: LogAppend) -> Options {
    Options::new().log_append(append).sync_interval(None)
}

/// Cuts every segment of the log to whole pages that hold `bytes` at least. Not what the house
/// does: somebody else has the file open.
fn cut_segments(dir: &Path, bytes: u64) {
    for entry in OsFs.list(dir).expect("a directory") {
        let is_segment = matches!(FileKind::parse(&entry.name), Some((FileKind::Segment, _)));
        if is_segment {
            let file = OpenOptions::new().write(true).open(dir.join(&entry.name));
            let file = file.expect("it is there");
            let pages = bytes.next_multiple_of(4096);
            assert!(file.metadata().expect("a length").len() > pages);
            file.set_len(pages).expect("it is cut");
        }
    }
}

/// The child: commits durably, cuts its own log, and commits on. Does nothing in an ordinary run.
#[test]
fn the_child_of_the_cut_test() {
    let Ok(asked) = std::env::var(CHILD) else {
        return;
    };
    let (form, dir) = asked.split_once(' ').expect("a form and a directory");
    let append = match form {
        "mapped" => LogAppend::Mapped,
        _ => LogAppend::Positioned,
    };
    let db = options(append).open(dir).expect("a new database");
    let disk = WriteOptions::new().durability(Durability::Disk);
    for index in 0..DURABLE_COUNT {
        db.put_with(index.to_be_bytes(), [7; 100], &disk)
            .expect("a durable put");
        eprintln!("acknowledged {index}");
    }
    // A record is no longer than twice its value.
    cut_segments(Path::new(dir), (DURABLE_COUNT + 5) * 200);
    for index in 0..MORE_COUNT {
        db.put((DURABLE_COUNT + index).to_be_bytes(), [8; 100])
            .expect("a put");
    }
    eprintln!("alive");
}

#[test]
fn a_store_behind_the_end_of_a_cut_log_is_a_signal_and_loses_nothing_durable() {
    for (form, append) in [
        ("mapped", LogAppend::Mapped),
        ("positioned", LogAppend::Positioned),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db_dir = dir.path().join("db");
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "cut::the_child_of_the_cut_test", "--nocapture"])
            .env(CHILD, format!("{form} {}", db_dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("a child");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let lines: Vec<_> = said.lines().map(|line| line.expect("text")).collect();
        let acknowledged = lines.iter().filter(|l| l.starts_with("acknowledged"));
        assert_eq!(acknowledged.count() as u64, DURABLE_COUNT, "{lines:?}");
        let status = child.wait().expect("it ended");
        let is_alive = lines.iter().any(|line| line == "alive");
        let ended = (status.signal(), is_alive);
        let expected = match append {
            LogAppend::Mapped => (Some(SIGBUS), false),
            _ => (None, true),
        };
        assert_eq!(ended, expected, "{form}: {lines:?}");
        let db: Db = options(append).open(&db_dir).expect("it opens again");
        for index in 0..DURABLE_COUNT {
            let found = db.get(index.to_be_bytes()).expect("a get");
            assert!(found.is_some(), "{form}: durable commit {index} is lost");
        }
        let last = (DURABLE_COUNT..DURABLE_COUNT + MORE_COUNT)
            .take_while(|index| db.get(index.to_be_bytes()).expect("a get").is_some())
            .count() as u64;
        let found = contents(&db).expect("a scan").len() as u64;
        assert_eq!(found, DURABLE_COUNT + last, "{form}: it is no prefix");
        db.put("goes on", "yes").expect("a put");
        db.close().expect("closed");
    }
}
