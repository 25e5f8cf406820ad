//! Where the new database is made: in a directory of its own inside the one that was named, from
//! which it moves out when it is complete. Whatever ends a repair, there is a whole database in the
//! directory that was named, or none.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base::fs::{FileSystem, OsFs, create_dir_all};
use base::ids::{CURRENT, LOCK};
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
            Some(status) => {
                status.is_dir && OsFs.list(dir)?.iter().all(|entry| entry.name == UNFINISHED)
            }
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
        remove_tree(&target.unfinished);
        create_dir_all(&OsFs, dir)?;
        Ok(target)
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
        remove_tree(&self.unfinished);
        if self.is_new {
            // What cannot be removed is empty, or will be at the next attempt.
            let _ = OsFs.remove_dir(&self.dir);
        }
        let dir = escape(self.dir.as_os_str().as_bytes());
        failure.and(&format!("nothing was left in {dir}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_database_takes_values_of_any_length() {
        let options = format!("{:?}", options());
        let limit = format!("value_bytes_max: {VALUE_BYTES_HARD_MAX}");
        assert!(options.contains(&limit), "{options}");
    }
}
