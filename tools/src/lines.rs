//! Lines of a file or of standard input, with their numbers; unpacked where they are packed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zstd::stream::read::Decoder;

/// The longest line that is read: no value is larger than 2 GiB.
const LINE_BYTES_MAX: u64 = 2 << 30;
const READ_BUFFER_BYTES: usize = 256 << 10;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How often it is looked whether to go on while nothing comes, in nanoseconds.
const LOOK_NANOS: i64 = 100_000_000;

/// Says whether reading is to end early.
pub(crate) type IsOver = Box<dyn Fn() -> bool + Send>;

/// Reads lines and counts them.
pub(crate) struct LineReader {
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    /// The number of the line that was read last, counted from 1.
    line_number: u64,
}

impl LineReader {
    /// Reads `path`, or standard input for `-`; unpacks zstd, which it knows by the first bytes or
    /// by the name ending in `.zst`. Calls `on_bytes` with how many bytes it took from the file.
    /// Where nothing comes, as from a pipe, it waits until `is_over` and then fails.
    ///
    /// # Errors
    /// If the file cannot be opened or its first bytes cannot be read.
    pub(crate) fn open(
        path: &Path,
        on_bytes: Box<dyn Fn(u64) + Send>,
        is_over: IsOver,
    ) -> io::Result<Self> {
        let file = if path.as_os_str() == "-" {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            open_input(path)?
        };
        let mut counted = Counted {
            file,
            on_bytes,
            is_over,
        };
        let mut first = Vec::with_capacity(ZSTD_MAGIC.len());
        counted.by_ref().take(4).read_to_end(&mut first)?;
        let is_zstd = first == ZSTD_MAGIC || path.extension().is_some_and(|name| name == "zst");
        let whole = io::Cursor::new(first).chain(counted);
        let input: Box<dyn BufRead> = if is_zstd {
            let decoder = Decoder::new(whole)?;
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, decoder))
        } else {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, whole))
        };
        Ok(Self::new(input))
    }

    /// Reads what is at hand.
    pub(crate) fn new(input: Box<dyn BufRead>) -> Self {
        Self {
            input,
            line: Vec::new(),
            line_number: 0,
        }
    }

    /// The number of the line that [`LineReader::next_line`] returned last, counted from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.line_number
    }

    /// The next line without blanks around it, or `None` at the end.
    ///
    /// # Errors
    /// If the input cannot be read or unpacked, or a line is longer than any record can be.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.line_number += 1;
        if self.line.len() as u64 == LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {} is too long", self.line_number),
            ));
        }
        let mut bytes = self.line.trim_ascii();
        if self.line_number == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        Ok(Some(bytes))
    }
}

/// Opens what the user names: a pipe perhaps, which no positioned read can take.
fn open_input(path: &Path) -> io::Result<File> {
    // One that nobody writes to yet is waited for where that can end early, and not here.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags).open(path)
}

/// Tells how many bytes were read, and waits for them no longer than somebody wants them.
struct Counted {
    file: File,
    on_bytes: Box<dyn Fn(u64) + Send>,
    is_over: IsOver,
}

impl Counted {
    /// Waits until there is something to read, or the end of it.
    fn wait(&self) -> io::Result<()> {
        let look = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_NANOS,
        };
        loop {
            if (self.is_over)() {
                return Err(io::Error::other("interrupted"));
            }
            let mut files = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut files, Some(&look)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(source) => return Err(source.into()),
            }
        }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.file.read(buffer) {
                // Another reader of the same pipe was faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let read = read?;
                    (self.on_bytes)(read as u64);
                    return Ok(read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_with_their_numbers_and_without_blanks() {
        let text = &b"\xef\xbb\xbfa \r\n\n  b"[..];
        let mut lines = LineReader::new(Box::new(text));
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().expect("in memory") {
            seen.push(line.to_vec());
        }
        assert_eq!(seen, [&b"a"[..], b"", b"b"]);
        assert_eq!(lines.line_number(), 3);
    }
}
