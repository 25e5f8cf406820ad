//! The door for copies.

use std::path::Path;

use base::Result;

use super::Db;
use crate::checkpoint::{Checkpoint, Source};

impl Db {
    /// Makes a copy of the whole database in the directory `path`, which must not exist or be
    /// empty: a database of its own, at one moment, in all keyspaces.
    ///
    /// Tables are not copied but get a second name (a hard link): that takes milliseconds and no
    /// space until the database compacts them away. Where that is impossible, as on another device,
    /// they are copied and every block is checked. What is in no table yet comes from the log; if
    /// that is long, memtables are flushed before. Writers and readers go on meanwhile.
    ///
    /// When it returns, the copy is durable, whatever the durability of the writes in it. A crash
    /// leaves the whole copy or none: it is made in a directory with `.tmp` behind its name. What a
    /// crash leaves there is removed by the next attempt. The copy may be opened, written to and
    /// deleted as one likes; no file of it is ever changed by the database it was made of.
    ///
    /// # Errors
    /// `InvalidArgument` if there is something at `path`; `Corruption` if a table that has to be
    /// copied is damaged; `NoSpace`, `Io`, `Poisoned`, `Closed`; `Unsupported` for a handle that
    /// only reads.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use siltstone::Db;
    /// let db = Db::open(dir.path().join("db"))?;
    /// db.put("key", "then")?;
    /// let made = db.checkpoint(dir.path().join("copy"))?;
    /// db.put("key", "now")?;
    /// let copy = Db::open(dir.path().join("copy"))?;
    /// assert_eq!(copy.get("key")?.as_deref(), Some(&b"then"[..]));
    /// assert_eq!(made.copied_bytes, 0);
    ///
    /// let again = db.checkpoint(dir.path().join("copy")).expect_err("it is there");
    /// assert_eq!(again.kind(), siltstone::ErrorKind::InvalidArgument);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<Checkpoint> {
        let source = Source {
            commit: &self.0.commit,
            background: &self.0.background,
        };
        source.checkpoint(path.as_ref())
    }
}
