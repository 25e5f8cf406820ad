//! The numbers that steer one keyspace.

use base::Level;
use base::error::Result;
use memtable::MemtableStructure;
use sstable::{Compression, FilterPolicy};

use super::{GIB, KIB, MIB, in_range, out_of_range};

/// Every option of one keyspace. See [`KeyspaceOptions`](crate::KeyspaceOptions) for what each one
/// means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyspaceSettings {
    pub(crate) memtable_bytes_max: usize,
    pub(crate) sealed_memtable_count_max: usize,
    pub(crate) memtable_structure: MemtableStructure,
    pub(crate) table_bytes_target: u64,
    pub(crate) block_bytes_target: usize,
    pub(crate) compressed_block_bytes_target: usize,
    pub(crate) level_base_bytes: u64,
    pub(crate) level_fan_out: u64,
    pub(crate) level0_table_count_trigger: usize,
    pub(crate) level0_table_count_max: usize,
    pub(crate) compression: Compression,
    pub(crate) compression_per_level: Vec<Compression>,
    pub(crate) bottom_compression: Compression,
    pub(crate) dictionary_bytes_max: usize,
    pub(crate) filter: FilterPolicy,
}

impl Default for KeyspaceSettings {
    fn default() -> Self {
        Self {
            memtable_bytes_max: 64 << 20,
            sealed_memtable_count_max: 2,
            memtable_structure: MemtableStructure::Tree,
            table_bytes_target: 64 * MIB,
            block_bytes_target: 4 << 10,
            compressed_block_bytes_target: 8 << 10,
            level_base_bytes: 256 * MIB,
            level_fan_out: 10,
            level0_table_count_trigger: 4,
            level0_table_count_max: 20,
            compression: Compression::None,
            compression_per_level: Vec::new(),
            bottom_compression: Compression::Zstd { level: 1 },
            dictionary_bytes_max: 4 << 10,
            filter: FilterPolicy::Blocked { bits_per_key: 10 },
        }
    }
}

impl KeyspaceSettings {
    /// Checks every number against its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let memtable_max = self.memtable_bytes_max as u64;
        in_range("memtable_bytes_max", memtable_max, 4 * KIB, 64 * GIB)?;
        let sealed_max = self.sealed_memtable_count_max as u64;
        in_range("sealed_memtable_count_max", sealed_max, 1, 64)?;
        let table_target = self.table_bytes_target;
        in_range("table_bytes_target", table_target, 4 * KIB, 16 * GIB)?;
        let block_target = self.block_bytes_target as u64;
        in_range("block_bytes_target", block_target, 64, 4 * MIB)?;
        let block_target = self.compressed_block_bytes_target as u64;
        in_range("compressed_block_bytes_target", block_target, 64, 4 * MIB)?;
        let dictionary_max = self.dictionary_bytes_max as u64;
        in_range("dictionary_bytes_max", dictionary_max, 0, 64 * KIB)?;
        in_range("level_base_bytes", self.level_base_bytes, 4 * KIB, 1 << 50)?;
        in_range("level_fan_out", self.level_fan_out, 2, 100)?;
        let trigger = self.level0_table_count_trigger as u64;
        in_range("level0_table_count_trigger", trigger, 1, 1000)?;
        let count_max = self.level0_table_count_max as u64;
        in_range("level0_table_count_max", count_max, trigger + 1, 10_000)?;
        self.validate_policies()
    }

    fn validate_policies(&self) -> Result<()> {
        let level_count = self.compression_per_level.len() as u64;
        in_range("compression_per_level", level_count, 0, Level::COUNT as u64)?;
        let few = [self.compression, self.bottom_compression];
        for compression in few.iter().chain(&self.compression_per_level) {
            if let Compression::Zstd { level } = compression
                && !(-7..=22).contains(level)
            {
                return Err(out_of_range("zstd level", level, -7, 22));
            }
        }
        match self.filter {
            FilterPolicy::None => Ok(()),
            FilterPolicy::Blocked { bits_per_key } | FilterPolicy::Bloom { bits_per_key } => {
                in_range("filter bits_per_key", u64::from(bits_per_key), 1, 32)
            }
        }
    }

    /// How much of a memtable its filter takes: a 64th, at 10 bits a key enough for entries of 80
    /// bytes and more.
    pub(crate) fn memtable_filter_bytes(&self) -> usize {
        self.memtable_bytes_max / 64
    }

    /// The largest steps in which a memtable asks for memory.
    pub(crate) fn arena_chunk_bytes(&self) -> usize {
        (self.memtable_bytes_max / 16).clamp(1 << 10, 2 << 20)
    }

    /// How a table at `level` is compressed. `is_bottom` says that no level below it is in use.
    pub(crate) fn compression_at(&self, level: Level, is_bottom: bool) -> Compression {
        if is_bottom {
            return self.bottom_compression;
        }
        let own = self.compression_per_level.get(level.index());
        own.copied().unwrap_or(self.compression)
    }

    /// How long the data blocks of a table become that is stored as `compression` says.
    pub(crate) fn block_bytes_target_of(&self, compression: Compression) -> usize {
        match compression {
            Compression::None => self.block_bytes_target,
            Compression::Zstd { .. } => self.compressed_block_bytes_target,
        }
    }

    /// What compaction's policy steers by.
    pub(crate) fn compaction_tuning(&self) -> compaction::Tuning {
        compaction::Tuning {
            level0_table_count_trigger: self.level0_table_count_trigger,
            level_base_bytes: self.level_base_bytes,
            fan_out: self.level_fan_out,
            table_bytes_target: self.table_bytes_target,
            compaction_bytes_max: self.table_bytes_target.saturating_mul(25),
            bottom_compression: self.bottom_compression.as_u8(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_extremes_are_not() {
        KeyspaceSettings::default()
            .validate()
            .expect("the defaults");
        let wrong: [fn(&mut KeyspaceSettings); 8] = [
            |s| s.compressed_block_bytes_target = 5 << 20,
            |s| s.dictionary_bytes_max = (64 << 10) + 1,
            |s| s.compression_per_level = vec![Compression::None; Level::COUNT + 1],
            |s| s.memtable_bytes_max = 0,
            |s| s.level_fan_out = 1,
            |s| s.level0_table_count_max = s.level0_table_count_trigger,
            |s| s.bottom_compression = Compression::Zstd { level: 23 },
            |s| s.filter = FilterPolicy::Blocked { bits_per_key: 0 },
        ];
        for change in wrong {
            let mut settings = KeyspaceSettings::default();
            change(&mut settings);
            let error = settings.validate().expect_err("out of range");
            assert_eq!(error.kind(), base::ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn each_level_has_its_own_compression_and_the_last_its_own_again() {
        let (fast, slow) = (
            Compression::Zstd { level: -5 },
            Compression::Zstd { level: 9 },
        );
        let settings = KeyspaceSettings {
            compression_per_level: vec![Compression::None, fast],
            compression: Compression::Zstd { level: 1 },
            bottom_compression: slow,
            ..KeyspaceSettings::default()
        };
        let at = |level, is_bottom| {
            let level = Level::new(level).expect("a level");
            settings.compression_at(level, is_bottom)
        };
        assert_eq!(at(0, false), Compression::None);
        assert_eq!(at(1, false), fast);
        assert_eq!(at(2, false), Compression::Zstd { level: 1 });
        for level in [0, 1, 6] {
            assert_eq!(at(level, true), slow);
        }
        assert_eq!(settings.block_bytes_target_of(Compression::None), 4 << 10);
        assert_eq!(settings.block_bytes_target_of(slow), 8 << 10);
    }
}
