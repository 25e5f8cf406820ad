//! The immutable picture of a keyspace's tree, and the one function that makes a new one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Bound;

use base::error::Result;
use base::sync::Arc;
use base::{FileNumber, Level};
use sstable::ScanMode;

use super::{LevelTables, Run, Table, TableMeta, misfit};
use crate::edit::KeyspaceEdit;
use crate::run::LevelCursor;

/// Which tables form which level of one keyspace. Immutable; cloning shares the levels.
///
/// Invariants, checked whenever one is made: the tables of a level from 1 on are sorted and no user
/// key can lie in two of them; level 0 is ordered from newest to oldest and tables there overlap
/// only if all entries of one are newer than all of the other; no number appears twice.
#[derive(Clone, Debug)]
pub struct Version {
    levels: [Arc<LevelTables>; Level::COUNT],
    /// What [`Version::runs`] gives, so that reads do not ask the empty levels.
    runs: Arc<[(Level, Run)]>,
}

impl Default for Version {
    fn default() -> Self {
        Self::empty()
    }
}

impl Version {
    /// A tree without tables.
    pub fn empty() -> Self {
        let none = Arc::new(LevelTables::default());
        Self::of(std::array::from_fn(|_| Arc::clone(&none)))
    }

    fn of(levels: [Arc<LevelTables>; Level::COUNT]) -> Self {
        let level0 = levels[0].sublevels().iter();
        let level0 = level0.map(|run| (Level::ZERO, Arc::clone(run)));
        let deeper = Level::all().zip(&levels).skip(1);
        let deeper = deeper.filter(|(_, tables)| !tables.is_empty());
        let deeper = deeper.map(|(level, tables)| (level, Arc::clone(tables)));
        let runs = level0.chain(deeper).collect();
        Self { levels, runs }
    }

    /// The sorted runs in which a read may have to look, newest first: the sub-levels of level 0,
    /// then each deeper level that has tables.
    #[inline]
    pub fn runs(&self) -> &[(Level, Run)] {
        &self.runs
    }

    /// The tables of `level`: at level 0 newest first, deeper in key order.
    #[inline]
    pub fn level(&self, level: Level) -> &[Arc<Table>] {
        &self.levels[level.index()]
    }

    /// The same as something that can be shared; a cursor keeps the whole level with one reference.
    #[inline]
    pub fn level_tables(&self, level: Level) -> &Arc<LevelTables> {
        &self.levels[level.index()]
    }

    /// Level 0 as sorted runs, newest first: see [`LevelTables::sublevels`].
    #[inline]
    pub fn sublevels(&self) -> &[Run] {
        self.levels[0].sublevels()
    }

    /// In how many tables of level 0 a read may have to look: the number of its sub-levels.
    #[inline]
    pub fn level0_depth(&self) -> usize {
        self.sublevels().len()
    }

    /// The table of `level` that can hold `user_key`.
    ///
    /// Costs one binary search over an array of numbers.
    ///
    /// # Panics
    /// At level 0, where several can: walk [`Version::level`] instead.
    #[inline]
    pub fn find(&self, level: Level, user_key: &[u8]) -> Option<&Arc<Table>> {
        assert!(level != Level::ZERO, "level 0 is not sorted by key");
        self.levels[level.index()].find(user_key)
    }

    /// The tables of `level` that can hold a key of the range, in order.
    ///
    /// # Panics
    /// At level 0, where they need not lie side by side.
    pub fn overlapping(&self, level: Level, from: Bound<&[u8]>, to: Bound<&[u8]>) -> &[Arc<Table>] {
        assert!(level != Level::ZERO, "level 0 is not sorted by key");
        self.levels[level.index()].overlapping(from, to)
    }

    /// A cursor over a whole level from 1 on, without copying the list of its tables.
    ///
    /// # Panics
    /// At level 0, which is not one sorted run.
    pub fn cursor(&self, level: Level, scan: ScanMode) -> LevelCursor {
        assert!(level != Level::ZERO, "level 0 is not one sorted run");
        LevelCursor::of_run(Arc::clone(&self.levels[level.index()]), scan)
    }

    /// The deepest level with a table.
    pub fn deepest_used(&self) -> Option<Level> {
        Level::all()
            .rev()
            .find(|level| !self.level(*level).is_empty())
    }

    /// Whether a table below `level` can hold a key of the range.
    pub fn has_deeper(&self, level: Level, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
        Level::all()
            .skip(level.index() + 1)
            .any(|deeper| !self.overlapping(deeper, from, to).is_empty())
    }

    /// The sum of the file sizes at `level`.
    pub fn level_bytes(&self, level: Level) -> u64 {
        self.levels[level.index()].bytes()
    }

    /// How many tables there are.
    pub fn table_count(&self) -> usize {
        self.levels.iter().map(|tables| tables.len()).sum()
    }

    /// All tables, from the top level down.
    pub fn tables(&self) -> impl Iterator<Item = (Level, &Arc<Table>)> {
        Level::all().flat_map(|level| self.level(level).iter().map(move |table| (level, table)))
    }

    /// The tree after `edit`. Removals come first; a table that is removed and added again with the
    /// same meta has moved and stays the same [`Table`]; `make` makes the others.
    ///
    /// # Errors
    /// `Corruption` if the edit removes what is not there or the result breaks an invariant;
    /// `Unsupported` if it adds a table of a later version. This version stays as it is.
    pub fn apply(
        &self,
        edit: &KeyspaceEdit,
        make: &mut dyn FnMut(TableMeta) -> Arc<Table>,
    ) -> Result<Self> {
        let mut removed = self.find_removed(edit)?;
        let mut changed: [Option<Vec<Arc<Table>>>; Level::COUNT] = Default::default();
        for (level, _) in &edit.removed {
            changed[level.index()].get_or_insert_with(|| {
                self.level(*level)
                    .iter()
                    .filter(|table| !is_removed(&removed, *level, table.meta.number))
                    .cloned()
                    .collect()
            });
        }
        for (level, meta) in &edit.added {
            meta.check()?;
            let table = match removed.get_mut(&meta.number) {
                Some(gone) if !gone.moved && gone.table.meta == *meta => {
                    gone.moved = true;
                    Arc::clone(&gone.table)
                }
                Some(_) => return Err(misfit("number used again", meta.number)),
                None if self.levels.iter().any(|tables| tables.has(meta.number)) => {
                    return Err(misfit("number is taken", meta.number));
                }
                None => make(meta.clone()),
            };
            assert!(table.meta == *meta, "the caller made another table");
            changed[level.index()]
                .get_or_insert_with(|| self.level(*level).to_vec())
                .push(table);
        }
        check_added_once(edit)?;
        let mut levels = self.levels.clone();
        for (level, tables) in Level::all().zip(changed) {
            if let Some(tables) = tables {
                levels[level.index()] = Arc::new(LevelTables::new(level, tables)?);
            }
        }
        Ok(Self::of(levels))
    }

    /// The tables that `edit` takes out of this version for good; those that move are not among
    /// them. The caller marks them obsolete once the edit is durable.
    pub fn obsoleted_by(&self, edit: &KeyspaceEdit) -> Vec<Arc<Table>> {
        let mut gone = Vec::new();
        for (level, number) in &edit.removed {
            if edit.added.iter().any(|(_, meta)| meta.number == *number) {
                continue;
            }
            let table = self
                .level(*level)
                .iter()
                .find(|table| table.meta.number == *number);
            gone.extend(table.cloned());
        }
        gone
    }

    fn find_removed(&self, edit: &KeyspaceEdit) -> Result<HashMap<FileNumber, Removed>> {
        let mut found = HashMap::with_capacity(edit.removed.len());
        for (level, number) in &edit.removed {
            if !self.levels[level.index()].has(*number) {
                return Err(
                    misfit("removed table is not there", *number).with_value("level", level)
                );
            }
            let table = self
                .level(*level)
                .iter()
                .find(|table| table.meta.number == *number);
            let table = Arc::clone(table.expect("its number is in the level"));
            if found
                .insert(
                    *number,
                    Removed {
                        level: *level,
                        table,
                        moved: false,
                    },
                )
                .is_some()
            {
                return Err(misfit("table removed twice", *number));
            }
        }
        Ok(found)
    }

    /// Checks every invariant anew, from nothing but the tables.
    ///
    /// # Errors
    /// `Corruption`, naming the table at fault.
    pub fn check(&self) -> Result<()> {
        let mut numbers = Vec::with_capacity(self.table_count());
        for level in Level::all() {
            let tables = self.level(level);
            for table in tables {
                table.meta.check()?;
                numbers.push(table.meta.number);
            }
            let sorted = LevelTables::new(level, tables.to_vec())?;
            let pairs = sorted.iter().zip(tables);
            if let Some((_, table)) = pairs.into_iter().find(|(a, b)| !Arc::ptr_eq(a, b)) {
                return Err(misfit("level is not in order", table.meta.number));
            }
        }
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(misfit("number is there twice", twice[0])),
            None => Ok(()),
        }
    }

    /// The tree as text, one table a line: `L1: 000007 [a#10,PUT .. b#11,DEL]`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (level, table) in self.tables() {
            writeln!(text, "{level}: {}", table.meta).expect("writing to a String cannot fail");
        }
        text
    }
}

struct Removed {
    level: Level,
    table: Arc<Table>,
    moved: bool,
}

fn is_removed(removed: &HashMap<FileNumber, Removed>, level: Level, number: FileNumber) -> bool {
    removed.get(&number).is_some_and(|gone| gone.level == level)
}

/// A level checks its own numbers; this sees one that is added to two levels at once.
fn check_added_once(edit: &KeyspaceEdit) -> Result<()> {
    let mut numbers: Vec<_> = edit.added.iter().map(|(_, meta)| meta.number).collect();
    numbers.sort_unstable();
    match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(misfit("number added twice", twice[0])),
        None => Ok(()),
    }
}
