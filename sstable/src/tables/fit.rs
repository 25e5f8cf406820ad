//! Whether tables are mapped, where that is left to their cache: as long as they fit in memory.
//!
//! A mapping needs no copy, but when the pages do not stay in memory, each one missing stalls its
//! reader, and nothing is kept but what the system thinks best. Positioned reads keep whole blocks,
//! with index and filter, in memory of their own.

use base::sync::Arc;
use base::sync::atomic::Ordering;

use super::{TableCache, TableHandle};
use crate::reader::{ReadMode, TableReader};

/// Tables that take more of the memory than this are read by positioned reads: in hundredths.
/// Beside them there is what else runs.
const LEAVE_PERCENT: u64 = 80;
/// Tables that take no more than this are mapped again. The distance keeps it from changing to and
/// fro: each change opens every table anew.
const RETURN_PERCENT: u64 = 50;

/// The mode for tables of `table_bytes` with so much memory for cached files.
fn choose(current: ReadMode, table_bytes: u64, memory_bytes: u64) -> ReadMode {
    let percent = |percent: u64| memory_bytes / 100 * percent;
    if table_bytes > percent(LEAVE_PERCENT) {
        ReadMode::Positioned
    } else if table_bytes <= percent(RETURN_PERCENT) {
        ReadMode::Mapped
    } else {
        current
    }
}

impl TableCache {
    /// How tables are read that are opened now: mapped or positioned.
    #[inline]
    pub fn mode(&self) -> ReadMode {
        // Relaxed: a table opened in the mode of a moment ago is as good.
        if self.is_mapping.load(Ordering::Relaxed) {
            ReadMode::Mapped
        } else {
            ReadMode::Positioned
        }
    }

    /// If the mode is left to the cache: chooses it anew for tables of `table_bytes` in all, and
    /// closes those that are open in another. Readers that are in use stay as they are.
    ///
    /// Asks the system how much memory there is; not for the path of a read.
    pub fn fit(&self, table_bytes: u64) {
        if self.options.mode != ReadMode::Auto {
            return;
        }
        let Some(memory_bytes) = self.fs.cache_memory_bytes() else {
            return;
        };
        let chosen = choose(self.mode(), table_bytes, memory_bytes);
        if chosen == self.mode() {
            return;
        }
        self.is_mapping
            .store(chosen == ReadMode::Mapped, Ordering::Relaxed);
        // One that is being opened in the old mode this very moment stays open in it.
        drop(self.close_all());
    }

    /// Closes every table; the next use opens it again.
    fn close_all(&self) -> Vec<(Arc<TableHandle>, Option<Arc<TableReader>>)> {
        let mut clock = self.clock.lock();
        let handles = clock.drain(..).filter_map(|handle| handle.upgrade());
        let close = |handle: Arc<TableHandle>| {
            let reader = handle.open.swap(None);
            (handle, reader)
        };
        handles.map(close).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_mapped_while_they_fit_and_do_not_change_to_and_fro() {
        let (mapped, positioned) = (ReadMode::Mapped, ReadMode::Positioned);
        for current in [mapped, positioned] {
            assert_eq!(choose(current, 0, 1000), mapped);
            assert_eq!(choose(current, 500, 1000), mapped);
            assert_eq!(choose(current, 501, 1000), current);
            assert_eq!(choose(current, 800, 1000), current);
            assert_eq!(choose(current, 801, 1000), positioned);
            assert_eq!(choose(current, u64::MAX, u64::MAX), positioned);
            assert_eq!(choose(current, 1, 0), positioned);
        }
    }
}
