//! What one thread measures, and how the measurements of several become one.

use base::clock::{Clock, SystemClock};
use base::sync::Arc;
use hdrhistogram::Histogram;

use super::series::{SPAN_NANOS, Series};

/// Latencies above this many nanoseconds count as this many: an hour.
const LATENCY_NANOS_MAX: u64 = 3_600_000_000_000;
/// Of single steps of a scan, which take as long as reading the clock, one in so many is timed.
pub const SAMPLE_INTERVAL: u64 = 64;

/// The measurements of one thread in one workload.
#[derive(Debug)]
pub struct Meter {
    clock: Arc<SystemClock>,
    latencies: Histogram<u64>,
    start_nanos: u64,
    last_nanos: u64,
    series: Series,
    /// Operations that `series` has, and when it is to be told of more.
    counted: u64,
    count_at_nanos: u64,
    /// Operations done.
    pub done: u64,
    /// Bytes of keys and values written or read.
    pub bytes: u64,
    /// Reads of single keys, if the workload makes any, and how many found something.
    pub found: Option<Found>,
    /// What the operations of a mix were.
    pub tally: Tally,
    /// Whether it ended before its work was done, because it was asked to.
    pub is_cut_short: bool,
}

/// How many keys were there, of how many that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys that were there.
    pub found: u64,
    /// Keys asked for.
    pub of: u64,
}

/// Operations of a mixed workload by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tally {
    pub gets: u64,
    pub hits: u64,
    pub puts: u64,
    pub put_value_bytes: u64,
    pub seeks: u64,
    pub scanned: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.puts += other.puts;
        self.put_value_bytes += other.put_value_bytes;
        self.seeks += other.seeks;
        self.scanned += other.scanned;
    }
}

impl Meter {
    /// Nothing measured; the time runs from [`Meter::start`].
    pub fn new(clock: Arc<SystemClock>) -> Self {
        Self {
            clock,
            latencies: Histogram::new_with_max(LATENCY_NANOS_MAX, 3)
                .expect("three digits and an hour are valid bounds"),
            start_nanos: 0,
            last_nanos: 0,
            series: Series::default(),
            counted: 0,
            count_at_nanos: u64::MAX,
            done: 0,
            bytes: 0,
            found: None,
            tally: Tally::default(),
            is_cut_short: false,
        }
    }

    /// Starts the time.
    pub fn start(&mut self) {
        self.start_nanos = self.clock.monotonic_nanos();
        self.last_nanos = self.start_nanos;
        self.series = Series::new(self.start_nanos);
        self.count_at_nanos = (self.start_nanos + 1).next_multiple_of(SPAN_NANOS);
    }

    /// Leaves out the time since the last operation, which was spent waiting on purpose.
    pub fn skip(&mut self) {
        self.last_nanos = self.clock.monotonic_nanos();
    }

    /// Counts one operation that was due at `due_nanos`, however late it was begun.
    pub fn finish_since(&mut self, due_nanos: u64) {
        let now = self.clock.monotonic_nanos();
        self.latencies
            .saturating_record(now.saturating_sub(due_nanos));
        self.last_nanos = now;
        self.count_before(now);
        self.done += 1;
    }

    /// Called with the time before an operation that ended then is counted: those before it ended
    /// in the span before, once that is over.
    #[inline]
    fn count_before(&mut self, now: u64) {
        if now >= self.count_at_nanos {
            self.series
                .add(self.count_at_nanos - 1, self.done - self.counted);
            self.counted = self.done;
            self.count_at_nanos = (now + 1).next_multiple_of(SPAN_NANOS);
        }
    }

    /// Counts `count` operations that took the time since the last call, as one latency.
    #[inline]
    pub fn finish(&mut self, count: u64) {
        let now = self.clock.monotonic_nanos();
        self.latencies.saturating_record(now - self.last_nanos);
        self.last_nanos = now;
        self.count_before(now);
        self.done += count;
    }

    /// Counts one operation and its bytes; times it only if it is one in [`SAMPLE_INTERVAL`].
    ///
    /// The time of a sample runs from the end of the operation before it.
    #[inline]
    pub fn finish_step(&mut self, bytes: u64) {
        self.done += 1;
        self.bytes += bytes;
        match self.done % SAMPLE_INTERVAL {
            0 => {
                self.last_nanos = self.clock.monotonic_nanos();
                self.count_before(self.last_nanos);
            }
            1 if self.done > 1 => {
                let now = self.clock.monotonic_nanos();
                self.latencies.saturating_record(now - self.last_nanos);
            }
            _ => {}
        }
    }

    /// When the clock was last read, in nanoseconds.
    #[inline]
    pub fn last_nanos(&self) -> u64 {
        self.last_nanos
    }

    /// Ends the time.
    pub fn stop(&mut self) {
        self.last_nanos = self.clock.monotonic_nanos();
        let ended = self.last_nanos.min(self.count_at_nanos.saturating_sub(1));
        self.series.add(ended, self.done - self.counted);
        self.counted = self.done;
        // What ended in silence shows as such.
        self.series.add(self.last_nanos, 0);
    }

    /// Counts reads of single keys.
    pub fn add_found(&mut self, found: u64, of: u64) {
        let sum = self.found.get_or_insert_default();
        sum.found += found;
        sum.of += of;
    }
}

/// The measurements of all threads of one workload.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Operations done.
    pub done: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Keys found, of keys asked for.
    pub found: Option<Found>,
    /// From the first start to the last end, in seconds.
    pub elapsed_seconds: f64,
    /// The time of all threads together, in seconds.
    pub thread_seconds: f64,
    /// Of single operations or commits, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// When the first thread started, by the clock of all.
    pub start_nanos: u64,
    /// When the last one ended.
    pub end_nanos: u64,
    /// Operations over time.
    pub series: Series,
    /// What the operations of a mix were.
    pub tally: Tally,
    /// Whether it was interrupted.
    pub is_cut_short: bool,
}

impl Outcome {
    /// Puts the measurements of all threads together.
    ///
    /// # Panics
    /// If there is no meter.
    pub fn merge(meters: &[Meter]) -> Self {
        let first = meters.first().expect("a workload has a thread");
        let start = meters.iter().map(|m| m.start_nanos).min().unwrap_or(0);
        let end = meters.iter().map(|m| m.last_nanos).max().unwrap_or(0);
        let mut latencies = Histogram::new_from(&first.latencies);
        for meter in meters {
            latencies
                .add(&meter.latencies)
                .expect("all have the same bounds");
        }
        let found = meters.iter().filter_map(|m| m.found).reduce(|a, b| Found {
            found: a.found + b.found,
            of: a.of + b.of,
        });
        let mut series = Series::new(start);
        let mut tally = Tally::default();
        for meter in meters {
            series.merge(&meter.series);
            tally.add(&meter.tally);
        }
        Self {
            start_nanos: start,
            end_nanos: end,
            series,
            tally,
            done: meters.iter().map(|m| m.done).sum(),
            bytes: meters.iter().map(|m| m.bytes).sum(),
            found,
            elapsed_seconds: seconds(end.saturating_sub(start)),
            thread_seconds: meters
                .iter()
                .map(|m| seconds(m.last_nanos.saturating_sub(m.start_nanos)))
                .sum(),
            latencies,
            is_cut_short: meters.iter().any(|m| m.is_cut_short),
        }
    }

    /// The latency that `percent` of the operations do not exceed, in microseconds.
    pub fn percentile_micros(&self, percent: f64) -> f64 {
        micros(self.latencies.value_at_percentile(percent))
    }

    /// The longest latency, in microseconds.
    pub fn max_micros(&self) -> f64 {
        micros(self.latencies.max())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people; 52 bits are plenty")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "for people; 52 bits are plenty")]
pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_of_all_threads_become_one_outcome() {
        let clock = Arc::new(SystemClock::new());
        let meters: Vec<Meter> = (1..=2u64)
            .map(|count| {
                let mut meter = Meter::new(Arc::clone(&clock));
                meter.start();
                meter.finish(count);
                meter.add_found(count, 2);
                meter.bytes = 10;
                meter.stop();
                meter
            })
            .collect();
        let outcome = Outcome::merge(&meters);
        assert_eq!((outcome.done, outcome.bytes), (3, 20));
        assert_eq!(outcome.found, Some(Found { found: 3, of: 4 }));
        assert_eq!(outcome.latencies.len(), 2);
        assert_eq!(outcome.series.counts.iter().sum::<u64>(), 3);
        assert!(outcome.percentile_micros(50.0) <= outcome.max_micros());
    }

    #[test]
    fn steps_are_sampled() {
        let mut meter = Meter::new(Arc::new(SystemClock::new()));
        meter.start();
        for _ in 0..=SAMPLE_INTERVAL * 10 {
            meter.finish_step(3);
        }
        assert_eq!(meter.done, SAMPLE_INTERVAL * 10 + 1);
        assert_eq!(meter.bytes, 3 * meter.done);
        assert_eq!(meter.latencies.len(), 10);
        meter.stop();
        assert_eq!(meter.series.counts.iter().sum::<u64>(), meter.done);
    }
}
