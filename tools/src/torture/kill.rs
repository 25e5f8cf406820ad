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
use siltstone::Db;

use super::child::{Phase, Task};
use super::compare::{Source, State, Walk, check_all, check_scan};
use super::failure::{Failure, OrFinding, OrSetup, Outcome, finding};
use super::pause::pause;
use super::settings;
use super::stream::{self, KEY_COUNT, THREAD_COUNT};
use super::watchdog::Watchdog;
use super::world::{Version, World, describe_value, write_value};
use crate::interrupt::Stop;
use crate::random::Random;

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
        world: World::new(KEY_COUNT),
        state: vec![0; KEY_COUNT],
        done: [0; THREAD_COUNT],
        report,
    };
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
    world: World,
    /// What must be there, of all threads.
    state: State,
    /// The last commit of each thread that is in `state`.
    done: [u64; THREAD_COUNT],
    report: &'a mut KillReport,
}

/// What a child said before it died.
#[derive(Debug, Default)]
struct Heard {
    /// The last acknowledged commit of each thread.
    acknowledged: [u64; THREAD_COUNT],
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
        self.compare(&heard, random)
    }

    /// Starts a child, kills it after `life`, and returns what it said.
    fn child(&mut self, task: Task, mood: u64, life: Duration) -> Outcome<Heard> {
        let mut child = self.spawn(task, mood)?;
        let stdout = child.stdout.take().expect("it was asked for");
        let done = self.done;
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
            .done
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

    /// Opens the database and compares it with what was heard.
    fn compare(&mut self, heard: &Heard, mut random: Random) -> Outcome<()> {
        let options = settings::options(random.next_u64());
        let db = options
            .open(self.dir)
            .or_finding("opening after the kill")?;
        let shown = self.read_all(&db)?;
        for thread in 0..THREAD_COUNT {
            self.settle(thread, heard.acknowledged[thread], &shown)?;
        }
        check_all(Source::Db(&db), &self.world, &self.state)?;
        if random.one_in(4) {
            db.compact_range(..)
                .or_finding("compacting after the kill")?;
            check_scan(Source::Db(&db), &self.world, &self.state, Walk::Forward).map_err(
                |failure| match failure {
                    Failure::Finding(text) => {
                        Failure::Finding(format!("after a full compaction: {text}"))
                    }
                    Failure::Setup(error) => Failure::Setup(error),
                },
            )?;
        }
        if random.one_in(2) {
            db.close().or_finding("closing after the comparison")?;
        }
        drop(db);
        Ok(())
    }

    /// Everything the database shows, by the index of the key.
    fn read_all(&self, db: &Db) -> Outcome<Vec<Option<Vec<u8>>>> {
        let mut shown = vec![None; self.world.len()];
        let mut cursor = db.cursor().or_finding("making a cursor")?;
        let mut is_valid = cursor.seek_to_first().or_finding("seeking")?;
        while is_valid {
            let Some(index) = self.world.index_of(cursor.key()) else {
                let key = cursor.key().escape_ascii().to_string();
                return finding(format!("there is a key that nobody wrote: \"{key}\""));
            };
            shown[index] = Some(cursor.value().to_vec());
            is_valid = cursor.next().or_finding("moving a cursor")?;
        }
        Ok(shown)
    }

    /// Finds out after which commit of `thread` the database is: the last acknowledged one, or the
    /// one after it, which was under way.
    fn settle(
        &mut self,
        thread: usize,
        acknowledged: u64,
        shown: &[Option<Vec<u8>>],
    ) -> Outcome<()> {
        let before = self.state.clone();
        self.advance(thread, self.done[thread] + 1, acknowledged);
        let first = self.difference(thread, shown);
        if let Some(first) = first {
            self.advance(thread, acknowledged + 1, acknowledged + 1);
            if let Some(second) = self.difference(thread, shown) {
                let diagnosis = self.diagnose(thread, before, acknowledged, shown);
                return finding(format!(
                    "thread {thread}: commits up to {acknowledged} were acknowledged.\n  \
                     Not the state after {acknowledged}: {first}\n  \
                     Not the state after {}: {second}\n  {diagnosis}",
                    acknowledged + 1
                ));
            }
            self.report.unheard += 1;
            self.done[thread] = acknowledged + 1;
        } else {
            self.done[thread] = acknowledged;
        }
        Ok(())
    }

    /// Applies the commits `from..=upto` of a thread to the state.
    fn advance(&mut self, thread: usize, from: u64, upto: u64) {
        for number in from..=upto {
            stream::apply(
                &stream::commit(self.plan.seed, thread, number),
                &mut self.state,
            );
            self.report.acknowledged += 1;
        }
    }

    /// The first key of a thread that is not as the state has it.
    fn difference(&self, thread: usize, shown: &[Option<Vec<u8>>]) -> Option<String> {
        first_difference(&self.world, &self.state, thread, shown)
    }

    /// Whether the database is in the state after an earlier commit.
    fn diagnose(
        &self,
        thread: usize,
        before: State,
        acknowledged: u64,
        shown: &[Option<Vec<u8>>],
    ) -> String {
        let mut state = before;
        for number in self.done[thread]..=acknowledged {
            if number > self.done[thread] {
                stream::apply(&stream::commit(self.plan.seed, thread, number), &mut state);
            }
            if first_difference(&self.world, &state, thread, shown).is_none() {
                let lost = acknowledged - number;
                return format!("It is the state after {number}: {lost} commits are lost.");
            }
        }
        "It is the state after no commit since the last comparison.".to_owned()
    }
}

fn first_difference(
    world: &World,
    state: &[Version],
    thread: usize,
    shown: &[Option<Vec<u8>>],
) -> Option<String> {
    let mut expected = Vec::new();
    for index in (thread..world.len()).step_by(THREAD_COUNT) {
        let version = state[index];
        let found = match (&shown[index], version) {
            (None, 0) => continue,
            (None, _) => "nothing".to_owned(),
            (Some(value), 0) => describe_value(value),
            (Some(value), version) => {
                write_value(index, version, &mut expected);
                if *value == expected {
                    continue;
                }
                describe_value(value)
            }
        };
        return Some(match version {
            0 => format!("key {index} must be absent and has {found}"),
            _ => format!("key {index} must have version {version} and has {found}"),
        });
    }
    None
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
        ] {
            take_line(line, &mut heard);
        }
        assert_eq!(heard.acknowledged, [6, 1, 0, 0]);
        assert_eq!(heard.phase, Some(Phase::Writing));
        assert_eq!(heard.disorder, None);
        take_line("ack 0 8", &mut heard);
        assert!(heard.disorder.is_some());
    }

    #[test]
    fn other_words_are_a_disorder() {
        for line in ["ack 0 x", "hello", "ack 1"] {
            let mut heard = Heard::default();
            take_line(line, &mut heard);
            assert!(heard.disorder.is_some(), "{line}");
        }
    }

    #[test]
    fn a_hole_and_half_a_batch_are_seen() {
        let world = World::new(KEY_COUNT);
        let mut state = vec![0; KEY_COUNT];
        let commits: Vec<_> = (1..=60)
            .map(|number| stream::commit(9, 0, number))
            .collect();
        for commit in &commits {
            stream::apply(commit, &mut state);
        }
        let mut shown: Vec<Option<Vec<u8>>> = state
            .iter()
            .enumerate()
            .map(|(index, &version)| {
                (version > 0).then(|| {
                    let mut value = Vec::new();
                    write_value(index, version, &mut value);
                    value
                })
            })
            .collect();
        assert_eq!(first_difference(&world, &state, 0, &shown), None);
        let there = shown
            .iter()
            .position(Option::is_some)
            .expect("something was put");
        shown[there] = None;
        assert!(first_difference(&world, &state, 0, &shown).is_some());
        assert_eq!(first_difference(&world, &state, 1, &shown), None);
    }
}
