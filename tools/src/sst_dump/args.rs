//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::text::{from_hex, parse_bytes};

const EXAMPLES: &str = "\
Examples:
  sst-dump DB                                   read every entry of every table of a database
  sst-dump DB/000012.sst --command=scan --prefix=user: --read_num=10
  sst-dump DB --command=verify                  checksums, order, bounds, counts, filters
  sst-dump DB --command=properties --json
  sst-dump 000012.sst --command=scan --output_hex --from=00ff --input_key_hex
  sst-dump DB --command=explain --key=user:17   where a key would be found, and why not
  sst-dump 000012.sst --command=recompress --compression_level=1,3,9 --block_size=4K,16K
  sst-dump 000012.sst --command=hist            lengths of keys, values and blocks
  sst-dump anything --command=identify          what a file is

Exit codes: 0 all is well, 1 damage was found, 2 the call is wrong, a file is no table, or the
system refused, 130 a signal ended it. A file with the name of a table is one: damage if it is not.
Tables are only read; the database may be open elsewhere.";

/// As the engine has it.
const BLOCK_BYTES_MIN: u64 = 64;
/// As the engine has it.
const BLOCK_BYTES_MAX: u64 = 4 << 20;

/// Looks into the tables of siltstone databases.
#[derive(Debug, Parser)]
#[command(name = "sst-dump", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct CommandLine {
    /// Tables, and directories all of whose tables are meant.
    #[arg(value_name = "TABLE|DIR")]
    paths: Vec<PathBuf>,
    /// The same as naming it without an option.
    #[arg(long = "file", value_name = "TABLE|DIR")]
    files: Vec<PathBuf>,
    /// What to do with each table.
    #[arg(long, value_enum, default_value_t = Command::Check)]
    pub(super) command: Command,
    /// Print keys and values as hexadecimal digits.
    #[arg(long = "output_hex")]
    pub(super) output_hex: bool,
    /// The keys of --from, --to, --prefix and --key are hexadecimal digits.
    #[arg(long = "input_key_hex")]
    input_key_hex: bool,
    /// check, scan: begin at this key.
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// check, scan: end before this key.
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// check, scan: only keys that begin with this.
    #[arg(long, value_name = "KEY")]
    prefix: Option<OsString>,
    /// explain: the key to look for.
    #[arg(long, value_name = "KEY")]
    key: Option<OsString>,
    /// recompress: sizes of blocks before compression, from 64 to 4M.
    #[arg(long = "block_size", value_name = "BYTES", value_delimiter = ',',
          value_parser = parse_block_size, default_value = "4K")]
    pub(super) block_sizes: Vec<u64>,
    /// recompress: codecs to try.
    #[arg(
        long = "compression_types",
        value_enum,
        value_delimiter = ',',
        default_value = "none,zstd"
    )]
    pub(super) compression_types: Vec<Codec>,
    /// recompress: levels of zstd to try.
    #[arg(long = "compression_level", value_name = "LEVEL", value_delimiter = ',',
          allow_negative_numbers = true, default_value = "1,3,6",
          value_parser = clap::value_parser!(i32).range(-50..=22))]
    pub(super) compression_levels: Vec<i32>,
    /// check, scan: read at most this many entries, of all tables together.
    #[arg(long = "read_num", value_name = "COUNT")]
    pub(super) read_num: Option<u64>,
    /// Print the properties of each table as well.
    #[arg(long = "show_properties")]
    pub(super) show_properties: bool,
    /// End with totals over all tables.
    #[arg(long = "show_summary")]
    pub(super) show_summary: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_block_size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    let range = BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX;
    let bytes = range.contains(&bytes).then_some(bytes);
    bytes.ok_or_else(|| "blocks have from 64 bytes to 4M".to_owned())
}

/// What is done with each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Command {
    /// Read every entry, print nothing but the count and what is damaged.
    Check,
    /// Print every entry.
    Scan,
    /// Check every checksum, the order, bounds, counts and the filter.
    Verify,
    /// Print what the table says about itself.
    Properties,
    /// Print where each data block lies, and up to which key it reaches.
    Index,
    /// Print the filter's policy and size, and how many absent keys it lets pass.
    Filter,
    /// Print where every part and every block lies, and whether its checksum is right.
    Raw,
    /// Print each data block: what is stored, how many entries, from which key to which.
    Blocks,
    /// Print how long keys, values and blocks are.
    Hist,
    /// Write the table anew in memory with each codec and level; print sizes and times.
    Recompress,
    /// Say what a file is, a table or something else.
    Identify,
    /// Say where --key is, or why it is not there.
    Explain,
}

/// How data blocks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Codec {
    /// As they are.
    None,
    /// In frames of zstd, at each level.
    Zstd,
}

impl Command {
    /// Whether it walks over entries, and so obeys the bounds.
    pub(super) fn is_walk(self) -> bool {
        matches!(self, Self::Check | Self::Scan)
    }

    /// Whether it is there to tell good tables from bad ones, whoever reads what it prints.
    pub(super) fn judges(self) -> bool {
        matches!(self, Self::Check | Self::Verify)
    }
}

/// Which keys are read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Keys before are not read.
    pub(super) from: Vec<u8>,
    /// Keys from here on are not read.
    pub(super) to: Option<Vec<u8>>,
    /// Only keys that begin with this are read.
    pub(super) prefix: Vec<u8>,
    /// The key to be explained.
    pub(super) key: Vec<u8>,
}

impl CommandLine {
    /// Every table and directory named.
    pub(super) fn all_paths(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(&self.files).cloned().collect()
    }

    /// The keys of the bounds as bytes.
    ///
    /// # Errors
    /// A sentence about an option that cannot be meant.
    pub(super) fn bounds(&self) -> Result<Bounds, String> {
        let has_bounds = self.from.is_some() || self.to.is_some() || self.prefix.is_some();
        if (has_bounds || self.read_num.is_some()) && !self.command.is_walk() {
            return Err("--from, --to, --prefix and --read_num go with check and scan".to_owned());
        }
        let key = self.key("--key", self.key.as_ref())?;
        if key.is_some() != (self.command == Command::Explain) {
            return Err("--key and --command=explain go together".to_owned());
        }
        let prefix = self
            .key("--prefix", self.prefix.as_ref())?
            .unwrap_or_default();
        let from = self.key("--from", self.from.as_ref())?.unwrap_or_default();
        Ok(Bounds {
            from: from.max(prefix.clone()),
            to: self.key("--to", self.to.as_ref())?,
            prefix,
            key: key.unwrap_or_default(),
        })
    }

    fn key(&self, option: &str, given: Option<&OsString>) -> Result<Option<Vec<u8>>, String> {
        let Some(given) = given else {
            return Ok(None);
        };
        if !self.input_key_hex {
            return Ok(Some(given.as_bytes().to_vec()));
        }
        let text = given.to_str().unwrap_or("?");
        from_hex(text)
            .map(Some)
            .map_err(|reason| format!("{option}: {reason}"))
    }
}

impl Bounds {
    /// Whether `key`, at or after `from`, lies before the end.
    pub(super) fn reaches(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.to.as_ref().is_none_or(|to| key < &to[..])
    }
}
