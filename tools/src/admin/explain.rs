//! `explain`: how a get finds what it finds.

use serde_json::{Value, json};
use siltstone::{GetOutcome, GetPlace, GetStep};

use super::args::{ExplainGet, Global};
use super::failure::Outcome;
use super::output::Output;
use super::session::{Access, bytes_of, keyspace_of, with_database};

pub(crate) fn get(args: &ExplainGet, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let key = bytes_of(&args.key, global)?;
    with_database(&args.db, &args.open, Access::READ, global, |db| {
        let explained = keyspace_of(db, &args.keyspace)?.explain_get(&key)?;
        if output.json {
            let steps: Vec<Value> = explained.steps.iter().map(document).collect();
            let winner = explained.winner();
            let place = explained.steps.iter().position(|step| Some(step) == winner);
            return output.document(&json!({
                "seq": explained.seq.get(),
                "steps": steps,
                "decides": place,
            }));
        }
        for line in explained.to_string().lines() {
            output.line(line)?;
        }
        Ok(())
    })
}

fn document(step: &GetStep) -> Value {
    let mut document = json!({ "place": step.place.to_string() });
    match step.place {
        GetPlace::Table { level, number } => {
            document["level"] = level.index().into();
            document["table"] = number.into();
        }
        GetPlace::Run { level, table_count } => {
            document["level"] = level.index().into();
            document["table_count"] = table_count.into();
        }
        _ => {}
    }
    let outcome = match step.outcome {
        GetOutcome::Value { seq, value_bytes } => {
            document["seq"] = seq.get().into();
            document["value_bytes"] = value_bytes.into();
            "value"
        }
        GetOutcome::Tombstone { seq } => {
            document["seq"] = seq.get().into();
            "tombstone"
        }
        GetOutcome::NotThere { block_count } => {
            document["block_count"] = block_count.into();
            "not_there"
        }
        GetOutcome::FilterDenies => "filter_denies",
        GetOutcome::OutOfBounds => "out_of_bounds",
        GetOutcome::TooNew => "too_new",
        _ => "unknown",
    };
    document["outcome"] = outcome.into();
    document
}
