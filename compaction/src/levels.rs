//! The tree: what it knows of a table, and which tables form which level.
//!
//! Everything here is immutable once built. A change of the tree is a new [`Version`] made by
//! [`Version::apply`], which checks every invariant, so that a wrong edit is refused before anybody
//! reads through it. Never reads a table and never writes a file; the only effect is that the last
//! holder of an obsolete table tells the [`Reaper`].

use std::fmt;
use std::ops::Bound;

use base::error::{Error, ErrorKind, Result};
use base::key::KEY_BYTES_MAX;
use base::sync::Arc;
use base::sync::atomic::{AtomicBool, Ordering};
use base::{FileNumber, OwnedKey, SequenceNumber};
use sstable::{TableHandle, TableReader};

use crate::range::{UserRange, ends_before};

mod level;
mod version;

pub use level::{LevelTables, Run};
pub use version::Version;

/// What the tree knows of a table without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// The number in its name.
    pub number: FileNumber,
    /// The id in its footer, with which its checksums are seeded.
    pub file_id: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Entries, tombstones included.
    pub entry_count: u64,
    /// Tombstones among them.
    pub tombstone_count: u64,
    /// Bytes of keys and values before compression.
    pub raw_bytes: u64,
    /// The first entry.
    pub smallest: OwnedKey,
    /// The last entry, or the user key before which the table ends.
    pub largest: OwnedKey,
    /// Whether `largest`'s user key itself lies outside.
    pub largest_exclusive: bool,
    /// The lowest sequence number of an entry.
    pub seq_smallest: SequenceNumber,
    /// The highest.
    pub seq_largest: SequenceNumber,
    /// The sequence that stands for every entry's own in an ingested table. Reserved.
    pub global_seq: Option<SequenceNumber>,
    /// Where the file lies: 0 = the database directory; others are reserved.
    pub location: u8,
    /// How its blocks are compressed, as the table format numbers it.
    pub compression: u8,
    /// When it was made, in microseconds since 1970.
    pub created_micros: u64,
    /// Entries whose user key has a newer entry in the table: kept for a snapshot, or since then
    /// garbage.
    pub hidden_count: u64,
}

impl TableMeta {
    /// The user keys it can hold.
    pub fn range(&self) -> UserRange {
        UserRange {
            from: self.smallest.user_key.clone(),
            to: self.largest.user_key.clone(),
            to_exclusive: self.largest_exclusive,
        }
    }

    /// The lowest user key as a bound.
    #[inline]
    pub fn lower(&self) -> Bound<&[u8]> {
        Bound::Included(&self.smallest.user_key)
    }

    /// The highest user key as a bound.
    #[inline]
    pub fn upper(&self) -> Bound<&[u8]> {
        if self.largest_exclusive {
            Bound::Excluded(&self.largest.user_key)
        } else {
            Bound::Included(&self.largest.user_key)
        }
    }

    /// Whether it can hold `user_key`.
    #[inline]
    pub fn contains(&self, user_key: &[u8]) -> bool {
        self.smallest.user_key.as_slice() <= user_key && !self.ends_before_key(user_key)
    }

    /// Whether all it holds sorts before `user_key`.
    #[inline]
    pub fn ends_before_key(&self, user_key: &[u8]) -> bool {
        if self.largest_exclusive {
            self.largest.user_key.as_slice() <= user_key
        } else {
            self.largest.user_key.as_slice() < user_key
        }
    }

    /// Whether it can hold a key of the range from `from` to `to`.
    pub fn meets(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
        !ends_before(self.upper(), from) && !ends_before(to, self.lower())
    }

    /// Whether it can hold a user key that `other` can hold too.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.meets(other.lower(), other.upper())
    }

    /// Checks what must hold of every table by itself.
    ///
    /// # Errors
    /// `Corruption` if it contradicts itself; `Unsupported` if it uses what is reserved.
    pub fn check(&self) -> Result<()> {
        if self.global_seq.is_some() || self.location != 0 {
            return Err(
                Error::new(ErrorKind::Unsupported, "table of a later version")
                    .with_value("table", self.number)
                    .with_value("location", self.location),
            );
        }
        let ordered = match self.smallest.user_key.cmp(&self.largest.user_key) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => {
                !self.largest_exclusive && self.smallest.seq >= self.largest.seq
            }
            std::cmp::Ordering::Greater => false,
        };
        let sound = ordered
            && self.seq_smallest <= self.seq_largest
            && self.entry_count > 0
            && self.tombstone_count <= self.entry_count
            && self.hidden_count < self.entry_count
            && self.smallest.user_key.len() <= KEY_BYTES_MAX
            && self.largest.user_key.len() <= KEY_BYTES_MAX;
        if sound {
            return Ok(());
        }
        Err(misfit("table contradicts itself", self.number))
    }
}

/// As in `000007 [a#10,PUT .. b#11,DEL]`.
impl fmt::Display for TableMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let close = if self.largest_exclusive { ')' } else { ']' };
        write!(
            f,
            "{} [{:?} .. {:?}{close}",
            self.number, self.smallest, self.largest
        )
    }
}

/// The error for an edit that does not fit the tree; the caller knows the file it came from.
pub(crate) fn misfit(what: &str, number: FileNumber) -> Error {
    Error::new(
        ErrorKind::Corruption,
        format!("edit does not fit the tree: {what}"),
    )
    .with_value("table", number)
}

/// Takes tables that nobody can read any more, so that their files can go.
///
/// Called from whatever thread drops the last holder, a reader's included: it must be cheap and
/// must not wait. That goes for dropping `table` too, which may close and unmap it.
pub trait Reaper: fmt::Debug + Send + Sync {
    /// The table is out of every version and nobody holds it.
    fn reap(&self, table: Arc<TableHandle>);
}

/// One table of the tree, shared by every [`Version`] that has it.
pub struct Table {
    /// What the tree knows of it.
    pub meta: TableMeta,
    handle: Arc<TableHandle>,
    reaper: Arc<dyn Reaper>,
    obsolete: AtomicBool,
}

impl Table {
    /// A table that is read through `handle`.
    pub fn new(meta: TableMeta, handle: Arc<TableHandle>, reaper: Arc<dyn Reaper>) -> Arc<Self> {
        Arc::new(Self {
            meta,
            handle,
            reaper,
            obsolete: AtomicBool::new(false),
        })
    }

    /// Opens its reader, on first use.
    #[inline]
    pub fn handle(&self) -> &Arc<TableHandle> {
        &self.handle
    }

    /// Looks at its reader and closes it again if it was not open: for who looks at many tables
    /// once.
    ///
    /// # Errors
    /// As [`TableHandle::reader`].
    pub fn glance<T>(&self, look: impl FnOnce(&TableReader) -> T) -> Result<T> {
        let was_open = self.handle.is_open();
        let seen = look(&*self.handle.reader()?);
        if !was_open {
            self.handle.close();
        }
        Ok(seen)
    }

    /// Says that an edit without it is durable: the last holder hands it to the reaper.
    ///
    /// A table that is dropped without this call keeps its file; so it is at close, and for
    /// versions that recovery folds.
    pub fn mark_obsolete(&self) {
        // Release: pairs with the Acquire in `drop`.
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Acquire: pairs with the Release in `mark_obsolete`.
        if self.obsolete.load(Ordering::Acquire) {
            self.reaper.reap(Arc::clone(&self.handle));
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.meta, f)
    }
}

/// The sum of the file sizes of `tables`.
pub(crate) fn total_bytes<'a>(tables: impl IntoIterator<Item = &'a Arc<Table>>) -> u64 {
    tables
        .into_iter()
        .fold(0, |sum, table| table.meta.file_bytes.saturating_add(sum))
}

#[cfg(test)]
mod tests;
