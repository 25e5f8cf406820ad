//! What a table says about itself: counts, bounds, sizes, and how it was made.
#![deny(clippy::indexing_slicing)]

use base::coding::{self, FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader};
use base::key::KEY_BYTES_MAX;
use base::{HashSeed, KeyKind, KeyspaceId, Level, OwnedKey, SequenceNumber};

use crate::compression::{self, Compression};
use crate::filter::FilterPolicy;

/// Why a table was written. Values are part of the table format. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CreationReason {
    /// A memtable went to disk.
    Flush = 1,
    /// Tables were merged.
    Compaction = 2,
    /// The log was replayed.
    Recovery = 3,
    /// It was built outside and handed in.
    Ingest = 4,
}

impl CreationReason {
    const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Flush),
            2 => Some(Self::Compaction),
            3 => Some(Self::Recovery),
            4 => Some(Self::Ingest),
            _ => None,
        }
    }
}

/// When the entries of a table were committed, in microseconds since 1970: bounds, both ends
/// included. Outputs of a compaction take the bounds of all its inputs, so that they may be wider
/// than the table's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitTimes {
    /// No entry was committed before.
    pub smallest_micros: u64,
    /// No entry was committed after.
    pub largest_micros: u64,
}

impl CommitTimes {
    /// The bounds of both.
    ///
    /// # Examples
    /// ```
    /// use sstable::CommitTimes;
    /// let older = CommitTimes { smallest_micros: 3, largest_micros: 5 };
    /// let newer = CommitTimes { smallest_micros: 4, largest_micros: 9 };
    /// let both = CommitTimes { smallest_micros: 3, largest_micros: 9 };
    /// assert_eq!(newer.union(older), both);
    /// ```
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            smallest_micros: self.smallest_micros.min(other.smallest_micros),
            largest_micros: self.largest_micros.max(other.largest_micros),
        }
    }
}

/// What a table says about itself. Enough for the amplification report without reading data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Entries, tombstones included.
    pub entry_count: u64,
    /// Entries of each [`KeyKind`], by its byte.
    pub count_by_kind: [u64; KeyKind::RESERVED_COUNT],
    /// Distinct user keys.
    pub user_key_count: u64,
    /// User keys as given, in bytes.
    pub raw_key_bytes: u64,
    /// Values as given, in bytes.
    pub raw_value_bytes: u64,
    /// Data blocks as stored, trailers included.
    pub data_bytes: u64,
    /// Data blocks before compression, trailers included.
    pub uncompressed_data_bytes: u64,
    /// The index as stored, its trailer included.
    pub index_bytes: u64,
    /// The filter as stored, its trailer included; 0 without one.
    pub filter_bytes: u64,
    /// The dictionary of its data blocks as stored, its trailer included; 0 without one.
    pub dictionary_bytes: u64,
    /// Data blocks.
    pub block_count: u64,
    /// Lowest sequence number of an entry.
    pub seq_smallest: SequenceNumber,
    /// Highest sequence number of an entry.
    pub seq_largest: SequenceNumber,
    /// When its entries were committed; `None` in tables of version 1, and in those made from them.
    pub commit_times: Option<CommitTimes>,
    /// When the table was begun, in microseconds since 1970.
    pub created_micros: u64,
    /// What was asked for; single blocks may be raw all the same.
    pub compression: Compression,
    /// Which filter it has.
    pub filter: FilterPolicy,
    /// The level it was written for.
    pub level: Level,
    /// Why it was written.
    pub reason: CreationReason,
    /// The keyspace it was written for.
    pub keyspace: KeyspaceId,
    /// The seed of the hashes in its filter.
    pub hash_seed: HashSeed,
    /// First key.
    pub smallest: OwnedKey,
    /// Last key.
    pub largest: OwnedKey,
}

const TAG_ENTRIES: u32 = 1;
const TAG_BY_KIND: u32 = 2;
const TAG_KEY_BYTES: u32 = 3;
const TAG_VALUE_BYTES: u32 = 4;
const TAG_USER_KEYS: u32 = 5;
const TAG_DATA_BYTES: u32 = 6;
const TAG_UNCOMPRESSED_BYTES: u32 = 7;
const TAG_INDEX_BYTES: u32 = 8;
const TAG_FILTER_BYTES: u32 = 9;
const TAG_BLOCKS: u32 = 10;
const TAG_SEQ_SMALLEST: u32 = 11;
const TAG_SEQ_LARGEST: u32 = 12;
const TAG_CREATED: u32 = 13;
const TAG_COMPRESSION: u32 = 14;
const TAG_FILTER: u32 = 15;
const TAG_LEVEL: u32 = 16;
const TAG_REASON: u32 = 17;
const TAG_KEYSPACE: u32 = 18;
const TAG_HASH_SEED: u32 = 19;
const TAG_SMALLEST: u32 = 20;
const TAG_LARGEST: u32 = 21;
const TAG_COMMIT_SMALLEST: u32 = 22;
const TAG_COMMIT_LARGEST: u32 = 23;
const TAG_DICTIONARY_BYTES: u32 = 24;
/// Both commit times.
const COMMIT_TAGS: u32 = 1 << TAG_COMMIT_SMALLEST | 1 << TAG_COMMIT_LARGEST;

impl Properties {
    /// Entries that say a key is gone.
    pub fn tombstone_count(&self) -> u64 {
        let [_, deletes, ..] = self.count_by_kind;
        deletes
    }

    /// Tombstones for each thousand entries.
    pub fn tombstones_per_mille(&self) -> u64 {
        let per_mille = u128::from(self.tombstone_count()) * 1000;
        let entry_count = u128::from(self.entry_count.max(1));
        u64::try_from(per_mille / entry_count).unwrap_or(u64::MAX)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let mut value = Vec::new();
        coding::put_varint_field(&mut out, TAG_ENTRIES, self.entry_count);
        for count in self.count_by_kind {
            coding::put_varint(&mut value, count);
        }
        coding::put_field(&mut out, TAG_BY_KIND, &value);
        let (compression, level) = match self.compression {
            Compression::None => (compression::RAW, 0),
            Compression::Zstd { level } => (compression::ZSTD, level),
        };
        let (policy, bits_per_key) = self.filter.parts();
        for (tag, number) in [
            (TAG_KEY_BYTES, self.raw_key_bytes),
            (TAG_VALUE_BYTES, self.raw_value_bytes),
            (TAG_USER_KEYS, self.user_key_count),
            (TAG_DATA_BYTES, self.data_bytes),
            (TAG_UNCOMPRESSED_BYTES, self.uncompressed_data_bytes),
            (TAG_INDEX_BYTES, self.index_bytes),
            (TAG_FILTER_BYTES, self.filter_bytes),
            (TAG_BLOCKS, self.block_count),
            (TAG_SEQ_SMALLEST, self.seq_smallest.get()),
            (TAG_SEQ_LARGEST, self.seq_largest.get()),
            (TAG_CREATED, self.created_micros),
            (TAG_LEVEL, u64::from(self.level.as_u8())),
            (TAG_REASON, u64::from(self.reason as u8)),
            (TAG_KEYSPACE, u64::from(self.keyspace.0)),
            (TAG_HASH_SEED, self.hash_seed.0),
        ] {
            coding::put_varint_field(&mut out, tag, number);
        }
        value.clear();
        value.push(compression);
        coding::put_varint(&mut value, zigzag(level));
        coding::put_field(&mut out, TAG_COMPRESSION, &value);
        value.clear();
        value.push(policy);
        coding::put_varint(&mut value, u64::from(bits_per_key));
        coding::put_field(&mut out, TAG_FILTER, &value);
        for (tag, key) in [(TAG_SMALLEST, &self.smallest), (TAG_LARGEST, &self.largest)] {
            value.clear();
            coding::put_varint(&mut value, key.seq.get());
            value.push(key.kind.as_u8());
            value.extend_from_slice(&key.user_key);
            coding::put_field(&mut out, tag, &value);
        }
        if let Some(times) = self.commit_times {
            coding::put_varint_field(&mut out, TAG_COMMIT_SMALLEST, times.smallest_micros);
            coding::put_varint_field(&mut out, TAG_COMMIT_LARGEST, times.largest_micros);
        }
        if self.dictionary_bytes > 0 {
            coding::put_varint_field(&mut out, TAG_DICTIONARY_BYTES, self.dictionary_bytes);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut properties = Self::blank();
        let mut seen = 0u32;
        for field in Fields::new(bytes) {
            let (tag, value) = field?;
            if tag >= FIRST_SKIPPABLE_TAG {
                continue;
            }
            let mut reader = Reader::new(value);
            properties.read_field(tag, &mut reader)?;
            if !reader.is_empty() {
                return Err(Malformed);
            }
            seen |= 1u32.checked_shl(tag).ok_or(Malformed)?;
        }
        // Tags 1 to 21, every one; both commit times or none.
        let needed = (1 << (TAG_LARGEST + 1)) - 2;
        if seen & needed != needed || !matches!(seen & COMMIT_TAGS, 0 | COMMIT_TAGS) {
            return Err(Malformed);
        }
        match properties.commit_times {
            Some(times) if times.smallest_micros > times.largest_micros => Err(Malformed),
            _ => Ok(properties),
        }
    }

    pub(crate) fn blank() -> Self {
        let key = OwnedKey {
            user_key: Vec::new(),
            seq: SequenceNumber::ZERO,
            kind: KeyKind::Put,
        };
        Self {
            entry_count: 0,
            count_by_kind: [0; KeyKind::RESERVED_COUNT],
            user_key_count: 0,
            raw_key_bytes: 0,
            raw_value_bytes: 0,
            data_bytes: 0,
            uncompressed_data_bytes: 0,
            index_bytes: 0,
            filter_bytes: 0,
            dictionary_bytes: 0,
            block_count: 0,
            seq_smallest: SequenceNumber::ZERO,
            seq_largest: SequenceNumber::ZERO,
            commit_times: None,
            created_micros: 0,
            compression: Compression::None,
            filter: FilterPolicy::None,
            level: Level::ZERO,
            reason: CreationReason::Flush,
            keyspace: KeyspaceId::DEFAULT,
            hash_seed: HashSeed::default(),
            smallest: key.clone(),
            largest: key,
        }
    }

    fn read_field(&mut self, tag: u32, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        match tag {
            TAG_ENTRIES => self.entry_count = reader.varint()?,
            TAG_BY_KIND => {
                for count in &mut self.count_by_kind {
                    *count = reader.varint()?;
                }
            }
            TAG_KEY_BYTES => self.raw_key_bytes = reader.varint()?,
            TAG_VALUE_BYTES => self.raw_value_bytes = reader.varint()?,
            TAG_USER_KEYS => self.user_key_count = reader.varint()?,
            TAG_DATA_BYTES => self.data_bytes = reader.varint()?,
            TAG_UNCOMPRESSED_BYTES => self.uncompressed_data_bytes = reader.varint()?,
            TAG_INDEX_BYTES => self.index_bytes = reader.varint()?,
            TAG_FILTER_BYTES => self.filter_bytes = reader.varint()?,
            TAG_BLOCKS => self.block_count = reader.varint()?,
            TAG_SEQ_SMALLEST => self.seq_smallest = sequence(reader)?,
            TAG_SEQ_LARGEST => self.seq_largest = sequence(reader)?,
            TAG_CREATED => self.created_micros = reader.varint()?,
            TAG_COMPRESSION => {
                let tag = reader.u8()?;
                let level = unzigzag(reader.varint_u32()?);
                self.compression = match tag {
                    compression::RAW => Compression::None,
                    compression::ZSTD => Compression::Zstd { level },
                    _ => return Err(Malformed),
                };
            }
            TAG_FILTER => {
                let policy = reader.u8()?;
                let bits_per_key = reader.varint_u32()?;
                self.filter = FilterPolicy::from_parts(policy, bits_per_key).ok_or(Malformed)?;
            }
            TAG_LEVEL => self.level = byte(reader).and_then(|n| Level::new(n).ok_or(Malformed))?,
            TAG_REASON => {
                self.reason =
                    byte(reader).and_then(|n| CreationReason::from_u8(n).ok_or(Malformed))?;
            }
            TAG_KEYSPACE => self.keyspace = KeyspaceId(reader.varint_u32()?),
            TAG_HASH_SEED => self.hash_seed = HashSeed(reader.varint()?),
            TAG_SMALLEST => self.smallest = key(reader)?,
            TAG_LARGEST => self.largest = key(reader)?,
            TAG_COMMIT_SMALLEST => self.times().smallest_micros = reader.varint()?,
            TAG_COMMIT_LARGEST => self.times().largest_micros = reader.varint()?,
            TAG_DICTIONARY_BYTES => self.dictionary_bytes = reader.varint()?,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

impl Properties {
    /// The commit times while they are being read, one after the other.
    fn times(&mut self) -> &mut CommitTimes {
        self.commit_times.get_or_insert(CommitTimes {
            smallest_micros: 0,
            largest_micros: 0,
        })
    }
}

fn byte(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    u8::try_from(reader.varint()?).map_err(|_| Malformed)
}

fn sequence(reader: &mut Reader<'_>) -> Result<SequenceNumber, Malformed> {
    SequenceNumber::new(reader.varint()?).ok_or(Malformed)
}

fn key(reader: &mut Reader<'_>) -> Result<OwnedKey, Malformed> {
    let seq = sequence(reader)?;
    let kind = KeyKind::from_u8(reader.u8()?).ok_or(Malformed)?;
    let user_key = reader.bytes(reader.rest().len())?;
    if user_key.len() > KEY_BYTES_MAX {
        return Err(Malformed);
    }
    Ok(OwnedKey {
        user_key: user_key.to_vec(),
        seq,
        kind,
    })
}

fn zigzag(level: i32) -> u64 {
    u64::from(((level << 1) ^ (level >> 31)).cast_unsigned())
}

fn unzigzag(stored: u32) -> i32 {
    (stored >> 1).cast_signed() ^ -((stored & 1).cast_signed())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn properties_round_trip_and_need_every_field() {
        let mut properties = Properties::blank();
        properties.entry_count = 300;
        properties.count_by_kind = [0, 100, 200, 0, 0, 0, 0, 0];
        properties.hash_seed = HashSeed(u64::MAX);
        properties.filter = FilterPolicy::Bloom { bits_per_key: 12 };
        properties.smallest.user_key = vec![0; KEY_BYTES_MAX];
        properties.reason = CreationReason::Ingest;
        for level in [-7, -1, 0, 1, 22, i32::MIN, i32::MAX] {
            properties.compression = Compression::Zstd { level };
            assert_eq!(
                Properties::decode(&properties.encode()),
                Ok(properties.clone())
            );
        }
        assert_eq!(properties.tombstone_count(), 100);
        assert_eq!(properties.tombstones_per_mille(), 333);
        properties.smallest.user_key.clear();
        let bytes = properties.encode();
        for len in 0..bytes.len() {
            assert_eq!(Properties::decode(&bytes[..len]), Err(Malformed));
        }
        let mut newer = bytes.clone();
        coding::put_field(&mut newer, FIRST_SKIPPABLE_TAG + 3, b"skipped");
        assert_eq!(Properties::decode(&newer), Ok(properties));
        coding::put_field(&mut newer, 60, b"needed");
        assert_eq!(Properties::decode(&newer), Err(Malformed));
    }

    #[test]
    fn commit_times_come_in_pairs_and_in_order() {
        let mut properties = Properties::blank();
        let without = properties.encode();
        properties.dictionary_bytes = 4096;
        properties.commit_times = Some(CommitTimes {
            smallest_micros: 5,
            largest_micros: 9,
        });
        let bytes = properties.encode();
        assert_eq!(Properties::decode(&bytes), Ok(properties));
        for (smallest, largest, is_sound) in [
            (Some(7), Some(7), true),
            (Some(8), Some(7), false),
            (Some(7), None, false),
            (None, Some(7), false),
        ] {
            let mut bytes = without.clone();
            for (tag, time) in [
                (TAG_COMMIT_SMALLEST, smallest),
                (TAG_COMMIT_LARGEST, largest),
            ] {
                if let Some(time) = time {
                    coding::put_varint_field(&mut bytes, tag, time);
                }
            }
            let decoded = Properties::decode(&bytes);
            assert_eq!(decoded.is_ok(), is_sound, "{smallest:?} {largest:?}");
        }
    }
}
