//! Several point reads at once: each stage is done for all keys before the next begins, so that the
//! waits for memory of one key overlap with those of the others.
//!
//! A stage reads only what the one before has asked for, and takes no guard: the processor finishes
//! all loads before the atomic exchange in one, and would wait for each key by itself.

use std::ops::Range;

use base::sync::Arc;
use base::{Level, Result, Slice};
use compaction::Table;
use sstable::{BlockAim, BlockPlace, BlockSearch, BlockSpot, TableReader};

use super::{Found, Lookup, note_in_table};

/// Among so many tables the one of a key is looked for: beyond that, opening it again is cheaper.
const SOUGHT_COUNT: usize = 32;

/// So many tables are kept open for a group at most, in each thread that reads one: they come on
/// top of what the database keeps open. Keys of further tables are looked for one by one.
const READER_COUNT_MAX: usize = 64;

/// The tables that the keys of a group are looked for in, mostly once each.
struct Readers<'a> {
    open: Vec<(&'a Arc<Table>, Arc<TableReader>)>,
}

impl<'a> Readers<'a> {
    /// The number of `table` among those that are open. `None` if there are too many, or if it
    /// cannot be opened: whoever has to search it says why.
    #[inline]
    fn number(&mut self, table: &'a Arc<Table>) -> Option<usize> {
        let is_it = |(other, _): &(&Arc<Table>, _)| Arc::ptr_eq(other, table);
        let from = self.open.len().saturating_sub(SOUGHT_COUNT);
        if let Some(at) = self.open[from..].iter().position(is_it) {
            return Some(from + at);
        }
        if self.open.len() == READER_COUNT_MAX {
            return None;
        }
        self.open.push((table, table.handle().reader().ok()?));
        Some(self.open.len() - 1)
    }

    #[inline]
    fn get(&self, number: usize) -> &Arc<TableReader> {
        &self.open[number].1
    }
}

/// A table whose range holds the key of a step.
struct Candidate {
    level: Level,
    /// Its number in [`Readers`], if it is there.
    reader: Option<usize>,
}

/// How far a key is that no memtable has.
enum Stage<'a> {
    /// The next table to look at is not open: it is looked for by itself, once no other is.
    Alone,
    /// No table has it, or [`TableReader::settle`] found no block.
    Nowhere,
    Aimed(BlockAim<'a>),
    Settled(usize),
    Placed(BlockPlace),
    Spotted(BlockPlace, BlockSpot<'a>),
}

/// A key that no memtable has, on its way through the stages.
struct Step<'a> {
    lookup: &'a Lookup<'a>,
    /// Which of the values is its.
    slot: usize,
    /// Which of the candidates of all keys are its.
    candidates: Range<usize>,
    /// How many of them were looked at.
    table_count: usize,
    /// The last of these, if its filter lets the key pass.
    table: Option<(Level, usize)>,
    stage: Stage<'a>,
}

/// Appends the value of each lookup to `values`, in their order.
///
/// The lookups are of one view, and few enough that what is fetched for one is still in the cache
/// when the others have had their turn. A key that the first table whose filter it passes does not
/// have goes on by itself: that is one in a hundred.
///
/// # Errors
/// As [`Lookup::run`]; the first error ends it.
pub(crate) fn run_group(lookups: &[Lookup<'_>], values: &mut Vec<Option<Slice>>) -> Result<()> {
    let first = values.len();
    values.resize(first + lookups.len(), None);
    let values = &mut values[first..];
    let mut steps = in_memtables(lookups, values);
    let mut readers = Readers {
        open: Vec::with_capacity(SOUGHT_COUNT),
    };
    let candidates = find_candidates(&mut steps, &mut readers);
    for step in &mut steps {
        choose_table(step, &candidates, &readers)?;
    }
    for step in &mut steps {
        settle(step, &readers)?;
    }
    for step in &steps {
        if let (Some((_, number)), Stage::Settled(at)) = (step.table, &step.stage) {
            readers.get(number).prefetch_place(*at)?;
        }
    }
    for step in &mut steps {
        place(step, &readers)?;
    }
    for step in &mut steps {
        spot(step, &readers);
    }
    let mut alone = Vec::new();
    for step in &steps {
        if matches!(step.stage, Stage::Alone) {
            alone.push((step.lookup, step.slot, step.table_count));
            continue;
        }
        values[step.slot] = search(step, &readers)?;
    }
    drop(steps);
    drop(readers);
    for (lookup, slot, done_count) in alone {
        values[slot] = lookup.in_tables_behind(done_count, |found| found.pin())?;
    }
    Ok(())
}

/// What the memtables have goes to `values`; the others remain to be done.
fn in_memtables<'a>(lookups: &'a [Lookup<'a>], values: &mut [Option<Slice>]) -> Vec<Step<'a>> {
    for lookup in lookups {
        lookup.view.active.prefetch_filter(lookup.hash);
        for sealed in &lookup.view.sealed {
            sealed.memtable.prefetch_filter(lookup.hash);
        }
    }
    let mut steps = Vec::with_capacity(lookups.len());
    for (slot, lookup) in lookups.iter().enumerate() {
        let Some((memtable, hit)) = lookup.in_memtables() else {
            steps.push(Step {
                lookup,
                slot,
                candidates: 0..0,
                table_count: 0,
                table: None,
                stage: Stage::Nowhere,
            });
            continue;
        };
        let is_put = lookup.note_in_memtable(memtable, &hit);
        values[slot] = is_put.then(|| Found::Memtable(memtable, &hit).pin());
    }
    steps
}

/// The tables to look at; asks for the lines of their filters.
fn find_candidates<'a>(steps: &mut [Step<'a>], readers: &mut Readers<'a>) -> Vec<Candidate> {
    let mut candidates = Vec::with_capacity(steps.len());
    for step in steps {
        let lookup = step.lookup;
        let from = candidates.len();
        for (level, table) in lookup.candidates() {
            let reader = readers.number(table);
            if let Some(number) = reader {
                let reader = readers.get(number);
                reader.prefetch_filter(lookup.hash_for(reader));
            }
            candidates.push(Candidate { level, reader });
        }
        step.candidates = from..candidates.len();
    }
    candidates
}

/// Asks the filters; begins to search the index of the first table that may have the key.
#[inline]
fn choose_table(
    step: &mut Step<'_>,
    candidates: &[Candidate],
    readers: &Readers<'_>,
) -> Result<()> {
    let lookup = step.lookup;
    for candidate in &candidates[step.candidates.clone()] {
        let Some(number) = candidate.reader else {
            step.stage = Stage::Alone;
            return Ok(());
        };
        step.table_count += 1;
        let reader = readers.get(number);
        if reader.passes_filter(lookup.hash_for(reader))? {
            step.table = Some((candidate.level, number));
            step.stage = Stage::Aimed(reader.aim(lookup.key)?);
            break;
        }
        lookup.ledger.tally().add_denied(candidate.level);
    }
    Ok(())
}

#[inline]
fn settle(step: &mut Step<'_>, readers: &Readers<'_>) -> Result<()> {
    if let (Some((_, number)), Stage::Aimed(aim)) = (step.table, &step.stage) {
        let at = readers.get(number).settle(aim, step.lookup.seq)?;
        step.stage = at.map_or(Stage::Nowhere, Stage::Settled);
    }
    Ok(())
}

#[inline]
fn place(step: &mut Step<'_>, readers: &Readers<'_>) -> Result<()> {
    if let (Some((_, number)), Stage::Settled(at)) = (step.table, &step.stage) {
        step.stage = Stage::Placed(readers.get(number).place_of(*at)?);
    }
    Ok(())
}

#[inline]
fn spot(step: &mut Step<'_>, readers: &Readers<'_>) {
    if let (Some((_, number)), Stage::Placed(place)) = (step.table, &step.stage)
        && let Some(spot) = readers.get(number).spot(*place, step.lookup.key)
    {
        step.stage = Stage::Spotted(*place, spot);
    }
}

#[inline]
fn search(step: &Step<'_>, readers: &Readers<'_>) -> Result<Option<Slice>> {
    let lookup = step.lookup;
    let tally = lookup.ledger.tally();
    let Some((level, number)) = step.table else {
        tally.add_absent();
        return Ok(None);
    };
    let reader = readers.get(number);
    let found = match &step.stage {
        Stage::Spotted(place, spot) => Some(reader.get_at(*place, spot, lookup.seq)?),
        Stage::Placed(place) => Some(reader.get_in(*place, lookup.key, lookup.seq)?),
        Stage::Nowhere | Stage::Alone | Stage::Aimed(_) | Stage::Settled(_) => None,
    };
    let block = match found {
        Some(BlockSearch::Found(hit)) => {
            let is_put = note_in_table(tally, level, &hit);
            return Ok(is_put.then(|| Found::Table(reader, &hit).pin()));
        }
        Some(BlockSearch::Absent(block)) => Some(block),
        None => None,
    };
    tally.add_vain(level, reader.has_filter(), block);
    lookup.in_tables_behind(step.table_count, |found| found.pin())
}
