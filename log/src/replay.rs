//! Replaying sealed segments from a sequence number on.

use std::path::{Path, PathBuf};

use base::fs::FileSystem;
use base::{Error, FileKind, Result, SequenceNumber};

use crate::index::SparseIndex;
use crate::reader::SegmentReader;
use crate::record::{Order, Record, RecordKind};
use crate::segment::SealedSegment;

/// Reads the records of sealed segments in order, beginning with the one that holds a given
/// sequence number. Reads only what the index of the first segment leads it to, and what follows.
pub struct Replay<'a> {
    fs: &'a dyn FileSystem,
    dir: PathBuf,
    left: std::vec::IntoIter<SealedSegment>,
    current: Option<(SegmentReader, SealedSegment)>,
    from: SequenceNumber,
    order: Order,
}

impl std::fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("dir", &self.dir)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl<'a> Replay<'a> {
    /// Begins with the record that holds `from` or the first after it.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn open(
        fs: &'a dyn FileSystem,
        dir: &Path,
        segments: &[SealedSegment],
        from: SequenceNumber,
    ) -> Result<Self> {
        let needed: Vec<_> = segments
            .iter()
            .filter(|segment| segment.last_seq >= from)
            .copied()
            .collect();
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            left: needed.into_iter(),
            current: None,
            from,
            order: Order::default(),
        })
    }

    /// The next record of operations, or `None` after the last.
    ///
    /// # Errors
    /// `Corruption` if a segment ends before it should, or if a record has a sequence number that
    /// one before it had, naming file and offset.
    #[expect(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        let at = loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let from = self.from;
            let (reader, segment) = self.current.as_mut().expect("opened above");
            let at = reader.position();
            match reader.next()?.map(|record| record.meta) {
                Some(meta) if meta.kind == RecordKind::Begin || meta.last_seq() < from => {}
                Some(_) => break at,
                None if at.offset >= segment.bytes => self.current = None,
                None => {
                    return Err(Error::corruption(
                        reader.path(),
                        at.offset,
                        "the log ends early; restore it from a copy, see `siltstone verify`",
                    )
                    .with_value("expected_bytes", segment.bytes));
                }
            }
        };
        let (reader, _) = self
            .current
            .as_ref()
            .expect("the loop ends on a record of it");
        let record = reader.again(at);
        self.order.follow(reader.path(), &record)?;
        Ok(Some(record))
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(segment) = self.left.next() else {
            return Ok(false);
        };
        let path = FileKind::Segment.path(&self.dir, segment.number);
        let mut reader = SegmentReader::open(self.fs, &path)?;
        if reader.header().file_id != segment.file_id {
            return Err(Error::corruption(
                path,
                0,
                "another segment lies under this name",
            ));
        }
        reader.set_limit(segment.bytes);
        if segment.first_seq < self.from {
            let index = FileKind::SegmentIndex.path(&self.dir, segment.number);
            if let Some(index) = SparseIndex::load(self.fs, &index, segment.file_id) {
                index.guide(&mut reader, self.from)?;
            }
        }
        self.current = Some((reader, segment));
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
