//! The door for those who only read: a `Db` that takes no writes.

use std::path::Path;

use base::Result;
use base::sync::Arc;

use super::{Db, assemble};
use crate::options::Options;
use crate::recovery;
use crate::seams::Seams;
use crate::tuning::Settings;

impl Db {
    /// Opens the database in the directory `path` for reading, with default [`Options`]; see
    /// [`Options::open_read_only`].
    ///
    /// # Errors
    /// As for [`Options::open_read_only`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use siltstone::{Db, ErrorKind};
    /// let db = Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// let reader = Db::open_read_only(dir.path())?;
    /// assert_eq!(reader.get("key")?.as_deref(), Some(&b"value"[..]));
    /// let error = reader.put("key", "other").expect_err("it only reads");
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_read_only(path)
    }

    pub(crate) fn open_read_only_with(
        path: &Path,
        settings: &Settings,
        seams: &Seams,
    ) -> Result<Self> {
        let opened = recovery::read_only::open(path, settings, seams)?;
        // Nothing is ever due: no worker is started.
        Ok(Self(Arc::new(assemble(opened, settings, seams))))
    }

    /// Whether it was opened by [`Db::open_read_only`] and takes no writes.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = siltstone::Db::open(dir.path())?;
    /// assert!(!db.is_read_only());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_read_only(&self) -> bool {
        self.0.commit.health.is_read_only()
    }
}
