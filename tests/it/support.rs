//! What every test here stands on: seeds, test-size options, a simulated world to open databases
//! in, and the comparison of a database with a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::sim::SimFs;
use base::random::Random;
use siltstone::{
    Compression, Db, FilterPolicy, Keyspace, KeyspaceOptions, LogAppend, MemtableStructure,
    Options, ReadMode, Result, Verify,
};

use crate::order::Order;
use crate::reads::Reads;

/// What a database should hold.
pub(crate) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Numbers for tests: lengths and indexes.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Random);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.index(bound)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Runs `case` with `count` seeds; prints the one that fails and how to run it again.
///
/// `SILTSTONE_SEED` runs one seed alone, `SILTSTONE_ROUNDS` multiplies the number of seeds.
pub(crate) fn for_each_seed(test: &str, count: u64, mut case: impl FnMut(u64)) {
    if let Some(seed) = env_number("SILTSTONE_SEED") {
        return case(seed);
    }
    for seed in 0..count * rounds() {
        let seed_on_panic = PrintOnPanic(format!(
            "failed with seed {seed}; again: SILTSTONE_SEED={seed} cargo test --test it {test}"
        ));
        case(seed);
        drop(seed_on_panic);
    }
}

/// By how much the run is to be longer than the shortest that makes sense.
pub(crate) fn rounds() -> u64 {
    env_number("SILTSTONE_ROUNDS").unwrap_or(1).max(1)
}

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// Says where a test was when it failed.
pub(crate) struct PrintOnPanic(pub(crate) String);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// One point of the matrix of environments that every randomised test walks through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) read_mode: ReadMode,
    pub(crate) filter: FilterPolicy,
    pub(crate) compression: Compression,
    pub(crate) bottom_compression: Compression,
    pub(crate) verify: Verify,
    pub(crate) cache_bytes: u64,
    /// Decides on what is less important.
    pub(crate) seed: u64,
}

impl Setup {
    /// Consecutive seeds see every pair of read mode and filter; the rest follows from the seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let zstd = Compression::Zstd { level: 1 };
        let filters = [
            FilterPolicy::Blocked { bits_per_key: 10 },
            FilterPolicy::Bloom { bits_per_key: 10 },
            FilterPolicy::None,
        ];
        let mut rng = Rng::new(seed ^ 0x5e7);
        let (compression, bottom_compression) = *rng.pick(&[
            (Compression::None, Compression::None),
            (Compression::None, zstd),
            (zstd, zstd),
            (zstd, Compression::None),
        ]);
        let at = usize::try_from(seed % 6).expect("below six");
        Self {
            read_mode: [ReadMode::Mapped, ReadMode::Positioned][at % 2],
            filter: filters[at / 2],
            compression,
            bottom_compression,
            verify: *rng.pick(&[Verify::Once, Verify::Always]),
            cache_bytes: *rng.pick(&[0, 2 << 10, 1 << 20]),
            seed: rng.next(),
        }
    }

    /// Sizes at which everything happens within a few hundred operations.
    pub(crate) fn options(&self) -> Options {
        let mut rng = Rng::new(self.seed);
        Options::new()
            .memtable_bytes_max(*rng.pick(&[4 << 10, 4 << 10, 8 << 10]))
            .sealed_memtable_count_max(1 + rng.below(3))
            .block_bytes_target(*rng.pick(&[64, 256, 256, 1024]))
            .table_bytes_target(*rng.pick(&[4 << 10, 8 << 10]))
            .level0_table_count_trigger(*rng.pick(&[1, 2, 2, 4]))
            .level0_table_count_max(6)
            .level_base_bytes(32 << 10)
            .level_fan_out(2)
            .manifest_bytes_min(*rng.pick(&[1 << 10, 4 << 10]))
            .log_segment_bytes(4 << 10)
            .log_bytes_max(64 << 10)
            .sync_interval(None)
            .open_tables_max(16)
            .read_mode(self.read_mode)
            .filter(self.filter)
            .compression(self.compression)
            .bottom_compression(self.bottom_compression)
            .verify_reads(self.verify)
            .cache_bytes(self.cache_bytes)
            .log_append(log_append())
            .memtable_structure(*rng.pick(&[MemtableStructure::Tree, MemtableStructure::SkipList]))
            .idle_compaction_after(*rng.pick(&[None, Some(Duration::from_millis(1))]))
    }
}

/// The form in which the log is written: `SILTSTONE_LOG_APPEND` may say `mapped` or `positioned`.
pub(crate) fn log_append() -> LogAppend {
    match std::env::var("SILTSTONE_LOG_APPEND").as_deref() {
        Ok("mapped") => LogAppend::Mapped,
        Ok("positioned") => LogAppend::Positioned,
        Ok(other) => panic!("SILTSTONE_LOG_APPEND is neither mapped nor positioned: {other}"),
        Err(_) => LogAppend::Auto,
    }
}

/// Where every simulated database lies.
pub(crate) const DIR: &str = "/db";

/// A simulated machine, with the checker of the order of durability switched on.
pub(crate) struct World {
    pub(crate) fs: Arc<SimFs>,
    pub(crate) executor: Arc<Stepped>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) setup: Setup,
    order: Arc<Order>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(SimFs::new(seed), seed)
    }

    /// The machine after it was switched on again with `fs` as its disk.
    pub(crate) fn on(fs: Arc<SimFs>, seed: u64) -> Self {
        Self {
            order: Order::watch(&fs, Path::new(DIR)),
            fs,
            executor: Stepped::new(seed ^ 0x57e9),
            clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
            setup: Setup::of_seed(seed),
        }
    }

    /// Another process on the same running system: other options, another order of steps.
    pub(crate) fn restart(&mut self, seed: u64) {
        self.executor = Stepped::new(seed ^ 0x57e9);
        self.setup = Setup::of_seed(seed);
    }

    pub(crate) fn options(&self) -> Options {
        self.setup
            .options()
            .file_system(Arc::clone(&self.fs) as _)
            .executor(Arc::clone(&self.executor) as _)
            .clock(Arc::clone(&self.clock) as _)
    }

    /// To be called when a commit was acknowledged as durable.
    pub(crate) fn check_acknowledged(&self) {
        self.order.check_acknowledged(&self.fs);
        self.check_order();
    }

    pub(crate) fn open(&self) -> Result<Db> {
        self.options().open(DIR)
    }

    /// Fails if anything was done in an order that a power cut could punish.
    pub(crate) fn check_order(&self) {
        self.order.check();
        assert_eq!(self.fs.violation(), None, "order of durability");
    }

    /// Every file of the database with what it holds.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.fs)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.fs.set_observer(None);
        if !std::thread::panicking() {
            self.check_order();
        }
    }
}

/// Every file of `fs` with what it holds.
pub(crate) fn files(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let contents = |path: PathBuf| {
        let bytes = fs.contents(&path).expect("it was listed");
        (path, bytes)
    };
    fs.paths().into_iter().map(contents).collect()
}

/// The keys that randomised tests use: few enough to be overwritten, and the awkward ones.
pub(crate) fn key_pool(rng: &mut Rng, count: usize) -> Vec<Vec<u8>> {
    let awkward: [&[u8]; 14] = [
        b"",
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\xff",
        b"ab",
        b"abc",
        b"b",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff",
        b"\xfe\xff",
    ];
    let mut keys: Vec<Vec<u8>> = awkward.iter().map(|key| key.to_vec()).collect();
    keys.push(vec![b'b'; 300]);
    keys.push([vec![b'b'; 300], vec![b'a']].concat());
    while keys.len() < count {
        let len = 1 + rng.below(9);
        let letters: &[u8] = if rng.chance(90) { b"abc" } else { b"\0\xff" };
        let key: Vec<u8> = (0..len).map(|_| *rng.pick(letters)).collect();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A value that no other call makes, of a length at which something changes.
pub(crate) fn value(rng: &mut Rng, tag: u64) -> Vec<u8> {
    let len = match rng.below(100) {
        0..10 => 0,
        10..20 => 1,
        20..50 => 8 + rng.below(23),
        50..70 => 29 + rng.below(4),
        70..90 => 100 + rng.below(60),
        90..96 => 250 + rng.below(14),
        96..99 => 600 + rng.below(900),
        _ => 4090 + rng.below(1200),
    };
    tagged(tag, len)
}

/// `len` bytes that begin with `tag`, half of them compressible.
pub(crate) fn tagged(tag: u64, len: usize) -> Vec<u8> {
    let mut noise = Rng::new(tag);
    let mut bytes = tag.to_le_bytes().to_vec();
    while bytes.len() < len {
        bytes.extend_from_slice(&noise.next().to_le_bytes());
        bytes.extend_from_slice(b"silt and");
    }
    bytes.truncate(len);
    bytes
}

/// Options of a keyspace at whose sizes a few hundred puts flush and compact.
pub(crate) fn small_keyspace() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .memtable_bytes_max(4 << 10)
        .table_bytes_target(4 << 10)
        .level0_table_count_trigger(2)
        .level_base_bytes(32 << 10)
}

/// Writes to fifty keys in turn, values that no other number has.
pub(crate) fn fill(keyspace: &Keyspace, from: u64, count: u64) {
    for n in from..from + count {
        keyspace
            .put((n % 50).to_be_bytes(), tagged(n, 150))
            .expect("a put");
    }
}

/// Everything `reads` shows, going forward, in the order it must have.
pub(crate) fn contents(reads: &impl Reads) -> Result<Model> {
    let mut found = Model::new();
    for item in reads.all()? {
        let (key, value) = item?;
        let sorted = found
            .last_key_value()
            .is_none_or(|(last, _)| last.as_slice() < &*key);
        assert!(sorted, "keys out of order at {}", key.escape_ascii());
        found.insert(key.into_vec(), value.into_vec());
    }
    Ok(found)
}

/// Compares everything that `reads` shows, by every way of reading it, with `model`.
pub(crate) fn assert_same(reads: &impl Reads, model: &Model, keys: &[Vec<u8>]) {
    let found = contents(reads).expect("a scan");
    assert_models_equal(&found, model);
    let mut backward = Vec::new();
    for item in reads.all().expect("an iterator").rev() {
        let (key, value) = item.expect("a step back");
        backward.push((key.into_vec(), value.into_vec()));
    }
    let expected: Vec<_> = model
        .iter()
        .rev()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    assert!(
        backward == expected,
        "a scan backward differs from one forward"
    );
    for key in keys {
        let found = reads.get(key).expect("a get");
        let expected = model.get(key).map(Vec::as_slice);
        assert_eq!(found.as_deref(), expected, "get of {}", key.escape_ascii());
    }
    let found = reads.multi_get(keys).expect("a multi_get");
    for (key, found) in keys.iter().zip(found) {
        let expected = model.get(key).map(Vec::as_slice);
        assert_eq!(
            found.as_deref(),
            expected,
            "multi_get of {}",
            key.escape_ascii()
        );
    }
}

/// Compares two models and says shortly where they differ.
pub(crate) fn assert_models_equal(found: &Model, expected: &Model) {
    if let Some(difference) = difference(found, expected) {
        panic!("{difference}");
    }
}

/// The first difference of two models.
pub(crate) fn difference(found: &Model, expected: &Model) -> Option<String> {
    let show = |value: Option<&Vec<u8>>| match value {
        Some(value) => format!("{} bytes {:?}", value.len(), &value[..value.len().min(12)]),
        None => "nothing".to_owned(),
    };
    let mut keys = expected.keys().chain(found.keys());
    let key = keys.find(|key| found.get(*key) != expected.get(*key))?;
    Some(format!(
        "{} is {}, should be {}; {} keys found, {} expected",
        key.escape_ascii(),
        show(found.get(key)),
        show(expected.get(key)),
        found.len(),
        expected.len()
    ))
}
