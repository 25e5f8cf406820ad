//! The searchable block: data and index blocks, read where they lie.
//!
//! Bytes only, no I/O. A [`Shape`] is the few numbers of a block's header; every access through it
//! is checked against the bytes again, so that a shape can be kept apart from its block (a cursor
//! does) without being able to do harm.
#![deny(clippy::indexing_slicing)]

use std::cmp::Ordering;

use base::coding::{Malformed, Reader};
use base::key::{KEY_BYTES_MAX, VALUE_BYTES_HARD_MAX, head};
use base::{KeyKind, SequenceNumber, hint};

mod builder;

pub(crate) use builder::Builder;

type Result<T> = std::result::Result<T, Malformed>;

/// Bytes before the heads.
pub(crate) const HEADER_BYTES: usize = 8;
/// Bytes of a key's suffix that its head holds.
pub(crate) const HEAD_BYTES: usize = 8;
/// About 32 entries have their heads, offsets and prefix in so many cache lines.
const SEARCH_LINES: usize = 6;
/// Bit of the kind byte: the sequence number is zero and absent.
const SEQ_ZERO: u8 = 0x80;

/// Where the parts of a block lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    count: usize,
    prefix_len: usize,
    wide: bool,
    offsets_at: usize,
    prefix_at: usize,
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
struct Suffix<'a> {
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
    /// Reads the header of `bytes` and checks that heads, offsets and prefix fit.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.u32()?;
        let prefix_len = usize::from(reader.u16()?);
        let wide = reader.u8()?;
        let zero = reader.u8()?;
        if count == 0 || wide > 1 || zero != 0 {
            return Err(Malformed);
        }
        let count = usize::try_from(count).map_err(|_| Malformed)?;
        let wide = wide == 1;
        let width = if wide { 4 } else { 2 };
        let offsets_at = count
            .checked_mul(HEAD_BYTES)
            .and_then(|heads| heads.checked_add(HEADER_BYTES))
            .ok_or(Malformed)?;
        let prefix_at = count
            .checked_mul(width)
            .and_then(|offsets| offsets.checked_add(offsets_at))
            .ok_or(Malformed)?;
        if prefix_at.checked_add(prefix_len).ok_or(Malformed)? > bytes.len() {
            return Err(Malformed);
        }
        Ok(Self {
            count,
            prefix_len,
            wide,
            offsets_at,
            prefix_at,
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

    #[inline]
    fn heads<'a>(&self, bytes: &'a [u8]) -> &'a [[u8; HEAD_BYTES]] {
        let heads = bytes.get(HEADER_BYTES..self.offsets_at).unwrap_or_default();
        heads.as_chunks::<HEAD_BYTES>().0
    }

    #[inline]
    fn offset(&self, bytes: &[u8], index: usize) -> Result<usize> {
        if self.wide {
            let at = self.offsets_at + 4 * index;
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
            usize::try_from(u32::from_le_bytes(*bytes.ok_or(Malformed)?)).map_err(|_| Malformed)
        } else {
            let at = self.offsets_at + 2 * index;
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>);
            Ok(usize::from(u16::from_le_bytes(*bytes.ok_or(Malformed)?)))
        }
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
        let head_at = HEADER_BYTES + HEAD_BYTES * index;
        let head = bytes.get(head_at..).and_then(<[u8]>::first_chunk::<8>);
        let head = u64::from_le_bytes(*head.ok_or(Malformed)?);
        let at = self.offset(bytes, index)?;
        let stored = bytes.get(at..).ok_or(Malformed)?;
        let (&tag, after) = stored.split_first().ok_or(Malformed)?;
        let kind = KeyKind::from_u8(tag & !SEQ_ZERO).ok_or(Malformed)?;
        let (seq, after) = if tag & SEQ_ZERO != 0 {
            (SequenceNumber::ZERO, after)
        } else {
            // Kind and sequence together are one little-endian word.
            let (word, after) = stored.split_first_chunk::<8>().ok_or(Malformed)?;
            let seq = SequenceNumber::new(u64::from_le_bytes(*word) >> 8).ok_or(Malformed)?;
            (seq, after)
        };
        let mut reader = Reader::new(after);
        let suffix_len = reader.varint()?;
        let value_len = reader.varint()?;
        // Both are compared as 64-bit numbers: a cast comes only after.
        if suffix_len > (KEY_BYTES_MAX - self.prefix_len.min(KEY_BYTES_MAX)) as u64
            || value_len > VALUE_BYTES_HARD_MAX as u64
        {
            return Err(Malformed);
        }
        let suffix_len = usize::try_from(suffix_len).map_err(|_| Malformed)?;
        let value_len = usize::try_from(value_len).map_err(|_| Malformed)?;
        let rest = reader.bytes(suffix_len.saturating_sub(HEAD_BYTES))?;
        let value_at = bytes.len() - reader.rest().len();
        let value = reader.bytes(value_len)?;
        Ok(Entry {
            head,
            suffix_len,
            rest,
            seq,
            kind,
            value,
            value_at,
        })
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
        let heads = self.heads(bytes);
        let low = heads.partition_point(|head| u64::from_le_bytes(*head) < suffix.head);
        let rest = heads.get(low..).unwrap_or_default();
        let is_tied = |head: &[u8; HEAD_BYTES]| u64::from_le_bytes(*head) == suffix.head;
        // Mostly one entry is tied at most, so that a second search is seldom worth its start.
        let count = match rest {
            [first, second, ..] if is_tied(first) && is_tied(second) => {
                hint::cold_path();
                rest.partition_point(is_tied)
            }
            [first, ..] => usize::from(is_tied(first)),
            [] => 0,
        };
        (low, count)
    }

    #[inline]
    fn lower_bound_suffix(
        &self,
        bytes: &[u8],
        suffix: &Suffix<'_>,
        seq: SequenceNumber,
    ) -> Result<usize> {
        let (mut low, tied) = self.tied(bytes, suffix);
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
        let low = match self.tied(bytes, &suffix) {
            (_, 0) => return Ok(None),
            (only, 1) => only,
            _ => self.lower_bound_suffix(bytes, &suffix, seq)?,
        };
        if low == self.count {
            return Ok(None);
        }
        let entry = self.entry(bytes, low)?;
        Ok((entry.is(&suffix) && entry.seq <= seq).then_some(entry))
    }

    /// Asks for the line where the first entry with the head of `user_key` begins, if there is one.
    #[inline]
    pub(crate) fn prefetch_entry(&self, bytes: &[u8], user_key: &[u8]) {
        if let Ok(suffix) = self.suffix(bytes, user_key)
            && let (low, 1..) = self.tied(bytes, &suffix)
            && let Ok(at) = self.offset(bytes, low)
        {
            hint::prefetch(bytes, at);
        }
    }

    /// Asks for the lines that a search of a data block in `bytes` reads first: header, heads,
    /// offsets and prefix of a block of the usual size. One wait for memory instead of several.
    #[inline]
    pub(crate) fn prefetch(bytes: &[u8]) {
        for line in 0..SEARCH_LINES {
            hint::prefetch(bytes, line * 64);
        }
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
