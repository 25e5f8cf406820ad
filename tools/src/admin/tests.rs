//! Commands that are asked to stop from the beginning: whatever they leave is sound.

use std::path::{Path, PathBuf};

use base::fs::{FileSystem, OsFs};
use siltstone::{Db, Options};

use super::args::{Checkpoint, Command, CommandLine, Compact};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::{copies, repair, stats, verify};
use clap::Parser;

mod bad_sectors;

const ENTRY_COUNT: u32 = 500;

struct World {
    dir: tempfile::TempDir,
    interrupt: Interrupt,
}

impl World {
    /// A database with a few tables, and an interrupt that came already.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Options::new().table_bytes_target(4 << 10);
        let db = db.open(dir.path().join("db")).expect("a new database");
        for number in 0..ENTRY_COUNT {
            db.put(number.to_be_bytes(), [b'v'; 100]).expect("a put");
            if number % 100 == 0 {
                db.flush().expect("a flush");
            }
        }
        db.close().expect("a clean close");
        let interrupt = Interrupt::default();
        interrupt.set();
        Self { dir, interrupt }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs what `line` says; what it prints, and how it ends.
    fn run(&self, line: &str) -> (String, Outcome<()>) {
        let words = line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => word.into(),
        });
        let words = [std::ffi::OsString::from("siltstone")]
            .into_iter()
            .chain(words);
        let CommandLine { global, command } = CommandLine::parse_from(words);
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, &global);
        let (interrupt, output_ref) = (&self.interrupt, &mut output);
        let result = match &command {
            Command::Verify(args) => verify::run_until(interrupt, args, &global, output_ref),
            Command::Repair(args) => repair::run_until(interrupt, args, &global, output_ref),
            Command::Compact(args @ Compact { .. }) => {
                stats::compact_until(interrupt, args, &global, output_ref)
            }
            Command::Checkpoint(args @ Checkpoint { .. }) => {
                copies::checkpoint_until(interrupt, args, &global, output_ref)
            }
            _ => panic!("no command that takes long: {line}"),
        };
        (String::from_utf8(printed).expect("text"), result)
    }
}

fn assert_whole(path: &Path) {
    let db = Db::open(path).expect("it is sound");
    let count = db.iter().expect("a scan").map(|item| item.expect("read"));
    assert_eq!(count.count(), ENTRY_COUNT as usize);
    db.close().expect("a clean close");
}

fn message(result: Outcome<()>) -> String {
    match result {
        Err(Failure::Interrupted(message)) => message,
        other => panic!("not interrupted: {other:?}"),
    }
}

#[test]
fn verify_says_what_it_found_so_far() {
    let world = World::new();
    let (printed, result) = world.run("verify @db");
    let message = message(result);
    assert_eq!(message, "interrupted: not everything was checked");
    assert!(printed.contains("no damage found so far"), "{printed}");
    let (printed, _) = world.run("verify @db --json");
    assert!(printed.contains("\"complete\":false"), "{printed}");
    assert_whole(&world.path("db"));
}

#[test]
fn a_repair_that_is_cut_leaves_nothing() {
    let world = World::new();
    let (_, result) = world.run("repair @db @copy");
    let message = message(result);
    assert!(
        message.starts_with("interrupted: the repair is not complete"),
        "{message}"
    );
    assert!(message.contains("nothing was left in"), "{message}");
    assert!(!world.path("copy").exists());
    OsFs.create_dir(&world.path("copy")).expect("made");
    let (_, result) = world.run("repair @db @copy");
    result.expect_err("interrupted");
    let left = OsFs.list(&world.path("copy")).expect("it stays");
    assert_eq!(left, [], "as it was");
    assert_whole(&world.path("db"));
}

#[test]
fn a_compaction_that_is_cut_leaves_everything() {
    let world = World::new();
    let (_, result) = world.run("compact @db");
    // Or it was done by then.
    if result.is_err() {
        let message = message(result);
        assert!(message.ends_with("the database is whole"), "{message}");
    }
    assert_whole(&world.path("db"));
}

#[test]
fn a_checkpoint_that_is_cut_leaves_a_whole_copy_or_none() {
    let world = World::new();
    let (_, result) = world.run("checkpoint @db @copy");
    if result.is_ok() {
        assert_whole(&world.path("copy"));
    } else {
        assert_eq!(message(result), "interrupted: no copy was made");
        assert!(!world.path("copy").exists());
    }
    assert!(!world.path("copy.tmp").exists());
    assert_whole(&world.path("db"));
}
