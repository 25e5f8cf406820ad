//! RocksDB through its own `db_bench`: every row is a process of that program, whose output is
//! read. It draws keys of its own, in the same range and of the same form, and begins each row by
//! opening the database, so that its caches are cold; rows of random reads are run once before.
//!
//! Called by [`super::child`] only.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base::clock::{Clock, SystemClock};
use base::sync::Bell;
use base::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::child::{Order, QUIET_BYTES, QUIET_CPU_SECONDS, WINDOW};
use super::drive::Course;
use super::measured::Measured;
use super::plan::{Row, Work};
use crate::bench::engine::{Commit, Tuning};
use crate::bench::line::ResultLine;
use crate::bench::measure::micros;
use crate::bench::process::{DeviceBytes, MemoryBytes, cpu_seconds_of};
use crate::interrupt::Stop;

mod output;

use output::Parsed;

/// Where else to look for the program than in the directories of `PATH`.
const PROGRAM_VARIABLE: &str = "DB_BENCH";
/// What it is called.
const PROGRAM: &str = "db_bench";
/// More of what it says on standard error is not kept.
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;

/// Where the program lies.
///
/// # Errors
/// `NotFound`, with the name of the package that holds it.
pub(super) fn find() -> Result<PathBuf> {
    let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = match named {
        Some(named) => Some(named).filter(|program| program.is_file()),
        None => std::env::split_paths(&path)
            .map(|dir| dir.join(PROGRAM))
            .find(|program| program.is_file()),
    };
    found.ok_or_else(|| {
        Error::invalid_argument(format!(
            "rocksdb-db_bench needs the program db_bench, which was not found: on Debian and its \
             kin, apt-get install rocksdb-tools; elsewhere, set {PROGRAM_VARIABLE} to where it lies"
        ))
    })
}

/// The program, and the database that it works on.
#[derive(Debug)]
pub(super) struct DbBench<'a> {
    program: PathBuf,
    order: &'a Order,
    has_data: bool,
}

impl<'a> DbBench<'a> {
    /// Nothing run yet.
    ///
    /// # Errors
    /// As [`find`].
    pub(super) fn new(order: &'a Order) -> Result<Self> {
        Ok(Self {
            program: find()?,
            order,
            has_data: false,
        })
    }

    /// The version first, then what it is run with.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub(super) fn settings(&self) -> Result<Vec<(String, String)>> {
        // Without a workload it makes an empty database and says what it is; the first row makes
        // its own.
        let no_work = ["--benchmarks=".to_owned(), flag("db", self.dir())];
        let output = self
            .start(&no_work, &SystemClock::new(), &Stop::new())?
            .parsed;
        let promise = match self.order.setup.commit {
            Commit::Os => "when the operating system has it (its default)",
            Commit::Disk => "after fdatasync (--sync)",
        };
        let mut settings = vec![
            ("version".to_owned(), output.version.unwrap_or_default()),
            ("a write returns".to_owned(), promise.to_owned()),
            ("flags".to_owned(), self.fixed_flags().join(" ")),
            (
                "not the same".to_owned(),
                "keys and values of its own making, drawn in the same range; a process for each \
                 row, so that caches begin cold and the log is replayed first; random reads are \
                 run once before they count"
                    .to_owned(),
            ),
        ];
        if let Some(warning) = output.warning {
            settings.push(("it warns".to_owned(), warning));
        }
        Ok(settings)
    }

    /// Runs a row.
    ///
    /// # Errors
    /// If the program fails, or says something that is not understood.
    pub(super) fn run(&mut self, course: &Course<'_>) -> Result<Measured> {
        let row = course.row;
        let benchmark = self.benchmark(row);
        let ended = self.start(&self.flags(row, benchmark), course.clock, course.stop)?;
        self.has_data = true;
        let mut measured = if row.work == Work::Settle {
            // It prints no figures for waiting, and waits some seconds more when all is done.
            Measured {
                operations: 1,
                seconds: ended.busy_seconds,
                thread_seconds: ended.busy_seconds,
                ..Measured::default()
            }
        } else if let Some(measured) = ended.parsed.measured(benchmark) {
            measured
        } else if course.stop.is_set() {
            // Whoever asked to stop does not look at it.
            Measured::default()
        } else {
            return Err(
                Error::invalid_argument("db_bench printed no result").with_value("row", benchmark)
            );
        };
        measured.memory = ended.memory;
        Ok(measured)
    }

    /// What it calls the work of a row.
    fn benchmark(&self, row: &Row) -> &'static str {
        match row.work {
            Work::FillRandom if self.has_data => "overwrite",
            // It has none of one cursor, and such rows are not for it.
            Work::ReseekRandom => "seekrandom",
            work => work.name(),
        }
    }

    fn dir(&self) -> std::path::Display<'_> {
        let dir: &Path = &self.order.setup.dir;
        dir.display()
    }

    /// The flags that are the same in every row.
    fn fixed_flags(&self) -> Vec<String> {
        let (setup, shape) = (&self.order.setup, &self.order.shape);
        let bits = match setup.filter_bits {
            0 => -1,
            bits => i64::from(bits),
        };
        let is_synced = setup.commit == Commit::Disk;
        let mut flags = vec![
            flag("num", shape.num),
            flag("key_size", shape.key_bytes),
            flag("value_size", shape.value_bytes),
            flag("compression_ratio", shape.ratio),
            flag("write_buffer_size", setup.memtable_bytes),
            flag("cache_size", setup.cache_bytes),
            flag("bloom_bits", bits),
            flag("sync", is_synced),
        ];
        match setup.tuning {
            Tuning::Same => flags.push(flag("compression_type", "none")),
            // "Setup Options and Basic Tuning" of RocksDB's wiki.
            Tuning::Best => flags.extend([
                flag("compression_type", "lz4"),
                flag("max_background_jobs", 6),
                flag("bytes_per_sync", 1 << 20),
                flag("block_size", 16 << 10),
                flag("level_compaction_dynamic_level_bytes", true),
                flag("cache_index_and_filter_blocks", true),
                flag("pin_l0_filter_and_index_blocks_in_cache", true),
            ]),
        }
        flags
    }

    fn flags(&self, row: &Row, benchmark: &str) -> Vec<String> {
        let is_random_read = matches!(
            row.work,
            Work::ReadRandom | Work::ReadMissing | Work::SeekRandom
        );
        let warmed = if is_random_read { "[W1]" } else { "" };
        // Not 0, which it takes for "any"; another one in each row, as the other engines have it.
        let seed = self.order.shape.seed.wrapping_add(row.ordinal) % (1 << 62) + 1;
        let mut flags = self.fixed_flags();
        flags.extend([
            format!("--benchmarks={benchmark}{warmed}"),
            flag("db", self.dir()),
            flag("use_existing_db", self.has_data),
            flag("threads", row.threads),
            flag("batch_size", row.batch),
            flag("seek_nexts", row.nexts),
            flag("seed", seed),
            flag("histogram", 1),
        ]);
        match row.work {
            // All keys, however many threads there are.
            Work::FillSeq | Work::FillUnique | Work::Compact | Work::Settle => {}
            Work::FillRandom => flags.push(flag("writes", row.count)),
            _ => flags.push(flag("reads", row.count)),
        }
        flags
    }

    /// Runs the program to its end.
    fn start(&self, flags: &[String], clock: &SystemClock, stop: &Stop) -> Result<Ended> {
        let start_nanos = clock.monotonic_nanos();
        let mut child = Command::new(&self.program)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::io(&self.program, "start", source))?;
        let pid = child.id();
        let done = Bell::new();
        let (heard, status, busy_nanos) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(clock, stop, pid, &done));
            let heard = listen(&mut child);
            let status = child.wait();
            done.ring();
            let busy_nanos = watch
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e));
            (heard, status, busy_nanos)
        });
        let status = status.map_err(|source| Error::io(&self.program, "wait for", source))?;
        if !status.success() && !stop.is_set() {
            return Err(Error::invalid_argument("db_bench failed")
                .with_value("status", status)
                .with_value("it said", heard.complaint.trim().escape_debug()));
        }
        Ok(Ended {
            parsed: Parsed::new(&heard.text, &heard.complaint),
            memory: heard.memory,
            busy_seconds: micros(busy_nanos.saturating_sub(start_nanos)) / 1e6,
        })
    }
}

/// What came of a process of the program.
struct Ended {
    parsed: Parsed,
    /// Its memory when it printed the last result.
    memory: MemoryBytes,
    /// From its start until it neither computed nor wrote any more.
    busy_seconds: f64,
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

/// What a process of the program printed.
struct Heard {
    text: String,
    /// The end of standard error.
    complaint: String,
    memory: MemoryBytes,
}

/// Reads both outputs to their ends. What breaks off shows in the exit status.
fn listen(child: &mut Child) -> Heard {
    let pid = child.id();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let complaint = scope.spawn(move || errors.map(kept).unwrap_or_default());
        let mut heard = Heard {
            text: String::new(),
            complaint: String::new(),
            memory: MemoryBytes::default(),
        };
        for line in output
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines())
        {
            let Ok(line) = line else { break };
            if line.parse::<ResultLine>().is_ok()
                && let Some(memory) = MemoryBytes::of(pid)
            {
                heard.memory = memory;
            }
            heard.text.push_str(&line);
            heard.text.push('\n');
        }
        heard.complaint = complaint.join().unwrap_or_default();
        heard
    })
}

/// What was said, without the counter of operations that overwrites itself; the first part of it
/// where that is much.
fn kept(mut errors: impl Read) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not kept; the program's status says whether it failed.
    let _ = errors
        .by_ref()
        .take(COMPLAINT_BYTES_MAX)
        .read_to_end(&mut bytes);
    // Nor is what comes behind it, but a full pipe would stop the program.
    let _ = std::io::copy(&mut errors, &mut std::io::sink());
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.split(['\n', '\r']).map(str::trim);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("... finished"))
        .collect();
    lines.join("\n")
}

/// Ends the process when that is wished, until it is `done`; returns when it was last seen busy.
fn watch(clock: &SystemClock, stop: &Stop, pid: u32, done: &Bell) -> u64 {
    let whom = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let mut busy_nanos = clock.monotonic_nanos();
    let (mut cpu, mut device) = (0.0, DeviceBytes::default());
    while !done.wait_past(0, Some(WINDOW)) {
        if let (true, Some(whom)) = (stop.is_set(), whom) {
            // If it is gone already, there is nothing to end.
            let _ = kill_process(whom, Signal::TERM);
        }
        let now = cpu_seconds_of(pid).zip(DeviceBytes::of(pid));
        let Some((cpu_now, device_now)) = now else {
            continue;
        };
        let written = device_now.since(device).written;
        if cpu_now - cpu > QUIET_CPU_SECONDS || written > QUIET_BYTES {
            busy_nanos = clock.monotonic_nanos();
        }
        (cpu, device) = (cpu_now, device_now);
    }
    busy_nanos
}

#[cfg(test)]
mod tests;
