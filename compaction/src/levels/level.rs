//! The tables of one level, in order, with the arrays that a search touches.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, Deref};

use base::error::Result;
use base::key::head;
use base::sync::Arc;
use base::{FileNumber, Level, hint};

use super::{Table, misfit};
use crate::range::{ends_before, is_void, shared_len};

/// The tables of one level; it derefs to a slice of them.
///
/// Level 0: newest first, and once more as sub-levels. Deeper: one sorted run, no two tables of
/// which can hold the same user key. A sub-level is such a run too.
#[derive(Default)]
pub struct LevelTables {
    tables: Vec<Arc<Table>>,
    /// Ascending; finds a number without looking at the tables.
    numbers: Vec<FileNumber>,
    /// What every key of this level begins with; left out of `heads`, which would else often tie.
    shared: Vec<u8>,
    /// For each table, the head of its largest user key behind `shared`. Empty at level 0.
    heads: Vec<u64>,
    /// The same of its smallest user key.
    lows: Vec<u64>,
    bytes: u64,
    /// Level 0 as sorted runs, newest first. Empty deeper down.
    sublevels: Vec<Run>,
}

/// Tables in key order that share no user key: a level from 1 on, or a sub-level of level 0.
pub type Run = Arc<LevelTables>;

impl LevelTables {
    /// Puts `tables` in order.
    ///
    /// # Errors
    /// `Corruption` if a number is there twice, or two tables of a deeper level, or of level 0 with
    /// entries from the same time, can hold the same user key.
    pub(crate) fn new(level: Level, mut tables: Vec<Arc<Table>>) -> Result<Self> {
        let mut numbers: Vec<_> = tables.iter().map(|table| table.meta.number).collect();
        numbers.sort_unstable();
        if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(misfit("number added twice", twice[0]));
        }
        let bytes = super::total_bytes(&tables);
        if level == Level::ZERO {
            tables.sort_by_key(|table| (table.meta.seq_largest, table.meta.number));
            tables.reverse();
            check_level0(&tables)?;
            let sublevels = sublevels(&tables)?;
            return Ok(Self {
                tables,
                numbers,
                bytes,
                sublevels,
                ..Self::default()
            });
        }
        Self::sorted(level, tables, numbers, bytes)
    }

    /// One run of a deeper level, or a sub-level.
    fn sorted(
        level: Level,
        mut tables: Vec<Arc<Table>>,
        numbers: Vec<FileNumber>,
        bytes: u64,
    ) -> Result<Self> {
        tables.sort_by(|a, b| a.meta.smallest.user_key.cmp(&b.meta.smallest.user_key));
        for pair in tables.windows(2) {
            if !ends_before(pair[0].meta.upper(), pair[1].meta.lower()) {
                return Err(misfit("tables of one level overlap", pair[1].meta.number)
                    .with_value("other", pair[0].meta.number)
                    .with_value("level", level));
            }
        }
        let shared = shared_bytes(&tables).to_vec();
        let heads = tables
            .iter()
            // A table may end just before a key that does not begin as the others do; then it is
            // the last one, and `shared_bytes` took that key into account.
            .map(|table| head(&table.meta.largest.user_key[shared.len()..]))
            .collect();
        let lows = tables
            .iter()
            .map(|table| head(&table.meta.smallest.user_key[shared.len()..]))
            .collect();
        Ok(Self {
            tables,
            numbers,
            shared,
            heads,
            lows,
            bytes,
            sublevels: Vec::new(),
        })
    }

    /// Level 0 as sorted runs, newest first: of two tables that can hold the same user key the
    /// newer lies in an earlier run. So a get looks at one table a run, a scan needs one cursor a
    /// run, and both stop at the first run that answers. Empty for a deeper level.
    ///
    /// As few runs as the longest chain of overlaps needs. (The concept is Pebble's.)
    #[inline]
    pub fn sublevels(&self) -> &[Run] {
        &self.sublevels
    }

    /// Whether this level has the table `number`.
    pub fn has(&self, number: FileNumber) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    /// The sum of the file sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index of the first table that does not end before `user_key`, the count of tables if
    /// all do; a deeper level or a sub-level only.
    ///
    /// A binary search over an array of numbers; full keys are compared only where heads tie.
    #[inline]
    pub fn first_reaching(&self, user_key: &[u8]) -> usize {
        match self.target(user_key) {
            Ok(target) => self.first_reaching_head(user_key, target),
            Err(at) => at,
        }
    }

    /// The head of `user_key` behind what all keys share; or where a key that does not begin so
    /// stands, before or behind all tables.
    #[inline]
    fn target(&self, user_key: &[u8]) -> std::result::Result<u64, usize> {
        debug_assert_eq!(
            self.heads.len(),
            self.tables.len(),
            "level 0 is not sorted by key"
        );
        let common = self.shared.len().min(user_key.len());
        match user_key[..common].cmp(&self.shared[..common]) {
            Ordering::Less => Err(0),
            Ordering::Greater => Err(self.tables.len()),
            // Also a key that is shorter than what all share: its head, 0, leads to the first
            // table.
            Ordering::Equal => Ok(head(&user_key[common..])),
        }
    }

    #[inline]
    fn first_reaching_head(&self, user_key: &[u8], target: u64) -> usize {
        let from = self.heads.partition_point(|head| *head < target);
        if self.heads.get(from) != Some(&target) {
            return from;
        }
        hint::cold_path();
        let ties = self.heads[from..].partition_point(|head| *head == target);
        let tied = &self.tables[from..from + ties];
        from + tied.partition_point(|table| table.meta.ends_before_key(user_key))
    }

    /// The table that can hold `user_key`; a deeper level or a sub-level only.
    #[inline]
    pub fn find(&self, user_key: &[u8]) -> Option<&Arc<Table>> {
        if self.tables.is_empty() {
            // Most levels are, and each is asked by every get that goes this deep.
            return None;
        }
        // A key that sorts before or behind all that the tables share is in none of them.
        let target = self.target(user_key).ok()?;
        let at = self.first_reaching_head(user_key, target);
        let table = self.tables.get(at)?;
        let begins_before = match self.lows[at].cmp(&target) {
            Ordering::Less => true,
            Ordering::Equal => table.meta.smallest.user_key.as_slice() <= user_key,
            Ordering::Greater => false,
        };
        begins_before.then_some(table)
    }

    /// The tables that can hold a key of the range, in order; a deeper level or a sub-level only.
    pub fn overlapping(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> &[Arc<Table>] {
        if is_void(from, to) {
            return &[];
        }
        let start = self
            .tables
            .partition_point(|table| ends_before(table.meta.upper(), from));
        let rest = &self.tables[start..];
        &rest[..rest.partition_point(|table| !ends_before(to, table.meta.lower()))]
    }
}

impl Deref for LevelTables {
    type Target = [Arc<Table>];

    #[inline]
    fn deref(&self) -> &[Arc<Table>] {
        &self.tables
    }
}

impl fmt::Debug for LevelTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.fmt(f)
    }
}

fn shared_bytes(tables: &[Arc<Table>]) -> &[u8] {
    let (Some(first), Some(last)) = (tables.first(), tables.last()) else {
        return &[];
    };
    let smallest = &first.meta.smallest.user_key;
    &smallest[..shared_len(smallest, &last.meta.largest.user_key)]
}

/// Reads take the first hit from newest to oldest, so of two tables that can hold the same key all
/// entries of one must be newer than all of the other.
fn check_level0(newest_first: &[Arc<Table>]) -> Result<()> {
    for (index, newer) in newest_first.iter().enumerate() {
        for older in &newest_first[index + 1..] {
            if older.meta.seq_largest >= newer.meta.seq_smallest && older.meta.overlaps(&newer.meta)
            {
                return Err(misfit("level 0 tables are not in order", newer.meta.number)
                    .with_value("other", older.meta.number));
            }
        }
    }
    Ok(())
}

/// Distributes the tables of level 0 over as few sorted runs as possible: each goes one above the
/// highest run that has an older table which overlaps it, the oldest ones to the lowest.
fn sublevels(newest_first: &[Arc<Table>]) -> Result<Vec<Run>> {
    let mut runs: Vec<Vec<Arc<Table>>> = Vec::new();
    for table in newest_first.iter().rev() {
        let height = runs.iter().rposition(|run| meets_sorted(run, table));
        let height = height.map_or(0, |below| below + 1);
        if height == runs.len() {
            runs.push(Vec::new());
        }
        let run = &mut runs[height];
        let smallest = &table.meta.smallest.user_key;
        let at = run.partition_point(|other| other.meta.smallest.user_key < *smallest);
        run.insert(at, Arc::clone(table));
    }
    runs.reverse();
    let sorted = runs.into_iter().map(|tables| {
        let mut numbers: Vec<_> = tables.iter().map(|table| table.meta.number).collect();
        numbers.sort_unstable();
        let bytes = super::total_bytes(&tables);
        LevelTables::sorted(Level::ZERO, tables, numbers, bytes).map(Arc::new)
    });
    sorted.collect()
}

/// Whether one of `run`, which is in key order, can hold a key that `table` can hold too.
fn meets_sorted(run: &[Arc<Table>], table: &Table) -> bool {
    let at = run.partition_point(|other| ends_before(other.meta.upper(), table.meta.lower()));
    run.get(at)
        .is_some_and(|other| other.meta.overlaps(&table.meta))
}
