//! A lane: what one thread of a workload works with.

use std::path::Path;

use base::Result;
use base::clock::SystemClock;
use base::sync::Arc;
use base::sync::atomic::{AtomicU64, Ordering};
use indicatif::ProgressBar;
use siltstone::Db;

use super::args::Args;
use super::data::{KeyMaker, Lengths, ValueMaker};
use super::measure::Meter;
use crate::interrupt::Stop;
use crate::random::Random;

/// How often a lane tells the progress bar, in nanoseconds.
const TELL_INTERVAL_NANOS: u64 = 100_000_000;

/// What all lanes of one workload share.
pub(crate) struct Track<'a> {
    pub(crate) db: &'a Db,
    pub(crate) dir: &'a Path,
    pub(crate) args: &'a Args,
    pub(crate) stop: &'a Stop,
    pub(crate) clock: &'a Arc<SystemClock>,
    pub(crate) progress: ProgressBar,
    /// Operations that the lanes have told of.
    pub(crate) told: Arc<AtomicU64>,
    /// The how-manieth workload of the run this is: part of the seed of every lane, so that
    /// `overwrite` does not repeat the keys of `fillrandom`.
    pub(crate) ordinal: u64,
    /// Records of YCSB in the database.
    pub(crate) records: &'a AtomicU64,
}

impl<'a> Track<'a> {
    /// The same for one part of a workload, with random numbers of its own.
    pub(crate) fn part(&self, part: u64) -> Track<'a> {
        Track {
            progress: self.progress.clone(),
            told: Arc::clone(&self.told),
            ordinal: self.ordinal | part << 32,
            ..*self
        }
    }

    /// The same on another database.
    pub(crate) fn on<'b>(&self, db: &'b Db) -> Track<'b>
    where
        'a: 'b,
    {
        Track {
            db,
            progress: self.progress.clone(),
            told: Arc::clone(&self.told),
            ..*self
        }
    }
}

/// One thread of a workload: its own random numbers, keys, values and measurements.
pub(crate) struct Lane<'a> {
    pub(crate) db: &'a Db,
    pub(crate) args: &'a Args,
    pub(crate) clock: &'a Arc<SystemClock>,
    pub(crate) random: Random,
    pub(crate) keys: KeyMaker,
    pub(crate) values: ValueMaker,
    pub(crate) meter: Meter,
    /// When --duration is over.
    deadline_nanos: u64,
    stop: &'a Stop,
    progress: ProgressBar,
    told: Arc<AtomicU64>,
    told_nanos: u64,
    told_done: u64,
}

/// Whether an operation that is due at `due_nanos` is one of a run until `deadline_nanos`, or of
/// `count` operations if there is none.
#[inline]
fn is_within(deadline_nanos: u64, due_nanos: u64, done: u64, count: u64) -> bool {
    if deadline_nanos == u64::MAX {
        done < count
    } else {
        due_nanos < deadline_nanos
    }
}

impl<'a> Lane<'a> {
    /// The lane of thread `index`.
    pub(crate) fn new(track: &Track<'a>, index: u64) -> Self {
        let args = track.args;
        let mut pool_random = Random::stream(args.seed, &[track.ordinal, index, 1]);
        Self {
            db: track.db,
            args,
            clock: track.clock,
            random: Random::stream(args.seed, &[track.ordinal, index]),
            keys: KeyMaker::new(args.key_size),
            values: ValueMaker::with_lengths(
                &mut pool_random,
                Lengths::of(args),
                args.compression_ratio,
            ),
            deadline_nanos: u64::MAX,
            meter: Meter::new(Arc::clone(track.clock)),
            stop: track.stop,
            progress: track.progress.clone(),
            told: Arc::clone(&track.told),
            told_nanos: 0,
            told_done: 0,
        }
    }

    /// Whether somebody wants the run to end.
    pub(crate) fn stop(&self) -> &'a Stop {
        self.stop
    }

    /// Values are so long from now on.
    pub(crate) fn set_lengths(&mut self, lengths: Lengths) {
        self.values =
            ValueMaker::with_lengths(&mut self.random, lengths, self.args.compression_ratio);
    }

    fn start(&mut self) {
        self.meter.start();
        self.told_nanos = self.meter.last_nanos();
        if self.args.duration > 0 {
            let nanos = self.args.duration.saturating_mul(1_000_000_000);
            self.deadline_nanos = self.told_nanos.saturating_add(nanos);
        }
    }

    /// Whether there is more to do after `done` of `count` operations: with --duration until it is
    /// over, else until they are done.
    #[inline]
    pub(crate) fn goes_on(&mut self, done: u64, count: u64) -> bool {
        self.takes_due(done, count, self.meter.last_nanos())
    }

    /// Whether an operation that is due at `due_nanos` belongs to the run, after `done` of `count`
    /// others: with --duration if it is due before that is over, however late it then ends.
    #[inline]
    pub(crate) fn takes_due(&mut self, done: u64, count: u64, due_nanos: u64) -> bool {
        is_within(self.deadline_nanos, due_nanos, done, count) && !self.should_stop()
    }

    /// Whether to end early; notes it in the measurements.
    #[inline]
    pub(crate) fn should_stop(&mut self) -> bool {
        if !self.stop.is_set() {
            return false;
        }
        self.meter.is_cut_short = true;
        true
    }

    /// Ends one operation that counts as `count` and moved `bytes`.
    #[inline]
    pub(crate) fn finish(&mut self, count: u64, bytes: u64) {
        self.meter.bytes += bytes;
        self.meter.finish(count);
        self.tell();
    }

    /// Ends one operation that was due at `due_nanos` and moved `bytes`.
    #[inline]
    pub(crate) fn finish_since(&mut self, due_nanos: u64, bytes: u64) {
        self.meter.bytes += bytes;
        self.meter.finish_since(due_nanos);
        self.tell();
    }

    /// Ends one step of a scan that moved `bytes`.
    #[inline]
    pub(crate) fn finish_step(&mut self, bytes: u64) {
        self.meter.finish_step(bytes);
        self.tell();
    }

    #[inline]
    fn tell(&mut self) {
        let now = self.meter.last_nanos();
        if now.saturating_sub(self.told_nanos) >= TELL_INTERVAL_NANOS {
            self.told_nanos = now;
            self.tell_all();
        }
    }

    fn tell_all(&mut self) {
        let more = self.meter.done - self.told_done;
        self.progress.inc(more);
        self.told.fetch_add(more, Ordering::Relaxed);
        self.told_done = self.meter.done;
    }

    fn stop_counting(mut self) -> Meter {
        self.meter.stop();
        self.tell_all();
        self.meter
    }
}

/// Runs `work` in one lane, on the calling thread.
///
/// # Errors
/// That of `work`.
pub(crate) fn run_lane<'a>(
    track: &Track<'a>,
    work: impl FnOnce(&mut Lane<'a>) -> Result<()>,
) -> Result<Meter> {
    let mut lane = Lane::new(track, 0);
    lane.start();
    work(&mut lane)?;
    Ok(lane.stop_counting())
}

/// Runs `work` in `count` lanes side by side; the time of each starts when all are ready.
///
/// # Errors
/// The first error of any lane. The others end at their own.
pub(crate) fn run_lanes<'a>(
    track: &Track<'a>,
    count: usize,
    work: impl Fn(usize, &mut Lane<'a>) -> Result<()> + Sync,
) -> Result<Vec<Meter>> {
    let ready = std::sync::Barrier::new(count);
    let one = &|index: usize| -> Result<Meter> {
        let mut lane = Lane::new(track, index as u64);
        ready.wait();
        lane.start();
        work(index, &mut lane)?;
        Ok(lane.stop_counting())
    };
    let results: Vec<Result<Meter>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| scope.spawn(move || one(index)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e))
            })
            .collect()
    });
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_in_time_belongs_to_a_run_that_a_stall_has_made_longer() {
        // The last operation ended at 900; those that were due meanwhile are measured all the same.
        let deadline = 500;
        assert!(is_within(deadline, 499, 7, 3));
        assert!(!is_within(deadline, 500, 0, 3));
        assert!(is_within(u64::MAX, 900, 2, 3), "no duration: so many");
        assert!(!is_within(u64::MAX, 0, 3, 3));
    }
}
