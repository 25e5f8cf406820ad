//! The words of siltstone: what an entry is, how it is ordered, encoded and checked, and the seams
//! through which every other crate meets files, time and threads.
//!
//! This crate holds no policy and no state of a database. Everything above imports it; it imports
//! nothing of ours.

#[cfg(windows)]
compile_error!(
    "siltstone does not support Windows: its durability contract needs positioned writes, \
     directory syncs and advisory locks with POSIX semantics"
);

pub mod checksum;
pub mod clock;
pub mod coding;
pub mod cursor;
pub mod error;
pub mod executor;
pub mod filter;
pub mod fork;
pub mod fs;
pub mod hash;
pub mod hint;
pub mod ids;
pub mod key;
mod machine;
pub mod memory;
pub mod pages;
pub mod pins;
#[cfg(any(test, feature = "testing"))]
pub mod random;
pub mod slice;
pub mod sync;

pub use error::{Error, ErrorKind, Result, WriteOutcome};
pub use hash::{HashSeed, KeyHash};
pub use ids::{FileKind, FileNumber, KeyspaceId, Level};
pub use key::{InternalKey, KeyKind, OwnedKey, SequenceNumber};
pub use memory::{MemoryLedger, MemoryShare};
pub use pins::{PinKind, PinLedger, PinReport};
pub use slice::{Home, Slice};
