//! The corridor: plan, job, edit, install. Every change of the tree walks it, whoever asks.

use std::ops::Bound;
use std::path::PathBuf;

use base::clock::Clock;
use base::cursor::Cursor;
use base::executor::{Executor, Scatter};
use base::fs::FileSystem;
use base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, HashSeed, Level, Result, SequenceNumber};
use compaction::policy::{ManualCompaction, ManualStep};
use compaction::{
    CompactionPlan, InProgress, JobContext, JobOutput, KeyspaceEdit, TableMeta, Version, job,
    policy,
};
use log::{Log, Position};
use memtable::Memtable;
use sstable::{CommitTimes, CreationReason, TableOptions, TableReader};

use crate::events::{Event, Listener};
use crate::manifest::{Rooms, VersionSet, numbers};
use crate::seams::Seams;
use crate::snapshots::Snapshots;
use crate::superversion::{KeyspaceState, SealedMemtable};
use crate::till::WorkKind;
use crate::trace::{JobTrace, Span};

/// Runs flushes and compactions and installs what they made.
#[derive(Debug)]
pub(crate) struct Tree {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    executor: Arc<dyn Executor>,
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
            listener: seams.listener.clone(),
            dir: rooms.dir.clone(),
            versions: Arc::clone(versions),
            next_job: AtomicU64::new(1),
            hash_seed,
            is_cancelled: AtomicBool::new(false),
        }
    }

    /// How many plans can run at once.
    pub(crate) fn width(&self) -> usize {
        self.executor.width()
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
            executor: Arc::clone(&self.executor) as Arc<dyn Scatter>,
            table_options: self.table_options(keyspace, tables),
            table_bytes_target: keyspace.settings().table_bytes_target,
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
        let context = self.context(keyspace, snapshots, tables);
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

    /// The compaction that is most due or, if none is, one that is worth what it drops.
    fn pick(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        version: &Version,
        in_progress: &InProgress,
    ) -> Option<CompactionPlan> {
        let tuning = keyspace.settings().compaction_tuning();
        policy::pick(version, in_progress, &tuning).or_else(|| {
            let oldest = snapshots.oldest();
            policy::pick_garbage(version, in_progress, &tuning, oldest)
        })
    }

    /// Plans what the tree of `keyspace` needs most and reserves it, up to `count_max` plans.
    pub(crate) fn plan(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        count_max: usize,
    ) -> Vec<CompactionPlan> {
        let mut in_progress = keyspace.in_progress.lock();
        // LOCK: looked at only now: an edit that came before would have taken tables away that
        // nothing in progress names any more.
        let version = Arc::clone(&keyspace.peek().version);
        let mut plans = Vec::new();
        while plans.len() < count_max {
            let Some(plan) = Self::pick(keyspace, snapshots, &version, &in_progress) else {
                break;
            };
            in_progress.insert(&plan);
            plans.push(plan);
        }
        plans
    }

    /// Plans and reserves what is worth doing in `keyspace` while nothing is written.
    pub(crate) fn plan_idle(keyspace: &KeyspaceState) -> Option<CompactionPlan> {
        let mut in_progress = keyspace.in_progress.lock();
        let plan = Self::pick_idle(keyspace, &in_progress)?;
        in_progress.insert(&plan);
        Some(plan)
    }

    /// Whether [`Tree::plan_idle`] has something as of now.
    pub(crate) fn has_idle_work(keyspace: &KeyspaceState) -> bool {
        let in_progress = keyspace.in_progress.lock();
        Self::pick_idle(keyspace, &in_progress).is_some()
    }

    fn pick_idle(keyspace: &KeyspaceState, in_progress: &InProgress) -> Option<CompactionPlan> {
        let tuning = keyspace.settings().compaction_tuning();
        // LOCK: looked at only now, as in `plan`.
        policy::pick_idle(&keyspace.peek().version, in_progress, &tuning)
    }

    /// The number that the oldest pin must reach before more can be dropped from `keyspace`.
    pub(crate) fn garbage_waits_for(
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
    ) -> Option<SequenceNumber> {
        policy::garbage_waits_for(&keyspace.peek().version, snapshots.oldest())
    }

    /// Whether nothing is running and nothing needs to run.
    pub(crate) fn is_at_rest(keyspace: &KeyspaceState, snapshots: &Snapshots) -> bool {
        let in_progress = keyspace.in_progress.lock();
        let view = keyspace.peek();
        in_progress.is_empty()
            && view.sealed.is_empty()
            && Self::pick(keyspace, snapshots, &view.version, &in_progress).is_none()
    }

    /// Runs reserved plans, of whatever keyspaces, side by side and installs each as it ends.
    /// Returns what failed.
    pub(crate) fn run_plans(
        &self,
        snapshots: &Snapshots,
        log: &Log,
        plans: &[(Arc<KeyspaceState>, CompactionPlan)],
    ) -> Vec<(Arc<KeyspaceState>, Error)> {
        let run = |(keyspace, plan): &(Arc<KeyspaceState>, CompactionPlan)| {
            let result = self.run_plan(keyspace, snapshots, log, plan);
            result.err().map(|error| (Arc::clone(keyspace), error))
        };
        if let [plan] = plans {
            return run(plan).into_iter().collect();
        }
        let failed = Mutex::new(Vec::new());
        let tasks = plans.iter().map(|plan| {
            let (failed, run) = (&failed, &run);
            Box::new(move || failed.lock().extend(run(plan))) as Box<dyn FnOnce() + Send>
        });
        self.executor.scatter(tasks.collect());
        failed.into_inner()
    }

    /// Runs one reserved plan and gives the reservation back, whatever happens.
    pub(crate) fn run_plan(
        &self,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: &Log,
        plan: &CompactionPlan,
    ) -> Result<()> {
        let reservation = Reservation {
            in_progress: &keyspace.in_progress,
            plan,
        };
        let version = Arc::clone(&keyspace.peek().version);
        let tables = OutputTables {
            is_bottom: version
                .deepest_used()
                .is_none_or(|deepest| deepest <= plan.output_level),
            commit_times: times_of_inputs(plan),
        };
        let context = self.context(keyspace, snapshots, tables);
        let job = self.next_job();
        let span = Span::compaction(JobTrace {
            keyspace: &keyspace.name,
            job,
            input_level: plan.input_level,
            level: plan.output_level,
            input_bytes: plan.bytes(),
        });
        self.listener.tell(|| Event::CompactionBegan {
            keyspace: String::from(&*keyspace.name),
            job,
            input_level: plan.input_level,
            output_level: plan.output_level,
            table_count: plan.tables().count() as u64,
            input_bytes: plan.bytes(),
            is_move: plan.is_move,
        });
        let began_micros = self.clock.monotonic_micros();
        let level0_bytes = level0_bytes(plan);
        let work = keyspace
            .till
            .begin_work(WorkKind::Compaction, began_micros, level0_bytes);
        let output = job::compact(&context, &version, plan)?;
        if !plan.is_move {
            self.tell_created(keyspace, job, &output);
        }
        let stats = output.stats;
        self.install(keyspace, snapshots, log, output, plan)?;
        let micros = work.finish(self.clock.monotonic_micros(), level0_bytes);
        span.record(stats.written_bytes, micros);
        self.listener.tell(|| Event::Compacted {
            keyspace: String::from(&*keyspace.name),
            job,
            input_level: plan.input_level,
            output_level: plan.output_level,
            is_move: plan.is_move,
            read_bytes: stats.read_bytes,
            written_bytes: stats.written_bytes,
            micros,
        });
        drop(reservation);
        Ok(())
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

    fn install(
        &self,
        keyspace: &KeyspaceState,
        snapshots: &Snapshots,
        log: &Log,
        output: JobOutput,
        plan: &CompactionPlan,
    ) -> Result<()> {
        let table_bytes = sizes(&output);
        let mut edit = KeyspaceEdit::new(keyspace.id);
        edit.added = output.added;
        edit.removed = output.removed;
        self.versions
            .apply(edit, log.durable_upto(), snapshots.visible(), |version| {
                keyspace.install(Arc::clone(version));
            })?;
        if plan.is_move {
            keyspace.ledger.add_move(plan.bytes());
        } else {
            let (level, read_bytes) = (plan.output_level, output.stats.read_bytes);
            let ledger = &keyspace.ledger;
            ledger.add_compaction(level, read_bytes, table_bytes.into_iter());
            if !plan.is_in_place() {
                let arrived = plan.inputs.iter().map(|table| table.meta.file_bytes);
                ledger.add_arrival(level, arrived.sum());
            }
        }
        Ok(())
    }

    /// Begins a manual compaction of what has been flushed so far.
    pub(crate) fn begin_manual(&self, (from, to): KeyBounds<'_>) -> ManualCompaction {
        let first_new = self.versions.peek_file_number();
        ManualCompaction::new(from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec), first_new)
    }

    /// Plans the next piece of a manual compaction and reserves it.
    pub(crate) fn step_manual(
        keyspace: &KeyspaceState,
        request: &mut ManualCompaction,
    ) -> ManualStep {
        let tuning = keyspace.settings().compaction_tuning();
        let mut in_progress = keyspace.in_progress.lock();
        let version: Arc<Version> = Arc::clone(&keyspace.peek().version);
        let step = request.step(&version, &in_progress, &tuning);
        if let ManualStep::Run(plan) = &step {
            in_progress.insert(plan);
        }
        step
    }

    pub(crate) fn level_scores(keyspace: &KeyspaceState) -> Vec<(Level, f64)> {
        let tuning = keyspace.settings().compaction_tuning();
        policy::scores(&keyspace.peek().version, &tuning)
    }
}

/// Waits for the writers of a sealed memtable, and makes durable what the log holds of it.
fn complete(sealed: &SealedMemtable, snapshots: &Snapshots, log: &Log) -> Result<()> {
    log.wait_completed(sealed.last_seq)?;
    // The writer may not have come to it yet.
    snapshots.publish(sealed.last_seq);
    log.sync_upto(sealed.log_end)
}

/// What a plan takes out of level 0.
fn level0_bytes(plan: &CompactionPlan) -> u64 {
    if plan.input_level != Level::ZERO || plan.is_in_place() {
        return 0;
    }
    plan.inputs.iter().map(|table| table.meta.file_bytes).sum()
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

/// The commit times of all inputs of `plan`; unknown if those of one are. A move keeps its own.
fn times_of_inputs(plan: &CompactionPlan) -> Option<CommitTimes> {
    if plan.is_move {
        return None;
    }
    let times = plan.tables().map(|table| {
        // What cannot be read costs the times, not the compaction: it meets the damage itself if
        // there is more.
        let look = |reader: &TableReader| reader.properties().map(|found| found.commit_times);
        table.glance(look).ok()?.ok()?
    });
    let times: Option<Vec<CommitTimes>> = times.collect();
    times?.into_iter().reduce(CommitTimes::union)
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

/// Gives the tables of a plan back, also when its job panics.
struct Reservation<'a> {
    in_progress: &'a Mutex<InProgress>,
    plan: &'a CompactionPlan,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.in_progress.lock().remove(self.plan);
    }
}
