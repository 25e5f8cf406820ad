//! The mutable sorted run of siltstone: the newest writes of one keyspace, in key order, in memory.
//!
//! A [`Memtable`] takes every write at its own sequence number, so nothing in it is ever replaced
//! or removed: an overwrite and a deletion are new entries beside the old ones. It answers point
//! reads at a sequence number, hands out cursors that outlive the call, and knows what it weighs.
//!
//! What it never does: it does not assign sequence numbers or decide what is visible (the commit
//! path does), it does no I/O, it does not know the log, other runs or levels, and it gives no
//! memory back before it is dropped as a whole. It is full when its owner says so.

mod arena;
mod cursor;
mod memtable;
mod ordered;
#[cfg(test)]
mod random;
mod spare;

pub use crate::cursor::MemtableCursor;
pub use crate::memtable::{Memtable, MemtableHit, MemtableOptions};
pub use crate::ordered::MemtableStructure;
pub use crate::spare::SpareChunks;
