//! Copies by `Db::checkpoint`: one moment in all keyspaces, whole or not there after a crash, and
//! independent of what they were made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::{CrashModel, SimFs};
use base::fs::{FileSystem, OsFs};
use siltstone::{
    Db, ErrorKind, Health, KeyspaceOptions, Options, RecoveryMode, Result, WriteBatch,
};

use crate::support::{DIR, Model, PrintOnPanic, Rng, World, contents, for_each_seed, tagged};

const COPY: &str = "/copy";

type Everything = BTreeMap<String, Model>;

fn everything(db: &Db) -> Result<Everything> {
    let read = |name: String| {
        let keyspace = db.keyspace(&name)?;
        Ok((name, contents(&keyspace)?))
    };
    db.keyspaces()?.into_iter().map(read).collect()
}

fn small() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .memtable_bytes_max(4 << 10)
        .table_bytes_target(4 << 10)
        .level_base_bytes(32 << 10)
}

/// A database with keyspaces, tables in levels, and writes that are in the log alone; one keyspace
/// came and went.
fn filled(world: &World, seed: u64) -> Db {
    let db = world.open().expect("a new database");
    let mut rng = Rng::new(seed);
    let mut names = vec!["default"];
    for name in ["a", "b", "gone"] {
        db.create_keyspace(name, &small()).expect("created");
        names.push(name);
    }
    for n in 0..150 + seed % 100 {
        let name = *rng.pick(&names);
        let keyspace = db.keyspace(name).expect("there");
        let key = format!("key{}", rng.below(40));
        if rng.chance(15) {
            keyspace.delete(key).expect("deleted");
        } else {
            let value = tagged(n, 10 + rng.below(150));
            keyspace.put(key, value).expect("put");
        }
        if rng.chance(10) {
            world.executor.step();
        }
        if n == 100 {
            db.drop_keyspace("gone").expect("dropped");
            names.pop();
        }
    }
    if seed.is_multiple_of(3) {
        db.flush().expect("flushed");
    }
    db.sync().expect("synced");
    db
}

/// What a database at `dir` of `fs` holds, as a strict open finds it; `None` if there is none.
fn look(fs: &Arc<SimFs>, dir: &str, seed: u64) -> Result<Everything> {
    let world = World::on(Arc::clone(fs), seed);
    let options = world.options().create_if_missing(false);
    let db = options.recovery_mode(RecoveryMode::Strict).open(dir)?;
    let found = everything(&db)?;
    db.close()?;
    Ok(found)
}

fn models(fs: &SimFs) -> Vec<CrashModel> {
    let mut models = fs.crash_models(3, 2);
    models.push(CrashModel::Sectors);
    models
}

#[test]
fn a_copy_holds_all_keyspaces_and_opens_again_and_again() {
    for_each_seed(
        "a_copy_holds_all_keyspaces_and_opens_again_and_again",
        12,
        |seed| {
            let world = World::new(seed);
            let db = filled(&world, seed);
            let expected = everything(&db).expect("a scan");
            let made = db.checkpoint(COPY).expect("nothing fails");
            assert_eq!(made.copied_bytes, 0);
            assert_eq!(made.table_count > 0, made.linked_bytes > 0);
            // What is written later is not in it; what it shares goes from the database alone.
            for n in 0..80 {
                db.put(format!("key{n}"), tagged(n, 100)).expect("put");
            }
            db.drop_keyspace("a").expect("dropped");
            db.compact_range(..).expect("compacted");
            let after = everything(&db).expect("a scan");
            let again = World::on(Arc::clone(&world.fs), seed);
            let options = again.options().create_if_missing(false);
            let strict = options.recovery_mode(RecoveryMode::Strict);
            let copy = strict.clone().open(COPY).expect("a database");
            assert_eq!(everything(&copy).expect("a scan"), expected);
            copy.put("only", "here").expect("put");
            copy.compact_range(..).expect("compacted");
            drop(copy);
            let copy = strict.open(COPY).expect("a database once more");
            let mut with_new = expected.clone();
            let default = with_new.get_mut("default").expect("always there");
            default.insert(b"only".to_vec(), b"here".to_vec());
            assert_eq!(everything(&copy).expect("a scan"), with_new);
            assert_eq!(everything(&db).expect("a scan"), after);
            copy.close().expect("closed");
            db.close().expect("closed");
        },
    );
}

#[test]
fn a_power_cut_at_every_call_leaves_the_whole_copy_or_none() {
    for seed in [1, 3, 8] {
        println!("seed {seed}");
        let world = World::new(seed);
        let db = filled(&world, seed);
        let before = world.fs.mutation_count();
        db.checkpoint(COPY).expect("nothing fails");
        let call_count = world.fs.mutation_count() - before;
        assert!(call_count > 10, "{call_count} calls are no checkpoint");
        drop(db);
        let mut whole_count = 0;
        for call in 1..=call_count {
            let world = World::new(seed);
            let db = filled(&world, seed);
            let expected = everything(&db).expect("a scan");
            world.fs.crash_after(call);
            let result = db.checkpoint(COPY);
            assert!(result.is_err() && world.fs.has_crashed(), "call {call}");
            drop(db);
            for model in models(&world.fs) {
                let _place =
                    PrintOnPanic(format!("cut in call {call}/{call_count}, image {model:?}"));
                let image = world.fs.crash_image(&model, seed ^ call);
                whole_count += u32::from(check_image(&image, seed, &expected));
            }
        }
        assert!(whole_count > 0, "the last calls leave a whole copy");
    }
}

/// Checks what a cut left of copy and database, and that a copy can be made afterwards. Returns
/// whether there was one.
fn check_image(image: &Arc<SimFs>, seed: u64, expected: &Everything) -> bool {
    let is_whole = match look(image, COPY, seed) {
        Ok(found) => {
            assert_eq!(found, *expected, "a copy of something else");
            true
        }
        Err(error) => {
            let kind = error.kind();
            let is_none = matches!(kind, ErrorKind::NotFound | ErrorKind::Corruption);
            assert!(is_none, "{error}");
            false
        }
    };
    let world = World::on(Arc::clone(image), seed);
    let db = world.open().expect("the database is as it was");
    assert_eq!(everything(&db).expect("a scan"), *expected);
    match db.checkpoint(COPY) {
        Ok(_) => {
            assert!(!is_whole, "a whole copy was replaced");
            assert_eq!(look(image, COPY, seed).expect("a database"), *expected);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            // A copy that lacks nothing but its name is not thrown away.
            let unnamed = || look(image, "/copy.tmp", seed).expect("a database");
            assert!(is_whole || unnamed() == *expected);
        }
    }
    db.close().expect("closed");
    is_whole
}

#[test]
fn a_copy_is_durable_when_the_call_returns() {
    for seed in 0..4 {
        let world = World::new(seed);
        let db = filled(&world, seed);
        db.put("not", "synced").expect("put");
        let expected = everything(&db).expect("a scan");
        db.checkpoint(COPY).expect("nothing fails");
        drop(db);
        for model in models(&world.fs) {
            let image = world.fs.crash_image(&model, seed);
            let found = look(&image, COPY, seed).expect("a database");
            assert_eq!(found, expected, "image {model:?}");
        }
    }
}

#[test]
fn whichever_call_fails_the_database_goes_on_and_the_next_copy_is_whole() {
    let seed = 5;
    let mut failed_count = 0;
    for nth in 1..400 {
        let world = World::new(seed);
        let db = filled(&world, seed);
        let expected = everything(&db).expect("a scan");
        world.fs.faults().clear();
        world
            .fs
            .fail(Fault::new(OpKind::Any, FaultError::Eio).nth(nth));
        let fired_before = world.fs.faults().fired();
        let result = db.checkpoint(COPY);
        let has_fired = world.fs.faults().fired() > fired_before;
        world.fs.clear_faults();
        let _place = PrintOnPanic(format!("call {nth} failed, and then {result:?}"));
        assert_eq!(everything(&db).expect("a scan"), expected);
        if !has_fired {
            assert!(nth > 20 && failed_count > 10, "{nth} calls, {failed_count}");
            return;
        }
        match result {
            Ok(_) => assert_eq!(look(&world.fs, COPY, seed).expect("a copy"), expected),
            Err(_) if !matches!(db.health(), Health::Poisoned(_)) => {
                failed_count += 1;
                db.checkpoint(COPY).expect("nothing is left of the first");
                assert_eq!(look(&world.fs, COPY, seed).expect("a copy"), expected);
            }
            Err(_) => {}
        }
    }
    panic!("a checkpoint takes fewer calls");
}

#[test]
fn where_nothing_can_be_linked_tables_are_copied_and_checked() {
    let world = World::new(4);
    let db = filled(&world, 4);
    db.flush().expect("flushed");
    let expected = everything(&db).expect("a scan");
    let no_links = Fault::new(OpKind::Link, FaultError::Eacces).for_ever();
    world.fs.fail(no_links);
    let made = db.checkpoint(COPY).expect("copied");
    assert!(made.copied_bytes > 0 && made.linked_bytes == 0, "{made:?}");
    assert_eq!(look(&world.fs, COPY, 4).expect("a copy"), expected);
    // Damage is not handed on.
    let table = world.fs.paths().into_iter().find(|path| {
        path.starts_with(DIR) && path.extension().is_some_and(|extension| extension == "sst")
    });
    let table = table.expect("a table was flushed");
    let mut bytes = world.fs.contents(&table).expect("listed");
    bytes[20] ^= 4;
    world.fs.install(&table, &bytes).expect("there");
    let error = db.checkpoint("/other").expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert_eq!(error.path(), Some(&*table), "{error}");
    assert_eq!(world.fs.status(Path::new("/other")).expect("asked"), None);
    let left = |path: &std::path::PathBuf| path.starts_with("/other.tmp");
    assert!(!world.fs.paths().iter().any(left), "something is left");
}

#[test]
fn a_place_that_is_taken_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let db = Db::open(at("db")).expect("a new database");
    db.put("key", "value").expect("put");
    let refused = |name: &str| {
        let error = db.checkpoint(at(name)).expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error}");
    };
    refused("db");
    refused("..");
    drop(OsFs.create(&at("file")).expect("made"));
    refused("file");
    OsFs.create_dir(&at("full")).expect("made");
    drop(OsFs.create(&at("full/x")).expect("made"));
    refused("full");
    // A database that happens to have the name of an unfinished copy.
    drop(Db::open(at("mine.tmp")).expect("a new database"));
    refused("mine");
    assert!(at("mine.tmp/CURRENT").exists());
    OsFs.create_dir(&at("empty")).expect("made");
    db.checkpoint(at("empty"))
        .expect("an empty directory will do");
    db.checkpoint(at("new/deep/copy"))
        .expect("made with parents");
    assert!(!at("empty.tmp").exists() && !at("new/deep/copy.tmp").exists());
    let reader = Db::open_read_only(at("empty")).expect("a database");
    let error = reader.checkpoint(at("third")).expect_err("it only reads");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    db.close().expect("closed");
    let error = db.checkpoint(at("third")).expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Writers put the same count into two keyspaces with each batch, others create and drop; whatever
/// a copy holds has been the state of one moment.
#[test]
fn copies_beside_writers_are_of_one_moment() {
    const WRITERS: u64 = 3;
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::new()
        .memtable_bytes_max(64 << 10)
        .log_segment_bytes(64 << 10)
        .log_bytes_max(512 << 10)
        .sync_interval(None);
    let db = options.clone().open(dir.path().join("db")).expect("opened");
    let keyspace_options = KeyspaceOptions::new().memtable_bytes_max(32 << 10);
    let other = db.create_keyspace("other", &keyspace_options);
    let other = other.expect("created");
    let is_done = AtomicBool::new(false);
    let checked = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, other, is_done) = (&db, &other, &is_done);
            scope.spawn(move || {
                for n in 1u64.. {
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut batch = WriteBatch::new();
                    let (key, value) = (format!("w{writer}"), tagged(n, 60));
                    batch.put(&key, &value).put_in(other, &key, &value);
                    batch.put(format!("{key}/{n:08}"), &value);
                    db.write(&batch).expect("written");
                }
            });
        }
        scope.spawn(|| {
            for n in 0u64.. {
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("brief{n}");
                let brief = db.create_keyspace(&name, &keyspace_options);
                let brief = brief.expect("created");
                brief.put("key", "value").expect("put");
                db.drop_keyspace(&name).expect("dropped");
            }
        });
        // Whatever fails in here, the others end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..12).fold(0, |checked, round| {
                let path = dir.path().join(format!("copy{round}"));
                db.checkpoint(&path).expect("a copy");
                checked + check_moment(&path, &options, WRITERS)
            })
        }));
        is_done.store(true, Ordering::Relaxed);
        result
    });
    let checked = checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(checked > 100, "{checked} writes are no test");
    db.close().expect("closed");
}

fn check_moment(path: &Path, options: &Options, writers: u64) -> usize {
    let options = options.clone().create_if_missing(false);
    let db = options.recovery_mode(RecoveryMode::Strict).open(path);
    let db = db.expect("a database");
    let other = db.keyspace("other").expect("there");
    let mut checked = 0;
    for writer in 0..writers {
        let key = format!("w{writer}");
        let last = db.get(&key).expect("read");
        assert_eq!(other.get(&key).expect("read"), last, "half a batch");
        let count = last.map_or(0, |value| {
            u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
        });
        let numbers = db.prefix(format!("{key}/")).expect("a scan").map(|item| {
            let (key, _) = item.expect("read");
            let text = String::from_utf8(key.to_vec()).expect("text");
            let number = text.split('/').nth(1).expect("after a slash");
            number.parse::<u64>().expect("a number")
        });
        let numbers: Vec<u64> = numbers.collect();
        let expected: Vec<u64> = (1..=count).collect();
        assert_eq!(numbers, expected, "a hole in what one writer wrote");
        checked += numbers.len();
    }
    for name in db.keyspaces().expect("open") {
        let keyspace = db.keyspace(&name).expect("there");
        assert!(keyspace.iter().expect("a scan").all(|item| item.is_ok()));
    }
    db.close().expect("closed");
    checked
}
