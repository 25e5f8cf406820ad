//! A copy of a whole database, made beside writers: tables by hard links, the end of the log once
//! more, MANIFEST and CURRENT anew.
//!
//! All keyspaces are copied at one sequence number. What is in no table yet is taken from the log:
//! a flush could not stop at the same number in all keyspaces while writes go on. Only where the
//! log would be long, memtables are flushed before.
//!
//! The copy is made in a directory beside the one asked for, and gets its name when it is whole and
//! durable. Nothing of the database is locked meanwhile; tables are pinned, and should the log be
//! flushed away underneath, it begins again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base::fs::{FileSystem, create_dir_all, parent_of};
use base::sync::Arc;
use base::{Error, ErrorKind, FileKind, Result, SequenceNumber, ids};
use compaction::Table;
use log::{History, Position, TailUpto};
use sstable::{ReadMode, ReaderOptions, TableReader, Verify};

use crate::background::Background;
use crate::commit::CommitPath;
use crate::manifest::{CopyState, KeyspaceFacts, VersionSet};
use crate::superversion::KeyspaceState;

/// What is appended to the name of the directory while the copy is made.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// So often it begins again because the log was flushed away underneath.
const ATTEMPT_COUNT_MAX: usize = 16;
/// If the copy of the log would take more than this part of what the log may hold, memtables are
/// flushed before.
const LOG_PART_MAX: u64 = 16;
/// A table that cannot be linked is copied in pieces of this size.
const COPY_PIECE_BYTES: usize = 256 << 10;

/// What [`Db::checkpoint`](crate::Db::checkpoint) made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Everything up to this number is in it, and nothing after.
    pub seq: SequenceNumber,
    /// How many tables it has.
    pub table_count: u64,
    /// Bytes of tables that it shares with the database.
    pub linked_bytes: u64,
    /// Bytes of tables that had to be copied.
    pub copied_bytes: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
}

/// What a copy is made of.
pub(crate) struct Source<'a> {
    pub(crate) commit: &'a CommitPath,
    pub(crate) background: &'a Background,
}

impl Source<'_> {
    /// Makes a copy at `path`.
    ///
    /// # Errors
    /// `InvalidArgument` if there is something at `path` or beside it where the copy is made;
    /// otherwise what stopped it. What was made so far is removed again.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<Checkpoint> {
        self.commit.health.check_writable()?;
        let _call = self.background.begin_call()?;
        let fs = Arc::clone(self.versions().place().0);
        let temporary = temporary_of(path)?;
        check_target(&*fs, path)?;
        create_dir_all(&*fs, parent_of(path))?;
        check_temporary(&*fs, &temporary)?;
        fs.create_dir(&temporary)?;
        // CURRENT is worth no more than the name of the directory that it lies in.
        let named = fs.sync_dir(parent_of(path));
        let made = named.and_then(|()| {
            let made = self.fill(&*fs, &temporary)?;
            publish(&*fs, &temporary, path).map(|()| made)
        });
        if made.is_err() {
            // Whatever stays goes with the next attempt.
            let _ = clear(&*fs, &temporary).and_then(|()| fs.remove_dir(&temporary));
        }
        made
    }

    fn versions(&self) -> &VersionSet {
        self.background.tree.versions()
    }

    /// Makes the copy in the empty directory `dir`.
    fn fill(&self, fs: &dyn FileSystem, dir: &Path) -> Result<Checkpoint> {
        clear(fs, dir)?;
        self.shorten_log();
        for _ in 1..ATTEMPT_COUNT_MAX {
            match self.attempt(fs, dir) {
                Err(error) if error.is_not_found() => clear(fs, dir)?,
                result => return result,
            }
        }
        self.attempt(fs, dir)
    }

    /// Flushes if there would be much of the log to copy. That is a matter of speed: what cannot be
    /// flushed now is in the log.
    fn shorten_log(&self) {
        let commit = self.commit;
        let floor = commit.keyspaces.flushed_floor(commit.snapshots.visible());
        let sealed = commit.log.sealed().into_iter();
        let needed = sealed.filter(|segment| segment.last_seq > floor);
        let bytes = needed.map(|segment| segment.bytes).sum::<u64>() + commit.log.end().offset;
        if bytes <= commit.log_bytes_max / LOG_PART_MAX {
            return;
        }
        for memtable in commit.keyspaces.unflushed() {
            let _ = self.flush(&memtable.keyspace);
        }
    }

    fn flush(&self, keyspace: &Arc<KeyspaceState>) -> Result<()> {
        match self.commit.seal(keyspace)? {
            Some(memtable) => self.background.wait_for_flush(keyspace, &memtable),
            None => Ok(()),
        }
    }

    /// Makes the copy.
    ///
    /// # Errors
    /// `NotFound` if the log was flushed away in the meantime: the next attempt needs less of it.
    fn attempt(&self, fs: &dyn FileSystem, dir: &Path) -> Result<Checkpoint> {
        let commit = self.commit;
        // INVARIANT: in this order. What is in tables by the first is in tables that the second
        // has, and the number is not below anything that these hold.
        let floor = commit.keyspaces.flushed_floor(commit.snapshots.visible());
        let mut keyspaces = self.versions().keyspaces();
        let seq = commit.snapshots.visible();
        keyspaces.flushed_floor = keyspaces.flushed_floor.max(floor);
        assert!(
            keyspaces.flushed_max() <= seq,
            "what is in tables was visible before"
        );
        let mut made = Checkpoint {
            seq,
            ..Checkpoint::default()
        };
        // First what can vanish; tables are pinned.
        let log_end = self.copy_log(dir, keyspaces.floor(), seq)?;
        made.log_bytes = log_end.offset;
        self.add_tables(fs, dir, &keyspaces, &mut made)?;
        fs.sync_dir(dir)?;
        let copy = CopyState {
            keyspaces,
            last_seq: seq,
            log_end,
        };
        self.versions().write_copy(dir, copy)?;
        Ok(made)
    }

    /// Copies the records behind `floor` up to `seq`. Returns where the copy ends.
    fn copy_log(&self, dir: &Path, floor: SequenceNumber, seq: SequenceNumber) -> Result<Position> {
        let log = &self.commit.log;
        if seq <= floor {
            return History::create(log, dir.to_owned(), floor)?.finish();
        }
        let mut tail = log.tail(floor.plus(1), TailUpto::Appended)?;
        let mut history: Option<History> = None;
        while let Some(record) = tail.next(std::time::Duration::ZERO)? {
            self.background.check_going()?;
            if record.meta.last_seq() > seq {
                break;
            }
            if history.is_none() {
                let before = floor.min(record.meta.first_seq.before());
                history = Some(History::create(log, dir.to_owned(), before)?);
            }
            let history = history.as_mut().expect("made above");
            history.append(&record)?;
            if history.last_seq() >= seq {
                break;
            }
        }
        match history {
            Some(history) => history.finish(),
            None => History::create(log, dir.to_owned(), floor)?.finish(),
        }
    }

    fn add_tables(
        &self,
        fs: &dyn FileSystem,
        dir: &Path,
        keyspaces: &KeyspaceFacts,
        made: &mut Checkpoint,
    ) -> Result<()> {
        let source = self.versions().place().1;
        let mut can_link = true;
        let versions = keyspaces.alive.values().map(|record| &record.version);
        for (_, table) in versions.flat_map(|version| version.tables()) {
            self.background.check_going()?;
            let name = FileKind::Table.file_name(table.meta.number);
            let (from, to) = (source.join(&name), dir.join(&name));
            // Another device, a file system without links, too many links: all of it is copied.
            can_link = can_link && fs.hard_link(&from, &to).is_ok();
            made.table_count += 1;
            if can_link {
                made.linked_bytes += table.meta.file_bytes;
            } else {
                copy_table(fs, &from, &to, table)?;
                made.copied_bytes += table.meta.file_bytes;
            }
        }
        Ok(())
    }
}

/// Where the copy at `path` is made.
fn temporary_of(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let message = "a checkpoint needs the name of a new directory";
        return Err(Error::invalid_argument(message).with_path(path));
    };
    let mut name = OsString::from(name);
    name.push(TEMPORARY_SUFFIX);
    Ok(path.with_file_name(name))
}

/// Refuses a place where there is something.
fn check_target(fs: &dyn FileSystem, path: &Path) -> Result<()> {
    let refuse = |message: &str| Err(Error::invalid_argument(message).with_path(path));
    match fs.status(path)? {
        None => Ok(()),
        Some(status) if !status.is_dir => refuse("not a directory"),
        Some(_) if fs.list(path)?.is_empty() => Ok(()),
        Some(_) => refuse("a checkpoint needs a new or an empty directory"),
    }
}

/// Refuses what is there already unless it can only be what a crash left of a checkpoint.
fn check_temporary(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    let Some(status) = fs.status(dir)? else {
        return Ok(());
    };
    let mut foreign = None;
    if status.is_dir {
        let is_ours = |name: &str| {
            // A whole copy that only lacks its name has CURRENT, and so has any database.
            name == ids::CURRENT_TEMPORARY || FileKind::parse(name).is_some()
        };
        let entries = fs.list(dir)?.into_iter();
        foreign = entries.map(|entry| entry.name).find(|name| !is_ours(name));
    }
    if status.is_dir && foreign.is_none() {
        return Ok(());
    }
    let error = Error::invalid_argument(
        "the checkpoint is made here first, and there is something; move it away",
    );
    Err(error
        .with_value("found", foreign.unwrap_or_default())
        .with_path(dir))
}

/// Gives the whole copy its name, durably.
fn publish(fs: &dyn FileSystem, temporary: &Path, path: &Path) -> Result<()> {
    fs.rename(temporary, path)?;
    fs.sync_dir(parent_of(path)).inspect_err(|_| {
        // Nobody shall build on a name that a power cut may take.
        let _ = fs.rename(path, temporary);
    })
}

/// Removes every file of ours in `dir`.
fn clear(fs: &dyn FileSystem, dir: &Path) -> Result<()> {
    for entry in fs.list(dir)? {
        fs.remove_file(&dir.join(&entry.name))?;
    }
    Ok(())
}

/// Copies a table and checks every block of the copy.
fn copy_table(fs: &dyn FileSystem, from: &Path, to: &Path, table: &Table) -> Result<()> {
    let source = fs.open(from)?;
    match fs.remove_file(to) {
        Err(error) if !error.is_not_found() => return Err(error),
        // A link that was made and reported as failed.
        Ok(()) | Err(_) => {}
    }
    let target = fs.create(to)?;
    let mut buffer = vec![0; COPY_PIECE_BYTES];
    let mut offset = 0;
    loop {
        let read = source.read_at(offset, &mut buffer)?;
        if read == 0 {
            break;
        }
        target.write_at(offset, &buffer[..read])?;
        offset += read as u64;
    }
    target.sync()?;
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        verify: Verify::Always,
        ..ReaderOptions::default()
    };
    let (file_id, file_bytes) = (table.meta.file_id, table.meta.file_bytes);
    let opened = TableReader::open(fs.open(to)?, &options, Some(file_id), file_bytes);
    let verified = opened.and_then(|reader| reader.verify());
    verified.map(|_| ()).map_err(|error| {
        // What is wrong with the copy is wrong with the table.
        match error.kind() {
            ErrorKind::Corruption => error.with_path(from),
            _ => error,
        }
    })
}
