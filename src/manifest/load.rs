//! Reading CURRENT and MANIFEST. Never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base::checksum::Crc;
use base::fs::{FileSystem, read_small_file};
use base::sync::Arc;
use base::{Error, ErrorKind, FileKind, FileNumber, KeyspaceId, Result, SequenceNumber, ids};
use compaction::{KeyspaceCreated, KeyspaceEdit, Table, TableMeta, Version, VersionEdit};
use log::{Ending, Position, RecordKind, SegmentReader};

use super::{Identity, KeyspaceFacts, KeyspaceRecord};
use crate::change::check_name;
use crate::tuning::KeyspaceSettings;

/// Everything that CURRENT and MANIFEST say.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) identity: Identity,
    pub(crate) manifest: Option<FileNumber>,
    pub(crate) next_file_number: FileNumber,
    pub(crate) last_seq: SequenceNumber,
    pub(crate) log_durable_upto: Position,
    pub(crate) clean_close: bool,
    /// Where MANIFEST was cut, if it ended in a record that was not whole.
    pub(crate) tail_cut: Option<u64>,
    pub(crate) keyspaces: KeyspaceFacts,
}

impl Loaded {
    /// The state of a database that does not exist yet.
    pub(crate) fn new_database(name: &str) -> Self {
        let record = KeyspaceRecord {
            name: name.as_bytes().to_vec(),
            order: 0,
            options: Vec::new(),
            flushed_upto: SequenceNumber::ZERO,
            version: Arc::new(Version::empty()),
        };
        Self {
            identity: Identity::default(),
            manifest: None,
            next_file_number: FileNumber(1),
            last_seq: SequenceNumber::ZERO,
            log_durable_upto: Position::default(),
            clean_close: false,
            tail_cut: None,
            keyspaces: KeyspaceFacts {
                alive: BTreeMap::from([(KeyspaceId::DEFAULT, record)]),
                ..KeyspaceFacts::default()
            },
        }
    }
}

/// What CURRENT holds when MANIFEST `number` is live: its name and a checksum of the name.
pub(crate) fn current_contents(number: FileNumber) -> String {
    let name = FileKind::Manifest.file_name(number);
    let crc = Crc::plain().and(name.as_bytes()).finish();
    format!("{name} {crc:08x}\n")
}

fn read_current(fs: &dyn FileSystem, dir: &Path) -> Result<FileNumber> {
    let path = dir.join(ids::CURRENT);
    let damaged = || {
        Error::corruption(
            &path,
            0,
            "CURRENT is damaged; restore it from a copy, see `siltstone verify`",
        )
    };
    let bytes = read_small_file(fs, &path, 4096)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
    let (name, _) = text.split_once(' ').ok_or_else(damaged)?;
    match FileKind::parse(name) {
        Some((FileKind::Manifest, number)) if current_contents(number) == text => Ok(number),
        _ => Err(damaged()),
    }
}

/// Reads CURRENT and folds the edits of the MANIFEST it names.
///
/// # Errors
/// `Corruption` naming the file and the offset, `Unsupported` for a newer format.
pub(crate) fn load(
    fs: &dyn FileSystem,
    dir: &Path,
    make: &mut dyn FnMut(TableMeta) -> Arc<Table>,
) -> Result<Loaded> {
    let number = read_current(fs, dir)?;
    let path = FileKind::Manifest.path(dir, number);
    let mut reader = SegmentReader::open(fs, &path).map_err(|error| {
        if !error.is_not_found() {
            return error;
        }
        Error::corruption(
            &path,
            0,
            "the MANIFEST that CURRENT names is missing; restore it \
             from a copy, see `siltstone verify`",
        )
    })?;
    let database_id = reader.header().database_id;
    let mut fold = Fold::default();
    let mut parts = Vec::new();
    while let Some(record) = reader.next()? {
        let offset = record.position.offset;
        let edit = VersionEdit::decode(record.payload)
            .map_err(|error| error.with_path(&path).with_offset(offset))?;
        match record.meta.kind {
            RecordKind::EditPart => parts.push(edit),
            RecordKind::Edit => {
                for edit in parts.drain(..).chain([edit]) {
                    fold.take(edit, make)
                        .map_err(|error| error.with_path(&path).with_offset(offset))?;
                }
            }
            RecordKind::End => {}
            _ => {
                return Err(Error::corruption(
                    &path,
                    offset,
                    "record of the log in MANIFEST",
                ));
            }
        }
    }
    let tail_cut = match reader.ending() {
        Ending::Torn { offset } => Some(offset),
        Ending::Damaged { offset, .. } => {
            // Each edit is synced before the next is written, so that what lies before a whole one
            // had been on the disk.
            return Err(Error::corruption(
                &path,
                offset,
                "MANIFEST is damaged; restore it from a copy, see `siltstone verify`",
            ));
        }
        _ => None,
    };
    fold.finish(&path, number, database_id, tail_cut)
}

#[derive(Default)]
struct Fold {
    state: VersionEdit,
    keyspaces: KeyspaceFacts,
}

impl Fold {
    fn take(
        &mut self,
        edit: VersionEdit,
        make: &mut dyn FnMut(TableMeta) -> Arc<Table>,
    ) -> Result<()> {
        let state = &mut self.state;
        state.database_id = edit.database_id.or(state.database_id);
        state.hash_seed = edit.hash_seed.or(state.hash_seed);
        state.epoch = edit.epoch.or(state.epoch);
        state.branch_id = edit.branch_id.or(state.branch_id);
        state.next_file_number = if edit.clean_close == Some(true) {
            // What was handed out ahead and not used comes back: no file has such a number.
            edit.next_file_number.or(state.next_file_number)
        } else {
            edit.next_file_number.max(state.next_file_number)
        };
        state.last_seq = edit.last_seq.max(state.last_seq);
        state.log_durable_upto = edit.log_durable_upto.max(state.log_durable_upto);
        // A mark counts only as the last word: whatever follows it, the database was used again.
        state.clean_close = edit.clean_close;
        let keyspaces = &mut self.keyspaces;
        keyspaces.flushed_floor = edit
            .flushed_floor
            .unwrap_or_default()
            .max(keyspaces.flushed_floor);
        let next_id = edit.next_keyspace_id.map_or(0, |id| id.0);
        keyspaces.next_id = next_id.max(keyspaces.next_id);
        for edit in edit.keyspaces {
            self.take_keyspace(&edit, make)?;
        }
        Ok(())
    }

    fn take_keyspace(
        &mut self,
        edit: &KeyspaceEdit,
        make: &mut dyn FnMut(TableMeta) -> Arc<Table>,
    ) -> Result<()> {
        let keyspaces = &mut self.keyspaces;
        if let Some(created) = &edit.created {
            if keyspaces.dropped.contains_key(&edit.id) || keyspaces.alive.contains_key(&edit.id) {
                return Err(corrupt("keyspace created twice", edit.id));
            }
            keyspaces
                .alive
                .insert(edit.id, new_record(edit.id, created)?);
        }
        if let Some(dropped_at) = edit.dropped_at {
            // In a full state it is not known otherwise.
            keyspaces.alive.remove(&edit.id);
            keyspaces.dropped.insert(edit.id, dropped_at);
            return Ok(());
        }
        let record = keyspaces
            .alive
            .get_mut(&edit.id)
            .ok_or_else(|| corrupt("edit of an unknown keyspace", edit.id))?;
        record.version = Arc::new(record.version.apply(edit, make)?);
        record.flushed_upto = record
            .flushed_upto
            .max(edit.flushed_upto.unwrap_or_default());
        Ok(())
    }

    /// Fails if two keyspaces have one name, or if one has an id that is still to be given out.
    fn check_keyspaces(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let keyspaces = &self.keyspaces;
        for (id, record) in &keyspaces.alive {
            if !names.insert(&record.name) {
                return Err(corrupt("two keyspaces have one name", *id));
            }
        }
        let ids = keyspaces.alive.keys().chain(keyspaces.dropped.keys());
        match ids.max() {
            Some(last) if last.0 > 0 && last.0 >= keyspaces.next_id => {
                Err(corrupt("keyspace with an id that was not given out", *last))
            }
            _ => Ok(()),
        }
    }

    fn finish(
        self,
        path: &Path,
        number: FileNumber,
        header_id: u128,
        tail_cut: Option<u64>,
    ) -> Result<Loaded> {
        let missing = |what: &str| {
            Error::corruption(
                path,
                0,
                format!(
                    "MANIFEST does not say its {what}; restore it \
                     from a copy, see `siltstone verify`"
                ),
            )
        };
        self.check_keyspaces()
            .map_err(|error| error.with_path(path))?;
        let state = self.state;
        let database_id = state.database_id.ok_or_else(|| missing("database id"))?;
        if database_id != header_id {
            return Err(Error::corruption(path, 0, "MANIFEST of another database"));
        }
        if !self.keyspaces.alive.contains_key(&KeyspaceId::DEFAULT) {
            return Err(missing("default keyspace"));
        }
        let (ordinal, offset) = state.log_durable_upto.unwrap_or_default();
        Ok(Loaded {
            identity: Identity {
                database_id,
                hash_seed: state.hash_seed.ok_or_else(|| missing("hash seed"))?,
                epoch: state.epoch.ok_or_else(|| missing("epoch"))?,
                branch_id: state.branch_id.unwrap_or_default(),
            },
            manifest: Some(number),
            next_file_number: state
                .next_file_number
                .ok_or_else(|| missing("file counter"))?,
            last_seq: state.last_seq.unwrap_or_default(),
            log_durable_upto: Position { ordinal, offset },
            clean_close: state.clean_close == Some(true),
            tail_cut,
            keyspaces: self.keyspaces,
        })
    }
}

/// A keyspace as it was created; nothing of it is believed before it is checked.
fn new_record(id: KeyspaceId, created: &KeyspaceCreated) -> Result<KeyspaceRecord> {
    let name = std::str::from_utf8(&created.name).unwrap_or_default();
    check_name(name).map_err(|_| corrupt("keyspace with a name that cannot be", id))?;
    if created.order != 0 {
        let error = Error::new(ErrorKind::Unsupported, "unknown key order");
        return Err(error.with_value("order", created.order));
    }
    KeyspaceSettings::decode(&created.options).map_err(|error| error.with_value("keyspace", id))?;
    Ok(KeyspaceRecord {
        name: created.name.clone(),
        order: created.order,
        options: created.options.clone(),
        flushed_upto: SequenceNumber::ZERO,
        version: Arc::new(Version::empty()),
    })
}

fn corrupt(message: &str, id: KeyspaceId) -> Error {
    Error::new(ErrorKind::Corruption, message).with_value("keyspace", id)
}
