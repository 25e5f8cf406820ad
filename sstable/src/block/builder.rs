//! Builds one searchable block.
#![expect(
    clippy::indexing_slicing,
    reason = "builds from its own state, decodes nothing"
)]

use base::InternalKey;
use base::key::head;

use super::{HEAD_BYTES, HEADER_BYTES, KIND_BITS, KIND_MASK};

/// What an entry takes in columns at most: 8 bytes of a head, 4 of an offset, 2 of a length, 8 of a
/// sequence number. Of two entries this has room for the last offset, too.
const NUMBERS_BYTES_MAX: usize = 22 + 2;

/// Collects entries and lays them out as a block once all are known.
///
/// What the entries share and how wide their numbers are is known only when the last one is, so
/// they are staged first; everything staged keeps its capacity for the next block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builder {
    keys: Vec<u8>,
    values: Vec<u8>,
    staged: Vec<Staged>,
    /// Of what is staged; means nothing while that is nothing.
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Staged {
    key_end: u32,
    value_end: u32,
    trailer: u64,
}

/// What the entries of a block have in common, and between which bounds they differ.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    prefix_len: usize,
    /// How many bytes of the suffixes heads stand for.
    in_heads: usize,
    key_len_min: usize,
    key_len_max: usize,
    value_len_min: usize,
    value_len_max: usize,
    seq_min: u64,
    seq_max: u64,
    /// The kind of all of them, or 0.
    kind: u8,
}

impl Bounds {
    #[inline]
    fn of(key: &InternalKey<'_>, value_len: usize) -> Self {
        let (key_len, seq) = (key.user_key.len(), key.seq.get());
        Self {
            prefix_len: key_len,
            in_heads: 0,
            key_len_min: key_len,
            key_len_max: key_len,
            value_len_min: value_len,
            value_len_max: value_len,
            seq_min: seq,
            seq_max: seq,
            kind: key.kind.as_u8(),
        }
    }

    #[inline]
    fn with(&self, shared: Shared, key: &InternalKey<'_>, value_len: usize) -> Self {
        let (key_len, seq) = (key.user_key.len(), key.seq.get());
        let same_kind = self.kind == key.kind.as_u8();
        Self {
            prefix_len: shared.prefix_len,
            in_heads: shared.in_heads + in_head(key_len, shared.prefix_len),
            key_len_min: self.key_len_min.min(key_len),
            key_len_max: self.key_len_max.max(key_len),
            value_len_min: self.value_len_min.min(value_len),
            value_len_max: self.value_len_max.max(value_len),
            seq_min: self.seq_min.min(seq),
            seq_max: self.seq_max.max(seq),
            kind: if same_kind { self.kind } else { 0 },
        }
    }

    /// The parts of a block of `count` entries within these bounds, whose keys and values are
    /// together so long.
    #[inline]
    fn layout(&self, count: usize, keys: usize, values: usize) -> Layout {
        let suffix_max = self.key_len_max - self.prefix_len;
        let has_rests = suffix_max > HEAD_BYTES;
        let is_even = self.value_len_min == self.value_len_max
            && (!has_rests || self.key_len_min == self.key_len_max);
        let suffixes = keys - count * self.prefix_len;
        let above = self.seq_max - self.seq_min;
        let seq_number_max = if self.kind == 0 {
            (above << KIND_BITS) | KIND_MASK
        } else {
            above
        };
        let mut layout = Layout {
            heads: match suffix_max {
                0..=1 => 1,
                2 => 2,
                3..=4 => 4,
                _ => HEAD_BYTES,
            },
            // By an upper bound of where the last entry ends: suffixes taken as stored whole.
            offsets: if is_even {
                0
            } else {
                width_of((suffixes + values) as u64)
            },
            suffix_lens: width_of((self.key_len_max - self.key_len_min) as u64),
            seqs: width_of(seq_number_max),
            has_rests,
            bytes: 0,
        };
        let rests = suffixes - self.in_heads;
        layout.bytes = layout.entries_at(count, self.prefix_len) + rests + values;
        layout
    }
}

/// A prefix, and how many bytes behind it heads stand for in the entries there are.
#[derive(Clone, Copy, Debug)]
struct Shared {
    prefix_len: usize,
    in_heads: usize,
}

/// How much of a key behind the prefix its head stands for.
#[inline]
fn in_head(key_len: usize, prefix_len: usize) -> usize {
    (key_len - prefix_len).min(HEAD_BYTES)
}

/// How wide the numbers of a block are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    heads: usize,
    offsets: usize,
    suffix_lens: usize,
    seqs: usize,
    /// Whether a suffix is longer than a head.
    has_rests: bool,
    /// How long the whole block is.
    pub(super) bytes: usize,
}

impl Layout {
    #[inline]
    fn entries_at(&self, count: usize, prefix_len: usize) -> usize {
        let widths = self.heads + self.offsets + self.suffix_lens + self.seqs;
        HEADER_BYTES + count * widths + self.offsets + prefix_len
    }
}

/// How many bytes `number` has up to its highest that is not zero.
#[inline]
fn width_of(number: u64) -> usize {
    (64 - number.leading_zeros()).div_ceil(8) as usize
}

/// Stores each number in `width` bytes at and behind `at`; returns where that ends.
///
/// Eight bytes are written for each, the needless ones over what comes next: columns are stored
/// in the order of the block.
#[inline]
fn put_column(
    block: &mut [u8],
    mut at: usize,
    width: usize,
    numbers: impl Iterator<Item = u64>,
) -> usize {
    for number in numbers {
        block[at..at + 8].copy_from_slice(&number.to_le_bytes());
        at += width;
    }
    at
}

/// How many bytes `a` and `b` begin with alike, eight at a time.
#[inline]
fn shared_len(a: &[u8], b: &[u8]) -> usize {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    for (index, (x, y)) in a_words.iter().zip(b_words).enumerate() {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return index * 8 + differing.trailing_zeros() as usize / 8;
        }
    }
    // The words of the shorter one are alike; what is left of it is compared byte by byte.
    let at = a_words.len().min(b_words.len()) * 8;
    at + a[at..]
        .iter()
        .zip(&b[at..])
        .take_while(|(x, y)| x == y)
        .count()
}

/// An entry that may be added: the bounds of the block with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit(Bounds);

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a block with a value below 2 GiB is below 4 GiB")
}

impl Builder {
    pub(crate) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.staged.len()
    }

    /// Keys and values held until the block is finished.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.keys.len() + self.values.len()
    }

    /// The user key added last; empty if there is none.
    #[inline]
    pub(crate) fn last_user_key(&self) -> &[u8] {
        let start = match self.staged.len() {
            0 | 1 => 0,
            count => self.staged[count - 2].key_end as usize,
        };
        &self.keys[start..]
    }

    /// What adding an entry would come to, or `None` if the block would exceed `bytes_max` with it
    /// and has another already. Holds until something else is done to the block.
    #[inline]
    pub(crate) fn fit(
        &self,
        key: &InternalKey<'_>,
        value_len: usize,
        bytes_max: usize,
    ) -> Option<Fit> {
        let Some(first) = self.staged.first() else {
            return Some(Fit(Bounds::of(key, value_len)));
        };
        let first = &self.keys[..first.key_end as usize];
        let prefix_len = shared_len(&first[..self.bounds.prefix_len], key.user_key);
        let in_heads = if prefix_len == self.bounds.prefix_len {
            self.bounds.in_heads
        } else {
            self.in_heads_behind(prefix_len)
        };
        let shared = Shared {
            prefix_len,
            in_heads,
        };
        let bounds = self.bounds.with(shared, key, value_len);
        let count = self.count() + 1;
        let keys = self.keys.len() + key.user_key.len();
        let values = self.values.len() + value_len;
        // Most entries need no closer look.
        let most = HEADER_BYTES + keys + values + count * NUMBERS_BYTES_MAX;
        let fits = most <= bytes_max || bounds.layout(count, keys, values).bytes <= bytes_max;
        fits.then_some(Fit(bounds))
    }

    /// How many bytes of the staged keys heads stand for behind a prefix of `prefix_len`.
    ///
    /// Goes through all of them, but a prefix becomes shorter only a few times.
    fn in_heads_behind(&self, prefix_len: usize) -> usize {
        let mut key_at = 0;
        let lens = self.staged.iter().map(|staged| {
            let key_end = staged.key_end as usize;
            in_head(
                key_end - std::mem::replace(&mut key_at, key_end),
                prefix_len,
            )
        });
        lens.sum()
    }

    /// The parts of the block as it is now.
    pub(super) fn layout(&self) -> Layout {
        let (keys, values) = (self.keys.len(), self.values.len());
        self.bounds.layout(self.count(), keys, values)
    }

    /// Adds an entry, which sorts after all added before.
    #[inline]
    pub(crate) fn add(&mut self, key: &InternalKey<'_>, value: &[u8]) {
        let fit = self.fit(key, value.len(), usize::MAX);
        self.add_fitting(key, value, fit.expect("no block is longer than that"));
    }

    /// The same with what [`Builder::fit`] said of it.
    #[inline]
    pub(crate) fn add_fitting(&mut self, key: &InternalKey<'_>, value: &[u8], fit: Fit) {
        self.bounds = fit.0;
        self.keys.extend_from_slice(key.user_key);
        self.values.extend_from_slice(value);
        self.staged.push(Staged {
            key_end: to_u32(self.keys.len()),
            value_end: to_u32(self.values.len()),
            trailer: key.trailer(),
        });
    }

    /// Appends the block to `out` and starts the next one.
    ///
    /// # Panics
    /// If nothing was added.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        assert!(!self.is_empty(), "a block has at least one entry");
        let (count, bounds) = (self.count(), self.bounds);
        let layout = self.layout();
        let entries_at = layout.entries_at(count, bounds.prefix_len);
        let start = out.len();
        out.reserve(layout.bytes + HEAD_BYTES * (count + 1));
        // The last number of the last column is stored with up to eight bytes behind it.
        out.resize(start + entries_at + 8, 0);
        self.put_columns(&layout, &mut out[start..]);
        out.truncate(start + entries_at - bounds.prefix_len);
        out.extend_from_slice(&self.keys[..bounds.prefix_len]);
        assert_eq!(out.len(), start + entries_at, "columns are as long as said");
        if layout.has_rests {
            let mut value_at = 0;
            for (suffix, staged) in self.suffixes() {
                let value_end = staged.value_end as usize;
                out.extend_from_slice(suffix.get(HEAD_BYTES..).unwrap_or_default());
                out.extend_from_slice(&self.values[value_at..value_end]);
                value_at = value_end;
            }
        } else {
            out.extend_from_slice(&self.values);
        }
        self.clear();
    }

    /// What each key has behind the shared prefix.
    #[inline]
    fn suffixes(&self) -> impl Iterator<Item = (&[u8], &Staged)> {
        let mut key_at = 0;
        self.staged.iter().map(move |staged| {
            let key_end = staged.key_end as usize;
            let suffix = &self.keys[key_at + self.bounds.prefix_len..key_end];
            key_at = key_end;
            (suffix, staged)
        })
    }

    /// Header and columns, at the start of `block`.
    fn put_columns(&self, layout: &Layout, block: &mut [u8]) {
        let bounds = &self.bounds;
        let suffix_len_min = bounds.key_len_min - bounds.prefix_len;
        let to_u16 = |len: usize| u16::try_from(len).expect("a key is at most 65,535 bytes");
        let to_u8 = |width: usize| u8::try_from(width).expect("no width exceeds 8");
        let stride = if layout.offsets == 0 {
            let suffix_max = bounds.key_len_max - bounds.prefix_len;
            suffix_max.saturating_sub(HEAD_BYTES) + bounds.value_len_max
        } else {
            0
        };
        block[..4].copy_from_slice(&to_u32(self.count()).to_le_bytes());
        block[4..6].copy_from_slice(&to_u16(bounds.prefix_len).to_le_bytes());
        block[6..8].copy_from_slice(&to_u16(suffix_len_min).to_le_bytes());
        let word = (bounds.seq_min << 8) | u64::from(bounds.kind);
        block[8..16].copy_from_slice(&word.to_le_bytes());
        block[16..20].copy_from_slice(&to_u32(stride).to_le_bytes());
        block[20] = to_u8(layout.heads.ilog2() as usize);
        block[21] = to_u8(layout.offsets);
        block[22] = to_u8(layout.suffix_lens);
        block[23] = to_u8(layout.seqs);

        let below_head = 64 - 8 * layout.heads;
        let heads = self
            .suffixes()
            .map(|(suffix, _)| head(suffix) >> below_head);
        let mut at = put_column(block, HEADER_BYTES, layout.heads, heads);
        if layout.offsets > 0 {
            at = put_column(block, at, layout.offsets, self.offsets());
        }
        if layout.suffix_lens > 0 {
            let lens = self
                .suffixes()
                .map(|(suffix, _)| (suffix.len() - suffix_len_min) as u64);
            at = put_column(block, at, layout.suffix_lens, lens);
        }
        if layout.seqs > 0 {
            let numbers = self.staged.iter().map(|staged| {
                let above = (staged.trailer >> 8) - bounds.seq_min;
                if bounds.kind == 0 {
                    (above << KIND_BITS) | (staged.trailer & KIND_MASK)
                } else {
                    above
                }
            });
            put_column(block, at, layout.seqs, numbers);
        }
    }

    /// Where each entry begins behind the prefix, and the last one ends.
    fn offsets(&self) -> impl Iterator<Item = u64> {
        let (mut offset, mut value_at) = (0, 0);
        let ends = self.suffixes().map(move |(suffix, staged)| {
            let value_end = staged.value_end as usize;
            offset += suffix.len().saturating_sub(HEAD_BYTES) + value_end - value_at;
            value_at = value_end;
            offset as u64
        });
        std::iter::once(0).chain(ends)
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.staged.clear();
        self.bounds = Bounds::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_lengths_are_those_of_the_plain_loop() {
        for a_len in 0..20 {
            for b_len in 0..20 {
                for differs_at in 0..20 {
                    let a = vec![7; a_len];
                    let mut b = vec![7; b_len];
                    if let Some(byte) = b.get_mut(differs_at) {
                        *byte = 8;
                    }
                    let plain = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
                    assert_eq!(shared_len(&a, &b), plain, "{a_len} {b_len} {differs_at}");
                    assert_eq!(shared_len(&b, &a), plain, "{a_len} {b_len} {differs_at}");
                }
            }
        }
    }
}
