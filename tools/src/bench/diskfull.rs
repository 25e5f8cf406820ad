//! `diskfull`: writes until the disk is full, deletes there, and goes on on the same handle.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::clock::Clock;
use base::error::{Error, Result};
use base::fs::{FileSystem, OsFs};
use base::sync::Bell;
use siltstone::{Db, WriteOptions};

use super::args::Args;
use super::lane::{Lane, Track, run_lanes};
use super::line::as_f64;
use super::work::Measured;
use crate::interrupt::Stop;
use crate::scratch::Scratch;
use crate::text::counted;
use crate::torture::mount::{Mount, MountKind, Mounted};

/// A disk is at least so large: what a database of small segments needs to breathe.
const DISK_BYTES_MIN: u64 = 24 << 20;
/// The disk is at most so large, and one that `--db` names must not have more space free.
const DISK_BYTES_MAX: u64 = 1 << 30;
/// So many puts show that writes go on.
const RESUMED_COUNT: u64 = 1000;
/// How often a write is tried again once there is space, and how long is waited between.
const TRY_COUNT: u32 = 600;
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// A write that is held back for longer than this on a full disk counts as refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// A small disk: a file system in memory, or the one that `--db` names.
pub(crate) struct SmallDisk {
    dir: PathBuf,
    bytes: u64,
    /// What takes a part of it away.
    ballast: Option<PathBuf>,
    // Dropped in this order: unmounted, then removed.
    _mount: Option<Mount>,
    _scratch: Option<Scratch>,
}

impl SmallDisk {
    /// A disk for `args`; the text says why there is none.
    ///
    /// # Errors
    /// If the file system that `--db` names is too large to be filled, or cannot be asked.
    pub(crate) fn new(args: &Args) -> Result<std::result::Result<Self, String>> {
        if let Some(dir) = &args.db {
            base::fs::create_dir_all(&OsFs, dir)?;
            let bytes = OsFs.free_bytes(dir)?;
            if bytes > DISK_BYTES_MAX {
                let message = "diskfull fills the disk: --db must name a directory on one with at \
                    most 1 GiB free, or be left out";
                return Err(Error::invalid_argument(message).with_path(dir));
            }
            return Ok(Ok(Self {
                dir: dir.join("diskfull"),
                bytes,
                ballast: None,
                _mount: None,
                _scratch: None,
            }));
        }
        let entry = (args.key_size + args.value_size) as u64;
        let bytes = (entry.saturating_mul(args.num) / 2).clamp(DISK_BYTES_MIN, DISK_BYTES_MAX);
        let scratch = Scratch::new("lsm-bench")?;
        let made = Mount::make(scratch.path(), MountKind::Memory, bytes);
        Ok(match made {
            Ok(Mounted::Here(mount)) => Ok(Self {
                dir: mount.path().join("db"),
                bytes,
                ballast: None,
                _mount: Some(mount),
                _scratch: Some(scratch),
            }),
            Ok(Mounted::Refused(reason)) => Err(format!(
                "no small disk can be mounted ({reason}); name one with --db"
            )),
            Err(failure) => return Err(Error::invalid_argument(failure.to_string())),
        })
    }

    /// Where the database lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A database whose files are small beside the disk.
    fn open(&self, args: &Args) -> Result<Db> {
        base::fs::create_dir_all(&OsFs, &self.dir)?;
        let piece = (self.bytes / 32).max(1 << 20);
        let options = args
            .options()
            .log_segment_bytes(piece)
            .log_bytes_max(4 * piece)
            .table_bytes_target(piece)
            .level_base_bytes(4 * piece);
        match args.write_buffer_size {
            Some(_) => options,
            None => options.memtable_bytes_max(usize::try_from(piece).unwrap_or(1 << 20)),
        }
        .open(&self.dir)
    }

    /// Takes an eighth of the disk away, to be given back later.
    ///
    /// # Errors
    /// If the file cannot be written, or lies there already.
    pub(crate) fn take_ballast(&mut self) -> Result<()> {
        let path = self.dir.with_extension("ballast");
        let file = OsFs.create(&path)?;
        self.ballast = Some(path);
        let chunk = vec![0; 1 << 20];
        for index in 0..self.bytes / 8 / (1 << 20) {
            file.write_at(index << 20, &chunk)?;
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(ballast) = &self.ballast {
            // It may have been given back; and there is nobody to be told of a failure.
            let _ = OsFs.remove_file(ballast);
        }
    }
}

/// Fills the disk, deletes half of what is there, makes space, and writes on.
///
/// # Errors
/// As the engine says, if it says anything but that the disk is full; and if it does not go on when
/// there is space.
pub(crate) fn run(track: &Track<'_>, disk: &SmallDisk) -> Result<Measured> {
    let db = disk.open(track.args)?;
    let options = super::write::options(track.args).deadline(PATIENCE);
    // The threads share the disk; each ends when it is full.
    let track = track.on(&db);
    let meters = run_lanes(&track, track.args.threads, |_, lane| fill(lane, &options))?;
    let put_count: u64 = meters.iter().map(|meter| meter.done).sum();
    let full_bytes = OsFs.free_bytes(disk.dir())?;
    let mut lane = Lane::new(&track, 0);
    let (deleted, refused) = delete_half(&mut lane, &options)?;
    if let Some(ballast) = &disk.ballast {
        OsFs.remove_file(ballast)?;
    }
    let began = track.clock.monotonic_nanos();
    for number in 0..RESUMED_COUNT {
        resume(&mut lane, number, &options)?;
    }
    let seconds = as_f64(track.clock.monotonic_nanos() - began) / 1e9;
    // There need not be room for a second copy of what is left.
    let is_compacted = unless_full(db.compact_range(..))?.is_some();
    let free = OsFs.free_bytes(disk.dir())?;
    unless_full(db.close())?;
    let megabytes = |bytes: u64| as_f64(bytes) / 1_048_576.0;
    let note = format!(
        "  a disk of {:.0} MB, full after {} ({:.1} MB left); on it {} \
         done, {refused} refused\n  with an eighth given back {RESUMED_COUNT} puts went on \
         in {seconds:.2} s on the same handle; {} {:.1} MB were free",
        megabytes(disk.bytes),
        counted(put_count, "put"),
        megabytes(full_bytes),
        counted(deleted, "delete"),
        if is_compacted {
            "after a compaction"
        } else {
            "a compaction found no room:"
        },
        megabytes(free),
    );
    Ok(Measured {
        note: Some(note),
        apart: Some(Box::new((db.stats(), db.amplification().write))),
        ..meters.into()
    })
}

/// Puts random keys until the disk is full.
fn fill(lane: &mut Lane<'_>, options: &WriteOptions) -> Result<()> {
    while !lane.should_stop() {
        let number = lane.random.below(lane.args.num);
        let key = lane.keys.key(number);
        let value = lane.values.next_value();
        let bytes = (key.len() + value.len()) as u64;
        match unless_full(lane.db.put_with(key, value, options))? {
            Some(_) => lane.finish(1, bytes),
            None => break,
        }
    }
    Ok(())
}

/// Deletes every second key, until even that is refused.
fn delete_half(lane: &mut Lane<'_>, options: &WriteOptions) -> Result<(u64, u64)> {
    let mut deleted = 0;
    for number in (0..lane.args.num).step_by(2) {
        if lane.should_stop() {
            break;
        }
        let key = lane.keys.key(number);
        match unless_full(lane.db.delete_with(key, options))? {
            Some(_) => deleted += 1,
            None => return Ok((deleted, 1)),
        }
    }
    Ok((deleted, 0))
}

fn resume(lane: &mut Lane<'_>, number: u64, options: &WriteOptions) -> Result<()> {
    let stop = lane.stop();
    let key = lane.keys.key(number);
    let value = lane.values.next_value();
    let db = lane.db;
    patiently(stop, || db.put_with(key, value, options).map(|_| ()))
}

/// Nothing if the disk is full.
fn unless_full<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_no_space() || error.kind() == base::ErrorKind::Busy => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tries again for as long as a handle may take to notice that there is space.
fn patiently(stop: &Stop, mut once: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..TRY_COUNT {
        if unless_full(once())?.is_some() || stop.is_set() {
            return Ok(());
        }
        Bell::new().wait_past(0, Some(TRY_PAUSE));
    }
    once()
}
