//! Reads of every kind, step by step beside what they should show.

use siltstone::{Cursor, Iter};

use crate::reads::Reads;
use crate::support::{Model, Rng};

/// Keys and values in order.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Compares what every way to read one key finds with `model`.
pub(crate) fn check_point_reads(reads: &impl Reads, model: &Model, keys: &[Vec<u8>]) {
    let mut buffer = b"left over".to_vec();
    for key in keys {
        let expected = model.get(key).map(Vec::as_slice);
        let name = key.escape_ascii().to_string();
        let found = reads.get(key).expect("get");
        assert_eq!(found.as_deref(), expected, "{name}");
        let is_there = reads.get_into(key, &mut buffer).expect("get_into");
        assert_eq!(is_there.then_some(&*buffer), expected, "{name}");
        let copied = reads.get_with(key).expect("get_with");
        assert_eq!(copied.as_deref(), expected, "{name}");
        let is_there = reads.contains_key(key).expect("contains_key");
        assert_eq!(is_there, expected.is_some(), "{name}");
    }
    let found = reads.multi_get(keys).expect("multi_get");
    assert_eq!(found.len(), keys.len());
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(found.as_deref(), model.get(key).map(Vec::as_slice));
    }
}

/// The part of `model` whose keys are wanted.
pub(crate) fn select(model: &Model, wanted: impl Fn(&[u8]) -> bool) -> Pairs {
    let chosen = model.iter().filter(|(key, _)| wanted(key));
    chosen
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Takes up to `steps` items from a random end and checks each.
pub(crate) fn advance(rng: &mut Rng, (iterator, expected): &mut (Iter, Pairs), steps: usize) {
    let backward = [0, 50, 100][rng.below(3)];
    for _ in 0..steps {
        let (item, wanted) = if rng.chance(backward) {
            (iterator.next_back(), expected.pop())
        } else {
            let wanted = (!expected.is_empty()).then(|| expected.remove(0));
            (iterator.next(), wanted)
        };
        let item = item.map(|item| item.expect("a step"));
        let item = item.map(|(key, value)| (key.into_vec(), value.into_vec()));
        assert!(
            item == wanted,
            "an iterator shows {item:?} in place of {wanted:?}"
        );
        if item.is_none() {
            assert!(
                iterator.next().is_none() && iterator.next_back().is_none(),
                "fused"
            );
            return;
        }
    }
}

/// Moves a cursor about and compares every place it stands on with `pairs`.
pub(crate) fn walk(rng: &mut Rng, cursor: &mut Cursor, pairs: &Pairs, keys: &[Vec<u8>]) {
    let mut at: Option<usize> = None;
    let mut moved = false;
    for _ in 0..30 {
        let key = rng.pick(keys);
        let (found, place) = match rng.below(12) {
            0 => (cursor.seek_to_first(), (!pairs.is_empty()).then_some(0)),
            1 => (cursor.seek_to_last(), pairs.len().checked_sub(1)),
            2 | 3 => {
                let place = pairs.partition_point(|(k, _)| k < key);
                (cursor.seek(key), (place < pairs.len()).then_some(place))
            }
            4 | 5 => {
                let place = pairs.partition_point(|(k, _)| k <= key);
                (cursor.seek_for_prev(key), place.checked_sub(1))
            }
            6..9 => {
                let next = at.map(|at| at + 1).filter(|at| *at < pairs.len());
                (cursor.next(), if moved { next } else { continue })
            }
            _ => {
                let before = at.and_then(|at| at.checked_sub(1));
                (cursor.prev(), if moved { before } else { continue })
            }
        };
        moved = true;
        at = place;
        assert_eq!(found.expect("a move"), at.is_some());
        assert_eq!(cursor.is_valid(), at.is_some());
        if let Some(at) = at {
            assert_eq!(cursor.key(), pairs[at].0.as_slice());
            assert_eq!(cursor.value(), pairs[at].1.as_slice());
            assert_eq!(&*cursor.value_slice(), pairs[at].1.as_slice());
        }
    }
}
