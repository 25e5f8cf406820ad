//! Hints to the processor. They change speed, never results.

/// What a prefetch loads, on the processors that have one here.
pub const LINE_BYTES: usize = 64;

/// Asks for the cache line at `bytes[index]` to be loaded, if `index` is in bounds.
#[inline]
pub fn prefetch(bytes: &[u8], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "prefetch has no safe form")]
        // SAFETY: a prefetch reads nothing architecturally and cannot fault; the address comes
        // from a live reference in any case.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, index); // No hint on this processor.
}

/// Asks for the cache line at `address`, whatever it is.
#[inline]
pub fn prefetch_at<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "prefetch has no safe form")]
        // SAFETY: a prefetch reads nothing architecturally and cannot fault, wherever it points.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address; // No hint on this processor.
}

/// A branch that is seldom taken may call this first; it keeps the other side in line.
#[cold]
#[inline]
pub const fn cold_path() {}
