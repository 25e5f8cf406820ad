//! The operations in a record of the log, for printing and checking.

use base::coding::{Malformed, Reader};
use base::key::KEY_BYTES_MAX;
use base::{KeyKind, KeyspaceId};

/// One operation of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) kind: KeyKind,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    /// Empty for a deletion.
    pub(crate) value: &'a [u8],
}

/// Hands each operation of `payload` to `visit`; returns how many there are.
///
/// # Errors
/// [`Malformed`] at the first that is none.
pub(crate) fn for_each<'a>(
    payload: &'a [u8],
    mut visit: impl FnMut(Operation<'a>),
) -> Result<u64, Malformed> {
    let mut reader = Reader::new(payload);
    let mut count = 0;
    while !reader.is_empty() {
        let kind = KeyKind::from_u8(reader.u8()?).ok_or(Malformed)?;
        let keyspace = KeyspaceId(reader.varint_u32()?);
        let key = reader.len_bytes()?;
        if key.len() > KEY_BYTES_MAX {
            return Err(Malformed);
        }
        let value = match kind {
            KeyKind::Put => reader.len_bytes()?,
            KeyKind::Delete => &[],
        };
        visit(Operation {
            kind,
            keyspace,
            key,
            value,
        });
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use base::coding::{put_bytes, put_varint};

    use super::*;

    #[test]
    fn operations_are_found_and_cut_ones_refused() {
        let mut payload = vec![KeyKind::Put.as_u8()];
        put_varint(&mut payload, 300);
        put_bytes(&mut payload, b"key");
        put_bytes(&mut payload, b"value");
        let first_len = payload.len();
        payload.push(KeyKind::Delete.as_u8());
        put_varint(&mut payload, 0);
        put_bytes(&mut payload, b"gone");
        let mut seen = Vec::new();
        assert_eq!(for_each(&payload, |operation| seen.push(operation)), Ok(2));
        assert_eq!(seen[0].keyspace, KeyspaceId(300));
        assert_eq!((seen[0].key, seen[0].value), (&b"key"[..], &b"value"[..]));
        assert_eq!((seen[1].kind, seen[1].key), (KeyKind::Delete, &b"gone"[..]));
        for cut in (1..payload.len()).filter(|cut| *cut != first_len) {
            assert_eq!(for_each(&payload[..cut], drop), Err(Malformed), "cut={cut}");
        }
    }
}
