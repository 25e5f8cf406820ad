//! What all turns measured, and the document of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::measured::Measured;
use super::plan::{Group, Row};
use super::table::Table;
use crate::bench::args::Args;
use crate::bench::engine::EngineName;

/// What an engine was opened with: names and values.
pub(crate) type Settings = Vec<(String, String)>;

/// What all turns measured.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    engines: Vec<EngineName>,
    rows: Vec<Row>,
    repeats: usize,
    /// By row and engine, one for each repeat.
    turns: BTreeMap<(String, &'static str), Vec<Measured>>,
    settings: Vec<(EngineName, Settings)>,
}

impl Results {
    /// Nothing measured yet.
    pub(crate) fn new(engines: Vec<EngineName>, groups: &[Group], repeats: usize) -> Self {
        Self {
            engines,
            rows: groups.iter().flat_map(|g| g.rows.clone()).collect(),
            repeats,
            turns: BTreeMap::new(),
            settings: Vec::new(),
        }
    }

    /// The engines that were asked for, in that order.
    pub(crate) fn engines(&self) -> &[EngineName] {
        &self.engines
    }

    /// Every row of the plan.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How often each row was to run.
    pub(crate) fn repeats(&self) -> usize {
        self.repeats
    }

    /// What each engine was opened with.
    pub(crate) fn settings(&self) -> &[(EngineName, Settings)] {
        &self.settings
    }

    /// Notes what an engine was opened with, the first time.
    pub(crate) fn add_settings(&mut self, engine: EngineName, settings: &[(String, String)]) {
        if self.settings.iter().all(|(known, _)| *known != engine) {
            self.settings.push((engine, settings.to_vec()));
        }
    }

    /// Notes a turn.
    pub(crate) fn add(&mut self, row: &Row, engine: EngineName, measured: Measured) {
        let key = (row.label.clone(), engine.name());
        self.turns.entry(key).or_default().push(measured);
    }

    /// The turns of an engine at the row called `label`.
    pub(crate) fn turns(&self, label: &str, engine: EngineName) -> &[Measured] {
        let key = (label.to_owned(), engine.name());
        self.turns.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The median over the repeats of what `figure` takes from a turn; `None` without a turn.
    pub(crate) fn median(
        &self,
        label: &str,
        engine: EngineName,
        figure: impl Fn(&Measured) -> f64,
    ) -> Option<f64> {
        median(self.turns(label, engine).iter().map(figure).collect())
    }
}

/// The middle of `figures`, or the mean of the two in the middle.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2)?;
    if figures.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = figures.get(figures.len() / 2 - 1)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Everything, for programs.
pub(crate) fn document(
    results: &Results,
    args: &Args,
    table: &Table,
    is_interrupted: bool,
) -> Value {
    let mut settings = Map::new();
    for (engine, pairs) in results.settings() {
        let pairs: Map<String, Value> = pairs
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        settings.insert(engine.name().to_owned(), Value::Object(pairs));
    }
    let names: Vec<_> = results.engines().iter().map(|e| e.name()).collect();
    json!({
        "siltstone": env!("CARGO_PKG_VERSION"),
        "engines": names,
        "options": {
            "num": args.num,
            "key_size": args.key_size,
            "value_size": args.value_size,
            "compression_ratio": args.compression_ratio,
            "seed": args.seed,
            "repeats": args.repeats,
            "preset": args.preset.map(|_| "peers"),
        },
        "settings": settings,
        "rows": results.rows().iter().map(|row| row_document(results, row)).collect::<Vec<_>>(),
        "table": table.to_json(),
        "interrupted": is_interrupted,
    })
}

fn row_document(results: &Results, row: &Row) -> Value {
    let mut engines = Map::new();
    for engine in EngineName::ALL {
        let turns = results.turns(&row.label, engine);
        if !turns.is_empty() {
            let turns = turns.iter().map(Measured::to_json).collect();
            engines.insert(engine.name().to_owned(), Value::Array(turns));
        }
    }
    json!({
        "label": row.label,
        "name": row.name,
        "threads": row.threads,
        "operations_of_each_thread": row.count,
        "batch": row.batch,
        "turns": engines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
