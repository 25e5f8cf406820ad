use std::cmp::Ordering;

use super::*;
use crate::random::Random;

fn target(user_key: &[u8], seq: u64) -> Target<'_> {
    Target::new(user_key, SequenceNumber::new(seq).expect("small"), 2)
}

#[test]
fn the_list_orders_as_internal_keys_do() {
    let mut random = Random::new(11);
    for _ in 0..20_000 {
        let (a, b) = (random.key(), random.key());
        let (a_seq, b_seq) = (random.below(3), random.below(3));
        let seq = |n| SequenceNumber::new(n).expect("small");
        let want = InternalKey::new(&a, seq(a_seq), KeyKind::Put).cmp(&InternalKey::new(
            &b,
            seq(b_seq),
            KeyKind::Put,
        ));
        let (a, b) = (target(&a, a_seq), target(&b, b_seq));
        assert_eq!(a.key.cmp(&b.key), want);
        assert_eq!(a.key == b.key, want == Ordering::Equal);
    }
}

#[test]
fn the_mean_node_lies_between_the_smallest_and_a_tall_one() {
    assert!(NODE_BYTES_MEAN > size_of::<EntryKey>() + 2 * size_of::<usize>());
    assert!(NODE_BYTES_MEAN < size_of::<EntryKey>() + 6 * size_of::<usize>());
}

#[test]
fn a_position_keeps_the_entries_alive() {
    let entries = Arc::new(Ordered::new(0, Arc::default()));
    for n in 1..=50u64 {
        let seq = SequenceNumber::new(n).expect("small");
        let key = n.to_be_bytes();
        entries.insert(InternalKey::new(&key, seq, KeyKind::Put), &[7; 90]);
    }
    let mut position = Position::new(Arc::clone(&entries));
    assert!(position.first());
    drop(entries);
    let walked = std::thread::spawn(move || {
        let mut count = 1;
        while position.next() {
            assert_eq!(position.entry().expect("it moved").value(), [7; 90]);
            count += 1;
        }
        assert!(position.entry().is_none());
        count
    });
    assert_eq!(walked.join().expect("it does not panic"), 50);
}
