//! `siltstone-torture`: tries to make the engine lose or invent something.
//!
//! `model` runs writers, snapshots and constant compaction against a model in memory; `kill` kills
//! a writing process and looks at what recovery makes of it; `full` lets the disk run full;
//! `keyspaces` lets keyspaces come and go; `all` goes round them. Everything follows from one seed,
//! printed first, except how threads interleave and where exactly a kill falls.

use std::path::PathBuf;
use std::process::ExitCode;

use base::fs::{FileSystem, OsFs};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::interrupt::{EXIT_INTERRUPTED, stop_on_ctrl_c};
use crate::say::{say, tell};

mod ballast;
mod child;
mod compare;
pub(crate) mod failure;
mod full;
mod keyspaces;
mod kill;
mod model;
pub(crate) mod mount;
mod pause;
mod place;
mod rounds;
mod settings;
mod stream;
mod watchdog;
mod witness;
mod world;
mod writer;

use failure::{Failure, OrSetup, Outcome};
use full::FullPlan;
use keyspaces::KeyspacesPlan;
use kill::KillPlan;
use model::ModelPlan;
use place::{Keep, Place};
use rounds::{Mode, Plan, Run, Until};
use watchdog::EXIT_FINDING;

const EXIT_FAILED: u8 = 2;

/// Tries to make siltstone lose or invent something.
///
/// Exit code 0 without findings, 1 with one, 2 if the run could not be carried out, 130 if Ctrl-C
/// ended it. A finding comes with the command that repeats it. Nothing stays on disk without
/// --keep.
#[derive(Debug, Parser)]
#[command(name = "siltstone-torture", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

/// The command line, for completions and the manual page.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// What every mode is told.
#[derive(Debug, Args)]
struct Common {
    /// Where the random numbers start; a random one if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Goes on with other seeds until so many minutes have passed; fractions are allowed.
    #[arg(long, value_parser = parse_minutes)]
    minutes: Option<f64>,
    /// Directory for the databases, which must not exist or be empty; a temporary one if absent.
    #[arg(long)]
    db: Option<PathBuf>,
    /// Leaves the last database, and that of a finding, where it is.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Every mode in turn, in rounds of some seconds.
    All {
        #[command(flatten)]
        common: Common,
    },
    /// Random puts and deletes from two threads, snapshots compared with a model meanwhile.
    Model {
        #[command(flatten)]
        common: Common,
        /// Puts and deletes of a round. By default 10,000,000, or few in rounds of some seconds if
        /// --minutes are given.
        #[arg(long)]
        ops: Option<u64>,
        /// How many different keys there are.
        #[arg(long, value_parser = clap::value_parser!(u32).range(100..))]
        keys: Option<u32>,
        /// How often the database is closed and opened on the way.
        #[arg(long)]
        reopens: Option<u64>,
    },
    /// Kills a writing process again and again and compares what is recovered.
    Kill {
        #[command(flatten)]
        common: Common,
        /// How many comparisons a round has. By default 200, or few if --minutes are given.
        #[arg(long)]
        rounds: Option<u64>,
    },
    /// Fills a small file system of its own, which needs the right to mount one.
    Full {
        #[command(flatten)]
        common: Common,
    },
    /// Random operations over keyspaces that come and go, compared with a model of each.
    Keyspaces {
        #[command(flatten)]
        common: Common,
        /// Steps of a round.
        #[arg(long, default_value_t = 20_000)]
        steps: u64,
    },
    /// The process that `kill` kills.
    #[command(hide = true)]
    Child(child::ChildArgs),
    /// The process that `full` kills.
    #[command(hide = true)]
    Filler(full::FillerArgs),
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes.is_finite() && minutes >= 0.0 => Ok(minutes),
        _ => Err("minutes are a number from 0 on".to_owned()),
    }
}

/// The whole tool: command line in, exit code out.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        CliCommand::Child(args) => return ExitCode::from(child::main(&args)),
        CliCommand::Filler(args) => return ExitCode::from(full::filler_main(&args)),
        CliCommand::All { common } => go("all", common, Mode::ALL.len(), &|index, seed| {
            Plan::short(Mode::ALL[index], seed)
        }),
        CliCommand::Model {
            common,
            ops,
            keys,
            reopens,
        } => {
            let is_long = common.minutes.is_none();
            go("model", common, 1, &|_, seed| {
                model_plan(seed, is_long, (ops, keys, reopens))
            })
        }
        CliCommand::Kill { common, rounds } => {
            let rounds = rounds.unwrap_or(if common.minutes.is_some() { 15 } else { 200 });
            go("kill", common, 1, &|_, seed| {
                Plan::Kill(KillPlan { seed, rounds })
            })
        }
        CliCommand::Full { common } => {
            go("full", common, 1, &|_, seed| Plan::Full(FullPlan { seed }))
        }
        CliCommand::Keyspaces { common, steps } => go("keyspaces", common, 1, &|_, seed| {
            Plan::Keyspaces(KeyspacesPlan { seed, steps })
        }),
    };
    match result {
        Ok(()) if stop_on_ctrl_c().is_set() => ExitCode::from(EXIT_INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Finding(_)) => ExitCode::from(EXIT_FINDING),
        Err(Failure::Setup(error)) => {
            say(format_args!("siltstone-torture: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// A model of the sizes given; of the usual ones where none are.
fn model_plan(
    seed: u64,
    is_long: bool,
    (ops, keys, reopens): (Option<u64>, Option<u32>, Option<u64>),
) -> Plan {
    let usual = match Plan::short(Mode::Model, seed) {
        Plan::Model(plan) if !is_long => plan,
        _ => ModelPlan {
            seed,
            ops: 10_000_000,
            keys: 20_000,
            reopens: 3,
        },
    };
    Plan::Model(ModelPlan {
        seed,
        ops: ops.unwrap_or(usual.ops),
        keys: keys.map_or(usual.keys, |keys| {
            usize::try_from(keys).unwrap_or(usize::MAX)
        }),
        reopens: reopens.unwrap_or(usual.reopens),
    })
}

fn go(
    name: &str,
    common: Common,
    plan_count: usize,
    plan: &dyn Fn(usize, u64) -> Plan,
) -> Outcome<()> {
    let keep = if common.keep {
        Keep::Database
    } else {
        Keep::Nothing
    };
    let seed = common.seed.unwrap_or_else(|| OsFs.random_u64());
    let stop = stop_on_ctrl_c();
    let mut place = Place::new(common.db, keep).or_setup()?;
    tell(format_args!("{name}: seed {seed}"));
    let run = Run {
        seed,
        until: common.minutes.map_or(Until::Once, Until::Minutes),
        plan_count,
        plan,
        keep,
        stop: &stop,
    };
    run.go(&mut place)
}
