//! LevelDB, through its C interface.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use base::Result;
use tools::bench::engine::{
    Commit, Direction, Engine, EngineName, Entries, Session, Setup, Tuning,
};

use crate::{failed, settings};

mod sys;

use sys::{Batch, Db, Iter, Options, ReadOptions, WriteOptions};

/// Tables that LevelDB may keep open: all of them.
const OPEN_FILES_MAX: i32 = 100_000;
/// Bytes of a table at its best: fewer, larger ones than the 2 MiB of its default.
const BEST_TABLE_BYTES: usize = 64 << 20;

/// An open database.
pub(crate) struct LevelDb {
    db: Db,
    read: ReadOptions,
    write: WriteOptions,
    settings: Vec<(String, String)>,
}

/// What one thread works with.
pub(crate) struct LevelDbSession<'a> {
    leveldb: &'a LevelDb,
    batch: Batch,
    iter: Option<Iter<'a>>,
}

/// What LevelDB said was wrong, in our words.
fn error(message: &str) -> base::Error {
    failed(EngineName::LevelDb, &message)
}

impl Engine for LevelDb {
    type Session<'a> = LevelDbSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let path = CString::new(setup.dir.as_os_str().as_bytes())
            .map_err(|_| error("a path with a zero byte"))?;
        let bits = i32::try_from(setup.filter_bits).unwrap_or(i32::MAX);
        let mut options = Options::new();
        options.set_create_if_missing();
        options.set_write_buffer_bytes(setup.memtable_bytes);
        options.set_cache_bytes(setup.cache_bytes);
        options.set_filter_bits(bits);
        options.set_no_compression();
        options.set_open_files_max(OPEN_FILES_MAX);
        let table_bytes = match setup.tuning {
            Tuning::Same => "2 MiB (its default)",
            Tuning::Best => {
                options.set_table_bytes(BEST_TABLE_BYTES);
                "64 MiB"
            }
        };
        let (major, minor) = sys::version();
        let settings = settings(&[
            ("version", format!("{major}.{minor}, C interface")),
            (
                "a write returns",
                match setup.commit {
                    Commit::Os => "when the operating system has it (its default)".to_owned(),
                    Commit::Disk => "after fdatasync (sync=true)".to_owned(),
                },
            ),
            ("cache", format!("{} B", setup.cache_bytes)),
            ("write buffer", format!("{} B", setup.memtable_bytes)),
            ("filter", format!("{bits} bits a key")),
            ("compression", "none".to_owned()),
            ("tables", table_bytes.to_owned()),
            (
                "checksums",
                "not verified by reads (its default)".to_owned(),
            ),
            ("else", "its defaults".to_owned()),
        ]);
        Ok(Self {
            db: Db::open(options, &path)?,
            read: ReadOptions::new(),
            write: WriteOptions::new(setup.commit),
            settings,
        })
    }

    fn session(&self) -> Result<LevelDbSession<'_>> {
        Ok(LevelDbSession {
            leveldb: self,
            batch: Batch::new(),
            iter: None,
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn compact(&self) -> Result<()> {
        self.db.compact();
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl<'a> LevelDbSession<'a> {
    #[inline]
    fn cursor(&self) -> Iter<'a> {
        self.leveldb.db.cursor(&self.leveldb.read)
    }
}

/// Shows `with` the entries from where `iter` stands on, until it has enough.
#[inline]
fn show(iter: &mut Iter<'_>, mut with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
    while let Some((key, value)) = iter.entry() {
        if !with(key, value) {
            return Ok(());
        }
        iter.next();
    }
    iter.status()
}

impl Session for LevelDbSession<'_> {
    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.leveldb.db.put(&self.leveldb.write, key, value)
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        self.batch.clear();
        for (key, value) in entries.iter() {
            self.batch.put(key, value);
        }
        self.leveldb.db.write(&self.leveldb.write, &mut self.batch)
    }

    #[inline]
    fn get(&mut self, key: &[u8], with: impl FnMut(&[u8])) -> Result<bool> {
        self.leveldb.db.get(&self.leveldb.read, key, with)
    }

    #[inline]
    fn seek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut iter = self.cursor();
        iter.seek(key);
        show(&mut iter, with)
    }

    #[inline]
    fn reseek(&mut self, key: &[u8], with: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let fresh = self.iter.is_none().then(|| self.cursor());
        let iter = match fresh {
            Some(fresh) => self.iter.insert(fresh),
            None => self.iter.as_mut().expect("made by the call before"),
        };
        iter.seek(key);
        show(iter, with)
    }

    fn scan(
        &mut self,
        direction: Direction,
        mut with: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let mut iter = self.cursor();
        match direction {
            Direction::Forward => {
                iter.seek_to_first();
                show(&mut iter, with)
            }
            Direction::Backward => {
                iter.seek_to_last();
                while let Some((key, value)) = iter.entry() {
                    if !with(key, value) {
                        return Ok(());
                    }
                    iter.prev();
                }
                iter.status()
            }
        }
    }
}
