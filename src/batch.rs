//! What a commit is: ordered operations whose bytes are the log's payload.
//!
//! An operation is `head u8`, where the head says so `| keyspace varint`, where it says so `| key
//! length varint`, `| key`, and for a put `| value length varint | value`. The head: bits 0..1 are
//! the kind (3 is kept for others), bit 2 says that the keyspace is not the default one, bits 3..7
//! are the length of the key; 31 says that it is 31 or more and follows. Where a commit has one
//! operation, its value has no length and goes to the end. The n-th operation of a commit has the
//! commit's first sequence number plus n.

use base::coding::{Malformed, Reader, put_bytes, put_varint, varint_len};
use base::key::{BATCH_BYTES_MAX, KEY_BYTES_MAX};
use base::sync::Arc;
use base::{Error, KeyKind, KeyspaceId, Result, SequenceNumber};

/// Of an operation's head: the kind.
const KIND_MASK: u8 = 0b0000_0011;
/// The keyspace follows; without it, it is the default one.
const HAS_KEYSPACE: u8 = 0b0000_0100;
/// The bits above this are the length of the key,
const KEY_LEN_SHIFT: u32 = 3;
/// unless they are this, and the length follows.
const LONG_KEY: u8 = 31;

const _: () = assert!(KeyKind::Put.as_u8() <= KIND_MASK && KeyKind::Delete.as_u8() <= KIND_MASK);

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
    /// Where the value of the first operation begins, if it has one.
    first_value_at: Option<usize>,
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
        if self.count == 1 {
            self.delimit_first();
        }
        put_head(&mut self.bytes, kind, keyspace, key.len());
        self.bytes.extend_from_slice(key);
        match value {
            Some(value) if self.count == 0 => {
                self.first_value_at = Some(self.bytes.len());
                self.bytes.extend_from_slice(value);
            }
            Some(value) => put_bytes(&mut self.bytes, value),
            None => {}
        }
        self.count += 1;
        self.user_bytes += (key.len() + value_len) as u64;
    }

    /// Puts the length of the first value before it: another operation follows.
    fn delimit_first(&mut self) {
        let Some(at) = self.first_value_at else {
            return;
        };
        let (value_end, len) = (self.bytes.len(), self.bytes.len() - at);
        put_varint(&mut self.bytes, len as u64);
        debug_assert_eq!(self.bytes.len(), value_end + varint_len(len as u64));
        if let Some(value_and_len) = self.bytes.get_mut(at..) {
            value_and_len.rotate_left(len);
        }
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

fn put_head(out: &mut Vec<u8>, kind: KeyKind, keyspace: KeyspaceId, key_len: usize) {
    let short = u8::try_from(key_len).map_or(LONG_KEY, |len| len.min(LONG_KEY));
    let is_default = keyspace == KeyspaceId::DEFAULT;
    let has_keyspace = if is_default { 0 } else { HAS_KEYSPACE };
    out.push(kind.as_u8() | has_keyspace | short << KEY_LEN_SHIFT);
    if !is_default {
        put_varint(out, u64::from(keyspace.0));
    }
    if short == LONG_KEY {
        put_varint(out, key_len as u64);
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
    /// The only value goes to the end.
    is_single: bool,
}

impl<'a> Operations<'a> {
    /// The `count` operations of `payload`, the first of which has sequence number `first_seq`.
    pub(crate) fn new(payload: &'a [u8], first_seq: SequenceNumber, count: u32) -> Self {
        Self {
            reader: Reader::new(payload),
            seq: first_seq,
            left: count,
            is_single: count == 1,
        }
    }

    fn read(&mut self) -> Result<Operation<'a>, Malformed> {
        let head = self.reader.u8()?;
        let kind = KeyKind::from_u8(head & KIND_MASK).ok_or(Malformed)?;
        let keyspace = if head & HAS_KEYSPACE == 0 {
            KeyspaceId::DEFAULT
        } else {
            KeyspaceId(self.reader.varint_u32()?)
        };
        let short = head >> KEY_LEN_SHIFT;
        let key_len = if short == LONG_KEY {
            let len = usize::try_from(self.reader.varint()?).map_err(|_| Malformed)?;
            // One encoding for each operation.
            if len < usize::from(LONG_KEY) {
                return Err(Malformed);
            }
            len
        } else {
            usize::from(short)
        };
        let key = self.reader.bytes(key_len)?;
        let value = match kind {
            KeyKind::Put if self.is_single => self.reader.bytes(self.reader.rest().len())?,
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

    /// Operations as they were added: keyspace, key, value.
    type Added = (u32, Vec<u8>, Option<Vec<u8>>);

    fn round_trip(added: &[Added]) -> Vec<u8> {
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in added {
            batch.add(KeyspaceId(*keyspace), key, value.as_deref());
        }
        let read: Vec<_> = Operations::new(batch.payload(), SequenceNumber::ZERO, batch.op_count())
            .map(|operation| {
                let operation = operation.expect("whole");
                let value = (operation.kind == KeyKind::Put).then(|| operation.value.to_vec());
                (operation.keyspace.0, operation.key.to_vec(), value)
            })
            .collect();
        assert_eq!(read, added);
        batch.payload().to_vec()
    }

    #[test]
    fn lengths_and_keyspaces_take_bytes_only_where_they_must() {
        let put =
            |keyspace, key_len, value_len| (keyspace, vec![7; key_len], Some(vec![9; value_len]));
        // One operation: a head before the key, and nothing before the value.
        for value_len in [0, 1, 100, 127, 128, 70_000] {
            let payload = round_trip(&[put(0, 16, value_len)]);
            assert_eq!(payload.len(), 17 + value_len);
        }
        // The longest key whose length fits into the head, and the first that does not.
        assert_eq!(round_trip(&[put(0, 30, 5)]).len(), 36);
        assert_eq!(round_trip(&[put(0, 31, 5)]).len(), 38);
        assert_eq!(round_trip(&[put(0, 127, 5)]).len(), 134);
        assert_eq!(
            round_trip(&[put(0, KEY_BYTES_MAX, 5)]).len(),
            KEY_BYTES_MAX + 9
        );
        assert_eq!(round_trip(&[put(1, 16, 5)]).len(), 23);
        assert_eq!(round_trip(&[(300, vec![7; 16], None)]).len(), 19);
        assert_eq!(round_trip(&[put(0, 0, 0)]).len(), 1);
        // With a second one, the first value gets a length as well.
        let both = [put(0, 16, 128), (0, Vec::new(), None)];
        assert_eq!(round_trip(&both).len(), 17 + 2 + 128 + 1);
    }

    #[test]
    fn any_operations_come_back_as_they_were_added() {
        let mut random = base::random::Random(0x6f70_6572);
        println!("seed={:#x}", random.0);
        let some = |random: &mut base::random::Random| match random.below(8) {
            0 => 0,
            1 => 30 + random.below(3),
            2 => 126 + random.below(4),
            3 => 16_382 + random.below(4),
            _ => random.below(40),
        };
        for _ in 0..400 {
            let count = random.below(5);
            let mut added = Vec::new();
            for _ in 0..count {
                let key_len = usize::try_from(some(&mut random)).expect("small");
                let value_len = usize::try_from(some(&mut random)).expect("small");
                let keyspace = [0, 0, 1, 127, 128, u32::MAX][random.index(6)];
                let value = (random.below(3) > 0).then(|| vec![2; value_len]);
                added.push((keyspace, vec![1; key_len], value));
            }
            round_trip(&added);
        }
    }

    #[test]
    fn a_key_length_is_written_in_one_way_only() {
        let head = KeyKind::Put.as_u8() | LONG_KEY << KEY_LEN_SHIFT;
        let mut payload = vec![head, 30];
        payload.resize(40, 1);
        let read = |payload: &[u8]| {
            Operations::new(payload, SequenceNumber::ZERO, 1)
                .next()
                .expect("one")
                .map(|operation| operation.key.len())
        };
        assert_eq!(read(&payload), Err(Malformed));
        payload[1] = 31;
        assert_eq!(read(&payload), Ok(31));
        payload[1] = 39;
        assert_eq!(read(&payload), Err(Malformed), "longer than what is left");
        // The kinds that are kept for later.
        for kind in [0, 3] {
            payload[0] = kind | 16 << KEY_LEN_SHIFT;
            assert_eq!(read(&payload), Err(Malformed), "{kind}");
        }
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
