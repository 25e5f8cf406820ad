//! Reads one table: opens it, answers gets, hands out cursors, verifies it.
//!
//! A mapped table is searched where it lies. Only the footer is read when it is opened; every
//! other block is checked when it is first touched.
#![deny(clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base::coding::Malformed;
use base::fs::{Access, File, Mapping};
use base::sync::Arc;
use base::sync::atomic::AtomicU64;
use base::{Error, HashSeed, Home, KeyHash, KeyKind, PinLedger, Result, SequenceNumber, Slice};

use crate::block::{Entry, Shape};
use crate::cache::{BlockCache, CachedBlock, Charge};
use crate::dictionary::Dictionary;
use crate::filter::Filter;
use crate::format::{BLOCK_BYTES_MAX, BlockHandle, Footer};
use crate::index::IndexEntry;
use crate::iter::{ScanMode, TableCursor};
use crate::properties::Properties;

mod load;
mod options;
mod probe;
mod resident;
mod stages;
mod verify;

pub(crate) use load::{AHEAD_BYTES, Buffers, Loaded, Place};
pub use options::{ReadMode, ReaderOptions, Verify};
pub use probe::{BlockSource, ReadProbe, SearchedBlock};
use resident::Resident;
pub use stages::{BlockAim, BlockSpot};
pub use verify::{Section, VerifyReport};

/// A properties block is never longer: two keys and a few numbers. One that says it is would have
/// whoever looks at a hostile file allocate as much.
const PROPERTIES_BYTES_MAX: u32 = 1 << 20;

/// Which data block of a table a get has to search; good for that table only.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlace {
    at: usize,
    entry: IndexEntry,
}

/// What [`TableReader::get_in`] came to.
#[derive(Debug)]
pub enum BlockSearch<'a> {
    /// The entry.
    Found(TableHit<'a>),
    /// Nothing, in this block.
    Absent(SearchedBlock),
}

/// One data block as the index sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Where it lies.
    pub handle: BlockHandle,
    /// Whether it is stored compressed.
    pub is_compressed: bool,
    /// User key of the separator: at or after every key of the block.
    pub separator: Vec<u8>,
    /// Sequence number of the separator.
    pub separator_seq: SequenceNumber,
}

#[derive(Debug)]
enum Source {
    Mapped(Mapping),
    Positioned(Arc<dyn File>),
}

#[derive(Debug)]
enum FilterState {
    None,
    Ready(Filter),
    Damaged(Error),
}

/// One open table. Shared by all who read it; everything takes `&self`.
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    footer: Footer,
    file_bytes: u64,
    source: Source,
    resident: Option<Resident>,
    cache: Option<Arc<BlockCache>>,
    cache_key: u64,
    /// What this reader keeps, counted against the cache.
    charge: Option<Charge>,
    verify: Verify,
    pins: Arc<PinLedger>,
    filter: OnceLock<FilterState>,
    /// Read when a block first needs it. A failure to read it is not kept.
    dictionary: OnceLock<Dictionary>,
    /// Once the index is checked.
    index_shape: OnceLock<Shape>,
    /// One bit for each data block whose checksum was found good.
    checked: Box<[AtomicU64]>,
}

impl TableReader {
    /// Opens the table in `file`, a finished one.
    ///
    /// `expected_file_id` is what the tree knows; `cache_key` tells this table's blocks from
    /// others' in the cache, and is not given to another table while blocks may be left there.
    /// Reads the footer; a positioned table also its index and filter.
    ///
    /// # Errors
    /// `Corruption` if it is no table or not the expected one, `Unsupported` if it is of a newer
    /// format; otherwise as the file system says.
    pub fn open(
        file: Arc<dyn File>,
        options: &ReaderOptions,
        expected_file_id: Option<u64>,
        cache_key: u64,
    ) -> Result<Arc<Self>> {
        let path = file.path().to_owned();
        let file_bytes = file.len()?;
        let footer = resident::read_footer(&*file, file_bytes)?;
        if let Some(expected) = expected_file_id
            && expected != footer.file_id
        {
            return Err(Error::corruption(path, 0, "another table's file")
                .with_value("expected_id", format_args!("{expected:#018x}"))
                .with_value("found_id", format_args!("{:#018x}", footer.file_id)));
        }
        let resident = match (options.mode, options.verify) {
            (ReadMode::Mapped | ReadMode::Auto, Verify::Once) => None,
            _ => Some(Resident::read(&*file, &footer)?),
        };
        let source = match options.mode {
            ReadMode::Positioned => Source::Positioned(file),
            ReadMode::Mapped | ReadMode::Auto => {
                let map = file.map(Access::Random)?;
                if map.len() as u64 != file_bytes {
                    return Err(Error::corruption(
                        path,
                        0,
                        "table changed while it was opened",
                    ));
                }
                Source::Mapped(map)
            }
        };
        let words = footer.block_count.div_ceil(64);
        let reader = Self {
            path,
            footer,
            file_bytes,
            source,
            resident,
            cache: options.cache.clone(),
            cache_key,
            charge: options.cache.as_ref().map(|cache| cache.charge()),
            verify: options.verify,
            pins: Arc::clone(&options.pins),
            filter: OnceLock::new(),
            dictionary: OnceLock::new(),
            index_shape: OnceLock::new(),
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
        };
        reader.charge(size_of::<Self>() + reader.heap_bytes());
        Ok(Arc::new(reader))
    }

    /// Counts what it keeps, and did not before, against the cache.
    fn charge(&self, bytes: usize) {
        if let Some(charge) = &self.charge {
            charge.grow(bytes);
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The random id of the file.
    pub fn file_id(&self) -> u64 {
        self.footer.file_id
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Data blocks, at least 1.
    pub fn block_count(&self) -> usize {
        self.footer.block_count as usize
    }

    /// The seed under which keys must be hashed for this table.
    #[inline]
    pub fn hash_seed(&self) -> HashSeed {
        self.footer.hash_seed
    }

    /// Bytes on the heap that this reader keeps: index and filter where they are not mapped.
    pub fn heap_bytes(&self) -> usize {
        let resident = self.resident.as_ref().map_or(0, |resident| {
            resident.index.len() + resident.filter.as_ref().map_or(0, |filter| filter.len())
        });
        let filter = match self.filter.get() {
            Some(FilterState::Ready(filter)) => filter.heap_bytes(),
            _ => 0,
        };
        let dictionary = self.dictionary.get().map_or(0, Dictionary::heap_bytes);
        resident + filter + dictionary + self.checked.len() * 8
    }

    /// Whether the table may hold a key of this hash; `false` is certain.
    ///
    /// A damaged filter answers `true`: the get that follows reports the damage.
    #[inline]
    pub fn may_contain(&self, hash: KeyHash) -> bool {
        match self.filter() {
            FilterState::Ready(filter) => filter.may_contain(self.filter_block(), hash),
            FilterState::None | FilterState::Damaged(_) => true,
        }
    }

    /// Whether it has a filter at all.
    #[inline]
    pub fn has_filter(&self) -> bool {
        self.footer.filter.is_some()
    }

    /// The newest entry of `user_key` at or below `seq`, tombstones included.
    ///
    /// `hash` is the key's under [`TableReader::hash_seed`]. `None` says that this table certainly
    /// has nothing visible at `seq`. Takes no lock and, for an uncompressed mapped table, allocates
    /// nothing and copies nothing.
    ///
    /// # Errors
    /// `Corruption` with the offset of the damaged block; otherwise as the file system says.
    #[inline]
    pub fn get<'a>(
        &'a self,
        user_key: &[u8],
        hash: KeyHash,
        seq: SequenceNumber,
        probe: &mut ReadProbe,
    ) -> Result<Option<TableHit<'a>>> {
        if !self.passes_filter(hash)? {
            probe.filter_negatives += 1;
            return Ok(None);
        }
        probe.index_blocks += 1;
        let mut hit = None;
        if let Some(place) = self.locate(user_key, seq)? {
            probe.data_blocks += 1;
            match self.get_in(place, user_key, seq)? {
                BlockSearch::Found(found) => {
                    probe.note_block(found.block);
                    hit = Some(found);
                }
                BlockSearch::Absent(block) => probe.note_block(block),
            }
        }
        if hit.is_none() {
            probe.filter_false_positives += u32::from(self.has_filter());
        }
        Ok(hit)
    }

    /// The first stage of [`TableReader::get`]: whether the table may hold a key of this hash.
    ///
    /// # Errors
    /// `Corruption` if the filter is damaged.
    #[inline]
    pub fn passes_filter(&self, hash: KeyHash) -> Result<bool> {
        match self.filter() {
            FilterState::None => Ok(true),
            FilterState::Ready(filter) => Ok(filter.may_contain(self.filter_block(), hash)),
            FilterState::Damaged(error) => Err(error.clone()),
        }
    }

    /// The second stage of [`TableReader::get`]: the one block in which a version of the key at or
    /// below `seq` can be.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    #[inline]
    pub fn locate(&self, user_key: &[u8], seq: SequenceNumber) -> Result<Option<BlockPlace>> {
        let index = self.index()?;
        let damaged_index = |Malformed| self.damaged_index();
        // A version of the key at or below `seq` lies in the first block that ends at or after
        // that place, or nowhere: see the order of separators in FORMAT.md.
        let at = index.seek(user_key, seq).map_err(damaged_index)?;
        if at == index.count() {
            return Ok(None);
        }
        let entry = index.entry(at).map_err(damaged_index)?;
        Ok(Some(BlockPlace { at, entry }))
    }

    /// The last stage of [`TableReader::get`]: searches the block that [`TableReader::locate`]
    /// gave for the same key and `seq`.
    ///
    /// # Errors
    /// As for [`TableReader::get`].
    #[inline]
    pub fn get_in<'a>(
        &'a self,
        place: BlockPlace,
        user_key: &[u8],
        seq: SequenceNumber,
    ) -> Result<BlockSearch<'a>> {
        let BlockPlace { at, entry: place } = place;
        let loaded = self.load(at, place)?;
        let damaged = |Malformed| self.damaged(place.handle.offset, "data block malformed");
        match loaded {
            Loaded::Mapped(bytes) => {
                let shape = data_shape(bytes).map_err(damaged)?;
                let found = shape.find(bytes, user_key, seq).map_err(damaged)?;
                Ok(match found {
                    Some(entry) => BlockSearch::Found(TableHit::mapped(&entry, place.handle)),
                    None => BlockSearch::Absent(SearchedBlock {
                        source: BlockSource::Mapped,
                        stored_bytes: place.handle.len,
                    }),
                })
            }
            Loaded::Shared(block, source) => {
                let bytes = block.bytes();
                let searched = SearchedBlock {
                    source,
                    stored_bytes: place.handle.len,
                };
                Shape::prefetch(bytes);
                let shape = data_shape(bytes).map_err(damaged)?;
                let Some(entry) = shape.find(bytes, user_key, seq).map_err(damaged)? else {
                    return Ok(BlockSearch::Absent(searched));
                };
                let (seq, kind) = (entry.seq, entry.kind);
                let (start, len) = (entry.value_at, entry.value.len());
                let value = HitValue::Shared { block, start, len };
                Ok(BlockSearch::Found(TableHit {
                    seq,
                    kind,
                    block: searched,
                    value,
                }))
            }
        }
    }

    /// A cursor over all entries. It keeps the table open.
    pub fn cursor(self: &Arc<Self>, scan: ScanMode) -> TableCursor {
        TableCursor::new(Arc::clone(self), scan)
    }

    /// What the table says about itself. Reads one block.
    ///
    /// # Errors
    /// `Corruption` if the block is damaged; otherwise as the file system says.
    pub fn properties(&self) -> Result<Properties> {
        let handle = self.footer.properties;
        if handle.len > PROPERTIES_BYTES_MAX {
            return Err(self.damaged(handle.offset, "properties are too long"));
        }
        let bytes = self.read_raw(handle)?;
        Properties::decode(&bytes)
            .map_err(|Malformed| self.damaged(handle.offset, "properties malformed"))
    }

    /// About how many bytes of the file lie before `user_key`.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    pub fn approximate_offset(&self, user_key: &[u8]) -> Result<u64> {
        let damaged = |Malformed| self.damaged_index();
        let index = self.index()?;
        let at = index.seek(user_key, SequenceNumber::MAX).map_err(damaged)?;
        if at == index.count() {
            return Ok(self.footer.data_end);
        }
        Ok(index.entry(at).map_err(damaged)?.handle.offset)
    }

    /// At most `count` user keys, ascending and distinct, that split the table into parts of about
    /// the same size. A key need not be in the table.
    ///
    /// # Errors
    /// `Corruption` if the index is damaged.
    pub fn anchors(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        let damaged = |Malformed| self.damaged_index();
        let index = self.index()?;
        let parts = count.saturating_add(1) as u128;
        let mut anchors: Vec<Vec<u8>> = Vec::with_capacity(count.min(index.count()));
        for part in 1..parts.min(index.count() as u128) {
            let before = part * index.count() as u128 / parts.min(index.count() as u128);
            let at = usize::try_from(before)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            let mut key = Vec::new();
            index.separator(at, &mut key).map_err(damaged)?;
            if anchors.last().is_none_or(|last| *last < key) {
                anchors.push(key);
            }
        }
        Ok(anchors)
    }

    /// Data block `index` as the table's index sees it.
    ///
    /// # Errors
    /// `InvalidArgument` at or beyond [`TableReader::block_count`]; `Corruption` if the index is
    /// damaged.
    pub fn block_info(&self, index: usize) -> Result<BlockInfo> {
        if index >= self.block_count() {
            return Err(Error::invalid_argument("the table has fewer blocks")
                .with_path(&self.path)
                .with_value("index", index));
        }
        let damaged = |Malformed| self.damaged_index();
        let blocks = self.index()?;
        let entry = blocks.entry(index).map_err(damaged)?;
        let mut separator = Vec::new();
        let separator_seq = blocks.separator(index, &mut separator).map_err(damaged)?;
        Ok(BlockInfo {
            handle: entry.handle,
            is_compressed: entry.compression != crate::compression::RAW,
            separator,
            separator_seq,
        })
    }

    /// Reads the whole table and checks everything that can be checked: every checksum, the order
    /// of entries and separators, bounds, counts, and that every key passes the filter.
    ///
    /// # Errors
    /// `Corruption` with the offset of the first thing found wrong; otherwise as the file system
    /// says.
    pub fn verify(&self) -> Result<VerifyReport> {
        verify::verify(self)
    }

    #[cold]
    pub(crate) fn damaged(&self, offset: u64, message: &str) -> Error {
        Error::corruption(&self.path, offset, message)
    }

    #[cold]
    pub(crate) fn damaged_index(&self) -> Error {
        self.damaged(self.footer.index.offset, "index malformed")
    }
}

/// The shape of a data block, which unlike an index has a bound.
#[inline]
pub(crate) fn data_shape(bytes: &[u8]) -> std::result::Result<Shape, Malformed> {
    let shape = Shape::of(bytes)?;
    if bytes.len() > BLOCK_BYTES_MAX && !shape.is_single() {
        return Err(Malformed);
    }
    Ok(shape)
}

impl Home for TableReader {
    fn bytes(&self, place: u64, len: usize) -> &[u8] {
        let Source::Mapped(map) = &self.source else {
            unreachable!("only a mapped table is pinned itself");
        };
        usize::try_from(place)
            .ok()
            .and_then(|start| map.get(start..start.checked_add(len)?))
            .expect("a pinned place lies in its table")
    }

    fn ledger(&self) -> (&PinLedger, base::PinKind) {
        (&self.pins, base::PinKind::Table)
    }
}

/// An entry that a get found, its value still where it lies.
#[derive(Debug)]
pub struct TableHit<'a> {
    /// When it was written.
    pub seq: SequenceNumber,
    /// Whether it is a value or a tombstone.
    pub kind: KeyKind,
    /// The block it lies in.
    pub block: SearchedBlock,
    value: HitValue<'a>,
}

#[derive(Debug)]
enum HitValue<'a> {
    Mapped {
        value: &'a [u8],
        place: u64,
    },
    Shared {
        block: Arc<CachedBlock>,
        start: usize,
        len: usize,
    },
}

impl<'a> TableHit<'a> {
    #[inline]
    fn mapped(entry: &Entry<'a>, handle: BlockHandle) -> Self {
        Self {
            seq: entry.seq,
            kind: entry.kind,
            block: SearchedBlock {
                source: BlockSource::Mapped,
                stored_bytes: handle.len,
            },
            value: HitValue::Mapped {
                value: entry.value,
                place: handle.offset + entry.value_at as u64,
            },
        }
    }

    /// The value; empty for a tombstone.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match &self.value {
            HitValue::Mapped { value, .. } => value,
            HitValue::Shared { block, start, len } => block
                .bytes()
                .get(*start..start.saturating_add(*len))
                .unwrap_or_default(),
        }
    }

    /// The value as a slice of its own, which keeps the table or the block alive instead of
    /// copying; save that a value much shorter than its cached block is copied. `reader` is the one
    /// that found it.
    pub fn pin(&self, reader: &Arc<TableReader>) -> Slice {
        match &self.value {
            HitValue::Mapped { value, place } => Slice::pinned(reader, *place, value.len()),
            HitValue::Shared { block, start, len } => block.slice(*start, *len),
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
