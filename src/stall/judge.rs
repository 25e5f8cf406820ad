//! Looks at a keyspace, or at the memory of all, and asks `throttle` how fast writes may come.

use compaction::{Tuning, Version, policy};

use crate::registry::{Keyspaces, MemoryUse};
use crate::superversion::KeyspaceState;
use crate::throttle::{self, Inputs, Limits, Span};
use crate::till::{Judgement, Speeds, Till};
use crate::tuning::KeyspaceSettings;

/// Debt of so many times the size of level 1 is what compactions leave behind as they go.
const DEBT_BEGIN: f64 = 4.0;
const DEBT_END: f64 = 16.0;
/// Active memtables may take half of the memory, and what is sealed of them as much. From this part
/// on writes are slowed down: a flush that takes as long as it does leaves a quarter to be slowed
/// in, which lasts until it has ended.
const MEMORY_BEGIN: f64 = 0.75;
/// What fills without a change of the view is looked at after this part of its bound.
const LOOKS_PER_SPAN: u64 = 32;

/// Where writes pay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter<'a> {
    /// For flush and compaction of the keyspace that is written to.
    Keyspace(&'a KeyspaceState),
    /// For the memory that all share. With one of the keyspaces that are written to.
    Memory(&'a Keyspaces, &'a KeyspaceState),
}

impl<'a> Counter<'a> {
    pub(super) fn till(self) -> &'a Till {
        match self {
            Self::Keyspace(keyspace) => &keyspace.till,
            Self::Memory(keyspaces, _) => keyspaces.memory_till(),
        }
    }

    pub(super) fn keyspace(self) -> &'a KeyspaceState {
        match self {
            Self::Keyspace(keyspace) | Self::Memory(_, keyspace) => keyspace,
        }
    }

    /// How fast writes may come now.
    pub(super) fn judge(self, speeds: Speeds) -> Judgement {
        match self {
            Self::Keyspace(keyspace) => judge(keyspace, speeds),
            Self::Memory(keyspaces, _) => judge_memory(keyspaces.memory_use(), speeds),
        }
    }

    /// After how many bytes it is looked at again while it is watched.
    pub(super) fn watch_bytes(self) -> u64 {
        match self {
            Self::Keyspace(keyspace) => {
                keyspace.settings().memtable_bytes_max as u64 / LOOKS_PER_SPAN
            }
            Self::Memory(keyspaces, _) => keyspaces.memory_use().bytes_max as u64 / LOOKS_PER_SPAN,
        }
    }
}

/// How fast writes to `keyspace` may come now.
fn judge(keyspace: &KeyspaceState, speeds: Speeds) -> Judgement {
    let settings = keyspace.settings();
    let view = keyspace.peek();
    let sealed_count = as_f64(view.sealed.len() as u64);
    let fill = as_f64(view.active.bytes() as u64) / as_f64(settings.memtable_bytes_max as u64);
    let memtable_depth = sealed_count + fill.min(1.0);
    let inputs = Inputs {
        memtable_depth,
        // That is judged for all keyspaces together.
        memory_bytes: 0.0,
        // With what is about to come: so it grows steadily, not by a table at a time.
        level0_depth: as_f64(view.version.level0_depth() as u64) + memtable_depth,
        debt_bytes: debt_bytes(&view.version, &settings.compaction_tuning()),
        flush_speed: speeds.flush,
        compaction_speed: speeds.compaction,
    };
    let limits = limits(settings);
    Judgement {
        verdict: throttle::rate(&inputs, &limits),
        // A memtable fills without a change of the view.
        is_watched: sealed_count + 1.0 > limits.memtable_depth.begin,
    }
}

/// How fast writes may come now, to whatever keyspace, by the memory of all memtables.
///
/// Memory counts only while some of it is about to be given back: a memtable that is large by
/// itself is nothing that a slower writer would help.
fn judge_memory(memory: MemoryUse, speeds: Speeds) -> Judgement {
    let (bytes, bytes_max) = (as_f64(memory.bytes as u64), as_f64(memory.bytes_max as u64));
    let inputs = Inputs {
        memory_bytes: if memory.is_coming_back { bytes } else { 0.0 },
        flush_speed: speeds.flush,
        compaction_speed: speeds.compaction,
        ..Inputs::default()
    };
    let limits = Limits {
        memory_bytes: Span {
            begin: bytes_max * MEMORY_BEGIN,
            end: bytes_max,
        },
        ..Limits::NONE
    };
    Judgement {
        verdict: throttle::rate(&inputs, &limits),
        // It fills without being counted.
        is_watched: memory.is_coming_back,
    }
}

/// Where slowing begins and ends, by the settings of a keyspace.
pub(crate) fn limits(settings: &KeyspaceSettings) -> Limits {
    let sealed_max = as_f64(settings.sealed_memtable_count_max as u64);
    let trigger = as_f64(settings.level0_table_count_trigger as u64);
    let level0_max = as_f64(settings.level0_table_count_max as u64);
    let level_base = as_f64(settings.level_base_bytes);
    Limits {
        memtable_depth: Span {
            begin: sealed_max,
            end: sealed_max + 1.0,
        },
        memory_bytes: Span::NEVER,
        level0_depth: Span {
            // Compaction begins at the trigger and takes a while: that is not yet being behind.
            begin: trigger + (level0_max - trigger) / 4.0 + 0.5,
            end: level0_max,
        },
        debt_bytes: Span {
            begin: DEBT_BEGIN * level_base,
            end: DEBT_END * level_base,
        },
    }
}

/// What the levels from 1 on hold beyond their targets.
fn debt_bytes(version: &Version, tuning: &Tuning) -> f64 {
    policy::scores(version, tuning)
        .into_iter()
        .filter(|(level, score)| *level != base::Level::ZERO && *score > 1.0)
        .map(|(level, score)| as_f64(version.level_bytes(level)) * (1.0 - 1.0 / score))
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "a speed need not be exact")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
