//! Runs one workload in as many threads as it wants.

use base::Result;
use base::sync::atomic::{AtomicUsize, Ordering};
use siltstone::{Db, Stats, WriteAmplification};

use super::data::Lengths;
use super::lane::{Lane, Track, run_lanes};
use super::line::as_f64;
use super::machine;
use super::measure::{Meter, Outcome};
use super::mix::{self, MixPlan, Update, YcsbPlan};
use super::probe;
use super::read::{self, Direction, Keys};
use super::streams;
use super::tables;
use super::workload::Workload;
use super::write::{self, WritePlan};
use crate::text::counted;

/// What came of a workload.
pub(crate) struct Measured {
    pub(crate) meters: Vec<Meter>,
    /// Bytes that a thread beside these wrote or was returned.
    pub(crate) bytes_beside: u64,
    /// Behind the result line.
    pub(crate) message: Option<String>,
    /// One more line below it.
    pub(crate) note: Option<String>,
    /// The ledger of a database that the workload made for itself.
    pub(crate) apart: Option<Box<(Stats, WriteAmplification)>>,
}

impl From<Vec<Meter>> for Measured {
    fn from(meters: Vec<Meter>) -> Self {
        Self {
            meters,
            bytes_beside: 0,
            message: None,
            note: None,
            apart: None,
        }
    }
}

/// Runs a workload whose threads need nothing but the open database.
///
/// # Errors
/// The first error of any thread.
pub(crate) fn measure(track: &Track<'_>, workload: Workload) -> Result<Measured> {
    let threads = track.args.threads;
    let every = |work: &(dyn Fn(&mut Lane<'_>) -> Result<()> + Sync)| {
        run_lanes(track, threads, |_, lane| work(lane)).map(Measured::from)
    };
    let mut measured = match workload {
        Workload::ReadRandom => every(&|lane| read::read_random(lane, Keys::Written)),
        Workload::ReadMissing => every(&|lane| read::read_random(lane, Keys::Missing)),
        Workload::ReadHot => every(&|lane| read::read_random(lane, Keys::Hot)),
        Workload::MultiReadRandom => every(&read::multi_read_random),
        Workload::ReadSeq => every(&|lane| read::scan(lane, Direction::Forward)),
        Workload::ReadReverse => every(&|lane| read::scan(lane, Direction::Backward)),
        Workload::NewIterator => every(&read::new_iterator),
        Workload::SeekRandom => every(&read::seek_random),
        Workload::ReadWhileWriting
        | Workload::SeekRandomWhileWriting
        | Workload::ReadWhileScanning
        | Workload::TimeSeries => beside(track, workload),
        Workload::ReadRandomWriteRandom => every(&mix::read_random_write_random),
        Workload::UpdateRandom => every(&|lane| mix::update_random(lane, Update::Replace)),
        Workload::AppendRandom => every(&|lane| mix::update_random(lane, Update::Append)),
        Workload::MixGraph => {
            let plan = MixPlan::new(track.args);
            every(&|lane| mix::mixgraph(lane, &plan))
        }
        Workload::Queue => {
            run_lanes(track, threads, |index, lane| streams::queue(lane, index)).map(Measured::from)
        }
        Workload::StallProbe => stall_probe(track),
        Workload::Crc32 => blocks(track, machine::Work::Checksum),
        Workload::Compress => blocks(track, machine::Work::Compress),
        Workload::Uncompress => blocks(track, machine::Work::Uncompress),
        Workload::VerifyChecksum => verify(track),
        Workload::Compact => once(track, |db| db.compact_range(..)),
        Workload::WaitForCompaction => once(track, Db::wait_for_compactions),
        Workload::Flush => once(track, Db::flush),
        _ => {
            if let Some(plan) = YcsbPlan::new(workload, track.args, track.records) {
                every(&|lane| mix::ycsb(lane, &plan))
            } else {
                let plan = WritePlan::new(workload, track.args);
                every(&|lane| write::write(lane, &plan))
            }
        }
    }?;
    if let Some(message) = mix::message(workload, &Outcome::merge(&measured.meters).tally) {
        measured.message = Some(message);
    }
    Ok(measured)
}

fn once(track: &Track<'_>, work: impl Fn(&Db) -> Result<()> + Sync) -> Result<Measured> {
    let meters = run_lanes(track, 1, |_, lane: &mut Lane<'_>| {
        work(lane.db)?;
        lane.finish(1, 0);
        Ok(())
    })?;
    Ok(meters.into())
}

/// Checks every table, each thread all of them, as db_bench does.
fn verify(track: &Track<'_>) -> Result<Measured> {
    track.db.wait_for_compactions()?;
    let meters = run_lanes(track, track.args.threads, |_, lane| {
        tables::verify(track.dir, lane)
    })?;
    Ok(meters.into())
}

fn blocks(track: &Track<'_>, work: machine::Work) -> Result<Measured> {
    let message = base::sync::Mutex::new(None);
    let meters = run_lanes(track, track.args.threads, |_, lane| {
        let text = machine::run(lane, work)?;
        *message.lock() = text;
        Ok(())
    })?;
    Ok(Measured {
        message: message.into_inner(),
        ..meters.into()
    })
}

fn stall_probe(track: &Track<'_>) -> Result<Measured> {
    let meters = run_lanes(track, track.args.threads, |_, lane| probe::run(lane))?;
    let note = probe::note(&Outcome::merge(&meters), track.args.arrival_rate);
    Ok(Measured {
        note: Some(note),
        ..meters.into()
    })
}

/// Readers, and beside them one thread more that goes on until they are done and is left out of
/// the result.
fn beside(track: &Track<'_>, workload: Workload) -> Result<Measured> {
    let readers = track.args.threads;
    let plan = WritePlan::new(Workload::Overwrite, track.args);
    let readers_left = AtomicUsize::new(readers);
    let mut meters = run_lanes(track, readers + 1, |index, lane| {
        if index < readers {
            let result = match workload {
                Workload::SeekRandomWhileWriting => read::seek_random(lane),
                Workload::TimeSeries => streams::read_series(lane),
                _ => read::read_random(lane, Keys::Written),
            };
            readers_left.fetch_sub(1, Ordering::Relaxed);
            return result;
        }
        let is_done = || readers_left.load(Ordering::Relaxed) == 0;
        match workload {
            Workload::ReadWhileScanning => read::scan_until(lane, &is_done)?,
            Workload::TimeSeries => streams::write_series(lane, &is_done)?,
            _ => write::write_until(lane, &plan, &is_done)?,
        };
        Ok(())
    })?;
    let other = meters.pop().expect("the thread beside is the last lane");
    let outcome = Outcome::merge(&[other]);
    let rate = as_f64(outcome.done) / outcome.elapsed_seconds.max(1e-9);
    let what = match workload {
        Workload::ReadWhileScanning => ("scan", "entry"),
        Workload::TimeSeries => ("writer of rows", "row"),
        _ => ("writer", "write"),
    };
    let (who, noun) = what;
    let count = counted(outcome.done, noun);
    let mut note = format!("  beside it one {who}: {count}, {rate:.0} a second");
    if workload == Workload::TimeSeries {
        let read = Outcome::merge(&meters);
        let row_bytes = (streams::ROW_KEY_BYTES + Lengths::of(track.args).mean()) as u64;
        let rows = as_f64(read.bytes) / as_f64(row_bytes * read.done.max(1));
        let whole = format!("; a read is a whole series, {rows:.1} rows on average");
        note.push_str(&whole);
    }
    Ok(Measured {
        note: Some(note),
        bytes_beside: outcome.bytes,
        ..meters.into()
    })
}
