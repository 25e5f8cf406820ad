//! Seeded numbers for tests.

/// The same numbers for the same seed, on every platform.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// A length or index below `bound`.
    pub(crate) fn index_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    /// A key over few letters and of few lengths, so that keys repeat, share prefixes longer than
    /// a head, and end in zeros.
    pub(crate) fn key(&mut self) -> Vec<u8> {
        let mut key = match self.below(3) {
            0 => b"shared-prefix-".to_vec(),
            1 => b"shared".to_vec(),
            _ => Vec::new(),
        };
        for _ in 0..self.below(4) {
            key.push([0, b'a', b'b', 0xff][self.index_below(4)]);
        }
        key
    }
}
