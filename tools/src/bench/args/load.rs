//! The flags of `lsm-bench load`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use base::{Error, Result};

use super::Args;

const ABOUT: &str = "Puts the records of a file of newline-delimited JSON, one object a line, and \
    ends with the amplification report";

const EXAMPLES: &str = "\
Examples:
  lsm-bench load records.ndjson.zst --key_field=id
  lsm-bench load - --key_field=user.name --key_field=time --value_field=text < events.ndjson
  lsm-bench load records.ndjson --db=records.db --batch_size=100 --sync --report=out.html

The flags about the database, its writes and reports are those of lsm-bench.";

/// Loads real input.
#[derive(Clone, Debug, Parser)]
#[command(name = "lsm-bench load", rename_all = "snake_case")]
pub struct LoadArgs {
    /// The file, packed by zstd or not; - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Field that is the key; a.b is field b of the object in field a. Given again, the key is made
    /// of all of them in this order.
    #[arg(long, value_name = "NAME", default_value = "key")]
    pub key_field: Vec<String>,
    /// What stands between the fields of a key.
    #[arg(long, value_name = "TEXT", default_value = "/")]
    pub key_separator: String,
    /// Field that is stored; the whole line if absent.
    #[arg(long, value_name = "NAME")]
    pub value_field: Option<String>,
    /// Counts lines that are no record and goes on, instead of ending there.
    #[arg(long)]
    pub skip_bad_lines: bool,
    /// The flags of `lsm-bench`; those about workloads do nothing here.
    #[command(flatten)]
    pub args: Args,
}

impl LoadArgs {
    /// Takes the command line `words`, of which the second is `load`. Ends the process for help and
    /// for flags that are not known.
    pub fn parse_words(words: impl IntoIterator<Item = OsString>) -> Self {
        // The program and the word are one name.
        let words = words.into_iter().skip(1);
        let mut command = Self::command().about(ABOUT).after_help(EXAMPLES);
        command = command.long_about(None).bin_name("lsm-bench load");
        let matches = command.get_matches_from(words);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Checks what no single flag can say by itself.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the flag.
    pub fn validate(&self) -> Result<()> {
        if self.args.engine.is_some() {
            return Err(Error::invalid_argument(
                "load is for siltstone alone: leave --engine out",
            ));
        }
        if self.key_field.iter().any(String::is_empty) {
            return Err(Error::invalid_argument("--key_field names no field"));
        }
        self.args.validate()
    }
}
