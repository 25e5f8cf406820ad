//! The keyspaces of the model, and what each must hold.

use siltstone::{Db, Keyspace, Snapshot};

use super::super::compare::{Source, State, check_all};
use super::super::failure::{OrFinding, Outcome, finding};
use super::super::settings;
use super::super::world::World;
use super::{WRITER_COUNT, about};

/// The keyspaces that are always there; every writer has its own keys in each.
const SHARED_NAMES: [&str; 3] = ["default", "east", "west"];
pub(crate) const SHARED_COUNT: usize = SHARED_NAMES.len();
/// For each writer there is one more, which it creates and drops.
pub(crate) const SLOT_COUNT: usize = SHARED_COUNT + WRITER_COUNT;

/// The keyspace that only this writer writes to.
pub(crate) const fn own_slot(writer: usize) -> usize {
    SHARED_COUNT + writer
}

pub(crate) fn slot_name(slot: usize) -> String {
    match SHARED_NAMES.get(slot) {
        Some(name) => (*name).to_owned(),
        None => format!("own-{}", slot - SHARED_COUNT),
    }
}

/// What each keyspace holds, by slot; `None` for one that is not there.
#[derive(Clone, Debug)]
pub(crate) struct Shelves(pub(crate) Vec<Option<State>>);

/// Handles on what is there, by slot.
pub(crate) type Hands = Vec<Option<Keyspace>>;

impl Shelves {
    /// Only the keyspaces that are always there, all empty.
    pub(super) fn new(world: &World) -> Self {
        let shelf = |slot| (slot < SHARED_COUNT).then(|| vec![0; world.len()]);
        Self((0..SLOT_COUNT).map(shelf).collect())
    }

    /// A keyspace that is there.
    pub(crate) fn at(&self, slot: usize) -> &State {
        self.0[slot].as_ref().expect("the keyspace is there")
    }

    /// As [`Self::at`].
    pub(crate) fn at_mut(&mut self, slot: usize) -> &mut State {
        self.0[slot].as_mut().expect("the keyspace is there")
    }

    /// Handles on all keyspaces, of which there must be these and no others.
    pub(super) fn find(&self, db: &Db) -> Outcome<Hands> {
        let mut expected: Vec<String> = (0..SLOT_COUNT)
            .filter(|&slot| self.0[slot].is_some())
            .map(slot_name)
            .collect();
        expected.sort();
        let found = db.keyspaces().or_finding("listing keyspaces")?;
        if found != expected {
            return finding(format!(
                "there are the keyspaces {found:?} rather than {expected:?}"
            ));
        }
        let find = |slot: usize| {
            let there = self.0[slot].as_ref();
            let found = there.map(|_| db.keyspace(&slot_name(slot)));
            found.transpose().or_finding("a keyspace that is listed")
        };
        (0..SLOT_COUNT).map(find).collect()
    }

    /// Compares everything with the database.
    pub(super) fn check(&self, db: &Db, world: &World, when: &str) -> Outcome<()> {
        for (slot, hand) in self.find(db)?.iter().enumerate() {
            if let Some(keyspace) = hand {
                check_all(Source::Keyspace(keyspace), world, self.at(slot))
                    .map_err(|f| about(&f, &format!("{when}, keyspace {}", slot_name(slot))))?;
            }
        }
        check_all(Source::Db(db), world, self.at(0)).map_err(|f| about(&f, when))
    }
}

/// Makes the keyspaces that are always there.
pub(super) fn prepare(db: &Db, seed: u64) -> Outcome<()> {
    for (number, name) in SHARED_NAMES.iter().enumerate().skip(1) {
        let options = settings::keyspace_options(seed.wrapping_add(number as u64));
        db.create_keyspace(name, &options)
            .or_finding("creating a keyspace")?;
    }
    Ok(())
}

/// The same moment in each keyspace of which there is a handle; `None` too where the keyspace had
/// been dropped by then.
pub(super) fn past(snapshot: &Snapshot, hands: &Hands) -> Outcome<Vec<Option<Snapshot>>> {
    let look = |hand: &Option<Keyspace>| {
        let Some(keyspace) = hand else {
            return Ok(None);
        };
        match snapshot.keyspace(keyspace) {
            Err(error) if error.is_not_found() => Ok(None),
            result => result.or_finding("a keyspace of a snapshot").map(Some),
        }
    };
    hands.iter().map(look).collect()
}
