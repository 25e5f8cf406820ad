//! Numbers that follow from a seed: for simulations, tests and benches, never for secrets.

/// SplitMix64 (Steele, Lea and Flood 2014): every seed is a good one, and so is every next one. The
/// same seed gives the same numbers on every machine.
///
/// # Examples
/// ```
/// use base::random::Random;
///
/// let (mut one, mut other) = (Random(7), Random(7));
/// assert_eq!(one.below(1000), other.below(1000));
/// ```
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers of `seed`, or of the one in the environment's `SEED`; prints which, behind the
    /// name of the test.
    pub fn printed(test: &str, seed: u64) -> Self {
        let given = std::env::var("SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or(seed);
        println!("{test}: SEED={seed}");
        Self(seed)
    }

    /// The next number, any of 2^64.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0 if `bound` is 0. The bias is at most `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// A length or an index below `bound`, or 0 if `bound` is 0.
    ///
    /// # Panics
    /// Never: what is below a `usize` fits one.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    /// True once in `count` times, on average.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// True in `percent` of a hundred cases, on average.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True every other time, on average.
    pub fn coin(&mut self) -> bool {
        self.next_u64() & 1 == 1
    }

    /// One of `items`, of which there is at least one.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }
}

/// A bijection that leaves no pattern: the finalizer of SplitMix64.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
