//! `lsm-bench`: runs workloads one after the other, prints a line for each, and ends with the
//! amplification report.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use base::{Error, Result};

use crate::interrupt::{EXIT_INTERRUPTED, Stop, stop_on_ctrl_c};

pub mod args;
mod data;
mod database;
mod lane;
pub mod line;
pub mod measure;
mod output;
pub mod process;
mod read;
pub mod report;
mod run;
pub mod workload;
mod write;

use args::Args;
use run::Runner;
use workload::Workload;

/// The exit code for wrong usage and for failures of the machine.
const EXIT_FAILED: u8 = 2;

/// The whole tool: command line in, exit code out.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let stop = stop_on_ctrl_c();
    let result = run(&args, &stop, &mut std::io::stdout().lock());
    match result {
        Ok(()) if stop.is_set() => ExitCode::from(EXIT_INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lsm-bench: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Runs what `args` ask for, and writes the results to `out`.
///
/// # Errors
/// `InvalidArgument` for flags that make no sense together; otherwise as the engine says.
pub fn run(args: &Args, stop: &Stop, out: &mut dyn Write) -> Result<()> {
    if args.list {
        return list(out);
    }
    args.validate()?;
    let workloads = args.workloads()?;
    let mut runner = Runner::new(args, stop, out)?;
    for workload in workloads {
        if stop.is_set() {
            break;
        }
        runner.run(workload)?;
    }
    runner.finish()
}

fn list(out: &mut dyn Write) -> Result<()> {
    for workload in Workload::ALL {
        writeln!(out, "{:<18} {}", workload.name(), workload.summary()).map_err(output_failed)?;
    }
    Ok(())
}

fn output_failed(source: std::io::Error) -> Error {
    Error::io("standard output", "write", source)
}
