//! The numbered commits of the kill test. Commit `n` of a thread depends on the seed, the thread
//! and `n` alone, so that the parent knows what a child wrote without being told.

use siltstone::{Durability, WriteBatch};

use super::compare::State;
use super::world::{Version, World, write_value};
use crate::random::Random;

/// How many threads of a child write, each its own stream on its own keys.
pub(crate) const THREAD_COUNT: usize = 4;
/// Keys of all threads together.
pub(crate) const KEY_COUNT: usize = 800;
const OPERATION_COUNT_MAX: u64 = 8;
/// Every so manieth commit waits for the disk.
const DISK_ONE_IN: u64 = 12;

/// One commit of a stream.
#[derive(Debug)]
pub(crate) struct StreamCommit {
    /// In order; a later operation on the same key wins. Version 0 is a delete.
    pub(crate) operations: Vec<(usize, Version)>,
    pub(crate) durability: Durability,
}

/// Commit `number`, counted from 1, of `thread`.
pub(crate) fn commit(seed: u64, thread: usize, number: u64) -> StreamCommit {
    let mut random = Random::stream(seed, &[thread as u64, number]);
    let keys_of_thread = KEY_COUNT / THREAD_COUNT;
    let count = if random.one_in(2) {
        1
    } else {
        2 + random.below(OPERATION_COUNT_MAX - 1)
    };
    let operations = (0..count)
        .map(|place| {
            let index = thread + THREAD_COUNT * random.below_usize(keys_of_thread);
            let is_delete = random.one_in(3);
            let version = number * (OPERATION_COUNT_MAX + 1) + place + 1;
            (index, if is_delete { 0 } else { version })
        })
        .collect();
    let durability = if random.one_in(DISK_ONE_IN) {
        Durability::Disk
    } else {
        Durability::Os
    };
    StreamCommit {
        operations,
        durability,
    }
}

/// Brings `state` from before a commit to after it.
pub(crate) fn apply(commit: &StreamCommit, state: &mut State) {
    for &(index, version) in &commit.operations {
        state[index] = version;
    }
}

/// Fills `batch` with the operations of a commit.
pub(crate) fn fill(commit: &StreamCommit, world: &World, batch: &mut WriteBatch) {
    let mut value = Vec::new();
    batch.clear();
    for &(index, version) in &commit.operations {
        if version == 0 {
            batch.delete(world.key(index));
        } else {
            write_value(index, version, &mut value);
            batch.put(world.key(index), &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_never_share_a_key_and_versions_never_repeat() {
        let mut seen = std::collections::BTreeSet::new();
        for thread in 0..THREAD_COUNT {
            for number in 1..500 {
                for (index, version) in commit(5, thread, number).operations {
                    assert_eq!(index % THREAD_COUNT, thread);
                    assert!(version == 0 || seen.insert((index, version)));
                }
            }
        }
        assert_eq!(commit(5, 0, 3).operations, commit(5, 0, 3).operations);
    }
}
