//! Looks at a keyspace and asks `throttle` how fast its writes may come.

use compaction::{Tuning, Version, policy};

use crate::superversion::KeyspaceState;
use crate::throttle::{self, Inputs, Limits, Span};
use crate::till::{Judgement, Speeds};
use crate::tuning::KeyspaceSettings;

/// Debt of so many times the size of level 1 is what compactions leave behind as they go.
const DEBT_BEGIN: f64 = 4.0;
const DEBT_END: f64 = 16.0;

/// How fast writes to `keyspace` may come now.
pub(crate) fn judge(keyspace: &KeyspaceState, speeds: Speeds) -> Judgement {
    let settings = keyspace.settings();
    let view = keyspace.peek();
    let sealed_count = as_f64(view.sealed.len() as u64);
    let fill = as_f64(view.active.bytes() as u64) / as_f64(settings.memtable_bytes_max as u64);
    let memtable_depth = sealed_count + fill.min(1.0);
    let inputs = Inputs {
        memtable_depth,
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

/// After how many bytes a keyspace that is watched is looked at again.
pub(crate) fn watch_bytes(keyspace: &KeyspaceState) -> u64 {
    keyspace.settings().memtable_bytes_max as u64 / 32
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
