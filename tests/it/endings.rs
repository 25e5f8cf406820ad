//! Logs that end in different ways under each recovery mode, handles after a close, and what an
//! open reads.

use std::path::Path;
use std::sync::{Arc, Mutex};

use base::FileKind;
use base::fs::CountingFs;
use base::fs::sim::{CrashModel, SimFs};
use log::RecordKind;
use siltstone::{Db, Durability, ErrorKind, Event, RecoveryMode, WriteOptions};

use crate::order;
use crate::support::{DIR, Model, PrintOnPanic, World, contents, tagged};

/// Puts one key a commit, the first `durable` of them durably, into one segment.
fn numbered(durable: usize, count: usize) -> (World, Vec<Model>) {
    let world = World::new(7);
    let options = world
        .options()
        .log_segment_bytes(64 << 10)
        .memtable_bytes_max(1 << 20);
    let db = options.open(DIR).expect("a new database");
    let mut states = vec![Model::new()];
    for index in 0..count {
        let (key, value) = (format!("{index:03}"), tagged(index as u64, 40));
        let durability = if index < durable {
            Durability::Disk
        } else {
            Durability::Os
        };
        db.put_with(&key, &value, &WriteOptions::new().durability(durability))
            .expect("a put");
        let mut next = states[index].clone();
        next.insert(key.into_bytes(), value);
        states.push(next);
    }
    // As a kill leaves it: nothing was sealed.
    let image = world.fs.crash_image(&CrashModel::Everything, 0);
    (World::on(image, 7), states)
}

/// The segment with the batches, and where each begins and ends.
fn batches(fs: &SimFs) -> (std::path::PathBuf, Vec<(usize, usize)>) {
    for path in order::segments(fs, Path::new(DIR)) {
        let bytes = fs.contents(&path).expect("it was listed");
        let (mut places, mut begin) = (Vec::new(), 512);
        for record in order::parse(&path, &bytes) {
            let end = usize::try_from(record.end).expect("a file in memory");
            if record.kind == RecordKind::Batch {
                places.push((begin, end));
            }
            begin = end;
        }
        if !places.is_empty() {
            return (path, places);
        }
    }
    panic!("no segment holds a batch");
}

fn damaged(world: &World, change: impl FnOnce(&mut Vec<u8>, &[(usize, usize)])) -> World {
    let image = world.fs.crash_image(&CrashModel::Everything, 0);
    let (path, places) = batches(&image);
    let mut bytes = image.contents(&path).expect("it is there");
    change(&mut bytes, &places);
    image.install(&path, &bytes).expect("a directory");
    World::on(image, 7)
}

fn open_in(world: &World, mode: RecoveryMode) -> siltstone::Result<(Model, Vec<Event>)> {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let listener =
        Arc::new(move |event: &Event| told.lock().expect("no panic").push(event.clone()));
    let db = world
        .options()
        .recovery_mode(mode)
        .on_event(listener)
        .open(DIR)?;
    let found = contents(&db)?;
    drop(db);
    let events = std::mem::take(&mut *events.lock().expect("no panic"));
    Ok((found, events))
}

fn dropped_bytes(events: &[Event]) -> u64 {
    let dropped = events.iter().map(|event| match event {
        Event::LogTailDropped { bytes, .. } => *bytes,
        _ => 0,
    });
    dropped.sum()
}

#[test]
fn a_torn_last_record_is_dropped_except_by_the_strict() {
    let (world, states) = numbered(5, 20);
    for cut in [1, 7, 30, 60] {
        let torn = || {
            damaged(&world, |bytes, places| {
                let end = places.last().expect("twenty").1;
                bytes[end - cut..].fill(0);
            })
        };
        let _place = PrintOnPanic(format!("{cut} bytes are missing"));
        for mode in [RecoveryMode::TornTail, RecoveryMode::PointInTime] {
            let (found, events) = open_in(&torn(), mode).expect("it opens");
            assert!(
                found == states[19] || found == states[20],
                "{mode:?} shows something else"
            );
            assert_eq!(
                dropped_bytes(&events) > 0,
                found == states[19],
                "{mode:?} tells of it"
            );
        }
        match open_in(&torn(), RecoveryMode::Strict) {
            Ok((found, _)) => assert_eq!(found, states[20]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption);
                assert!(error.to_string().contains(".log"), "{error}");
                assert!(error.offset().is_some(), "{error}");
            }
        }
    }
}

#[test]
fn damage_before_what_was_synced_is_corruption_except_for_a_point_in_time() {
    let (world, states) = numbered(15, 20);
    for index in [0, 3, 12] {
        let _place = PrintOnPanic(format!("record {index} is damaged"));
        let flipped = || damaged(&world, |bytes, places| bytes[places[index].0 + 45] ^= 0x10);
        for mode in [RecoveryMode::Strict, RecoveryMode::TornTail] {
            let error = open_in(&flipped(), mode).expect_err("synced bytes are damaged");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            let message = error.to_string();
            assert!(message.contains(".log"), "{message}");
            let remedy = match mode {
                RecoveryMode::Strict => "another recovery mode",
                _ => "siltstone verify",
            };
            assert!(message.contains(remedy), "{message}");
        }
        let world = flipped();
        let (found, events) = open_in(&world, RecoveryMode::PointInTime).expect("it opens");
        assert_eq!(found, states[index]);
        assert!(dropped_bytes(&events) > 0);
        let kept = world
            .fs
            .paths()
            .into_iter()
            .any(|path| path.starts_with("/db/lost"));
        assert!(kept, "the original is kept");
        // And from then on it is an ordinary database.
        let (again, _) = open_in(&world, RecoveryMode::Strict).expect("it opens");
        assert_eq!(again, states[index]);
    }
}

#[test]
fn damage_after_what_was_synced_ends_the_log() {
    let (world, states) = numbered(5, 20);
    let flipped = damaged(&world, |bytes, places| bytes[places[10].0 + 45] ^= 0x10);
    let (found, events) = open_in(&flipped, RecoveryMode::TornTail).expect("it opens");
    assert_eq!(found, states[10], "nothing behind a hole is replayed");
    assert!(dropped_bytes(&events) > 0);
}

/// Writers fill their places side by side: a kill may leave one empty before others that are whole.
#[test]
fn a_hole_that_a_kill_left_is_refused_by_the_strict_alone_and_nothing_is_changed() {
    let (world, states) = numbered(5, 20);
    for index in [6, 10, 18] {
        let _place = PrintOnPanic(format!("record {index} was never filled"));
        let hole = damaged(&world, |bytes, places| {
            bytes[places[index].0..places[index].1].fill(0);
        });
        let before = hole.files();
        for _ in 0..2 {
            let error = open_in(&hole, RecoveryMode::Strict).expect_err("a record is missing");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(
                error.to_string().contains("another recovery mode"),
                "{error}"
            );
            assert!(error.offset().is_some(), "{error}");
        }
        assert!(before == hole.files(), "a file was changed");
        let (found, events) = open_in(&hole, RecoveryMode::TornTail).expect("it opens");
        assert_eq!(found, states[index], "nothing behind a hole is replayed");
        assert!(dropped_bytes(&events) > 0);
        // That was written down: from then on there is no hole.
        let (again, _) = open_in(&hole, RecoveryMode::Strict).expect("it opens");
        assert_eq!(again, states[index]);
    }
}

#[test]
fn handles_are_closed_by_a_close_and_slices_are_not() {
    let world = World::new(9);
    let db = world.open().expect("a new database");
    let value = tagged(1, 500);
    db.put("table", &value).expect("a put");
    db.flush().expect("a flush");
    db.put("memtable", &value).expect("a put");
    let other = db.clone();
    let keyspace = db.keyspace("default").expect("it is there");
    let snapshot = db.snapshot().expect("a snapshot");
    let mut iterator = db.iter().expect("an iterator");
    let mut cursor = db.cursor().expect("a cursor");
    assert!(cursor.seek_to_first().expect("a move"));
    let slices: Vec<_> = ["table", "memtable"]
        .map(|key| db.get(key).expect("a get").expect("it is there"))
        .into_iter()
        .chain([
            iterator.next().expect("two").expect("a step").1,
            cursor.value_slice(),
        ])
        .collect();
    db.close().expect("a clean close");
    db.close().expect("closing twice is no error");
    let closed = |error: siltstone::Error| assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    closed(other.get("table").expect_err("closed"));
    closed(other.put("a", "b").expect_err("closed"));
    closed(other.flush().expect_err("closed"));
    closed(other.sync().expect_err("closed"));
    closed(other.compact_range(..).expect_err("closed"));
    closed(other.snapshot().map(|_| ()).expect_err("closed"));
    closed(other.iter().map(|_| ()).expect_err("closed"));
    closed(keyspace.get("table").expect_err("closed"));
    closed(keyspace.put("a", "b").expect_err("closed"));
    closed(snapshot.get("table").expect_err("closed"));
    closed(snapshot.multi_get(["table"]).expect_err("closed"));
    closed(iterator.next().expect("an error").expect_err("closed"));
    assert!(iterator.next().is_none(), "an error is the end");
    closed(cursor.next().expect_err("closed"));
    closed(cursor.seek("a").expect_err("closed"));
    assert!(matches!(other.health(), siltstone::Health::Closed));
    drop((db, other, keyspace, snapshot, iterator, cursor));
    assert!(
        slices.iter().all(|slice| **slice == *value),
        "slices outlive everything"
    );
    // The directory is free although a slice still holds a memtable.
    world
        .open()
        .expect("a reopen")
        .close()
        .expect("a clean close");
    assert!(
        slices.iter().all(|slice| **slice == *value),
        "slices outlive everything"
    );
}

#[test]
fn a_reader_does_not_hold_the_lock() {
    let world = World::new(9);
    let db = world.open().expect("a new database");
    db.put("a", "1").expect("a put");
    let snapshot = db.snapshot().expect("a snapshot");
    let iterator = db.iter().expect("an iterator");
    drop(db);
    let db = world.open().expect("the lock is free");
    db.put("a", "2").expect("a put");
    assert_eq!(
        snapshot.get("a").expect_err("closed").kind(),
        ErrorKind::Closed
    );
    drop(iterator);
}

/// Bytes read by an open of a clean database with about `table_count` tables, and the count.
fn read_by_open(table_count: u64) -> (u64, u64) {
    let world = World::new(1);
    let counting = |fs: &Arc<SimFs>| Arc::new(CountingFs::new(Arc::clone(fs) as _));
    let db = world.options().open(DIR).expect("a new database");
    for index in 0..table_count * 60 {
        let key = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        db.put(key, tagged(index, 100)).expect("a put");
    }
    db.compact_range(..).expect("a compaction");
    db.wait_for_compactions().expect("rest");
    db.close().expect("a clean close");
    let fs = counting(&world.fs);
    let db = world
        .options()
        .file_system(fs.clone())
        .open(DIR)
        .expect("an open");
    let read = fs.counts().read_bytes();
    let tables = db
        .stats()
        .levels
        .iter()
        .map(|level| level.table_count)
        .sum();
    assert!(db.get([0; 8]).expect("a get").is_some());
    (read, tables)
}

#[test]
fn an_open_reads_little_however_large_the_database() {
    let (small_bytes, small) = read_by_open(20);
    let (large_bytes, large) = read_by_open(80);
    assert!(large > small + 20, "{small} and {large} tables");
    let per_table = large_bytes.saturating_sub(small_bytes) / (large - small);
    let constant = small_bytes.saturating_sub(per_table * small);
    // 10 GB in tables of 64 MiB.
    let estimate = constant + per_table * 160;
    assert!(
        estimate < 8 << 20,
        "{per_table} bytes a table and {constant} beside: {estimate} for 10 GB"
    );
    assert!(per_table < 2048, "{per_table} bytes a table");
}

#[test]
fn a_database_that_was_closed_replays_nothing() {
    let world = World::new(3);
    let db: Db = world.open().expect("a new database");
    for index in 0..50_u64 {
        db.put(index.to_be_bytes(), tagged(index, 50))
            .expect("a put");
    }
    let last = db.stats().visible_seq;
    db.close().expect("a clean close");
    let (found, events) = open_in(&world, RecoveryMode::Strict).expect("an open");
    assert_eq!(found.len(), 50);
    let recovered = events.iter().find_map(|event| match event {
        Event::Recovered {
            last_seq,
            replayed_count,
        } => Some((*last_seq, *replayed_count)),
        _ => None,
    });
    assert_eq!(recovered, Some((last, 0)));
}

#[test]
fn opening_and_closing_leaves_nothing_behind() {
    let mut world = World::new(3);
    for round in 0..30 {
        let db = world.open().expect("an open");
        if round == 3 {
            db.put("key", "value").expect("a put");
        }
        match round % 3 {
            0 => drop(db),
            _ => db.close().expect("a clean close"),
        }
        world.restart(round);
        let names: Vec<_> = world.fs.paths();
        assert!(names.len() < 12, "round {round}: {names:?}");
    }
}

#[test]
fn a_clean_close_hands_unused_file_numbers_back() {
    let mut world = World::new(4);
    let highest = |world: &World| {
        let names = world.fs.paths();
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        let numbers = names.filter_map(|name| FileKind::parse(name).map(|(_, number)| number.0));
        numbers.max().expect("a database has a MANIFEST")
    };
    world.open().expect("new").close().expect("a clean close");
    let before = highest(&world);
    for round in 0..10 {
        world.restart(round);
        world
            .open()
            .expect("an open")
            .close()
            .expect("a clean close");
    }
    // A MANIFEST and a segment for each open, and perhaps a prepared one.
    let used = highest(&world) - before;
    assert!(used <= 40, "ten clean opens used up {used} file numbers");
}
