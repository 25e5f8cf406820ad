//! Visibility: a commit is inserted and then published, a job captures what it must keep, a
//! snapshot registers, a plain read pins a view. Every write is to one key, so that whoever reads
//! at a number must find the version of just this number.

use std::collections::BTreeSet;

use loom::thread;
use real_base::SequenceNumber;

use super::{explore, explore_with};
use crate::completion::{Completed, Completion};
use crate::signals::Signals;
use crate::snapshots::{Captured, Snapshots};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

/// Everything up to `at` is whole.
fn completed(at: u64) -> Completed {
    Completed {
        seq: seq(at),
        ..Completed::default()
    }
}

type Versions = BTreeSet<SequenceNumber>;

/// Versions 3 and 4, if they were inserted. Relaxed: that a reader sees them is what publishing is
/// to make sure of.
#[derive(Default)]
struct Memtable([AtomicBool; 2]);

impl Memtable {
    fn insert(&self, at: u64) {
        let place = usize::try_from(at - 3).expect("small");
        self.0[place].store(true, Ordering::Relaxed);
    }

    fn versions(&self) -> Versions {
        let inserted = |at: &u64| {
            let place = usize::try_from(at - 3).expect("small");
            self.0[place].load(Ordering::Relaxed)
        };
        (3..5).filter(inserted).map(seq).collect()
    }
}

/// As a superversion: what a read may look at.
struct View {
    active: Arc<Memtable>,
    sealed: Vec<Arc<Memtable>>,
    table: Versions,
}

/// A keyspace of one key, in which the versions 1 and 2 are visible.
struct Key {
    snapshots: Arc<Snapshots>,
    view: Mutex<Arc<View>>,
    replacing: Mutex<()>,
    replaced_count: AtomicU64,
    /// What of the log is whole.
    log: Completion,
}

impl Key {
    fn new() -> Arc<Self> {
        let view = View {
            active: Arc::default(),
            sealed: Vec::new(),
            table: [seq(1), seq(2)].into(),
        };
        Arc::new(Self {
            snapshots: Arc::new(Snapshots::new(seq(2))),
            view: Mutex::new(Arc::new(view)),
            replacing: Mutex::new(()),
            replaced_count: AtomicU64::new(0),
            log: Completion::new(completed(2), 4),
        })
    }

    fn load(&self) -> Arc<View> {
        Arc::clone(&self.view.lock())
    }

    fn replace(&self, change: impl FnOnce(&View) -> View) {
        let _guard = self.replacing.lock();
        let next = Arc::new(change(&self.load()));
        *self.view.lock() = next;
        self.replaced_count.fetch_add(1, Ordering::Release);
    }

    fn load_visible(&self) -> (Arc<View>, SequenceNumber) {
        let load = || self.load();
        self.snapshots.with_visible(&self.replaced_count, load)
    }

    /// Writes version `at` into the memtable in which it was given its place.
    fn write_to(&self, memtable: &Memtable, at: u64) {
        memtable.insert(at);
        self.log.complete(at - 3, completed(at));
        self.snapshots.publish(seq(at));
    }

    fn write(&self, at: u64) {
        self.write_to(&Arc::clone(&self.load().active), at);
    }

    fn seal(&self) {
        self.replace(|old| View {
            active: Arc::default(),
            sealed: [&[Arc::clone(&old.active)], &*old.sealed].concat(),
            table: old.table.clone(),
        });
    }

    /// Flushes and compacts at once; the last place in a sealed memtable is that of `last`.
    fn compact(&self, last: u64) {
        // The inputs are fixed before the pins are captured.
        let inputs = self.load();
        if !inputs.sealed.is_empty() {
            self.log.wait_seq(seq(last)).expect("nothing fails");
            // Its writer may not have come to it yet.
            self.snapshots.publish(seq(last));
        }
        let mut all = inputs.table.clone();
        for sealed in &inputs.sealed {
            all.extend(sealed.versions());
        }
        let kept = keep(&all, &self.snapshots.capture());
        self.replace(|old| {
            let is_left =
                |sealed: &&Arc<Memtable>| !inputs.sealed.iter().any(|i| Arc::ptr_eq(i, sealed));
            View {
                active: Arc::clone(&old.active),
                sealed: old.sealed.iter().filter(is_left).cloned().collect(),
                table: kept,
            }
        });
    }

    fn check_read(view: &View, at: SequenceNumber) {
        let mut found = view.table.range(..=at).next_back().copied();
        for memtable in view.sealed.iter().chain([&view.active]) {
            let versions = memtable.versions();
            found = found.max(versions.range(..=at).next_back().copied());
        }
        assert_eq!(found, Some(at), "what a read finds");
    }
}

/// The versions that a pin sees, and those above all pins.
fn keep(all: &Versions, captured: &Captured) -> Versions {
    let pins = captured.registered.iter().chain([&captured.visible]);
    let seen = pins.filter_map(|pin| all.range(..=*pin).next_back());
    let above = all.range(captured.visible..);
    seen.chain(above).copied().collect()
}

/// A snapshot is taken while a job compacts what a version replaces that is being written.
pub fn snapshots_lose_nothing_to_a_job() {
    explore(|| {
        let key = Key::new();
        let memtable = Arc::clone(&key.load().active);
        key.seal();
        let writing = Arc::clone(&key);
        let writer = thread::spawn(move || writing.write_to(&memtable, 3));
        let compacting = Arc::clone(&key);
        let job = thread::spawn(move || compacting.compact(3));
        let snapshot = key.snapshots.register();
        Key::check_read(&key.load(), snapshot.seq());
        for thread in [writer, job] {
            thread.join().expect("a panic ends the model");
        }
        Key::check_read(&key.load(), snapshot.seq());
    });
}

/// A read that registers nothing, beside a writer who seals and a job. Three preemptions: that a
/// view is counted too early shows only if the writer stops before he replaces it, and the reader
/// with the old one in hand.
pub fn plain_reads_see_all_that_is_visible() {
    explore_with(3, || {
        let key = Key::new();
        let writing = Arc::clone(&key);
        let writer = thread::spawn(move || {
            writing.write(3);
            writing.seal();
            writing.write(4);
        });
        let compacting = Arc::clone(&key);
        let job = thread::spawn(move || compacting.compact(3));
        let (view, at) = key.load_visible();
        Key::check_read(&view, at);
        for thread in [writer, job] {
            thread.join().expect("a panic ends the model");
        }
        let (view, at) = key.load_visible();
        assert_eq!(at, seq(4));
        Key::check_read(&view, at);
    });
}

/// A compaction waits until no pin is below a number: however the release falls, it is woken.
pub fn a_release_wakes_whoever_waits_for_it() {
    explore(|| {
        let snapshots = Arc::new(Snapshots::new(seq(1)));
        let signals = Arc::new(Signals::default());
        let [first, second] = [snapshots.register(), snapshots.register()];
        snapshots.publish(seq(2));
        let release = |registration| thread::spawn(move || drop(registration));
        let releasing = [release(first), release(second)];
        snapshots.wake_past(seq(2), &signals);
        signals.compaction.0.wait_past(0, None);
        assert_eq!(snapshots.oldest(), seq(2));
        for thread in releasing {
            thread.join().expect("a panic ends the model");
        }
    });
}
