//! The process that is killed: writes numbered commits and says on standard output, one line each,
//! what was acknowledged, what was seen, and what it is doing.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use siltstone::{Db, Keyspace, WriteBatch, WriteOptions};

use super::ballast;
use super::failure::{Failure, OrFinding, Outcome};
use super::pause::pause;
use super::settings;
use super::stream::{self, Deed, KEY_COUNT, StreamOperation, THREAD_COUNT, has_own};
use super::witness;
use super::world::{World, write_value};
use crate::interrupt::Stop;
use crate::random::Random;
use crate::say::say;

/// Commits of each thread between two openings, at most.
const SESSION_COMMITS_MAX: u64 = 4000;
const LARGE_SEGMENT_BYTES: u64 = 16 << 20;
/// The longest that nobody looks at what is to be seen.
const LOOK_PAUSE_MICROS_MAX: u64 = 300;

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
        let mut options = settings::options(random.next_u64());
        if random.one_in(2) {
            // A heavy commit needs no segment of its own, and lighter ones follow in the same.
            options = options.log_segment_bytes(LARGE_SEGMENT_BYTES);
        }
        let db = options.open(&args.db).or_finding("opening")?;
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
            .map(|(thread, next)| {
                scope.spawn(move || at_once(write(seed, world, db, thread, next, count)))
            })
            .collect();
        let mut result = Ok(());
        let mut mood = Random::new(mood);
        let (stop, watched) = (Stop::new(), Random::new(mood.next_u64()));
        let until = stop.clone();
        let watcher = scope.spawn(move || at_once(watch(seed, db, watched, &until)));
        while result.is_ok() && writers.iter().any(|writer| !writer.is_finished()) {
            result = disturb(db, &mut mood);
        }
        stop.set();
        let watched = watcher
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
        result = result.and(watched);
        for writer in writers {
            let joined = writer
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e));
            result = result.and(joined);
        }
        result
    })
}

/// Says what was found before anything else happens: the kill may come before the other threads
/// are done.
fn at_once<T>(result: Outcome<T>) -> Outcome<T> {
    if let Err(failure) = &result {
        tell(&format!(
            "found {}\n",
            failure.to_string().replace('\n', " ")
        ));
    }
    result
}

/// Looks at how far the threads have come, and says so: what was seen once must be found.
fn watch(seed: u64, db: &Db, mut random: Random, stop: &Stop) -> Outcome<()> {
    let find = |name| db.keyspace(name).or_finding("what is always there");
    let (notes, ballast) = (find(stream::WITNESS_NAME)?, find(ballast::NAME)?);
    while !stop.is_set() {
        let seen = if random.one_in(2) {
            let snapshot = db.snapshot().or_finding("a snapshot")?;
            let past = |keyspace| snapshot.keyspace(keyspace).or_finding("of a snapshot");
            witness::look_at(&past(&notes)?, &past(&ballast)?, seed)?
        } else {
            witness::look(&notes)?
        };
        let numbers: Vec<String> = seen.iter().map(u64::to_string).collect();
        tell(&format!("saw {}\n", numbers.join(" ")));
        pause(Duration::from_micros(random.below(LOOK_PAUSE_MICROS_MAX)));
    }
    Ok(())
}

/// The handles with which one thread writes.
struct Hands {
    shared: Vec<Keyspace>,
    own: Option<Keyspace>,
    witness: Keyspace,
    ballast: Keyspace,
}

impl Hands {
    /// Finds what must be there before the commit `number` of `thread`.
    fn find(db: &Db, thread: usize, number: u64) -> Outcome<Self> {
        let find = |name: &str| {
            db.keyspace(name)
                .or_finding(&format!("finding the keyspace {name}"))
        };
        let shared = stream::SHARED_NAMES.iter().map(|name| find(name));
        let own = stream::slot_name(stream::own_slot(thread));
        Ok(Self {
            shared: shared.collect::<Outcome<_>>()?,
            own: has_own(number).then(|| find(&own)).transpose()?,
            witness: find(stream::WITNESS_NAME)?,
            ballast: find(ballast::NAME)?,
        })
    }

    fn slot(&self, slot: usize) -> &Keyspace {
        let own = self.own.as_ref();
        let found = self.shared.get(slot).or(own);
        found.expect("a stream writes where a keyspace is")
    }
}

fn write(
    seed: u64,
    world: &World,
    db: &Db,
    thread: usize,
    next: &mut u64,
    count: u64,
) -> Outcome<()> {
    let mut hands = Hands::find(db, thread, *next)?;
    let own_name = stream::slot_name(stream::own_slot(thread));
    for number in *next..*next + count {
        let commit = stream::commit(seed, thread, number);
        match commit.deed {
            Deed::Create => {
                let options = settings::keyspace_options(seed ^ number);
                let created = db.create_keyspace(&own_name, &options);
                hands.own = Some(created.or_finding("creating a keyspace")?);
            }
            Deed::Drop => {
                hands.own = None;
                db.drop_keyspace(&own_name)
                    .or_finding("dropping a keyspace")?;
            }
            Deed::Write(operations) => {
                let mut batch = fill(&operations, world, &hands);
                let seen = witness::look(&hands.witness)?;
                batch.put_in(
                    &hands.witness,
                    witness::key(thread),
                    witness::value(number, seen),
                );
                if commit.ballast_bytes > 0 {
                    let value = ballast::value(number, commit.ballast_bytes);
                    batch.put_in(&hands.ballast, witness::key(thread), value);
                }
                let options = WriteOptions::new().durability(commit.durability);
                db.write_with(&batch, &options)
                    .or_finding(&format!("commit {number} of thread {thread}"))?;
            }
        }
        tell(&format!("ack {thread} {number}\n"));
    }
    *next += count;
    Ok(())
}

fn fill(operations: &[StreamOperation], world: &World, hands: &Hands) -> WriteBatch {
    let mut value = Vec::new();
    let mut batch = WriteBatch::new();
    for operation in operations {
        let key = world.key(operation.index);
        let keyspace = hands.slot(operation.slot);
        if operation.version == 0 {
            batch.delete_in(keyspace, key);
        } else {
            write_value(operation.index, operation.version, &mut value);
            batch.put_in(keyspace, key, &value);
        }
    }
    batch
}

/// Flushes, compacts or syncs something, after a moment.
fn disturb(db: &Db, random: &mut Random) -> Outcome<()> {
    pause(Duration::from_millis(random.below(12)));
    let names = db.keyspaces().or_finding("listing keyspaces")?;
    let name = &names[random.below_usize(names.len())];
    // Its thread may drop it meanwhile.
    let Some(keyspace) = unless_gone("a keyspace", db.keyspace(name))? else {
        return Ok(());
    };
    match random.below(6) {
        0 => {
            tell_phase(Phase::Flushing);
            unless_gone("flush", keyspace.flush())?;
        }
        1 => {
            tell_phase(Phase::Compacting);
            unless_gone("compact_range", keyspace.compact_range(..))?;
        }
        2 => db.sync().or_finding("sync")?,
        _ => {}
    }
    tell_phase(Phase::Writing);
    Ok(())
}

fn unless_gone<T>(what: &str, result: siltstone::Result<T>) -> Outcome<Option<T>> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        result => result.or_finding(what).map(Some),
    }
}

/// The whole child: 0 if it ended by itself, 1 with a finding on standard error.
pub(crate) fn main(args: &ChildArgs) -> u8 {
    match run(args) {
        Ok(()) => 0,
        Err(Failure::Finding(text)) => {
            say(text);
            1
        }
        Err(Failure::Setup(error)) => {
            say(error);
            2
        }
    }
}
