//! Rounds: one seeded run of a mode each, one after the other until the time is up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base::Error;
use base::clock::{Clock, SystemClock};

use super::failure::{Failure, OrSetup, Outcome};
use super::full::{self, FullPlan};
use super::keyspaces::{self, KeyspacesPlan};
use super::kill::{self, KillPlan, KillReport};
use super::model::{self, ModelPlan};
use super::place::{Keep, Place};
use crate::interrupt::Stop;
use crate::random::{Random, mix};
use crate::say::tell;

/// What can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Model,
    Kill,
    Full,
    Keyspaces,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Model, Self::Kill, Self::Full, Self::Keyspaces];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Kill => "kill",
            Self::Full => "full",
            Self::Keyspaces => "keyspaces",
        }
    }
}

/// Everything that a round follows from.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Model(ModelPlan),
    Kill(KillPlan),
    Full(FullPlan),
    Keyspaces(KeyspacesPlan),
}

/// What became of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// What it did, in a few words.
    Done(String),
    /// Why it could not be done here.
    Skipped(String),
}

impl Plan {
    /// A round of some seconds.
    pub(crate) fn short(mode: Mode, seed: u64) -> Self {
        match mode {
            Mode::Model => {
                let mut random = Random::stream(seed, &[0x005_1de5]);
                Self::Model(ModelPlan {
                    seed,
                    ops: 100_000 + random.below(100_000),
                    keys: 200 + random.below_usize(10_000),
                    reopens: random.below(5),
                })
            }
            Mode::Kill => Self::Kill(KillPlan { seed, rounds: 15 }),
            Mode::Full => Self::Full(FullPlan { seed }),
            Mode::Keyspaces => Self::Keyspaces(KeyspacesPlan {
                seed,
                steps: 20_000,
            }),
        }
    }

    fn mode(&self) -> Mode {
        match self {
            Self::Model(_) => Mode::Model,
            Self::Kill(_) => Mode::Kill,
            Self::Full(_) => Mode::Full,
            Self::Keyspaces(_) => Mode::Keyspaces,
        }
    }

    fn seed(&self) -> u64 {
        match self {
            Self::Model(plan) => plan.seed,
            Self::Kill(plan) => plan.seed,
            Self::Full(plan) => plan.seed,
            Self::Keyspaces(plan) => plan.seed,
        }
    }

    /// The command that does the same again.
    pub(crate) fn replay(&self) -> String {
        let mut command = format!(
            "siltstone-torture {} --seed {}",
            self.mode().name(),
            self.seed()
        );
        let written = match self {
            Self::Model(plan) => write!(
                command,
                " --ops {} --keys {} --reopens {}",
                plan.ops, plan.keys, plan.reopens
            ),
            Self::Kill(plan) => write!(command, " --rounds {}", plan.rounds),
            Self::Full(_) => Ok(()),
            Self::Keyspaces(plan) => write!(command, " --steps {}", plan.steps),
        };
        written.expect("a String takes everything");
        command
    }

    fn run(&self, dir: &Path, stop: &Stop) -> Outcome<Tally> {
        match self {
            Self::Model(plan) => Ok(Tally::Done(model::run(plan, dir, stop)?.to_string())),
            Self::Kill(plan) => {
                let mut report = KillReport::default();
                kill::run(plan, &program()?, dir, stop, &mut report)?;
                Ok(Tally::Done(report.to_string()))
            }
            Self::Full(plan) => full::run(plan, &program()?, dir, stop),
            Self::Keyspaces(plan) => Ok(Tally::Done(keyspaces::run(plan, dir, stop)?.to_string())),
        }
    }
}

/// This program, which is its own child.
fn program() -> Outcome<PathBuf> {
    std::env::current_exe()
        .map_err(|e| Error::io(Path::new("."), "finding this program", e))
        .or_setup()
}

/// When to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After one round of each plan.
    Once,
    /// When so much time has passed, but after one round of each plan at least.
    Minutes(f64),
}

/// A run: whose plans, where, and for how long.
pub(crate) struct Run<'a> {
    pub(crate) seed: u64,
    pub(crate) until: Until,
    /// How many plans make a cycle.
    pub(crate) plan_count: usize,
    /// The plan of a cycle at an index, with the seed of its round.
    pub(crate) plan: &'a dyn Fn(usize, u64) -> Plan,
    pub(crate) keep: Keep,
    pub(crate) stop: &'a Stop,
}

/// What a run did, mode by mode.
#[derive(Debug, Default)]
struct Summary {
    done: [u64; Mode::ALL.len()],
    skipped: [u64; Mode::ALL.len()],
    findings: u64,
}

impl Summary {
    fn line(&self, seconds: u64) -> String {
        let counts: Vec<String> = Mode::ALL
            .iter()
            .filter(|&&mode| self.done[mode as usize] + self.skipped[mode as usize] > 0)
            .map(|&mode| {
                let (done, skipped) = (self.done[mode as usize], self.skipped[mode as usize]);
                match skipped {
                    0 => format!("{} {done}", mode.name()),
                    _ => format!("{} {done} ({skipped} skipped)", mode.name()),
                }
            })
            .collect();
        format!(
            "{} rounds in {seconds} s: {}; {} findings",
            self.done.iter().sum::<u64>(),
            counts.join(", "),
            self.findings
        )
    }
}

impl Run<'_> {
    /// Rounds until the end, the first finding, or Ctrl-C; a line for each, and a summary.
    pub(crate) fn go(&self, place: &mut Place) -> Outcome<()> {
        let clock = SystemClock::new();
        let began = clock.monotonic_micros();
        let mut summary = Summary::default();
        let mut result = Ok(());
        let mut round = 0;
        while result.is_ok() && !self.stop.is_set() && !self.is_over(round, &clock, began) {
            // The first cycle of a run has the seed that was asked for, so that a replay is one.
            let seed = match round / self.plan_count {
                0 => self.seed,
                cycle => mix(self.seed.wrapping_add(cycle as u64)),
            };
            let plan = (self.plan)(round % self.plan_count, seed);
            result = self.round(round, &plan, place, &clock, &mut summary);
            round += 1;
        }
        let seconds = clock.monotonic_micros().saturating_sub(began) / 1_000_000;
        tell(summary.line(seconds));
        result
    }

    fn is_over(&self, round: usize, clock: &SystemClock, began: u64) -> bool {
        if round < self.plan_count {
            return false;
        }
        match self.until {
            Until::Once => true,
            Until::Minutes(minutes) => {
                let micros = clock.monotonic_micros().saturating_sub(began);
                std::time::Duration::from_micros(micros).as_secs_f64() >= minutes * 60.0
            }
        }
    }

    fn round(
        &self,
        round: usize,
        plan: &Plan,
        place: &mut Place,
        clock: &SystemClock,
        summary: &mut Summary,
    ) -> Outcome<()> {
        let mode = plan.mode();
        let began = clock.monotonic_micros();
        let room = place.room(&format!("{}-{round}", mode.name())).or_setup()?;
        let result = plan.run(room.path(), self.stop);
        let tenths = clock.monotonic_micros().saturating_sub(began) / 100_000;
        let head = format!("round {round} {} seed {}", mode.name(), plan.seed());
        let time = format!("{}.{} s", tenths / 10, tenths % 10);
        match result {
            Ok(Tally::Done(line)) => {
                tell(format_args!("{head}: {line}; {time}"));
                summary.done[mode as usize] += 1;
                if matches!(self.until, Until::Minutes(_)) {
                    room.clear();
                }
                Ok(())
            }
            Ok(Tally::Skipped(reason)) => {
                tell(format_args!("{head}: SKIPPED, {reason}"));
                summary.skipped[mode as usize] += 1;
                Ok(())
            }
            Err(failure) => {
                if let Failure::Finding(text) = &failure {
                    summary.findings += 1;
                    tell(format_args!("{head}: FINDING after {time}: {text}"));
                    if self.keep == Keep::Database {
                        tell(format_args!("kept in {}", room.path().display()));
                        place.stay();
                    }
                    tell(format_args!("replay: {}", plan.replay()));
                }
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_names_everything_that_a_plan_follows_from() {
        for mode in Mode::ALL {
            let replay = Plan::short(mode, 77).replay();
            let head = format!("siltstone-torture {} --seed 77", mode.name());
            assert!(replay.starts_with(&head), "{replay}");
        }
    }

    #[test]
    fn what_was_skipped_was_not_done() {
        let mut summary = Summary::default();
        summary.done[Mode::Kill as usize] = 3;
        summary.skipped[Mode::Full as usize] = 1;
        assert_eq!(
            summary.line(9),
            "3 rounds in 9 s: kill 3, full 0 (1 skipped); 0 findings"
        );
    }
}
