//! Files that results are written to.

use std::path::Path;

use base::Result;
use base::fs::{FileSystem, OsFs};

/// Replaces what is at `path` by `text`. Written beside it first, so that a failure leaves an older
/// report whole.
///
/// # Errors
/// If the system refuses.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    if OsFs.status(&temporary)?.is_some() {
        OsFs.remove_file(&temporary)?;
    }
    let file = OsFs.create(&temporary)?;
    let written = file
        .write_at(0, text.as_bytes())
        .and_then(|()| file.sync())
        .and_then(|()| OsFs.rename(&temporary, path));
    if written.is_err() {
        // The error that is told is the first one; what is left of the file is of no use.
        let _ = OsFs.remove_file(&temporary);
    }
    written
}
