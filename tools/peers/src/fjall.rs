//! fjall, a log-structured engine in Rust.

use base::Result;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use tools::bench::engine::{
    Commit, Direction, Engine, EngineName, Entries, Session, Setup, Tuning,
};

use crate::{failed, settings};

/// An open database with one keyspace.
pub(crate) struct Fjall {
    db: Database,
    keyspace: Keyspace,
    commit: Commit,
    settings: Vec<(String, String)>,
}

/// What one thread works with.
pub(crate) struct FjallSession<'a> {
    fjall: &'a Fjall,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn error(source: fjall::Error) -> base::Error {
    failed(EngineName::Fjall, &source)
}

impl Engine for Fjall {
    type Session<'a> = FjallSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let db = Database::builder(&setup.dir)
            .cache_size(setup.cache_bytes as u64)
            .journal_compression(CompressionType::None)
            .open()
            .map_err(error)?;
        let options = || {
            let options = KeyspaceCreateOptions::default();
            if setup.tuning == Tuning::Best {
                return options;
            }
            let filter = match setup.filter_bits {
                0 => FilterPolicy::disabled(),
                bits => FilterPolicy::all(FilterPolicyEntry::Bloom(
                    BloomConstructionPolicy::BitsPerKey(bits_as_f32(bits)),
                )),
            };
            options
                .max_memtable_size(setup.memtable_bytes as u64)
                .filter_policy(filter)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .index_block_compression_policy(CompressionPolicy::disabled())
        };
        let keyspace = db.keyspace("default", options).map_err(error)?;
        let (memtable, filter, compression) = match setup.tuning {
            Tuning::Same => (
                format!("{} B", setup.memtable_bytes),
                format!("{} bits a key on every level", setup.filter_bits),
                "none",
            ),
            Tuning::Best => (
                "its default".to_owned(),
                "its default".to_owned(),
                "its default",
            ),
        };
        let settings = settings(&[
            ("version", "3.1".to_owned()),
            (
                "a write returns",
                match setup.commit {
                    Commit::Os => "when the operating system has it (its default)".to_owned(),
                    Commit::Disk => "after persist(SyncData)".to_owned(),
                },
            ),
            ("cache", format!("{} B", setup.cache_bytes)),
            ("memtable", memtable),
            ("filter", filter),
            ("compression", compression.to_owned()),
            ("else", "its defaults".to_owned()),
        ]);
        Ok(Self {
            db,
            keyspace,
            commit: setup.commit,
            settings,
        })
    }

    fn session(&self) -> Result<FjallSession<'_>> {
        Ok(FjallSession { fjall: self })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait().map_err(error)?;
        self.keyspace.major_compact().map_err(error)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen at most")]
fn bits_as_f32(bits: u32) -> f32 {
    bits as f32
}

impl FjallSession<'_> {
    fn persist(&self) -> Result<()> {
        match self.fjall.commit {
            // Every write is handed to the operating system by itself.
            Commit::Os => Ok(()),
            Commit::Disk => self.fjall.db.persist(PersistMode::SyncData).map_err(error),
        }
    }
}

/// Shows `with` entries until it has enough.
fn show(
    entries: impl Iterator<Item = Guard>,
    mut with: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    for entry in entries {
        let (key, value) = entry.into_inner().map_err(error)?;
        if !with(&key, &value) {
            break;
        }
    }
    Ok(())
}

impl Session for FjallSession<'_> {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.fjall.keyspace.insert(key, value).map_err(error)?;
        self.persist()
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        // A batch by itself stays in a buffer of the process, unlike a single write.
        let mode = match self.fjall.commit {
            Commit::Os => PersistMode::Buffer,
            Commit::Disk => PersistMode::SyncData,
        };
        let mut batch = self.fjall.db.batch().durability(Some(mode));
        for (key, value) in entries.iter() {
            batch.insert(&self.fjall.keyspace, key, value);
        }
        batch.commit().map_err(error)
    }

    #[inline]
    fn get(&mut self, key: &[u8], mut with: impl FnMut(&[u8])) -> Result<bool> {
        let found = self.fjall.keyspace.get(key).map_err(error)?;
        if let Some(value) = &found {
            with(value);
        }
        Ok(found.is_some())
    }

    #[inline]
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        show(self.fjall.keyspace.range(key..), with)
    }

    fn reseek(&mut self, _: &[u8], _: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Err(failed(
            EngineName::Fjall,
            &"its iterators cannot be sent elsewhere",
        ))
    }

    fn scan(&mut self, direction: Direction, with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let entries = self.fjall.keyspace.iter();
        match direction {
            Direction::Forward => show(entries, with),
            Direction::Backward => show(entries.rev(), with),
        }
    }
}
