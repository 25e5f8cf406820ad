//! Full disks: reads and deletes go on, nothing is written again and again in vain, and the same
//! handle resumes. On the simulated disk with a quota, and on a small real one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::fs::FileSystem;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::fs::sim::SimFs;
use base::ids;
use siltstone::{
    Db, Durability, ErrorKind, Health, Options, WriteBatch, WriteOptions, WriteOutcome,
};

use crate::images::check_no_leak;
use crate::support::{
    DIR, Model, PrintOnPanic, World, assert_same, contents, for_each_seed, tagged,
};

fn key(index: u64) -> Vec<u8> {
    format!("key{index:06}").into_bytes()
}

/// Puts new keys until there is no space.
fn fill(db: &Db, model: &mut Model, mut between: impl FnMut()) {
    for index in 1_000_000..1_100_000_u64 {
        let value = tagged(index, 150);
        match db.put(key(index), &value) {
            Ok(_) => model.insert(key(index), value),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
                return;
            }
        };
        between();
    }
    panic!("it never got full");
}

fn assert_put_is_refused(db: &Db) {
    let error = db.put("one more", "value").expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
    let mut mixed = WriteBatch::new();
    mixed.delete("a").put("b", "c");
    let error = db.write(&mixed).expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
}

/// So little is free that space is kept back, and enough for everything else.
fn near_full(world: &World) {
    let limit = world.fs.used_bytes() + 12 * (16 << 10) / 4 * 5;
    world.fs.set_quota(Some(limit));
}

fn options(world: &World) -> Options {
    world
        .options()
        .memtable_bytes_max(8 << 10)
        .log_segment_bytes(16 << 10)
        .log_bytes_max(64 << 10)
}

#[test]
fn a_full_disk_takes_deletes_and_then_writes_again() {
    for_each_seed(
        "a_full_disk_takes_deletes_and_then_writes_again",
        12,
        |seed| {
            let world = World::new(seed);
            near_full(&world);
            let db = options(&world).open(DIR).expect("a new database");
            let mut model = Model::new();
            for index in 0..200 {
                let value = tagged(index, 100);
                db.put(key(index), &value).expect("a put");
                model.insert(key(index), value);
                world.executor.step();
            }
            world.executor.run_until_idle();
            let reserve = Path::new(DIR).join(ids::RESERVE);
            assert!(world.fs.contents(&reserve).is_some(), "no space was kept");
            world
                .fs
                .set_quota(Some(world.fs.used_bytes() + seed * 1000));
            fill(&db, &mut model, || {
                world.executor.step();
            });
            for index in 0..100 {
                db.delete(key(index))
                    .unwrap_or_else(|error| panic!("delete {index}: {error}"));
                model.remove(&key(index));
                world.executor.step();
            }
            assert_same(&db, &model, &[key(0), key(150), key(1_000_000)]);
            let is_spent = world.fs.contents(&reserve).is_none();
            if is_spent {
                assert_put_is_refused(&db);
                assert_same(&db, &model, &[key(0), key(150)]);
            }
            assert!(!matches!(db.health(), Health::Poisoned(_)));
            near_full(&world);
            let disk = WriteOptions::new().durability(Durability::Disk);
            db.put_with("again", "there is space", &disk)
                .expect("the same handle goes on");
            model.insert(b"again".to_vec(), b"there is space".to_vec());
            db.compact_range(..).expect("a compaction");
            world.executor.run_until_idle();
            assert!(world.fs.contents(&reserve).is_some(), "kept back again");
            assert_same(&db, &model, &[key(0), key(150)]);
            drop(db);
            let db = options(&world).open(DIR).expect("a reopen");
            assert_same(&db, &model, &[key(0), key(150)]);
            db.close().expect("a clean close");
        },
    );
}

#[test]
fn deletes_are_bounded_too_when_nothing_gets_on() {
    let world = World::new(3);
    near_full(&world);
    let db = options(&world).open(DIR).expect("a new database");
    let mut model = Model::new();
    world.executor.run_until_idle();
    world.fs.set_quota(Some(world.fs.used_bytes()));
    fill(&db, &mut model, || {});
    let mut taken = 0;
    let error = loop {
        match db.delete(key(taken)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100_000, "memory for deletes is not bounded");
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
    assert!(taken > 100, "only {taken} deletes were taken");
    assert_same(&db, &model, &[]);
    world.fs.set_quota(None);
    db.put("again", "there is space")
        .expect("the same handle goes on");
}

#[test]
fn without_the_reserve_deletes_wait_for_space_like_puts() {
    let world = World::new(4);
    near_full(&world);
    let options = options(&world).keep_space_for_deletes(false);
    let db = options.open(DIR).expect("a new database");
    world.executor.run_until_idle();
    assert!(
        !world
            .fs
            .paths()
            .contains(&Path::new(DIR).join(ids::RESERVE))
    );
    world.fs.set_quota(Some(world.fs.used_bytes()));
    fill(&db, &mut Model::new(), || {});
    let refused = (0..2000).find_map(|index| db.delete(key(index)).err());
    assert_eq!(refused.expect("no space").kind(), ErrorKind::NoSpace);
}

#[test]
fn nothing_is_written_again_and_again_while_the_disk_is_full() {
    for_each_seed(
        "nothing_is_written_again_and_again_while_the_disk_is_full",
        6,
        |seed| {
            let world = World::new(seed);
            // A write that fails may have stored anything up to the limit: count what is begun.
            let fs = FaultFs::new(Arc::clone(&world.fs) as _);
            let begun = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&begun);
            let fault = Fault::new(OpKind::Create, FaultError::Eio).for_ever();
            fs.fail(fault.only(move |path| {
                let is_table = path.extension().is_some_and(|extension| extension == "sst");
                seen.fetch_add(u64::from(is_table), Ordering::SeqCst);
                false
            }));
            // Segments far larger than memtables: flush is what runs out of space first.
            let options = world.options().memtable_bytes_max(8 << 10);
            let options = options
                .log_segment_bytes(256 << 10)
                .log_bytes_max(512 << 10);
            let options = options.file_system(fs);
            let db = options.open(DIR).expect("a new database");
            let mut model = Model::new();
            for index in 0..300 {
                let value = tagged(index, 100);
                db.put(key(index), &value).expect("a put");
                model.insert(key(index), value);
                world.executor.step();
            }
            // Room for half of a table: a flush always begins, and never ends.
            world.executor.run_until_idle();
            let limit = || world.fs.set_quota(Some(world.fs.used_bytes() + 4000));
            limit();
            fill(&db, &mut model, || {
                world.executor.step();
            });
            // As long as jobs still free some, that is taken away too.
            let mut refused = 0;
            let mut before = begun.load(Ordering::SeqCst);
            for _ in 0..5000 {
                let value = tagged(refused, 150);
                match db.put("more", &value) {
                    Ok(_) => {
                        model.insert(b"more".to_vec(), value);
                        limit();
                        refused = 0;
                    }
                    Err(_) => refused += 1,
                }
                if refused == 0 {
                    before = begun.load(Ordering::SeqCst);
                }
                for _ in 0..4 {
                    world.executor.step();
                }
                if refused == 500 {
                    break;
                }
            }
            assert_eq!(refused, 500, "it never got full");
            let begun = begun.load(Ordering::SeqCst) - before;
            assert!(begun <= 2, "{begun} tables were begun in vain");
            assert_same(&db, &model, &[key(0)]);
            world.fs.set_quota(None);
            db.put("again", "there is space").expect("the same handle");
            db.compact_range(..).expect("a compaction");
        },
    );
}

/// A small real disk, gone when the test ends.
struct SmallDisk(
    PathBuf,
    #[expect(dead_code, reason = "removed last")] tempfile::TempDir,
);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = dir.path().join("disk");
        FileSystem::create_dir(&base::fs::OsFs, &place).expect("a new directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "siltstone"])
            .arg(&place)
            .output();
        let is_mounted = mounted.is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(place, dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has it open keeps it until then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_small_real_disk_fills_up_and_the_same_handle_resumes() {
    let Some(disk) = SmallDisk::mount(8 << 20) else {
        eprintln!("skipped: no right to mount a tmpfs");
        return;
    };
    let options = Options::new()
        .memtable_bytes_max(256 << 10)
        .table_bytes_target(256 << 10)
        .level_base_bytes(1 << 20)
        .log_segment_bytes(512 << 10)
        .log_bytes_max(2 << 20)
        .compaction_threads(2);
    let dir = disk.0.join("db");
    let ballast = disk.0.join("ballast");
    let db = options.clone().open(&dir).expect("a new database");
    let mut model = Model::new();
    for index in 0..2000 {
        let value = tagged(index, 400);
        db.put(key(index), &value).expect("a put");
        model.insert(key(index), value);
    }
    db.wait_for_compactions().expect("there is space");
    // Somebody else takes the rest of the disk.
    let other = FileSystem::create(&base::fs::OsFs, &ballast).expect("a file");
    let mut taken = 0;
    while other.write_at(taken, &[1; 8 << 10]).is_ok() {
        taken += 8 << 10;
    }
    fill(&db, &mut model, || {});
    for index in 0..1000 {
        db.delete(key(index))
            .expect("deletes work from the reserve");
        model.remove(&key(index));
    }
    assert!(contents(&db).expect("a scan") == model, "reads work");
    // Compactions on threads may have freed enough by now, or not.
    match db.put("one more", "value") {
        Ok(_) => drop(model.insert(b"one more".to_vec(), b"value".to_vec())),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
        }
    }
    assert!(!matches!(db.health(), Health::Poisoned(_)));
    FileSystem::remove_file(&base::fs::OsFs, &ballast).expect("it is there");
    drop(other);
    let disk_durable = WriteOptions::new().durability(Durability::Disk);
    db.put_with("again", "there is space", &disk_durable)
        .expect("the same handle goes on");
    model.insert(b"again".to_vec(), b"there is space".to_vec());
    db.compact_range(..).expect("a compaction");
    assert!(contents(&db).expect("a scan") == model);
    db.close().expect("a clean close");
    let db = options.open(&dir).expect("a reopen");
    assert!(contents(&db).expect("a scan") == model);
    db.close().expect("a clean close");
}

#[test]
fn an_open_on_a_full_disk_takes_what_is_kept_back_or_says_what_to_do() {
    for seed in 0..6 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let world = World::new(seed);
        let with_reserve = |world: &World| options(world).log_segment_bytes(48 << 10);
        // So little is free that space is kept back.
        world.fs.set_quota(Some(12 * (48 << 10)));
        let db = with_reserve(&world).open(DIR).expect("a new database");
        let mut model = Model::new();
        for index in 0..60 {
            db.put(key(index), tagged(index, 80)).expect("a put");
            model.insert(key(index), tagged(index, 80));
        }
        world.executor.run_until_idle();
        drop(db);
        let reserve = Path::new(DIR).join(ids::RESERVE);
        assert!(world.fs.contents(&reserve).is_some(), "no space was kept");
        let full = |fs: &Arc<SimFs>| fs.set_quota(Some(fs.used_bytes()));
        full(&world.fs);
        // Reading needs no room.
        let reader = with_reserve(&world).file_system(world.fs.for_reading());
        let reader = reader.open_read_only(DIR).expect("it only reads");
        assert_eq!(contents(&reader).expect("a scan"), model);
        drop(reader);
        if seed % 2 == 0 {
            let db = with_reserve(&world).open(DIR).expect("room was kept back");
            assert_eq!(contents(&db).expect("a scan"), model);
            assert_put_is_refused(&db);
            db.delete(key(3)).expect("a delete");
            model.remove(&key(3));
            assert_eq!(contents(&db).expect("a scan"), model);
            drop(db);
            full(&world.fs);
        }
        // What was kept back is used up, or was never there.
        if world.fs.contents(&reserve).is_some() {
            FileSystem::remove_file(&*world.fs, &reserve).expect("it is there");
            full(&world.fs);
        }
        for _ in 0..3 {
            let error = with_reserve(&world).open(DIR).expect_err("no room");
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            let message = error.to_string();
            for word in [DIR, "free some space", "reading only"] {
                assert!(message.contains(word), "{message}");
            }
        }
        world.fs.set_quota(None);
        let db = with_reserve(&world).open(DIR).expect("there is room");
        assert_eq!(contents(&db).expect("a scan"), model);
        db.put("key", "value").expect("a put");
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}
