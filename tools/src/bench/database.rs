//! The database under measurement: where it lies, how it begins afresh, what it cost before it
//! was replaced.

use std::path::{Path, PathBuf};

use base::fs::{self, FileSystem, OsFs};
use base::ids::{CURRENT, CURRENT_TEMPORARY, LOCK};
use base::sync::Arc;
use base::{Error, FileKind, Result};
use siltstone::{Db, Event, Stats, WriteAmplification};

use super::args::Args;
use super::moments::Moments;
use super::report::{LevelRow, LiveBytes, Space, Totals};
use crate::scratch::Scratch;

/// A scan for the report reads at most so many bytes of keys and values.
const COUNTED_BYTES_MAX: u64 = 4 << 30;

/// The database of a run, opened when it is first needed.
pub(crate) struct Database {
    dir: PathBuf,
    /// Removes the directory at the end, if it is a temporary one.
    _scratch: Option<Scratch>,
    db: Option<Db>,
    totals: Totals,
    is_cleared: bool,
    moments: Moments,
}

impl Database {
    /// The database that `args` name, or a temporary one.
    ///
    /// # Errors
    /// If no temporary directory can be made.
    pub(crate) fn new(args: &Args, moments: Moments) -> Result<Self> {
        let scratch = match args.db {
            Some(_) => None,
            None => Some(Scratch::new("lsm-bench")?),
        };
        let dir = match (&args.db, &scratch) {
            (Some(dir), _) => dir.clone(),
            (None, Some(scratch)) => scratch.path().join("db"),
            (None, None) => unreachable!("one of the two was just made"),
        };
        Ok(Self {
            dir,
            _scratch: scratch,
            db: None,
            totals: Totals::default(),
            is_cleared: args.switches.use_existing_db,
            moments,
        })
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The open database; at its first use in a run it is emptied, unless it is to be kept.
    ///
    /// # Errors
    /// As [`siltstone::Options::open`]; `InvalidArgument` if something else lies there.
    pub(crate) fn open(&mut self, args: &Args) -> Result<Db> {
        if let Some(db) = &self.db {
            return Ok(db.clone());
        }
        if !self.is_cleared {
            clear(&self.dir)?;
            self.is_cleared = true;
        }
        let must_exist = args.switches.use_existing_db;
        if !must_exist {
            fs::create_dir_all(&OsFs, &self.dir)?;
        }
        let moments = self.moments.clone();
        let options = args
            .options()
            .on_event(Arc::new(move |event: &Event| moments.note(event)));
        let db = options.open(&self.dir).map_err(|error| {
            if must_exist && error.is_not_found() {
                let message = "there is no database; leave --use_existing_db out to make one";
                return Error::new(error.kind(), message).with_path(&self.dir);
            }
            error
        })?;
        Ok(self.db.insert(db).clone())
    }

    /// Removes the database, so that another process can make one in its place.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub(crate) fn give_way(&mut self) -> Result<()> {
        self.retire()?;
        clear(&self.dir)?;
        fs::create_dir_all(&OsFs, &self.dir)?;
        self.is_cleared = true;
        Ok(())
    }

    /// Takes over a database that was opened in its place.
    pub(crate) fn adopt(&mut self, db: Db) {
        self.db = Some(db);
    }

    /// Replaces the database by an empty one.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub(crate) fn open_fresh(&mut self, args: &Args) -> Result<Db> {
        self.retire()?;
        self.is_cleared = false;
        self.open(args)
    }

    /// Closes the database, its cost noted.
    fn retire(&mut self) -> Result<()> {
        let Some(db) = self.db.take() else {
            return Ok(());
        };
        // What a job has written and not yet finished would stand in no account.
        db.wait_for_compactions()?;
        db.close()?;
        self.totals.add(&db.stats(), &db.amplification().write);
        self.moments.end_all();
        Ok(())
    }

    /// Adds the ledger of another database that a workload made for itself.
    pub(crate) fn book(&mut self, stats: &Stats, write: &WriteAmplification) {
        self.totals.add(stats, write);
    }

    /// The database, if one is open.
    pub(crate) fn db(&self) -> Option<&Db> {
        self.db.as_ref()
    }

    /// What all databases of the run cost, the open one included.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.totals.clone();
        if let Some(db) = &self.db {
            totals.add(&db.stats(), &db.amplification().write);
        }
        totals
    }

    /// What the open database keeps. Reads all of it if that is not too much.
    ///
    /// # Errors
    /// As the engine's cursor.
    pub(crate) fn space(&self) -> Result<Option<Space>> {
        let Some(db) = &self.db else {
            return Ok(None);
        };
        let stats = db.stats();
        let levels = level_rows(&stats, &db.amplification().write);
        let raw_bytes: u64 = levels.iter().map(|level| level.raw_bytes).sum();
        let live = if raw_bytes <= COUNTED_BYTES_MAX {
            LiveBytes::Counted(live_bytes(db)?)
        } else {
            let deepest = levels.iter().rev().find(|level| level.table_count > 0);
            LiveBytes::Estimated(deepest.map_or(0, |level| level.raw_bytes))
        };
        Ok(Some(Space {
            levels,
            log_bytes: stats.log_disk_bytes,
            user_bytes: stats.user_bytes_written,
            get_count: stats.get_count,
            live,
        }))
    }

    /// Closes the database.
    ///
    /// # Errors
    /// As [`siltstone::Db::close`].
    pub(crate) fn close(mut self) -> Result<()> {
        match self.db.take() {
            Some(db) => db.close(),
            None => Ok(()),
        }
    }
}

/// The levels as the report wants them.
pub(crate) fn level_rows(stats: &Stats, write: &WriteAmplification) -> Vec<LevelRow> {
    let row = |level: &siltstone::LevelStats| {
        let index = level.level.index();
        let flushed = if index == 0 {
            stats.flush_bytes_written
        } else {
            0
        };
        LevelRow {
            level: index,
            table_count: level.table_count,
            bytes: level.bytes,
            entry_count: level.entry_count,
            tombstone_count: level.tombstone_count,
            raw_bytes: level.raw_bytes,
            score: level.score,
            written_bytes: level.compaction_bytes_written + flushed,
            arrived_bytes: write.arrived_bytes.get(index).copied().unwrap_or(0),
            get_hit_count: level.get_hit_count,
            tables_searched: level.tables_searched,
        }
    };
    stats.levels.iter().map(row).collect()
}

/// Keys and values that a reader sees, counted by a scan.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn live_bytes(db: &Db) -> Result<u64> {
    let mut cursor = db.cursor()?;
    let mut sum = 0;
    let mut is_valid = cursor.seek_to_first()?;
    while is_valid {
        sum += (cursor.key().len() + cursor.value().len()) as u64;
        is_valid = cursor.next()?;
    }
    Ok(sum)
}

/// Removes the database in `dir`, and nothing else: files with other names stay.
///
/// # Errors
/// `InvalidArgument` if there are files but no database; `AlreadyOpen` if it is in use.
fn clear(dir: &Path) -> Result<()> {
    let fs = OsFs;
    if fs.status(dir)?.is_none() {
        return Ok(());
    }
    let entries = fs.list(dir)?;
    if entries.is_empty() {
        return Ok(());
    }
    if !entries.iter().any(|entry| entry.name == CURRENT) {
        return Err(Error::invalid_argument(
            "--db names a directory that holds something else than a database; left as it is",
        )
        .with_path(dir));
    }
    let _lock = fs.lock(&dir.join(LOCK))?;
    for entry in entries {
        let is_ours = FileKind::parse(&entry.name).is_some()
            || entry.name == CURRENT
            || entry.name == CURRENT_TEMPORARY;
        if is_ours && !entry.is_dir {
            fs.remove_file(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_is_cleared_and_only_its_files() {
        let scratch = Scratch::new("siltstone-test").expect("made");
        let make = |name: &str| {
            OsFs.create(&scratch.path().join(name)).expect(name);
        };
        make("letter.txt");
        let error = clear(scratch.path()).expect_err("a foreign directory");
        assert!(error.to_string().contains("left as it is"), "{error}");
        for name in [CURRENT, "000001.log", "000002.sst", "MANIFEST-000003"] {
            make(name);
        }
        clear(scratch.path()).expect("cleared");
        let mut left: Vec<_> = OsFs
            .list(scratch.path())
            .expect("listed")
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        left.sort();
        assert_eq!(left, [LOCK, "letter.txt"]);
    }
}
