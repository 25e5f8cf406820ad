//! `--report_file`: operations a second, a line for each interval, written while a workload runs,
//! in the form of db_bench's.
//!
//! What lies between two workloads is left out: the seconds are those of measured work.

use std::path::Path;
use std::time::Duration;

use base::Result;
use base::clock::{Clock, SystemClock};
use base::fs::{File, FileSystem, OsFs};
use base::sync::atomic::{AtomicU64, Ordering};
use base::sync::{Arc, Bell};

use super::args::Args;
use super::line::{as_f64, truncated};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The file, and how far it has been written.
pub(crate) struct Live {
    file: Arc<dyn File>,
    clock: Arc<SystemClock>,
    interval_seconds: u64,
    end: u64,
    elapsed_seconds: u64,
}

impl Live {
    /// The file that `args` name, with its header; `None` if they want none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn new(args: &Args, clock: &Arc<SystemClock>) -> Result<Option<Self>> {
        if args.report_interval_seconds == 0 {
            return Ok(None);
        }
        let mut live = Self {
            file: replaced(&args.report_file)?,
            clock: Arc::clone(clock),
            interval_seconds: args.report_interval_seconds,
            end: 0,
            elapsed_seconds: 0,
        };
        live.append("secs_elapsed,interval_qps\n")?;
        Ok(Some(live))
    }

    /// Does `work`, and writes meanwhile how many operations were `told` in each interval.
    ///
    /// # Errors
    /// Those of `work`, else those of the file.
    pub(crate) fn during<T>(
        &mut self,
        told: &AtomicU64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let done = Bell::new();
        // Before the thread is there: it may come to run only when much is done.
        let counted = told.load(Ordering::Relaxed);
        let from_nanos = self.clock.monotonic_nanos();
        let (result, written) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| self.write_until(&done, told, counted, from_nanos));
            let result = work();
            done.ring();
            let written = writer
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e));
            (result, written)
        });
        let result = result?;
        written.and(Ok(result))
    }

    /// Until `done`: `counted` operations had been `told` at `from_nanos`.
    fn write_until(
        &mut self,
        done: &Bell,
        told: &AtomicU64,
        mut counted: u64,
        mut from_nanos: u64,
    ) -> Result<()> {
        let interval_nanos = self.interval_seconds.saturating_mul(NANOS_PER_SECOND);
        loop {
            let left = (from_nanos + interval_nanos).saturating_sub(self.clock.monotonic_nanos());
            let is_done = done.wait_past(0, Some(Duration::from_nanos(left)));
            let now_nanos = self.clock.monotonic_nanos();
            if !is_done && now_nanos < from_nanos + interval_nanos {
                continue;
            }
            let now = told.load(Ordering::Relaxed);
            let seconds = as_f64((now_nanos - from_nanos).max(1)) / 1e9;
            // The last interval counts as long as it was.
            if !is_done || now > counted {
                self.elapsed_seconds += self.interval_seconds;
                let rate = truncated(as_f64(now - counted) / seconds);
                self.append(&format!("{},{rate}\n", self.elapsed_seconds))?;
            }
            if is_done {
                return Ok(());
            }
            (from_nanos, counted) = (now_nanos, now);
        }
    }

    fn append(&mut self, text: &str) -> Result<()> {
        self.file.write_at(self.end, text.as_bytes())?;
        self.end += text.len() as u64;
        Ok(())
    }
}

/// A new file in place of what is there.
fn replaced(path: &Path) -> Result<Arc<dyn File>> {
    if OsFs.status(path)?.is_some() {
        OsFs.remove_file(path)?;
    }
    OsFs.create(path)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn every_operation_that_was_told_stands_in_some_interval() {
        let scratch = Scratch::new("siltstone-test").expect("made");
        let path = scratch.path().join("rates.csv");
        let args = Args::parse_from([
            "lsm-bench".to_owned(),
            "--report_interval_seconds=86400".to_owned(),
            format!("--report_file={}", path.display()),
        ]);
        let clock = Arc::new(SystemClock::new());
        let mut live = Live::new(&args, &clock).expect("made").expect("wanted");
        let told = AtomicU64::new(0);
        for part in [500, 70] {
            live.during(&told, || {
                told.fetch_add(part, Ordering::Relaxed);
                Ok(())
            })
            .expect("written");
        }
        // Nothing was done: nothing is said.
        live.during(&told, || Ok(())).expect("written");
        let text = base::fs::read_small_file(&OsFs, &path, 1 << 10).expect("there");
        let text = String::from_utf8(text).expect("text");
        let seconds: Vec<&str> = text
            .lines()
            .map(|line| line.split_once(',').expect("two columns").0)
            .collect();
        assert_eq!(seconds, ["secs_elapsed", "86400", "172800"], "{text}");
    }
}
