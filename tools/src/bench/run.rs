//! Runs workloads one after the other and hands their results to the output.

use std::io::Write;

use base::clock::{Clock, SystemClock};
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use base::{Result, SequenceNumber};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use siltstone::Db;

use super::amp;
use super::args::Args;
use super::database::{Database, level_rows};
use super::diskfull::{self, SmallDisk};
use super::input::Input;
use super::lane::{Track, run_lane, run_lanes};
use super::line::{ResultLine, as_f64};
use super::live::Live;
use super::measure::Outcome;
use super::moments::Moments;
use super::output::Output;
use super::process::DeviceBytes;
use super::record::{Moment, Record};
use super::recover;
use super::report::theory::Tuning;
use super::report::{Amplification, LiveBytes, Space, text};
use super::tables;
use super::work::{self, Measured};
use super::workload::{Request, Workload};
use super::write::{self, WritePlan};
use crate::interrupt::Stop;
use crate::text::counted;

/// A run of `lsm-bench`.
pub(crate) struct Runner<'a> {
    args: &'a Args,
    stop: &'a Stop,
    clock: Arc<SystemClock>,
    database: Database,
    moments: Moments,
    device_before: Option<DeviceBytes>,
    live: Option<Live>,
    output: Output<'a>,
    ordinal: u64,
    /// Records of YCSB: what one run inserts is there in the next.
    records: AtomicU64,
}

impl<'a> Runner<'a> {
    /// Nothing run yet; prints the header, about the `input` if there is one.
    ///
    /// # Errors
    /// If no temporary directory can be made, or nothing can be printed.
    pub(crate) fn new(
        args: &'a Args,
        stop: &'a Stop,
        input: Option<&Input>,
        out: &'a mut dyn Write,
    ) -> Result<Self> {
        let clock = Arc::new(SystemClock::new());
        let moments = Moments::new(Arc::clone(&clock));
        let database = Database::new(args, moments.clone())?;
        let mut output = Output::new(args, out);
        let note = if args.db.is_none() {
            " (temporary)"
        } else {
            ""
        };
        let place = format!("{}{note}", database.dir().display());
        match input {
            Some(input) => output.header_of(&input.about(), &place)?,
            None => output.header(args, &place)?,
        }
        let live = Live::new(args, &clock)?;
        Ok(Self {
            args,
            stop,
            clock,
            database,
            moments,
            device_before: DeviceBytes::now(),
            live,
            output,
            ordinal: 0,
            records: AtomicU64::new(args.num),
        })
    }

    /// Puts every record of `input`, and prints what that took.
    ///
    /// # Errors
    /// As the engine says; `InvalidArgument` for a line that is no record.
    pub(crate) fn put_all(&mut self, input: &mut Input) -> Result<()> {
        let db = self.database.open(self.args)?;
        let before = Moment::now(&db, &self.moments);
        let mut live = self.live.take();
        let track = self.track(&db, hidden());
        let told = Arc::clone(&track.told);
        let mut work = || run_lane(&track, |lane| input.load(lane));
        let meter = match &mut live {
            Some(live) => live.during(&told, work),
            None => work(),
        };
        input.end();
        let measured = Measured::from(vec![meter?]);
        let (record, _) = self.record(&db, "load", measured, &before);
        self.live = live;
        self.output.result(&record, 1)?;
        self.output.note(&input.note())?;
        self.output.keep(vec![record]);
        // Outside of the time: what lies in memory and in the log alone would tell little of what
        // the input costs.
        db.flush()
    }

    /// Runs a workload as often as `request` says, and prints each result that counts.
    ///
    /// # Errors
    /// As the engine says.
    pub(crate) fn run(&mut self, request: Request) -> Result<()> {
        let workload = request.workload;
        let name = workload.name();
        if workload.is_fresh() && self.args.switches.use_existing_db {
            return self.output.skipped(name, "--use_existing_db is true");
        }
        let mut records = Vec::new();
        for turn in 0..request.warmups + request.repeats {
            if self.stop.is_set() {
                break;
            }
            self.ordinal += 1;
            let is_warmup = turn < request.warmups;
            if self.has_printed(workload)? {
                continue;
            }
            let Some((record, note)) = self.run_once(workload)? else {
                return Ok(());
            };
            if is_warmup {
                // Not in the form of a result: nobody is to count it as one.
                let (number, rate) = (turn + 1, record.line.ops_per_sec);
                let text = format!("{name:<12} warm-up {number}: {rate} a second, not counted");
                self.output.say(&text)?;
                continue;
            }
            self.output.result(&record, self.ordinal)?;
            if let Some(note) = note {
                self.output.note(&note)?;
            }
            records.push(record);
        }
        if request.repeats > 1 {
            self.output.summary(name, &records)?;
        }
        self.output.keep(records);
        Ok(())
    }

    /// Prints what a workload that measures nothing has to say; false for any other.
    fn has_printed(&mut self, workload: Workload) -> Result<bool> {
        let text = match workload {
            Workload::Stats => format!("{:#?}", self.database.open(self.args)?.stats()),
            Workload::LevelStats => level_stats(&self.database.open(self.args)?),
            Workload::SsTables => {
                self.database.open(self.args)?;
                tables::list(self.database.dir())?
            }
            _ => return Ok(false),
        };
        self.output.text(workload.name(), &text)?;
        Ok(true)
    }

    /// Runs a workload once; nothing if it cannot be run here, which is then said.
    fn run_once(&mut self, workload: Workload) -> Result<Option<(Record, Option<String>)>> {
        let mut disk = match workload {
            Workload::DiskFull => match SmallDisk::new(self.args)? {
                Ok(disk) => Some(disk),
                Err(reason) => {
                    self.output.skipped(workload.name(), &reason)?;
                    return Ok(None);
                }
            },
            _ => None,
        };
        if workload == Workload::Recover {
            self.database.give_way()?;
            self.uncounted(|runner| recover::leave_behind(runner.database.dir(), runner.args))?;
            return self.reopen().map(Some);
        }
        let db = if workload.is_fresh() {
            self.records.store(self.args.num, Ordering::Relaxed);
            self.database.open_fresh(self.args)?
        } else {
            self.database.open(self.args)?
        };
        if workload.needs_data() {
            self.load(&db)?;
        }
        if let Some(disk) = &mut disk {
            self.uncounted(|_| disk.take_ballast())?;
        }
        let before = Moment::now(&db, &self.moments);
        let mut live = self.live.take();
        let track = self.track(&db, self.progress(workload));
        let work = || match &disk {
            Some(disk) => diskfull::run(&track, disk),
            None if workload == Workload::Amp => amp::run(&track),
            None => work::measure(&track, workload),
        };
        let measured = match &mut live {
            Some(live) => live.during(&track.told, work),
            None => work(),
        };
        track.progress.finish_and_clear();
        let mut measured = measured?;
        let apart = measured.apart.take();
        let record = self.record(&db, workload.name(), measured, &before);
        self.live = live;
        if let Some(apart) = apart {
            self.database.book(&apart.0, &apart.1);
        }
        Ok(Some(record))
    }

    /// Does `work` that is in no ledger: what the system counts meanwhile, that of processes which
    /// ended included, is left out of the report.
    fn uncounted<T>(&mut self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let before = DeviceBytes::now();
        let done = work(self)?;
        let counted = DeviceBytes::now().zip(before);
        if let (Some(begun), Some((now, before))) = (&mut self.device_before, counted) {
            *begun = begun.plus(now.since(before));
        }
        Ok(done)
    }

    /// Opens what a killed process left.
    fn reopen(&mut self) -> Result<(Record, Option<String>)> {
        // It wants an open database, and this one is opened by the workload itself.
        let scratch = crate::scratch::Scratch::new("lsm-bench")?;
        let none = self.args.options().open(scratch.path())?;
        let track = self.track(&none, hidden());
        let (measured, db) = recover::open(&track, &self.moments)?;
        none.close()?;
        let before = Moment::now(&db, &self.moments);
        let record = self.record(&db, Workload::Recover.name(), measured, &before);
        self.database.adopt(db);
        Ok(record)
    }

    fn track<'b>(&'b self, db: &'b Db, progress: ProgressBar) -> Track<'b> {
        Track {
            db,
            dir: self.database.dir(),
            args: self.args,
            stop: self.stop,
            clock: &self.clock,
            progress,
            told: Arc::default(),
            ordinal: self.ordinal,
            records: &self.records,
        }
    }

    fn record(
        &self,
        db: &Db,
        name: &str,
        measured: Measured,
        before: &Moment,
    ) -> (Record, Option<String>) {
        let outcome = Outcome::merge(&measured.meters);
        let (cost, levels) = before.cost(db, &self.moments);
        let mut line = ResultLine::new(name, &outcome);
        line.message = measured.message;
        let record = Record {
            line,
            threads: measured.meters.len(),
            bytes_beside: measured.bytes_beside,
            cost,
            pauses: self.moments.within(outcome.start_nanos, outcome.end_nanos),
            levels,
            ended_micros: self.clock.now_micros(),
            outcome,
        };
        (record, measured.note)
    }

    /// Writes each of `num` keys once if there is nothing: workloads that mix reads and writes are
    /// about data that is there.
    fn load(&mut self, db: &Db) -> Result<()> {
        if !is_empty(db)? {
            return Ok(());
        }
        let plan = WritePlan::load(self.args);
        let mut loading = self.args.clone();
        loading.duration = 0;
        let track = Track {
            args: &loading,
            ..self.track(db, self.progress(Workload::FillUniqueRandom))
        };
        run_lanes(&track, 1, |_, lane| write::write(lane, &plan))?;
        track.progress.finish_and_clear();
        let note = format!(
            "(the database was empty: {} written first)",
            counted(plan.count, "entry")
        );
        self.output.say(&note)
    }

    /// Prints the report and closes the database.
    ///
    /// # Errors
    /// As the engine says.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.args.hold_open {
            return self.output.hold();
        }
        if !self.stop.is_set()
            && let Some(db) = self.database.db()
        {
            // What a job has written and not yet finished would stand in no account.
            db.wait_for_compactions()?;
        }
        let totals = self.database.totals();
        let device = DeviceBytes::now().zip(self.device_before);
        let keyspaces = self.database.db();
        let keyspaces = keyspaces.map(|db| db.amplification().keyspaces);
        let amplification = Amplification {
            totals,
            device: device.map(|(now, before)| now.since(before)),
            returned: self.output.returned(),
            keyspaces: keyspaces.unwrap_or_default(),
            // Last: it reads everything.
            space: self.database.space()?,
            tuning: Tuning::of(self.args),
        };
        if self.args.switches.statistics
            && let Some(db) = self.database.db()
        {
            let text = format!("STATISTICS:\n{:#?}", db.stats());
            self.output.text("statistics", &text)?;
        }
        self.output
            .finish(self.args, &amplification, self.stop.is_set())?;
        self.database.close()
    }

    /// A bar on standard error; it draws nothing unless that is a terminal.
    fn progress(&self, workload: Workload) -> ProgressBar {
        let lanes = self.args.threads as u64;
        let total = match workload {
            _ if self.args.duration > 0 || workload.is_one_operation() => return hidden(),
            _ if workload.is_reading() => self.args.read_count(),
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

/// Whether nothing can be read. A cursor, which the report on scans would count, is asked only if
/// something was ever written.
fn is_empty(db: &Db) -> Result<bool> {
    let is_new = db.stats().visible_seq == SequenceNumber::ZERO;
    Ok(is_new || !db.cursor()?.seek_to_first()?)
}

fn level_stats(db: &Db) -> String {
    let stats = db.stats();
    let space = Space {
        levels: level_rows(&stats, &db.amplification().write),
        log_bytes: stats.log_disk_bytes,
        user_bytes: stats.user_bytes_written,
        get_count: stats.get_count,
        live: LiveBytes::Estimated(0),
    };
    let table = text::level_table(&space);
    let log = as_f64(stats.log_disk_bytes) / 1_048_576.0;
    format!("{table}  log   {log:.1} MB\n")
}

fn hidden() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}
