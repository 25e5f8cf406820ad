//! Random operations over keyspaces that come and go, one after the other, against a model of each.
//!
//! One thread drives and knows at any time what every keyspace must hold; flush and compaction run
//! beside it. Snapshots, handles of dropped keyspaces and read-only opens are kept for a while and
//! must show what they have to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use siltstone::{Db, Durability, ErrorKind, Keyspace, Snapshot, WriteBatch, WriteOptions};
use siltstone::{Error, WriteOutcome};

use super::compare::{
    Source, State, Walk, check_all, check_get, check_multi_get, check_random_part, check_scan,
};
use super::failure::{Failure, OrFinding, Outcome, finding};
use super::rounds::Plan;
use super::settings;
use super::watchdog::Watchdog;
use super::world::{Version, World, write_value};
use crate::interrupt::Stop;
use crate::random::Random;

mod lifecycle;

const KEY_COUNT: usize = 300;
const BATCH_COUNT_MAX: u64 = 10;
/// Snapshots that are kept for a while, with what each keyspace held.
const SHOT_COUNT_MAX: usize = 4;
/// Handles of dropped keyspaces that are kept for a while.
const GHOST_COUNT_MAX: usize = 4;
const DISK_ONE_IN: u64 = 60;

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct KeyspacesPlan {
    pub(crate) seed: u64,
    /// Steps of any kind.
    pub(crate) steps: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
struct KeyspacesReport {
    steps: u64,
    commits: u64,
    across: u64,
    busy: u64,
    created: u64,
    dropped: u64,
    snapshots: u64,
    read_only: u64,
    opens: u64,
}

impl fmt::Display for KeyspacesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} commits, {} of them across, {} busy, {} keyspaces created, {} dropped, \
             {} snapshots, {} openings, {} read-only ones",
            self.steps,
            self.commits,
            self.across,
            self.busy,
            self.created,
            self.dropped,
            self.snapshots,
            self.opens,
            self.read_only
        )
    }
}

/// Runs the plan on the database in `dir`, which must be new.
pub(crate) fn run(plan: &KeyspacesPlan, dir: &Path, stop: &Stop) -> Outcome<impl fmt::Display> {
    let watchdog = Watchdog::new(Plan::Keyspaces(plan.clone()).replay());
    let world = World::new(KEY_COUNT);
    let mut random = Random::stream(plan.seed, &[0x4e1]);
    let mut report = KeyspacesReport::default();
    let mut models = BTreeMap::from([("default".to_owned(), vec![0; KEY_COUNT])]);
    let mut version = 0;
    while report.steps < plan.steps && !stop.is_set() {
        let options = settings::options(random.next_u64());
        let db = options.open(dir).or_finding("opening")?;
        report.opens += 1;
        let session_seed = random.next_u64();
        let mut session = Session::begin(dir, &world, &db, models, version, session_seed)?;
        let step_count = (1 + random.below(4000)).min(plan.steps - report.steps);
        for _ in 0..step_count {
            if stop.is_set() {
                break;
            }
            let step = report.steps;
            session
                .step(&mut report)
                .map_err(|f| about(&f, &format!("step {step}")))?;
            report.steps += 1;
            watchdog.step();
        }
        session.check_everything("before letting go")?;
        (models, version) = session.end();
        if random.one_in(2) {
            db.close().or_finding("closing")?;
        }
        watchdog.step();
    }
    lifecycle::final_check(dir, &world, &models, &mut random)?;
    Ok(report)
}

fn about(failure: &Failure, when: &str) -> Failure {
    match failure {
        Failure::Finding(text) => Failure::Finding(format!("{when}: {text}")),
        Failure::Setup(error) => Failure::Setup(error.clone()),
    }
}

/// A keyspace and what it must hold.
struct Space {
    handle: Keyspace,
    state: State,
}

/// A snapshot, and what each keyspace held then: handles too, for some are dropped later.
struct Shot {
    snapshot: Snapshot,
    spaces: Vec<(Keyspace, State)>,
}

/// The time between two openings.
struct Session<'a> {
    dir: &'a Path,
    world: &'a World,
    db: &'a Db,
    spaces: BTreeMap<String, Space>,
    shots: Vec<Shot>,
    ghosts: Vec<Keyspace>,
    version: Version,
    random: Random,
    value: Vec<u8>,
}

impl<'a> Session<'a> {
    /// Finds every keyspace again, with what it held.
    fn begin(
        dir: &'a Path,
        world: &'a World,
        db: &'a Db,
        models: BTreeMap<String, State>,
        version: Version,
        seed: u64,
    ) -> Outcome<Self> {
        lifecycle::check_names(db, models.keys())?;
        let mut spaces = BTreeMap::new();
        for (name, state) in models {
            let handle = db
                .keyspace(&name)
                .or_finding("a keyspace that must be there")?;
            spaces.insert(name, Space { handle, state });
        }
        let session = Self {
            dir,
            world,
            db,
            spaces,
            shots: Vec::new(),
            ghosts: Vec::new(),
            version,
            random: Random::new(seed),
            value: Vec::new(),
        };
        session.check_everything("after opening")?;
        Ok(session)
    }

    fn end(self) -> (BTreeMap<String, State>, Version) {
        let spaces = self.spaces.into_iter();
        (
            spaces.map(|(name, space)| (name, space.state)).collect(),
            self.version,
        )
    }

    fn check_everything(&self, when: &str) -> Outcome<()> {
        lifecycle::check_names(self.db, self.spaces.keys())?;
        for (name, space) in &self.spaces {
            check_all(Source::Keyspace(&space.handle), self.world, &space.state)
                .map_err(|f| about(&f, &format!("{when}, keyspace {}", brief(name))))?;
        }
        let state = &self.spaces["default"].state;
        check_all(Source::Db(self.db), self.world, state).map_err(|f| about(&f, when))
    }

    fn step(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        match self.random.below(1000) {
            0..450 => self.write_one(report),
            450..700 => self.write_across(report),
            700..900 => self.read(),
            900..925 => self.take_shot(report),
            925..955 => self.look_at_shot(),
            955..962 => self.create(report),
            962..968 => self.drop_one(report),
            968..978 => self.ask_ghost(),
            978..990 => self.disturb(),
            990..992 => self.open_beside(report),
            992..994 => self.check_everything("meanwhile"),
            _ => self.write_same_value(report),
        }
    }

    fn pick(&mut self) -> String {
        let at = self.random.below_usize(self.spaces.len());
        let name = self.spaces.keys().nth(at);
        name.expect("the index is below the count").clone()
    }

    fn options(&mut self) -> WriteOptions {
        let options = WriteOptions::new();
        let options = if self.random.one_in(DISK_ONE_IN) {
            options.durability(Durability::Disk)
        } else {
            options
        };
        match self.random.below(6) {
            0 => options.no_wait(),
            1 => options.deadline(std::time::Duration::from_micros(self.random.below(2000))),
            _ => options,
        }
    }

    /// A put or delete through a handle.
    fn write_one(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let name = self.pick();
        let index = self.random.below_usize(KEY_COUNT);
        let options = self.options();
        let handle = &self.spaces[&name].handle;
        let key = self.world.key(index);
        let (version, result) = if self.random.one_in(3) {
            (0, handle.delete_with(key, &options))
        } else {
            self.version += 1;
            write_value(index, self.version, &mut self.value);
            (self.version, handle.put_with(key, &self.value, &options))
        };
        self.finish(result.map(drop), &[(name, index, version)], report)
    }

    /// A batch over several keyspaces.
    fn write_across(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let mut operations = Vec::new();
        for _ in 0..=self.random.below(BATCH_COUNT_MAX) {
            let name = self.pick();
            let index = self.random.below_usize(KEY_COUNT);
            let is_delete = self.random.one_in(3);
            self.version += u64::from(!is_delete);
            operations.push((name, index, if is_delete { 0 } else { self.version }));
        }
        self.write_batch(&operations, report)
    }

    /// The same value to the same key of every keyspace.
    fn write_same_value(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let index = self.random.below_usize(KEY_COUNT);
        self.version += 1;
        let names = self.spaces.keys().cloned();
        let operations: Vec<_> = names.map(|name| (name, index, self.version)).collect();
        self.write_batch(&operations, report)
    }

    fn write_batch(
        &mut self,
        operations: &[(String, usize, Version)],
        report: &mut KeyspacesReport,
    ) -> Outcome<()> {
        let mut batch = WriteBatch::new();
        for (name, index, version) in operations {
            let handle = &self.spaces[name].handle;
            let key = self.world.key(*index);
            if *version == 0 {
                batch.delete_in(handle, key);
            } else {
                write_value(*index, *version, &mut self.value);
                batch.put_in(handle, key, &self.value);
            }
        }
        let options = self.options();
        report.across += 1;
        let result = self.db.write_with(&batch, &options);
        self.finish(result.map(drop), operations, report)
    }

    /// Takes a write into the model. A busy one must not have left anything.
    fn finish(
        &mut self,
        result: siltstone::Result<()>,
        operations: &[(String, usize, Version)],
        report: &mut KeyspacesReport,
    ) -> Outcome<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::Busy => {
                report.busy += 1;
                check_rejected(&error)?;
                return self.check_keys(operations);
            }
            result => result.or_finding("a write")?,
        }
        report.commits += 1;
        for (name, index, version) in operations {
            if let Some(space) = self.spaces.get_mut(name) {
                space.state[*index] = *version;
            }
        }
        if self.random.one_in(8) {
            self.check_keys(operations)?;
        }
        Ok(())
    }

    fn check_keys(&self, operations: &[(String, usize, Version)]) -> Outcome<()> {
        for (name, index, _) in operations {
            let space = &self.spaces[name];
            check_get(
                Source::Keyspace(&space.handle),
                self.world,
                &space.state,
                *index,
            )
            .map_err(|f| about(&f, &format!("keyspace {}", brief(name))))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Outcome<()> {
        let name = self.pick();
        let mut random = Random::new(self.random.next_u64());
        let space = &self.spaces[&name];
        let source = Source::Keyspace(&space.handle);
        read_some(source, self.world, &space.state, &mut random)
            .map_err(|f| about(&f, &format!("keyspace {}", brief(&name))))
    }

    fn take_shot(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let snapshot = self.db.snapshot().or_finding("a snapshot")?;
        let spaces = self.spaces.values();
        let spaces = spaces.map(|space| (space.handle.clone(), space.state.clone()));
        let spaces = spaces.collect();
        self.shots.push(Shot { snapshot, spaces });
        report.snapshots += 1;
        if self.shots.len() > SHOT_COUNT_MAX {
            let at = self.random.below_usize(self.shots.len());
            self.shots.swap_remove(at);
        }
        Ok(())
    }

    /// A snapshot shows every keyspace as it was, also those that were dropped since.
    fn look_at_shot(&mut self) -> Outcome<()> {
        if self.shots.is_empty() {
            return Ok(());
        }
        let at = self.random.below_usize(self.shots.len());
        let shot = &self.shots[at];
        for (handle, state) in &shot.spaces {
            let past = shot.snapshot.keyspace(handle);
            let past = past.or_finding("a keyspace of a snapshot")?;
            read_some(Source::Snapshot(&past), self.world, state, &mut self.random)
                .map_err(|f| about(&f, &format!("snapshot of {}", brief(handle.name()))))?;
        }
        Ok(())
    }

    /// Asks for what happens by itself anyway, at another moment.
    fn disturb(&mut self) -> Outcome<()> {
        let name = self.pick();
        let handle = &self.spaces[&name].handle;
        match self.random.below(4) {
            0 => handle.flush().or_finding("flush"),
            1 => handle.compact_range(..).or_finding("compact_range"),
            2 => self.db.sync().or_finding("sync"),
            _ => self.db.flush().or_finding("flush of the default keyspace"),
        }
    }
}

/// Some reads of a source, of one kind or another.
fn read_some(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    random: &mut Random,
) -> Outcome<()> {
    match random.below(8) {
        0 => check_scan(source, world, state, Walk::Forward),
        1 => check_scan(source, world, state, Walk::Backward),
        2 | 3 => check_random_part(source, world, state, random),
        4 => {
            let indexes: Vec<usize> = (0..8).map(|_| random.below_usize(world.len())).collect();
            check_multi_get(source, world, state, &indexes)
        }
        _ => check_get(source, world, state, random.below_usize(world.len())),
    }
}

fn check_rejected(error: &Error) -> Outcome<()> {
    if error.outcome() == Some(WriteOutcome::Rejected) {
        return Ok(());
    }
    finding(format!(
        "a refused write is {:?} rather than rejected: {error:?}",
        error.outcome()
    ))
}

/// A name as messages show it: some are as long as names may be.
fn brief(name: &str) -> String {
    name.chars().take(12).collect()
}
