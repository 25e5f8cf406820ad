//! A writable mapping of reserved space at the end of a file that grows: the live segment.
//!
//! The mapping spans more than the file at first. A store behind the end of the file would end the
//! process, so that no place there is handed out before the file has grown. [`LiveMap`] hands out
//! places from front to back, each once. Whoever holds a [`LiveRange`] is the only one who can
//! write there, so that several threads fill their places at the same time. Bytes are read back
//! through the file, never through the mapping. Called by the log alone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use super::count::IoCounts;
#[cfg(any(test, feature = "testing"))]
use super::sim::SimLive;
use super::{Arc, File, Result};

/// No page is smaller; larger ones are not let go of before the next call covers them.
#[cfg(target_os = "linux")]
const PAGE_BYTES: u64 = 4096;

/// What stands behind a live mapping.
pub(super) enum LiveKind {
    Os(MmapRaw, Box<dyn File>),
    #[cfg(any(test, feature = "testing"))]
    Sim(SimLive),
}

struct Shared {
    kind: LiveKind,
    len: u64,
    counts: Option<Arc<IoCounts>>,
}

/// A writable mapping of a file, of which the first bytes are reserved.
///
/// INVARIANT: the file is not truncated before [`LiveMap::close`] has returned true.
pub struct LiveMap {
    shared: Arc<Shared>,
    /// The file reaches at least so far; no place lies beyond.
    reserved: u64,
    /// Everything before was handed out or passed over.
    next: u64,
}

/// A place in a [`LiveMap`] that nobody else can write to. Keeps the mapping alive.
pub struct LiveRange {
    shared: Arc<Shared>,
    start: u64,
    len: usize,
}

impl LiveMap {
    pub(super) fn new(kind: LiveKind, len: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                kind,
                len,
                counts: None,
            }),
            reserved: 0,
            next: 0,
        }
    }

    /// Counts what is stored from now on, if nothing was handed out yet.
    pub(super) fn counted(mut self, counts: Arc<IoCounts>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.counts = Some(counts);
        }
        self
    }

    /// How far places can be handed out, in bytes of the file: mapped, and reserved when that was
    /// last looked at.
    pub fn bytes(&self) -> u64 {
        self.reserved
    }

    /// Takes in that [`File::reserve`](super::File::reserve) has made the file longer.
    ///
    /// # Errors
    /// If the system does not say how long it is; then it counts as it did.
    pub fn extend(&mut self) -> Result<()> {
        let len = match &self.shared.kind {
            LiveKind::Os(_, file) => file.len()?,
            #[cfg(any(test, feature = "testing"))]
            LiveKind::Sim(live) => live.len()?,
        };
        // INVARIANT: what is mapped and within the file can be stored to; nobody cuts the file.
        self.reserved = self.reserved.max(len.min(self.shared.len));
        Ok(())
    }

    /// Hands out `len` bytes at `start`; `None` if they are not all mapped and reserved, or if
    /// something from `start` on was handed out before. What is passed over is never handed out.
    pub fn take(&mut self, start: u64, len: usize) -> Option<LiveRange> {
        let end = start.checked_add(len as u64)?;
        if start < self.next || end > self.reserved {
            return None;
        }
        self.next = end;
        Some(LiveRange {
            shared: Arc::clone(&self.shared),
            start,
            len,
        })
    }

    /// Another hold on the mapping, with which pages can be made ready ahead of the writers.
    pub fn ahead(&self) -> LiveAhead {
        LiveAhead {
            shared: Arc::clone(&self.shared),
            reserved: self.reserved,
        }
    }

    /// Lets go. Returns whether the mapping is gone: it is not while a place is still held.
    pub fn close(self) -> bool {
        Arc::into_inner(self.shared).is_some()
    }
}

/// Makes pages of a [`LiveMap`] ready before they are written. Keeps the mapping alive.
pub struct LiveAhead {
    shared: Arc<Shared>,
    reserved: u64,
}

impl LiveAhead {
    /// Takes the page faults of writing between `start` and `end`, as far as space is reserved;
    /// changes no byte. Returns whether the system can do that.
    pub fn populate(&self, start: u64, end: u64) -> bool {
        #[cfg(target_os = "linux")]
        {
            let end = end.min(self.reserved);
            let Some((map, offset, len)) = self.pages(start - start % PAGE_BYTES, end) else {
                return false;
            };
            // A hint: a system that refuses it takes the faults one by one.
            let advice = memmap2::Advice::PopulateWrite;
            map.advise_range(advice, offset, len).is_ok()
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (start, end);
            false
        }
    }

    /// Lets go of the pages that lie between `start` and `end` as a whole: what was stored there
    /// stays in the file, and storing there again takes a page fault. A page that is mapped when it
    /// is written to the disk interrupts every processor that runs the program.
    pub fn release(&self, start: u64, end: u64) {
        #[cfg(target_os = "linux")]
        {
            let start = start.next_multiple_of(PAGE_BYTES);
            let Some((map, offset, len)) = self.pages(start, end - end % PAGE_BYTES) else {
                return;
            };
            let advice = memmap2::UncheckedAdvice::DontNeed;
            #[expect(unsafe_code, reason = "all mapping happens here")]
            // SAFETY: the mapping is shared and of a file, so that the system takes over what was
            // stored before it drops a page; no reference to mapped memory is ever made.
            let released = unsafe { map.unchecked_advise_range(advice, offset, len) };
            // A hint: what is not released costs time when it is synced.
            let _ = released;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, end);
    }

    /// Where `start` and `end`, which is behind it, lie in a mapping of the system.
    #[cfg(target_os = "linux")]
    fn pages(&self, start: u64, end: u64) -> Option<(&MmapRaw, usize, usize)> {
        let map = match &self.shared.kind {
            LiveKind::Os(map, _) => map,
            #[cfg(any(test, feature = "testing"))]
            LiveKind::Sim(_) => return None,
        };
        let len = end.min(self.shared.len).checked_sub(start)?;
        let (offset, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        (len > 0).then_some((map, offset, len))
    }
}

impl LiveRange {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Stores `parts` one behind the other, `at` bytes into the range. Other threads and processes
    /// that read the file may see any part of it at any time.
    ///
    /// # Errors
    /// Only a simulated mapping fails. Where the disk behind a real one fails, the system ends the
    /// process with a signal.
    ///
    /// # Panics
    /// If the range is shorter.
    pub fn store(&mut self, at: usize, parts: &[&[u8]]) -> Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.check(at, len);
        match &self.shared.kind {
            LiveKind::Os(map, _) => {
                let mut offset = self.offset(at);
                for part in parts {
                    #[expect(unsafe_code, reason = "all mapping happens here")]
                    // SAFETY: `check` has found `offset` plus the length of the part within the
                    // mapping, which `shared` keeps alive.
                    let target = unsafe { map.as_mut_ptr().add(offset) };
                    #[expect(unsafe_code, reason = "all mapping happens here")]
                    // SAFETY: the target is valid for the length of the part, see above. No
                    // reference to mapped memory is ever made, so nothing overlaps the part. No
                    // other thread writes there: `LiveMap::take` gives each byte to one range, and
                    // this one is borrowed mutably. A store cannot reach beyond the file: `take`
                    // hands out what `extend` has found within it, and it is not truncated while
                    // it is mapped (fs rule 3).
                    unsafe {
                        std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len());
                    }
                    offset += part.len();
                }
            }
            #[cfg(any(test, feature = "testing"))]
            LiveKind::Sim(live) => live.store(self.start + at as u64, &parts.concat())?,
        }
        self.count(len);
        Ok(())
    }

    /// Stores eight bytes at once, after everything stored before: who reads the file and finds
    /// them finds the rest too.
    ///
    /// # Errors
    /// As [`LiveRange::store`].
    ///
    /// # Panics
    /// If the range is shorter, or the place in the file is no multiple of 8.
    pub fn store_word(&mut self, at: usize, word: [u8; 8]) -> Result<()> {
        self.check(at, word.len());
        let offset = self.offset(at);
        assert!(offset.is_multiple_of(8), "a word is stored where one lies");
        match &self.shared.kind {
            LiveKind::Os(map, _) => {
                #[expect(unsafe_code, reason = "all mapping happens here")]
                // SAFETY: `check` has found the eight bytes within the mapping.
                let target = unsafe { map.as_mut_ptr().add(offset) };
                #[expect(clippy::cast_ptr_alignment, reason = "a page and a multiple of 8")]
                let target = target.cast::<u64>();
                #[expect(unsafe_code, reason = "all mapping happens here")]
                // SAFETY: the pointer is aligned, since mappings begin at pages and `offset` is a
                // multiple of 8, and valid while `shared` lives. Only this range writes there.
                let target = unsafe { AtomicU64::from_ptr(target) };
                // Release: orders the stores of the record before its first word, for readers of
                // the page cache, in this process or another.
                target.store(u64::from_le_bytes(word).to_le(), Ordering::Release);
            }
            #[cfg(any(test, feature = "testing"))]
            LiveKind::Sim(live) => live.store(self.start + at as u64, &word)?,
        }
        self.count(word.len());
        Ok(())
    }

    fn check(&self, at: usize, len: usize) {
        let end = at.checked_add(len).expect("parts lie in memory");
        assert!(end <= self.len, "a store stays within its range");
    }

    fn offset(&self, at: usize) -> usize {
        usize::try_from(self.start).expect("a mapping lies in memory") + at
    }

    fn count(&self, len: usize) {
        if let Some(counts) = &self.shared.counts {
            counts.wrote(len as u64);
        }
    }
}

impl fmt::Debug for LiveMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveMap")
            .field("bytes", &self.reserved)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LiveRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveRange")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LiveAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveAhead").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
