//! Compares what a database shows with what it must show.

use std::ops::Range;

use siltstone::{Cursor, Db, Keyspace, Snapshot};

use super::failure::{OrFinding, Outcome, finding};
use super::world::{Version, World, describe_value, write_value};
use crate::random::Random;

/// What every key of a world must have, by index.
pub(crate) type State = Vec<Version>;

/// What a database or a snapshot of it answers.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Db(&'a Db),
    Snapshot(&'a Snapshot),
    Keyspace(&'a Keyspace),
}

impl Source<'_> {
    fn cursor(self) -> Outcome<Cursor> {
        match self {
            Self::Db(db) => db.cursor(),
            Self::Snapshot(snapshot) => snapshot.cursor(),
            Self::Keyspace(keyspace) => keyspace.cursor(),
        }
        .or_finding("making a cursor")
    }

    fn get(self, key: &[u8]) -> Outcome<Option<siltstone::Slice>> {
        match self {
            Self::Db(db) => db.get(key),
            Self::Snapshot(snapshot) => snapshot.get(key),
            Self::Keyspace(keyspace) => keyspace.get(key),
        }
        .or_finding("get")
    }

    fn multi_get(self, keys: &[&[u8]]) -> Outcome<Vec<Option<siltstone::Slice>>> {
        match self {
            Self::Db(db) => db.multi_get(keys),
            Self::Snapshot(snapshot) => snapshot.multi_get(keys),
            Self::Keyspace(keyspace) => keyspace.multi_get(keys),
        }
        .or_finding("multi_get")
    }
}

/// Which way to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    Forward,
    Backward,
}

/// Walks over everything and compares each entry.
pub(crate) fn check_scan(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    walk: Walk,
) -> Outcome<()> {
    check_part(source, world, state, 0..world.len(), walk)
}

/// Walks over a random part of the keys, entered by a seek.
pub(crate) fn check_random_part(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    random: &mut Random,
) -> Outcome<()> {
    let from = random.below_usize(world.len());
    let until = (from + 1 + random.below_usize(500)).min(world.len());
    let walk = if random.one_in(2) {
        Walk::Forward
    } else {
        Walk::Backward
    };
    check_part(source, world, state, from..until, walk)
}

/// Compares the keys whose places in the order lie in `places`.
fn check_part(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    places: Range<usize>,
    walk: Walk,
) -> Outcome<()> {
    let mut cursor = source.cursor()?;
    let (first, last) = (world.sorted()[places.start], world.sorted()[places.end - 1]);
    let moved = match walk {
        Walk::Forward if places.start == 0 => cursor.seek_to_first(),
        Walk::Forward => cursor.seek(world.key(first)),
        Walk::Backward if places.end == world.len() => cursor.seek_to_last(),
        Walk::Backward => cursor.seek_for_prev(world.key(last)),
    };
    let mut is_valid = moved.or_finding("seeking")?;
    let mut value = Vec::new();
    let live = |index: &&usize| state[**index] != 0;
    let part = &world.sorted()[places.clone()];
    let expected: Box<dyn Iterator<Item = &usize>> = match walk {
        Walk::Forward => Box::new(part.iter().filter(live)),
        Walk::Backward => Box::new(part.iter().rev().filter(live)),
    };
    for &index in expected {
        if !is_valid {
            return finding(format!("{walk:?} scan ends before {}", name(world, index)));
        }
        if cursor.key() != world.key(index) {
            return finding(describe_other_key(world, state, index, &cursor, walk));
        }
        check_value(world, state, index, cursor.value(), &mut value)?;
        let moved = match walk {
            Walk::Forward => cursor.next(),
            Walk::Backward => cursor.prev(),
        };
        is_valid = moved.or_finding("moving a cursor")?;
    }
    let is_beyond = is_valid
        && match walk {
            Walk::Forward => places.end == world.len() || cursor.key() <= world.key(last),
            Walk::Backward => places.start == 0 || cursor.key() >= world.key(first),
        };
    if is_beyond {
        let shown = cursor.key().escape_ascii().to_string();
        return finding(format!(
            "{walk:?} scan shows \"{shown}\", which must not be there"
        ));
    }
    Ok(())
}

fn describe_other_key(
    world: &World,
    state: &[Version],
    expected: usize,
    cursor: &Cursor,
    walk: Walk,
) -> String {
    let shown = cursor.key().escape_ascii().to_string();
    let about = match world.index_of(cursor.key()) {
        None => "a key that nobody wrote".to_owned(),
        Some(index) if state[index] == 0 => {
            format!(
                "key {index}, which must be absent: {}",
                describe_value(cursor.value())
            )
        }
        Some(index) => format!("key {index}"),
    };
    format!(
        "{walk:?} scan must show {} version {} and shows \"{shown}\" ({about})",
        name(world, expected),
        state[expected]
    )
}

fn check_value(
    world: &World,
    state: &[Version],
    index: usize,
    found: &[u8],
    expected: &mut Vec<u8>,
) -> Outcome<()> {
    write_value(index, state[index], expected);
    if found == expected.as_slice() {
        return Ok(());
    }
    finding(format!(
        "{} must have version {} and has {}",
        name(world, index),
        state[index],
        describe_value(found)
    ))
}

/// Compares the point read of one key.
pub(crate) fn check_get(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    index: usize,
) -> Outcome<()> {
    let found = source.get(world.key(index))?;
    check_found(world, state, index, found.as_deref())
}

/// Compares the point reads of several keys in one call.
pub(crate) fn check_multi_get(
    source: Source<'_>,
    world: &World,
    state: &[Version],
    indexes: &[usize],
) -> Outcome<()> {
    let keys: Vec<&[u8]> = indexes.iter().map(|&index| world.key(index)).collect();
    let found = source.multi_get(&keys)?;
    if found.len() != keys.len() {
        return finding(format!(
            "multi_get of {} keys gives {}",
            keys.len(),
            found.len()
        ));
    }
    for (&index, found) in indexes.iter().zip(&found) {
        check_found(world, state, index, found.as_deref())?;
    }
    Ok(())
}

/// Compares what a point read of one key found.
pub(crate) fn check_found(
    world: &World,
    state: &[Version],
    index: usize,
    found: Option<&[u8]>,
) -> Outcome<()> {
    match (found, state[index]) {
        (None, 0) => Ok(()),
        (Some(value), 0) => finding(format!(
            "get of {} must find nothing and finds {}",
            name(world, index),
            describe_value(value)
        )),
        (None, version) => finding(format!(
            "get of {} must find version {version} and finds nothing",
            name(world, index)
        )),
        (Some(value), _) => check_value(world, state, index, value, &mut Vec::new()),
    }
}

/// Compares everything in every way: scans in both directions, and a point read of each key.
pub(crate) fn check_all(source: Source<'_>, world: &World, state: &[Version]) -> Outcome<()> {
    check_scan(source, world, state, Walk::Forward)?;
    check_scan(source, world, state, Walk::Backward)?;
    for index in 0..world.len() {
        check_get(source, world, state, index)?;
    }
    Ok(())
}

fn name(world: &World, index: usize) -> String {
    format!("key {index} \"{}\"", world.key(index).escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::super::failure::Failure;
    use super::*;

    /// A database that holds exactly `state`.
    fn filled(world: &World, state: &[Version]) -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().expect("made");
        let db = Db::open(dir.path()).expect("opened");
        let mut value = Vec::new();
        for (index, &version) in state.iter().enumerate() {
            if version > 0 {
                write_value(index, version, &mut value);
                db.put(world.key(index), &value).expect("written");
            }
        }
        (dir, db)
    }

    #[test]
    fn every_kind_of_difference_is_found_by_every_kind_of_read() {
        let world = World::new(100);
        let state: State = (0..100).map(|index| index % 3).collect();
        let (_dir, db) = filled(&world, &state);
        check_all(Source::Db(&db), &world, &state).expect("all is as it should be");
        // Absent though it should be there, there though it should be absent, another value.
        for (index, version) in [(0, 7), (3, 7), (1, 0), (2, 3), (98, 1)] {
            let mut other = state.clone();
            other[index] = version;
            let source = Source::Db(&db);
            for found in [
                check_scan(source, &world, &other, Walk::Forward),
                check_scan(source, &world, &other, Walk::Backward),
                check_get(source, &world, &other, index),
                check_multi_get(source, &world, &other, &[index]),
            ] {
                assert!(matches!(found, Err(Failure::Finding(_))), "key {index}");
            }
        }
    }

    #[test]
    fn a_part_of_the_keys_is_compared_up_to_its_ends() {
        let world = World::new(50);
        let state: State = vec![1; 50];
        let (_dir, db) = filled(&world, &state);
        let source = Source::Db(&db);
        let mut other = state.clone();
        other[world.sorted()[20]] = 0;
        for walk in [Walk::Forward, Walk::Backward] {
            for (places, is_found) in [(0..20, false), (21..50, false), (10..21, true)] {
                let found = check_part(source, &world, &other, places, walk);
                assert_eq!(found.is_err(), is_found, "{walk:?}");
            }
        }
    }

    #[test]
    fn a_key_that_nobody_wrote_is_found() {
        let world = World::new(20);
        let state: State = vec![1; 20];
        let (_dir, db) = filled(&world, &state);
        db.put("zzz", "").expect("written");
        for walk in [Walk::Forward, Walk::Backward] {
            assert!(
                check_scan(Source::Db(&db), &world, &state, walk).is_err(),
                "{walk:?}"
            );
        }
    }
}
