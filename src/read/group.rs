//! Several point reads at once: each stage is done for all keys before the next begins, so that the
//! waits for memory of one key overlap with those of the others.

use base::sync::Arc;
use base::{Level, Result, Slice};
use compaction::Table;
use sstable::{BlockPlace, BlockSearch};

use super::{Found, Lookup, note_in_table};

/// A key that no memtable has, on its way through the stages.
struct Step<'a> {
    lookup: &'a Lookup<'a>,
    /// Which of the values is its.
    slot: usize,
    /// The first table whose filter lets it pass.
    table: Option<(Level, &'a Arc<Table>)>,
    /// How many candidates were looked at, that table included.
    table_count: usize,
    place: Option<BlockPlace>,
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
    for step in &steps {
        prefetch_filters(step.lookup);
    }
    for step in &mut steps {
        choose_table(step)?;
    }
    for step in &mut steps {
        locate_block(step)?;
    }
    for step in &steps {
        if let (Some((_, table)), Some(place)) = (step.table, step.place) {
            let reader = table.handle().guard()?;
            reader.prefetch_entry(place, step.lookup.key);
        }
    }
    for step in &steps {
        values[step.slot] = search(step)?;
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
                table: None,
                table_count: 0,
                place: None,
            });
            continue;
        };
        let is_put = lookup.note_in_memtable(memtable, &hit);
        values[slot] = is_put.then(|| Found::Memtable(memtable, &hit).pin());
    }
    steps
}

fn prefetch_filters(lookup: &Lookup<'_>) {
    for (_, table) in lookup.candidates() {
        // A table above it may have the key. Whoever has to search this one says what is wrong.
        if let Ok(reader) = table.handle().guard() {
            reader.prefetch_filter(lookup.hash_for(&reader));
        }
    }
}

fn choose_table(step: &mut Step<'_>) -> Result<()> {
    let lookup = step.lookup;
    for (level, table) in lookup.candidates() {
        step.table_count += 1;
        let reader = table.handle().guard()?;
        if reader.passes_filter(lookup.hash_for(&reader))? {
            step.table = Some((level, table));
            break;
        }
        lookup.ledger.tally().add_denied(level);
    }
    Ok(())
}

fn locate_block(step: &mut Step<'_>) -> Result<()> {
    if let Some((_, table)) = step.table {
        let (key, seq) = (step.lookup.key, step.lookup.seq);
        let reader = table.handle().guard()?;
        step.place = reader.locate(key, seq)?;
        if let Some(place) = step.place {
            reader.prefetch_block(place);
        }
    }
    Ok(())
}

fn search(step: &Step<'_>) -> Result<Option<Slice>> {
    let lookup = step.lookup;
    let tally = lookup.ledger.tally();
    let Some((level, table)) = step.table else {
        tally.add_absent();
        return Ok(None);
    };
    let reader = table.handle().guard()?;
    let block = match step.place {
        None => None,
        Some(place) => match reader.get_in(place, lookup.key, lookup.seq)? {
            BlockSearch::Absent(block) => Some(block),
            BlockSearch::Found(hit) => {
                let is_put = note_in_table(tally, level, &hit);
                return Ok(is_put.then(|| Found::Table(&reader, &hit).pin()));
            }
        },
    };
    tally.add_vain(level, reader.has_filter(), block);
    lookup.in_tables_behind(step.table_count, |found| found.pin())
}
