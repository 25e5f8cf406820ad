//! siltstone: an embedded key-value storage engine, a log-structured merge tree over a durable log.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use siltstone::{Db, Durability, WriteBatch, WriteOptions};
//!
//! let db = Db::open(dir.path())?;
//! db.put("user/1", "ada")?; // survives a kill of this process
//! let disk = WriteOptions::new().durability(Durability::Disk);
//! db.put_with("user/2", "grace", &disk)?; // survives a power cut, and so does user/1
//!
//! let mut batch = WriteBatch::new();
//! batch.put("user/3", "edsger").delete("user/1");
//! db.write(&batch)?; // all or nothing
//!
//! for item in db.prefix("user/")? {
//!     let (key, value) = item?;
//!     println!("{} = {}", key.escape_ascii(), value.escape_ascii());
//! }
//! db.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Calls block; there is no async form in this version. [`Db`] says which call waits for what.
#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

// Floor 1: words.
mod batch;
mod change;
mod events;
mod seams;
mod throttle;
mod trace;
mod tuning;
// Floor 2: state.
mod health;
mod ledger;
mod manifest;
mod registry;
mod reserve;
mod signals;
mod snapshots;
mod stall;
mod superversion;
mod sweeper;
mod till;
// Floor 3: paths.
mod commit;
mod explain;
mod read;
mod scan;
mod tree;
// Floor 4: staff.
mod background;
mod checkpoint;
mod recovery;
// Floor 5: door.
mod amplification;
mod db;
mod keyspace;
mod options;
mod range;
mod stats;
mod stats_file;
mod view;

pub use base::{
    Error, ErrorKind, Level, PinKind, PinReport, Result, SequenceNumber, Slice, WriteOutcome,
};
pub use log::{LogAppend, RecoveryMode};
pub use memtable::MemtableStructure;
pub use sstable::{Compression, FilterPolicy, ReadMode, Verify};

pub use amplification::{
    Amplification, KeyspaceAmplification, LevelSpace, ReadAmplification, ScanAmplification,
    SpaceAmplification, WriteAmplification,
};
pub use batch::WriteBatch;
pub use checkpoint::Checkpoint;
pub use commit::Commit;
pub use db::Db;
pub use events::Event;
pub use explain::{GetExplanation, GetOutcome, GetPlace, GetStep};
pub use health::Health;
pub use keyspace::{Keyspace, Snapshot};
pub use ledger::Written;
pub use options::{KeyspaceOptions, Options, WriteOptions};
pub use range::KeyRange;
pub use scan::{Cursor, Iter};
pub use stats::{KeyspaceStats, LevelStats, Stats, ThrottleStats, WaitStats};
pub use stats_file::StatsFile;
pub use throttle::{ThrottleCause, Throttled};
pub use tuning::Durability;

/// The seams through which a database meets files, time and threads.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::sync::Arc;
/// use siltstone::Options;
/// use siltstone::seam::{CountingFs, OsFs};
/// let fs = Arc::new(CountingFs::new(Arc::new(OsFs)));
/// let db = Options::new().file_system(fs.clone()).open(dir.path())?;
/// db.put("key", "value")?;
/// assert!(fs.counts().written_bytes() > 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub mod seam {
    pub use base::clock::{Clock, ManualClock, SystemClock};
    pub use base::executor::{Executor, Scatter, Step, Threads, Worker};
    pub use base::fs::{CountingFs, File, FileSystem, IoCounts, OsFs};
}
