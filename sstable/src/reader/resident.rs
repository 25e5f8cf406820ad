//! What is read when a table is opened: the footer, and index and filter where they are kept in
//! memory. Called by the reader alone.
#![deny(clippy::indexing_slicing)]

use base::coding::Malformed;
use base::fs::File;
use base::{Error, Result};

use crate::bytes::{self, AlignedBytes};
use crate::compression::RAW;
use crate::format::{BlockHandle, Footer, Stored};

/// The first read of an open: enough for every footer this version writes.
const FOOTER_GUESS_BYTES: u64 = 4096;

/// Index and filter, with their trailers cut off, in memory.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) index: AlignedBytes,
    pub(super) filter: Option<AlignedBytes>,
}

/// Reads and decodes the footer of a file of `file_bytes`.
///
/// # Errors
/// As [`TableReader::open`].
pub(super) fn read_footer(file: &dyn File, file_bytes: u64) -> Result<Footer> {
    let path = file.path();
    let read_end = |len: u64| {
        let mut end = Vec::new();
        bytes::zeroed(&mut end, usize::try_from(len).unwrap_or(0), path)?;
        file.read_exact_at(file_bytes.saturating_sub(len), &mut end)?;
        Ok(end)
    };
    let mut end = read_end(file_bytes.min(FOOTER_GUESS_BYTES))?;
    let wanted = Footer::stored_len(&end).min(file_bytes);
    if wanted > end.len() as u64 {
        // Fields that only a later version writes may be longer than the guess.
        end = read_end(wanted)?;
    }
    Footer::decode(&end, file_bytes, path)
}

/// Reads the block at `handle`, checks it, and drops its trailer.
fn read_checked(file: &dyn File, handle: BlockHandle, footer: &Footer) -> Result<AlignedBytes> {
    let mut bytes = AlignedBytes::filled(handle.stored_len(), file.path(), |buffer| {
        file.read_exact_at(handle.offset, buffer)
    })?;
    check_raw(&bytes, handle, footer, file.path())?;
    bytes.truncate(handle.len as usize);
    Ok(bytes)
}

/// Checks a block that is never compressed, and returns it without its trailer.
pub(super) fn check_raw<'a>(
    stored: &'a [u8],
    handle: BlockHandle,
    footer: &Footer,
    path: &std::path::Path,
) -> Result<&'a [u8]> {
    let damaged = |message: &str| Error::corruption(path, handle.offset, message);
    let stored = Stored::split(stored).map_err(|Malformed| damaged("block malformed"))?;
    stored.check(path, footer.file_id, handle.offset)?;
    if stored.tag != RAW {
        return Err(damaged("block is compressed where it may not be"));
    }
    Ok(stored.payload)
}

impl Resident {
    pub(super) fn read(file: &dyn File, footer: &Footer) -> Result<Self> {
        Ok(Self {
            index: read_checked(file, footer.index, footer)?,
            filter: match footer.filter {
                Some(handle) => Some(read_checked(file, handle, footer)?),
                None => None,
            },
        })
    }
}
