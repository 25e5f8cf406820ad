//! `Slice`: owned bytes that stay where they lie.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use crate::pins::{PinKind, PinLedger, PinMark};
use crate::sync::Arc;

/// Something that holds bytes a [`Slice`] can point into: a mapped table, a cached block, a
/// memtable.
///
/// The bytes at one place never change and never move while the home lives.
pub trait Home: Send + Sync + 'static {
    /// The bytes at `place`; what a place is, the home decides.
    fn bytes(&self, place: u64, len: usize) -> &[u8];

    /// Where pinned bytes of this home are counted, and as what. Always the same.
    fn ledger(&self) -> (&PinLedger, PinKind);
}

/// Slices of at most this many bytes are held inline and pin nothing.
pub const INLINE_BYTES_MAX: usize = 30;

/// Owned, immutable bytes. Cheap to clone, `Send + Sync`, valid for ever.
///
/// A slice of up to [`INLINE_BYTES_MAX`] bytes is held inline. A larger one from a read keeps its
/// home alive (a table's mapping, a cached block, a memtable) instead of copying; what is pinned so
/// is counted in the database's stats. Use [`Slice::into_vec`] to let go of the home.
///
/// # Examples
/// ```
/// use base::Slice;
/// let slice = Slice::from(&b"bytes"[..]);
/// let copy = slice.clone();
/// assert_eq!(copy, b"bytes");
/// assert_eq!(slice.len(), 5);
/// assert_eq!(slice.into_vec(), b"bytes");
/// ```
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Owned(Arc<[u8]>),
    Pinned(Pinned),
}

struct Pinned {
    home: Arc<dyn Home>,
    place: u64,
    len: u32,
    mark: PinMark,
}

impl Pinned {
    #[inline]
    fn new(home: Arc<dyn Home>, place: u64, len: u32) -> Self {
        let (ledger, kind) = home.ledger();
        let mark = ledger.add(kind, len);
        Self {
            home,
            place,
            len,
            mark,
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.home.bytes(self.place, self.len as usize)
    }
}

impl Clone for Pinned {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.home), self.place, self.len)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let (ledger, kind) = self.home.ledger();
        ledger.remove(kind, self.mark, self.len);
    }
}

impl Slice {
    /// The empty slice.
    pub const EMPTY: Self = Self(Repr::Inline {
        len: 0,
        bytes: [0; INLINE_BYTES_MAX],
    });

    /// A slice with its own copy of `bytes`; inline if they are few.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self(Repr::Owned(Arc::from(bytes))))
    }

    fn inline(bytes: &[u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len()).ok()?;
        let mut inline = [0; INLINE_BYTES_MAX];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Repr::Inline { len, bytes: inline }))
    }

    /// A slice of the `len` bytes at `place` of `home`, which it keeps alive; a short one is copied
    /// instead.
    pub fn pinned(home: &Arc<impl Home>, place: u64, len: usize) -> Self {
        if len <= INLINE_BYTES_MAX
            && let Some(inline) = Self::inline(home.bytes(place, len))
        {
            return inline;
        }
        let Ok(short_len) = u32::try_from(len) else {
            // Longer than any value.
            return Self::copy_from(home.bytes(place, len));
        };
        let home = Arc::<_>::clone(home) as Arc<dyn Home>;
        Self(Repr::Pinned(Pinned::new(home, place, short_len)))
    }

    /// The bytes, copied out; nothing is pinned afterwards.
    pub fn into_vec(self) -> Vec<u8> {
        self.to_vec()
    }

    /// Whether this slice keeps a table, block or memtable in memory.
    pub fn is_pinned(&self) -> bool {
        matches!(self.0, Repr::Pinned(_))
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Owned(bytes) => bytes,
            Repr::Pinned(pinned) => pinned.bytes(),
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self::inline(&bytes).unwrap_or_else(|| Self(Repr::Owned(Arc::from(bytes))))
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Self {
        slice.into_vec()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Vault(Vec<u8>, PinLedger);

    impl Home for Vault {
        fn bytes(&self, place: u64, len: usize) -> &[u8] {
            let start = usize::try_from(place).expect("small");
            &self.0[start..start + len]
        }

        fn ledger(&self) -> (&PinLedger, PinKind) {
            (&self.1, PinKind::Block)
        }
    }

    #[test]
    fn pins_are_counted_and_released() {
        let vault = Arc::new(Vault((0..200).collect(), PinLedger::default()));
        let slice = Slice::pinned(&vault, 10, 100);
        let copy = slice.clone();
        assert_eq!((vault.1.count(), vault.1.bytes()), (2, 200));
        assert_eq!(copy[..3], [10, 11, 12]);
        drop(slice);
        assert_eq!(copy.into_vec().len(), 100);
        assert_eq!((vault.1.count(), vault.1.bytes()), (0, 0));
    }

    #[test]
    fn small_slices_pin_nothing() {
        let vault = Arc::new(Vault(vec![7; 64], PinLedger::default()));
        for len in 0..=64 {
            let slice = Slice::pinned(&vault, 0, len);
            assert_eq!(slice.len(), len);
            assert_eq!(slice.is_pinned(), len > INLINE_BYTES_MAX);
        }
    }
}
