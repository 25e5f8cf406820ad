//! The tables of the open database, looked at from outside: `verifychecksum` and `sstables`.

use std::fmt::Write as _;
use std::path::Path;

use base::error::{Error, Result};
use compaction::Table;

use super::lane::Lane;
use crate::admin::directory::{Directory, State};
use crate::text::escape;

/// What MANIFEST says now. The database may be open: nothing is locked or changed.
fn state(dir: &Path) -> Result<State> {
    let directory =
        Directory::open(dir).map_err(|e| Error::invalid_argument(e.to_string()).with_path(dir))?;
    directory.state()
}

fn tables(state: &State) -> impl Iterator<Item = (base::Level, &std::sync::Arc<Table>)> {
    let keyspaces = state.keyspaces.values();
    keyspaces.flat_map(|keyspace| keyspace.version.tables())
}

/// Reads every table, and checks every checksum, order and count. One operation each.
///
/// # Errors
/// `Corruption` at the first damage.
pub(crate) fn verify(dir: &Path, lane: &mut Lane<'_>) -> Result<()> {
    let state = state(dir)?;
    for (_, table) in tables(&state) {
        if lane.should_stop() {
            break;
        }
        let reader = table.handle().reader()?;
        let report = reader.verify()?;
        if report.entry_count != table.meta.entry_count {
            let message = "the table is not what MANIFEST says: counts";
            return Err(Error::corruption(reader.path(), 0, message));
        }
        table.handle().close();
        lane.finish(1, table.meta.file_bytes);
    }
    Ok(())
}

/// One line for each table.
///
/// # Errors
/// If MANIFEST cannot be read.
pub(crate) fn list(dir: &Path) -> Result<String> {
    let state = state(dir)?;
    let mut text = String::new();
    for keyspace in state.keyspaces.values() {
        let mut last = None;
        for (level, table) in keyspace.version.tables() {
            if last.replace(level) != Some(level) {
                writeln!(text, "--- {level} of {} ---", escape(&keyspace.name))
                    .expect("writing to a String cannot fail");
            }
            let meta = &table.meta;
            writeln!(
                text,
                " {}:{}[{}] entries {} tombstones {}['{}' .. '{}']",
                meta.number,
                meta.file_bytes,
                meta.seq_smallest.get(),
                meta.entry_count,
                meta.tombstone_count,
                shortened(&meta.smallest.user_key),
                shortened(&meta.largest.user_key),
            )
            .expect("writing to a String cannot fail");
        }
    }
    Ok(text)
}

fn shortened(key: &[u8]) -> String {
    const KEY_BYTES_MAX: usize = 24;
    escape(&key[..key.len().min(KEY_BYTES_MAX)])
}
