//! Filters over key hashes: two policies behind one seam, both always readable.
//!
//! The blocked policy is read in place. The `bloomfilter` crate's bytes lie in an envelope that
//! bounds every field the crate trusts (it would divide by a zero length, and probe for ever).
#![deny(clippy::indexing_slicing)]

use base::coding::{Malformed, Reader};
use base::filter::{self as blocked, BlockedFilter};
use base::{HashSeed, KeyHash};
use bloomfilter::Bloom;

/// Which filter a table gets.
///
/// At 10 bits a key both pass about 1 % of absent keys. `cargo bench --bench filter` decided for
/// the blocked policy as the default, which is read where it lies and touches one cache line a
/// check. A million keys, a mapped table, 2 vCPU Xeon, nanoseconds:
///
/// | policy | check, present | check, absent | build, a key | absent keys that pass |
/// |---|---|---|---|---|
/// | blocked | 8 | 16 | 6 | 1.02 % |
/// | bloom | 36 | 36 | 31 | 0.83 % |
///
/// # Examples
/// ```
/// use sstable::FilterPolicy;
/// let policy = FilterPolicy::Bloom { bits_per_key: 12 };
/// assert_ne!(policy, FilterPolicy::None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterPolicy {
    /// No filter: every get searches.
    None,
    /// Cache-line-blocked, read in place.
    Blocked {
        /// 1 to 32; values outside are taken as the nearest, 0 as no filter.
        bits_per_key: u32,
    },
    /// The `bloomfilter` crate, copied to the heap when a table is first asked.
    Bloom {
        /// 1 to 32; values outside are taken as the nearest, 0 as no filter.
        bits_per_key: u32,
    },
}

impl Default for FilterPolicy {
    fn default() -> Self {
        Self::Blocked { bits_per_key: 10 }
    }
}

/// The hashes of a table's keys until its filter is built.
///
/// In pieces, since there may be millions: one that grows as a whole has twice its size and half
/// as much again while it moves.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    /// All but the last are full.
    pieces: Vec<Vec<KeyHash>>,
}

impl Hashes {
    /// 64 KiB.
    const PIECE_LEN: usize = 8 << 10;

    #[inline]
    pub(crate) fn push(&mut self, hash: KeyHash) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < Self::PIECE_LEN => piece.push(hash),
            _ => self.begin_piece(hash),
        }
    }

    #[cold]
    fn begin_piece(&mut self, hash: KeyHash) {
        // A table may have few keys: the first piece grows to its length.
        let mut piece = if self.pieces.is_empty() {
            Vec::new()
        } else {
            Vec::with_capacity(Self::PIECE_LEN)
        };
        piece.push(hash);
        self.pieces.push(piece);
    }

    pub(crate) fn len(&self) -> usize {
        let last = self.pieces.last().map_or(0, Vec::len);
        self.pieces.len().saturating_sub(1) * Self::PIECE_LEN + last
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = KeyHash> {
        self.pieces.iter().flatten().copied()
    }
}

/// Values are part of the table format. Append only.
const POLICY_BLOCKED: u8 = 1;
const POLICY_BLOOM: u8 = 2;
const ENVELOPE_VERSION: u8 = 1;
pub(crate) const ENVELOPE_BYTES: usize = 32;

const BITS_PER_KEY_MAX: u32 = 32;
const BLOOM_PROBES_MAX: u32 = 32;
const BLOOM_SEED: &[u8; 32] = b"siltstone table bloom filter v1\0";
/// The crate's own header: version, length, probes, seed.
const BLOOM_HEADER_BYTES: usize = 45;
const BLOOM_VERSION: u8 = 1;

impl FilterPolicy {
    /// The policy as it is stored in properties: its number, and the bits a key.
    pub(crate) fn parts(self) -> (u8, u32) {
        match self.bounded() {
            Self::None => (0, 0),
            Self::Blocked { bits_per_key } => (POLICY_BLOCKED, bits_per_key),
            Self::Bloom { bits_per_key } => (POLICY_BLOOM, bits_per_key),
        }
    }

    /// The policy that `parts` were taken from, if this version knows it.
    pub(crate) fn from_parts(policy: u8, bits_per_key: u32) -> Option<Self> {
        match policy {
            0 => Some(Self::None),
            POLICY_BLOCKED => Some(Self::Blocked { bits_per_key }),
            POLICY_BLOOM => Some(Self::Bloom { bits_per_key }),
            _ => None,
        }
    }

    pub(crate) fn bounded(self) -> Self {
        match self {
            Self::None | Self::Blocked { bits_per_key: 0 } | Self::Bloom { bits_per_key: 0 } => {
                Self::None
            }
            Self::Blocked { bits_per_key } => Self::Blocked {
                bits_per_key: bits_per_key.min(BITS_PER_KEY_MAX),
            },
            Self::Bloom { bits_per_key } => Self::Bloom {
                bits_per_key: bits_per_key.min(BITS_PER_KEY_MAX),
            },
        }
    }

    /// The filter block over `hashes`, one for each distinct user key; `None` without a filter.
    pub(crate) fn build(self, hashes: &Hashes, seed: HashSeed) -> Option<Vec<u8>> {
        let (policy, probe_count, mut out) = match self.bounded() {
            Self::None => return None,
            Self::Blocked { bits_per_key } => (
                POLICY_BLOCKED,
                blocked::probe_count(bits_per_key),
                blocked::build(hashes.iter(), hashes.len(), bits_per_key),
            ),
            Self::Bloom { bits_per_key } => {
                let bloom = build_bloom(hashes, bits_per_key);
                let probe_count = bloom.number_of_hash_functions();
                (POLICY_BLOOM, probe_count, bloom.into_bytes())
            }
        };
        let payload_len = out.len() as u64;
        out.extend_from_slice(&[policy, ENVELOPE_VERSION, 0, 0]);
        out.extend_from_slice(&probe_count.to_le_bytes());
        out.extend_from_slice(&(hashes.len() as u64).to_le_bytes());
        out.extend_from_slice(&seed.0.to_le_bytes());
        out.extend_from_slice(&payload_len.to_le_bytes());
        Some(out)
    }
}

fn build_bloom(hashes: &Hashes, bits_per_key: u32) -> Bloom<u64> {
    let bits = (hashes.len() as u64).saturating_mul(u64::from(bits_per_key));
    let bytes = usize::try_from(bits.div_ceil(8))
        .expect("hashes in memory")
        .max(1);
    // Rounding up to a byte gives a table of one key 8 bits a wanted bit, so that the number of
    // probes stays below the bound for every number of keys.
    let mut bloom = Bloom::new_with_seed(bytes, hashes.len().max(1), BLOOM_SEED)
        .expect("a size above zero is accepted");
    for hash in hashes.iter() {
        bloom.set(&hash.0);
    }
    bloom
}

/// A filter block, checked and ready to be asked.
#[derive(Debug)]
pub(crate) enum Filter {
    /// `payload_len` bytes at the start of the block, asked in place.
    Blocked {
        payload_len: usize,
        probe_count: u32,
    },
    /// A copy, because the crate cannot borrow.
    Bloom(Box<Bloom<u64>>),
}

/// Why a filter block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    UnknownPolicy(u8),
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Filter {
    /// Reads the envelope of `block` and checks everything that asking relies on.
    pub(crate) fn read(block: &[u8], seed: HashSeed) -> Result<Self, Refusal> {
        let (payload, envelope) = block
            .split_last_chunk::<ENVELOPE_BYTES>()
            .ok_or(Malformed)?;
        let mut reader = Reader::new(envelope);
        let policy = reader.u8()?;
        let version = reader.u8()?;
        let zero = reader.u16()?;
        let probe_count = reader.u32()?;
        let _keys = reader.u64()?;
        let stored_seed = HashSeed(reader.u64()?);
        let payload_len = reader.u64()?;
        if version != ENVELOPE_VERSION || !matches!(policy, POLICY_BLOCKED | POLICY_BLOOM) {
            return Err(Refusal::UnknownPolicy(policy));
        }
        if zero != 0 || stored_seed != seed || payload_len != payload.len() as u64 {
            return Err(Refusal::Malformed);
        }
        if policy == POLICY_BLOCKED {
            BlockedFilter::new(payload, probe_count).ok_or(Malformed)?;
            return Ok(Self::Blocked {
                payload_len: payload.len(),
                probe_count,
            });
        }
        check_bloom(payload, probe_count)?;
        let bloom = Bloom::from_slice(payload).map_err(|_| Malformed)?;
        Ok(Self::Bloom(Box::new(bloom)))
    }

    /// Whether a key may be in the table; `false` is certain. `block` is what the filter was read
    /// from.
    #[inline]
    pub(crate) fn may_contain(&self, block: &[u8], hash: KeyHash) -> bool {
        match self {
            Self::Blocked {
                payload_len,
                probe_count,
            } => block
                .get(..*payload_len)
                .and_then(|payload| BlockedFilter::new(payload, *probe_count))
                .is_none_or(|filter| filter.may_contain(hash)),
            Self::Bloom(bloom) => bloom.check(&hash.0),
        }
    }

    /// Asks for the cache line that [`Filter::may_contain`] will need, where there is one.
    #[inline]
    pub(crate) fn prefetch(&self, block: &[u8], hash: KeyHash) {
        if let Self::Blocked {
            payload_len,
            probe_count,
        } = self
            && let Some(payload) = block.get(..*payload_len)
            && let Some(filter) = BlockedFilter::new(payload, *probe_count)
        {
            filter.prefetch(hash);
        }
    }

    /// What a copy of it occupies besides the table.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Blocked { .. } => 0,
            Self::Bloom(bloom) => bloom.as_slice().len(),
        }
    }
}

/// Checks what the crate trusts: a length of zero would make it divide by zero, and a large number
/// of probes would keep it busy for ever.
fn check_bloom(payload: &[u8], probe_count: u32) -> Result<(), Malformed> {
    let mut reader = Reader::new(payload);
    let version = reader.u8()?;
    let bitmap_len = reader.u64()?;
    let probes = reader.u32()?;
    let seed = reader.bytes(BLOOM_SEED.len())?;
    let sound = version == BLOOM_VERSION
        && bitmap_len >= 1
        && bitmap_len == reader.rest().len() as u64
        && probes == probe_count
        && (1..=BLOOM_PROBES_MAX).contains(&probes)
        && seed == BLOOM_SEED;
    debug_assert_eq!(payload.len() - reader.rest().len(), BLOOM_HEADER_BYTES);
    if sound { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
