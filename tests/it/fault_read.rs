//! Reads that fail or come back wrong: an error that names the file, never "not found"; what lies
//! elsewhere is read, nothing is replaced by it, and it is over when the fault is.

use std::path::{Path, PathBuf};

use base::FileKind;
use base::fs::fault::{Effect, Fault, FaultError, OpKind};
use siltstone::{Db, ErrorKind, Health, ReadMode, Verify};

use crate::order;
use crate::support::{DIR, Model, PrintOnPanic, World, assert_same, tagged};

/// A database of several tables, opened again so that none is open yet.
fn made(mode: ReadMode, verify: Verify) -> (World, Db, Model) {
    let world = World::new(5);
    let options = || {
        let options = world.options().read_mode(mode).verify_reads(verify);
        options.cache_bytes(0).level0_table_count_trigger(4)
    };
    let db = options().open(DIR).expect("a new database");
    let mut model = Model::new();
    for index in 0..300_u64 {
        let key = index.to_be_bytes().to_vec();
        let value = tagged(index, 100);
        db.put(&key, &value).expect("a put");
        model.insert(key, value);
    }
    db.compact_range(..).expect("a compaction");
    db.close().expect("a clean close");
    let db = options().open(DIR).expect("a reopen");
    (world, db, model)
}

fn tables(world: &World) -> Vec<PathBuf> {
    order::of_kind(&world.fs, Path::new(DIR), FileKind::Table)
}

/// Gets every key, and says how many were right and how many an error about `victim`.
fn judge(
    db: &Db,
    model: &Model,
    victim: &Path,
    is_expected: impl Fn(&siltstone::Error),
) -> (usize, usize) {
    let (mut right, mut failed) = (0, 0);
    for (key, value) in model {
        match db.get(key) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(&**value), "{}", key.escape_ascii());
                right += 1;
            }
            Err(error) => {
                assert_eq!(error.path(), Some(victim), "{error}");
                is_expected(&error);
                failed += 1;
            }
        }
    }
    (right, failed)
}

/// A key of every table.
fn everywhere() -> impl Iterator<Item = Vec<u8>> {
    (0..300_u64)
        .step_by(5)
        .map(|index| index.to_be_bytes().to_vec())
}

fn put_everywhere(db: &Db) {
    for key in everywhere() {
        db.put(key, "new").expect("writes go on");
    }
}

#[test]
fn a_table_that_cannot_be_read_fails_its_own_reads_and_no_others() {
    let eio = |kind| Fault::new(kind, FaultError::Eio).for_ever();
    let emfile = |kind| Fault::new(kind, FaultError::Emfile).for_ever();
    let cases = [
        (ReadMode::Positioned, eio(OpKind::Read)),
        (ReadMode::Positioned, emfile(OpKind::Open)),
        (ReadMode::Mapped, eio(OpKind::Map)),
        (ReadMode::Mapped, emfile(OpKind::Open)),
    ];
    for (mode, fault) in cases {
        let _place = PrintOnPanic(format!("{mode:?} {fault:?}"));
        let (world, db, model) = made(mode, Verify::Once);
        let before = tables(&world);
        let victim = before[before.len() / 2].clone();
        let only = victim.clone();
        world.fs.fail(fault.only(move |path| path == only));
        let io = |error: &siltstone::Error| assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let (right, failed) = judge(&db, &model, &victim, io);
        assert!(right > failed && failed > 0, "{right} right, {failed} not");
        let scanned: siltstone::Result<Vec<_>> = db.iter().and_then(Iterator::collect);
        io(&scanned.expect_err("it cannot be complete"));
        // A compaction needs it, fails, and replaces nothing.
        put_everywhere(&db);
        db.flush().expect("so do flushes");
        let with_flushed = tables(&world);
        io(&db.compact_range(..).expect_err("an input cannot be read"));
        world.executor.run_until_idle();
        let after = tables(&world);
        assert!(before.iter().all(|path| after.contains(path)), "{after:?}");
        assert!(
            after.len() <= with_flushed.len(),
            "outputs were left: {after:?}"
        );
        assert!(!matches!(db.health(), Health::Poisoned(_)));
        world.fs.clear_faults();
        let mut model = model;
        model.extend(everywhere().map(|key| (key, b"new".to_vec())));
        assert_same(&db, &model, &[]);
        db.compact_range(..).expect("the fault is gone");
        assert_same(&db, &model, &[]);
    }
}

#[test]
fn a_block_that_comes_back_wrong_is_corruption_with_its_place() {
    // A mapping is checked where it is first touched, a block that is loaded each time.
    let (world, db, model) = made(ReadMode::Positioned, Verify::Once);
    let before = tables(&world);
    let victim = before[before.len() / 2].clone();
    // Opened while it was whole.
    assert_same(&db, &model, &[]);
    let only = victim.clone();
    let fault = Fault::with_effect(OpKind::Read, Effect::FlipBit { bit: 77 }).for_ever();
    world.fs.fail(fault.only(move |path| path == only));
    let damage = |error: &siltstone::Error| {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.offset().is_some(), "{error}");
    };
    let (right, failed) = judge(&db, &model, &victim, damage);
    assert!(right > failed && failed > 0, "{right} right, {failed} not");
    put_everywhere(&db);
    damage(&db.compact_range(..).expect_err("an input is damaged"));
    world.executor.run_until_idle();
    let after = tables(&world);
    assert!(before.iter().all(|path| after.contains(path)), "{after:?}");
    world.fs.clear_faults();
    db.compact_range(..).expect("the fault is gone");
}

#[test]
fn without_descriptors_every_read_is_right_or_an_error() {
    for mode in [ReadMode::Positioned, ReadMode::Mapped] {
        let (world, db, model) = made(mode, Verify::Always);
        let fault = Fault::new(OpKind::Open, FaultError::Emfile).for_ever();
        world.fs.fail(fault);
        for (key, value) in &model {
            match db.get(key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&**value)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            }
        }
        // Nothing that a write needs is opened.
        for index in 300..310_u64 {
            db.put(index.to_be_bytes(), "new").expect("a put");
        }
        world.fs.clear_faults();
        let mut model = model;
        model.extend((300..310_u64).map(|index| (index.to_be_bytes().to_vec(), b"new".to_vec())));
        assert_same(&db, &model, &[]);
    }
}

/// What lies in level 0 is found by `multi_get` as it is by `get`, whatever is wrong below.
#[test]
fn keys_found_above_do_not_need_a_table_below_that_cannot_be_read() {
    for mode in [ReadMode::Positioned, ReadMode::Mapped] {
        let (world, db, _) = made(mode, Verify::Once);
        let below = tables(&world);
        put_everywhere(&db);
        db.flush().expect("a flush");
        let fault = Fault::new(OpKind::Open, FaultError::Eio).for_ever();
        let bad = below.clone();
        let fault = fault.only(move |path| bad.iter().any(|below| below == path));
        world.fs.fail(fault);
        let keys: Vec<_> = everywhere().collect();
        for key in &keys {
            let found = db.get(key).expect("it is above");
            assert_eq!(found.as_deref(), Some(&b"new"[..]));
        }
        let found = db.multi_get(&keys).expect("they are above");
        for value in found {
            assert_eq!(value.as_deref(), Some(&b"new"[..]));
        }
        let error = db.multi_get([1_u64.to_be_bytes()]);
        let error = error.expect_err("that one is below");
        assert!(
            below.iter().any(|path| error.path() == Some(path)),
            "{error}"
        );
    }
}
