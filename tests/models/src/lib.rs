//! The protocols between the threads of siltstone, in every order that can happen.
//!
//! Files of the rooms are compiled here once more, as they are, with the locks and atomics of
//! [loom](https://docs.rs/loom) in the place of [`base::sync`](real_base::sync). Each function of
//! [`models`] goes through every schedule of its threads, up to a number of preemptions, and
//! through every value that a weak memory model lets an atomic load return. A wake-up that is lost
//! is a deadlock, which loom reports.
#![forbid(unsafe_code)]

// What the files import as `base` is this crate.
extern crate self as base;

pub use real_base::{Error, ErrorKind, Result, SequenceNumber, clock, error, fork};

pub mod models;
pub mod sync;

/// Floor of the log: which records count.
#[rustfmt::skip]
#[path = "../../../log/src/completion.rs"]
#[allow(dead_code, reason = "not every call of the log is one of a model")]
pub mod completion;

/// Floor of the log: threads that share a sync.
#[rustfmt::skip]
#[path = "../../../log/src/sync.rs"]
#[allow(dead_code, reason = "not every call of the log is one of a model")]
mod group;

/// Floor of the engine: what is visible, and what is pinned.
#[rustfmt::skip]
#[path = "../../../src/snapshots.rs"]
#[allow(dead_code, reason = "not every call of the engine is one of a model")]
mod snapshots;

/// As in the log.
mod record {
    pub(crate) use real_log::Position;
}

/// As in the engine, with the one bell that snapshots ring.
mod signals {
    use crate::sync::Bell;

    /// Who is woken for what.
    #[derive(Debug, Default)]
    pub(crate) struct Signals {
        pub(crate) compaction: Slot,
    }

    /// A worker.
    #[derive(Debug, Default)]
    pub(crate) struct Slot(pub(crate) Bell);

    impl Slot {
        pub(crate) fn wake(&self) {
            self.0.ring();
        }
    }
}
