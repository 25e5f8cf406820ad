//! Memory straight from the system, in pages as large as it has. For what is large, filled from one
//! end to the other, and given back as a whole. Called by `memtable`.

use std::io;
use std::ptr::NonNull;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// The size of a large page on the processors that matter here.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What all [`Pages`] of this process have together.
static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes that [`Pages`] of this process hold now, touched or not. No allocator knows of them: who
/// counts memory adds them to what the allocator says.
pub fn mapped_bytes() -> usize {
    MAPPED_BYTES.load(Ordering::Relaxed)
}

/// A private piece of memory, zero at first; goes back to the system when dropped.
///
/// Large pages are asked for, since memory that is walked at random otherwise waits for the
/// translation of nearly every address. A system without them gives ordinary ones.
#[derive(Debug)]
pub struct Pages {
    map: memmap2::MmapMut,
}

impl Pages {
    /// `len` bytes, rounded up to whole pages by the system.
    ///
    /// # Errors
    /// If the system has no memory or no room for another mapping.
    pub fn new(len: usize) -> io::Result<Self> {
        let map = memmap2::MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        // Advice changes speed only; a kernel without large pages refuses it.
        let _ = map.advise(memmap2::Advice::HugePage);
        MAPPED_BYTES.fetch_add(map.len(), Ordering::Relaxed);
        Ok(Self { map })
    }

    /// Where it starts. Good for reads and writes of [`Pages::len`] bytes while `self` lives, by
    /// whoever sees to it that nobody else uses the same bytes.
    pub fn start(&mut self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("a mapping is not at address 0")
    }

    /// Takes the page faults of its first use now, which clears all of it once more: only for
    /// what nobody uses yet.
    pub fn touch(&mut self) {
        // No page is smaller.
        for byte in self.map.iter_mut().step_by(4096) {
            *byte = 0;
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it has none, which the system refuses.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        MAPPED_BYTES.fetch_sub(self.map.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole() {
        let mut pages = Pages::new(HUGE_PAGE_BYTES).expect("2 MiB are to be had");
        assert_eq!(pages.len(), HUGE_PAGE_BYTES);
        assert!(!pages.is_empty());
        assert_eq!(pages.start().addr().get() % 4096, 0);
        pages.touch();
        assert_eq!(pages.len(), HUGE_PAGE_BYTES);
    }
}
