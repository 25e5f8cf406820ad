//! Copying records that may only be in the page cache into a segment that is on the disk.
//!
//! What a kill or a failed sync left in the page cache reads well and may still be lost; nothing is
//! derived from it before it is durable, and syncing the old file again proves nothing. Records
//! that nobody needs any more are copied as well, so that the history has no gap for its readers.

use base::{Error, FileKind, Result, SequenceNumber};

use super::survey::Surveyed;
use super::{CopyCost, RecoverConfig, copy_config};
use crate::index::{IndexEntry, SparseIndex};
use crate::reader::SegmentReader;
use crate::record::{Anchor, RecordKind, RecordMeta};
use crate::segment::{Predecessor, SealedSegment, SegmentWriter, end_meta};
use crate::writer::create_segment;

/// What the operating system writes at a time.
const PAGE_BYTES: u64 = 4096;

/// Where a copy goes.
pub(super) struct Place {
    pub(super) ordinal: u64,
    /// What it follows.
    pub(super) before: Option<Predecessor>,
    /// When that was last written to.
    pub(super) commit_micros: u64,
}

/// What was copied into.
pub(super) struct Copy {
    pub(super) segment: SealedSegment,
    pub(super) cost: CopyCost,
}

/// Copies what counts of `sources`, oldest first, into one complete and durable segment.
pub(super) fn copy(
    config: &RecoverConfig<'_>,
    sources: &[Surveyed],
    place: &Place,
) -> Result<Copy> {
    let anchor = match sources.first() {
        Some(source) => {
            let path = FileKind::Segment.path(&config.dir, source.info.number);
            SegmentReader::open(&*config.fs, &path)?.header().anchor
        }
        None => Anchor::default(),
    };
    let writer = create_segment(&copy_config(config), place.ordinal, anchor, 0, true)?;
    let header = writer.header();
    let first_seq = sources
        .first()
        .map_or(SequenceNumber::ZERO, |source| source.info.first_seq);
    let info = SealedSegment {
        number: header.number,
        file_id: header.file_id,
        ordinal: place.ordinal,
        bytes: 0,
        first_seq,
        last_seq: place.before.map_or(first_seq.before(), |b| b.last_seq),
        last_commit_micros: place.commit_micros,
    };
    let mut copying = Copying {
        writer,
        index: SparseIndex::default(),
        info,
    };
    copying.begin(place.before.as_ref())?;
    for source in sources {
        copying.add(config, &source.info)?;
    }
    copying.finish(config)
}

struct Copying {
    writer: SegmentWriter,
    index: SparseIndex,
    info: SealedSegment,
}

impl Copying {
    fn begin(&mut self, before: Option<&Predecessor>) -> Result<()> {
        let meta = RecordMeta {
            kind: RecordKind::Begin,
            first_seq: self.info.first_seq,
            op_count: 0,
            commit_micros: self.info.last_commit_micros,
            durable_upto: None,
        };
        let payload = Predecessor::encode(before);
        self.writer.append(meta, &payload).map(|_| ())
    }

    fn add(&mut self, config: &RecoverConfig<'_>, source: &SealedSegment) -> Result<()> {
        let path = FileKind::Segment.path(&config.dir, source.number);
        let mut reader = SegmentReader::open(&*config.fs, &path)?;
        reader.set_limit(source.bytes);
        while let Some(record) = reader.next()? {
            // Where it was durable meant another file.
            let meta = RecordMeta {
                durable_upto: None,
                ..record.meta
            };
            if meta.kind == RecordKind::Begin {
                continue;
            }
            let entry = IndexEntry {
                seq: meta.first_seq,
                offset: self.writer.bytes(),
                commit_micros: meta.commit_micros,
            };
            self.writer.append(meta, record.payload)?;
            self.index.note(entry, super::INDEX_INTERVAL_BYTES);
            self.info.last_seq = self.info.last_seq.max(meta.last_seq());
            self.info.last_commit_micros = meta.commit_micros;
        }
        let end = reader.position().offset;
        if end >= source.bytes {
            return Ok(());
        }
        // It was whole a moment ago.
        Err(
            Error::corruption(path, end, "the log reads differently the second time")
                .with_value("expected_bytes", source.bytes),
        )
    }

    fn finish(mut self, config: &RecoverConfig<'_>) -> Result<Copy> {
        self.info.bytes = self.writer.bytes();
        let end = end_meta(self.info.last_commit_micros, self.info.last_seq.plus(1));
        self.writer.append(end, &[])?;
        self.writer.sync()?;
        let path = FileKind::SegmentIndex.path(&config.dir, self.info.number);
        // A hint: who reads the segment does without, and the next call tells of a failing disk.
        let index = self.index.write(&*config.fs, &path, self.info.file_id);
        let bytes = self.writer.bytes();
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
        Ok(Copy {
            segment: self.info,
            cost: CopyCost {
                bytes,
                // The header was synced by itself, so that its page is written twice.
                page_bytes: PAGE_BYTES + pages(bytes) + pages(index.unwrap_or(0)),
            },
        })
    }
}
