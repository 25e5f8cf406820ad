//! `siltstone-torture`: tries to make the engine lose or invent something.
//!
//! `model` runs writers, snapshots and constant compaction against a model in memory; `kill` kills
//! a writing process and looks at what recovery makes of it. Everything follows from one seed,
//! printed first, except how threads interleave and where exactly a kill falls.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base::Error;
use base::fs::{self, FileSystem, OsFs};
use clap::{Parser, Subcommand};

use crate::interrupt::{EXIT_INTERRUPTED, stop_on_ctrl_c};
use crate::scratch::Scratch;

mod child;
mod compare;
mod failure;
mod kill;
mod model;
mod settings;
mod stream;
mod watchdog;
mod world;
mod writer;

use failure::{Failure, OrSetup, Outcome};
use kill::{KillPlan, KillReport};
use model::ModelPlan;
use watchdog::EXIT_FINDING;

const EXIT_FAILED: u8 = 2;

/// Tries to make siltstone lose or invent something.
///
/// Exit code 0 without findings, 1 with one, 2 if the run could not be carried out. On a finding
/// the database stays where it is, for somebody to look into.
#[derive(Debug, Parser)]
#[command(name = "siltstone-torture", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Random puts and deletes from two threads, snapshots compared with a model meanwhile.
    Model {
        /// Puts and deletes in all.
        #[arg(long, default_value_t = 10_000_000)]
        ops: u64,
        /// Where the random numbers start; a random one if absent.
        #[arg(long)]
        seed: Option<u64>,
        /// How many different keys there are.
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..))]
        keys: u32,
        /// How often the database is closed and opened on the way.
        #[arg(long, default_value_t = 3)]
        reopens: u64,
        /// Directory of the database, which must not exist or be empty; a temporary one if absent.
        #[arg(long)]
        db: Option<PathBuf>,
    },
    /// Kills a writing process again and again and compares what is recovered.
    Kill {
        /// How many comparisons.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// Where the random numbers start; a random one if absent.
        #[arg(long)]
        seed: Option<u64>,
        /// Directory of the database, which must not exist or be empty; a temporary one if absent.
        #[arg(long)]
        db: Option<PathBuf>,
    },
    /// The process that `kill` kills.
    #[command(hide = true)]
    Child(child::ChildArgs),
}

/// The whole tool: command line in, exit code out.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        CliCommand::Child(args) => return ExitCode::from(child::main(&args)),
        CliCommand::Model {
            ops,
            seed,
            keys,
            reopens,
            db,
        } => {
            let seed = seed.unwrap_or_else(|| OsFs.random_u64());
            let keys = usize::try_from(keys).unwrap_or(usize::MAX);
            run_model(
                &ModelPlan {
                    seed,
                    ops,
                    keys,
                    reopens,
                },
                db,
            )
        }
        CliCommand::Kill { rounds, seed, db } => {
            let seed = seed.unwrap_or_else(|| OsFs.random_u64());
            run_kill(seed, rounds, db)
        }
    };
    match result {
        Ok(()) if stop_on_ctrl_c().is_set() => ExitCode::from(EXIT_INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Finding(_)) => ExitCode::from(EXIT_FINDING),
        Err(Failure::Setup(error)) => {
            eprintln!("siltstone-torture: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The directory of a run, removed at the end if it is temporary and nothing was found.
struct Place {
    dir: PathBuf,
    scratch: Option<Scratch>,
}

impl Place {
    fn new(db: Option<PathBuf>) -> base::Result<Self> {
        let Some(dir) = db else {
            let scratch = Scratch::new("siltstone-torture")?;
            let dir = scratch.path().join("db");
            return Ok(Self {
                dir,
                scratch: Some(scratch),
            });
        };
        if OsFs.status(&dir)?.is_some() && !OsFs.list(&dir)?.is_empty() {
            return Err(
                Error::invalid_argument("--db names a directory that is not empty").with_path(dir),
            );
        }
        fs::create_dir_all(&OsFs, &dir)?;
        Ok(Self { dir, scratch: None })
    }

    /// Prints a finding and keeps the directory.
    fn found(&mut self, text: &str, replay: &str) {
        println!("FINDING: {text}");
        println!("database kept in {}", self.dir.display());
        println!("replay: {replay}");
        if let Some(scratch) = &mut self.scratch {
            scratch.keep();
        }
    }
}

fn run_model(plan: &ModelPlan, db: Option<PathBuf>) -> Outcome<()> {
    let mut place = Place::new(db).or_setup()?;
    println!(
        "model: seed {}, {} operations, {} keys",
        plan.seed, plan.ops, plan.keys
    );
    let stop = stop_on_ctrl_c();
    match model::run(plan, &place.dir, &stop) {
        Ok(report) => {
            println!(
                "{} snapshots compared, {} of them again later, {} looked at while they were made",
                report.snapshots, report.rechecks, report.probes,
            );
            println!(
                "{} flushes, {} compactions, {} moves, {} openings",
                report.flushes,
                report.compactions,
                report.moves,
                report.reopens + 2,
            );
            println!("{} operations, 0 findings", report.operations);
            Ok(())
        }
        Err(failure) => {
            if let Failure::Finding(text) = &failure {
                let replay = format!(
                    "siltstone-torture model --seed {} --ops {} --keys {} --reopens {}",
                    plan.seed, plan.ops, plan.keys, plan.reopens
                );
                place.found(text, &replay);
                println!("1 finding");
            }
            Err(failure)
        }
    }
}

fn run_kill(seed: u64, rounds: u64, db: Option<PathBuf>) -> Outcome<()> {
    let mut place = Place::new(db).or_setup()?;
    let program = std::env::current_exe()
        .map_err(|e| Error::io(Path::new("."), "finding this program", e))
        .or_setup()?;
    println!("kill: seed {seed}, {rounds} rounds");
    let plan = KillPlan {
        seed,
        rounds,
        program,
    };
    let mut report = KillReport::default();
    let result = kill::run(&plan, &place.dir, &stop_on_ctrl_c(), &mut report);
    let kills: Vec<String> = report
        .kills
        .iter()
        .map(|(phase, count)| format!("{} {count}", phase.name()))
        .collect();
    println!(
        "{} kills by phase: {}",
        report.kills.values().sum::<u64>(),
        kills.join(", ")
    );
    println!("{} recoveries that ended before their kill", report.ended);
    println!(
        "{} commits acknowledged and found, {} found whose acknowledgement was cut off",
        report.acknowledged.saturating_sub(report.unheard),
        report.unheard
    );
    let count = match &result {
        Err(Failure::Finding(text)) => {
            let replay = format!("siltstone-torture kill --seed {seed} --rounds {rounds}");
            place.found(text, &replay);
            1
        }
        _ => 0,
    };
    if !matches!(result, Err(Failure::Setup(_))) {
        println!("{} rounds, {count} findings", report.rounds);
    }
    result
}
