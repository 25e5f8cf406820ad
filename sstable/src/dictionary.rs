//! Dictionaries: what the blocks of one table have in common, stored once.
//!
//! A small block gives zstd little to find repetitions in. A table that is asked for it holds its
//! first blocks back, trains a dictionary on them, and stores it if it pays for itself. Never
//! trusted when it is read: it is bounded, must be a dictionary in zstd's own form, and what is
//! decompressed with it is checked like every other block.
#![deny(clippy::indexing_slicing)]

use std::fmt;

use base::coding::{Malformed, Reader};
use zstd_safe::{CDict, DDict};

use crate::counted::Counted;

/// The longest dictionary that is written or read, without its envelope.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 64 << 10;
/// Blocks beyond this find enough repetitions in themselves (measured: benches/BUDGET.md).
pub(crate) const BLOCK_BYTES_MAX: usize = 16 << 10;
/// The samples of a dictionary are this many times as long; zstd's own advice is a hundred times.
const SAMPLE_FACTOR: usize = 64;
/// Fewer blocks than this have nothing in common worth learning.
const SAMPLE_COUNT_MIN: usize = 16;
/// zstd makes none below this.
pub(crate) const DICTIONARY_BYTES_MIN: usize = 256;

/// Before the dictionary in its block: kind u8, version u8, zero u16, length u32.
pub(crate) const ENVELOPE_BYTES: usize = 8;
const KIND_ZSTD: u8 = 1;
const ENVELOPE_VERSION: u8 = 1;

/// How many bytes of blocks are held back to train a dictionary of at most `bytes_max`.
pub(crate) const fn sample_bytes(bytes_max: usize) -> usize {
    bytes_max * SAMPLE_FACTOR
}

/// Trains a dictionary of at most `bytes_max` on samples that lie one behind the other in `samples`
/// and are `lens` long. `None` if they are too few or too different.
pub(crate) fn train(samples: &[u8], lens: &[usize], bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = bytes_max.min(samples.len() / 8);
    if lens.len() < SAMPLE_COUNT_MIN || bytes < DICTIONARY_BYTES_MIN {
        return None;
    }
    let mut dictionary = Vec::with_capacity(bytes);
    zstd_safe::train_from_buffer(&mut dictionary, samples, lens).ok()?;
    is_dictionary(&dictionary).then_some(dictionary)
}

/// Whether zstd takes `bytes` for a dictionary rather than for plain content.
fn is_dictionary(bytes: &[u8]) -> bool {
    zstd_safe::get_dict_id_from_dict(bytes).is_some()
}

/// Appends the block that holds `dictionary`.
pub(crate) fn put(out: &mut Vec<u8>, dictionary: &[u8]) {
    let len = u32::try_from(dictionary.len()).expect("a dictionary is small");
    out.extend_from_slice(&[KIND_ZSTD, ENVELOPE_VERSION, 0, 0]);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(dictionary);
}

/// A dictionary made ready to compress with, at one level.
pub(crate) struct Compressing(Counted<CDict<'static>>);

impl Compressing {
    pub(crate) fn new(dictionary: &[u8], level: i32) -> Option<Self> {
        CDict::try_create(dictionary, level).map(|made| Self(Counted::new(made)))
    }

    pub(crate) fn prepared(&self) -> &CDict<'static> {
        self.0.inner()
    }
}

impl fmt::Debug for Compressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressing").finish_non_exhaustive()
    }
}

/// A dictionary made ready to decompress with, shared by all who read its table.
pub(crate) struct Dictionary(DDict<'static>);

/// Why a dictionary block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    UnknownKind(u8),
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Dictionary {
    /// Reads the block `block`, its trailer cut off.
    pub(crate) fn read(block: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(block);
        let kind = reader.u8()?;
        let version = reader.u8()?;
        let zero = reader.u16()?;
        let len = reader.u32()?;
        if kind != KIND_ZSTD || version != ENVELOPE_VERSION {
            return Err(Refusal::UnknownKind(kind));
        }
        let bytes = reader.rest();
        let is_sound = zero == 0
            && u64::from(len) == bytes.len() as u64
            && bytes.len() <= DICTIONARY_BYTES_MAX
            && is_dictionary(bytes);
        if !is_sound {
            return Err(Refusal::Malformed);
        }
        DDict::try_create(bytes).map(Self).ok_or(Refusal::Malformed)
    }

    pub(crate) fn prepared(&self) -> &DDict<'static> {
        &self.0
    }

    /// What it occupies: a copy of the dictionary and its tables.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.sizeof()
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary")
            .field("heap_bytes", &self.heap_bytes())
            .finish_non_exhaustive()
    }
}
