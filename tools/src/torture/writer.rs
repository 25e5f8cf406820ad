//! One writer of the model: random commits on its own keys, and reads of what it wrote.

use std::time::Duration;

use siltstone::{Commit, Db, Durability, ErrorKind, WriteBatch, WriteOptions, WriteOutcome};

use super::compare::{Source, State, check_get, check_multi_get};
use super::failure::{OrFinding, Outcome, finding};
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

/// One operation that was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Of the commit: what a snapshot at or after it sees.
    pub(crate) seq: u64,
    pub(crate) index: usize,
    /// 0 for a delete.
    pub(crate) version: Version,
}

/// A writer and what it knows of its keys.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    world: &'a World,
    /// It owns the keys whose index leaves `own.0` when divided by `own.1`.
    own: (usize, usize),
    state: State,
    version: Version,
    random: Random,
    op_count: u64,
    last_seq: u64,
    batch: WriteBatch,
    value: Vec<u8>,
    held_back: HeldBack,
}

/// Writes that had to wait for flush or compaction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeldBack {
    /// Refused, because they may not wait so long.
    pub(crate) busy: u64,
    pub(crate) throttled: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        world: &'a World,
        own: (usize, usize),
        state: State,
        version: Version,
        random: Random,
    ) -> Self {
        Self {
            world,
            own,
            state,
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
        let (rest, modulus) = self.own;
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

    /// Commits something, or reads something.
    pub(crate) fn step(&mut self, db: &Db, report: &mut Vec<Done>) -> Outcome<()> {
        let durability = if self.random.one_in(DISK_ONE_IN) {
            Durability::Disk
        } else {
            Durability::Os
        };
        match self.random.below(100) {
            0..50 => self.put(db, durability, report),
            50..75 => self.delete(db, durability, report),
            75..85 => self.write(db, durability, report),
            85..98 => {
                let index = self.own_key();
                check_get(Source::Db(db), self.world, &self.state, index)
            }
            _ => {
                let indexes: Vec<usize> = (0..8).map(|_| self.own_key()).collect();
                check_multi_get(Source::Db(db), self.world, &self.state, &indexes)
            }
        }
    }

    fn put(&mut self, db: &Db, durability: Durability, report: &mut Vec<Done>) -> Outcome<()> {
        let index = self.own_key();
        self.version += 1;
        write_value(index, self.version, &mut self.value);
        let options = self.options(durability);
        let result = db.put_with(self.world.key(index), &self.value, &options);
        let operations = [(index, self.version)];
        self.finish("put", db, result, durability, &operations, report)
    }

    fn delete(&mut self, db: &Db, durability: Durability, report: &mut Vec<Done>) -> Outcome<()> {
        let index = self.own_key();
        let options = self.options(durability);
        let result = db.delete_with(self.world.key(index), &options);
        self.finish("delete", db, result, durability, &[(index, 0)], report)
    }

    fn write(&mut self, db: &Db, durability: Durability, report: &mut Vec<Done>) -> Outcome<()> {
        self.batch.clear();
        let mut operations = Vec::new();
        for _ in 0..=self.random.below(BATCH_COUNT_MAX) {
            let index = self.own_key();
            if self.random.one_in(3) {
                self.batch.delete(self.world.key(index));
                operations.push((index, 0));
            } else {
                self.version += 1;
                write_value(index, self.version, &mut self.value);
                self.batch.put(self.world.key(index), &self.value);
                operations.push((index, self.version));
            }
        }
        let options = self.options(durability);
        let result = db.write_with(&self.batch, &options);
        self.finish("write", db, result, durability, &operations, report)
    }

    /// Some writes may wait, some not at all, some for a moment.
    fn options(&mut self, durability: Durability) -> WriteOptions {
        let options = WriteOptions::new().durability(durability);
        match self.random.below(6) {
            0 => options.no_wait(),
            1 => options.deadline(Duration::from_micros(self.random.below(3000))),
            _ => options,
        }
    }

    fn finish(
        &mut self,
        what: &str,
        db: &Db,
        result: siltstone::Result<Commit>,
        durability: Durability,
        operations: &[(usize, Version)],
        report: &mut Vec<Done>,
    ) -> Outcome<()> {
        let commit = match result {
            Err(error) if error.kind() == ErrorKind::Busy => {
                return self.check_busy(&error, db, operations);
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
        for &(index, version) in operations {
            self.state[index] = version;
            report.push(Done {
                seq,
                index,
                version,
            });
        }
        Ok(())
    }

    /// A write that may not wait was refused: it is certainly not there.
    fn check_busy(
        &mut self,
        error: &siltstone::Error,
        db: &Db,
        operations: &[(usize, Version)],
    ) -> Outcome<()> {
        self.held_back.busy += 1;
        if error.outcome() != Some(WriteOutcome::Rejected) {
            return finding(format!(
                "a busy write is {:?} rather than rejected: {error:?}",
                error.outcome()
            ));
        }
        for &(index, _) in operations {
            check_get(Source::Db(db), self.world, &self.state, index)?;
        }
        Ok(())
    }
}
