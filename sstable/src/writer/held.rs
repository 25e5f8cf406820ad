//! The first blocks of a table, held back until there is a dictionary to compress them with.

use base::OwnedKey;

use crate::compression::{self, Means};
use crate::dictionary::{self, Compressing, DICTIONARY_BYTES_MAX, DICTIONARY_BYTES_MIN};

/// Whether a dictionary pays is tried on each so manieth block that was held back.
const TRIAL_STEP: usize = 4;

/// Blocks as they are, one behind the other, and the separators that the index will have of them.
///
/// Bounded: some sixty times the longest dictionary, and one block.
#[derive(Debug)]
pub(super) struct Held {
    dictionary_bytes_max: usize,
    pub(super) raw: Vec<u8>,
    ends: Vec<usize>,
    separators: Vec<OwnedKey>,
}

/// A dictionary that pays for itself.
#[derive(Debug)]
pub(super) struct Trained {
    pub(super) bytes: Vec<u8>,
    pub(super) prepared: Compressing,
}

impl Held {
    /// A place to hold blocks, if they are to have a dictionary and are small enough to gain by it.
    pub(super) fn start(dictionary_bytes_max: usize, block_bytes_target: usize) -> Option<Self> {
        let bytes_max = dictionary_bytes_max.min(DICTIONARY_BYTES_MAX);
        let is_wanted =
            bytes_max >= DICTIONARY_BYTES_MIN && block_bytes_target <= dictionary::BLOCK_BYTES_MAX;
        is_wanted.then(|| Self {
            dictionary_bytes_max: bytes_max,
            raw: Vec::new(),
            ends: Vec::new(),
            separators: Vec::new(),
        })
    }

    /// Says that a block was appended to `raw`; returns its length.
    pub(super) fn end_block(&mut self) -> usize {
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(self.raw.len());
        self.raw.len() - start
    }

    /// Enters the separator of the block that was held last.
    pub(super) fn push_separator(&mut self, separator: OwnedKey) {
        self.separators.push(separator);
        debug_assert_eq!(self.separators.len(), self.ends.len());
    }

    pub(super) fn is_full(&self) -> bool {
        self.raw.len() >= dictionary::sample_bytes(self.dictionary_bytes_max)
    }

    /// Every block with its separator.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&[u8], &OwnedKey)> {
        assert!(
            self.separators.len() == self.ends.len(),
            "a block is held without its separator"
        );
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.raw[start..*end])
            .zip(&self.separators)
    }

    /// A dictionary for blocks like these at `level`, unless it would cost more than it saves in
    /// these alone.
    pub(super) fn train(&self, level: i32, frame: &mut Vec<u8>) -> Option<Trained> {
        let lens: Vec<usize> = self.blocks().map(|(block, _)| block.len()).collect();
        let bytes = dictionary::train(&self.raw, &lens, self.dictionary_bytes_max)?;
        let prepared = Compressing::new(&bytes, level)?;
        let (mut without, mut with) = (0, 0);
        for (block, _) in self.blocks().step_by(TRIAL_STEP) {
            without += compression::stored_len(block, Means::Level(level), frame);
            with += compression::stored_len(block, Means::Dictionary(&prepared), frame);
        }
        let saved = without.saturating_sub(with) * TRIAL_STEP;
        (saved > bytes.len()).then_some(Trained { bytes, prepared })
    }
}
