//! Point reads take no memory from the allocator. Alone in its binary, because the allocator of a
//! binary is one for all its tests; what a thread takes is counted by itself.
#![expect(unsafe_code, reason = "an allocator that counts has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use siltstone::{Compression, Db, Options, ReadMode};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    // A thread that is ending has lost its counter, and measures nothing any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        note();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEY_COUNT: u64 = 2_000;

fn key(n: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn fill(db: &Db) {
    for n in 0..KEY_COUNT {
        db.put(key(n), [0x5a; 100]).expect("written");
    }
}

/// How often this thread asks for memory while `read` runs for every key and some absent ones.
fn allocations(mut read: impl FnMut(&[u8], bool)) -> u64 {
    let mut run = || {
        for n in 0..2 * KEY_COUNT {
            read(&key(n), n < KEY_COUNT);
        }
    };
    // Once before, for what a thread sets up at its first read and a table at its first touch.
    run();
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

/// `copies`: what one found value costs, where it is copied rather than keep a memtable alive.
fn check(db: &Db, place: &str, copies: u64) {
    let with = allocations(|key, is_there| {
        let len = db.get_with(key, |value| black_box(value).len());
        assert_eq!(len.expect("read"), is_there.then_some(100));
    });
    assert_eq!(with, 0, "get_with in {place}");
    let pinned = allocations(|key, is_there| {
        let value = db.get(key).expect("read");
        let is_pinned = value.is_some_and(|value| value.is_pinned());
        assert_eq!(is_pinned, is_there && copies == 0);
    });
    assert_eq!(pinned, copies * KEY_COUNT, "get in {place}");
    let mut buffer = Vec::with_capacity(100);
    let into = allocations(|key, is_there| {
        assert_eq!(db.get_into(key, &mut buffer).expect("read"), is_there);
    });
    assert_eq!(into, 0, "get_into in {place}");
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    black_box(vec![0u8; 100]);
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn point_reads_allocate_nothing_wherever_the_entry_is() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    // A short value is copied out of a compressed block rather than keep the block.
    let options = Options::new().bottom_compression(Compression::None);
    // Tables stay where they are, however long this takes.
    let options = options.idle_compaction_after(None);
    let db = options.open(dir.path()).expect("it opens");
    fill(&db);
    check(&db, "the memtable", 1);
    db.flush().expect("flushed");
    check(&db, "level 0", 0);
    fill(&db);
    db.flush().expect("flushed");
    check(&db, "two sub-levels", 0);
    db.compact_range(..).expect("compacted");
    check(&db, "a deeper level", 0);
}

#[test]
fn a_warm_cache_serves_positioned_reads_without_allocating() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let options = Options::new().read_mode(ReadMode::Positioned);
    let options = options.idle_compaction_after(None);
    let db = options.open(dir.path()).expect("it opens");
    fill(&db);
    db.flush().expect("flushed");
    let with = allocations(|key, is_there| {
        let len = db.get_with(key, <[u8]>::len).expect("read");
        assert_eq!(len, is_there.then_some(100));
    });
    assert_eq!(with, 0, "the blocks are in the cache");
}
