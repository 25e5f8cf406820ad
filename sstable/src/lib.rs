//! Tables: immutable sorted runs on disk, made to be searched where they lie.
//!
//! [`TableWriter`] turns sorted entries into one finished file; [`TableReader`] answers from it;
//! [`TableCache`] keeps a bounded number of them open. This crate knows one run at a time: which
//! tables form a tree, and which versions of a key are worth keeping, is decided above it.
//!
//! Every byte of a table may be damaged or hostile. Modules that decode deny slice indexing, and
//! compare every length with what remains before they use it.
#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]

mod block;
mod bytes;
mod cache;
mod compression;
mod counted;
mod dictionary;
mod filter;
mod format;
mod index;
mod iter;
mod properties;
mod reader;
mod tables;
#[cfg(test)]
mod testing;
mod writer;

pub use cache::BlockCache;
pub use compression::Compression;
pub use counted::zstd_bytes;
pub use filter::FilterPolicy;
pub use format::{BlockHandle, FORMAT_VERSION, TRAILER_BYTES};
pub use iter::{ScanMode, TableCursor};
pub use properties::{CommitTimes, CreationReason, Properties};
pub use reader::{
    BlockAim, BlockInfo, BlockPlace, BlockSearch, BlockSource, BlockSpot, ReadMode, ReadProbe,
    ReaderOptions, SearchedBlock, Section, TableHit, TableReader, Verify, VerifyReport,
};
pub use tables::{ReaderGuard, TableCache, TableHandle};
pub use writer::{TableOptions, TableSummary, TableWriter};
