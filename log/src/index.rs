//! The sparse index of a segment: sequence number to position, so that a replay from the middle
//! reads only from there.
//!
//! Kept in memory for the live segment and written beside a sealed one. It is a hint: a missing or
//! damaged index is rebuilt by reading the segment, and nothing is believed because of it.

use std::path::Path;

use base::checksum::Crc;
use base::coding::{Malformed, Reader};
use base::fs::{FileSystem, read_small_file};
use base::{Result, SequenceNumber};

use crate::reader::SegmentReader;

const MAGIC: [u8; 8] = *b"siltidx\n";
const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 24;
/// Around the entries: magic, version, count, file id and checksum.
const FRAME_BYTES: usize = 28;
/// A segment of 16 GiB with an entry each 4 KiB.
const INDEX_BYTES_MAX: u64 = 128 << 20;

/// One entry: the record at `offset` begins with `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) seq: SequenceNumber,
    pub(crate) offset: u64,
    pub(crate) commit_micros: u64,
}

/// The index of one segment; entries ascend in all three fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// Notes a record unless one less than `interval_bytes` before it is noted already.
    pub(crate) fn note(&mut self, entry: IndexEntry, interval_bytes: u64) {
        let is_due = self
            .entries
            .last()
            .is_none_or(|last| entry.offset >= last.offset.saturating_add(interval_bytes));
        if is_due {
            self.entries.push(entry);
        }
    }

    /// Where to begin reading to find the record that holds `seq`: at or before it.
    pub(crate) fn lookup(&self, seq: SequenceNumber) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// How long its file is.
    pub(crate) fn file_bytes(&self) -> u64 {
        (FRAME_BYTES + self.entries.len() * ENTRY_BYTES) as u64
    }

    fn encode(&self, file_id: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_BYTES + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let count = u32::try_from(self.entries.len()).expect("a segment is at most 16 GiB");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&file_id.to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.seq.get().to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.commit_micros.to_le_bytes());
        }
        let crc = Crc::at(file_id, 0).and(&out).finish();
        out.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(out.len() as u64, self.file_bytes());
        out
    }

    fn decode(bytes: &[u8], file_id: u64) -> Result<Self, Malformed> {
        let (covered, stored) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
        if u32::from_le_bytes(*stored) != Crc::at(file_id, 0).and(covered).finish() {
            return Err(Malformed);
        }
        let mut reader = Reader::new(covered);
        if reader.bytes(8)? != MAGIC || reader.u32()? != VERSION {
            return Err(Malformed);
        }
        let count = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        if reader.u64()? != file_id || reader.rest().len() != count.saturating_mul(ENTRY_BYTES) {
            return Err(Malformed);
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(IndexEntry {
                seq: SequenceNumber::new(reader.u64()?).ok_or(Malformed)?,
                offset: reader.u64()?,
                commit_micros: reader.u64()?,
            });
        }
        let ascends = entries.is_sorted_by(|a, b| a.seq <= b.seq && a.offset < b.offset);
        if ascends {
            Ok(Self { entries })
        } else {
            Err(Malformed)
        }
    }

    /// Writes the index beside its segment, and returns how long it is. Not synced: it can be
    /// rebuilt.
    pub(crate) fn write(&self, fs: &dyn FileSystem, path: &Path, file_id: u64) -> Result<u64> {
        match fs.remove_file(path) {
            Err(error) if !error.is_not_found() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let bytes = self.encode(file_id);
        fs.create(path)?.write_at(0, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Lets `reader` begin with the record that holds `seq`, or with one before it.
    pub(crate) fn guide(&self, reader: &mut SegmentReader, seq: SequenceNumber) -> Result<()> {
        if let Some(entry) = self.lookup(seq) {
            // An index that leads nowhere is made do without.
            reader.seek_to_record(entry.offset, entry.seq)?;
        }
        Ok(())
    }

    /// Reads the index beside a segment, or `None` if there is none that can be believed.
    pub(crate) fn load(fs: &dyn FileSystem, path: &Path, file_id: u64) -> Option<Self> {
        let bytes = read_small_file(fs, path, INDEX_BYTES_MAX).ok()?;
        Self::decode(&bytes, file_id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(value: u64) -> SequenceNumber {
        SequenceNumber::new(value).expect("small")
    }

    fn index() -> SparseIndex {
        let mut index = SparseIndex::default();
        for n in 0..100 {
            let entry = IndexEntry {
                seq: seq(10 + n),
                offset: 512 + n * 64,
                commit_micros: n,
            };
            index.note(entry, 640);
        }
        index
    }

    #[test]
    fn lookups_land_at_or_before() {
        let index = index();
        assert_eq!(index.entries.len(), 10);
        let offset_for = |value| index.lookup(seq(value)).map(|entry| entry.offset);
        assert_eq!(offset_for(9), None);
        assert_eq!(offset_for(10), Some(512));
        assert_eq!(offset_for(19), Some(512));
        assert_eq!(offset_for(20), Some(512 + 640));
        assert_eq!(offset_for(9999), Some(512 + 9 * 640));
    }

    #[test]
    fn damage_anywhere_means_no_index() {
        let bytes = index().encode(7);
        assert_eq!(SparseIndex::decode(&bytes, 7), Ok(index()));
        assert_eq!(SparseIndex::decode(&bytes, 8), Err(Malformed));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(SparseIndex::decode(&damaged, 7), Err(Malformed), "{at}");
            assert_eq!(
                SparseIndex::decode(&bytes[..at], 7),
                Err(Malformed),
                "cut at {at}"
            );
        }
    }
}
