//! The process that is killed: writes numbered commits and says on standard output, one line each,
//! what was acknowledged and what it is doing.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use siltstone::{Db, WriteBatch, WriteOptions};

use super::failure::{Failure, OrFinding, Outcome};
use super::pause::pause;
use super::settings;
use super::stream::{self, KEY_COUNT, THREAD_COUNT};
use super::world::World;
use crate::random::Random;

/// Commits of each thread between two openings, at most.
const SESSION_COMMITS_MAX: u64 = 4000;

/// What the child is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChildArgs {
    /// Directory of the database.
    #[arg(long)]
    pub(crate) db: PathBuf,
    /// Of the streams.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Of everything that is not in the streams: options, pauses, flushes.
    #[arg(long = "mood")]
    pub(crate) mood: u64,
    /// What to do.
    #[arg(long, value_enum)]
    pub(crate) task: Task,
    /// The next commit of each thread.
    #[arg(long, value_delimiter = ',')]
    pub(crate) from: Vec<u64>,
}

/// What a child does until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Opens, writes, closes, and so on for ever.
    Write,
    /// Only opens, and ends.
    Open,
}

/// Where a child is, for the count of kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Starting,
    Opening,
    Writing,
    Flushing,
    Compacting,
    Closing,
    Ended,
}

impl Phase {
    pub(crate) const ALL: [Self; 7] = [
        Self::Starting,
        Self::Opening,
        Self::Writing,
        Self::Flushing,
        Self::Compacting,
        Self::Closing,
        Self::Ended,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Opening => "opening",
            Self::Writing => "writing",
            Self::Flushing => "flushing",
            Self::Compacting => "compacting",
            Self::Closing => "closing",
            Self::Ended => "ended",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// Prints one line at once. A parent that is gone ends the child.
pub(crate) fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let told = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    if told.is_err() {
        std::process::exit(0);
    }
}

fn tell_phase(phase: Phase) {
    tell(&format!("phase {}\n", phase.name()));
}

/// Does what it is told, until it is killed or something fails.
pub(crate) fn run(args: &ChildArgs) -> Outcome<()> {
    let world = World::new(KEY_COUNT);
    let mut random = Random::new(args.mood);
    let mut next: Vec<u64> = args.from.clone();
    next.resize(THREAD_COUNT, 1);
    loop {
        tell_phase(Phase::Opening);
        let db = settings::options(random.next_u64())
            .open(&args.db)
            .or_finding("opening")?;
        if args.task == Task::Write {
            session(args.seed, &world, &db, &mut random, &mut next)?;
        }
        tell_phase(Phase::Closing);
        if random.one_in(2) {
            db.close().or_finding("closing")?;
        }
        drop(db);
        if args.task == Task::Open {
            tell_phase(Phase::Ended);
            return Ok(());
        }
    }
}

/// The time between two openings: every thread writes on, the first one flushes and compacts.
fn session(
    seed: u64,
    world: &World,
    db: &Db,
    random: &mut Random,
    next: &mut [u64],
) -> Outcome<()> {
    tell_phase(Phase::Writing);
    let count = 1 + random.below(SESSION_COMMITS_MAX);
    let mood = random.next_u64();
    std::thread::scope(|scope| {
        let writers: Vec<_> = next
            .iter_mut()
            .enumerate()
            .map(|(thread, next)| scope.spawn(move || write(seed, world, db, thread, next, count)))
            .collect();
        let mut result = Ok(());
        let mut mood = Random::new(mood);
        while result.is_ok() && writers.iter().any(|writer| !writer.is_finished()) {
            result = disturb(db, &mut mood);
        }
        for writer in writers {
            let joined = writer
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e));
            result = result.and(joined);
        }
        result
    })
}

fn write(
    seed: u64,
    world: &World,
    db: &Db,
    thread: usize,
    next: &mut u64,
    count: u64,
) -> Outcome<()> {
    let mut batch = WriteBatch::new();
    for number in *next..*next + count {
        let commit = stream::commit(seed, thread, number);
        let options = WriteOptions::new().durability(commit.durability);
        stream::fill(&commit, world, &mut batch);
        db.write_with(&batch, &options)
            .or_finding(&format!("commit {number} of thread {thread}"))?;
        tell(&format!("ack {thread} {number}\n"));
    }
    *next += count;
    Ok(())
}

fn disturb(db: &Db, random: &mut Random) -> Outcome<()> {
    pause(Duration::from_millis(random.below(12)));
    match random.below(6) {
        0 => {
            tell_phase(Phase::Flushing);
            db.flush().or_finding("flush")?;
        }
        1 => {
            tell_phase(Phase::Compacting);
            db.compact_range(..).or_finding("compact_range")?;
        }
        2 => db.sync().or_finding("sync")?,
        _ => {}
    }
    tell_phase(Phase::Writing);
    Ok(())
}

/// The whole child: 0 if it ended by itself, 1 with a finding on standard error.
pub(crate) fn main(args: &ChildArgs) -> u8 {
    match run(args) {
        Ok(()) => 0,
        Err(Failure::Finding(text)) => {
            eprintln!("{text}");
            1
        }
        Err(Failure::Setup(error)) => {
            eprintln!("{error}");
            2
        }
    }
}
