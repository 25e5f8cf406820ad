//! What `lsm-bench` prints: lines as they come, or one document at the end.

use std::fmt::Write as _;
use std::io::Write;

use base::Result;
use serde_json::{Map, Value, json};

use super::args::Args;
use super::line::{ResultLine, as_f64};
use super::measure::Outcome;
use super::output_failed;
use super::report::{self, Amplification};

/// Percentiles of the line below each result.
const PERCENTILES: [(&str, f64); 5] = [
    ("P50", 50.0),
    ("P95", 95.0),
    ("P99", 99.0),
    ("P99.9", 99.9),
    ("P99.99", 99.99),
];
/// Each bar of a histogram covers twice the latency of the one before, from this one on.
const FIRST_BAR_NANOS: u64 = 125;
/// Marks of a bar that holds everything.
const BAR_MARKS: f64 = 40.0;

/// What one workload cost besides time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) device_bytes: Option<u64>,
    pub(crate) table_count: u64,
    pub(crate) table_bytes: u64,
}

/// Where the results go.
pub(crate) struct Output<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    has_histograms: bool,
    results: Vec<Value>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(args: &Args, out: &'a mut dyn Write) -> Self {
        Self {
            out,
            is_json: args.json,
            has_histograms: args.histogram,
            results: Vec::new(),
        }
    }

    /// Prints `text` and a line end, unless a document is wanted.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        if self.is_json {
            return Ok(());
        }
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .map_err(output_failed)
    }

    /// Prints what is being measured, as db_bench does.
    pub(crate) fn header(&mut self, args: &Args, database: &str) -> Result<()> {
        let entry = as_f64((args.key_size + args.value_size) as u64);
        let stored =
            as_f64(args.key_size as u64) + as_f64(args.value_size as u64) * args.compression_ratio;
        let megabytes = |bytes: f64| bytes * as_f64(args.num) / 1_048_576.0;
        let compressed = as_f64(args.value_size as u64) * args.compression_ratio;
        self.say(&format!(
            "siltstone:  version {}",
            env!("CARGO_PKG_VERSION")
        ))?;
        self.say(&format!("Keys:       {} bytes each", args.key_size))?;
        self.say(&format!(
            "Values:     {} bytes each ({compressed:.0} bytes after compression)",
            args.value_size
        ))?;
        self.say(&format!("Entries:    {}", args.num))?;
        self.say(&format!(
            "RawSize:    {:.1} MB (estimated)",
            megabytes(entry)
        ))?;
        self.say(&format!(
            "FileSize:   {:.1} MB (estimated)",
            megabytes(stored)
        ))?;
        self.say(&format!("Threads:    {}", args.threads))?;
        self.say(&format!("Seed:       {}", args.seed))?;
        self.say(&format!("Database:   {database}"))?;
        self.say(&"-".repeat(48))
    }

    /// Prints the result of one workload.
    pub(crate) fn result(
        &mut self,
        line: &ResultLine,
        outcome: &Outcome,
        cost: &Cost,
    ) -> Result<()> {
        if self.is_json {
            self.results.push(result_json(line, outcome, cost));
            return Ok(());
        }
        self.say(&line.to_string())?;
        if outcome.latencies.len() > 1 {
            self.say(&percentile_line(outcome))?;
        }
        self.say(&cost_line(cost))?;
        if outcome.is_cut_short {
            self.say("  interrupted: this is what was done until then")?;
        }
        if self.has_histograms && !outcome.latencies.is_empty() {
            self.say(&bars(outcome))?;
        }
        Ok(())
    }

    /// Notes that a workload was not run.
    pub(crate) fn skipped(&mut self, name: &str, why: &str) -> Result<()> {
        if self.is_json {
            self.results.push(json!({ "name": name, "skipped": why }));
            return Ok(());
        }
        self.say(&format!("{name:<12} : skipped ({why})"))
    }

    /// Prints text that a workload made instead of a measurement.
    pub(crate) fn text(&mut self, name: &str, text: &str) -> Result<()> {
        if self.is_json {
            self.results.push(json!({ "name": name, "text": text }));
            return Ok(());
        }
        self.say(text)
    }

    /// Prints the report, or the document with everything.
    pub(crate) fn finish(
        &mut self,
        args: &Args,
        amplification: &Amplification,
        is_interrupted: bool,
    ) -> Result<()> {
        if !self.is_json {
            self.say("")?;
            return self.say(amplification.to_string().trim_end());
        }
        let document = json!({
            "siltstone": env!("CARGO_PKG_VERSION"),
            "options": options_json(args),
            "results": std::mem::take(&mut self.results),
            "amplification": report::json::to_json(amplification),
            "interrupted": is_interrupted,
        });
        writeln!(self.out, "{document:#}").map_err(output_failed)
    }
}

fn percentile_line(outcome: &Outcome) -> String {
    let parts = PERCENTILES
        .iter()
        .map(|(name, percent)| format!("{name}: {:.2}", outcome.percentile_micros(*percent)));
    let parts: Vec<String> = parts.collect();
    format!(
        "Percentiles: {} max: {:.2}",
        parts.join(" "),
        outcome.max_micros()
    )
}

fn cost_line(cost: &Cost) -> String {
    let megabytes = |bytes: u64| format!("{:.1} MB", as_f64(bytes) / 1_048_576.0);
    let cpu = cost
        .cpu_seconds
        .map_or_else(|| "? s".to_owned(), |seconds| format!("{seconds:.2} s"));
    let device = cost
        .device_bytes
        .map_or_else(|| "? MB".to_owned(), megabytes);
    format!(
        "  {cpu} of processor time; {device} written to the device; {} tables, {}",
        cost.table_count,
        megabytes(cost.table_bytes)
    )
}

fn bars(outcome: &Outcome) -> String {
    let total = as_f64(outcome.latencies.len());
    let mut text = format!(
        "Microseconds of {} samples: mean {:.2}, deviation {:.2}, min {:.2}\n",
        outcome.latencies.len(),
        outcome.latencies.mean() / 1e3,
        outcome.latencies.stdev() / 1e3,
        super::measure::micros(outcome.latencies.min()),
    );
    let mut sum = 0;
    for bar in outcome.latencies.iter_log(FIRST_BAR_NANOS, 2.0) {
        let count = bar.count_since_last_iteration();
        if count == 0 {
            continue;
        }
        sum += count;
        let part = as_f64(count) / total;
        writeln!(
            text,
            "  up to {:>12.3} {count:>12} {:>8.3} % {:>8.3} % {}",
            super::measure::micros(bar.value_iterated_to()),
            part * 100.0,
            as_f64(sum) / total * 100.0,
            "#".repeat(marks(part)),
        )
        .expect("writing to a String cannot fail");
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the length of a bar"
)]
fn marks(part: f64) -> usize {
    (part * BAR_MARKS).round() as usize
}

fn result_json(line: &ResultLine, outcome: &Outcome, cost: &Cost) -> Value {
    let mut latencies = Map::new();
    if !outcome.latencies.is_empty() {
        for (name, percent) in PERCENTILES {
            latencies.insert(name.to_owned(), json!(outcome.percentile_micros(percent)));
        }
        latencies.insert("max".to_owned(), json!(outcome.max_micros()));
        latencies.insert("mean".to_owned(), json!(outcome.latencies.mean() / 1e3));
        latencies.insert("samples".to_owned(), json!(outcome.latencies.len()));
    }
    json!({
        "name": line.name,
        "micros_per_op": line.micros_per_op,
        "ops_per_sec": line.ops_per_sec,
        "seconds": line.seconds,
        "operations": line.operations,
        "megabytes_per_sec": line.megabytes_per_sec,
        "found": line.found.map(|found| found.found),
        "looked_for": line.found.map(|found| found.of),
        "latency_micros": latencies,
        "cpu_seconds": cost.cpu_seconds,
        "device_write_bytes": cost.device_bytes,
        "table_count": cost.table_count,
        "table_bytes": cost.table_bytes,
        "interrupted": outcome.is_cut_short,
    })
}

fn options_json(args: &Args) -> Value {
    json!({
        "benchmarks": args.benchmarks,
        "num": args.num,
        "reads": args.read_count(),
        "key_size": args.key_size,
        "value_size": args.value_size,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "seed": args.seed,
        "sync": args.sync,
        "seek_nexts": args.seek_nexts,
        "compression_ratio": args.compression_ratio,
    })
}
