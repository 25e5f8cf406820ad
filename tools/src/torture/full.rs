//! Lets the disk run full under a database: on a small file system of its own, of which a part is
//! taken by ballast.
//!
//! First with one handle that fills it, reads, deletes, and must go on when there is space again;
//! then with a process that is killed while the disk is full.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::fs::{FileSystem, OsFs};
use siltstone::{Health, WriteOutcome};

use super::failure::{Failure, OrFinding, OrSetup, Outcome, finding};
use super::mount::{Mount, MountKind, Mounted};
use super::pause::pause;
use super::rounds::Tally;
use super::watchdog::Watchdog;
use super::world::World;
use crate::interrupt::Stop;
use crate::random::Random;

mod filler;
mod handle;
mod killed;

pub(crate) use filler::{FillerArgs, main as filler_main};
use handle::Filling;

/// How many keys there are: more than find room.
const KEY_COUNT: usize = 100_000;
const BALLAST_PART_BYTES: u64 = 3 << 20;
const MEMORY_BYTES: u64 = 24 << 20;
/// The file system itself takes a part of this one.
const EXT4_BYTES: u64 = 40 << 20;
/// So many refused puts one after the other, and the disk counts as full.
const REFUSALS_OF_A_FULL_DISK: u32 = 40;
/// How long a handle may take to notice that there is space again.
const RESUME_TRY_COUNT: u32 = 500;
const RESUME_PAUSE: Duration = Duration::from_millis(20);

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct FullPlan {
    pub(crate) seed: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
struct FullReport {
    puts: u64,
    refused: u64,
    fills: u64,
    deletes_while_full: u64,
    /// How often deletes and a compaction made room for puts.
    freed_by_deletes: u64,
    resumptions: u64,
    reopened_while_full: u64,
    refused_opens: u64,
    kills_while_full: u64,
}

impl fmt::Display for FullReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} puts, {} refused, full {} times, {} deletes while full, {} resumptions \
             and {} by deletes, {} opens while full and {} refused, {} kills while full",
            self.puts,
            self.refused,
            self.fills,
            self.deletes_while_full,
            self.resumptions,
            self.freed_by_deletes,
            self.reopened_while_full,
            self.refused_opens,
            self.kills_while_full
        )
    }
}

/// A small disk with ballast on it.
#[derive(Debug)]
struct Disk {
    mount: Mount,
    ballast_count: u32,
}

impl Disk {
    /// Where the database is.
    fn db_dir(&self) -> PathBuf {
        self.mount.path().join("db")
    }

    /// Takes all but about `free_bytes`: `parts` equal parts that can be thrown off, and the rest
    /// for good.
    fn load(&mut self, free_bytes: u64, parts: u32) -> Outcome<()> {
        let free = OsFs.free_bytes(self.mount.path()).or_setup()?;
        let parts_bytes = u64::from(parts) * BALLAST_PART_BYTES;
        let rest = free.saturating_sub(free_bytes + parts_bytes);
        take(&self.mount.path().join("rest"), rest)?;
        for _ in 0..parts {
            take(&self.ballast(self.ballast_count), BALLAST_PART_BYTES)?;
            self.ballast_count += 1;
        }
        Ok(())
    }

    /// Throws one part of the ballast off. Returns whether there was one.
    fn relieve(&mut self) -> Outcome<bool> {
        let Some(last) = self.ballast_count.checked_sub(1) else {
            return Ok(false);
        };
        OsFs.remove_file(&self.ballast(last)).or_setup()?;
        self.ballast_count = last;
        Ok(true)
    }

    fn ballast(&self, number: u32) -> PathBuf {
        self.mount.path().join(format!("ballast-{number}"))
    }

    /// Whether all that the database holds could be written once more beside it, in new files
    /// each of which ends in the middle of a page.
    fn has_room_for_two(&self) -> Outcome<bool> {
        let count = OsFs.list(&self.db_dir()).or_setup()?.len() as u64;
        let bytes = self.db_bytes()? + count * (4 << 10);
        Ok(OsFs.free_bytes(self.mount.path()).or_setup()? > bytes + (1 << 20))
    }

    /// What the files of the database take, as their lengths say.
    fn db_bytes(&self) -> Outcome<u64> {
        let entries = OsFs.list(&self.db_dir()).or_setup()?;
        let lens = entries.iter().map(|entry| {
            let status = OsFs.status(&self.db_dir().join(&entry.name)).or_setup()?;
            Ok(status.map_or(0, |status| status.len))
        });
        lens.sum()
    }
}

/// Takes so many bytes of a file system.
fn take(path: &Path, bytes: u64) -> Outcome<()> {
    if OsFs.status(path).or_setup()?.is_some() {
        // Loaded for the second time: what was taken for good still is.
        return Ok(());
    }
    let file = OsFs.create(path).or_setup()?;
    if !file.reserve(bytes).or_setup()? {
        for at in (0..bytes).step_by(4 << 10) {
            file.write_at(at, &[1; 4 << 10]).or_setup()?;
        }
    }
    Ok(())
}

/// Runs the plan on a file system mounted below `dir`. `program` is this one.
pub(crate) fn run(plan: &FullPlan, program: &Path, dir: &Path, stop: &Stop) -> Outcome<Tally> {
    let mut random = Random::stream(plan.seed, &[0xf011]);
    let (kind, bytes) = if random.one_in(2) {
        (MountKind::Memory, MEMORY_BYTES)
    } else {
        (MountKind::Ext4, EXT4_BYTES)
    };
    let mount = match Mount::make(dir, kind, bytes)? {
        Mounted::Here(mount) => mount,
        Mounted::Refused(reason) => {
            let name = kind.name();
            return Ok(Tally::Skipped(format!(
                "no {name} can be mounted: {reason}"
            )));
        }
    };
    let mut disk = Disk {
        mount,
        ballast_count: 0,
    };
    let watchdog = Watchdog::new(format!("siltstone-torture full --seed {}", plan.seed));
    let world = World::new(KEY_COUNT);
    let mut report = FullReport::default();
    disk.load((3 << 20) + random.below(3 << 20), 4)?;
    one_handle(&mut disk, &world, &mut random, &watchdog, stop, &mut report)?;
    if !stop.is_set() {
        killed::run(
            plan,
            program,
            &mut disk,
            &world,
            &watchdog,
            stop,
            &mut report,
        )?;
    }
    Ok(Tally::Done(format!("{}: {report}", kind.name())))
}

/// Fills the disk three times: with space given from outside, freed by deletes, and across opens.
fn one_handle(
    disk: &mut Disk,
    world: &World,
    random: &mut Random,
    watchdog: &Watchdog,
    stop: &Stop,
    report: &mut FullReport,
) -> Outcome<()> {
    let mut filling = Filling::open(disk, world, random.next_u64(), (watchdog, stop))?;
    filling.fill(report)?;
    filling.look_while_full(report)?;
    disk.relieve()?;
    filling.resume(report)?;
    filling.fill(report)?;
    filling.delete_while_full(disk, report)?;
    if !filling.free_by_deletes(report)? {
        disk.relieve()?;
        filling.resume(report)?;
    }
    filling.fill(report)?;
    reopen_while_full(filling, disk, report)
}

/// Lets go of the full database and opens it again: at once, or when there is space.
fn reopen_while_full(
    mut filling: Filling<'_>,
    disk: &mut Disk,
    report: &mut FullReport,
) -> Outcome<()> {
    filling.let_go()?;
    let mut bytes = disk.db_bytes()?;
    for attempt in 0..4 {
        if filling.try_open(disk)? {
            report.reopened_while_full += 1;
            filling.compare("after an opening while full")?;
            filling.let_go()?;
        } else {
            report.refused_opens += 1;
        }
        let now = disk.db_bytes()?;
        // An open may write a MANIFEST and a copy of the log; it must not do so again and again.
        if attempt == 0 {
            bytes = bytes.max(now);
        }
        if now > bytes + (4 << 20) {
            return finding(format!(
                "openings on a full disk let the database grow from {bytes} to {now} bytes"
            ));
        }
    }
    while disk.relieve()? {}
    if !filling.try_open(disk)? {
        return finding("there is space again, and yet an open says NoSpace");
    }
    filling.compare("after the opening with space")?;
    filling.resume(report)?;
    filling.compact(disk, "at the end")?;
    filling.let_go()?;
    if !filling.try_open(disk)? {
        return finding("an open with space to spare says NoSpace");
    }
    filling.compare("after the last opening")?;
    filling.let_go()
}

/// What a full disk may make of a write: rejected, for that reason, and the door stays open.
fn check_refusal(what: &str, error: &siltstone::Error, health: &Health) -> Outcome<()> {
    if !error.is_no_space() {
        return finding(format!("{what} on a full disk failed: {error:?}"));
    }
    if error.outcome() != Some(WriteOutcome::Rejected) {
        return finding(format!(
            "{what} on a full disk is {:?} rather than rejected: {error:?}",
            error.outcome()
        ));
    }
    if let Health::Poisoned(cause) = health {
        return finding(format!("a full disk poisoned the database: {cause:?}"));
    }
    Ok(())
}

/// Turns `NoSpace` into `None`, everything else into a finding.
fn unless_full<T>(what: &str, result: siltstone::Result<T>) -> Outcome<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_no_space() => Ok(None),
        Err(error) => Err(error).or_finding(what),
    }
}

/// Tries again until it is done, for as long as a handle may take to notice that there is space.
fn patiently(what: &str, mut once: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    for _ in 0..RESUME_TRY_COUNT {
        if once()? {
            return Ok(());
        }
        pause(RESUME_PAUSE);
    }
    Err(Failure::Finding(format!(
        "there is space again, and yet {what} still says NoSpace"
    )))
}
