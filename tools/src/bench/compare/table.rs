//! The ratio table: a line for each figure, a column for each engine, and how the first engine
//! stands to the best of the others. A ratio above 1 is good for it, whatever the figure.

use serde_json::{Value, json};

use super::measured::Measured;
use super::plan::{
    APPENDSYNC, COMPACTION, FILLRANDOM, FILLRANDOM_REST, FILLSYNC_1, FILLSYNC_8, LAST, OVERWRITE,
};
use super::results::Results;
use crate::bench::engine::{EngineKind, EngineName};
use crate::bench::line::as_f64;

/// What a line of the table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Seconds,
    Micros,
    Millis,
    Megabytes,
}

impl Unit {
    /// Whether a larger figure is the better one.
    pub(crate) const fn is_more_better(self) -> bool {
        matches!(self, Self::PerSecond)
    }

    /// What stands behind the label of a line; nothing for rates.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::PerSecond => "",
            Self::Seconds => ", s",
            Self::Micros => ", us",
            Self::Millis => ", ms",
            Self::Megabytes => ", MB",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "operations/s",
            Self::Seconds => "s",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Megabytes => "MB",
        }
    }

    /// A figure for people.
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::PerSecond if figure >= 999_500.0 => format!("{:.2} M", figure / 1e6),
            Self::PerSecond if figure >= 99_950.0 => format!("{:.0} k", figure / 1e3),
            Self::PerSecond if figure >= 1000.0 => format!("{:.1} k", figure / 1e3),
            Self::Micros | Self::Millis | Self::Seconds if figure < 99.95 => {
                format!("{figure:.1}")
            }
            _ => format!("{figure:.0}"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    /// One for each engine; `None` where it has no sensible figure.
    pub(crate) figures: Vec<Option<f64>>,
    /// Against the best other log-structured engine.
    pub(crate) against_lsm: Option<f64>,
    /// Against the best other engine.
    pub(crate) against_all: Option<f64>,
    /// What the driver itself takes, in nanoseconds an operation and thread.
    pub(crate) driver_nanos: Option<f64>,
}

/// A synced row in parts of what the raw file does.
#[derive(Clone, Debug)]
pub(crate) struct PartOfRaw {
    pub(crate) label: &'static str,
    /// One for each engine, in percent.
    pub(crate) percent: Vec<Option<f64>>,
}

/// The whole table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) engines: Vec<EngineName>,
    pub(crate) lines: Vec<Line>,
    /// Synced appends to the raw file, a second.
    pub(crate) raw_per_sec: Option<f64>,
    pub(crate) parts_of_raw: Vec<PartOfRaw>,
}

impl Table {
    /// The lines in which the first engine is behind another log-structured one.
    pub(crate) fn behind(&self) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .filter(|line| line.against_lsm.is_some_and(|ratio| ratio < 1.0))
    }

    /// A header and a line for each figure.
    pub(crate) fn to_tsv(&self) -> String {
        let shown = |figure: Option<f64>| figure.map_or_else(String::new, |f| format!("{f:.3}"));
        let names: Vec<_> = self.engines.iter().map(|engine| engine.name()).collect();
        let mut text = format!("row\tunit\t{}\tx_lsm\tx_all\n", names.join("\t"));
        for line in &self.lines {
            let figures: Vec<_> = line.figures.iter().map(|figure| shown(*figure)).collect();
            let cells = [
                line.label.clone(),
                line.unit.name().to_owned(),
                figures.join("\t"),
                shown(line.against_lsm),
                shown(line.against_all),
            ];
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        text
    }

    /// As a document.
    pub(crate) fn to_json(&self) -> Value {
        let names = || self.engines.iter().map(|engine| engine.name().to_owned());
        let by_engine = |figures: &[Option<f64>]| -> Value {
            let pairs = names().zip(figures.iter().map(|figure| json!(figure)));
            Value::Object(pairs.collect())
        };
        let line = |line: &Line| {
            json!({
                "label": line.label,
                "unit": line.unit.name(),
                "figures": by_engine(&line.figures),
                "ratio_to_best_lsm": line.against_lsm,
                "ratio_to_best": line.against_all,
                "driver_nanos": line.driver_nanos,
            })
        };
        let part = |part: &PartOfRaw| {
            let percent = by_engine(&part.percent);
            json!({ "label": part.label, "percent_of_raw": percent })
        };
        json!({
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
            "raw_per_sec": self.raw_per_sec,
            "parts_of_raw": self.parts_of_raw.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

/// The table of `results`; with what the preset derives from its rows, if it was that.
pub(crate) fn build(results: &Results, is_preset: bool) -> Table {
    let mut lines = Vec::new();
    for row in results.rows() {
        let is_timed = matches!(row.name, "compact" | "waitforcompaction");
        if !row.is_shown || row.name == APPENDSYNC {
            continue;
        }
        let (unit, figure): (_, fn(&Measured) -> f64) = if is_timed {
            (Unit::Seconds, |m| m.seconds)
        } else {
            (Unit::PerSecond, Measured::rate)
        };
        let figures = medians(results, &row.label, figure);
        let mut line = line(results, &row.label, unit, figures);
        line.driver_nanos = results.median(&row.label, EngineName::Null, |m| {
            m.thread_seconds * 1e9 / as_f64(m.operations.max(1))
        });
        lines.push(line);
    }
    if is_preset {
        lines.extend(derived(results));
    }
    let raw_label = results.rows().iter().find(|row| row.name == APPENDSYNC);
    let raw_per_sec =
        raw_label.and_then(|row| results.median(&row.label, EngineName::Raw, Measured::rate));
    let part = |label, threads: f64| PartOfRaw {
        label,
        percent: medians(results, label, Measured::rate)
            .into_iter()
            .map(|rate| Some(rate? / (raw_per_sec? * threads) * 100.0))
            .collect(),
    };
    Table {
        engines: results.engines().to_vec(),
        lines,
        raw_per_sec,
        parts_of_raw: match raw_per_sec {
            Some(_) => vec![part(FILLSYNC_1, 1.0), part(FILLSYNC_8, 8.0)],
            None => Vec::new(),
        },
    }
}

/// What the preset tells besides rates.
fn derived(results: &Results) -> Vec<Line> {
    let of = |label: &str, figure: &dyn Fn(&Measured) -> f64| medians(results, label, figure);
    let written = |m: &Measured| mebibytes(m.written_bytes);
    let burst = of(FILLRANDOM, &written);
    let at_rest = add(burst.clone(), of(FILLRANDOM_REST, &written));
    let seconds = add(
        of(FILLRANDOM, &|m| m.seconds),
        of(FILLRANDOM_REST, &|m| m.seconds),
    );
    let rate_at_rest = of(FILLRANDOM, &|m| as_f64(m.operations))
        .into_iter()
        .zip(seconds)
        .map(|(count, seconds)| Some(count? / seconds?.max(1e-9)))
        .collect();
    // An engine without compaction has its final size when the last row before it is over.
    let last = |figure: &dyn Fn(&Measured) -> f64| -> Vec<Option<f64>> {
        let rest = of("rest before compaction", figure);
        let after = of(LAST, figure);
        after.into_iter().zip(rest).map(|(a, b)| a.or(b)).collect()
    };
    let line = |label, unit, figures| line(results, label, unit, figures);
    let size = |m: &Measured| mebibytes(m.dir_bytes);
    vec![
        line("fillrandom and rest", Unit::PerSecond, rate_at_rest),
        line(
            "fillrandom p99.9",
            Unit::Micros,
            of(FILLRANDOM, &|m| m.percentile_micros[2]),
        ),
        line(
            "overwrite p99.9",
            Unit::Micros,
            of(OVERWRITE, &|m| m.percentile_micros[2]),
        ),
        line(
            "overwrite p99.99",
            Unit::Micros,
            of(OVERWRITE, &|m| m.percentile_micros[3]),
        ),
        line(
            "overwrite max",
            Unit::Millis,
            of(OVERWRITE, &|m| m.max_micros / 1e3),
        ),
        line("fillrandom bytes written", Unit::Megabytes, burst),
        line("fillrandom and rest, same", Unit::Megabytes, at_rest),
        line(
            "overwrite bytes written",
            Unit::Megabytes,
            of(OVERWRITE, &written),
        ),
        line(
            "compaction bytes written",
            Unit::Megabytes,
            of(COMPACTION, &written),
        ),
        line(
            "size after fillrandom",
            Unit::Megabytes,
            of(FILLRANDOM_REST, &size),
        ),
        line("final size", Unit::Megabytes, last(&size)),
        line(
            "anonymous memory, most",
            Unit::Megabytes,
            most_memory(results),
        ),
    ]
}

/// Sums, where both are there.
fn add(a: Vec<Option<f64>>, b: Vec<Option<f64>>) -> Vec<Option<f64>> {
    a.into_iter().zip(b).map(|(a, b)| Some(a? + b?)).collect()
}

/// The most anonymous memory that each engine had at the end of a row, in MB.
fn most_memory(results: &Results) -> Vec<Option<f64>> {
    let most = |engine: &EngineName| {
        let figures = results.rows().iter().filter_map(|row| {
            results.median(&row.label, *engine, |m| mebibytes(m.memory.anonymous))
        });
        figures.reduce(f64::max)
    };
    results.engines().iter().map(most).collect()
}

fn mebibytes(bytes: u64) -> f64 {
    as_f64(bytes) / 1_048_576.0
}

fn medians(results: &Results, label: &str, figure: impl Fn(&Measured) -> f64) -> Vec<Option<f64>> {
    let engines = results.engines().iter();
    engines
        .map(|engine| results.median(label, *engine, &figure))
        .collect()
}

fn line(results: &Results, label: &str, unit: Unit, figures: Vec<Option<f64>>) -> Line {
    let engines = results.engines();
    let against = |is_rival: &dyn Fn(EngineName) -> bool| -> Option<f64> {
        let own = (*figures.first()?)?;
        let rivals = engines.iter().zip(&figures).skip(1);
        let best = rivals
            .filter(|(engine, _)| is_rival(**engine))
            .filter_map(|(_, figure)| *figure)
            .reduce(if unit.is_more_better() {
                f64::max
            } else {
                f64::min
            })?;
        let (above, below) = if unit.is_more_better() {
            (own, best)
        } else {
            (best, own)
        };
        (below > 0.0).then(|| above / below)
    };
    Line {
        label: label.to_owned(),
        unit,
        against_lsm: against(&|engine| engine.kind() == EngineKind::Lsm),
        against_all: against(&|_| true),
        figures,
        driver_nanos: None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bench::args::Args;
    use crate::bench::compare::plan;

    fn results() -> Results {
        let flags = ["lsm-bench", "--benchmarks=fillseq,compact", "--num=10"];
        let args = Args::try_parse_from(flags).expect("the flags are right");
        let groups = plan::groups(&args).expect("planned");
        let engines = vec![
            EngineName::Siltstone,
            EngineName::LevelDb,
            EngineName::Fjall,
            EngineName::Lmdb,
        ];
        Results::new(engines, &groups, 3)
    }

    fn add(results: &mut Results, index: usize, engine: EngineName, seconds: f64) {
        let row = results.rows()[index].clone();
        let measured = Measured {
            operations: 10,
            seconds,
            ..Measured::default()
        };
        results.add(&row, engine, measured);
    }

    fn near(ratio: Option<f64>, expected: f64) -> bool {
        ratio.is_some_and(|ratio| (ratio - expected).abs() < 1e-9)
    }

    #[test]
    fn ratios_are_of_medians_and_above_one_is_good() {
        let mut results = results();
        for seconds in [1.0, 9.0, 2.0] {
            add(&mut results, 0, EngineName::Siltstone, seconds);
        }
        add(&mut results, 0, EngineName::LevelDb, 4.0);
        add(&mut results, 0, EngineName::Fjall, 5.0);
        add(&mut results, 0, EngineName::Lmdb, 0.5);
        add(&mut results, 1, EngineName::Siltstone, 6.0);
        add(&mut results, 1, EngineName::LevelDb, 3.0);
        let table = build(&results, false);
        let [rate, seconds] = &table.lines[..] else {
            panic!("two lines: {table:?}");
        };
        assert!(near(rate.against_lsm, 2.0), "{rate:?}");
        assert!(near(rate.against_all, 0.25), "{rate:?}");
        assert!(near(seconds.against_lsm, 0.5), "{seconds:?}");
        assert_eq!(seconds.figures[3], None, "a B-tree is not compacted");
        let behind: Vec<_> = table.behind().map(|line| &*line.label).collect();
        assert_eq!(behind, ["compact"]);
    }

    #[test]
    fn figures_are_short() {
        for (unit, figure, expected) in [
            (Unit::PerSecond, 1_234_567.0, "1.23 M"),
            (Unit::PerSecond, 412_345.0, "412 k"),
            (Unit::PerSecond, 8123.0, "8.1 k"),
            (Unit::PerSecond, 12.4, "12"),
            (Unit::Seconds, 5.04, "5.0"),
            (Unit::Megabytes, 1580.4, "1580"),
        ] {
            assert_eq!(unit.show(figure), expected);
        }
    }
}
