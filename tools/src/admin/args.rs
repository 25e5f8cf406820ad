//! The command line: every command, its arguments and its examples.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::text::parse_bytes;

mod examples;

/// The administrator's tool for siltstone databases.
#[derive(Debug, Parser)]
#[command(name = "siltstone", version, after_help = examples::ALL, arg_required_else_help = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// The database directory, instead of naming it behind the command.
    // Only for the help: `place_database` has moved it.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) db: Option<PathBuf>,
    /// Keys and values are hexadecimal digits, on the way in and out.
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// Print JSON: one object, or one a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress bar, no remarks.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put records from newline-delimited JSON: {"key": "...", "value": "..."} a line.
    ///
    /// The database is made if it does not exist. Bytes that are no text stand in "key_hex" and
    /// "value_hex", and "keyspace" names another keyspace than the default one. Batches are atomic:
    /// after an error everything up to the line that is named has been put, and nothing behind it.
    #[command(after_help = examples::LOAD)]
    Load(Load),
    /// Print everything in a form that `load` makes the same database of.
    ///
    /// All keyspaces at one moment, in key order. Records of the default keyspace come first;
    /// others name theirs, and a line that names a keyspace alone creates it with its options.
    /// Those of the default keyspace are given whenever a database is opened, and so are no part
    /// of it.
    #[command(after_help = examples::DUMP)]
    Dump(Dump),
    /// Print the value of a key.
    #[command(after_help = examples::GET)]
    Get(Get),
    /// Set a key to a value.
    #[command(after_help = examples::PUT)]
    Put(Put),
    /// Delete keys.
    #[command(after_help = examples::DELETE)]
    Delete(Delete),
    /// Print entries in key order.
    #[command(after_help = examples::SCAN)]
    Scan(Scan),
    /// Print what the database holds, and what it has cost since it was opened.
    #[command(after_help = examples::STATS)]
    Stats(OnlyDatabase),
    /// Watch a database that another process has open.
    ///
    /// Shows operations and bytes a second, waits, keyspaces, levels and amplification. It reads
    /// the file that the engine writes beside the database when Options::stats_file_interval is
    /// set where that is opened (for lsm-bench: --stats_file_interval_ms=1000); it opens nothing
    /// and takes no lock.
    ///
    /// With --json it prints one object a line, until the database is closed or Ctrl-C. With
    /// --once, and whenever standard output is no terminal, it prints one report and ends.
    #[command(after_help = examples::TOP)]
    Top(Top),
    /// Print the levels of the tree.
    #[command(after_help = examples::LEVELS)]
    Levels(OnlyDatabase),
    /// Print what writes, reads and space cost since the database was opened.
    #[command(after_help = examples::AMPLIFICATION)]
    Amplification(OnlyDatabase),
    /// Make a consistent copy in a new directory, by hard links where that is possible.
    #[command(after_help = examples::CHECKPOINT)]
    Checkpoint(Checkpoint),
    /// Say how something comes about.
    #[command(subcommand, after_help = examples::EXPLAIN)]
    Explain(Explain),
    /// Rewrite a key range down to the bottom of the tree.
    #[command(after_help = examples::COMPACT)]
    Compact(Compact),
    /// Check every checksum, order, bound and count of MANIFEST, tables and log.
    #[command(after_help = examples::VERIFY)]
    Verify(OnlyDirectory),
    /// Save what can be read of a damaged database into a new one, and say what cannot.
    ///
    /// Nothing is written to the damaged database. If MANIFEST cannot be read, every table that is
    /// there counts, and what was deleted may come back where the tables that said so are gone.
    /// Keyspaces keep their options where MANIFEST or the log still say them. Ends with 1 if
    /// anything was lost, and names it.
    #[command(after_help = examples::REPAIR)]
    Repair(Repair),
    /// Look at the log.
    #[command(subcommand, after_help = examples::WAL)]
    Wal(Wal),
    /// Look at the MANIFEST.
    #[command(subcommand, after_help = examples::MANIFEST)]
    Manifest(Manifest),
    /// List the keyspaces.
    #[command(after_help = examples::KEYSPACES)]
    Keyspaces(OnlyDirectory),
    /// Print what a shell needs to complete command lines.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(Completions),
    /// Print a manual page, or write all of them.
    #[command(after_help = examples::MAN)]
    Man(Man),
}

/// A program whose command line is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// This one.
    Siltstone,
    /// The one that looks into tables.
    SstDump,
    /// The one that measures.
    LsmBench,
    /// The one that tries to break it.
    SiltstoneTorture,
}

impl Tool {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Siltstone,
        Self::SstDump,
        Self::LsmBench,
        Self::SiltstoneTorture,
    ];
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
    /// The program.
    #[arg(long, value_enum, default_value_t = Tool::Siltstone)]
    pub(crate) tool: Tool,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write the pages of all programs and commands into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The program whose page is printed.
    #[arg(long, value_enum, default_value_t = Tool::Siltstone)]
    pub(crate) tool: Tool,
}

/// How a database is opened.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database options")]
pub(crate) struct Open {
    /// When a memtable is full.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memtable_bytes: Option<u64>,
    /// How large tables become.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) table_bytes: Option<u64>,
    /// How large blocks of tables become.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) block_bytes: Option<u64>,
    /// How much the first sorted level may hold.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) level_base_bytes: Option<u64>,
    /// How much the block cache may hold.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) cache_bytes: Option<u64>,
    /// Bits of filter for each key; 0 for no filters.
    #[arg(long, value_name = "BITS")]
    pub(crate) filter_bits: Option<u32>,
    /// zstd level for tables at the bottom of the tree; 0 for none.
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    pub(crate) bottom_zstd: Option<i32>,
    /// What to make of a damaged end of the log.
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) recovery: Option<Recovery>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Recovery {
    /// Any incomplete record is an error.
    Strict,
    /// What was never synced may be torn.
    TornTail,
    /// Stop at the first bad record and say what was dropped.
    PointInTime,
}

/// Which keyspace a command works on.
#[derive(Args, Clone, Debug)]
pub(crate) struct InKeyspace {
    /// The keyspace, instead of the default one.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) keyspace: String,
}

/// How a command writes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Writing {
    /// Make the database if it does not exist.
    #[arg(long)]
    pub(crate) create: bool,
    /// Wait for the disk with every write or batch, instead of once at the end.
    #[arg(long)]
    pub(crate) sync: bool,
}

/// For commands that need nothing but an open database.
#[derive(Args, Debug)]
pub(crate) struct OnlyDatabase {
    /// The database directory.
    pub(crate) db: PathBuf,
    #[command(flatten)]
    pub(crate) open: Open,
}

/// For commands that read the files of a database without opening it.
#[derive(Args, Debug)]
pub(crate) struct OnlyDirectory {
    /// The database directory.
    pub(crate) db: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The file, `-` for standard input; zstd is unpacked.
    pub(crate) file: PathBuf,
    /// Records in a batch.
    #[arg(long, default_value_t = 1000, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) batch_size: u32,
    /// Report malformed lines and go on, instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Pass over this many lines first: those an earlier load has put.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) skip_lines: u64,
    /// Wait for the disk with every batch, instead of once at the end.
    #[arg(long)]
    pub(crate) sync: bool,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The key.
    pub(crate) key: OsString,
    /// Print the bytes as they are, without a line end.
    #[arg(long, conflicts_with_all = ["hex", "json"])]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The key.
    pub(crate) key: OsString,
    /// The value; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: OsString,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The keys; all go in one batch.
    #[arg(required = true)]
    pub(crate) keys: Vec<OsString>,
    #[command(flatten)]
    pub(crate) writing: Writing,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Scan {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// Only keys that start with this.
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<OsString>,
    /// Only keys at or behind this one.
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,
    /// Only keys before this one.
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    /// From the last key to the first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// At most this many entries.
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Print only how many entries there are.
    #[arg(long)]
    pub(crate) count: bool,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Compact {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// From this key, instead of the first.
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,
    /// To before this key, instead of behind the last.
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// Only this keyspace; may be given several times.
    #[arg(long = "keyspace", value_name = "NAME")]
    pub(crate) keyspaces: Vec<String>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// Seconds between two looks, from 0.05 to 3600 [default: 1]. With --once, two looks so far
    /// apart instead of one, so that there are rates.
    #[arg(long, short, value_name = "SECONDS", value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,
    /// Print one report, or with --json one object, and end.
    #[arg(long)]
    pub(crate) once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .filter(|seconds| (0.05..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "expected seconds from 0.05 to 3600".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The directory of the copy, which must not exist or be empty.
    pub(crate) copy: PathBuf,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Args, Debug)]
pub(crate) struct Repair {
    /// The directory of the damaged database.
    pub(crate) db: PathBuf,
    /// The directory of the new one, which must not exist or be empty. If the repair does not
    /// come to its end, nothing is left there.
    pub(crate) copy: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// Show every memtable and table that a get considers, and which entry decides.
    #[command(after_help = examples::EXPLAIN_GET)]
    Get(ExplainGet),
}

#[derive(Args, Debug)]
pub(crate) struct ExplainGet {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// The key.
    pub(crate) key: OsString,
    #[command(flatten)]
    pub(crate) keyspace: InKeyspace,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Wal {
    /// Print the records of the log.
    #[command(after_help = examples::WAL_DUMP)]
    Dump(WalDump),
    /// Check every segment of the log.
    #[command(after_help = examples::WAL_VERIFY)]
    Verify(OnlyDirectory),
}

#[derive(Args, Debug)]
pub(crate) struct WalDump {
    /// The database directory.
    pub(crate) db: PathBuf,
    /// From the record that holds this sequence number.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) from_seq: u64,
    /// Wait for more at the end, until interrupted.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only one line for each record, without its operations.
    #[arg(long)]
    pub(crate) summary: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    /// Print the edits of the live MANIFEST.
    #[command(after_help = examples::MANIFEST_DUMP)]
    Dump(OnlyDirectory),
}

/// `args` with the value of `--db` moved to where the first positional argument of the command
/// stands, so that both ways of naming the database are one to the parser.
pub(crate) fn place_database(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let options_end = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let Some(at) = args[..options_end].iter().position(is_database_option) else {
        return args;
    };
    let Some(mut path) = take_database(&mut args, at) else {
        return args;
    };
    let Some(command_end) = command_end(&args) else {
        let mut whole = OsString::from("--db=");
        whole.push(&path);
        args.insert(at, whole);
        return args;
    };
    if path.as_encoded_bytes().starts_with(b"-") {
        let mut from_here = OsString::from("./");
        from_here.push(&path);
        path = from_here;
    }
    args.insert(command_end, path);
    args
}

/// How often `--db` is given.
pub(crate) fn database_count(args: &[OsString]) -> usize {
    let options = args.iter().take_while(|arg| *arg != "--");
    options.filter(|arg| is_database_option(arg)).count()
}

fn is_database_option(arg: &OsString) -> bool {
    arg == "--db" || arg.as_encoded_bytes().starts_with(b"--db=")
}

/// Takes the option and its value out; leaves a `--db` without a value for the parser to complain.
fn take_database(args: &mut Vec<OsString>, at: usize) -> Option<OsString> {
    if args[at] != "--db" {
        let joined = args.remove(at).into_vec();
        return Some(OsString::from_vec(joined["--db=".len()..].to_vec()));
    }
    if at + 1 >= args.len() {
        return None;
    }
    args.remove(at);
    Some(args.remove(at))
}

/// The index behind the words of the command.
fn command_end(args: &[OsString]) -> Option<usize> {
    let is_word = |arg: &OsString| !arg.as_encoded_bytes().starts_with(b"-");
    let first = 1 + args.iter().skip(1).position(is_word)?;
    let is_nested = ["wal", "manifest", "explain"]
        .iter()
        .any(|group| args[first] == *group);
    if !is_nested {
        return Some(first + 1);
    }
    let second = first + 1 + args.iter().skip(first + 1).position(is_word)?;
    Some(second + 1)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn placed(line: &str) -> String {
        let args = line.split(' ').map(OsString::from);
        let args = place_database(args);
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_database_can_be_named_anywhere() {
        let cases = [
            ("s get D k", "s get D k"),
            ("s --db D get k", "s get D k"),
            ("s get --db D k", "s get D k"),
            ("s get k --db=D", "s get D k"),
            ("s get --db get get", "s get get get"),
            ("s --json --db D wal dump", "s --json wal dump D"),
            ("s wal --db D dump --follow", "s wal dump D --follow"),
            ("s --db -x stats", "s stats ./-x"),
            ("s stats --db", "s stats --db"),
            ("s put D k -- --db", "s put D k -- --db"),
            ("s --db D", "s --db=D"),
        ];
        for (line, want) in cases {
            assert_eq!(placed(line), want);
        }
    }
}
