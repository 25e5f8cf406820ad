//! The file in which an open database tells other processes what it does: right in what it says,
//! and never in the way of the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::CrashModel;
use base::ids;
use siltstone::{Db, ErrorKind, Health, KeyspaceOptions, Options, StatsFile};

use crate::support::{DIR, Model, World, assert_same, for_each_seed, tagged};

const INTERVAL: Duration = Duration::from_secs(1);

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn options(world: &World) -> Options {
    world.options().stats_file_interval(Some(INTERVAL))
}

fn told(world: &World) -> StatsFile {
    let bytes = world.fs.contents(&path(ids::STATS)).expect("it is there");
    StatsFile::decode(&bytes).expect("it is whole")
}

/// Runs the worker that writes it, and nobody else.
fn write_now(world: &World) {
    assert!(world.executor.step_named("siltstone-stats"), "a worker");
}

fn is_of_stats(found: &Path) -> bool {
    found == path(ids::STATS) || found == path(ids::STATS_TEMPORARY)
}

fn fill(db: &Db, model: &mut Model, count: u64) {
    for index in 0..count {
        let (key, value) = (format!("key{index:04}").into_bytes(), tagged(index, 200));
        db.put(&key, &value).expect("a put");
        model.insert(key, value);
    }
}

#[test]
fn it_says_what_the_database_says_of_itself() {
    for_each_seed("it_says_what_the_database_says_of_itself", 6, |seed| {
        let world = World::new(seed);
        let db = options(&world).open(DIR).expect("a new database");
        let events = db
            .create_keyspace("events", &KeyspaceOptions::new())
            .expect("a new keyspace");
        fill(&db, &mut Model::new(), 300);
        events.put("key", "value").expect("a put");
        db.flush().expect("a flush");
        world.executor.run_until_idle();
        for index in 0..50 {
            db.get(format!("key{index:04}")).expect("a get");
        }
        assert_eq!(db.iter().expect("a scan").count(), 300);
        world.clock.advance(5_000_000);
        let snapshot = db.snapshot().expect("a snapshot");
        // What is told is from before the telling was counted.
        let (stats, amplification) = (db.stats(), db.amplification());
        write_now(&world);
        let told = told(&world);
        assert_eq!(told.process_id, std::process::id());
        assert_eq!(told.engine_version, env!("CARGO_PKG_VERSION"));
        assert!(told.up_micros >= 5_000_000);
        assert_eq!(told.written_micros - told.opened_micros, told.up_micros);
        assert_eq!((told.interval, told.trouble), (INTERVAL, None));
        assert_eq!(told.trouble_kind, None);
        assert_eq!(told.stats.scan_entry_count, 300);
        assert_eq!(told.keyspace_count, 2);
        assert_eq!(format!("{:?}", told.stats), format!("{stats:?}"));
        let amplification = format!("{amplification:?}");
        assert_eq!(format!("{:?}", told.amplification), amplification);
        drop(snapshot);
        db.close().expect("a clean close");
    });
}

#[test]
fn it_is_charged_to_a_cause_of_its_own() {
    let world = World::new(1);
    let db = options(&world).open(DIR).expect("a new database");
    db.put("key", "value").expect("a put");
    let mut lens = 0;
    for round in 0..3 {
        if round > 0 {
            write_now(&world);
        } else {
            world.executor.run_until_idle();
        }
        lens += world.fs.contents(&path(ids::STATS)).expect("there").len() as u64;
    }
    let write = db.amplification().write;
    assert_eq!(write.stats_file.payload_bytes, lens);
    assert_eq!(write.stats_file.page_bytes % 4096, 0);
    assert!(write.stats_file.page_bytes >= lens);
    let others = write.log.payload_bytes + write.manifest.payload_bytes;
    assert_eq!(write.total().payload_bytes, others + lens);
    assert_eq!(db.stats().stats_file_bytes, lens);
    let told = write.to_string();
    assert!(told.contains(", stats file "), "{told}");
}

/// However the file fails, and wherever, the database does not notice.
#[test]
fn faults_in_it_are_counted_and_harm_nothing() {
    let kinds = [
        OpKind::Create,
        OpKind::Write,
        OpKind::Rename,
        OpKind::Remove,
    ];
    for kind in kinds {
        for error in [FaultError::Eio, FaultError::Enospc] {
            let world = World::new(7);
            let db = options(&world).open(DIR).expect("a new database");
            world.executor.run_until_idle();
            let fault = Fault::new(kind, error).for_ever().only(is_of_stats);
            world.fs.fail(fault);
            let mut model = Model::new();
            fill(&db, &mut model, 100);
            write_now(&world);
            write_now(&world);
            world.executor.run_until_idle();
            assert!(matches!(db.health(), Health::Good), "{kind:?}");
            assert_same(&db, &model, &[b"key0000".to_vec()]);
            let failures = db.stats().stats_file_failure_count;
            // Nothing has to be removed before something has failed.
            let expected = if kind == OpKind::Remove { 0 } else { 2 };
            assert_eq!(failures, expected, "{kind:?}");
            world.fs.clear_faults();
            write_now(&world);
            assert_eq!(told(&world).stats.stats_file_failure_count, failures);
            assert_eq!(world.fs.contents(&path(ids::STATS_TEMPORARY)), None);
            db.close().expect("a clean close");
            assert_eq!(world.fs.contents(&path(ids::STATS)), None, "{kind:?}");
        }
    }
}

#[test]
fn a_full_disk_leaves_the_old_one_and_no_rest() {
    let world = World::new(9);
    let db = options(&world).open(DIR).expect("a new database");
    world.executor.run_until_idle();
    let before = told(&world).written_micros;
    world.clock.advance(1_000_000);
    world.fs.set_quota(Some(world.fs.used_bytes()));
    write_now(&world);
    assert_eq!(db.stats().stats_file_failure_count, 1);
    assert_eq!(told(&world).written_micros, before);
    world.fs.set_quota(None);
    write_now(&world);
    assert!(told(&world).written_micros > before);
    assert_eq!(told(&world).trouble, None);
}

#[test]
fn what_is_wrong_is_told_with_its_kind() {
    let world = World::new(5);
    let db = options(&world).open(DIR).expect("a new database");
    db.put("key", "value").expect("a put");
    let has_ending = |ending: &'static str| {
        move |found: &Path| found.extension().is_some_and(|found| found == ending)
    };
    let told_kind = || {
        write_now(&world);
        let told = told(&world);
        assert_eq!(told.trouble.is_some(), told.trouble_kind.is_some());
        told.trouble_kind
    };
    assert_eq!(told_kind(), None);
    for (error, kind) in [
        (FaultError::Eio, ErrorKind::Io),
        (FaultError::Enospc, ErrorKind::NoSpace),
    ] {
        let fault = Fault::new(OpKind::Write, error).for_ever();
        world.fs.fail(fault.only(has_ending("sst")));
        let failed = db.flush().expect_err("no table can be written");
        assert_eq!((failed.kind(), told_kind()), (kind, Some(kind)));
        world.fs.clear_faults();
    }
    let fault = Fault::new(OpKind::Sync, FaultError::Eio);
    world.fs.fail(fault.only(has_ending("log")));
    db.put("key", "value").expect("a put");
    db.sync().expect_err("the log cannot be synced");
    assert_eq!(told_kind(), Some(ErrorKind::Poisoned));
}

#[test]
fn it_goes_when_the_last_handle_does() {
    let world = World::new(2);
    let db = options(&world).open(DIR).expect("a new database");
    world.executor.run_until_idle();
    assert!(world.fs.contents(&path(ids::STATS)).is_some());
    let other = db.clone();
    drop(db);
    assert!(world.fs.contents(&path(ids::STATS)).is_some());
    drop(other);
    assert!(!world.fs.paths().iter().any(|found| is_of_stats(found)));
    // Nobody asked for it this time.
    let db = world.open().expect("a reopen");
    db.put("key", "value").expect("a put");
    world.executor.run_until_idle();
    assert_eq!(world.fs.contents(&path(ids::STATS)), None);
    assert_eq!(db.amplification().write.stats_file.payload_bytes, 0);
}

/// What a process that was killed has left misleads nobody who opens the database, and stays as it
/// is for those who only look.
#[test]
fn what_a_killed_process_left_is_removed_by_the_next_that_writes() {
    let world = World::new(3);
    let db = options(&world).open(DIR).expect("a new database");
    db.put("key", "value").expect("a put");
    world.executor.run_until_idle();
    let image = world.fs.crash_image(&CrashModel::Everything, 1);
    image
        .install(&path(ids::STATS_TEMPORARY), b"half of")
        .expect("room");
    let before = image.contents(&path(ids::STATS)).expect("it was kept");
    StatsFile::decode(&before).expect("it is whole");

    let killed = World::on(image, 3);
    let reader = killed
        .options()
        .stats_file_interval(Some(INTERVAL))
        .open_read_only(DIR)
        .expect("a look");
    assert_eq!(
        reader.get("key").expect("a get").as_deref(),
        Some(&b"value"[..])
    );
    killed.executor.run_until_idle();
    reader.close().expect("a close");
    assert_eq!(killed.fs.contents(&path(ids::STATS)), Some(before));

    let db = killed.open().expect("a reopen");
    assert!(!killed.fs.paths().iter().any(|found| is_of_stats(found)));
    db.close().expect("a clean close");
}

#[test]
fn a_power_cut_at_any_time_leaves_the_database_whole() {
    for_each_seed(
        "a_power_cut_at_any_time_leaves_the_database_whole",
        8,
        |seed| {
            let world = World::new(seed);
            let db = options(&world).open(DIR).expect("a new database");
            world.executor.run_until_idle();
            let mut model = Model::new();
            fill(&db, &mut model, 40);
            db.sync().expect("a sync");
            write_now(&world);
            for model_of_crash in world.fs.crash_models(8, 8) {
                let image = world.fs.crash_image(&model_of_crash, seed);
                let found = image.contents(&path(ids::STATS));
                if let Some(Err(error)) = found.map(|bytes| StatsFile::decode(&bytes)) {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                }
                let after = World::on(image, seed);
                let db = after.open().expect("a reopen");
                assert_same(&db, &model, &[b"key0000".to_vec()]);
            }
        },
    );
}

#[test]
fn a_copy_has_none_and_a_directory_with_nothing_else_is_empty() {
    let world = World::new(4);
    let db = options(&world).open(DIR).expect("a new database");
    db.put("key", "value").expect("a put");
    world.executor.run_until_idle();
    db.checkpoint("/copy").expect("a copy");
    let in_copy = world.fs.contents(&Path::new("/copy").join(ids::STATS));
    assert_eq!(in_copy, None);
    let alone = World::new(4);
    base::fs::FileSystem::create_dir(&*alone.fs, Path::new(DIR)).expect("a directory");
    alone.fs.install(&path(ids::STATS), b"rest").expect("room");
    let db = alone.open().expect("a new database");
    assert_eq!(alone.fs.contents(&path(ids::STATS)), None);
    drop(db);
}
