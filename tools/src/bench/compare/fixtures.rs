//! An order and a row for the tests of those who carry them out.

use std::path::Path;

use super::child::Order;
use super::drive::Shape;
use super::plan::{Row, Work};
use crate::bench::engine::{Commit, EngineName, Setup, Tuning};

/// An order for `engine`, with its files in `dir`.
pub(super) fn order(engine: EngineName, dir: &Path) -> Order {
    Order {
        engine,
        setup: Setup {
            dir: dir.to_owned(),
            commit: Commit::Os,
            tuning: Tuning::Same,
            filter_bits: 10,
            memtable_bytes: 1 << 20,
            cache_bytes: 2 << 20,
        },
        shape: Shape {
            num: 500,
            key_bytes: 16,
            value_bytes: 100,
            ratio: 0.5,
            seed: 7,
        },
    }
}

/// A row of so many operations.
pub(super) fn row(work: Work, count: u64, threads: usize) -> Row {
    Row {
        label: String::new(),
        name: "",
        work,
        threads,
        count,
        batch: 1,
        nexts: 10,
        is_compacted: false,
        is_shown: true,
        ordinal: 1,
    }
}
