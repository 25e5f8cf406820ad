//! The tree of siltstone: which tables form which level, how that changes, and the work of changing
//! it.
//!
//! [`Version`] is the immutable picture of a tree, [`VersionEdit`] the difference between two.
//! [`policy`] decides purely which compaction is due, [`job`] carries it out and returns what an
//! edit must say. Nothing here knows the log, a memtable, a database or MANIFEST: a flush hands
//! over cursors, and who applies an edit is decided above.
#![forbid(unsafe_code)]

pub mod edit;
pub mod job;
pub mod lanes;
pub mod levels;
pub mod merge;
mod output;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod range;
pub mod retention;
pub mod run;
#[cfg(test)]
mod testing;

pub use edit::{EDIT_BYTES_MAX, KeyspaceCreated, KeyspaceEdit, VersionEdit};
pub use job::{JobContext, JobOutput, JobStats};
pub use lanes::{Lanes, Taken};
pub use levels::{LevelTables, Reaper, Run, Table, TableMeta, Version};
pub use plan::{CompactionPlan, CompactionReason, InProgress};
pub use policy::{ManualCompaction, ManualStep, Tuning};
pub use pool::RayonPool;
pub use range::UserRange;
pub use run::LevelCursor;
