//! `top`: what a database does that another process has open, live, as a report or as JSON.
//!
//! Reads the stats file which the engine writes beside the database, and nothing else of it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use base::clock::{Clock, SystemClock};

use super::args::{Global, Top};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use crate::say::say;
use crate::text::escape;

mod document;
mod look;
mod parts;
mod people;
mod rates;
mod report;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;
mod watch;

use look::{Found, look, look_or_fail};
use watch::{Press, Watch};

/// Between two looks, unless the user says otherwise.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the live view asks whether it should end.
const ATTENTION: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Top, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let clock = SystemClock::new();
    let is_once = args.once || !(global.json || terminal::is_there());
    let first = look_or_fail(&args.db, &clock);
    if !is_once && !global.json {
        // Without a file it waits for one, but not for a database.
        if let Err(failure) = first {
            super::directory::Directory::open(&args.db).map_err(|_| failure)?;
        }
        return live(args, &clock);
    }
    let mut watch = Watch::new(escape(args.db.as_os_str().as_bytes()));
    watch.take(Found::Told(first?));
    if is_once {
        return once(args, &clock, &mut watch, output);
    }
    stream(args, global, &clock, &mut watch, output)
}

/// One report: of one look, or of two with the interval that the user gave between them.
fn once(args: &Top, clock: &dyn Clock, watch: &mut Watch, output: &mut Output<'_>) -> Outcome<()> {
    if let Some(interval) = args.interval {
        if Interrupt::listen_in_silence().wait(interval) {
            return Err(Failure::interrupted("nothing was printed"));
        }
        watch.take(Found::Told(look_or_fail(&args.db, clock)?));
    }
    if output.json {
        return print_document(watch, output);
    }
    report::print(watch, output)
}

/// One object a line, until the database is closed, or whoever reads or runs this has had enough.
fn stream(
    args: &Top,
    global: &Global,
    clock: &dyn Clock,
    watch: &mut Watch,
    output: &mut Output<'_>,
) -> Outcome<()> {
    let interrupt = Interrupt::listen_in_silence();
    let remark = |text: &str| {
        if !global.quiet {
            say(format_args!("remark: {text}"));
        }
    };
    loop {
        print_document(watch, output)?;
        output.flush()?;
        if let Some(seen) = watch.seen.as_ref().filter(|seen| seen.told.is_over()) {
            remark(&seen.told.remark().unwrap_or_default());
            return Ok(());
        }
        if interrupt.wait(args.interval.unwrap_or(INTERVAL)) {
            return Ok(());
        }
        match look(&args.db, clock) {
            Ok(Found::Nothing(_)) => {
                remark("the database was closed");
                return Ok(());
            }
            Ok(found) => watch.take(found),
            // It may be gone with the database.
            Err(Failure::Trouble(why)) => {
                remark(&why);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn print_document(watch: &Watch, output: &mut Output<'_>) -> Outcome<()> {
    let Some(seen) = &watch.seen else {
        return Ok(());
    };
    output.document(&document::document(watch, seen))
}

/// The live view, until the user leaves it, a signal comes, or the terminal is closed.
fn live(args: &Top, clock: &dyn Clock) -> Outcome<()> {
    let restore = terminal::Restore::of_stdout().map_err(|error| no_terminal(&error))?;
    let interrupt = Interrupt::listen_and_restore({
        let restore = restore.clone();
        move || restore.restore()
    });
    let screen = terminal::Screen::open(&restore).map_err(|error| no_terminal(&error))?;
    match show(args, clock, &interrupt, screen) {
        // There is nobody left to tell.
        Err(_) if terminal::is_gone() => Ok(()),
        ended => ended.map_err(|error| no_terminal(&error)),
    }
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::trouble(format!("the terminal cannot be used: {error}; try --once"))
}

fn show(
    args: &Top,
    clock: &dyn Clock,
    interrupt: &Interrupt,
    mut screen: terminal::Screen,
) -> io::Result<()> {
    let interval = args.interval.unwrap_or(INTERVAL);
    let look_of = screen::Look {
        has_colour: terminal::has_colour(),
        interval,
    };
    let keys = terminal::Keys::read()?;
    let mut watch = Watch::new(escape(args.db.as_os_str().as_bytes()));
    let mut next_micros = 0;
    while !interrupt.is_set() && !terminal::is_gone() {
        let now = clock.monotonic_micros();
        if now >= next_micros {
            next_micros = now + u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
            match look(&args.db, clock) {
                Ok(found) => watch.take(found),
                Err(failure) => watch.take_failure(failure.to_string()),
            }
        }
        screen.draw(|frame| screen::draw(&watch, look_of, frame))?;
        let rest = Duration::from_micros(next_micros.saturating_sub(now));
        match keys.wait(rest.min(ATTENTION))? {
            Some(Press::Leave) => break,
            Some(press) => watch.press(press),
            None => {}
        }
    }
    Ok(())
}
