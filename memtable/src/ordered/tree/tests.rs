use super::*;
use base::{InternalKey, KeyKind};

use crate::ordered::record::RECORD_ALIGN;

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n).expect("small")
}

/// How many records the leaves of a tree hold, from the first to the last.
fn leaf_counts(tree: &Tree) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut leaf = tree.root().map(Tree::first_of);
    while let Some(node) = leaf {
        counts.push(node.count());
        leaf = node.right();
    }
    counts
}

fn filled(keys: impl Iterator<Item = u64>, arena: &Arena) -> Tree {
    let tree = Tree::new(0, Ledgers::default());
    for key in keys {
        let key = key.to_be_bytes();
        let record = Record::store(arena, InternalKey::new(&key, seq(1), KeyKind::Put), b"");
        // SAFETY: the callers keep the arena longer than the tree.
        assert!(unsafe { tree.insert(record) });
    }
    tree
}

#[test]
fn ascending_inserts_leave_full_leaves() {
    let arena = Arena::new(0, RECORD_ALIGN, Ledgers::default());
    let count = SLOT_COUNT as u64 * 100;
    let tree = filled(0..count, &arena);
    assert_eq!(leaf_counts(&tree), [SLOT_COUNT; 100]);
    let last = tree.last_leaf().expect("it is not empty");
    assert!(last.is_last(), "the hint follows");
}

#[test]
fn leaves_are_at_least_half_full_whatever_comes() {
    let arena = Arena::new(0, RECORD_ALIGN, Ledgers::default());
    let count = SLOT_COUNT as u64 * 100;
    for order in [
        |n: u64| u64::MAX - n,
        |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ] {
        let tree = filled((0..count).map(order), &arena);
        let counts = leaf_counts(&tree);
        assert_eq!(counts.iter().sum::<usize>() as u64, count);
        let (_last, others) = counts.split_last().expect("it is not empty");
        assert!(
            others.iter().all(|count| *count >= SLOT_COUNT / 2),
            "{counts:?}"
        );
    }
}

#[test]
fn a_node_is_as_long_as_whole_cache_lines() {
    assert_eq!(node::node_bytes(0) % NODE_ALIGN, 0);
    assert_eq!(node::node_bytes(1) % NODE_ALIGN, 0);
}

/// The parents of a split learn of it late: until then a step to the right finds what moved.
#[test]
fn what_moved_right_is_found_before_the_parents_know() {
    let arena = Arena::new(0, RECORD_ALIGN, Ledgers::default());
    let tree = filled((0..SLOT_COUNT as u64).map(|n| n * 2), &arena);
    let leaf = tree.root().expect("it is not empty");
    let key = 3u64.to_be_bytes();
    let record = Record::store(&arena, InternalKey::new(&key, seq(1), KeyKind::Put), b"");
    let target = Target::behind(&key, seq(1));
    leaf.lock();
    let index = leaf.lower_bound(0, &target);
    let item = Item {
        head: target.head,
        record,
        child: None,
    };
    let above = tree.split_locked(leaf, index, item);
    assert_eq!(tree.root().expect("it is there").level(), 0);
    let mut spot = tree.first();
    let mut seen = Vec::new();
    while let Some(at) = spot {
        // SAFETY: tree and arena are alive.
        let key = unsafe { at.record() }.user_key();
        seen.push(u64::from_be_bytes(key.try_into().expect("eight bytes")));
        // SAFETY: as before.
        spot = unsafe { at.next() };
    }
    let mut want: Vec<u64> = (0..SLOT_COUNT as u64).map(|n| n * 2).chain([3]).collect();
    want.sort_unstable();
    assert_eq!(seen, want);
    for n in &want {
        let key = n.to_be_bytes();
        let found = tree
            .find(&Target::before(&key, seq(9)))
            .expect("it is there");
        assert_eq!(found.user_key(), key);
        let before = tree
            .before(&Target::behind(&key, seq(1)))
            .expect("it is there");
        // SAFETY: tree and arena are alive.
        assert_eq!(unsafe { before.record() }.user_key(), key);
    }
    tree.insert_above(1, above);
    assert_eq!(tree.root().expect("it is there").level(), 1);
}
