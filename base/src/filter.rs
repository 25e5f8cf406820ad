//! The cache-line-blocked Bloom filter that memtables and tables share.
//!
//! All probes of a key fall into one 64-byte block, so that a check costs one cache miss (Putze,
//! Sanders, Singler 2007). At 10 bits a key about 1 % of absent keys pass.

use std::sync::OnceLock;

use crate::hash::KeyHash;
use crate::hint;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Bytes of one block: a cache line.
pub const BLOCK_BYTES: usize = 64;
const BLOCK_BITS: u64 = 512;
/// The largest number of probes a stored filter may ask for.
pub const PROBE_COUNT_MAX: u32 = 14;

/// How many blocks hold `key_count` keys at `bits_per_key`, at least 1.
pub fn block_count(key_count: usize, bits_per_key: u32) -> usize {
    let bits = key_count as u64 * u64::from(bits_per_key);
    usize::try_from(bits.div_ceil(BLOCK_BITS).max(1)).unwrap_or(usize::MAX)
}

/// The number of probes that serves `bits_per_key` best in a blocked filter.
pub fn probe_count(bits_per_key: u32) -> u32 {
    // 0.69 bits a key is the optimum of a plain filter; blocks prefer slightly fewer.
    (bits_per_key * 6 / 10).clamp(1, PROBE_COUNT_MAX)
}

#[inline]
fn block_index(hash: KeyHash, block_count: usize) -> usize {
    // The high half picks the block by multiplication instead of division (Lemire 2016).
    let index = ((hash.0 >> 32) * block_count as u64) >> 32;
    usize::try_from(index).expect("below block_count")
}

/// The bits of a key within its block: word 0..8 and mask, one for each probe.
#[inline]
fn probes(hash: KeyHash, probe_count: u32) -> impl Iterator<Item = (usize, u64)> {
    // Seven 9-bit pieces of one product serve seven probes; beyond that a second product.
    let first = hash.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let second = first.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (0..probe_count).map(move |index| {
        let (product, piece) = if index < 7 {
            (first, index)
        } else {
            (second, index - 7)
        };
        let bit = (product >> (1 + 9 * piece)) & (BLOCK_BITS - 1);
        (
            usize::try_from(bit >> 6).expect("below 8"),
            1u64 << (bit & 63),
        )
    })
}

/// Builds the bytes of a filter over `hashes`: whole blocks, little-endian words.
pub fn build(hashes: &[KeyHash], bits_per_key: u32) -> Vec<u8> {
    let block_count = block_count(hashes.len(), bits_per_key);
    let probe_count = probe_count(bits_per_key);
    let mut words = vec![[0u64; 8]; block_count];
    for &hash in hashes {
        let block = &mut words[block_index(hash, block_count)];
        for (word, mask) in probes(hash, probe_count) {
            block[word] |= mask;
        }
    }
    words
        .iter()
        .flatten()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// A filter read in place.
#[derive(Clone, Copy, Debug)]
pub struct BlockedFilter<'a> {
    blocks: &'a [[u8; BLOCK_BYTES]],
    probe_count: u32,
}

impl<'a> BlockedFilter<'a> {
    /// A filter over bytes from [`build`], or `None` if they cannot be one.
    pub fn new(bytes: &'a [u8], probe_count: u32) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        let sound = rest.is_empty()
            && !blocks.is_empty()
            && u32::try_from(blocks.len()).is_ok()
            && (1..=PROBE_COUNT_MAX).contains(&probe_count);
        sound.then_some(Self {
            blocks,
            probe_count,
        })
    }

    /// Whether the key may be among those the filter was built over; `false` is certain.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> bool {
        let Some(block) = self.blocks.get(block_index(hash, self.blocks.len())) else {
            return true;
        };
        let (words, _) = block.as_chunks::<8>();
        probes(hash, self.probe_count)
            .all(|(word, mask)| u64::from_le_bytes(words[word]) & mask != 0)
    }

    /// Asks for the line that [`BlockedFilter::may_contain`] will read.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        hint::prefetch(
            self.blocks.as_flattened(),
            block_index(hash, self.blocks.len()) * 64,
        );
    }
}

/// A filter that takes keys while it is being read; it stands in front of a memtable.
#[derive(Debug)]
pub struct AtomicFilter {
    blocks: Box<[[AtomicU64; 8]]>,
    probe_count: u32,
}

impl AtomicFilter {
    /// An empty filter of about `bytes`, for keys that get `bits_per_key` if as many come as
    /// expected.
    pub fn new(bytes: usize, bits_per_key: u32) -> Self {
        let block_count = (bytes / BLOCK_BYTES).max(1);
        let blocks = (0..block_count)
            .map(|_| [const { AtomicU64::new(0) }; 8])
            .collect();
        Self {
            blocks,
            probe_count: probe_count(bits_per_key),
        }
    }

    /// What it occupies.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Takes a key in. Whoever learns of the key through a Release after this finds it.
    #[inline]
    pub fn insert(&self, hash: KeyHash) {
        let block = &self.blocks[block_index(hash, self.blocks.len())];
        for (word, mask) in probes(hash, self.probe_count) {
            if block[word].load(Ordering::Relaxed) & mask == 0 {
                block[word].fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// Asks for the line that [`AtomicFilter::may_contain`] will read.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        hint::prefetch_at(&raw const self.blocks[block_index(hash, self.blocks.len())]);
    }

    /// Whether the key may have been inserted; `false` is certain for every key published before.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> bool {
        let block = &self.blocks[block_index(hash, self.blocks.len())];
        probes(hash, self.probe_count)
            .all(|(word, mask)| block[word].load(Ordering::Relaxed) & mask != 0)
    }
}

/// Bytes of the first stage of a [`GrowingFilter`].
const SMALL_BYTES: usize = 4 << 10;
/// How many keys the first stage takes. So few leave it almost empty: what the whole filter
/// inherits from it sets one bit in fifty.
const SMALL_KEY_COUNT: usize = 128;

/// An [`AtomicFilter`] that costs nothing before the first key and little for a few.
///
/// The first key gets it a small stage. When that has taken its share, the whole filter is made and
/// inherits the small one's bits: its blocks are cut from those of the small one, so that a key
/// which falls into a small block falls into one of its parts, at the same bits.
#[derive(Debug)]
pub struct GrowingFilter {
    bytes: usize,
    bits_per_key: u32,
    key_count: AtomicUsize,
    small: OnceLock<AtomicFilter>,
    whole: OnceLock<AtomicFilter>,
    /// Set once `whole` holds all that `small` does: from then on it alone is asked and told.
    is_whole: AtomicBool,
}

impl GrowingFilter {
    /// An empty filter that grows to about `bytes`.
    pub fn new(bytes: usize, bits_per_key: u32) -> Self {
        Self {
            bytes,
            bits_per_key,
            key_count: AtomicUsize::new(0),
            small: OnceLock::new(),
            whole: OnceLock::new(),
            is_whole: AtomicBool::new(false),
        }
    }

    /// What it occupies now.
    pub fn bytes(&self) -> usize {
        let stages = [&self.small, &self.whole].into_iter();
        stages
            .filter_map(OnceLock::get)
            .map(AtomicFilter::bytes)
            .sum()
    }

    /// Takes a key in. Whoever learns of the key through a Release after this finds it.
    #[inline]
    pub fn insert(&self, hash: KeyHash) {
        // Acquire: pairs with the Release in `grow`.
        if self.is_whole.load(Ordering::Acquire)
            && let Some(whole) = self.whole.get()
        {
            whole.insert(hash);
            return;
        }
        self.insert_early(hash);
    }

    #[cold]
    fn insert_early(&self, hash: KeyHash) {
        if self.bytes <= SMALL_BYTES {
            let made = || AtomicFilter::new(self.bytes, self.bits_per_key);
            self.whole.get_or_init(made).insert(hash);
            self.is_whole.store(true, Ordering::Release);
            return;
        }
        let small = self
            .small
            .get_or_init(|| AtomicFilter::new(SMALL_BYTES, self.bits_per_key));
        small.insert(hash);
        // SeqCst: either this sees the whole filter, or `grow`, which fences between making it and
        // copying the small one, sees the key.
        fence(Ordering::SeqCst);
        if let Some(whole) = self.whole.get() {
            whole.insert(hash);
            return;
        }
        // Exactly one thread counts this number.
        if self.key_count.fetch_add(1, Ordering::Relaxed) + 1 == SMALL_KEY_COUNT {
            self.grow(small);
        }
    }

    fn grow(&self, small: &AtomicFilter) {
        let factor = self.bytes.div_ceil(small.bytes());
        let made = AtomicFilter::new(small.bytes() * factor, self.bits_per_key);
        let whole = self.whole.get_or_init(|| made);
        fence(Ordering::SeqCst);
        for (index, block) in whole.blocks.iter().enumerate() {
            for (word, from) in block.iter().zip(&small.blocks[index / factor]) {
                word.fetch_or(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        // Release: pairs with the Acquire in `insert` and `may_contain`.
        self.is_whole.store(true, Ordering::Release);
    }

    /// The stage that holds every key.
    #[inline]
    fn stage(&self) -> Option<&AtomicFilter> {
        // Acquire: pairs with the Release in `grow`.
        if self.is_whole.load(Ordering::Acquire) {
            self.whole.get()
        } else {
            self.small.get()
        }
    }

    /// Whether the key may have been inserted; `false` is certain for every key published before.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> bool {
        self.stage().is_some_and(|filter| filter.may_contain(hash))
    }

    /// Asks for the line that [`GrowingFilter::may_contain`] will read.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        if let Some(filter) = self.stage() {
            filter.prefetch(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashSeed;

    fn hashes(from: u32, to: u32) -> Vec<KeyHash> {
        (from..to)
            .map(|n| HashSeed(1).hash(&n.to_le_bytes()))
            .collect()
    }

    #[test]
    fn every_key_passes_and_few_others_do() {
        for bits_per_key in [1, 4, 10, 20] {
            let bytes = build(&hashes(0, 20_000), bits_per_key);
            let filter =
                BlockedFilter::new(&bytes, probe_count(bits_per_key)).expect("our own bytes");
            assert!(
                hashes(0, 20_000)
                    .into_iter()
                    .all(|hash| filter.may_contain(hash))
            );
            let passed = hashes(20_000, 120_000)
                .into_iter()
                .filter(|h| filter.may_contain(*h))
                .count();
            let bound = match bits_per_key {
                1 => 80_000,
                4 => 20_000,
                10 => 1_500,
                _ => 100,
            };
            assert!(passed < bound, "bits={bits_per_key} passed={passed}");
        }
    }

    #[test]
    fn bytes_that_cannot_be_a_filter_are_refused() {
        assert!(BlockedFilter::new(&[], 6).is_none());
        assert!(BlockedFilter::new(&[0; 63], 6).is_none());
        assert!(BlockedFilter::new(&[0; 64], 0).is_none());
        assert!(BlockedFilter::new(&[0; 64], PROBE_COUNT_MAX + 1).is_none());
    }

    #[test]
    fn the_atomic_form_agrees() {
        let filter = AtomicFilter::new(16 << 10, 10);
        for hash in hashes(0, 10_000) {
            filter.insert(hash);
        }
        assert!(
            hashes(0, 10_000)
                .into_iter()
                .all(|hash| filter.may_contain(hash))
        );
        assert!(
            !hashes(10_000, 10_100)
                .into_iter()
                .all(|hash| filter.may_contain(hash))
        );
    }

    #[test]
    fn a_growing_filter_loses_no_key_at_any_size() {
        for bytes in [64, 4 << 10, 5 << 10, 16 << 10, 1 << 20] {
            let filter = GrowingFilter::new(bytes, 10);
            assert_eq!(filter.bytes(), 0);
            assert!(!filter.may_contain(hashes(0, 1)[0]));
            let keys = hashes(0, 3 * 128);
            for (index, hash) in keys.iter().enumerate() {
                filter.insert(*hash);
                assert!(keys[..=index].iter().all(|hash| filter.may_contain(*hash)));
            }
            assert!(filter.bytes() <= bytes + 2 * SMALL_BYTES, "{bytes}");
        }
    }

    #[test]
    fn what_a_growing_filter_inherits_costs_little() {
        let filter = GrowingFilter::new(25_000, 10);
        for hash in hashes(0, 20_000) {
            filter.insert(hash);
        }
        let passed = hashes(20_000, 120_000)
            .into_iter()
            .filter(|hash| filter.may_contain(*hash))
            .count();
        assert!(passed < 2_000, "passed={passed}");
    }

    #[test]
    fn keys_inserted_while_it_grows_are_found() {
        for round in 0..50 {
            let filter = GrowingFilter::new(64 << 10, 10);
            let all = hashes(round * 1000, round * 1000 + 400);
            std::thread::scope(|scope| {
                for part in all.chunks(100) {
                    let filter = &filter;
                    scope.spawn(move || {
                        for (index, hash) in part.iter().enumerate() {
                            filter.insert(*hash);
                            let mine = &part[..=index];
                            assert!(mine.iter().all(|hash| filter.may_contain(*hash)));
                        }
                    });
                }
            });
            assert!(all.iter().all(|hash| filter.may_contain(*hash)));
        }
    }
}
