//! Damage: every byte of every file of a small closed database changed, files cut, swapped and
//! rolled back. An open fails as damage, or every answer is right or an error; never a wrong value,
//! never a missing key, never a panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::fs::sim::SimFs;
use siltstone::{Db, Durability, Error, ErrorKind, ReadMode, Verify, WriteOptions};

use crate::support::{DIR, Model, PrintOnPanic, Rng, Setup, World, key_pool, rounds, value};

/// Written last by what is not closed.
const LAST_KEY: &str = "zzz";

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A small database with two levels and something in its log, as files.
struct Victim {
    files: Files,
    /// The same one, some commits earlier.
    older: Files,
    model: Model,
    keys: Vec<Vec<u8>>,
    setup: Setup,
}

fn victim(seed: u64, close: bool) -> Victim {
    let mut rng = Rng::new(seed);
    let world = World::new(seed);
    let mut keys = key_pool(&mut rng, 30);
    keys.retain(|key| key.as_slice() < LAST_KEY.as_bytes());
    let db = world.open().expect("a new database");
    let mut model = Model::new();
    let mut older = Files::new();
    for index in 0..48 {
        let key = rng.pick(&keys).clone();
        if rng.chance(80) {
            let mut value = value(&mut rng, index);
            value.truncate(300);
            db.put(&key, &value).expect("a put");
            model.insert(key, value);
        } else {
            db.delete(&key).expect("a delete");
            model.remove(&key);
        }
        if index == 20 {
            db.compact_range(..).expect("a compaction");
            older = world.files();
        }
        if index == 35 {
            db.flush().expect("a flush");
        }
    }
    if close {
        db.close().expect("a clean close");
    } else {
        // A record says how far the log was durable when it was written. The last one has nothing
        // behind it that could vouch for it, so that nobody asks for its key.
        let disk = WriteOptions::new().durability(Durability::Disk);
        db.put_with(LAST_KEY, "1", &disk).expect("a put");
        db.put_with(LAST_KEY, "2", &disk).expect("a put");
    }
    let files = world.files();
    Victim {
        files,
        older,
        model,
        keys,
        setup: world.setup,
    }
}

impl Victim {
    /// Opens the database as `files` have it and asks everything.
    fn judge(&self, files: &Files, setup: Setup) -> Verdict {
        match open_files(files, setup) {
            Ok((_world, db)) => {
                let failed = self.ask(&db);
                if failed {
                    Verdict::Errors
                } else {
                    Verdict::Unharmed
                }
            }
            Err(error) => {
                assert_damage(&error);
                Verdict::Refused
            }
        }
    }

    /// Asks for everything; whatever is answered must be right. Returns whether anything failed.
    fn ask(&self, db: &Db) -> bool {
        // First those that find no block checked.
        let mut failed = self.ask_together(db, &self.keys);
        for key in &self.keys {
            failed |= self.ask_together(db, std::slice::from_ref(key));
            match db.get(key) {
                Ok(found) => {
                    let expected = self.model.get(key).map(Vec::as_slice);
                    assert_eq!(found.as_deref(), expected, "get of {}", key.escape_ascii());
                }
                Err(error) => {
                    assert_damage(&error);
                    failed = true;
                }
            }
        }
        for backward in [false, true] {
            failed |= self.scan(db, backward);
        }
        // A compaction over a damaged block fails and keeps its inputs.
        if let Err(error) = db.compact_range(..) {
            assert_damage(&error);
            failed = true;
        }
        failed |= self.scan(db, false);
        failed
    }

    /// Asks for several keys with one call.
    fn ask_together(&self, db: &Db, keys: &[Vec<u8>]) -> bool {
        let found = match db.multi_get(keys) {
            Ok(found) => found,
            Err(error) => {
                assert_damage(&error);
                return true;
            }
        };
        let found = found.iter().map(Option::as_deref);
        let expected = keys
            .iter()
            .map(|key| self.model.get(key).map(Vec::as_slice));
        assert!(found.eq(expected), "a wrong answer in a group of keys");
        false
    }

    fn scan(&self, db: &Db, backward: bool) -> bool {
        let mut iterator = match db.range(..LAST_KEY) {
            Ok(iterator) => iterator,
            Err(error) => {
                assert_damage(&error);
                return true;
            }
        };
        let mut expected = self.model.iter();
        loop {
            let (item, wanted) = if backward {
                (iterator.next_back(), expected.next_back())
            } else {
                (iterator.next(), expected.next())
            };
            let wanted = wanted.map(|(key, value)| (key.as_slice(), value.as_slice()));
            match item.transpose() {
                Ok(found) => {
                    let found = found.as_ref().map(|(key, value)| (&**key, &**value));
                    assert!(
                        found == wanted,
                        "a scan shows {found:?} in place of {wanted:?}"
                    );
                    if found.is_none() {
                        return false;
                    }
                }
                Err(error) => {
                    assert_damage(&error);
                    return true;
                }
            }
        }
    }
}

/// Opens the database that consists of `files`.
fn open_files(files: &Files, setup: Setup) -> siltstone::Result<(World, Db)> {
    let fs = SimFs::new(1);
    base::fs::create_dir_all(&*fs, Path::new(DIR)).expect("a directory");
    for (path, bytes) in files {
        fs.install(path, bytes).expect("the directory is there");
    }
    let mut world = World::on(fs, 1);
    world.setup = setup;
    let db = world.open()?;
    Ok((world, db))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Errors,
    Unharmed,
}

fn assert_damage(error: &Error) {
    let kinds = [ErrorKind::Corruption, ErrorKind::Unsupported];
    assert!(
        kinds.contains(&error.kind()),
        "damage is reported as {error:?}"
    );
    assert!(
        error.path().is_some(),
        "the damaged file is not named: {error}"
    );
}

/// Both ways to read tables; checks of mapped blocks happen once.
fn setups(victim: &Victim) -> [Setup; 2] {
    let mapped = Setup {
        read_mode: ReadMode::Mapped,
        verify: Verify::Once,
        ..victim.setup
    };
    let positioned = Setup {
        read_mode: ReadMode::Positioned,
        cache_bytes: 4096,
        ..victim.setup
    };
    [mapped, positioned]
}

/// Changes bytes of every file, `stride` apart.
fn flip_bytes(victim: &Victim, stride: usize) -> usize {
    let mut harmed = 0;
    let mut case = 0;
    for (path, bytes) in &victim.files {
        for at in (0..bytes.len()).step_by(stride) {
            // All masks and all setups in turn, and every place with one of them.
            case += 1;
            let mask = [0x01, 0xff, 0x80, bytes[at].max(1)][case % 4];
            let setup = setups(victim)[case / 4 % 2];
            let mut files = victim.files.clone();
            files.get_mut(path).expect("one of them")[at] ^= mask;
            let place = format!(
                "byte {at} of {} with mask {mask:#x}, {setup:?}",
                path.display()
            );
            let _place = PrintOnPanic(place);
            harmed += usize::from(victim.judge(&files, setup) != Verdict::Unharmed);
        }
    }
    harmed
}

/// About as many bytes of all files as `case_count`.
fn stride_for(victim: &Victim, case_count: u64) -> usize {
    let total: usize = victim.files.values().map(Vec::len).sum();
    let count = usize::try_from(case_count * rounds()).expect("a small number");
    // Odd, so that fields of eight bytes are not always met at the same place.
    (total / count).max(1) | 1
}

#[test]
fn a_changed_byte_of_a_closed_database_is_never_a_wrong_answer() {
    for seed in [1, 2] {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let victim = victim(seed, true);
        let harmed = flip_bytes(&victim, stride_for(&victim, 1500));
        assert!(harmed > 300, "only {harmed} changes were noticed");
    }
}

#[test]
fn a_changed_byte_of_a_synced_database_is_never_a_wrong_answer() {
    let victim = victim(4, false);
    flip_bytes(&victim, stride_for(&victim, 1500));
}

#[test]
fn a_file_that_is_cut_or_longer_is_never_a_wrong_answer() {
    let victim = victim(3, true);
    for (path, bytes) in &victim.files {
        let lengths = (0..bytes.len()).step_by(bytes.len() / 24 + 1);
        let longer = [1, 512, 4096].map(|more| bytes.len() + more);
        for len in lengths.chain(longer) {
            let mut files = victim.files.clone();
            files.get_mut(path).expect("one of them").resize(len, 0);
            let _place = PrintOnPanic(format!("{} resized to {len}", path.display()));
            victim.judge(&files, setups(&victim)[len % 2]);
        }
        for start in (0..bytes.len()).step_by(512).take(40) {
            let mut files = victim.files.clone();
            let end = bytes.len().min(start + 512);
            files.get_mut(path).expect("one of them")[start..end].fill(0);
            let _place = PrintOnPanic(format!("{} zeroed at {start}", path.display()));
            victim.judge(&files, setups(&victim)[start / 512 % 2]);
        }
    }
}

#[test]
fn files_in_each_others_place_or_from_the_past_are_never_a_wrong_answer() {
    let victim = victim(2, true);
    let paths: Vec<_> = victim.files.keys().collect();
    for one in &paths {
        for other in &paths {
            if one < other && one.extension() == other.extension() {
                let mut files = victim.files.clone();
                files.insert(PathBuf::clone(one), victim.files[*other].clone());
                files.insert(PathBuf::clone(other), victim.files[*one].clone());
                let _place = PrintOnPanic(format!("{} for {}", one.display(), other.display()));
                victim.judge(&files, victim.setup);
            }
        }
        // An older version of one file beside newer ones of the others.
        if let Some(bytes) = victim.older.get(*one)
            && *bytes != victim.files[*one]
        {
            let mut files = victim.files.clone();
            files.insert(PathBuf::clone(one), bytes.clone());
            let _place = PrintOnPanic(format!("{} from the past", one.display()));
            victim.judge(&files, victim.setup);
        }
    }
}

#[test]
fn a_damaged_block_does_not_hide_the_others() {
    let victim = victim(1, true);
    let is_table = |path: &&PathBuf| path.extension().is_some_and(|ext| ext == "sst");
    for setup in setups(&victim) {
        let mut partly = 0;
        for path in victim.files.keys().filter(is_table) {
            let mut files = victim.files.clone();
            files.get_mut(path).expect("one of them")[40] ^= 1;
            assert_eq!(victim.judge(&files, setup), Verdict::Errors);
            let db = open_files(&files, setup)
                .expect("a block is looked at when it is read")
                .1;
            let answers = victim.keys.iter().map(|key| db.get(key).is_ok());
            let right = answers.filter(|is_right| *is_right).count();
            assert!(right > 0, "one damaged block hides everything");
            partly += usize::from(right < victim.keys.len());
            db.put("new", "value").expect("writes go on");
        }
        assert!(partly > 0, "no damage was met");
    }
}
