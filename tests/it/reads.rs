//! One trait over everything that can be read from, so that a test can ask `Db`, `Keyspace` and
//! `Snapshot` the same questions.

use std::ops::Bound;

use base::fs::fault::OpKind;
use siltstone::{
    Compression, Cursor, Db, Iter, Keyspace, Options, PinKind, ReadMode, Result, Slice, Snapshot,
};

use crate::support::{DIR, Model, World};

/// A range in each form that the standard library has.
#[derive(Clone, Debug)]
pub(crate) enum RangeForm {
    Full,
    From(Vec<u8>),
    To(Vec<u8>),
    ToInclusive(Vec<u8>),
    Half(Vec<u8>, Vec<u8>),
    Inclusive(Vec<u8>, Vec<u8>),
    Bounds(Bound<Vec<u8>>, Bound<Vec<u8>>),
}

impl RangeForm {
    /// Whether `key` lies in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Full => true,
            Self::From(from) => key >= from.as_slice(),
            Self::To(to) => key < to.as_slice(),
            Self::ToInclusive(to) => key <= to.as_slice(),
            Self::Half(from, to) => key >= from.as_slice() && key < to.as_slice(),
            Self::Inclusive(from, to) => key >= from.as_slice() && key <= to.as_slice(),
            Self::Bounds(from, to) => {
                let after = match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => key >= from.as_slice(),
                    Bound::Excluded(from) => key > from.as_slice(),
                };
                let before = match to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => key <= to.as_slice(),
                    Bound::Excluded(to) => key < to.as_slice(),
                };
                after && before
            }
        }
    }

    /// Compacts it.
    pub(crate) fn compact(&self, db: &Db) -> Result<()> {
        match self.clone() {
            Self::Full => db.compact_range(..),
            Self::From(from) => db.compact_range(from..),
            Self::To(to) => db.compact_range(..to),
            Self::ToInclusive(to) => db.compact_range(..=to),
            Self::Half(from, to) => db.compact_range(from..to),
            Self::Inclusive(from, to) => db.compact_range(from..=to),
            Self::Bounds(from, to) => db.compact_range((from, to)),
        }
    }
}

/// The read methods that `Db`, `Keyspace` and `Snapshot` share.
pub(crate) trait Reads {
    fn get(&self, key: &[u8]) -> Result<Option<Slice>>;
    fn get_into(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool>;
    fn get_with(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn contains_key(&self, key: &[u8]) -> Result<bool>;
    fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Slice>>>;
    fn all(&self) -> Result<Iter>;
    fn range(&self, range: &RangeForm) -> Result<Iter>;
    fn prefix(&self, prefix: &[u8]) -> Result<Iter>;
    fn cursor(&self) -> Result<Cursor>;
}

macro_rules! reads {
    ($type:ty) => {
        impl Reads for $type {
            fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
                <$type>::get(self, key)
            }

            fn get_into(&self, key: &[u8], buffer: &mut Vec<u8>) -> Result<bool> {
                <$type>::get_into(self, key, buffer)
            }

            fn get_with(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
                <$type>::get_with(self, key, <[u8]>::to_vec)
            }

            fn contains_key(&self, key: &[u8]) -> Result<bool> {
                <$type>::contains_key(self, key)
            }

            fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Slice>>> {
                <$type>::multi_get(self, keys)
            }

            fn all(&self) -> Result<Iter> {
                <$type>::iter(self)
            }

            fn range(&self, range: &RangeForm) -> Result<Iter> {
                match range.clone() {
                    RangeForm::Full => <$type>::range(self, ..),
                    RangeForm::From(from) => <$type>::range(self, from..),
                    RangeForm::To(to) => <$type>::range(self, ..to),
                    RangeForm::ToInclusive(to) => <$type>::range(self, ..=to),
                    RangeForm::Half(from, to) => <$type>::range(self, from..to),
                    RangeForm::Inclusive(from, to) => <$type>::range(self, from..=to),
                    RangeForm::Bounds(from, to) => <$type>::range(self, (from, to)),
                }
            }

            fn prefix(&self, prefix: &[u8]) -> Result<Iter> {
                <$type>::prefix(self, prefix)
            }

            fn cursor(&self) -> Result<Cursor> {
                <$type>::cursor(self)
            }
        }
    };
}

reads!(Db);
reads!(Keyspace);
reads!(Snapshot);

/// Tables that have outgrown the memory there is are read by positioned reads, those in use
/// included, and mapped again when there is much more.
#[test]
fn tables_are_mapped_for_as_long_as_they_fit_in_memory() {
    let world = World::new(7);
    let options = || {
        world
            .options()
            .read_mode(ReadMode::Auto)
            .cache_bytes(1 << 20)
            // None is closed for their number, however many the order of jobs leaves.
            .open_tables_max(1000)
    };
    let db = options().open(DIR).expect("it opens");
    let mut model = Model::new();
    for n in 0..600u32 {
        let (key, value) = (n.to_be_bytes().to_vec(), vec![7; 100]);
        db.put(&key, &value).expect("written");
        model.insert(key, value);
    }
    db.flush().expect("flushed");
    let table_bytes = db.stats().table_bytes();
    let maps = || world.fs.calls(OpKind::Map);
    let look = |memory_bytes| {
        world.fs.set_cache_memory_bytes(memory_bytes);
        world.clock.advance(5_000_000);
        for _ in 0..3 {
            world.executor.step_named("siltstone-helper");
        }
        for (key, value) in &model {
            let found = db.get(key).expect("read").expect("it is there");
            assert_eq!(*found, value[..]);
        }
        db.stats().read_mode
    };
    assert_eq!(
        look(None),
        ReadMode::Mapped,
        "nobody says how much there is"
    );
    let mut kept = db.iter().expect("open");
    assert!(kept.next().is_some(), "it has opened a table");
    let map_count = maps();
    assert!(map_count > 0);
    assert_eq!(look(Some(table_bytes * 2)), ReadMode::Mapped);
    assert_eq!(maps(), map_count, "and stays open");
    let misses = db.stats().cache_misses;
    assert_eq!(look(Some(table_bytes)), ReadMode::Positioned);
    assert!(db.stats().cache_misses > misses, "through the cache");
    assert_eq!(
        look(Some(table_bytes * 3 / 2)),
        ReadMode::Positioned,
        "not to and fro"
    );
    assert_eq!(maps(), map_count);
    assert_eq!(look(Some(table_bytes * 3)), ReadMode::Mapped);
    assert!(maps() > map_count, "opened anew");
    assert_eq!(kept.count(), model.len() - 1, "what was open goes on");
    drop(db);
    world.fs.set_cache_memory_bytes(Some(table_bytes / 2));
    let db = options().open_read_only(DIR).expect("it opens");
    assert_eq!(
        db.stats().read_mode,
        ReadMode::Positioned,
        "looked at when it is opened"
    );
    world.fs.set_cache_memory_bytes(None);
}

/// A group of keys keeps so many tables open and no more; what lies in others is found as well.
#[test]
fn keys_of_more_tables_than_a_group_opens_are_found() {
    const KEYS: u32 = 1500;
    let world = World::new(11);
    let options = world
        .options()
        .open_tables_max(16)
        .table_bytes_target(4 << 10)
        .compression(Compression::None)
        .bottom_compression(Compression::None);
    let db = options.open(DIR).expect("it opens");
    let key = |n: u32| format!("key{:05}", n * 2);
    let mut model = Model::new();
    for round in 0..3u8 {
        for n in (0..KEYS).filter(|n| n % 3 >= u32::from(round)) {
            let value = vec![round; 60];
            db.put(key(n), &value).expect("written");
            model.insert(key(n).into_bytes(), value);
        }
        if round == 0 {
            db.compact_range(..).expect("compacted");
        }
    }
    db.flush().expect("flushed");
    let counts: Vec<_> = db.stats().levels.iter().map(|l| l.table_count).collect();
    let for_32_keys: u64 = counts.iter().map(|count| 32.min(*count)).sum();
    assert!(for_32_keys > 80, "{counts:?}");
    // Far from each other, present and absent by turns, in both directions.
    let mut keys: Vec<_> = (0..KEYS * 2)
        .map(|n| format!("key{:05}", n * 1109 % (KEYS * 2)).into_bytes())
        .collect();
    for _ in 0..2 {
        for (key, found) in keys.iter().zip(db.multi_get(&keys).expect("read")) {
            assert_eq!(found.as_deref(), model.get(key).map(|value| &value[..]));
        }
        keys.reverse();
    }
}

/// A slice of each memtable would keep them all: from about a quarter of the bound on, slices are
/// copies, and flushed memtables are given back.
#[test]
fn slices_keep_no_more_than_a_part_of_the_memory_for_memtables() {
    const TOTAL: usize = 1 << 20;
    let world = World::new(3);
    let options = world.options().memtable_bytes_total(TOTAL);
    let db = options.open(DIR).expect("it opens");
    let mut kept = Vec::new();
    for n in 0..150u32 {
        let value = vec![n.to_le_bytes()[0]; 3000];
        db.put(n.to_be_bytes(), &value).expect("written");
        kept.push(db.get(n.to_be_bytes()).expect("read").expect("it is there"));
        assert_eq!(kept.last().map(|slice| slice.to_vec()), Some(value));
        db.flush().expect("flushed");
        while world.executor.step() {}
        let stats = db.stats();
        assert!(stats.memtable_pinned_bytes <= TOTAL as u64 / 4, "after {n}");
        assert!(stats.memtable_taken_bytes <= TOTAL as u64 / 2, "after {n}");
    }
    let pinned_count = kept.iter().filter(|slice| slice.is_pinned()).count();
    assert!((20..100).contains(&pinned_count), "{pinned_count}");
    drop(kept);
    assert_eq!(db.stats().memtable_pinned_bytes, 0);
}

/// What a read unpacked stays in the block cache, by default too.
#[test]
fn a_compressed_block_is_unpacked_once() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    // Tables stay where they are, however long this takes.
    let options = Options::new().idle_compaction_after(None);
    let db = options.open(dir.path()).expect("it opens");
    for n in 0..1000u32 {
        db.put(n.to_be_bytes(), [b'v'; 100]).expect("written");
    }
    db.flush().expect("flushed");
    db.compact_range(..).expect("compacted");
    for _ in 0..5 {
        assert!(db.get(7u32.to_be_bytes()).expect("read").is_some());
    }
    let stats = db.stats();
    assert_eq!((stats.loaded_blocks, stats.cache_misses), (1, 1));
    assert_eq!(stats.cache_hits, 4);
}

/// Whatever keeps memtables, tables or old versions alive is told by kind, with its bytes and age.
#[test]
fn stats_list_what_is_pinned() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let options = Options::new().bottom_compression(Compression::None);
    let options = options.idle_compaction_after(None);
    let db = options.open(dir.path()).expect("it opens");
    let told = |kind| {
        let pins = db.stats().pins;
        let of_kind = pins.into_iter().find(|pins| pins.kind == kind);
        let of_kind = of_kind.expect("every kind is listed");
        assert_eq!(of_kind.oldest_micros.is_some(), of_kind.count > 0);
        (of_kind.count, of_kind.bytes)
    };
    db.put("long", [1; 1024]).expect("written");
    db.put("short", [2; 1023]).expect("written");
    let long = db.get("long").expect("read").expect("it is there");
    let short = db.get("short").expect("read").expect("it is there");
    assert!(long.is_pinned() && !short.is_pinned());
    assert_eq!(told(PinKind::Memtable), (1, 1024));
    db.flush().expect("flushed");
    let tabled = db.get("short").expect("read").expect("it is there");
    assert_eq!(told(PinKind::Table), (1, 1023));
    let snapshot = db.snapshot().expect("open");
    let (another, cursor) = (snapshot.clone(), snapshot.cursor().expect("open"));
    let both = snapshot.iter().expect("open");
    assert_eq!(told(PinKind::Snapshot), (2, 0));
    assert_eq!(told(PinKind::Cursor), (2, 0));
    let stats = db.stats();
    assert_eq!((stats.pinned_slice_count, stats.pinned_bytes), (2, 2047));
    drop((long, short, tabled, snapshot, another, cursor, both));
    assert!(
        db.stats()
            .pins
            .iter()
            .all(|pins| pins.count == 0 && pins.bytes == 0)
    );
}
