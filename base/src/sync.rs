//! Locks, atomics and bells. Everything above takes them from here, so that a model checker can be
//! put in their place: `tests/models` does so.

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub use std::sync::Arc;
pub use std::sync::atomic;

mod bell;
mod word;
pub use bell::Bell;

/// Looks `count` times at most whether something is so by now, which takes nanoseconds each time:
/// before a sleep, which takes longer.
///
/// # Examples
/// ```
/// let mut looks = 0;
/// let came = base::sync::spin(9, || {
///     looks += 1;
///     looks == 3
/// });
/// assert!(came);
/// assert!(!base::sync::spin(9, || false));
/// ```
#[inline]
pub fn spin(count: u32, mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..count {
        if is_so() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}
