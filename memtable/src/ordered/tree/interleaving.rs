//! What one thread does in the middle of what another does, at every place where it can.

use base::sync::Arc;
use base::{InternalKey, KeyKind};

use super::*;
use crate::ordered::record::RECORD_ALIGN;

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n).expect("small")
}

/// A tree and the arena of its records.
struct World {
    tree: Tree,
    arena: Arena,
}

impl World {
    fn new(keys: impl IntoIterator<Item = u64>) -> Arc<Self> {
        let world = Arc::new(Self {
            tree: Tree::new(0, Ledgers::default()),
            arena: Arena::new(0, RECORD_ALIGN, Ledgers::default()),
        });
        for key in keys {
            world.insert(key);
        }
        world
    }

    fn insert(&self, key: u64) {
        assert!(self.offer(key), "it is new");
    }

    /// Inserts `key` unless it is there; returns whether it was new.
    fn offer(&self, key: u64) -> bool {
        let key = key.to_be_bytes();
        let record = Record::store(
            &self.arena,
            InternalKey::new(&key, seq(1), KeyKind::Put),
            b"",
        );
        // SAFETY: the tree is dropped before the arena, and spots are dropped before both.
        unsafe { self.tree.insert(record) }
    }

    fn key_at(spot: &Spot) -> u64 {
        // SAFETY: whoever has a spot here has the world as well.
        let key = unsafe { spot.record() }.user_key();
        u64::from_be_bytes(key.try_into().expect("eight bytes"))
    }

    fn find(&self, key: u64) -> Option<u64> {
        let key = key.to_be_bytes();
        let record = self.tree.find(&Target::before(&key, seq(9)))?;
        let found = record.user_key().try_into().expect("eight bytes");
        Some(u64::from_be_bytes(found))
    }

    fn before(&self, key: u64) -> Option<u64> {
        let key = key.to_be_bytes();
        let spot = self.tree.before(&Target::before(&key, seq(9)))?;
        Some(Self::key_at(&spot))
    }

    fn last(&self) -> Option<u64> {
        self.tree.last().as_ref().map(Self::key_at)
    }

    fn forward(&self) -> Vec<u64> {
        let mut keys = Vec::new();
        let mut spot = self.tree.first();
        while let Some(at) = spot {
            keys.push(Self::key_at(&at));
            // SAFETY: `self` is alive.
            spot = unsafe { at.next() };
        }
        keys
    }

    fn backward(&self) -> Vec<u64> {
        let mut keys = Vec::new();
        let mut spot = self.tree.last();
        while let Some(at) = spot {
            let key = Self::key_at(&at);
            keys.push(key);
            // SAFETY: `self` is alive.
            spot = unsafe { at.prev_in_leaf() };
            if spot.is_none() {
                let key = key.to_be_bytes();
                spot = self.tree.before(&Target::before(&key, seq(9)));
            }
        }
        keys.reverse();
        keys
    }

    /// Every way of reading finds exactly `keys`, which ascend.
    fn assert_reads(&self, keys: &[u64]) {
        assert_eq!(self.forward(), keys);
        assert_eq!(self.backward(), keys);
        assert_eq!(self.last(), keys.last().copied());
        let mut before = None;
        for key in keys {
            assert_eq!(self.find(*key), Some(*key));
            assert_eq!(self.before(*key), before);
            before = Some(*key);
        }
    }

    /// Every node is where it belongs, known to its parent, and ends where the next begins.
    fn assert_whole(&self) {
        let Some(mut first) = self.tree.root() else {
            return;
        };
        assert!(first.is_last(), "the root stands alone");
        loop {
            let (mut node, mut children) = (first, Vec::new());
            loop {
                assert_eq!(node.level(), first.level());
                assert!(node.count() >= 1);
                if node.level() > 0 {
                    for index in 0..node.count() {
                        children.push((node.child(index).expect("filled"), node.item(index)));
                    }
                }
                let Some(right) = node.right() else { break };
                let begin = right.record(0).expect("filled");
                let target = Target::behind(begin.user_key(), begin.seq());
                assert!(node.is_left_of(&target), "it ends where the next begins");
                let target = Target::before(begin.user_key(), begin.seq());
                assert!(!node.is_left_of(&target), "and not before");
                assert_eq!(node.lower_bound(1, &target), node.count(), "all is before");
                node = right;
            }
            if first.level() == 0 {
                return;
            }
            first = children[0].0;
            let mut below = Some(first);
            for (place, (child, item)) in children.into_iter().enumerate() {
                assert_eq!(below.map(NodeRef::address), Some(child.address()));
                let begin = child.record(0).expect("filled").address();
                assert!(place == 0 || begin == item.record.address());
                below = child.right();
            }
            assert!(below.is_none(), "the parents know all of them");
        }
    }
}

fn sorted(keys: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut keys: Vec<u64> = keys.collect();
    keys.sort_unstable();
    keys
}

/// How many keys a tree begins with: up to three levels, with every number of free slots.
fn counts() -> impl Iterator<Item = u64> {
    let count_max = (SLOT_COUNT * SLOT_COUNT * 3) as u64;
    (0..count_max).step_by(if cfg!(miri) { 11 } else { 1 })
}

/// Calls `check` for every step of `run` until it has fewer, with the step.
fn at_every_step(check: impl Fn(usize) -> bool) {
    let stride = if cfg!(miri) { 5 } else { 1 };
    let end = (0..).step_by(stride).find(|step| !check(*step));
    assert!(end.is_some_and(|end| end > 0), "there are steps");
}

/// Inserts, in the middle of another: around the same place, in both orders, and enough to split
/// whatever is there and to let the tree grow.
fn rivals(key: u64) -> [Vec<u64>; 4] {
    let near = SLOT_COUNT as u64 * 6;
    [
        vec![key + 1],
        (1..=near).map(|n| key + n).collect(),
        (1..=near).map(|n| key - n).collect(),
        (1..=near).flat_map(|n| [key - n, key + n]).collect(),
    ]
}

/// Keys are this far apart at first.
const GAP: u64 = 1000;

#[test]
fn inserts_that_interrupt_an_insert_lose_nothing() {
    for count in counts() {
        for key in [GAP / 2, count / 2 * GAP + GAP / 2, count * GAP + GAP / 2] {
            for rivals in rivals(key) {
                at_every_step(|step| {
                    let world = World::new((0..count).map(|n| n * GAP));
                    let (other, keys) = (Arc::clone(&world), rivals.clone());
                    let act = move || keys.iter().for_each(|key| other.insert(*key));
                    let run = || world.insert(key);
                    let Some(()) = steps::interrupted(step, act, run) else {
                        return false;
                    };
                    let olds = (0..count).map(|n| n * GAP);
                    let all = sorted(olds.chain(rivals.iter().copied()).chain([key]));
                    world.assert_reads(&all);
                    world.assert_whole();
                    assert_eq!(world.tree.len(), all.len());
                    true
                });
            }
        }
    }
}

#[test]
fn reads_that_interrupt_an_insert_find_what_was_there() {
    for count in counts() {
        for key in [GAP / 2, count / 2 * GAP + GAP / 2, count * GAP + GAP / 2] {
            at_every_step(|step| {
                let olds: Vec<u64> = (0..count).map(|n| n * GAP).collect();
                let world = World::new(olds.iter().copied());
                let other = Arc::clone(&world);
                let act = move || {
                    let is_there = other.find(key) == Some(key);
                    let new = is_there.then_some(key);
                    other.assert_reads(&sorted(olds.iter().copied().chain(new)));
                };
                steps::interrupted(step, act, || world.insert(key)).is_some()
            });
        }
    }
}

#[test]
fn reads_that_are_interrupted_by_splits_find_what_was_there() {
    for count in counts().filter(|count| count % 5 == 1) {
        let olds: Vec<u64> = (0..count).map(|n| n * GAP).collect();
        for near in [0, count / 2, count - 1] {
            let key = near * GAP;
            for rivals in rivals(key + GAP / 2) {
                let check = |read: &dyn Fn(&World)| {
                    at_every_step(|step| {
                        let world = World::new(olds.iter().copied());
                        let (other, keys) = (Arc::clone(&world), rivals.clone());
                        let act = move || keys.iter().for_each(|key| other.insert(*key));
                        steps::interrupted(step, act, || read(&world)).is_some()
                    });
                };
                let is_known = |key: &u64| key.is_multiple_of(GAP) || rivals.contains(key);
                check(&|world| assert_eq!(world.find(key), Some(key)));
                check(&|world| {
                    let found = world.find(key + 1);
                    let old = Some(key + GAP).filter(|_| near + 1 < count);
                    let new = rivals.iter().copied().min();
                    assert!(found == old || found >= new && found.as_ref().is_none_or(is_known));
                    assert!(found.is_none_or(|found| found > key));
                });
                check(&|world| {
                    let found = world.before(key + GAP).expect("the key is there");
                    assert!((key..key + GAP).contains(&found) && is_known(&found));
                });
                check(&|world| {
                    let last = world.last().expect("something is there");
                    assert!(last >= *olds.last().expect("not empty") && is_known(&last));
                });
                for walk in [World::forward, World::backward] {
                    check(&|world| {
                        let seen = walk(world);
                        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
                        assert!(seen.iter().all(is_known), "{seen:?}");
                        let is_old = |key: &&u64| key.is_multiple_of(GAP);
                        assert!(seen.iter().filter(is_old).eq(&olds), "{seen:?}");
                    });
                }
            }
        }
    }
}

#[test]
fn what_is_there_already_is_refused_wherever_it_lies() {
    for count in counts().filter(|count| *count > 0) {
        let world = World::new((0..count).map(|n| n * GAP));
        for n in 0..count {
            assert!(!world.offer(n * GAP), "key {n} of {count}");
        }
        let olds: Vec<u64> = (0..count).map(|n| n * GAP).collect();
        world.assert_reads(&olds);
        world.assert_whole();
        assert_eq!(world.tree.len(), olds.len());
    }
}

#[test]
fn of_two_inserts_of_the_same_one_is_refused() {
    for count in counts() {
        for key in [GAP / 2, count / 2 * GAP + GAP / 2, count * GAP + GAP / 2] {
            for before in [0, SLOT_COUNT as u64 * 2] {
                at_every_step(|step| {
                    let world = World::new((0..count).map(|n| n * GAP));
                    let other = Arc::clone(&world);
                    let was_new = Arc::new(AtomicUsize::new(0));
                    let counted = Arc::clone(&was_new);
                    let act = move || {
                        // Splits whatever the other insert has found.
                        (1..=before).for_each(|n| other.insert(key - n));
                        counted.fetch_add(usize::from(other.offer(key)), Ordering::Relaxed);
                    };
                    let Some(is_new) = steps::interrupted(step, act, || world.offer(key)) else {
                        return false;
                    };
                    let new_count = was_new.load(Ordering::Relaxed) + usize::from(is_new);
                    assert_eq!(new_count, 1, "step {step} of an insert into {count}");
                    let olds = (0..count).map(|n| n * GAP);
                    let all = sorted(olds.chain((0..=before).map(|n| key - n)));
                    world.assert_reads(&all);
                    world.assert_whole();
                    true
                });
            }
        }
    }
}

#[test]
fn a_locked_node_keeps_every_other_writer_out() {
    let world = World::new([1]);
    let leaf = world.tree.root().expect("it is not empty");
    let waits = Arc::new(AtomicUsize::new(0));
    let entered = AtomicUsize::new(0);
    leaf.lock();
    std::thread::scope(|scope| {
        let (world, waits, entered) = (&world, &waits, &entered);
        scope.spawn(move || {
            steps::count_waits(waits);
            let leaf = world.tree.root().expect("it is not empty");
            leaf.lock();
            entered.store(1, Ordering::Release);
            leaf.unlock();
        });
        // It has come to the lock and looked again, or it has passed.
        while waits.load(Ordering::Acquire) < 3 && entered.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(entered.load(Ordering::Acquire), 0, "two writers at once");
        leaf.unlock();
    });
    assert_eq!(entered.load(Ordering::Acquire), 1);
}

#[test]
fn writers_of_one_node_take_turns() {
    const THREAD_COUNT: usize = 3;
    let rounds = if cfg!(miri) { 20 } else { 2_000 };
    let world = World::new([1]);
    let held = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREAD_COUNT {
            scope.spawn(|| {
                let leaf = world.tree.root().expect("it is not empty");
                for round in 0..rounds {
                    leaf.lock();
                    // Not one step: whoever is in between loses the count.
                    let before = held.load(Ordering::Relaxed);
                    if round % 16 == 0 {
                        std::thread::yield_now();
                    }
                    held.store(before + 1, Ordering::Relaxed);
                    leaf.unlock();
                }
            });
        }
    });
    assert_eq!(held.load(Ordering::Relaxed), THREAD_COUNT * rounds);
}
