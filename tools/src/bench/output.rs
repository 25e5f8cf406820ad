//! What `lsm-bench` prints: lines as they come, or one document at the end.

use std::io::Write;

use base::Result;
use serde_json::{Map, Value, json};

use super::args::{Args, ValueSizeType};
use super::data::Lengths;
use super::line::as_f64;
use super::measure::Outcome;
use super::output_failed;
use super::page;
use super::record::{Cost, Record};
use super::report::{self, Amplification, Returned};
use crate::text::{counted, plain_json};

pub(crate) mod files;
mod histogram;
mod tsv;

/// Percentiles of the line below each result: db_bench's.
pub(crate) const PERCENTILES: [(&str, f64); 5] = [
    ("P50", 50.0),
    ("P75", 75.0),
    ("P99", 99.0),
    ("P99.9", 99.9),
    ("P99.99", 99.99),
];

/// Where the results go.
pub(crate) struct Output<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    has_histograms: bool,
    results: Vec<Value>,
    records: Vec<Record>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(args: &Args, out: &'a mut dyn Write) -> Self {
        Self {
            out,
            is_json: args.json,
            has_histograms: args.switches.histogram,
            results: Vec::new(),
            records: Vec::new(),
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
        let value_bytes = Lengths::of(args).mean();
        let entry = as_f64((args.key_size + value_bytes) as u64);
        let compressed = as_f64(value_bytes as u64) * args.compression_ratio;
        let stored = as_f64(args.key_size as u64) + compressed;
        let megabytes = |bytes: f64| bytes * as_f64(args.num) / 1_048_576.0;
        self.say(&format!(
            "siltstone:  version {}",
            env!("CARGO_PKG_VERSION")
        ))?;
        self.say(&format!(
            "Keys:       {} each",
            counted(args.key_size as u64, "byte")
        ))?;
        self.say(&format!(
            "Values:     {} {} ({compressed:.0} after compression)",
            counted(value_bytes as u64, "byte"),
            match args.value_size_distribution_type {
                ValueSizeType::Fixed => "each",
                _ => "on average",
            }
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

    /// Prints what is loaded: a name and a text in each line.
    pub(crate) fn header_of(&mut self, about: &[(&str, String)], database: &str) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        self.say(&format!("siltstone:  version {version}"))?;
        for (name, text) in about {
            self.say(&format!("{:<11} {text}", format!("{name}:")))?;
        }
        self.say(&format!("Database:   {database}"))?;
        self.say(&"-".repeat(48))
    }

    /// Prints the result of one workload, the `ordinal`-th of the run.
    pub(crate) fn result(&mut self, record: &Record, ordinal: u64) -> Result<()> {
        if self.is_json {
            let mut value = result_json(record);
            value["ordinal"] = json!(ordinal);
            self.results.push(value);
            return Ok(());
        }
        let outcome = &record.outcome;
        self.say(&record.line.to_string())?;
        if self.has_histograms && !outcome.latencies.is_empty() {
            self.say(&histogram::heading(outcome))?;
        }
        if outcome.latencies.len() > 1 {
            self.say(&percentile_line(outcome))?;
        }
        self.say(&cost_line(&record.cost))?;
        if outcome.is_cut_short {
            self.say("  interrupted: this is what was done until then")?;
        }
        if self.has_histograms && !outcome.latencies.is_empty() {
            self.say(&histogram::bars(outcome))?;
        }
        Ok(())
    }

    /// Prints what else there is to say of the last result.
    pub(crate) fn note(&mut self, note: &str) -> Result<()> {
        if let (true, Some(last)) = (self.is_json, self.results.last_mut()) {
            last["note"] = json!(note.trim());
        }
        self.say(note)
    }

    /// Prints mean and median of runs that were repeated, as db_bench does.
    pub(crate) fn summary(&mut self, name: &str, records: &[Record]) -> Result<()> {
        let lines: Vec<_> = records.iter().map(|record| &record.line).collect();
        match super::line::summary(name, &lines) {
            Some(text) => self.say(&text),
            None => Ok(()),
        }
    }

    /// What the workloads that only read had to read, and what came of it.
    pub(crate) fn returned(&self) -> Returned {
        let mut sum = Returned::default();
        for record in &self.records {
            let cost = &record.cost;
            let bytes = record.outcome.bytes + record.bytes_beside;
            if cost.user_bytes == 0 && bytes > 0 {
                sum.block_bytes += cost.block_bytes_read;
                sum.bytes += bytes;
            }
        }
        sum
    }

    /// Keeps results for the reports.
    pub(crate) fn keep(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    /// Says that the work is done, and waits for the end of standard input.
    pub(crate) fn hold(&mut self) -> Result<()> {
        super::recover::hold(self.out)
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
            self.say(amplification.to_string().trim_end())?;
        }
        if !self.is_json && args.report.is_empty() {
            return Ok(());
        }
        let results = if self.is_json {
            std::mem::take(&mut self.results)
        } else {
            self.records.iter().map(result_json).collect()
        };
        let document = json!({
            "siltstone": env!("CARGO_PKG_VERSION"),
            "options": options_json(args),
            "results": results,
            "amplification": report::json::to_json(amplification),
            "interrupted": is_interrupted,
        });
        if self.is_json {
            let json = plain_json(format!("{document:#}"));
            writeln!(self.out, "{json}").map_err(output_failed)?;
        }
        self.write_reports(args, amplification, &document)
    }

    fn write_reports(
        &mut self,
        args: &Args,
        amplification: &Amplification,
        document: &Value,
    ) -> Result<()> {
        let files = args.report_files()?;
        if !files.is_empty() {
            self.say("")?;
        }
        for path in files {
            let ending = path.extension().and_then(std::ffi::OsStr::to_str);
            let text = match ending {
                Some("tsv") => tsv::table(&self.records),
                Some("html") => page::run(args, &self.records, amplification),
                _ => format!("{document:#}\n"),
            };
            files::replace(&path, &text)?;
            self.say(&format!("report written to {}", path.display()))?;
        }
        Ok(())
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
        .cpu_seconds()
        .map_or_else(|| "? s".to_owned(), |seconds| format!("{seconds:.2} s"));
    let device = cost
        .device_bytes
        .map_or_else(|| "? MB".to_owned(), megabytes);
    let read = match cost.block_bytes_read {
        0 => String::new(),
        bytes => format!("; blocks of {} read", megabytes(bytes)),
    };
    format!(
        "  {cpu} of processor time; {device} written to the device; {}, {}{read}",
        counted(cost.table_count, "table"),
        megabytes(cost.table_bytes)
    )
}

/// Of one result. Names are only ever added.
fn result_json(record: &Record) -> Value {
    let Record {
        line,
        outcome,
        cost,
        ..
    } = record;
    let mut latencies = Map::new();
    if !outcome.latencies.is_empty() {
        for (name, percent) in [PERCENTILES.as_slice(), &[("P95", 95.0)]].concat() {
            latencies.insert(name.to_owned(), json!(outcome.percentile_micros(percent)));
        }
        latencies.insert("max".to_owned(), json!(outcome.max_micros()));
        latencies.insert("mean".to_owned(), json!(outcome.latencies.mean() / 1e3));
        latencies.insert("samples".to_owned(), json!(outcome.latencies.len()));
    }
    let since_start = |nanos: u64| as_f64(nanos - outcome.start_nanos) / 1e9;
    let pauses: Vec<Value> = record
        .pauses
        .iter()
        .map(|pause| {
            json!({
                "kind": format!("{:?}", pause.kind).to_lowercase(),
                "cause": pause.cause,
                "from_seconds": since_start(pause.from_nanos),
                "upto_seconds": since_start(pause.upto_nanos),
            })
        })
        .collect();
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
        "message": line.message,
        "threads": record.threads,
        "user_bytes": cost.user_bytes,
        "written_bytes": cost.written_bytes(),
        "block_bytes_read": cost.block_bytes_read,
        "returned_bytes": outcome.bytes,
        "stalls": cost.stall_count,
        "stall_seconds": cost.stall_seconds,
        "throttle_seconds": cost.throttle_seconds,
        "ops_per_sec_by_second": outcome.series.per_interval(10),
        "pauses": pauses,
        "levels": report::json::levels(&record.levels),
        "cpu_seconds": cost.cpu_seconds(),
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
        "writes": args.write_count(),
        "duration": args.duration,
        "seed": args.seed,
        "sync": args.switches.sync,
        "seek_nexts": args.seek_nexts,
        "compression_ratio": args.compression_ratio,
    })
}
