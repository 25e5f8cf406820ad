//! CRC-32 over parts, seeded with where the bytes belong.
//!
//! A block, record or header carries a checksum that also covers the id of its file and its offset
//! there, so that a swapped, stale or misdirected block does not pass. File numbers and database
//! ids take no part: a table can be linked, copied or restored under another number.

/// An IEEE CRC-32 being computed.
#[derive(Clone, Debug)]
pub struct Crc(crc32fast::Hasher);

impl Crc {
    /// A checksum for bytes at `offset` of the file with this id.
    #[inline]
    pub fn at(file_id: u64, offset: u64) -> Self {
        let mut crc = Self::plain();
        let mut place = [0; 16];
        place[..8].copy_from_slice(&file_id.to_le_bytes());
        place[8..].copy_from_slice(&offset.to_le_bytes());
        crc.0.update(&place);
        crc
    }

    /// A checksum that does not depend on a place.
    #[inline]
    pub fn plain() -> Self {
        Self(crc32fast::Hasher::new())
    }

    /// The same with `bytes` taken in.
    #[inline]
    #[must_use]
    pub fn and(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// The checksum. Never 0, so that a run of zeros is no valid header.
    #[inline]
    pub fn finish(self) -> u32 {
        match self.0.finalize() {
            0 => 0xffff_ffff,
            crc => crc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_place_count() {
        let whole = Crc::at(1, 2).and(b"abcdef").finish();
        assert_eq!(whole, Crc::at(1, 2).and(b"abc").and(b"def").finish());
        assert_ne!(whole, Crc::at(1, 3).and(b"abcdef").finish());
        assert_ne!(whole, Crc::at(2, 2).and(b"abcdef").finish());
        assert_eq!(Crc::plain().and(b"123456789").finish(), 0xcbf4_3926);
    }
}
