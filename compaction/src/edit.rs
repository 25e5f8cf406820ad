//! The version edit: the difference between two states of the tree, and its bytes.
//!
#![doc = include_str!("../FORMAT.md")]

use base::coding::Malformed;
use base::error::{Error, ErrorKind, Result};
use base::{FileNumber, KeyspaceId, Level, SequenceNumber};

use crate::levels::TableMeta;

mod decode;
mod encode;

/// The longest payload of one MANIFEST record, in bytes.
pub const EDIT_BYTES_MAX: usize = 64 << 20;
/// The most keyspace edits in one payload: what a decoder may allocate stays in proportion.
pub const KEYSPACE_EDITS_MAX: usize = 1 << 16;

/// Tags of the fields of a version edit. Part of the format: append only.
mod tag {
    pub(super) const DATABASE_ID: u32 = 1;
    pub(super) const HASH_SEED: u32 = 2;
    pub(super) const EPOCH: u32 = 3;
    pub(super) const NEXT_FILE_NUMBER: u32 = 4;
    pub(super) const LAST_SEQ: u32 = 5;
    pub(super) const LOG_FLOOR: u32 = 6;
    pub(super) const LOG_DURABLE_UPTO: u32 = 7;
    pub(super) const CLEAN_CLOSE: u32 = 8;
    pub(super) const BRANCH_ID: u32 = 9;
    pub(super) const KEYSPACE: u32 = 10;
    pub(super) const FLUSHED_FLOOR: u32 = 11;
    pub(super) const NEXT_KEYSPACE_ID: u32 = 12;

    pub(super) mod keyspace {
        pub(in crate::edit) const ID: u32 = 1;
        pub(in crate::edit) const CREATED: u32 = 2;
        pub(in crate::edit) const DROPPED_AT: u32 = 3;
        pub(in crate::edit) const FLUSHED_UPTO: u32 = 4;
        pub(in crate::edit) const REMOVED: u32 = 5;
        pub(in crate::edit) const ADDED: u32 = 6;
    }

    pub(super) mod table {
        pub(in crate::edit) const NUMBER: u32 = 1;
        pub(in crate::edit) const FILE_ID: u32 = 2;
        pub(in crate::edit) const FILE_BYTES: u32 = 3;
        pub(in crate::edit) const ENTRY_COUNT: u32 = 4;
        pub(in crate::edit) const TOMBSTONE_COUNT: u32 = 5;
        pub(in crate::edit) const RAW_BYTES: u32 = 6;
        pub(in crate::edit) const SMALLEST: u32 = 7;
        pub(in crate::edit) const LARGEST: u32 = 8;
        pub(in crate::edit) const LARGEST_EXCLUSIVE: u32 = 9;
        pub(in crate::edit) const SEQ_SMALLEST: u32 = 10;
        pub(in crate::edit) const SEQ_LARGEST: u32 = 11;
        pub(in crate::edit) const GLOBAL_SEQ: u32 = 12;
        pub(in crate::edit) const LOCATION: u32 = 13;
        pub(in crate::edit) const COMPRESSION: u32 = 14;
        pub(in crate::edit) const CREATED_MICROS: u32 = 15;
        pub(in crate::edit) const HIDDEN_COUNT: u32 = 16;
    }
}

/// The difference between two states of a database; one record of MANIFEST.
///
/// What is absent stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    /// Random, drawn once when the database is created.
    pub database_id: Option<u128>,
    /// Seed of the key hashes, drawn once.
    pub hash_seed: Option<u64>,
    /// Raised by every open after an unclean end.
    pub epoch: Option<u64>,
    /// No file of this number or above exists.
    pub next_file_number: Option<FileNumber>,
    /// At least the last sequence number handed out.
    pub last_seq: Option<SequenceNumber>,
    /// Segments below are not needed any more.
    pub log_floor: Option<FileNumber>,
    /// The log is durable up to here: ordinal of the segment, offset in it.
    pub log_durable_upto: Option<(u64, u64)>,
    /// Whether the database was closed in order.
    pub clean_close: Option<bool>,
    /// Drawn anew when a checkpoint is opened for writing.
    pub branch_id: Option<u64>,
    /// Changes of keyspaces, applied in this order.
    pub keyspaces: Vec<KeyspaceEdit>,
    /// Every write up to here, of whatever keyspace, is in tables or was dropped with it.
    pub flushed_floor: Option<SequenceNumber>,
    /// No keyspace with this id or a larger one was ever created.
    pub next_keyspace_id: Option<KeyspaceId>,
}

/// The difference between two states of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceEdit {
    /// Which keyspace.
    pub id: KeyspaceId,
    /// Says that it was created, and how.
    pub created: Option<KeyspaceCreated>,
    /// Says that it was dropped, by the write with this number. In a full state such a keyspace is
    /// named as long as the log may hold writes to it, by this alone.
    pub dropped_at: Option<SequenceNumber>,
    /// Every write up to here is in tables: recovery does not replay it.
    pub flushed_upto: Option<SequenceNumber>,
    /// Tables that are new, or new at their level.
    pub added: Vec<(Level, TableMeta)>,
    /// Tables that are gone from their level. Takes effect before `added`.
    pub removed: Vec<(Level, FileNumber)>,
}

/// How a keyspace was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceCreated {
    /// Its name; at most as long as a key.
    pub name: Vec<u8>,
    /// The order of its keys: 0 = bytewise, the only one so far.
    pub order: u8,
    /// Its persisted options, whose form the engine owns.
    pub options: Vec<u8>,
}

impl KeyspaceEdit {
    /// An edit that changes nothing of the keyspace `id` yet.
    pub fn new(id: KeyspaceId) -> Self {
        Self {
            id,
            created: None,
            dropped_at: None,
            flushed_upto: None,
            added: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl VersionEdit {
    /// The bytes, as `FORMAT.md` describes them.
    ///
    /// More than [`EDIT_BYTES_MAX`] do not fit in one record: [`VersionEdit::split`] first.
    pub fn encode(&self) -> Vec<u8> {
        encode::edit(self)
    }

    /// Reads what [`VersionEdit::encode`] writes. Allocates in proportion to `bytes`.
    ///
    /// # Errors
    /// `Corruption` if the bytes are cut, out of range or not in canonical form; `Unsupported` if a
    /// newer version wrote them. The caller adds the file and the offset.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode::edit(bytes).map_err(Into::into)
    }

    /// The same as several edits of at most about `bytes_max` each, to be applied one after the
    /// other. The counters stand in the first; removals go before additions.
    ///
    /// Meant for a full state, which removes nothing. A crash between the parts leaves a part of
    /// the state, so the writer must make all of them durable before it names the file in CURRENT.
    pub fn split(self, bytes_max: usize) -> Vec<Self> {
        encode::split(self, bytes_max)
    }
}

/// Why bytes are no version edit this version can use.
#[derive(Clone, Copy, Debug)]
struct MalformedEdit {
    what: &'static str,
    tag: Option<u32>,
    newer: bool,
}

impl MalformedEdit {
    const fn new(what: &'static str) -> Self {
        Self {
            what,
            tag: None,
            newer: false,
        }
    }

    const fn at(what: &'static str, tag: u32) -> Self {
        Self {
            what,
            tag: Some(tag),
            newer: false,
        }
    }

    const fn newer(what: &'static str, tag: u32) -> Self {
        Self {
            what,
            tag: Some(tag),
            newer: true,
        }
    }
}

impl From<MalformedEdit> for Error {
    fn from(malformed: MalformedEdit) -> Self {
        let MalformedEdit { what, tag, newer } = malformed;
        let kind = if newer {
            ErrorKind::Unsupported
        } else {
            ErrorKind::Corruption
        };
        let error = Self::new(kind, format!("version edit: {what}"));
        match tag {
            Some(tag) => error.with_value("tag", tag),
            None => error,
        }
    }
}

impl From<Malformed> for MalformedEdit {
    fn from(_: Malformed) -> Self {
        Self::new("cut short or out of range")
    }
}

#[cfg(test)]
mod tests;
