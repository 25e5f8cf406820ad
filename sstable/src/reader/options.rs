//! How tables are read. Plain data; the reader and the table cache look at it when they open one.

use base::PinLedger;
use base::sync::Arc;

use crate::cache::BlockCache;

/// How the bytes of a table are reached.
///
/// # Examples
/// ```
/// use sstable::ReadMode;
/// assert_ne!(ReadMode::Mapped, ReadMode::Positioned);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ReadMode {
    /// Through a mapping, in place; the descriptor is closed.
    #[default]
    Mapped,
    /// By positioned reads through the block cache; index and filter are kept in memory. For data
    /// that outgrows memory, and for files of unknown origin.
    Positioned,
    /// Mapped while the tables fit in the memory that the system has for cached files, positioned
    /// when they have outgrown it. The table cache chooses, whenever it is told how large they
    /// are; a reader that is opened by itself is mapped.
    Auto,
}

/// How often the checksum of a mapped block is compared. Positioned reads check each load.
///
/// # Examples
/// ```
/// use sstable::Verify;
/// assert_ne!(Verify::Once, Verify::Always);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Verify {
    /// At the first touch, remembered as long as the table is open.
    #[default]
    Once,
    /// At every touch. Index and filter are copied into memory and checked there when the table is
    /// opened, instead of being checked whole at each get.
    Always,
}

/// How tables are read.
#[derive(Clone, Debug, Default)]
pub struct ReaderOptions {
    /// Mapped or positioned.
    pub mode: ReadMode,
    /// Where uncompressed and positioned blocks are kept; `None` reads each anew.
    pub cache: Option<Arc<BlockCache>>,
    /// When checksums are compared.
    pub verify: Verify,
    /// Where slices that pin a table or a block are counted.
    pub pins: Arc<PinLedger>,
}
