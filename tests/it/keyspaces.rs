//! Keyspaces: that they are apart, that what spans them is atomic, that they come and go whatever
//! happens meanwhile, and that a thousand of them cost little.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::FileKind;
use base::fs::sim::{CrashModel, SimFs};
use siltstone::seam::CountingFs;
use siltstone::{
    Compression, Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Result, WriteBatch,
    WriteOptions,
};

use crate::images::check_no_leak;
use crate::order;
use crate::support::{DIR, Model, PrintOnPanic, Rng, World, contents, tagged};

fn small() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .memtable_bytes_max(4 << 10)
        .table_bytes_target(4 << 10)
        .level_base_bytes(32 << 10)
}

/// Everything in every keyspace.
fn all_contents(db: &Db) -> BTreeMap<String, Model> {
    let names = db.keyspaces().expect("it is open");
    let read = |name: String| {
        let keyspace = db.keyspace(&name).expect("it was listed");
        (name, contents(&keyspace).expect("a scan"))
    };
    names.into_iter().map(read).collect()
}

fn fill(keyspace: &Keyspace, count: u64) {
    for n in 0..count {
        let key = format!("key{:03}", n % 40);
        keyspace.put(key, tagged(n, 120)).expect("a put");
    }
}

#[test]
fn keyspaces_are_apart_and_come_back() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        let db = world.open().expect("a new database");
        let mut expected: BTreeMap<String, Model> = BTreeMap::new();
        let mut rng = Rng::new(seed);
        for name in ["default", "b", "a", &"n".repeat(255), "\u{fc}mlaut"] {
            if name != "default" {
                db.create_keyspace(name, &small()).expect("a new keyspace");
            }
            expected.insert(name.to_owned(), Model::new());
        }
        let names: Vec<String> = expected.keys().cloned().collect();
        for n in 0..400 {
            let name = rng.pick(&names).clone();
            let key = format!("key{}", rng.below(30)).into_bytes();
            let keyspace = db.keyspace(&name).expect("it is there");
            let model = expected.get_mut(&name).expect("as many models");
            if rng.chance(20) {
                keyspace.delete(&key).expect("a delete");
                model.remove(&key);
            } else {
                let value = tagged(n, 10 + rng.below(200));
                keyspace.put(&key, &value).expect("a put");
                model.insert(key, value);
            }
            if rng.chance(20) {
                world.executor.step();
            }
        }
        assert_eq!(all_contents(&db), expected);
        if seed % 2 == 0 {
            db.close().expect("a clean close");
        }
        drop(db);
        world.restart(seed + 100);
        let db = world.open().expect("an open");
        assert_eq!(all_contents(&db), expected);
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}

#[test]
fn names_have_limits_and_the_default_keyspace_is_its_own() {
    let world = World::new(1);
    let db = world.open().expect("a new database");
    let kind = |result: Result<Keyspace>| result.expect_err("refused").kind();
    let options = KeyspaceOptions::new();
    for wrong in ["", &"n".repeat(256)] {
        let made = db.create_keyspace(wrong, &options);
        assert_eq!(kind(made), ErrorKind::InvalidArgument);
    }
    let made = db.create_keyspace("default", &options);
    assert_eq!(kind(made), ErrorKind::Conflict);
    db.create_keyspace("a", &options).expect("a new keyspace");
    assert_eq!(kind(db.create_keyspace("a", &options)), ErrorKind::Conflict);
    let absurd = options.level_fan_out(1);
    let made = db.create_keyspace("b", &absurd);
    assert_eq!(kind(made), ErrorKind::InvalidArgument);
    assert_eq!(kind(db.keyspace("b")), ErrorKind::NotFound);
    let dropped = db.drop_keyspace("b").expect_err("not there");
    assert_eq!(dropped.kind(), ErrorKind::NotFound);
    let dropped = db.drop_keyspace("default").expect_err("never");
    assert_eq!(dropped.kind(), ErrorKind::InvalidArgument);
    assert_eq!(db.keyspaces().expect("it is open"), ["a", "default"]);
}

#[test]
fn options_are_kept() {
    let world = World::new(2);
    let db = world.open().expect("a new database");
    let large = small()
        .memtable_bytes_max(1 << 20)
        .compression(Compression::Zstd { level: 1 });
    let expected = format!("{large:?}");
    for (name, options) in [("small", small()), ("large", large)] {
        db.create_keyspace(name, &options).expect("a new keyspace");
    }
    drop(db);
    for _ in 0..2 {
        let db = world.open().expect("an open");
        let flushes = db.stats().flush_count;
        fill(&db.keyspace("large").expect("it is there"), 200);
        world.executor.run_until_idle();
        assert_eq!(db.stats().flush_count, flushes, "{expected}");
        fill(&db.keyspace("small").expect("it is there"), 200);
        world.executor.run_until_idle();
        assert!(db.stats().flush_count > flushes);
        db.close().expect("a clean close");
    }
}

#[test]
fn handles_of_a_dropped_keyspace_say_so_and_what_was_read_stays() {
    let world = World::new(3);
    let db = world.open().expect("a new database");
    let keyspace = db.create_keyspace("a", &small()).expect("a new keyspace");
    fill(&keyspace, 60);
    keyspace.flush().expect("a flush");
    fill(&keyspace, 45);
    let expected = contents(&keyspace).expect("a scan");
    let mut cursor = keyspace.cursor().expect("a cursor");
    let iterator = keyspace.iter().expect("an iterator");
    let slice = keyspace.get("key001").expect("a get").expect("it is there");
    let before = db.snapshot().expect("a snapshot");
    let of_keyspace = before.keyspace(&keyspace).expect("it is there");
    fill(&keyspace, 10);
    db.drop_keyspace("a").expect("a drop");
    let after = db.snapshot().expect("a snapshot");
    let mut batch = WriteBatch::new();
    batch.put("other", "1").put_in(&keyspace, "key", "1");
    let errors = [
        keyspace.get("key001").map(drop),
        keyspace.iter().map(drop),
        keyspace.multi_get(["key001"]).map(drop),
        keyspace.put("key", "1").map(drop),
        keyspace.delete("key").map(drop),
        keyspace.flush(),
        keyspace.compact_range(..),
        db.write(&batch).map(drop),
        after.keyspace(&keyspace).map(drop),
    ];
    for (at, error) in errors.into_iter().enumerate() {
        let error = error.expect_err("the keyspace is gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{at}: {error}");
        assert!(error.to_string().contains("name=a"), "{at}: {error}");
    }
    assert_eq!(db.get("other").expect("a get"), None, "all or nothing");
    world.executor.run_until_idle();
    assert_eq!(slice, *expected.get(&b"key001"[..]).expect("it was there"));
    assert!(cursor.seek("key").expect("a seek"));
    let walked: Model = iterator
        .map(|item| item.expect("a step"))
        .map(|(key, value)| (key.into_vec(), value.into_vec()))
        .collect();
    assert_eq!(walked, expected);
    assert_eq!(contents(&of_keyspace).expect("a scan"), expected);
    let late = before.keyspace(&keyspace).expect("the snapshot is older");
    assert_eq!(contents(&late).expect("a scan"), expected);
    // Nobody is left who reads it: its tables go.
    let tables = || order::of_kind(&world.fs, Path::new(DIR), FileKind::Table).len();
    assert!(tables() > 0, "a snapshot reads them");
    drop((before, of_keyspace, late, cursor, slice));
    for _ in 0..3 {
        world.executor.step_named("siltstone-helper");
    }
    assert_eq!(tables(), 0);
    let again = db.create_keyspace("a", &small()).expect("a new one");
    assert_eq!(contents(&again).expect("a scan"), Model::new());
    assert_eq!(
        keyspace.get("key").expect_err("the old one").kind(),
        ErrorKind::NotFound
    );
    drop(db);
    drop((keyspace, again, after));
    let db = world.open().expect("an open");
    assert_eq!(db.keyspaces().expect("it is open"), ["a", "default"]);
    assert_eq!(all_contents(&db)["a"], Model::new());
}

#[test]
fn a_batch_for_another_database_is_refused() {
    let (one, other) = (World::new(4), World::new(5));
    let one = one.open().expect("a new database");
    let other = other.open().expect("a new database");
    let foreign = other.create_keyspace("a", &small()).expect("a keyspace");
    one.create_keyspace("a", &small()).expect("a keyspace");
    for keyspace in [foreign, other.keyspace("default").expect("it is there")] {
        let mut batch = WriteBatch::new();
        batch.put_in(&keyspace, "key", "1");
        let error = one.write(&batch).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        other.write(&batch).expect("it is its own");
        let snapshot = one.snapshot().expect("a snapshot");
        assert!(snapshot.keyspace(&keyspace).is_err());
    }
}

#[test]
fn a_snapshot_covers_every_keyspace_at_one_moment() {
    let world = World::new(6);
    let db = world.open().expect("a new database");
    let [a, b] = ["a", "b"].map(|name| db.create_keyspace(name, &small()).expect("new"));
    for n in 0..200 {
        let mut batch = WriteBatch::new();
        let value = tagged(n, 100);
        batch.put_in(&a, "key", &value).put_in(&b, "key", &value);
        db.write(batch.put("key", &value)).expect("a batch");
        if n % 7 == 0 {
            let snapshot = db.snapshot().expect("a snapshot");
            a.put("key", "later").expect("a put");
            world.executor.step();
            for keyspace in [&a, &b] {
                let view = snapshot.keyspace(keyspace).expect("it is there");
                assert_eq!(view.get("key").expect("a get").as_deref(), Some(&*value));
            }
            assert_eq!(
                snapshot.get("key").expect("a get").as_deref(),
                Some(&*value)
            );
        }
    }
}

/// Batches across keyspaces, flushes between them, creations and drops; tells `done` what was
/// acknowledged.
fn script(world: &World, done: &mut dyn FnMut(u64, &[&str])) -> Result<()> {
    let db = world.open()?;
    let (os, disk) = (
        WriteOptions::new().durability(Durability::Os),
        WriteOptions::new().durability(Durability::Disk),
    );
    let a = db.create_keyspace("a", &small())?;
    done(0, &["a", "default"]);
    let b = db.create_keyspace("b", &small())?;
    done(0, &["a", "b", "default"]);
    for n in 1..=8 {
        let value = tagged(n, 300);
        let mut batch = WriteBatch::new();
        batch.put_in(&a, "key", &value).put_in(&b, "key", &value);
        batch.put("key", &value);
        db.write_with(&batch, if n % 3 == 0 { &disk } else { &os })?;
        if n % 3 == 0 {
            done(n, &["a", "b", "default"]);
        }
        match n {
            2 => a.flush()?,
            4 => b.flush()?,
            5 => db.flush()?,
            _ => {}
        }
    }
    let c = db.create_keyspace("c", &small())?;
    c.put_with("key", "of c", &disk)?;
    done(8, &["a", "b", "c", "default"]);
    db.drop_keyspace("c")?;
    done(8, &["a", "b", "default"]);
    db.flush()?;
    db.create_keyspace("c", &small())?;
    done(8, &["a", "b", "c", "default"]);
    db.close()
}

/// What had been acknowledged: the last batch, and which keyspaces there were.
type Acknowledged = (u64, Vec<String>);

fn run_script(world: &World) -> Vec<Acknowledged> {
    let mut steps = vec![(0, vec!["default".to_owned()])];
    // Where the power is cut, it fails.
    let _ = script(world, &mut |n, names| {
        steps.push((n, names.iter().map(|name| (*name).to_owned()).collect()));
    });
    steps
}

/// The number of the batch whose value `keyspace` shows; 0 before the first.
fn batch_of(db: &Db, name: &str) -> u64 {
    let keyspace = db.keyspace(name).expect("it was listed");
    let value = keyspace.get("key").expect("a get");
    let number = |value: &[u8]| u64::from_le_bytes(value[..8].try_into().expect("a tag"));
    value.map_or(0, |value| number(&value))
}

fn check_after_crash(fs: Arc<SimFs>, seed: u64, steps: &[Acknowledged], all: &[Acknowledged]) {
    let mut world = World::on(fs, seed);
    for _ in 0..2 {
        let db = world.open().expect("recovery");
        let names = db.keyspaces().expect("it is open");
        let acknowledged = steps.last().expect("never empty");
        let next = all.get(steps.len()).unwrap_or(acknowledged);
        assert!(
            names == acknowledged.1 || names == next.1,
            "{names:?} is neither {acknowledged:?} nor {next:?}"
        );
        let batch = batch_of(&db, "default");
        assert!(batch >= acknowledged.0, "batch {} is lost", acknowledged.0);
        for name in ["a", "b"] {
            if names.iter().any(|found| found == name) {
                assert_eq!(batch_of(&db, name), batch, "half a batch in {name}");
            }
        }
        // What is made now gets an id that nothing in the log or MANIFEST has.
        let made = db.create_keyspace("made after the crash", &small());
        let made = made.expect("a new keyspace");
        assert_eq!(contents(&made).expect("a scan"), Model::new());
        made.put("key", "value").expect("a put");
        db.drop_keyspace("made after the crash").expect("a drop");
        drop((made, db));
        world.restart(seed + 1);
    }
    let db = world.open().expect("a second recovery");
    db.close().expect("a clean close");
    check_no_leak(&world.fs);
}

#[test]
fn a_power_cut_at_every_call_leaves_keyspaces_and_batches_whole() {
    for seed in [31, 32] {
        let world = World::new(seed);
        let all = run_script(&world);
        assert_eq!(all.len(), 8, "the script ran to its end");
        let call_count = world.fs.mutation_count();
        drop(world);
        for call in 1..=call_count {
            let _place = PrintOnPanic(format!("seed {seed}, cut in call {call}/{call_count}"));
            let world = World::new(seed);
            world.fs.crash_after(call);
            let steps = run_script(&world);
            assert!(world.fs.has_crashed(), "runs with one seed differ");
            let mut models = world.fs.crash_models(6, 2);
            let mut rng = Rng::new(seed ^ call);
            while models.len() > 3 {
                models.swap_remove(rng.below(models.len()));
            }
            models.push(CrashModel::Synced);
            for model in models {
                let _model = PrintOnPanic(format!("{model:?}"));
                let image = world.fs.crash_image(&model, seed ^ call);
                check_after_crash(image, seed ^ call, &steps, &all);
            }
        }
    }
}

#[test]
fn an_idle_keyspace_does_not_pin_the_log() {
    let world = World::new(8);
    let db = world.open().expect("a new database");
    let [idle, small_holder] =
        ["idle", "holder"].map(|name| db.create_keyspace(name, &small()).expect("new"));
    idle.put("key", "value").expect("a put");
    idle.flush().expect("a flush");
    small_holder.put("key", "value").expect("a put");
    let default = db.keyspace("default").expect("it is there");
    let mut segments_max = 0;
    for _ in 0..20 {
        fill(&default, 60);
        world.executor.run_until_idle();
        segments_max = segments_max.max(db.stats().log_segment_count);
    }
    let stats = db.stats();
    assert!(stats.log_bytes > 100 << 10, "{} bytes", stats.log_bytes);
    assert!(segments_max <= 12, "{segments_max} segments of 4 KiB");
    assert!(stats.log_disk_bytes < 48 << 10, "{}", stats.log_disk_bytes);
    drop((default, idle, small_holder, db));
    let db = world.open().expect("recovery with a raised floor");
    for name in ["idle", "holder"] {
        let keyspace = db.keyspace(name).expect("it is there");
        assert_eq!(
            keyspace.get("key").expect("a get").as_deref(),
            Some(&b"value"[..])
        );
    }
}

#[test]
fn a_drop_frees_the_log_and_the_next_recovery_skips_what_was_written() {
    let world = World::new(9);
    let db = world.open().expect("a new database");
    let gone = db
        .create_keyspace("gone", &KeyspaceOptions::new())
        .expect("new");
    gone.put("key", "value").expect("a put");
    let mut batch = WriteBatch::new();
    batch.put("half", "1").put_in(&gone, "half", "1");
    db.write(&batch).expect("a batch");
    db.drop_keyspace("gone").expect("a drop");
    db.put("later", "1").expect("a put");
    drop((gone, db));
    let db = world.open().expect("an open");
    assert_eq!(db.get("half").expect("a get").as_deref(), Some(&b"1"[..]));
    assert_eq!(contents(&db).expect("a scan").len(), 2);
    fill(&db.keyspace("default").expect("it is there"), 600);
    world.executor.run_until_idle();
    db.flush().expect("a flush");
    world.executor.run_until_idle();
    assert!(
        db.stats().log_segment_count <= 2,
        "{}",
        db.stats().log_segment_count
    );
}

#[test]
fn memtables_of_all_keyspaces_stay_below_their_bound() {
    let world = World::new(10);
    let total = 256 << 10;
    // Nothing but the bound on memory makes it flush.
    let options = world.options().memtable_bytes_total(total);
    let options = options.log_bytes_max(1 << 30);
    let db = options.open(DIR).expect("a new database");
    let large = KeyspaceOptions::new();
    let keyspaces: Vec<_> = (0..20)
        .map(|n| db.create_keyspace(&format!("k{n}"), &large).expect("new"))
        .collect();
    let mut rng = Rng::new(10);
    let mut most = 0;
    for n in 0..3000 {
        let key = format!("key{}", rng.below(1000));
        rng.pick(&keyspaces)
            .put(key, tagged(n, 100))
            .expect("a put");
        most = most.max(db.stats().memtable_bytes);
    }
    assert!(most > total as u64 / 4, "{most}");
    assert!(most <= total as u64 + (16 << 10), "{most}");
}

#[test]
fn a_thousand_keyspaces_cost_little() {
    let fs = SimFs::new(11);
    let counting = Arc::new(CountingFs::new(Arc::clone(&fs) as _));
    let world = World::on(Arc::clone(&fs), 11);
    let options = || {
        let options = world.options().file_system(Arc::clone(&counting) as _);
        options
            .memtable_bytes_total(64 << 20)
            .log_bytes_max(1 << 30)
    };
    fs.set_observer(None);
    let db = options().log_segment_bytes(1 << 20).open(DIR).expect("new");
    let name = |n: u64| format!("keyspace {n}");
    for n in 0..1000 {
        db.create_keyspace(&name(n), &KeyspaceOptions::new())
            .expect("a new keyspace");
    }
    let files = fs.paths().len();
    assert!(files < 12, "{files} files");
    assert!(
        db.stats().memtable_bytes < 4096,
        "empty memtables hold something"
    );
    for n in 0..1000 {
        let keyspace = db.keyspace(&name(n)).expect("it is there");
        keyspace.put("key", name(n)).expect("a put");
    }
    let bytes = db.stats().memtable_bytes;
    assert!(bytes < 1000 * (16 << 10), "{bytes} bytes of memtables");
    drop(db);
    let counts = counting.counts();
    let (read, synced) = (counts.read_bytes(), counts.syncs());
    let db = options()
        .log_segment_bytes(1 << 20)
        .open(DIR)
        .expect("an open");
    let (read, synced) = (counts.read_bytes() - read, counts.syncs() - synced);
    assert!(read < 2 << 20, "{read} bytes read");
    assert!(synced < 20, "{synced} syncs");
    assert_eq!(db.keyspaces().expect("it is open").len(), 1001);
    for n in (0..1000).step_by(37) {
        let keyspace = db.keyspace(&name(n)).expect("it is there");
        assert_eq!(
            *keyspace.get("key").expect("a get").expect("there"),
            *name(n).as_bytes()
        );
    }
}
