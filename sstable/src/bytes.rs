//! Bytes read from a file into memory, begun at a cache line so that a filter probe touches one.
#![deny(clippy::indexing_slicing)]

use std::ops::Deref;
use std::path::Path;

use base::{Error, ErrorKind, Result};

const ALIGN: usize = 64;

/// Owned bytes whose first lies at a multiple of 64.
#[derive(Debug)]
pub(crate) struct AlignedBytes {
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` bytes, filled by `fill`.
    ///
    /// # Errors
    /// What `fill` says, or `Io` if there is no memory.
    pub(crate) fn filled(
        len: usize,
        path: &Path,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut buffer = Vec::new();
        zeroed(&mut buffer, len.saturating_add(ALIGN - 1), path)?;
        let start = buffer.as_ptr().align_offset(ALIGN);
        // A platform may decline to say; then alignment is lost, nothing else.
        let start = if start < ALIGN { start } else { 0 };
        if let Some(target) = buffer.get_mut(start..start.saturating_add(len)) {
            fill(target)?;
        }
        Ok(Self { buffer, start, len })
    }

    /// Drops what lies beyond `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer
            .get(self.start..self.start + self.len)
            .unwrap_or_default()
    }
}

/// Makes `buffer` `len` zeros long, or reports that there is no memory for it.
///
/// # Errors
/// `Io` if the allocation fails: the length came from outside.
pub(crate) fn zeroed(buffer: &mut Vec<u8>, len: usize, path: &Path) -> Result<()> {
    buffer.clear();
    reserve(buffer, len, path)?;
    buffer.resize(len, 0);
    Ok(())
}

/// Empties `buffer` and makes room for `len` bytes.
///
/// # Errors
/// `Io` if the allocation fails: the length came from outside.
pub(crate) fn reserve(buffer: &mut Vec<u8>, len: usize, path: &Path) -> Result<()> {
    buffer.clear();
    buffer.try_reserve_exact(len).map_err(|source| {
        Error::new(ErrorKind::Io, "no memory for a block")
            .with_path(path)
            .with_value("bytes", len)
            .with_source(source)
    })
}
