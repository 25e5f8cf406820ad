//! Temporary directories of the tools: made under the system's, removed when done or interrupted.

use std::path::{Path, PathBuf};

use base::fs::{FileSystem, OsFs};
use base::{Error, Result};

use crate::interrupt;

/// A directory that is removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    is_kept: bool,
}

impl Scratch {
    /// A new directory `<prefix>-<random>` in the system's place for temporary files (`TMPDIR`).
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(prefix: &str) -> Result<Self> {
        let fs = OsFs;
        let name = format!("{prefix}-{:016x}", fs.random_u64());
        let path = std::env::temp_dir().join(name);
        if fs.status(&path)?.is_some() {
            return Err(Error::invalid_argument("temporary directory exists").with_path(path));
        }
        fs.create_dir(&path)?;
        interrupt::doom(path.clone());
        Ok(Self {
            path,
            is_kept: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory where it is, for somebody to look into.
    pub fn keep(&mut self) {
        self.is_kept = true;
        interrupt::spare(&self.path);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept {
            remove_tree(&self.path);
            interrupt::spare(&self.path);
        }
    }
}

/// Removes `dir` and what is in it, as far as the system lets us.
#[expect(
    clippy::disallowed_methods,
    reason = "the seam has no removal of trees"
)]
pub(crate) fn remove_tree(dir: &Path) {
    // A temporary directory that cannot be removed is a nuisance, not a failure of the run.
    let _ = std::fs::remove_dir_all(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_unless_kept() {
        let fs = OsFs;
        let mut scratch = Scratch::new("siltstone-test").expect("made");
        let path = scratch.path().to_owned();
        fs.create(&path.join("x")).expect("created");
        scratch.keep();
        drop(scratch);
        assert!(fs.status(&path).expect("asked").is_some());
        drop(Scratch {
            path: path.clone(),
            is_kept: false,
        });
        assert!(fs.status(&path).expect("asked").is_none());
    }
}
