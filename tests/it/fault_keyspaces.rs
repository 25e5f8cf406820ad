//! What goes wrong in one keyspace stays where it is: the others are read and written, and so is
//! what of itself is not concerned.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base::FileKind;
use base::fs::fault::{Fault, FaultError, OpKind};
use siltstone::{Db, ErrorKind, Health, Keyspace, Options, ReadMode, WriteBatch};

use crate::images::check_no_leak;
use crate::order;
use crate::support::{DIR, PrintOnPanic, World, contents, fill, small_keyspace, tagged};

/// Nothing is at hand that could not be read again; of every second seed, memory is short as well,
/// so that writers often wait for flushes.
fn options(world: &World, seed: u64) -> Options {
    let memory = if seed.is_multiple_of(2) {
        16 << 10
    } else {
        1 << 20
    };
    let options = world.options().read_mode(ReadMode::Positioned);
    options.cache_bytes(0).memtable_bytes_total(memory)
}

/// Two keyspaces with tables, those of `a` known.
fn two(seed: u64) -> (World, Db, [Keyspace; 2], BTreeSet<PathBuf>) {
    let world = World::new(seed);
    let db = options(&world, seed).open(DIR).expect("a new database");
    let [a, b] = ["a", "b"].map(|name| db.create_keyspace(name, &small_keyspace()).expect("new"));
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
    for seed in 0..8 {
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
    for seed in 0..8 {
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
        let db = options(&world, seed).open(DIR);
        let db = db.expect("an open reads no block");
        let hands = ["a", "b"].map(|name| db.keyspace(name).expect("it is there"));
        check_others(&world, &db, &hands, ErrorKind::Corruption);
        drop(hands);
        assert!(matches!(db.health(), Health::Degraded(_)), "nothing failed");
        db.drop_keyspace("a").expect("a drop");
        assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
        world.executor.run_until_idle();
        assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
        let again = db
            .create_keyspace("a", &small_keyspace())
            .expect("a new one");
        fill(&again, 0, 50);
        again.compact_range(..).expect("a compaction");
        drop(again);
        world.executor.run_until_idle();
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}
