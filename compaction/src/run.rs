//! A cursor over the tables of one sorted level, as if they were one.

use std::fmt;
use std::ops::Deref;

use base::cursor::Cursor;
use base::error::Result;
use base::sync::Arc;
use base::{InternalKey, Slice};
use sstable::{ReadProbe, ScanMode, TableCursor};

use crate::levels::{Run, Table};

enum Tables {
    Level(Run),
    Chosen(Vec<Arc<Table>>),
}

impl Deref for Tables {
    type Target = [Arc<Table>];

    fn deref(&self) -> &[Arc<Table>] {
        match self {
            Self::Level(level) => level,
            Self::Chosen(tables) => tables,
        }
    }
}

/// Walks tables that share no user key, in key order, opening each when it is reached.
///
/// Holds one table's cursor at a time; keeps the files of all its tables from being removed. In
/// bulk it closes tables behind it that were not open before: somebody who reads a whole level once
/// must not open all of it, nor take the place of tables that are read often.
pub struct LevelCursor {
    tables: Tables,
    scan: ScanMode,
    /// What it reads at once in bulk, if it was told.
    ahead_bytes: Option<usize>,
    /// The table that `cursor` reads; meaningless without one.
    at: usize,
    cursor: Option<TableCursor>,
    /// Whether that table is to be closed behind.
    closes: bool,
    /// What the tables that it has left had to be asked.
    left: ReadProbe,
    passed_count: u64,
}

impl LevelCursor {
    /// A cursor over `tables`, which are sorted and share no user key: some of a level from 1 on,
    /// or a single one of level 0.
    pub fn new(tables: &[Arc<Table>], scan: ScanMode) -> Self {
        debug_assert!(
            tables
                .windows(2)
                .all(|pair| !pair[0].meta.overlaps(&pair[1].meta)),
            "the tables are one sorted run"
        );
        Self {
            tables: Tables::Chosen(tables.to_vec()),
            scan,
            ahead_bytes: None,
            at: 0,
            cursor: None,
            closes: false,
            left: ReadProbe::default(),
            passed_count: 0,
        }
    }

    /// A cursor over a whole level from 1 on, or a sub-level of level 0, without copying the list
    /// of its tables.
    ///
    /// # Panics
    /// If it is all of level 0, which is not one sorted run.
    pub fn of_run(level: Run, scan: ScanMode) -> Self {
        assert!(
            level.sublevels().is_empty(),
            "level 0 is not one sorted run"
        );
        Self {
            tables: Tables::Level(level),
            scan,
            ahead_bytes: None,
            at: 0,
            cursor: None,
            closes: false,
            left: ReadProbe::default(),
            passed_count: 0,
        }
    }

    /// Reads at most so many bytes at once in bulk.
    #[must_use]
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.ahead_bytes = Some(bytes);
        self
    }

    /// What its tables had to be asked so far.
    pub fn probe(&self) -> ReadProbe {
        let mut probe = self.left;
        if let Some(cursor) = &self.cursor {
            probe.add(cursor.probe());
        }
        probe
    }

    /// How often it was positioned where its bounds alone say that nothing lies.
    pub fn passed_count(&self) -> u64 {
        self.passed_count
    }

    /// The cursor of table `index`, kept if it is the one at hand.
    fn open(&mut self, index: usize) -> Result<&mut TableCursor> {
        if self.at != index || self.cursor.is_none() {
            self.leave();
            let handle = self.tables[index].handle();
            let was_open = handle.is_open();
            let reader = handle.reader()?;
            let cursor = reader.cursor(self.scan);
            self.cursor = Some(match self.ahead_bytes {
                Some(bytes) => cursor.read_ahead(bytes),
                None => cursor,
            });
            self.at = index;
            self.closes = self.scan == ScanMode::Bulk && !was_open;
        }
        Ok(self.cursor.as_mut().expect("just opened"))
    }

    /// Lets go of the table at hand.
    fn leave(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            self.left.add(cursor.probe());
        }
        if std::mem::take(&mut self.closes) {
            self.tables[self.at].handle().close();
        }
    }

    /// Moves to the first entry of table `index` or, should it have none, of the next.
    fn first_from(&mut self, index: usize) -> Result<bool> {
        for index in index..self.tables.len() {
            if self.open(index)?.seek_to_first()? {
                return Ok(true);
            }
        }
        self.leave();
        Ok(false)
    }

    /// Moves to the last entry of the tables before `end`.
    fn last_before(&mut self, end: usize) -> Result<bool> {
        for index in (0..end).rev() {
            if self.open(index)?.seek_to_last()? {
                return Ok(true);
            }
        }
        self.leave();
        Ok(false)
    }

    fn first_reaching(&self, user_key: &[u8]) -> usize {
        match &self.tables {
            Tables::Level(level) => level.first_reaching(user_key),
            Tables::Chosen(tables) => {
                tables.partition_point(|table| table.meta.ends_before_key(user_key))
            }
        }
    }

    #[inline]
    fn here(&self) -> &TableCursor {
        self.cursor.as_ref().expect("the cursor stands on an entry")
    }
}

impl Cursor for LevelCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.first_from(0)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.last_before(self.tables.len())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        let index = self.first_reaching(target.user_key);
        if index == self.tables.len() {
            self.passed_count += 1;
            self.leave();
            return Ok(false);
        }
        if self.open(index)?.seek(target)? {
            return Ok(true);
        }
        // All of the table sorts before the target, though its largest user key does not.
        self.first_from(index + 1)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        let begun = |table: &Arc<Table>| table.meta.smallest.user_key.as_slice() <= target.user_key;
        let end = self.tables.partition_point(begun);
        let Some(index) = end.checked_sub(1) else {
            self.passed_count += 1;
            self.leave();
            return Ok(false);
        };
        if self.open(index)?.seek_for_prev(target)? {
            return Ok(true);
        }
        self.last_before(index)
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        let cursor = self.cursor.as_mut().expect("the cursor stands on an entry");
        if cursor.next()? {
            return Ok(true);
        }
        self.first_from(self.at + 1)
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        let cursor = self.cursor.as_mut().expect("the cursor stands on an entry");
        if cursor.prev()? {
            return Ok(true);
        }
        self.last_before(self.at)
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::is_valid)
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        self.here().key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.here().value()
    }

    #[inline]
    fn ahead_before(&self, target: Option<InternalKey<'_>>) -> usize {
        self.here().ahead_before(target)
    }

    fn value_slice(&self) -> Slice {
        self.here().value_slice()
    }
}

impl Drop for LevelCursor {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for LevelCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelCursor")
            .field("tables", &self.tables.len())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
