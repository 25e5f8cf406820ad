//! The constants and fixed structures of a table: handles, trailers, the footer.
//!
//! The bytes are described in FORMAT.md; this module is the only one that knows the footer's.
#![deny(clippy::indexing_slicing)]

use std::path::Path;

use base::checksum::Crc;
use base::coding::{self, FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader};
use base::{Error, ErrorKind, HashSeed, Result};

/// The version of the table format that this crate writes and reads: 3, whose blocks keep what
/// their entries have in common once, and the rest in columns.
pub const FORMAT_VERSION: u32 = 3;
/// Compression byte and CRC behind every block.
pub const TRAILER_BYTES: usize = 5;
/// A data block beyond this holds one entry, in bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = 4 << 20;
/// A compressed block beyond [`BLOCK_BYTES_MAX`] expands at most by this factor.
pub(crate) const EXPANSION_MAX: usize = 16;
/// The payload of a filter begins at a multiple of this, so that a probe touches one cache line.
pub(crate) const FILTER_ALIGN: u64 = 64;

const MAGIC: [u8; 8] = *b"\xd3siltsst";
const TAIL_BYTES: usize = 56;
/// Far above what the fields of this version need; a reader allocates no more than this for them.
const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Features that a reader must know. None are defined yet.
const KNOWN_FEATURES: u64 = 0;

const TAG_INDEX: u32 = 1;
const TAG_FILTER: u32 = 2;
const TAG_PROPERTIES: u32 = 3;
const TAG_DATA_END: u32 = 4;
const TAG_HASH_SEED: u32 = 5;
const TAG_DICTIONARY: u32 = 6;

/// The one kind of index of this version: a single block.
const INDEX_SINGLE: u8 = 1;

/// Where one block lies in its file, its trailer excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockHandle {
    /// Of the first byte, in the file.
    pub offset: u64,
    /// Stored bytes, without the trailer.
    pub len: u32,
}

impl BlockHandle {
    /// The offset just behind the trailer.
    #[inline]
    pub(crate) fn end(self) -> u64 {
        // A decoded handle lies within its file, so that this cannot overflow there.
        self.offset
            .saturating_add(u64::from(self.len))
            .saturating_add(TRAILER_BYTES as u64)
    }

    /// Length with the trailer.
    #[inline]
    pub(crate) fn stored_len(self) -> usize {
        self.len as usize + TRAILER_BYTES
    }

    pub(crate) fn put(self, out: &mut Vec<u8>) {
        coding::put_varint(out, self.offset);
        coding::put_varint(out, u64::from(self.len));
    }

    #[inline]
    pub(crate) fn read(reader: &mut Reader<'_>) -> std::result::Result<Self, Malformed> {
        Ok(Self {
            offset: reader.varint()?,
            len: reader.varint_u32()?,
        })
    }
}

/// The trailer of a block as it is stored.
pub(crate) fn trailer(file_id: u64, offset: u64, stored: &[u8], tag: u8) -> [u8; TRAILER_BYTES] {
    let crc = Crc::at(file_id, offset).and(stored).and(&[tag]).finish();
    let [a, b, c, d] = crc.to_le_bytes();
    [tag, a, b, c, d]
}

/// A block and its trailer taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) tag: u8,
    crc: u32,
}

impl<'a> Stored<'a> {
    /// Splits `bytes`, which end with a trailer.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> std::result::Result<Self, Malformed> {
        let (payload, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().ok_or(Malformed)?;
        let [tag, a, b, c, d] = *trailer;
        Ok(Self {
            payload,
            tag,
            crc: u32::from_le_bytes([a, b, c, d]),
        })
    }

    /// Compares the checksum.
    ///
    /// # Errors
    /// `Corruption` that names the file, the offset and both values.
    pub(crate) fn check(&self, path: &Path, file_id: u64, offset: u64) -> Result<()> {
        let computed = Crc::at(file_id, offset)
            .and(self.payload)
            .and(&[self.tag])
            .finish();
        if computed == self.crc {
            return Ok(());
        }
        Err(Error::corruption(path, offset, "block checksum mismatch")
            .with_value("stored", format_args!("{:#010x}", self.crc))
            .with_value("computed", format_args!("{computed:#010x}")))
    }
}

/// What the end of a table says about the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) file_id: u64,
    pub(crate) index: BlockHandle,
    pub(crate) filter: Option<BlockHandle>,
    /// What the data blocks were compressed with, if it was a dictionary.
    pub(crate) dictionary: Option<BlockHandle>,
    pub(crate) properties: BlockHandle,
    /// Where the last data block ends, trailer included.
    pub(crate) data_end: u64,
    pub(crate) block_count: u32,
    pub(crate) hash_seed: HashSeed,
}

impl Footer {
    /// The footer as it is stored at `offset`, the end of everything else.
    pub(crate) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        let mut value = Vec::with_capacity(24);
        value.push(INDEX_SINGLE);
        self.index.put(&mut value);
        coding::put_field(&mut out, TAG_INDEX, &value);
        for (tag, handle) in [(TAG_FILTER, self.filter), (TAG_DICTIONARY, self.dictionary)] {
            if let Some(handle) = handle {
                value.clear();
                handle.put(&mut value);
                coding::put_field(&mut out, tag, &value);
            }
        }
        value.clear();
        self.properties.put(&mut value);
        coding::put_field(&mut out, TAG_PROPERTIES, &value);
        coding::put_varint_field(&mut out, TAG_DATA_END, self.data_end);
        coding::put_field(&mut out, TAG_HASH_SEED, &self.hash_seed.0.to_le_bytes());

        let fields_bytes = u32::try_from(out.len()).expect("a footer is small");
        let file_bytes = offset + out.len() as u64 + TAIL_BYTES as u64;
        out.extend_from_slice(&self.file_id.to_le_bytes());
        out.extend_from_slice(&KNOWN_FEATURES.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&file_bytes.to_le_bytes());
        out.extend_from_slice(&fields_bytes.to_le_bytes());
        let mut rest = Vec::with_capacity(16);
        rest.extend_from_slice(&self.block_count.to_le_bytes());
        rest.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        rest.extend_from_slice(&MAGIC);
        let crc = Crc::at(self.file_id, offset).and(&out).and(&rest).finish();
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&rest);
        out
    }

    /// How long the footer at the `end` of a file claims to be. Bounded, whatever it claims.
    pub(crate) fn stored_len(end: &[u8]) -> u64 {
        let tail = end.last_chunk::<TAIL_BYTES>();
        let fields_bytes = tail
            .and_then(|tail| Tail::split(tail).ok())
            .map_or(0, |tail| u64::from(tail.fields_bytes));
        fields_bytes.min(FIELDS_BYTES_MAX as u64) + TAIL_BYTES as u64
    }

    /// Reads the footer from `end`, the last bytes of a file of `file_bytes`.
    ///
    /// # Errors
    /// `Unsupported` for another version or an unknown feature, otherwise `Corruption`.
    pub(crate) fn decode(end: &[u8], file_bytes: u64, path: &Path) -> Result<Self> {
        let tail_at = file_bytes.saturating_sub(TAIL_BYTES as u64);
        let damaged = |message: &str| Error::corruption(path, tail_at, message);
        let (before, tail) = end
            .split_last_chunk::<TAIL_BYTES>()
            .ok_or_else(|| damaged("file is shorter than a table's footer"))?;
        let tail = Tail::split(tail).map_err(|Malformed| damaged("footer malformed"))?;
        tail.check_version(path, tail_at)?;
        if tail.file_bytes != file_bytes {
            return Err(damaged("table length mismatch")
                .with_value("stored", tail.file_bytes)
                .with_value("found", file_bytes));
        }
        let fields = usize::try_from(tail.fields_bytes)
            .ok()
            .filter(|len| *len <= FIELDS_BYTES_MAX)
            .and_then(|len| before.len().checked_sub(len))
            .and_then(|at| before.get(at..))
            .ok_or_else(|| damaged("footer fields exceed the file"))?;
        let offset = tail_at.saturating_sub(fields.len() as u64);
        tail.check_crc(path, offset, fields)?;
        // Older footers have the same checksum, so that this is not said of a damaged one.
        if tail.version < FORMAT_VERSION {
            return Err(unsupported(
                path,
                "table of an older format, of before the first release: write it again from its \
                 source, or dump it with the program that wrote it and load that",
            )
            .with_value("found", tail.version)
            .with_value("supported", FORMAT_VERSION));
        }
        let unknown = tail.features & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(unsupported(path, "table has features this version lacks")
                .with_value("found", format_args!("{:#x}", tail.features))
                .with_value("supported", format_args!("{KNOWN_FEATURES:#x}")));
        }
        let footer = Self::from_fields(&tail, fields, path)?;
        footer
            .check(offset)
            .map_err(|Malformed| damaged("footer names places outside the table"))?;
        Ok(footer)
    }

    fn from_fields(tail: &Tail<'_>, fields: &[u8], path: &Path) -> Result<Self> {
        let mut footer = Self {
            file_id: tail.file_id,
            index: BlockHandle::default(),
            filter: None,
            dictionary: None,
            properties: BlockHandle::default(),
            data_end: 0,
            block_count: tail.block_count,
            hash_seed: HashSeed::default(),
        };
        let damaged = |Malformed| Error::corruption(path, 0, "footer fields malformed");
        let mut seen = 0u32;
        for field in Fields::new(fields) {
            let (tag, bytes) = field.map_err(damaged)?;
            let mut reader = Reader::new(bytes);
            match tag {
                TAG_INDEX => {
                    let kind = reader.u8().map_err(damaged)?;
                    if kind != INDEX_SINGLE {
                        return Err(unsupported(path, "index of an unknown kind")
                            .with_value("found", kind)
                            .with_value("supported", INDEX_SINGLE));
                    }
                    footer.index = BlockHandle::read(&mut reader).map_err(damaged)?;
                }
                TAG_FILTER => {
                    footer.filter = Some(BlockHandle::read(&mut reader).map_err(damaged)?);
                }
                TAG_DICTIONARY => {
                    footer.dictionary = Some(BlockHandle::read(&mut reader).map_err(damaged)?);
                }
                TAG_PROPERTIES => {
                    footer.properties = BlockHandle::read(&mut reader).map_err(damaged)?;
                }
                TAG_DATA_END => footer.data_end = reader.varint().map_err(damaged)?,
                TAG_HASH_SEED => footer.hash_seed = HashSeed(reader.u64().map_err(damaged)?),
                FIRST_SKIPPABLE_TAG.. => continue,
                _ => {
                    return Err(
                        unsupported(path, "footer field of an unknown tag").with_value("tag", tag)
                    );
                }
            }
            if !reader.is_empty() {
                return Err(damaged(Malformed));
            }
            seen |= 1 << tag;
        }
        let needed = 1 << TAG_INDEX | 1 << TAG_PROPERTIES | 1 << TAG_DATA_END | 1 << TAG_HASH_SEED;
        if seen & needed != needed {
            return Err(Error::corruption(path, 0, "footer lacks a field"));
        }
        Ok(footer)
    }

    /// Every place named lies before `footer_at`, and the counts are possible.
    fn check(&self, footer_at: u64) -> std::result::Result<(), Malformed> {
        let within = |handle: BlockHandle| {
            handle.offset >= self.data_end
                && handle.offset <= footer_at
                && handle.end() <= footer_at
        };
        let sound = self.data_end <= footer_at
            && within(self.index)
            && within(self.properties)
            && self.filter.is_none_or(within)
            && self.dictionary.is_none_or(within)
            && self.block_count > 0
            && u64::from(self.block_count) <= self.data_end / TRAILER_BYTES as u64;
        if sound { Ok(()) } else { Err(Malformed) }
    }
}

struct Tail<'a> {
    file_id: u64,
    features: u64,
    file_bytes: u64,
    fields_bytes: u32,
    crc: u32,
    block_count: u32,
    version: u32,
    magic: &'a [u8],
    covered: (&'a [u8], &'a [u8]),
}

impl<'a> Tail<'a> {
    fn split(tail: &'a [u8; TAIL_BYTES]) -> std::result::Result<Self, Malformed> {
        let covered = (
            tail.get(..36).ok_or(Malformed)?,
            tail.get(40..).ok_or(Malformed)?,
        );
        let mut reader = Reader::new(tail);
        let file_id = reader.u64()?;
        let features = reader.u64()?;
        let _ignorable = reader.u64()?;
        Ok(Self {
            file_id,
            features,
            file_bytes: reader.u64()?,
            fields_bytes: reader.u32()?,
            crc: reader.u32()?,
            block_count: reader.u32()?,
            version: reader.u32()?,
            magic: reader.rest(),
            covered,
        })
    }

    fn check_version(&self, path: &Path, offset: u64) -> Result<()> {
        if self.magic != MAGIC {
            return Err(Error::corruption(
                path,
                offset,
                "not a table: the magic number is missing",
            ));
        }
        if self.version > FORMAT_VERSION {
            return Err(unsupported(path, "table of a newer format")
                .with_value("found", self.version)
                .with_value("supported", FORMAT_VERSION));
        }
        if self.version == 0 {
            return Err(Error::corruption(path, offset, "table of format 0"));
        }
        Ok(())
    }

    fn check_crc(&self, path: &Path, offset: u64, fields: &[u8]) -> Result<()> {
        let computed = Crc::at(self.file_id, offset)
            .and(fields)
            .and(self.covered.0)
            .and(self.covered.1)
            .finish();
        if computed == self.crc {
            return Ok(());
        }
        Err(Error::corruption(path, offset, "footer checksum mismatch")
            .with_value("stored", format_args!("{:#010x}", self.crc))
            .with_value("computed", format_args!("{computed:#010x}")))
    }
}

pub(crate) fn unsupported(path: &Path, message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message).with_path(path)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
#[cfg(test)]
pub(crate) use tests::repair_footer;
