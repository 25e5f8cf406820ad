//! Little-endian fields and varints, on slices, with every bound checked.
//!
//! Lengths from outside are compared with the bytes that remain before anything is done with them;
//! nothing here allocates for a length that was read.

/// Appends `value` as a LEB128 varint: 1 to 10 bytes.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the value is below 0x80")]
    out.push(value as u8);
}

/// How many bytes [`put_varint`] writes for `value`.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a varint length and the bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a tagged field: varint tag, varint length, bytes. See [`Fields`].
pub fn put_field(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_varint(out, u64::from(tag));
    put_bytes(out, bytes);
}

/// Appends a tagged field whose content is one varint.
pub fn put_varint_field(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_varint(out, u64::from(tag));
    put_varint(out, varint_len(value) as u64);
    put_varint(out, value);
}

/// Tags from here up may be skipped by a reader that does not know them; an unknown tag below is
/// a format this version must refuse.
pub const FIRST_SKIPPABLE_TAG: u32 = 1 << 16;

/// The input ended early, or a number in it is out of range. The caller knows file and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A cursor over encoded bytes. Every read either succeeds or leaves the rest unread.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer remain.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*chunk)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] if fewer remain.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.chunk().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] if fewer remain.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.chunk().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] if fewer remain.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// Sixteen bytes, little-endian.
    ///
    /// # Errors
    /// [`Malformed`] if fewer remain.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        self.chunk().map(u128::from_le_bytes)
    }

    /// A varint, in its shortest form.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut, exceeds 64 bits, or is padded with needless bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        // Lengths of values are mostly this long. A zero in the second byte would be padding.
        if let [low, high, rest @ ..] = self.rest
            && (1..0x80).contains(high)
        {
            self.rest = rest;
            return Ok(u64::from(low & 0x7f) | u64::from(*high) << 7);
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                if byte == 0 && index > 0 {
                    return Err(Malformed);
                }
                self.rest = self.rest.get(index + 1..).ok_or(Malformed)?;
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A varint that must fit in 32 bits.
    ///
    /// # Errors
    /// [`Malformed`] as for [`Reader::varint`], or if it does not fit.
    #[inline]
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        let mut ahead = self.clone();
        let value = u32::try_from(ahead.varint()?).map_err(|_| Malformed)?;
        *self = ahead;
        Ok(value)
    }

    /// Bytes written by [`put_bytes`].
    ///
    /// # Errors
    /// [`Malformed`] if the length exceeds what remains.
    #[inline]
    pub fn len_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let mut ahead = self.clone();
        let len = usize::try_from(ahead.varint()?).map_err(|_| Malformed)?;
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Ok(bytes)
    }
}

/// Iterates over tagged fields written by [`put_field`].
#[derive(Clone, Debug)]
pub struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    /// The fields in `bytes`, to its end.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    fn read(&mut self) -> Result<(u32, &'a [u8]), Malformed> {
        Ok((self.0.varint_u32()?, self.0.len_bytes()?))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.is_empty());
                for cut in 0..out.len() {
                    assert_eq!(Reader::new(&out[..cut]).varint(), Err(Malformed));
                }
            }
        }
    }

    #[test]
    fn padded_and_oversized_varints_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(Malformed));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint_u32(),
            Err(Malformed)
        );
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_use() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX - 4);
        out.extend_from_slice(b"abc");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.len_bytes(), Err(Malformed));
        assert_eq!(reader.rest().len(), out.len());
    }

    #[test]
    fn fields_end_at_the_first_fault() {
        let mut out = Vec::new();
        put_field(&mut out, 3, b"abc");
        put_varint_field(&mut out, 70_000, 300);
        let read: Vec<_> = Fields::new(&out).collect();
        assert_eq!(
            read,
            [Ok((3, &b"abc"[..])), Ok((70_000, &[0xac, 0x02][..]))]
        );
        out.push(1);
        assert_eq!(Fields::new(&out).last(), Some(Err(Malformed)));
    }
}
