//! siltstone as one engine among others.

use base::Result;
use siltstone::{
    Compression, Cursor, Db, Durability, FilterPolicy, Options, WriteBatch, WriteOptions,
};

use super::{Commit, Direction, Engine, Entries, Session, Setup, Tuning};

/// An open database.
#[derive(Debug)]
pub struct Siltstone {
    db: Db,
    write_options: WriteOptions,
    settings: Vec<(String, String)>,
}

/// What one thread works with.
#[derive(Debug)]
pub struct SiltstoneSession<'a> {
    db: &'a Db,
    write_options: &'a WriteOptions,
    batch: WriteBatch,
    cursor: Option<Cursor>,
}

impl Engine for Siltstone {
    type Session<'a> = SiltstoneSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let filter = match setup.filter_bits {
            0 => FilterPolicy::None,
            bits_per_key => FilterPolicy::Blocked { bits_per_key },
        };
        let mut options = Options::new()
            .filter(filter)
            .memtable_bytes_max(setup.memtable_bytes)
            .cache_bytes(setup.cache_bytes as u64);
        // At its best it is what it is by default. Otherwise it does as the others do, and does not
        // use a lull for compactions that nothing asks for: while others have their turns there is
        // always a lull, so that reads would never meet what the writes left.
        if setup.tuning == Tuning::Same {
            options = options
                .compression(Compression::None)
                .bottom_compression(Compression::None)
                .idle_compaction_after(None);
        }
        let (compression, lulls) = match setup.tuning {
            Tuning::Same => ("none", "off"),
            Tuning::Best => ("zstd in the last level (its default)", "its default"),
        };
        let durability = match setup.commit {
            Commit::Os => Durability::Os,
            Commit::Disk => Durability::Disk,
        };
        let settings = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("a write returns", format!("Durability::{durability:?}")),
            ("cache", format!("{} B", setup.cache_bytes)),
            ("memtable", format!("{} B", setup.memtable_bytes)),
            (
                "filter",
                format!("{} bits a key, blocked", setup.filter_bits),
            ),
            ("compression", compression.to_owned()),
            ("compaction in lulls", lulls.to_owned()),
            ("else", "its defaults".to_owned()),
        ];
        Ok(Self {
            db: options.open(&setup.dir)?,
            write_options: WriteOptions::new().durability(durability),
            settings: settings
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        })
    }

    fn session(&self) -> Result<SiltstoneSession<'_>> {
        Ok(SiltstoneSession {
            db: &self.db,
            write_options: &self.write_options,
            batch: WriteBatch::new(),
            cursor: None,
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        self.db.compact_range(..)
    }

    fn close(self) -> Result<()> {
        self.db.close()
    }
}

impl Session for SiltstoneSession<'_> {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put_with(key, value, self.write_options).map(drop)
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        self.batch.clear();
        for (key, value) in entries.iter() {
            self.batch.put(key, value);
        }
        self.db
            .write_with(&self.batch, self.write_options)
            .map(drop)
    }

    #[inline]
    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        let found = self.db.get(key)?;
        if let Some(value) = &found {
            with(value);
        }
        Ok(found.is_some())
    }

    #[inline]
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        seek(&mut self.db.cursor()?, key, with)
    }

    #[inline]
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            none => none.insert(self.db.cursor()?),
        };
        seek(cursor, key, with)
    }

    fn scan(
        &mut self,
        direction: Direction,
        mut with: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let mut cursor = self.db.cursor()?;
        match direction {
            Direction::Forward => {
                let mut is_valid = cursor.seek_to_first()?;
                while is_valid && with(cursor.key(), cursor.value()) {
                    is_valid = cursor.next()?;
                }
            }
            Direction::Backward => {
                let mut is_valid = cursor.seek_to_last()?;
                while is_valid && with(cursor.key(), cursor.value()) {
                    is_valid = cursor.prev()?;
                }
            }
        }
        Ok(())
    }
}

#[inline]
fn seek(cursor: &mut Cursor, key: &[u8], mut with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
    let mut is_valid = cursor.seek(key)?;
    while is_valid && with(cursor.key(), cursor.value()) {
        is_valid = cursor.next()?;
    }
    Ok(())
}
