//! Keys and values of the workloads, made as db_bench makes them.

use crate::random::{Random, mix};

/// Bytes of the pool that values are cut from; values wrap around in it.
const POOL_BYTES: usize = 1 << 20;
/// Bytes of one piece of the pool, compressible in itself.
const PIECE_BYTES: usize = 100;

/// Turns numbers into keys: 8 bytes, big-endian, then `0` up to the length. A key shorter than 8
/// bytes is the low end of the number.
#[derive(Clone, Debug)]
pub(crate) struct KeyMaker {
    key: Vec<u8>,
}

impl KeyMaker {
    /// Makes keys of `key_bytes` bytes.
    pub(crate) fn new(key_bytes: usize) -> Self {
        Self {
            key: vec![b'0'; key_bytes],
        }
    }

    /// The key of `number`.
    #[inline]
    pub(crate) fn key(&mut self, number: u64) -> &[u8] {
        let bytes = number.to_be_bytes();
        let len = self.key.len().min(8);
        self.key[..len].copy_from_slice(&bytes[8 - len..]);
        &self.key
    }
}

/// Gives out values that shrink to a given part when compressed.
#[derive(Clone, Debug)]
pub(crate) struct ValueMaker {
    pool: Vec<u8>,
    value_bytes: usize,
    at: usize,
}

impl ValueMaker {
    /// Values of `value_bytes` bytes that shrink to `ratio`, a part of 1.
    pub(crate) fn new(random: &mut Random, value_bytes: usize, ratio: f64) -> Self {
        let pool_bytes = POOL_BYTES.max(value_bytes);
        let raw_bytes = raw_bytes_of_piece(ratio);
        let mut pool = Vec::with_capacity(pool_bytes + PIECE_BYTES);
        let mut raw = vec![0; raw_bytes];
        while pool.len() < pool_bytes {
            for byte in &mut raw {
                let printable = u8::try_from(random.below(95)).expect("below 95");
                *byte = b' ' + printable;
            }
            pool.extend(raw.iter().cycle().take(PIECE_BYTES));
        }
        Self {
            pool,
            value_bytes,
            at: 0,
        }
    }

    /// The next value.
    #[inline]
    pub(crate) fn next_value(&mut self) -> &[u8] {
        if self.at + self.value_bytes > self.pool.len() {
            self.at = 0;
        }
        let from = self.at;
        self.at += self.value_bytes;
        &self.pool[from..self.at]
    }
}

/// Puts the numbers below a bound into another order, without a table of them.
///
/// Rounds of a multiplication by an odd number and a shift, each a bijection of the numbers of so
/// many bits; what falls beyond the bound is sent round again until it does not (cycle walking,
/// Black and Rogaway, 2002).
#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    bound: u64,
    mask: u64,
    shift: u32,
    factors: [u64; 3],
}

impl Shuffle {
    /// An order of the numbers below `bound`, which is at least 1.
    pub(crate) fn new(bound: u64, seed: u64) -> Self {
        let bits = (64 - bound.saturating_sub(1).leading_zeros()).max(1);
        Self {
            bound,
            mask: u64::MAX >> (64 - bits),
            shift: bits.div_ceil(2),
            factors: [1, 2, 3].map(|round| mix(seed ^ mix(round)) | 1),
        }
    }

    /// Where `number`, which is below the bound, is put.
    #[inline]
    pub(crate) fn place(&self, number: u64) -> u64 {
        debug_assert!(number < self.bound);
        let mut at = number;
        loop {
            for factor in self.factors {
                at = at.wrapping_mul(factor) & self.mask;
                at ^= at >> self.shift;
            }
            if at < self.bound {
                return at;
            }
        }
    }
}

/// How many bytes of a piece are random; the rest repeats them.
fn raw_bytes_of_piece(ratio: f64) -> usize {
    (1..=PIECE_BYTES)
        .rev()
        .find(|&count| count_as_f64(count) <= ratio * count_as_f64(PIECE_BYTES))
        .unwrap_or(1)
}

fn count_as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a piece is short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_look_like_db_bench_s() {
        let mut keys = KeyMaker::new(16);
        assert_eq!(keys.key(258), b"\0\0\0\0\0\0\x01\x0200000000");
        let earlier = keys.key(255).to_vec();
        assert!(earlier.as_slice() < keys.key(256));
        assert_eq!(KeyMaker::new(4).key(258), b"\0\0\x01\x02");
    }

    #[test]
    fn a_shuffle_puts_every_number_in_a_place_of_its_own() {
        for bound in [1, 2, 3, 64, 1000, 4097] {
            let shuffle = Shuffle::new(bound, 301);
            let mut places: Vec<u64> = (0..bound).map(|n| shuffle.place(n)).collect();
            let rises = places.windows(2).filter(|pair| pair[0] < pair[1]).count();
            if bound >= 1000 {
                let part = rises * 100 / places.len();
                assert!((40..60).contains(&part), "bound={bound} rises={part} %");
            }
            places.sort_unstable();
            assert!(places.into_iter().eq(0..bound), "bound={bound}");
        }
    }

    #[test]
    fn values_have_their_length_and_shrink_as_asked() {
        for (ratio, low, high) in [(0.5, 0.35, 0.6), (0.1, 0.05, 0.2), (1.0, 0.8, 1.05)] {
            let mut values = ValueMaker::new(&mut Random::new(1), 100, ratio);
            let raw: Vec<u8> = (0..10_000)
                .flat_map(|_| values.next_value().to_vec())
                .collect();
            assert_eq!(raw.len(), 1_000_000);
            let packed = zstd::bulk::compress(&raw, 1).expect("compressed").len();
            let part = f64::from(u32::try_from(packed).expect("small")) / 1e6;
            assert!((low..high).contains(&part), "ratio={ratio} part={part}");
        }
    }

    #[test]
    fn a_value_larger_than_the_pool_is_whole() {
        let mut values = ValueMaker::new(&mut Random::new(1), 3 << 20, 0.5);
        assert_eq!(values.next_value().len(), 3 << 20);
        assert_eq!(values.next_value().len(), 3 << 20);
    }
}
