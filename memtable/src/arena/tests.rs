use std::thread;

use super::*;

fn arena(chunk_bytes_max: usize) -> Arc<Arena> {
    Arc::new(Arena::new(chunk_bytes_max, 8, Ledgers::default()))
}

/// Takes room for `bytes` and fills it.
fn store(arena: &Arena, bytes: &[u8]) -> NonNull<u8> {
    let place = arena.allocate(bytes.len());
    // SAFETY: `allocate` gave this many bytes that nobody else has.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
    place
}

fn read(place: NonNull<u8>, len: usize) -> Vec<u8> {
    // SAFETY: the callers pass what `store` returned and the length they stored, and they keep
    // the arena.
    unsafe { slice::from_raw_parts(place.as_ptr(), len) }.to_vec()
}

fn capacities(arena: &Arena) -> Vec<usize> {
    let chunks = arena.chunks.lock();
    chunks.iter().map(|owned| owned.chunk().capacity).collect()
}

#[test]
fn what_is_stored_stays_as_it_is_and_aligned() {
    for align in [1, 8, 64] {
        let arena = Arena::new(64 << 10, align, Ledgers::default());
        let lens = [1, 7, 100, 1023, 1024, 1025, 4096, 4097, 70_000];
        let mut stored = Vec::new();
        for round in 0..20u8 {
            for (index, &len) in lens.iter().enumerate() {
                let fill = round ^ (u8::try_from(index).expect("few") << 5);
                stored.push((store(&arena, &vec![fill; len]), fill, len));
            }
        }
        for (place, fill, len) in stored {
            assert_eq!(read(place, len), vec![fill; len]);
            assert_eq!(place.addr().get() % align, 0);
        }
    }
}

#[test]
fn chunks_double_up_to_the_limit_and_are_filled_to_their_last_byte() {
    let arena = arena(16 << 10);
    for _ in 0..(4 + 8 + 16 + 16) {
        store(&arena, &[1; 1024]);
    }
    assert_eq!(
        capacities(&arena),
        [4 << 10, 8 << 10, 16 << 10, 16 << 10],
        "nothing was wasted"
    );
    assert_eq!(arena.used_bytes(), 44 << 10);
    store(&arena, &[1; 3]);
    assert_eq!(arena.used_bytes(), (44 << 10) + 8, "rounded up");
}

#[test]
fn a_large_entry_leaves_the_current_chunk_in_place() {
    let arena = arena(4 << 10);
    store(&arena, b"a");
    let current = arena.current.load(Ordering::Relaxed);
    store(&arena, &vec![7; 1 << 20]);
    assert_eq!(arena.used_bytes(), 8 + (1 << 20));
    store(&arena, b"c");
    assert_eq!(arena.current.load(Ordering::Relaxed), current);
    assert_eq!(capacities(&arena), [4 << 10, 1 << 20]);
}

#[test]
fn chunks_of_a_large_page_come_from_the_system() {
    let arena = arena(HUGE_PAGE_BYTES);
    let mut stored = Vec::new();
    let entry_count: u32 = if cfg!(miri) { 10 } else { 6_000 };
    for n in 0..entry_count {
        stored.push((store(&arena, &vec![n.to_le_bytes()[0]; 1000]), n));
    }
    for (place, n) in stored {
        assert_eq!(read(place, 1000), vec![n.to_le_bytes()[0]; 1000]);
    }
    let chunks = arena.chunks.lock();
    let from_pages = chunks.iter().filter(|owned| owned.chunk().pages.is_some());
    let want = usize::from(!cfg!(miri));
    assert!(from_pages.count() >= want);
}

#[test]
fn threads_never_share_a_byte() {
    let rounds = if cfg!(miri) { 50 } else { 2_000 };
    let arena = arena(4 << 10);
    thread::scope(|scope| {
        for id in 0..4u8 {
            let arena = &arena;
            scope.spawn(move || {
                let mut stored = Vec::new();
                for n in 0..rounds {
                    let len = 1 + (n * 7 + usize::from(id)) % 200;
                    stored.push((store(arena, &vec![id; len]), len));
                }
                for (place, len) in stored {
                    assert!(read(place, len).iter().all(|byte| *byte == id));
                }
            });
        }
    });
}

#[test]
fn a_pinned_slice_outlives_the_arena_handle() {
    let ledgers = Ledgers {
        memory: Arc::new(MemoryLedger::new(CHUNK_BYTES_MIN)),
        ..Ledgers::default()
    };
    let pins = &ledgers.pins;
    let arena = Arc::new(Arena::new(0, 8, ledgers.clone()));
    let place = store(&arena, &[9; PIN_BYTES_MIN]);
    // SAFETY: so many bytes were stored there; the arena is alive.
    let value = unsafe { slice::from_raw_parts(place.as_ptr(), PIN_BYTES_MIN) };
    // SAFETY: the bytes are what was stored in this arena, and stay so.
    let slice = unsafe { arena.pin(value) };
    // SAFETY: as for all of them.
    let short = unsafe { arena.pin(&value[1..]) };
    assert!(!short.is_pinned(), "it would keep more than it is worth");
    let another = Arc::new(Arena::new(0, 8, ledgers.clone()));
    let place = store(&another, &[9; PIN_BYTES_MIN]);
    // SAFETY: as for the first.
    let value = unsafe { slice::from_raw_parts(place.as_ptr(), PIN_BYTES_MIN) };
    // SAFETY: as for the first.
    let copied = unsafe { another.pin(value) };
    assert!(!copied.is_pinned(), "slices keep as much as they may");
    assert_eq!(copied, slice);
    assert_eq!(ledgers.memory.taken_bytes(), 2 * CHUNK_BYTES_MIN);
    drop((arena, another));
    assert_eq!(ledgers.memory.taken_bytes(), CHUNK_BYTES_MIN);
    assert!(slice.is_pinned());
    assert_eq!(slice, [9; PIN_BYTES_MIN]);
    assert_eq!((pins.count(), pins.bytes()), (1, PIN_BYTES_MIN as u64));
    drop(slice);
    assert_eq!((pins.count(), pins.bytes()), (0, 0));
    assert_eq!(ledgers.memory.taken_bytes(), 0);
}
