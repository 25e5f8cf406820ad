//! Databases whose files somebody has changed, with checksums made right, opened and used through
//! the library by a process of its own: no panic, bounded memory, bounded time. What is read may be
//! a lie: a right checksum says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::sim::{CrashModel, SimFs};
use base::random::{Random, mix};
use base::{FileKind, FileNumber, KeyspaceId, SequenceNumber, ids};
use compaction::VersionEdit;
use siltstone::{
    Compression, Db, Durability, Health, KeyspaceOptions, Options, ReadMode, RecoveryMode, Result,
    WriteBatch, WriteOptions,
};

use crate::hostile::{
    Original, change, changed_segment, extreme, extreme_segment, repeating_segment, rewritten,
};
use crate::processes;
use crate::reads::Reads;
use crate::support::{DIR, PrintOnPanic, Setup, rounds, tagged};

const SEED: u64 = 0xba5e;
/// Changed databases of each kind, times the rounds.
const CASE_COUNT: u64 = 150;
/// What the process may take in all; the files have some 100 KiB, and it needs threads to run.
const MEMORY_KIB: u64 = 1 << 20;
const CPU_SECONDS: u64 = 300;
/// No database of this size shows more entries: then a scan goes round in a circle.
const ENTRY_COUNT_MAX: usize = 1 << 20;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn key(n: u64) -> Vec<u8> {
    format!("key{n:05}").into_bytes()
}

/// A machine with these files and nothing else.
fn machine(files: &Files) -> Arc<SimFs> {
    let fs = SimFs::new(1);
    base::fs::create_dir_all(&*fs, Path::new(DIR)).expect("a directory");
    for (path, bytes) in files {
        fs.install(path, bytes).expect("the directory is there");
    }
    fs
}

fn options(fs: &Arc<SimFs>, seed: u64) -> (Options, Arc<Stepped>) {
    let executor = Stepped::new(seed);
    let options = Setup::of_seed(seed)
        .options()
        .file_system(Arc::clone(fs) as _)
        .executor(Arc::clone(&executor) as _)
        .clock(Arc::new(ManualClock::new(1_700_000_000_000_000)) as _);
    (options, executor)
}

/// A database with tables on several levels, unflushed writes in its log and three keyspaces.
fn original(kind: u64) -> Files {
    let fs = machine(&Files::new());
    let (options, executor) = options(&fs, kind);
    let options = match kind {
        0 => options.compression(Compression::None),
        _ => options
            .compression(Compression::Zstd { level: 1 })
            .bottom_compression(Compression::Zstd { level: 1 })
            .dictionary_bytes_max(512),
    };
    let db = options.open(DIR).expect("a new database");
    let small = KeyspaceOptions::new().memtable_bytes_max(4 << 10);
    let other = db.create_keyspace("other", &small).expect("new");
    db.create_keyspace("gone", &small).expect("new");
    for n in 0..500 {
        let mut batch = WriteBatch::new();
        batch
            .put(key(n % 170), tagged(n, 60))
            .delete(key(n * 7 % 170));
        batch.put_in(&other, key(n % 90), tagged(n, 40));
        db.write(&batch).expect("a batch");
        match n {
            250 => db.compact_range(..).expect("a compaction"),
            300 => other.flush().expect("a flush"),
            400 => db.drop_keyspace("gone").expect("a drop"),
            _ => drop(executor.step()),
        }
    }
    let snapshot = db.snapshot().expect("a snapshot");
    db.flush().expect("a flush");
    let disk = WriteOptions::new().durability(Durability::Disk);
    for n in 0..40 {
        db.put_with(key(n % 4), tagged(n, 30), &disk)
            .expect("a put");
    }
    drop((snapshot, other, db));
    let contents = |path: PathBuf| {
        let bytes = fs.contents(&path).expect("it was listed");
        (path, bytes)
    };
    fs.paths().into_iter().map(contents).collect()
}

/// The files of one kind of database, and its tables taken apart.
struct Victim {
    files: Files,
    tables: BTreeMap<PathBuf, Original>,
}

impl Victim {
    fn new(kind: u64) -> Self {
        let files = original(kind);
        let fs = machine(&files);
        let mut tables = BTreeMap::new();
        for (path, bytes) in &files {
            if kind_of(path) == Some(FileKind::Table) {
                let table = Original::take(&*fs, path, bytes.clone());
                tables.insert(path.clone(), table);
            }
        }
        assert!(tables.len() > 3, "{} tables", tables.len());
        Self { files, tables }
    }

    /// The files with one to three of them changed.
    fn changed(&self, random: &mut Random) -> Files {
        let mut files = self.files.clone();
        // MANIFEST, CURRENT and segments are few: each kind has the same share.
        let kinds = [
            Some(FileKind::Table),
            Some(FileKind::Table),
            Some(FileKind::Manifest),
            Some(FileKind::Segment),
            Some(FileKind::Segment),
            Some(FileKind::SegmentIndex),
            None,
        ];
        for _ in 0..=random.below(3) {
            let kind = *random.pick(&kinds);
            let of_kind: Vec<_> = files.keys().filter(|path| kind_of(path) == kind).collect();
            if of_kind.is_empty() {
                continue;
            }
            let path = (*random.pick(&of_kind)).clone();
            let bytes = files.get_mut(&path).expect("one of them");
            match kind {
                Some(FileKind::Table) => *bytes = self.tables[&path].changed(random),
                Some(FileKind::Segment) if random.one_in(4) => {
                    *bytes = repeating_segment(bytes, random);
                }
                Some(FileKind::Manifest | FileKind::Segment) => {
                    *bytes = changed_segment(bytes, random);
                }
                _ if bytes.is_empty() => {}
                _ => change(bytes, random),
            }
        }
        files
    }
}

impl Victim {
    /// The files with a number or two of the log or of MANIFEST at an extreme.
    fn with_extremes(&self, random: &mut Random) -> Files {
        let mut files = self.files.clone();
        for _ in 0..=random.below(2) {
            let kind = *random.pick(&[FileKind::Manifest, FileKind::Manifest, FileKind::Segment]);
            let of_kind: Vec<_> = files.keys().filter(|p| kind_of(p) == Some(kind)).collect();
            let path = (*random.pick(&of_kind)).clone();
            let bytes = files.get_mut(&path).expect("one of them");
            if kind == FileKind::Manifest && !random.one_in(4) {
                let mut left = random.below(4);
                *bytes = rewritten(bytes, |payload| {
                    let Ok(mut edit) = VersionEdit::decode(payload) else {
                        return payload.to_vec();
                    };
                    if left == 0 {
                        push_to_extreme(&mut edit, random);
                    }
                    left = left.wrapping_sub(1);
                    edit.encode()
                });
            } else {
                *bytes = extreme_segment(bytes, random);
            }
        }
        files
    }
}

/// Sets one or two numbers of an edit to an extreme.
fn push_to_extreme(edit: &mut VersionEdit, random: &mut Random) {
    let number = extreme(random);
    let seq = SequenceNumber::new(number & SequenceNumber::MAX.get()).expect("cut to fit");
    let id = KeyspaceId(number.to_le_bytes()[0].into());
    match random.below(8) {
        0 => edit.epoch = Some(number),
        1 => edit.next_file_number = Some(FileNumber(number)),
        2 => edit.last_seq = Some(seq),
        3 => edit.log_durable_upto = Some((number, extreme(random))),
        4 => edit.flushed_floor = Some(seq),
        5 => {
            edit.next_keyspace_id = Some(if random.coin() {
                id
            } else {
                KeyspaceId(u32::MAX)
            });
        }
        _ => {}
    }
    let Some(keyspace) = edit.keyspaces.last_mut() else {
        return;
    };
    match random.below(8) {
        0 => keyspace.id = id,
        1 => keyspace.id = KeyspaceId(u32::MAX),
        2 => keyspace.flushed_upto = Some(seq),
        3 => keyspace.dropped_at = Some(seq),
        _ => {}
    }
    if let Some((_, meta)) = keyspace.added.last_mut() {
        match random.below(12) {
            0 => meta.number = FileNumber(number),
            1 => meta.entry_count = number,
            2 => meta.tombstone_count = number,
            3 => meta.raw_bytes = number,
            4 => meta.seq_largest = seq,
            5 => meta.seq_smallest = seq,
            6 => meta.hidden_count = number,
            7 => meta.created_micros = number,
            _ => {}
        }
    }
}

fn kind_of(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    FileKind::parse(name).map(|(kind, _)| kind)
}

/// Reads everything in every way; whatever comes is well, as long as it ends.
fn read(reads: &impl Reads) {
    let keys: Vec<_> = (0..175).map(key).collect();
    for key in &keys {
        let _ = reads.get(key);
    }
    let _ = reads.multi_get(&keys);
    for backward in [false, true] {
        let Ok(mut all) = reads.all() else { continue };
        let mut count = 0;
        loop {
            let item = if backward {
                all.next_back()
            } else {
                all.next()
            };
            match item {
                None | Some(Err(_)) => break,
                Some(Ok(_)) => count += 1,
            }
            assert!(count < ENTRY_COUNT_MAX, "a scan does not end");
        }
    }
}

fn read_all(db: &Db) {
    read(db);
    for name in db.keyspaces().unwrap_or_default() {
        if let Ok(keyspace) = db.keyspace(&name) {
            read(&keyspace);
        }
    }
    if let Ok(snapshot) = db.snapshot() {
        read(&snapshot);
    }
    let _ = (db.stats(), db.amplification());
    let _ = db.explain_get(key(3));
}

/// Writes, flushes, compacts and closes; a panic of the background would poison.
fn write_all(db: &Db, executor: &Stepped) -> Result<()> {
    let mut result = Ok(());
    for name in db.keyspaces().unwrap_or_default() {
        let Ok(keyspace) = db.keyspace(&name) else {
            continue;
        };
        for n in 0..8 {
            result = result.and(keyspace.put(key(n * 20), tagged(n, 30)).map(drop));
        }
        result = result.and(keyspace.flush());
        result = result.and(keyspace.compact_range(..));
    }
    for _ in 0..50 {
        executor.step();
    }
    result.and(db.sync())
}

fn check_health(db: &Db) {
    if let Health::Poisoned(error) | Health::Degraded(error) = db.health() {
        let message = error.to_string();
        assert!(!message.contains("panicked"), "{message}");
    }
}

/// Whether it could be opened.
fn use_database(files: &Files, random: &mut Random) -> bool {
    let fs = machine(files);
    let mode = *random.pick(&[ReadMode::Mapped, ReadMode::Positioned]);
    let (reading, _executor) = options(&fs, random.next_u64());
    let reading = reading.file_system(fs.for_reading()).read_mode(mode);
    if let Ok(db) = reading.open_read_only(DIR) {
        read_all(&db);
        check_health(&db);
    }
    let recovery = *random.pick(&[
        RecoveryMode::Strict,
        RecoveryMode::TornTail,
        RecoveryMode::PointInTime,
    ]);
    let (writing, executor) = options(&fs, random.next_u64());
    let writing = writing.read_mode(mode).recovery_mode(recovery);
    let db = match writing.open(DIR) {
        Ok(db) => db,
        Err(error) => {
            let message = error.to_string();
            assert!(
                !message.is_empty() && !message.contains('\n'),
                "{message:?}"
            );
            return false;
        }
    };
    read_all(&db);
    let _ = write_all(&db, &executor);
    read_all(&db);
    check_health(&db);
    let _ = db.close();
    drop(db);
    // What it made of them is opened once more.
    let (again, _executor) = options(&fs, random.next_u64());
    if let Ok(db) = again.open(DIR) {
        read_all(&db);
        check_health(&db);
    }
    true
}

const TEST: &str = "fault_hostile::hostile_files_are_survived_by_the_library";

#[test]
fn hostile_files_are_survived_by_the_library() {
    run_apart(TEST, Victim::changed);
}

const EXTREMES_TEST: &str = "fault_hostile::numbers_at_their_ends_are_survived_by_the_library";

#[test]
fn numbers_at_their_ends_are_survived_by_the_library() {
    run_apart(EXTREMES_TEST, Victim::with_extremes);
}

/// Runs the cases of `test` in a process with limits, or here if this is that one.
fn run_apart(test: &str, changed: impl Fn(&Victim, &mut Random) -> Files) {
    if processes::role().is_some() {
        return run_cases(changed);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limits = format!("ulimit -v {MEMORY_KIB}; ulimit -t {CPU_SECONDS}; exec");
    processes::passes(processes::again(test, "victim", dir.path(), &limits));
}

fn run_cases(changed: impl Fn(&Victim, &mut Random) -> Files) {
    println!("seed {SEED:#x}");
    let mut opened_count = 0;
    for kind in 0..3 {
        let victim = Victim::new(kind);
        for case in 0..CASE_COUNT * rounds() {
            let seed = SEED ^ mix(kind << 32 | case);
            let _place = PrintOnPanic(format!("kind {kind}, case {case}, seed {seed:#x}"));
            let mut random = Random(seed);
            let files = changed(&victim, &mut random);
            opened_count += u64::from(use_database(&files, &mut random));
        }
    }
    let total = 3 * CASE_COUNT * rounds();
    println!("{opened_count} of {total} could be opened");
    // Were checksums not made right, next to none would be opened and refused for another reason.
    assert!(opened_count > total / 10, "{opened_count} of {total}");
    assert!(opened_count < total, "{opened_count} of {total}");
}

/// A sequence number that two writes have, and checksums that vouch for both.
#[test]
fn a_log_that_repeats_a_sequence_number_is_refused() {
    let fs = machine(&Files::new());
    let (writing, _executor) = options(&fs, 1);
    let db = writing.open(DIR).expect("a new database");
    for n in 0..8 {
        db.put(key(0), tagged(n, 10)).expect("a put");
    }
    db.sync().expect("a sync");
    let after = fs.crash_image(&CrashModel::Everything, 1);
    let paths = after.paths().into_iter();
    let is_segment = |path: &PathBuf| kind_of(path) == Some(FileKind::Segment);
    let segments: Vec<_> = paths.filter(is_segment).collect();
    let mut changed = None;
    for path in segments {
        let bytes = after.contents(&path).expect("it was listed");
        let repeating = repeating_segment(&bytes, &mut Random::printed("repeating", SEED));
        if repeating != bytes {
            after.install(&path, &repeating).expect("it is there");
            changed = Some(path);
        }
    }
    let changed = changed.expect("one of them holds the writes");
    for recovery in [
        RecoveryMode::Strict,
        RecoveryMode::TornTail,
        RecoveryMode::PointInTime,
    ] {
        let (again, _executor) = options(&after, 2);
        let again = again.recovery_mode(recovery);
        for opened in [again.clone().open(DIR), again.open_read_only(DIR)] {
            let error = opened.expect_err("two writes have one number");
            assert!(error.is_corruption(), "{recovery:?}: {error}");
            assert_eq!(error.path(), Some(changed.as_path()), "{error}");
            assert!(error.offset().is_some(), "{error}");
        }
    }
}

/// Whatever was named in CURRENT and MANIFEST, no file beside the database is touched.
#[test]
fn a_hostile_current_names_no_file_outside() {
    let victim = Victim::new(0);
    for name in [
        "MANIFEST-999999999999999999999999999\n",
        "MANIFEST-000001/../../secret\n",
        "../MANIFEST-000001\n",
        "/secret\n",
        "000001.log\n",
        "MANIFEST-\n",
        "\n",
        "",
        "\u{0}",
    ] {
        let mut files = victim.files.clone();
        let secret = PathBuf::from("/secret");
        files.insert(secret.clone(), b"not ours".to_vec());
        files.insert(Path::new(DIR).join(ids::CURRENT), name.into());
        let fs = machine(&files);
        let (options, _executor) = options(&fs, 1);
        let error = options.open(DIR).expect_err("no such MANIFEST");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(fs.contents(&secret).as_deref(), Some(&b"not ours"[..]));
        // Nothing was changed in the directory either.
        for (path, bytes) in &files {
            assert_eq!(
                fs.contents(path).as_ref(),
                Some(bytes),
                "{}",
                path.display()
            );
        }
    }
}
