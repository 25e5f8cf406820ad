//! Flush and compaction on a full disk take turns: none takes from another what comes free.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use base::executor::Stepped;
use base::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use base::ids;
use siltstone::{Compression, Db, Health, Keyspace, KeyspaceOptions, Options};

use crate::support::{DIR, Model, Rng, World, assert_same, for_each_seed, tagged};

const FLUSH: &str = "siltstone-flush";
const JOBS: [&str; 3] = [FLUSH, "siltstone-compact", "siltstone-level0"];
/// Longer than any pause between two tries.
const PAUSE_MICROS: u64 = 61_000_000;

fn key(index: u64) -> Vec<u8> {
    format!("key{index:06}").into_bytes()
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// A disk on which a table can be begun while no other is, and on which every table that is begun
/// gives the other jobs the time to begin one.
fn room_for_one(executor: &Arc<Stepped>) -> Fault {
    let executor: Weak<Stepped> = Arc::downgrade(executor);
    let (is_writing, have_met) = (AtomicBool::new(false), AtomicBool::new(false));
    let fault = Fault::new(OpKind::Create, FaultError::Enospc).for_ever();
    fault.only(move |path| {
        if !is_table(path) {
            return false;
        }
        if is_writing.swap(true, Ordering::SeqCst) {
            have_met.store(true, Ordering::SeqCst);
            return true;
        }
        if let Some(executor) = executor.upgrade() {
            for job in JOBS {
                executor.step_named(job);
            }
        }
        is_writing.store(false, Ordering::SeqCst);
        have_met.swap(false, Ordering::SeqCst)
    })
}

/// A database in which flush and compaction both have something to do, and what it holds.
fn owing_both(world: &World, options: Options) -> (Db, Model) {
    let db = options.open(DIR).expect("a new database");
    let mut model = Model::new();
    for index in 0..400 {
        let value = tagged(index, 100);
        db.put(key(index % 150), &value).expect("a put");
        model.insert(key(index % 150), value);
        world.executor.step_named(FLUSH);
    }
    // One memtable more is full, and nobody has flushed it.
    let mut index = 0;
    while db.stats().sealed_memtable_count == 0 {
        let value = tagged(index, 90);
        db.put(key(index), &value).expect("a put");
        model.insert(key(index), value);
        index += 1;
    }
    (db, model)
}

fn small(world: &World) -> Options {
    let options = world.options().memtable_bytes_max(8 << 10);
    options
        .level0_table_count_trigger(2)
        .sealed_memtable_count_max(4)
        .level0_table_count_max(30)
        .idle_compaction_after(None)
}

/// Lets every pause pass and every job have a turn, in an order of `rng`.
fn give_turns(world: &World, rng: &mut Rng) {
    world.clock.advance(PAUSE_MICROS);
    let mut jobs = JOBS.to_vec();
    while !jobs.is_empty() {
        let job = jobs.swap_remove(rng.below(jobs.len()));
        world.executor.step_named(job);
    }
}

#[test]
fn a_flush_has_the_disk_to_itself_after_it_met_a_compaction() {
    let test = "a_flush_has_the_disk_to_itself_after_it_met_a_compaction";
    for_each_seed(test, 12, |seed| {
        let world = World::new(seed);
        let fs = FaultFs::new(Arc::clone(&world.fs) as _);
        let options = small(&world).file_system(Arc::clone(&fs) as _);
        let (db, model) = owing_both(&world, options);
        fs.fail(room_for_one(&world.executor));
        let mut rng = Rng::new(seed);
        give_turns(&world, &mut rng);
        assert!(fs.faults().fired() >= 2, "they did not meet");
        assert!(matches!(db.health(), Health::Degraded(_)));
        let mut turns = 0;
        while !matches!(db.health(), Health::Good) {
            turns += 1;
            assert!(turns <= 20, "they take it from each other for ever");
            give_turns(&world, &mut rng);
        }
        fs.clear();
        assert_same(&db, &model, &[key(0), key(149)]);
    });
}

/// Memtables of all keyspaces that wait to be flushed.
fn sealed_count(db: &Db) -> u64 {
    let keyspaces = db.stats().keyspaces;
    keyspaces.iter().map(|k| k.sealed_memtable_count).sum()
}

/// Gives each of `keyspaces` four tables in level 0, and lets nothing be compacted.
fn make_due(world: &World, db: &Db, keyspaces: &[Keyspace]) {
    for keyspace in keyspaces.iter().cycle().take(4 * keyspaces.len()) {
        while sealed_count(db) > 0 {
            world.executor.step_named(FLUSH);
        }
        let mut index = 0;
        while sealed_count(db) == 0 {
            keyspace.put(key(index), tagged(index, 90)).expect("a put");
            index += 1;
        }
    }
    while sealed_count(db) > 0 {
        world.executor.step_named(FLUSH);
    }
}

/// How many tables level 0 begins beside a compaction during which a flush was tried, with room for
/// that or without.
fn level0_tables_after_a_flush(seed: u64, has_room: bool) -> u64 {
    let world = World::new(seed);
    let fs = FaultFs::new(Arc::clone(&world.fs) as _);
    let options = small(&world).file_system(Arc::clone(&fs) as _);
    let (db, mut model) = owing_both(&world, options);
    // Others whose level 0 is due, more of them than are compacted at once.
    let due = KeyspaceOptions::new()
        .memtable_bytes_max(8 << 10)
        .level0_table_count_trigger(2);
    let others =
        ["a", "b", "c", "d", "e", "f"].map(|name| db.create_keyspace(name, &due).expect("created"));
    make_due(&world, &db, &others);
    while sealed_count(&db) == 0 {
        db.put(key(7), tagged(7, 90)).expect("a put");
        model.insert(key(7), tagged(7, 90));
    }
    let executor: Weak<Stepped> = Arc::downgrade(&world.executor);
    let [is_flush, is_level0] = [(); 2].map(|()| AtomicBool::new(false));
    let has_begun = Arc::new(AtomicBool::new(false));
    let is_nested = Arc::clone(&has_begun);
    let begun = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&begun);
    let fault = Fault::new(OpKind::Create, FaultError::Enospc).for_ever();
    fs.fail(fault.only(move |path| {
        if !is_table(path) {
            return false;
        }
        if is_nested.swap(true, Ordering::SeqCst) {
            let of_level0 = is_level0.load(Ordering::SeqCst);
            counted.fetch_add(u64::from(of_level0), Ordering::SeqCst);
            return is_flush.load(Ordering::SeqCst) && !has_room;
        }
        // The first table of a compaction: now a flush is tried, and then level 0.
        if let Some(executor) = executor.upgrade() {
            is_flush.store(true, Ordering::SeqCst);
            executor.step_named(FLUSH);
            is_flush.store(false, Ordering::SeqCst);
            is_level0.store(true, Ordering::SeqCst);
            for _ in 0..10 {
                executor.step_named("siltstone-level0");
            }
            is_level0.store(false, Ordering::SeqCst);
        }
        false
    }));
    world.clock.advance(PAUSE_MICROS);
    // What comes first may be moves, which write no table.
    let mut turns = 0;
    while !has_begun.load(Ordering::SeqCst) {
        turns += 1;
        assert!(turns < 100, "nothing is compacted");
        world.executor.step_named("siltstone-compact");
    }
    let during = begun.load(Ordering::SeqCst);
    fs.clear();
    assert_same(&db, &model, &[key(149)]);
    during
}

#[test]
fn level_0_leaves_the_disk_to_a_flush_that_found_no_space() {
    let test = "level_0_leaves_the_disk_to_a_flush_that_found_no_space";
    for_each_seed(test, 6, |seed| {
        let with_room = level0_tables_after_a_flush(seed, true);
        assert!(with_room > 0, "level 0 had nothing to do");
        let without = level0_tables_after_a_flush(seed, false);
        assert_eq!(without, 0, "level 0 took the space of the flush");
    });
}

#[test]
fn a_flush_that_never_fits_lets_compactions_make_space() {
    let test = "a_flush_that_never_fits_lets_compactions_make_space";
    for_each_seed(test, 6, |seed| {
        let world = World::new(seed);
        let fs = FaultFs::new(Arc::clone(&world.fs) as _);
        let options = small(&world).file_system(Arc::clone(&fs) as _);
        let (db, model) = owing_both(&world, options);
        let begun = Arc::new(AtomicU64::new(0));
        let is_flush = Arc::new(AtomicBool::new(false));
        let (seen, is_of_flush) = (Arc::clone(&begun), Arc::clone(&is_flush));
        let fault = Fault::new(OpKind::Create, FaultError::Enospc).for_ever();
        fs.fail(fault.only(move |path| {
            let is_flush = is_of_flush.load(Ordering::SeqCst);
            seen.fetch_add(u64::from(is_table(path) && !is_flush), Ordering::SeqCst);
            is_table(path) && is_flush
        }));
        let mut turns = 0;
        while begun.load(Ordering::SeqCst) == 0 {
            turns += 1;
            assert!(turns <= 4, "compactions wait for a flush that does not fit");
            world.clock.advance(PAUSE_MICROS);
            for job in JOBS {
                is_flush.store(job == FLUSH, Ordering::SeqCst);
                world.executor.step_named(job);
            }
        }
        assert!(fs.faults().fired() > 0, "no flush was tried");
        fs.clear();
        assert_same(&db, &model, &[key(0), key(149)]);
    });
}

#[test]
fn space_for_deletes_is_not_kept_back_from_a_flush() {
    let world = World::new(1);
    let segment_bytes = 16 << 10;
    // So little is free that space is kept back.
    world.fs.set_quota(Some(12 * segment_bytes));
    let options = small(&world)
        .memtable_bytes_max(48 << 10)
        .compression(Compression::None)
        .log_segment_bytes(segment_bytes)
        .log_bytes_max(256 << 10);
    let db = options.open(DIR).expect("a new database");
    world.executor.run_until_idle();
    let reserve = Path::new(DIR).join(ids::RESERVE);
    assert!(world.fs.contents(&reserve).is_some(), "no space was kept");
    let mut model = Model::new();
    let limit = || world.fs.set_quota(Some(world.fs.used_bytes()));
    for index in 0..10_000 {
        let value = tagged(index, 100);
        match db.put(key(index), &value) {
            Ok(_) => drop(model.insert(key(index), value)),
            Err(error) if error.is_no_space() => break,
            Err(error) => panic!("{error}"),
        }
        limit();
    }
    // Deletes use up what was kept for them, until a memtable of them has to be flushed.
    for index in 0..10_000 {
        if db.delete(key(index)).is_err() {
            break;
        }
        model.remove(&key(index));
    }
    assert!(world.fs.contents(&reserve).is_none(), "it is still there");
    limit();
    let error = db.flush().expect_err("no space");
    assert!(error.is_no_space(), "{error}");
    // Room for the flush, and for what is kept back, but not for both.
    let room = 5 * segment_bytes / 2 + (4 << 10);
    world.fs.set_quota(Some(world.fs.used_bytes() + room));
    // A put looks whether there is room, and leaves it to the flush.
    db.put("small", "value").expect("there is room");
    model.insert(b"small".to_vec(), b"value".to_vec());
    assert!(world.fs.contents(&reserve).is_none(), "a put took it");
    for _ in 0..3 {
        world.executor.step_named("siltstone-helper");
        world.executor.step_named("siltstone-ahead");
        world.clock.advance(PAUSE_MICROS);
    }
    assert!(world.fs.contents(&reserve).is_none(), "it was taken");
    world.executor.step_named(FLUSH);
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    assert_same(&db, &model, &[key(0)]);
}
