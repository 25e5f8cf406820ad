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

use crate::interrupt::end_on_ctrl_c;
use crate::pipe::{OnClosed, Pipe};
use crate::say::say;

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
/// Returns 0 if all is well, 1 if damage was found, 2 if the call is wrong or the system refused,
/// 130 if a signal ended it. A reader who closes the pipe of standard output early ends it quietly,
/// or only what is printed if it is there to find damage; what was found counts in any case.
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
    // It only reads: nothing is to be put in order first.
    end_on_ctrl_c();
    let stdout = io::stdout();
    let on_closed = if command_line.command.judges() {
        OnClosed::GoOn
    } else {
        OnClosed::End
    };
    let pipe = Pipe::new(stdout.lock(), on_closed);
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, pipe);
    let mut found = Found::default();
    let ended = run(&command_line, &bounds, &tables, &mut out, &mut found);
    match ended.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            found.is_troubled = true;
            say(format_args!("sst-dump: writing the output failed: {error}"));
        }
        Ok(()) | Err(_) => {}
    }
    found.exit_code()
}

/// What is wrong, with the tables or with the system.
#[derive(Debug, Default)]
struct Found {
    is_damaged: bool,
    is_troubled: bool,
}

impl Found {
    fn note(&mut self, error: &Error) {
        self.is_damaged |= error.is_corruption();
        self.is_troubled |= !error.is_corruption();
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self.is_damaged, self.is_troubled) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        })
    }
}

/// The command line, for those who describe it.
pub(crate) fn command() -> clap::Command {
    CommandLine::command()
}

fn trouble(message: &str) -> ExitCode {
    say(format_args!("sst-dump: {}", render::message(message)));
    ExitCode::from(2)
}

fn run(
    command_line: &CommandLine,
    bounds: &Bounds,
    tables: &[find::Table],
    out: &mut dyn Write,
    found: &mut Found,
) -> io::Result<()> {
    let mut session = Session::new(command_line, bounds, tables, out);
    for table in tables {
        if session.has_read_enough() {
            break;
        }
        match session.table(table) {
            Ok(()) => {}
            Err(Stop::Output(error)) => return Err(error),
            Err(Stop::Table(error)) => {
                let error = layout::judged(table, error);
                found.note(&error);
                session.failed(table, &error)?;
            }
        }
    }
    session.summary()
}
