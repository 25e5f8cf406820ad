//! The file below every engine: records of an entry and a header, appended one after the other,
//! each synced if the setup says so. What a log could reach at best.

use base::fs::{File, FileSystem, OsFs};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, Result};

use super::{Commit, Direction, Engine, Entries, Session, Setup};

/// What stands before key and value in a record: as long as the headers in siltstone's log.
const HEADER_BYTES: usize = 20;
/// Reserved before the first record, so that no sync has to extend the file.
const RESERVED_BYTES: u64 = 256 << 20;

/// One file, its space reserved.
#[derive(Debug)]
pub struct Raw {
    file: Arc<dyn File>,
    offset: Mutex<u64>,
    commit: Commit,
    is_reserved: bool,
}

/// What one thread works with.
#[derive(Debug)]
pub struct RawSession<'a> {
    raw: &'a Raw,
    record: Vec<u8>,
}

impl Engine for Raw {
    type Session<'a> = RawSession<'a>;

    fn open(setup: &Setup) -> Result<Self> {
        let file = OsFs.create(&setup.dir.join("records"))?;
        let is_reserved = file.reserve(RESERVED_BYTES)?;
        file.sync()?;
        Ok(Self {
            file,
            offset: Mutex::new(0),
            commit: setup.commit,
            is_reserved,
        })
    }

    fn session(&self) -> Result<RawSession<'_>> {
        Ok(RawSession {
            raw: self,
            record: Vec::new(),
        })
    }

    fn settings(&self) -> Vec<(String, String)> {
        let space = if self.is_reserved {
            "reserved before"
        } else {
            "not reserved: the file system cannot"
        };
        vec![
            ("version".to_owned(), "one file".to_owned()),
            ("header".to_owned(), format!("{HEADER_BYTES} B a record")),
            ("space".to_owned(), space.to_owned()),
        ]
    }

    fn compact(&self) -> Result<()> {
        Err(unsupported())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl RawSession<'_> {
    fn append(&mut self) -> Result<()> {
        let len = self.record.len() as u64;
        let mut offset = self.raw.offset.lock();
        self.raw.file.write_at(*offset, &self.record)?;
        *offset += len;
        match self.raw.commit {
            Commit::Os => Ok(()),
            Commit::Disk => self.raw.file.sync(),
        }
    }
}

impl Session for RawSession<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.record.clear();
        self.record.resize(HEADER_BYTES, 0);
        self.record.extend_from_slice(key);
        self.record.extend_from_slice(value);
        self.append()
    }

    fn put_batch(&mut self, entries: &Entries) -> Result<()> {
        self.record.clear();
        self.record.resize(HEADER_BYTES, 0);
        for (key, value) in entries.iter() {
            self.record.extend_from_slice(key);
            self.record.extend_from_slice(value);
        }
        self.append()
    }

    fn get(&mut self, _: &[u8], _: impl FnMut(&[u8])) -> Result<bool> {
        Err(unsupported())
    }

    fn seek(&mut self, _: &[u8], _: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Err(unsupported())
    }

    fn reseek(&mut self, _: &[u8], _: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Err(unsupported())
    }

    fn scan(&mut self, _: Direction, _: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        Err(unsupported())
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "the raw file only takes records")
}
