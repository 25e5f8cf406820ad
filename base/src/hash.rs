//! The one hash of a user key, computed once per operation and used by every filter.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of a database's key hashes; random, so that crafted keys cannot defeat the filters.
///
/// It stands in MANIFEST and beside every filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct HashSeed(pub u64);

impl HashSeed {
    /// Hashes `user_key`: XXH3-64 with this seed, the same on every platform.
    #[inline]
    pub fn hash(self, user_key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_seed(user_key, self.0))
    }
}

/// The 64-bit hash of a user key under some [`HashSeed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_pinned() {
        // These values are in every filter on disk: they may not change.
        assert_eq!(HashSeed(0).hash(b"").0, 0x2d06_8005_38d3_94c2);
        assert_ne!(HashSeed(1).hash(b"abc"), HashSeed(2).hash(b"abc"));
    }
}
