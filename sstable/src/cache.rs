//! The block cache: for compressed blocks, and for tables that are read by positioned reads.
//!
//! Blocks of mapped, uncompressed tables never come here: the page cache holds them.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{Home, PinLedger};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// One block in memory, uncompressed and checked.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    bytes: Vec<u8>,
    pins: Arc<PinLedger>,
}

impl CachedBlock {
    pub(crate) fn new(bytes: Vec<u8>, pins: Arc<PinLedger>) -> Arc<Self> {
        Arc::new(Self { bytes, pins })
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Home for CachedBlock {
    fn bytes(&self, place: u64, len: usize) -> &[u8] {
        usize::try_from(place)
            .ok()
            .and_then(|start| self.bytes.get(start..start.checked_add(len)?))
            .expect("a pinned place lies in its block")
    }

    fn ledger(&self) -> Option<&PinLedger> {
        Some(&self.pins)
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
        block.bytes.capacity() as u64 + ENTRY_BYTES
    }
}

type Blocks = Cache<BlockKey, Arc<CachedBlock>, Bytes, BuildHasherDefault<BlockHasher>>;

/// Blocks kept in memory, bounded in bytes, shared by all tables of a database.
///
/// A block that is in use, or pinned by a slice, stays valid when it is evicted.
pub struct BlockCache {
    blocks: Blocks,
    bytes_max: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

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
            bytes_max,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// What it holds, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// What it may hold, in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Blocks that were found.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Blocks that were not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn get(&self, key: BlockKey) -> Option<Arc<CachedBlock>> {
        let found = self.blocks.get(&key);
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(crate) fn insert(&self, key: BlockKey, block: &Arc<CachedBlock>) {
        if self.bytes_max > 0 {
            self.blocks.insert(key, Arc::clone(block));
        }
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("bytes_max", &self.bytes_max)
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(len: usize) -> Arc<CachedBlock> {
        CachedBlock::new(vec![7; len], Arc::default())
    }

    #[test]
    fn it_stays_within_its_bytes_and_counts() {
        let cache = BlockCache::new(1 << 20);
        for offset in 0..10_000 {
            let key = BlockKey {
                table: offset % 7,
                offset: offset * 4096,
            };
            assert!(cache.get(key).is_none());
            cache.insert(key, &block(4096));
            assert!(cache.used_bytes() <= 1 << 20);
        }
        assert!(cache.used_bytes() > 1 << 19);
        assert_eq!((cache.hits(), cache.misses()), (0, 10_000));
    }

    #[test]
    fn a_cache_of_nothing_and_a_block_too_large_keep_nothing() {
        let key = BlockKey {
            table: 1,
            offset: 0,
        };
        let none = BlockCache::new(0);
        none.insert(key, &block(100));
        assert!(none.get(key).is_none());
        let small = BlockCache::new(1000);
        small.insert(key, &block(5000));
        assert!(small.get(key).is_none());
        small.insert(key, &block(500));
        assert!(small.get(key).is_some());
    }
}
