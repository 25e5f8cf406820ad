use std::thread;

use base::{HashSeed, SequenceNumber};

use super::*;
use crate::testing::{MemFs, key_of, put};
use crate::{BlockCache, ReadMode, ReadProbe, TableOptions, TableSummary, TableWriter};

fn write_table(fs: &MemFs, number: u64) -> TableSummary {
    let path = FileKind::Table.path(Path::new("db"), FileNumber(number));
    let mut writer = TableWriter::create(fs, &path, TableOptions::default()).expect("created");
    let entry = put("key", 1, format!("value {number}"));
    writer.add(key_of(&entry), &entry.3).expect("added");
    writer.finish().expect("finished")
}

struct Fixture {
    fs: Arc<MemFs>,
    cache: Arc<TableCache>,
    handles: Vec<Arc<TableHandle>>,
}

fn fixture(count: u64, open_tables_max: usize) -> Fixture {
    let fs = Arc::new(MemFs::default());
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: Some(BlockCache::new(1 << 20)),
        ..ReaderOptions::default()
    };
    let dir = PathBuf::from("db");
    let shared = Arc::clone(&fs) as Arc<dyn FileSystem>;
    let cache = TableCache::new(shared, dir, options, open_tables_max);
    let handles = (1..=count)
        .map(|number| {
            let summary = write_table(&fs, number);
            cache.handle(FileNumber(number), summary.file_id, summary.file_bytes)
        })
        .collect();
    Fixture { fs, cache, handles }
}

fn value(handle: &TableHandle) -> String {
    let reader = handle.guard().expect("opened");
    let hit = reader
        .get(
            b"key",
            HashSeed::default().hash(b"key"),
            SequenceNumber::MAX,
            &mut ReadProbe::default(),
        )
        .expect("read")
        .expect("there");
    String::from_utf8(hit.value().to_vec()).expect("text")
}

#[test]
fn tables_open_on_first_use_and_stay_bounded() {
    let Fixture { cache, handles, .. } = fixture(20, 5);
    assert_eq!(cache.open_count(), 0);
    for round in 0..3 {
        for (at, handle) in handles.iter().enumerate() {
            assert_eq!(value(handle), format!("value {}", at + 1), "round={round}");
            assert!(cache.open_count() <= 5);
        }
    }
    assert_eq!(cache.open_count(), 5);
}

#[test]
fn a_table_in_use_is_spared_once_and_a_reader_outlives_its_closing() {
    let Fixture { cache, handles, .. } = fixture(6, 3);
    let kept = handles[0].reader().expect("opened");
    for handle in &handles[1..] {
        handles[0].reader().expect("open still, or again");
        handle.reader().expect("opened");
    }
    assert!(Arc::ptr_eq(&kept, &handles[0].reader().expect("open")));
    let open_count = cache.open_count();
    handles[0].close();
    handles[0].close();
    assert_eq!(cache.open_count(), open_count - 1);
    kept.verify().expect("sound");
    assert!(!Arc::ptr_eq(
        &kept,
        &handles[0].reader().expect("opened again")
    ));
    assert!(cache.open_count() <= 3);
}

#[test]
fn a_missing_table_is_corruption_and_so_is_a_wrong_one() {
    let Fixture { fs, cache, handles } = fixture(2, 3);
    fs.remove_file(handles[0].path()).expect("removed");
    let error = handles[0].reader().expect_err("missing");
    assert!(error.is_corruption());
    assert!(error.to_string().starts_with("table missing"), "{error}");
    let (id, bytes) = (handles[1].file_id(), handles[1].file_bytes());
    let other = cache.handle(FileNumber(2), id + 1, bytes);
    assert!(other.reader().expect_err("another id").is_corruption());
    let longer = cache.handle(FileNumber(2), id, bytes + 1);
    assert!(longer.reader().expect_err("another length").is_corruption());
}

#[test]
fn when_descriptors_run_out_others_are_closed() {
    let Fixture { fs, cache, handles } = fixture(8, 100);
    for handle in &handles[..6] {
        handle.reader().expect("opened");
    }
    fs.refuse_opens.store(1, Ordering::Relaxed);
    handles[6].reader().expect("opened in the end");
    assert_eq!(cache.open_count(), 4);
    fs.refuse_opens.store(2, Ordering::Relaxed);
    let error = handles[7].reader().expect_err("refused twice");
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn one_that_keeps_all_closes_none() {
    let fs = Arc::new(MemFs::default());
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: Some(BlockCache::new(1 << 10)),
        ..ReaderOptions::default()
    };
    let shared = Arc::clone(&fs) as Arc<dyn FileSystem>;
    let cache = TableCache::new(shared, PathBuf::from("db"), options, usize::MAX);
    let mut handles = Vec::new();
    for number in 1..=40 {
        let summary = write_large_table(&fs, number);
        let handle = cache.handle(FileNumber(number), summary.file_id, summary.file_bytes);
        if number == 40 {
            // Out of descriptors: an error, as nothing can be given back.
            fs.refuse_opens.store(2, Ordering::Relaxed);
            let error = handle.reader().map(drop).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Io);
        } else {
            handle.reader().expect("opened");
        }
        handles.push(handle);
    }
    assert_eq!(
        cache.open_count(),
        39,
        "a cache of a kilobyte, and no descriptors"
    );
}

#[test]
fn dropped_handles_leave_the_clock() {
    let Fixture { fs, cache, .. } = fixture(0, 4);
    for number in 1..200 {
        let summary = write_table(&fs, number);
        let handle = cache.handle(FileNumber(number), summary.file_id, summary.file_bytes);
        handle.reader().expect("opened");
    }
    assert_eq!(cache.open_count(), 0);
    assert!(cache.clock.lock().len() <= 4);
}

#[test]
fn threads_share_what_one_of_them_opens() {
    let Fixture { cache, handles, .. } = fixture(12, 3);
    thread::scope(|scope| {
        for start in 0..4 {
            let handles = &handles;
            scope.spawn(move || {
                for step in 0..400 {
                    let at = (start * 5 + step * 7) % handles.len();
                    assert_eq!(value(&handles[at]), format!("value {}", at + 1));
                }
            });
        }
    });
    assert!(cache.open_count() <= 3 + 4);
}

const ENTRY_COUNT: u64 = 600;

/// A table of several blocks, with a filter.
fn write_large_table(fs: &MemFs, number: u64) -> TableSummary {
    let path = FileKind::Table.path(Path::new("db"), FileNumber(number));
    let mut writer = TableWriter::create(fs, &path, TableOptions::default()).expect("created");
    for n in 0..ENTRY_COUNT {
        let entry = put(format!("key {n:05}"), 1, format!("{number} {n} {:100}", ""));
        writer.add(key_of(&entry), &entry.3).expect("added");
    }
    writer.finish().expect("finished")
}

/// Whatever two threads read, and whatever they keep of it: blocks in and out of the cache, and
/// what open tables keep, stay within the one bound, and tables within theirs.
#[test]
fn two_threads_of_positioned_reads_stay_within_both_bounds() {
    const BYTES_MAX: u64 = 256 << 10;
    const OPEN_MAX: usize = 20;
    let fs = Arc::new(MemFs::default());
    let blocks = BlockCache::new(BYTES_MAX);
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: Some(Arc::clone(&blocks)),
        ..ReaderOptions::default()
    };
    let shared = Arc::clone(&fs) as Arc<dyn FileSystem>;
    let cache = TableCache::new(shared, PathBuf::from("db"), options, OPEN_MAX);
    let handles: Vec<_> = (1..=200)
        .map(|number| {
            let summary = write_large_table(&fs, number);
            cache.handle(FileNumber(number), summary.file_id, summary.file_bytes)
        })
        .collect();
    let kept_bytes = handles[0].reader().expect("opened").heap_bytes() as u64;
    assert!(
        kept_bytes * OPEN_MAX as u64 / 2 < BYTES_MAX,
        "the bound of tables is reached"
    );
    handles[0].close();
    let (cache, blocks, handles) = (&cache, &blocks, &handles);
    thread::scope(|scope| {
        for id in 0..2 {
            scope.spawn(move || {
                let mut kept = VecDeque::new();
                for step in 0..6_000u64 {
                    let mixed = (step * 2 + id).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                    let at = usize::try_from(mixed % 200).expect("small");
                    let n = (mixed >> 8) % ENTRY_COUNT;
                    let reader = handles[at].reader().expect("opened");
                    let key = format!("key {n:05}");
                    let hash = HashSeed::default().hash(key.as_bytes());
                    let probe = &mut ReadProbe::default();
                    let hit = reader.get(key.as_bytes(), hash, SequenceNumber::MAX, probe);
                    let hit = hit.expect("read").expect("there");
                    let value = hit.pin(&reader);
                    assert!(value.starts_with(format!("{} {n} ", at + 1).as_bytes()));
                    kept.push_back(value);
                    if kept.len() > 30 {
                        kept.pop_front();
                    }
                    // What each thread has in hand comes on top, and a step of the capacity.
                    let in_hand = 2 * (kept_bytes + 4500 + 512) + BYTES_MAX / 16;
                    let taken = blocks.living_bytes() + blocks.charged_bytes();
                    assert!(taken <= BYTES_MAX + in_hand, "step={step} taken={taken}");
                    assert!(cache.open_count() <= OPEN_MAX + 2);
                }
            });
        }
    });
    assert!(blocks.hits() > 0 && blocks.misses() > 1_000);
}

#[test]
fn tables_that_keep_too_much_are_closed_but_for_a_few() {
    let fs = Arc::new(MemFs::default());
    let blocks = BlockCache::new(1 << 10);
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: Some(Arc::clone(&blocks)),
        ..ReaderOptions::default()
    };
    let shared = Arc::clone(&fs) as Arc<dyn FileSystem>;
    let cache = TableCache::new(shared, PathBuf::from("db"), options, 100);
    let mut handles = Vec::new();
    for number in 1..=20 {
        let summary = write_large_table(&fs, number);
        let handle = cache.handle(FileNumber(number), summary.file_id, summary.file_bytes);
        handle.reader().expect("opened");
        handles.push(handle);
    }
    assert_eq!(cache.open_count(), OPEN_TABLES_MIN);
    assert!(handles[19].is_open());
    for handle in &handles {
        handle.close();
    }
    assert_eq!(blocks.charged_bytes(), 0);
}
