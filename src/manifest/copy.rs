//! The MANIFEST of a copy: written into another directory, with a state that was captured before.

use std::path::Path;

use base::fs::FileSystem;
use base::sync::Arc;
use base::{Result, SequenceNumber};
use log::Position;

use super::write::{Facts, prepare_current, switch_current, write_manifest};
use super::{Identity, KeyspaceFacts, Rooms, VersionSet};

/// What a copy of the database holds.
pub(crate) struct CopyState {
    pub(crate) keyspaces: KeyspaceFacts,
    pub(crate) last_seq: SequenceNumber,
    /// Where the log of the copy ends, all of it durable.
    pub(crate) log_end: Position,
}

impl VersionSet {
    /// Where its files live, and the directory.
    pub(crate) fn place(&self) -> (&Arc<dyn FileSystem>, &Path) {
        (&self.rooms.fs, &self.rooms.dir)
    }

    /// Writes MANIFEST and then CURRENT into `dir`, which is a database from then on: the same one,
    /// but another branch of it. Whatever the state names is there durably already.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write_copy(&self, dir: &Path, mut copy: CopyState) -> Result<()> {
        let rooms = Rooms {
            dir: dir.to_owned(),
            ..self.rooms.clone()
        };
        let number = self.next_file_number();
        copy.keyspaces.forget_dropped();
        let facts = Facts {
            identity: Identity {
                branch_id: rooms.fs.random_u64(),
                ..self.identity
            },
            // Every file of the copy was named before.
            next_file_number: self.peek_file_number(),
            last_seq: copy.last_seq,
            log_durable_upto: copy.log_end,
        };
        write_manifest(&rooms, number, &facts, &copy.keyspaces)?;
        prepare_current(&rooms, number)?;
        switch_current(&rooms)
    }
}
