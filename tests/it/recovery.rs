//! Directories that cannot be opened, and what recovery makes of logs that end in different ways:
//! the right kind of error, a message that names the file and the remedy, and nothing changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::checksum::Crc;
use base::fs::FileSystem;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::{CrashModel, SimFs};
use base::{FileKind, ids};
use siltstone::{Db, Error, ErrorKind, Options};

use crate::history::Runner;
use crate::order;
use crate::support::{DIR, PrintOnPanic, World, contents, files, tagged};

/// A closed database with tables, and one that was not closed with a log to replay.
fn made(seed: u64, closed: bool) -> Runner {
    let mut runner = Runner::new(seed);
    runner.open().expect("a new database");
    for _ in 0..60 {
        runner.commit().expect("a commit");
    }
    runner.compact().expect("a compaction");
    for _ in 0..if closed { 5 } else { 40 } {
        runner.commit().expect("a commit");
    }
    if closed {
        runner.close().expect("a clean close");
    } else {
        runner.sync().expect("a sync");
        runner.drop_handle();
    }
    runner
}

/// Opens what must not open, and fails unless the directory is as it was.
fn refuse(fs: &Arc<SimFs>, change: impl Fn(Options) -> Options) -> Error {
    let world = World::on(Arc::clone(fs), 0);
    let before = files(fs);
    let error = change(world.options())
        .open(DIR)
        .expect_err("it must not open");
    let after = files(fs);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        files
            .keys()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after), "{error}");
    assert!(before == after, "a refused open changed a file: {error}");
    error
}

fn same(options: Options) -> Options {
    options
}

fn assert_says(error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn a_missing_database_is_not_made_unasked() {
    let fs = SimFs::new(1);
    let error = refuse(&fs, |options| options.create_if_missing(false));
    assert_says(&error, ErrorKind::NotFound, &["create_if_missing", DIR]);
    fs.create_dir(Path::new(DIR)).expect("a directory");
    let error = refuse(&fs, |options| options.create_if_missing(false));
    assert_says(&error, ErrorKind::NotFound, &["create_if_missing", DIR]);
}

#[test]
fn a_file_is_no_directory() {
    let fs = SimFs::new(1);
    fs.install(Path::new(DIR), b"a file")
        .expect("the root is there");
    assert_says(
        &refuse(&fs, same),
        ErrorKind::InvalidArgument,
        &["not a directory", DIR],
    );
}

#[test]
fn a_directory_that_may_not_be_written_is_left_as_it_is() {
    let runner = made(2, false);
    for error in [FaultError::Eacces, FaultError::Erofs] {
        let fs = runner.world.fs.crash_image(&CrashModel::Everything, 0);
        fs.fail(Fault::new(OpKind::AnyMutating, error).for_ever());
        let error = refuse(&fs, same);
        assert_says(&error, ErrorKind::Io, &["failed", DIR]);
        fs.clear_faults();
        let world = World::on(fs, 0);
        let db = world.open().expect("an open when it may be written");
        assert_eq!(&contents(&db).expect("a scan"), runner.history.last());
    }
}

#[test]
fn a_directory_of_another_program_is_left_alone() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DIR)).expect("a directory");
    fs.install(Path::new("/db/notes.txt"), b"mine")
        .expect("a directory");
    let error = refuse(&fs, same);
    assert_says(
        &error,
        ErrorKind::InvalidArgument,
        &["another program", "notes.txt"],
    );
}

#[test]
fn foreign_files_beside_a_database_are_left_alone() {
    let mut runner = made(2, false);
    let foreign = [
        "/db/notes.txt",
        "/db/7.log",
        "/db/000007.sst.bak",
        "/db/99999999.sst",
    ];
    for path in foreign {
        runner
            .world
            .fs
            .install(Path::new(path), b"mine")
            .expect("a directory");
    }
    runner.open().expect("a reopen");
    runner.compact().expect("a compaction");
    runner.close().expect("a clean close");
    for path in foreign {
        assert_eq!(
            runner.world.fs.contents(Path::new(path)).as_deref(),
            Some(&b"mine"[..])
        );
    }
}

#[test]
fn a_database_is_open_once() {
    let world = World::new(1);
    let db = world.open().expect("a new database");
    let error = refuse(&world.fs, same);
    assert_says(&error, ErrorKind::AlreadyOpen, &["in use"]);
    db.put("still", "works").expect("a put");
    drop(db);
    world.open().expect("the lock is free again");
}

#[test]
fn a_directory_is_open_once_on_a_real_file_system() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).expect("a new database");
    let error = Db::open(dir.path()).expect_err("it is open");
    assert_says(&error, ErrorKind::AlreadyOpen, &["in use"]);
    // Another way to say the same place.
    let error = Db::open(dir.path().join(".")).expect_err("it is open");
    assert_says(&error, ErrorKind::AlreadyOpen, &["in use"]);
    db.close().expect("a clean close");
    Db::open(dir.path()).expect("the lock is free again");
}

/// The files of a kind that a database cannot do without.
fn needed(fs: &SimFs, kind: FileKind) -> Vec<PathBuf> {
    order::of_kind(fs, Path::new(DIR), kind)
}

/// The same disk without one file.
fn without(fs: &SimFs, missing: &Path) -> Arc<SimFs> {
    let copy = fs.crash_image(&CrashModel::Everything, 0);
    copy.remove_file(missing).expect("it was there");
    copy.sync_dir(Path::new(DIR)).expect("a sync");
    copy
}

#[test]
fn a_missing_file_is_named() {
    for closed in [true, false] {
        let runner = made(3, closed);
        let fs = &runner.world.fs;
        let current = Path::new(DIR).join(ids::CURRENT);
        let error = refuse(&without(fs, &current), same);
        assert_says(
            &error,
            ErrorKind::Corruption,
            &["CURRENT", "missing", "siltstone verify"],
        );
        let mut expected = needed(fs, FileKind::Table);
        expected.extend(needed(fs, FileKind::Manifest));
        for path in expected {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("our own");
            let _place = PrintOnPanic(format!("without {name}, closed {closed}"));
            let error = refuse(&without(fs, &path), same);
            assert_says(
                &error,
                ErrorKind::Corruption,
                &[name, "missing", "siltstone verify"],
            );
        }
    }
}

#[test]
fn a_missing_segment_is_named_unless_it_was_the_last() {
    let world = World::new(4);
    let options = world.options().memtable_bytes_max(1 << 20);
    let db = options.open(DIR).expect("a new database");
    for index in 0..60_u64 {
        db.put(index.to_be_bytes(), tagged(index, 300))
            .expect("a put");
        world.executor.step();
    }
    db.sync().expect("a sync");
    drop(db);
    let fs = &world.fs;
    let all = order::segments(fs, Path::new(DIR));
    let holding = |path: &&PathBuf| {
        let bytes = fs.contents(path).expect("it was listed");
        order::parse(path, &bytes)
            .iter()
            .any(|record| record.kind == log::RecordKind::Batch)
    };
    let needed: Vec<_> = all.iter().filter(holding).collect();
    assert!(needed.len() > 2, "too few segments for this test");
    for path in &needed[..needed.len() - 1] {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("our own");
        let _place = PrintOnPanic(format!("without {name} of {needed:?}"));
        let copy = without(fs, path);
        let error = refuse(&copy, same);
        assert_says(&error, ErrorKind::Corruption, &["siltstone verify"]);
    }
}

#[test]
fn a_damaged_current_or_manifest_is_named() {
    let runner = made(5, true);
    let fs = &runner.world.fs;
    let manifest = needed(fs, FileKind::Manifest).remove(0);
    for (path, at) in [
        (Path::new(DIR).join(ids::CURRENT), 3),
        (manifest.clone(), 100),
        (manifest.clone(), 600),
    ] {
        let copy = fs.crash_image(&CrashModel::Everything, 0);
        let mut bytes = copy.contents(&path).expect("it is there");
        bytes[at] ^= 1;
        copy.install(&path, &bytes).expect("a directory");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("our own");
        let _place = PrintOnPanic(format!("damaged at {at}: {name}"));
        assert_says(
            &refuse(&copy, same),
            ErrorKind::Corruption,
            &[name, "siltstone verify"],
        );
    }
}

/// Raises the version in the header of a segment or MANIFEST, and makes its checksum right.
fn as_newer_segment(bytes: &mut [u8]) {
    bytes[8] += 1;
    let file_id = u64::from_le_bytes(bytes[28..36].try_into().expect("eight bytes"));
    let crc = Crc::at(file_id, 0).and(&bytes[..508]).finish();
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_newer_format_is_refused_and_not_touched() {
    let runner = made(6, false);
    let fs = &runner.world.fs;
    for kind in [FileKind::Manifest, FileKind::Segment] {
        let copy = fs.crash_image(&CrashModel::Everything, 0);
        let path = needed(fs, kind).pop().expect("there is one");
        let mut bytes = copy.contents(&path).expect("it is there");
        as_newer_segment(&mut bytes);
        copy.install(&path, &bytes).expect("a directory");
        let _place = PrintOnPanic(format!("a newer {}", path.display()));
        let error = refuse(&copy, same);
        assert_says(&error, ErrorKind::Unsupported, &["found=", "supported="]);
    }
}

#[test]
fn a_newer_table_is_refused_by_reads() {
    let runner = made(6, true);
    let fs = runner.world.fs.crash_image(&CrashModel::Everything, 0);
    let mut refused = 0;
    for path in needed(&fs, FileKind::Table) {
        let mut bytes = fs.contents(&path).expect("it is there");
        let version = bytes.len() - 12;
        bytes[version] += 1;
        fs.install(&path, &bytes).expect("a directory");
    }
    let world = World::on(fs, 0);
    match world.open() {
        Err(error) => assert_says(&error, ErrorKind::Unsupported, &["newer format"]),
        Ok(db) => {
            for key in runner.history.last().keys() {
                let error = db.get(key).expect_err("its table is of a newer format");
                assert_says(&error, ErrorKind::Unsupported, &["newer format", ".sst"]);
                refused += 1;
            }
            assert!(refused > 0);
        }
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let fs = SimFs::new(1);
    let wrong: [fn(Options) -> Options; 8] = [
        |options| options.memtable_bytes_max(4095),
        |options| options.block_bytes_target(0),
        |options| options.level_fan_out(1),
        |options| options.level0_table_count_trigger(0),
        |options| options.open_tables_max(15),
        |options| options.value_bytes_max(usize::MAX),
        |options| options.log_bytes_max(1),
        |options| options.sync_interval(Some(std::time::Duration::ZERO)),
    ];
    for change in wrong {
        let error = refuse(&fs, change);
        assert_says(
            &error,
            ErrorKind::InvalidArgument,
            &["option=", "min=", "max="],
        );
    }
    assert!(fs.paths().is_empty(), "nothing was created");
}

#[test]
fn keys_and_values_beyond_their_limits_are_rejected() {
    let world = World::new(1);
    let db = world
        .options()
        .value_bytes_max(100)
        .open(DIR)
        .expect("a new database");
    for (key, value) in [(65_536, 0), (0, 101), (1, 5000)] {
        let error = db
            .put(vec![b'k'; key], vec![b'v'; value])
            .expect_err("over the limit");
        assert_says(&error, ErrorKind::InvalidArgument, &["max="]);
        assert_eq!(error.outcome(), Some(siltstone::WriteOutcome::Rejected));
    }
    db.put(vec![b'k'; 65_535], vec![b'v'; 100])
        .expect("at the limit");
    db.compact_range(..).expect("a compaction");
    assert_eq!(contents(&db).expect("a scan").len(), 1);
}
