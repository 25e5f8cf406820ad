//! Copying records that may only be in the page cache into a segment that is on the disk.
//!
//! What a kill or a failed sync left in the page cache reads well and may still be lost; nothing is
//! derived from it before it is durable, and syncing the old file again proves nothing.

use base::{FileKind, Result, SequenceNumber};

use super::RecoverConfig;
use crate::index::{IndexEntry, SparseIndex};
use crate::reader::SegmentReader;
use crate::record::{RecordKind, RecordMeta};
use crate::segment::{Predecessor, SealedSegment, end_meta};
use crate::writer::{LogConfig, create_segment};

/// Copies what is needed of `sources`, oldest first, into one complete and durable segment that
/// follows `before`.
pub(super) fn copy(
    config: &RecoverConfig<'_>,
    log: &LogConfig,
    sources: &[SealedSegment],
    before: Option<Predecessor>,
    ordinal: u64,
) -> Result<SealedSegment> {
    let mut writer = create_segment(log, ordinal, 0, true)?;
    let header = writer.header().clone();
    let first_seq = sources
        .first()
        .map_or(SequenceNumber::ZERO, |source| source.first_seq);
    let mut copied = SealedSegment {
        number: header.number,
        file_id: header.file_id,
        ordinal,
        bytes: 0,
        first_seq,
        last_seq: before.map_or(SequenceNumber::ZERO, |before| before.last_seq),
        last_commit_micros: 0,
    };
    let begin = RecordMeta {
        kind: RecordKind::Begin,
        first_seq,
        op_count: 0,
        commit_micros: config.clock.now_micros(),
        durable_upto: None,
    };
    writer.append(begin, &Predecessor::encode(before.as_ref()))?;
    let mut index = SparseIndex::default();
    for source in sources {
        let path = FileKind::Segment.path(&config.dir, source.number);
        let mut reader = SegmentReader::open(&*config.fs, &path)?;
        reader.set_limit(source.bytes);
        while let Some(record) = reader.next()? {
            let meta = RecordMeta {
                durable_upto: None,
                ..record.meta
            };
            if meta.kind == RecordKind::Begin || meta.last_seq() <= config.floor {
                continue;
            }
            let offset = writer.bytes();
            writer.append(meta, record.payload)?;
            let commit_micros = meta.commit_micros;
            let entry = IndexEntry {
                seq: meta.first_seq,
                offset,
                commit_micros,
            };
            index.note(entry, log.index_interval_bytes);
            copied.last_seq = copied.last_seq.max(meta.last_seq());
            copied.last_commit_micros = meta.commit_micros;
        }
    }
    copied.bytes = writer.bytes();
    writer.append(
        end_meta(copied.last_commit_micros, copied.last_seq.plus(1)),
        &[],
    )?;
    writer.sync()?;
    let path = FileKind::SegmentIndex.path(&config.dir, header.number);
    index.write(&*config.fs, &path, header.file_id)?;
    Ok(copied)
}
