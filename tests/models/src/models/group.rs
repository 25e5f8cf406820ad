//! Threads that share a sync of the log, and hand it over.

use std::sync::atomic as plain;

use loom::thread;
use real_base::{Error, ErrorKind, Result};
use real_log::Position;

use super::explore;
use crate::clock::Clock;
use crate::group::GroupSync;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Has gone far at each look, so that nobody looks out for others for long.
#[derive(Debug, Default)]
struct Hasty(plain::AtomicU64);

impl Clock for Hasty {
    fn now_micros(&self) -> u64 {
        0
    }

    fn monotonic_micros(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

fn at(offset: u64) -> Position {
    Position { ordinal: 0, offset }
}

/// A file, as a sync sees it.
struct File {
    group: GroupSync,
    appended: AtomicU64,
    /// Relaxed: whoever is acknowledged is to see it by that.
    durable: AtomicU64,
    is_syncing: AtomicBool,
    sync_count: AtomicU64,
}

impl File {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            group: GroupSync::new(at(0), Arc::new(Hasty::default())),
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            is_syncing: AtomicBool::new(false),
            sync_count: AtomicU64::new(0),
        })
    }

    fn sync(&self) -> Position {
        let other = self.is_syncing.swap(true, Ordering::Relaxed);
        assert!(!other, "two sync at once");
        self.sync_count.fetch_add(1, Ordering::Relaxed);
        let upto = self.appended.load(Ordering::Acquire);
        self.durable.store(upto, Ordering::Relaxed);
        self.is_syncing.store(false, Ordering::Relaxed);
        at(upto)
    }

    fn append(&self) -> u64 {
        self.appended.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A sync that makes no more durable than it must.
    fn sync_least(&self, wanted: Position) -> Position {
        let other = self.is_syncing.swap(true, Ordering::Relaxed);
        assert!(!other, "two sync at once");
        let upto = self.durable.load(Ordering::Relaxed).max(wanted.offset);
        self.durable.store(upto, Ordering::Relaxed);
        self.is_syncing.store(false, Ordering::Relaxed);
        at(upto)
    }

    fn commit(&self, sync: impl Fn(Position) -> Result<Position>) -> Result<()> {
        let target = self.append();
        self.group.reach(at(target), sync)?;
        let durable = self.durable.load(Ordering::Relaxed);
        assert!(durable >= target, "acknowledged {target} of {durable}");
        Ok(())
    }

    /// Commits in two threads and in this one, side by side.
    fn three_times(self: &Arc<Self>, commit: fn(&Self)) {
        let writer = || {
            let file = Arc::clone(self);
            thread::spawn(move || commit(&file))
        };
        let writers = [writer(), writer()];
        commit(self);
        for writer in writers {
            writer.join().expect("a panic ends the model");
        }
    }
}

/// Three commit durably.
pub fn nobody_returns_before_a_sync_covers_him() {
    explore(|| {
        let file = File::new();
        file.three_times(|file| file.commit(|_| Ok(file.sync())).expect("nothing fails"));
        assert_eq!(file.group.durable_upto(), at(3));
        let sync_count = file.sync_count.load(Ordering::Relaxed);
        assert!((1..=3).contains(&sync_count), "{sync_count} syncs");
    });
}

/// Three commit durably, and each sync covers just what those want whom it takes in.
pub fn a_sync_covers_all_whom_it_takes_in() {
    explore(|| {
        let file = File::new();
        file.three_times(|file| {
            let sync = |wanted| Ok(file.sync_least(wanted));
            file.commit(sync).expect("nothing fails");
        });
        assert_eq!(file.group.durable_upto(), at(3));
    });
}

/// The first sync fails: nobody is acknowledged, it is not tried again, and nobody waits for ever.
pub fn a_failed_sync_acknowledges_nobody() {
    explore(|| {
        let file = File::new();
        file.three_times(|file| {
            let failed = |_| {
                file.sync_count.fetch_add(1, Ordering::Relaxed);
                Err(Error::new(ErrorKind::Io, "this one is meant"))
            };
            let error = file.commit(failed).expect_err("nothing is durable");
            assert_eq!(error.kind(), ErrorKind::Io);
        });
        assert_eq!(file.sync_count.load(Ordering::Relaxed), 1);
        assert!(file.group.check().is_err());
    });
}
