//! Random operations against a `BTreeMap`: every way to write, every way to read, with flushes,
//! compactions, snapshots and reopens in between.

use std::ops::Bound;

use base::Slice;
use siltstone::{Cursor, Db, Durability, Iter, Snapshot, WriteBatch, WriteOptions};

use crate::reads::{RangeForm, Reads};
use crate::support::{
    Model, Rng, World, assert_models_equal, assert_same, contents, for_each_seed, key_pool, value,
};
use crate::walks::{Pairs, advance, check_point_reads, select, walk};

/// One database and everything that must be true of it.
struct Player {
    rng: Rng,
    world: World,
    /// Always there, except within `reopen`.
    open: Option<Db>,
    model: Model,
    keys: Vec<Vec<u8>>,
    tag: u64,
    snapshots: Vec<(Snapshot, Model)>,
    iterators: Vec<(Iter, Pairs)>,
    cursors: Vec<(Cursor, Pairs)>,
    slices: Vec<(Slice, Vec<u8>)>,
}

impl Player {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let world = World::new(seed);
        let db = world.open().expect("a new database");
        let count = 40 + rng.below(60);
        let keys = key_pool(&mut rng, count);
        Self {
            rng,
            world,
            open: Some(db),
            model: Model::new(),
            keys,
            tag: 0,
            snapshots: Vec::new(),
            iterators: Vec::new(),
            cursors: Vec::new(),
            slices: Vec::new(),
        }
    }

    fn play(&mut self, op_count: usize) {
        for _ in 0..op_count {
            match self.rng.below(100) {
                0..30 => self.put(),
                30..40 => self.delete(),
                40..46 => self.write_batch(),
                46..56 => self.point_reads(),
                56..62 => self.scan(),
                62..66 => self.walk(),
                66..70 => self.keep_something(),
                70..75 => self.use_something(),
                75..78 => self.drop_something(),
                78..92 => self.background(),
                92..94 => self.db().flush().expect("a flush"),
                94..96 => self.compact(),
                96 => self.db().wait_for_compactions().expect("rest"),
                97 => self.db().sync().expect("a sync"),
                98 => self.check_everything(),
                _ => self.reopen(),
            }
        }
        self.check_everything();
        self.db()
            .compact_range(..)
            .expect("a compaction of everything");
        self.check_everything();
        self.reopen();
        self.check_everything();
    }

    fn db(&self) -> Db {
        self.open.clone().expect("it is open")
    }

    fn key(&mut self) -> Vec<u8> {
        if self.rng.chance(95) {
            return self.rng.pick(&self.keys).clone();
        }
        // One that is never written, next to one that may be.
        let mut key = self.rng.pick(&self.keys).clone();
        key.push(b'~');
        key
    }

    fn new_value(&mut self) -> Vec<u8> {
        self.tag += 1;
        value(&mut self.rng, self.tag)
    }

    fn options(&mut self) -> WriteOptions {
        let durability = if self.rng.chance(10) {
            Durability::Disk
        } else {
            Durability::Os
        };
        WriteOptions::new().durability(durability)
    }

    fn put(&mut self) {
        let (key, value, options) = (
            self.rng.pick(&self.keys).clone(),
            self.new_value(),
            self.options(),
        );
        if self.rng.chance(10) {
            let keyspace = self.db().keyspace("default").expect("it is there");
            keyspace.put_with(&key, &value, &options).expect("a put");
        } else {
            self.db().put_with(&key, &value, &options).expect("a put");
        }
        self.model.insert(key, value);
    }

    fn delete(&mut self) {
        let (key, options) = (self.rng.pick(&self.keys).clone(), self.options());
        if self.rng.chance(10) {
            let keyspace = self.db().keyspace("default").expect("it is there");
            keyspace.delete_with(&key, &options).expect("a delete");
        } else {
            self.db().delete_with(&key, &options).expect("a delete");
        }
        self.model.remove(&key);
    }

    fn write_batch(&mut self) {
        let mut batch = WriteBatch::new();
        for _ in 0..self.rng.below(12) {
            let key = self.rng.pick(&self.keys).clone();
            if self.rng.chance(70) {
                let value = self.new_value();
                batch.put(&key, &value);
                self.model.insert(key, value);
            } else {
                batch.delete(&key);
                self.model.remove(&key);
            }
        }
        let options = self.options();
        let before = self.db().stats().visible_seq;
        let commit = self.db().write_with(&batch, &options).expect("a batch");
        // After an unclean open the numbers go on with a gap.
        assert!(commit.seq() >= before.plus(batch.len() as u64));
    }

    fn point_reads(&mut self) {
        let keys: Vec<_> = (0..6).map(|_| self.key()).collect();
        if self.rng.chance(30) {
            let keyspace = self.db().keyspace("default").expect("it is there");
            check_point_reads(&keyspace, &self.model, &keys);
        } else {
            check_point_reads(&self.db(), &self.model, &keys);
        }
    }

    fn range_form(&mut self) -> RangeForm {
        let (from, to) = (self.key(), self.key());
        let (from, to) = if self.rng.chance(85) && from > to {
            (to, from)
        } else {
            (from, to)
        };
        let mut bound = |key: Vec<u8>| match self.rng.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(key),
            _ => Bound::Excluded(key),
        };
        let bounds = (bound(from.clone()), bound(to.clone()));
        match self.rng.below(8) {
            0 => RangeForm::Full,
            1 => RangeForm::From(from),
            2 => RangeForm::To(to),
            3 => RangeForm::ToInclusive(to),
            4 => RangeForm::Half(from, to),
            5 => RangeForm::Inclusive(from, to),
            _ => RangeForm::Bounds(bounds.0, bounds.1),
        }
    }

    fn scan(&mut self) {
        let (iterator, expected) = if self.rng.chance(25) {
            let key = self.key();
            let prefix = key[..self.rng.below(key.len() + 1)].to_vec();
            let expected = select(&self.model, |key| key.starts_with(&prefix));
            (
                Reads::prefix(&self.db(), &prefix).expect("a prefix scan"),
                expected,
            )
        } else {
            let form = self.range_form();
            let expected = select(&self.model, |key| form.contains(key));
            (
                Reads::range(&self.db(), &form).expect("a range scan"),
                expected,
            )
        };
        let mut kept = (iterator, expected);
        // Some end in the middle, and some are asked again after their end.
        let steps = self.rng.below(kept.1.len() + 3);
        advance(&mut self.rng, &mut kept, steps);
    }

    fn walk(&mut self) {
        let mut keys: Vec<_> = (0..20).map(|_| self.key()).collect();
        keys.push(Vec::new());
        let (mut cursor, pairs) = match self.snapshots.first() {
            Some((snapshot, model)) if self.rng.chance(30) => {
                (Reads::cursor(snapshot), select(model, |_| true))
            }
            _ => (Reads::cursor(&self.db()), select(&self.model, |_| true)),
        };
        let cursor = cursor.as_mut().expect("a cursor");
        walk(&mut self.rng, cursor, &pairs, &keys);
    }

    fn keep_something(&mut self) {
        if self.snapshots.len() + self.iterators.len() + self.cursors.len() > 8 {
            self.drop_something();
        }
        let pairs = select(&self.model, |_| true);
        match self.rng.below(6) {
            0 | 1 => {
                let snapshot = self.db().snapshot().expect("a snapshot");
                self.snapshots.push((snapshot, self.model.clone()));
            }
            2 => self
                .iterators
                .push((self.db().iter().expect("an iterator"), pairs)),
            3 => self
                .cursors
                .push((self.db().cursor().expect("a cursor"), pairs)),
            4 => {
                let key = self.key();
                if let Some(slice) = self.db().get(&key).expect("a get") {
                    self.slices.push((slice, self.model[&key].clone()));
                }
            }
            _ => {
                for item in self.db().iter().expect("an iterator").take(5) {
                    let (key, value) = item.expect("a step");
                    self.slices.push((value, self.model[&*key].clone()));
                }
            }
        }
    }

    fn use_something(&mut self) {
        if !self.snapshots.is_empty() {
            let at = self.rng.below(self.snapshots.len());
            let (snapshot, model) = self.snapshots[at].clone();
            if self.rng.chance(20) {
                assert_same(&snapshot, &model, &self.keys);
            }
            let keys = [self.key(), self.key()];
            check_point_reads(&snapshot, &model, &keys);
            let form = self.range_form();
            let pairs = select(&model, |key| form.contains(key));
            let mut kept = (Reads::range(&snapshot, &form).expect("a scan"), pairs);
            advance(&mut self.rng, &mut kept, 1000);
        }
        if !self.iterators.is_empty() {
            let at = self.rng.below(self.iterators.len());
            advance(&mut self.rng, &mut self.iterators[at], 5);
        }
        if !self.cursors.is_empty() {
            let at = self.rng.below(self.cursors.len());
            let (cursor, pairs) = &mut self.cursors[at];
            walk(&mut self.rng, cursor, pairs, &self.keys);
        }
        for (slice, expected) in &self.slices {
            assert_eq!(&**slice, expected.as_slice(), "a slice changed");
        }
    }

    fn drop_something(&mut self) {
        if !self.snapshots.is_empty() {
            let at = self.rng.below(self.snapshots.len());
            self.snapshots.swap_remove(at);
        }
        if !self.iterators.is_empty() && self.rng.chance(50) {
            self.iterators.swap_remove(0);
        }
        if !self.cursors.is_empty() && self.rng.chance(50) {
            self.cursors.swap_remove(0);
        }
        self.slices.truncate(20);
    }

    fn background(&mut self) {
        self.world.clock.advance(self.rng.next() % 100_000);
        for _ in 0..=self.rng.below(3) {
            self.world.executor.step();
        }
        if self.rng.chance(20) {
            self.world.executor.step_named("siltstone-helper");
        }
    }

    fn compact(&mut self) {
        let (form, db) = (self.range_form(), self.db());
        form.compact(&db).expect("a compaction");
    }

    fn check_everything(&mut self) {
        assert_same(&self.db(), &self.model, &self.keys);
        assert_eq!(
            self.db().stats().snapshot_count,
            self.snapshots.len() as u64
        );
        for (snapshot, model) in &self.snapshots {
            assert_models_equal(&contents(snapshot).expect("a scan"), model);
        }
        self.world.check_order();
    }

    fn reopen(&mut self) {
        let (snapshots, iterators) = (self.snapshots.split_off(0), self.iterators.split_off(0));
        self.cursors.clear();
        if self.rng.chance(50) {
            drop((snapshots, iterators));
            self.db().close().expect("a clean close");
        } // Otherwise some readers outlive the handle: the lock does not wait for them.
        self.open = None;
        self.world.restart(self.rng.next());
        let db = self.world.open().expect("a reopen");
        assert_models_equal(&contents(&db).expect("a scan"), &self.model);
        self.open = Some(db);
    }
}

#[test]
fn random_operations_agree_with_a_map() {
    for_each_seed("random_operations_agree_with_a_map", 200, |seed| {
        Player::new(seed).play(300);
    });
}

#[test]
fn longer_runs_agree_with_a_map() {
    for_each_seed("longer_runs_agree_with_a_map", 6, |seed| {
        Player::new(seed ^ 0x1000).play(3000);
    });
}
