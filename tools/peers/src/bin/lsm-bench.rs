//! `lsm-bench` with the engines of others built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::bench::main(&peers::AllEngines)
}
