//! The directory of a run: every round gets an empty one below it, and nothing stays behind.

use std::path::{Path, PathBuf};

use base::fs::{self, FileSystem, OsFs};
use base::{Error, Result};

use crate::interrupt;
use crate::scratch::{Scratch, remove_tree};

/// Whether what a round leaves is of use to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    /// The database of the last round, and that of a finding.
    Database,
}

/// Where the rounds of a run have their databases.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    keep: Keep,
    /// Whether the directory itself is of our making, and goes at the end.
    is_ours: bool,
    scratch: Option<Scratch>,
}

impl Place {
    /// The directory `db`, which must not exist or be empty; a temporary one if `None`.
    pub(crate) fn new(db: Option<PathBuf>, keep: Keep) -> Result<Self> {
        let Some(dir) = db else {
            let scratch = Scratch::new("siltstone-torture")?;
            return Ok(Self {
                dir: scratch.path().to_owned(),
                keep,
                is_ours: false,
                scratch: Some(scratch),
            });
        };
        let is_ours = OsFs.status(&dir)?.is_none();
        if !is_ours && !OsFs.list(&dir)?.is_empty() {
            return Err(
                Error::invalid_argument("--db names a directory that is not empty").with_path(dir),
            );
        }
        fs::create_dir_all(&OsFs, &dir)?;
        if is_ours && keep == Keep::Nothing {
            interrupt::doom(dir.clone());
        }
        Ok(Self {
            dir,
            keep,
            is_ours,
            scratch: None,
        })
    }

    /// An empty directory for one round.
    pub(crate) fn room(&self, name: &str) -> Result<Room> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&OsFs, &dir)?;
        if self.keep == Keep::Nothing {
            interrupt::doom(dir.clone());
        }
        Ok(Room {
            dir,
            keep: self.keep,
        })
    }

    /// Leaves a temporary directory where it is.
    pub(crate) fn stay(&mut self) {
        if let Some(scratch) = &mut self.scratch {
            scratch.keep();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep == Keep::Nothing && self.is_ours {
            remove_tree(&self.dir);
        }
        interrupt::spare(&self.dir);
    }
}

/// The directory of one round; goes when it is dropped unless something is to be kept.
#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    keep: Keep,
}

impl Room {
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Removes what a round left whose database nobody will look into.
    pub(crate) fn clear(mut self) {
        self.keep = Keep::Nothing;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.keep == Keep::Nothing {
            remove_tree(&self.dir);
        }
        interrupt::spare(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(path: &Path) -> bool {
        OsFs.status(path).expect("asked").is_some()
    }

    #[test]
    fn nothing_stays_unless_it_is_to_be_kept() {
        let parent = tempfile::tempdir().expect("made");
        let dir = parent.path().join("new");
        for keep in [Keep::Nothing, Keep::Database] {
            let place = Place::new(Some(dir.clone()), keep).expect("empty");
            let room = place.room("first").expect("made");
            let path = room.path().to_owned();
            OsFs.create(&path.join("x")).expect("created");
            drop(room);
            assert_eq!(is_there(&path), keep == Keep::Database);
            drop(place);
            assert_eq!(is_there(&dir), keep == Keep::Database);
        }
        assert!(Place::new(Some(dir), Keep::Nothing).is_err(), "not empty");
    }
}
