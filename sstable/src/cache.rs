//! The block cache: for compressed blocks, and for tables that are read by positioned reads.
//!
//! Blocks of mapped, uncompressed tables never come here: the page cache holds them.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Home, PinKind, PinLedger, Result, Slice};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};

/// One block in memory, uncompressed and checked.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    bytes: Vec<u8>,
    pins: Arc<PinLedger>,
    /// What the blocks of its cache weigh, wherever they are; `None` without a cache.
    living: Option<Arc<Living>>,
}

/// The weight of all blocks of a cache that are in memory: those it holds, and those that it gave
/// up and a slice or a cursor still holds.
#[derive(Debug)]
struct Living {
    bytes: AtomicU64,
    /// What open tables keep beside blocks; not in `bytes`.
    charged: AtomicU64,
    bytes_max: u64,
}

impl Living {
    /// What blocks may take beside what open tables keep.
    fn room(&self) -> u64 {
        let step = self.step();
        // Relaxed, as everywhere here: a bound of bytes, which orders nothing.
        let charged = self.charged.load(Ordering::Relaxed).div_ceil(step.max(1));
        let steps = CAPACITY_STEPS.saturating_sub(charged);
        self.bytes_max.min(step * steps.max(CAPACITY_STEPS_MIN))
    }

    fn step(&self) -> u64 {
        self.bytes_max.div_ceil(CAPACITY_STEPS)
    }
}

/// What an open table keeps in memory beside blocks: index, filter, dictionary. Counted against the
/// bound of the cache, whose blocks give way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    living: Arc<Living>,
    bytes: AtomicU64,
}

impl Charge {
    /// Counts `bytes` more.
    pub(crate) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let charged = &self.living.charged;
        charged.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.living.charged.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl CachedBlock {
    fn new(bytes: Vec<u8>, pins: Arc<PinLedger>, living: Option<&Arc<Living>>) -> Arc<Self> {
        let block = Self {
            bytes,
            pins,
            living: living.map(Arc::clone),
        };
        if let Some(living) = &block.living {
            living.bytes.fetch_add(block.weight(), Ordering::Relaxed);
        }
        Arc::new(block)
    }

    /// A block that no cache counts.
    pub(crate) fn uncached(bytes: Vec<u8>, pins: Arc<PinLedger>) -> Arc<Self> {
        Self::new(bytes, pins, None)
    }

    /// Its bytes and what keeping it costs.
    fn weight(&self) -> u64 {
        self.bytes.capacity() as u64 + ENTRY_BYTES
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The `len` bytes at `start` as a slice: pinned where that is no waste, else copied.
    ///
    /// A short value would keep a whole block in memory, many times its own length, out of the
    /// cache's reach. And where the blocks that are held outside have filled the cache's bounds, no
    /// more are.
    pub(crate) fn slice(self: &Arc<Self>, start: usize, len: usize) -> Slice {
        let is_waste = len < self.bytes.len() / PIN_WASTE_MAX;
        let is_full = self
            .living
            .as_ref()
            .is_some_and(|living| living.bytes.load(Ordering::Relaxed) > living.room());
        if is_waste || is_full {
            let end = start.saturating_add(len);
            return Slice::copy_from(self.bytes.get(start..end).unwrap_or_default());
        }
        Slice::pinned(self, start as u64, len)
    }
}

impl Drop for CachedBlock {
    fn drop(&mut self) {
        if let Some(living) = &self.living {
            living.bytes.fetch_sub(self.weight(), Ordering::Relaxed);
        }
    }
}

/// A slice pins a block that is at most so many times as long as itself.
const PIN_WASTE_MAX: usize = 8;

impl Home for CachedBlock {
    fn bytes(&self, place: u64, len: usize) -> &[u8] {
        usize::try_from(place)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(len)?))
            .expect("a pinned place lies in its block")
    }

    fn ledger(&self) -> (&PinLedger, PinKind) {
        (&self.pins, PinKind::Block)
    }
}

/// Which block of which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockKey {
    pub(crate) table: u64,
    pub(crate) offset: u64,
}

impl Hash for BlockKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Tables are numbered, offsets are far apart: multiply them into each other once.
        let mixed = self.table.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.offset;
        state.write_u64(mixed);
    }
}

/// Finishes what [`BlockKey`] mixed; the map and the choice of a shard use different bits.
#[derive(Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        // The finalizer of MurmurHash3 (Appleby).
        let mut mixed = value;
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.0 = mixed ^ (mixed >> 33);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A block weighs its bytes and what keeping it costs.
#[derive(Clone, Copy)]
struct Bytes;

/// The cache's own entry and the block's header, about.
const ENTRY_BYTES: u64 = 128;

impl Weighter<BlockKey, Arc<CachedBlock>> for Bytes {
    #[inline]
    fn weight(&self, _: &BlockKey, block: &Arc<CachedBlock>) -> u64 {
        block.weight()
    }
}

type Blocks = Cache<BlockKey, Arc<CachedBlock>, Bytes, BuildHasherDefault<BlockHasher>>;

/// Blocks kept in memory, bounded in bytes, shared by all tables of a database.
///
/// In shards, each behind a lock of its own, so that threads seldom meet. A block that is in use,
/// or pinned by a slice, stays valid when it is evicted; it goes on counting, and the cache holds
/// that much less. Where slices pin so much that a quarter is left, blocks are no longer kept and
/// values no longer pinned but copied: reads become slow, not large. What open tables keep
/// counts as well.
pub struct BlockCache {
    blocks: Blocks,
    living: Arc<Living>,
    /// What `blocks` may hold now.
    capacity: Mutex<u64>,
    /// Counted in tests only: one counter that every hit writes to is one that readers fight over.
    #[cfg(test)]
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The capacity changes in so many steps.
const CAPACITY_STEPS: u64 = 16;
/// And never below this many.
const CAPACITY_STEPS_MIN: u64 = 4;

impl BlockCache {
    /// A cache of at most `bytes_max`; 0 keeps nothing.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        let typical_count = usize::try_from(bytes_max / 4096)
            .unwrap_or(usize::MAX)
            .max(16);
        Arc::new(Self {
            blocks: Cache::with(
                typical_count,
                bytes_max,
                Bytes,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
            living: Arc::new(Living {
                bytes: AtomicU64::new(0),
                charged: AtomicU64::new(0),
                bytes_max,
            }),
            capacity: Mutex::new(bytes_max),
            #[cfg(test)]
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// What it holds, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// What it holds, and what it gave up and slices or cursors still hold, in bytes.
    pub fn living_bytes(&self) -> u64 {
        self.living.bytes.load(Ordering::Relaxed)
    }

    /// What open tables keep beside blocks, in bytes. So much less is left for blocks, down to a
    /// quarter of the bound.
    pub fn charged_bytes(&self) -> u64 {
        self.living.charged.load(Ordering::Relaxed)
    }

    /// Counts what a table keeps until the result is dropped: nothing yet.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            living: Arc::clone(&self.living),
            bytes: AtomicU64::new(0),
        }
    }

    /// What it may hold, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.living.bytes_max
    }

    /// Blocks that were found.
    #[cfg(test)]
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Blocks that were not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// The block `key`, and whether it was there; else `load` brings it, and it is kept.
    ///
    /// Threads that miss the same block wait for the one that loads it. If that one fails, the next
    /// tries.
    ///
    /// # Errors
    /// What `load` says.
    #[inline]
    pub(crate) fn get_or_load(
        &self,
        key: BlockKey,
        pins: &Arc<PinLedger>,
        load: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<(Arc<CachedBlock>, bool)> {
        if let Some(found) = self.blocks.get(&key) {
            #[cfg(test)]
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok((found, true));
        }
        self.load(key, pins, load)
    }

    #[cold]
    fn load(
        &self,
        key: BlockKey,
        pins: &Arc<PinLedger>,
        load: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<(Arc<CachedBlock>, bool)> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        if self.bytes_max() == 0 {
            return Ok((CachedBlock::uncached(load()?, Arc::clone(pins)), false));
        }
        let place = match self.blocks.get_value_or_guard(&key, None) {
            GuardResult::Value(found) => return Ok((found, false)),
            GuardResult::Guard(place) => Some(place),
            GuardResult::Timeout => None,
        };
        let block = CachedBlock::new(load()?, Arc::clone(pins), Some(&self.living));
        if let Some(place) = place
            && self.has_room(block.weight())
        {
            // It fails if the block was taken out meanwhile, which costs another miss at most.
            let _ = place.insert(Arc::clone(&block));
        }
        Ok((block, false))
    }

    /// Gives way to what is held outside. Returns whether there is room for a new block of
    /// `weight`, which counts already.
    fn has_room(&self, weight: u64) -> bool {
        let (room, step) = (self.living.room(), self.living.step());
        let Some(mut capacity) = self.capacity.try_lock() else {
            // Another thread sees to it.
            return true;
        };
        if *capacity == room && self.living_bytes() <= room.saturating_add(step) {
            return true;
        }
        let inside = self.blocks.weight().saturating_add(weight);
        let outside = self.living_bytes().saturating_sub(inside);
        let steps = room.div_ceil(step).saturating_sub(outside / step);
        let wanted = room.min(step * steps.max(CAPACITY_STEPS_MIN));
        if wanted != *capacity {
            *capacity = wanted;
            self.blocks.set_capacity(wanted);
        }
        steps >= CAPACITY_STEPS_MIN
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("bytes_max", &self.bytes_max())
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
