//! Blocks raw or in zstd frames; contexts are kept per thread, a fresh one costs microseconds.
#![deny(clippy::indexing_slicing)]

use std::cell::RefCell;
use std::io;
use std::path::Path;

use base::coding::Reader;
use base::{Error, ErrorKind, Result};
use zstd::bulk::{Compressor, Decompressor};

use crate::bytes;
use crate::format::{BLOCK_BYTES_MAX, EXPANSION_MAX};

/// How the data blocks of a table are stored.
///
/// # Examples
/// ```
/// use sstable::Compression;
/// assert_eq!(Compression::default(), Compression::None);
/// let fast = Compression::Zstd { level: 1 };
/// assert_ne!(fast.as_u8(), Compression::None.as_u8());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// As they are, to be searched in the mapping.
    #[default]
    None,
    /// In zstd frames. Negative levels are the fast ones, 0 means zstd's own default.
    ///
    /// A block that does not shrink by an eighth stays raw.
    Zstd {
        /// zstd's level, about -7 to 22.
        level: i32,
    },
}

impl Compression {
    /// The number that stands for it in a table's properties and in the tree: 0 none, 1 zstd.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::None => RAW,
            Self::Zstd { .. } => ZSTD,
        }
    }
}

/// Values are part of the table format. Append only; 2 is reserved for zstd with a dictionary.
pub(crate) const RAW: u8 = 0;
pub(crate) const ZSTD: u8 = 1;

/// Bytes of the length before a frame.
const LEN_BYTES: usize = 4;

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn expanded_max(stored: usize) -> usize {
    BLOCK_BYTES_MAX.max(stored.saturating_mul(EXPANSION_MAX))
}

/// Writes the compressed form of `raw` to `out` if it is worth it; returns whether it was.
pub(crate) fn compress(raw: &[u8], level: i32, frame: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
    let Ok(raw_len) = u32::try_from(raw.len()) else {
        return false;
    };
    frame.clear();
    frame.reserve(zstd::compress_bound(raw.len()));
    if compress_frame(raw, level, frame).is_err() {
        // Without a context the block is still good as it is.
        return false;
    }
    let stored = frame.len() + LEN_BYTES;
    if stored > raw.len() - raw.len() / 8 || raw.len() > expanded_max(stored) {
        return false;
    }
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(frame);
    true
}

fn compress_frame(raw: &[u8], level: i32, frame: &mut Vec<u8>) -> io::Result<usize> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some((at, compressor)) => {
                if *at != level {
                    compressor.set_compression_level(level)?;
                    *at = level;
                }
                compressor
            }
            None => &mut kept.insert((level, Compressor::new(level)?)).1,
        };
        compressor.compress_to_buffer(raw, frame)
    })
}

/// The block that `stored` is the compressed form of, into `out`.
///
/// # Errors
/// `Corruption` if it claims to be longer than a block of its kind can be, or is not what it
/// claims; `Io` if there is no memory for it.
pub(crate) fn decompress(stored: &[u8], out: &mut Vec<u8>, path: &Path, offset: u64) -> Result<()> {
    let damaged = |message: &str| Error::corruption(path, offset, message);
    let mut reader = Reader::new(stored);
    let raw_len = reader
        .u32()
        .ok()
        .and_then(|len| usize::try_from(len).ok())
        .ok_or_else(|| damaged("compressed block malformed"))?;
    if raw_len > expanded_max(stored.len()) {
        return Err(damaged("compressed block claims too much").with_value("claimed", raw_len));
    }
    bytes::reserve(out, raw_len, path)?;
    let result = DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(reader.rest(), out)
    });
    match result {
        Ok(len) if len == raw_len && out.len() == raw_len => Ok(()),
        Ok(len) => Err(damaged("compressed block is not as long as it claims")
            .with_value("claimed", raw_len)
            .with_value("found", len)),
        Err(source) if source.kind() == io::ErrorKind::OutOfMemory => {
            Err(Error::io(path, "decompress", source).with_kind(ErrorKind::Io))
        }
        Err(source) => Err(damaged("compressed block malformed").with_source(source)),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn round_trip(raw: &[u8], level: i32) -> Option<usize> {
        let (mut frame, mut out) = (Vec::new(), b"before".to_vec());
        if !compress(raw, level, &mut frame, &mut out) {
            assert_eq!(out, b"before");
            return None;
        }
        let mut back = Vec::new();
        decompress(&out[6..], &mut back, Path::new("x"), 0).expect("our own bytes");
        assert_eq!(back, raw);
        Some(out.len() - 6)
    }

    #[test]
    fn blocks_that_do_not_shrink_by_an_eighth_stay_raw() {
        let text: Vec<u8> = (0..4096u32).map(|n| (n % 50).to_le_bytes()[0]).collect();
        for level in [-5, 1, 3, 9, 1] {
            assert!(round_trip(&text, level).is_some_and(|len| len < 3584));
        }
        let mut state = 1u64;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        assert_eq!(round_trip(&noise, 3), None);
        assert_eq!(round_trip(&[], 3), None);
    }

    #[test]
    fn a_large_block_is_not_compressed_beyond_what_a_reader_accepts() {
        assert!(round_trip(&vec![0; BLOCK_BYTES_MAX], 1).is_some());
        assert_eq!(round_trip(&vec![0; BLOCK_BYTES_MAX + 1], 1), None);
    }

    #[test]
    fn false_claims_are_refused_before_and_after() {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        assert!(compress(&[7; 4096], 1, &mut frame, &mut out));
        let path = Path::new("x");
        for claim in [0u32, 1, 4095, 4097, 4 << 20, (4 << 20) + 1, u32::MAX] {
            out[..4].copy_from_slice(&claim.to_le_bytes());
            let mut back = Vec::new();
            let error = decompress(&out, &mut back, path, 9).expect_err("a false claim");
            assert!(error.is_corruption(), "{claim}: {error}");
            assert!(back.capacity() <= BLOCK_BYTES_MAX);
        }
        assert!(decompress(&out[..3], &mut Vec::new(), path, 9).is_err());
        assert!(decompress(&[], &mut Vec::new(), path, 9).is_err());
    }
}
