//! redb, a copy-on-write B-tree in Rust.
//!
//! It has no commit that the operating system has and the disk does not: `Durability::None` keeps
//! commits in the process, which is less than the others promise, and so a head start.

use std::ops::Bound;

use base::Result;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tools::bench::engine::{Commit, Direction, Engine, EngineName, Entries, Session, Setup};

use crate::{failed, settings};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");

/// An open database with one table.
pub(crate) struct Redb {
    db: Database,
    durability: Durability,
    settings: Vec<(String, String)>,
}

/// What one thread works with.
pub(crate) struct RedbSession<'a> {
    redb: &'a Redb,
}

fn error(source: impl std::fmt::Display) -> base::Error {
    failed(EngineName::Redb, &source)
}

impl Engine for Redb {
    type Session<'a> = RedbSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(setup.cache_bytes)
            .create(setup.dir.join("redb"))
            .map_err(error)?;
        let (durability, promise) = match setup.commit {
            Commit::Os => (Durability::None, "at once: lost with the process (weaker)"),
            Commit::Disk => (Durability::Immediate, "after the sync of its commit"),
        };
        let redb = Self {
            db,
            durability,
            settings: settings(&[
                ("version", "4".to_owned()),
                ("a write returns", promise.to_owned()),
                ("cache", format!("{} B", setup.cache_bytes)),
                ("else", "its defaults, which are also its best".to_owned()),
            ]),
        };
        redb.put_all(std::iter::empty())?;
        Ok(redb)
    }

    fn session(&self) -> Result<RedbSession<'_>> {
        Ok(RedbSession { redb: self })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        Err(error("it is not compacted in these rows"))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Redb {
    fn put_all<'e>(&self, entries: impl Iterator<Item = (&'e [u8], &'e [u8])>) -> Result<()> {
        let mut txn = self.db.begin_write().map_err(error)?;
        txn.set_durability(self.durability).map_err(error)?;
        {
            let mut table = txn.open_table(TABLE).map_err(error)?;
            for (key, value) in entries {
                table.insert(key, value).map_err(error)?;
            }
        }
        txn.commit().map_err(error)
    }

    fn table(&self) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>> {
        let txn = self.db.begin_read().map_err(error)?;
        txn.open_table(TABLE).map_err(error)
    }
}

impl Session for RedbSession<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.redb.put_all(std::iter::once((key, value)))
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        self.redb.put_all(entries.iter())
    }

    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        let table = self.redb.table()?;
        let found = table.get(key).map_err(error)?;
        if let Some(value) = &found {
            with(value.value());
        }
        Ok(found.is_some())
    }

    fn seek(&mut self, key: &[u8], mut with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let table = self.redb.table()?;
        let range = (Bound::Included(key), Bound::Unbounded);
        for entry in table.range::<&[u8]>(range).map_err(error)? {
            let (key, value) = entry.map_err(error)?;
            if !with(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn reseek(&mut self, _: &[u8], _: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Err(error("its ranges cannot be sent elsewhere"))
    }

    fn scan(
        &mut self,
        direction: Direction,
        mut with: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let table = self.redb.table()?;
        let mut range = table.iter().map_err(error)?;
        loop {
            let entry = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            let Some(entry) = entry else { return Ok(()) };
            let (key, value) = entry.map_err(error)?;
            if !with(key.value(), value.value()) {
                return Ok(());
            }
        }
    }
}
