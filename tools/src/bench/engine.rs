//! What `lsm-bench` asks of an engine that it compares with others, and which engines there are.
//!
//! Everything an engine does in a measured loop is reached by static dispatch: a row is compiled
//! once for each engine, so that the driver costs every one the same. Engines of others live in a
//! crate of their own, which builds its own `lsm-bench`; this one knows their names only.

use std::path::PathBuf;

use base::{Error, Result};

use super::workload::nearest;

pub mod null;
pub mod raw;
pub mod siltstone;

/// How the crate with the engines of others is built.
const PEERS_BUILD: &str = "cargo run --release --manifest-path tools/peers/Cargo.toml";

/// An engine that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineName {
    /// This one.
    Siltstone,
    /// LevelDB, through its C interface.
    LevelDb,
    /// fjall.
    Fjall,
    /// LMDB.
    Lmdb,
    /// redb.
    Redb,
    /// RocksDB, through its crate.
    RocksDb,
    /// RocksDB, through its own `db_bench`: a program beside this one, which draws keys of its own.
    RocksDbBench,
    /// Does nothing: what is measured of it is the cost of the driver.
    Null,
    /// Appends records to one file, synced if asked for: what the machine can do.
    Raw,
}

/// What an engine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// A log-structured merge tree.
    Lsm,
    /// A B-tree.
    BTree,
    /// No engine: part of the measurement.
    Yardstick,
}

impl EngineName {
    /// Every one, yardsticks last.
    pub const ALL: [Self; 9] = [
        Self::Siltstone,
        Self::LevelDb,
        Self::Fjall,
        Self::Lmdb,
        Self::Redb,
        Self::RocksDb,
        Self::RocksDbBench,
        Self::Null,
        Self::Raw,
    ];

    /// The name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Siltstone => "siltstone",
            Self::LevelDb => "leveldb",
            Self::Fjall => "fjall",
            Self::Lmdb => "lmdb",
            Self::Redb => "redb",
            Self::RocksDb => "rocksdb",
            Self::RocksDbBench => "rocksdb-db_bench",
            Self::Null => "null",
            Self::Raw => "raw",
        }
    }

    /// What it is made of.
    pub const fn kind(self) -> EngineKind {
        match self {
            Self::Siltstone | Self::LevelDb | Self::Fjall | Self::RocksDb | Self::RocksDbBench => {
                EngineKind::Lsm
            }
            Self::Lmdb | Self::Redb => EngineKind::BTree,
            Self::Null | Self::Raw => EngineKind::Yardstick,
        }
    }

    /// The cargo feature of the crate of peers that builds it in; `None` if it always is.
    pub const fn feature(self) -> Option<&'static str> {
        match self {
            Self::LevelDb => Some("peer-leveldb"),
            Self::Fjall => Some("peer-fjall"),
            Self::Lmdb => Some("peer-lmdb"),
            Self::Redb => Some("peer-redb"),
            Self::RocksDb => Some("peer-rocksdb"),
            Self::Siltstone | Self::RocksDbBench | Self::Null | Self::Raw => None,
        }
    }

    /// Whether it is a program beside this one, which no [`EngineSet`] has.
    pub const fn is_outside(self) -> bool {
        matches!(self, Self::RocksDbBench)
    }

    /// Whether it rewrites its data into one run when told to.
    pub const fn can_compact(self) -> bool {
        matches!(self.kind(), EngineKind::Lsm)
    }

    /// Whether one cursor can be sent to another key.
    pub const fn can_reseek(self) -> bool {
        matches!(
            self,
            Self::Siltstone | Self::LevelDb | Self::Lmdb | Self::RocksDb | Self::Null
        )
    }

    /// The engine with this name.
    ///
    /// # Errors
    /// `InvalidArgument`, with the nearest name.
    ///
    /// # Examples
    /// ```
    /// use tools::bench::engine::EngineName;
    /// assert_eq!(EngineName::parse("fjall")?, EngineName::Fjall);
    /// let error = EngineName::parse("leveld").expect_err("no such engine");
    /// assert!(error.to_string().contains("'leveldb'"));
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(found) = Self::ALL.into_iter().find(|engine| engine.name() == name) {
            return Ok(found);
        }
        let nearest = nearest(name, Self::ALL.map(Self::name));
        let known = Self::ALL.map(Self::name).join(", ");
        Err(Error::invalid_argument(format!(
            "unknown engine '{}'; the nearest is '{nearest}' (known: {known})",
            name.escape_debug()
        )))
    }
}

/// The engines of a list with commas, each once.
///
/// # Errors
/// `InvalidArgument` for an unknown name, with the nearest; for one that comes twice, and for a
/// list without any.
pub fn parse_list(list: &str) -> Result<Vec<EngineName>> {
    let mut engines = Vec::new();
    for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let engine = EngineName::parse(name)?;
        if engines.contains(&engine) {
            return Err(Error::invalid_argument(format!(
                "--engine names '{name}' twice"
            )));
        }
        engines.push(engine);
    }
    if engines.is_empty() {
        return Err(Error::invalid_argument("--engine names no engine"));
    }
    Ok(engines)
}

/// The error for engines that this binary was built without: says what to run instead.
pub fn not_built_in(wanted: &[EngineName]) -> Error {
    let names: Vec<_> = wanted.iter().map(|engine| engine.name()).collect();
    let features: Vec<_> = wanted
        .iter()
        .filter_map(|engine| engine.feature())
        .collect();
    let other_way = if wanted.contains(&EngineName::RocksDb) {
        ", or take rocksdb-db_bench, which needs no build"
    } else {
        ""
    };
    Error::invalid_argument(format!(
        "this lsm-bench is built without {}; run: {PEERS_BUILD} --features {} -- --engine ...{}",
        names.join(", "),
        features.join(","),
        other_way,
    ))
}

/// When a write of a measured row counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The operating system has it: a kill of the process loses nothing.
    Os,
    /// The disk has it.
    Disk,
}

/// Which settings an engine is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// The same memory, filters and compression for all.
    Same,
    /// What its makers advise for such a load, wherever that is something else.
    Best,
}

/// How an engine is opened.
#[derive(Clone, Debug)]
pub struct Setup {
    /// A directory that exists and is empty.
    pub dir: PathBuf,
    /// When writes count as done.
    pub commit: Commit,
    /// Same for all, or each at its best.
    pub tuning: Tuning,
    /// Bits of the filter for each key; 0 for none.
    pub filter_bits: u32,
    /// Bytes of the memtable.
    pub memtable_bytes: usize,
    /// Bytes of the block cache.
    pub cache_bytes: usize,
}

/// An engine, opened.
pub trait Engine: Sized + Sync {
    /// What one thread works with.
    type Session<'a>: Session
    where
        Self: 'a;

    /// Opens a new database.
    ///
    /// # Errors
    /// As the engine says.
    fn open(setup: &Setup) -> Result<Self>;

    /// What one thread works with.
    ///
    /// # Errors
    /// As the engine says.
    fn session(&self) -> Result<Self::Session<'_>>;

    /// The version first, then what it was opened with: names and values.
    fn settings(&self) -> Vec<(String, String)>;

    /// Brings all data into one run, and returns when that is done.
    ///
    /// # Errors
    /// As the engine says; `Unsupported` if it cannot ([`EngineName::can_compact`]).
    fn compact(&self) -> Result<()>;

    /// Closes the database.
    ///
    /// # Errors
    /// As the engine says.
    fn close(self) -> Result<()>;
}

/// What one thread works with: handles, cursors and buffers of its own, kept between operations
/// where the engine's interface knows such a thing.
pub trait Session {
    /// Writes one entry.
    ///
    /// # Errors
    /// As the engine says.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes all `entries` in one commit.
    ///
    /// # Errors
    /// As the engine says.
    fn put_batch(&mut self, entries: &Entries) -> Result<()>;

    /// Shows `with` the newest value of `key`, if there is one, and says whether there is.
    ///
    /// # Errors
    /// As the engine says.
    fn get(&mut self, key: &[u8], with: impl FnMut(&[u8])) -> Result<bool>;

    /// Makes a cursor on the newest state, puts it on the first key at or behind `key` and shows
    /// `with` that entry and those behind it, until it returns `false`.
    ///
    /// # Errors
    /// As the engine says.
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()>;

    /// As [`Session::seek`], with the cursor of the call before.
    ///
    /// # Errors
    /// As the engine says; `Unsupported` if it cannot ([`EngineName::can_reseek`]).
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()>;

    /// Shows `with` every entry in the order of `direction`, until it returns `false`.
    ///
    /// # Errors
    /// As the engine says.
    fn scan(&mut self, direction: Direction, with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()>;
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first key up.
    Forward,
    /// From the last key down.
    Backward,
}

/// Entries of one commit, all of one shape, end to end in one buffer.
#[derive(Clone, Debug)]
pub struct Entries {
    bytes: Vec<u8>,
    key_bytes: usize,
    value_bytes: usize,
}

impl Entries {
    /// None, of keys and values of these lengths.
    ///
    /// # Panics
    /// If keys are empty.
    pub fn new(key_bytes: usize, value_bytes: usize) -> Self {
        assert!(key_bytes > 0, "an entry has a key");
        Self {
            bytes: Vec::new(),
            key_bytes,
            value_bytes,
        }
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Adds one.
    ///
    /// # Panics
    /// If a length is another one than was said.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        assert_eq!((key.len(), value.len()), (self.key_bytes, self.value_bytes));
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.bytes
            .chunks_exact(self.key_bytes + self.value_bytes)
            .map(|entry| entry.split_at(self.key_bytes))
    }
}

/// Something to be done with an engine whose type is known only inside.
pub trait Visitor {
    /// What comes of it.
    type Output;

    /// Does it with `E`.
    ///
    /// # Errors
    /// Its own.
    fn visit<E: Engine>(self) -> Result<Self::Output>;
}

/// The engines that a binary was built with.
pub trait EngineSet {
    /// Whether `name` is one of them.
    fn has(&self, name: EngineName) -> bool;

    /// Does something with the engine `name`.
    ///
    /// # Errors
    /// The visitor's; [`not_built_in`] if the engine is not there.
    fn visit<V: Visitor>(&self, name: EngineName, visitor: V) -> Result<V::Output>;
}

/// The engines that need no crate of others: this one and the yardsticks.
#[derive(Clone, Copy, Debug)]
pub struct OwnEngines;

impl EngineSet for OwnEngines {
    fn has(&self, name: EngineName) -> bool {
        name.feature().is_none() && !name.is_outside()
    }

    fn visit<V: Visitor>(&self, name: EngineName, visitor: V) -> Result<V::Output> {
        match name {
            EngineName::Siltstone => visitor.visit::<siltstone::Siltstone>(),
            EngineName::Null => visitor.visit::<null::Null>(),
            EngineName::Raw => visitor.visit::<raw::Raw>(),
            other => Err(not_built_in(&[other])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_engine_is_answered_with_the_nearest() {
        for (wrong, nearest) in [("leveldbb", "'leveldb'"), ("siltston", "'siltstone'")] {
            let error = EngineName::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(nearest), "{error}");
        }
        for engine in EngineName::ALL {
            assert_eq!(EngineName::parse(engine.name()).expect("known"), engine);
        }
    }

    #[test]
    fn lists_name_each_engine_once() {
        let list = parse_list("siltstone, null").expect("known");
        assert_eq!(list, [EngineName::Siltstone, EngineName::Null]);
        assert!(parse_list("null,null").is_err());
        assert!(parse_list(",").is_err());
    }

    #[test]
    fn a_missing_engine_says_how_to_build_it() {
        let text = not_built_in(&[EngineName::LevelDb, EngineName::Lmdb]).to_string();
        assert!(text.contains("--features peer-leveldb,peer-lmdb"), "{text}");
        assert!(!text.contains("db_bench"), "{text}");
        let text = not_built_in(&[EngineName::RocksDb]).to_string();
        assert!(text.contains("--features peer-rocksdb"), "{text}");
        assert!(text.contains("rocksdb-db_bench"), "{text}");
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let mut entries = Entries::new(2, 1);
        entries.push(b"ab", b"1");
        entries.push(b"cd", b"2");
        let all: Vec<_> = entries.iter().collect();
        assert_eq!(all, [(&b"ab"[..], &b"1"[..]), (b"cd", b"2")]);
        entries.clear();
        assert_eq!(entries.iter().count(), 0);
    }
}
