//! Handles that only read: they change nothing, keep nobody out, and show a true state beside a
//! writer that flushes, compacts, rotates and unlinks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::FileKind;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::fs::sim::CrashModel;
use siltstone::{Db, Durability, ErrorKind, Options, ReadMode, WriteBatch, WriteOptions};

use crate::history::Runner;
use crate::order;
use crate::processes::{Killed, again, role};
use crate::support::{
    DIR, Model, PrintOnPanic, Setup, World, assert_same, contents, files, for_each_seed, rounds,
    tagged,
};

/// Opens what `world` has through a handle of the disk that must change nothing.
fn open_for_reading(world: &World) -> siltstone::Result<Db> {
    let options = world.options().file_system(world.fs.for_reading());
    options.open_read_only(DIR)
}

fn assert_refuses_writes(db: &Db) {
    let disk = WriteOptions::new().durability(Durability::Disk);
    let mut batch = WriteBatch::new();
    batch.put("a", "b");
    let results = [
        db.put("key", "value").map(drop),
        db.delete_with("key", &disk).map(drop),
        db.write(&batch).map(drop),
        db.flush(),
        db.sync(),
        db.compact_range(..),
    ];
    for result in results {
        let error = result.expect_err("it only reads");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("reading only"), "{error}");
    }
}

#[test]
fn it_shows_what_a_writer_beside_it_has_written_so_far() {
    for_each_seed(
        "it_shows_what_a_writer_beside_it_has_written_so_far",
        12,
        |seed| {
            let mut runner = Runner::new(seed);
            runner.open().expect("a new database");
            let mut open: Vec<(Db, Model)> = Vec::new();
            for round in 0..25 {
                for _ in 0..12 {
                    runner.commit().expect("a commit");
                    runner.step(1);
                }
                let before = files(&runner.world.fs);
                let db = open_for_reading(&runner.world).expect("it is a database");
                assert!(db.is_read_only());
                let model = runner.history.last().clone();
                assert_same(&db, &model, &runner.keys);
                assert_refuses_writes(&db);
                assert!(before == files(&runner.world.fs), "a file was changed");
                open.push((db, model));
                match round % 5 {
                    1 => runner.flush().expect("a flush"),
                    3 => runner.compact().expect("a compaction"),
                    _ => runner.step(30),
                }
                // Those opened before show what they showed, whatever was unlinked.
                for (db, model) in &open {
                    let _place = PrintOnPanic(format!("round {round}"));
                    assert!(contents(db).expect("a scan") == *model);
                }
                if runner.rng.chance(30) {
                    let (db, _) = open.remove(0);
                    db.close().expect("nothing to write");
                    assert_eq!(db.get("a").expect_err("closed").kind(), ErrorKind::Closed);
                }
            }
            let before = files(&runner.world.fs);
            drop(open);
            assert!(before == files(&runner.world.fs), "a file was changed");
            runner.close().expect("a clean close");
        },
    );
}

#[test]
fn it_changes_nothing_of_a_database_that_nobody_has_open() {
    for_each_seed(
        "it_changes_nothing_of_a_database_that_nobody_has_open",
        8,
        |seed| {
            let mut runner = Runner::new(seed);
            runner.open().expect("a new database");
            for _ in 0..80 {
                runner.commit().expect("a commit");
            }
            if seed % 2 == 0 {
                runner.compact().expect("a compaction");
                runner.close().expect("a clean close");
            } else {
                runner.sync().expect("a sync");
            }
            for model in [CrashModel::Everything, CrashModel::Synced] {
                let image = runner.world.fs.crash_image(&model, seed);
                let world = World::on(image, seed);
                let before = files(&world.fs);
                for _ in 0..2 {
                    let db = open_for_reading(&world).expect("it opens");
                    assert_same(&db, runner.history.last(), &runner.keys);
                }
                assert_eq!(world.fs.mutation_count(), 0);
                assert!(before == files(&world.fs), "a file was changed");
            }
        },
    );
}

#[test]
fn a_torn_end_of_the_log_is_where_it_ends() {
    let world = World::new(3);
    let options = world.options().memtable_bytes_max(1 << 20);
    let db = options.log_segment_bytes(64 << 10).open(DIR).expect("new");
    for index in 0..20_u64 {
        db.put(index.to_be_bytes(), tagged(index, 90))
            .expect("a put");
    }
    let segment = order::segments(&world.fs, Path::new(DIR))
        .pop()
        .expect("one is live");
    let bytes = world.fs.contents(&segment).expect("it is there");
    let ends: Vec<_> = order::parse(&segment, &bytes)
        .iter()
        .map(|record| usize::try_from(record.end).expect("in memory"))
        .collect();
    // Half of the last record is not there yet.
    for missing in [1, 20, 50] {
        let image = world.fs.crash_image(&CrashModel::Everything, 0);
        let mut torn = bytes.clone();
        let end = *ends.last().expect("twenty");
        torn[end - missing..].fill(0);
        image.install(&segment, &torn).expect("a directory");
        let world = World::on(image, 3);
        let found = contents(&open_for_reading(&world).expect("it opens")).expect("a scan");
        // A single byte may have been zero before.
        assert!(found.len() == 19 || missing == 1 && found.len() == 20);
        let found = files(&world.fs).remove(&segment).expect("it is there");
        assert!(found == torn, "the end was changed");
    }
}

#[test]
fn what_is_no_database_is_refused_and_not_made() {
    let world = World::new(1);
    let error = open_for_reading(&world).expect_err("nothing is there");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(world.fs.paths().is_empty());
    world
        .fs
        .install(Path::new(DIR), b"a file")
        .expect("the root is there");
    let error = open_for_reading(&world).expect_err("a file");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn damage_is_told_as_by_any_other_open() {
    let mut runner = Runner::new(4);
    runner.open().expect("a new database");
    for _ in 0..60 {
        runner.commit().expect("a commit");
    }
    runner.compact().expect("a compaction");
    runner.close().expect("a clean close");
    for kind in [FileKind::Table, FileKind::Manifest] {
        let image = runner.world.fs.crash_image(&CrashModel::Everything, 0);
        let gone = order::of_kind(&image, Path::new(DIR), kind).remove(0);
        base::fs::FileSystem::remove_file(&*image, &gone).expect("it was there");
        let error = open_for_reading(&World::on(image, 4)).expect_err("a file is missing");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        let name = gone.file_name().and_then(|name| name.to_str());
        assert!(error.to_string().contains(name.expect("ours")), "{error}");
    }
}

/// Every key of a batch gets the number of the batch.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn options(seed: u64) -> Options {
    let options = Setup::of_seed(seed).options().compaction_threads(2);
    let mode = [ReadMode::Mapped, ReadMode::Positioned][usize::from(seed % 2 == 1)];
    options.read_mode(mode).memtable_bytes_max(16 << 10)
}

fn write_batch(db: &Db, number: u64) {
    let mut batch = WriteBatch::new();
    for key in KEYS {
        batch.put(key, tagged(number, 200));
    }
    // Something to flush and compact that does not stay.
    batch.put(number.to_be_bytes(), tagged(number, 100));
    if number > 200 {
        batch.delete((number - 200).to_be_bytes());
    }
    db.write(&batch).expect("a batch");
}

/// The number that all keys have.
fn read_batch(db: &Db) -> u64 {
    let numbers: Vec<_> = KEYS
        .iter()
        .map(|key| {
            let value = db.get(key).expect("a get").expect("it is there");
            u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
        })
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] == pair[1]),
        "half a batch is shown: {numbers:?}"
    );
    numbers[0]
}

/// Opens again and again while another thread or process writes.
fn read_beside(dir: &Path, seed: u64, acknowledged: impl Fn() -> u64, rounds: u64) {
    let mut last = 0;
    let mut kept = Vec::new();
    for round in 0..rounds {
        let at_least = acknowledged();
        let db = options(seed).open_read_only(dir);
        let db = db.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let number = read_batch(&db);
        assert!(number >= at_least, "{number} after {at_least}");
        assert!(number >= last, "{number} after {last}");
        last = number;
        kept.push((db, number));
        if kept.len() > 4 {
            let (db, number) = kept.remove(0);
            assert_eq!(read_batch(&db), number, "it shows something later");
            let shown = contents(&db).expect("a scan").len();
            assert!(shown > KEYS.len(), "{shown} keys");
        }
    }
}

#[test]
fn it_is_right_beside_a_writer_that_never_rests() {
    for seed in 0..2 * rounds() {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = options(seed).open(dir.path()).expect("a new database");
        write_batch(&db, 1);
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let number = written.load(Ordering::SeqCst) + 1;
                    write_batch(&db, number);
                    written.store(number, Ordering::SeqCst);
                    if number % 64 == 0 {
                        db.sync().expect("a sync");
                    }
                }
            });
            let stop = StopOnDrop(&stop);
            // Until the writer has flushed, compacted and rotated a few times.
            while written.load(Ordering::SeqCst) < 400 {
                read_beside(dir.path(), seed, || written.load(Ordering::SeqCst), 30);
            }
            drop(stop);
        });
        db.close().expect("a clean close");
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn it_is_right_beside_another_process() {
    if let Some((_, dir)) = role() {
        let db = options(1).open(dir).expect("nobody else writes");
        write_batch(&db, 1);
        println!("\nopen");
        // Until it is killed.
        for number in 2..u64::MAX {
            write_batch(&db, number);
        }
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = "fault_read_only::it_is_right_beside_another_process";
    let child = again(test, "write", dir.path(), "").spawn();
    let mut child = Killed(child.expect("a process can be started"));
    let output = child.0.stdout.take().expect("it is a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    assert!(lines.any(|line| line.expect("a line of text") == "open"));
    read_beside(dir.path(), 0, || 1, 40);
    drop(child);
    read_beside(dir.path(), 0, || 1, 2);
}

#[test]
fn a_table_that_vanishes_during_the_open_is_no_error() {
    let world = World::new(6);
    let db = world.open().expect("a new database");
    for index in 0..120_u64 {
        db.put(index.to_be_bytes(), tagged(index, 90))
            .expect("a put");
        world.executor.step();
    }
    db.flush().expect("a flush");
    // Somebody replaces all tables just before the first one is opened.
    let (writer, opened) = (db.clone(), Arc::new(AtomicU64::new(0)));
    let executor = Arc::clone(&world.executor);
    let count = Arc::clone(&opened);
    let disk = Arc::clone(&world.fs);
    let is_there = move |path: &Path| disk.contents(path).is_some();
    let meddle = move |path: &Path| {
        let is_table = path.extension().is_some_and(|extension| extension == "sst");
        if is_table && count.fetch_add(1, Ordering::SeqCst) == 0 {
            writer.compact_range(..).expect("a compaction");
            // Which unlinks what it has replaced.
            executor.run_until_idle();
            assert!(!is_there(path), "the table is still there");
        }
        false
    };
    let fs = FaultFs::new(world.fs.for_reading());
    let fault = Fault::new(OpKind::Open, FaultError::Eio).for_ever();
    fs.fail(fault.only(meddle));
    let reader = world.options().file_system(fs).open_read_only(DIR);
    let reader = reader.expect("it is looked at again");
    assert!(opened.load(Ordering::SeqCst) > 1, "no table was opened");
    assert_eq!(
        contents(&reader).expect("a scan"),
        contents(&db).expect("a scan")
    );
}
