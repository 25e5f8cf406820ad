//! Takes snapshots and compares them with the model.

use std::sync::mpsc::Receiver;

use base::sync::atomic::{AtomicU64, Ordering};
use siltstone::{Keyspace, Slice, Snapshot};

use super::super::compare::{
    Source, Walk, check_found, check_get, check_multi_get, check_random_part, check_scan,
};
use super::super::failure::{OrFinding, Outcome, finding};
use super::super::world::{Version, World};
use super::super::writer::{self, Change, Done, Written};
use super::shelves::{Hands, SHARED_COUNT, SLOT_COUNT, Shelves, past, slot_name};
use super::{ModelReport, Round, WRITER_COUNT, about};
use crate::interrupt::Stop;
use crate::random::Random;

/// Snapshots of which only the busiest keys are read, and those at once, between two others.
const PROBE_COUNT: usize = 60;
/// Snapshots that are kept for a while and looked at again.
const HELD_SNAPSHOTS_MAX: usize = 4;

/// What was found of the busiest keys in a snapshot.
struct Probe {
    seq: u64,
    found: Vec<(usize, usize, Option<Slice>)>,
}

impl Probe {
    /// Each `turn` begins with another key of another keyspace: the first read is the one that
    /// comes soonest.
    fn take(snapshot: &Snapshot, hands: &Hands, world: &World, turn: usize) -> Outcome<Self> {
        let count = (writer::BUSY_KEY_COUNT * WRITER_COUNT).min(world.len());
        let shared: Hands = hands[..SHARED_COUNT].to_vec();
        let past = past(snapshot, &shared)?;
        let read = |place: usize| {
            let (slot, index) = (
                (turn + place) % SHARED_COUNT,
                (turn + place / SHARED_COUNT) % count,
            );
            let Some(past) = &past[slot] else {
                return finding("a keyspace that is always there is not");
            };
            let found = past.get(world.key(index)).or_finding("get of a snapshot")?;
            Ok((slot, index, found))
        };
        let places = 0..count * SHARED_COUNT;
        Ok(Self {
            seq: snapshot.seq().get(),
            found: places.map(read).collect::<Outcome<_>>()?,
        })
    }
}

/// A snapshot and what it must show, with the handles of then.
struct Held {
    snapshot: Snapshot,
    shelves: Shelves,
    hands: Hands,
}

/// Takes snapshots and compares them with the model.
pub(super) struct Checker<'a> {
    round: &'a Round<'a>,
    sources: Vec<LogSource>,
    shelves: &'a mut Shelves,
    hands: Hands,
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
    /// Comes before `next`, and after all that was taken.
    change: Option<Change>,
    next: Option<Written>,
    is_ended: bool,
}

impl LogSource {
    fn new(receiver: Receiver<Vec<Done>>) -> Self {
        Self {
            receiver,
            waiting: Vec::new().into_iter(),
            change: None,
            next: None,
            is_ended: false,
        }
    }

    /// The next report, if it is certainly at or before `seq`; waits until that is known. A change
    /// is if the operation after it is.
    fn next_upto(&mut self, seq: u64) -> Option<Done> {
        while self.next.is_none() && !self.is_ended {
            match self.waiting.next() {
                Some(Done::Written(written)) => self.next = Some(written),
                Some(Done::Changed(change)) => self.change = Some(change),
                None => match self.receiver.recv() {
                    Ok(report) => self.waiting = report.into_iter(),
                    Err(_) => self.is_ended = true,
                },
            }
        }
        let is_due = self.next.is_some_and(|written| written.seq <= seq);
        if !is_due {
            return None;
        }
        let change = self.change.take().map(Done::Changed);
        change.or_else(|| self.next.take().map(Done::Written))
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(
        round: &'a Round<'a>,
        receivers: Vec<Receiver<Vec<Done>>>,
        shelves: &'a mut Shelves,
        hands: Hands,
    ) -> Self {
        Self {
            round,
            sources: receivers.into_iter().map(LogSource::new).collect(),
            shelves,
            hands,
            operations: 0,
            first_seen: None,
            random: Random::stream(round.plan.seed, &[round.phase, 99]),
            held: Vec::new(),
        }
    }

    /// Checks snapshots until the writers have ended and the model knows all they did.
    pub(super) fn run(
        &mut self,
        failed: &Stop,
        done: &AtomicU64,
        report: &mut ModelReport,
    ) -> Outcome<()> {
        loop {
            let is_last = self.sources.iter().all(|source| source.is_ended);
            self.probe(report)?;
            let snapshot = self.round.db.snapshot().or_finding("a snapshot")?;
            self.advance(snapshot.seq().get())?;
            self.compare(&snapshot)?;
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
        // What nobody wrote after: the writers are gone.
        for source in 0..self.sources.len() {
            if let Some(change) = self.sources[source].change.take() {
                self.take_change(change);
            }
        }
        Ok(())
    }

    /// Takes snapshots one after the other and reads the busiest keys of each at once, to catch
    /// commits that are visible before they are whole; compares only then.
    fn probe(&mut self, report: &mut ModelReport) -> Outcome<()> {
        let (db, world, hands) = (self.round.db, self.round.world, &self.hands);
        let probes: Vec<Probe> = (0..PROBE_COUNT)
            .map(|turn| {
                let snapshot = db.snapshot().or_finding("a snapshot")?;
                Probe::take(&snapshot, hands, world, turn)
            })
            .collect::<Outcome<_>>()?;
        for probe in probes {
            self.advance(probe.seq)?;
            for (slot, index, found) in probe.found {
                check_found(world, self.shelves.at(slot), index, found.as_deref()).map_err(
                    |f| {
                        let (seq, name) = (probe.seq, slot_name(slot));
                        about(&f, &format!("snapshot at {seq} of {name}, at once"))
                    },
                )?;
            }
            report.probes += 1;
        }
        Ok(())
    }

    /// Brings the model up to a sequence number, which must not be below the last one.
    fn advance(&mut self, seq: u64) -> Outcome<()> {
        for source in 0..self.sources.len() {
            while let Some(done) = self.sources[source].next_upto(seq) {
                self.operations += 1;
                match done {
                    Done::Written(w) => self.shelves.at_mut(w.slot)[w.index] = w.version,
                    Done::Changed(change) => self.take_change(change),
                }
            }
        }
        // Each operation and each change has its own sequence number and there are no other
        // writers, so that a number without one is a hole. An opening may leave one before the
        // first commit. Changes of which it is not known yet may lie on either side.
        let unsure = self.sources.iter().filter(|s| s.change.is_some()).count() as u64;
        if self.operations == 0 || (self.first_seen.is_none() && unsure > 0) {
            return Ok(());
        }
        let (first_seq, first_operations) = *self.first_seen.get_or_insert((seq, self.operations));
        let known = self.operations - first_operations;
        if !(known..=known + unsure).contains(&(seq - first_seq)) {
            return finding(format!(
                "between {first_seq} and {seq} there are {known} operations"
            ));
        }
        Ok(())
    }

    fn take_change(&mut self, change: Change) {
        let len = self.round.world.len();
        self.shelves.0[change.slot] = change.created.as_ref().map(|_| vec![0; len]);
        self.hands[change.slot] = change.created;
    }

    /// Whether it is not known on which side of the model's sequence number the slot changed.
    fn is_unsure(&self, slot: usize) -> bool {
        let mut changes = self.sources.iter().filter_map(|s| s.change.as_ref());
        changes.any(|change| change.slot == slot)
    }

    /// Compares a snapshot of now with the model, keyspace by keyspace.
    fn compare(&mut self, snapshot: &Snapshot) -> Outcome<()> {
        let seq = snapshot.seq();
        let past = past(snapshot, &self.hands)?;
        for slot in 0..SLOT_COUNT {
            let Some(past) = &past[slot] else {
                if self.hands[slot].is_some() && !self.is_unsure(slot) {
                    let name = slot_name(slot);
                    return finding(format!("snapshot at {seq}: {name} is not there"));
                }
                continue;
            };
            let random = self.fork_random();
            let (world, state) = (self.round.world, self.shelves.at(slot));
            check_some(Source::Snapshot(past), world, state, random)
                .map_err(|f| about(&f, &format!("snapshot at {seq} of {}", slot_name(slot))))?;
        }
        Ok(())
    }

    fn fork_random(&mut self) -> Random {
        Random::new(self.random.next_u64())
    }

    /// Keeps some snapshots, and looks at one of them again.
    fn hold(&mut self, snapshot: Snapshot, report: &mut ModelReport) -> Outcome<()> {
        if self.random.one_in(3) {
            let (mut shelves, mut hands) = (self.shelves.clone(), self.hands.clone());
            for slot in (0..SLOT_COUNT).filter(|&slot| self.is_unsure(slot)) {
                (shelves.0[slot], hands[slot]) = (None, None);
            }
            self.held.push(Held {
                snapshot,
                shelves,
                hands,
            });
        }
        if self.held.len() > HELD_SNAPSHOTS_MAX {
            let index = self.random.below_usize(self.held.len());
            self.look_again(index, report)?;
        }
        Ok(())
    }

    /// A snapshot shows what it showed, also of keyspaces that were dropped since.
    fn look_again(&mut self, index: usize, report: &mut ModelReport) -> Outcome<()> {
        let held = self.held.swap_remove(index);
        let seq = held.snapshot.seq();
        let past = past(&held.snapshot, &held.hands)?;
        for (slot, (past, hand)) in past.iter().zip(&held.hands).enumerate() {
            let name = slot_name(slot);
            let Some(past) = past else {
                if hand.is_some() {
                    return finding(format!("snapshot at {seq} again: {name} is gone"));
                }
                continue;
            };
            let (world, state) = (self.round.world, held.shelves.at(slot));
            let random = self.fork_random();
            let source = Source::Snapshot(past);
            check_scan(source, world, state, Walk::Forward)
                .and_then(|()| check_some(source, world, state, random))
                .map_err(|f| about(&f, &format!("snapshot at {seq} of {name} again")))?;
        }
        report.rechecks += 1;
        Ok(())
    }

    /// Now and then asks for what happens by itself anyway, at another moment.
    fn disturb(&mut self) -> Outcome<()> {
        let (world, db) = (self.round.world, self.round.db);
        let slot = self.random.below_usize(SLOT_COUNT);
        let Some(keyspace) = self.hands[slot].clone() else {
            return Ok(());
        };
        match self.random.below(30) {
            0 => unless_gone("flush", keyspace.flush(), &keyspace),
            1 => {
                let from = self.random.below_usize(world.len());
                let until = (from + 1 + self.random.below_usize(world.len())).min(world.len() - 1);
                let from = world.key(world.sorted()[from.min(until)]);
                let until = world.key(world.sorted()[until]);
                unless_gone(
                    "compact_range",
                    keyspace.compact_range(from..until),
                    &keyspace,
                )
            }
            2 => db.sync().or_finding("sync"),
            _ => Ok(()),
        }
    }
}

/// Its writer may drop a keyspace at any time.
fn unless_gone(what: &str, result: siltstone::Result<()>, keyspace: &Keyspace) -> Outcome<()> {
    match result {
        Err(error) if error.is_not_found() && keyspace.name().starts_with("own") => Ok(()),
        result => result.or_finding(what),
    }
}

/// Compares some of what a source shows, in one way or another.
fn check_some(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    mut random: Random,
) -> Outcome<()> {
    match random.below(6) {
        0 => check_scan(source, world, state, Walk::Forward)?,
        1 => check_scan(source, world, state, Walk::Backward)?,
        _ => {
            for _ in 0..3 {
                check_random_part(source, world, state, &mut random)?;
            }
        }
    }
    for _ in 0..25 {
        check_get(source, world, state, random.below_usize(world.len()))?;
    }
    let indexes: Vec<usize> = (0..20).map(|_| random.below_usize(world.len())).collect();
    check_multi_get(source, world, state, &indexes)
}
