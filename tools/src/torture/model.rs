//! Two writers, a reader of snapshots, and a model that knows what each snapshot must show.
//!
//! Each writer owns every second key of several keyspaces, and a keyspace that it creates and drops
//! again and again, so that it knows at any time what its keys hold and can check its own reads. It
//! reports what it committed, with the sequence number, to the checker. The checker takes snapshots
//! and, for each, brings its model up to the snapshot's sequence number: the snapshot must show
//! exactly the model in every keyspace, whatever flush and compaction do meanwhile.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use base::sync::atomic::{AtomicU64, Ordering};
use indicatif::ProgressBar;
use siltstone::Db;

use super::failure::{Failure, OrFinding, Outcome};
use super::rounds::Plan;
use super::settings;
use super::watchdog::Watchdog;
use super::world::{Version, World};
use super::writer::{self, Done, HeldBack, Writer};
use crate::interrupt::Stop;
use crate::random::Random;

mod checker;
pub(crate) mod shelves;

use checker::Checker;
use shelves::{Hands, Shelves};

/// How many threads write.
pub(crate) const WRITER_COUNT: usize = 2;
/// Reports of a writer that may wait for the checker.
const WAITING_REPORTS_MAX: usize = 1024;

/// What a run of the model is made of.
#[derive(Clone, Debug)]
pub(crate) struct ModelPlan {
    pub(crate) seed: u64,
    /// Puts and deletes in all.
    pub(crate) ops: u64,
    pub(crate) keys: usize,
    /// How often the database is closed and opened again on the way.
    pub(crate) reopens: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelReport {
    pub(crate) operations: u64,
    pub(crate) snapshots: u64,
    pub(crate) probes: u64,
    pub(crate) rechecks: u64,
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) moves: u64,
    pub(crate) reopens: u64,
    /// Writes that were refused because they would have had to wait.
    pub(crate) busy: u64,
    /// Writes that paid for flush or compaction being behind.
    pub(crate) throttled: u64,
    /// Keyspaces created or dropped.
    pub(crate) changes: u64,
    /// Commits to several keyspaces.
    pub(crate) across: u64,
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} commits across, {} keyspaces changed, {} snapshots compared, \
             {} again, {} at once, {} flushes, {} compactions, {} moves, {} openings, \
             {} writes throttled, {} busy",
            self.operations,
            self.across,
            self.changes,
            self.snapshots,
            self.rechecks,
            self.probes,
            self.flushes,
            self.compactions,
            self.moves,
            self.reopens + 2,
            self.throttled,
            self.busy,
        )
    }
}

/// Runs the plan on the database in `dir`, which must be new.
pub(crate) fn run(plan: &ModelPlan, dir: &Path, stop: &Stop) -> Outcome<ModelReport> {
    let world = World::new(plan.keys);
    let watchdog = Watchdog::new(Plan::Model(plan.clone()).replay());
    let mut shelves = Shelves::new(&world);
    let mut report = ModelReport::default();
    let progress = ProgressBar::new(plan.ops);
    let phases = plan.reopens + 1;
    let mut versions = [0; WRITER_COUNT];
    for phase in 0..phases {
        let options = settings::options(plan.seed.wrapping_add(phase));
        let db = options.open(dir).or_finding("opening")?;
        if phase == 0 {
            shelves::prepare(&db, plan.seed)?;
        }
        shelves.check(&db, &world, &format!("after opening {phase}"))?;
        let quota = plan.ops / phases + u64::from(phase < plan.ops % phases);
        let round = Round {
            plan,
            world: &world,
            db: &db,
            stop,
            watchdog: &watchdog,
            progress: &progress,
            phase,
        };
        round.run(quota, &mut versions, &mut shelves, &mut report)?;
        shelves.check(&db, &world, &format!("at the end of phase {phase}"))?;
        end_phase(db, phase, &mut report)?;
        if stop.is_set() {
            break;
        }
    }
    progress.finish_and_clear();
    final_check(plan, dir, &world, &shelves)?;
    Ok(report)
}

fn about(failure: &Failure, when: &str) -> Failure {
    match failure {
        Failure::Finding(text) => Failure::Finding(format!("{when}: {text}")),
        Failure::Setup(error) => Failure::Setup(error.clone()),
    }
}

/// Takes the database's own count of work, and closes or only drops it.
fn end_phase(db: Db, phase: u64, report: &mut ModelReport) -> Outcome<()> {
    if phase.is_multiple_of(2) {
        db.wait_for_compactions()
            .or_finding("waiting for compactions")?;
    }
    let stats = db.stats();
    report.flushes += stats.flush_count;
    report.compactions += stats.compaction_count;
    report.moves += stats.move_count;
    report.reopens += 1;
    if phase.is_multiple_of(3) {
        db.close().or_finding("closing")?;
    }
    drop(db);
    Ok(())
}

/// After everything: reopen, compare, compact all, compare, reopen, compare.
fn final_check(plan: &ModelPlan, dir: &Path, world: &World, shelves: &Shelves) -> Outcome<()> {
    for turn in 0..2 {
        let options = settings::options(plan.seed.wrapping_mul(31).wrapping_add(turn));
        let db = options.open(dir).or_finding("the last opening")?;
        shelves.check(&db, world, "after the last opening")?;
        for keyspace in shelves.find(&db)?.iter().flatten() {
            keyspace
                .compact_range(..)
                .or_finding("the full compaction")?;
        }
        shelves.check(&db, world, "after the full compaction")?;
        db.close().or_finding("the last close")?;
    }
    Ok(())
}

/// One phase: the time between two openings.
struct Round<'a> {
    plan: &'a ModelPlan,
    world: &'a World,
    db: &'a Db,
    stop: &'a Stop,
    watchdog: &'a Watchdog,
    progress: &'a ProgressBar,
    phase: u64,
}

impl Round<'_> {
    fn run(
        &self,
        quota: u64,
        versions: &mut [Version; WRITER_COUNT],
        shelves: &mut Shelves,
        report: &mut ModelReport,
    ) -> Outcome<()> {
        let hands = shelves.find(self.db)?;
        let failed = Stop::new();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let mut receivers = Vec::new();
            let mut writers = Vec::new();
            for (index, version) in versions.iter_mut().enumerate() {
                let (sender, receiver) = sync_channel(WAITING_REPORTS_MAX);
                receivers.push(receiver);
                let own_quota = quota / WRITER_COUNT as u64;
                let start = (shelves.clone(), hands.clone(), *version);
                let (failed, done) = (&failed, &done);
                writers.push(scope.spawn(move || {
                    let result = self.write(index, own_quota, start, &sender, done);
                    match result {
                        Ok((last, held_back)) => {
                            *version = last;
                            Ok(held_back)
                        }
                        Err(failure) => {
                            failed.set();
                            Err(failure)
                        }
                    }
                }));
            }
            let mut checker = Checker::new(self, receivers, shelves, hands);
            let checked = checker.run(&failed, &done, report);
            if checked.is_err() {
                failed.set();
            }
            // Writers that still report are let go: the receivers are gone.
            drop(checker);
            // A writer that failed left commits unreported, and the checker may have missed them:
            // the writer's word comes first.
            let mut result = Ok(());
            for writer in writers {
                let joined = writer
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e));
                match joined {
                    Ok(held_back) => {
                        report.busy += held_back.busy;
                        report.throttled += held_back.throttled;
                        report.changes += held_back.changes;
                        report.across += held_back.across;
                    }
                    Err(failure) => result = result.and(Err(failure)),
                }
            }
            result.and(checked)
        })
    }

    fn write(
        &self,
        index: usize,
        quota: u64,
        start: (Shelves, Hands, Version),
        sender: &SyncSender<Vec<Done>>,
        done: &AtomicU64,
    ) -> Outcome<(Version, HeldBack)> {
        let random = Random::stream(self.plan.seed, &[self.phase, index as u64]);
        let mut writer = Writer::new(self.world, index, start, random);
        let mut report = Vec::with_capacity(writer::REPORT_COUNT);
        while writer.op_count() < quota && !self.stop.is_set() {
            writer.step(self.db, &mut report)?;
            self.watchdog.step();
            if report.len() >= writer::REPORT_COUNT {
                done.fetch_add(report.len() as u64, Ordering::Relaxed);
                if sender.send(std::mem::take(&mut report)).is_err() {
                    // The checker has found something and gone.
                    return Ok((writer.version(), writer.held_back()));
                }
            }
        }
        done.fetch_add(report.len() as u64, Ordering::Relaxed);
        // As above.
        let _ = sender.send(report);
        Ok((writer.version(), writer.held_back()))
    }
}
