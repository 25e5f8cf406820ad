//! Ranges of user keys, and when two of them can hold the same key.
//!
//! Never knows a table or a level; `levels`, `policy` and `job` ask it.

use std::fmt;
use std::ops::Bound;

/// Whether every key up to `upper` sorts before every key from `lower`.
pub(crate) fn ends_before(upper: Bound<&[u8]>, lower: Bound<&[u8]>) -> bool {
    match (upper, lower) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(upper), Bound::Included(lower)) => upper < lower,
        (Bound::Excluded(upper), Bound::Included(lower) | Bound::Excluded(lower))
        | (Bound::Included(upper), Bound::Excluded(lower)) => upper <= lower,
    }
}

/// Whether the range from `lower` to `upper` certainly holds no key at all.
pub(crate) fn is_void(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    ends_before(upper, lower)
}

/// How many bytes two keys share at their beginning. Every key between them shares these too.
pub(crate) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An owned bound, borrowed.
pub(crate) fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// A closed range of user keys, or one that leaves its upper end out.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRange {
    /// The lowest key.
    pub from: Vec<u8>,
    /// The upper end.
    pub to: Vec<u8>,
    /// Whether `to` itself lies outside.
    pub to_exclusive: bool,
}

impl UserRange {
    /// The lower end as a bound.
    pub fn lower(&self) -> Bound<&[u8]> {
        Bound::Included(&self.from)
    }

    /// The upper end as a bound.
    pub fn upper(&self) -> Bound<&[u8]> {
        if self.to_exclusive {
            Bound::Excluded(&self.to)
        } else {
            Bound::Included(&self.to)
        }
    }

    /// Whether a key can lie in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.meets(other.lower(), other.upper())
    }

    /// Whether a key can lie in this range and in the one from `from` to `to`.
    pub fn meets(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
        !ends_before(self.upper(), from) && !ends_before(to, self.lower())
    }

    /// Whether every key of `other` lies in this range.
    pub fn covers(&self, other: &Self) -> bool {
        let upper_in = match other.to.cmp(&self.to) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => other.to_exclusive || !self.to_exclusive,
            std::cmp::Ordering::Greater => false,
        };
        self.from <= other.from && upper_in
    }

    /// Grows until `other` lies inside. Returns whether it grew.
    pub fn include(&mut self, other: &Self) -> bool {
        if self.covers(other) {
            return false;
        }
        if other.from < self.from {
            self.from.clone_from(&other.from);
        }
        match other.to.cmp(&self.to) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.to_exclusive &= other.to_exclusive,
            std::cmp::Ordering::Greater => {
                self.to.clone_from(&other.to);
                self.to_exclusive = other.to_exclusive;
            }
        }
        true
    }
}

impl fmt::Debug for UserRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let close = if self.to_exclusive { ')' } else { ']' };
        write!(
            f,
            "[{} .. {}{close}",
            self.from.escape_ascii(),
            self.to.escape_ascii()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: &str, to_exclusive: bool) -> UserRange {
        UserRange {
            from: from.into(),
            to: to.into(),
            to_exclusive,
        }
    }

    /// All ranges over the keys a to d.
    fn all() -> Vec<UserRange> {
        let keys = ["a", "b", "c", "d"];
        let mut ranges = Vec::new();
        for (index, from) in keys.iter().enumerate() {
            for to in &keys[index..] {
                ranges.push(range(from, to, false));
                if to != from {
                    ranges.push(range(from, to, true));
                }
            }
        }
        ranges
    }

    fn holds(range: &UserRange, key: &str) -> bool {
        let key = key.as_bytes();
        key >= &range.from[..]
            && if range.to_exclusive {
                key < &range.to[..]
            } else {
                key <= &range.to[..]
            }
    }

    #[test]
    fn ranges_agree_with_the_keys_they_hold() {
        // Keys between the letters too, so that every gap is seen.
        let keys = ["a", "a5", "b", "b5", "c", "c5", "d"];
        for a in all() {
            for b in all() {
                let common = keys.iter().any(|key| holds(&a, key) && holds(&b, key));
                assert_eq!(a.overlaps(&b), common, "{a:?} {b:?}");
                let inside = keys.iter().all(|key| !holds(&b, key) || holds(&a, key));
                assert_eq!(a.covers(&b), inside, "{a:?} {b:?}");
                let mut hull = a.clone();
                assert_eq!(hull.include(&b), !inside);
                assert!(hull.covers(&a) && hull.covers(&b));
            }
        }
    }

    #[test]
    fn open_ends_overlap_everything_on_their_side() {
        let range = range("b", "c", false);
        assert!(range.meets(Bound::Unbounded, Bound::Unbounded));
        assert!(range.meets(Bound::Unbounded, Bound::Included(b"b")));
        assert!(!range.meets(Bound::Unbounded, Bound::Excluded(b"b")));
        assert!(!range.meets(Bound::Excluded(b"c"), Bound::Unbounded));
        assert!(is_void(Bound::Included(b"b"), Bound::Excluded(b"b")));
    }
}
