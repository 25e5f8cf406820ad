//! The cursor over a memtable. Called by flushes, scans and recovery.

use std::fmt;

use base::cursor::Cursor;
use base::error::Result;
use base::sync::Arc;
use base::{InternalKey, Slice};

use crate::ordered::{EntryRef, Ordered, Position};

/// A cursor over the entries of a memtable, which it keeps alive.
///
/// No move fails. Moving forward is one step; moving back is a search. An entry that is inserted
/// while it walks is met if it lies ahead.
pub struct MemtableCursor {
    position: Position,
}

impl MemtableCursor {
    pub(crate) fn new(entries: Arc<Ordered>) -> Self {
        Self {
            position: Position::new(entries),
        }
    }

    #[inline]
    fn entry(&self) -> EntryRef<'_> {
        self.position
            .entry()
            .expect("the cursor stands on an entry")
    }
}

impl Cursor for MemtableCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        Ok(self.position.first())
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        Ok(self.position.last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        Ok(self.position.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        Ok(self.position.seek_for_prev(target))
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        debug_assert!(self.is_valid());
        Ok(self.position.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        debug_assert!(self.is_valid());
        Ok(self.position.prev())
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.position.entry().is_some()
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        self.entry().key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().value()
    }

    fn value_slice(&self) -> Slice {
        self.entry().pin()
    }
}

impl fmt::Debug for MemtableCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.position.entry().map(EntryRef::key);
        f.debug_struct("MemtableCursor").field("at", &at).finish()
    }
}
