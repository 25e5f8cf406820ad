//! A segmented, checksummed, append-only log: entries in time order.
//!
//! It knows sequence numbers, operation counts and times, but not what an operation is: payloads
//! are bytes to it. It never changes what was appended, never appends to a file after an error or
//! after recovery, and never drops what a floor protects. The engine's write-ahead log and, through
//! [`SegmentWriter`] and [`SegmentReader`], its MANIFEST are made of it.
#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]

mod completion;
mod history;
mod index;
mod reader;
mod record;
pub mod recovery;
mod replay;
pub mod retention;
mod segment;
mod sync;
mod tail;
#[cfg(test)]
mod testing;
mod writer;

pub use completion::Completed;
pub use history::History;
pub use reader::{Ending, SegmentReader};
pub use record::{Anchor, OwnedRecord, Position, Record, RecordKind, RecordMeta};
pub use recovery::RecoveryMode;
pub use replay::Replay;
pub use segment::{Predecessor, SealedSegment, SegmentHeader, SegmentWriter};
pub use tail::{Follow, Tail, TailUpto};
pub use writer::{Appended, Log, LogAppend, LogConfig, LogSlot, LogStats, Successor};
