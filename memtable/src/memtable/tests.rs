use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use base::cursor::{Cursor, VecCursor, VecEntry};
use base::{HashSeed, KeyHash};

use super::*;
use crate::random::{self, Random};

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

/// The skip list is a foreign crate's, whose way with pointers Miri does not accept.
const OTHER: MemtableStructure = if cfg!(miri) {
    MemtableStructure::Tree
} else {
    MemtableStructure::SkipList
};
const STRUCTURES: [MemtableStructure; 2] = [MemtableStructure::Tree, OTHER];

fn empty(structure: MemtableStructure, filter_bytes: usize) -> Arc<Memtable> {
    Memtable::new(MemtableOptions {
        filter_bytes,
        arena_chunk_bytes: 4 << 10,
        structure,
        ..MemtableOptions::default()
    })
}

fn filled(filter_bytes: usize) -> Arc<Memtable> {
    empty(MemtableStructure::default(), filter_bytes)
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
    let header_bytes = 16;
    let entry_bytes = (header_bytes + 12usize).next_multiple_of(8) + 2 * (header_bytes + 8);
    let leaf_bytes = memtable.bytes() - entry_bytes - 640;
    assert!(
        (128..=1024).contains(&leaf_bytes),
        "leaf_bytes={leaf_bytes}"
    );
}

#[test]
fn the_same_entry_cannot_come_twice() {
    for structure in STRUCTURES {
        for kind in [KeyKind::Put, KeyKind::Delete] {
            let memtable = empty(structure, 0);
            for at in 1..100 {
                insert(&memtable, b"k", at, KeyKind::Put, b"a");
            }
            let again = || insert(&memtable, b"k", 3, kind, b"b");
            let panic = catch_unwind(AssertUnwindSafe(again)).expect_err("it was there");
            let message = panic.downcast::<String>().expect("a message");
            assert!(message.starts_with("a sequence number was given twice"));
        }
    }
}

#[test]
fn a_pinned_value_outlives_the_memtable() {
    let pins = Arc::new(PinLedger::default());
    let memtable = Memtable::new(MemtableOptions {
        pins: Arc::clone(&pins),
        ..MemtableOptions::default()
    });
    insert(&memtable, b"long", 1, KeyKind::Put, &[5; 2000]);
    insert(&memtable, b"short", 2, KeyKind::Put, b"v");
    let get = |key: &[u8]| memtable.get(key, hash(key), seq(9)).expect("visible");
    let long = memtable.pin(&get(b"long"));
    let short = memtable.pin(&get(b"short"));
    assert_eq!(get(b"long").place, get(b"long").place);
    let mut cursor = memtable.cursor();
    assert!(cursor.seek_to_first().expect("in memory"));
    let walked = cursor.value_slice();
    assert_eq!((pins.count(), pins.bytes()), (2, 4000));
    drop((memtable, cursor));
    assert_eq!(
        (&*long, &*walked, &*short),
        (&[5; 2000][..], &[5; 2000][..], &b"v"[..])
    );
    drop((long, walked, short));
    assert_eq!((pins.count(), pins.bytes()), (0, 0));
}

/// Fewer where every step is interpreted.
const SEED_COUNT: u64 = if cfg!(miri) { 6 } else { 150 };
const STEP_COUNT: u64 = if cfg!(miri) { 60 } else { 300 };

type Model = BTreeMap<(Vec<u8>, u64), VecEntry>;

/// Random entries in a memtable, and in a map by key and falling sequence.
fn random_run(random: &mut Random) -> (Arc<Memtable>, Model) {
    let structure = STRUCTURES[random.index(2)];
    let memtable = empty(structure, if random.below(2) == 0 { 0 } else { 256 });
    let mut model = BTreeMap::new();
    let count = random.below(300);
    let mut seqs: Vec<u64> = (1..=count).collect();
    for at in (1..seqs.len()).rev() {
        let other = random.index(at + 1);
        seqs.swap(at, other);
    }
    for at in seqs {
        let key = random::key(random);
        let (kind, value) = match random.below(4) {
            0 => (KeyKind::Delete, Vec::new()),
            n => (
                KeyKind::Put,
                vec![b'v'; random.index(if n == 1 { 3000 } else { 40 })],
            ),
        };
        insert(&memtable, &key, at, kind, &value);
        model.insert((key.clone(), u64::MAX - at), (key, seq(at), kind, value));
    }
    (memtable, model)
}

#[test]
fn gets_agree_with_a_map() {
    for seed in 0..SEED_COUNT {
        let mut random = Random::new(seed);
        let (memtable, model) = random_run(&mut random);
        for _ in 0..STEP_COUNT {
            let (key, at) = (random::key(&mut random), random.below(320));
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
    for seed in 0..SEED_COUNT {
        let mut random = Random::new(seed);
        let (memtable, model) = random_run(&mut random);
        let mut cursor = memtable.cursor();
        let mut oracle = VecCursor::new(model.into_values().collect());
        for _ in 0..STEP_COUNT {
            let key = random::key(&mut random);
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
        0 => random.index(3000),
        _ => random.index(100),
    };
    std::iter::repeat_with(|| u8::try_from(random.below(256)).expect("a byte"))
        .take(len)
        .collect()
}

const WRITERS: u64 = 3;
const WRITES_EACH: u64 = if cfg!(miri) { 60 } else { 3_000 };

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
    for (structure, filter_bytes) in [
        (MemtableStructure::Tree, 0),
        (MemtableStructure::Tree, 2 << 10),
        (OTHER, 0),
    ] {
        let memtable = empty(structure, filter_bytes);
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

/// Keys as writers make them: all over the place, rising, falling, with a long common part, and a
/// few keys over and over.
fn shaped_key(shape: u64, n: u64) -> Vec<u8> {
    match shape {
        0 => n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec(),
        1 => format!("{n:016}").into_bytes(),
        2 => format!("{:016}", 1_000_000 - n).into_bytes(),
        3 => format!("a-common-part-of-keys/{:05}", n * 7_919 % 10_007).into_bytes(),
        _ => format!("{:03}", n * 31 % 17).into_bytes(),
    }
}

#[test]
fn the_tree_and_the_skip_list_agree() {
    let entry_count: u64 = if cfg!(miri) { 150 } else { 20_000 };
    for shape in 0..5 {
        let [tree, list] = STRUCTURES.map(|structure| empty(structure, 0));
        for n in 1..=entry_count {
            let key = shaped_key(shape, n);
            let value = vec![b'v'; usize::try_from(n % 50).expect("small")];
            insert(&tree, &key, n, KeyKind::Put, &value);
            insert(&list, &key, n, KeyKind::Put, &value);
        }
        assert_eq!(tree.entry_count(), list.entry_count());
        assert_eq!(tree.user_bytes(), list.user_bytes());
        let (mut cursor, mut oracle) = (tree.cursor(), list.cursor());
        let mut valid = cursor.seek_to_first().expect("in memory");
        assert!(oracle.seek_to_first().expect("in memory"));
        while valid {
            assert_eq!(cursor.key(), oracle.key(), "shape={shape}");
            assert_eq!(cursor.value(), oracle.value(), "shape={shape}");
            valid = cursor.next().expect("in memory");
            assert_eq!(valid, oracle.next().expect("in memory"), "shape={shape}");
        }
        let mut random = Random::new(shape);
        for _ in 0..entry_count {
            let n = random.below(entry_count + 10);
            let (key, at) = (shaped_key(shape, n), seq(random.below(entry_count + 10)));
            let (got, want) = (
                tree.get(&key, hash(&key), at),
                list.get(&key, hash(&key), at),
            );
            let (got, want) = (got.map(|hit| hit.seq), want.map(|hit| hit.seq));
            assert_eq!(got, want, "shape={shape} n={n}");
            let target = InternalKey::seek_to(&key, at);
            let (got, want) = (cursor.seek_for_prev(target), oracle.seek_for_prev(target));
            assert_eq!(got.expect("in memory"), want.expect("in memory"));
            for _ in 0..3 {
                assert_eq!(cursor.is_valid(), oracle.is_valid(), "shape={shape} n={n}");
                if cursor.is_valid() {
                    assert_eq!(cursor.key(), oracle.key(), "shape={shape} n={n}");
                    let (got, want) = (cursor.prev(), oracle.prev());
                    assert_eq!(got.expect("in memory"), want.expect("in memory"));
                }
            }
        }
    }
}

/// Several threads insert keys of one shape; a walker goes back and forth meanwhile.
#[test]
fn threads_that_insert_at_once_lose_nothing() {
    let each: u64 = if cfg!(miri) { 60 } else { 8_000 };
    for seed in 0..(if cfg!(miri) { 1 } else { 4 }) {
        for shape in 0..5 {
            let memtable = filled(0);
            thread::scope(|scope| {
                for writer in 0..3 {
                    let memtable = &memtable;
                    scope.spawn(move || {
                        for n in 0..each {
                            let at = 1 + n * 3 + writer;
                            let key = shaped_key(shape, at ^ seed);
                            insert(memtable, &key, at, KeyKind::Put, &value_of(&key, at));
                        }
                    });
                }
                let memtable = &memtable;
                scope.spawn(move || walk_back_and_forth(memtable, each, seed));
            });
            assert_eq!(memtable.entry_count(), 3 * each);
            walk(&memtable, 3 * each, seed);
            for at in 1..=3 * each {
                let key = shaped_key(shape, at ^ seed);
                let hit = memtable.get(&key, hash(&key), seq(at));
                let hit = hit.expect("it was inserted");
                assert_eq!(hit.seq, seq(at), "seed={seed} shape={shape}");
                assert_eq!(hit.value, value_of(&key, at), "seed={seed} shape={shape}");
            }
        }
    }
}

/// Each step lands on the right side of the one before, and on a whole entry.
fn walk_back_and_forth(memtable: &Arc<Memtable>, step_count: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut cursor = memtable.cursor();
    let mut last: Option<(Vec<u8>, u64)> = None;
    for _ in 0..step_count {
        let is_forward = random.below(2) == 0;
        let Some((key, at)) = last.take().filter(|_| cursor.is_valid()) else {
            if cursor.seek_to_last().expect("in memory") {
                last = Some((cursor.key().user_key.to_vec(), cursor.key().seq.get()));
            }
            continue;
        };
        let before = InternalKey::new(&key, seq(at), KeyKind::Put);
        let moved = if is_forward {
            cursor.next()
        } else {
            cursor.prev()
        };
        if moved.expect("in memory") {
            let now = cursor.key();
            assert_eq!(now > before, is_forward, "seed={seed}");
            assert_eq!(
                cursor.value(),
                value_of(now.user_key, now.seq.get()),
                "seed={seed}"
            );
            last = Some((now.user_key.to_vec(), now.seq.get()));
        }
    }
}

#[test]
fn a_cursor_meets_what_is_inserted_ahead() {
    for structure in STRUCTURES {
        let memtable = empty(structure, 0);
        insert(&memtable, &0u64.to_be_bytes(), 1, KeyKind::Put, b"");
        let mut cursor = memtable.cursor();
        assert!(cursor.seek_to_first().expect("in memory"));
        // So many that the leaf under the cursor is split again and again.
        for n in (1..1_000u64).rev() {
            insert(&memtable, &n.to_be_bytes(), 1 + n, KeyKind::Put, b"");
        }
        for n in 1..1_000u64 {
            assert!(cursor.next().expect("in memory"), "n={n}");
            assert_eq!(cursor.key().user_key, n.to_be_bytes());
        }
        assert!(!cursor.next().expect("in memory"));
        assert!(cursor.seek_to_last().expect("in memory"));
        insert(&memtable, &2_000u64.to_be_bytes(), 5_000, KeyKind::Put, b"");
        assert!(cursor.next().expect("in memory"));
        assert_eq!(cursor.key().user_key, 2_000u64.to_be_bytes());
    }
}

#[test]
fn commit_times_are_bounds_of_what_was_noted() {
    let memtable = Memtable::new(MemtableOptions::default());
    assert_eq!(memtable.commit_times(), None);
    memtable.note_commit_time(7);
    assert_eq!(memtable.commit_times(), Some((7, 7)));
    for micros in [9, 5, 6] {
        memtable.note_commit_time(micros);
    }
    assert_eq!(memtable.commit_times(), Some((5, 9)));
}
