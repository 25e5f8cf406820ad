//! What zstd takes beside Rust's allocator, as it tells itself.

use base::sync::atomic::{AtomicUsize, Ordering};
use zstd_safe::{CCtx, CDict, DCtx};

/// What all [`Counted`] take.
static ZSTD_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What zstd has taken in this process beside Rust's allocator, in bytes: a context for each thread
/// that compresses or decompresses, and the dictionaries of tables being written.
///
/// Dictionaries of open tables are charged to the block cache instead. What zstd takes for the
/// moment of training a dictionary, some megabytes, it does not tell.
///
/// # Examples
/// ```
/// println!("zstd keeps {} bytes", sstable::zstd_bytes());
/// ```
pub fn zstd_bytes() -> usize {
    ZSTD_BYTES.load(Ordering::Relaxed)
}

/// Something of zstd's that knows its size.
pub(crate) trait Sizeof {
    fn taken_bytes(&self) -> usize;
}

impl Sizeof for CCtx<'_> {
    fn taken_bytes(&self) -> usize {
        self.sizeof()
    }
}

impl Sizeof for DCtx<'_> {
    fn taken_bytes(&self) -> usize {
        self.sizeof()
    }
}

impl Sizeof for CDict<'_> {
    fn taken_bytes(&self) -> usize {
        self.sizeof()
    }
}

/// It, counted in [`zstd_bytes`].
pub(crate) struct Counted<T: Sizeof> {
    inner: T,
    bytes: usize,
}

impl<T: Sizeof> Counted<T> {
    pub(crate) fn new(inner: T) -> Self {
        let mut counted = Self { inner, bytes: 0 };
        counted.recount();
        counted
    }

    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    /// What it takes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Uses it; contexts grow with what they are given.
    #[inline]
    pub(crate) fn with<R>(&mut self, work: impl FnOnce(&mut T) -> R) -> R {
        let result = work(&mut self.inner);
        self.recount();
        result
    }

    fn recount(&mut self) {
        let bytes = self.inner.taken_bytes();
        if bytes != self.bytes {
            ZSTD_BYTES.fetch_add(bytes, Ordering::Relaxed);
            ZSTD_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl<T: Sizeof> Drop for Counted<T> {
    fn drop(&mut self) {
        ZSTD_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
