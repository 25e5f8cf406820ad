//! Which tables are meant.

use std::path::{Path, PathBuf};

use base::FileKind;
use base::fs::{FileSystem, OsFs};
use clap::ValueEnum;

use super::args::Command;

/// A table that was named, or lies in a directory that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    /// Length when it was looked for; for progress only.
    pub(super) bytes: u64,
}

/// The tables that `paths` name: files as they are, directories by number.
///
/// # Errors
/// A sentence about a path that does not exist or holds no table.
pub(super) fn tables(paths: &[PathBuf]) -> Result<Vec<Table>, String> {
    if paths.is_empty() {
        return Err("name a table or a directory of tables; see --help".to_owned());
    }
    let mut tables = Vec::new();
    for path in paths {
        let status = OsFs.status(path).map_err(|error| error.to_string())?;
        match status {
            None => return Err(missing(path)),
            Some(status) if status.is_dir => in_directory(path, &mut tables)?,
            Some(status) => tables.push(Table {
                path: path.clone(),
                bytes: status.len,
            }),
        }
    }
    Ok(tables)
}

fn missing(path: &Path) -> String {
    let shown = path.display();
    let is_command = path
        .to_str()
        .is_some_and(|word| Command::from_str(word, false).is_ok());
    let hint = if is_command {
        format!("; what to do is said by --command={shown}")
    } else {
        String::new()
    };
    format!("no such file or directory: {shown}{hint}")
}

fn in_directory(dir: &Path, tables: &mut Vec<Table>) -> Result<(), String> {
    let entries = OsFs.list(dir).map_err(|error| error.to_string())?;
    let mut numbers: Vec<_> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| match FileKind::parse(&entry.name) {
            Some((FileKind::Table, number)) => Some(number),
            _ => None,
        })
        .collect();
    if numbers.is_empty() {
        return Err(format!("no tables in the directory {}", dir.display()));
    }
    numbers.sort();
    for number in numbers {
        let path = FileKind::Table.path(dir, number);
        // A table that goes away while the directory is read is reported when it is opened.
        let bytes = match OsFs.status(&path) {
            Ok(Some(status)) => status.len,
            _ => 0,
        };
        tables.push(Table { path, bytes });
    }
    Ok(())
}
