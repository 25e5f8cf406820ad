//! Keys, and the one definition of their order.

use std::cmp::Ordering;
use std::fmt;

/// 56-bit position of one write in the total order of the database.
///
/// Real writes start at 1; 0 stands for "older than everything", which compaction writes into the
/// bottommost run when nothing can tell the difference any more.
///
/// # Examples
/// ```
/// use base::SequenceNumber;
/// let seq = SequenceNumber::new(41).expect("below 2^56");
/// assert_eq!(seq.plus(1).get(), 42);
/// assert_eq!(SequenceNumber::new(1 << 56), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// Before the first write.
    pub const ZERO: Self = Self(0);
    /// The largest that fits; also the bound that sees every write.
    pub const MAX: Self = Self((1 << 56) - 1);
    /// The largest that a database may have come to when it is opened, so that whoever opens it has
    /// numbers left. No write has ever had a larger one; a damaged file may say so.
    pub const OPENED_MAX: Self = Self(Self::MAX.0 - (1 << 48));

    /// The number, or `None` if it does not fit in 56 bits.
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `count` later.
    ///
    /// # Panics
    /// Beyond [`SequenceNumber::MAX`]: at a billion writes a second that takes two years.
    pub const fn plus(self, count: u64) -> Self {
        match self.0.checked_add(count) {
            Some(value) if value <= Self::MAX.0 => Self(value),
            _ => panic!("sequence numbers are exhausted"),
        }
    }

    /// The number just before, or zero.
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an entry says about its key. Values are part of every format: append only, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// The key is gone. Called a tombstone in a run.
    Delete = 1,
    /// The key has this value.
    Put = 2,
    // Reserved: 3 RangeDelete, 4 Merge, 5 SingleDelete, 6 ValuePointer, 7 PutWithTtl.
}

impl KeyKind {
    /// How many values of the byte are in use or reserved, counted from 0.
    pub const RESERVED_COUNT: usize = 8;

    /// The kind that a stored byte means, or `None` for one this version does not know.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Delete),
            2 => Some(Self::Put),
            _ => None,
        }
    }

    /// The byte that is stored.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "DEL",
            Self::Put => "PUT",
        })
    }
}

/// A user key with the sequence number and kind of one write to it.
///
/// Sorts by key upwards, then by sequence downwards: the newest write to a key comes first. The
/// kind takes no part, since a sequence number belongs to one write.
#[derive(Clone, Copy)]
pub struct InternalKey<'a> {
    /// What the user wrote.
    pub user_key: &'a [u8],
    /// When.
    pub seq: SequenceNumber,
    /// What was done to it.
    pub kind: KeyKind,
}

impl<'a> InternalKey<'a> {
    /// The three fields together.
    #[inline]
    pub const fn new(user_key: &'a [u8], seq: SequenceNumber, kind: KeyKind) -> Self {
        Self {
            user_key,
            seq,
            kind,
        }
    }

    /// Sorts at or before every entry of `user_key` that a reader at `seq` may see.
    #[inline]
    pub const fn seek_to(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self {
            user_key,
            seq,
            kind: KeyKind::Put,
        }
    }

    /// Sequence and kind as one number: `seq << 8 | kind`.
    #[inline]
    pub const fn trailer(&self) -> u64 {
        self.seq.get() << 8 | self.kind as u64
    }
}

impl Ord for InternalKey<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key
            .cmp(other.user_key)
            .then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for InternalKey<'_> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InternalKey<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for InternalKey<'_> {}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#{},{}",
            self.user_key.escape_ascii(),
            self.seq,
            self.kind
        )
    }
}

/// An [`InternalKey`] that owns its bytes: a bound of a table, kept in the tree.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedKey {
    /// What the user wrote.
    pub user_key: Vec<u8>,
    /// When.
    pub seq: SequenceNumber,
    /// What was done to it.
    pub kind: KeyKind,
}

impl OwnedKey {
    /// The same key, borrowed.
    #[inline]
    pub fn as_internal(&self) -> InternalKey<'_> {
        InternalKey::new(&self.user_key, self.seq, self.kind)
    }
}

impl From<InternalKey<'_>> for OwnedKey {
    fn from(key: InternalKey<'_>) -> Self {
        Self {
            user_key: key.user_key.to_vec(),
            seq: key.seq,
            kind: key.kind,
        }
    }
}

impl fmt::Debug for OwnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_internal().fmt(f)
    }
}

/// The first eight bytes of `key`, padded with zeros, as a number that sorts as the bytes do.
///
/// Two different heads decide the order; equal heads decide nothing.
#[inline]
pub fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        u64::from_be_bytes(*first)
    } else {
        let mut bytes = [0; 8];
        bytes[..key.len()].copy_from_slice(key);
        u64::from_be_bytes(bytes)
    }
}

/// The longest key that can be written, in bytes.
pub const KEY_BYTES_MAX: usize = 65_535;
/// No option can raise the limit for values beyond this, in bytes.
pub const VALUE_BYTES_HARD_MAX: usize = (2 << 30) - 1;
/// The largest batch, encoded, in bytes.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user_key: &str, seq: u64) -> InternalKey<'_> {
        InternalKey::new(user_key.as_bytes(), SequenceNumber(seq), KeyKind::Put)
    }

    #[test]
    fn keys_sort_up_and_sequences_down() {
        let sorted = [
            key("", 9),
            key("a", 9),
            key("a", 2),
            key("a\0", 9),
            key("b", 1),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn heads_never_contradict_the_order() {
        let keys: [&[u8]; 6] = [
            b"",
            b"\0",
            b"abcdefg",
            b"abcdefgh",
            b"abcdefgh\0",
            b"abcdefgi",
        ];
        for a in keys {
            for b in keys {
                match head(a).cmp(&head(b)) {
                    Ordering::Equal => {}
                    decided => assert_eq!(decided, a.cmp(b)),
                }
            }
        }
    }
}
