//! Runs workloads one after the other and hands their results to the output.

use std::io::Write;

use base::Result;
use base::clock::SystemClock;
use base::sync::Arc;
use base::sync::atomic::{AtomicUsize, Ordering};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siltstone::Db;

use super::args::Args;
use super::database::{Database, level_rows};
use super::lane::{Lane, Track, run_lanes};
use super::line::{ResultLine, as_f64};
use super::measure::{Meter, Outcome};
use super::output::{Cost, Output};
use super::process::{DeviceBytes, cpu_seconds};
use super::read::{self, Direction, Keys};
use super::report::{Amplification, LiveBytes, Space, text};
use super::workload::Workload;
use super::write::{self, WritePlan};
use crate::interrupt::Stop;

/// A run of `lsm-bench`.
pub(crate) struct Runner<'a> {
    args: &'a Args,
    stop: &'a Stop,
    clock: Arc<SystemClock>,
    database: Database,
    device_before: Option<DeviceBytes>,
    output: Output<'a>,
    ordinal: u64,
}

impl<'a> Runner<'a> {
    /// Nothing run yet; prints the header.
    ///
    /// # Errors
    /// If no temporary directory can be made, or nothing can be printed.
    pub(crate) fn new(args: &'a Args, stop: &'a Stop, out: &'a mut dyn Write) -> Result<Self> {
        let database = Database::new(args)?;
        let mut output = Output::new(args, out);
        let note = if args.db.is_none() {
            " (temporary)"
        } else {
            ""
        };
        output.header(args, &format!("{}{note}", database.dir().display()))?;
        Ok(Self {
            args,
            stop,
            clock: Arc::new(SystemClock::new()),
            database,
            device_before: DeviceBytes::now(),
            output,
            ordinal: 0,
        })
    }

    /// Runs one workload and prints its result.
    ///
    /// # Errors
    /// As the engine says.
    pub(crate) fn run(&mut self, workload: Workload) -> Result<()> {
        self.ordinal += 1;
        if workload.is_fresh() && self.args.use_existing_db {
            return self
                .output
                .skipped(workload.name(), "--use_existing_db is true");
        }
        let db = if workload.is_fresh() {
            self.database.open_fresh(self.args)?
        } else {
            self.database.open(self.args)?
        };
        match workload {
            Workload::Stats => {
                let text = format!("{:#?}", db.stats());
                return self.output.text(workload.name(), &text);
            }
            Workload::LevelStats => {
                let table = level_stats(&db);
                return self.output.text(workload.name(), &table);
            }
            _ => {}
        }
        let device_before = DeviceBytes::now();
        let cpu_before = cpu_seconds();
        let track = Track {
            db: &db,
            args: self.args,
            stop: self.stop,
            clock: &self.clock,
            progress: self.progress(workload),
            ordinal: self.ordinal,
        };
        let (meters, note) = measure(&track, workload)?;
        track.progress.finish_and_clear();
        let outcome = Outcome::merge(&meters);
        let cost = cost_since(&db, device_before, cpu_before);
        let line = ResultLine::new(workload.name(), &outcome);
        self.output.result(&line, &outcome, &cost)?;
        note.map_or(Ok(()), |note| self.output.say(&note))
    }

    /// Prints the report and closes the database.
    ///
    /// # Errors
    /// As the engine says.
    pub(crate) fn finish(mut self) -> Result<()> {
        if !self.stop.is_set()
            && let Some(db) = self.database.db()
        {
            // What a job has written and not yet finished would stand in no account.
            db.wait_for_compactions()?;
        }
        let totals = self.database.totals();
        let device = DeviceBytes::now().zip(self.device_before);
        let amplification = Amplification {
            totals,
            device: device.map(|(now, before)| now.since(before)),
            space: self.database.space()?,
        };
        self.output
            .finish(self.args, &amplification, self.stop.is_set())?;
        self.database.close()
    }

    /// A bar on standard error; it draws nothing unless that is a terminal.
    fn progress(&self, workload: Workload) -> ProgressBar {
        let lanes = self.args.threads as u64;
        let total = match workload {
            Workload::Compact | Workload::WaitForCompaction | Workload::Flush => return hidden(),
            Workload::ReadSeq
            | Workload::ReadReverse
            | Workload::ReadRandom
            | Workload::ReadMissing
            | Workload::MultiReadRandom
            | Workload::SeekRandom
            | Workload::ReadWhileWriting => self.args.read_count(),
            _ => WritePlan::new(workload, self.args).count,
        };
        let style = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} {per_sec} {eta}");
        let bar = ProgressBar::new(total * lanes).with_prefix(workload.name());
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

fn cost_since(db: &Db, device: Option<DeviceBytes>, cpu: Option<f64>) -> Cost {
    let levels = db.stats().levels;
    Cost {
        cpu_seconds: cpu_seconds().zip(cpu).map(|(now, before)| now - before),
        device_bytes: DeviceBytes::now()
            .zip(device)
            .map(|(now, before)| now.since(before).written),
        table_count: levels.iter().map(|level| level.table_count).sum(),
        table_bytes: levels.iter().map(|level| level.bytes).sum(),
    }
}

fn level_stats(db: &Db) -> String {
    let stats = db.stats();
    let space = Space {
        levels: level_rows(&stats),
        log_bytes: stats.log_disk_bytes,
        user_bytes: stats.user_bytes_written,
        live: LiveBytes::Estimated(0),
    };
    let table = text::level_table(&space);
    let log = as_f64(stats.log_disk_bytes) / 1_048_576.0;
    format!("{table}  log   {log:.1} MB\n")
}

fn hidden() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}

/// Runs a workload that is measured; the text is one more line for its result.
fn measure(track: &Track<'_>, workload: Workload) -> Result<(Vec<Meter>, Option<String>)> {
    let threads = track.args.threads;
    let meters = match workload {
        Workload::ReadRandom => run_lanes(track, threads, |_, lane| {
            read::read_random(lane, Keys::Written)
        }),
        Workload::ReadMissing => run_lanes(track, threads, |_, lane| {
            read::read_random(lane, Keys::Missing)
        }),
        Workload::MultiReadRandom => {
            run_lanes(track, threads, |_, lane| read::multi_read_random(lane))
        }
        Workload::ReadSeq => run_lanes(track, threads, |_, lane| {
            read::scan(lane, Direction::Forward)
        }),
        Workload::ReadReverse => run_lanes(track, threads, |_, lane| {
            read::scan(lane, Direction::Backward)
        }),
        Workload::SeekRandom => run_lanes(track, threads, |_, lane| read::seek_random(lane)),
        Workload::ReadWhileWriting => return read_while_writing(track),
        Workload::Compact => once(track, |db| db.compact_range(..)),
        Workload::WaitForCompaction => once(track, Db::wait_for_compactions),
        Workload::Flush => once(track, Db::flush),
        _ => {
            let plan = WritePlan::new(workload, track.args);
            run_lanes(track, threads, |_, lane| write::write(lane, &plan))
        }
    };
    Ok((meters?, None))
}

fn once(track: &Track<'_>, work: impl Fn(&Db) -> Result<()> + Sync) -> Result<Vec<Meter>> {
    run_lanes(track, 1, |_, lane: &mut Lane<'_>| {
        work(lane.db)?;
        lane.finish(1, 0);
        Ok(())
    })
}

/// Readers as in `readrandom`, and beside them one writer that overwrites until they are done and
/// is left out of the result.
fn read_while_writing(track: &Track<'_>) -> Result<(Vec<Meter>, Option<String>)> {
    let readers = track.args.threads;
    let plan = WritePlan::new(Workload::Overwrite, track.args);
    let readers_left = AtomicUsize::new(readers);
    let written = AtomicUsize::new(0);
    let mut meters = run_lanes(track, readers + 1, |index, lane| {
        if index < readers {
            let result = read::read_random(lane, Keys::Written);
            readers_left.fetch_sub(1, Ordering::Relaxed);
            return result;
        }
        let is_done = || readers_left.load(Ordering::Relaxed) == 0;
        let count = write::write_until(lane, &plan, &is_done)?;
        written.store(
            usize::try_from(count).unwrap_or(usize::MAX),
            Ordering::Relaxed,
        );
        Ok(())
    })?;
    let writer = meters.pop().expect("the writer is the last lane");
    let count = written.into_inner() as u64;
    let seconds = Outcome::merge(&[writer]).elapsed_seconds.max(1e-9);
    let note = format!(
        "  beside it one writer: {count} writes, {:.0} a second",
        as_f64(count) / seconds
    );
    Ok((meters, Some(note)))
}
