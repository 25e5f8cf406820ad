//! Engines of others behind the interface of `lsm-bench`, each behind a feature of its own.
//!
//! They are called through the interface that their makers meant for the purpose, with handles
//! and transactions kept where that interface lets one keep them. Never part of a default build
//! or of the checks of siltstone.

use base::Result;
use tools::bench::engine::{EngineName, EngineSet, OwnEngines, Visitor};

#[cfg(feature = "peer-fjall")]
mod fjall;
#[cfg(feature = "peer-leveldb")]
mod leveldb;
#[cfg(feature = "peer-lmdb")]
mod lmdb;
#[cfg(feature = "peer-redb")]
mod redb;
#[cfg(feature = "peer-rocksdb")]
mod rocksdb;

/// siltstone, the yardsticks, and the engines whose features are on.
#[derive(Clone, Copy, Debug)]
pub struct AllEngines;

impl EngineSet for AllEngines {
    fn has(&self, name: EngineName) -> bool {
        match name {
            EngineName::LevelDb => cfg!(feature = "peer-leveldb"),
            EngineName::Fjall => cfg!(feature = "peer-fjall"),
            EngineName::Lmdb => cfg!(feature = "peer-lmdb"),
            EngineName::Redb => cfg!(feature = "peer-redb"),
            EngineName::RocksDb => cfg!(feature = "peer-rocksdb"),
            _ => OwnEngines.has(name),
        }
    }

    fn visit<V: Visitor>(&self, name: EngineName, visitor: V) -> Result<V::Output> {
        match name {
            #[cfg(feature = "peer-leveldb")]
            EngineName::LevelDb => visitor.visit::<leveldb::LevelDb>(),
            #[cfg(feature = "peer-fjall")]
            EngineName::Fjall => visitor.visit::<fjall::Fjall>(),
            #[cfg(feature = "peer-lmdb")]
            EngineName::Lmdb => visitor.visit::<lmdb::Lmdb>(),
            #[cfg(feature = "peer-redb")]
            EngineName::Redb => visitor.visit::<redb::Redb>(),
            #[cfg(feature = "peer-rocksdb")]
            EngineName::RocksDb => visitor.visit::<rocksdb::RocksDb>(),
            _ => OwnEngines.visit(name, visitor),
        }
    }
}

/// What an engine said was wrong, in our words.
#[cfg(any(
    feature = "peer-leveldb",
    feature = "peer-fjall",
    feature = "peer-lmdb",
    feature = "peer-redb",
    feature = "peer-rocksdb"
))]
fn failed(engine: EngineName, message: &dyn std::fmt::Display) -> base::Error {
    base::Error::new(
        base::ErrorKind::Io,
        format!("{} failed: {message}", engine.name()),
    )
}

/// Names and values of settings.
#[cfg(any(
    feature = "peer-leveldb",
    feature = "peer-fjall",
    feature = "peer-lmdb",
    feature = "peer-redb",
    feature = "peer-rocksdb"
))]
fn settings(pairs: &[(&str, String)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
    pairs.iter().map(owned).collect()
}
