//! What the flags mean for the engine.

use std::time::Duration;

use base::{Error, ErrorKind};
use siltstone::{Compression, FilterPolicy, LogAppend, Options, ReadMode};

use super::{Args, CompressionType, LogAppendName, ReadModeName};

/// Options of the engine, and the flags that they are set by.
const FLAGS: [(&str, &str); 10] = [
    ("cache_bytes", "--cache_size"),
    ("memtable_bytes_max", "--write_buffer_size"),
    ("memtable_bytes_total", "--db_write_buffer_size"),
    ("table_bytes_target", "--target_file_size_base"),
    ("level_base_bytes", "--max_bytes_for_level_base"),
    ("level_fan_out", "--max_bytes_for_level_multiplier"),
    (
        "level0_table_count_trigger",
        "--level0_file_num_compaction_trigger",
    ),
    ("block_bytes_target", "--block_size"),
    (
        "compaction_threads",
        "--max_background_jobs and --subcompactions",
    ),
    ("filter bits_per_key", "--bloom_bits"),
];

/// `error` of an open, in the words of the command line.
pub(crate) fn in_flags(error: Error) -> Error {
    if error.kind() != ErrorKind::InvalidArgument {
        return error;
    }
    let text = error.to_string();
    let mut flags = FLAGS.iter();
    match flags.find(|(option, _)| text.contains(&format!("option={option} "))) {
        Some((_, flag)) => error.context(flag),
        None if text.contains("option=zstd level ") => error.context("--compression_level"),
        None => error,
    }
}

impl Args {
    /// The engine's options, its own default wherever no flag was given.
    pub fn options(&self) -> Options {
        let mut options = Options::new().create_if_missing(!self.switches.use_existing_db);
        if let Some(kind) = self.compression_type {
            let compression = match kind {
                CompressionType::None => Compression::None,
                CompressionType::Zstd => Compression::Zstd {
                    level: self.compression_level,
                },
            };
            options = options
                .compression(compression)
                .bottom_compression(compression);
        }
        if let Ok(bits_per_key) = u32::try_from(self.bloom_bits) {
            options = options.filter(match bits_per_key {
                0 => FilterPolicy::None,
                _ => FilterPolicy::Blocked { bits_per_key },
            });
        }
        if let Some(bytes) = self.block_size {
            options = options
                .block_bytes_target(bytes)
                .compressed_block_bytes_target(bytes);
        }
        let asked = self.mmap_read.map(|is_mapped| {
            if is_mapped {
                ReadModeName::Mapped
            } else {
                ReadModeName::Positioned
            }
        });
        if let Some(mode) = asked.or(self.read_mode) {
            options = options.read_mode(match mode {
                ReadModeName::Mapped => ReadMode::Mapped,
                ReadModeName::Positioned => ReadMode::Positioned,
                ReadModeName::Auto => ReadMode::Auto,
            });
        }
        if let Some(mode) = self.log_append {
            options = options.log_append(match mode {
                LogAppendName::Mapped => LogAppend::Mapped,
                LogAppendName::Positioned => LogAppend::Positioned,
            });
        }
        if self.stats_file_interval_ms > 0 {
            let interval = Duration::from_millis(self.stats_file_interval_ms);
            options = options.stats_file_interval(Some(interval));
        }
        self.sizes(options)
    }

    /// The sizes and counts that were given, by the names of their flags.
    pub(crate) fn sizes_given(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let wide = |count: Option<usize>| count.map(|count| count as u64);
        [
            ("write_buffer_size", wide(self.write_buffer_size)),
            ("db_write_buffer_size", wide(self.db_write_buffer_size)),
            ("target_file_size_base", self.target_file_size_base),
            ("max_bytes_for_level_base", self.max_bytes_for_level_base),
            (
                "max_bytes_for_level_multiplier",
                self.max_bytes_for_level_multiplier,
            ),
            (
                "level0_file_num_compaction_trigger",
                wide(self.level0_file_num_compaction_trigger),
            ),
            ("block_size", wide(self.block_size)),
            ("max_background_jobs", wide(self.max_background_jobs)),
            ("subcompactions", wide(self.subcompactions)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// The sizes that steer flush, compaction and the block cache.
    fn sizes(&self, mut options: Options) -> Options {
        if let Ok(bytes) = u64::try_from(self.cache_size) {
            options = options.cache_bytes(bytes);
        }
        if let Some(bytes) = self.write_buffer_size {
            options = options.memtable_bytes_max(bytes);
        }
        if let Some(bytes) = self.db_write_buffer_size {
            options = options.memtable_bytes_total(bytes);
        }
        if let Some(bytes) = self.target_file_size_base {
            options = options.table_bytes_target(bytes);
        }
        if let Some(bytes) = self.max_bytes_for_level_base {
            options = options.level_base_bytes(bytes);
        }
        if let Some(count) = self.max_bytes_for_level_multiplier {
            options = options.level_fan_out(count);
        }
        if let Some(count) = self.level0_file_num_compaction_trigger {
            options = options.level0_table_count_trigger(count);
        }
        match self.max_background_jobs.max(self.subcompactions) {
            Some(count) => options.compaction_threads(count),
            None => options,
        }
    }
}
