//! The operations in a record of the log, for printing and checking.

use base::coding::{Malformed, Reader};
use base::key::KEY_BYTES_MAX;
use base::{KeyKind, KeyspaceId};

/// Of an operation's head: the kind.
const KIND_MASK: u8 = 0b0000_0011;
/// The keyspace follows; without it, it is the default one.
const HAS_KEYSPACE: u8 = 0b0000_0100;
/// The bits above this are the length of the key,
const KEY_LEN_SHIFT: u32 = 3;
/// unless they are this, and the length follows.
const LONG_KEY: u8 = 31;

/// One operation of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) kind: KeyKind,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    /// Empty for a deletion.
    pub(crate) value: &'a [u8],
}

/// Hands each operation of `payload`, which holds `op_count`, to `visit`.
///
/// # Errors
/// [`Malformed`] at the first that is none, and if there are fewer or more.
pub(crate) fn for_each<'a>(
    payload: &'a [u8],
    op_count: u32,
    mut visit: impl FnMut(Operation<'a>),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(payload);
    for _ in 0..op_count {
        let operation = read(&mut reader, op_count == 1)?;
        visit(operation);
    }
    if reader.is_empty() {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// Reads one operation; the value of a commit's only one goes to the end.
fn read<'a>(reader: &mut Reader<'a>, is_single: bool) -> Result<Operation<'a>, Malformed> {
    let head = reader.u8()?;
    let kind = KeyKind::from_u8(head & KIND_MASK).ok_or(Malformed)?;
    let keyspace = if head & HAS_KEYSPACE == 0 {
        KeyspaceId::DEFAULT
    } else {
        KeyspaceId(reader.varint_u32()?)
    };
    let short = head >> KEY_LEN_SHIFT;
    let key_len = if short == LONG_KEY {
        usize::try_from(reader.varint()?).map_err(|_| Malformed)?
    } else {
        usize::from(short)
    };
    if key_len > KEY_BYTES_MAX {
        return Err(Malformed);
    }
    let key = reader.bytes(key_len)?;
    let value = match kind {
        KeyKind::Put if is_single => reader.bytes(reader.rest().len())?,
        KeyKind::Put => reader.len_bytes()?,
        KeyKind::Delete => &[],
    };
    Ok(Operation {
        kind,
        keyspace,
        key,
        value,
    })
}

#[cfg(test)]
mod tests {
    use base::coding::{put_bytes, put_varint};

    use super::*;

    fn head(kind: KeyKind, key_len: u8) -> u8 {
        kind.as_u8() | key_len << KEY_LEN_SHIFT
    }

    #[test]
    fn operations_are_found_and_cut_ones_refused() {
        let mut payload = vec![head(KeyKind::Put, 3) | HAS_KEYSPACE];
        put_varint(&mut payload, 300);
        payload.extend_from_slice(b"key");
        put_bytes(&mut payload, b"value");
        payload.push(head(KeyKind::Delete, LONG_KEY));
        put_bytes(&mut payload, &[b'g'; 40]);
        let mut seen = Vec::new();
        assert_eq!(
            for_each(&payload, 2, |operation| seen.push(operation)),
            Ok(())
        );
        assert_eq!(seen[0].keyspace, KeyspaceId(300));
        assert_eq!((seen[0].key, seen[0].value), (&b"key"[..], &b"value"[..]));
        assert_eq!(seen[1].kind, KeyKind::Delete);
        assert_eq!(seen[1].key, [b'g'; 40]);
        for cut in 0..payload.len() {
            let cut = &payload[..cut];
            assert_eq!(for_each(cut, 2, drop), Err(Malformed), "{}", cut.len());
        }
        assert_eq!(
            for_each(&payload, 3, drop),
            Err(Malformed),
            "one is missing"
        );
    }

    #[test]
    fn the_value_of_a_single_operation_goes_to_the_end() {
        let mut payload = vec![head(KeyKind::Put, 1), b'k'];
        payload.extend_from_slice(b"value");
        let mut seen = Vec::new();
        assert_eq!(
            for_each(&payload, 1, |operation| seen.push(operation)),
            Ok(())
        );
        assert_eq!((seen[0].key, seen[0].value), (&b"k"[..], &b"value"[..]));
        assert_eq!(seen[0].keyspace, KeyspaceId::DEFAULT);
        // A deletion has none.
        let payload = [head(KeyKind::Delete, 1), b'k', 0];
        assert_eq!(for_each(&payload, 1, drop), Err(Malformed));
    }
}
