//! The files of a database, looked at without opening it: CURRENT, and what MANIFEST adds up to.
//!
//! Never writes. A writer may be at work meanwhile, except where the lock is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::checksum::Crc;
use base::error::{Error, ErrorKind, Result};
use base::fs::{FileSystem, LockGuard, read_small_file};
use base::{FileKind, FileNumber, KeyspaceId, SequenceNumber, ids};
use compaction::{KeyspaceEdit, Reaper, Table, TableMeta, Version, VersionEdit};
use log::{Ending, Position, RecordKind, RecordMeta, SegmentReader};
use sstable::{ReadMode, ReaderOptions, TableCache, TableHandle, Verify};

use super::failure::{Failure, Outcome};
use crate::read_only_fs::ReadOnlyFs;

/// CURRENT is one short line.
const CURRENT_BYTES_MAX: u64 = 4096;
const OPEN_TABLES_MAX: usize = 16;

/// A directory that holds a database, or what is left of one.
pub(crate) struct Directory {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) path: PathBuf,
    /// The files that have names of ours.
    pub(crate) files: Vec<(FileKind, FileNumber)>,
    /// Names that are not ours.
    pub(crate) foreign: Vec<String>,
}

impl Directory {
    /// Looks what is there.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        Self::open_on(Arc::new(ReadOnlyFs::new()), path)
    }

    /// The same on `fs`.
    pub(crate) fn open_on(fs: Arc<dyn FileSystem>, path: &Path) -> Outcome<Self> {
        match fs.status(path)? {
            None => return Err(Failure::no_database(path)),
            Some(status) if !status.is_dir => {
                // As an open says it.
                return Err(Error::invalid_argument("not a directory")
                    .with_path(path)
                    .into());
            }
            Some(_) => {}
        }
        let mut files = Vec::new();
        let mut foreign = Vec::new();
        let mut has_current = false;
        for entry in fs.list(path)? {
            match FileKind::parse(&entry.name) {
                Some(file) if !entry.is_dir => files.push(file),
                _ if entry.name == ids::CURRENT => has_current = true,
                _ if is_of_the_house(&entry.name) => {}
                _ => foreign.push(entry.name),
            }
        }
        if !has_current && files.is_empty() {
            return Err(Failure::no_database(path));
        }
        files.sort_unstable();
        foreign.sort_unstable();
        Ok(Self {
            fs,
            path: path.to_owned(),
            files,
            foreign,
        })
    }

    /// The numbers of all files of a kind, upwards.
    pub(crate) fn numbers(&self, kind: FileKind) -> impl Iterator<Item = FileNumber> + '_ {
        let files = self.files.iter();
        files.filter_map(move |(found, number)| (*found == kind).then_some(*number))
    }

    /// Where file `number` lies.
    pub(crate) fn file(&self, kind: FileKind, number: FileNumber) -> PathBuf {
        kind.path(&self.path, number)
    }

    /// Keeps writers out for as long as the guard lives; `None` where there can be none.
    pub(crate) fn lock(&self) -> Outcome<Option<Box<dyn LockGuard>>> {
        match self.fs.lock(&self.path.join(ids::LOCK)) {
            Ok(guard) => Ok(Some(guard)),
            Err(error) if error.kind() == ErrorKind::AlreadyOpen => Err(Failure::trouble(
                "the database is in use by a process; close it first",
            )),
            // No lock file yet, or a medium that nobody can write to.
            Err(_) => Ok(None),
        }
    }

    /// The MANIFEST that CURRENT names.
    pub(crate) fn current(&self) -> Result<FileNumber> {
        let path = self.path.join(ids::CURRENT);
        let bytes = read_small_file(&*self.fs, &path, CURRENT_BYTES_MAX).map_err(|error| {
            if error.is_not_found() {
                Error::corruption(
                    &path,
                    0,
                    "CURRENT is missing beside the files of a database",
                )
            } else {
                error
            }
        })?;
        parse_current(&bytes).ok_or_else(|| Error::corruption(&path, 0, "CURRENT is damaged"))
    }

    /// Opens the live MANIFEST.
    pub(crate) fn manifest(&self) -> Result<ManifestReader> {
        let number = self.current()?;
        let path = self.file(FileKind::Manifest, number);
        let segment = SegmentReader::open(&*self.fs, &path).map_err(|error| {
            if error.is_not_found() {
                Error::corruption(&path, 0, "the MANIFEST that CURRENT names is missing")
            } else {
                error
            }
        })?;
        Ok(ManifestReader {
            number,
            path,
            segment,
        })
    }

    /// Adds up the edits of the live MANIFEST.
    pub(crate) fn state(&self) -> Result<State> {
        let mut manifest = self.manifest()?;
        let mut state = State::new(self, &manifest);
        let mut parts = Vec::new();
        while let Some(record) = manifest.next()? {
            state.edit_count += 1;
            let is_last = record.meta.kind == RecordKind::Edit;
            parts.push(record.edit);
            if is_last {
                for edit in parts.drain(..) {
                    state.take(&edit).map_err(|error| {
                        error
                            .with_path(&manifest.path)
                            .with_offset(record.position.offset)
                    })?;
                }
            }
        }
        state.ending = manifest.ending()?;
        match state.facts.database_id {
            Some(id) if id == manifest.segment.header().database_id => Ok(state),
            Some(_) => Err(manifest.damaged("it belongs to another database")),
            None => Err(manifest.damaged("it holds no whole state")),
        }
    }
}

/// Refuses a copy, which need not be there yet, inside the database directory `dir`.
///
/// # Errors
/// If it would lie there: files of one database among those of another are nobody's.
pub(crate) fn refuse_inside(copy: &Path, dir: &Path) -> Outcome<()> {
    // Two paths may name one place.
    let place_of = |path: &Path| {
        let is_here = path.as_os_str().is_empty();
        std::fs::canonicalize(if is_here { Path::new(".") } else { path }).ok()
    };
    let (Some(dir), Some(place)) = (place_of(dir), copy.ancestors().find_map(place_of)) else {
        return Ok(());
    };
    let is_itself = place_of(copy).is_some_and(|copy| copy == dir);
    if place.starts_with(&dir) && !is_itself {
        let message = "the copy must not lie inside the database itself";
        return Err(Error::invalid_argument(message).with_path(copy).into());
    }
    Ok(())
}

fn is_of_the_house(name: &str) -> bool {
    [
        ids::LOCK,
        ids::LOST,
        ids::RESERVE,
        ids::CURRENT_TEMPORARY,
        ids::STATS,
        ids::STATS_TEMPORARY,
    ]
    .contains(&name)
}

/// `MANIFEST-000012 1a2b3c4d` and a line end: the name, and a checksum of it.
fn parse_current(bytes: &[u8]) -> Option<FileNumber> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (name, crc) = text.strip_suffix('\n')?.split_once(' ')?;
    let wanted = Crc::plain().and(name.as_bytes()).finish();
    match FileKind::parse(name)? {
        (FileKind::Manifest, number) if crc == format!("{wanted:08x}") => Some(number),
        _ => None,
    }
}

/// Reads the edits of a MANIFEST.
pub(crate) struct ManifestReader {
    pub(crate) number: FileNumber,
    pub(crate) path: PathBuf,
    pub(crate) segment: SegmentReader,
}

impl ManifestReader {
    /// How it ends, once there is no next edit.
    ///
    /// # Errors
    /// `Corruption` if whole records follow a damaged one: they had been synced after it.
    pub(crate) fn ending(&self) -> Result<Ending> {
        match self.segment.ending() {
            Ending::Damaged { offset, .. } => {
                let message = "MANIFEST is damaged in the middle";
                Err(Error::corruption(&self.path, offset, message))
            }
            ending => Ok(ending),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        let offset = self.segment.position().offset;
        Error::corruption(&self.path, offset, format!("MANIFEST is damaged: {what}"))
    }
}

/// One record of a MANIFEST.
pub(crate) struct ManifestRecord {
    pub(crate) meta: RecordMeta,
    pub(crate) position: Position,
    pub(crate) edit: VersionEdit,
}

impl ManifestReader {
    /// The next edit, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<ManifestRecord>> {
        loop {
            let Some(record) = self.segment.next()? else {
                return Ok(None);
            };
            let offset = record.position.offset;
            match record.meta.kind {
                RecordKind::Edit | RecordKind::EditPart => {
                    let edit = VersionEdit::decode(record.payload)
                        .map_err(|error| error.with_path(&self.path).with_offset(offset))?;
                    return Ok(Some(ManifestRecord {
                        meta: record.meta,
                        position: record.position,
                        edit,
                    }));
                }
                RecordKind::Begin | RecordKind::End => {}
                _ => {
                    let message = "a record of the log in MANIFEST";
                    return Err(Error::corruption(&self.path, offset, message));
                }
            }
        }
    }
}

/// What MANIFEST says the database is.
pub(crate) struct State {
    pub(crate) manifest: FileNumber,
    pub(crate) edit_count: u64,
    pub(crate) ending: Ending,
    pub(crate) facts: VersionEdit,
    pub(crate) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// When those were dropped to which the log may still hold writes.
    pub(crate) dropped: BTreeMap<KeyspaceId, SequenceNumber>,
    tables: Arc<TableCache>,
    reaper: Arc<dyn Reaper>,
}

/// One keyspace.
pub(crate) struct Keyspace {
    pub(crate) name: Vec<u8>,
    /// As `KeyspaceOptions::decode` reads them.
    pub(crate) options: Vec<u8>,
    pub(crate) flushed_upto: SequenceNumber,
    pub(crate) version: Version,
}

/// Lets every file be: nothing is removed here.
#[derive(Debug)]
struct KeepAll;

impl Reaper for KeepAll {
    fn reap(&self, _table: Arc<TableHandle>) {}
}

impl State {
    fn new(directory: &Directory, manifest: &ManifestReader) -> Self {
        let options = ReaderOptions {
            mode: ReadMode::Positioned,
            verify: Verify::Always,
            ..ReaderOptions::default()
        };
        let fs = Arc::clone(&directory.fs);
        let tables = TableCache::new(fs, directory.path.clone(), options, OPEN_TABLES_MAX);
        Self {
            manifest: manifest.number,
            edit_count: 0,
            ending: Ending::Clean,
            facts: VersionEdit::default(),
            keyspaces: BTreeMap::new(),
            dropped: BTreeMap::new(),
            tables,
            reaper: Arc::new(KeepAll),
        }
    }

    /// Everything of the log up to here had reached the disk.
    pub(crate) fn log_durable_upto(&self) -> Position {
        let (ordinal, offset) = self.facts.log_durable_upto.unwrap_or_default();
        Position { ordinal, offset }
    }

    /// Every write up to here is in tables, in all keyspaces.
    pub(crate) fn floor(&self) -> SequenceNumber {
        let floors = self
            .keyspaces
            .values()
            .map(|keyspace| keyspace.flushed_upto);
        let lowest = floors.min().unwrap_or(SequenceNumber::ZERO);
        lowest.max(self.facts.flushed_floor.unwrap_or_default())
    }

    /// Tables or drops up to here are durable, and so must the log be.
    pub(crate) fn flushed_max(&self) -> SequenceNumber {
        let flushed = self
            .keyspaces
            .values()
            .map(|keyspace| keyspace.flushed_upto);
        let highest = flushed.chain(self.dropped.values().copied()).max();
        highest
            .unwrap_or_default()
            .max(self.facts.flushed_floor.unwrap_or_default())
    }

    fn take(&mut self, edit: &VersionEdit) -> Result<()> {
        let facts = &mut self.facts;
        facts.database_id = edit.database_id.or(facts.database_id);
        facts.hash_seed = edit.hash_seed.or(facts.hash_seed);
        facts.epoch = edit.epoch.or(facts.epoch);
        facts.branch_id = edit.branch_id.or(facts.branch_id);
        facts.next_file_number = edit.next_file_number.max(facts.next_file_number);
        facts.last_seq = edit.last_seq.max(facts.last_seq);
        facts.log_floor = edit.log_floor.max(facts.log_floor);
        facts.log_durable_upto = edit.log_durable_upto.max(facts.log_durable_upto);
        facts.clean_close = edit.clean_close;
        facts.flushed_floor = edit.flushed_floor.max(facts.flushed_floor);
        facts.next_keyspace_id = edit.next_keyspace_id.max(facts.next_keyspace_id);
        for keyspace in &edit.keyspaces {
            self.take_keyspace(keyspace)?;
        }
        Ok(())
    }

    fn take_keyspace(&mut self, edit: &KeyspaceEdit) -> Result<()> {
        let wrong = |message: &str| {
            Err(Error::new(ErrorKind::Corruption, message).with_value("keyspace", edit.id))
        };
        if let Some(created) = &edit.created {
            let keyspace = Keyspace {
                name: created.name.clone(),
                options: created.options.clone(),
                flushed_upto: SequenceNumber::ZERO,
                version: Version::empty(),
            };
            let is_dropped = self.dropped.contains_key(&edit.id);
            if self.keyspaces.insert(edit.id, keyspace).is_some() || is_dropped {
                return wrong("a keyspace was created twice");
            }
        }
        if let Some(dropped_at) = edit.dropped_at {
            self.keyspaces.remove(&edit.id);
            self.dropped.insert(edit.id, dropped_at);
            return Ok(());
        }
        let Some(keyspace) = self.keyspaces.get_mut(&edit.id) else {
            return wrong("an edit of an unknown keyspace");
        };
        let (tables, reaper) = (&self.tables, &self.reaper);
        let mut make = |meta: TableMeta| {
            let handle = tables.handle(meta.number, meta.file_id, meta.file_bytes);
            Table::new(meta, handle, Arc::clone(reaper))
        };
        keyspace.version = keyspace.version.apply(edit, &mut make)?;
        keyspace.flushed_upto = edit
            .flushed_upto
            .unwrap_or_default()
            .max(keyspace.flushed_upto);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_current_is_believed() {
        let name = "MANIFEST-000012";
        let crc = Crc::plain().and(name.as_bytes()).finish();
        let whole = format!("{name} {crc:08x}\n");
        assert_eq!(parse_current(whole.as_bytes()), Some(FileNumber(12)));
        for at in 0..whole.len() {
            assert_eq!(parse_current(&whole.as_bytes()[..at]), None, "{at}");
            let mut damaged = whole.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(parse_current(&damaged), None, "{at}");
        }
    }
}
