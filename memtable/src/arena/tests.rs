use std::thread;

use super::*;

fn read(place: NonNull<u8>, len: usize) -> Vec<u8> {
    // SAFETY: the callers pass what `store` returned, the length they stored, and keep the arena.
    unsafe { slice::from_raw_parts(place.as_ptr(), len) }.to_vec()
}

fn arena(chunk_bytes: usize) -> Arc<Arena> {
    Arc::new(Arena::new(chunk_bytes, Arc::default()))
}

#[test]
fn entries_of_every_size_keep_their_bytes() {
    let arena = arena(4 << 10);
    let lens = [0, 1, 7, 100, 1023, 1024, 1025, 4096, 4097, 70_000];
    let mut stored = Vec::new();
    for round in 0..20u8 {
        for (index, &len) in lens.iter().enumerate() {
            let key = vec![round; len / 3];
            let value = vec![0xf0 | u8::try_from(index).expect("few"); len - len / 3];
            stored.push((arena.store(&key, &value), [key, value].concat()));
        }
    }
    for (place, bytes) in &stored {
        assert_eq!(read(*place, bytes.len()), *bytes);
    }
    let total: usize = stored.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(arena.stored_bytes(), total);
}

#[test]
fn a_chunk_is_filled_to_its_last_byte() {
    let arena = arena(4 << 10);
    for _ in 0..8 {
        arena.store(&[1; 512], &[2; 512]);
    }
    let chunks = arena.chunks.lock();
    assert_eq!(chunks.len(), 2);
    for owned in chunks.iter() {
        assert_eq!(owned.chunk().used.load(Ordering::Relaxed), 4 << 10);
    }
}

#[test]
fn a_large_entry_leaves_the_current_chunk_in_place() {
    let arena = arena(4 << 10);
    arena.store(b"a", b"");
    let current = arena.current.load(Ordering::Relaxed);
    arena.store(b"b", &vec![7; 1 << 20]);
    arena.store(b"c", b"");
    assert_eq!(arena.current.load(Ordering::Relaxed), current);
    assert_eq!(arena.chunks.lock().len(), 2);
}

#[test]
fn threads_never_share_a_byte() {
    let arena = arena(4 << 10);
    thread::scope(|scope| {
        for id in 0..4u8 {
            let arena = &arena;
            scope.spawn(move || {
                let mut stored = Vec::new();
                for n in 0..2_000 {
                    let len = (n * 7 + usize::from(id)) % 200;
                    stored.push((arena.store(&[id], &vec![id; len]), len + 1));
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
    let pins = Arc::new(PinLedger::default());
    let arena = Arc::new(Arena::new(0, Arc::clone(&pins)));
    let place = arena.store(b"key", &[9; 100]);
    // SAFETY: 3 bytes of key were stored before 100 of value.
    let value = unsafe { place.add(3) };
    // SAFETY: as above; the arena is alive.
    let value = unsafe { slice::from_raw_parts(value.as_ptr(), 100) };
    // SAFETY: the bytes are what was stored in this arena.
    let slice = unsafe { arena.pin(value) };
    drop(arena);
    assert!(slice.is_pinned());
    assert_eq!(slice, [9; 100]);
    assert_eq!((pins.count(), pins.bytes()), (1, 100));
    drop(slice);
    assert_eq!((pins.count(), pins.bytes()), (0, 0));
}
