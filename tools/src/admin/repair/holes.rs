//! Places of the damaged database that its disk does not give back.
//!
//! Whatever is asked for is returned, with bytes in their place that nobody has written: checksums
//! then find what was lost with them, and no more than that.

use std::path::{Path, PathBuf};

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
pub(crate) struct Holes(Mutex<Vec<Hole>>);

impl Holes {
    /// The first one in a file of `kind`.
    pub(super) fn find(&self, kind: FileKind) -> Option<Hole> {
        let holes = self.0.lock();
        let found = holes.iter().find(|hole| hole.kind() == Some(kind));
        found.cloned()
    }

    /// What the disk said of one between two places of the file at `path`.
    pub(crate) fn message_in(&self, path: &Path, from: u64, to: u64) -> Option<String> {
        let holes = self.0.lock();
        let found = holes
            .iter()
            .find(|hole| hole.file == path && hole.offset < to && from < hole.end);
        found.map(|hole| hole.message.clone())
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
    use base::fs::fault::{FaultError, OpKind};
    use base::fs::{FileSystem, OsFs};
    use base::sync::Arc;

    use super::*;
    use crate::read_only_fs::ReadOnlyFs;

    /// Reads fail that touch any of these bytes.
    #[derive(Debug)]
    struct Scratches(Vec<u64>);

    impl Reads for Scratches {
        fn read_at(&self, file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
            let end = offset + buffer.len() as u64;
            if self.0.iter().any(|at| (offset..end).contains(at)) {
                return Err(FaultError::Eio.to_error(OpKind::Read, file.path()));
            }
            file.read_at(offset, buffer)
        }
    }

    #[test]
    fn only_what_the_disk_refuses_is_missing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("000007.sst");
        let written = OsFs.create(&path).expect("a new file");
        written.write_at(0, &vec![b'x'; 30_000]).expect("written");
        let scratches = Arc::new(Scratches(vec![9_000, 12_287, 12_288, 29_999]));
        let disk = ReadOnlyFs::read_through(Arc::new(OsFs), scratches);
        let file = disk.open(&path).expect("it is there");
        let holes = Holes::default();
        let mut buffer = vec![0; 40_000];
        for _ in 0..2 {
            let read = holes
                .read_at(&*file, 100, &mut buffer)
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
        assert!(holes.message_in(&path, 0, 9_000).is_some());
        assert_eq!(holes.message_in(&path, 16_384, 28_672), None);
        assert_eq!(holes.find(FileKind::Segment), None);
    }
}
