//! The parts of a table and the checksums of its blocks, read without unpacking anything.

use std::path::Path;

use base::checksum::Crc;
use base::fs::File;
use base::{Error, Result};
use sstable::{Section, TRAILER_BYTES, TableReader};

/// Read at once while a checksum is computed.
const PIECE_BYTES: u64 = 64 << 10;
/// What the part is called that holds the data blocks.
const DATA: &str = "data";
/// What the part is called that has a checksum of its own inside, which an open has checked.
const FOOTER: &str = "footer";

/// A block's trailer, and whether it is right.
pub(crate) struct Trailer {
    /// How the block is stored.
    pub(crate) tag: u8,
    /// The checksum that stands there.
    pub(crate) stored: u32,
    /// The one that the bytes have.
    pub(crate) computed: u32,
}

impl Trailer {
    /// Reads the block of `bytes`, trailer included, at `offset`, in pieces.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(file: &dyn File, file_id: u64, offset: u64, bytes: u64) -> Result<Self> {
        let payload_bytes = bytes.saturating_sub(TRAILER_BYTES as u64);
        let mut crc = Crc::at(file_id, offset);
        let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(payload_bytes)).unwrap_or(0)];
        let mut done = 0;
        while done < payload_bytes {
            let len = usize::try_from(PIECE_BYTES.min(payload_bytes - done)).unwrap_or(0);
            let piece = &mut piece[..len];
            file.read_exact_at(offset.saturating_add(done), piece)?;
            crc = crc.and(piece);
            done += len as u64;
        }
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(offset.saturating_add(payload_bytes), &mut trailer)?;
        let [tag, a, b, c, d] = trailer;
        Ok(Self {
            tag,
            stored: u32::from_le_bytes([a, b, c, d]),
            computed: crc.and(&[tag]).finish(),
        })
    }

    /// Whether the two are one.
    pub(crate) fn is_right(&self) -> bool {
        self.stored == self.computed
    }

    /// What is wrong with the block at `offset` of the table at `path`.
    pub(crate) fn mismatch(&self, path: &Path, offset: u64) -> Error {
        Error::corruption(path, offset, "block checksum mismatch")
            .with_value("stored", format_args!("{:#010x}", self.stored))
            .with_value("computed", format_args!("{:#010x}", self.computed))
    }
}

/// Every part of a table, of the data every block by itself, in the order of the file. Those with
/// a trailer include it.
pub(crate) fn parts(reader: &TableReader) -> impl Iterator<Item = Result<Section>> + '_ {
    reader.sections().into_iter().flat_map(move |section| {
        let is_data = section.name == DATA;
        let blocks = if is_data { reader.block_count() } else { 0 };
        let blocks = (0..blocks).map(move |at| {
            let handle = reader.block_info(at)?.handle;
            Ok(Section {
                name: "data block",
                offset: handle.offset,
                bytes: u64::from(handle.len) + TRAILER_BYTES as u64,
            })
        });
        blocks.chain((!is_data).then_some(Ok(section)))
    })
}

/// Whether everything in `file` is what was written and can be read, part by part, as far as the
/// index of `reader` leads.
pub(crate) fn check_parts<'a>(
    reader: &'a TableReader,
    file: &'a dyn File,
) -> impl Iterator<Item = Result<()>> + 'a {
    let check = move |part: Result<Section>| {
        let part = part?;
        if part.name == FOOTER {
            return Ok(());
        }
        let trailer = Trailer::read(file, reader.file_id(), part.offset, part.bytes)
            .map_err(|error| error.with_offset(part.offset))?;
        if trailer.is_right() {
            return Ok(());
        }
        Err(trailer.mismatch(reader.path(), part.offset))
    };
    parts(reader).map(check)
}
