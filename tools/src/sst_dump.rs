//! The `sst-dump` command: looks into tables, prints and checks them.
//!
//! A table may come from anywhere: it is opened for reading only, without following a link, and
//! read by positioned reads, never through a mapping. Nothing that came out of a file reaches the
//! terminal unescaped. Results go to standard output, remarks to standard error.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use base::Error;
use clap::{CommandFactory, Parser};

mod args;
mod commands;
mod explain;
mod find;
mod hist;
mod layout;
mod progress;
mod recompress;
mod render;

use args::{Bounds, CommandLine};
use commands::Session;

const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Why work on one table ended early.
#[derive(Debug)]
enum Stop {
    /// The table could not be read, or is damaged. Others may still be good.
    Table(Error),
    /// The output is gone. There is no point in going on.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Table(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs what `args` ask for; the first of them is the name of the program.
///
/// Returns 0 if all is well, 1 if damage was found, 2 if the call is wrong or the system refused. A
/// reader who closes the pipe of standard output early ends it quietly.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command_line = match CommandLine::try_parse_from(args) {
        Ok(command_line) => command_line,
        Err(error) => {
            // Nobody is left to tell if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    let bounds = match command_line.bounds() {
        Ok(bounds) => bounds,
        Err(message) => return trouble(&message),
    };
    let tables = match find::tables(&command_line.all_paths()) {
        Ok(tables) => tables,
        Err(message) => return trouble(&message),
    };
    let stdout = io::stdout();
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, stdout.lock());
    let ended = run(&command_line, &bounds, &tables, &mut out);
    match ended.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => trouble(&format!("writing the output failed: {error}")),
    }
}

/// The command line, for those who describe it.
pub(crate) fn command() -> clap::Command {
    CommandLine::command()
}

fn trouble(message: &str) -> ExitCode {
    eprintln!("sst-dump: {}", render::message(message));
    ExitCode::from(2)
}

fn run(
    command_line: &CommandLine,
    bounds: &Bounds,
    tables: &[find::Table],
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let mut session = Session::new(command_line, bounds, tables, out);
    let (mut is_damaged, mut is_troubled) = (false, false);
    for table in tables {
        if session.has_read_enough() {
            break;
        }
        match session.table(table) {
            Ok(()) => {}
            Err(Stop::Output(error)) => return Err(error),
            Err(Stop::Table(error)) => {
                is_damaged |= error.is_corruption();
                is_troubled |= !error.is_corruption();
                session.failed(table, &error)?;
            }
        }
    }
    session.summary()?;
    Ok(ExitCode::from(match (is_damaged, is_troubled) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }))
}
