//! Standard output, whose reader may go away.

use std::io::{self, ErrorKind, Write};

/// What a closed pipe means for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnClosed {
    /// It is there to print, and has no more to do: writing fails.
    End,
    /// It is there to find out, and tells by its exit code: what it writes goes nowhere.
    GoOn,
}

/// Hands on what is written to it.
#[derive(Debug)]
pub(crate) struct Pipe<W> {
    out: W,
    on_closed: OnClosed,
    is_closed: bool,
}

impl<W: Write> Pipe<W> {
    /// One to `out`.
    pub(crate) fn new(out: W, on_closed: OnClosed) -> Self {
        Self {
            out,
            on_closed,
            is_closed: false,
        }
    }

    /// `result`, or `instead` if the reader is gone and that does not matter.
    fn passed<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                if self.on_closed == OnClosed::End {
                    return Err(error);
                }
                self.is_closed = true;
                Ok(instead)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes);
        self.passed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.passed(flushed, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that fails in a way.
    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_passed_over_and_only_where_that_is_meant() {
        let mut pipe = Pipe::new(Broken(ErrorKind::BrokenPipe), OnClosed::GoOn);
        pipe.write_all(b"nobody reads it").expect("passed over");
        pipe.flush().expect("passed over");
        for (kind, on_closed) in [
            (ErrorKind::BrokenPipe, OnClosed::End),
            (ErrorKind::StorageFull, OnClosed::GoOn),
        ] {
            let mut pipe = Pipe::new(Broken(kind), on_closed);
            assert_eq!(pipe.write(b"a").map_err(|error| error.kind()), Err(kind));
            assert_eq!(pipe.flush().map_err(|error| error.kind()), Err(kind));
        }
    }
}
