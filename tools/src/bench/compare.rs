//! `lsm-bench --engine`: the same operations in the same order on several engines, in turn, and a
//! table of medians and ratios.

use std::io::Write;

use base::fs::{self, FileSystem, OsFs};
use base::{Error, Result};

use super::args::{Args, EngineSettings};
use super::engine::{self, Commit, EngineName, EngineSet, Setup, Tuning};
use super::output::files;
use super::output_failed;
use crate::interrupt::Stop;
use crate::scratch::Scratch;

pub(crate) mod child;
mod db_bench;
mod drive;
#[cfg(test)]
mod fixtures;
mod html;
mod markdown;
mod measured;
mod plan;
mod results;
mod table;
pub(crate) mod turns;

use child::Order;
use drive::Shape;
use measured::{Measured, PERCENTILES};
use plan::{APPENDSYNC, Group, Row};
use results::Results;
use turns::Turns;

/// Filter bits for each key unless --bloom_bits says otherwise.
const FILTER_BITS: u32 = 10;
/// Bytes of a memtable unless --write_buffer_size says otherwise.
const MEMTABLE_BYTES: usize = 64 << 20;
/// Bytes of the block cache unless --cache_size says otherwise.
const CACHE_BYTES: usize = 1 << 30;

/// Runs the comparison that `args` ask for, and writes it to `out`.
///
/// # Errors
/// `InvalidArgument` for engines that are unknown or not built in, and for workloads that cannot be
/// compared; otherwise as the engines say.
pub(crate) fn run(
    args: &Args,
    engines: &impl EngineSet,
    stop: &Stop,
    out: &mut dyn Write,
) -> Result<()> {
    let list = args.engine.as_deref().unwrap_or_default();
    let wanted = engine::parse_list(list)?;
    let missing: Vec<_> = wanted
        .iter()
        .copied()
        .filter(|&e| !engines.has(e) && !e.is_outside())
        .collect();
    if !missing.is_empty() {
        return Err(engine::not_built_in(&missing));
    }
    if wanted.iter().any(|engine| engine.is_outside()) {
        db_bench::find()?;
    }
    let groups = plan::groups(args)?;
    let place = Place::new(args)?;
    let mut comparison = Comparison {
        args,
        stop,
        place,
        results: Results::new(wanted, &groups, args.repeats),
        out,
    };
    for repeat in 0..args.repeats {
        for group in &groups {
            if !stop.is_set() {
                comparison.run_group(group, repeat)?;
            }
        }
    }
    comparison.finish()
}

/// Where the databases lie.
struct Place {
    dir: std::path::PathBuf,
    _scratch: Option<Scratch>,
}

impl Place {
    fn new(args: &Args) -> Result<Self> {
        let Some(dir) = &args.db else {
            let scratch = Scratch::new("lsm-bench")?;
            return Ok(Self {
                dir: scratch.path().to_owned(),
                _scratch: Some(scratch),
            });
        };
        fs::create_dir_all(&OsFs, dir)?;
        if !OsFs.list(dir)?.is_empty() {
            let message = "--db must be an empty directory when engines are compared";
            return Err(Error::invalid_argument(message).with_path(dir));
        }
        Ok(Self {
            dir: dir.clone(),
            _scratch: None,
        })
    }
}

struct Comparison<'a> {
    args: &'a Args,
    stop: &'a Stop,
    place: Place,
    results: Results,
    out: &'a mut dyn Write,
}

impl Comparison<'_> {
    fn say(&mut self, text: &str) -> Result<()> {
        if self.args.json {
            return Ok(());
        }
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .map_err(output_failed)
    }

    /// Runs the rows of `group`, in each row every engine in turn.
    fn run_group(&mut self, group: &Group, repeat: usize) -> Result<()> {
        let mut all: Vec<Turns> = Vec::new();
        for engine in self.engines_of(group, repeat) {
            let turns = Turns::start(self.order(engine, group.commit))?;
            self.results.add_settings(engine, &turns.settings);
            all.push(turns);
        }
        for row in &group.rows {
            for turns in &mut all {
                if self.stop.is_set() {
                    return Ok(());
                }
                if row.is_for(turns.engine()) {
                    let measured = turns.run(row, self.stop)?;
                    if self.stop.is_set() {
                        return Ok(());
                    }
                    self.tell(row, turns.engine(), repeat, &measured)?;
                    self.results.add(row, turns.engine(), measured);
                }
            }
        }
        all.into_iter().try_for_each(Turns::end)
    }

    /// Who takes part: another one begins in each repeat; the yardsticks that nobody asked for
    /// come last, and the driver's cost is measured once.
    fn engines_of(&self, group: &Group, repeat: usize) -> Vec<EngineName> {
        let mut engines = self.results.engines().to_vec();
        let shift = repeat % engines.len();
        engines.rotate_left(shift);
        if repeat == 0 && !engines.contains(&EngineName::Null) {
            engines.push(EngineName::Null);
        }
        if !engines.contains(&EngineName::Raw) {
            engines.push(EngineName::Raw);
        }
        engines.retain(|engine| group.rows.iter().any(|row| row.is_for(*engine)));
        engines
    }

    fn order(&self, engine: EngineName, commit: Commit) -> Order {
        let args = self.args;
        Order {
            engine,
            setup: Setup {
                dir: self.place.dir.join(engine.name()),
                commit,
                tuning: match args.engine_settings {
                    EngineSettings::Same => Tuning::Same,
                    EngineSettings::Best => Tuning::Best,
                },
                filter_bits: u32::try_from(args.bloom_bits).unwrap_or(FILTER_BITS),
                memtable_bytes: args.write_buffer_size.unwrap_or(MEMTABLE_BYTES),
                cache_bytes: usize::try_from(args.cache_size).unwrap_or(CACHE_BYTES),
            },
            shape: Shape {
                num: args.num,
                key_bytes: args.key_size,
                value_bytes: args.value_size,
                ratio: args.compression_ratio,
                seed: args.seed,
            },
        }
    }

    /// The lines of one turn: db_bench's, and what stands beside it.
    fn tell(&mut self, row: &Row, engine: EngineName, repeat: usize, m: &Measured) -> Result<()> {
        if !row.is_shown || (engine == EngineName::Null && row.name == APPENDSYNC) {
            return Ok(());
        }
        let title = format!("-- {}: {}", engine.name(), row.label);
        if self.args.repeats > 1 {
            self.say(&format!(
                "{title} ({} of {})",
                repeat + 1,
                self.args.repeats
            ))?;
        } else {
            self.say(&title)?;
        }
        self.say(&m.line(row.name).to_string())?;
        let micros = PERCENTILES.iter().zip(m.percentile_micros);
        let parts: Vec<_> = micros
            .map(|((name, _), micros)| format!("{name}: {micros:.2}"))
            .collect();
        let beside = m
            .beside_per_sec
            .map(|rate| format!("; {rate:.0} writes/s beside"));
        self.say(&format!(
            "Percentiles: {} max: {:.2}",
            parts.join(" "),
            m.max_micros
        ))?;
        let mebibytes = |bytes| super::line::as_f64(bytes) / 1_048_576.0;
        self.say(&format!(
            "  {:.1} MB written, directory {:.1} MB, memory {:.1} MB ({:.1} MB at most with \
             mappings), {:.2} s of processors{}",
            mebibytes(m.written_bytes),
            mebibytes(m.dir_bytes),
            mebibytes(m.memory.anonymous),
            mebibytes(m.memory.peak),
            m.cpu_seconds,
            beside.unwrap_or_default(),
        ))
    }

    fn finish(mut self) -> Result<()> {
        let table = table::build(&self.results, self.args.preset.is_some());
        let is_interrupted = self.stop.is_set();
        let document = results::document(&self.results, self.args, &table, is_interrupted);
        let page = markdown::page(&self.results, self.args, &table, is_interrupted);
        if self.args.json {
            writeln!(self.out, "{document:#}").map_err(output_failed)?;
        } else {
            self.say("")?;
            self.say(page.trim_end())?;
        }
        for path in self.args.report_files()? {
            let text = match path.extension().and_then(std::ffi::OsStr::to_str) {
                Some("json") => format!("{document:#}\n"),
                Some("html") => html::page(&self.results, self.args, &table, is_interrupted),
                Some("tsv") => table.to_tsv(),
                _ => page.clone(),
            };
            files::replace(&path, &text)?;
            self.say(&format!("report written to {}", path.display()))?;
        }
        Ok(())
    }
}
