//! What goes wrong in one keyspace, or while keyspaces come and go, stays where it is: the others
//! are read and written, nothing is left behind, and what MANIFEST had no room for is not lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base::FileKind;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::CrashModel;
use siltstone::{Db, ErrorKind, Health, Keyspace, KeyspaceOptions, ReadMode, WriteBatch};

use crate::images::check_no_leak;
use crate::order;
use crate::support::{DIR, Model, PrintOnPanic, World, contents, tagged};

fn small() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .memtable_bytes_max(4 << 10)
        .table_bytes_target(4 << 10)
        .level0_table_count_trigger(2)
        .level_base_bytes(32 << 10)
}

fn is_kind(kind: FileKind) -> impl Fn(&Path) -> bool + Send + Sync {
    move |path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(FileKind::parse)
            .is_some_and(|(found, _)| found == kind)
    }
}

fn fill(keyspace: &Keyspace, from: u64, count: u64) {
    for n in from..from + count {
        keyspace
            .put((n % 50).to_be_bytes(), tagged(n, 150))
            .expect("a put");
    }
}

fn all_contents(db: &Db) -> BTreeMap<String, Model> {
    let read = |name: String| {
        let keyspace = db.keyspace(&name).expect("it was listed");
        (name, contents(&keyspace).expect("a scan"))
    };
    let names = db.keyspaces().expect("it is open");
    names.into_iter().map(read).collect()
}

/// Two keyspaces with tables, those of `a` known.
fn two(seed: u64) -> (World, Db, [Keyspace; 2], BTreeSet<PathBuf>) {
    let world = World::new(seed);
    let options = world.options().read_mode(ReadMode::Positioned);
    // Nothing is at hand that could not be read again.
    let db = options.cache_bytes(0).open(DIR).expect("a new database");
    let [a, b] = ["a", "b"].map(|name| db.create_keyspace(name, &small()).expect("new"));
    fill(&a, 0, 100);
    a.compact_range(..).expect("a compaction");
    world.executor.run_until_idle();
    let tables = order::of_kind(&world.fs, Path::new(DIR), FileKind::Table);
    let tables: BTreeSet<PathBuf> = tables.into_iter().collect();
    assert!(!tables.is_empty());
    fill(&b, 0, 100);
    b.flush().expect("a flush");
    (world, db, [a, b], tables)
}

/// What goes on while keyspace `a` cannot be read.
fn check_others(world: &World, db: &Db, [a, b]: &[Keyspace; 2], kind: ErrorKind) {
    let error = a.get(7_u64.to_be_bytes()).expect_err("it cannot be read");
    assert_eq!(error.kind(), kind, "{error}");
    for round in 0..4 {
        // Writes go on, also to what cannot be read, and flushes with them.
        fill(a, 1000 + round * 10, 10);
        let mut batch = WriteBatch::new();
        let value = tagged(5000 + round, 20);
        batch.put_in(a, "both", &value).put_in(b, "both", &value);
        db.write(batch.put("both", &value)).expect("a batch");
        a.flush().expect("a flush");
        // What was flushed overlaps what cannot be read.
        let error = a.compact_range(..).expect_err("it cannot be read");
        assert_eq!(error.kind(), kind, "{error}");
        fill(b, 2000 + round * 100, 100);
        b.flush().expect("a flush");
        b.compact_range(..).expect("a compaction");
        for _ in 0..20 {
            world.executor.step();
        }
        assert_eq!(contents(b).expect("a scan").len(), 51);
        assert_eq!(contents(db).expect("a scan").len(), 1);
        assert_eq!(b.get("both").expect("a get").as_deref(), Some(&*value));
    }
    assert!(
        !matches!(db.health(), Health::Poisoned(_)),
        "{:?}",
        db.health()
    );
    db.sync().expect("a sync");
}

#[test]
fn a_keyspace_that_cannot_be_read_leaves_the_others_alone() {
    for seed in 0..4 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let (world, db, hands, tables) = two(seed);
        let fault = Fault::new(OpKind::Read, FaultError::Eio).for_ever();
        let of_a = tables.clone();
        world.fs.fail(fault.only(move |path| of_a.contains(path)));
        check_others(&world, &db, &hands, ErrorKind::Io);
        // What was only out of reach is all there.
        world.fs.clear_faults();
        hands[0].compact_range(..).expect("a compaction");
        assert_eq!(contents(&hands[0]).expect("a scan").len(), 51);
        drop(hands);
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}

#[test]
fn a_keyspace_with_a_damaged_table_leaves_the_others_alone_and_can_be_dropped() {
    for seed in 0..4 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let (world, db, hands, tables) = two(seed);
        drop((hands, db));
        for table in &tables {
            let mut bytes = world.fs.contents(table).expect("it was listed");
            // Blocks of entries come first.
            let damaged = bytes.len() / 3;
            bytes[..damaged].iter_mut().for_each(|byte| *byte ^= 0x55);
            world.fs.install(table, &bytes).expect("a directory");
        }
        let options = world.options().read_mode(ReadMode::Positioned);
        let db = options
            .cache_bytes(0)
            .open(DIR)
            .expect("an open reads no block");
        let hands = ["a", "b"].map(|name| db.keyspace(name).expect("it is there"));
        check_others(&world, &db, &hands, ErrorKind::Corruption);
        drop(hands);
        db.drop_keyspace("a").expect("a drop");
        let again = db.create_keyspace("a", &small()).expect("a new one");
        fill(&again, 0, 50);
        again.compact_range(..).expect("a compaction");
        drop(again);
        world.executor.run_until_idle();
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}

#[test]
fn changes_for_which_manifest_has_no_room_are_owed_and_not_lost() {
    for seed in 0..6 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let mut world = World::new(seed);
        let db = world.open().expect("a new database");
        let gone = db.create_keyspace("gone", &small()).expect("new");
        fill(&gone, 0, 60);
        gone.flush().expect("a flush");
        let fault = Fault::new(OpKind::Reserve, FaultError::Enospc).for_ever();
        world.fs.fail(fault.only(is_kind(FileKind::Manifest)));
        let fault = Fault::new(OpKind::Create, FaultError::Enospc).for_ever();
        world.fs.fail(fault.only(is_kind(FileKind::Manifest)));
        let mut refused = 0;
        for n in 0..30 {
            let name = format!("made {n}");
            let made = db.create_keyspace(&name, &small()).expect("the log has it");
            fill(&made, 0, 5);
            match made.flush() {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    refused += 1;
                }
            }
            if n % 3 == 0 {
                db.drop_keyspace(&name).expect("the log has it");
                assert_eq!(
                    made.get("key").expect_err("gone").kind(),
                    ErrorKind::NotFound
                );
            }
        }
        db.drop_keyspace("gone").expect("the log has it");
        drop(gone);
        assert!(refused > 0, "there was room for everything");
        assert!(
            !matches!(db.health(), Health::Poisoned(_)),
            "{:?}",
            db.health()
        );
        let expected = all_contents(&db);
        assert_eq!(expected.len(), 21);
        // Whatever a power cut or kill leaves of it, the log makes up for.
        for model in [CrashModel::Synced, CrashModel::Everything] {
            let after = World::on(world.fs.crash_image(&model, seed), seed);
            let found = after.open().expect("a recovery");
            let names: Vec<String> = expected.keys().cloned().collect();
            assert_eq!(found.keyspaces().expect("it is open"), names);
            if model == CrashModel::Everything {
                assert_eq!(all_contents(&found), expected);
            }
        }
        // The same handle goes on when there is room.
        world.fs.clear_faults();
        for name in expected.keys() {
            let keyspace = db.keyspace(name).expect("it is there");
            keyspace.flush().expect("a flush");
            keyspace.compact_range(..).expect("a compaction");
        }
        assert_eq!(all_contents(&db), expected);
        drop(db);
        world.restart(seed + 1);
        let db = world.open().expect("a reopen");
        assert_eq!(all_contents(&db), expected);
        world.executor.run_until_idle();
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}
