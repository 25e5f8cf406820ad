//! A search of a block in steps, for whoever searches many blocks at once and turns to the others
//! in between: each step asks for the memory that the next one reads.
#![deny(clippy::indexing_slicing)]

use base::{SequenceNumber, hint};

use super::{Column, Entry, HEAD_BYTES, HEADER_BYTES, Result, Shape, Suffix, tied_at, widened};

/// Heads among which the second step of a search finds its own: four lines of the widest. Of a
/// long index, the heads that the first step looks at are so few that they stay in the cache.
const WINDOW_HEADS: usize = 32;

/// What the first step of a search in an index came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim<'k> {
    /// The head is one of [`WINDOW_HEADS`] from here on, or the one behind them.
    Window { suffix: Suffix<'k>, from: usize },
    /// Nothing is left to be done.
    At(usize),
}

/// The entries of a data block that a search looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'k> {
    pub(super) suffix: Suffix<'k>,
    pub(super) low: usize,
    /// How many there are; none if the key is not in the block.
    pub(super) tied: usize,
}

impl Shape {
    /// The first of two steps of [`Shape::lower_bound`] in a long block; asks for the heads that
    /// the other one looks at.
    #[inline]
    pub(crate) fn aim<'k>(&self, bytes: &[u8], user_key: &'k [u8]) -> Aim<'k> {
        let suffix = match self.suffix(bytes, user_key) {
            Ok(suffix) => suffix,
            Err(at) => return Aim::At(at),
        };
        let heads = self.heads_of(bytes);
        let window = match self.heads.width {
            8 => window_in::<8>(heads, suffix.head),
            4 => window_in::<4>(heads, suffix.head),
            2 => window_in::<2>(heads, suffix.head),
            _ => window_in::<1>(heads, suffix.head),
        };
        let from = window * WINDOW_HEADS;
        let window_bytes = WINDOW_HEADS * self.heads.width;
        let start = window * window_bytes;
        for at in (0..window_bytes).step_by(hint::LINE_BYTES) {
            hint::prefetch(heads, start + at);
        }
        // Lines do not begin where windows do.
        hint::prefetch(heads, start + window_bytes - 1);
        Aim::Window { suffix, from }
    }

    /// The second step: what [`Shape::lower_bound`] gives. Asks for the numbers of that entry.
    ///
    /// # Errors
    /// [`base::coding::Malformed`] if an entry it must look at is.
    #[inline]
    pub(crate) fn settle(&self, bytes: &[u8], aim: &Aim<'_>, seq: SequenceNumber) -> Result<usize> {
        let (suffix, from) = match aim {
            Aim::Window { suffix, from } => (suffix, *from),
            Aim::At(at) => return Ok(*at),
        };
        let heads = self.heads_of(bytes);
        let (low, tied) = match self.heads.width {
            8 => tied_behind::<8>(heads, from, suffix.head),
            4 => tied_behind::<4>(heads, from, suffix.head),
            2 => tied_behind::<2>(heads, from, suffix.head),
            _ => tied_behind::<1>(heads, from, suffix.head),
        };
        let at = self.lower_bound_tied(bytes, suffix, seq, low, tied)?;
        for column in [self.offsets, self.suffix_lens, self.seqs] {
            column.prefetch(bytes, at);
        }
        Ok(at)
    }

    /// Asks for the first and the last line of entry `index`, whose numbers were asked for.
    #[inline]
    pub(crate) fn prefetch_span(&self, bytes: &[u8], index: usize) {
        if let Ok((start, end)) = self.span(bytes, index) {
            hint::prefetch(bytes, start);
            hint::prefetch(bytes, end.saturating_sub(1));
        }
    }

    /// The first of two steps of [`Shape::find`]; `None` if no entry begins as `user_key` does.
    /// Asks for the entry.
    #[inline]
    pub(crate) fn spot<'k>(&self, bytes: &[u8], user_key: &'k [u8]) -> Option<Spot<'k>> {
        let suffix = self.suffix(bytes, user_key).ok()?;
        let (low, tied) = self.tied(bytes, &suffix);
        if tied > 0 {
            self.prefetch_span(bytes, low);
        }
        Some(Spot { suffix, low, tied })
    }

    /// The second step.
    ///
    /// # Errors
    /// [`base::coding::Malformed`] if an entry it must look at is.
    #[inline]
    pub(crate) fn find_at<'a>(
        &self,
        bytes: &'a [u8],
        spot: &Spot<'_>,
        seq: SequenceNumber,
    ) -> Result<Option<Entry<'a>>> {
        let Spot { suffix, low, tied } = spot;
        let low = match tied {
            0 => return Ok(None),
            1 => *low,
            _ => self.lower_bound_tied(bytes, suffix, seq, *low, *tied)?,
        };
        if low == self.count {
            return Ok(None);
        }
        let entry = self.entry(bytes, low)?;
        Ok((entry.is(suffix) && entry.seq <= seq).then_some(entry))
    }

    #[inline]
    fn heads_of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(HEADER_BYTES..self.heads_end).unwrap_or_default()
    }
}

impl Column {
    /// Asks for the line where number `index` ends.
    #[inline]
    fn prefetch(self, bytes: &[u8], index: usize) {
        if self.width != 0 {
            hint::prefetch(bytes, self.at + self.width * index + HEAD_BYTES - 1);
        }
    }
}

/// Of the windows that `heads` consist of, the first whose last head is `head` or greater; the last
/// one has no more to say and is not looked at.
#[inline]
fn window_in<const WIDTH: usize>(heads: &[u8], head: u64) -> usize {
    let heads = heads.as_chunks::<WIDTH>().0;
    let windows = heads.as_chunks::<WINDOW_HEADS>().0;
    windows.partition_point(|window| {
        let [.., last] = window;
        widened(last) < head
    })
}

/// As `tied_in`, of a head that is in the window from `from` on, or directly behind it.
#[inline]
fn tied_behind<const WIDTH: usize>(heads: &[u8], from: usize, head: u64) -> (usize, usize) {
    let heads = heads.as_chunks::<WIDTH>().0;
    let behind = heads.get(from..).unwrap_or_default();
    let window = behind.get(..WINDOW_HEADS).unwrap_or(behind);
    let low = from + window.partition_point(|stored| widened(stored) < head);
    (low, tied_at(heads, low, head))
}
