//! Every range of keys that the standard library has a type for.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

mod sealed {
    pub trait Sealed {}
}

/// A range of keys: `a..b`, `a..=b`, `a..`, `..b`, `..=b`, `..`, or a pair of [`Bound`]s, over
/// anything that is bytes.
///
/// A range whose end lies before its start is empty. Sealed: `RangeBounds` itself cannot be used,
/// because `..` would not say of which type of key it is.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// for key in ["a", "b", "c"] {
///     db.put(key, "")?;
/// }
/// assert_eq!(db.range("a".."c")?.count(), 2);
/// assert_eq!(db.range(b"b"..)?.count(), 2);
/// assert_eq!(db.range(vec![b'a']..=vec![b'c'])?.count(), 3);
/// assert_eq!(db.range(..)?.count(), 3);
/// assert_eq!(db.range("c".."a")?.count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KeyRange: sealed::Sealed {
    /// Where it begins.
    fn start(&self) -> Bound<&[u8]>;
    /// Where it ends.
    fn end(&self) -> Bound<&[u8]>;
}

macro_rules! key_range {
    ($type:ty, $self:ident => $start:expr, $end:expr) => {
        impl<K: AsRef<[u8]>> sealed::Sealed for $type {}
        impl<K: AsRef<[u8]>> KeyRange for $type {
            fn start(&$self) -> Bound<&[u8]> {
                $start
            }
            fn end(&$self) -> Bound<&[u8]> {
                $end
            }
        }
    };
}

key_range!(Range<K>, self =>
    Bound::Included(self.start.as_ref()), Bound::Excluded(self.end.as_ref()));
key_range!(RangeInclusive<K>, self =>
    Bound::Included(self.start().as_ref()), Bound::Included(self.end().as_ref()));
key_range!(RangeFrom<K>, self => Bound::Included(self.start.as_ref()), Bound::Unbounded);
key_range!(RangeTo<K>, self => Bound::Unbounded, Bound::Excluded(self.end.as_ref()));
key_range!(RangeToInclusive<K>, self => Bound::Unbounded, Bound::Included(self.end.as_ref()));
key_range!((Bound<K>, Bound<K>), self => as_bytes(&self.0), as_bytes(&self.1));

impl sealed::Sealed for RangeFull {}

impl KeyRange for RangeFull {
    fn start(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }

    fn end(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
}

fn as_bytes<K: AsRef<[u8]>>(bound: &Bound<K>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}

/// The keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.to_vec();
    // The first key beyond: the prefix with its last byte that can be raised, raised.
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_have_it() {
        let end = |prefix: &[u8]| prefix_bounds(prefix).1;
        assert_eq!(end(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(end(b"a\xff\xff"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(end(b"\xff"), Bound::Unbounded);
        assert_eq!(end(b""), Bound::Unbounded);
    }
}
