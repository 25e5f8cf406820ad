//! One handle on a disk that fills up, and the model of what it must hold.

use std::sync::Arc;
use std::time::Duration;

use base::fs::{CountingFs, FileSystem, IoCounts, OsFs};
use siltstone::{Db, WriteBatch};

use super::super::compare::{Source, State, check_all};
use super::super::failure::{Failure, OrSetup, Outcome, finding};
use super::super::pause::pause;
use super::super::settings;
use super::super::watchdog::Watchdog;
use super::super::world::{Version, World, write_value};
use super::{
    Disk, FullReport, REFUSALS_OF_A_FULL_DISK, RESUME_PAUSE, check_refusal, patiently, unless_full,
};
use crate::interrupt::Stop;
use crate::random::Random;

/// Writes tried on a full disk, to see what they cost.
const VAIN_PUT_COUNT: u32 = 400;
/// What the file system may be handed while nothing gets on: some vain flushes and compactions.
const VAIN_BYTES_MAX: u64 = 48 << 20;
const VAIN_PAUSE: Duration = Duration::from_millis(400);
/// Deletes that the space kept back must at least take.
const SURE_DELETE_COUNT: usize = 50;
const RESUMED_PUT_COUNT: u32 = 300;
/// A disk on which this finds room does not come to be full: all there is fits.
const PUT_COUNT_MAX: u64 = 250_000;

/// A database that is filled, and what it holds.
pub(super) struct Filling<'a> {
    world: &'a World,
    watchdog: &'a Watchdog,
    stop: &'a Stop,
    seed: u64,
    random: Random,
    counts: Arc<IoCounts>,
    fs: Arc<CountingFs>,
    db: Option<Db>,
    state: State,
    /// The next key that was never written, in an order of its own.
    fresh: usize,
    version: Version,
    opening: u64,
    value: Vec<u8>,
}

impl<'a> Filling<'a> {
    pub(super) fn open(
        disk: &Disk,
        world: &'a World,
        seed: u64,
        (watchdog, stop): (&'a Watchdog, &'a Stop),
    ) -> Outcome<Self> {
        let fs = Arc::new(CountingFs::new(Arc::new(OsFs)));
        let mut filling = Self {
            world,
            watchdog,
            stop,
            seed,
            random: Random::stream(seed, &[1]),
            counts: fs.counts(),
            fs,
            db: None,
            state: vec![0; world.len()],
            fresh: 0,
            version: 0,
            opening: 0,
            value: Vec::new(),
        };
        if filling.try_open(disk)? {
            Ok(filling)
        } else {
            finding("the first open, on a disk with space, says NoSpace")
        }
    }

    /// Opens it, each time with other options. Returns whether there was space for
    /// that.
    pub(super) fn try_open(&mut self, disk: &Disk) -> Outcome<bool> {
        self.opening += 1;
        self.watchdog.step();
        let options = settings::options(self.seed.wrapping_add(self.opening));
        let options = options.file_system(Arc::clone(&self.fs) as Arc<dyn FileSystem>);
        self.db = unless_full("opening", options.open(disk.db_dir()))?;
        Ok(self.db.is_some())
    }

    fn db(&self) -> &Db {
        self.db
            .as_ref()
            .expect("it is open between try_open and let_go")
    }

    /// Closes it or only drops it. A full disk may keep a close from flushing.
    pub(super) fn let_go(&mut self) -> Outcome<()> {
        if self.random.one_in(2) {
            unless_full("closing", self.db().close())?;
        }
        self.db = None;
        Ok(())
    }

    /// A key: mostly one that was not written yet, so that there is ever more.
    fn pick(&mut self) -> usize {
        let count = self.world.len();
        if self.random.below(8) > 0 && self.fresh < count {
            self.fresh += 1;
            // A step that has no divisor in common with the count visits every key once.
            return self.fresh * 7919 % count;
        }
        self.random.below_usize(count)
    }

    /// One put or batch of puts. Returns whether there was space for it.
    fn put(&mut self, report: &mut FullReport) -> Outcome<bool> {
        let count = if self.random.one_in(6) { 5 } else { 1 };
        let mut batch = WriteBatch::new();
        let mut written = Vec::new();
        for _ in 0..count {
            let index = self.pick();
            self.version += 1;
            write_value(index, self.version, &mut self.value);
            batch.put(self.world.key(index), &self.value);
            written.push((index, self.version));
        }
        let result = self.db().write(&batch);
        self.watchdog.step();
        report.puts += 1;
        if let Err(error) = result {
            report.refused += 1;
            check_refusal("a put", &error, &self.db().health())?;
            return Ok(false);
        }
        for (index, version) in written {
            self.state[index] = version;
        }
        Ok(true)
    }

    /// Puts until nothing more goes in.
    pub(super) fn fill(&mut self, report: &mut FullReport) -> Outcome<()> {
        let mut refusals = 0;
        for _ in 0..PUT_COUNT_MAX {
            if self.stop.is_set() {
                return Ok(());
            }
            if self.put(report)? {
                refusals = 0;
                continue;
            }
            refusals += 1;
            if refusals >= REFUSALS_OF_A_FULL_DISK {
                report.fills += 1;
                return Ok(());
            }
            // Compactions under way may yet free some.
            pause(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Compares everything with the model.
    pub(super) fn compare(&self, when: &str) -> Outcome<()> {
        self.watchdog.step();
        check_all(Source::Db(self.db()), self.world, &self.state).map_err(|failure| match failure {
            Failure::Finding(text) => Failure::Finding(format!("{when}: {text}")),
            Failure::Setup(error) => Failure::Setup(error),
        })
    }

    /// Reads go on, and vain writes cost next to nothing.
    pub(super) fn look_while_full(&mut self, report: &mut FullReport) -> Outcome<()> {
        self.compare("while full")?;
        let before = self.counts.written_bytes();
        let mut is_full = true;
        for _ in 0..VAIN_PUT_COUNT {
            is_full &= !self.put(report)?;
        }
        pause(VAIN_PAUSE);
        let written = self.counts.written_bytes() - before;
        if is_full && written > VAIN_BYTES_MAX {
            return finding(format!(
                "{VAIN_PUT_COUNT} refused puts and {VAIN_PAUSE:?} on a full disk wrote {written} \
                 bytes"
            ));
        }
        self.compare("while full, after vain writes")
    }

    /// Deletes go on, at least as many as the space kept back must take.
    pub(super) fn delete_while_full(
        &mut self,
        disk: &Disk,
        report: &mut FullReport,
    ) -> Outcome<()> {
        let reserve = disk.db_dir().join(base::ids::RESERVE);
        let has_reserve = OsFs.status(&reserve).or_setup()?.is_some();
        let victims: Vec<usize> = (0..self.world.len())
            .filter(|&index| self.state[index] != 0)
            .take(SURE_DELETE_COUNT * 4)
            .collect();
        for (count, index) in victims.into_iter().enumerate() {
            let result = self.db().delete(self.world.key(index));
            self.watchdog.step();
            match result {
                Ok(_) => {
                    self.state[index] = 0;
                    report.deletes_while_full += 1;
                }
                Err(error) => {
                    check_refusal("a delete", &error, &self.db().health())?;
                    if has_reserve && count < SURE_DELETE_COUNT {
                        return finding(format!(
                            "delete {count} on a full disk is refused, with space kept back for \
                             it: {error:?}"
                        ));
                    }
                }
            }
        }
        self.compare("after deletes while full")
    }

    /// Deletes most of what there is, as far as that goes, and compacts. Returns whether puts
    /// go on after that.
    pub(super) fn free_by_deletes(&mut self, report: &mut FullReport) -> Outcome<bool> {
        let victims: Vec<usize> = (0..self.world.len())
            .filter(|&index| self.state[index] != 0 && index % 8 != 0)
            .collect();
        for some in victims.chunks(100) {
            let mut batch = WriteBatch::new();
            for &index in some {
                batch.delete(self.world.key(index));
            }
            let result = self.db().write(&batch);
            self.watchdog.step();
            if let Err(error) = result {
                check_refusal("deletes", &error, &self.db().health())?;
                break;
            }
            report.deletes_while_full += some.len() as u64;
            for &index in some {
                self.state[index] = 0;
            }
        }
        unless_full("compacting", self.db().compact_range(..))?;
        self.compare("after many deletes")?;
        for _ in 0..REFUSALS_OF_A_FULL_DISK {
            if self.put(report)? {
                report.freed_by_deletes += 1;
                return Ok(true);
            }
            pause(RESUME_PAUSE);
        }
        Ok(false)
    }

    /// There is space again: the same handle goes on, soon.
    pub(super) fn resume(&mut self, report: &mut FullReport) -> Outcome<()> {
        patiently("a put", || self.put(report))?;
        for _ in 0..RESUMED_PUT_COUNT {
            patiently("a put", || self.put(report))?;
        }
        patiently("a flush", || {
            let flushed = unless_full("flushing", self.db().flush())?;
            Ok(flushed.is_some())
        })?;
        report.resumptions += 1;
        self.compare("after going on")
    }

    /// Rewrites everything, and compares. Where there is no room for a second copy of everything,
    /// the disk may be full once more.
    pub(super) fn compact(&mut self, disk: &Disk, when: &str) -> Outcome<()> {
        let has_room = disk.has_room_for_two()?;
        patiently("a compaction", || {
            let compacted = unless_full("compacting", self.db().compact_range(..))?;
            Ok(compacted.is_some() || !has_room)
        })?;
        self.compare(when)
    }
}
