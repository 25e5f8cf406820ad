//! A sorted run in a vector: the oracle for every other cursor.

use super::Cursor;
use crate::error::Result;
use crate::key::{InternalKey, KeyKind, SequenceNumber};

/// One entry of a [`VecCursor`].
pub type VecEntry = (Vec<u8>, SequenceNumber, KeyKind, Vec<u8>);

/// A cursor over entries in memory.
#[derive(Clone, Debug)]
pub struct VecCursor {
    entries: Vec<VecEntry>,
    at: Option<usize>,
}

const BLOCK_ENTRY_COUNT: usize = 8;

impl VecCursor {
    /// A cursor over `entries`, which it sorts.
    pub fn new(mut entries: Vec<VecEntry>) -> Self {
        entries.sort_by(|a, b| Self::key_of(a).cmp(&Self::key_of(b)));
        Self { entries, at: None }
    }

    /// The entries in order.
    pub fn entries(&self) -> &[VecEntry] {
        &self.entries
    }

    fn key_of(entry: &VecEntry) -> InternalKey<'_> {
        InternalKey::new(&entry.0, entry.1, entry.2)
    }

    fn go(&mut self, at: Option<usize>) -> bool {
        self.at = at.filter(|at| *at < self.entries.len());
        self.at.is_some()
    }

    fn here(&self) -> &VecEntry {
        &self.entries[self.at.expect("the cursor stands on an entry")]
    }
}

impl Cursor for VecCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        Ok(self.go(Some(0)))
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        Ok(self.go(self.entries.len().checked_sub(1)))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        let at = self
            .entries
            .partition_point(|entry| Self::key_of(entry) < target);
        Ok(self.go(Some(at)))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        let after = self
            .entries
            .partition_point(|entry| Self::key_of(entry) <= target);
        Ok(self.go(after.checked_sub(1)))
    }

    fn next(&mut self) -> Result<bool> {
        let at = self.at.expect("the cursor stands on an entry");
        Ok(self.go(Some(at + 1)))
    }

    fn prev(&mut self) -> Result<bool> {
        let at = self.at.expect("the cursor stands on an entry");
        Ok(self.go(at.checked_sub(1)))
    }

    fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        Self::key_of(self.here())
    }

    fn value(&self) -> &[u8] {
        &self.here().3
    }

    /// Sees as far as a table does with so many entries in a block.
    fn ahead_before(&self, target: Option<InternalKey<'_>>) -> usize {
        let behind = self.at.expect("the cursor stands on an entry") + 1;
        let block_end = behind.next_multiple_of(BLOCK_ENTRY_COUNT);
        let rest = &self.entries[behind..block_end.min(self.entries.len())];
        target.map_or(rest.len(), |target| {
            rest.partition_point(|entry| Self::key_of(entry) < target)
        })
    }
}
