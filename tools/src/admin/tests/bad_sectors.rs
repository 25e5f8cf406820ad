//! `repair` and `verify` on a disk that does not give back everything.
#![expect(
    clippy::disallowed_methods,
    reason = "what a kill leaves is copied from outside"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::error::{ErrorKind, Result};
use base::executor::Stepped;
use base::fs::fault::{FaultError, OpKind};
use base::fs::{File, FileSystem};
use clap::Parser;
use siltstone::{Compression, Db, Options};

use super::super::args::{Command, CommandLine};
use super::super::failure::{Failure, Outcome};
use super::super::interrupt::Interrupt;
use super::super::output::Output;
use super::super::{repair, verify};
use crate::read_only_fs::{ReadOnlyFs, Reads};

const ENTRY_COUNT: u32 = 2_000;
const SECTOR_BYTES: u64 = 4_096;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Of the files whose names end so, the sectors from one offset up to another.
#[derive(Debug)]
struct BadSectors {
    name_end: String,
    from: u64,
    upto: u64,
    kind: ErrorKind,
}

impl BadSectors {
    fn of(name_end: impl Into<String>, from: u64, upto: u64) -> Self {
        Self {
            name_end: name_end.into(),
            from: from / SECTOR_BYTES * SECTOR_BYTES,
            upto: upto.next_multiple_of(SECTOR_BYTES),
            kind: ErrorKind::Io,
        }
    }
}

impl Reads for BadSectors {
    fn read_at(&self, file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let is_it = file.path().to_string_lossy().ends_with(&self.name_end);
        if is_it && offset < self.upto && self.from < offset + buffer.len() as u64 {
            let error = FaultError::Eio.to_error(OpKind::Read, file.path());
            return Err(error.with_kind(self.kind));
        }
        file.read_at(offset, buffer)
    }
}

struct World {
    dir: tempfile::TempDir,
    expected: Entries,
}

/// What a run printed, and how it ended.
type Ended = (String, Outcome<()>);

impl World {
    /// A database of one table and as much in the log, which goes back no further, as a kill leaves
    /// it.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let live = dir.path().join("live");
        // Nothing happens to it while it is copied: it has no threads.
        let executor = Stepped::new(1);
        let options = Options::new()
            .compression(Compression::None)
            .bottom_compression(Compression::None)
            .sync_interval(None)
            .executor(Arc::clone(&executor) as _);
        let db = options.clone().open(&live).expect("a new database");
        for number in 0..ENTRY_COUNT {
            let value = [b't'; 100];
            db.put(key(number), value).expect("a put");
        }
        db.close().expect("a clean close");
        let db = options.open(&live).expect("it is whole");
        for number in ENTRY_COUNT..2 * ENTRY_COUNT {
            db.put(key(number), [b'l'; 100]).expect("a put");
        }
        let expected = entries(&db);
        executor.run_until_idle();
        copy(&live, &dir.path().join("db"));
        db.close().expect("a clean close");
        Self { dir, expected }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The largest file whose name begins or ends so, and its length.
    fn file(&self, part: &str) -> (PathBuf, u64) {
        let files = std::fs::read_dir(self.path("db")).expect("a directory");
        let files = files.map(|entry| entry.expect("listed"));
        let files = files.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(part) || name.ends_with(part)
        });
        let lens = files.map(|file| (file.metadata().expect("there").len(), file.path()));
        let (len, path) = lens.max().expect("there is one");
        (path, len)
    }

    /// Runs `line` on a disk with `bad` sectors.
    fn run(&self, bad: BadSectors, line: &str) -> Ended {
        let db = self.path("db").display().to_string();
        let copy = self.path("copy").display().to_string();
        let words = ["siltstone", line, &*db];
        let copy = (line == "repair").then_some(&*copy);
        let words = words.into_iter().chain(copy);
        let CommandLine { global, command } = CommandLine::parse_from(words);
        let below: Arc<dyn FileSystem> = Arc::new(ReadOnlyFs::new());
        let fs = Arc::new(ReadOnlyFs::read_through(below, Arc::new(bad)));
        let interrupt = Interrupt::default();
        let mut printed = Vec::new();
        let mut output = Output::new(&mut printed, &global);
        let output = &mut output;
        let ended = match &command {
            Command::Verify(args) => verify::run_on(fs, &interrupt, args, &global, output),
            Command::Repair(args) => repair::run_on(fs, &interrupt, args, &global, output),
            _ => panic!("not on a bad disk: {line}"),
        };
        (String::from_utf8(printed).expect("text"), ended)
    }

    /// Repairs, expects one loss, and returns the keys that are not there.
    #[track_caller]
    fn lost(&self, bad: BadSectors) -> Vec<Vec<u8>> {
        let (printed, ended) = self.run(bad, "repair");
        let Err(Failure::Damage(_)) = ended else {
            panic!("{ended:?}: {printed}");
        };
        assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
        assert!(printed.contains("Input/output error"), "{printed}");
        let db = Db::open(self.path("copy")).expect("it is sound");
        let found = entries(&db);
        db.close().expect("a clean close");
        let is_true = |(key, value): (&Vec<u8>, &Vec<u8>)| self.expected.get(key) == Some(value);
        assert!(found.iter().all(is_true), "{printed}");
        let keys = self.expected.keys().cloned();
        keys.filter(|key| !found.contains_key(key)).collect()
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn entries(db: &Db) -> Entries {
    let items = db.iter().expect("a scan");
    let items = items.map(|item| {
        let (key, value) = item.expect("read");
        (key.to_vec(), value.to_vec())
    });
    items.collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("listed");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn a_bad_sector_of_a_table_costs_its_blocks() {
    let world = World::new();
    let lost = world.lost(BadSectors::of(".sst", 100_000, 100_001));
    assert!((1..150).contains(&lost.len()), "{}", lost.len());
    assert!(lost.iter().all(|lost| *lost < key(ENTRY_COUNT)));
}

#[test]
fn a_bad_sector_of_the_log_costs_its_records() {
    let world = World::new();
    let (log, _) = log_with(&world, &key(3_000));
    let name = name_of(&log);
    let at = place_of(&log, &key(3_000));
    let lost = world.lost(BadSectors::of(name, at, at + 1));
    assert!((1..80).contains(&lost.len()), "{}", lost.len());
    assert!(lost.contains(&key(3_000)));
}

#[test]
fn a_bad_end_of_the_log_is_no_torn_one() {
    let world = World::new();
    let (log, len) = log_with(&world, &key(2 * ENTRY_COUNT - 1));
    let name = name_of(&log);
    let at = place_of(&log, &key(2 * ENTRY_COUNT - 1));
    let lost = world.lost(BadSectors::of(name, at, len));
    assert!((1..80).contains(&lost.len()), "{}", lost.len());
    assert!(lost.contains(&key(2 * ENTRY_COUNT - 1)));
}

#[test]
fn without_a_readable_manifest_everything_is_saved() {
    for from in [0, SECTOR_BYTES] {
        let world = World::new();
        let (manifest, len) = world.file("MANIFEST-");
        if from < len {
            let bad = BadSectors::of(name_of(&manifest), from, len);
            assert_eq!(world.lost(bad), Vec::<Vec<u8>>::new());
        }
    }
}

#[test]
fn verify_goes_on_behind_a_bad_sector() {
    let world = World::new();
    let (log, _) = log_with(&world, &key(3_000));
    let at = place_of(&log, &key(3_000));
    let (table, _) = world.file(".sst");
    let mut bytes = std::fs::read(&table).expect("there");
    bytes[50_000] ^= 1;
    std::fs::write(&table, bytes).expect("writable");
    let (printed, ended) = world.run(BadSectors::of(name_of(&log), at, at + 1), "verify");
    assert!(matches!(ended, Err(Failure::Damage(_))), "{ended:?}");
    assert_eq!(printed.matches("damage: ").count(), 2, "{printed}");
    assert!(printed.contains("Input/output error"), "{printed}");
    let (printed, ended) = world.run(BadSectors::of(".sst", 100_000, 100_001), "verify");
    assert!(matches!(ended, Err(Failure::Damage(_))), "{ended:?}");
    // The block that was changed, and those that have a part in the sector.
    assert_eq!(
        printed.matches("block checksum mismatch").count(),
        1,
        "{printed}"
    );
    let lost = printed.matches("Input/output error").count();
    assert!((1..=3).contains(&lost), "{printed}");
    let count = printed.matches("damage: ").count();
    assert_eq!(count, lost + 1, "{printed}");
    // What ends a run does not hide what was found before.
    let mut newer = BadSectors::of(name_of(&log), at, at + 1);
    newer.kind = ErrorKind::Unsupported;
    let (printed, ended) = world.run(newer, "verify");
    assert!(matches!(ended, Err(Failure::Trouble(_))), "{ended:?}");
    assert_eq!(printed.matches("damage: ").count(), 1, "{printed}");
}

/// The segment that holds `needle`, and its length.
#[track_caller]
fn log_with(world: &World, needle: &[u8]) -> (PathBuf, u64) {
    let files = std::fs::read_dir(world.path("db")).expect("a directory");
    let mut paths = files.map(|entry| entry.expect("listed").path());
    let found = paths.find(|path| {
        let bytes = std::fs::read(path).expect("there");
        path.extension().is_some_and(|e| e == "log")
            && bytes.windows(needle.len()).any(|w| w == needle)
    });
    let found = found.expect("it is in the log");
    let len = found.metadata().expect("there").len();
    (found, len)
}

#[track_caller]
fn place_of(path: &Path, needle: &[u8]) -> u64 {
    let bytes = std::fs::read(path).expect("there");
    let place = bytes.windows(needle.len()).position(|w| w == needle);
    place.expect("it is there") as u64
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a file");
    name.to_string_lossy().into_owned()
}
