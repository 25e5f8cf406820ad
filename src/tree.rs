//! The corridor: plan, job, edit, install. Every change of the tree walks it, whoever asks.

use std::ops::Bound;
use std::path::PathBuf;

use base::clock::Clock;
use base::cursor::Cursor;
use base::executor::{Executor, Inline, Scatter};
use base::fs::FileSystem;
use base::sync::Arc;
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::{HashSeed, Level, Result};
use compaction::{JobContext, JobOutput, KeyspaceEdit, Lanes, TableMeta, Version, job};
use log::{Log, Position};
use memtable::Memtable;
use sstable::{CommitTimes, CreationReason, TableOptions};

use crate::events::{Event, Listener};
use crate::manifest::{Rooms, VersionSet, numbers};
use crate::seams::Seams;
use crate::snapshots::Snapshots;
use crate::superversion::{KeyspaceState, SealedMemtable};
use crate::till::WorkKind;
use crate::trace::Span;

mod compact;

/// Runs flushes and compactions and installs what they made.
#[derive(Debug)]
pub(crate) struct Tree {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    executor: Arc<dyn Executor>,
    lanes: Arc<Lanes>,
    listener: Listener,
    dir: PathBuf,
    versions: Arc<VersionSet>,
    hash_seed: HashSeed,
    next_job: AtomicU64,
    /// Raised by close: jobs stop soon and leave nothing behind.
    is_cancelled: AtomicBool,
}

/// A stretch of keys that a manual compaction is asked for.
pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Tree {
    pub(crate) fn new(
        seams: &Seams,
        rooms: &Rooms,
        versions: &Arc<VersionSet>,
        hash_seed: HashSeed,
    ) -> Self {
        Self {
            fs: Arc::clone(&seams.fs),
            clock: Arc::clone(&seams.clock),
            executor: Arc::clone(&seams.executor),
            lanes: Lanes::new(Arc::clone(&seams.executor) as _),
            listener: seams.listener.clone(),
            dir: rooms.dir.clone(),
            versions: Arc::clone(versions),
            next_job: AtomicU64::new(1),
            hash_seed,
            is_cancelled: AtomicBool::new(false),
        }
    }

    pub(crate) fn versions(&self) -> &Arc<VersionSet> {
        &self.versions
    }

    /// Makes running jobs of all these keyspaces fail soon; used by close.
    pub(crate) fn cancel(&self, keyspaces: &[Arc<KeyspaceState>]) {
        self.is_cancelled.store(true, Ordering::Release);
        for keyspace in keyspaces {
            keyspace.cancel.store(true, Ordering::Release);
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// What the directory's file system can still take; everything if it does not say.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.fs.free_bytes(&self.dir).unwrap_or(u64::MAX)
    }

    fn table_options(&self, keyspace: &KeyspaceState, tables: OutputTables) -> TableOptionsFn {
        let (settings, clock) = (Arc::clone(keyspace.settings()), Arc::clone(&self.clock));
        let (hash_seed, keyspace) = (self.hash_seed, keyspace.id);
        Arc::new(move |level, reason| {
            let compression = settings.compression_at(level, tables.is_bottom);
            TableOptions {
                block_bytes_target: settings.block_bytes_target_of(compression),
                filter: settings.filter,
                compression,
                hash_seed,
                keyspace,
                level,
                reason,
                created_micros: clock.now_micros(),
                commit_times: tables.commit_times,
                dictionary_bytes_max: settings.dictionary_bytes_max,
            }
        })
    }

    /// A job's context. The inputs must be fixed before: what it captures here it keeps visible.
    fn context(
        &self,
        executor: Arc<dyn Scatter>,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        tables: OutputTables,
    ) -> JobContext {
        let captured = snapshots.capture();
        JobContext {
            fs: Arc::clone(&self.fs),
            clock: Arc::clone(&self.clock),
            dir: self.dir.clone(),
            numbers: numbers(&self.versions),
            executor,
            table_options: self.table_options(keyspace, tables),
            table_bytes_target: keyspace.settings().table_bytes_target,
            // Not by the lanes of this job: others may run beside it, on lanes or on none.
            ahead_bytes: job::ahead_bytes(self.executor.width()),
            snapshots: captured.registered,
            visible: captured.visible,
            cancel: Arc::clone(&keyspace.cancel),
        }
    }

    /// Flushes the sealed memtables of `keyspace` into level 0. Returns whether there were any.
    ///
    /// Writers that still fill them are waited for, and `log` is synced up to the end of what they
    /// hold: a power cut must not be able to keep a table and lose the log before it.
    pub(crate) fn flush(
        &self,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: Option<&Log>,
    ) -> Result<bool> {
        let view = keyspace.pin();
        let Some(newest) = view.sealed.first() else {
            return Ok(false);
        };
        if let Some(log) = log {
            complete(newest, snapshots, log)?;
        }
        let memtables: Vec<Arc<Memtable>> = view
            .sealed
            .iter()
            .map(|sealed: &SealedMemtable| Arc::clone(&sealed.memtable))
            .collect();
        assert!(
            snapshots.visible() >= newest.last_seq,
            "what is flushed is visible"
        );
        // What overlaps nothing will be moved down as it is, if it is stored as the bottom is.
        let tables = OutputTables {
            is_bottom: lie_apart(&view.version, &memtables)?,
            commit_times: times_of_memtables(&memtables),
        };
        let context = self.context(Arc::new(Inline), keyspace, snapshots, tables);
        let runs = memtables.iter().map(Memtable::cursor).collect();
        let job = self.next_job();
        let input_bytes = memtables.iter().map(|m| m.bytes() as u64).sum();
        let span = Span::flush(&keyspace.name, job, input_bytes);
        self.listener.tell(|| Event::FlushBegan {
            keyspace: String::from(&*keyspace.name),
            job,
            memtable_count: memtables.len() as u64,
            input_bytes,
        });
        let began_micros = self.clock.monotonic_micros();
        // In what writes pay: by the size of tables, smaller if compressed, it would seem slower.
        let user_bytes = memtables.iter().map(|m| m.user_bytes()).sum();
        let till = &keyspace.till;
        let work = till.begin_work(WorkKind::Flush, began_micros, user_bytes);
        let output = job::flush(&context, &view.version, runs)?;
        let stats = (output.stats.entries_out, output.stats.written_bytes);
        let table_bytes = sizes(&output);
        self.tell_created(keyspace, job, &output);
        let mut edit = KeyspaceEdit::new(keyspace.id);
        edit.flushed_upto = Some(newest.last_seq);
        edit.added = output.added;
        // During recovery there is no log yet whose end could be claimed to be durable: it may
        // never come to be.
        let durable = log.map_or_else(Position::default, Log::durable_upto);
        self.versions
            .apply(edit, durable, snapshots.visible(), |version| {
                keyspace.install_flush(Arc::clone(version), &memtables);
            })?;
        let micros = work.finish(self.clock.monotonic_micros(), user_bytes);
        span.record(stats.1, micros);
        keyspace.ledger.add_flush(table_bytes.into_iter());
        self.listener.tell(|| Event::Flushed {
            keyspace: String::from(&*keyspace.name),
            job,
            entry_count: stats.0,
            written_bytes: stats.1,
            micros,
        });
        Ok(true)
    }

    fn next_job(&self) -> u64 {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    fn tell_created(&self, keyspace: &KeyspaceState, job: u64, output: &JobOutput) {
        for (level, meta) in &output.added {
            self.listener.tell(|| Event::TableCreated {
                keyspace: String::from(&*keyspace.name),
                job,
                path: base::FileKind::Table.path(&self.dir, meta.number),
                level: *level,
                bytes: meta.file_bytes,
            });
        }
    }
}

/// Waits for the writers of a sealed memtable, and makes durable what the log holds of it.
fn complete(sealed: &SealedMemtable, snapshots: &Snapshots, log: &Log) -> Result<()> {
    log.wait_completed(sealed.last_seq)?;
    // The writer may not have come to it yet.
    snapshots.publish(sealed.last_seq);
    log.sync_upto(sealed.log_end)
}

/// The sizes of the tables that a job made.
fn sizes(output: &JobOutput) -> Vec<u64> {
    let metas = output.added.iter().map(|(_, meta)| meta);
    metas.map(|meta| meta.file_bytes).collect()
}

/// What the outputs of a job have in common.
#[derive(Clone, Copy)]
struct OutputTables {
    /// Stored as the bottommost level is.
    is_bottom: bool,
    commit_times: Option<CommitTimes>,
}

/// The commit times of everything in `memtables`.
fn times_of_memtables(memtables: &[Arc<Memtable>]) -> Option<CommitTimes> {
    let times = memtables.iter().filter_map(|memtable| {
        let (smallest_micros, largest_micros) = memtable.commit_times()?;
        Some(CommitTimes {
            smallest_micros,
            largest_micros,
        })
    });
    times.reduce(CommitTimes::union)
}

/// Whether no table of `version` may hold a key between the first and the last of `memtables`.
fn lie_apart(version: &Version, memtables: &[Arc<Memtable>]) -> Result<bool> {
    let mut bounds: Option<(Vec<u8>, Vec<u8>)> = None;
    for memtable in memtables {
        let mut cursor = memtable.cursor();
        if !cursor.seek_to_first()? {
            continue;
        }
        let first = cursor.key().user_key.to_vec();
        cursor.seek_to_last()?;
        let last = cursor.key().user_key.to_vec();
        bounds = Some(match bounds {
            None => (first, last),
            Some((low, high)) => (low.min(first), high.max(last)),
        });
    }
    let Some((first, last)) = bounds else {
        return Ok(true);
    };
    let apart = |meta: &TableMeta| meta.ends_before_key(&first) || meta.smallest.user_key > last;
    Ok(version.tables().all(|(_, table)| apart(&table.meta)))
}

type TableOptionsFn = Arc<dyn Fn(Level, CreationReason) -> TableOptions + Send + Sync>;
