//! Builds one table: sorted entries in, a finished and synced file out.
//!
//! Called by flushes, compactions and ingest. Never reads what it wrote.

use std::path::{Path, PathBuf};

use base::fs::{File, FileSystem};
use base::key::{KEY_BYTES_MAX, VALUE_BYTES_HARD_MAX};
use base::sync::Arc;
use base::{
    Error, HashSeed, InternalKey, KeyKind, KeyspaceId, Level, OwnedKey, Result, SequenceNumber,
};

use crate::block::Builder;
use crate::compression::{self, Compression, Means};
use crate::dictionary;
use crate::filter::{FilterPolicy, Hashes};
use crate::format::{self, BLOCK_BYTES_MAX, BlockHandle, FILTER_ALIGN, Footer, TRAILER_BYTES};
use crate::index::{self, IndexBuilder};
use crate::properties::{CommitTimes, CreationReason, Properties};

mod held;

use held::{Held, Trained};

/// How a table is built, and what it says about itself.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// A data block is closed before it would exceed this, uncompressed; at most 4 MiB.
    pub block_bytes_target: usize,
    /// Which filter it gets.
    pub filter: FilterPolicy,
    /// How its data blocks are stored.
    pub compression: Compression,
    /// The seed of the hashes in its filter: the database's.
    pub hash_seed: HashSeed,
    /// The keyspace it is written for.
    pub keyspace: KeyspaceId,
    /// The level it is written for.
    pub level: Level,
    /// Why it is written.
    pub reason: CreationReason,
    /// When it was begun, in microseconds since 1970.
    pub created_micros: u64,
    /// When its entries were committed, as far as that is known.
    pub commit_times: Option<CommitTimes>,
    /// The longest dictionary for its blocks, at most 64 KiB; 0 for none.
    ///
    /// Trained on the first blocks of the table, which are held in memory until then: 64 times as
    /// much. Only for compressed blocks of up to 16 KiB, and only where it pays for itself.
    pub dictionary_bytes_max: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes_target: 4096,
            filter: FilterPolicy::default(),
            compression: Compression::None,
            hash_seed: HashSeed::default(),
            keyspace: KeyspaceId::DEFAULT,
            level: Level::ZERO,
            reason: CreationReason::Flush,
            created_micros: 0,
            commit_times: None,
            dictionary_bytes_max: 0,
        }
    }
}

/// What became of a table that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// The random id of the file, part of its checksums.
    pub file_id: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// First key.
    pub smallest: OwnedKey,
    /// Last key.
    pub largest: OwnedKey,
    /// What the table says about itself.
    pub properties: Properties,
}

/// Bytes are handed to the file in pieces of about this many. Each table under way has one.
const CHUNK_BYTES: usize = 256 << 10;
/// Pieces end on a page, so that no page is written back twice.
const PAGE_BYTES: usize = 4096;

/// Bytes on their way to the file.
#[derive(Debug)]
struct Output {
    file: Arc<dyn File>,
    /// What is not written yet; begins at `written`.
    pending: Vec<u8>,
    written: u64,
}

impl Output {
    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn write_full_pages(&mut self) -> Result<()> {
        if self.pending.len() < CHUNK_BYTES {
            return Ok(());
        }
        let len = self.pending.len() - self.pending.len() % PAGE_BYTES;
        self.write(len)?;
        // One long block must not keep its length for the rest of the table.
        self.pending.shrink_to(2 * CHUNK_BYTES);
        Ok(())
    }

    fn write(&mut self, len: usize) -> Result<()> {
        self.file.write_at(self.written, &self.pending[..len])?;
        self.file.start_writeback(self.written, len as u64);
        self.written += len as u64;
        self.pending.drain(..len);
        Ok(())
    }

    /// Appends the trailer of the block that began at `offset` and ends here.
    fn seal(&mut self, file_id: u64, offset: u64, tag: u8) -> Result<BlockHandle> {
        let start = usize::try_from(offset - self.written).expect("the block is still pending");
        let stored = &self.pending[start..];
        let len = u32::try_from(stored.len()).map_err(|_| {
            Error::invalid_argument("a block would exceed 4 GiB: the table is too large")
                .with_path(self.file.path())
        })?;
        let trailer = format::trailer(file_id, offset, stored, tag);
        self.pending.extend_from_slice(&trailer);
        Ok(BlockHandle { offset, len })
    }
}

/// Writes one table, entry by entry, in key order.
///
/// Data goes to the file in pieces of 256 KiB; nothing is durable before [`TableWriter::finish`].
/// A writer that is dropped, or that returned an error, leaves an unfit file behind, which its
/// owner deletes.
#[derive(Debug)]
pub struct TableWriter {
    options: TableOptions,
    file_id: u64,
    output: Output,
    block: Builder,
    index: IndexBuilder,
    /// The block before, which waits for the key behind it: what the index says of it depends on
    /// both. Its last key is `last_user_key`.
    waiting: Option<Waiting>,
    last_user_key: Vec<u8>,
    last_seq: SequenceNumber,
    last_kind: KeyKind,
    hashes: Hashes,
    smallest: Option<OwnedKey>,
    properties: Properties,
    /// Blocks held back until there is a dictionary.
    held: Option<Held>,
    dictionary: Option<Trained>,
    raw: Vec<u8>,
    frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// In the file.
    Stored {
        handle: BlockHandle,
        compression: u8,
    },
    /// Held back.
    Held,
}

impl TableWriter {
    /// Creates the file `path`, which must not exist, and starts a table in it.
    ///
    /// # Errors
    /// `InvalidArgument` for a block target beyond 4 MiB; otherwise as the file system says.
    pub fn create(fs: &dyn FileSystem, path: &Path, options: TableOptions) -> Result<Self> {
        if options.block_bytes_target > BLOCK_BYTES_MAX {
            return Err(Error::invalid_argument("block_bytes_target exceeds 4 MiB")
                .with_value("value", options.block_bytes_target));
        }
        let file = fs.create(path)?;
        let properties = Properties::started(&options);
        let held = match options.compression {
            Compression::None => None,
            Compression::Zstd { .. } => {
                Held::start(options.dictionary_bytes_max, options.block_bytes_target)
            }
        };
        Ok(Self {
            file_id: fs.random_u64(),
            output: Output {
                file,
                // The pieces grow by whole blocks, so that the last one overshoots.
                pending: Vec::with_capacity(CHUNK_BYTES + 2 * options.block_bytes_target),
                written: 0,
            },
            block: Builder::default(),
            index: IndexBuilder::default(),
            waiting: None,
            last_user_key: Vec::new(),
            last_seq: SequenceNumber::ZERO,
            last_kind: KeyKind::Put,
            hashes: Hashes::default(),
            smallest: None,
            properties,
            held,
            dictionary: None,
            raw: Vec::new(),
            frame: Vec::new(),
            options,
        })
    }

    /// The file being written.
    pub fn path(&self) -> PathBuf {
        self.output.file.path().to_owned()
    }

    /// Appends one entry.
    ///
    /// Amortised cost: two copies of key and value, one hash of a new user key, no allocation.
    ///
    /// # Errors
    /// As the file system says, if a piece cannot be written; `InvalidArgument` for a key or a
    /// value beyond the limits of the format. The file is then unfit.
    ///
    /// # Panics
    /// If `key` does not sort after the key before: the caller's merge is wrong.
    #[inline]
    pub fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        if key.user_key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_HARD_MAX {
            return Err(self.too_large(&key, value));
        }
        let is_new = if self.properties.entry_count == 0 {
            self.smallest = Some(key.into());
            true
        } else {
            self.check_order(&key)
        };
        let bytes_max = self.options.block_bytes_target;
        let fit = if let Some(fit) = self.block.fit(&key, value.len(), bytes_max) {
            fit
        } else {
            self.cut_block()?;
            let fit = self.block.fit(&key, value.len(), bytes_max);
            fit.expect("an empty block takes any entry")
        };
        if self.waiting.is_some() {
            self.index_waiting(Some(key.user_key))?;
        }
        if is_new {
            self.properties.user_key_count += 1;
            if self.options.filter != FilterPolicy::None {
                self.hashes.push(self.options.hash_seed.hash(key.user_key));
            }
        }
        self.block.add_fitting(&key, value, fit);
        self.last_seq = key.seq;
        self.last_kind = key.kind;
        self.properties.count(&key, value.len());
        Ok(())
    }

    /// About how long the file would be if it were finished now.
    #[inline]
    pub fn file_bytes_estimate(&self) -> u64 {
        let (_, bits_per_key) = self.options.filter.parts();
        let filter = self.hashes.len() as u64 * u64::from(bits_per_key) / 8;
        self.output.offset()
            + self.held.as_ref().map_or(0, |held| held.raw.len() as u64)
            + self.block.staged_bytes() as u64
            + self.index.bytes_estimate() as u64
            + filter
    }

    /// Entries so far.
    #[inline]
    pub fn entry_count(&self) -> u64 {
        self.properties.entry_count
    }

    /// Writes what is left, and syncs the file. The directory is the caller's to sync.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no entry; otherwise as the file system says. The file is then
    /// unfit and must be deleted.
    pub fn finish(mut self) -> Result<TableSummary> {
        let Some(smallest) = self.smallest.take() else {
            return Err(Error::invalid_argument("a table needs an entry")
                .with_path(self.output.file.path()));
        };
        self.cut_block()?;
        self.index_waiting(None)?;
        self.release_held()?;
        let data_end = self.output.offset();
        let block_count = u32::try_from(self.properties.block_count).map_err(|_| {
            Error::invalid_argument("a table has too many blocks")
                .with_path(self.output.file.path())
        })?;
        let filter = self.write_filter()?;
        let index_at = self.output.offset();
        self.index.finish(&mut self.output.pending);
        let index = self.output.seal(self.file_id, index_at, compression::RAW)?;
        let dictionary = self.write_dictionary()?;

        let largest = OwnedKey {
            user_key: std::mem::take(&mut self.last_user_key),
            seq: self.last_seq,
            kind: self.last_kind,
        };
        self.properties.data_bytes = data_end;
        self.properties.index_bytes = index.stored_len() as u64;
        self.properties.filter_bytes = filter.map_or(0, |handle| handle.stored_len() as u64);
        self.properties.dictionary_bytes =
            dictionary.map_or(0, |handle| handle.stored_len() as u64);
        self.properties.smallest = smallest.clone();
        self.properties.largest = largest.clone();
        let properties_at = self.output.offset();
        self.output
            .pending
            .extend_from_slice(&self.properties.encode());
        let properties = self
            .output
            .seal(self.file_id, properties_at, compression::RAW)?;

        let footer = Footer {
            file_id: self.file_id,
            index,
            filter,
            dictionary,
            properties,
            data_end,
            block_count,
            hash_seed: self.options.hash_seed,
        };
        let footer = footer.encode(self.output.offset());
        self.output.pending.extend_from_slice(&footer);
        self.output.write(self.output.pending.len())?;
        self.output.file.sync()?;
        Ok(TableSummary {
            file_id: self.file_id,
            file_bytes: self.output.written,
            smallest,
            largest,
            properties: self.properties,
        })
    }

    #[cold]
    fn too_large(&self, key: &InternalKey<'_>, value: &[u8]) -> Error {
        Error::invalid_argument("entry exceeds the limits of a table")
            .with_path(self.output.file.path())
            .with_value("key_bytes", key.user_key.len())
            .with_value("value_bytes", value.len())
    }

    /// Whether `key` is another user key than the one before.
    #[inline]
    fn check_order(&self, key: &InternalKey<'_>) -> bool {
        let last = if self.block.is_empty() {
            &self.last_user_key[..]
        } else {
            self.block.last_user_key()
        };
        let order = last.cmp(key.user_key);
        assert!(
            order.is_lt() || (order.is_eq() && self.last_seq > key.seq),
            "entries must come in key order: {key:?} after {:?}",
            InternalKey::new(last, self.last_seq, self.last_kind)
        );
        order.is_lt()
    }

    /// Writes the block under construction, if it has entries.
    fn cut_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.last_user_key.clear();
        self.last_user_key
            .extend_from_slice(self.block.last_user_key());
        if self.index.is_full() {
            return Err(
                Error::invalid_argument("the index of a table would exceed 2 GiB")
                    .with_path(self.output.file.path()),
            );
        }
        self.properties.block_count += 1;
        let (waiting, raw_len) = if let Some(held) = &mut self.held {
            self.block.finish(&mut held.raw);
            (Waiting::Held, held.end_block())
        } else if self.options.compression == Compression::None {
            let offset = self.output.offset();
            self.block.finish(&mut self.output.pending);
            let compression = compression::RAW;
            let handle = self.output.seal(self.file_id, offset, compression)?;
            self.output.write_full_pages()?;
            let waiting = Waiting::Stored {
                handle,
                compression,
            };
            (waiting, handle.len as usize)
        } else {
            let mut raw = std::mem::take(&mut self.raw);
            raw.clear();
            self.block.finish(&mut raw);
            let (handle, compression) = self.store(&raw)?;
            let waiting = Waiting::Stored {
                handle,
                compression,
            };
            let raw_len = raw.len();
            self.raw = raw;
            (waiting, raw_len)
        };
        self.properties.uncompressed_data_bytes += (raw_len + TRAILER_BYTES) as u64;
        self.waiting = Some(waiting);
        Ok(())
    }

    /// Compresses a data block and hands it to the file.
    fn store(&mut self, raw: &[u8]) -> Result<(BlockHandle, u8)> {
        let offset = self.output.offset();
        let means = match (&self.dictionary, self.options.compression) {
            (Some(trained), _) => Means::Dictionary(&trained.prepared),
            (None, Compression::Zstd { level }) => Means::Level(level),
            (None, Compression::None) => unreachable!("such a block is built in its place"),
        };
        let tag = compression::compress(raw, means, &mut self.frame, &mut self.output.pending);
        let handle = self.output.seal(self.file_id, offset, tag)?;
        self.output.write_full_pages()?;
        Ok((handle, tag))
    }

    /// Enters the waiting block into the index, now that the key behind it is known.
    fn index_waiting(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let last = InternalKey::new(&self.last_user_key, self.last_seq, self.last_kind);
        let separator = index::separator_of(last, next);
        match (waiting, &mut self.held) {
            (
                Waiting::Stored {
                    handle,
                    compression,
                },
                _,
            ) => self.index.add(separator, handle, compression),
            (Waiting::Held, held) => {
                let held = held
                    .as_mut()
                    .expect("a block is released after its separator");
                held.push_separator(separator.into());
                if held.is_full() {
                    return self.release_held();
                }
            }
        }
        Ok(())
    }

    /// Trains the dictionary, if blocks wait for one, and stores them.
    #[cold]
    fn release_held(&mut self) -> Result<()> {
        let (Some(held), Compression::Zstd { level }) =
            (self.held.take(), self.options.compression)
        else {
            return Ok(());
        };
        self.dictionary = held.train(level, &mut self.frame);
        for (block, separator) in held.blocks() {
            let (handle, compression) = self.store(block)?;
            self.index.add(separator.as_internal(), handle, compression);
        }
        Ok(())
    }

    fn write_dictionary(&mut self) -> Result<Option<BlockHandle>> {
        let Some(trained) = &self.dictionary else {
            return Ok(None);
        };
        let offset = self.output.offset();
        dictionary::put(&mut self.output.pending, &trained.bytes);
        self.output
            .seal(self.file_id, offset, compression::RAW)
            .map(Some)
    }

    fn write_filter(&mut self) -> Result<Option<BlockHandle>> {
        let hashes = std::mem::take(&mut self.hashes);
        let Some(bytes) = self.options.filter.build(&hashes, self.options.hash_seed) else {
            return Ok(None);
        };
        drop(hashes);
        let padding = self.output.offset().next_multiple_of(FILTER_ALIGN) - self.output.offset();
        let padding = usize::try_from(padding).expect("below 64");
        let padded = self.output.pending.len() + padding;
        self.output.pending.resize(padded, 0);
        let offset = self.output.offset();
        self.output.pending.extend_from_slice(&bytes);
        let handle = self.output.seal(self.file_id, offset, compression::RAW)?;
        self.output.write_full_pages()?;
        Ok(Some(handle))
    }
}

impl Properties {
    fn started(options: &TableOptions) -> Self {
        let mut properties = Self::blank();
        properties.created_micros = options.created_micros;
        properties.commit_times = options.commit_times;
        properties.compression = options.compression;
        properties.filter = options.filter.bounded();
        properties.level = options.level;
        properties.reason = options.reason;
        properties.keyspace = options.keyspace;
        properties.hash_seed = options.hash_seed;
        properties.seq_smallest = SequenceNumber::MAX;
        properties
    }

    #[inline]
    fn count(&mut self, key: &InternalKey<'_>, value_len: usize) {
        self.entry_count += 1;
        self.count_by_kind[usize::from(key.kind.as_u8())] += 1;
        self.raw_key_bytes += key.user_key.len() as u64;
        self.raw_value_bytes += value_len as u64;
        self.seq_smallest = self.seq_smallest.min(key.seq);
        self.seq_largest = self.seq_largest.max(key.seq);
    }
}

#[cfg(test)]
mod tests;
