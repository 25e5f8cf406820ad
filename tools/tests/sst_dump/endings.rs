//! Pipes that close, signals, and bytes that a terminal would act on.

use std::io::Read;
use std::process::Stdio;

use base::KeyKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sstable::{Compression, TableOptions};

use super::{Entry, Fixture, SMALL};

#[test]
fn damage_counts_though_nobody_reads_the_results() {
    let fixture = Fixture::small();
    for n in 10..12 {
        fixture.table(&format!("0000{n}.sst"), &SMALL, &TableOptions::default());
    }
    fixture.flip("000010.sst", 10, 1);
    for command in ["check", "verify", "scan", "scan --json"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut run = fixture.command(&format!("DIR --command={command}"));
        let output = run.stdout(writer).output().expect("it was built");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("000010.sst"), "{command}: {said}");
    }
}

#[test]
fn what_nobody_hears_changes_no_exit_code() {
    let fixture = Fixture::small();
    fixture.flip("000007.sst", 10, 1);
    for (line, code) in [("DIR", 1), ("DIR/nothing", 2)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = fixture.command(line).stderr(writer).status();
        assert_eq!(status.expect("it was built").code(), Some(code), "{line}");
    }
}

#[test]
fn a_signal_ends_it_as_it_ends_the_others() {
    let fixture = Fixture::large(20_000, Compression::None);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut command = fixture.command("DIR --command=scan");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("built");
        let output = child.stdout.as_mut().expect("piped");
        // It listens by now, and waits for a reader.
        output.read_exact(&mut [0]).expect("it prints");
        let id = i32::try_from(child.id()).expect("a process id");
        kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("it runs");
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
    }
}

#[test]
fn nothing_in_a_table_reaches_the_terminal_unescaped() {
    let text = "\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{202e}\r\u{e0001}";
    let fixture = Fixture::new();
    let entries: [Entry<'_>; 1] = [(text.as_bytes(), 1, KeyKind::Put, text.as_bytes())];
    fixture.table("000007.sst", &entries, &TableOptions::default());
    for command in [
        "check",
        "scan",
        "verify",
        "properties",
        "index",
        "filter",
        "raw",
        "blocks",
        "hist",
        "identify",
    ] {
        for form in ["", " --json", " --output_hex"] {
            let line = format!("DIR --command={command}{form}");
            let out = fixture.run(&line).good();
            let may_stand = |c: char| matches!(c, '\n' | ' '..='~');
            assert!(out.chars().all(may_stand), "{line}: {out:?}");
        }
    }
    let out = fixture.run("DIR --command=scan --json").good();
    let object: Value = serde_json::from_str(&out).expect("one object");
    assert_eq!([&object["key"], &object["value"]], [text, text]);
}
