use super::*;
use crate::TableOptions;
use crate::testing::{delete, open, put, seq, sorted, table};

#[test]
fn a_small_table_answers() {
    let entries = sorted(vec![
        put("a", 1, "one"),
        delete("b", 2),
        put("b", 1, "old"),
        put("c", 3, ""),
    ]);
    let (bytes, summary) = table(&entries, &TableOptions::default());
    let reader = open(&bytes, &ReaderOptions::default()).expect("opened");
    let mut probe = ReadProbe::default();
    let seed = reader.hash_seed();
    let hit = reader
        .get(b"b", seed.hash(b"b"), seq(1), &mut probe)
        .expect("read")
        .expect("there");
    assert_eq!((hit.kind, hit.value()), (KeyKind::Put, &b"old"[..]));
    assert_eq!(reader.properties().expect("read"), summary.properties);
    reader.verify().expect("sound");
}
