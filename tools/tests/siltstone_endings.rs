//! The `siltstone` binary in trouble: signals, full disks, pipes that close.
#![expect(clippy::disallowed_methods, reason = "what a user does from outside")]

use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use base::sync::Bell;
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::{Fixture, records};

/// More than pipes and buffers hold between two processes.
const RECORD_COUNT: usize = 20_000;
/// How often it is looked whether a process has ended, and for how long at most.
const LOOK: Duration = Duration::from_millis(10);
const WATCHDOG_LOOKS: u32 = 12_000;

fn many_records(from: usize) -> String {
    let record = |n: usize| {
        let noise = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = format!("{noise:x}{noise:b}");
        records([(&*format!("key{n:07}"), &*value)])
    };
    (from..from + RECORD_COUNT).map(record).collect()
}

fn filled() -> Fixture {
    let fixture = Fixture::new();
    let ended = fixture.run_with_input("load DB -", many_records(0).as_bytes());
    assert_eq!(ended.code, 0, "{ended:?}");
    fixture
}

fn spawn(fixture: &Fixture, line: &str) -> Child {
    let mut command = fixture.command(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was built")
}

/// Sends a signal and waits until the process says that it has seen it.
fn interrupt(child: &mut Child, signal: Signal) -> BufReader<ChildStderr> {
    let id = i32::try_from(child.id()).expect("a process id");
    let pid = Pid::from_raw(id).expect("a process id");
    kill_process(pid, signal).expect("it runs");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("text");
    assert!(line.starts_with("interrupted: ending"), "{line}");
    errors
}

fn rest(mut errors: BufReader<ChildStderr>) -> String {
    let mut text = String::new();
    errors.read_to_string(&mut text).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn an_interrupted_dump_says_that_it_is_not_complete() {
    for signal in [Signal::INT, Signal::TERM] {
        let fixture = filled();
        let mut child = spawn(&fixture, "dump DB");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        // It has begun, and will wait for a reader.
        output.read_line(&mut first).expect("text");
        let errors = interrupt(&mut child, signal);
        let mut printed = String::new();
        output.read_to_string(&mut printed).expect("text");
        let lines = printed.lines().count();
        let said = rest(errors);
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{said}");
        assert!(said.contains("the dump is not complete"), "{said}");
        assert!(lines + 1 < RECORD_COUNT, "{lines}");
        // It was closed as it should be: nothing is left to be replayed or removed.
        assert!(fixture.out("verify DB").contains("no damage found"));
        assert_eq!(fixture.out("scan DB --count"), format!("{RECORD_COUNT}\n"));
    }
}

#[test]
fn an_interrupted_load_says_how_far_it_came() {
    let fixture = Fixture::new();
    let mut child = spawn(&fixture, "load DB - --batch-size 100 --quiet");
    let mut input = child.stdin.take().expect("piped");
    // More than a pipe holds: when it is written the load is under way.
    input
        .write_all(many_records(0).as_bytes())
        .expect("it reads");
    let errors = interrupt(&mut child, Signal::INT);
    // It waits for a line, or reads many still.
    let mut from = RECORD_COUNT;
    while input.write_all(many_records(from).as_bytes()).is_ok() {
        from += RECORD_COUNT;
    }
    let said = rest(errors);
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{said}");
    assert!(said.contains("the load is not complete"), "{said}");
    let count: usize = fixture
        .out("scan DB --count")
        .trim()
        .parse()
        .expect("a count");
    let line = format!("--skip-lines {count} goes on behind them");
    assert!(said.contains(&line), "{count}: {said}");
}

#[test]
fn a_load_that_waits_for_a_line_ends_without_one() {
    let fixture = Fixture::new();
    let mut child = spawn(&fixture, "load DB - --quiet");
    let mut input = child.stdin.take().expect("piped");
    let text = b"{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"";
    input.write_all(text).expect("it reads");
    // It is at work as soon as the database is there.
    while !fixture.path("db").join("CURRENT").exists() {
        assert_eq!(child.try_wait().expect("asked"), None, "it waits");
        std::thread::yield_now();
    }
    let errors = interrupt(&mut child, Signal::INT);
    // Nothing more is written, and the pipe is not closed.
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let said = rest(errors);
    assert!(said.contains("the load is not complete"), "{said}");
    drop(input);
    // The signal may have come before the first line was read; the second never was.
    let how_far = match &*fixture.out("scan DB --count") {
        "0\n" => "no record was put",
        _ => "1 record was put before that, up to line 1",
    };
    assert!(said.contains(how_far), "{how_far}: {said}");
}

#[test]
fn a_load_that_waits_for_somebody_to_write_ends_without_him() {
    let fixture = Fixture::new();
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, fixture.path("fifo"), kind, mode, 0).expect("a fifo");
    let mut child = spawn(&fixture, "load DB @fifo --quiet");
    wait_until_it_listens(&mut child);
    let errors = interrupt(&mut child, Signal::INT);
    assert_eq!(code_of(child), Some(130));
    let said = rest(errors);
    assert!(said.contains("no record was put"), "{said}");
    // Whoever comes in time is waited for, and read to his end.
    let mut child = spawn(&fixture, "load DB @fifo --quiet");
    wait_until_it_listens(&mut child);
    let mut writer = std::fs::OpenOptions::new();
    let mut writer = writer.write(true).open(fixture.path("fifo")).expect("read");
    let text = records([("a", "1"), ("b", "2")]);
    writer.write_all(text.as_bytes()).expect("it reads");
    drop(writer);
    assert_eq!(code_of(child), Some(0));
    assert_eq!(fixture.out("scan DB --count"), "2\n");
}

#[test]
fn a_second_signal_quits_at_once() {
    let fixture = filled();
    let mut child = spawn(&fixture, "dump DB");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut String::new()).expect("text");
    let errors = interrupt(&mut child, Signal::INT);
    // Nobody reads what it prints: it would wait for ever.
    let id = i32::try_from(child.id()).expect("a process id");
    kill_process(Pid::from_raw(id).expect("a process id"), Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(rest(errors), "");
    drop(output);
    assert_eq!(fixture.out("scan DB --count"), format!("{RECORD_COUNT}\n"));
}

/// A file system that is smaller than the database.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where none can be made.
    fn mount(fixture: &Fixture) -> Option<Self> {
        let place = fixture.path("small");
        std::fs::create_dir(&place).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&place)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        println!("skipped: only root can mount");
        None
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry
                .expect("listed")
                .file_name()
                .to_string_lossy()
                .into_owned()
        };
        entries.map(name).collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The test has failed already, or will at the removal of its directory.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn copies_that_find_no_room_say_so_and_what_they_leave() {
    let fixture = filled();
    let Some(disk) = SmallDisk::mount(&fixture) else {
        return;
    };
    let ended = fixture.run("checkpoint DB @small/copy");
    ended.fails_with(2, "space");
    assert_eq!(disk.names(), Vec::<String>::new(), "{ended:?}");

    let file = std::fs::File::create(disk.0.join("dump")).expect("made");
    let mut command = fixture.command("dump DB");
    let output = command.stdout(file).stderr(Stdio::piped()).output();
    let output = output.expect("it was built");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("writing the output failed: No space left"),
        "{said}"
    );
    std::fs::remove_file(disk.0.join("dump")).expect("removed");

    let ended = fixture.run("repair DB @small/saved");
    ended.fails_with(2, "space");
    assert!(
        ended.err.contains("nothing was left in"),
        "it says so: {ended:?}"
    );
    assert_eq!(disk.names(), Vec::<String>::new(), "{ended:?}");
    // The database itself is none the worse.
    assert_eq!(fixture.out("scan DB --count"), format!("{RECORD_COUNT}\n"));
}

#[test]
fn readers_that_have_seen_enough_end_it_quietly() {
    let fixture = filled();
    for line in [
        "dump DB",
        "scan DB",
        "wal dump DB",
        "manifest dump DB",
        "verify DB",
    ] {
        let mut child = spawn(&fixture, line);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{line}");
    }
}

/// Waits until the process listens for all signals that may end it, or has ended.
fn wait_until_it_listens(child: &mut Child) {
    let path = format!("/proc/{}/status", child.id());
    // It begins to listen for one after the other.
    let all = [Signal::HUP, Signal::INT, Signal::TERM];
    let all = all
        .iter()
        .fold(0, |all, signal| all | 1 << (signal.as_raw() - 1));
    let is_caught = || {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let bits = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits & all == all)
    };
    while !is_caught() {
        assert_eq!(child.try_wait().expect("asked"), None, "it waits");
        std::thread::yield_now();
    }
}

/// Waits for the end; a process that does not come to it fails the test instead of blocking it.
#[track_caller]
fn code_of(mut child: Child) -> Option<i32> {
    let bell = Bell::new();
    for _ in 0..WATCHDOG_LOOKS {
        if let Some(status) = child.try_wait().expect("asked") {
            return status.code();
        }
        bell.wait_past(0, Some(LOOK));
    }
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
    panic!("it did not end");
}

fn send(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).expect("a process id");
    kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("it runs");
}

/// The end of a pipe to which nobody listens.
fn closed_pipe() -> PipeWriter {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer
}

#[test]
fn a_load_from_a_silent_pipe_ends_at_the_first_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let fixture = Fixture::new();
        let mut child = spawn(&fixture, "load DB - --quiet");
        let input = child.stdin.take().expect("piped");
        wait_until_it_listens(&mut child);
        let errors = interrupt(&mut child, signal);
        assert_eq!(code_of(child), Some(130));
        let said = rest(errors);
        assert!(said.contains("no record was put before that"), "{said}");
        drop(input);
        assert!(!fixture.db().exists(), "it had not begun");
    }
}

#[test]
fn signals_end_it_though_nobody_hears_what_is_said_of_them() {
    let fixture = filled();
    let mut command = fixture.command("dump DB");
    command.stdout(Stdio::piped()).stderr(closed_pipe());
    let mut child = command.spawn().expect("it was built");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    // It has begun, and will wait for a reader.
    output.read_line(&mut String::new()).expect("text");
    // Of two pending signals of one kind the system delivers one.
    send(&child, Signal::INT);
    send(&child, Signal::TERM);
    assert_eq!(code_of(child), Some(130));
}

#[test]
fn a_message_that_nobody_hears_changes_no_exit_code() {
    let fixture = Fixture::with_abc();
    for (line, code) in [
        ("get DB nothing", 2),
        ("load DB @nothing", 2),
        ("wal dump DB --follow --from-seq 99999999999999999", 2),
    ] {
        let mut command = fixture.command(line);
        let status = command.stderr(closed_pipe()).status();
        assert_eq!(status.expect("it was built").code(), Some(code), "{line}");
    }
}

#[test]
fn damage_counts_though_nobody_reads_the_report() {
    let fixture = Fixture::with_abc();
    let files = std::fs::read_dir(fixture.db()).expect("a directory");
    let mut names = files.map(|entry| entry.expect("listed").path());
    let table = names.find(|path| path.extension().is_some_and(|name| name == "sst"));
    let table = table.expect("there is one");
    let mut bytes = std::fs::read(&table).expect("readable");
    bytes[20] ^= 0x40;
    std::fs::write(&table, bytes).expect("written");
    // More remarks than any buffer holds.
    for n in 0..1000 {
        let name = format!("{n:0100}");
        std::fs::write(fixture.db().join(name), b"").expect("written");
    }
    for line in ["verify DB", "verify DB --json", "repair DB @saved"] {
        let mut command = fixture.command(line);
        let output = command.stdout(closed_pipe()).output();
        let output = output.expect("it was built");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("error: "), "{line}: {said}");
    }
}

/// A device that takes nothing.
#[test]
fn an_output_that_ends_is_no_panic() {
    let fixture = Fixture::new();
    fixture.killed("db");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_siltstone"))
        .arg("dump")
        .arg(fixture.path("db"))
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("it was built");
    let err = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(
        err.contains("writing the output failed: No space left"),
        "{err}"
    );
}
