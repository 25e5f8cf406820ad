//! The flags of `lsm-bench`: db_bench's names, so that habits and scripts carry over.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use base::{Error, Result};
use siltstone::{Compression, FilterPolicy, LogAppend, Options, ReadMode};

use super::workload::{self, Workload};

/// What runs when nothing is asked for: each path of the engine once, a minute at most.
pub const DEFAULT_BENCHMARKS: &str = "fillseq,readseq,fillrandom,readrandom,overwrite,\
    waitforcompaction,readrandom,readmissing,multireadrandom,seekrandom,readseq,readreverse,\
    deleterandom,compact,readrandom,levelstats";

/// More repeats than anybody waits for.
const REPEATS_MAX: usize = 100;

/// The shortest key: fewer bytes could not hold the numbers of a run.
const KEY_BYTES_MIN: usize = 4;

/// Measures siltstone with the workloads, flags and result lines of db_bench.
///
/// Without arguments it runs a short representative set on a temporary database, which it removes,
/// and ends with the amplification report: what the engine wrote for each byte it was given.
/// Keys are db_bench's: the number in 8 bytes, big-endian, then '0' up to key_size. A flag's value
/// follows after `=`, as in --num=5000000.
#[derive(Clone, Debug, Parser)]
#[command(name = "lsm-bench", version, max_term_width = 100)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
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
    /// Bytes of each value.
    #[arg(long = "value_size", value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,
    /// Bytes of each key.
    #[arg(long = "key_size", value_name = "BYTES", default_value_t = 16)]
    pub key_size: usize,
    /// Entries of each commit; fillbatch takes 1000 and multireadrandom 32 unless it is above 1.
    #[arg(long = "batch_size", value_name = "COUNT", default_value_t = 1)]
    pub batch_size: u64,
    /// Threads that do the same work side by side, each all of it.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub threads: usize,
    /// Directory of the database; a temporary one if absent. A workload that starts afresh replaces
    /// the database there.
    #[arg(long, value_name = "DIR")]
    pub db: Option<PathBuf>,
    /// Keeps the database that is in --db; workloads that start afresh are then skipped.
    #[arg(long = "use_existing_db", value_parser = flag, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_existing_db: bool,
    /// Where the random numbers start: the same seed, the same operations.
    #[arg(long, value_name = "NUMBER", default_value_t = 301)]
    pub seed: u64,
    /// Every commit waits until it is on the disk.
    #[arg(long, value_parser = flag, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sync: bool,
    /// Entries read after each seek of seekrandom.
    #[arg(long = "seek_nexts", value_name = "COUNT", default_value_t = 0)]
    pub seek_nexts: u64,
    /// seekrandom uses one cursor for all seeks instead of making one for each, as db_bench does.
    #[arg(long = "reuse_cursor", value_parser = flag, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub reuse_cursor: bool,
    /// What a value shrinks to when compressed, as a part of 1.
    #[arg(long = "compression_ratio", value_name = "PART", default_value_t = 0.5)]
    pub compression_ratio: f64,
    /// Compression of tables; the engine's default if absent.
    #[arg(long = "compression_type", value_name = "TYPE", value_enum)]
    pub compression_type: Option<CompressionType>,
    /// Level of zstd.
    #[arg(
        long = "compression_level",
        value_name = "LEVEL",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub compression_level: i32,
    /// Filter bits for each key; 0 for no filters, negative for the engine's default.
    #[arg(long = "bloom_bits", value_name = "BITS", default_value_t = -1,
        allow_negative_numbers = true)]
    pub bloom_bits: i32,
    /// Bytes of the block cache; negative for the engine's default.
    #[arg(long = "cache_size", value_name = "BYTES", default_value_t = -1,
        allow_negative_numbers = true)]
    pub cache_size: i64,
    /// Bytes a memtable may take; the engine's default if absent.
    #[arg(long = "write_buffer_size", value_name = "BYTES")]
    pub write_buffer_size: Option<usize>,
    /// Bytes a table should have; the engine's default if absent.
    #[arg(long = "target_file_size_base", value_name = "BYTES")]
    pub target_file_size_base: Option<u64>,
    /// Bytes of the first sorted level; the engine's default if absent.
    #[arg(long = "max_bytes_for_level_base", value_name = "BYTES")]
    pub max_bytes_for_level_base: Option<u64>,
    /// How tables are read; the engine's default if absent.
    #[arg(long = "read_mode", value_name = "MODE", value_enum)]
    pub read_mode: Option<ReadModeName>,
    /// How the log is written; the engine's default if absent.
    #[arg(long = "log_append", value_name = "MODE", value_enum)]
    pub log_append: Option<LogAppendName>,
    /// Prints the distribution of latencies below each result.
    #[arg(long, value_parser = flag, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub histogram: bool,
    /// Engines to compare, with commas between: siltstone, leveldb, fjall, lmdb, redb, null.
    ///
    /// Each works in a process of its own, on a database of its own, with the same keys and values
    /// in the same order, and all get the same memory, filters and durability. For each row they
    /// take turns; who does not have its turn is stopped, its background work included. Ends with
    /// a table of medians and ratios. Takes --benchmarks or --preset. Engines of others are built
    /// in by features of tools/peers.
    #[arg(long, value_name = "NAMES", verbatim_doc_comment)]
    pub engine: Option<String>,
    /// A whole table of rows for --engine, at --num=5000000 unless that is given.
    #[arg(long, value_name = "NAME", value_enum)]
    pub preset: Option<Preset>,
    /// How often --engine runs every row on every engine; the table holds medians.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub repeats: usize,
    /// Settings of the engines that are compared: same for all, or what the makers advise.
    #[arg(long = "engine_settings", value_name = "WHICH", value_enum,
        default_value_t = EngineSettings::Same)]
    pub engine_settings: EngineSettings,
    /// Writes what --engine found to this file too: .json, or .md for Markdown.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Prints one JSON document instead of lines.
    #[arg(long)]
    pub json: bool,
}

/// The compressions that tables know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionType {
    /// Blocks as they are, on every level.
    None,
    /// zstd on every level.
    Zstd,
}

/// How tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadModeName {
    /// Through mappings.
    Mapped,
    /// By positioned reads, through the block cache.
    Positioned,
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

/// A switch as gflags writes it: `--sync`, `--sync=1`, `--sync=true`.
fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "t" | "yes" | "y" => Ok(true),
        "0" | "false" | "f" | "no" | "n" => Ok(false),
        _ => Err("a switch is true or false, 1 or 0".to_owned()),
    }
}

impl Args {
    /// The workloads, in order.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the nearest workload, if one is unknown.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
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
        if self.use_existing_db && self.db.is_none() {
            return wrong("--use_existing_db needs --db");
        }
        self.validate_comparison()
    }

    fn validate_comparison(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::invalid_argument(message));
        if self.engine.is_none() {
            if self.preset.is_some() {
                return wrong("--preset needs --engine");
            }
            if self.report.is_some() {
                return wrong("--report needs --engine");
            }
            return Ok(());
        }
        if !(1..=REPEATS_MAX).contains(&self.repeats) {
            return wrong("--repeats must be between 1 and 100");
        }
        if self.use_existing_db {
            return wrong("--engine always begins with new databases: leave --use_existing_db out");
        }
        if self.preset.is_some() && self.benchmarks != DEFAULT_BENCHMARKS {
            return wrong("--preset and --benchmarks exclude each other");
        }
        let ending = self.report.as_deref().map(std::path::Path::extension);
        match ending {
            None => Ok(()),
            Some(Some(ending)) if ending == "json" || ending == "md" => Ok(()),
            Some(_) => wrong("--report must end in .json or .md"),
        }
    }

    /// Reads of each thread.
    pub fn read_count(&self) -> u64 {
        u64::try_from(self.reads).unwrap_or(self.num)
    }

    /// The engine's options, its own default wherever no flag was given.
    pub fn options(&self) -> Options {
        let mut options = Options::new().create_if_missing(!self.use_existing_db);
        if let Some(kind) = self.compression_type {
            let compression = match kind {
                CompressionType::None => Compression::None,
                CompressionType::Zstd => Compression::Zstd {
                    level: self.compression_level,
                },
            };
            options = options
                .compression(compression)
                .bottom_compression(compression);
        }
        if let Ok(bits_per_key) = u32::try_from(self.bloom_bits) {
            options = options.filter(match bits_per_key {
                0 => FilterPolicy::None,
                _ => FilterPolicy::Blocked { bits_per_key },
            });
        }
        if let Ok(bytes) = u64::try_from(self.cache_size) {
            options = options.cache_bytes(bytes);
        }
        if let Some(bytes) = self.write_buffer_size {
            options = options.memtable_bytes_max(bytes);
        }
        if let Some(bytes) = self.target_file_size_base {
            options = options.table_bytes_target(bytes);
        }
        if let Some(bytes) = self.max_bytes_for_level_base {
            options = options.level_base_bytes(bytes);
        }
        if let Some(mode) = self.log_append {
            options = options.log_append(match mode {
                LogAppendName::Mapped => LogAppend::Mapped,
                LogAppendName::Positioned => LogAppend::Positioned,
            });
        }
        match self.read_mode {
            Some(ReadModeName::Mapped) => options.read_mode(ReadMode::Mapped),
            Some(ReadModeName::Positioned) => options.read_mode(ReadMode::Positioned),
            None => options,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Args {
        let arguments = std::iter::once("lsm-bench").chain(arguments.iter().copied());
        Args::try_parse_from(arguments).expect("the flags are right")
    }

    #[test]
    fn flags_are_written_as_db_bench_has_them() {
        let args = parse(&[
            "--num=5000000",
            "--value_size=400",
            "--sync=1",
            "--histogram",
        ]);
        assert_eq!((args.num, args.value_size), (5_000_000, 400));
        assert!(args.sync && args.histogram && !args.use_existing_db);
        assert_eq!(args.read_count(), 5_000_000);
        let args = parse(&["--reads=10", "--sync=false", "--bloom_bits=-1"]);
        assert_eq!(args.read_count(), 10);
        assert!(!args.sync);
    }

    #[test]
    fn the_default_set_is_made_of_known_workloads() {
        let args = parse(&[]);
        args.validate().expect("the defaults are right");
        assert!(args.workloads().expect("known").len() > 10);
    }

    #[test]
    fn impossible_flags_are_named() {
        for (flag, message) in [
            ("--num=0", "--num"),
            ("--threads=0", "--threads"),
            ("--key_size=2", "--key_size"),
            ("--compression_ratio=0", "--compression_ratio"),
            ("--use_existing_db", "--use_existing_db"),
        ] {
            let error = parse(&[flag]).validate().expect_err(flag);
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
