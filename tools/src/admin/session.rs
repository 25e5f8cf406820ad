//! Opening a database for a command, and closing it whatever became of the command.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use base::key::VALUE_BYTES_HARD_MAX;
use siltstone::{
    Compression, Db, Durability, ErrorKind, Event, FilterPolicy, Keyspace, Options, RecoveryMode,
};

use super::args::{Global, InKeyspace, Open, Recovery, Writing};
use super::failure::{Failure, Outcome};
use crate::say::say;
use crate::text::{counted, escape, from_hex};

/// What a command does to a database before it can read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Whether to make a database where there is none.
    pub(crate) create: bool,
    /// Whether every write waits for the disk.
    pub(crate) sync: bool,
}

impl Access {
    /// For commands that only read.
    pub(crate) const READ: Self = Self {
        create: false,
        sync: false,
    };

    /// For commands that write as `writing` says.
    pub(crate) fn write(writing: &Writing) -> Self {
        Self {
            create: writing.create,
            sync: writing.sync,
        }
    }
}

/// Opens the database in `dir`, hands it to `work` and closes it, which makes everything durable.
pub(crate) fn with_database<R>(
    dir: &Path,
    open: &Open,
    access: Access,
    global: &Global,
    work: impl FnOnce(&Db) -> Outcome<R>,
) -> Outcome<R> {
    let options = options(open, access, global)?;
    let db = options.open(dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound if !access.create => Failure::no_database(dir),
        _ => error.into(),
    })?;
    let result = work(&db);
    let closed = db.close().map_err(Failure::from);
    match result {
        Ok(value) => closed.map(|()| value),
        Err(Failure::OutputClosed) => closed.and(Err(Failure::OutputClosed)),
        Err(failure) => Err(failure),
    }
}

/// The keyspace that `wanted` names.
pub(crate) fn keyspace_of(db: &Db, wanted: &InKeyspace) -> Outcome<Keyspace> {
    db.keyspace(&wanted.keyspace)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_keyspace(db, &wanted.keyspace),
            _ => error.into(),
        })
}

/// Says which keyspaces there are instead of `wanted`.
pub(crate) fn no_keyspace(db: &Db, wanted: &str) -> Failure {
    let names = db.keyspaces().unwrap_or_default();
    let names: Vec<String> = names.iter().map(|name| escape(name.as_bytes())).collect();
    Failure::trouble(format!(
        "there is no keyspace {}; there are: {}",
        escape(wanted.as_bytes()),
        names.join(", ")
    ))
}

fn options(open: &Open, access: Access, global: &Global) -> Outcome<Options> {
    // What one database took, `dump` and `load` can bring into another.
    let mut options = Options::new()
        .create_if_missing(access.create)
        .value_bytes_max(VALUE_BYTES_HARD_MAX);
    if access.sync {
        options = options.durability(Durability::Disk);
    }
    if let Some(bytes) = open.memtable_bytes {
        options = options.memtable_bytes_max(in_memory(bytes)?);
    }
    if let Some(bytes) = open.table_bytes {
        options = options.table_bytes_target(bytes);
    }
    if let Some(bytes) = open.block_bytes {
        options = options.block_bytes_target(in_memory(bytes)?);
    }
    if let Some(bytes) = open.level_base_bytes {
        options = options.level_base_bytes(bytes);
    }
    if let Some(bytes) = open.cache_bytes {
        options = options.cache_bytes(bytes);
    }
    if let Some(bits_per_key) = open.filter_bits {
        options = options.filter(match bits_per_key {
            0 => FilterPolicy::None,
            _ => FilterPolicy::Blocked { bits_per_key },
        });
    }
    if let Some(level) = open.bottom_zstd {
        options = options.bottom_compression(match level {
            0 => Compression::None,
            _ => Compression::Zstd { level },
        });
    }
    if let Some(mode) = open.recovery {
        options = options.recovery_mode(match mode {
            Recovery::Strict => RecoveryMode::Strict,
            Recovery::TornTail => RecoveryMode::TornTail,
            Recovery::PointInTime => RecoveryMode::PointInTime,
        });
    }
    let is_quiet = global.quiet;
    Ok(options.on_event(Arc::new(move |event| remark(event, is_quiet))))
}

fn in_memory(bytes: u64) -> Outcome<usize> {
    usize::try_from(bytes).map_err(|_| Failure::trouble("more than this machine can address"))
}

/// Says on standard error what an administrator must not miss.
fn remark(event: &Event, is_quiet: bool) {
    match event {
        Event::LogTailDropped {
            path,
            offset,
            bytes,
        } if !is_quiet => say(format_args!(
            "remark: the log ended in a record that was not whole; {} dropped file={} \
             offset={offset}",
            counted(*bytes, "byte"),
            escape(path.as_os_str().as_bytes())
        )),
        Event::BackgroundError { error } => {
            say(format_args!("warning: in the background: {error}"));
        }
        Event::Poisoned { error } => say(format_args!("warning: no more writes: {error}")),
        _ => {}
    }
}

/// The bytes that a key or value on the command line means.
pub(crate) fn bytes_of(argument: &OsStr, global: &Global) -> Outcome<Vec<u8>> {
    if !global.hex {
        return Ok(argument.as_bytes().to_vec());
    }
    let wrong = |reason: &str| {
        let argument = escape(argument.as_bytes());
        Failure::trouble(format!("--hex: {reason}: {argument}"))
    };
    let text = argument
        .to_str()
        .ok_or_else(|| wrong("not hexadecimal digits"))?;
    from_hex(text).map_err(|reason| wrong(&reason))
}
