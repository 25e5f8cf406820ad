//! The options of a keyspace as MANIFEST and the log keep them: tagged fields.
//!
//! What is absent has its default, so that a keyspace made before an option existed goes on as it
//! was. A field that is added here gets the next tag, in both functions, and a line in the FORMAT
//! page of `compaction`.

#![deny(clippy::indexing_slicing)]

use base::coding::{
    FIRST_SKIPPABLE_TAG, Fields, Malformed, Reader, put_field, put_varint, put_varint_field,
};
use base::{Error, ErrorKind, Result};
use memtable::MemtableStructure;
use sstable::{Compression, FilterPolicy};

use super::KeyspaceSettings;

/// Tags of the fields. Part of the format: append only.
mod tag {
    pub(super) const MEMTABLE_BYTES_MAX: u32 = 1;
    pub(super) const SEALED_MEMTABLE_COUNT_MAX: u32 = 2;
    pub(super) const TABLE_BYTES_TARGET: u32 = 3;
    pub(super) const BLOCK_BYTES_TARGET: u32 = 4;
    pub(super) const LEVEL_BASE_BYTES: u32 = 5;
    pub(super) const LEVEL_FAN_OUT: u32 = 6;
    pub(super) const LEVEL0_TABLE_COUNT_TRIGGER: u32 = 7;
    pub(super) const LEVEL0_TABLE_COUNT_MAX: u32 = 8;
    pub(super) const COMPRESSION: u32 = 9;
    pub(super) const BOTTOM_COMPRESSION: u32 = 10;
    pub(super) const FILTER: u32 = 11;
    pub(super) const COMPRESSED_BLOCK_BYTES_TARGET: u32 = 12;
    pub(super) const DICTIONARY_BYTES_MAX: u32 = 13;
    pub(super) const COMPRESSION_PER_LEVEL: u32 = 14;
    pub(super) const MEMTABLE_STRUCTURE: u32 = 15;
}

const COMPRESSION_NONE: u8 = 0;
const COMPRESSION_ZSTD: u8 = 1;
const FILTER_NONE: u8 = 0;
const FILTER_BLOCKED: u8 = 1;
const FILTER_BLOOM: u8 = 2;
const STRUCTURE_TREE: u8 = 0;
const STRUCTURE_SKIP_LIST: u8 = 1;

impl KeyspaceSettings {
    /// The bytes that [`KeyspaceSettings::decode`] reads.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [
            (tag::MEMTABLE_BYTES_MAX, self.memtable_bytes_max as u64),
            (
                tag::SEALED_MEMTABLE_COUNT_MAX,
                self.sealed_memtable_count_max as u64,
            ),
            (tag::TABLE_BYTES_TARGET, self.table_bytes_target),
            (tag::BLOCK_BYTES_TARGET, self.block_bytes_target as u64),
            (tag::LEVEL_BASE_BYTES, self.level_base_bytes),
            (tag::LEVEL_FAN_OUT, self.level_fan_out),
            (
                tag::LEVEL0_TABLE_COUNT_TRIGGER,
                self.level0_table_count_trigger as u64,
            ),
            (
                tag::LEVEL0_TABLE_COUNT_MAX,
                self.level0_table_count_max as u64,
            ),
        ];
        for (tag, value) in numbers {
            put_varint_field(&mut out, tag, value);
        }
        put_compression(&mut out, tag::COMPRESSION, self.compression);
        put_compression(&mut out, tag::BOTTOM_COMPRESSION, self.bottom_compression);
        put_filter(&mut out, self.filter);
        let numbers = [
            (
                tag::COMPRESSED_BLOCK_BYTES_TARGET,
                self.compressed_block_bytes_target as u64,
            ),
            (tag::DICTIONARY_BYTES_MAX, self.dictionary_bytes_max as u64),
        ];
        for (tag, value) in numbers {
            put_varint_field(&mut out, tag, value);
        }
        let mut content = Vec::new();
        for compression in &self.compression_per_level {
            push_compression(&mut content, *compression);
        }
        put_field(&mut out, tag::COMPRESSION_PER_LEVEL, &content);
        let structure = match self.memtable_structure {
            MemtableStructure::Tree => STRUCTURE_TREE,
            MemtableStructure::SkipList => STRUCTURE_SKIP_LIST,
        };
        put_field(&mut out, tag::MEMTABLE_STRUCTURE, &[structure]);
        out
    }

    /// Reads the options of a keyspace.
    ///
    /// # Errors
    /// `Corruption` if they are cut or out of range, `Unsupported` if a newer version wrote them.
    /// The caller names the file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut settings = Self::default();
        let mut last_tag = 0;
        for field in Fields::new(bytes) {
            let (tag, content) = field.map_err(|_| malformed())?;
            if tag < FIRST_SKIPPABLE_TAG && tag <= last_tag {
                return Err(malformed().with_value("tag", tag));
            }
            last_tag = tag;
            settings.take(tag, content)?;
        }
        settings
            .validate()
            .map_err(|error| error.with_kind(ErrorKind::Corruption))?;
        Ok(settings)
    }

    fn take(&mut self, tag: u32, content: &[u8]) -> Result<()> {
        let reader = &mut Reader::new(content);
        let read = match tag {
            tag::MEMTABLE_BYTES_MAX => count(reader).map(|n| self.memtable_bytes_max = n),
            tag::SEALED_MEMTABLE_COUNT_MAX => {
                count(reader).map(|n| self.sealed_memtable_count_max = n)
            }
            tag::TABLE_BYTES_TARGET => reader.varint().map(|n| self.table_bytes_target = n),
            tag::BLOCK_BYTES_TARGET => count(reader).map(|n| self.block_bytes_target = n),
            tag::LEVEL_BASE_BYTES => reader.varint().map(|n| self.level_base_bytes = n),
            tag::LEVEL_FAN_OUT => reader.varint().map(|n| self.level_fan_out = n),
            tag::LEVEL0_TABLE_COUNT_TRIGGER => {
                count(reader).map(|n| self.level0_table_count_trigger = n)
            }
            tag::LEVEL0_TABLE_COUNT_MAX => count(reader).map(|n| self.level0_table_count_max = n),
            tag::COMPRESSION => compression(reader).map(|found| self.compression = found),
            tag::BOTTOM_COMPRESSION => {
                compression(reader).map(|found| self.bottom_compression = found)
            }
            tag::FILTER => filter(reader).map(|found| self.filter = found),
            tag::COMPRESSED_BLOCK_BYTES_TARGET => {
                count(reader).map(|n| self.compressed_block_bytes_target = n)
            }
            tag::DICTIONARY_BYTES_MAX => count(reader).map(|n| self.dictionary_bytes_max = n),
            tag::COMPRESSION_PER_LEVEL => {
                compressions(reader).map(|found| self.compression_per_level = found)
            }
            tag::MEMTABLE_STRUCTURE => {
                structure(reader).map(|found| self.memtable_structure = found)
            }
            FIRST_SKIPPABLE_TAG.. => return Ok(()),
            _ => {
                let message = "a newer version wrote the options of a keyspace";
                return Err(Error::new(ErrorKind::Unsupported, message).with_value("tag", tag));
            }
        };
        match read {
            Ok(()) if reader.is_empty() => Ok(()),
            _ => Err(malformed().with_value("tag", tag)),
        }
    }
}

fn malformed() -> Error {
    Error::new(
        ErrorKind::Corruption,
        "the options of a keyspace are malformed",
    )
}

fn count(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(reader.varint()?).map_err(|_| Malformed)
}

fn put_compression(out: &mut Vec<u8>, tag: u32, compression: Compression) {
    let mut content = Vec::new();
    push_compression(&mut content, compression);
    put_field(out, tag, &content);
}

fn push_compression(content: &mut Vec<u8>, compression: Compression) {
    match compression {
        Compression::None => content.push(COMPRESSION_NONE),
        Compression::Zstd { level } => {
            content.push(COMPRESSION_ZSTD);
            content.extend_from_slice(&level.to_le_bytes());
        }
    }
}

fn compressions(reader: &mut Reader<'_>) -> Result<Vec<Compression>, Malformed> {
    let mut found = Vec::new();
    while !reader.is_empty() {
        found.push(compression(reader)?);
    }
    Ok(found)
}

fn compression(reader: &mut Reader<'_>) -> Result<Compression, Malformed> {
    match reader.u8()? {
        COMPRESSION_NONE => Ok(Compression::None),
        COMPRESSION_ZSTD => {
            let level = i32::from_le_bytes(reader.u32()?.to_le_bytes());
            Ok(Compression::Zstd { level })
        }
        _ => Err(Malformed),
    }
}

fn structure(reader: &mut Reader<'_>) -> Result<MemtableStructure, Malformed> {
    match reader.u8()? {
        STRUCTURE_TREE => Ok(MemtableStructure::Tree),
        STRUCTURE_SKIP_LIST => Ok(MemtableStructure::SkipList),
        _ => Err(Malformed),
    }
}

fn put_filter(out: &mut Vec<u8>, filter: FilterPolicy) {
    let mut content = Vec::new();
    match filter {
        FilterPolicy::None => content.push(FILTER_NONE),
        FilterPolicy::Blocked { bits_per_key } => {
            content.push(FILTER_BLOCKED);
            put_varint(&mut content, u64::from(bits_per_key));
        }
        FilterPolicy::Bloom { bits_per_key } => {
            content.push(FILTER_BLOOM);
            put_varint(&mut content, u64::from(bits_per_key));
        }
    }
    put_field(out, tag::FILTER, &content);
}

fn filter(reader: &mut Reader<'_>) -> Result<FilterPolicy, Malformed> {
    match reader.u8()? {
        FILTER_NONE => Ok(FilterPolicy::None),
        FILTER_BLOCKED => Ok(FilterPolicy::Blocked {
            bits_per_key: reader.varint_u32()?,
        }),
        FILTER_BLOOM => Ok(FilterPolicy::Bloom {
            bits_per_key: reader.varint_u32()?,
        }),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Differs from the default in every field.
    fn unusual() -> KeyspaceSettings {
        KeyspaceSettings {
            memtable_bytes_max: 5 << 10,
            sealed_memtable_count_max: 7,
            table_bytes_target: 6 << 10,
            block_bytes_target: 65,
            level_base_bytes: 1 << 40,
            level_fan_out: 3,
            level0_table_count_trigger: 9,
            level0_table_count_max: 11,
            compression: Compression::Zstd { level: -5 },
            bottom_compression: Compression::Zstd { level: 19 },
            filter: FilterPolicy::Bloom { bits_per_key: 12 },
            compressed_block_bytes_target: 9 << 10,
            dictionary_bytes_max: 10 << 10,
            compression_per_level: vec![Compression::None, Compression::Zstd { level: 2 }],
            memtable_structure: MemtableStructure::SkipList,
        }
    }

    #[test]
    fn every_option_comes_back() {
        let without_filter = KeyspaceSettings {
            filter: FilterPolicy::None,
            ..unusual()
        };
        for settings in [KeyspaceSettings::default(), unusual(), without_filter] {
            let read = KeyspaceSettings::decode(&settings.encode()).expect("our own bytes");
            assert_eq!(read, settings);
        }
        let (usual, unusual) = (KeyspaceSettings::default(), unusual());
        let (usual, unusual) = (format!("{usual:#?}"), format!("{unusual:#?}"));
        for (a, b) in usual.lines().zip(unusual.lines()) {
            assert!(
                a != b || !a.contains(':') || a.contains('{'),
                "untested: {a}"
            );
        }
    }

    #[test]
    fn absent_options_have_their_defaults() {
        let read = KeyspaceSettings::decode(&[]).expect("nothing is fine");
        assert_eq!(read, KeyspaceSettings::default());
    }

    #[test]
    fn what_a_newer_version_wrote_is_skipped_or_refused() {
        let mut bytes = unusual().encode();
        put_field(&mut bytes, FIRST_SKIPPABLE_TAG + 5, b"anything");
        assert_eq!(
            KeyspaceSettings::decode(&bytes).expect("skipped"),
            unusual()
        );
        let mut bytes = unusual().encode();
        put_field(&mut bytes, 60_000, b"anything");
        let error = KeyspaceSettings::decode(&bytes).expect_err("a newer format");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn cut_doubled_or_absurd_options_are_corrupt() {
        let whole = unusual().encode();
        let corrupt = |bytes: &[u8]| {
            let error = KeyspaceSettings::decode(bytes).expect_err("malformed");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        };
        let fields: Vec<usize> = (0..whole.len())
            .filter(|at| KeyspaceSettings::decode(&whole[..*at]).is_ok())
            .collect();
        assert_eq!(fields.len(), 15, "only cuts between fields go unnoticed");
        corrupt(&[whole.as_slice(), &whole].concat());
        let mut absurd = Vec::new();
        put_varint_field(&mut absurd, tag::LEVEL_FAN_OUT, 1);
        corrupt(&absurd);
        let mut long = Vec::new();
        put_field(&mut long, tag::LEVEL_FAN_OUT, &[10, 0]);
        corrupt(&long);
        let mut unknown = Vec::new();
        put_field(&mut unknown, tag::MEMTABLE_STRUCTURE, &[2]);
        corrupt(&unknown);
    }
}
