//! Options under which everything happens all the time: small memtables, tables, segments.

use std::time::Duration;

use siltstone::{Compression, FilterPolicy, KeyspaceOptions, LogAppend, Options, ReadMode};

use crate::random::Random;

/// Options drawn from `seed`: another mixture for each opening of the database.
pub(crate) fn options(seed: u64) -> Options {
    let mut random = Random::stream(seed, &[0x0_5e77]);
    let bottom = match random.below(3) {
        0 => Compression::Zstd { level: 1 },
        _ => Compression::None,
    };
    let upper = match random.below(4) {
        0 => Compression::Zstd { level: 1 },
        _ => Compression::None,
    };
    let filter = match random.below(4) {
        0 => FilterPolicy::None,
        1 => FilterPolicy::Bloom { bits_per_key: 10 },
        _ => FilterPolicy::Blocked { bits_per_key: 10 },
    };
    let read_mode = match random.below(3) {
        0 => ReadMode::Positioned,
        _ => ReadMode::Mapped,
    };
    let log_append = match random.below(3) {
        0 => LogAppend::Positioned,
        1 => LogAppend::Mapped,
        _ => LogAppend::Auto,
    };
    let sync_interval = match random.below(8) {
        0 => None,
        _ => Some(Duration::from_millis(1 << random.below(10))),
    };
    let level0_trigger = 2 + random.below_usize(3);
    Options::new()
        .log_append(log_append)
        .keep_space_for_deletes(!random.one_in(4))
        .sealed_memtable_count_max(1 + random.below_usize(3))
        .memtable_bytes_max(8 << (10 + random.below(6)))
        .table_bytes_target(16 << (10 + random.below(4)))
        .block_bytes_target(256 << random.below(5))
        .level_base_bytes(64 << (10 + random.below(4)))
        .level_fan_out(2 + random.below(9))
        .level0_table_count_trigger(level0_trigger)
        .level0_table_count_max(level0_trigger + 1 + random.below_usize(12))
        .log_segment_bytes(64 << (10 + random.below(5)))
        .manifest_bytes_min(4 << (10 + random.below(5)))
        .sync_interval(sync_interval)
        .compaction_threads(1 + random.below_usize(2))
        .cache_bytes(1 << 20)
        .compression(upper)
        .bottom_compression(bottom)
        .dictionary_bytes_max(random.below_usize(3) * 2048)
        .filter(filter)
        .read_mode(read_mode)
}

/// Options of a keyspace, as small, drawn from `seed`.
pub(crate) fn keyspace_options(seed: u64) -> KeyspaceOptions {
    let mut random = Random::stream(seed, &[0x4e_5e77]);
    let mut compression = || match random.below(3) {
        0 => Compression::Zstd { level: 1 },
        _ => Compression::None,
    };
    let options = KeyspaceOptions::new()
        .compression(compression())
        .bottom_compression(compression());
    let level0_trigger = 1 + random.below_usize(4);
    options
        .dictionary_bytes_max(random.below_usize(3) * 2048)
        .memtable_bytes_max(4 << (10 + random.below(6)))
        .sealed_memtable_count_max(1 + random.below_usize(3))
        .table_bytes_target(4 << (10 + random.below(5)))
        .block_bytes_target(256 << random.below(5))
        .level_base_bytes(16 << (10 + random.below(4)))
        .level_fan_out(2 + random.below(9))
        .level0_table_count_trigger(level0_trigger)
        .level0_table_count_max(level0_trigger + 1 + random.below_usize(10))
}
