//! Where the new database is made: in a directory of its own inside the one that was named, from
//! which it moves out when it is complete. Whatever ends a repair, there is a whole database in the
//! directory that was named, or none.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base::FileKind;
use base::fs::{FileSystem, OsFs, create_dir_all};
use base::ids::{CURRENT, LOCK, RESERVE};
use base::key::VALUE_BYTES_HARD_MAX;
use siltstone::{Db, Options};

use super::super::failure::{Failure, Outcome};
use crate::scratch::remove_tree;
use crate::text::escape;

/// What the directory inside is called. One that a killed repair left is removed by the next.
const UNFINISHED: &str = "repair.unfinished";

/// The directory of the new database.
pub(super) struct Target {
    dir: PathBuf,
    unfinished: PathBuf,
    /// It was made by us, and goes if the repair fails.
    is_new: bool,
}

/// Whatever the damaged database took has to go in.
fn options() -> Options {
    Options::new().value_bytes_max(VALUE_BYTES_HARD_MAX)
}

impl Target {
    /// Makes `dir`, which must not be there or hold nothing.
    ///
    /// # Errors
    /// If it holds something, or the system refuses.
    pub(super) fn make(dir: &Path) -> Outcome<Self> {
        let status = OsFs.status(dir)?;
        let is_free = match status {
            None => true,
            Some(status) => status.is_dir && holds_nothing(dir)?,
        };
        if !is_free {
            return Err(Failure::trouble(format!(
                "repair needs a new or an empty directory: {}",
                escape(dir.as_os_str().as_bytes())
            )));
        }
        let target = Self {
            dir: dir.to_owned(),
            unfinished: dir.join(UNFINISHED),
            is_new: status.is_none(),
        };
        if status.is_some() {
            target.clear()?;
        }
        create_dir_all(&OsFs, dir)?;
        Ok(target)
    }

    /// Removes what an unfinished repair has made, as far as that can be done; what stays is found
    /// by the next attempt.
    ///
    /// # Errors
    /// If something stays.
    fn clear(&self) -> Outcome<()> {
        let moved = OsFs.list(&self.dir)?.into_iter();
        let moved = moved.filter(|entry| is_made(&entry.name));
        let removed = moved.map(|entry| OsFs.remove_file(&self.dir.join(entry.name)));
        // All of them are tried.
        let failed = removed.filter_map(Result::err).reduce(|first, _| first);
        if let Some(error) = failed {
            return Err(error.into());
        }
        // Last: it says that the rest is not whole.
        remove_tree(&self.unfinished);
        match OsFs.status(&self.unfinished)? {
            None => Ok(()),
            Some(_) => Err(Failure::trouble(format!(
                "cannot be removed: {}",
                escape(self.unfinished.as_os_str().as_bytes())
            ))),
        }
    }

    /// The new database, empty.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub(super) fn open(&self) -> Outcome<Db> {
        Ok(options().open(&self.unfinished)?)
    }

    /// Moves the database, which is complete and closed, to where it belongs.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn finish(&self) -> Outcome<()> {
        let move_out = |name: &str| OsFs.rename(&self.unfinished.join(name), &self.dir.join(name));
        for entry in OsFs.list(&self.unfinished)? {
            if ![CURRENT, LOCK].contains(&&*entry.name) {
                move_out(&entry.name)?;
            }
        }
        OsFs.sync_dir(&self.dir)?;
        // Without it there is no database: last, when all else is there for good.
        move_out(CURRENT)?;
        OsFs.sync_dir(&self.dir)?;
        remove_tree(&self.unfinished);
        Ok(())
    }

    /// Leaves nothing behind, and says so after what made the repair fail.
    pub(super) fn give_up(&self, failure: Failure) -> Failure {
        // First: without it there is no database, whatever else cannot be removed.
        let current = self.dir.join(CURRENT);
        if OsFs
            .rename(&current, &self.unfinished.join(CURRENT))
            .is_err()
        {
            let _ = OsFs.remove_file(&current);
        }
        let cleared = self.clear();
        if self.is_new {
            // What cannot be removed is empty, or will be at the next attempt.
            let _ = OsFs.remove_dir(&self.dir);
        }
        let dir = escape(self.dir.as_os_str().as_bytes());
        failure.and(&match cleared {
            Ok(()) => format!("nothing was left in {dir}"),
            Err(left) => format!("no database was left in {dir}, but files of one: {left}"),
        })
    }
}

/// Whether `dir` holds nothing but what a repair was killed over: a database that had not all of
/// its files moved out yet.
fn holds_nothing(dir: &Path) -> Outcome<bool> {
    let entries = OsFs.list(dir)?;
    let current = dir.join(UNFINISHED).join(CURRENT);
    let is_in_part = OsFs.status(&current).is_ok_and(|status| status.is_some());
    let mut names = entries.iter().map(|entry| &*entry.name);
    Ok(names.all(|name| name == UNFINISHED || (is_in_part && is_made(name))))
}

/// Whether a file of this name is moved out of a finished repair, before the one that makes it a
/// database.
fn is_made(name: &str) -> bool {
    name == RESERVE || FileKind::parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_repair_was_killed_over_at_its_end_is_no_obstacle() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let dir = parent.path().join("copy");
        let make = |name: &str| drop(OsFs.create(&dir.join(name)).expect("made"));
        let unfinished = dir.join(UNFINISHED);
        create_dir_all(&OsFs, &unfinished).expect("made");
        for name in ["000007.sst", "MANIFEST-000009", "repair.unfinished/CURRENT"] {
            make(name);
        }
        let target = Target::make(&dir).expect("nothing in it is a database");
        assert_eq!(OsFs.list(&dir).expect("listed"), []);
        target.open().expect("empty").close().expect("closed");
        make("000007.sst");
        make("letter.txt");
        drop(target.give_up(Failure::trouble("no more")));
        let left = OsFs.list(&dir).expect("listed");
        assert_eq!(left.len(), 1, "somebody else's: {left:?}");
        assert!(Target::make(&dir).is_err());
        // A database that was finished, and lost what makes it one, is somebody's.
        OsFs.remove_file(&dir.join("letter.txt")).expect("removed");
        create_dir_all(&OsFs, &unfinished).expect("made");
        make("000007.sst");
        assert!(Target::make(&dir).is_err());
    }

    #[test]
    fn what_cannot_be_removed_is_still_known_for_an_unfinished_repair() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let dir = parent.path().join("copy");
        let target = Target::make(&dir).expect("new");
        // A repair whose last step has failed, and a file that does not go: it is a directory.
        target.open().expect("empty").close().expect("closed");
        let current = dir.join(CURRENT);
        OsFs.rename(&target.unfinished.join(CURRENT), &current)
            .expect("renamed");
        let stuck = dir.join("000007.sst");
        OsFs.create_dir(&stuck).expect("made");
        let failure = target.give_up(Failure::trouble("no more")).to_string();
        assert!(failure.contains("but files of one"), "{failure}");
        assert_eq!(OsFs.status(&current).expect("asked"), None);
        assert!(Target::make(&dir).is_err(), "it still does not go");
        OsFs.remove_dir(&stuck).expect("removed");
        drop(OsFs.create(&stuck).expect("made"));
        Target::make(&dir).expect("what is left is of a repair");
        assert_eq!(OsFs.list(&dir).expect("listed"), []);
    }

    #[test]
    fn the_new_database_takes_values_of_any_length() {
        let options = format!("{:?}", options());
        let limit = format!("value_bytes_max: {VALUE_BYTES_HARD_MAX}");
        assert!(options.contains(&limit), "{options}");
    }
}
