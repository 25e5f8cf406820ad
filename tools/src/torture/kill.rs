//! Kills a writing process again and again, and after each kill looks whether the database holds
//! what was acknowledged, in order and whole, and nothing else.
//!
//! SIGKILL leaves the page cache alone, so this says nothing about what a power cut takes; it says
//! whether every order of events inside the engine leaves something that recovery puts right.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use base::{Error, ErrorKind};
use indicatif::ProgressBar;

use super::child::{Phase, Task};
use super::failure::{Failure, OrSetup, Outcome, finding};
use super::pause::pause;
use super::stream::THREAD_COUNT;
use super::watchdog::Watchdog;
use crate::interrupt::Stop;
use crate::random::Random;

mod settle;
use settle::Ledger;

/// The longest a child lives.
const LIFE_MILLIS_MAX: u64 = 300;
/// How long a child lives that shall die while it opens the database.
const SHORT_LIFE_MILLIS_MAX: u64 = 80;

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct KillPlan {
    pub(crate) seed: u64,
    pub(crate) rounds: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub(crate) struct KillReport {
    pub(crate) rounds: u64,
    /// By what the child was doing.
    pub(crate) kills: BTreeMap<Phase, u64>,
    /// Children that only opened the database and were done before they were to be killed.
    pub(crate) ended: u64,
    /// Commits that were acknowledged, of all threads.
    pub(crate) acknowledged: u64,
    /// Commits found though their acknowledgement did not get through.
    pub(crate) unheard: u64,
}

impl fmt::Display for KillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: Vec<String> = self
            .kills
            .iter()
            .map(|(phase, count)| format!("{} {count}", phase.name()))
            .collect();
        write!(
            f,
            "{} comparisons, kills {}, {} ended before, {} commits found, {} of them unheard",
            self.rounds,
            kills.join(" "),
            self.ended,
            self.acknowledged,
            self.unheard
        )
    }
}

/// Runs the plan on the database in `dir`, which must be new. `program` is this one, which is its
/// own child.
pub(crate) fn run(
    plan: &KillPlan,
    program: &Path,
    dir: &Path,
    stop: &Stop,
    report: &mut KillReport,
) -> Outcome<()> {
    let watchdog = Watchdog::new(format!(
        "siltstone-torture kill --seed {} --rounds {}",
        plan.seed, plan.rounds
    ));
    let progress = ProgressBar::new(plan.rounds);
    let mut killer = Killer {
        plan,
        program,
        dir,
        ledger: Ledger::new(plan.seed),
        report,
    };
    settle::prepare(dir, plan.seed)?;
    for round in 0..plan.rounds {
        if stop.is_set() {
            break;
        }
        let result = killer.round(round);
        if stop.is_set() {
            // Ctrl-C reaches the child as well; what it made of that is no finding.
            break;
        }
        result.map_err(|failure| match failure {
            Failure::Finding(text) => Failure::Finding(format!("round {round}: {text}")),
            Failure::Setup(error) => Failure::Setup(error),
        })?;
        killer.report.rounds += 1;
        watchdog.step();
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

struct Killer<'a> {
    plan: &'a KillPlan,
    program: &'a Path,
    dir: &'a Path,
    ledger: Ledger,
    report: &'a mut KillReport,
}

/// What a child said before it died.
#[derive(Debug, Default)]
struct Heard {
    /// The last acknowledged commit of each thread.
    acknowledged: [u64; THREAD_COUNT],
    /// The last commit of each thread that somebody saw.
    seen: [u64; THREAD_COUNT],
    phase: Option<Phase>,
    disorder: Option<String>,
}

impl Killer<'_> {
    /// One child that writes, perhaps some that only open, and the comparison.
    fn round(&mut self, round: u64) -> Outcome<()> {
        let mut random = Random::stream(self.plan.seed, &[round]);
        let life = if random.one_in(5) {
            SHORT_LIFE_MILLIS_MAX
        } else {
            LIFE_MILLIS_MAX
        };
        let life = Duration::from_millis(1 + random.below(life));
        let heard = self.child(Task::Write, random.next_u64(), life)?;
        while random.one_in(2) {
            let life = Duration::from_millis(random.below(SHORT_LIFE_MILLIS_MAX));
            self.child(Task::Open, random.next_u64(), life)?;
        }
        self.ledger.compare(self.dir, &heard, random, self.report)
    }

    /// Starts a child, kills it after `life`, and returns what it said.
    fn child(&mut self, task: Task, mood: u64, life: Duration) -> Outcome<Heard> {
        let mut child = self.spawn(task, mood)?;
        let stdout = child.stdout.take().expect("it was asked for");
        let done = self.ledger.done();
        let listener = std::thread::spawn(move || listen(stdout, done));
        pause(life);
        // A child that has ended by itself cannot be killed, which is as good.
        let _ = child.kill();
        let status = child.wait().map_err(|e| system("wait", e)).or_setup()?;
        let mut complaint = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // What cannot be read was not said.
            let _ = stderr.read_to_string(&mut complaint);
        }
        let heard = listener
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
        if let Some(disorder) = heard.disorder {
            return finding(disorder);
        }
        let phase = heard.phase.unwrap_or(Phase::Starting);
        if !is_as_killed(status, phase) {
            return finding(format!(
                "the child ended by itself while {} ({status}): {}",
                phase.name(),
                complaint.trim()
            ));
        }
        if status.success() {
            self.report.ended += 1;
        } else {
            *self.report.kills.entry(phase).or_default() += 1;
        }
        Ok(heard)
    }

    fn spawn(&self, task: Task, mood: u64) -> Outcome<Child> {
        let from: Vec<String> = self
            .ledger
            .done()
            .iter()
            .map(|done| (done + 1).to_string())
            .collect();
        let task = match task {
            Task::Write => "write",
            Task::Open => "open",
        };
        Command::new(self.program)
            .arg("child")
            .arg("--db")
            .arg(self.dir)
            .args(["--seed", &self.plan.seed.to_string()])
            .args(["--mood", &mood.to_string()])
            .args(["--task", task, "--from", &from.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| system("spawn", e))
            .or_setup()
    }
}

/// Whether a child ended as it should: killed by us, or at the end of its task.
fn is_as_killed(status: ExitStatus, phase: Phase) -> bool {
    use std::os::unix::process::ExitStatusExt;

    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL) || (status.success() && phase == Phase::Ended)
}

/// Reads what a child says until it is dead. A last line without an end was cut by the kill.
fn listen(stdout: ChildStdout, done: [u64; THREAD_COUNT]) -> Heard {
    let mut heard = Heard {
        acknowledged: done,
        ..Heard::default()
    };
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return heard,
            Ok(_) => {}
        }
        let Some(whole) = line.strip_suffix('\n') else {
            return heard;
        };
        take_line(whole, &mut heard);
    }
}

fn take_line(line: &str, heard: &mut Heard) {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["phase", name] => heard.phase = Phase::parse(name).or(heard.phase),
        ["ack", thread, number] => {
            let (Ok(thread), Ok(number)) = (thread.parse::<usize>(), number.parse::<u64>()) else {
                heard.disorder = Some(format!("the child said \"{line}\""));
                return;
            };
            let last = &mut heard.acknowledged[thread % THREAD_COUNT];
            if number != *last + 1 {
                heard.disorder = Some(format!(
                    "thread {thread} acknowledged {number} after {last}"
                ));
            }
            *last = number;
        }
        ["found", ..] => heard.disorder = Some(format!("the child {line}")),
        ["saw", ref numbers @ ..] if numbers.len() == THREAD_COUNT => {
            for (last, number) in heard.seen.iter_mut().zip(numbers) {
                match number.parse::<u64>() {
                    Ok(number) => *last = number.max(*last),
                    Err(_) => heard.disorder = Some(format!("the child said \"{line}\"")),
                }
            }
        }
        _ => heard.disorder = Some(format!("the child said \"{line}\"")),
    }
}

fn system(operation: &str, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{operation} of a child failed")).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_must_come_in_order() {
        let mut heard = Heard {
            acknowledged: [4, 0, 0, 0],
            ..Heard::default()
        };
        for line in [
            "phase opening",
            "phase writing",
            "ack 0 5",
            "ack 1 1",
            "ack 0 6",
            "saw 4 2 0 0",
            "saw 7 1 0 0",
        ] {
            take_line(line, &mut heard);
        }
        assert_eq!(heard.acknowledged, [6, 1, 0, 0]);
        assert_eq!(heard.seen, [7, 2, 0, 0]);
        assert_eq!(heard.phase, Some(Phase::Writing));
        assert_eq!(heard.disorder, None);
        take_line("ack 0 8", &mut heard);
        assert!(heard.disorder.is_some());
    }

    #[test]
    fn other_words_are_a_disorder() {
        for line in [
            "ack 0 x",
            "hello",
            "found this",
            "ack 1",
            "saw 1 2 3",
            "saw 1 2 3 x",
        ] {
            let mut heard = Heard::default();
            take_line(line, &mut heard);
            assert!(heard.disorder.is_some(), "{line}");
        }
    }
}
