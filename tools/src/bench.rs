//! `lsm-bench`: runs workloads one after the other, prints a line for each, and ends with the
//! amplification report.

use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Write};
use std::process::ExitCode;

use clap::Parser;

use base::{Error, Result};

use crate::interrupt::{EXIT_INTERRUPTED, Stop, stop_in_silence, stop_on_ctrl_c};
use crate::say::say;

mod amp;
pub mod args;
mod compare;
mod data;
mod database;
mod diskfull;
mod distribution;
pub mod engine;
mod input;
mod lane;
pub mod line;
mod live;
mod machine;
pub mod measure;
mod mix;
pub mod moments;
mod output;
mod pace;
mod page;
mod probe;
pub mod process;
mod read;
mod record;
mod recover;
pub mod report;
mod run;
pub mod series;
mod streams;
mod tables;
mod work;
pub mod workload;
mod write;

use args::{Args, LoadArgs, in_flags};
use compare::turns::CHILD_WORD;
use engine::EngineSet;
use input::Input;
use run::Runner;
use workload::Workload;

/// The word on the command line in front of a file that is loaded.
const LOAD_WORD: &str = "load";
/// The exit code for damage that was found.
const EXIT_DAMAGED: u8 = 1;
/// The exit code for wrong usage and for failures of the machine.
const EXIT_FAILED: u8 = 2;

/// The whole tool: command line in, exit code out. `engines` are those that `--engine` can name.
pub fn main(engines: &impl EngineSet) -> ExitCode {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    if first == CHILD_WORD {
        return child_main(engines);
    }
    let words = std::env::args_os().map(with_two_dashes);
    let is_load = first == LOAD_WORD;
    let stop = stop_on_ctrl_c();
    let out = &mut std::io::stdout().lock();
    let result = if let Some(error) = workload_without_flag(&first) {
        Err(error)
    } else if is_load {
        load(&LoadArgs::parse_words(words), &stop, out)
    } else {
        run(&Args::parse_from(words), engines, &stop, out)
    };
    match result {
        // Ctrl-C reaches those who read as well.
        Ok(()) if stop.is_set() => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) if stop.is_set() && is_closed_pipe(&error) => ExitCode::from(EXIT_INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Says what is wrong, and how the process ends for it.
fn failed(error: &Error) -> ExitCode {
    let error = in_flags(error.clone());
    say(format_args!("lsm-bench: {error}"));
    ExitCode::from(if error.is_corruption() {
        EXIT_DAMAGED
    } else {
        EXIT_FAILED
    })
}

/// Scripts for db_bench write `-num=5` as often as `--num=5`.
fn with_two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if is_long_with_one_dash(text) => format!("-{text}").into(),
        _ => argument,
    }
}

fn is_long_with_one_dash(text: &str) -> bool {
    let name = text.strip_prefix('-').unwrap_or_default();
    let name = name.split('=').next().unwrap_or_default();
    name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// What to say if the first word on the command line is the name of a workload.
fn workload_without_flag(first: &OsStr) -> Option<Error> {
    let is_known = Workload::ALL.iter().any(|known| first == known.name());
    is_known.then(|| {
        let name = first.display();
        Error::invalid_argument(format!(
            "workloads are named by a flag: --benchmarks={name}"
        ))
    })
}

fn is_closed_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The process of one engine in a comparison.
fn child_main(engines: &impl EngineSet) -> ExitCode {
    let stop = stop_in_silence();
    let (mut input, mut output) = (BufReader::new(std::io::stdin()), std::io::stdout());
    match compare::child::main(engines, &mut input, &mut output, &stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Runs what `args` ask for, and writes the results to `out`.
///
/// # Errors
/// `InvalidArgument` for flags that make no sense together, and for engines that are not among
/// `engines`; otherwise as the engine says.
pub fn run(args: &Args, engines: &impl EngineSet, stop: &Stop, out: &mut dyn Write) -> Result<()> {
    if args.list {
        return list(out);
    }
    args.validate()?;
    if args.engine.is_some() {
        return compare::run(args, engines, stop, out);
    }
    let requests = args.requests()?;
    let mut runner = Runner::new(args, stop, None, out)?;
    for request in requests {
        if stop.is_set() {
            break;
        }
        runner.run(request)?;
    }
    runner.finish()
}

/// Loads the file that `load` names, and writes what that took to `out`.
///
/// # Errors
/// `InvalidArgument` for a line that is no record, and for flags that are of no use here; otherwise
/// as the engine says.
pub fn load(load: &LoadArgs, stop: &Stop, out: &mut dyn Write) -> Result<()> {
    load.validate()?;
    let mut input = Input::open(load, stop)?;
    let mut runner = Runner::new(&load.args, stop, Some(&input), out)?;
    runner.put_all(&mut input)?;
    runner.finish()
}

fn list(out: &mut dyn Write) -> Result<()> {
    for workload in Workload::ALL {
        writeln!(out, "{:<22} {}", workload.name(), workload.summary()).map_err(output_failed)?;
    }
    Ok(())
}

fn output_failed(source: std::io::Error) -> Error {
    Error::io("standard output", "write", source)
}
