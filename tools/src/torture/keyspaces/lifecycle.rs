//! Keyspaces that come and go under the keyspaces mode, and who else looks at them.

use std::collections::BTreeMap;
use std::path::Path;

use siltstone::{Db, ErrorKind, WriteBatch};

use super::super::compare::{Source, State, check_all};
use super::super::failure::{OrFinding, Outcome, finding};
use super::super::settings;
use super::super::world::World;
use super::{
    GHOST_COUNT_MAX, KEY_COUNT, KeyspacesReport, Session, Space, about, brief, check_rejected,
};
use crate::random::Random;

/// How many names are in use, `default` apart.
const NAME_COUNT: u64 = 7;

/// Short, long, and other than plain ones.
fn name(number: u64) -> String {
    match number {
        0 => "n".repeat(255),
        1 => "\u{fc}/\u{0}..".to_owned(),
        _ => format!("keyspace-{number}"),
    }
}

/// Those keyspaces are there, and no others.
pub(super) fn check_names<'a>(db: &Db, expected: impl Iterator<Item = &'a String>) -> Outcome<()> {
    let found = db.keyspaces().or_finding("listing keyspaces")?;
    let mut expected: Vec<&String> = expected.collect();
    expected.sort();
    if found.iter().collect::<Vec<_>>() == expected {
        return Ok(());
    }
    let shown = |names: &[String]| names.iter().map(|name| brief(name)).collect::<Vec<_>>();
    let expected: Vec<String> = expected.into_iter().cloned().collect();
    finding(format!(
        "there are the keyspaces {:?} rather than {:?}",
        shown(&found),
        shown(&expected)
    ))
}

/// After everything: reopen, compare, compact all, compare, twice.
pub(super) fn final_check(
    dir: &Path,
    world: &World,
    models: &BTreeMap<String, State>,
    random: &mut Random,
) -> Outcome<()> {
    for _ in 0..2 {
        let options = settings::options(random.next_u64());
        let db = options.open(dir).or_finding("the last opening")?;
        check_names(&db, models.keys())?;
        for (name, state) in models {
            let handle = db.keyspace(name).or_finding("a keyspace of the model")?;
            let source = Source::Keyspace(&handle);
            let when = |what: &str| format!("{what}, keyspace {}", brief(name));
            check_all(source, world, state)
                .map_err(|f| about(&f, &when("after the last opening")))?;
            handle.compact_range(..).or_finding("the full compaction")?;
            check_all(source, world, state)
                .map_err(|f| about(&f, &when("after the full compaction")))?;
        }
        db.close().or_finding("the last close")?;
    }
    Ok(())
}

impl Session<'_> {
    /// Creates a keyspace, under a name that may be in use.
    pub(super) fn create(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let name = name(self.random.below(NAME_COUNT));
        let options = settings::keyspace_options(self.random.next_u64());
        let created = self.db.create_keyspace(&name, &options);
        if self.spaces.contains_key(&name) {
            return match created {
                Err(error) if error.kind() == ErrorKind::Conflict => check_rejected(&error),
                Err(error) => Err(error).or_finding("creating what is there"),
                Ok(_) => finding("a keyspace was created that is there"),
            };
        }
        let handle = created.or_finding("creating a keyspace")?;
        let state = vec![0; KEY_COUNT];
        check_all(Source::Keyspace(&handle), self.world, &state)
            .map_err(|f| about(&f, "a new keyspace"))?;
        // A snapshot from before shows it empty.
        if let Some(shot) = self.shots.first() {
            let past = shot.snapshot.keyspace(&handle);
            let past = past.or_finding("a new keyspace in an old snapshot")?;
            check_all(Source::Snapshot(&past), self.world, &state)
                .map_err(|f| about(&f, "a new keyspace in an old snapshot"))?;
        }
        self.spaces.insert(name, Space { handle, state });
        report.created += 1;
        Ok(())
    }

    pub(super) fn drop_one(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let name = self.pick();
        if name == "default" {
            return match self.db.drop_keyspace(&name) {
                Err(error) if error.kind() == ErrorKind::InvalidArgument => Ok(()),
                other => finding(format!("dropping the default keyspace: {other:?}")),
            };
        }
        let space = self.spaces.remove(&name).expect("it was picked");
        let mut cursor = space.handle.cursor().or_finding("a cursor")?;
        self.db.drop_keyspace(&name).or_finding("dropping")?;
        report.dropped += 1;
        // What was begun before goes on.
        let is_empty = space.state.iter().all(|&version| version == 0);
        let is_valid = cursor
            .seek_to_first()
            .or_finding("a cursor of before a drop")?;
        if is_valid == is_empty {
            return finding("a cursor of before a drop shows something else");
        }
        self.ghosts.push(space.handle);
        if self.ghosts.len() > GHOST_COUNT_MAX {
            self.ghosts.swap_remove(0);
        }
        Ok(())
    }

    /// The handle of a dropped keyspace says that it is gone; a batch with it does nothing at all.
    pub(super) fn ask_ghost(&mut self) -> Outcome<()> {
        if self.ghosts.is_empty() {
            return Ok(());
        }
        let at = self.random.below_usize(self.ghosts.len());
        let ghost = &self.ghosts[at];
        let index = self.random.below_usize(KEY_COUNT);
        let key = self.world.key(index);
        let mut batch = WriteBatch::new();
        batch.put(key, "not to be seen").put_in(ghost, key, "gone");
        let writes = [
            self.db.write(&batch).map(drop),
            ghost.put(key, "gone").map(drop),
            ghost.delete(key).map(drop),
        ];
        for result in writes {
            match result {
                Err(error) if error.is_not_found() => check_rejected(&error)?,
                other => return finding(format!("a write to a dropped keyspace: {other:?}")),
            }
        }
        let others = [
            ghost.get(key).map(drop),
            ghost.iter().map(drop),
            ghost.flush(),
        ];
        for result in others {
            if !matches!(&result, Err(error) if error.is_not_found()) {
                return finding(format!("a call on a dropped keyspace: {result:?}"));
            }
        }
        self.check_keys(&[("default".to_owned(), index, 0)])
    }

    /// Opens the database for reading while it is open, and finds all of it.
    pub(super) fn open_beside(&mut self, report: &mut KeyspacesReport) -> Outcome<()> {
        let options = settings::options(self.random.next_u64());
        let reader = options
            .open_read_only(self.dir)
            .or_finding("opening for reading")?;
        check_names(&reader, self.spaces.keys())?;
        for (name, space) in &self.spaces {
            let handle = reader
                .keyspace(name)
                .or_finding("a keyspace, for reading")?;
            check_all(Source::Keyspace(&handle), self.world, &space.state)
                .map_err(|f| about(&f, &format!("read-only, keyspace {}", brief(name))))?;
        }
        report.read_only += 1;
        Ok(())
    }
}
