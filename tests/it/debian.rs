//! Real input: the records of a Debian package index, loaded, changed, reopened and compared.
//!
//! The file is not part of the repository. It is looked for in the directory that
//! `SILTSTONE_TEST_DATA` names, else in `../shared/data`; without it the test says so and passes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use base::fs::{FileSystem, OsFs};
use base::{FileKind, PinLedger, Slice};
use siltstone::{Db, Options, Result, WriteBatch};
use sstable::{ReadMode, ReaderOptions, TableReader, Verify};

use crate::support::{Rng, log_append};

const FILE: &str = "debian-packages.ndjson.zst";
const RECORD_COUNT: usize = 63_666;
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn input() -> Option<PathBuf> {
    let dir = std::env::var_os("SILTSTONE_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let path = dir.join(FILE);
    OsFs.status(&path).ok().flatten().map(|_| path)
}

fn read_records(path: &Path) -> Records {
    let file = OsFs.open(path).expect("it was there");
    let len = usize::try_from(file.len().expect("a length")).expect("small");
    let mut packed = vec![0; len];
    file.read_exact_at(0, &mut packed).expect("readable");
    let unpacked = zstd::Decoder::new(&packed[..]).expect("zstd");
    let mut records = Records::new();
    for line in BufReader::new(unpacked).lines() {
        let record: serde_json::Value =
            serde_json::from_str(&line.expect("text")).expect("JSON in every line");
        let text = |name: &str| record[name].as_str().expect("a string").as_bytes().to_vec();
        records.insert(text("key"), text("value"));
    }
    records
}

/// Small memtables and tables, so that several levels are used.
fn options() -> Options {
    Options::new()
        .log_append(log_append())
        .memtable_bytes_max(1 << 20)
        .table_bytes_target(512 << 10)
        .level_base_bytes(4 << 20)
        .level_fan_out(4)
}

fn section(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == b'/').next().unwrap_or(key)
}

fn counts<'a>(keys: impl Iterator<Item = &'a [u8]>) -> BTreeMap<Vec<u8>, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(section(key).to_vec()).or_default() += 1;
    }
    counts
}

fn assert_equal(db: &Db, records: &Records) -> Result<()> {
    let mut expected = records.iter();
    for item in db.iter()? {
        let (key, value) = item?;
        let (expected_key, expected_value) = expected.next().expect("no more than were put");
        assert_eq!((&*key, &*value), (&expected_key[..], &expected_value[..]));
    }
    assert!(expected.next().is_none(), "a record is missing");
    for (key, value) in records {
        let same = db.get_with(key, |found| found == &value[..])?;
        assert_eq!(same, Some(true), "{}", key.escape_ascii());
    }
    Ok(())
}

fn assert_games(db: &Db, records: &Records) -> Result<()> {
    let games: Vec<&Vec<u8>> = records
        .keys()
        .filter(|key| key.starts_with(b"games/"))
        .collect();
    let keys = |item: Result<(Slice, Slice)>| item.map(|(key, _)| key);
    let forward: Vec<Slice> = db.prefix("games/")?.map(keys).collect::<Result<_>>()?;
    let mut backward: Vec<Slice> = db
        .prefix("games/")?
        .rev()
        .map(keys)
        .collect::<Result<_>>()?;
    backward.reverse();
    assert!(games.len() > 500);
    assert_eq!(forward, games);
    assert_eq!(backward, games);
    Ok(())
}

fn verify_tables(dir: &Path) -> Result<()> {
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: None,
        verify: Verify::Always,
        pins: std::sync::Arc::new(PinLedger::default()),
    };
    let mut table_count = 0;
    for entry in OsFs.list(dir)? {
        if let Some((FileKind::Table, number)) = FileKind::parse(&entry.name) {
            let file = OsFs.open(&dir.join(&entry.name))?;
            TableReader::open(file, &options, None, number.0)?.verify()?;
            table_count += 1;
        }
    }
    assert!(table_count > 20, "found {table_count} tables");
    Ok(())
}

#[test]
fn real_records_are_all_there_after_every_change() -> Result<()> {
    let Some(input) = input() else {
        println!("skipped: {FILE} is not there; SILTSTONE_TEST_DATA names its directory");
        return Ok(());
    };
    let mut records = read_records(&input);
    assert_eq!(records.len(), RECORD_COUNT);
    let dir = tempfile::tempdir().expect("a directory");
    let db = options().open(dir.path())?;
    let mut batch = WriteBatch::new();
    for (key, value) in &records {
        batch.put(key, value);
        if batch.len() == 100 {
            db.write(&batch)?;
            batch.clear();
        }
    }
    db.write(&batch)?;
    let stored: Vec<Slice> = db
        .iter()?
        .map(|item| item.map(|(key, _)| key))
        .collect::<Result<_>>()?;
    let expected = counts(records.keys().map(|key| &key[..]));
    assert_eq!(counts(stored.iter().map(|key| &key[..])), expected);
    assert_games(&db, &records)?;

    change(&db, &mut records)?;
    db.wait_for_compactions()?;
    // Where the data comes to rest is the policy's affair: it must have gone somewhere.
    let stats = db.stats();
    assert!(stats.flush_count > 1 && stats.compaction_count > 0);
    assert!(stats.levels.last().is_some_and(|last| last.table_count > 0));
    db.close()?;
    let db = options().open(dir.path())?;
    assert_equal(&db, &records)?;
    assert_games(&db, &records)?;
    db.compact_range(..)?;
    assert_equal(&db, &records)?;
    db.close()?;
    verify_tables(dir.path())
}

/// Overwrites half of the records and deletes a quarter.
fn change(db: &Db, records: &mut Records) -> Result<()> {
    let seed = 20_261_121;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let keys: Vec<Vec<u8>> = records.keys().cloned().collect();
    for key in keys {
        match rng.below(4) {
            0 | 1 => {
                let mut value = records[&key].clone();
                value.reverse();
                db.put(&key, &value)?;
                records.insert(key, value);
            }
            2 => {
                db.delete(&key)?;
                records.remove(&key);
            }
            _ => {}
        }
    }
    Ok(())
}
