//! `VersionSet`: owns MANIFEST and the current Versions; the only place that applies an edit.
//!
//! INVARIANT: an edit is durable before anything it says is acted on, and everything it names is
//! durable before the edit is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::clock::Clock;
use base::fs::FileSystem;
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, FileKind, FileNumber, KeyspaceId, Result, SequenceNumber, WriteOutcome};
use compaction::{KeyspaceEdit, Reaper, Table, TableMeta, Version, VersionEdit};
use log::{Position, SegmentWriter};
use sstable::TableCache;

use crate::health::{HealthState, Job};
use crate::ledger::Ledger;
use crate::sweeper::Sweeper;

mod copy;
mod door;
mod keyspaces;
mod load;
mod write;
pub(crate) use copy::CopyState;
pub(crate) use keyspaces::{creation, drop_at};
pub(crate) use load::{Loaded, current_contents, load};
use write::{
    Facts, append_parts, framed_bytes_max, prepare_current, switch_current, write_manifest,
};

/// File numbers are handed out ahead of the durable counter by at most this many.
///
/// A file that exists therefore has a number below the durable next one, which is how recovery
/// tells an orphan of ours from a file that somebody else put there.
const LEASE_COUNT: u64 = 128;
/// While the lease cannot be extended, at most this many are handed out beyond it.
const BEYOND_LEASE_COUNT: u64 = 1 << 20;
/// MANIFEST grows on disk in steps of at most this size.
const RESERVE_STEP_BYTES_MAX: u64 = 64 << 10;
/// MANIFEST is rewritten when it has outgrown its first record by this factor.
const OUTGROWN_FACTOR: u64 = 4;
/// What a database is, as opposed to what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub(crate) database_id: u128,
    pub(crate) hash_seed: u64,
    /// Rises with every open that did not follow a clean close.
    pub(crate) epoch: u64,
    pub(crate) branch_id: u64,
}

/// What MANIFEST knows of one keyspace.
#[derive(Clone, Debug)]
pub(crate) struct KeyspaceRecord {
    pub(crate) name: Vec<u8>,
    pub(crate) order: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) flushed_upto: SequenceNumber,
    pub(crate) version: Arc<Version>,
}

/// What MANIFEST knows of all keyspaces together.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyspaceFacts {
    pub(crate) alive: BTreeMap<KeyspaceId, KeyspaceRecord>,
    /// When those were dropped to which the log may still hold writes.
    pub(crate) dropped: BTreeMap<KeyspaceId, SequenceNumber>,
    /// Larger than every id there ever was; 0 while there was none but the default one.
    pub(crate) next_id: u32,
    /// Everything up to here is in tables or was dropped, whatever single keyspaces say.
    pub(crate) flushed_floor: SequenceNumber,
}

impl KeyspaceFacts {
    /// Everything up to here is in tables or was dropped. Never decreases: of two keyspaces the
    /// one that was created later has the larger `flushed_upto`.
    pub(crate) fn floor(&self) -> SequenceNumber {
        let lowest = self.alive.values().map(|record| record.flushed_upto).min();
        lowest.unwrap_or_default().max(self.flushed_floor)
    }

    /// The log holds everything up to here, or did: something that builds on it is durable.
    pub(crate) fn flushed_max(&self) -> SequenceNumber {
        let flushed = self.alive.values().map(|record| record.flushed_upto);
        let highest = flushed.chain(self.dropped.values().copied()).max();
        highest.unwrap_or_default().max(self.flushed_floor)
    }

    /// Forgets dropped keyspaces to which no write can be replayed any more.
    fn forget_dropped(&mut self) {
        let floor = self.floor();
        self.dropped.retain(|_, at| *at > floor);
    }
}

/// The seams and rooms a [`VersionSet`] works with.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: PathBuf,
    pub(crate) tables: Arc<TableCache>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) manifest_bytes_min: u64,
}

/// The current Versions of a database and the MANIFEST that keeps them.
#[derive(Debug)]
pub(crate) struct VersionSet {
    rooms: Rooms,
    identity: Identity,
    next_number: AtomicU64,
    /// Numbers below this may be used; stored only after it is durable.
    leased: AtomicU64,
    /// LOCK: after commit, before superversion.
    state: Mutex<State>,
    /// Creations and drops that the log has or gets and `state` has not, in their order. LOCK: a
    /// leaf.
    announced: Mutex<Vec<KeyspaceEdit>>,
}

#[derive(Debug)]
struct State {
    writer: SegmentWriter,
    number: FileNumber,
    first_record_bytes: u64,
    edit_count: u64,
    last_seq: SequenceNumber,
    log_durable_upto: Position,
    keyspaces: KeyspaceFacts,
    /// Creations and drops that the log has and MANIFEST had no room for: part of the next edit.
    owed: Vec<KeyspaceEdit>,
    /// Tables of dropped keyspaces whose drop is not durable here yet.
    owed_gone: Vec<Arc<Table>>,
    /// The database was closed: the directory may be somebody else's.
    is_closed: bool,
}

/// The counter that names files, as the rooms below take it.
pub(crate) fn numbers(versions: &Arc<VersionSet>) -> Arc<dyn Fn() -> FileNumber + Send + Sync> {
    let versions = Arc::clone(versions);
    Arc::new(move || versions.next_file_number())
}

/// Makes the tables of a Version.
pub(crate) fn table_maker(rooms: &Rooms) -> impl FnMut(TableMeta) -> Arc<Table> + use<> {
    let tables = Arc::clone(&rooms.tables);
    let reaper: Arc<dyn Reaper> = rooms.sweeper.clone();
    move |meta| {
        let handle = tables.handle(meta.number, meta.file_id, meta.file_bytes);
        Table::new(meta, handle, Arc::clone(&reaper))
    }
}

impl VersionSet {
    /// Where its tables are opened.
    pub(crate) fn tables(&self) -> &TableCache {
        &self.rooms.tables
    }

    /// Writes and installs a fresh MANIFEST that holds what was loaded, with a new `identity`.
    ///
    /// # Errors
    /// If a file cannot be written; the old MANIFEST then still counts.
    pub(crate) fn install(rooms: Rooms, mut loaded: Loaded, identity: Identity) -> Result<Self> {
        loaded.keyspaces.forget_dropped();
        let number = first_free_number(&rooms, loaded.next_file_number)?;
        let leased = number.0 + 1 + LEASE_COUNT;
        let facts = Facts {
            identity,
            next_file_number: FileNumber(leased),
            last_seq: loaded.last_seq,
            log_durable_upto: loaded.log_durable_upto,
        };
        let writer = write_manifest(&rooms, number, &facts, &loaded.keyspaces)?;
        prepare_current(&rooms, number)?;
        switch_current(&rooms)?;
        let first_record_bytes = writer.bytes();
        rooms.ledger.add_manifest(0, first_record_bytes);
        let state = State {
            first_record_bytes,
            writer,
            number,
            edit_count: 1,
            is_closed: false,
            last_seq: loaded.last_seq,
            log_durable_upto: loaded.log_durable_upto,
            keyspaces: loaded.keyspaces,
            owed: Vec::new(),
            owed_gone: Vec::new(),
        };
        Ok(Self {
            rooms,
            identity,
            next_number: AtomicU64::new(number.0 + 1),
            leased: AtomicU64::new(leased),
            state: Mutex::new(state),
            announced: Mutex::default(),
        })
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The number for a new file.
    ///
    /// Never fails: if the lease cannot be extended, for instance on a full disk, numbers beyond it
    /// are handed out, which the next edit makes durable and the next open steps over.
    pub(crate) fn next_file_number(&self) -> FileNumber {
        let number = self.next_number.fetch_add(1, Ordering::AcqRel);
        // Acquire: pairs with the Release below and in `append_locked`.
        if number >= self.leased.load(Ordering::Acquire) {
            let mut state = self.state.lock();
            while number >= self.leased.load(Ordering::Acquire) {
                let extended = self.append_locked(&mut state, VersionEdit::default());
                if extended.is_err() {
                    break;
                }
            }
        }
        FileNumber(number)
    }

    /// The number that the next new file will get; every file there is has a smaller one.
    pub(crate) fn peek_file_number(&self) -> FileNumber {
        FileNumber(self.next_number.load(Ordering::Acquire))
    }

    /// The file number that the next edit would make durable; orphans are below it.
    pub(crate) fn leased_upto(&self) -> FileNumber {
        FileNumber(self.leased.load(Ordering::Acquire))
    }

    /// The last sequence number that MANIFEST knows of.
    pub(crate) fn last_seq(&self) -> SequenceNumber {
        self.state.lock().last_seq
    }

    /// The number of the live MANIFEST.
    pub(crate) fn manifest_number(&self) -> FileNumber {
        self.state.lock().number
    }

    /// What is known of all keyspaces.
    pub(crate) fn keyspaces(&self) -> KeyspaceFacts {
        self.state.lock().keyspaces.clone()
    }

    /// Makes an edit of one keyspace durable, then hands its new Version to `install` before any
    /// other edit can be applied. Where it says `flushed_upto` the log is durable that far.
    ///
    /// # Errors
    /// With outcome `Rejected` if nothing was written, and then the tables that the edit would have
    /// added are removed: `Corruption` if it does not fit the tree, `NoSpace` if there is no room
    /// for it, `Poisoned` after an earlier failure. If MANIFEST itself cannot be written the
    /// database is poisoned, and the tables stay: only the next open can tell.
    pub(crate) fn apply(
        &self,
        edit: KeyspaceEdit,
        log_durable_upto: Position,
        last_seq: SequenceNumber,
        install: impl FnOnce(&Arc<Version>),
    ) -> Result<()> {
        let made = tables_made(&edit);
        let mut state = self.state.lock();
        let result = self.apply_locked(&mut state, edit, log_durable_upto, last_seq, install);
        if let Err(error) = &result
            && error.outcome() == Some(WriteOutcome::Rejected)
        {
            for number in made {
                self.rooms.sweeper.unlink(FileKind::Table, number);
            }
        }
        result
    }

    fn apply_locked(
        &self,
        state: &mut State,
        edit: KeyspaceEdit,
        log_durable_upto: Position,
        last_seq: SequenceNumber,
        install: impl FnOnce(&Arc<Version>),
    ) -> Result<()> {
        let rejected = |error: Error| error.with_outcome(WriteOutcome::Rejected);
        let id = edit.id;
        if let Some(flushed_upto) = edit.flushed_upto {
            // INVARIANT: what says that the log is not needed up to a number has every creation and
            // drop up to there, or replay would pass over them. Whoever makes them may be behind.
            self.take_announced_locked(state, flushed_upto);
        }
        let record = state.keyspaces.alive.get(&id).ok_or_else(|| {
            let unknown = Error::invalid_argument("edit of an unknown keyspace");
            rejected(unknown.with_value("id", id))
        })?;
        let version = record.version.apply(&edit, &mut table_maker(&self.rooms));
        let version = Arc::new(version.map_err(rejected)?);
        let gone = record.version.obsoleted_by(&edit);
        let flushed_upto = edit.flushed_upto;
        state.log_durable_upto = state.log_durable_upto.max(log_durable_upto);
        state.last_seq = state.last_seq.max(last_seq);
        let edit = VersionEdit {
            keyspaces: vec![edit],
            ..VersionEdit::default()
        };
        self.append_locked(state, edit)?;
        let record = state
            .keyspaces
            .alive
            .get_mut(&id)
            .expect("found above under the same lock");
        record.version = Arc::clone(&version);
        if let Some(flushed_upto) = flushed_upto {
            record.flushed_upto = record.flushed_upto.max(flushed_upto);
        }
        install(&version);
        // Only now may the last reader that lets go of an input have it unlinked.
        for table in gone {
            table.mark_obsolete();
        }
        self.rotate_if_outgrown_locked(state)
    }

    fn rotate_if_outgrown_locked(&self, state: &mut State) -> Result<()> {
        let outgrown = state.first_record_bytes.saturating_mul(OUTGROWN_FACTOR);
        if state.writer.bytes() > outgrown.max(self.rooms.manifest_bytes_min) {
            self.rotate_locked(state)?;
        }
        Ok(())
    }

    /// Notes that everything is in tables and the log is sealed.
    ///
    /// # Errors
    /// As [`VersionSet::apply`].
    pub(crate) fn mark_clean_close(&self, log: Position, last_seq: SequenceNumber) -> Result<()> {
        let mut state = self.state.lock();
        state.log_durable_upto = state.log_durable_upto.max(log);
        state.last_seq = state.last_seq.max(last_seq);
        let edit = VersionEdit {
            clean_close: Some(true),
            ..VersionEdit::default()
        };
        self.append_locked(&mut state, edit)
    }

    /// Notes how far the log is durable and what recovery found.
    ///
    /// # Errors
    /// As [`VersionSet::apply`].
    pub(crate) fn note_log(&self, log: Position, last_seq: SequenceNumber) -> Result<()> {
        let mut state = self.state.lock();
        state.log_durable_upto = state.log_durable_upto.max(log);
        state.last_seq = state.last_seq.max(last_seq);
        self.append_locked(&mut state, VersionEdit::default())
    }

    /// Appends `edit`, completed by the counters, and syncs.
    fn append_locked(&self, state: &mut State, mut edit: VersionEdit) -> Result<()> {
        self.check_locked(state)?;
        // After a clean close no file is made any more, so that none is to be told from an orphan.
        let ahead = if edit.clean_close == Some(true) {
            0
        } else {
            LEASE_COUNT
        };
        let leased = self.next_number.load(Ordering::Acquire) + ahead;
        // What is owed comes first: the edit may build on it.
        edit.keyspaces.splice(0..0, state.owed.iter().cloned());
        if state.owed.iter().any(|edit| edit.created.is_some()) {
            edit.next_keyspace_id = Some(KeyspaceId(state.keyspaces.next_id));
        }
        edit.next_file_number = Some(FileNumber(leased));
        edit.last_seq = Some(state.last_seq);
        edit.log_durable_upto = Some((
            state.log_durable_upto.ordinal,
            state.log_durable_upto.offset,
        ));
        let payloads = write::payloads(edit);
        let payload_bytes = framed_bytes_max(&payloads);
        // A full disk is told before anything is written, and can be gone when it is tried again.
        let step_bytes = (self.rooms.manifest_bytes_min / 16).min(RESERVE_STEP_BYTES_MAX);
        state
            .writer
            .reserve_for(payload_bytes, step_bytes)
            .map_err(|error| error.with_outcome(WriteOutcome::Rejected))?;
        let before = state.writer.bytes();
        let appended = append_parts(
            &mut state.writer,
            state.edit_count,
            &*self.rooms.clock,
            payloads.into_iter(),
        )
        .and_then(|()| state.writer.sync());
        if let Err(error) = appended {
            // Whether the edit is there only the next open can tell.
            self.rooms.health.poison(&error);
            return Err(error);
        }
        state.edit_count += 1;
        self.rooms.ledger.add_manifest(before, state.writer.bytes());
        // Release: pairs with the Acquire in `next_file_number`.
        self.leased.store(leased, Ordering::Release);
        settled(state);
        Ok(())
    }

    /// Begins a new MANIFEST with the whole state.
    fn rotate_locked(&self, state: &mut State) -> Result<()> {
        let number = FileNumber(self.next_number.fetch_add(1, Ordering::AcqRel));
        let leased = number.0 + 1 + LEASE_COUNT;
        let facts = Facts {
            identity: self.identity,
            next_file_number: FileNumber(leased),
            last_seq: state.last_seq,
            log_durable_upto: state.log_durable_upto,
        };
        state.keyspaces.forget_dropped();
        let prepared = write_manifest(&self.rooms, number, &facts, &state.keyspaces)
            .and_then(|writer| prepare_current(&self.rooms, number).map(|()| writer));
        let writer = match prepared {
            Ok(writer) => writer,
            Err(error) => {
                // The old MANIFEST still counts and holds everything; try again after as much
                // growth once more.
                self.rooms.health.job_failed(Job::ManifestRotation, error);
                self.rooms.sweeper.unlink(FileKind::Manifest, number);
                state.first_record_bytes = state.writer.bytes();
                return Ok(());
            }
        };
        if let Err(error) = switch_current(&self.rooms) {
            // CURRENT may name either; both files stay, and nothing is appended to one of them.
            self.rooms.health.poison(&error);
            return Err(error);
        }
        self.rooms.ledger.add_manifest(0, writer.bytes());
        self.rooms.health.job_succeeded(Job::ManifestRotation);
        state.first_record_bytes = writer.bytes();
        state.writer = writer;
        settled(state);
        let old = std::mem::replace(&mut state.number, number);
        self.leased.fetch_max(leased, Ordering::AcqRel);
        self.rooms.sweeper.unlink(FileKind::Manifest, old);
        Ok(())
    }
}

/// The last append or rotation made durable what was owed.
fn settled(state: &mut State) {
    state.owed.clear();
    for table in state.owed_gone.drain(..) {
        table.mark_obsolete();
    }
}

/// The first number from `next` on that no file of ours has: an open that was cut short, or a full
/// disk, may have left files beyond what MANIFEST knows of.
fn first_free_number(rooms: &Rooms, next: FileNumber) -> Result<FileNumber> {
    let beyond = next.0..next.0.saturating_add(BEYOND_LEASE_COUNT);
    let entries = rooms.fs.list(&rooms.dir)?;
    let numbers = entries
        .iter()
        .filter_map(|entry| FileKind::parse(&entry.name));
    let used = numbers
        .map(|(_, number)| number.0)
        .filter(|number| beyond.contains(number));
    Ok(used.max().map_or(next, |last| FileNumber(last + 1)))
}

/// The tables that were made for `edit`, as opposed to those it moves.
fn tables_made(edit: &KeyspaceEdit) -> Vec<FileNumber> {
    let is_moved = |number| edit.removed.iter().any(|(_, removed)| *removed == number);
    let added = edit.added.iter().map(|(_, meta)| meta.number);
    added.filter(|number| !is_moved(*number)).collect()
}

#[cfg(test)]
mod tests;
