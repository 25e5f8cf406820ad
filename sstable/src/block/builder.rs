//! Builds one searchable block.
#![expect(
    clippy::indexing_slicing,
    reason = "builds from its own state, decodes nothing"
)]

use base::InternalKey;
use base::coding::{put_varint, varint_len};
use base::key::head;

use super::{HEAD_BYTES, HEADER_BYTES, SEQ_ZERO};

/// Collects entries and lays them out as a block once all are known.
///
/// The shared prefix is known only when the last key is, so entries are staged first; everything
/// staged keeps its capacity for the next block.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    keys: Vec<u8>,
    values: Vec<u8>,
    staged: Vec<Staged>,
    /// Bytes that entries take besides suffix and value, heads and offsets included.
    overhead: usize,
    prefix_len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Staged {
    key_end: u32,
    value_end: u32,
    trailer: u64,
}

/// What one entry adds to a block besides suffix and value, at most.
fn overhead(key: &InternalKey<'_>, value_len: usize) -> usize {
    let kind_and_seq = if key.seq.get() == 0 { 1 } else { 8 };
    HEAD_BYTES
        + 2
        + kind_and_seq
        + varint_len(key.user_key.len() as u64)
        + varint_len(value_len as u64)
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

/// An entry that may be added: what the block shares with it, and would be long with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    prefix_len: usize,
    overhead: usize,
    /// About how long the block would be.
    pub(crate) block_bytes: usize,
}

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

    fn first_user_key(&self) -> &[u8] {
        match self.staged.first() {
            Some(first) => &self.keys[..first.key_end as usize],
            None => &[],
        }
    }

    #[inline]
    fn prefix_with(&self, user_key: &[u8]) -> usize {
        if self.is_empty() {
            user_key.len()
        } else {
            shared_len(&self.first_user_key()[..self.prefix_len], user_key)
        }
    }

    fn bytes_of(&self, count: usize, keys: usize, values: usize, prefix: usize) -> usize {
        // What heads hold of the suffixes is not stored again; this takes each suffix as at least
        // as long as a head, which errs by a few bytes an entry.
        let suffixes = keys.saturating_sub(count * (prefix + HEAD_BYTES));
        HEADER_BYTES + prefix + self.overhead + suffixes + values
    }

    /// About how long the block is now.
    pub(crate) fn bytes_estimate(&self) -> usize {
        self.bytes_of(
            self.count(),
            self.keys.len(),
            self.values.len(),
            self.prefix_len,
        )
    }

    /// What adding an entry would come to. Holds until something else is done to the block.
    #[inline]
    pub(crate) fn fit(&self, key: &InternalKey<'_>, value_len: usize) -> Fit {
        let prefix_len = self.prefix_with(key.user_key);
        let overhead = overhead(key, value_len);
        let bytes = self.bytes_of(
            self.count() + 1,
            self.keys.len() + key.user_key.len(),
            self.values.len() + value_len,
            prefix_len,
        );
        Fit {
            prefix_len,
            overhead,
            block_bytes: bytes + overhead,
        }
    }

    /// Adds an entry, which sorts after all added before.
    #[inline]
    pub(crate) fn add(&mut self, key: &InternalKey<'_>, value: &[u8]) {
        let fit = self.fit(key, value.len());
        self.add_fitting(key, value, fit);
    }

    /// The same with what [`Builder::fit`] said of it.
    #[inline]
    pub(crate) fn add_fitting(&mut self, key: &InternalKey<'_>, value: &[u8], fit: Fit) {
        self.prefix_len = fit.prefix_len;
        self.overhead += fit.overhead;
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
        let count = self.count();
        let prefix_len = self.prefix_len;
        let start = out.len();
        let most = HEADER_BYTES + prefix_len + self.overhead + self.keys.len() + self.values.len();
        let wide = most > usize::from(u16::MAX);
        let offsets_at = HEADER_BYTES + HEAD_BYTES * count;
        let prefix_at = offsets_at + count * if wide { 4 } else { 2 };
        out.reserve(most + 2 * count);
        out.extend_from_slice(&to_u32(count).to_le_bytes());
        let stored_prefix = u16::try_from(prefix_len).expect("a key is at most 65,535 bytes");
        out.extend_from_slice(&stored_prefix.to_le_bytes());
        out.extend_from_slice(&[u8::from(wide), 0]);
        out.resize(start + prefix_at, 0);
        out.extend_from_slice(&self.keys[..prefix_len]);

        let (mut key_at, mut value_at) = (0, 0);
        for (index, staged) in self.staged.iter().enumerate() {
            let suffix = &self.keys[key_at + prefix_len..staged.key_end as usize];
            let value = &self.values[value_at..staged.value_end as usize];
            key_at = staged.key_end as usize;
            value_at = staged.value_end as usize;

            let offset = out.len() - start;
            let head_at = start + HEADER_BYTES + HEAD_BYTES * index;
            out[head_at..head_at + HEAD_BYTES].copy_from_slice(&head(suffix).to_le_bytes());
            if wide {
                let at = start + offsets_at + 4 * index;
                out[at..at + 4].copy_from_slice(&to_u32(offset).to_le_bytes());
            } else {
                let offset = u16::try_from(offset).expect("the whole block is that short");
                let at = start + offsets_at + 2 * index;
                out[at..at + 2].copy_from_slice(&offset.to_le_bytes());
            }
            let trailer = staged.trailer.to_le_bytes();
            if staged.trailer >> 8 == 0 {
                out.push(trailer[0] | SEQ_ZERO);
            } else {
                out.extend_from_slice(&trailer);
            }
            put_varint(out, suffix.len() as u64);
            put_varint(out, value.len() as u64);
            out.extend_from_slice(suffix.get(HEAD_BYTES..).unwrap_or_default());
            out.extend_from_slice(value);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.staged.clear();
        self.overhead = 0;
        self.prefix_len = 0;
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
