//! The `siltstone` command: looks into a database, writes to it, and checks its files.
//!
//! Results go to standard output and remarks to standard error. Commands that work on keys open the
//! database as any program does; those that look at files read them without writing a byte.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::process::ExitCode;

use clap::Parser;

mod args;
mod copies;
mod costs;
pub(crate) mod directory;
mod entries;
mod explain;
pub(crate) mod failure;
mod interrupt;
mod load;
mod manifest;
mod operations;
mod output;
mod pages;
mod records;
mod repair;
mod session;
mod stats;
mod stretches;
mod top;
mod verify;
mod wal;

use args::{Command, CommandLine, Explain, Global, Manifest, Wal, database_count, place_database};
use failure::{Failure, Outcome};
use output::Output;

use crate::pipe::{OnClosed, Pipe};
use crate::say::say;

const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Runs the command that `args` name; the first of them is the name of the program.
///
/// Returns 0 if all is well, 1 if damage was found, 2 if the call is wrong, something named does
/// not exist, or the system refused, 130 if a signal ended it early. A reader who closes the pipe
/// of standard output early ends it quietly, unless it is there to find damage or to repair it.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if database_count(&args) > 1 {
        let failure = Failure::trouble("--db is given more than once");
        say(format_args!("error: {failure}"));
        return failure.exit_code();
    }
    let parsed = CommandLine::try_parse_from(place_database(args));
    let CommandLine { global, command } = match parsed {
        Ok(command_line) => command_line,
        Err(error) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    let stdout = io::stdout();
    let pipe = Pipe::new(stdout.lock(), on_closed(&command));
    let mut buffered = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, pipe);
    let mut output = Output::new(&mut buffered, &global);
    let result = run(&command, &global, &mut output);
    let flushed = output.flush().map_err(Failure::from);
    let Err(failure) = result.and(flushed) else {
        return ExitCode::SUCCESS;
    };
    if !matches!(failure, Failure::OutputClosed) {
        say(format_args!("error: {failure}"));
    }
    failure.exit_code()
}

fn on_closed(command: &Command) -> OnClosed {
    match command {
        Command::Verify(_) | Command::Wal(Wal::Verify(_)) | Command::Repair(_) => OnClosed::GoOn,
        _ => OnClosed::End,
    }
}

fn run(command: &Command, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    match command {
        Command::Load(args) => load::run(args, global, output),
        Command::Dump(args) => copies::dump(args, global, output),
        Command::Checkpoint(args) => copies::checkpoint(args, global, output),
        Command::Amplification(args) => stats::amplification(args, global, output),
        Command::Explain(Explain::Get(args)) => explain::get(args, global, output),
        Command::Get(args) => entries::get(args, global, output),
        Command::Put(args) => entries::put(args, global, output),
        Command::Delete(args) => entries::delete(args, global, output),
        Command::Scan(args) => entries::scan(args, global, output),
        Command::Stats(args) => stats::stats(args, global, output),
        Command::Top(args) => top::run(args, global, output),
        Command::Levels(args) => stats::levels(args, global, output),
        Command::Compact(args) => stats::compact(args, global, output),
        Command::Repair(args) => repair::run(args, global, output),
        Command::Completions(args) => pages::completions(args, output),
        Command::Man(args) => pages::man(args, output),
        Command::Verify(args) => verify::run(args, global, output),
        Command::Wal(Wal::Dump(args)) => wal::dump(args, global, output),
        Command::Wal(Wal::Verify(args)) => wal::verify(args, output),
        Command::Manifest(Manifest::Dump(args)) => manifest::dump(args, global, output),
        Command::Keyspaces(args) => manifest::keyspaces(args, output),
    }
}

#[cfg(test)]
mod tests;
