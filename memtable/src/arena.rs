//! Memory for entries and nodes: allocated by moving a mark, freed all at once.
//!
//! What is handed out stays where it is until the arena is dropped, so a pointer to it is good for
//! as long as the arena is. It never gives memory back in between and knows nothing of order. Small
//! arenas take chunks from the allocator, each twice as long as the one before; a large one ends up
//! with large pages from the system. Called by `ordered` alone.
#![expect(
    unsafe_code,
    reason = "memory is handed out by address and freed as a whole"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::slice;

use base::pages::{HUGE_PAGE_BYTES, Pages};
use base::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use base::sync::{Arc, Mutex};
use base::{Home, MemoryLedger, MemoryShare, PinKind, PinLedger, Slice};

use crate::spare::SpareChunks;

/// An entry longer than this fraction of a chunk gets a chunk of its own, so that what is wasted
/// at the end of a chunk stays below it.
const LARGE_FRACTION: usize = 4;
/// The smallest chunk that is worth a lock.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// A shorter value is copied: it would keep all of the arena, many thousand times its length, and a
/// copy of so many bytes costs about what counting a pin and its end does.
pub(crate) const PIN_BYTES_MIN: usize = 1 << 10;
/// Chunks start on a cache line.
const CHUNK_ALIGN: usize = 64;

/// Where an arena is counted, and where it finds what was made ready for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    /// Slices into it.
    pub(crate) pins: Arc<PinLedger>,
    /// Its chunks.
    pub(crate) memory: Arc<MemoryLedger>,
    /// Large chunks made ready.
    pub(crate) spares: Option<Arc<SpareChunks>>,
}

/// A growing set of chunks that several threads allocate from at once.
#[derive(Debug)]
pub(crate) struct Arena {
    /// The chunk being filled, one of those owned; null before the first allocation.
    current: AtomicPtr<Chunk>,
    /// Whatever is handed out starts at a multiple of it and is rounded up to one.
    align: usize,
    chunk_bytes_max: usize,
    /// Capacity of all chunks but the current one.
    retired_bytes: AtomicUsize,
    chunks: Mutex<Vec<OwnedChunk>>,
    pins: Arc<PinLedger>,
    spares: Option<Arc<SpareChunks>>,
    /// All chunks.
    share: MemoryShare,
}

/// Alone on its cache line: every allocation writes to it.
#[derive(Debug)]
#[repr(align(64))]
struct Chunk {
    bytes: NonNull<u8>,
    capacity: usize,
    /// How much of it is handed out; beyond `capacity` if threads raced for the end.
    used: AtomicUsize,
    /// `None` if it comes from the allocator.
    pages: Option<Pages>,
}

/// Owns one chunk; the chunk itself stays put while the list of owners grows.
#[derive(Debug)]
struct OwnedChunk(NonNull<Chunk>);

// SAFETY: it is the only owner of a chunk on the heap, whose memory may be freed on any thread, and
// what other threads do with the chunk meanwhile goes through its atomic mark.
unsafe impl Send for OwnedChunk {}

impl Arena {
    /// An empty arena whose chunks grow up to `chunk_bytes_max`; what it hands out is aligned to
    /// `align`. It is counted in `ledgers`.
    pub(crate) fn new(chunk_bytes_max: usize, align: usize, ledgers: Ledgers) -> Self {
        assert!(align.is_power_of_two() && align <= CHUNK_ALIGN);
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            align,
            chunk_bytes_max: chunk_bytes_max.max(CHUNK_BYTES_MIN),
            retired_bytes: AtomicUsize::new(0),
            chunks: Mutex::new(Vec::new()),
            pins: ledgers.pins,
            spares: ledgers.spares,
            share: MemoryShare::new(&ledgers.memory),
        }
    }

    /// Bytes handed out, what is lost at the ends of chunks included; exact while nobody allocates.
    pub(crate) fn used_bytes(&self) -> usize {
        // Acquire: pairs with the Release in `allocate_from_new_chunk`.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: it is null or an owned chunk, which is freed only when the arena is dropped.
        let current = unsafe { current.as_ref() }.map_or(0, Chunk::used_bytes);
        self.retired_bytes.load(Ordering::Relaxed) + current
    }

    /// What it has taken, and where that is counted.
    pub(crate) fn share(&self) -> &MemoryShare {
        &self.share
    }

    /// A slice of `bytes` that keeps this arena alive; a short one is copied instead, and so is any
    /// where slices keep as much as they may.
    ///
    /// # Safety
    /// - `bytes` lie within what one [`Arena::allocate`] of this arena returned, and are written.
    /// - They are never written again.
    pub(crate) unsafe fn pin(self: &Arc<Self>, bytes: &[u8]) -> Slice {
        if bytes.len() < PIN_BYTES_MIN || !self.share.pin() {
            return Slice::copy_from(bytes);
        }
        let place = bytes.as_ptr().expose_provenance() as u64;
        Slice::pinned(self, place, bytes.len())
    }

    /// Room for `len` bytes, not zero and not initialised, that nobody else has. It may be used
    /// until the arena is dropped.
    #[inline]
    pub(crate) fn allocate(&self, len: usize) -> NonNull<u8> {
        assert!(len > 0 && len < usize::MAX / 2);
        let len = len.next_multiple_of(self.align);
        // Acquire: pairs with the Release in `allocate_from_new_chunk`.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: it is null or an owned chunk, which is freed only when the arena is dropped.
        let chunk = unsafe { current.as_ref() };
        if let Some(place) = chunk.and_then(|chunk| chunk.take(len)) {
            return place;
        }
        self.allocate_from_new_chunk(len)
    }

    #[cold]
    fn allocate_from_new_chunk(&self, len: usize) -> NonNull<u8> {
        let mut chunks = self.chunks.lock();
        let current = self.current.load(Ordering::Relaxed);
        // SAFETY: as in `allocate`.
        let current = unsafe { current.as_ref() };
        // Another thread may have put a new chunk in place while this one waited.
        if let Some(place) = current.and_then(|chunk| chunk.take(len)) {
            return place;
        }
        let next_bytes = current.map_or(CHUNK_BYTES_MIN, |chunk| chunk.capacity * 2);
        let next_bytes = next_bytes.min(self.chunk_bytes_max);
        let is_large = len > next_bytes / LARGE_FRACTION;
        let new_bytes = if is_large { len } else { next_bytes };
        self.share.grow(new_bytes);
        let owned = OwnedChunk::new(new_bytes, self.spares.as_deref());
        let chunk = owned.chunk();
        let place = chunk.take(len);
        let place = place.expect("a new chunk holds what it was made for");
        let retired_bytes = if is_large {
            len
        } else {
            // Release: pairs with the Acquire in `allocate`.
            self.current.store(owned.0.as_ptr(), Ordering::Release);
            current.map_or(0, |chunk| chunk.capacity)
        };
        self.retired_bytes
            .fetch_add(retired_bytes, Ordering::Relaxed);
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

    fn ledger(&self) -> (&PinLedger, PinKind) {
        (&self.pins, PinKind::Memtable)
    }
}

impl Chunk {
    /// The next `len` bytes, or `None` if fewer are left.
    #[inline]
    fn take(&self, len: usize) -> Option<NonNull<u8>> {
        let last_start = self.capacity.checked_sub(len)?;
        // Looked at first, so that a long entry does not use up what shorter ones can have. Only
        // threads that race for the last bytes move the mark beyond the end, each once.
        if self.used.load(Ordering::Relaxed) > last_start {
            return None;
        }
        // Relaxed: the ranges handed out are disjoint whatever the order; whoever is told of one
        // learns of its content by other means.
        let start = self.used.fetch_add(len, Ordering::Relaxed);
        if start > last_start {
            return None;
        }
        // SAFETY: `start + len` is at most `capacity`, the length of the allocation.
        Some(unsafe { self.bytes.add(start) })
    }

    fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed).min(self.capacity)
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, CHUNK_ALIGN).expect("entries are far below isize::MAX")
    }
}

impl OwnedChunk {
    fn new(capacity: usize, spares: Option<&SpareChunks>) -> Self {
        assert!(capacity > 0);
        let spare = spares.filter(|_| capacity == HUGE_PAGE_BYTES);
        let spare = spare.and_then(SpareChunks::take);
        // Miri knows no mappings.
        let large = (capacity >= HUGE_PAGE_BYTES && !cfg!(miri))
            .then(|| spare.map_or_else(|| Pages::new(capacity), Ok));
        let (bytes, pages) = match large {
            Some(Ok(mut pages)) => (pages.start(), Some(pages)),
            // Refused for want of mappings, say: the allocator may still have some memory.
            Some(Err(_)) | None => (Self::on_the_heap(capacity), None),
        };
        let chunk = Box::new(Chunk {
            bytes,
            capacity,
            used: AtomicUsize::new(0),
            pages,
        });
        Self(NonNull::from(Box::leak(chunk)))
    }

    fn on_the_heap(capacity: usize) -> NonNull<u8> {
        let layout = Chunk::layout(capacity);
        // SAFETY: the size of the layout is not zero: `new` checks the capacity.
        let bytes = unsafe { alloc(layout) };
        NonNull::new(bytes).unwrap_or_else(|| handle_alloc_error(layout))
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
        if chunk.pages.is_none() {
            let layout = Chunk::layout(chunk.capacity);
            // SAFETY: allocated in `on_the_heap` with the same layout, and freed nowhere else.
            unsafe { dealloc(chunk.bytes.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests;
