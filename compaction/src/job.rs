//! Carries out a plan: merge, retention, output. A flush is a job too.
//!
//! A job reads tables and writes new ones; it installs nothing. Its outputs are durable when it
//! returns, and what it returns becomes an edit. If it fails, is cancelled or panics, its files are
//! removed and the tree is as it was. Memory depends neither on how much is merged nor on how many
//! tables or runs that lies in: what is read ahead is shared by the runs of a range and by all
//! ranges that can run at once ([`AHEAD_BYTES_TOTAL`]). On top come one open table a run, and for
//! each range an output table's hashes and index and a piece of it on its way to the file. Tables
//! of level 0 that lie side by side are one run.

use std::fmt;
use std::path::PathBuf;

use base::clock::Clock;
use base::cursor::Cursor;
use base::error::{Error, ErrorKind, Result};
use base::executor::{Scatter, Task};
use base::fs::FileSystem;
use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};
use base::{FileNumber, Level, SequenceNumber};
use sstable::{CreationReason, TableOptions};

use crate::levels::{TableMeta, Version};
use crate::merge::Merge;
use crate::output::{CreatedFiles, OutputRules, Outputs};
use crate::plan::CompactionPlan;
use crate::range::shared_len;
use crate::retention::Retention;

mod ranges;
mod stream;

use ranges::KeySpan;
use stream::{Below, Stream};

/// What a job needs of its surroundings.
#[derive(Clone)]
pub struct JobContext {
    /// Where files are written.
    pub fs: Arc<dyn FileSystem>,
    /// Dates the outputs.
    pub clock: Arc<dyn Clock>,
    /// The directory of the outputs.
    pub dir: PathBuf,
    /// Hands out a number for each output.
    pub numbers: Arc<dyn Fn() -> FileNumber + Send + Sync>,
    /// Runs key ranges side by side.
    pub executor: Arc<dyn Scatter>,
    /// How an output at a level is built.
    pub table_options: Arc<dyn Fn(Level, CreationReason) -> TableOptions + Send + Sync>,
    /// Outputs are cut at this size.
    pub table_bytes_target: u64,
    /// What a range reads ahead, in all its runs together; see [`ahead_bytes`].
    pub ahead_bytes: usize,
    /// Every registered snapshot, ascending. Captured after the inputs were fixed and the visible
    /// sequence covered all of them, together with `visible`.
    pub snapshots: Vec<SequenceNumber>,
    /// What a read without a snapshot sees; counts as one more snapshot.
    pub visible: SequenceNumber,
    /// Set by others to end the job early.
    pub cancel: Arc<AtomicBool>,
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext")
            .field("dir", &self.dir)
            .field("snapshots", &self.snapshots)
            .field("visible", &self.visible)
            .finish_non_exhaustive()
    }
}

/// What all compactions of a database read ahead together.
pub const AHEAD_BYTES_TOTAL: usize = 2 << 20;
/// What one range reads ahead at most and at least; with less, merging would wait for each block.
const AHEAD_BYTES_MAX: usize = 1 << 20;
const AHEAD_BYTES_MIN: usize = 128 << 10;

/// What each of `range_count` ranges side by side may read ahead.
pub fn ahead_bytes(range_count: usize) -> usize {
    (AHEAD_BYTES_TOTAL / range_count.max(1)).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX)
}

/// What a job did to the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOutput {
    /// New tables, or tables at a new level; in key order.
    pub added: Vec<(Level, TableMeta)>,
    /// Tables that are replaced, or leave their level.
    pub removed: Vec<(Level, FileNumber)>,
    /// What it cost.
    pub stats: JobStats,
}

/// What a job cost. Entries read are entries written plus both kinds of dropped ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Entries read.
    pub entries_in: u64,
    /// Entries written.
    pub entries_out: u64,
    /// Tombstones that had nothing left to hide.
    pub tombstones_dropped: u64,
    /// Entries that a newer one hides from every reader.
    pub versions_dropped: u64,
    /// The size of the input tables; 0 for a flush or a move.
    pub read_bytes: u64,
    /// The size of the output tables.
    pub written_bytes: u64,
    /// Output tables written.
    pub table_count: u64,
    /// Key ranges that were worked on side by side.
    pub range_count: u64,
}

impl JobStats {
    fn add_counts(&mut self, other: &Self) {
        self.entries_in += other.entries_in;
        self.entries_out += other.entries_out;
        self.tombstones_dropped += other.tombstones_dropped;
        self.versions_dropped += other.versions_dropped;
    }
}

/// Ends the ranges of a job early, when somebody cancels it or one of them fails.
struct Stop<'a> {
    cancel: &'a AtomicBool,
    failed: AtomicBool,
}

impl Stop<'_> {
    fn check(&self) -> Result<()> {
        // Relaxed: a few entries more or less do not matter.
        if self.cancel.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "job was cancelled"));
        }
        Ok(())
    }
}

/// Stops the other ranges when one ends badly, by an error or a panic.
struct Ending<'a> {
    stop: &'a Stop<'a>,
    is_good: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.is_good {
            self.stop.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// A flushed table may be this many times the target, so that a memtable of about the target size
/// becomes one table and counts once at level 0.
const FLUSH_TARGET_FACTOR: u64 = 2;

/// Writes sorted runs that lie in memory, newest first, as tables of level 0.
///
/// Overwritten versions that no snapshot sees are dropped. Tombstones stay, whatever the tree below
/// holds: older memtables and running compactions may hold what they hide.
///
/// # Errors
/// What a run or the file system says; `Closed` if the job was cancelled. No file stays.
pub fn flush<C: Cursor + Send>(
    context: &JobContext,
    _version: &Version,
    mut runs: Vec<C>,
) -> Result<JobOutput> {
    let files = CreatedFiles::new(&*context.fs);
    let stop = Stop {
        cancel: &context.cancel,
        failed: AtomicBool::new(false),
    };
    stop.check()?;
    let shared = shared_of_runs(&mut runs)?;
    let rules = OutputRules {
        level: Level::ZERO,
        reason: CreationReason::Flush,
        bytes_target: context
            .table_bytes_target
            .saturating_mul(FLUSH_TARGET_FACTOR),
        grandparents: &[],
    };
    let retention = Retention::new(&context.snapshots, context.visible);
    let mut stream = Stream {
        merge: Merge::new(runs, shared),
        retention: &retention,
        below: Below::anything(),
        outputs: Outputs::new(context, &files, rules),
        stats: JobStats::default(),
        stop: &stop,
        bounds: None,
    };
    stream.run(&KeySpan::default())?;
    let Stream { outputs, stats, .. } = stream;
    let part = RangeOutput {
        tables: outputs.finish()?,
        stats,
    };
    conclude(context, &files, Level::ZERO, vec![part])
}

/// How many bytes all keys of `runs` begin with. Leaves the runs somewhere.
fn shared_of_runs<C: Cursor>(runs: &mut [C]) -> Result<usize> {
    let mut bounds: Option<(Vec<u8>, Vec<u8>)> = None;
    for run in runs {
        if !run.seek_to_first()? {
            continue;
        }
        let first = run.key().user_key.to_vec();
        run.seek_to_last()?;
        let last = run.key().user_key.to_vec();
        bounds = Some(match bounds {
            None => (first, last),
            Some((low, high)) => (low.min(first), high.max(last)),
        });
    }
    Ok(bounds.map_or(0, |(low, high)| shared_len(&low, &high)))
}

/// Carries out `plan`. `version` is the tree it was made from, or a later one.
///
/// A large plan is split at user keys into ranges that run side by side on the context's executor.
/// Every block read is checked against its checksum. A move costs nothing here.
///
/// # Errors
/// `Corruption` if an input is damaged or holds another number of entries than the tree says; what
/// the file system says; `Closed` if the job was cancelled. No file stays, the inputs are
/// untouched.
pub fn compact(
    context: &JobContext,
    version: &Version,
    plan: &CompactionPlan,
) -> Result<JobOutput> {
    if plan.is_move {
        return Ok(moved(plan));
    }
    let files = CreatedFiles::new(&*context.fs);
    let stop = Stop {
        cancel: &context.cancel,
        failed: AtomicBool::new(false),
    };
    stop.check()?;
    let spans = ranges::split(plan, context.executor.width(), context.table_bytes_target)?;
    let retention = Retention::new(&context.snapshots, context.visible);
    let mut slots: Vec<Option<Result<RangeOutput>>> = spans.iter().map(|_| None).collect();
    let compaction = Compaction {
        context,
        version,
        plan,
        retention,
        files: &files,
        stop: &stop,
    };
    let tasks = spans
        .iter()
        .zip(&mut slots)
        .map(|(span, slot)| -> Task<'_> {
            let compaction = &compaction;
            Box::new(move || {
                let mut ending = Ending {
                    stop: compaction.stop,
                    is_good: false,
                };
                let result = compaction.run(span);
                ending.is_good = result.is_ok();
                *slot = Some(result);
            })
        })
        .collect();
    context.executor.scatter(tasks);
    let parts = first_error_or_all(slots)?;
    check_input_count(plan, &parts)?;
    let mut output = conclude(context, &files, plan.output_level, parts)?;
    output.removed = removed_by(plan);
    output.stats.read_bytes = plan.bytes();
    Ok(output)
}

/// What one range made.
struct RangeOutput {
    tables: Vec<TableMeta>,
    stats: JobStats,
}

/// What all ranges of a compaction share.
struct Compaction<'a> {
    context: &'a JobContext,
    version: &'a Version,
    plan: &'a CompactionPlan,
    retention: Retention,
    files: &'a CreatedFiles<'a>,
    stop: &'a Stop<'a>,
}

impl Compaction<'_> {
    fn run(&self, span: &KeySpan) -> Result<RangeOutput> {
        let Self { context, plan, .. } = self;
        let rules = OutputRules {
            level: plan.output_level,
            reason: CreationReason::Compaction,
            bytes_target: context.table_bytes_target,
            grandparents: span.tables(&plan.grandparents),
        };
        let mut stream = Stream {
            merge: Merge::new(
                ranges::cursors(plan, span, context.ahead_bytes),
                shared_len(&plan.range.from, &plan.range.to),
            ),
            retention: &self.retention,
            below: match plan.output_level {
                // What level 0 holds besides the inputs may be older than they are.
                Level::ZERO => Below::anything(),
                level => Below::of(self.version, level, span, &plan.range),
            },
            outputs: Outputs::new(context, self.files, rules),
            stats: JobStats::default(),
            stop: self.stop,
            bounds: Some(&plan.range),
        };
        stream.run(span)?;
        let Stream { outputs, stats, .. } = stream;
        Ok(RangeOutput {
            tables: outputs.finish()?,
            stats,
        })
    }
}

/// All results, or the error that came first rather than those of ranges it stopped.
fn first_error_or_all(slots: Vec<Option<Result<RangeOutput>>>) -> Result<Vec<RangeOutput>> {
    let mut parts = Vec::with_capacity(slots.len());
    let mut failure: Option<Error> = None;
    for slot in slots {
        match slot.expect("scatter returns after every task has run") {
            Ok(part) => parts.push(part),
            Err(error) => {
                if failure
                    .as_ref()
                    .is_none_or(|first| first.kind() == ErrorKind::Closed)
                {
                    failure = Some(error);
                }
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(parts),
    }
}

/// An input that ended early, for whatever reason, must not become the new truth.
fn check_input_count(plan: &CompactionPlan, parts: &[RangeOutput]) -> Result<()> {
    let wanted: u64 = plan.tables().map(|table| table.meta.entry_count).sum();
    let found: u64 = parts.iter().map(|part| part.stats.entries_in).sum();
    if wanted == found {
        return Ok(());
    }
    let message = "inputs hold another number of entries than the tree says";
    Err(Error::new(ErrorKind::Corruption, message)
        .with_value("plan", plan)
        .with_value("wanted", wanted)
        .with_value("found", found))
}

/// Checks the counts, makes the names durable and lets the files stay.
fn conclude(
    context: &JobContext,
    files: &CreatedFiles<'_>,
    level: Level,
    parts: Vec<RangeOutput>,
) -> Result<JobOutput> {
    let mut output = JobOutput::default();
    output.stats.range_count = parts.len() as u64;
    for part in parts {
        output.stats.add_counts(&part.stats);
        for meta in part.tables {
            output.stats.written_bytes += meta.file_bytes;
            output.stats.table_count += 1;
            output.added.push((level, meta));
        }
    }
    let stats = &output.stats;
    let dropped = stats.tombstones_dropped + stats.versions_dropped;
    let written: u64 = output.added.iter().map(|(_, meta)| meta.entry_count).sum();
    assert!(
        stats.entries_in == stats.entries_out + dropped,
        "entries were lost in a job"
    );
    assert!(
        stats.entries_out == written,
        "tables hold other entries than were written"
    );
    if !files.is_empty() {
        context.fs.sync_dir(&context.dir)?;
    }
    files.keep();
    Ok(output)
}

fn removed_by(plan: &CompactionPlan) -> Vec<(Level, FileNumber)> {
    let inputs = plan
        .inputs
        .iter()
        .map(|table| (plan.input_level, table.meta.number));
    let overlapping = plan
        .overlapping
        .iter()
        .map(|table| (plan.output_level, table.meta.number));
    inputs.chain(overlapping).collect()
}

fn moved(plan: &CompactionPlan) -> JobOutput {
    assert!(
        plan.overlapping.is_empty(),
        "a move must not overlap its new level"
    );
    JobOutput {
        added: plan
            .inputs
            .iter()
            .map(|table| (plan.output_level, table.meta.clone()))
            .collect(),
        removed: removed_by(plan),
        stats: JobStats::default(),
    }
}

#[cfg(test)]
mod tests;
