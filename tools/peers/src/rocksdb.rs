//! RocksDB, the log-structured engine in C++ that most others are measured by.

use std::path::Path;

use base::Result;
use base::fs::{FileSystem, OsFs};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use tools::bench::engine::{
    Commit, Direction, Engine, EngineName, Entries, Session, Setup, Tuning,
};

use crate::{failed, settings};

/// Threads for flushes and compactions that its wiki advises ("Setup Options and Basic Tuning").
const BEST_BACKGROUND_JOBS: i32 = 6;
/// Bytes of a block, from the same page.
const BEST_BLOCK_BYTES: usize = 16 << 10;
/// Written between two hints to the system that it may begin to write back, from the same page.
const BEST_BYTES_PER_SYNC: u64 = 1 << 20;

/// An open database with one column family.
pub(crate) struct RocksDb {
    db: DB,
    write: WriteOptions,
    settings: Vec<(String, String)>,
}

/// What one thread works with.
pub(crate) struct RocksDbSession<'a> {
    rocksdb: &'a RocksDb,
    read: ReadOptions,
    iter: Option<DBRawIterator<'a>>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn error(source: rocksdb::Error) -> base::Error {
    failed(EngineName::RocksDb, &source)
}

fn options(setup: &Setup) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes));
    if setup.filter_bits > 0 {
        tables.set_bloom_filter(f64::from(setup.filter_bits), false);
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(setup.memtable_bytes);
    match setup.tuning {
        Tuning::Same => options.set_compression_type(DBCompressionType::None),
        Tuning::Best => {
            tables.set_block_size(BEST_BLOCK_BYTES);
            tables.set_cache_index_and_filter_blocks(true);
            tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_bottommost_compression_type(DBCompressionType::Zstd);
            options.set_max_background_jobs(BEST_BACKGROUND_JOBS);
            options.set_bytes_per_sync(BEST_BYTES_PER_SYNC);
        }
    }
    options.set_block_based_table_factory(&tables);
    options
}

impl Engine for RocksDb {
    type Session<'a> = RocksDbSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let mut write = WriteOptions::default();
        let promise = match setup.commit {
            Commit::Os => "when the operating system has it (its default)",
            Commit::Disk => "after fdatasync (sync)",
        };
        write.set_sync(setup.commit == Commit::Disk);
        let (compression, others) = match setup.tuning {
            Tuning::Same => ("none", "its defaults".to_owned()),
            Tuning::Best => (
                "lz4, zstd in the last level",
                format!(
                    "as its wiki advises: blocks of {BEST_BLOCK_BYTES} B, {BEST_BACKGROUND_JOBS} \
                     background jobs, bytes_per_sync {BEST_BYTES_PER_SYNC}, indexes and filters \
                     in the cache"
                ),
            ),
        };
        let db = DB::open(&options(setup), &setup.dir).map_err(error)?;
        let version = version(&setup.dir).unwrap_or_else(|| "unknown".to_owned());
        Ok(Self {
            db,
            write,
            settings: settings(&[
                ("version", format!("{version}, C interface")),
                ("a write returns", promise.to_owned()),
                ("cache", format!("{} B", setup.cache_bytes)),
                ("write buffer", format!("{} B", setup.memtable_bytes)),
                ("filter", format!("{} bits a key", setup.filter_bits)),
                ("compression", compression.to_owned()),
                ("else", others),
            ]),
        })
    }

    fn session(&self) -> Result<RocksDbSession<'_>> {
        Ok(RocksDbSession {
            rocksdb: self,
            read: ReadOptions::default(),
            iter: None,
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// Of the library, which notes it in the file of options that it writes into its database: the
/// crate does not tell, and the library may be another one than that which comes with it.
fn version(dir: &Path) -> Option<String> {
    let names = OsFs.list(dir).ok()?;
    let file = names
        .iter()
        .find(|entry| entry.name.starts_with("OPTIONS-"))?;
    let text = std::fs::read_to_string(dir.join(&file.name)).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("rocksdb_version="));
    line.map(str::to_owned)
}

/// Shows `with` the entry under the iterator and those that follow in `direction`, until it has
/// enough.
#[inline]
fn show(
    iter: &mut DBRawIterator<'_>,
    direction: Direction,
    mut with: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    while let Some((key, value)) = iter.item() {
        if !with(key, value) {
            return Ok(());
        }
        match direction {
            Direction::Forward => iter.next(),
            Direction::Backward => iter.prev(),
        }
    }
    iter.status().map_err(error)
}

impl Session for RocksDbSession<'_> {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.rocksdb
            .db
            .put_opt(key, value, &self.rocksdb.write)
            .map_err(error)
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        // The interface takes the batch away.
        let mut batch = WriteBatch::default();
        for (key, value) in entries.iter() {
            batch.put(key, value);
        }
        self.rocksdb
            .db
            .write_opt(batch, &self.rocksdb.write)
            .map_err(error)
    }

    #[inline]
    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        let found = self
            .rocksdb
            .db
            .get_pinned_opt(key, &self.read)
            .map_err(error)?;
        if let Some(value) = &found {
            with(value);
        }
        Ok(found.is_some())
    }

    #[inline]
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut iter = self.rocksdb.db.raw_iterator();
        iter.seek(key);
        show(&mut iter, Direction::Forward, with)
    }

    #[inline]
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let rocksdb = self.rocksdb;
        let iter = self.iter.get_or_insert_with(|| rocksdb.db.raw_iterator());
        iter.seek(key);
        show(iter, Direction::Forward, with)
    }

    fn scan(&mut self, direction: Direction, with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut iter = self.rocksdb.db.raw_iterator();
        match direction {
            Direction::Forward => iter.seek_to_first(),
            Direction::Backward => iter.seek_to_last(),
        }
        show(&mut iter, direction, with)
    }
}
