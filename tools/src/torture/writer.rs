//! One writer of the model: random commits on its own keys of several keyspaces, one of which it
//! creates and drops, and reads of what it wrote.

use std::time::Duration;

use siltstone::{
    Commit, Db, Durability, ErrorKind, Keyspace, WriteBatch, WriteOptions, WriteOutcome,
};

use super::compare::{Source, check_all, check_get, check_multi_get};
use super::failure::{OrFinding, Outcome, finding};
use super::model::WRITER_COUNT;
use super::model::shelves::{Hands, Shelves, own_slot, slot_name};
use super::settings;
use super::world::{Version, World, write_value};
use crate::random::Random;

/// How many operations a report has at least.
pub(crate) const REPORT_COUNT: usize = 64;
/// Every so manieth commit waits for the disk.
const DISK_ONE_IN: u64 = 3000;
/// Half of the operations go to one key in so many.
const HOT_PART: usize = 16;
/// Of each writer: one operation in [`BUSY_ONE_IN`] goes to one of so many keys, so that somebody
/// who looks at these sees commits while they happen.
pub(crate) const BUSY_KEY_COUNT: usize = 4;
const BUSY_ONE_IN: u64 = 6;
const BATCH_COUNT_MAX: u64 = 12;
/// Some batches take so long that others overtake them and snapshots fall between.
const LONG_BATCH_ONE_IN: u64 = 25;
const LONG_BATCH_COUNT_MAX: u64 = 600;
/// Every so manieth step creates the writer's own keyspace or drops it.
const CHANGE_ONE_IN: u64 = 500;

/// What was committed.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Written(Written),
    /// Takes one sequence number, between those of the operations before and after it.
    Changed(Change),
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Of the commit: what a snapshot at or after it sees.
    pub(crate) seq: u64,
    pub(crate) slot: usize,
    pub(crate) index: usize,
    /// 0 for a delete.
    pub(crate) version: Version,
}

/// A keyspace that was created or, without a handle, dropped.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) slot: usize,
    pub(crate) created: Option<Keyspace>,
}

/// Slot, index, and version, 0 for a delete.
type Operation = (usize, usize, Version);

/// A writer and what it knows of its keys.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    world: &'a World,
    /// It owns the keys whose index leaves this when divided by the count of writers.
    number: usize,
    shelves: Shelves,
    hands: Hands,
    version: Version,
    random: Random,
    op_count: u64,
    last_seq: u64,
    batch: WriteBatch,
    value: Vec<u8>,
    held_back: HeldBack,
}

/// What it did and met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeldBack {
    /// Writes refused, because they may not wait so long.
    pub(crate) busy: u64,
    /// Writes that had to wait for flush or compaction.
    pub(crate) throttled: u64,
    /// Keyspaces created or dropped.
    pub(crate) changes: u64,
    /// Commits to several keyspaces.
    pub(crate) across: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        world: &'a World,
        number: usize,
        (shelves, hands, version): (Shelves, Hands, Version),
        random: Random,
    ) -> Self {
        Self {
            world,
            number,
            shelves,
            hands,
            version,
            random,
            op_count: 0,
            last_seq: 0,
            batch: WriteBatch::new(),
            value: Vec::new(),
            held_back: HeldBack::default(),
        }
    }

    /// What it met at the gate.
    pub(crate) fn held_back(&self) -> HeldBack {
        self.held_back
    }

    /// Puts and deletes committed.
    pub(crate) fn op_count(&self) -> u64 {
        self.op_count
    }

    /// The number of its last put.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    fn own_key(&mut self) -> usize {
        let (rest, modulus) = (self.number, WRITER_COUNT);
        let count = (self.world.len() - rest).div_ceil(modulus);
        if self.random.one_in(BUSY_ONE_IN) {
            return rest + modulus * self.random.below_usize(BUSY_KEY_COUNT.min(count));
        }
        let count = if self.random.one_in(2) {
            count.div_ceil(HOT_PART)
        } else {
            count
        };
        rest + modulus * self.random.below_usize(count)
    }

    /// The keyspaces that it may write to.
    fn slots(&self) -> Vec<usize> {
        let own = own_slot(self.number);
        let is_mine = |slot: usize| slot < own_slot(0) || slot == own;
        let slots = 0..self.hands.len();
        let is_there = |&slot: &usize| is_mine(slot) && self.hands[slot].is_some();
        slots.filter(is_there).collect()
    }

    fn pick(&mut self) -> usize {
        let slots = self.slots();
        slots[self.random.below_usize(slots.len())]
    }

    fn hand(&self, slot: usize) -> &Keyspace {
        self.hands[slot].as_ref().expect("it was picked")
    }

    /// Commits something, or reads something.
    pub(crate) fn step(&mut self, db: &Db, report: &mut Vec<Done>) -> Outcome<()> {
        if self.random.one_in(CHANGE_ONE_IN) {
            return self.change(db, report);
        }
        let durability = if self.random.one_in(DISK_ONE_IN) {
            Durability::Disk
        } else {
            Durability::Os
        };
        let options = WriteOptions::new().durability(durability);
        // Some may wait, some not at all, some for a moment.
        let options = match self.random.below(6) {
            0 => options.no_wait(),
            1 => options.deadline(Duration::from_micros(self.random.below(3000))),
            _ => options,
        };
        match self.random.below(100) {
            0..45 => self.put(&options, durability, report),
            45..67 => self.delete(&options, durability, report),
            67..85 => self.write(db, &options, durability, report),
            85..98 => {
                let (slot, index) = (self.pick(), self.own_key());
                self.check(slot, index)
            }
            _ => {
                let slot = self.pick();
                let indexes: Vec<usize> = (0..8).map(|_| self.own_key()).collect();
                let source = Source::Keyspace(self.hand(slot));
                check_multi_get(source, self.world, self.shelves.at(slot), &indexes)
            }
        }
    }

    fn check(&self, slot: usize, index: usize) -> Outcome<()> {
        let source = Source::Keyspace(self.hand(slot));
        check_get(source, self.world, self.shelves.at(slot), index)
    }

    fn put(
        &mut self,
        options: &WriteOptions,
        durability: Durability,
        report: &mut Vec<Done>,
    ) -> Outcome<()> {
        let (slot, index) = (self.pick(), self.own_key());
        self.version += 1;
        write_value(index, self.version, &mut self.value);
        let key = self.world.key(index);
        let result = self.hand(slot).put_with(key, &self.value, options);
        let operations = [(slot, index, self.version)];
        self.finish("put", result, durability, &operations, report)
    }

    fn delete(
        &mut self,
        options: &WriteOptions,
        durability: Durability,
        report: &mut Vec<Done>,
    ) -> Outcome<()> {
        let (slot, index) = (self.pick(), self.own_key());
        let result = self.hand(slot).delete_with(self.world.key(index), options);
        self.finish("delete", result, durability, &[(slot, index, 0)], report)
    }

    /// A batch: across keyspaces, or of one, or the same to one key of all.
    fn write(
        &mut self,
        db: &Db,
        options: &WriteOptions,
        durability: Durability,
        report: &mut Vec<Done>,
    ) -> Outcome<()> {
        let slots = self.slots();
        let mut operations = Vec::new();
        if self.random.one_in(3) {
            self.version += 1;
            let index = self.own_key();
            operations.extend(slots.iter().map(|&slot| (slot, index, self.version)));
        } else {
            let alone = self.random.one_in(3).then(|| self.pick());
            let count_max = if self.random.one_in(LONG_BATCH_ONE_IN) {
                LONG_BATCH_COUNT_MAX
            } else {
                BATCH_COUNT_MAX
            };
            for _ in 0..=self.random.below(count_max) {
                let slot = alone.unwrap_or(slots[self.random.below_usize(slots.len())]);
                let is_delete = self.random.one_in(3);
                self.version += u64::from(!is_delete);
                let version = if is_delete { 0 } else { self.version };
                operations.push((slot, self.own_key(), version));
            }
        }
        self.fill(&operations);
        let first = operations[0].0;
        self.held_back.across += u64::from(operations.iter().any(|&(slot, ..)| slot != first));
        let result = db.write_with(&self.batch, options);
        self.finish("write", result, durability, &operations, report)
    }

    fn fill(&mut self, operations: &[Operation]) {
        self.batch.clear();
        for &(slot, index, version) in operations {
            let keyspace = self.hands[slot].as_ref().expect("it was picked");
            let key = self.world.key(index);
            if version == 0 {
                self.batch.delete_in(keyspace, key);
            } else {
                write_value(index, version, &mut self.value);
                self.batch.put_in(keyspace, key, &self.value);
            }
        }
    }

    /// Creates its own keyspace, or drops it. A put follows, so that everybody knows between which
    /// numbers that was.
    fn change(&mut self, db: &Db, report: &mut Vec<Done>) -> Outcome<()> {
        let slot = own_slot(self.number);
        let name = slot_name(slot);
        let created = match self.hands[slot].take() {
            None => {
                let options = settings::keyspace_options(self.random.next_u64());
                let created = db.create_keyspace(&name, &options);
                let created = created.or_finding("creating a keyspace")?;
                self.shelves.0[slot] = Some(vec![0; self.world.len()]);
                let source = Source::Keyspace(&created);
                check_all(source, self.world, self.shelves.at(slot))?;
                Some(created)
            }
            Some(keyspace) => {
                db.drop_keyspace(&name).or_finding("dropping a keyspace")?;
                self.shelves.0[slot] = None;
                check_gone(&keyspace, self.world.key(self.number))?;
                None
            }
        };
        self.held_back.changes += 1;
        self.hands[slot].clone_from(&created);
        report.push(Done::Changed(Change { slot, created }));
        self.put(&WriteOptions::new(), Durability::Os, report)
    }

    fn finish(
        &mut self,
        what: &str,
        result: siltstone::Result<Commit>,
        durability: Durability,
        operations: &[Operation],
        report: &mut Vec<Done>,
    ) -> Outcome<()> {
        let commit = match result {
            Err(error) if error.kind() == ErrorKind::Busy => {
                return self.check_busy(&error, operations);
            }
            result => result.or_finding(what)?,
        };
        self.held_back.throttled += u64::from(commit.throttled().is_some());
        let seq = commit.seq().get();
        if seq < self.last_seq + operations.len() as u64 {
            return finding(format!(
                "a commit of {} operations ends at {seq}, the one before it at {}",
                operations.len(),
                self.last_seq
            ));
        }
        if durability == Durability::Disk && !commit.is_durable() {
            return finding("a commit with Disk durability says that it is not durable");
        }
        self.last_seq = seq;
        self.op_count += operations.len() as u64;
        for &(slot, index, version) in operations {
            self.shelves.at_mut(slot)[index] = version;
            report.push(Done::Written(Written {
                seq,
                slot,
                index,
                version,
            }));
        }
        Ok(())
    }

    /// A write that may not wait was refused: it is certainly not there.
    fn check_busy(&mut self, error: &siltstone::Error, operations: &[Operation]) -> Outcome<()> {
        self.held_back.busy += 1;
        if error.outcome() != Some(WriteOutcome::Rejected) {
            return finding(format!(
                "a busy write is {:?} rather than rejected: {error:?}",
                error.outcome()
            ));
        }
        for &(slot, index, _) in operations {
            self.check(slot, index)?;
        }
        Ok(())
    }
}

/// A handle of a dropped keyspace says so.
fn check_gone(keyspace: &Keyspace, key: &[u8]) -> Outcome<()> {
    let put = keyspace.put(key, "gone").map(drop);
    for result in [put, keyspace.get(key).map(drop), keyspace.flush()] {
        if !matches!(&result, Err(error) if error.is_not_found()) {
            return finding(format!("a call on a dropped keyspace: {result:?}"));
        }
    }
    Ok(())
}
