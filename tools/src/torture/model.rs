//! Two writers, a reader of snapshots, and a model that knows what each snapshot must show.
//!
//! Each writer owns every second key, so that it knows at any time what its keys hold and can
//! check its own reads. It reports what it committed, with the sequence number, to the checker. The
//! checker takes snapshots and, for each, brings its model up to the snapshot's sequence number:
//! the snapshot must show exactly the model, whatever flush and compaction do meanwhile.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use base::sync::atomic::{AtomicU64, Ordering};
use indicatif::ProgressBar;
use siltstone::{Db, Slice, Snapshot};

use super::compare::{
    Source, State, Walk, check_all, check_found, check_get, check_multi_get, check_random_part,
    check_scan,
};
use super::failure::{Failure, OrFinding, Outcome, finding};
use super::rounds::Plan;
use super::settings;
use super::watchdog::Watchdog;
use super::world::{Version, World};
use super::writer::{self, Done, HeldBack, Writer};
use crate::interrupt::Stop;
use crate::random::Random;

/// How many threads write.
const WRITER_COUNT: usize = 2;
/// Reports of a writer that may wait for the checker.
const WAITING_REPORTS_MAX: usize = 1024;
/// Snapshots of which only the busiest keys are read, and those at once, between two others.
const PROBE_COUNT: usize = 100;
/// Snapshots that are kept for a while and looked at again.
const HELD_SNAPSHOTS_MAX: usize = 4;

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
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {} snapshots compared, {} again, {} at once, {} flushes, \
             {} compactions, {} moves, {} openings, {} writes throttled, {} busy",
            self.operations,
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
    let mut state: State = vec![0; world.len()];
    let mut report = ModelReport::default();
    let progress = ProgressBar::new(plan.ops);
    let phases = plan.reopens + 1;
    let mut versions = [0; WRITER_COUNT];
    for phase in 0..phases {
        let options = settings::options(plan.seed.wrapping_add(phase));
        let db = options.open(dir).or_finding("opening")?;
        check_all(Source::Db(&db), &world, &state)
            .map_err(|failure| about(&failure, &format!("after opening {phase}")))?;
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
        round.run(quota, &mut versions, &mut state, &mut report)?;
        check_all(Source::Db(&db), &world, &state)
            .map_err(|failure| about(&failure, &format!("at the end of phase {phase}")))?;
        end_phase(db, phase, &mut report)?;
        if stop.is_set() {
            break;
        }
    }
    progress.finish_and_clear();
    final_check(plan, dir, &world, &state)?;
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
fn final_check(plan: &ModelPlan, dir: &Path, world: &World, state: &[Version]) -> Outcome<()> {
    for turn in 0..2 {
        let options = settings::options(plan.seed.wrapping_mul(31).wrapping_add(turn));
        let db = options.open(dir).or_finding("the last opening")?;
        check_all(Source::Db(&db), world, state)
            .map_err(|failure| about(&failure, "after the last opening"))?;
        db.compact_range(..).or_finding("the full compaction")?;
        check_all(Source::Db(&db), world, state)
            .map_err(|failure| about(&failure, "after the full compaction"))?;
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
        state: &mut State,
        report: &mut ModelReport,
    ) -> Outcome<()> {
        let failed = Stop::new();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let mut receivers = Vec::new();
            let mut writers = Vec::new();
            for (index, version) in versions.iter_mut().enumerate() {
                let (sender, receiver) = sync_channel(WAITING_REPORTS_MAX);
                receivers.push(receiver);
                let own_quota = quota / WRITER_COUNT as u64;
                let start = state.clone();
                let (failed, done) = (&failed, &done);
                writers.push(scope.spawn(move || {
                    let result = self.write(index, own_quota, start, *version, &sender, done);
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
            let mut checker = Checker::new(self, receivers, state);
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
        state: State,
        version: Version,
        sender: &SyncSender<Vec<Done>>,
        done: &AtomicU64,
    ) -> Outcome<(Version, HeldBack)> {
        let random = Random::stream(self.plan.seed, &[self.phase, index as u64]);
        let mut writer = Writer::new(self.world, (index, WRITER_COUNT), state, version, random);
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

/// What was found of the busiest keys in a snapshot.
struct Probe {
    seq: u64,
    found: Vec<(usize, Option<Slice>)>,
}

impl Probe {
    /// Each `turn` begins with another key: the first read is the one that comes soonest.
    fn take(db: &Db, world: &World, turn: usize) -> Outcome<Self> {
        let count = (writer::BUSY_KEY_COUNT * WRITER_COUNT).min(world.len());
        let snapshot = db.snapshot().or_finding("a snapshot")?;
        let read = |place: usize| {
            let index = (turn + place) % count;
            let found = snapshot
                .get(world.key(index))
                .or_finding("get of a snapshot")?;
            Ok((index, found))
        };
        let found = (0..count).map(read).collect::<Outcome<_>>()?;
        Ok(Self {
            seq: snapshot.seq().get(),
            found,
        })
    }
}

struct Held {
    snapshot: Snapshot,
    state: State,
}

/// Takes snapshots and compares them with the model.
struct Checker<'a> {
    round: &'a Round<'a>,
    sources: Vec<LogSource>,
    state: &'a mut State,
    /// Operations between the start of the phase and the model's sequence number.
    operations: u64,
    /// The first snapshot of the phase that shows a commit of it, and the operations up to there.
    first_seen: Option<(u64, u64)>,
    random: Random,
    held: Vec<Held>,
}

/// What a writer has reported and the model has not yet taken in.
struct LogSource {
    receiver: Receiver<Vec<Done>>,
    waiting: std::vec::IntoIter<Done>,
    next: Option<Done>,
    is_ended: bool,
}

impl LogSource {
    /// The next report, if it is at or before `seq`; waits until that is known.
    fn next_upto(&mut self, seq: u64) -> Option<Done> {
        while self.next.is_none() && !self.is_ended {
            self.next = self.waiting.next();
            if self.next.is_none() {
                match self.receiver.recv() {
                    Ok(report) => self.waiting = report.into_iter(),
                    Err(_) => self.is_ended = true,
                }
            }
        }
        self.next.take_if(|done| done.seq <= seq)
    }
}

impl<'a> Checker<'a> {
    fn new(
        round: &'a Round<'a>,
        receivers: Vec<Receiver<Vec<Done>>>,
        state: &'a mut State,
    ) -> Self {
        let sources = receivers
            .into_iter()
            .map(|receiver| LogSource {
                receiver,
                waiting: Vec::new().into_iter(),
                next: None,
                is_ended: false,
            })
            .collect();
        Self {
            round,
            sources,
            state,
            operations: 0,
            first_seen: None,
            random: Random::stream(round.plan.seed, &[round.phase, 99]),
            held: Vec::new(),
        }
    }

    /// Checks snapshots until the writers have ended and the model knows all they did.
    fn run(&mut self, failed: &Stop, done: &AtomicU64, report: &mut ModelReport) -> Outcome<()> {
        loop {
            let is_last = self.sources.iter().all(|source| source.is_ended);
            self.probe(report)?;
            let snapshot = self.round.db.snapshot().or_finding("a snapshot")?;
            self.advance(snapshot.seq().get())?;
            let random = self.fork_random();
            check_some(
                Source::Snapshot(&snapshot),
                self.round.world,
                self.state,
                random,
            )
            .map_err(|f| about(&f, &format!("snapshot at {}", snapshot.seq())))?;
            report.snapshots += 1;
            self.round.watchdog.step();
            self.round
                .progress
                .set_position(report.operations + done.load(Ordering::Relaxed));
            self.hold(snapshot, report)?;
            self.disturb()?;
            if failed.is_set() {
                return Ok(());
            }
            if is_last {
                break;
            }
        }
        report.operations += self.operations;
        while !self.held.is_empty() {
            self.look_again(0, report)?;
        }
        Ok(())
    }

    /// Takes snapshots one after the other and reads the busiest keys of each at once, to catch
    /// commits that are visible before they are whole; compares only then.
    fn probe(&mut self, report: &mut ModelReport) -> Outcome<()> {
        let probes: Vec<Probe> = (0..PROBE_COUNT)
            .map(|turn| Probe::take(self.round.db, self.round.world, turn))
            .collect::<Outcome<_>>()?;
        for probe in probes {
            self.advance(probe.seq)?;
            for (index, found) in probe.found {
                check_found(self.round.world, self.state, index, found.as_deref())
                    .map_err(|f| about(&f, &format!("snapshot at {}, at once", probe.seq)))?;
            }
            report.probes += 1;
        }
        Ok(())
    }

    /// Brings the model up to a sequence number, which must not be below the last one.
    fn advance(&mut self, seq: u64) -> Outcome<()> {
        for source in &mut self.sources {
            while let Some(done) = source.next_upto(seq) {
                self.state[done.index] = done.version;
                self.operations += 1;
            }
        }
        // Each operation has its own sequence number and there are no other writers, so that a
        // number without an operation is a hole. An opening may leave one before the first commit.
        if self.operations == 0 {
            return Ok(());
        }
        let (first_seq, first_operations) = *self.first_seen.get_or_insert((seq, self.operations));
        if seq - first_seq != self.operations - first_operations {
            return finding(format!(
                "between {first_seq} and {seq} there are {} operations",
                self.operations - first_operations
            ));
        }
        Ok(())
    }

    fn fork_random(&mut self) -> Random {
        Random::new(self.random.next_u64())
    }

    /// Keeps some snapshots, and looks at one of them again.
    fn hold(&mut self, snapshot: Snapshot, report: &mut ModelReport) -> Outcome<()> {
        if self.random.one_in(3) {
            self.held.push(Held {
                snapshot,
                state: self.state.clone(),
            });
        }
        if self.held.len() > HELD_SNAPSHOTS_MAX {
            let index = self.random.below_usize(self.held.len());
            self.look_again(index, report)?;
        }
        Ok(())
    }

    fn look_again(&mut self, index: usize, report: &mut ModelReport) -> Outcome<()> {
        let held = self.held.swap_remove(index);
        let source = Source::Snapshot(&held.snapshot);
        let random = self.fork_random();
        check_scan(source, self.round.world, &held.state, Walk::Forward)
            .and_then(|()| check_some(source, self.round.world, &held.state, random))
            .map_err(|f| about(&f, &format!("snapshot at {} again", held.snapshot.seq())))?;
        report.rechecks += 1;
        Ok(())
    }

    /// Now and then asks for what happens by itself anyway, at another moment.
    fn disturb(&mut self) -> Outcome<()> {
        let (world, db) = (self.round.world, self.round.db);
        match self.random.below(40) {
            0 => db.flush().or_finding("flush"),
            1 => {
                let from = self.random.below_usize(world.len());
                let until = (from + 1 + self.random.below_usize(world.len())).min(world.len() - 1);
                let from = world.key(world.sorted()[from.min(until)]);
                let until = world.key(world.sorted()[until]);
                db.compact_range(from..until).or_finding("compact_range")
            }
            2 => db.sync().or_finding("sync"),
            _ => Ok(()),
        }
    }
}

/// Compares some of what a source shows, in one way or another.
fn check_some(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    mut random: Random,
) -> Outcome<()> {
    match random.below(4) {
        0 => check_scan(source, world, state, Walk::Forward)?,
        1 => check_scan(source, world, state, Walk::Backward)?,
        _ => {
            for _ in 0..4 {
                check_random_part(source, world, state, &mut random)?;
            }
        }
    }
    for _ in 0..50 {
        check_get(source, world, state, random.below_usize(world.len()))?;
    }
    let indexes: Vec<usize> = (0..20).map(|_| random.below_usize(world.len())).collect();
    check_multi_get(source, world, state, &indexes)
}
