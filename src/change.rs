//! What the log says when a keyspace is created or dropped.
//!
//! Created: `id varint | key order u8 | name length varint | name | options to the end`. Dropped:
//! `id varint`. Each takes one sequence number, so that it has its place among the writes.

#![deny(clippy::indexing_slicing)]

use base::coding::{Malformed, Reader, put_bytes, put_varint};
use base::{Error, KeyspaceId, Result};
use compaction::KeyspaceCreated;

/// The longest name of a keyspace, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Checks the name of a keyspace that is to be created.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_argument("a keyspace needs a name"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid_argument("keyspace name too long")
            .with_value("bytes", name.len())
            .with_value("max", NAME_BYTES_MAX));
    }
    Ok(())
}

/// The payload of a record that creates a keyspace.
pub(crate) fn encode_create(id: KeyspaceId, created: &KeyspaceCreated) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(id.0));
    out.push(created.order);
    put_bytes(&mut out, &created.name);
    out.extend_from_slice(&created.options);
    out
}

/// Reads what [`encode_create`] wrote.
pub(crate) fn decode_create(payload: &[u8]) -> Result<(KeyspaceId, KeyspaceCreated), Malformed> {
    let mut reader = Reader::new(payload);
    let id = KeyspaceId(reader.varint_u32()?);
    let order = reader.u8()?;
    let name = reader.len_bytes()?.to_vec();
    let options = reader.rest().to_vec();
    let created = KeyspaceCreated {
        name,
        order,
        options,
    };
    Ok((id, created))
}

/// The payload of a record that drops a keyspace.
pub(crate) fn encode_drop(id: KeyspaceId) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(id.0));
    out
}

/// Reads what [`encode_drop`] wrote.
pub(crate) fn decode_drop(payload: &[u8]) -> Result<KeyspaceId, Malformed> {
    let mut reader = Reader::new(payload);
    let id = KeyspaceId(reader.varint_u32()?);
    if reader.is_empty() {
        Ok(id)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_and_cut_ones_are_refused() {
        let created = KeyspaceCreated {
            name: b"events".to_vec(),
            order: 0,
            options: vec![1, 2, 3],
        };
        let payload = encode_create(KeyspaceId(300), &created);
        assert_eq!(decode_create(&payload), Ok((KeyspaceId(300), created)));
        for cut in 0..payload.len() - 3 {
            assert_eq!(decode_create(&payload[..cut]), Err(Malformed), "{cut}");
        }
        let payload = encode_drop(KeyspaceId(7));
        assert_eq!(decode_drop(&payload), Ok(KeyspaceId(7)));
        assert_eq!(decode_drop(&[]), Err(Malformed));
        assert_eq!(decode_drop(&[7, 7]), Err(Malformed));
    }

    #[test]
    fn names_have_limits() {
        check_name(&"n".repeat(255)).expect("the longest");
        check_name("\u{e9}").expect("any letters");
        assert!(check_name("").is_err());
        assert!(check_name(&"n".repeat(256)).is_err());
    }
}
