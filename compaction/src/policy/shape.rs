//! How large each level should be, which follows from how large the last one is.
//!
//! The last level holds most of the data and nothing decides how much: so its size is taken as it
//! is, and each level above is to hold a fan-out less. The *base*, to which level 0 is compacted,
//! is the level whose target comes nearest to `level_base_bytes`; the levels between stay empty. A
//! tree therefore begins with level 0 and the last one alone, and grows a level when the base has
//! become too large for what level 0 brings at a time. However much was written, what lies above
//! the last level is about a ninth of it. (The concept is RocksDB's dynamic level sizes.)
//!
//! Nearest, not first below: a level of less than half of what comes down from level 0 at a time
//! only writes everything once more. Where the change pays, and what each shape costs, is printed
//! by the simulation in this crate's tests.
//!
//! A level above the base that has tables, because the tree was shaped by other rules or has
//! shrunk, is *drained*: it is given away as a whole.

use base::Level;

use super::Tuning;
use crate::levels::Version;

/// The levels of one tree as they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The first level that is meant to have tables, level 0 apart.
    wanted_base: Level,
    /// Where level 0 is compacted to: the wanted base, or a level above it that is not drained yet.
    base: Level,
    targets: [u64; Level::COUNT],
}

impl Shape {
    /// The shape that `version` should have.
    pub fn of(version: &Version, tuning: &Tuning) -> Self {
        let mut targets = [0; Level::COUNT];
        // The last level may be empty yet, in a tree that was shaped by other rules.
        let largest = Level::all().skip(1).map(|level| version.level_bytes(level));
        let mut bytes = largest.max().unwrap_or(0);
        let fan_out = tuning.fan_out.max(2);
        let mut wanted_base = Level::LAST;
        targets[wanted_base.index()] = bytes.max(1);
        for level in Level::all().skip(1).rev().skip(1) {
            // A level in use stays until half of what brought it has gone, so that a tree about
            // that size does not change its shape for ever.
            let largest_base = tuning.level_base_bytes.saturating_mul(fan_out) / 2;
            let limit = if version.level(level).is_empty() {
                largest_base
            } else {
                largest_base / 2
            };
            if bytes <= limit {
                break;
            }
            bytes /= fan_out;
            wanted_base = level;
            targets[level.index()] = bytes.max(1);
        }
        let first_used = Level::all()
            .skip(1)
            .find(|level| !version.level(*level).is_empty());
        Self {
            wanted_base,
            base: first_used.map_or(wanted_base, |used| used.min(wanted_base)),
            targets,
        }
    }

    /// The level to which level 0 is compacted.
    pub fn base(&self) -> Level {
        self.base
    }

    /// The size from which `level` gives tables away; 0 for one that is to be empty.
    pub fn target(&self, level: Level) -> u64 {
        self.targets[level.index()]
    }

    /// Whether `level` should have no tables, though it may have.
    pub fn is_drained(&self, level: Level) -> bool {
        level != Level::ZERO && level < self.wanted_base
    }

    /// Where tables of `level` go when they go deeper. `None` from the last level.
    ///
    /// From a level that is drained they go as far as nothing lies in between: that is mostly a
    /// move, and one is enough.
    pub fn below(&self, version: &Version, level: Level) -> Option<Level> {
        let deeper = level.deeper()?;
        if level == Level::ZERO {
            return Some(self.base);
        }
        if !self.is_drained(level) {
            return Some(deeper);
        }
        let used = Level::all()
            .skip(deeper.index())
            .find(|deeper| !version.level(*deeper).is_empty());
        let Some(used) = used else {
            return Some(Level::LAST);
        };
        let above_used = Level::all().nth(used.index() - 1).expect("below level 0");
        Some(if above_used > level && !self.is_drained(above_used) {
            above_used
        } else {
            used
        })
    }
}
