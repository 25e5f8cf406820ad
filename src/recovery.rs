//! Opening a directory: CURRENT, MANIFEST, the log, and then the state that was acknowledged.
//!
//! Order, which is what makes it idempotent: look without writing; lock; write and install a fresh
//! MANIFEST; make the accepted log durable; replay; begin a new segment; note it; only then remove
//! orphans. A crash anywhere leaves a directory that opens to the same state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use base::fork;
use base::fs::{DirEntry, LockGuard, create_dir_all, parent_of};
use base::sync::Arc;
use base::{
    Error, ErrorKind, FileKind, FileNumber, HashSeed, KeyspaceId, Level, PinLedger, Result,
    SequenceNumber, ids,
};
use compaction::Version;
use log::recovery::{Prepared, RecoverConfig};
use log::{Log, LogConfig, Position, Successor};
use sstable::{BlockCache, ReaderOptions, TableCache};

use crate::commit::MemtableMaker;
use crate::events::Event;
use crate::health::HealthState;
use crate::ledger::{KeyspaceLedger, Ledger};
use crate::manifest::{
    Identity, KeyspaceRecord, Loaded, Rooms, VersionSet, load, numbers, table_maker,
};
use crate::registry::{Keyspaces, memory_ledger};
use crate::seams::Seams;
use crate::signals::Signals;
use crate::snapshots::Snapshots;
use crate::superversion::KeyspaceState;
use crate::sweeper::Sweeper;
use crate::trace::Span;
use crate::tree::Tree;
use crate::tuning::{KeyspaceSettings, Settings};

mod directory;
pub(crate) mod read_only;
mod replayer;
use directory::Directory;
use replayer::Replayer;

/// The name of the keyspace that `Db`'s own reads and writes use.
pub(crate) const DEFAULT_KEYSPACE_NAME: &str = "default";
/// Room for log records in the index of a segment.
const INDEX_INTERVAL_BYTES: u64 = 32 << 10;
/// After an open that did not follow a clean close, sequence numbers go on this much later, so that
/// none that a lost write may have shown to somebody is given to another write.
const SEQUENCE_GAP: u64 = 1 << 24;

/// Every room of an open database that holds state.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lock: Box<dyn LockGuard>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) keyspaces: Arc<Keyspaces>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) log: Arc<Log>,
    pub(crate) rooms: Rooms,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) health: Arc<HealthState>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) pins: Arc<PinLedger>,
    pub(crate) memtables: MemtableMaker,
    pub(crate) hash_seed: HashSeed,
    pub(crate) next_seq: SequenceNumber,
    /// The space kept back for deletes was given up for the open itself.
    pub(crate) is_reserve_spent: bool,
}

/// Opens `dir`. If the disk is too full for that, it gives up the space kept back for deletes.
///
/// # Errors
/// Named file and remedy for everything that is wrong with the directory; nothing is changed on
/// disk when what is there cannot be opened. `NoSpace` leaves what was begun for the next open to
/// remove.
pub(crate) fn open(dir: &Path, settings: &Settings, seams: &Seams) -> Result<Opened> {
    let reserve = dir.join(ids::RESERVE);
    let opened = match open_once(dir, settings, seams, None) {
        Err(error) if error.is_no_space() && seams.fs.status(&reserve)?.is_some() => {
            open_once(dir, settings, seams, Some(&reserve))
        }
        opened => opened,
    };
    opened.map_err(|error| {
        if !error.is_no_space() {
            return error;
        }
        let message = "no room for the MANIFEST and the log of an open: free some space, or open \
                       it for reading only";
        error
            .context(message)
            .with_value("directory", dir.display())
    })
}

/// As [`open`], after `spent` was unlinked.
fn open_once(
    dir: &Path,
    settings: &Settings,
    seams: &Seams,
    spent: Option<&Path>,
) -> Result<Opened> {
    fork::watch()?;
    let span = Span::recovery(dir);
    let began = seams.clock.monotonic_micros();
    let directory = Directory::look(&*seams.fs, dir, settings.create_if_missing)?;
    if directory.is_missing {
        create_dir_all(&*seams.fs, dir)?;
    }
    let lock = seams.fs.lock(&dir.join(ids::LOCK))?;
    // Somebody else may have created or changed it before we had the lock.
    let directory = Directory::look(&*seams.fs, dir, settings.create_if_missing)?;
    if !directory.has_current {
        // An open that was cut short, or another program, may have made the directory without
        // making its name durable.
        seams.fs.sync_dir(parent_of(dir))?;
    }
    if let Some(reserve) = spent {
        seams.fs.remove_file(reserve)?;
    }
    let mut opened = Recovery::new(dir, settings, seams).run(&directory, lock)?;
    opened.is_reserve_spent = spent.is_some();
    let micros = seams.clock.monotonic_micros().saturating_sub(began);
    span.record(opened.log.total_bytes(), micros);
    Ok(opened)
}

struct Recovery<'a> {
    settings: &'a Settings,
    seams: &'a Seams,
    rooms: Rooms,
    cache: Arc<BlockCache>,
    signals: Arc<Signals>,
    pins: Arc<PinLedger>,
}

impl<'a> Recovery<'a> {
    fn new(dir: &Path, settings: &'a Settings, seams: &'a Seams) -> Self {
        let signals = Arc::new(Signals::default());
        let pins = Arc::new(PinLedger::default());
        let cache = BlockCache::new(settings.cache_bytes);
        let reader_options = ReaderOptions {
            mode: settings.read_mode,
            cache: Some(Arc::clone(&cache)),
            verify: settings.verify_reads,
            pins: Arc::clone(&pins),
        };
        let fs = Arc::clone(&seams.fs);
        let tables = TableCache::new(
            Arc::clone(&fs),
            dir.to_owned(),
            reader_options,
            settings.open_tables_max,
        );
        let rooms = Rooms {
            sweeper: Sweeper::new(
                Arc::clone(&fs),
                dir.to_owned(),
                Arc::clone(&signals),
                seams.listener.clone(),
            ),
            fs,
            clock: Arc::clone(&seams.clock),
            dir: dir.to_owned(),
            tables,
            health: Arc::new(HealthState::new(
                seams.listener.clone(),
                Arc::clone(&signals),
            )),
            ledger: Arc::new(Ledger::new()),
            manifest_bytes_min: settings.manifest_bytes_min,
        };
        Self {
            settings,
            seams,
            rooms,
            cache,
            signals,
            pins,
        }
    }

    fn run(self, directory: &Directory, lock: Box<dyn LockGuard>) -> Result<Opened> {
        let loaded = self.load(directory)?;
        let tail_was_cut = loaded.tail_cut.is_some();
        let was_clean = loaded.clean_close;
        let old_manifest = loaded.manifest;
        let identity = self.next_identity(&loaded);
        // Looked at before anything is written: a damaged log leaves the directory as it was.
        let late = Arc::new(OnceLock::new());
        let listener = &self.seams.listener;
        let on_progress = |progress: log::recovery::RecoveryProgress| {
            listener.tell(|| Event::RecoveryProgress {
                read_bytes: progress.read_bytes,
                total_bytes: progress.total_bytes,
            });
        };
        let config = self.recover_config(&loaded, identity, &late, &on_progress);
        let inspection = log::recovery::inspect(&config)?;
        let versions = Arc::new(VersionSet::install(self.rooms.clone(), loaded, identity)?);
        self.fit_tables(&versions);
        late.set(Arc::clone(&versions))
            .expect("set here and nowhere else");
        let prepared = inspection.settle(&config)?;
        self.note(&prepared);
        let hash_seed = HashSeed(identity.hash_seed);
        let pins = Arc::clone(&self.pins);
        let memory = memory_ledger(self.settings.memtable_bytes_total);
        let memtables = MemtableMaker::new(pins, memory);
        let keyspaces = Arc::new(self.keyspaces(&versions, &memtables)?);
        let tree = Tree::new(self.seams, &self.rooms, &versions, hash_seed);
        let mut replayer = Replayer::new(&self.rooms, tree, &keyspaces, &memtables, hash_seed);
        replayer.run(&prepared)?;
        let last_seq = prepared.last_seq.max(replayer.replayed_upto);
        let replayed_count = replayer.replayed_count;
        let gap = if was_clean || old_manifest.is_none() {
            0
        } else {
            SEQUENCE_GAP
        };
        let last_known = last_seq.max(versions.last_seq());
        if last_known > SequenceNumber::OPENED_MAX {
            let message = "MANIFEST says that every sequence number is used up";
            return Err(Error::corruption(&self.rooms.dir, 0, message));
        }
        let next_seq = last_known.plus(1 + gap);
        let log = self.begin_log(&versions, prepared.successor, next_seq)?;
        self.rooms.sweeper.unlink_segments(&prepared.obsolete);
        self.sweep_orphans(&versions, &log, old_manifest, tail_was_cut)?;
        self.rooms.sweeper.sweep_all();
        self.seams.listener.tell(|| Event::Recovered {
            last_seq,
            replayed_count,
        });
        Ok(Opened {
            lock,
            versions,
            keyspaces,
            snapshots: Arc::new(Snapshots::new(last_seq)),
            log,
            cache: self.cache,
            signals: self.signals,
            health: Arc::clone(&self.rooms.health),
            ledger: Arc::clone(&self.rooms.ledger),
            rooms: self.rooms,
            pins: self.pins,
            memtables,
            hash_seed,
            next_seq,
            is_reserve_spent: false,
        })
    }

    /// Chooses how tables are read before the first one is opened.
    fn fit_tables(&self, versions: &VersionSet) {
        let keyspaces = versions.keyspaces();
        let all = keyspaces.alive.values().map(|record| &record.version);
        let bytes_of = |version: &Arc<Version>| -> u64 {
            let bytes = Level::all().map(|level| version.level_bytes(level));
            bytes.sum()
        };
        self.rooms.tables.fit(all.map(bytes_of).sum());
    }

    /// Begins the segment that new writes go to, and notes it.
    fn begin_log(
        &self,
        versions: &Arc<VersionSet>,
        mut successor: Successor,
        next_seq: SequenceNumber,
    ) -> Result<Arc<Log>> {
        successor.first_seq = next_seq;
        let log = Log::start(self.log_config(versions), successor)?;
        // Also the gap counts as handed out: a write after it may be lost, and a gap that begins
        // where this one did would give its number away once more.
        versions.note_log(log.durable_upto(), next_seq.before())?;
        Ok(log)
    }

    /// What MANIFEST says, checked against what lies in the directory. Writes nothing.
    fn load(&self, directory: &Directory) -> Result<Loaded> {
        let mut loaded = if directory.has_current {
            let make = &mut table_maker(&self.rooms);
            load(&*self.rooms.fs, &self.rooms.dir, make)?
        } else {
            directory.remove_unfinished_creation(&*self.rooms.fs, &self.rooms.dir)?;
            Loaded::new_database(DEFAULT_KEYSPACE_NAME)
        };
        // Those of the default keyspace are said anew at every open.
        let alive = &mut loaded.keyspaces.alive;
        let default = alive.get_mut(&KeyspaceId::DEFAULT);
        default.expect("every database has it").options = self.settings.keyspace.encode();
        let missing = self.missing_tables(&loaded)?;
        if missing.is_empty() {
            return Ok(loaded);
        }
        Err(Error::corruption(
            &self.rooms.dir,
            0,
            format!(
                "tables are missing or of the wrong length: {}; restore them from a copy, see \
                 `siltstone verify`",
                missing.join(", ")
            ),
        ))
    }

    fn missing_tables(&self, loaded: &Loaded) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for record in loaded.keyspaces.alive.values() {
            for table in Level::all().flat_map(|level| record.version.level(level)) {
                let name = FileKind::Table.file_name(table.meta.number);
                let status = self.rooms.fs.status(&self.rooms.dir.join(&name))?;
                if status.is_none_or(|status| status.len != table.meta.file_bytes) {
                    missing.push(name);
                }
            }
        }
        Ok(missing)
    }

    fn next_identity(&self, loaded: &Loaded) -> Identity {
        let random = || self.rooms.fs.random_u64();
        if loaded.manifest.is_none() {
            let database_id = u128::from(random()) << 64 | u128::from(random());
            return Identity {
                database_id,
                hash_seed: random(),
                epoch: 1,
                branch_id: random(),
            };
        }
        let epoch = loaded.identity.epoch + u64::from(!loaded.clean_close);
        Identity {
            epoch,
            ..loaded.identity
        }
    }

    fn recover_config<'c>(
        &self,
        loaded: &Loaded,
        identity: Identity,
        late: &Arc<OnceLock<Arc<VersionSet>>>,
        on_progress: &'c dyn Fn(log::recovery::RecoveryProgress),
    ) -> RecoverConfig<'c> {
        let durable_upto = loaded.log_durable_upto;
        let late = Arc::clone(late);
        RecoverConfig {
            fs: Arc::clone(&self.rooms.fs),
            clock: Arc::clone(&self.rooms.clock),
            dir: self.rooms.dir.clone(),
            mode: self.settings.recovery_mode,
            floor: loaded.keyspaces.floor(),
            flushed_max: loaded.keyspaces.flushed_max(),
            last_seq: loaded.last_seq,
            durable_upto: (durable_upto != Position::default()).then_some(durable_upto),
            numbers: Arc::new(move || {
                late.get()
                    .expect("the log is only written after MANIFEST")
                    .next_file_number()
            }),
            database_id: identity.database_id,
            epoch: identity.epoch,
            clean: loaded.clean_close,
            segment_bytes: self.settings.log_segment_bytes,
            on_progress,
        }
    }

    /// Books what was copied of the log, and tells of what was cut off.
    fn note(&self, prepared: &Prepared) {
        self.rooms.ledger.add_log_copy(prepared.copy_cost);
        if let Some(dropped) = &prepared.dropped {
            self.seams.listener.tell(|| Event::LogTailDropped {
                path: dropped.path.clone(),
                offset: dropped.offset,
                bytes: dropped.bytes,
            });
        }
    }

    fn log_config(&self, versions: &Arc<VersionSet>) -> LogConfig {
        LogConfig {
            fs: Arc::clone(&self.rooms.fs),
            clock: Arc::clone(&self.rooms.clock),
            dir: self.rooms.dir.clone(),
            numbers: numbers(versions),
            database_id: versions.identity().database_id,
            epoch: versions.identity().epoch,
            segment_bytes: self.settings.log_segment_bytes,
            index_interval_bytes: INDEX_INTERVAL_BYTES,
            reserve: true,
            append: self.settings.log_append,
        }
    }

    /// Every keyspace that MANIFEST knows, with nothing in its memtable.
    fn keyspaces(&self, versions: &VersionSet, memtables: &MemtableMaker) -> Result<Keyspaces> {
        let mut all = Vec::new();
        for (id, record) in &versions.keyspaces().alive {
            let sweeper = Arc::clone(&self.rooms.sweeper);
            let ledger = self.rooms.ledger.keyspace();
            all.push(keyspace_of(*id, record, memtables, sweeper, ledger)?);
        }
        let memory = Arc::clone(memtables.memory());
        Ok(Keyspaces::new(
            all,
            self.settings.memtable_bytes_total,
            memory,
        ))
    }

    /// Removes files of our own making that nothing names: left by a crash.
    fn sweep_orphans(
        &self,
        versions: &VersionSet,
        log: &Log,
        old_manifest: Option<FileNumber>,
        to_lost: bool,
    ) -> Result<()> {
        let live_manifest = versions.manifest_number();
        let leased = versions.leased_upto();
        let segments: BTreeSet<_> = log.numbers().into_iter().collect();
        let tables: BTreeSet<_> = versions
            .keyspaces()
            .alive
            .values()
            .flat_map(|record| Level::all().flat_map(|level| record.version.level(level)))
            .map(|table| table.meta.number)
            .collect();
        for DirEntry { name, is_dir } in self.rooms.fs.list(&self.rooms.dir)? {
            if [ids::STATS, ids::STATS_TEMPORARY].contains(&name.as_str()) && !is_dir {
                // Of a process that is gone. As well as it can: it harms nobody but who reads it.
                let _ = self.rooms.fs.remove_file(&self.rooms.dir.join(&name));
            }
            let Some((kind, number)) = FileKind::parse(&name) else {
                continue;
            };
            let is_named = match kind {
                FileKind::Segment | FileKind::SegmentIndex => segments.contains(&number),
                FileKind::Table => tables.contains(&number),
                FileKind::Manifest => number == live_manifest,
            };
            if is_named || is_dir || number >= leased {
                continue;
            }
            // A cut MANIFEST may have named what now looks like an orphan.
            if to_lost && (kind == FileKind::Table || Some(number) == old_manifest) {
                self.move_to_lost(&name)?;
            } else {
                self.rooms.sweeper.unlink(kind, number);
            }
        }
        Ok(())
    }

    fn move_to_lost(&self, name: &str) -> Result<()> {
        let lost = self.rooms.dir.join(ids::LOST);
        self.rooms.fs.create_dir(&lost)?;
        self.rooms
            .fs
            .rename(&self.rooms.dir.join(name), &lost.join(name))?;
        self.rooms.fs.sync_dir(&lost)?;
        self.rooms.fs.sync_dir(&self.rooms.dir)
    }
}

/// The keyspace that MANIFEST describes by `record`, with nothing in its memtable.
fn keyspace_of(
    id: KeyspaceId,
    record: &KeyspaceRecord,
    memtables: &MemtableMaker,
    sweeper: Arc<Sweeper>,
    ledger: Arc<KeyspaceLedger>,
) -> Result<Arc<KeyspaceState>> {
    let settings = Arc::new(KeyspaceSettings::decode(&record.options)?);
    let name = std::str::from_utf8(&record.name).map_err(|_| {
        Error::new(ErrorKind::Corruption, "keyspace with a name that cannot be")
            .with_value("keyspace", id)
    })?;
    let active = memtables.make(&settings);
    let version = Arc::clone(&record.version);
    Ok(Arc::new(KeyspaceState::new(
        id, name, settings, active, version, sweeper, ledger,
    )))
}
