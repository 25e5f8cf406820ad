//! The segment that is being written, and how a new one is made.

use base::fs::LiveMap;
use base::sync::Mutex;
use base::{FileKind, Result, SequenceNumber, WriteOutcome};

use super::{LogAppend, LogConfig, State};
use crate::index::{IndexEntry, SparseIndex};
use crate::record::{self, Anchor, Position, RecordKind, RecordMeta};
use crate::segment::{
    END_BYTES_MAX, Form, Place, Predecessor, SEGMENT_HEADER_BYTES, SealedSegment, SegmentHeader,
    SegmentWriter,
};

/// The payload of a begin record is shorter.
pub(super) const BEGIN_BYTES_MAX: usize = 256;

/// A begun segment and what is known of its content.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) writer: SegmentWriter,
    pub(super) index: SparseIndex,
    pub(super) first_seq: SequenceNumber,
    pub(super) last_seq: SequenceNumber,
    pub(super) record_count: u64,
}

/// A segment that has its end record, but is not known to be durable; records before the end may
/// still be filled.
#[derive(Debug)]
pub(super) struct Rotated {
    pub(super) live: Live,
    pub(super) info: SealedSegment,
    /// Its mapping, until it is sealed: unmapping takes long, and is not for the write path.
    pub(super) map: Mutex<Option<LiveMap>>,
}

impl Rotated {
    /// Unmaps it, which takes long. Returns whether the mapping is gone: it is once every record
    /// was filled and nobody makes its pages ready any more.
    pub(super) fn unmap(&self) -> bool {
        let map = self.map.lock().take();
        map.is_none_or(LiveMap::close)
    }

    /// Gives back unused space and writes the index; the records are durable already. While it is
    /// cut, `ahead` is held: nobody reserves more.
    pub(super) fn write_out(
        &self,
        config: &LogConfig,
        ahead: &Mutex<()>,
        is_unmapped: bool,
    ) -> Result<()> {
        let given_back = {
            let _ahead = ahead.lock();
            self.live.give_back(is_unmapped)
        };
        given_back.and(self.live.write_index(config))
    }
}

impl Live {
    pub(super) fn new(writer: SegmentWriter, first_seq: SequenceNumber) -> Self {
        Self {
            writer,
            index: SparseIndex::default(),
            first_seq,
            last_seq: first_seq.before(),
            record_count: 0,
        }
    }

    /// Writes the begin record and returns its commit time, no earlier than `commit_micros`.
    pub(super) fn begin(
        &mut self,
        config: &LogConfig,
        before: Option<&Predecessor>,
        commit_micros: u64,
        durable_upto: Option<Position>,
    ) -> Result<u64> {
        let commit_micros = commit_micros.max(config.clock.now_micros());
        let meta = RecordMeta {
            kind: RecordKind::Begin,
            first_seq: self.first_seq,
            op_count: 0,
            commit_micros,
            durable_upto,
        };
        self.writer.append(meta, &Predecessor::encode(before))?;
        Ok(commit_micros)
    }

    /// Hands out the place of a record, and notes it.
    pub(super) fn place(
        &mut self,
        config: &LogConfig,
        meta: &RecordMeta,
        payload_len: usize,
        form: Form,
    ) -> Place {
        let entry = IndexEntry {
            seq: meta.first_seq,
            offset: self.writer.bytes(),
            commit_micros: meta.commit_micros,
        };
        self.index.note(entry, config.index_interval_bytes);
        self.last_seq = self.last_seq.max(meta.last_seq());
        self.record_count += 1;
        self.writer.place(meta, payload_len, form)
    }

    pub(super) fn info(&self, commit_micros: u64) -> SealedSegment {
        let header = self.writer.header();
        SealedSegment {
            number: header.number,
            file_id: header.file_id,
            ordinal: header.ordinal,
            bytes: self.writer.bytes(),
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            last_commit_micros: commit_micros,
        }
    }

    /// Cuts what was reserved and not used.
    pub(super) fn give_back(&self, is_unmapped: bool) -> Result<()> {
        // INVARIANT: nothing is truncated while it is mapped. Every place was filled and given
        // back; were one still held, the space would stay reserved, which is no error.
        if is_unmapped {
            self.writer.give_back()
        } else {
            Ok(())
        }
    }

    pub(super) fn write_index(&self, config: &LogConfig) -> Result<()> {
        let header = self.writer.header();
        let path = FileKind::SegmentIndex.path(&config.dir, header.number);
        let written = self.index.write(&*config.fs, &path, header.file_id);
        written.map(drop)
    }
}

impl LogConfig {
    /// What the records of a segment that is made now are counted from.
    pub(super) fn anchor(&self, seq: SequenceNumber, commit_micros: u64) -> Anchor {
        Anchor {
            seq,
            commit_micros: commit_micros.max(self.clock.now_micros()),
        }
    }
}

impl State {
    /// What the records of a segment are counted from that is made while this one is written.
    pub(super) fn anchor(&self, config: &LogConfig) -> Anchor {
        config.anchor(self.live.last_seq, self.commit_micros)
    }
}

/// Creates a segment whose header and name are durable on return, with space for `needed` bytes or
/// the first step, whichever is more.
///
/// # Errors
/// With outcome `Rejected`: nothing counts that was not begun.
pub(crate) fn create_segment(
    config: &LogConfig,
    ordinal: u64,
    anchor: Anchor,
    needed: u64,
    is_copy: bool,
) -> Result<SegmentWriter> {
    let number = (config.numbers)();
    let header = SegmentHeader {
        file_id: config.fs.random_u64(),
        database_id: config.database_id,
        epoch: config.epoch,
        number,
        ordinal,
        created_micros: config.clock.now_micros(),
        anchor,
        is_copy,
    };
    let path = FileKind::Segment.path(&config.dir, number);
    let framing = SEGMENT_HEADER_BYTES + record::framed_bytes_max(BEGIN_BYTES_MAX) + END_BYTES_MAX;
    let reserve = if config.reserve {
        config.reserved_upto(needed.max(framing))
    } else {
        0
    };
    let rejected = |error: base::Error| error.with_outcome(WriteOutcome::Rejected);
    let file = config.fs.create(&path).map_err(rejected)?;
    let make = || {
        let mut writer = SegmentWriter::begin(file, header, reserve)?;
        writer.sync()?;
        config.fs.sync_dir(&config.dir)?;
        if config.append != LogAppend::Positioned {
            // All that it can become: a mapping cannot grow.
            writer.map(config.segment_bytes.max(reserve));
        }
        Ok(writer)
    };
    make().map_err(|error| {
        // Recovery passes it over and removes it as well; this only frees its space sooner.
        let _ = config.fs.remove_file(&path);
        rejected(error)
    })
}
