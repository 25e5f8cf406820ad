//! What a directory is, before anything in it is touched.

use std::path::Path;

use base::fs::FileSystem;
use base::{Error, ErrorKind, FileKind, FileNumber, Result, ids};

/// A first look at a directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) is_missing: bool,
    pub(super) has_current: bool,
    /// Left by a creation that never came as far as CURRENT.
    unfinished: Vec<String>,
}

impl Directory {
    /// Looks, and refuses what is no database and no place for a new one. Writes nothing.
    pub(super) fn look(fs: &dyn FileSystem, dir: &Path, create_if_missing: bool) -> Result<Self> {
        let refuse = |kind: ErrorKind, message: &str| Err(Error::new(kind, message).with_path(dir));
        let nothing = Self {
            is_missing: true,
            has_current: false,
            unfinished: Vec::new(),
        };
        match fs.status(dir)? {
            None if create_if_missing => return Ok(nothing),
            None => {
                return refuse(
                    ErrorKind::NotFound,
                    "there is no database here; set create_if_missing to make one",
                );
            }
            Some(status) if !status.is_dir => {
                return refuse(ErrorKind::InvalidArgument, "not a directory");
            }
            Some(_) => {}
        }
        let mut has_current = false;
        let mut unfinished = Vec::new();
        let mut engine_files = Vec::new();
        let mut foreign = None;
        for entry in fs.list(dir)? {
            let first_manifest = FileKind::Manifest.file_name(FileNumber(1));
            match entry.name.as_str() {
                ids::CURRENT => has_current = true,
                ids::LOCK | ids::LOST | ids::RESERVE | ids::STATS | ids::STATS_TEMPORARY => {}
                name if name == ids::CURRENT_TEMPORARY || name == first_manifest => {
                    unfinished.push(entry.name);
                }
                name if FileKind::parse(name).is_some() => engine_files.push(entry.name),
                _ => foreign = Some(entry.name),
            }
        }
        if has_current {
            return Ok(Self {
                is_missing: false,
                has_current,
                unfinished,
            });
        }
        check_is_free(dir, engine_files, foreign)?;
        if !create_if_missing {
            return refuse(
                ErrorKind::NotFound,
                "there is no database here; set create_if_missing to make one",
            );
        }
        Ok(Self {
            is_missing: false,
            has_current,
            unfinished,
        })
    }

    /// Clears what a crash during the creation left, so that it can begin anew.
    pub(super) fn remove_unfinished_creation(&self, fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        for name in &self.unfinished {
            fs.remove_file(&dir.join(name))?;
        }
        Ok(())
    }
}

/// Refuses a directory without CURRENT that holds anything a new database must not lie beside.
fn check_is_free(dir: &Path, mut engine: Vec<String>, foreign: Option<String>) -> Result<()> {
    engine.sort();
    if let Some(first) = engine.first() {
        return Err(Error::corruption(
            dir.join(ids::CURRENT),
            0,
            "CURRENT is missing beside the files of a database; restore it from a copy, see \
             `siltstone verify`",
        )
        .with_value("found", first));
    }
    if let Some(foreign) = foreign {
        return Err(Error::invalid_argument(
            "the directory holds files of another program; choose an empty one",
        )
        .with_value("found", foreign)
        .with_path(dir));
    }
    Ok(())
}
