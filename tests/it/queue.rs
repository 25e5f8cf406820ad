//! Queues: what was taken out must not lie in the way of what is still there for long.

use siltstone::{Cursor, Db, Stats};

use crate::support::{World, tagged};

/// So many entries wait in the queue at first, and are taken out one by one.
const QUEUED_COUNT: u64 = 16_384;
/// A search comes before every so many deletes.
const SEARCH_EVERY: u64 = 16;
/// From so many deletes in a memtable on it may be sealed for them.
const TOMBSTONES_MIN: u64 = 4096;

/// A database whose memtables and log never fill up in a test.
fn open_roomy(world: &World) -> Db {
    let options = world.options();
    let options = options.memtable_bytes_max(64 << 20).log_bytes_max(1 << 30);
    let options = options.log_segment_bytes(64 << 20);
    let options = options
        .table_bytes_target(256 << 10)
        .block_bytes_target(4096);
    options
        .level_base_bytes(4 << 20)
        .open("/db")
        .expect("opens")
}

fn put_all(db: &Db) {
    for number in 0..QUEUED_COUNT {
        db.put(number.to_be_bytes(), tagged(number, 20))
            .expect("a put");
    }
}

/// Takes out everything, at the end that `find` finds and in the order of `numbers`. Returns the
/// most entries that one search walked over, and what it came to.
fn take_out_all(
    world: &World,
    db: &Db,
    numbers: impl Iterator<Item = u64>,
    find: impl Fn(&mut Cursor) -> siltstone::Result<bool>,
) -> (u64, Stats) {
    let mut longest = 0;
    for (done, number) in (0_u64..).zip(numbers) {
        if done.is_multiple_of(SEARCH_EVERY) {
            world.executor.run_until_idle();
            let before = db.stats().scan_hidden_entry_count;
            let mut cursor = db.cursor().expect("a cursor");
            assert!(find(&mut cursor).expect("a search"));
            assert_eq!(cursor.key(), number.to_be_bytes());
            drop(cursor);
            longest = longest.max(db.stats().scan_hidden_entry_count - before);
        }
        db.delete(number.to_be_bytes()).expect("a delete");
    }
    world.executor.run_until_idle();
    (longest, db.stats())
}

#[test]
fn searches_for_the_head_of_a_queue_walk_over_few_deletes() {
    let world = World::new(1);
    let db = open_roomy(&world);
    put_all(&db);
    let (longest, stats) = take_out_all(&world, &db, 0..QUEUED_COUNT, Cursor::seek_to_first);
    // An entry and its delete lie side by side until the memtable is sealed, before the next of
    // the deletes.
    let most = 2 * (TOMBSTONES_MIN + SEARCH_EVERY);
    assert!(longest <= most, "{longest} of at most {most}");
    assert!(
        longest > TOMBSTONES_MIN,
        "deletes are in the way: {longest}"
    );
    let sealed_for_it = QUEUED_COUNT / (TOMBSTONES_MIN + SEARCH_EVERY);
    assert_eq!(stats.flush_count, sealed_for_it, "no more often");
}

#[test]
fn searches_for_the_tail_of_a_stack_walk_over_few_deletes() {
    let world = World::new(2);
    let db = open_roomy(&world);
    put_all(&db);
    let downwards = (0..QUEUED_COUNT).rev();
    let (longest, stats) = take_out_all(&world, &db, downwards, Cursor::seek_to_last);
    // Backward only the deletes are counted for the memtable, not what they hide: it takes longer.
    let most = 3 * TOMBSTONES_MIN;
    assert!(longest <= most, "{longest} of at most {most}");
    assert!(stats.flush_count >= 2, "{}", stats.flush_count);
}

#[test]
fn memtables_are_not_sealed_early_without_scans_that_walk_in_vain() {
    let world = World::new(3);
    let db = open_roomy(&world);
    // Deletes without scans, though with reads.
    put_all(&db);
    for number in 0..QUEUED_COUNT / 2 {
        db.delete(number.to_be_bytes()).expect("a delete");
        let found = db.get(number.to_be_bytes()).expect("a get");
        assert_eq!(found, None);
    }
    // Scans that meet no delete.
    let live = (QUEUED_COUNT / 2).to_be_bytes();
    for _ in 0..100 {
        let found = db.range(live..).expect("a scan").count() as u64;
        assert_eq!(found, QUEUED_COUNT / 2);
    }
    db.put("last", "").expect("a put");
    world.executor.run_until_idle();
    let stats = db.stats();
    assert_eq!((stats.flush_count, stats.sealed_memtable_count), (0, 0));
    assert_eq!(stats.scan_hidden_entry_count, 0);
    // A few that meet all of them do not pay for a flush either.
    for _ in 0..10 {
        assert_eq!(
            db.iter().expect("a scan").count() as u64,
            QUEUED_COUNT / 2 + 1
        );
    }
    db.put("last", "").expect("a put");
    world.executor.run_until_idle();
    let stats = db.stats();
    assert_eq!((stats.flush_count, stats.sealed_memtable_count), (0, 0));
    // Each delete and what it hides.
    assert_eq!(stats.scan_hidden_entry_count, 10 * QUEUED_COUNT);
}

#[test]
fn hidden_entries_are_counted_in_both_directions() {
    let world = World::new(4);
    let db = open_roomy(&world);
    for value in ["1", "2", "3"] {
        db.put("apple", value).expect("a put");
        db.put("pear", value).expect("a put");
    }
    db.delete("apple").expect("a delete");
    let hidden = || db.stats().scan_hidden_entry_count;
    let walk = |items: siltstone::Iter| {
        let before = hidden();
        assert_eq!(items.count(), 1);
        hidden() - before
    };
    // The delete and three versions of the one, two of the other.
    assert_eq!(walk(db.iter().expect("a scan")), 6);
    let mut cursor = db.cursor().expect("a cursor");
    let before = hidden();
    assert!(cursor.seek_to_last().expect("a search"));
    assert!(!cursor.prev().expect("a step"));
    drop(cursor);
    assert_eq!(hidden() - before, 6);
    // What came later than a snapshot is not hidden to it, but not there yet.
    let snapshot = db.snapshot().expect("a snapshot");
    db.put("apple", "4").expect("a put");
    assert_eq!(walk(snapshot.iter().expect("a scan")), 6);
}
