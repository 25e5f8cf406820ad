use base::HashSeed;

use super::*;

#[test]
fn the_newest_visible_entry_is_found() {
    let memtable = Memtable::new(MemtableOptions::default());
    let hash = HashSeed(7).hash(b"k");
    let seq = |n| SequenceNumber::new(n).expect("small");
    memtable.insert(InternalKey::new(b"k", seq(3), KeyKind::Put), hash, b"three");
    memtable.insert(InternalKey::new(b"k", seq(5), KeyKind::Delete), hash, b"");
    assert!(memtable.get(b"k", hash, seq(2)).is_none());
    assert_eq!(
        memtable.get(b"k", hash, seq(4)).expect("visible").value,
        b"three"
    );
    assert_eq!(
        memtable.get(b"k", hash, seq(9)).expect("visible").kind,
        KeyKind::Delete
    );
    assert!(memtable.get(b"kk", hash, seq(9)).is_none());
}
