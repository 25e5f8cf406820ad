//! Places of the damaged database that its disk does not give back.
//!
//! Whatever is asked for is returned, with bytes in their place that nobody has written: checksums
//! then find what was lost with them, and no more than that.

use std::path::PathBuf;

use base::FileKind;
use base::error::{ErrorKind, Result};
use base::fs::File;
use base::sync::Mutex;

use super::{Loss, Report};
use crate::read_only_fs::Reads;

/// What a read that failed is repeated in: no disk loses less than a sector, no cache of the
/// system reads less than a page.
const PIECE_BYTES: u64 = 4096;
/// No zeros: the end of a log looks like that.
const UNREADABLE: u8 = 0xff;

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) message: String,
}

/// Those found so far. Neighbours count as one.
#[derive(Debug, Default)]
pub(super) struct Holes(Mutex<Vec<Hole>>);

impl Holes {
    /// The first one in a file of `kind`.
    pub(super) fn find(&self, kind: FileKind) -> Option<Hole> {
        let holes = self.0.lock();
        let found = holes.iter().find(|hole| hole.kind() == Some(kind));
        found.cloned()
    }

    /// Says of each loss which place of the disk it is due to, and names those that cost nothing.
    pub(super) fn tell(&self, report: &mut Report) {
        for hole in self.0.lock().iter() {
            let mut losses = report.losses.iter_mut();
            match losses.find(|loss| hole.explains(loss)) {
                Some(loss) if loss.message.contains(&hole.message) => {}
                Some(loss) => loss.message = format!("{}: {}", loss.message, hole.message),
                None => report.remarks.push(format!(
                    "what was not to be read at {} was not needed: {}",
                    hole.offset, hole.message
                )),
            }
        }
    }

    fn note(&self, hole: Hole) {
        let mut holes = self.0.lock();
        let mut neighbours = holes.iter_mut();
        let touches = |known: &&mut Hole| {
            known.file == hole.file && hole.offset <= known.end && known.offset <= hole.end
        };
        match neighbours.find(touches) {
            Some(known) => {
                known.offset = known.offset.min(hole.offset);
                known.end = known.end.max(hole.end);
            }
            None => holes.push(hole),
        }
    }

    fn read_in_pieces(&self, file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = file.len()?.saturating_sub(offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let (mut rest, _) = buffer.split_at_mut(len);
        let mut at = offset;
        while !rest.is_empty() {
            let upto = PIECE_BYTES - at % PIECE_BYTES;
            let upto = usize::try_from(upto).map_or(rest.len(), |upto| upto.min(rest.len()));
            let (piece, behind) = rest.split_at_mut(upto);
            let end = at + piece.len() as u64;
            let message = match file.read_at(at, piece) {
                Ok(read) if read == piece.len() => None,
                Ok(_) => Some("a read ended before the file".to_owned()),
                Err(error) if error.kind() == ErrorKind::Io => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            if let Some(message) = message {
                piece.fill(UNREADABLE);
                self.note(Hole {
                    file: file.path().to_owned(),
                    offset: at,
                    end,
                    message,
                });
            }
            (at, rest) = (end, behind);
        }
        Ok(len)
    }
}

impl Reads for Holes {
    fn read_at(&self, file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match file.read_at(offset, buffer) {
            Ok(read) if read == buffer.len() || file.len()? <= offset + read as u64 => Ok(read),
            Err(error) if error.kind() != ErrorKind::Io => Err(error),
            _ => self.read_in_pieces(file, offset, buffer),
        }
    }
}

impl Hole {
    fn kind(&self) -> Option<FileKind> {
        let name = self.file.file_name().and_then(|name| name.to_str());
        name.and_then(FileKind::parse).map(|(kind, _)| kind)
    }

    /// Whether it lies in what was lost, whose length is known but for a trailer.
    fn explains(&self, loss: &Loss) -> bool {
        let lost_end = loss.bytes.map_or(u64::MAX, |bytes| {
            loss.offset
                .saturating_add(bytes)
                .saturating_add(PIECE_BYTES)
        });
        let is_whole = loss.bytes.is_none();
        let overlaps = loss.offset < self.end && self.offset < lost_end;
        loss.file == self.file && (is_whole || overlaps)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base::fs::MemoryFile;
    use base::fs::fault::{FaultError, OpKind};

    use super::*;

    /// Reads fail that touch any of these bytes.
    #[derive(Debug)]
    struct Scratched(MemoryFile, Vec<u64>);

    impl File for Scratched {
        fn path(&self) -> &Path {
            self.0.path()
        }

        fn len(&self) -> Result<u64> {
            self.0.len()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
            let end = offset + buffer.len() as u64;
            if self.1.iter().any(|at| (offset..end).contains(at)) {
                return Err(FaultError::Eio.to_error(OpKind::Read, self.path()));
            }
            self.0.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
            self.0.write_at(offset, bytes)
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.0.set_len(len)
        }

        fn reserve(&self, len: u64) -> Result<bool> {
            self.0.reserve(len)
        }

        fn sync(&self) -> Result<()> {
            self.0.sync()
        }

        fn start_writeback(&self, offset: u64, len: u64) {
            self.0.start_writeback(offset, len);
        }

        fn map(&self, access: base::fs::Access) -> Result<base::fs::Mapping> {
            self.0.map(access)
        }
    }

    #[test]
    fn only_what_the_disk_refuses_is_missing() {
        let path = Path::new("000007.sst");
        let bytes = vec![b'x'; 30_000];
        let file = Scratched(
            MemoryFile::new(path, bytes),
            vec![9_000, 12_287, 12_288, 29_999],
        );
        let holes = Holes::default();
        let mut buffer = vec![0; 40_000];
        for _ in 0..2 {
            let read = holes
                .read_at(&file, 100, &mut buffer)
                .expect("it is filled");
            assert_eq!(read, 29_900);
            for (at, byte) in (100..30_000).zip(&buffer) {
                let is_lost = (8_192..16_384).contains(&at) || at >= 28_672;
                assert_eq!(*byte == b'x', !is_lost, "{at}");
            }
        }
        let found = holes.0.lock().clone();
        let found: Vec<_> = found.iter().map(|hole| (hole.offset, hole.end)).collect();
        assert_eq!(found, [(8_192, 16_384), (28_672, 30_000)]);
        assert!(holes.find(FileKind::Table).is_some());
        assert_eq!(holes.find(FileKind::Segment), None);
    }
}
