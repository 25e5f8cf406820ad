use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;

use base::cursor::{Cursor, VecCursor, VecEntry};
use base::{HashSeed, KeyHash};

use super::*;
use crate::random::Random;

const _: fn() = || {
    fn is_shared<T: Send + Sync + 'static>() {}
    fn is_moved<T: Cursor + Send + 'static>() {}
    is_shared::<Memtable>();
    is_moved::<MemtableCursor>();
};

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n).expect("small")
}

fn hash(key: &[u8]) -> KeyHash {
    HashSeed(7).hash(key)
}

fn insert(memtable: &Memtable, key: &[u8], at: u64, kind: KeyKind, value: &[u8]) {
    memtable.insert(InternalKey::new(key, seq(at), kind), hash(key), value);
}

fn filled(filter_bytes: usize) -> Arc<Memtable> {
    Memtable::new(MemtableOptions {
        filter_bytes,
        arena_chunk_bytes: 4 << 10,
        ..MemtableOptions::default()
    })
}

#[test]
fn the_newest_visible_entry_is_found() {
    let memtable = filled(0);
    insert(&memtable, b"k", 3, KeyKind::Put, b"three");
    insert(&memtable, b"k", 5, KeyKind::Delete, b"");
    let get = |key: &[u8], at| memtable.get(key, hash(key), seq(at));
    assert!(get(b"k", 2).is_none());
    assert_eq!(get(b"k", 4).expect("visible").value, b"three");
    assert_eq!(get(b"k", 9).expect("visible").kind, KeyKind::Delete);
    assert_eq!(get(b"k", 9).expect("visible").seq, seq(5));
    assert!(get(b"kk", 9).is_none());
    assert!(get(b"", 9).is_none());
}

#[test]
fn an_empty_memtable_has_nothing() {
    let memtable = filled(0);
    assert_eq!(memtable.entry_count(), 0);
    assert_eq!(memtable.bytes(), 0);
    assert_eq!(memtable.seq_range(), None);
    let mut cursor = memtable.cursor();
    assert!(!cursor.is_valid());
    assert!(!cursor.seek_to_first().expect("in memory"));
    assert!(!cursor.seek_to_last().expect("in memory"));
    assert!(
        !cursor
            .seek(InternalKey::seek_to(b"", seq(9)))
            .expect("in memory")
    );
}

#[test]
fn it_knows_what_it_holds() {
    let memtable = filled(640);
    insert(&memtable, b"bb", 7, KeyKind::Put, &[1; 10]);
    insert(&memtable, b"aa", 4, KeyKind::Delete, b"");
    insert(&memtable, b"cc", 9, KeyKind::Put, b"");
    assert_eq!(memtable.entry_count(), 3);
    assert_eq!(memtable.tombstone_count(), 1);
    assert_eq!(memtable.user_bytes(), 16);
    assert_eq!(memtable.seq_range(), Some((seq(4), seq(9))));
    assert_eq!(memtable.bytes(), 16 + 3 * NODE_BYTES_MEAN + 640);
}

#[test]
#[should_panic(expected = "a sequence number was given twice")]
fn the_same_entry_cannot_come_twice() {
    let memtable = filled(0);
    insert(&memtable, b"k", 3, KeyKind::Put, b"a");
    insert(&memtable, b"k", 3, KeyKind::Put, b"b");
}

#[test]
fn a_pinned_value_outlives_the_memtable() {
    let pins = Arc::new(PinLedger::default());
    let memtable = Memtable::new(MemtableOptions {
        pins: Arc::clone(&pins),
        ..MemtableOptions::default()
    });
    insert(&memtable, b"long", 1, KeyKind::Put, &[5; 1000]);
    insert(&memtable, b"short", 2, KeyKind::Put, b"v");
    let get = |key: &[u8]| memtable.get(key, hash(key), seq(9)).expect("visible");
    let long = memtable.pin(&get(b"long"));
    let short = memtable.pin(&get(b"short"));
    assert_eq!(get(b"long").place, get(b"long").place);
    let mut cursor = memtable.cursor();
    assert!(cursor.seek_to_first().expect("in memory"));
    let walked = cursor.value_slice();
    assert_eq!((pins.count(), pins.bytes()), (2, 2000));
    drop((memtable, cursor));
    assert_eq!(
        (&*long, &*walked, &*short),
        (&[5; 1000][..], &[5; 1000][..], &b"v"[..])
    );
    drop((long, walked, short));
    assert_eq!((pins.count(), pins.bytes()), (0, 0));
}

type Model = BTreeMap<(Vec<u8>, u64), VecEntry>;

/// Random entries in a memtable, and in a map by key and falling sequence.
fn random_run(random: &mut Random) -> (Arc<Memtable>, Model) {
    let memtable = filled(if random.below(2) == 0 { 0 } else { 256 });
    let mut model = BTreeMap::new();
    let count = random.below(300);
    let mut seqs: Vec<u64> = (1..=count).collect();
    for at in (1..seqs.len()).rev() {
        let other = random.index_below(at + 1);
        seqs.swap(at, other);
    }
    for at in seqs {
        let key = random.key();
        let (kind, value) = match random.below(4) {
            0 => (KeyKind::Delete, Vec::new()),
            n => (
                KeyKind::Put,
                vec![b'v'; random.index_below(if n == 1 { 3000 } else { 40 })],
            ),
        };
        insert(&memtable, &key, at, kind, &value);
        model.insert((key.clone(), u64::MAX - at), (key, seq(at), kind, value));
    }
    (memtable, model)
}

#[test]
fn gets_agree_with_a_map() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let (memtable, model) = random_run(&mut random);
        for _ in 0..300 {
            let (key, at) = (random.key(), random.below(320));
            let want = model
                .range((key.clone(), u64::MAX - at)..=(key.clone(), u64::MAX))
                .next()
                .map(|(_, entry)| entry);
            let got = memtable.get(&key, hash(&key), seq(at));
            assert_eq!(got.is_some(), want.is_some(), "seed={seed}");
            if let (Some(got), Some((_, seq, kind, value))) = (got, want) {
                assert_eq!(
                    (got.seq, got.kind, got.value),
                    (*seq, *kind, &**value),
                    "seed={seed}"
                );
            }
        }
        let tombstones = model.values().filter(|entry| entry.2 == KeyKind::Delete);
        assert_eq!(
            memtable.tombstone_count(),
            tombstones.count() as u64,
            "seed={seed}"
        );
    }
}

#[test]
fn a_cursor_moves_as_over_a_sorted_vector() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let (memtable, model) = random_run(&mut random);
        let mut cursor = memtable.cursor();
        let mut oracle = VecCursor::new(model.into_values().collect());
        for _ in 0..300 {
            let key = random.key();
            let target = InternalKey::seek_to(&key, seq(random.below(320)));
            let step = random.below(12);
            let (got, want) = match step {
                0 => (cursor.seek_to_first(), oracle.seek_to_first()),
                1 => (cursor.seek_to_last(), oracle.seek_to_last()),
                2 => (cursor.seek(target), oracle.seek(target)),
                _ if step == 3 || !oracle.is_valid() => {
                    (cursor.seek_for_prev(target), oracle.seek_for_prev(target))
                }
                4..8 => (cursor.next(), oracle.next()),
                _ => (cursor.prev(), oracle.prev()),
            };
            let (got, want) = (got.expect("in memory"), want.expect("in memory"));
            assert_eq!(got, want, "seed={seed}");
            assert_eq!(cursor.is_valid(), want, "seed={seed}");
            if want {
                assert_eq!(cursor.key(), oracle.key(), "seed={seed}");
                assert_eq!(cursor.key().kind, oracle.key().kind, "seed={seed}");
                assert_eq!(cursor.value(), oracle.value(), "seed={seed}");
            }
        }
    }
}

/// A value that says which entry it belongs to, of very different lengths.
fn value_of(key: &[u8], at: u64) -> Vec<u8> {
    let mut random = Random::new(at ^ hash(key).0);
    let len = match random.below(20) {
        0 => random.index_below(3000),
        _ => random.index_below(100),
    };
    std::iter::repeat_with(|| u8::try_from(random.below(256)).expect("a byte"))
        .take(len)
        .collect()
}

const WRITERS: u64 = 3;
const WRITES_EACH: u64 = 3_000;

/// The key and sequence number of the `n`-th write of `writer`: writers share keys.
fn nth_write(writer: u64, n: u64) -> (Vec<u8>, u64) {
    let key = format!("key-{:05}", (n * 2_654_435_761) % 1_000);
    (key.into_bytes(), 1 + n * WRITERS + writer)
}

/// Checks that what is published is found, and that a walk meets nothing torn or out of order.
fn read_along(memtable: &Arc<Memtable>, published: &[AtomicU64], seed: u64) {
    let mut random = Random::new(seed);
    let mut check = || {
        let mut published_total = 0;
        for (writer, count) in published.iter().enumerate() {
            // Acquire: pairs with the Release of the writer.
            let count = count.load(Ordering::Acquire);
            published_total += count;
            for _ in 0..20 {
                if count == 0 {
                    break;
                }
                let (key, at) = nth_write(writer as u64, random.below(count));
                let hit = memtable.get(&key, hash(&key), seq(at)).expect("published");
                assert_eq!(hit.seq, seq(at), "seed={seed}");
                assert_eq!(hit.value, value_of(&key, at), "seed={seed}");
            }
        }
        walk(memtable, published_total, seed);
        if published_total == WRITERS * WRITES_EACH {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    while check().is_continue() {}
}

fn walk(memtable: &Arc<Memtable>, count_min: u64, seed: u64) {
    let mut cursor = memtable.cursor();
    let mut valid = cursor.seek_to_first().expect("in memory");
    let mut count = 0;
    let mut last: Option<(Vec<u8>, u64)> = None;
    while valid {
        let key = cursor.key();
        let at = key.seq.get();
        assert_eq!(cursor.value(), value_of(key.user_key, at), "seed={seed}");
        if let Some((last, last_at)) = &last {
            assert!(
                InternalKey::new(last, seq(*last_at), KeyKind::Put) < key,
                "seed={seed}"
            );
        }
        last = Some((key.user_key.to_vec(), at));
        count += 1;
        valid = cursor.next().expect("in memory");
    }
    assert!(
        count >= count_min,
        "seed={seed} count={count} published={count_min}"
    );
}

#[test]
fn readers_beside_writers_find_every_published_entry_whole() {
    for filter_bytes in [0, 2 << 10] {
        let memtable = filled(filter_bytes);
        let published: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        thread::scope(|scope| {
            for (writer, published) in published.iter().enumerate() {
                let memtable = &memtable;
                scope.spawn(move || {
                    for n in 0..WRITES_EACH {
                        let (key, at) = nth_write(writer as u64, n);
                        insert(memtable, &key, at, KeyKind::Put, &value_of(&key, at));
                        // Release: pairs with the Acquire of the readers.
                        published.store(n + 1, Ordering::Release);
                    }
                });
            }
            for seed in 0..2 {
                let (memtable, published) = (&memtable, &published);
                scope.spawn(move || read_along(memtable, published, seed));
            }
        });
        assert_eq!(memtable.entry_count(), WRITERS * WRITES_EACH);
        assert_eq!(
            memtable.seq_range(),
            Some((seq(1), seq(WRITERS * WRITES_EACH)))
        );
    }
}
