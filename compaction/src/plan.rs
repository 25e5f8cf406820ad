//! What a compaction is to do, as data: it can be printed, compared and thrown away.
//!
//! Made by `policy`, carried out by `job`. Holds tables and therefore keeps their files.

use std::collections::HashMap;
use std::fmt;

use base::sync::Arc;
use base::{FileNumber, Level};

use crate::levels::{Table, total_bytes};
use crate::range::UserRange;

/// Why a compaction was planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompactionReason {
    /// Level 0 is too deep, or has too many bytes.
    Level0,
    /// A deeper level has outgrown its target, or should have no tables.
    LevelBytes,
    /// Tombstones and hidden versions are to be dropped.
    Garbage,
    /// Nothing is written, and what lies in level 0 can go down cheaply.
    Idle,
    /// Somebody asked for it.
    Manual,
}

impl fmt::Display for CompactionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Level0 => "level 0",
            Self::LevelBytes => "level bytes",
            Self::Garbage => "garbage",
            Self::Idle => "idle",
            Self::Manual => "manual",
        })
    }
}

/// Tables to be merged, and the level their entries go to.
///
/// Invariants, which the policy keeps: no table above the inputs that shares a user key with them
/// holds older entries; `overlapping` is every table of the output level within `range`; nobody
/// else works on any of them or writes to `range` of the output level meanwhile; for a move, to the
/// ranges of its tables; levels that are passed over have nothing within `range`, and nobody writes
/// it there. In place at level 0, every other table there within `range` is newer, or older, than
/// all inputs.
#[derive(Clone)]
pub struct CompactionPlan {
    /// Where `inputs` are.
    pub input_level: Level,
    /// Where the outputs go; `input_level` itself when tables are rewritten in their place.
    pub output_level: Level,
    /// At level 0 newest first, deeper in key order.
    pub inputs: Vec<Arc<Table>>,
    /// Tables of the output level that are merged in, in key order.
    pub overlapping: Vec<Arc<Table>>,
    /// Tables one level deeper than the output, along whose bounds outputs are cut.
    pub grandparents: Vec<Arc<Table>>,
    /// The user keys of inputs and overlapping tables.
    pub range: UserRange,
    /// Why.
    pub reason: CompactionReason,
    /// Whether the inputs just change their level, without any I/O.
    pub is_move: bool,
}

impl CompactionPlan {
    /// Inputs and overlapping tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.inputs.iter().chain(&self.overlapping)
    }

    /// Bytes it reads; for a move, bytes it does not.
    pub fn bytes(&self) -> u64 {
        total_bytes(self.tables())
    }

    /// Whether the inputs are rewritten at their own level.
    pub fn is_in_place(&self) -> bool {
        self.input_level == self.output_level
    }
}

/// As in `compact L1 -> L2 level bytes: 000007 | 000003 000004 | 000001`: inputs, overlapping
/// tables, grandparents.
impl fmt::Display for CompactionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match (self.is_move, self.is_in_place()) {
            (true, _) => "move",
            (false, true) => "rewrite",
            (false, false) => "compact",
        };
        write!(
            f,
            "{verb} {} -> {} {}:",
            self.input_level, self.output_level, self.reason
        )?;
        for (index, tables) in [&self.inputs, &self.overlapping, &self.grandparents]
            .into_iter()
            .enumerate()
        {
            if index > 0 && !tables.is_empty() {
                f.write_str(if index == 1 { " with" } else { " above" })?;
            }
            for table in tables {
                write!(f, " {}", table.meta.number)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CompactionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What running compactions of one keyspace have taken: no second one may touch it.
#[derive(Clone, Debug, Default)]
pub struct InProgress {
    /// The tables, and whether each leaves its level.
    tables: HashMap<FileNumber, bool>,
    plans: Vec<Taken>,
}

/// Where the outputs of one plan will turn up.
#[derive(Clone, Debug)]
struct Taken {
    /// The first input, which no other plan has.
    id: FileNumber,
    level: Level,
    /// One range; for a move one a table, since nothing turns up between them.
    ranges: Vec<UserRange>,
}

impl InProgress {
    /// Takes what `plan` needs.
    ///
    /// # Panics
    /// If another plan has a table of it: two compactions of the same inputs bring back what one of
    /// them dropped.
    pub fn insert(&mut self, plan: &CompactionPlan) {
        let leaving = plan.inputs.iter().map(|table| (table, !plan.is_in_place()));
        let staying = plan.overlapping.iter().map(|table| (table, false));
        for (table, leaves) in leaving.chain(staying) {
            let before = self.tables.insert(table.meta.number, leaves);
            assert!(before.is_none(), "a table is in two compactions at once");
        }
        let ranges = if plan.is_move {
            plan.inputs.iter().map(|table| table.meta.range()).collect()
        } else {
            vec![plan.range.clone()]
        };
        self.plans.push(Taken {
            id: plan_id(plan),
            level: plan.output_level,
            ranges,
        });
    }

    /// Gives back what [`InProgress::insert`] took, whether the plan was carried out or not.
    pub fn remove(&mut self, plan: &CompactionPlan) {
        for table in plan.tables() {
            self.tables.remove(&table.meta.number);
        }
        self.plans.retain(|taken| taken.id != plan_id(plan));
    }

    /// Whether nothing runs.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// How many plans run.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether a running plan reads `table`.
    pub(crate) fn has(&self, table: &Table) -> bool {
        self.tables.contains_key(&table.meta.number)
    }

    /// Whether a running plan reads any of `tables`.
    pub(crate) fn has_any(&self, tables: &[Arc<Table>]) -> bool {
        tables.iter().any(|table| self.has(table))
    }

    /// Whether a running plan takes `table` to a deeper level.
    pub(crate) fn leaves(&self, table: &Table) -> bool {
        self.tables
            .get(&table.meta.number)
            .copied()
            .unwrap_or(false)
    }

    /// Whether a running plan writes to a part of `range` at `level`.
    pub(crate) fn writes_to(&self, level: Level, range: &UserRange) -> bool {
        let here = self.plans.iter().filter(|taken| taken.level == level);
        here.flat_map(|taken| &taken.ranges)
            .any(|taken| taken.overlaps(range))
    }
}

fn plan_id(plan: &CompactionPlan) -> FileNumber {
    plan.inputs
        .first()
        .expect("a plan has an input")
        .meta
        .number
}
