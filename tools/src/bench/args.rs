//! The flags of `lsm-bench`: db_bench's names, so that habits and scripts carry over.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use base::fs::{FileSystem, OsFs};
use base::{Error, Result};

use super::workload::{self, Request};

mod load;
mod mix;
mod options;
mod switches;

pub use load::LoadArgs;
pub use mix::MixArgs;
pub(crate) use options::in_flags;
pub use switches::Switches;
use switches::flag;

/// What runs when nothing is asked for: each path of the engine once, a minute at most.
pub const DEFAULT_BENCHMARKS: &str = "fillseq,readseq,fillrandom,readrandom,overwrite,\
    waitforcompaction,readrandom,readmissing,multireadrandom,seekrandom,readseq,readreverse,\
    deleterandom,compact,readrandom,levelstats";

/// What the reports of a preset are called unless --report says otherwise.
const PRESET_REPORT: &str = "peers";

/// Below the help.
const EXAMPLES: &str = "\
Examples:
  lsm-bench                                    a short run of everything, then the report
  lsm-bench --benchmarks=fillrandom,readrandom[X5-W1] --num=5000000 --histogram
  lsm-bench --benchmarks=ycsba,mixgraph,stallprobe --report=out.html
  lsm-bench --benchmarks=overwrite --duration=60 --report_interval_seconds=1
  lsm-bench load records.ndjson.zst --key_field=id
  lsm-bench --engine=siltstone,rocksdb-db_bench --preset=peers --num=1000000

Result lines are those of db_bench. Exit codes: 0 all is well, 1 damage was found, 2 the call is
wrong or the system refused, 130 ended early by Ctrl-C.";

/// More repeats than anybody waits for.
const REPEATS_MAX: usize = 100;

/// The shortest key: fewer bytes could not hold the numbers of a run.
const KEY_BYTES_MIN: usize = 4;

/// The longest value: more than this the engine takes only if it is told to.
const VALUE_BYTES_MAX: usize = 256 << 20;

/// Measures siltstone with the workloads, flags and result lines of db_bench.
///
/// Without arguments it runs a short representative set on a temporary database, which it removes,
/// and ends with the amplification report: what the engine wrote for each byte it was given.
/// Keys are db_bench's: the number in 8 bytes, big-endian, then '0' up to key_size. A flag's value
/// follows after `=`, as in --num=5000000.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "lsm-bench",
    version,
    max_term_width = 100,
    rename_all = "snake_case",
    after_help = EXAMPLES
)]
pub struct Args {
    /// Workloads to run in this order, with commas between. `--list` names them all.
    #[arg(long, value_name = "NAMES", default_value = DEFAULT_BENCHMARKS,
        hide_default_value = true)]
    pub benchmarks: String,
    /// Names every workload and says what it does.
    #[arg(long)]
    pub list: bool,
    /// Entries to write, and the range that keys are taken from.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1_000_000,
        default_value_if("preset", "peers", "5000000")
    )]
    pub num: u64,
    /// Reads of each thread in a read workload; negative means as --num.
    #[arg(long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
    pub reads: i64,
    /// Writes of each thread in a write workload; negative means as --num.
    #[arg(long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
    pub writes: i64,
    /// Seconds that each workload runs, whatever --num, --reads and --writes say; 0 for no limit.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub duration: u64,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,
    /// How the lengths of values vary: fixed is --value_size, uniform and normal lie between
    /// --value_size_min and --value_size_max.
    #[arg(long, value_name = "TYPE", value_enum,
        ignore_case = true, default_value_t = ValueSizeType::Fixed)]
    pub value_size_distribution_type: ValueSizeType,
    /// Shortest value of a distribution that is not fixed.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub value_size_min: usize,
    /// Longest value of a distribution that is not fixed.
    #[arg(long, value_name = "BYTES", default_value_t = 102_400)]
    pub value_size_max: usize,
    /// Bytes of each key.
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    pub key_size: usize,
    /// Entries of each commit; fillbatch takes 1000 and multireadrandom 32 unless it is above 1.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub batch_size: u64,
    /// Threads that do the same work side by side, each all of it.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub threads: usize,
    /// Directory of the database; a temporary one if absent. A workload that starts afresh replaces
    /// the database there.
    #[arg(long, value_name = "DIR")]
    pub db: Option<PathBuf>,
    /// Where the random numbers start: the same seed, the same operations.
    #[arg(long, value_name = "NUMBER", default_value_t = 301)]
    pub seed: u64,
    /// Entries read after each seek of seekrandom.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub seek_nexts: u64,
    /// What a value shrinks to when compressed, as a part of 1.
    #[arg(long, value_name = "PART", default_value_t = 0.5)]
    pub compression_ratio: f64,
    /// Compression of tables; the engine's default if absent.
    #[arg(long, value_name = "TYPE", value_enum)]
    pub compression_type: Option<CompressionType>,
    /// Level of zstd.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub compression_level: i32,
    /// Filter bits for each key; 0 for no filters, negative for the engine's default.
    #[arg(long, value_name = "BITS", default_value_t = -1,
        allow_negative_numbers = true)]
    pub bloom_bits: i32,
    /// Bytes of the block cache; negative for the engine's default.
    #[arg(long, value_name = "BYTES", default_value_t = -1,
        allow_negative_numbers = true)]
    pub cache_size: i64,
    /// Bytes a memtable may take; the engine's default if absent.
    #[arg(long, value_name = "BYTES")]
    pub write_buffer_size: Option<usize>,
    /// Bytes all memtables may take together; the engine's default if absent.
    #[arg(long, value_name = "BYTES")]
    pub db_write_buffer_size: Option<usize>,
    /// Bytes a table should have; the engine's default if absent.
    #[arg(long, value_name = "BYTES")]
    pub target_file_size_base: Option<u64>,
    /// Bytes of the first sorted level; the engine's default if absent.
    #[arg(long, value_name = "BYTES")]
    pub max_bytes_for_level_base: Option<u64>,
    /// How many times larger each level is than the one above; the engine's default if absent.
    #[arg(long, value_name = "COUNT")]
    pub max_bytes_for_level_multiplier: Option<u64>,
    /// Depth at which level 0 is compacted; the engine's default if absent.
    #[arg(long, value_name = "COUNT")]
    pub level0_file_num_compaction_trigger: Option<usize>,
    /// Bytes of a data block; the engine's default if absent.
    #[arg(long, value_name = "BYTES")]
    pub block_size: Option<usize>,
    /// Threads that compact; the engine's default if absent.
    #[arg(long, value_name = "COUNT")]
    pub max_background_jobs: Option<usize>,
    /// Threads that may share one compaction. They come out of the same pool, which gets as many
    /// as the larger of this and --max_background_jobs.
    #[arg(long, value_name = "COUNT")]
    pub subcompactions: Option<usize>,
    /// Tables are read through mappings (1) or by positioned reads (0); as --read_mode.
    #[arg(long, value_parser = flag, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", conflicts_with = "read_mode")]
    pub mmap_read: Option<bool>,
    /// How tables are read; the engine's default if absent.
    #[arg(long, value_name = "MODE", value_enum)]
    pub read_mode: Option<ReadModeName>,
    /// How the log is written; the engine's default if absent.
    #[arg(long, value_name = "MODE", value_enum)]
    pub log_append: Option<LogAppendName>,
    /// How often what the database does is written beside it, for `siltstone top` in another
    /// terminal; 0 for never. Charged as a cause of its own.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub stats_file_interval_ms: u64,
    /// Percentage of reads in readrandomwriterandom.
    #[arg(long, value_name = "PERCENT", default_value_t = 90,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub readwritepercent: u8,
    /// Bytes a second that writes are held to, all threads together; 0 for no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub benchmark_write_rate_limit: u64,
    /// Operations a second that arrive in stallprobe, whether the engine keeps up or not.
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    pub arrival_rate: u64,
    /// How often a line goes into --report_file; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub report_interval_seconds: u64,
    /// Where operations a second go, as comma-separated values.
    #[arg(long, value_name = "FILE", default_value = "report.csv")]
    pub report_file: PathBuf,
    /// Keeps the database open at the end until standard input ends or the process is killed.
    #[arg(long, hide = true)]
    pub hold_open: bool,
    /// Engines to compare, with commas between: siltstone, leveldb, fjall, lmdb, redb, rocksdb,
    /// rocksdb-db_bench, null.
    ///
    /// Each works in a process of its own, on a database of its own, with the same keys and values
    /// in the same order, and all get the same memory, filters and durability. For each row they
    /// take turns; who does not have its turn is stopped, its background work included. Ends with
    /// a table of medians and ratios. Takes --preset, or --benchmarks of: fillseq, fillrandom,
    /// filluniquerandom, fillbatch, fillsync, overwrite, readrandom, readmissing, seekrandom,
    /// readseq, readreverse, readwhilewriting, compact, waitforcompaction. The other workloads
    /// are for siltstone alone. Engines of others are built in by features of tools/peers;
    /// rocksdb-db_bench is the program db_bench (apt-get install rocksdb-tools), which draws keys
    /// of its own.
    #[arg(long, value_name = "NAMES", verbatim_doc_comment)]
    pub engine: Option<String>,
    /// A whole table of rows for --engine, at --num=5000000 unless that is given.
    #[arg(long, value_name = "NAME", value_enum)]
    pub preset: Option<Preset>,
    /// How often --engine runs every row on every engine; the table holds medians.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub repeats: usize,
    /// Settings of the engines that are compared: same for all, or what the makers advise.
    #[arg(long, value_name = "WHICH", value_enum,
        default_value_t = EngineSettings::Same)]
    pub engine_settings: EngineSettings,
    /// Writes the results to this file too: .html for a page with charts, .json, .tsv (the columns
    /// of RocksDB's benchmark.sh first), or with --engine .md for Markdown. May be given again;
    /// without an ending all of these are written. With --preset, peers.md, .json and .html unless
    /// others are named.
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Prints one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
    /// What is either so or not.
    #[command(flatten)]
    pub switches: Switches,
    /// The model of mixgraph.
    #[command(flatten)]
    pub mix: MixArgs,
}

/// The compressions that tables know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionType {
    /// Blocks as they are, on every level.
    None,
    /// zstd on every level.
    Zstd,
}

/// How the lengths of values vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ValueSizeType {
    /// All are as long as --value_size says.
    Fixed,
    /// Each length between the two is as likely.
    Uniform,
    /// Around the middle between the two, which lie three deviations from it.
    Normal,
}

/// How tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadModeName {
    /// Through mappings.
    Mapped,
    /// By positioned reads, through the block cache.
    Positioned,
    /// Mapped while tables fit in memory.
    Auto,
}

/// The values of `--log_append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogAppendName {
    /// Through a mapping, where space can be reserved.
    Mapped,
    /// By positioned writes.
    Positioned,
}

/// Tables of rows that are run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Every path of the engine against others: fills, reads as the writes left them and after a
    /// full compaction, bytes written, size and memory.
    Peers,
}

/// Settings of the engines that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineSettings {
    /// The same memory, filters, compression and durability for all.
    Same,
    /// What its makers advise for such a load, wherever that is something else.
    Best,
}

impl Args {
    /// The workloads, in order.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the nearest workload, if one is unknown.
    pub fn requests(&self) -> Result<Vec<Request>> {
        workload::parse_list(&self.benchmarks)
    }

    /// Checks what no single flag can say by itself.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the flag.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::invalid_argument(message));
        if self.num == 0 {
            return wrong("--num must be at least 1");
        }
        if self.threads == 0 || self.threads > 1024 {
            return wrong("--threads must be between 1 and 1024");
        }
        if self.batch_size == 0 {
            return wrong("--batch_size must be at least 1");
        }
        if !(KEY_BYTES_MIN..=base::key::KEY_BYTES_MAX - 1).contains(&self.key_size) {
            return wrong("--key_size must be between 4 and 65534");
        }
        if self.key_size < 8 && self.num > 1 << (8 * self.key_size) {
            return wrong("--num needs more different keys than --key_size allows");
        }
        if !(self.compression_ratio > 0.0 && self.compression_ratio <= 1.0) {
            return wrong("--compression_ratio must be above 0 and at most 1");
        }
        if self.switches.use_existing_db && self.db.is_none() {
            return wrong("--use_existing_db needs --db");
        }
        if self.value_size > VALUE_BYTES_MAX || self.value_size_max > VALUE_BYTES_MAX {
            return wrong("--value_size and --value_size_max must be at most 268435456");
        }
        if self.value_size_min > self.value_size_max {
            return wrong("--value_size_min must not be above --value_size_max");
        }
        if self.arrival_rate == 0 {
            return wrong("--arrival_rate must be at least 1");
        }
        if let Some(fault) = self.mix.fault() {
            return wrong(&fault);
        }
        self.validate_comparison()
    }

    fn validate_comparison(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::invalid_argument(message));
        if self.engine.is_none() {
            if self.preset.is_some() {
                return wrong("--preset needs --engine");
            }
            return self.validate_reports();
        }
        if !(1..=REPEATS_MAX).contains(&self.repeats) {
            return wrong("--repeats must be between 1 and 100");
        }
        if self.switches.use_existing_db {
            return wrong("--engine always begins with new databases: leave --use_existing_db out");
        }
        if self.stats_file_interval_ms > 0 {
            return wrong(
                "--stats_file_interval_ms is not for --engine: others write no such file",
            );
        }
        if self.preset.is_some() && self.benchmarks != DEFAULT_BENCHMARKS {
            return wrong("--preset and --benchmarks exclude each other");
        }
        self.validate_reports()
    }

    /// Whether results can be written where they are to be: better told before than after a run.
    fn validate_reports(&self) -> Result<()> {
        for file in self.report_files()? {
            let dir = match file.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let is_dir = OsFs.status(dir)?.is_some_and(|status| status.is_dir);
            if !is_dir {
                let message = "--report names a file in a directory that does not exist";
                return Err(Error::invalid_argument(message).with_path(&file));
            }
        }
        Ok(())
    }

    /// The files that results are to be written to, each with one of `endings`.
    ///
    /// # Errors
    /// `InvalidArgument` for a file with another ending.
    pub fn report_files(&self) -> Result<Vec<PathBuf>> {
        let endings: &[&str] = match self.engine {
            Some(_) => &["md", "json", "html", "tsv"],
            None => &["html", "json", "tsv"],
        };
        if self.report.is_empty() && self.preset.is_some() {
            let endings = ["md", "json", "html"].iter();
            return Ok(endings
                .map(|ending| PathBuf::from(PRESET_REPORT).with_extension(ending))
                .collect());
        }
        let mut files = Vec::new();
        for path in &self.report {
            match path.extension() {
                None if path.file_name().is_some() => {
                    files.extend(endings.iter().map(|ending| path.with_extension(ending)));
                }
                Some(ending) if endings.iter().any(|known| ending == *known) => {
                    files.push(path.clone());
                }
                _ => {
                    let known = endings.join(", .");
                    return Err(Error::invalid_argument(format!(
                        "--report must end in one of .{known}, or in none of them for all"
                    ))
                    .with_path(path));
                }
            }
        }
        Ok(files)
    }

    /// Reads of each thread.
    pub fn read_count(&self) -> u64 {
        u64::try_from(self.reads).unwrap_or(self.num)
    }

    /// Writes of each thread.
    pub fn write_count(&self) -> u64 {
        u64::try_from(self.writes).unwrap_or(self.num)
    }
}

#[cfg(test)]
mod tests;
