//! The cache-line-blocked Bloom filter that memtables and tables share.
//!
//! All probes of a key fall into one 64-byte block, so that a check costs one cache miss (Putze,
//! Sanders, Singler 2007). At 10 bits a key about 1 % of absent keys pass.

use std::sync::OnceLock;

use crate::hash::KeyHash;
use crate::hint;
use crate::memory::MemoryShare;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// Builds the bytes of a filter over `key_count` hashes: whole blocks, little-endian words.
///
/// Takes the memory of the filter and no more.
pub fn build(
    hashes: impl IntoIterator<Item = KeyHash>,
    key_count: usize,
    bits_per_key: u32,
) -> Vec<u8> {
    let block_count = block_count(key_count, bits_per_key);
    let probe_count = probe_count(bits_per_key);
    let mut bytes = vec![0; block_count * BLOCK_BYTES];
    let (blocks, _) = bytes.as_chunks_mut::<BLOCK_BYTES>();
    for hash in hashes {
        let (words, _) = blocks[block_index(hash, block_count)].as_chunks_mut::<8>();
        for (word, mask) in probes(hash, probe_count) {
            words[word] = (u64::from_le_bytes(words[word]) | mask).to_le_bytes();
        }
    }
    bytes
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
const FIRST_STAGE_BYTES: usize = 4 << 10;
/// How many times larger each stage is than the one before; the last one twice as large to twice
/// that. So a filter that has just grown takes at most four bytes for each key and bit, and few
/// stages have to be asked.
const STAGE_FACTOR: usize = 16;
/// Enough for a last stage of 64 GiB.
const STAGE_COUNT_MAX: usize = 7;
/// One key in so many is counted, each for as many: the counter is one for all threads.
const COUNTED_KEYS: u64 = 16;

/// An [`AtomicFilter`] that costs nothing before the first key, and little for a few.
///
/// It grows in stages. Keys go into the newest; once that has as many as it is meant for, the next
/// one is made, until the last one, which takes all that come. A read asks every stage, the newest
/// first: a key is in one of them.
#[derive(Debug)]
pub struct GrowingFilter {
    bits_per_key: u32,
    /// Stages that there can be.
    stage_count: usize,
    /// Bytes of the last of them.
    bytes: usize,
    stages: [OnceLock<AtomicFilter>; STAGE_COUNT_MAX],
    /// How many stages there are.
    made_count: AtomicUsize,
    /// Keys in the newest stage, by the [`COUNTED_KEYS`].
    counted: AtomicUsize,
    share: MemoryShare,
}

impl GrowingFilter {
    /// An empty filter whose last stage has about `bytes`; what it takes is counted in `share`.
    pub fn new(bytes: usize, bits_per_key: u32, share: MemoryShare) -> Self {
        let mut filter = Self {
            bits_per_key,
            stage_count: 1,
            bytes,
            stages: [const { OnceLock::new() }; STAGE_COUNT_MAX],
            made_count: AtomicUsize::new(0),
            counted: AtomicUsize::new(0),
            share,
        };
        while Self::stage_bytes(filter.stage_count - 1) <= bytes / 2
            && filter.stage_count < STAGE_COUNT_MAX
        {
            filter.stage_count += 1;
        }
        filter
    }

    /// Bytes of stage `index` if it is not the last one, which may be shorter.
    fn stage_bytes(index: usize) -> usize {
        let power = u32::try_from(index).expect("there are few");
        FIRST_STAGE_BYTES.saturating_mul(STAGE_FACTOR.saturating_pow(power))
    }

    /// What it occupies now.
    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// Notes that only inserts that are under way will still come.
    pub fn seal(&self) {
        self.share.seal();
    }

    /// Takes a key in. Whoever learns of the key through a Release after this finds it.
    #[inline]
    pub fn insert(&self, hash: KeyHash) {
        // Acquire: pairs with the Release in `make`.
        let made_count = self.made_count.load(Ordering::Acquire);
        let newest = made_count.checked_sub(1);
        let Some(stage) = newest.and_then(|newest| self.stages[newest].get()) else {
            self.make(0);
            return self.insert(hash);
        };
        stage.insert(hash);
        if made_count < self.stage_count && hash.0.is_multiple_of(COUNTED_KEYS) {
            self.count(stage, made_count);
        }
    }

    #[cold]
    fn count(&self, stage: &AtomicFilter, made_count: usize) {
        let counted = self.counted.fetch_add(1, Ordering::Relaxed) + 1;
        let bits_per_key = self.bits_per_key as usize * usize::try_from(COUNTED_KEYS).unwrap_or(1);
        if counted > stage.bytes() * 8 / bits_per_key {
            self.make(made_count);
        }
    }

    /// Makes stage `index`, if another thread has not.
    #[cold]
    fn make(&self, index: usize) {
        let made = || {
            let is_last = index + 1 == self.stage_count;
            let bytes = if is_last {
                self.bytes
            } else {
                Self::stage_bytes(index)
            };
            let stage = AtomicFilter::new(bytes, self.bits_per_key);
            self.share.grow(stage.bytes());
            self.counted.store(0, Ordering::Relaxed);
            stage
        };
        self.stages[index].get_or_init(made);
        // Release: pairs with the Acquires in `insert` and `made`. Whoever learns of a key in this
        // stage sees the stage counted, since its insert did.
        self.made_count.fetch_max(index + 1, Ordering::Release);
    }

    /// The stages that there are, the newest first.
    #[inline]
    fn made(&self) -> impl Iterator<Item = &AtomicFilter> {
        let made_count = self.made_count.load(Ordering::Acquire);
        let made = self.stages[..made_count].iter().rev();
        made.filter_map(OnceLock::get)
    }

    /// Whether the key may have been inserted; `false` is certain for every key published before.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> bool {
        self.made().any(|stage| stage.may_contain(hash))
    }

    /// Asks for the line of the newest stage that [`GrowingFilter::may_contain`] will read; older
    /// ones are small.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        if let Some(newest) = self.made().next() {
            newest.prefetch(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashSeed;
    use crate::memory::MemoryLedger;
    use crate::sync::Arc;

    fn hashes(from: u32, to: u32) -> Vec<KeyHash> {
        (from..to)
            .map(|n| HashSeed(1).hash(&n.to_le_bytes()))
            .collect()
    }

    #[test]
    fn every_key_passes_and_few_others_do() {
        for bits_per_key in [1, 4, 10, 20] {
            let bytes = build(hashes(0, 20_000), 20_000, bits_per_key);
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
        for bytes in [64, 4 << 10, 5 << 10, 64 << 10, 100 << 10, 1 << 20] {
            let ledger = Arc::new(MemoryLedger::default());
            let filter = GrowingFilter::new(bytes, 10, MemoryShare::new(&ledger));
            assert_eq!(filter.bytes(), 0);
            assert!(!filter.may_contain(hashes(0, 1)[0]));
            for (index, hash) in hashes(0, 60_000).into_iter().enumerate() {
                filter.insert(hash);
                assert!(filter.may_contain(hash));
                let some = 2 * FIRST_STAGE_BYTES + (index + 1) * 10 * 5;
                assert!(filter.bytes() <= some, "{} of {bytes}", filter.bytes());
            }
            let mut all = hashes(0, 60_000).into_iter();
            assert!(all.all(|hash| filter.may_contain(hash)));
            assert!(filter.bytes() >= bytes.min(60_000), "{bytes}");
            assert!(filter.bytes() <= bytes + bytes / 2 + 2 * FIRST_STAGE_BYTES);
            assert_eq!(ledger.taken_bytes(), filter.bytes());
        }
    }

    #[test]
    fn stages_let_few_other_keys_pass() {
        let filter = GrowingFilter::new(160_000, 10, MemoryShare::default());
        for hash in hashes(0, 120_000) {
            filter.insert(hash);
        }
        assert_eq!(filter.made().count(), 3);
        let passed = hashes(120_000, 220_000)
            .into_iter()
            .filter(|hash| filter.may_contain(*hash))
            .count();
        assert!(passed < 3_000, "passed={passed}");
    }

    #[test]
    fn keys_inserted_while_it_grows_are_found() {
        for round in 0..20 {
            let filter = GrowingFilter::new(1 << 20, 10, MemoryShare::default());
            let all = hashes(round * 10_000, round * 10_000 + 8_000);
            std::thread::scope(|scope| {
                for part in all.chunks(2_000) {
                    let filter = &filter;
                    scope.spawn(move || {
                        for hash in part {
                            filter.insert(*hash);
                            assert!(filter.may_contain(*hash));
                        }
                        assert!(part.iter().all(|hash| filter.may_contain(*hash)));
                    });
                }
            });
            assert!(filter.made().count() > 1);
            assert!(all.iter().all(|hash| filter.may_contain(*hash)));
        }
    }
}
