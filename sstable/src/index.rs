//! The block index: separators to handles, in a searchable block.
#![deny(clippy::indexing_slicing)]

use base::coding::Malformed;
use base::{InternalKey, KeyKind, SequenceNumber};

use crate::block::{Aim, Builder, Shape};
use crate::compression;
use crate::format::BlockHandle;

/// Far above the index of any sensible table, and well below 4 GiB.
const INDEX_BYTES_MAX: usize = 2 << 30;

/// Offset, length and compression of a block: of one width, so that no entry needs an offset where
/// separators are equally long, and nothing is decoded bit by bit.
const VALUE_BYTES: usize = 13;

/// Collects one separator and handle for each data block.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    block: Builder,
}

impl IndexBuilder {
    /// Adds the block at `handle` under `separator`, which comes from [`separator_of`].
    pub(crate) fn add(&mut self, separator: InternalKey<'_>, handle: BlockHandle, compression: u8) {
        let [o0, o1, o2, o3, o4, o5, o6, o7] = handle.offset.to_le_bytes();
        let [l0, l1, l2, l3] = handle.len.to_le_bytes();
        let value: [u8; VALUE_BYTES] =
            [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, compression];
        self.block.add(&separator, &value);
    }

    /// Whether another block might make the index longer than a handle can say.
    pub(crate) fn is_full(&self) -> bool {
        self.block.staged_bytes() > INDEX_BYTES_MAX
    }

    pub(crate) fn bytes_estimate(&self) -> usize {
        self.block.staged_bytes()
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.block.finish(out);
    }
}

/// What the index says of a block whose last key is `last`; the block behind it begins with `next`,
/// if there is one.
pub(crate) fn separator_of<'a>(last: InternalKey<'a>, next: Option<&'a [u8]>) -> InternalKey<'a> {
    let (user_key, seq) = match next {
        Some(next) if next == last.user_key => (last.user_key, last.seq),
        Some(next) => (separator(last.user_key, next), SequenceNumber::ZERO),
        None => (last.user_key, SequenceNumber::ZERO),
    };
    InternalKey::new(user_key, seq, KeyKind::Put)
}

/// A short user key at or after `last` and before `next`, which sorts after it.
fn separator<'a>(last: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    // One byte more than they share sorts after `last`; unless that is all of `next`, before it.
    match next.get(..=shared) {
        Some(short) if short.len() < next.len() && short.len() < last.len() => short,
        _ => last,
    }
}

/// One entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) handle: BlockHandle,
    pub(crate) compression: u8,
}

/// The index block where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index<'a> {
    shape: &'a Shape,
    bytes: &'a [u8],
    data_end: u64,
}

impl<'a> Index<'a> {
    /// The index of `shape` in `bytes`, of a table whose data blocks end at `data_end`.
    #[inline]
    pub(crate) fn new(shape: &'a Shape, bytes: &'a [u8], data_end: u64) -> Self {
        Self {
            shape,
            bytes,
            data_end,
        }
    }

    /// How many data blocks there are; at least 1.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.shape.count()
    }

    /// Index of the block that holds the first entry at or after (`user_key`, `seq`), if any
    /// does; the count if every entry is before.
    #[inline]
    pub(crate) fn seek(&self, user_key: &[u8], seq: SequenceNumber) -> Result<usize, Malformed> {
        self.shape.lower_bound(self.bytes, user_key, seq)
    }

    /// The first of two steps of [`Index::seek`].
    #[inline]
    pub(crate) fn aim<'k>(&self, user_key: &'k [u8]) -> Aim<'k> {
        self.shape.aim(self.bytes, user_key)
    }

    /// The second step.
    #[inline]
    pub(crate) fn settle(&self, aim: &Aim<'_>, seq: SequenceNumber) -> Result<usize, Malformed> {
        self.shape.settle(self.bytes, aim, seq)
    }

    /// Asks for what [`Index::entry`] reads, of an index that [`Index::settle`] gave.
    #[inline]
    pub(crate) fn prefetch_entry(&self, index: usize) {
        self.shape.prefetch_span(self.bytes, index);
    }

    /// Where block `index` lies. Within the data, by what was checked here.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Result<IndexEntry, Malformed> {
        let entry = self.shape.entry(self.bytes, index)?;
        let value = <&[u8; VALUE_BYTES]>::try_from(entry.value).map_err(|_| Malformed)?;
        let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, compression] = *value;
        let handle = BlockHandle {
            offset: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
        };
        let known = matches!(
            compression,
            compression::RAW | compression::ZSTD | compression::ZSTD_DICTIONARY
        );
        if !known || handle.end() > self.data_end {
            return Err(Malformed);
        }
        Ok(IndexEntry {
            handle,
            compression,
        })
    }

    /// The separator of block `index`: user key into `key`, whose length is returned, and sequence.
    pub(crate) fn separator(
        &self,
        index: usize,
        key: &mut Vec<u8>,
    ) -> Result<SequenceNumber, Malformed> {
        let entry = self.shape.entry(self.bytes, index)?;
        let prefix = self.shape.prefix(self.bytes);
        key.clear();
        key.extend_from_slice(prefix);
        let len = crate::block::assemble(key, prefix.len(), &entry);
        key.truncate(len);
        Ok(entry.seq)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn separators_are_short_and_between() {
        for (last, next, want) in [
            ("abcdefgh", "abzzzzzz", "abz"),
            ("abc", "abcd", "abc"),
            ("abc", "abcde", "abc"),
            ("", "a", ""),
            ("a", "b", "a"),
            ("apple", "b", "apple"),
            ("apple", "banana", "b"),
            ("ab\u{7f}xyz", "b", "ab\u{7f}xyz"),
        ] {
            let got = separator(last.as_bytes(), next.as_bytes());
            assert_eq!(got, want.as_bytes(), "{last} {next}");
            assert!(last.as_bytes() <= got && got < next.as_bytes());
        }
    }
}
