//! The tool that looks into tables: `sst-dump --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::sst_dump::main(std::env::args_os())
}
