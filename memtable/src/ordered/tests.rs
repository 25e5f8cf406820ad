use super::*;
use crate::random::{Random, key};

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n).expect("small")
}

#[test]
fn targets_stand_where_internal_keys_do() {
    let mut random = Random::new(11);
    let arena = Arena::new(0, RECORD_ALIGN, Ledgers::default());
    for _ in 0..(if cfg!(miri) { 300 } else { 20_000 }) {
        let (a, b) = (key(&mut random), key(&mut random));
        let (a_seq, b_seq) = (seq(random.below(3)), seq(random.below(3)));
        let key = InternalKey::new(&a, a_seq, KeyKind::Put);
        let record = Record::store(&arena, key, b"value");
        assert_eq!(record.key(), key);
        assert_eq!(record.value(), b"value");
        let other = InternalKey::new(&b, b_seq, KeyKind::Put);
        for (target, is_before) in [
            (Target::before(&b, b_seq), key < other),
            (Target::behind(&b, b_seq), key <= other),
        ] {
            let head = record::wide_head(&a);
            let got = head < target.head || head == target.head && target.is_behind_tied(record);
            assert_eq!(got, is_before, "record={key:?} target={other:?}");
        }
    }
}

#[test]
fn a_position_keeps_the_entries_alive() {
    for structure in [MemtableStructure::Tree, MemtableStructure::SkipList] {
        if cfg!(miri) && structure == MemtableStructure::SkipList {
            // A foreign crate's, whose way with pointers Miri does not accept.
            continue;
        }
        let entries = Arc::new(Ordered::new(structure, 0, Ledgers::default()));
        for n in 1..=50u64 {
            let key = n.to_be_bytes();
            entries.insert(InternalKey::new(&key, seq(n), KeyKind::Put), &[7; 90]);
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
}
