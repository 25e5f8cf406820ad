//! Measures siltstone with the workloads, flags and result lines of db_bench.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::bench::main(&tools::bench::engine::OwnEngines)
}
