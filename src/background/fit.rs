//! Looks now and then whether tables still fit in memory, for the choice of how they are read.

use base::Level;
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};

use super::Background;
use crate::superversion::KeyspaceState;

/// Between two looks there is at least so much time: each asks the system, and adds up all tables.
const FIT_INTERVAL_MICROS: u64 = 5_000_000;

/// When it was looked last.
#[derive(Debug, Default)]
pub(super) struct LastFit(AtomicU64);

impl Background {
    /// Tells the table cache how large the tables are, unless that was a moment ago. Called by the
    /// helper.
    pub(super) fn fit_tables(&self) {
        let now = self.clock.monotonic_micros().max(1);
        let last = self.last_fit.0.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < FIT_INTERVAL_MICROS {
            return;
        }
        self.last_fit.0.store(now, Ordering::Relaxed);
        let bytes_of = |keyspace: &Arc<KeyspaceState>| {
            let view = keyspace.peek();
            let levels = Level::all().map(|level| view.version.level_bytes(level));
            levels.sum::<u64>()
        };
        let table_bytes = self.keyspaces.all().iter().map(bytes_of).sum();
        self.tree.versions().tables().fit(table_bytes);
    }
}
