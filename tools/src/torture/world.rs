//! The keys and values of a torture run, all of them made from numbers, so that what must be in the
//! database can be computed by anybody who knows the seed.

use crate::random::{Random, mix};

/// Every so manieth value is empty, long, or longer than a block.
const EMPTY_ONE_IN: u64 = 31;
const LONG_ONE_IN: u64 = 61;
const HUGE_ONE_IN: u64 = 1021;
const ORDINARY_BYTES_MAX: u64 = 200;
const LONG_BYTES_MAX: u64 = 3000;
const HUGE_BYTES_MAX: u64 = 20_000;

/// Which value a key has: 0 for none, otherwise the number of the write that put it there.
pub(crate) type Version = u64;

/// All keys there can be, in order, and the values that belong to them.
#[derive(Debug)]
pub(crate) struct World {
    keys: Vec<Vec<u8>>,
    /// Indexes of the keys, in the order of the keys.
    sorted: Vec<usize>,
}

impl World {
    /// A world of `count` keys: the empty one, short ones, long ones with a common beginning.
    pub(crate) fn new(count: usize) -> Self {
        let keys: Vec<Vec<u8>> = (0..count).map(make_key).collect();
        let mut sorted: Vec<usize> = (0..count).collect();
        sorted.sort_by(|&a, &b| keys[a].cmp(&keys[b]));
        Self { keys, sorted }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key with this index.
    pub(crate) fn key(&self, index: usize) -> &[u8] {
        &self.keys[index]
    }

    /// The index of a key, if it is one of this world.
    pub(crate) fn index_of(&self, key: &[u8]) -> Option<usize> {
        let at = self
            .sorted
            .binary_search_by(|&index| self.keys[index].as_slice().cmp(key))
            .ok()?;
        Some(self.sorted[at])
    }

    /// Indexes in the order of the keys.
    pub(crate) fn sorted(&self) -> &[usize] {
        &self.sorted
    }
}

fn make_key(index: usize) -> Vec<u8> {
    if index == 0 {
        return Vec::new();
    }
    let noise = mix(index as u64);
    let mut key = format!("{:02}/{index}", noise % 13).into_bytes();
    if noise.is_multiple_of(5) {
        // The same first bytes for many keys, longer than any head that is compared first.
        key.splice(0..0, *b"a beginning that many keys share/");
    }
    if noise.is_multiple_of(7) {
        key.extend([0xff; 9]);
    }
    key
}

/// Writes into `value` what version `version` of the key `index` holds.
///
/// # Panics
/// If the version is 0: then there is no value.
pub(crate) fn write_value(index: usize, version: Version, value: &mut Vec<u8>) {
    assert!(version > 0, "an absent key has no value");
    let noise = mix(mix(index as u64) ^ version);
    value.clear();
    if noise.is_multiple_of(EMPTY_ONE_IN) {
        return;
    }
    let bytes_max = if noise.is_multiple_of(HUGE_ONE_IN) {
        HUGE_BYTES_MAX
    } else if noise.is_multiple_of(LONG_ONE_IN) {
        LONG_BYTES_MAX
    } else {
        ORDINARY_BYTES_MAX
    };
    let mut random = Random::new(noise);
    let filler = random.below_usize(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    value.extend((index as u64).to_le_bytes());
    value.extend(version.to_le_bytes());
    // Half of it repeats, so that compression finds something.
    let mut piece = [0; 32];
    random.fill(&mut piece[..16]);
    while value.len() < filler {
        value.extend(&piece[..piece.len().min(filler - value.len())]);
        piece[0] = piece[0].wrapping_add(1);
    }
}

/// What a value says of itself: the index of its key and its version.
pub(crate) fn describe_value(value: &[u8]) -> String {
    let number = |at: usize| {
        let bytes = value.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    match (number(0), number(8)) {
        (Some(index), Some(version)) => {
            format!("{} bytes of key {index} version {version}", value.len())
        }
        _ => format!("{} bytes", value.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_all_different_and_found_again() {
        let world = World::new(2000);
        assert!(
            world
                .sorted()
                .is_sorted_by(|&a, &b| world.key(a) < world.key(b))
        );
        for index in 0..world.len() {
            assert_eq!(world.index_of(world.key(index)), Some(index));
        }
        assert_eq!(world.index_of(b"zz"), None);
        assert!(world.key(0).is_empty());
    }

    #[test]
    fn values_repeat_and_differ() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut empty = 0;
        for version in 1..1000 {
            write_value(3, version, &mut a);
            write_value(3, version, &mut b);
            assert_eq!(a, b);
            write_value(3, version + 1000, &mut b);
            assert!(a.is_empty() || a != b);
            empty += usize::from(a.is_empty());
        }
        assert!((10..100).contains(&empty), "{empty}");
    }
}
