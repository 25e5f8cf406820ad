//! Opening a directory that must not change, perhaps beside a process that writes to it.
//!
//! Recovery runs as always, over a file system that keeps every change in memory: the same code
//! decides what the log holds, and nothing it writes, locks or unlinks reaches the directory. A
//! writer may replace MANIFEST and unlink tables and segments in the meantime. What then looks
//! missing or damaged is looked at again from CURRENT on.

use std::path::Path;

use base::fs::{FileSystem, OverlayFs};
use base::sync::Arc;
use base::{FileKind, Level, Result, ids};

use super::Opened;
use crate::seams::Seams;
use crate::tuning::Settings;

/// Attempts in all, beside a writer that never rests.
const ATTEMPT_COUNT_MAX: usize = 200;
/// Attempts on a directory that shows no change: the log may still have been read while it grew.
const UNCHANGED_COUNT_MAX: usize = 5;
/// A table that was unlinked could not be opened again: none is ever closed, neither for want of
/// room in the block cache nor of descriptors.
const OPEN_TABLES_MAX: usize = usize::MAX;

/// Opens `dir` as it is now, every table of it, and changes nothing there.
///
/// # Errors
/// As [`super::open`], but never `AlreadyOpen`; `Io` if the system does not let so many tables be
/// open.
pub(crate) fn open(dir: &Path, settings: &Settings, seams: &Seams) -> Result<Opened> {
    let settings = Settings {
        create_if_missing: false,
        open_tables_max: OPEN_TABLES_MAX,
        ..settings.clone()
    };
    let mut before = names(&*seams.fs, dir);
    let mut unchanged_count = 0;
    for attempt in 1.. {
        let error = match open_once(dir, &settings, seams) {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_corruption() || error.is_not_found() => error,
            Err(error) => return Err(error),
        };
        let after = names(&*seams.fs, dir);
        unchanged_count = if before == after {
            unchanged_count + 1
        } else {
            0
        };
        if unchanged_count == UNCHANGED_COUNT_MAX || attempt == ATTEMPT_COUNT_MAX {
            return Err(error);
        }
        before = after;
    }
    unreachable!("the last attempt returns")
}

/// What lies in the directory; nothing if there is none. Changes whenever a writer flushes,
/// compacts, or begins a segment or a MANIFEST.
fn names(fs: &dyn FileSystem, dir: &Path) -> Vec<String> {
    let Ok(entries) = fs.list(dir) else {
        return Vec::new();
    };
    let names = entries.into_iter().map(|entry| entry.name);
    // It comes and goes with the time, whatever else happens.
    let mut names: Vec<_> = names.filter(|name| name != ids::STATS_TEMPORARY).collect();
    names.sort_unstable();
    names
}

fn open_once(dir: &Path, settings: &Settings, seams: &Seams) -> Result<Opened> {
    let overlay: Arc<dyn FileSystem> = Arc::new(OverlayFs::new(Arc::clone(&seams.fs)));
    let seams = Seams {
        fs: Arc::clone(&overlay),
        ..seams.clone()
    };
    let opened = super::open(dir, settings, &seams)?;
    // While they are there: a writer may unlink them at any moment.
    for record in opened.versions.keyspaces().alive.values() {
        for table in Level::all().flat_map(|level| record.version.level(level)) {
            table.handle().reader()?;
        }
    }
    // What was replayed is in memtables or tables, and the copy of the log in memory is not needed.
    for entry in overlay.list(dir)? {
        if let Some((FileKind::Segment | FileKind::SegmentIndex, _)) = FileKind::parse(&entry.name)
        {
            overlay.remove_file(&dir.join(&entry.name))?;
        }
    }
    opened.health.set_read_only();
    Ok(opened)
}
