//! What compression costs and saves: tables of real or made-up values at several levels of zstd and
//! sizes of block, with dictionaries and without. Prints one table; it decides the defaults.
//!
//! `cargo bench --bench compression -- [FILE]`: FILE holds one JSON object a line, with the strings
//! `key` and `value`, compressed with zstd. `--test` runs a little of it. Medians of five runs.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;

use base::clock::{Clock, SystemClock};
use base::cursor::Cursor;
use base::fs::{FileSystem, OsFs};
use base::random::Random;
use base::sync::Arc;
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use sstable::{
    BlockCache, Compression, ReadProbe, ReaderOptions, ScanMode, TableOptions, TableReader,
    TableWriter,
};

/// Entries of one kind of data, in key order.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// 16-byte keys and 100-byte values of which half compresses away: printable noise, each piece of
/// 50 twice.
fn made_up(count: usize) -> Entries {
    let mut random = Random(1);
    (0..count)
        .map(|n| {
            let half: Vec<u8> = (0..50)
                .map(|_| b' ' + u8::try_from(random.index(95)).expect("below 95"))
                .collect();
            let value = [&half[..], &half[..]].concat();
            (format!("{n:016}").into_bytes(), value)
        })
        .collect()
}

/// The records of a file, sorted.
fn records(path: &str) -> Entries {
    let file = OsFs.open(Path::new(path)).expect("the file is there");
    let len = usize::try_from(file.len().expect("a file")).expect("below a usize");
    let mut packed = vec![0; len];
    file.read_exact_at(0, &mut packed).expect("read");
    let text = zstd::stream::decode_all(&packed[..]).expect("a file compressed with zstd");
    let text = String::from_utf8(text).expect("text");
    let field = |line: &str, name: &str| {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object");
        object[name].as_str().expect("a string").as_bytes().to_vec()
    };
    let sorted: BTreeMap<_, _> = text
        .lines()
        .map(|line| (field(line, "key"), field(line, "value")))
        .collect();
    sorted.into_iter().collect()
}

/// One row of the table: how tables are written.
#[derive(Clone, Copy)]
struct Way {
    level: Option<i32>,
    block_bytes_target: usize,
    dictionary_bytes_max: usize,
}

/// What it came to.
#[derive(Clone, Copy)]
struct Figures {
    file_bytes: u64,
    write_ns: u64,
    scan_ns: u64,
    cached_ns: u64,
    uncached_ns: u64,
}

fn write(path: &Path, way: Way, entries: &Entries) -> u64 {
    let options = TableOptions {
        compression: way
            .level
            .map_or(Compression::None, |level| Compression::Zstd { level }),
        block_bytes_target: way.block_bytes_target,
        dictionary_bytes_max: way.dictionary_bytes_max,
        ..TableOptions::default()
    };
    let mut writer = TableWriter::create(&OsFs, path, options).expect("created");
    for ((key, value), n) in entries.iter().zip(1..) {
        let seq = SequenceNumber::new(n).expect("small");
        writer
            .add(InternalKey::new(key, seq, KeyKind::Put), value)
            .expect("added");
    }
    writer.finish().expect("finished").file_bytes
}

fn open(path: &Path, cache: Option<Arc<BlockCache>>) -> Arc<TableReader> {
    let options = ReaderOptions {
        cache,
        ..ReaderOptions::default()
    };
    let file = OsFs.open(path).expect("there");
    TableReader::open(file, &options, None, 1).expect("sound")
}

fn scan(reader: &Arc<TableReader>) {
    let mut cursor = reader.cursor(ScanMode::Bulk);
    let mut live = cursor.seek_to_first().expect("sound");
    while live {
        black_box(cursor.value().len());
        live = cursor.next().expect("sound");
    }
}

fn get(reader: &TableReader, entries: &Entries, count: usize) {
    let (mut random, mut probe) = (Random(2), ReadProbe::default());
    for _ in 0..count {
        let (key, value) = &entries[random.index(entries.len())];
        let hash = HashSeed::default().hash(key);
        let hit = reader.get(key, hash, SequenceNumber::MAX, &mut probe);
        let hit = hit.expect("sound").expect("there");
        assert_eq!(black_box(hit.value()).len(), value.len());
    }
}

/// Nanoseconds of `work` for each of `count`.
fn time(count: usize, work: impl FnOnce()) -> u64 {
    let clock = SystemClock::new();
    work();
    clock.monotonic_nanos() / count.max(1) as u64
}

fn measure(dir: &Path, way: Way, entries: &Entries, get_count: usize) -> Figures {
    let path = dir.join("table");
    let mut file_bytes = 0;
    let write_ns = time(entries.len(), || file_bytes = write(&path, way, entries));
    let cached = open(&path, Some(BlockCache::new(1 << 30)));
    let uncached = open(&path, None);
    scan(&uncached);
    let scan_ns = time(entries.len(), || scan(&uncached));
    let mut cursor = cached.cursor(ScanMode::Ordinary);
    let mut live = cursor.seek_to_first().expect("sound");
    while live {
        live = cursor.next().expect("sound");
    }
    let figures = Figures {
        file_bytes,
        write_ns,
        scan_ns,
        cached_ns: time(get_count, || get(&cached, entries, get_count)),
        uncached_ns: time(get_count, || get(&uncached, entries, get_count)),
    };
    OsFs.remove_file(&path).expect("removed");
    figures
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Every way is measured once a round, so that all of them share the machine's moods.
fn compare(name: &str, entries: &Entries, ways: &[Way], rounds: usize, get_count: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut found: Vec<Vec<Figures>> = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (way, found) in ways.iter().zip(&mut found) {
            found.push(measure(dir.path(), *way, entries, get_count));
        }
    }
    let raw: usize = entries
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    println!("\n{name}: {} entries, {raw} bytes\n", entries.len());
    println!("| zstd | block | dictionary | file / raw | write | scan | get, cached | get, not |");
    println!("|---|---|---|---|---|---|---|---|");
    for (way, found) in ways.iter().zip(found) {
        let of = |figure: fn(&Figures) -> u64| median(found.iter().map(figure).collect());
        let per_mille = of(|f| f.file_bytes) * 1000 / raw.max(1) as u64;
        println!(
            "| {} | {} | {} | {}.{:03} | {} | {} | {} | {} |",
            way.level
                .map_or("none".to_owned(), |level| level.to_string()),
            way.block_bytes_target,
            way.dictionary_bytes_max,
            per_mille / 1000,
            per_mille % 1000,
            of(|f| f.write_ns),
            of(|f| f.scan_ns),
            of(|f| f.cached_ns),
            of(|f| f.uncached_ns),
        );
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_test = args.iter().any(|arg| arg == "--test");
    let file = args.iter().find(|arg| !arg.starts_with('-'));
    let way = |level, block_kib: usize, dictionary_kib: usize| Way {
        level,
        block_bytes_target: block_kib << 10,
        dictionary_bytes_max: dictionary_kib << 10,
    };
    let mut ways = vec![way(None, 4, 0)];
    if is_test {
        ways.push(way(Some(1), 4, 1));
        compare("made up", &made_up(5_000), &ways, 1, 100);
        return;
    }
    for level in [-5, -1, 1, 3] {
        for block_kib in [4, 8, 16, 32] {
            ways.push(way(Some(level), block_kib, 0));
        }
    }
    for (level, block_kib) in [(-1, 4), (-1, 8), (1, 4), (1, 8), (1, 16), (3, 4)] {
        for dictionary_kib in [4, 16, 64] {
            ways.push(way(Some(level), block_kib, dictionary_kib));
        }
    }
    compare("half compressible", &made_up(300_000), &ways, 5, 20_000);
    if let Some(file) = file {
        compare("records", &records(file), &ways, 5, 20_000);
    }
}
