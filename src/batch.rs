//! What a commit is: ordered operations whose bytes are the log's payload.
//!
//! Each operation is `kind u8 | keyspace varint | key length varint | key`, and for a put `| value
//! length varint | value`. The n-th operation of a commit has the commit's first sequence number
//! plus n.

use base::coding::{Malformed, Reader, put_bytes, put_varint};
use base::key::{BATCH_BYTES_MAX, KEY_BYTES_MAX};
use base::sync::Arc;
use base::{Error, KeyKind, KeyspaceId, Result, SequenceNumber};

/// Operations that become visible and durable together, or not at all.
///
/// Of several operations on one key the last one wins. A batch can be written more than once and
/// reused after [`WriteBatch::clear`]; it holds its own copy of keys and values. At most 1 GiB.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = siltstone::Db::open(dir.path())?;
/// let mut batch = siltstone::WriteBatch::new();
/// batch.put("from", "90").put("to", "110").delete("pending");
/// db.write(&batch)?;
/// assert_eq!(db.get("to")?.as_deref(), Some(&b"110"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u32,
    user_bytes: u64,
    key_len_max: usize,
    value_len_max: usize,
    overflowed: bool,
    has_default: bool,
    /// Every keyspace named beside the default one, by id.
    others: Vec<(KeyspaceId, Arc<str>)>,
    /// Where the keyspaces come from that were named by handles.
    database: Origin,
}

/// Of which database the keyspaces of a batch are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Any,
    One(u128),
    /// Of several, so that no database can take it.
    Several,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that writes into `buffer`, which it clears.
    pub(crate) fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            bytes: buffer,
            ..Self::default()
        }
    }

    /// The buffer, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Sets `key` to `value` in the default keyspace. Limits are checked when the batch is written.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.has_default = true;
        self.add(KeyspaceId::DEFAULT, key.as_ref(), Some(value.as_ref()));
        self
    }

    /// Removes `key` from the default keyspace, there or not.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.has_default = true;
        self.add(KeyspaceId::DEFAULT, key.as_ref(), None);
        self
    }

    /// Notes that an operation on keyspace `id` of a database follows.
    pub(crate) fn name_keyspace(&mut self, id: KeyspaceId, name: &Arc<str>, database_id: u128) {
        self.database = match self.database {
            Origin::Any => Origin::One(database_id),
            Origin::One(known) if known == database_id => self.database,
            Origin::One(_) | Origin::Several => Origin::Several,
        };
        if id == KeyspaceId::DEFAULT {
            self.has_default = true;
        } else if let Err(at) = self.others.binary_search_by_key(&id, |(id, _)| *id) {
            self.others.insert(at, (id, Arc::clone(name)));
        }
    }

    /// Whether the database `id` has every keyspace named, or had.
    pub(crate) fn is_for(&self, id: u128) -> bool {
        matches!(self.database, Origin::Any) || self.database == Origin::One(id)
    }

    /// Whether it names the default keyspace.
    pub(crate) fn has_default(&self) -> bool {
        self.has_default
    }

    /// Every keyspace named beside the default one, by id.
    pub(crate) fn other_keyspaces(&self) -> &[(KeyspaceId, Arc<str>)] {
        &self.others
    }

    /// Adds an operation on a keyspace that the caller has named or will resolve by itself.
    pub(crate) fn add(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>) {
        let value_len = value.map_or(0, <[u8]>::len);
        self.key_len_max = self.key_len_max.max(key.len());
        self.value_len_max = self.value_len_max.max(value_len);
        let len = self
            .bytes
            .len()
            .saturating_add(key.len())
            .saturating_add(value_len);
        if len > BATCH_BYTES_MAX || self.count == u32::MAX {
            // Copying more would only use memory: the write will be refused.
            self.overflowed = true;
            return;
        }
        let kind = if value.is_some() {
            KeyKind::Put
        } else {
            KeyKind::Delete
        };
        self.bytes.push(kind.as_u8());
        put_varint(&mut self.bytes, u64::from(keyspace.0));
        put_bytes(&mut self.bytes, key);
        if let Some(value) = value {
            put_bytes(&mut self.bytes, value);
        }
        self.count += 1;
        self.user_bytes += (key.len() + value_len) as u64;
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none. Writing an empty batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.overflowed
    }

    /// Forgets every operation and keeps the memory.
    pub fn clear(&mut self) {
        *self = Self::reusing(std::mem::take(&mut self.bytes));
    }

    /// What it adds to the log, framing apart, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn op_count(&self) -> u32 {
        self.count
    }

    /// Bytes of keys and values.
    pub(crate) fn user_bytes(&self) -> u64 {
        self.user_bytes
    }

    /// Checks the limits of the database.
    pub(crate) fn check(&self, value_bytes_max: usize) -> Result<()> {
        let limit = |message: &str, found: usize, max: usize| {
            Err(Error::invalid_argument(message)
                .with_value("bytes", found)
                .with_value("max", max))
        };
        if self.key_len_max > KEY_BYTES_MAX {
            return limit("key too long", self.key_len_max, KEY_BYTES_MAX);
        }
        if self.value_len_max > value_bytes_max {
            return limit(
                "value longer than value_bytes_max",
                self.value_len_max,
                value_bytes_max,
            );
        }
        if self.overflowed || self.bytes.len() > BATCH_BYTES_MAX {
            return limit("batch too large", self.bytes.len(), BATCH_BYTES_MAX);
        }
        Ok(())
    }
}

/// One operation of a commit, borrowed from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) seq: SequenceNumber,
    pub(crate) kind: KeyKind,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Walks over the operations of a payload; ends after the first that is malformed.
#[derive(Clone, Debug)]
pub(crate) struct Operations<'a> {
    reader: Reader<'a>,
    seq: SequenceNumber,
    left: u32,
}

impl<'a> Operations<'a> {
    /// The `count` operations of `payload`, the first of which has sequence number `first_seq`.
    pub(crate) fn new(payload: &'a [u8], first_seq: SequenceNumber, count: u32) -> Self {
        Self {
            reader: Reader::new(payload),
            seq: first_seq,
            left: count,
        }
    }

    fn read(&mut self) -> Result<Operation<'a>, Malformed> {
        let kind = KeyKind::from_u8(self.reader.u8()?).ok_or(Malformed)?;
        let keyspace = KeyspaceId(self.reader.varint_u32()?);
        let key = self.reader.len_bytes()?;
        let value = match kind {
            KeyKind::Put => self.reader.len_bytes()?,
            KeyKind::Delete => &[],
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(Operation {
            seq: self.seq,
            kind,
            keyspace,
            key,
            value,
        })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            // Bytes beyond the declared count are a fault as well, reported once.
            let rest = std::mem::replace(&mut self.reader, Reader::new(&[]));
            return (!rest.is_empty()).then_some(Err(Malformed));
        }
        let operation = self.read();
        if operation.is_ok() {
            self.left -= 1;
            self.seq = self.seq.plus(1);
        } else {
            self.left = 0;
            self.reader = Reader::new(&[]);
        }
        Some(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_in_order_with_their_sequences() {
        let mut batch = WriteBatch::new();
        batch.put("a", "1").delete("b").put("", "");
        let first = SequenceNumber::new(7).expect("small");
        let operations: Vec<_> = Operations::new(batch.payload(), first, batch.op_count())
            .map(Result::unwrap)
            .collect();
        let seqs: Vec<_> = operations.iter().map(|op| op.seq.get()).collect();
        assert_eq!(seqs, [7, 8, 9]);
        assert_eq!(operations[1].kind, KeyKind::Delete);
        assert_eq!(operations[0].value, b"1");
        assert_eq!(batch.user_bytes(), 3);
    }

    #[test]
    fn cut_or_padded_payloads_are_malformed() {
        fn all(bytes: &[u8]) -> Result<Vec<Operation<'_>>, Malformed> {
            Operations::new(bytes, SequenceNumber::ZERO, 2).collect()
        }
        let mut batch = WriteBatch::new();
        batch.put("key", "value").delete("b");
        assert_eq!(all(batch.payload()).expect("whole").len(), 2);
        for cut in 0..batch.payload().len() {
            assert_eq!(all(&batch.payload()[..cut]), Err(Malformed), "cut={cut}");
        }
        let mut padded = batch.payload().to_vec();
        padded.push(1);
        assert_eq!(all(&padded), Err(Malformed));
    }

    #[test]
    fn limits_are_named() {
        let mut batch = WriteBatch::new();
        batch.put(vec![0; KEY_BYTES_MAX + 1], "");
        let error = batch.check(100).expect_err("a long key");
        assert_eq!(error.to_string(), "key too long bytes=65536 max=65535");
        batch.clear();
        batch.put("k", vec![0; 101]);
        assert!(batch.check(100).is_err());
        assert!(batch.check(101).is_ok());
    }
}
