//! A tree on a simulated disk, beside a map that remembers every write ever made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::clock::ManualClock;
use base::cursor::{Cursor, MergeCursor, VecCursor, VecEntry};
use base::error::Result;
use base::executor::{Scatter, Stepped};
use base::fs::FileSystem;
use base::fs::sim::SimFs;
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{FileKind, FileNumber, HashSeed, KeyKind, KeyspaceId, Level};
use sstable::{
    Compression, FilterPolicy, ReadMode, ReadProbe, ReaderOptions, ScanMode, TableCache,
    TableHandle, TableOptions, Verify,
};

use super::{Random, seq};
use crate::edit::KeyspaceEdit;
use crate::job::{self, JobContext, JobOutput};
use crate::levels::{Reaper, Table, TableMeta, Version};
use crate::plan::CompactionPlan;
use crate::policy::Tuning;
use crate::run::LevelCursor;

const SEED: HashSeed = HashSeed(77);
const DIR: &str = "/db";
const OPEN_TABLES_MAX: usize = 4;

/// Unlinks what nobody reads any more.
#[derive(Debug)]
struct Unlinker(Arc<SimFs>);

impl Reaper for Unlinker {
    fn reap(&self, table: Arc<TableHandle>) {
        self.0.remove_file(table.path()).expect("it was there");
    }
}

/// The writes to one key, oldest first; `None` is a tombstone.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

pub(crate) struct Bed {
    pub(crate) fs: Arc<SimFs>,
    pub(crate) context: JobContext,
    pub(crate) version: Version,
    pub(crate) tuning: Tuning,
    pub(crate) cache: Arc<TableCache>,
    next_number: Arc<AtomicU64>,
    history: BTreeMap<Vec<u8>, Versions>,
    pub(crate) last_seq: u64,
}

/// The names of all tables below the directory.
pub(crate) fn files_in(fs: &SimFs) -> Vec<PathBuf> {
    fs.paths()
}

impl Bed {
    pub(crate) fn new(seed: u64, mode: ReadMode) -> Self {
        let fs = SimFs::new(seed);
        fs.create_dir(Path::new(DIR)).expect("an empty disk");
        fs.sync_dir(Path::new("/")).expect("an empty disk");
        let options = ReaderOptions {
            mode,
            cache: None,
            verify: Verify::Once,
            pins: Arc::default(),
        };
        let shared: Arc<dyn FileSystem> = Arc::<SimFs>::clone(&fs);
        let cache = TableCache::new(Arc::clone(&shared), DIR.into(), options, OPEN_TABLES_MAX);
        let next_number = Arc::new(AtomicU64::new(1));
        let numbers = Arc::clone(&next_number);
        let executor: Arc<dyn Scatter> = Stepped::new(seed);
        let context = JobContext {
            fs: shared,
            clock: Arc::new(ManualClock::new(1)),
            dir: DIR.into(),
            numbers: Arc::new(move || FileNumber(numbers.fetch_add(1, Ordering::SeqCst))),
            executor,
            table_options: Arc::new(|level, reason| TableOptions {
                block_bytes_target: 256,
                filter: FilterPolicy::Blocked { bits_per_key: 10 },
                compression: Compression::None,
                hash_seed: SEED,
                keyspace: KeyspaceId::DEFAULT,
                level,
                reason,
                created_micros: 0,
                commit_times: None,
                dictionary_bytes_max: 0,
            }),
            table_bytes_target: 2 << 10,
            ahead_bytes: 1 << 20,
            snapshots: Vec::new(),
            visible: seq(0),
            cancel: Arc::default(),
        };
        let tuning = Tuning {
            level0_table_count_trigger: 3,
            level_base_bytes: 8 << 10,
            fan_out: 3,
            table_bytes_target: 2 << 10,
            compaction_bytes_max: 40 << 10,
            bottom_compression: 0,
        };
        Self {
            fs,
            context,
            version: Version::empty(),
            tuning,
            cache,
            next_number,
            history: BTreeMap::new(),
            last_seq: 0,
        }
    }

    /// Lets so many tables be open at once; for a tree that has none yet.
    pub(crate) fn keep_open(&mut self, open_tables_max: usize) {
        let options = self.cache.options().clone();
        self.cache = TableCache::new(
            Arc::clone(&self.context.fs),
            DIR.into(),
            options,
            open_tables_max,
        );
    }

    pub(crate) fn next_number(&self) -> FileNumber {
        FileNumber(self.next_number.load(Ordering::SeqCst))
    }

    /// Writes `value`, or a tombstone, to `key`; the entry goes into some memory run.
    pub(crate) fn write(&mut self, key: &str, value: Option<&str>) -> VecEntry {
        self.last_seq += 1;
        self.context.visible = seq(self.last_seq);
        let versions = self.history.entry(key.into()).or_default();
        versions.push((self.last_seq, value.map(Into::into)));
        let kind = if value.is_some() {
            KeyKind::Put
        } else {
            KeyKind::Delete
        };
        (
            key.into(),
            seq(self.last_seq),
            kind,
            value.unwrap_or_default().into(),
        )
    }

    /// A run of `count` random writes to keys below `key_count`, a third of them tombstones.
    pub(crate) fn random_run(
        &mut self,
        random: &mut Random,
        count: u64,
        key_count: u64,
    ) -> VecCursor {
        let entries = (0..count).map(|_| {
            let key = format!("a shared beginning {:04}", random.below(key_count));
            let value = format!("{:0len$}", random.next_u64(), len = random.index(60) + 1);
            self.write(&key, (!random.one_in(3)).then_some(&value))
        });
        VecCursor::new(entries.collect())
    }

    pub(crate) fn flush(&mut self, runs: Vec<VecCursor>) -> JobOutput {
        let output = job::flush(&self.context, &self.version, runs).expect("a sound disk");
        self.install(&output);
        output
    }

    pub(crate) fn compact(&mut self, plan: &CompactionPlan) -> JobOutput {
        let output = job::compact(&self.context, &self.version, plan).expect("a sound disk");
        self.install(&output);
        output
    }

    pub(crate) fn table(&self, meta: TableMeta) -> Arc<Table> {
        let handle = self
            .cache
            .handle(meta.number, meta.file_id, meta.file_bytes);
        Table::new(meta, handle, Arc::new(Unlinker(Arc::clone(&self.fs))))
    }

    /// What the engine does with an output, without a MANIFEST.
    pub(crate) fn install(&mut self, output: &JobOutput) {
        for (_, meta) in &output.added {
            let path = FileKind::Table.path(Path::new(DIR), meta.number);
            assert!(self.fs.is_synced(&path) && self.fs.is_name_durable(&path));
        }
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        edit.added.clone_from(&output.added);
        edit.removed.clone_from(&output.removed);
        let after = self
            .version
            .apply(&edit, &mut |meta| self.table(meta))
            .expect("it fits");
        for table in self.version.obsoleted_by(&edit) {
            table.mark_obsolete();
        }
        self.version = after;
        self.version.check().expect("sound");
    }

    /// The answer of the tree.
    pub(crate) fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        let level0 = self.version.level(Level::ZERO).iter();
        let deeper = Level::all()
            .skip(1)
            .filter_map(|level| self.version.find(level, key));
        for table in level0
            .filter(|table| table.meta.contains(key))
            .chain(deeper)
        {
            let reader = table.handle().reader()?;
            let hit = reader.get(key, SEED.hash(key), seq(at), &mut ReadProbe::default())?;
            if let Some(hit) = hit {
                return Ok((hit.kind == KeyKind::Put).then(|| hit.value().to_vec()));
            }
        }
        Ok(None)
    }

    /// The answer of the map.
    fn wanted(&self, key: &[u8], at: u64) -> Option<Vec<u8>> {
        let versions = self.history.get(key)?;
        versions.iter().rev().find(|(seq, _)| *seq <= at)?.1.clone()
    }

    /// Everything the tree holds, as one run.
    pub(crate) fn entries(&self) -> Vec<VecEntry> {
        let mut runs = Vec::new();
        for table in self.version.level(Level::ZERO).chunks(1) {
            runs.push(LevelCursor::new(table, ScanMode::Ordinary));
        }
        runs.extend(
            Level::all()
                .skip(1)
                .map(|level| self.version.cursor(level, ScanMode::Ordinary)),
        );
        let mut cursor = MergeCursor::new(runs);
        let mut entries = Vec::new();
        let mut live = cursor.seek_to_first().expect("a sound disk");
        while live {
            let key = cursor.key();
            entries.push((
                key.user_key.to_vec(),
                key.seq,
                key.kind,
                cursor.value().to_vec(),
            ));
            live = cursor.next().expect("a sound disk");
        }
        entries
    }

    /// Asks the tree and the map for every key at every pin.
    pub(crate) fn check(&self) {
        let pins = self.context.snapshots.iter().chain([&self.context.visible]);
        for at in pins.map(|pin| pin.get()) {
            for key in self.history.keys() {
                let found = self.get(key, at).expect("a sound disk");
                assert_eq!(
                    found,
                    self.wanted(key, at),
                    "{} at {at}",
                    key.escape_ascii()
                );
            }
        }
        let live = self.version.table_count();
        assert_eq!(
            files_in(&self.fs).len(),
            live,
            "files without a table, or the reverse"
        );
    }

    /// The keys and values that a read sees now.
    pub(crate) fn live(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let now = self.last_seq;
        let keys = self.history.keys();
        keys.filter_map(|key| Some((key.clone(), self.wanted(key, now)?)))
            .collect()
    }
}
