//! The cursor over one table.
#![deny(clippy::indexing_slicing)]

use base::coding::Malformed;
use base::cursor::Cursor;
use base::sync::Arc;
use base::{Error, InternalKey, KeyKind, Result, SequenceNumber, Slice};

use crate::block::{Entry, Shape, assemble};
use crate::reader::{AHEAD_BYTES, Buffers, Place, ReadProbe, TableReader, data_shape};

/// What a cursor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ScanMode {
    /// A user's reads: checksums and cache as the reader's options say.
    #[default]
    Ordinary,
    /// Compaction, checkpoint, verification: the checksum of every block each time it is read,
    /// nothing put into the cache, a megabyte read ahead unless [`TableCursor::read_ahead`] says
    /// less.
    Bulk,
}

/// A position in a table. Keeps the table open; moves without allocating once its buffers have
/// grown to the longest key and block.
#[derive(Debug)]
pub struct TableCursor {
    reader: Arc<TableReader>,
    scan: ScanMode,
    place: Place,
    shape: Shape,
    /// Number of the current block; meaningful unless `place` is `Nowhere`.
    block: usize,
    /// Number of the current entry in it.
    at: usize,
    is_valid: bool,
    /// The block's prefix, then head and rest of the current key, then leftovers.
    key: Vec<u8>,
    key_len: usize,
    seq: SequenceNumber,
    kind: KeyKind,
    value_at: usize,
    value_len: usize,
    buffers: Buffers,
    /// Blocks loaded one behind the other in file order; a long run is a scan.
    run: u32,
    probe: ReadProbe,
}

/// Less is not read at once: a call for each block would cost more than the copy.
const AHEAD_BYTES_MIN: usize = 16 << 10;
/// Room for most keys from the start, instead of growing for prefix and rest.
const KEY_ROOM_BYTES: usize = 64;
/// After so many blocks in a row an ordinary scan begins to ask ahead.
const RUN_BEFORE_ASKING: u32 = 3;

impl TableCursor {
    pub(crate) fn new(reader: Arc<TableReader>, scan: ScanMode) -> Self {
        Self {
            reader,
            scan,
            place: Place::Nowhere,
            shape: Shape::default(),
            block: 0,
            at: 0,
            is_valid: false,
            key: Vec::with_capacity(KEY_ROOM_BYTES),
            key_len: 0,
            seq: SequenceNumber::ZERO,
            kind: KeyKind::Put,
            value_at: 0,
            value_len: 0,
            buffers: Buffers::default(),
            run: 0,
            probe: ReadProbe::default(),
        }
    }

    /// Reads at most so many bytes at once in bulk, or one block if that is longer; at least what
    /// is worth a call.
    ///
    /// Only where the table is not mapped: there the bytes lie in a buffer of the cursor.
    #[must_use]
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.buffers.window_bytes = bytes.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES);
        self
    }

    /// The table.
    pub fn reader(&self) -> &Arc<TableReader> {
        &self.reader
    }

    /// What the cursor had to touch so far.
    pub fn probe(&self) -> &ReadProbe {
        &self.probe
    }

    /// File offset of the block it stands in, for messages.
    pub fn block_offset(&self) -> u64 {
        self.reader
            .index()
            .ok()
            .and_then(|index| index.entry(self.block).ok())
            .map_or(0, |entry| entry.handle.offset)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.reader.place_bytes(&self.place, &self.buffers)
    }

    #[cold]
    fn malformed(&self) -> Error {
        self.reader
            .damaged(self.block_offset(), "data block malformed")
    }

    /// Makes `block` the current one.
    fn enter(&mut self, block: usize) -> Result<()> {
        if block == self.block && !matches!(self.place, Place::Nowhere) {
            return Ok(());
        }
        let index = self.reader.index()?;
        let entry = index
            .entry(block)
            .map_err(|Malformed| self.reader.damaged_index())?;
        self.run = if block == self.block + 1 {
            self.run + 1
        } else {
            0
        };
        // If loading fails, there is no current block.
        self.place = Place::Nowhere;
        let (buffers, probe) = (&mut self.buffers, &mut self.probe);
        let place = match self.scan {
            ScanMode::Bulk => self.reader.place_bulk(block, entry, buffers, probe)?,
            ScanMode::Ordinary => {
                if self.run > RUN_BEFORE_ASKING {
                    self.reader.ask_for_scan(entry.handle, buffers);
                }
                self.reader.place(block, entry, buffers, probe)?
            }
        };
        let bytes = self.reader.place_bytes(&place, &self.buffers);
        let shape = data_shape(bytes).map_err(|Malformed| {
            self.reader
                .damaged(entry.handle.offset, "data block malformed")
        })?;
        let prefix = shape.prefix(bytes);
        if self.key.len() < prefix.len() {
            self.key.resize(prefix.len(), 0);
        }
        if let Some(start) = self.key.get_mut(..prefix.len()) {
            start.copy_from_slice(prefix);
        }
        self.shape = shape;
        self.block = block;
        self.place = place;
        Ok(())
    }

    /// Stands on entry `at` of the current block.
    #[inline]
    fn stand(&mut self, at: usize) -> Result<bool> {
        let bytes = self.reader.place_bytes(&self.place, &self.buffers);
        let entry: Entry<'_> = match self.shape.entry(bytes, at) {
            Ok(entry) => entry,
            Err(Malformed) => return Err(self.malformed()),
        };
        self.key_len = assemble(&mut self.key, self.shape.prefix_len(), &entry);
        self.seq = entry.seq;
        self.kind = entry.kind;
        self.value_at = entry.value_at;
        self.value_len = entry.value.len();
        self.at = at;
        self.is_valid = true;
        Ok(true)
    }

    fn next_block(&mut self) -> Result<bool> {
        if self.block + 1 >= self.reader.block_count() {
            return Ok(false);
        }
        self.enter(self.block + 1)?;
        self.stand(0)
    }

    fn prev_block(&mut self) -> Result<bool> {
        let Some(block) = self.block.checked_sub(1) else {
            return Ok(false);
        };
        self.enter(block)?;
        self.stand(self.shape.count() - 1)
    }

    /// Number of the block in which `target` would stand.
    #[inline]
    fn block_of(&mut self, target: &InternalKey<'_>) -> Result<usize> {
        self.probe.index_blocks += 1;
        let index = self.reader.index()?;
        index
            .seek(target.user_key, target.seq)
            .map_err(|Malformed| self.reader.damaged_index())
    }
}

impl Cursor for TableCursor {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.is_valid = false;
        self.enter(0)?;
        self.stand(0)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.is_valid = false;
        self.enter(self.reader.block_count() - 1)?;
        self.stand(self.shape.count() - 1)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        self.is_valid = false;
        let block = self.block_of(&target)?;
        if block == self.reader.block_count() {
            return Ok(false);
        }
        self.enter(block)?;
        let at = match self
            .shape
            .lower_bound(self.bytes(), target.user_key, target.seq)
        {
            Ok(at) => at,
            Err(Malformed) => return Err(self.malformed()),
        };
        if at < self.shape.count() {
            self.stand(at)
        } else {
            // Between the last key of the block and its separator.
            self.next_block()
        }
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        self.is_valid = false;
        let block = self.block_of(&target)?;
        if block == self.reader.block_count() {
            return self.seek_to_last();
        }
        self.enter(block)?;
        match self
            .shape
            .upper_bound(self.bytes(), target.user_key, target.seq)
        {
            Ok(0) => self.prev_block(),
            Ok(after) => self.stand(after - 1),
            Err(Malformed) => Err(self.malformed()),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        debug_assert!(self.is_valid, "the cursor stands on an entry");
        self.is_valid = false;
        if self.at + 1 < self.shape.count() {
            self.stand(self.at + 1)
        } else {
            self.next_block()
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        debug_assert!(self.is_valid, "the cursor stands on an entry");
        self.is_valid = false;
        match self.at.checked_sub(1) {
            Some(at) => self.stand(at),
            None => self.prev_block(),
        }
    }

    #[inline]
    fn is_valid(&self) -> bool {
        self.is_valid
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        assert!(self.is_valid, "the cursor stands on an entry");
        let user_key = self.key.get(..self.key_len).unwrap_or_default();
        InternalKey::new(user_key, self.seq, self.kind)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        assert!(self.is_valid, "the cursor stands on an entry");
        self.bytes()
            .get(self.value_at..self.value_at + self.value_len)
            .unwrap_or_default()
    }

    /// To the end of the block at most. A damaged block gives any count within it.
    fn ahead_before(&self, target: Option<InternalKey<'_>>) -> usize {
        let behind = self.at + 1;
        let end = match target {
            None => self.shape.count(),
            // Moving on meets the damage and says so.
            Some(target) => self
                .shape
                .lower_bound(self.bytes(), target.user_key, target.seq)
                .unwrap_or(0),
        };
        end.saturating_sub(behind)
    }

    fn value_slice(&self) -> Slice {
        match &self.place {
            Place::Map { start, .. } => {
                assert!(self.is_valid, "the cursor stands on an entry");
                Slice::pinned(&self.reader, (start + self.value_at) as u64, self.value_len)
            }
            Place::Shared(block) => {
                assert!(self.is_valid, "the cursor stands on an entry");
                block.slice(self.value_at, self.value_len)
            }
            Place::Nowhere | Place::Window { .. } | Place::Own => Slice::copy_from(self.value()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
