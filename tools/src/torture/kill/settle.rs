//! What must be in the database after a kill: all that was acknowledged, and of what was under way
//! each commit whole or not at all.

use std::path::Path;

use siltstone::{Db, Keyspace};

use super::super::ballast;
use super::super::compare::{Source, check_all};
use super::super::failure::{Failure, OrFinding, Outcome, finding};
use super::super::settings;
use super::super::stream::{self, KEY_COUNT, SHARED_NAMES, SLOT_COUNT, Shelves, THREAD_COUNT};
use super::super::witness::{self, Seen};
use super::super::world::{World, describe_value, write_value};
use super::{Heard, KillReport};
use crate::random::Random;

/// What a keyspace shows, by index of the key.
type Shelf = Vec<Option<Vec<u8>>>;

/// What a database shows.
#[derive(Clone)]
struct Shown {
    shelves: Vec<Option<Shelf>>,
    /// The last commit that each thread noted. A commit that changes nothing, such as the delete
    /// of an absent key, is told by this alone.
    notes: Seen,
}

/// Makes the keyspaces that are always there.
pub(super) fn prepare(dir: &Path, seed: u64) -> Outcome<()> {
    let db = settings::options(seed).open(dir).or_finding("creating")?;
    for name in SHARED_NAMES.iter().skip(1).chain([&stream::WITNESS_NAME]) {
        db.create_keyspace(name, &settings::keyspace_options(seed))
            .or_finding("creating a keyspace")?;
    }
    db.create_keyspace(ballast::NAME, &ballast::keyspace_options())
        .or_finding("creating the keyspace of the ballast")?;
    Ok(())
}

/// What is known of the streams, from one comparison to the next.
pub(super) struct Ledger {
    seed: u64,
    world: World,
    /// What must be there, of all threads.
    shelves: Shelves,
    /// The last commit of each thread that is in `shelves`.
    done: Seen,
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            world: World::new(KEY_COUNT),
            shelves: stream::empty_shelves(),
            done: [0; THREAD_COUNT],
        }
    }

    pub(super) fn done(&self) -> Seen {
        self.done
    }

    /// Opens the database and compares it with what was heard.
    pub(super) fn compare(
        &mut self,
        dir: &Path,
        heard: &Heard,
        mut random: Random,
        report: &mut KillReport,
    ) -> Outcome<()> {
        let options = settings::options(random.next_u64());
        let db = options.open(dir).or_finding("opening after the kill")?;
        let notes = db.keyspace(stream::WITNESS_NAME);
        let notes = notes.or_finding("finding the notes")?;
        let shown = self.read_all(&db, witness::look(&notes)?)?;
        for (thread, &acknowledged) in heard.acknowledged.iter().enumerate() {
            self.settle(thread, acknowledged, &shown, report)?;
        }
        self.check_seen(&heard.seen)?;
        witness::check(&notes, &self.done)?;
        // The handles would keep the database open.
        drop(notes);
        self.check_ballast(&db)?;
        self.check(&db, "")?;
        if random.one_in(3) {
            for (_, keyspace) in keyspaces(&db)? {
                keyspace
                    .compact_range(..)
                    .or_finding("compacting after the kill")?;
            }
            self.check(&db, "after a full compaction: ")?;
            if random.one_in(2) {
                db.close().or_finding("closing after the compaction")?;
            }
            drop(db);
            let options = settings::options(random.next_u64());
            let db = options.open(dir).or_finding("opening once more")?;
            return self.check(&db, "after a full compaction and an opening: ");
        }
        if random.one_in(2) {
            db.close().or_finding("closing after the comparison")?;
        }
        Ok(())
    }

    /// What somebody saw was in the log with all before it: a kill takes none of it.
    fn check_seen(&self, seen: &Seen) -> Outcome<()> {
        for (thread, (&seen, &done)) in seen.iter().zip(&self.done).enumerate() {
            if seen > done {
                return finding(format!(
                    "commit {seen} of thread {thread} was seen before the kill, and of the thread \
                     there are only {done}"
                ));
            }
        }
        Ok(())
    }

    fn check_ballast(&self, db: &Db) -> Outcome<()> {
        let keyspace = db.keyspace(ballast::NAME).or_finding("the ballast")?;
        for (thread, &done) in self.done.iter().enumerate() {
            let found = keyspace.get(witness::key(thread));
            let found = found.or_finding("reading ballast")?;
            ballast::check(found.as_ref(), self.seed, thread, done)?;
        }
        Ok(())
    }

    /// Compares everything in every way with what must be there.
    fn check(&self, db: &Db, when: &str) -> Outcome<()> {
        let keyspaces = keyspaces(db)?;
        let found: Vec<usize> = keyspaces.iter().map(|&(slot, _)| slot).collect();
        let expected: Vec<usize> = (0..SLOT_COUNT)
            .filter(|&slot| self.shelves[slot].is_some())
            .collect();
        if found != expected {
            return finding(format!(
                "{when}the keyspaces in the slots {found:?} are there"
            ));
        }
        for (slot, keyspace) in keyspaces {
            let state = self.shelves[slot].as_ref().expect("as expected");
            check_all(Source::Keyspace(&keyspace), &self.world, state).map_err(|f| match f {
                Failure::Finding(text) => {
                    Failure::Finding(format!("{when}{}: {text}", stream::slot_name(slot)))
                }
                Failure::Setup(error) => Failure::Setup(error),
            })?;
        }
        Ok(())
    }

    /// Everything the database shows.
    fn read_all(&self, db: &Db, notes: Seen) -> Outcome<Shown> {
        let mut shelves = vec![None; SLOT_COUNT];
        for (slot, keyspace) in keyspaces(db)? {
            shelves[slot] = Some(self.read_keyspace(&keyspace)?);
        }
        Ok(Shown { shelves, notes })
    }

    fn read_keyspace(&self, keyspace: &Keyspace) -> Outcome<Shelf> {
        let mut shown = vec![None; self.world.len()];
        let mut cursor = keyspace.cursor().or_finding("making a cursor")?;
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
        shown: &Shown,
        report: &mut KillReport,
    ) -> Outcome<()> {
        let before = self.shelves.clone();
        let first = self.done[thread] + 1;
        self.advance(thread, first, acknowledged);
        report.acknowledged += acknowledged + 1 - first;
        self.done[thread] = acknowledged;
        let Some(without) = self.difference(thread, shown) else {
            return Ok(());
        };
        self.advance(thread, acknowledged + 1, acknowledged + 1);
        report.unheard += 1;
        report.acknowledged += 1;
        self.done[thread] = acknowledged + 1;
        let Some(with) = self.difference(thread, shown) else {
            return Ok(());
        };
        self.shelves = before;
        let diagnosis = self.diagnose(thread, first, acknowledged, shown);
        finding(format!(
            "thread {thread}: commits up to {acknowledged} were acknowledged.\n  Not the state \
             after {acknowledged}: {without}\n  Not the state after {}: {with}\n  {diagnosis}",
            acknowledged + 1
        ))
    }

    /// Applies the commits `from..=upto` of a thread.
    fn advance(&mut self, thread: usize, from: u64, upto: u64) {
        for number in from..=upto {
            let commit = stream::commit(self.seed, thread, number);
            stream::apply(&commit, thread, &mut self.shelves);
        }
    }

    /// Whether the database is in the state after an earlier commit.
    fn diagnose(&mut self, thread: usize, first: u64, acknowledged: u64, shown: &Shown) -> String {
        for number in first - 1..=acknowledged {
            if number >= first {
                self.advance(thread, number, number);
            }
            self.done[thread] = number;
            if self.difference(thread, shown).is_none() {
                let lost = acknowledged - number;
                return format!("It is the state after {number}: {lost} commits are lost.");
            }
        }
        "It is the state after no commit since the last comparison.".to_owned()
    }

    /// The first thing of a thread that is not as it must be.
    fn difference(&self, thread: usize, shown: &Shown) -> Option<String> {
        let own = stream::own_slot(thread);
        let difference = (0..SHARED_NAMES.len())
            .chain([own])
            .find_map(|slot| self.difference_in(slot, thread, shown));
        let (noted, last) = (shown.notes[thread], stream::last_write(self.done[thread]));
        difference
            .or_else(|| (noted != last).then(|| format!("the note is {noted} and must be {last}")))
    }

    fn difference_in(&self, slot: usize, thread: usize, shown: &Shown) -> Option<String> {
        let name = stream::slot_name(slot);
        let (state, shown) = match (&self.shelves[slot], &shown.shelves[slot]) {
            (None, None) => return None,
            (None, Some(_)) => return Some(format!("the keyspace {name} must not be there")),
            (Some(_), None) => return Some(format!("the keyspace {name} is not there")),
            (Some(state), Some(shown)) => (state, shown),
        };
        let mut expected = Vec::new();
        for index in (thread..self.world.len()).step_by(THREAD_COUNT) {
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
            let key = format!("key {index} of {name}");
            return Some(match version {
                0 => format!("{key} must be absent and has {found}"),
                _ => format!("{key} must have version {version} and has {found}"),
            });
        }
        None
    }
}

/// The keyspaces that are there, by slot, without those of the notes and the ballast.
fn keyspaces(db: &Db) -> Outcome<Vec<(usize, Keyspace)>> {
    let names = db.keyspaces().or_finding("listing keyspaces")?;
    let known: Vec<String> = (0..SLOT_COUNT).map(stream::slot_name).collect();
    let mut found = Vec::new();
    let beside = [stream::WITNESS_NAME, ballast::NAME];
    for name in names.iter().filter(|name| !beside.contains(&name.as_str())) {
        let Some(slot) = known.iter().position(|known| known == name) else {
            return finding(format!("there is a keyspace that nobody created: {name}"));
        };
        let keyspace = db.keyspace(name).or_finding("a keyspace that is listed")?;
        found.push((slot, keyspace));
    }
    found.sort_by_key(|&(slot, _)| slot);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::super::stream::Deed;
    use super::*;

    /// What a database shows in which exactly these commits of thread 0 were made.
    fn shown(seed: u64, numbers: impl Iterator<Item = u64>) -> Shown {
        let mut ledger = Ledger::new(seed);
        let mut notes = [0; THREAD_COUNT];
        for number in numbers {
            ledger.advance(0, number, number);
            notes[0] = stream::last_write(number);
        }
        let value = |(index, &version): (usize, &u64)| {
            (version > 0).then(|| {
                let mut value = Vec::new();
                write_value(index, version, &mut value);
                value
            })
        };
        let shelves = ledger.shelves.iter();
        let shelves = shelves
            .map(|shelf| Some(shelf.as_ref()?.iter().enumerate().map(value).collect()))
            .collect();
        Shown { shelves, notes }
    }

    fn settle(seed: u64, acknowledged: u64, shown: &Shown) -> Outcome<u64> {
        let mut ledger = Ledger::new(seed);
        ledger.settle(0, acknowledged, shown, &mut KillReport::default())?;
        Ok(ledger.done[0])
    }

    #[test]
    fn acknowledged_is_in_recovered_is_in_submitted() {
        for acknowledged in [60, 29, 30, 109, 110, 400] {
            for recovered in [acknowledged, acknowledged + 1] {
                let settled = settle(9, acknowledged, &shown(9, 1..=recovered));
                assert_eq!(settled.expect("as it should be"), recovered);
            }
            for wrong in [acknowledged - 1, acknowledged + 2] {
                let settled = settle(9, acknowledged, &shown(9, 1..=wrong));
                assert!(settled.is_err(), "{wrong} for {acknowledged}");
            }
        }
    }

    #[test]
    fn a_hole_half_a_batch_and_a_keyspace_that_is_back_are_seen() {
        // 58 writes, and 60 writes the same to all keyspaces.
        let hole = (1..=60).filter(|&number| number != 58);
        assert!(settle(9, 60, &shown(9, hole)).is_err());
        let Deed::Write(operations) = stream::commit(9, 0, 60).deed else {
            panic!("60 is neither a create nor a drop");
        };
        let mut half = shown(9, 1..=60);
        let first = operations[0];
        half.shelves[first.slot].as_mut().expect("there")[first.index] = None;
        assert!(settle(9, 60, &half).is_err());
        let mut back = shown(9, 1..=115);
        settle(9, 115, &back).expect("as it should be");
        back.shelves[stream::own_slot(0)] = Some(vec![None; KEY_COUNT]);
        assert!(settle(9, 115, &back).is_err());
    }
}
