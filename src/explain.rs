//! What a get does, told step by step: for those who wonder about a value, or about its price.
//!
//! Looks further than a get does, which ends with the first entry that it finds, and counts nothing
//! into the ledger.

use std::fmt;

use base::sync::Arc;
use base::{HashSeed, KeyKind, Level, Result, SequenceNumber};
use compaction::{Table, Version};
use memtable::Memtable;
use sstable::ReadProbe;

use crate::superversion::Superversion;

/// How a get of one key goes, newest place first; from `explain_get`.
///
/// Shown as text by `Display`.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// use siltstone::{GetOutcome, GetPlace};
/// db.put("key", "old")?;
/// db.flush()?;
/// db.delete("key")?;
/// let explained = db.explain_get("key")?;
/// let winner = explained.winner().expect("a tombstone is an entry");
/// assert_eq!(winner.place, GetPlace::ActiveMemtable);
/// assert!(matches!(winner.outcome, GetOutcome::Tombstone { .. }));
/// let older = explained.steps.last().expect("there is a table");
/// assert!(matches!(older.outcome, GetOutcome::Value { value_bytes: 3, .. }));
/// println!("{explained}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetExplanation {
    /// Entries up to this number were looked at.
    pub seq: SequenceNumber,
    /// Every memtable, and of each sorted run of tables the one that can hold the key.
    pub steps: Vec<GetStep>,
}

/// One place where a get looks, or does not.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let steps = db.explain_get("key")?.steps;
/// assert_eq!(steps[0].outcome, siltstone::GetOutcome::NotThere { block_count: 0 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetStep {
    /// Where.
    pub place: GetPlace,
    /// What came of it.
    pub outcome: GetOutcome,
}

/// A place that can hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetPlace {
    /// The memtable that takes writes.
    ActiveMemtable,
    /// A memtable that waits for its flush; the newest is 0.
    SealedMemtable {
        /// How many newer ones there are.
        index: usize,
    },
    /// The table of this number.
    Table {
        /// Its level.
        level: Level,
        /// Stands in its name.
        number: u64,
    },
    /// A sorted run none of whose tables can hold the key.
    Run {
        /// Its level; level 0 may have several runs.
        level: Level,
        /// How many tables it has.
        table_count: usize,
    },
}

/// What came of looking at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetOutcome {
    /// It has a value. The newest such place decides.
    Value {
        /// When it was written.
        seq: SequenceNumber,
        /// How long it is.
        value_bytes: usize,
    },
    /// It says that the key is gone. The newest such place decides.
    Tombstone {
        /// When it was deleted.
        seq: SequenceNumber,
    },
    /// It was searched and has nothing that is visible; of a table, although its filter let the
    /// key pass, if it has one.
    NotThere {
        /// How many data blocks were read for that.
        block_count: u32,
    },
    /// Its filter says that the key is not in it: no block was read.
    FilterDenies,
    /// The key lies outside the bounds of every table.
    OutOfBounds,
    /// Everything in it is newer than what may be seen.
    TooNew,
}

impl GetOutcome {
    fn is_entry(self) -> bool {
        matches!(self, Self::Value { .. } | Self::Tombstone { .. })
    }
}

impl GetExplanation {
    /// The step whose entry a get returns; `None` if there is no entry for the key.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// assert_eq!(db.explain_get("never there")?.winner(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn winner(&self) -> Option<&GetStep> {
        self.steps.iter().find(|step| step.outcome.is_entry())
    }
}

impl fmt::Display for GetPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActiveMemtable => f.write_str("active memtable"),
            Self::SealedMemtable { index } => write!(f, "sealed memtable {index}"),
            Self::Table { level, number } => write!(f, "{level} table {number:06}"),
            Self::Run { level, table_count } => write!(f, "{level}, {table_count} tables"),
        }
    }
}

impl fmt::Display for GetOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { seq, value_bytes } => {
                write!(f, "value of {value_bytes} bytes, seq {seq}")
            }
            Self::Tombstone { seq } => write!(f, "tombstone, seq {seq}"),
            Self::NotThere { block_count: 0 } => f.write_str("not there"),
            Self::NotThere { block_count } => write!(f, "not there, {block_count} blocks read"),
            Self::FilterDenies => f.write_str("skipped: its filter denies the key"),
            Self::OutOfBounds => f.write_str("skipped: out of the bounds of all"),
            Self::TooNew => f.write_str("skipped: all in it is too new"),
        }
    }
}

impl fmt::Display for GetExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_decided = false;
        for GetStep { place, outcome } in &self.steps {
            write!(f, "{:<22}{outcome}", place.to_string())?;
            match (outcome.is_entry(), is_decided) {
                (true, false) => f.write_str("  <- decides")?,
                (true, true) => f.write_str("  (hidden by a newer one)")?,
                (false, _) => {}
            }
            is_decided |= outcome.is_entry();
            writeln!(f)?;
        }
        if is_decided {
            return Ok(());
        }
        writeln!(f, "nobody has an entry: there is no such key")
    }
}

/// Looks for `key` everywhere in `view`.
///
/// # Errors
/// If a table cannot be read or is damaged.
pub(crate) fn explain(
    view: &Superversion,
    key: &[u8],
    hash_seed: HashSeed,
    seq: SequenceNumber,
) -> Result<GetExplanation> {
    let look = Look {
        key,
        hash_seed,
        seq,
    };
    let mut steps = vec![GetStep {
        place: GetPlace::ActiveMemtable,
        outcome: look.in_memtable(&view.active),
    }];
    for (index, sealed) in view.sealed.iter().enumerate() {
        steps.push(GetStep {
            place: GetPlace::SealedMemtable { index },
            outcome: look.in_memtable(&sealed.memtable),
        });
    }
    look.in_version(&view.version, &mut steps)?;
    Ok(GetExplanation { seq, steps })
}

struct Look<'a> {
    key: &'a [u8],
    hash_seed: HashSeed,
    seq: SequenceNumber,
}

impl Look<'_> {
    fn outcome(kind: KeyKind, seq: SequenceNumber, value: &[u8]) -> GetOutcome {
        match kind {
            KeyKind::Put => GetOutcome::Value {
                seq,
                value_bytes: value.len(),
            },
            KeyKind::Delete => GetOutcome::Tombstone { seq },
        }
    }

    fn in_memtable(&self, memtable: &Arc<Memtable>) -> GetOutcome {
        let hash = self.hash_seed.hash(self.key);
        match memtable.get(self.key, hash, self.seq) {
            Some(hit) => Self::outcome(hit.kind, hit.seq, hit.value),
            None => GetOutcome::NotThere { block_count: 0 },
        }
    }

    fn in_version(&self, version: &Version, steps: &mut Vec<GetStep>) -> Result<()> {
        for run in version.sublevels() {
            let table_count = run.len();
            self.in_run(Level::ZERO, table_count, run.find(self.key), steps)?;
        }
        for level in Level::all().skip(1) {
            let table_count = version.level(level).len();
            if table_count > 0 {
                self.in_run(level, table_count, version.find(level, self.key), steps)?;
            }
        }
        Ok(())
    }

    fn in_run(
        &self,
        level: Level,
        table_count: usize,
        table: Option<&Arc<Table>>,
        steps: &mut Vec<GetStep>,
    ) -> Result<()> {
        let step = match table {
            None => GetStep {
                place: GetPlace::Run { level, table_count },
                outcome: GetOutcome::OutOfBounds,
            },
            Some(table) => GetStep {
                place: GetPlace::Table {
                    level,
                    number: table.meta.number.0,
                },
                outcome: self.in_table(table)?,
            },
        };
        steps.push(step);
        Ok(())
    }

    fn in_table(&self, table: &Table) -> Result<GetOutcome> {
        if table.meta.seq_smallest > self.seq {
            return Ok(GetOutcome::TooNew);
        }
        let reader = table.handle().guard()?;
        let hash = reader.hash_seed().hash(self.key);
        let mut probe = ReadProbe::default();
        Ok(match reader.get(self.key, hash, self.seq, &mut probe)? {
            Some(hit) => Self::outcome(hit.kind, hit.seq, hit.value()),
            None if probe.filter_negatives > 0 => GetOutcome::FilterDenies,
            None => GetOutcome::NotThere {
                block_count: probe.data_blocks,
            },
        })
    }
}
