use std::path::Path;

use base::clock::ManualClock;
use base::fs::sim::{CrashModel, SimFs};
use base::{KeyKind, OwnedKey};
use compaction::EDIT_BYTES_MAX;
use sstable::ReaderOptions;

use super::write::full_state;
use super::*;
use crate::events::Listener;

const DIR: &str = "/db";
const KEY_BYTES: usize = 64_000;
const TABLE_COUNT: u64 = 600;

fn rooms() -> Rooms {
    rooms_on(&new_disk())
}

fn new_disk() -> Arc<SimFs> {
    let (fs, dir) = (SimFs::new(1), Path::new(DIR));
    fs.create_dir(dir).expect("an empty disk");
    let named = fs.sync_dir(base::fs::parent_of(dir));
    named.expect("an empty disk");
    fs
}

fn rooms_on(fs: &Arc<SimFs>) -> Rooms {
    let (fs, dir): (Arc<dyn FileSystem>, _) = (Arc::clone(fs) as _, Path::new(DIR));
    let (listener, signals) = (Listener::default(), Arc::default());
    Rooms {
        clock: Arc::new(ManualClock::new(1)),
        dir: dir.into(),
        tables: TableCache::new(
            Arc::clone(&fs),
            dir.into(),
            ReaderOptions::default(),
            usize::MAX,
        ),
        sweeper: Sweeper::new(
            Arc::clone(&fs),
            dir.into(),
            Arc::clone(&signals),
            listener.clone(),
        ),
        health: Arc::new(HealthState::new(listener, signals)),
        ledger: Arc::new(Ledger::new()),
        manifest_bytes_min: 1 << 20,
        fs,
    }
}

fn seq(number: u64) -> SequenceNumber {
    SequenceNumber::new(number).expect("small")
}

/// A table whose keys are nearly as long as they may get.
fn long_keys(number: u64) -> TableMeta {
    let key = |last: u8| {
        let mut user_key = number.to_be_bytes().to_vec();
        user_key.resize(KEY_BYTES, last);
        OwnedKey {
            user_key,
            seq: seq(1),
            kind: KeyKind::Put,
        }
    };
    TableMeta {
        number: FileNumber(number),
        file_id: number,
        file_bytes: 1 << 20,
        entry_count: 2,
        tombstone_count: 0,
        raw_bytes: 1 << 20,
        smallest: key(0),
        largest: key(1),
        largest_exclusive: false,
        seq_smallest: seq(1),
        seq_largest: seq(1),
        global_seq: None,
        location: 0,
        compression: 0,
        created_micros: 0,
        hidden_count: 0,
    }
}

fn many_long_keys() -> KeyspaceEdit {
    long_keys_upto(TABLE_COUNT)
}

fn long_keys_upto(count: u64) -> KeyspaceEdit {
    let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
    let bottom = base::Level::all().last().expect("there are levels");
    edit.added = (1..=count).map(|n| (bottom, long_keys(n))).collect();
    edit
}

fn loaded(rooms: &Rooms) -> Loaded {
    load(&*rooms.fs, &rooms.dir, &mut table_maker(rooms)).expect("it can be read")
}

fn metas(keyspaces: &KeyspaceFacts) -> Vec<TableMeta> {
    let tables = keyspaces.alive[&KeyspaceId::DEFAULT].version.tables();
    tables.map(|(_, table)| table.meta.clone()).collect()
}

#[test]
fn a_full_state_with_long_keys_is_in_records_that_can_be_read() {
    let rooms = rooms();
    let mut new = Loaded::new_database("default");
    let record = new.keyspaces.alive.get_mut(&KeyspaceId::DEFAULT);
    let record = record.expect("it is there");
    let version = record
        .version
        .apply(&many_long_keys(), &mut table_maker(&rooms));
    record.version = Arc::new(version.expect("they are apart"));
    let facts = Facts {
        identity: Identity::default(),
        next_file_number: FileNumber(TABLE_COUNT + 1),
        last_seq: seq(1),
        log_durable_upto: Position::default(),
    };
    let parts = full_state(&facts, &new.keyspaces);
    assert!(parts.len() > 1, "{} parts", parts.len());
    for part in &parts {
        let bytes = part.encode().len();
        assert!(bytes <= EDIT_BYTES_MAX, "{bytes}");
    }
    let expected = metas(&new.keyspaces);
    assert_eq!(expected.len() as u64, TABLE_COUNT);
    VersionSet::install(rooms.clone(), new, Identity::default()).expect("it can be written");
    assert!(metas(&loaded(&rooms).keyspaces) == expected);
}

#[test]
fn an_edit_with_long_keys_is_in_records_that_can_be_read() {
    let rooms = rooms();
    let new = Loaded::new_database("default");
    let versions = VersionSet::install(rooms.clone(), new, Identity::default()).expect("installed");
    let number = versions.manifest_number();
    let applied = versions.apply(many_long_keys(), Position::default(), seq(1), |_| {});
    applied.expect("they are apart");
    assert_ne!(versions.manifest_number(), number, "it has outgrown");
    // The MANIFEST before, in which it is an edit and not the state.
    let current = rooms.dir.join(base::ids::CURRENT);
    rooms.fs.remove_file(&current).expect("it is there");
    let file = rooms.fs.create(&current).expect("it is gone");
    let contents = current_contents(number);
    file.write_at(0, contents.as_bytes())
        .expect("there is room");
    assert_eq!(metas(&loaded(&rooms).keyspaces).len() as u64, TABLE_COUNT);
}

/// Sectors of what was not synced come to the disk in any order.
#[test]
fn a_power_cut_within_a_long_edit_leaves_all_of_it_or_nothing() {
    const COUNT: u64 = 200;
    let mut is_whole = false;
    for calls in 1..20 {
        let fs = new_disk();
        let rooms = rooms_on(&fs);
        let new = Loaded::new_database("default");
        let versions = VersionSet::install(rooms, new, Identity::default()).expect("installed");
        fs.crash_after(calls);
        let applied = versions.apply(long_keys_upto(COUNT), Position::default(), seq(1), |_| {});
        for seed in 0..3 {
            let after = fs.crash_image(&CrashModel::Sectors, seed);
            let count = metas(&loaded(&rooms_on(&after)).keyspaces).len() as u64;
            assert!(
                count == COUNT || count == 0 && applied.is_err(),
                "{calls} {seed} {count}"
            );
        }
        is_whole = applied.is_ok();
        if is_whole {
            break;
        }
    }
    assert!(is_whole, "it never came to its end");
}
