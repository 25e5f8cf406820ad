//! The bounds on memory hold for the whole database. Alone in its binary, because the allocator of
//! a binary is one for all its tests.
//!
//! Counted is what the allocator was asked for, what was mapped past it and what zstd keeps, at
//! every moment. What tables occupy as mappings is the page cache's; there is none here, since
//! reads are positioned.
#![expect(unsafe_code, reason = "an allocator that counts has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use base::pages;
use siltstone::{Db, Keyspace, KeyspaceOptions, Options, PinKind, PinReport, ReadMode, Slice};

struct Counting;

/// What the allocator has given out.
static HEAP_BYTES: AtomicUsize = AtomicUsize::new(0);
/// The most that was ever taken, mapped pages included.
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let heap = HEAP_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    let beside = pages::mapped_bytes() + sstable::zstd_bytes();
    PEAK_BYTES.fetch_max(heap + beside, Ordering::Relaxed);
}

fn given_back(bytes: usize) {
    HEAP_BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // Both may exist for a moment.
        taken(len);
        given_back(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
const KEYSPACE_COUNT: usize = 200;
const MEMTABLE_BYTES: usize = 24 * MIB;
const CACHE_BYTES: usize = 24 * MIB;
const COMPACTION_THREADS: usize = 2;
/// What each keyspace may cost that holds nothing: its counters, one stripe of them a thread, and
/// its view.
const KEYSPACE_BYTES: usize = 16 << 10;
/// What each job may take, whatever the size of the tables and the number of runs: a megabyte on
/// its way from files and a quarter on its way to one, blocks held back for a dictionary, the
/// hashes, index and filter of one table, zstd's contexts.
const JOB_BYTES: usize = 5 * MIB / 2;
/// How many of them run at once: compactions, and the flush.
const JOB_COUNT: usize = COMPACTION_THREADS + 1;
const PUT_COUNT: u64 = 110_000;
/// How many slices each reader keeps.
const KEPT_COUNT: usize = 2_000;

/// A generator that needs no state but a number (SplitMix64; Steele and others 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn below(state: &mut u64, bound: usize) -> usize {
    let bound = bound as u64;
    usize::try_from(random(state) % bound).expect("below a usize")
}

/// Half of all writes go to an eighth of the keyspaces, the others everywhere.
fn keyspace_of<'a>(state: &mut u64, keyspaces: &'a [Keyspace]) -> &'a Keyspace {
    let is_hot = random(state).is_multiple_of(2);
    let count = keyspaces.len() / if is_hot { 8 } else { 1 };
    &keyspaces[below(state, count)]
}

fn key(state: &mut u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    let number = random(state) % 4_000;
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// Mostly short values, some that are pinned where they lie, a few long ones.
fn value_len(state: &mut u64) -> usize {
    match random(state) % 100 {
        0 => 20_000,
        1..10 => 1_024 + below(state, 2_000),
        _ => 50 + below(state, 500),
    }
}

fn write(keyspaces: &[Keyspace], seed: u64) {
    let mut state = seed;
    let mut value = Vec::new();
    for _ in 0..PUT_COUNT / 2 {
        let keyspace = keyspace_of(&mut state, keyspaces);
        value.resize(value_len(&mut state), 0);
        for word in value.chunks_mut(16) {
            let bytes = random(&mut state).to_le_bytes();
            let len = word.len().min(8);
            word[..len].copy_from_slice(&bytes[..len]);
        }
        keyspace.put(key(&mut state), &value).expect("written");
    }
}

/// Reads points and ranges and keeps what it found for a while.
fn read(db: &Db, keyspaces: &[Keyspace], seed: u64, is_done: &AtomicBool) -> u64 {
    let mut state = seed;
    let mut kept: VecDeque<Slice> = VecDeque::new();
    let mut found_count = 0;
    while !is_done.load(Ordering::Acquire) {
        let keyspace = keyspace_of(&mut state, keyspaces);
        for _ in 0..50 {
            if let Some(value) = keyspace.get(key(&mut state)).expect("read") {
                found_count += 1;
                kept.push_back(value);
            }
        }
        for entry in keyspace.range(key(&mut state)..).expect("open").take(20) {
            let (_, value) = entry.expect("read");
            kept.push_back(value);
        }
        while kept.len() > KEPT_COUNT {
            kept.pop_front();
        }
        black_box(db.stats().pinned_bytes);
    }
    found_count
}

fn taken_now() -> usize {
    HEAP_BYTES.load(Ordering::Relaxed) + pages::mapped_bytes() + sstable::zstd_bytes()
}

/// A log of many times the memory is replayed within the same bound: what is flushed on the way is
/// given back on the way.
fn recover_within_the_bound() {
    const VALUE_BYTES: usize = 500;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let options = |bytes: usize| {
        Options::new()
            .memtable_bytes_total(bytes)
            .cache_bytes(MIB as u64)
            .compaction_threads(1)
            .log_segment_bytes(8 << 20)
            .read_mode(ReadMode::Positioned)
    };
    let bounded = 8 * MIB;
    let db = options(16 * bounded).open(dir.path()).expect("it opens");
    let mut state = 1;
    for _ in 0..6 * bounded / VALUE_BYTES {
        let key = random(&mut state).to_be_bytes();
        db.put(key, [1; VALUE_BYTES]).expect("written");
    }
    assert!(
        db.stats().memtable_bytes > 5 * bounded as u64,
        "it is all in the log"
    );
    drop(db);
    let before = taken_now();
    PEAK_BYTES.store(0, Ordering::Relaxed);
    let db = options(bounded).open(dir.path()).expect("it opens again");
    let peak = PEAK_BYTES.load(Ordering::Relaxed) - before;
    println!("peak of recovery={peak}");
    assert!(db.stats().flush_count > 0);
    let allowed = bounded + bounded / 100 * 15 + 2 * JOB_BYTES;
    assert!(peak <= allowed, "peak={peak} allowed={allowed}");
}

/// What a compaction of so many overlapping tables of level 0, each of more than a megabyte, takes
/// beyond what there was before.
fn peak_of_compaction(table_count: usize) -> usize {
    const VALUE_BYTES: usize = 1_000;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let db = Options::new()
        .memtable_bytes_total(16 * MIB)
        .memtable_bytes_max(8 * MIB)
        .table_bytes_target(8 << 20)
        .cache_bytes(0)
        .compaction_threads(1)
        .level0_table_count_trigger(1_000)
        .level0_table_count_max(2_000)
        .idle_compaction_after(None)
        .read_mode(ReadMode::Positioned)
        .open(dir.path())
        .expect("it opens");
    let mut state = 7;
    for _ in 0..table_count {
        for _ in 0..3 * MIB / 2 / VALUE_BYTES {
            let key = random(&mut state).to_be_bytes();
            let value: Vec<u8> = (0..VALUE_BYTES / 8)
                .flat_map(|_| random(&mut state).to_le_bytes())
                .collect();
            db.put(key, value).expect("written");
        }
        db.flush().expect("flushed");
    }
    assert_eq!(db.stats().compaction_count, 0, "not before it is asked for");
    let before = taken_now();
    PEAK_BYTES.store(before, Ordering::Relaxed);
    db.compact_range(..).expect("compacted");
    let peak = PEAK_BYTES.load(Ordering::Relaxed) - before;
    assert!(db.stats().compaction_count > 0);
    peak
}

/// A merge of many runs reads as much ahead as one of a few, in smaller pieces.
fn more_runs_take_no_more_memory() {
    let [few, many] = [3, 24].map(peak_of_compaction);
    println!("peak of a compaction: few={few} many={many}");
    // Each run has its cursor and its table's index.
    assert!(many <= few + MIB, "few={few} many={many}");
    assert!(many <= JOB_BYTES, "many={many}");
}

fn two_hundred_keyspaces_stay_within_the_bounds() {
    let seed = 0x5eed;
    println!("seed={seed}");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let before = taken_now();
    let options = Options::new()
        .memtable_bytes_total(MEMTABLE_BYTES)
        .cache_bytes(CACHE_BYTES as u64)
        .compaction_threads(COMPACTION_THREADS)
        .log_segment_bytes(8 << 20)
        .read_mode(ReadMode::Positioned);
    let db = options.open(dir.path()).expect("it opens");
    let keyspaces: Vec<_> = (0..KEYSPACE_COUNT)
        .map(|n| {
            let options = KeyspaceOptions::new().table_bytes_target(1 << 20);
            db.create_keyspace(&format!("keyspace-{n}"), &options)
                .expect("created")
        })
        .collect();
    let idle = taken_now() - before;
    println!("idle={idle}");
    PEAK_BYTES.store(0, Ordering::Relaxed);
    let is_done = AtomicBool::new(false);
    let (mut pinned_most, mut taken_most) = (0, 0);
    thread::scope(|scope| {
        let (db, keyspaces, is_done) = (&db, keyspaces.as_slice(), &is_done);
        let readers = [1, 2].map(|n| scope.spawn(move || read(db, keyspaces, seed + n, is_done)));
        let writers = [3, 4].map(|n| scope.spawn(move || write(keyspaces, seed + n)));
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let stats = db.stats();
            let of_memtables = |pins: &&PinReport| pins.kind == PinKind::Memtable;
            let pins = stats.pins.iter().find(of_memtables);
            pinned_most = pinned_most.max(pins.expect("every kind is told").count);
            taken_most = taken_most.max(stats.memtable_taken_bytes);
            thread::yield_now();
        }
        for writer in writers {
            writer.join().expect("it wrote");
        }
        is_done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().expect("it read") > 0, "there is something");
        }
    });
    let peak = PEAK_BYTES.load(Ordering::Relaxed) - before;
    let stats = db.stats();
    println!(
        "peak={peak} taken={taken_most} pinned={pinned_most} flushes={} compactions={} cache={} \
         hits={} misses={} waits={:?}",
        stats.flush_count,
        stats.compaction_count,
        stats.cache_bytes,
        stats.cache_hits,
        stats.cache_misses,
        stats.waits,
    );
    assert!(stats.flush_count > 0 && stats.compaction_count > 0 && stats.cache_hits > 0);
    assert!(pinned_most > 0, "memtables were pinned");
    assert!(
        taken_most <= MEMTABLE_BYTES as u64 / 100 * 105,
        "{taken_most}"
    );
    let bounded = MEMTABLE_BYTES + CACHE_BYTES;
    let fixed = KEYSPACE_COUNT * KEYSPACE_BYTES + JOB_COUNT * JOB_BYTES;
    assert!(
        peak <= bounded + bounded / 100 * 15 + fixed,
        "peak={peak} bounded={bounded} fixed={fixed}"
    );
}

/// One after the other: what is counted is of the whole process.
#[test]
fn memory_stays_within_the_bounds() {
    more_runs_take_no_more_memory();
    two_hundred_keyspaces_stay_within_the_bounds();
    recover_within_the_bound();
}
