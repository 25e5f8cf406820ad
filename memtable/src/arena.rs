//! The bytes of entries: allocated by moving a mark, freed all at once.
//!
//! Bytes are copied in once and never change or move until the arena is dropped, so a pointer to
//! them is good for as long as the arena is. It never gives memory back in between and knows
//! nothing of order. Called by `ordered` alone.
#![expect(
    unsafe_code,
    reason = "memory is handed out by address and freed as a whole"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::slice;

use base::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use base::sync::{Arc, Mutex};
use base::{Home, PinLedger, Slice};

/// An entry longer than this fraction of a chunk gets a chunk of its own, so that what is wasted
/// at the end of a chunk stays below it.
const LARGE_FRACTION: usize = 4;
/// The smallest chunk that is worth a lock.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Chunks start on a cache line.
const CHUNK_ALIGN: usize = 64;

/// A growing set of chunks that several threads allocate from at once.
#[derive(Debug)]
pub(crate) struct Arena {
    /// The chunk being filled, one of `chunks`; null before the first entry.
    current: AtomicPtr<Chunk>,
    chunk_bytes: usize,
    /// Bytes handed out, of all chunks together.
    stored_bytes: AtomicUsize,
    chunks: Mutex<Vec<OwnedChunk>>,
    pins: Arc<PinLedger>,
}

#[derive(Debug)]
struct Chunk {
    bytes: NonNull<u8>,
    capacity: usize,
    /// How much of it is handed out. INVARIANT: never above `capacity`.
    used: AtomicUsize,
}

/// Owns one chunk; the chunk itself stays put while the list of owners grows.
#[derive(Debug)]
struct OwnedChunk(NonNull<Chunk>);

// SAFETY: it is the only owner of a chunk on the heap, whose memory may be freed on any thread, and
// what other threads do with the chunk meanwhile goes through its atomic mark.
unsafe impl Send for OwnedChunk {}

impl Arena {
    /// An empty arena that grows by `chunk_bytes`; slices into it are counted in `pins`.
    pub(crate) fn new(chunk_bytes: usize, pins: Arc<PinLedger>) -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            chunk_bytes: chunk_bytes.max(CHUNK_BYTES_MIN),
            stored_bytes: AtomicUsize::new(0),
            chunks: Mutex::new(Vec::new()),
            pins,
        }
    }

    /// Bytes of keys and values stored.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Copies `key` and, right behind it, `value`; returns where they start.
    ///
    /// The bytes can be read from any thread that learns of the place through a Release and
    /// Acquire pair, until the arena is dropped.
    #[inline]
    pub(crate) fn store(&self, key: &[u8], value: &[u8]) -> NonNull<u8> {
        let len = key.len() + value.len();
        let place = self.allocate(len);
        // SAFETY: `allocate` gave `len` bytes that nobody else has, and `key` is the first part of
        // that length.
        unsafe { ptr::copy_nonoverlapping(key.as_ptr(), place.as_ptr(), key.len()) };
        // SAFETY: `key.len()` is at most `len`, so this stays within what was allocated.
        let behind = unsafe { place.add(key.len()) };
        // SAFETY: the rest of the `len` bytes is as long as `value`, and still nobody else's.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), behind.as_ptr(), value.len()) };
        self.stored_bytes.fetch_add(len, Ordering::Relaxed);
        place
    }

    /// A slice of `bytes` that keeps this arena alive; a short one is copied instead.
    ///
    /// # Safety
    /// - `bytes` lie within what one [`Arena::store`] of this arena returned and filled.
    pub(crate) unsafe fn pin(self: &Arc<Self>, bytes: &[u8]) -> Slice {
        let place = bytes.as_ptr().expose_provenance() as u64;
        Slice::pinned(self, place, bytes.len())
    }

    #[inline]
    fn allocate(&self, len: usize) -> NonNull<u8> {
        if len == 0 {
            return NonNull::dangling();
        }
        // Acquire: pairs with the Release in `allocate_from_new_chunk`.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: it is null or one of `chunks`, which are freed only when the arena is dropped.
        let chunk = unsafe { current.as_ref() };
        if let Some(place) = chunk.and_then(|chunk| chunk.take(len)) {
            return place;
        }
        self.allocate_from_new_chunk(len)
    }

    #[cold]
    fn allocate_from_new_chunk(&self, len: usize) -> NonNull<u8> {
        let mut chunks = self.chunks.lock();
        let is_large = len > self.chunk_bytes / LARGE_FRACTION;
        if !is_large {
            let current = self.current.load(Ordering::Relaxed);
            // SAFETY: as in `allocate`.
            let chunk = unsafe { current.as_ref() };
            // Another thread may have put a new chunk in place while this one waited.
            if let Some(place) = chunk.and_then(|chunk| chunk.take(len)) {
                return place;
            }
        }
        let owned = OwnedChunk::new(if is_large { len } else { self.chunk_bytes });
        let place = owned
            .chunk()
            .take(len)
            .expect("a new chunk holds the entry it was made for");
        if !is_large {
            // Release: pairs with the Acquire in `allocate`.
            self.current.store(owned.0.as_ptr(), Ordering::Release);
        }
        chunks.push(owned);
        place
    }
}

impl Home for Arena {
    fn bytes(&self, place: u64, len: usize) -> &[u8] {
        let address = usize::try_from(place).expect("it was the address of a byte");
        let start = ptr::with_exposed_provenance(address);
        // INVARIANT: the type is private and slices of it are made by `pin` alone.
        // SAFETY: `pin` was given `len` bytes at this address, stored in this arena, which `self`
        // keeps alive; stored bytes never change.
        unsafe { slice::from_raw_parts(start, len) }
    }

    fn ledger(&self) -> Option<&PinLedger> {
        Some(&self.pins)
    }
}

impl Chunk {
    /// The next `len` bytes, or `None` if fewer are left.
    #[inline]
    fn take(&self, len: usize) -> Option<NonNull<u8>> {
        // Relaxed: the ranges handed out are disjoint whatever the order; whoever is told of one
        // learns of its content by other means.
        let start = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(len).filter(|end| *end <= self.capacity)
            })
            .ok()?;
        // SAFETY: `start + len` is at most `capacity`, the length of the allocation.
        Some(unsafe { self.bytes.add(start) })
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, CHUNK_ALIGN).expect("entries are far below isize::MAX")
    }
}

impl OwnedChunk {
    fn new(capacity: usize) -> Self {
        assert!(capacity > 0);
        let layout = Chunk::layout(capacity);
        // SAFETY: the size of the layout is not zero.
        let bytes = unsafe { alloc(layout) };
        let Some(bytes) = NonNull::new(bytes) else {
            handle_alloc_error(layout)
        };
        let chunk = Box::new(Chunk {
            bytes,
            capacity,
            used: AtomicUsize::new(0),
        });
        Self(NonNull::from(Box::leak(chunk)))
    }

    fn chunk(&self) -> &Chunk {
        // SAFETY: the pointer comes from a leaked box that only `drop` takes back.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for OwnedChunk {
    fn drop(&mut self) {
        // SAFETY: it comes from a leaked box, and only this owner takes it back, once.
        let chunk = unsafe { Box::from_raw(self.0.as_ptr()) };
        let layout = Chunk::layout(chunk.capacity);
        // SAFETY: allocated in `new` with the same layout, and freed nowhere else.
        unsafe { dealloc(chunk.bytes.as_ptr(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn read(place: NonNull<u8>, len: usize) -> Vec<u8> {
        // SAFETY: the callers pass what `store` returned and the length they stored, and they keep
        // the arena.
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
}
