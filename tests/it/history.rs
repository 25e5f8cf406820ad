//! What was written and what was promised: the oracle of every crash and fault test.

use std::sync::Arc;

use siltstone::{Db, Durability, Error, Result, WriteBatch, WriteOptions, WriteOutcome};

use crate::support::{Model, Rng, World, contents, difference, key_pool, value};

/// One operation: a value, or none to delete.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// Every state a database went through.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// `states[j]` is what the first `j` commits made.
    states: Vec<Arc<Model>>,
    /// A crash may not take the first so many.
    durable: usize,
    /// The largest sequence number that a commit returned.
    pub(crate) seq_max: u64,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![Arc::default()],
            durable: 0,
            seq_max: 0,
        }
    }

    pub(crate) fn last(&self) -> &Model {
        self.states.last().expect("never empty")
    }

    pub(crate) fn submitted(&self) -> usize {
        self.states.len() - 1
    }

    fn submit(&mut self, writes: &[Write]) {
        let mut next = Model::clone(self.last());
        for (key, value) in writes {
            match value {
                Some(value) => next.insert(key.clone(), value.clone()),
                None => next.remove(key),
            };
        }
        self.states.push(Arc::new(next));
    }

    /// The last commit was certainly not done.
    fn withdraw(&mut self) {
        self.states.pop();
        self.durable = self.durable.min(self.submitted());
    }

    /// Everything submitted so far survives a power cut.
    pub(crate) fn promise(&mut self) {
        self.durable = self.submitted();
    }

    /// The history goes on from the state after `count` commits; later ones are gone for good.
    pub(crate) fn settle(&mut self, count: usize) {
        self.states.truncate(count + 1);
        self.promise();
    }

    /// After how many commits `found` was the state.
    ///
    /// # Panics
    /// If it never was, or only before something that was promised to last.
    pub(crate) fn locate(&self, found: &Model) -> usize {
        let at = (self.durable..self.states.len())
            .rev()
            .find(|j| *self.states[*j] == *found);
        at.unwrap_or_else(|| self.explain(found))
    }

    fn explain(&self, found: &Model) -> ! {
        let (durable, submitted) = (self.durable, self.submitted());
        if let Some(j) = self.states.iter().position(|state| **state == *found) {
            panic!(
                "a promise is broken: commits {}..={durable} of {submitted} are lost",
                j + 1
            );
        }
        let floor = difference(found, &self.states[durable]).expect("it differs from every state");
        let last = difference(found, self.last()).expect("it differs from every state");
        panic!(
            "no state of the history: {durable} of {submitted} commits are durable\n  \
             beside the durable state: {floor}\n  beside the last state: {last}"
        );
    }
}

/// Writes to a database and keeps its history.
pub(crate) struct Runner {
    pub(crate) world: World,
    pub(crate) history: History,
    pub(crate) rng: Rng,
    pub(crate) keys: Vec<Vec<u8>>,
    /// Whether calls fail: then the last write may be there or not.
    pub(crate) is_faulty: bool,
    db: Option<Db>,
    tag: u64,
}

impl Runner {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 24 + rng.below(40);
        Self {
            keys: key_pool(&mut rng, count),
            world: World::new(seed),
            history: History::new(),
            rng,
            is_faulty: false,
            db: None,
            tag: 0,
        }
    }

    pub(crate) fn db(&self) -> Db {
        self.db.clone().expect("it is open")
    }

    pub(crate) fn is_open(&self) -> bool {
        self.db.is_some()
    }

    /// Opens the database; what it then shows is promised to last.
    pub(crate) fn open(&mut self) -> Result<()> {
        let db = self.world.open()?;
        let found = contents(&db)?;
        let count = self.history.locate(&found);
        assert!(
            self.is_faulty || count == self.history.submitted(),
            "{} writes are gone without a power cut",
            self.history.submitted() - count
        );
        self.history.settle(count);
        self.db = Some(db);
        Ok(())
    }

    /// Fails if the open handle shows something wrong; an error is right while calls fail.
    pub(crate) fn look(&self) -> Result<()> {
        let found = contents(&self.db())?;
        let submitted = self.history.submitted();
        let is_before = || submitted > 0 && *self.history.states[submitted - 1] == found;
        let is_right = found == *self.history.last() || self.is_faulty && is_before();
        assert!(
            is_right,
            "wrong: {:?}",
            difference(&found, self.history.last())
        );
        Ok(())
    }

    pub(crate) fn write(&mut self, writes: &[Write], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
        self.history.submit(writes);
        match self
            .db()
            .write_with(&batch, &WriteOptions::new().durability(durability))
        {
            Ok(commit) => {
                self.history.seq_max = self.history.seq_max.max(commit.seq().get());
                if commit.is_durable() {
                    self.history.promise();
                    self.world.check_acknowledged();
                }
                Ok(())
            }
            Err(error) => {
                self.not_done(&error);
                Err(error)
            }
        }
    }

    fn not_done(&mut self, error: &Error) {
        match error.outcome() {
            Some(WriteOutcome::Rejected) => self.history.withdraw(),
            Some(WriteOutcome::Indeterminate) => {}
            None => panic!("a failed write does not say what became of it: {error}"),
        }
    }

    pub(crate) fn put(&mut self, durability: Durability) -> Result<()> {
        let writes = [(self.key(), Some(self.value()))];
        self.write(&writes, durability)
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        self.rng.pick(&self.keys).clone()
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        self.tag += 1;
        value(&mut self.rng, self.tag)
    }

    /// One random commit.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let count = if self.rng.chance(70) {
            1
        } else {
            2 + self.rng.below(7)
        };
        let writes: Vec<Write> = (0..count)
            .map(|_| {
                (
                    self.key(),
                    if self.rng.chance(75) {
                        Some(self.value())
                    } else {
                        None
                    },
                )
            })
            .collect();
        let durability = if self.rng.chance(15) {
            Durability::Disk
        } else {
            Durability::Os
        };
        self.write(&writes, durability)
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        self.db().sync()?;
        self.history.promise();
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.db().flush()?;
        self.history.promise();
        Ok(())
    }

    pub(crate) fn compact(&mut self) -> Result<()> {
        self.db().compact_range(..)?;
        self.history.promise();
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<()> {
        let closed = self.db().close();
        self.db = None;
        closed?;
        self.history.promise();
        Ok(())
    }

    /// Lets go of the handle without closing it.
    pub(crate) fn drop_handle(&mut self) {
        self.db = None;
    }

    /// Runs up to `count` background steps.
    pub(crate) fn step(&mut self, count: usize) {
        self.world.clock.advance(1000);
        for _ in 0..count {
            self.world.executor.step();
        }
    }

    /// One random thing that is done to a database.
    pub(crate) fn anything(&mut self) -> Result<()> {
        match self.rng.below(100) {
            0..70 => self.commit(),
            70..90 => {
                let count = 1 + self.rng.below(4);
                self.step(count);
                Ok(())
            }
            90..93 => self.sync(),
            93..95 => self.flush(),
            95 => self.compact(),
            96 => self.db().wait_for_compactions(),
            97 => {
                self.close()?;
                self.open()
            }
            98 => {
                self.drop_handle();
                self.open()
            }
            _ => self.look(),
        }
    }
}
