//! The searchable block: data and index blocks, read where they lie.
//!
//! Bytes only, no I/O. A [`Shape`] is the few numbers of a block's header; every access through it
//! is checked against the bytes again, so that a shape can be kept apart from its block (a cursor
//! does) without being able to do harm.
#![deny(clippy::indexing_slicing)]

use std::cmp::Ordering;

use base::coding::Malformed;
use base::key::{KEY_BYTES_MAX, VALUE_BYTES_HARD_MAX, head};
use base::{KeyKind, SequenceNumber, hint};

mod aim;
mod builder;

pub(crate) use aim::{Aim, Spot};
pub(crate) use builder::Builder;

type Result<T> = std::result::Result<T, Malformed>;

/// Bytes before the heads.
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes of a key's suffix that its head stands for.
pub(crate) const HEAD_BYTES: usize = 8;
/// The lines in which about 32 entries have their heads and offsets.
const SEARCH_LINES: usize = 6;
/// Where kinds differ within a block, each takes so many bits below its sequence number.
const KIND_BITS: u32 = 3;
/// The last four bytes of the header are widths: heads as a power of 2 up to 3, offsets up to 4,
/// lengths of suffixes up to 2, sequence numbers up to 8. Added to them, this sets the highest bit
/// of each that exceeds its limit.
const WIDTHS_OVERFLOW: u64 = 0x777d_7b7c << 32;
const WIDTHS_OVERFLOWN: u64 = 0x8080_8080 << 32;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

/// Where the parts of a block lie, and how wide their numbers are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    count: usize,
    prefix_len: usize,
    heads: Column,
    offsets: Column,
    suffix_lens: Column,
    seqs: Column,
    heads_end: usize,
    prefix_at: usize,
    entries_at: usize,
    /// Length of every entry where there are no offsets.
    stride: usize,
    suffix_len_min: usize,
    suffix_len_max: usize,
    seq_min: u64,
    /// The kind of all entries, or 0 where each has its own.
    kind: u8,
}

/// An array of numbers of one width.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    /// Where the eight bytes begin that end where the first number does.
    ///
    /// INVARIANT: a column begins behind the header, which is longer than a word, so that there
    /// always are as many bytes before it.
    at: usize,
    /// Bytes of each number, at most 8; 0 if all are zero and none is stored.
    width: usize,
}

impl Column {
    /// The eight bytes that end where number `index` does, as one little-endian word.
    #[inline]
    fn word(self, bytes: &[u8], index: usize) -> Result<u64> {
        let (_, word) = bytes
            .split_at_checked(self.at + self.width * index)
            .ok_or(Malformed)?;
        Ok(u64::from_le_bytes(*word.first_chunk().ok_or(Malformed)?))
    }

    /// By how many bits a word is to be shifted for its last number to be left; not for a width
    /// of 0.
    #[inline]
    fn shift(self) -> usize {
        (64 - 8 * self.width) & 63
    }
}

/// One entry, its key still in parts: the block's prefix, then `head` and `rest`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) head: u64,
    pub(crate) suffix_len: usize,
    pub(crate) rest: &'a [u8],
    pub(crate) seq: SequenceNumber,
    pub(crate) kind: KeyKind,
    pub(crate) value: &'a [u8],
    /// Where `value` begins in the block.
    pub(crate) value_at: usize,
}

/// What is searched for within a block: a key without the block's prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suffix<'a> {
    head: u64,
    rest: &'a [u8],
    len: usize,
}

impl<'a> Suffix<'a> {
    #[inline]
    fn new(suffix: &'a [u8]) -> Self {
        Self {
            head: head(suffix),
            rest: suffix.get(HEAD_BYTES..).unwrap_or_default(),
            len: suffix.len(),
        }
    }
}

impl Entry<'_> {
    /// Order of this entry's key against a suffix whose head is equal.
    #[inline]
    fn cmp_tied(&self, suffix: &Suffix<'_>, seq: SequenceNumber) -> Ordering {
        self.rest
            .cmp(suffix.rest)
            .then(self.suffix_len.cmp(&suffix.len))
            .then_with(|| seq.cmp(&self.seq))
    }

    #[inline]
    fn is(&self, suffix: &Suffix<'_>) -> bool {
        self.head == suffix.head && self.suffix_len == suffix.len && self.rest == suffix.rest
    }

    /// Whether the head is padded with zeros where the suffix is shorter.
    pub(crate) fn is_canonical(&self) -> bool {
        let padding = HEAD_BYTES.saturating_sub(self.suffix_len) * 8;
        self.head.trailing_zeros() as usize >= padding
    }
}

impl Shape {
    /// Reads the header of `bytes` and checks that everything before the entries fits; and the
    /// entries as well, where all are equally long.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
        let [counts, kind_and_seq, widths] = *header.as_chunks::<8>().0 else {
            return Err(Malformed);
        };
        let counts = u64::from_le_bytes(counts);
        let kind_and_seq = u64::from_le_bytes(kind_and_seq);
        let widths = u64::from_le_bytes(widths);
        let count = counts & u64::from(u32::MAX);
        let prefix_len = counts >> 32 & 0xffff;
        let stride = widths & u64::from(u32::MAX);
        let are_known = (widths | widths.wrapping_add(WIDTHS_OVERFLOW)) & WIDTHS_OVERFLOWN == 0;
        if count == 0 || !are_known {
            return Err(Malformed);
        }
        let head_bytes = 1 << (widths >> 32 & 0xff);
        let offset_bytes = widths >> 40 & 0xff;
        let suffix_len_bytes = widths >> 48 & 0xff;
        let seq_bytes = widths >> 56;
        // No sum of products of 32-bit numbers with at most 8 overflows.
        let offsets_at = HEADER_BYTES as u64 + count * head_bytes;
        let suffix_lens_at = offsets_at + count * offset_bytes + offset_bytes;
        let seqs_at = suffix_lens_at + count * suffix_len_bytes;
        let prefix_at = seqs_at + count * seq_bytes;
        let entries_at = prefix_at + prefix_len;
        let even_end = (count * stride).checked_add(entries_at);
        if even_end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(Malformed);
        }
        // No suffix makes a key longer than one can be, or than its head where that is narrow.
        let suffix_len_max = KEY_BYTES_MAX as u64 - prefix_len;
        let suffix_len_max = if head_bytes == HEAD_BYTES as u64 {
            suffix_len_max
        } else {
            suffix_len_max.min(head_bytes)
        };
        // What lies within the bytes fits in the type of their length.
        let at = |at: u64| usize::try_from(at).map_err(|_| Malformed);
        let column = |place: u64, width: u64| -> Result<Column> {
            Ok(Column {
                at: at(place + width - 8)?,
                width: at(width)?,
            })
        };
        Ok(Self {
            count: at(count)?,
            prefix_len: at(prefix_len)?,
            heads: column(HEADER_BYTES as u64, head_bytes)?,
            offsets: column(offsets_at, offset_bytes)?,
            suffix_lens: column(suffix_lens_at, suffix_len_bytes)?,
            seqs: column(seqs_at, seq_bytes)?,
            heads_end: at(offsets_at)?,
            prefix_at: at(prefix_at)?,
            entries_at: at(entries_at)?,
            stride: at(stride)?,
            suffix_len_min: at(counts >> 48)?,
            suffix_len_max: at(suffix_len_max)?,
            seq_min: kind_and_seq >> 8,
            kind: (kind_and_seq & 0xff) as u8,
        })
    }

    /// How many entries there are; at least 1.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How long the shared prefix is.
    #[inline]
    pub(crate) fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// What all user keys of the block begin with.
    #[inline]
    pub(crate) fn prefix<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
            .get(self.prefix_at..self.prefix_at + self.prefix_len)
            .unwrap_or_default()
    }

    /// Where entry `index` begins and ends. Checked against nothing.
    #[inline]
    fn span(&self, bytes: &[u8], index: usize) -> Result<(usize, usize)> {
        if self.offsets.width == 0 {
            let start = self.entries_at + self.stride * index;
            return Ok((start, start + self.stride));
        }
        // A word has room for two offsets: where this one begins, and the next.
        let word = self.offsets.word(bytes, index + 1)?;
        let shift = self.offsets.shift();
        let at = |number: u64| {
            let offset = usize::try_from(number).map_err(|_| Malformed)?;
            self.entries_at.checked_add(offset).ok_or(Malformed)
        };
        Ok((at(word << (64 - shift) >> shift)?, at(word >> shift)?))
    }

    /// Entry `index` of the block in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if any part of it exceeds the block or means nothing.
    #[inline]
    pub(crate) fn entry<'a>(&self, bytes: &'a [u8], index: usize) -> Result<Entry<'a>> {
        if index >= self.count {
            return Err(Malformed);
        }
        let below_head = self.heads.shift();
        let head = self.heads.word(bytes, index)? >> below_head << below_head;
        let mut suffix_len = self.suffix_len_min;
        if self.suffix_lens.width != 0 {
            let longer = self.suffix_lens.word(bytes, index)? >> self.suffix_lens.shift();
            suffix_len += usize::try_from(longer).map_err(|_| Malformed)?;
        }
        if suffix_len > self.suffix_len_max {
            return Err(Malformed);
        }
        let (start, end) = self.span(bytes, index)?;
        let stored = bytes.get(start..end).ok_or(Malformed)?;
        let rest_len = suffix_len.saturating_sub(HEAD_BYTES);
        let (rest, value) = stored.split_at_checked(rest_len).ok_or(Malformed)?;
        let (mut kind, mut above) = (self.kind, 0);
        if self.seqs.width != 0 {
            above = self.seqs.word(bytes, index)? >> self.seqs.shift();
            if kind == 0 {
                kind = (above & KIND_MASK) as u8;
                above >>= KIND_BITS;
            }
        }
        let kind = KeyKind::from_u8(kind).ok_or(Malformed)?;
        // A sum that overflows means another number; it may as well.
        let seq = SequenceNumber::new(self.seq_min.wrapping_add(above)).ok_or(Malformed)?;
        Ok(Entry {
            head,
            suffix_len,
            rest,
            seq,
            kind,
            value,
            value_at: start + rest_len,
        })
    }

    /// Whether the one entry of a block of any length is one that can be written.
    pub(crate) fn is_single(&self) -> bool {
        self.count == 1 && self.offsets.width == 0 && self.stride <= VALUE_BYTES_HARD_MAX
    }

    /// Whether the entries fill the block from the first byte to the last.
    pub(crate) fn is_filled(&self, bytes: &[u8]) -> bool {
        let first = self.span(bytes, 0);
        let last = self.span(bytes, self.count.saturating_sub(1));
        first.is_ok_and(|(start, _)| start == self.entries_at)
            && last.is_ok_and(|(_, end)| end == bytes.len())
            && (self.stride == 0 || self.offsets.width == 0)
    }

    /// The key without the prefix; or where a key that lacks the prefix stands, before or behind
    /// every entry.
    #[inline]
    fn suffix<'k>(&self, bytes: &[u8], key: &'k [u8]) -> std::result::Result<Suffix<'k>, usize> {
        let prefix = self.prefix(bytes);
        match key.split_at_checked(prefix.len()) {
            Some((start, suffix)) => match start.cmp(prefix) {
                Ordering::Equal => Ok(Suffix::new(suffix)),
                Ordering::Less => Err(0),
                Ordering::Greater => Err(self.count),
            },
            // A key shorter than the prefix sorts before if it is a part of it.
            None if key > prefix => Err(self.count),
            None => Err(0),
        }
    }

    /// Where the entries begin whose head is the suffix's or greater, and how many of them are tied
    /// with it.
    #[inline]
    fn tied(&self, bytes: &[u8], suffix: &Suffix<'_>) -> (usize, usize) {
        let heads = bytes.get(HEADER_BYTES..self.heads_end).unwrap_or_default();
        match self.heads.width {
            8 => tied_in::<8>(heads, suffix.head),
            4 => tied_in::<4>(heads, suffix.head),
            2 => tied_in::<2>(heads, suffix.head),
            _ => tied_in::<1>(heads, suffix.head),
        }
    }

    #[inline]
    fn lower_bound_suffix(
        &self,
        bytes: &[u8],
        suffix: &Suffix<'_>,
        seq: SequenceNumber,
    ) -> Result<usize> {
        let (low, tied) = self.tied(bytes, suffix);
        self.lower_bound_tied(bytes, suffix, seq, low, tied)
    }

    /// The same among the `tied` entries from `low` on, whose heads equal the suffix's.
    #[inline]
    fn lower_bound_tied(
        &self,
        bytes: &[u8],
        suffix: &Suffix<'_>,
        seq: SequenceNumber,
        mut low: usize,
        tied: usize,
    ) -> Result<usize> {
        let mut high = low + tied;
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(bytes, middle)?.cmp_tied(suffix, seq).is_lt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Index of the first entry at or after (`user_key`, `seq`); the count if there is none.
    ///
    /// # Errors
    /// [`Malformed`] if an entry it must look at is.
    #[inline]
    pub(crate) fn lower_bound(
        &self,
        bytes: &[u8],
        user_key: &[u8],
        seq: SequenceNumber,
    ) -> Result<usize> {
        match self.suffix(bytes, user_key) {
            Ok(suffix) => self.lower_bound_suffix(bytes, &suffix, seq),
            Err(index) => Ok(index),
        }
    }

    /// How many entries are at or before (`user_key`, `seq`).
    ///
    /// # Errors
    /// [`Malformed`] if an entry it must look at is.
    #[inline]
    pub(crate) fn upper_bound(
        &self,
        bytes: &[u8],
        user_key: &[u8],
        seq: SequenceNumber,
    ) -> Result<usize> {
        let suffix = match self.suffix(bytes, user_key) {
            Ok(suffix) => suffix,
            Err(index) => return Ok(index),
        };
        let low = self.lower_bound_suffix(bytes, &suffix, seq)?;
        if low < self.count {
            let entry = self.entry(bytes, low)?;
            if entry.is(&suffix) && entry.seq == seq {
                return Ok(low + 1);
            }
        }
        Ok(low)
    }

    /// The newest version of `user_key` at or below `seq` in this block.
    ///
    /// # Errors
    /// [`Malformed`] if an entry it must look at is.
    #[inline]
    pub(crate) fn find<'a>(
        &self,
        bytes: &'a [u8],
        user_key: &[u8],
        seq: SequenceNumber,
    ) -> Result<Option<Entry<'a>>> {
        let Ok(suffix) = self.suffix(bytes, user_key) else {
            return Ok(None);
        };
        let (low, tied) = self.tied(bytes, &suffix);
        self.find_at(bytes, &Spot { suffix, low, tied }, seq)
    }

    /// Asks for the lines that a search of a data block in `bytes` reads first: header, heads and
    /// offsets of a block of the usual size. One wait for memory instead of several.
    #[inline]
    pub(crate) fn prefetch(bytes: &[u8]) {
        let starts = (0..SEARCH_LINES).map(|line| line * hint::LINE_BYTES);
        match bytes.first_chunk::<{ SEARCH_LINES * hint::LINE_BYTES }>() {
            // The usual case: no line needs a comparison of its own.
            Some(first) => starts.for_each(|start| hint::prefetch(first, start)),
            None => starts.for_each(|start| hint::prefetch(bytes, start)),
        }
    }
}

/// The head that `stored` is the first `WIDTH` bytes of: the others are zero.
#[inline]
fn widened<const WIDTH: usize>(stored: &[u8; WIDTH]) -> u64 {
    let mut word = [0; HEAD_BYTES];
    if let Some(last) = word.last_chunk_mut::<WIDTH>() {
        *last = *stored;
    }
    u64::from_le_bytes(word)
}

/// Where `head` or a greater one begins in `heads`, and how many equal it.
#[inline]
fn tied_in<const WIDTH: usize>(heads: &[u8], head: u64) -> (usize, usize) {
    let heads = heads.as_chunks::<WIDTH>().0;
    let low = heads.partition_point(|stored| widened(stored) < head);
    (low, tied_at(heads, low, head))
}

/// How many of `heads` from `low` on equal `head`.
#[inline]
fn tied_at<const WIDTH: usize>(heads: &[[u8; WIDTH]], low: usize, head: u64) -> usize {
    let rest = heads.get(low..).unwrap_or_default();
    let is_tied = |stored: &[u8; WIDTH]| widened(stored) == head;
    // Mostly one entry is tied at most, so that a second search is seldom worth its start.
    match rest {
        [first, second, ..] if is_tied(first) && is_tied(second) => {
            hint::cold_path();
            rest.partition_point(is_tied)
        }
        [first, ..] => usize::from(is_tied(first)),
        [] => 0,
    }
}

/// Assembles the user key of `entry` behind a prefix of `prefix_len` bytes that `key` begins with.
///
/// `key` only ever grows; returns the length of the user key in it.
#[inline]
pub(crate) fn assemble(key: &mut Vec<u8>, prefix_len: usize, entry: &Entry<'_>) -> usize {
    let rest_at = prefix_len + HEAD_BYTES;
    let room = rest_at + entry.rest.len();
    if key.len() < room {
        key.resize(room, 0);
    }
    if let Some(suffix) = key.get_mut(prefix_len..room)
        && let Some((first, rest)) = suffix.split_first_chunk_mut::<HEAD_BYTES>()
    {
        *first = entry.head.to_be_bytes();
        rest.copy_from_slice(entry.rest);
    }
    prefix_len + entry.suffix_len
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
