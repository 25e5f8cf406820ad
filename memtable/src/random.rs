//! Seeded numbers for tests.

pub(crate) use base::random::Random;

/// A key over few letters and of few lengths, so that keys repeat, share prefixes longer than a
/// head, and end in zeros.
pub(crate) fn key(random: &mut Random) -> Vec<u8> {
    let mut key = match random.below(3) {
        0 => b"shared-prefix-".to_vec(),
        1 => b"shared".to_vec(),
        _ => Vec::new(),
    };
    for _ in 0..random.below(4) {
        key.push([0, b'a', b'b', 0xff][random.index(4)]);
    }
    key
}
