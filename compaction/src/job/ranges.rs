//! Splits a plan into ranges of user keys that can be worked on side by side.

use base::error::Result;
use base::sync::Arc;
use sstable::ScanMode;

use crate::levels::Table;
use crate::plan::CompactionPlan;
use crate::run::LevelCursor;

/// The user keys from `from` on and before `to`; an end that is `None` is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeySpan {
    pub(super) from: Option<Vec<u8>>,
    pub(super) to: Option<Vec<u8>>,
}

impl KeySpan {
    /// Those of `tables`, which are in key order, that can hold a key of the span.
    pub(super) fn tables<'a>(&self, tables: &'a [Arc<Table>]) -> &'a [Arc<Table>] {
        let start = tables.partition_point(|table| self.begins_after(table));
        let rest = &tables[start..];
        &rest[..rest.partition_point(|table| !self.ends_before(table))]
    }

    fn begins_after(&self, table: &Table) -> bool {
        self.from
            .as_ref()
            .is_some_and(|from| table.meta.ends_before_key(from))
    }

    fn ends_before(&self, table: &Table) -> bool {
        self.to
            .as_ref()
            .is_some_and(|to| table.meta.smallest.user_key >= *to)
    }
}

/// Below this many output tables splitting gains little and leaves small tables.
const SPLIT_TABLES_MIN: u64 = 2;
/// The cuts are chosen among so many keys a range.
const ANCHORS_PER_RANGE: u64 = 8;

/// At most `width` spans of about equal bytes that together hold every key.
///
/// # Errors
/// If the index of an input cannot be read.
pub(super) fn split(
    plan: &CompactionPlan,
    width: usize,
    table_bytes_target: u64,
) -> Result<Vec<KeySpan>> {
    let total = plan.bytes();
    let table_count = total / table_bytes_target.max(1);
    if width < 2 || table_count < SPLIT_TABLES_MIN {
        return Ok(vec![KeySpan::default()]);
    }
    let range_count = table_count.min(width as u64);
    let mut pieces = pieces(plan, total / (range_count * ANCHORS_PER_RANGE))?;
    pieces.sort_unstable();
    let mut cuts: Vec<Vec<u8>> = Vec::new();
    let mut before = 0u64;
    for (key, bytes) in pieces {
        let quota = total / range_count * (cuts.len() as u64 + 1);
        let is_new = cuts.last().is_none_or(|cut| *cut < key) && key > plan.range.from;
        if before >= quota && is_new && (cuts.len() as u64) < range_count - 1 {
            cuts.push(key);
        }
        before = before.saturating_add(bytes);
    }
    Ok(spans_between(cuts))
}

/// Keys at which the inputs can be cut, each with the bytes that begin there.
fn pieces(plan: &CompactionPlan, piece_bytes: u64) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut pieces = Vec::new();
    for table in plan.tables() {
        let count = table.meta.file_bytes / piece_bytes.max(1);
        // At most all pieces of all tables: ranges times anchors, plus one a table.
        let anchors = match usize::try_from(count) {
            Ok(count) if count > 0 => table.glance(|reader| reader.anchors(count))??,
            _ => Vec::new(),
        };
        let bytes = table.meta.file_bytes / (anchors.len() as u64 + 1);
        pieces.push((table.meta.smallest.user_key.clone(), bytes));
        pieces.extend(anchors.into_iter().map(|key| (key, bytes)));
    }
    Ok(pieces)
}

fn spans_between(cuts: Vec<Vec<u8>>) -> Vec<KeySpan> {
    let mut spans = Vec::with_capacity(cuts.len() + 1);
    let mut from = None;
    for cut in cuts {
        spans.push(KeySpan {
            from,
            to: Some(cut.clone()),
        });
        from = Some(cut);
    }
    spans.push(KeySpan { from, to: None });
    spans
}

/// The runs of `plan` within `span`, newest first: what level 0 gives, then the input level, then
/// the output level. Together they read `ahead_bytes` ahead.
pub(super) fn cursors(
    plan: &CompactionPlan,
    span: &KeySpan,
    ahead_bytes: usize,
) -> Vec<LevelCursor> {
    let inputs = if plan.input_level == base::Level::ZERO {
        level0_runs(&plan.inputs)
    } else {
        vec![plan.inputs.clone()]
    };
    let runs: Vec<_> = inputs
        .iter()
        .chain([&plan.overlapping])
        .map(|tables| span.tables(tables))
        .filter(|tables| !tables.is_empty())
        .collect();
    let share = ahead_bytes / runs.len().max(1);
    runs.into_iter()
        .map(|tables| LevelCursor::new(tables, ScanMode::Bulk).read_ahead(share))
        .collect()
}

/// As few sorted runs as possible of `tables`, which are of level 0 and newest first; the newest
/// run first. A table lies in a newer run than every older one it shares a key with.
///
/// So tables side by side are read one after the other, however many there are.
fn level0_runs(tables: &[Arc<Table>]) -> Vec<Vec<Arc<Table>>> {
    let mut runs: Vec<Vec<Arc<Table>>> = Vec::new();
    for table in tables.iter().rev() {
        let overlaps = |run: &Vec<Arc<Table>>| run.iter().any(|t| t.meta.overlaps(&table.meta));
        let at = runs.iter().rposition(overlaps).map_or(0, |below| below + 1);
        if at == runs.len() {
            runs.push(Vec::new());
        }
        runs[at].push(Arc::clone(table));
    }
    for run in &mut runs {
        run.sort_unstable_by(|a, b| a.meta.smallest.user_key.cmp(&b.meta.smallest.user_key));
    }
    runs.reverse();
    runs
}
