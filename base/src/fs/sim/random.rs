//! Numbers that follow from a seed.

pub(super) use crate::random::Random;
use crate::random::mix;

/// A number that follows from `a` and `b` alone, whatever was asked before.
pub(super) fn mix_two(a: u64, b: u64) -> u64 {
    mix(mix(a ^ 0x9e37_79b9_7f4a_7c15) ^ b)
}
