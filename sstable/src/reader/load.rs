//! How blocks get from the file to whoever searches them.
#![deny(clippy::indexing_slicing)]

use std::cell::RefCell;

use base::Result;
use base::coding::Malformed;
use base::fs::{File, Mapping};
use base::sync::Arc;
use base::sync::atomic::Ordering;

use super::resident::check_raw;
use super::{BlockSource, FilterState, ReadProbe, SearchedBlock, Source, TableReader, Verify};
use crate::block::Shape;
use crate::bytes;
use crate::cache::{BlockKey, CachedBlock};
use crate::compression::{self, RAW, ZSTD_DICTIONARY};
use crate::dictionary::{self, Dictionary};
use crate::filter::{Filter, Refusal};
use crate::format::{self, BlockHandle, Stored, TRAILER_BYTES};
use crate::index::{Index, IndexEntry};

/// A bulk scan reads, or asks for, this many bytes at once unless it is told to take less.
pub(crate) const AHEAD_BYTES: usize = 1 << 20;
/// Scratch space beyond this is given back.
const SCRATCH_KEEP_BYTES: usize = 1 << 20;

thread_local! {
    /// Compressed bytes on their way from a file.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A data block, uncompressed, ready to be searched.
#[derive(Debug)]
pub(crate) enum Loaded<'a> {
    /// Where it lies in the mapping.
    Mapped(&'a [u8]),
    /// In memory, perhaps in the cache, and where it was had from.
    Shared(Arc<CachedBlock>, BlockSource),
}

/// Where a cursor's current block is. Not a reference: a cursor owns its table.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Nowhere,
    /// In the mapping of the table.
    Map {
        start: usize,
        len: usize,
    },
    /// In the read-ahead window of its [`Buffers`].
    Window {
        start: usize,
        len: usize,
    },
    /// In the block buffer of its [`Buffers`].
    Own,
    /// In memory of its own, perhaps in the cache.
    Shared(Arc<CachedBlock>),
}

/// What a cursor reads into. Kept from block to block, so that a step allocates nothing.
#[derive(Debug)]
pub(crate) struct Buffers {
    block: Vec<u8>,
    window: Vec<u8>,
    /// How much a bulk scan reads at once, if no block is longer.
    pub(crate) window_bytes: usize,
    /// File offset of the window's first byte.
    window_at: u64,
    /// Up to here a mapped bulk scan has asked for pages.
    asked_upto: u64,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            block: Vec::new(),
            window: Vec::new(),
            window_bytes: AHEAD_BYTES,
            window_at: 0,
            asked_upto: 0,
        }
    }
}

impl TableReader {
    /// The index, checked when it is first touched.
    #[inline]
    pub(crate) fn index(&self) -> Result<Index<'_>> {
        let bytes = match (&self.resident, &self.source) {
            (Some(resident), _) => &resident.index[..],
            (None, Source::Mapped(map)) => self.mapped(map, self.footer.index)?,
            (None, Source::Positioned(_)) => unreachable!("a positioned table keeps its index"),
        };
        let shape = match self.index_shape.get() {
            Some(shape) => shape,
            None => self.check_index(bytes)?,
        };
        Ok(Index::new(shape, bytes, self.footer.data_end))
    }

    #[cold]
    fn check_index(&self, bytes: &[u8]) -> Result<&Shape> {
        let handle = self.footer.index;
        if self.resident.is_none()
            && let Source::Mapped(map) = &self.source
        {
            let stored = self.mapped_stored(map, handle)?;
            check_raw(stored, handle, &self.footer, &self.path)?;
        }
        let shape =
            Shape::of(bytes).map_err(|Malformed| self.damaged(handle.offset, "index malformed"))?;
        if shape.count() != self.block_count() {
            return Err(self
                .damaged(handle.offset, "index does not have one entry a block")
                .with_value("entries", shape.count())
                .with_value("blocks", self.block_count()));
        }
        // Another thread may have been first; both found the same.
        Ok(self.index_shape.get_or_init(|| shape))
    }

    #[inline]
    pub(super) fn filter(&self) -> &FilterState {
        self.filter.get_or_init(|| self.load_filter())
    }

    /// The filter block without its trailer, once [`TableReader::filter`] is ready.
    #[inline]
    pub(super) fn filter_block(&self) -> &[u8] {
        match (&self.resident, &self.source, self.footer.filter) {
            (Some(resident), _, _) => resident.filter.as_deref().unwrap_or_default(),
            (None, Source::Mapped(map), Some(handle)) => {
                self.mapped(map, handle).unwrap_or_default()
            }
            _ => &[],
        }
    }

    #[cold]
    fn load_filter(&self) -> FilterState {
        let Some(handle) = self.footer.filter else {
            return FilterState::None;
        };
        if self.resident.is_none()
            && let Source::Mapped(map) = &self.source
        {
            let checked = self
                .mapped_stored(map, handle)
                .and_then(|stored| check_raw(stored, handle, &self.footer, &self.path));
            if let Err(error) = checked {
                return FilterState::Damaged(error);
            }
        }
        match Filter::read(self.filter_block(), self.footer.hash_seed) {
            Ok(filter) => {
                self.charge(filter.heap_bytes());
                FilterState::Ready(filter)
            }
            Err(Refusal::Malformed) => {
                FilterState::Damaged(self.damaged(handle.offset, "filter malformed"))
            }
            Err(Refusal::UnknownPolicy(policy)) => FilterState::Damaged(
                format::unsupported(&self.path, "filter of an unknown policy")
                    .with_value("found", policy),
            ),
        }
    }

    /// Payload of the block at `handle` in the mapping, unchecked.
    #[inline]
    fn mapped<'a>(&self, map: &'a Mapping, handle: BlockHandle) -> Result<&'a [u8]> {
        usize::try_from(handle.offset)
            .ok()
            .and_then(|start| map.get(start..start.checked_add(handle.len as usize)?))
            .ok_or_else(|| self.damaged(handle.offset, "block exceeds the table"))
    }

    /// The block at `handle` in the mapping with its trailer.
    #[inline]
    fn mapped_stored<'a>(&self, map: &'a Mapping, handle: BlockHandle) -> Result<&'a [u8]> {
        usize::try_from(handle.offset)
            .ok()
            .and_then(|start| map.get(start..start.checked_add(handle.stored_len())?))
            .ok_or_else(|| self.damaged(handle.offset, "block exceeds the table"))
    }

    /// Data block number `at`, which lies at `entry`: in place if it can be, else from the cache
    /// or the file.
    #[inline]
    pub(crate) fn load(&self, at: usize, entry: IndexEntry) -> Result<Loaded<'_>> {
        if let Source::Mapped(map) = &self.source
            && entry.compression == RAW
        {
            let bytes = self.mapped(map, entry.handle)?;
            Shape::prefetch(bytes);
            if !self.is_trusted(at) {
                self.check_mapped(map, at, entry)?;
            }
            return Ok(Loaded::Mapped(bytes));
        }
        let (block, source) = self.load_shared(entry)?;
        Ok(Loaded::Shared(block, source))
    }

    /// The block at `entry` where it lies in the mapping, unchecked; `None` if it is not there as
    /// it is searched.
    #[inline]
    pub(super) fn in_place(&self, entry: IndexEntry) -> Option<&[u8]> {
        match &self.source {
            Source::Mapped(map) if entry.compression == RAW => self.mapped(map, entry.handle).ok(),
            _ => None,
        }
    }

    /// Whether data block `at` may be searched in the mapping without being checked before.
    #[inline]
    pub(super) fn is_trusted(&self, at: usize) -> bool {
        self.verify != Verify::Always && self.is_checked(at)
    }

    #[inline]
    fn is_checked(&self, at: usize) -> bool {
        // Relaxed: the bytes never change, so that a stale value costs a second check and no more.
        self.checked
            .get(at / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }

    #[cold]
    fn check_mapped(&self, map: &Mapping, at: usize, entry: IndexEntry) -> Result<()> {
        let stored = self.mapped_stored(map, entry.handle)?;
        self.check_data(stored, entry)?;
        if let Some(word) = self.checked.get(at / 64) {
            word.fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Compares checksum and compression of a data block; returns it without its trailer.
    fn check_data<'a>(&self, stored: &'a [u8], entry: IndexEntry) -> Result<&'a [u8]> {
        let offset = entry.handle.offset;
        let stored = Stored::split(stored)
            .map_err(|Malformed| self.damaged(offset, "data block malformed"))?;
        stored.check(&self.path, self.footer.file_id, offset)?;
        if stored.tag != entry.compression {
            return Err(self
                .damaged(offset, "block is not stored as the index says")
                .with_value("block", stored.tag)
                .with_value("index", entry.compression));
        }
        Ok(stored.payload)
    }

    fn load_shared(&self, entry: IndexEntry) -> Result<(Arc<CachedBlock>, BlockSource)> {
        let key = BlockKey {
            table: self.cache_key,
            offset: entry.handle.offset,
        };
        let load = || {
            let mut bytes = Vec::new();
            self.read_block(entry, &mut bytes)?;
            Ok(bytes)
        };
        let Some(cache) = &self.cache else {
            let block = CachedBlock::uncached(load()?, Arc::clone(&self.pins));
            return Ok((block, BlockSource::Uncached));
        };
        let (block, was_there) = cache.get_or_load(key, &self.pins, load)?;
        let source = if was_there {
            BlockSource::Cached
        } else {
            BlockSource::Missed
        };
        Ok((block, source))
    }

    /// The block at `entry`, checked and uncompressed, into `out`.
    fn read_block(&self, entry: IndexEntry, out: &mut Vec<u8>) -> Result<()> {
        match &self.source {
            Source::Mapped(map) => {
                let payload = self.check_data(self.mapped_stored(map, entry.handle)?, entry)?;
                self.expand(payload, entry, out)
            }
            Source::Positioned(file) if entry.compression == RAW => {
                bytes::zeroed(out, entry.handle.stored_len(), &self.path)?;
                file.read_exact_at(entry.handle.offset, out)?;
                self.check_data(out, entry)?;
                out.truncate(entry.handle.len as usize);
                Ok(())
            }
            Source::Positioned(file) => SCRATCH.with_borrow_mut(|scratch| {
                bytes::zeroed(scratch, entry.handle.stored_len(), &self.path)?;
                file.read_exact_at(entry.handle.offset, scratch)?;
                let payload = self.check_data(scratch, entry)?;
                self.expand(payload, entry, out)?;
                if scratch.capacity() > SCRATCH_KEEP_BYTES {
                    *scratch = Vec::new();
                }
                Ok(())
            }),
        }
    }

    fn expand(&self, payload: &[u8], entry: IndexEntry, out: &mut Vec<u8>) -> Result<()> {
        if entry.compression == RAW {
            bytes::reserve(out, payload.len(), &self.path)?;
            out.extend_from_slice(payload);
            return Ok(());
        }
        let dictionary = self.dictionary_of(entry)?;
        compression::decompress(payload, dictionary, out, &self.path, entry.handle.offset)
    }

    /// What the block at `entry` was compressed with, if it was a dictionary.
    fn dictionary_of(&self, entry: IndexEntry) -> Result<Option<&Dictionary>> {
        if entry.compression != ZSTD_DICTIONARY {
            return Ok(None);
        }
        if let Some(ready) = self.dictionary.get() {
            return Ok(Some(ready));
        }
        let ready = self.load_dictionary()?.ok_or_else(|| {
            self.damaged(
                entry.handle.offset,
                "block needs a dictionary, the table has none",
            )
        })?;
        // Another thread may have been first; both read the same bytes.
        let first = || {
            self.charge(ready.heap_bytes());
            ready
        };
        Ok(Some(self.dictionary.get_or_init(first)))
    }

    /// Reads the table's dictionary, if it has one.
    #[cold]
    pub(super) fn load_dictionary(&self) -> Result<Option<Dictionary>> {
        let Some(handle) = self.footer.dictionary else {
            return Ok(None);
        };
        let stored_max = dictionary::DICTIONARY_BYTES_MAX + dictionary::ENVELOPE_BYTES;
        if handle.len as usize > stored_max {
            return Err(self.damaged(handle.offset, "dictionary is too long"));
        }
        match Dictionary::read(&self.read_raw(handle)?) {
            Ok(ready) => Ok(Some(ready)),
            Err(dictionary::Refusal::Malformed) => {
                Err(self.damaged(handle.offset, "dictionary malformed"))
            }
            Err(dictionary::Refusal::UnknownKind(kind)) => Err(format::unsupported(
                &self.path,
                "dictionary of an unknown kind",
            )
            .with_value("found", kind)),
        }
    }

    /// Reads the block at `handle`, which is never compressed, into memory.
    pub(super) fn read_raw(&self, handle: BlockHandle) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match &self.source {
            Source::Mapped(map) => {
                out.extend_from_slice(self.mapped_stored(map, handle)?);
            }
            Source::Positioned(file) => {
                bytes::zeroed(&mut out, handle.stored_len(), &self.path)?;
                file.read_exact_at(handle.offset, &mut out)?;
            }
        }
        check_raw(&out, handle, &self.footer, &self.path)?;
        out.truncate(handle.len as usize);
        Ok(out)
    }

    /// Data block `at` for an ordinary cursor: as a get would have it, save that without a cache
    /// it goes to the cursor's own buffer.
    pub(crate) fn place(
        &self,
        at: usize,
        entry: IndexEntry,
        buffers: &mut Buffers,
        probe: &mut ReadProbe,
    ) -> Result<Place> {
        let in_place = matches!(self.source, Source::Mapped(_)) && entry.compression == RAW;
        if !in_place && self.cache.is_none() {
            probe.data_blocks += 1;
            probe.bytes_read += u64::from(entry.handle.len);
            self.read_block(entry, &mut buffers.block)?;
            return Ok(Place::Own);
        }
        probe.data_blocks += 1;
        let (place, source) = match self.load(at, entry)? {
            Loaded::Mapped(_) => (map_place(entry.handle), BlockSource::Mapped),
            Loaded::Shared(block, source) => (Place::Shared(block), source),
        };
        probe.note_block(SearchedBlock {
            source,
            stored_bytes: entry.handle.len,
        });
        Ok(place)
    }

    /// Data block `at` for a bulk scan: always checked, never cached, read far ahead.
    pub(crate) fn place_bulk(
        &self,
        at: usize,
        entry: IndexEntry,
        buffers: &mut Buffers,
        probe: &mut ReadProbe,
    ) -> Result<Place> {
        probe.data_blocks += 1;
        probe.bytes_read += u64::from(entry.handle.len);
        let handle = entry.handle;
        match &self.source {
            Source::Mapped(map) => {
                self.ask_ahead(map, handle, &mut buffers.asked_upto);
                if entry.compression == RAW {
                    self.check_mapped(map, at, entry)?;
                    return Ok(map_place(handle));
                }
                self.read_block(entry, &mut buffers.block)?;
                Ok(Place::Own)
            }
            Source::Positioned(file) => {
                let start = self.read_window(&**file, handle, buffers)?;
                let placed = self.place_in_window(start, entry, buffers);
                if placed.is_err() {
                    buffers.window.clear();
                }
                placed
            }
        }
    }

    /// The block at `entry`, which begins at `start` of the window.
    fn place_in_window(
        &self,
        start: usize,
        entry: IndexEntry,
        buffers: &mut Buffers,
    ) -> Result<Place> {
        let handle = entry.handle;
        let stored = buffers
            .window
            .get(start..start.saturating_add(handle.stored_len()))
            .ok_or_else(|| self.damaged(handle.offset, "block exceeds the table"))?;
        let payload = self.check_data(stored, entry)?;
        if entry.compression == RAW {
            let len = payload.len();
            return Ok(Place::Window { start, len });
        }
        let dictionary = self.dictionary_of(entry)?;
        let block = &mut buffers.block;
        compression::decompress(payload, dictionary, block, &self.path, handle.offset)?;
        Ok(Place::Own)
    }

    /// Makes sure that the window holds the block at `handle`; returns where it begins there.
    fn read_window(
        &self,
        file: &dyn File,
        handle: BlockHandle,
        buffers: &mut Buffers,
    ) -> Result<usize> {
        let window_end = buffers
            .window_at
            .saturating_add(buffers.window.len() as u64);
        if handle.offset >= buffers.window_at && handle.end() <= window_end {
            return Ok(usize::try_from(handle.offset - buffers.window_at).unwrap_or(usize::MAX));
        }
        // Handles lie within the data, so the window never asks beyond it.
        let left = self.footer.data_end.saturating_sub(handle.offset);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let len = buffers.window_bytes.max(handle.stored_len()).min(left);
        bytes::zeroed(&mut buffers.window, len, &self.path)?;
        buffers.window_at = handle.offset;
        let read = file.read_exact_at(handle.offset, &mut buffers.window);
        if read.is_err() {
            // The next attempt reads again instead of taking what is there for the table's.
            buffers.window.clear();
        }
        read.map(|()| 0)
    }

    /// Asks for the pages ahead of an ordinary cursor that turned out to scan.
    pub(crate) fn ask_for_scan(&self, handle: BlockHandle, buffers: &mut Buffers) {
        if let Source::Mapped(map) = &self.source {
            self.ask_ahead(map, handle, &mut buffers.asked_upto);
        }
    }

    /// Keeps the pages of half a megabyte or more asked for ahead of the block at `handle`.
    fn ask_ahead(&self, map: &Mapping, handle: BlockHandle, asked_upto: &mut u64) {
        let ahead = AHEAD_BYTES as u64;
        let is_near =
            (handle.offset..=handle.offset.saturating_add(2 * ahead)).contains(asked_upto);
        let from = if is_near { *asked_upto } else { handle.offset };
        let data_end = self.footer.data_end;
        if from >= handle.end().saturating_add(ahead / 2).min(data_end) {
            return;
        }
        let end = handle.end().saturating_add(ahead).min(data_end);
        map.will_need(from, end.saturating_sub(from));
        *asked_upto = end;
    }

    /// The bytes of a place that this table gave out for `buffers`.
    #[inline]
    pub(crate) fn place_bytes<'a>(&'a self, place: &'a Place, buffers: &'a Buffers) -> &'a [u8] {
        match place {
            Place::Nowhere => &[],
            Place::Map { start, len } => match &self.source {
                Source::Mapped(map) => map.get(*start..*start + *len).unwrap_or_default(),
                Source::Positioned(_) => &[],
            },
            Place::Window { start, len } => buffers
                .window
                .get(*start..*start + *len)
                .unwrap_or_default(),
            Place::Own => &buffers.block,
            Place::Shared(block) => block.bytes(),
        }
    }

    /// Whether every byte between the data and the filter is zero.
    pub(super) fn padding_is_zero(&self) -> Result<bool> {
        let Some(filter) = self.footer.filter else {
            return Ok(true);
        };
        let start = self.footer.data_end;
        let len = usize::try_from(filter.offset.saturating_sub(start)).unwrap_or(usize::MAX);
        if len >= 64 {
            return Ok(false);
        }
        let mut padding = [0; 64];
        let padding = padding.get_mut(..len).unwrap_or_default();
        match &self.source {
            Source::Mapped(map) => {
                let at = usize::try_from(start).unwrap_or(usize::MAX);
                let found = map.get(at..at.saturating_add(len)).unwrap_or_default();
                return Ok(found.len() == len && found.iter().all(|byte| *byte == 0));
            }
            Source::Positioned(file) => file.read_exact_at(start, padding)?,
        }
        Ok(padding.iter().all(|byte| *byte == 0))
    }
}

fn map_place(handle: BlockHandle) -> Place {
    // A handle that was served from a mapping fits the address space.
    Place::Map {
        start: usize::try_from(handle.offset).unwrap_or(usize::MAX - TRAILER_BYTES),
        len: handle.len as usize,
    }
}
