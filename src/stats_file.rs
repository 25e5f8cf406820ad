//! The file in which an open database tells other processes what it does.
//!
//! One lock keeps everybody else from opening it, so what a live view wants to show is written
//! beside it, when [`Options::stats_file_interval`](crate::Options::stats_file_interval) asks for
//! that. `writer` puts it there, `format` says how it looks. Nothing in it is ever read by a
//! database: it can be removed, damaged or missing.

use std::path::Path;
use std::time::Duration;

use base::fs::{FileSystem, OsFs};
use base::{Error, ErrorKind, Result, ids};

use crate::amplification::Amplification;
use crate::stats::{Gathered, Stats};

mod fields;
mod format;
#[cfg(test)]
mod tests;
mod writer;
pub(crate) use writer::Writer;

/// What a database that is open in some process, this one or another, last said of itself.
///
/// Written every [`Options::stats_file_interval`](crate::Options::stats_file_interval) to the file
/// `STATS` of its directory, and removed when it is closed. What a process that was killed has left
/// stays until the next open.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::time::Duration;
/// use siltstone::{Options, StatsFile};
/// let options = Options::new().stats_file_interval(Some(Duration::from_millis(1)));
/// let db = options.open(dir.path())?;
/// db.put("key", "value")?;
/// let found = loop {
///     // Another process would do the same.
///     match StatsFile::read(dir.path()) {
///         Ok(found) if found.stats.user_write_count == 1 => break found,
///         _ => std::thread::yield_now(),
///     }
/// };
/// assert_eq!(found.process_id, std::process::id());
/// assert_eq!(found.amplification.write.user_bytes, 8);
/// db.close()?;
/// let error = StatsFile::read(dir.path()).expect_err("it is gone");
/// assert_eq!(error.kind(), siltstone::ErrorKind::NotFound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StatsFile {
    /// The process that has the database open.
    pub process_id: u32,
    /// The version of siltstone that wrote it.
    pub engine_version: String,
    /// When the database was opened: microseconds since 1970, as the writer's clock showed it.
    pub opened_micros: u64,
    /// When this was written, by the same clock.
    pub written_micros: u64,
    /// The time between both by a clock that never jumps, in microseconds. Rates are differences
    /// over this.
    pub up_micros: u64,
    /// How often it is written.
    pub interval: Duration,
    /// What is wrong with the database, as [`Db::health`](crate::Db::health) tells it.
    pub trouble: Option<String>,
    /// What can be done about that: `Poisoned` if writes fail until the database is reopened, and
    /// otherwise the kind of the error that a flush or compaction met.
    pub trouble_kind: Option<ErrorKind>,
    /// How many keyspaces there are. At most 256 are told one by one, the largest ones; numbers of
    /// the whole database cover all.
    pub keyspace_count: u64,
    /// What it did since it was opened, and what it holds.
    pub stats: Stats,
    /// What that costs.
    pub amplification: Amplification,
}

impl StatsFile {
    /// Reads what the database in the directory `dir` last said of itself.
    ///
    /// Opens no database, takes no lock and follows no link. Costs a read of some kilobytes.
    ///
    /// # Errors
    /// `NotFound` if there is none: the database is not open, or not with
    /// [`Options::stats_file_interval`](crate::Options::stats_file_interval); `Unsupported` if a
    /// newer version wrote it; `Corruption` if it is damaged, or no such file; `Io`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use siltstone::{Db, ErrorKind, StatsFile};
    /// let db = Db::open(dir.path())?;
    /// let error = StatsFile::read(dir.path()).expect_err("nobody asked for it");
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(ids::STATS);
        let bytes = read_bounded(&OsFs, &path)?;
        Self::decode(&bytes).map_err(|error| error.with_path(&path))
    }

    /// Reads the bytes of such a file, wherever they come from.
    ///
    /// # Errors
    /// As for [`StatsFile::read`].
    ///
    /// # Examples
    /// ```
    /// use siltstone::{ErrorKind, StatsFile};
    /// let error = StatsFile::decode(b"something else").expect_err("no such file");
    /// assert_eq!(error.kind(), ErrorKind::Corruption);
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(format::decode(bytes)?.into())
    }
}

/// What the file says, before it is shown.
#[derive(Clone, Debug, Default)]
struct Contents {
    process_id: u32,
    engine_version: String,
    opened_micros: u64,
    written_micros: u64,
    up_micros: u64,
    interval_micros: u64,
    trouble: Option<String>,
    trouble_kind: Option<ErrorKind>,
    keyspace_count: u64,
    found: Gathered,
}

impl From<Contents> for StatsFile {
    fn from(contents: Contents) -> Self {
        Self {
            process_id: contents.process_id,
            engine_version: contents.engine_version,
            opened_micros: contents.opened_micros,
            written_micros: contents.written_micros,
            up_micros: contents.up_micros,
            interval: Duration::from_micros(contents.interval_micros),
            trouble: contents.trouble,
            trouble_kind: contents.trouble_kind,
            keyspace_count: contents.keyspace_count,
            amplification: Amplification::of(&contents.found),
            stats: contents.found.stats,
        }
    }
}

/// The whole file, which may be anything.
fn read_bounded(fs: &dyn FileSystem, path: &Path) -> Result<Vec<u8>> {
    let file = fs.open_untrusted(path)?;
    let len = file.len()?;
    let too_long = || Error::corruption(path, format::FILE_BYTES_MAX, "longer than it can be");
    let bounded = usize::try_from(len.min(format::FILE_BYTES_MAX)).map_err(|_| too_long())?;
    if len > format::FILE_BYTES_MAX {
        return Err(too_long().with_value("len", len));
    }
    let mut bytes = vec![0; bounded];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}
