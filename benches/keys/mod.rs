//! Keys that more than one bench writes.

/// A key of sixteen bytes that sorts as `n` does.
pub(crate) fn key(n: u64) -> [u8; 16] {
    let mut key = *b"0000000000000000";
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

/// `n` spread over all 64 bits, one to one.
#[allow(dead_code, reason = "a bench of keys in order has no use for it")]
pub(crate) fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
