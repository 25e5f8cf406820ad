//! The administrator's tool for siltstone databases: `siltstone --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::admin::main(std::env::args_os())
}
