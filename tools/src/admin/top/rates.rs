//! How fast the counters of a database grow: the difference of two looks over the time between.
//!
//! Knows neither files nor clocks: the time between two looks is what the writer's own steady clock
//! says it was.

use siltstone::{StatsFile, ThrottleCause};

/// What is counted as operations and as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Puts and deletes.
    Writes,
    /// Point reads, and the bytes of blocks that they touched.
    Gets,
    /// Positionings of cursors, and the bytes of blocks that they touched.
    Seeks,
    /// Entries that cursors stood on.
    Entries,
    /// Syncs of the log, and what was appended to it.
    Log,
    /// Flushes and what they wrote.
    Flushes,
    /// Compactions and what they wrote.
    Compactions,
    /// What compactions read.
    CompactionReads,
}

impl Flow {
    pub(super) const ALL: [Self; 8] = [
        Self::Writes,
        Self::Gets,
        Self::Seeks,
        Self::Entries,
        Self::Log,
        Self::Flushes,
        Self::Compactions,
        Self::CompactionReads,
    ];

    /// What it is called in JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Gets => "gets",
            Self::Seeks => "seeks",
            Self::Entries => "scanned_entries",
            Self::Log => "log",
            Self::Flushes => "flushes",
            Self::Compactions => "compactions",
            Self::CompactionReads => "compaction_reads",
        }
    }

    /// Whether operations of it are counted.
    pub(super) fn has_count(self) -> bool {
        self != Self::CompactionReads
    }

    /// Whether bytes of it are counted.
    pub(super) fn has_bytes(self) -> bool {
        self != Self::Entries
    }
}

/// Operations and bytes of one flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// The counters of one look that only ever grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Which process, and when it opened the database: only counters of one opening compare.
    opening: (u32, u64),
    up_micros: u64,
    amounts: [Amount; Flow::ALL.len()],
    found_count: u64,
    cache_hits: u64,
    cache_misses: u64,
    stall_micros: u64,
    throttle_micros: u64,
    /// Both together, by cause.
    waits: Vec<(ThrottleCause, u64)>,
    keyspaces: Vec<Part>,
}

/// The counters of one keyspace.
#[derive(Clone, Debug, Default)]
struct Part {
    name: String,
    writes: Amount,
    get_count: u64,
    seek_count: u64,
}

impl Counters {
    pub(super) fn of(file: &StatsFile) -> Self {
        let stats = &file.stats;
        let amount = |count, bytes| Amount { count, bytes };
        let amounts = Flow::ALL.map(|flow| match flow {
            Flow::Writes => amount(stats.user_write_count, stats.user_bytes_written),
            Flow::Gets => amount(stats.get_count, stats.get_bytes_read),
            Flow::Seeks => amount(stats.seek_count, stats.scan_bytes_read),
            Flow::Entries => amount(stats.scan_entry_count, 0),
            Flow::Log => amount(stats.log_sync_count, stats.log_bytes),
            Flow::Flushes => amount(stats.flush_count, stats.flush_bytes_written),
            Flow::Compactions => amount(stats.compaction_count, stats.compaction_bytes_written),
            Flow::CompactionReads => amount(0, stats.compaction_bytes_read),
        });
        let waits = stats.waits.iter();
        let waits = waits.map(|wait| {
            let micros = wait.stall_micros.saturating_add(wait.throttle_micros);
            (wait.cause, micros)
        });
        let costs = &file.amplification.keyspaces;
        let keyspaces = stats.keyspaces.iter().map(|keyspace| {
            let cost = costs.iter().find(|cost| cost.name == keyspace.name);
            Part {
                name: keyspace.name.clone(),
                writes: amount(keyspace.user_write_count, keyspace.user_bytes_written),
                get_count: keyspace.get_count,
                seek_count: cost.map_or(0, |cost| cost.read.scan.seek_count),
            }
        });
        Self {
            opening: (file.process_id, file.opened_micros),
            up_micros: file.up_micros,
            amounts,
            found_count: stats.get_hit_count,
            cache_hits: stats.cache_hits,
            cache_misses: stats.cache_misses,
            stall_micros: stats.stall_micros,
            throttle_micros: stats.throttle_micros,
            waits: waits.collect(),
            keyspaces: keyspaces.collect(),
        }
    }

    /// What they were when the database was opened.
    pub(super) fn at_open(&self) -> Self {
        Self {
            opening: self.opening,
            ..Self::default()
        }
    }

    pub(super) fn amount(&self, flow: Flow) -> Amount {
        self.amounts[flow as usize]
    }

    /// Whether `other` is of another opening, by this process or another one.
    pub(super) fn is_of_another_opening(&self, other: &Self) -> bool {
        self.opening != other.opening
    }

    /// Whether `other` was written after it.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.up_micros < other.up_micros
    }

    fn waited_micros(&self, cause: ThrottleCause) -> u64 {
        let mut waits = self.waits.iter();
        waits
            .find(|(found, _)| *found == cause)
            .map_or(0, |(_, micros)| *micros)
    }
}

/// Operations and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) count: f64,
    pub(super) bytes: f64,
}

/// How fast everything went between two looks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rates {
    /// The time between them.
    pub(super) seconds: f64,
    flows: [Rate; Flow::ALL.len()],
    /// The part of gets that found a value, unless there were none.
    pub(super) found_share: Option<f64>,
    /// The part of blocks that gets found in the block cache, unless they asked it for none.
    pub(super) cache_hit_share: Option<f64>,
    /// Seconds that writers waited, in each second. Several writers add up.
    pub(super) stalled_share: f64,
    /// Seconds that writers paid while they were slowed down, in each second.
    pub(super) throttled_share: f64,
    /// What was waited for longest, if anything was.
    pub(super) cause: Option<ThrottleCause>,
    /// By keyspace, in the order of the later look.
    pub(super) keyspaces: Vec<PartRate>,
}

/// How fast a keyspace went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PartRate {
    pub(super) writes: Rate,
    pub(super) gets: f64,
    pub(super) seeks: f64,
}

impl Rates {
    /// `None` unless `to` was written after `from`, and both are of one opening.
    pub(super) fn between(from: &Counters, to: &Counters) -> Option<Self> {
        if from.is_of_another_opening(to) || !from.is_before(to) {
            return None;
        }
        let seconds = ratio(to.up_micros - from.up_micros, 1_000_000);
        let rate = |from: Amount, to: Amount| Rate {
            count: grown(from.count, to.count) / seconds,
            bytes: grown(from.bytes, to.bytes) / seconds,
        };
        let share = |from: u64, to: u64| grown(from, to) / 1e6 / seconds;
        let gets = Flow::Gets as usize;
        let get_count = to.amounts[gets]
            .count
            .saturating_sub(from.amounts[gets].count);
        let found_count = to.found_count.saturating_sub(from.found_count);
        let hits = to.cache_hits.saturating_sub(from.cache_hits);
        let lookups = hits.saturating_add(to.cache_misses.saturating_sub(from.cache_misses));
        let waits = to.waits.iter().map(|(cause, micros)| {
            let waited = micros.saturating_sub(from.waited_micros(*cause));
            (waited, *cause)
        });
        let longest = waits
            .filter(|(waited, _)| *waited > 0)
            .max_by_key(|(waited, _)| *waited);
        let keyspaces = to.keyspaces.iter().map(|to| {
            let earlier = from.keyspaces.iter().find(|from| from.name == to.name);
            let none = Part::default();
            let from = earlier.unwrap_or(&none);
            PartRate {
                writes: rate(from.writes, to.writes),
                gets: grown(from.get_count, to.get_count) / seconds,
                seeks: grown(from.seek_count, to.seek_count) / seconds,
            }
        });
        Some(Self {
            seconds,
            flows: std::array::from_fn(|at| rate(from.amounts[at], to.amounts[at])),
            found_share: (get_count > 0).then(|| ratio(found_count, get_count)),
            cache_hit_share: (lookups > 0).then(|| ratio(hits, lookups)),
            stalled_share: share(from.stall_micros, to.stall_micros),
            throttled_share: share(from.throttle_micros, to.throttle_micros),
            cause: longest.map(|(_, cause)| cause),
            keyspaces: keyspaces.collect(),
        })
    }

    pub(super) fn rate(&self, flow: Flow) -> Rate {
        self.flows[flow as usize]
    }
}

/// By how much a counter grew. One that shrank is of a keyspace that was made anew.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown of it")]
fn grown(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown of it")]
fn ratio(above: u64, below: u64) -> f64 {
    above as f64 / below as f64
}
