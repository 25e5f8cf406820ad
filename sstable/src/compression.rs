//! Blocks raw or in zstd frames; contexts are kept per thread, a fresh one costs microseconds.
#![deny(clippy::indexing_slicing)]

use std::cell::RefCell;
use std::path::Path;

use base::coding::Reader;
use base::{Error, ErrorKind, Result};
use zstd_safe::{CCtx, DCtx, SafeResult};

use crate::bytes;
use crate::counted::Counted;
use crate::dictionary::{Compressing, Dictionary};
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

/// Values are part of the table format. Append only.
pub(crate) const RAW: u8 = 0;
pub(crate) const ZSTD: u8 = 1;
pub(crate) const ZSTD_DICTIONARY: u8 = 2;

/// Bytes of the length before a frame.
const LEN_BYTES: usize = 4;

thread_local! {
    static COMPRESSOR: RefCell<Option<Counted<CCtx<'static>>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Counted<DCtx<'static>>>> = const { RefCell::new(None) };
}

fn expanded_max(stored: usize) -> usize {
    BLOCK_BYTES_MAX.max(stored.saturating_mul(EXPANSION_MAX))
}

/// What a frame is made with.
#[derive(Clone, Copy)]
pub(crate) enum Means<'a> {
    Level(i32),
    Dictionary(&'a Compressing),
}

impl Means<'_> {
    const fn tag(self) -> u8 {
        match self {
            Self::Level(_) => ZSTD,
            Self::Dictionary(_) => ZSTD_DICTIONARY,
        }
    }
}

/// Appends `raw` to `out`: compressed if that is worth it, else as it is. Returns which.
pub(crate) fn compress(raw: &[u8], means: Means<'_>, frame: &mut Vec<u8>, out: &mut Vec<u8>) -> u8 {
    // Without memory for a context the block is still good as it is.
    if compress_frame(raw, means, frame).is_some()
        && is_worth_it(raw.len(), frame.len() + LEN_BYTES)
        && let Ok(raw_len) = u32::try_from(raw.len())
    {
        out.extend_from_slice(&raw_len.to_le_bytes());
        out.extend_from_slice(frame);
        return means.tag();
    }
    out.extend_from_slice(raw);
    RAW
}

/// Whether a block of `raw_len` is stored as `stored_len` bytes: it must save an eighth, and a
/// reader must accept it.
fn is_worth_it(raw_len: usize, stored_len: usize) -> bool {
    stored_len <= raw_len - raw_len / 8 && raw_len <= expanded_max(stored_len)
}

/// How long `raw` would be stored, without its trailer.
pub(crate) fn stored_len(raw: &[u8], means: Means<'_>, frame: &mut Vec<u8>) -> usize {
    match compress_frame(raw, means, frame) {
        Some(()) if is_worth_it(raw.len(), frame.len() + LEN_BYTES) => frame.len() + LEN_BYTES,
        _ => raw.len(),
    }
}

/// The frame of `raw` into `frame`; nothing without memory for it.
fn compress_frame(raw: &[u8], means: Means<'_>, frame: &mut Vec<u8>) -> Option<()> {
    frame.clear();
    frame.reserve(zstd_safe::compress_bound(raw.len()));
    let result: SafeResult = COMPRESSOR.with_borrow_mut(|kept| {
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Counted::new(CCtx::try_create()?)),
        };
        Some(context.with(|context| match means {
            Means::Level(level) => context.compress(frame, raw, level),
            Means::Dictionary(dictionary) => {
                context.compress_using_cdict(frame, raw, dictionary.prepared())
            }
        }))
    })?;
    result.ok().map(|_| ())
}

/// The block that `stored` is the compressed form of, into `out`. `dictionary` is what it was made
/// with, if it was.
///
/// # Errors
/// `Corruption` if it claims to be longer than a block of its kind can be, or is not what it
/// claims; `Io` if there is no memory for it.
pub(crate) fn decompress(
    stored: &[u8],
    dictionary: Option<&Dictionary>,
    out: &mut Vec<u8>,
    path: &Path,
    offset: u64,
) -> Result<()> {
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
        let context = match kept {
            Some(context) => context,
            None => kept.insert(Counted::new(DCtx::try_create()?)),
        };
        Some(context.with(|context| match dictionary {
            None => context.decompress(out, reader.rest()),
            Some(dictionary) => {
                context.decompress_using_ddict(out, reader.rest(), dictionary.prepared())
            }
        }))
    });
    match result {
        Some(Ok(len)) if len == raw_len && out.len() == raw_len => Ok(()),
        Some(Ok(len)) => Err(damaged("compressed block is not as long as it claims")
            .with_value("claimed", raw_len)
            .with_value("found", len)),
        Some(Err(code)) => Err(damaged("compressed block malformed")
            .with_value("cause", zstd_safe::get_error_name(code))),
        None => Err(Error::new(ErrorKind::Io, "no memory to decompress a block").with_path(path)),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn round_trip(raw: &[u8], level: i32) -> Option<usize> {
        let (mut frame, mut out) = (Vec::new(), b"before".to_vec());
        let means = Means::Level(level);
        let tag = compress(raw, means, &mut frame, &mut out);
        assert_eq!(out.len() - 6, stored_len(raw, means, &mut frame));
        if tag == RAW {
            assert_eq!(out[6..], *raw);
            return None;
        }
        assert_eq!(tag, ZSTD);
        let mut back = Vec::new();
        decompress(&out[6..], None, &mut back, Path::new("x"), 0).expect("our own bytes");
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
    fn what_a_thread_keeps_is_counted() {
        // Other tests of the process compress, too: what one thread keeps is known.
        let kept = std::thread::spawn(|| {
            let (mut frame, mut out) = (Vec::new(), Vec::new());
            compress(&[7; 4096], Means::Level(3), &mut frame, &mut out);
            let counted = || {
                COMPRESSOR.with_borrow(|kept| {
                    let kept = kept.as_ref().expect("it was used");
                    assert_eq!(kept.bytes(), kept.inner().sizeof());
                    assert!(crate::zstd_bytes() >= kept.bytes(), "it is among them");
                    kept.bytes()
                })
            };
            let small = counted();
            compress(&vec![7; 1 << 20], Means::Level(9), &mut frame, &mut out);
            (small, counted())
        });
        let (small, large) = kept.join().expect("it compresses");
        assert!(small > 4096 && large > small, "{small} {large}");
    }

    #[test]
    fn a_large_block_is_not_compressed_beyond_what_a_reader_accepts() {
        assert!(round_trip(&vec![0; BLOCK_BYTES_MAX], 1).is_some());
        assert_eq!(round_trip(&vec![0; BLOCK_BYTES_MAX + 1], 1), None);
    }

    #[test]
    fn false_claims_are_refused_before_and_after() {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        let tag = compress(&[7; 4096], Means::Level(1), &mut frame, &mut out);
        assert_eq!(tag, ZSTD);
        let path = Path::new("x");
        for claim in [0u32, 1, 4095, 4097, 4 << 20, (4 << 20) + 1, u32::MAX] {
            out[..4].copy_from_slice(&claim.to_le_bytes());
            let mut back = Vec::new();
            let error = decompress(&out, None, &mut back, path, 9).expect_err("a false claim");
            assert!(error.is_corruption(), "{claim}: {error}");
            assert!(back.capacity() <= BLOCK_BYTES_MAX);
        }
        assert!(decompress(&out[..3], None, &mut Vec::new(), path, 9).is_err());
        assert!(decompress(&[], None, &mut Vec::new(), path, 9).is_err());
    }
}
