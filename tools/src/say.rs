//! What the tools say to people, one message at a time.
//!
//! A message may name what came out of a file, so that all of them pass through [`plain`]. Where
//! nobody listens any more, nothing is said and nothing fails: a thread that waits for signals must
//! go on, and the exit code still tells how things ended.

use std::fmt::Display;
use std::io::{self, Write};

use crate::text::plain;

/// A remark or an error, on standard error.
pub(crate) fn say(message: impl Display) {
    print(&mut io::stderr(), &message);
}

/// A result of a tool that prints few of them, on standard output.
pub(crate) fn tell(message: impl Display) {
    print(&mut io::stdout(), &message);
}

fn print(to: &mut impl Write, message: &dyn Display) {
    let line = format!("{}\n", plain(&message.to_string()));
    // As above.
    let _ = to.write_all(line.as_bytes());
}
