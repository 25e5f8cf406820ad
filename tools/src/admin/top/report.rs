//! `--once`: everything as one page of text.

use super::parts::{activity, facts, first_look, head, keyspaces, levels};
use super::people::Grid;
use super::watch::Watch;
use crate::admin::failure::Outcome;
use crate::admin::output::Output;

/// Tables of the report keep to this; a sentence may be longer.
const WIDTH: usize = 100;

/// Prints what `watch` knows.
pub(super) fn print(watch: &Watch, output: &mut Output<'_>) -> Outcome<()> {
    for (_, line) in head(watch) {
        output.line(&line)?;
    }
    output.line("")?;
    print_grid(activity(watch).as_ref(), output)?;
    if let Some(remark) = first_look(watch) {
        output.line(&remark)?;
    }
    output.line("")?;
    for (_, line) in facts(watch) {
        output.line(&line)?;
    }
    output.line("")?;
    print_grid(keyspaces(watch).as_ref(), output)?;
    output.line("")?;
    print_grid(levels(watch).as_ref(), output)
}

fn print_grid(grid: Option<&Grid>, output: &mut Output<'_>) -> Outcome<()> {
    for line in grid.iter().flat_map(|grid| grid.lines(WIDTH)) {
        output.line(&line)?;
    }
    Ok(())
}
