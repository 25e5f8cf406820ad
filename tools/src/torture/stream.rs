//! The numbered commits of the kill test. Commit `n` of a thread depends on the seed, the thread
//! and `n` alone, so that the parent knows what a child wrote without being told.
//!
//! There are keyspaces that all threads write to, each its own keys, and for each thread one that
//! it creates and drops again and again. Most commits go to several keyspaces, and some are heavy.

use siltstone::Durability;

use super::compare::State;
use super::world::Version;
use crate::random::Random;

/// How many threads of a child write, each its own stream on its own keys.
pub(crate) const THREAD_COUNT: usize = 4;
/// Keys of all threads together, in each keyspace.
pub(crate) const KEY_COUNT: usize = 400;
/// The keyspaces that are always there.
pub(crate) const SHARED_NAMES: [&str; 3] = ["default", "left", "right"];
/// Of a thread's own keyspace the slot is this plus the number of the thread.
const OWN_SLOT: usize = SHARED_NAMES.len();
pub(crate) const SLOT_COUNT: usize = SHARED_NAMES.len() + THREAD_COUNT;
/// The keyspace in which each thread notes how far it and the others have come.
pub(crate) const WITNESS_NAME: &str = "witness";

const OPERATION_COUNT_MAX: u64 = 8;
/// The thread of which every so manieth commit is heavy; of the others few are.
const PORTER: usize = 0;
const PORTER_HEAVY_ONE_IN: u64 = 3;
const HEAVY_ONE_IN: u64 = 40;
/// Ballast is a kilobyte at least and a megabyte at most, and of every order between.
const BALLAST_BYTES_MIN: usize = 1 << 10;
const BALLAST_DOUBLINGS_MAX: usize = 10;
/// Every so manieth commit waits for the disk.
const DISK_ONE_IN: u64 = 12;
/// Of so many commits of a thread, one creates its keyspace and one drops it.
const LIFE_CYCLE: u64 = 150;
const CREATED_AT: u64 = 30;
const DROPPED_AT: u64 = 110;

/// What each keyspace holds, by slot; `None` for one that is not there.
pub(crate) type Shelves = Vec<Option<State>>;

/// A put, or a delete if the version is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamOperation {
    pub(crate) slot: usize,
    pub(crate) index: usize,
    pub(crate) version: Version,
}

/// What a commit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Creates the thread's own keyspace.
    Create,
    Drop,
    /// In order; a later operation on the same key wins.
    Write(Vec<StreamOperation>),
}

/// One commit of a stream.
#[derive(Debug)]
pub(crate) struct StreamCommit {
    pub(crate) deed: Deed,
    pub(crate) durability: Durability,
    /// How many bytes of ballast it carries beside its operations.
    pub(crate) ballast_bytes: usize,
}

/// Where a thread's own keyspace is among the [`Shelves`].
pub(crate) const fn own_slot(thread: usize) -> usize {
    OWN_SLOT + thread
}

/// What the keyspace of a slot is called.
pub(crate) fn slot_name(slot: usize) -> String {
    match SHARED_NAMES.get(slot) {
        Some(name) => (*name).to_owned(),
        None => format!("own-{}", slot - OWN_SLOT),
    }
}

/// Nothing but the keyspaces that are always there.
pub(crate) fn empty_shelves() -> Shelves {
    (0..SLOT_COUNT)
        .map(|slot| (slot < OWN_SLOT).then(|| vec![0; KEY_COUNT]))
        .collect()
}

/// Whether a thread's own keyspace is there before its commit `number`.
pub(crate) fn has_own(number: u64) -> bool {
    (CREATED_AT + 1..=DROPPED_AT).contains(&(number % LIFE_CYCLE))
}

/// The last commit up to `number` that wrote something, or 0.
pub(crate) fn last_write(number: u64) -> u64 {
    match number % LIFE_CYCLE {
        CREATED_AT | DROPPED_AT => number - 1,
        _ => number,
    }
}

/// Commit `number`, counted from 1, of `thread`.
pub(crate) fn commit(seed: u64, thread: usize, number: u64) -> StreamCommit {
    let mut random = Random::stream(seed, &[thread as u64, number]);
    let durability = if random.one_in(DISK_ONE_IN) {
        Durability::Disk
    } else {
        Durability::Os
    };
    let deed = match number % LIFE_CYCLE {
        CREATED_AT => Deed::Create,
        DROPPED_AT => Deed::Drop,
        _ => Deed::Write(operations(&mut random, thread, number)),
    };
    StreamCommit {
        deed,
        durability,
        ballast_bytes: ballast_bytes(seed, thread, number),
    }
}

/// How heavy a commit is; 0 for most.
pub(crate) fn ballast_bytes(seed: u64, thread: usize, number: u64) -> usize {
    let mut random = Random::stream(seed, &[thread as u64, number, 0xba11]);
    let one_in = match thread {
        PORTER => PORTER_HEAVY_ONE_IN,
        _ => HEAVY_ONE_IN,
    };
    if last_write(number) != number || !random.one_in(one_in) {
        return 0;
    }
    BALLAST_BYTES_MIN << random.below_usize(BALLAST_DOUBLINGS_MAX + 1)
}

fn operations(random: &mut Random, thread: usize, number: u64) -> Vec<StreamOperation> {
    let mut slots: Vec<usize> = (0..OWN_SLOT).collect();
    if has_own(number) {
        slots.push(own_slot(thread));
    }
    let keys_of_thread = KEY_COUNT / THREAD_COUNT;
    let mut index = || thread + THREAD_COUNT * random.below_usize(keys_of_thread);
    let first_version = number * (OPERATION_COUNT_MAX + 1);
    if number.is_multiple_of(4) {
        // The same value in every keyspace: half of it would be seen at a glance.
        let (index, version) = (index(), first_version + 1);
        let same = |slot| StreamOperation {
            slot,
            index,
            version,
        };
        return slots.into_iter().map(same).collect();
    }
    let count = if random.one_in(2) {
        1
    } else {
        2 + random.below(OPERATION_COUNT_MAX - 1)
    };
    (0..count)
        .map(|place| {
            let index = thread + THREAD_COUNT * random.below_usize(keys_of_thread);
            let slot = slots[random.below_usize(slots.len())];
            let is_delete = random.one_in(3);
            let version = if is_delete {
                0
            } else {
                first_version + place + 1
            };
            StreamOperation {
                slot,
                index,
                version,
            }
        })
        .collect()
}

/// Brings `shelves` from before a commit of `thread` to after it.
pub(crate) fn apply(commit: &StreamCommit, thread: usize, shelves: &mut Shelves) {
    match &commit.deed {
        Deed::Create => shelves[own_slot(thread)] = Some(vec![0; KEY_COUNT]),
        Deed::Drop => shelves[own_slot(thread)] = None,
        Deed::Write(operations) => {
            for operation in operations {
                let shelf = shelves[operation.slot].as_mut();
                shelf.expect("a stream writes where a keyspace is")[operation.index] =
                    operation.version;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_never_share_a_key_and_only_write_what_is_there() {
        for thread in 0..THREAD_COUNT {
            let mut shelves = empty_shelves();
            for number in 1..1000 {
                assert_eq!(
                    shelves[own_slot(thread)].is_some(),
                    has_own(number),
                    "{number}"
                );
                let commit = commit(5, thread, number);
                if let Deed::Write(operations) = &commit.deed {
                    assert!(operations.iter().all(|o| o.index % THREAD_COUNT == thread));
                    assert_eq!(last_write(number), number);
                } else {
                    assert_eq!(last_write(number), number - 1);
                }
                apply(&commit, thread, &mut shelves);
            }
        }
        assert_eq!(commit(5, 0, 3).deed, commit(5, 0, 3).deed);
    }
}
