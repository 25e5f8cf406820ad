//! The process of one engine: takes rows on standard input, one a line, and answers each with a
//! line. It has memory, caches, threads and an account of written bytes to itself.
//!
//! Called by [`super::turns`] only, through a hidden word on the command line.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::clock::{Clock, SystemClock};
use base::fs::{FileSystem, OsFs};
use base::sync::{Arc, Bell};
use base::{Error, Result};
use serde_json::{Value, json};

use super::db_bench::DbBench;
use super::drive::{self, Course, Shape};
use super::measured::Measured;
use super::plan::{Row, Work};
use crate::bench::engine::{Commit, Engine, EngineName, EngineSet, Setup, Tuning, Visitor};
use crate::bench::process::{DeviceBytes, MemoryBytes, children_cpu_seconds, cpu_seconds};
use crate::interrupt::Stop;

/// How long the process is watched at a time, until it is quiet.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
/// In so many windows in a row it must be quiet.
const QUIET_WINDOWS: u32 = 3;
/// How much processor time a quiet window may take: two ticks of the system's account.
pub(super) const QUIET_CPU_SECONDS: f64 = 0.021;
/// How much a quiet window may write.
pub(super) const QUIET_BYTES: u64 = 64 << 10;
/// After so many windows it is not going to be quiet: twenty minutes.
const WINDOWS_MAX: u32 = 4800;

/// What a child is started with.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) engine: EngineName,
    pub(crate) setup: Setup,
    pub(crate) shape: Shape,
}

impl Order {
    /// As a document.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "engine": self.engine.name(),
            "dir": self.setup.dir,
            "is_synced": self.setup.commit == Commit::Disk,
            "is_best": self.setup.tuning == Tuning::Best,
            "filter_bits": self.setup.filter_bits,
            "memtable_bytes": self.setup.memtable_bytes,
            "cache_bytes": self.setup.cache_bytes,
            "num": self.shape.num,
            "key_bytes": self.shape.key_bytes,
            "value_bytes": self.shape.value_bytes,
            "ratio": self.shape.ratio,
            "seed": self.shape.seed,
        })
    }

    /// From a document; `None` if a field is missing.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let whole = |name: &str| value.get(name)?.as_u64();
        let length = |name: &str| usize::try_from(whole(name)?).ok();
        let flag = |name: &str| value.get(name)?.as_bool();
        Some(Self {
            engine: EngineName::parse(value.get("engine")?.as_str()?).ok()?,
            setup: Setup {
                dir: PathBuf::from(value.get("dir")?.as_str()?),
                commit: if flag("is_synced")? {
                    Commit::Disk
                } else {
                    Commit::Os
                },
                tuning: if flag("is_best")? {
                    Tuning::Best
                } else {
                    Tuning::Same
                },
                filter_bits: u32::try_from(whole("filter_bits")?).ok()?,
                memtable_bytes: length("memtable_bytes")?,
                cache_bytes: length("cache_bytes")?,
            },
            shape: Shape {
                num: whole("num")?,
                key_bytes: length("key_bytes")?,
                value_bytes: length("value_bytes")?,
                ratio: value.get("ratio")?.as_f64()?,
                seed: whole("seed")?,
            },
        })
    }
}

/// A row as it is sent to a child: what it needs of it.
pub(crate) fn row_to_json(row: &Row) -> Value {
    json!({
        "work": row.work.name(),
        "threads": row.threads,
        "count": row.count,
        "batch": row.batch,
        "nexts": row.nexts,
        "ordinal": row.ordinal,
    })
}

fn row_from_json(value: &Value) -> Option<Row> {
    let whole = |name: &str| value.get(name)?.as_u64();
    let work = Work::parse(value.get("work")?.as_str()?)?;
    Some(Row {
        label: String::new(),
        name: work.name(),
        work,
        threads: usize::try_from(whole("threads")?).ok()?,
        count: whole("count")?,
        batch: whole("batch")?,
        nexts: whole("nexts")?,
        is_compacted: false,
        is_shown: true,
        ordinal: whole("ordinal")?,
    })
}

/// The whole life of a child: an order, rows, and the end of its input.
///
/// # Errors
/// As the engine says, and if the parent is not there any more.
pub(crate) fn main(
    engines: &impl EngineSet,
    input: &mut (dyn BufRead + Send),
    output: &mut (dyn Write + Send),
    stop: &Stop,
) -> Result<()> {
    // A parent that is killed leaves nobody behind, stopped ones included.
    let killed = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(killed)
        .map_err(|source| Error::io("/proc/self", "ask to end with the parent", source.into()))?;
    let order = read_line(input)?;
    let order = order
        .as_ref()
        .and_then(Order::from_json)
        .ok_or_else(|| Error::invalid_argument("no order on standard input"))?;
    let life = Life {
        order: &order,
        input,
        output,
        stop,
    };
    if order.engine.is_outside() {
        let mut program = DbBench::new(&order)?;
        return life.live(&program.settings()?, |course| program.run(course));
    }
    engines.visit(order.engine, life)
}

struct Life<'a> {
    order: &'a Order,
    input: &'a mut (dyn BufRead + Send),
    output: &'a mut (dyn Write + Send),
    stop: &'a Stop,
}

impl Visitor for Life<'_> {
    type Output = ();

    fn visit<E: Engine>(self) -> Result<()> {
        let engine = E::open(&self.order.setup)?;
        self.live(&engine.settings(), |course| match course.row.work {
            Work::Settle => Ok(settle(course.stop, course.clock)),
            _ => drive::run(&engine, course).map(|driven| Measured::of(&driven)),
        })?;
        engine.close()
    }
}

impl Life<'_> {
    /// Says what the engine was opened with, and lets `run` do each row that comes.
    fn live(
        self,
        settings: &[(String, String)],
        mut run: impl FnMut(&Course<'_>) -> Result<Measured>,
    ) -> Result<()> {
        let settings: Vec<Value> = settings
            .iter()
            .map(|(name, value)| json!([name, value]))
            .collect();
        write_line(self.output, &json!({ "settings": settings }))?;
        let clock = Arc::new(SystemClock::new());
        let mut used = Used::default();
        while let Some(line) = read_line(self.input)? {
            let row = row_from_json(&line)
                .ok_or_else(|| Error::invalid_argument("what came on standard input is no row"))?;
            let course = Course {
                row: &row,
                shape: self.order.shape,
                stop: self.stop,
                clock: &clock,
            };
            let mut measured = run(&course)?;
            let now = Used::now();
            measured.add_cost(
                now.device.since(used.device),
                now.cpu_seconds - used.cpu_seconds,
            );
            used = now;
            measured.dir_bytes = allocated_bytes(&self.order.setup.dir)?;
            if !self.order.engine.is_outside() {
                measured.memory = MemoryBytes::now().unwrap_or_default();
            }
            write_line(self.output, &json!({ "measured": measured.to_json() }))?;
        }
        Ok(())
    }
}

/// What the process has used since it began, with those that it started and waited for. A row is
/// charged with everything since the row before, so that no background work is lost between them.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    device: DeviceBytes,
    cpu_seconds: f64,
}

impl Used {
    fn now() -> Self {
        let own = cpu_seconds().unwrap_or_default();
        Self {
            // The system adds to this account what is in that of a child when it was waited for.
            device: DeviceBytes::now().unwrap_or_default(),
            cpu_seconds: own + children_cpu_seconds().unwrap_or_default(),
        }
    }
}

/// Waits until this process neither computes nor writes; the time until then is what it took.
fn settle(stop: &Stop, clock: &SystemClock) -> Measured {
    let start = clock.monotonic_nanos();
    let mut busy_until = start;
    let mut quiet = 0;
    let bell = Bell::new();
    for _ in 0..WINDOWS_MAX {
        if quiet == QUIET_WINDOWS || stop.is_set() {
            break;
        }
        let device = DeviceBytes::now().unwrap_or_default();
        let cpu = cpu_seconds().unwrap_or_default();
        bell.wait_past(0, Some(WINDOW));
        let written = DeviceBytes::now().unwrap_or_default().since(device).written;
        let used = cpu_seconds().unwrap_or_default() - cpu;
        if written <= QUIET_BYTES && used <= QUIET_CPU_SECONDS {
            quiet += 1;
        } else {
            quiet = 0;
            busy_until = clock.monotonic_nanos();
        }
    }
    let seconds = crate::bench::measure::micros(busy_until - start) / 1e6;
    Measured {
        operations: 1,
        seconds,
        thread_seconds: seconds,
        ..Measured::default()
    }
}

/// Bytes that the files below `dir` take on the disk. Files that go meanwhile count nothing.
fn allocated_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in OsFs.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            // A directory may go as well as a file.
            sum += allocated_bytes(&path).unwrap_or(0);
        } else if let Ok(metadata) = std::fs::symlink_metadata(&path) {
            sum += metadata.blocks() * 512;
        }
    }
    Ok(sum)
}

/// The document in the next line; `None` at the end of the input.
///
/// # Errors
/// If the line holds something else, or nothing can be read.
pub(crate) fn read_line(input: &mut dyn BufRead) -> Result<Option<Value>> {
    let mut line = String::new();
    let length = input
        .read_line(&mut line)
        .map_err(|source| Error::io("pipe", "read", source))?;
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|source| {
        Error::invalid_argument("a line between processes is damaged").with_source(source)
    })
}

/// Writes one document in one line.
///
/// # Errors
/// If nobody reads it.
pub(crate) fn write_line(output: &mut dyn Write, value: &Value) -> Result<()> {
    writeln!(output, "{value}")
        .and_then(|()| output.flush())
        .map_err(|source| Error::io("pipe", "write", source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::compare::fixtures;
    use crate::bench::engine::OwnEngines;
    use crate::scratch::Scratch;

    #[test]
    fn a_life_of_rows() {
        let scratch = Scratch::new("siltstone-test").expect("made");
        let rows = [
            (Work::FillUnique, 250, 2),
            (Work::ReadRandom, 300, 1),
            (Work::ReadMissing, 300, 1),
            (Work::Compact, 1, 1),
            (Work::ReadSeq, 1000, 1),
            (Work::SeekRandom, 50, 1),
        ];
        let order = fixtures::order(EngineName::Siltstone, scratch.path());
        let mut input = vec![order.to_json().to_string()];
        for (work, count, threads) in rows {
            let row = fixtures::row(work, count, threads);
            input.push(row_to_json(&row).to_string());
        }
        let input = input.join("\n");
        let mut output = Vec::new();
        main(
            &OwnEngines,
            &mut input.as_bytes(),
            &mut output,
            &Stop::new(),
        )
        .expect("lived");
        let text = String::from_utf8(output).expect("text");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert!(lines[0]["settings"][0][0] == "version", "{text}");
        let measured: Vec<Measured> = lines[1..]
            .iter()
            .map(|line| Measured::from_json(&line["measured"]).expect("whole"))
            .collect();
        let done: Vec<u64> = measured.iter().map(|m| m.operations).collect();
        // Two threads wrote every key once; the scan ends with the last key.
        assert_eq!(done, [500, 300, 300, 1, 500, 50]);
        let found = |index: usize| measured[index].found.expect("looked").found;
        assert_eq!((found(1), found(2), found(5)), (300, 0, 50));
        assert!(measured[0].dir_bytes > 0);
    }

    #[test]
    fn an_order_that_is_damaged_is_refused() {
        let mut output = Vec::new();
        let error = main(&OwnEngines, &mut &b"{}\n"[..], &mut output, &Stop::new());
        assert!(error.expect_err("no order").to_string().contains("order"));
    }
}
