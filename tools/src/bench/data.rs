//! Keys and values of the workloads, made as db_bench makes them.

use super::args::{Args, ValueSizeType};
use super::distribution::{floor_u64, unit};
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

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// All the same.
    Fixed(usize),
    /// Each from the first to the last is as likely.
    Uniform(usize, usize),
    /// Around the middle between the two, which lie three deviations from it.
    Normal(usize, usize),
}

impl Lengths {
    /// Those that `args` ask for.
    pub(crate) fn of(args: &Args) -> Self {
        let (from, upto) = (args.value_size_min, args.value_size_max);
        match args.value_size_distribution_type {
            ValueSizeType::Fixed => Self::Fixed(args.value_size),
            ValueSizeType::Uniform => Self::Uniform(from, upto),
            ValueSizeType::Normal => Self::Normal(from, upto),
        }
    }

    /// The longest there is.
    fn max(self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Uniform(_, bytes) | Self::Normal(_, bytes) => bytes,
        }
    }

    /// The length in the middle.
    pub(crate) fn mean(self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform(from, upto) | Self::Normal(from, upto) => usize::midpoint(from, upto),
        }
    }

    #[inline]
    fn draw(self, random: &mut Random) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform(from, upto) => from + random.below_usize(upto - from + 1),
            Self::Normal(from, upto) => {
                // Twelve draws have a variance of 1; six deviations span the range.
                let sum: f64 = (0..12).map(|_| unit(random)).sum();
                let part = ((sum - 6.0) / 6.0 + 0.5).clamp(0.0, 1.0);
                let offset = floor_u64(part * count_as_f64(upto - from));
                from + usize::try_from(offset).unwrap_or(0)
            }
        }
    }
}

/// Gives out values that shrink to a given part when compressed.
#[derive(Clone, Debug)]
pub(crate) struct ValueMaker {
    pool: Vec<u8>,
    lengths: Lengths,
    /// Draws the lengths.
    random: Random,
    at: usize,
}

impl ValueMaker {
    /// Values of `value_bytes` bytes that shrink to `ratio`, a part of 1.
    pub(crate) fn new(random: &mut Random, value_bytes: usize, ratio: f64) -> Self {
        Self::with_lengths(random, Lengths::Fixed(value_bytes), ratio)
    }

    /// Values of various lengths that shrink to `ratio`, a part of 1.
    pub(crate) fn with_lengths(random: &mut Random, lengths: Lengths, ratio: f64) -> Self {
        let pool_bytes = POOL_BYTES.max(lengths.max());
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
            lengths,
            random: random.clone(),
            at: 0,
        }
    }

    /// The next value.
    #[inline]
    pub(crate) fn next_value(&mut self) -> &[u8] {
        let value_bytes = self.lengths.draw(&mut self.random);
        self.next_of(value_bytes)
    }

    /// The next value, of a length of the caller's; at most that of the pool.
    #[inline]
    pub(crate) fn next_of(&mut self, value_bytes: usize) -> &[u8] {
        let value_bytes = value_bytes.min(self.pool.len());
        if self.at + value_bytes > self.pool.len() {
            self.at = 0;
        }
        let from = self.at;
        self.at += value_bytes;
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
    f64::from(u32::try_from(count).expect("a value is short"))
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
    fn lengths_stay_in_their_range_and_around_its_middle() {
        for lengths in [Lengths::Uniform(10, 50), Lengths::Normal(10, 50)] {
            let mut values = ValueMaker::with_lengths(&mut Random::new(301), lengths, 0.5);
            let drawn: Vec<usize> = (0..4000).map(|_| values.next_value().len()).collect();
            assert!(
                drawn.iter().all(|len| (10..=50).contains(len)),
                "{lengths:?}"
            );
            let mean = drawn.iter().sum::<usize>() / drawn.len();
            assert!((28..=32).contains(&mean), "{lengths:?} mean={mean}");
            let near = drawn.iter().filter(|len| (23..=37).contains(*len)).count() * 100 / 4000;
            let is_normal = matches!(lengths, Lengths::Normal(..));
            assert_eq!(
                near > 60,
                is_normal,
                "{lengths:?} near the middle: {near} %"
            );
        }
    }

    #[test]
    fn a_value_larger_than_the_pool_is_whole() {
        let mut values = ValueMaker::new(&mut Random::new(1), 3 << 20, 0.5);
        assert_eq!(values.next_value().len(), 3 << 20);
        assert_eq!(values.next_value().len(), 3 << 20);
    }
}
