//! What `db_bench` prints, taken apart.

use crate::bench::compare::measured::Measured;
use crate::bench::line::{ResultLine, as_f64, truncated};

/// What it says of its build if that is a slow one.
const WARNING: &str = "WARNING: ";
/// In front of its version.
const VERSION: &str = "RocksDB:";

/// What one process of it said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parsed {
    /// Of the library.
    pub(super) version: Option<String>,
    /// What it warns of, all in one.
    pub(super) warning: Option<String>,
    results: Vec<Timed>,
}

/// A result line, and the latencies below it.
#[derive(Clone, Debug, PartialEq)]
struct Timed {
    line: ResultLine,
    /// As [`super::super::measured::PERCENTILES`], in microseconds.
    percentile_micros: [f64; 4],
    max_micros: f64,
}

impl Parsed {
    /// Takes apart what came on standard output and on standard error.
    pub(super) fn new(text: &str, complaint: &str) -> Self {
        let mut parsed = Self::default();
        let mut warnings = Vec::new();
        for line in text.lines().chain(complaint.lines()) {
            if let Some(version) = line.strip_prefix(VERSION) {
                let number = version.trim().trim_start_matches("version ");
                parsed.version = Some(format!("{number}, its own db_bench"));
            } else if let Some(warning) = line.strip_prefix(WARNING) {
                warnings.push(warning.trim());
            } else if let Ok(line) = line.parse() {
                parsed.results.push(Timed {
                    line,
                    percentile_micros: [0.0; 4],
                    max_micros: 0.0,
                });
            } else if let Some(last) = parsed.results.last_mut() {
                last.take_latencies(line);
            }
        }
        parsed.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        parsed
    }

    /// The last result of `benchmark`: what comes before it was there to warm up.
    pub(super) fn measured(&self, benchmark: &str) -> Option<Measured> {
        let timed = self
            .results
            .iter()
            .rev()
            .find(|timed| timed.line.name == benchmark)?;
        let line = &timed.line;
        let bytes = line.megabytes_per_sec.unwrap_or(0.0) * line.seconds * 1_048_576.0;
        Some(Measured {
            operations: line.operations,
            bytes: truncated(bytes),
            // Its seconds have three digits only, which a short row does not survive.
            seconds: if line.ops_per_sec > 0 && line.operations > 1 {
                as_f64(line.operations) / as_f64(line.ops_per_sec)
            } else {
                line.seconds
            },
            thread_seconds: line.micros_per_op * as_f64(line.operations) / 1e6,
            found: line.found,
            percentile_micros: timed.percentile_micros,
            max_micros: timed.max_micros,
            ..Measured::default()
        })
    }
}

impl Timed {
    fn take_latencies(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("Percentiles:") {
            let names = ["P50:", "P99:", "P99.9:", "P99.99:"];
            for (place, name) in self.percentile_micros.iter_mut().zip(names) {
                if let Some(micros) = number_behind(rest, name) {
                    *place = micros;
                }
            }
        } else if line.starts_with("Min:")
            && let Some(micros) = number_behind(line, "Max:")
        {
            self.max_micros = micros;
        }
    }
}

/// The number that follows on the word `name`.
fn number_behind(line: &str, name: &str) -> Option<f64> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}
