//! Every advice is taken here: the setting is applied, the same work is done again, and what was
//! predicted is held against what came of it.

use siltstone::{Compression, Db, Durability, FilterPolicy, Options, WriteBatch, WriteOptions};

use super::*;
use crate::bench::database::{level_rows, live_bytes};
use crate::bench::report::{Returned, Space};
use crate::random::Random;

const SEED: u64 = 301;
const VALUE_BYTES: usize = 100;
/// How far a prediction may be off, as a part of what was measured.
const TOLERANCE: f64 = 0.25;

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'0'; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

/// The report on one database, as the tool makes it.
fn report(db: &Db, tuning: Tuning) -> Amplification {
    let (stats, amplification) = (db.stats(), db.amplification());
    let mut totals = Totals::default();
    totals.add(&stats, &amplification.write);
    Amplification {
        totals,
        device: None,
        space: Some(Space {
            levels: level_rows(&stats, &amplification.write),
            log_bytes: stats.log_disk_bytes,
            user_bytes: stats.user_bytes_written,
            get_count: stats.get_count,
            live: LiveBytes::Counted(live_bytes(db).expect("scanned")),
        }),
        returned: Returned::default(),
        keyspaces: amplification.keyspaces,
        tuning,
    }
}

/// A database whose files are small, tuned as `tuning` says.
fn open(dir: &std::path::Path, tuning: &Tuning) -> Db {
    let narrow = |bytes: u64| usize::try_from(bytes).expect("small");
    let filter = match tuning.filter_bits {
        0 => FilterPolicy::None,
        bits_per_key => FilterPolicy::Blocked { bits_per_key },
    };
    Options::new()
        .memtable_bytes_max(narrow(tuning.memtable_bytes_max))
        .level_fan_out(tuning.level_fan_out)
        .level0_table_count_trigger(narrow(tuning.level0_table_count_trigger))
        .level_base_bytes(tuning.level_base_bytes)
        .table_bytes_target(32 << 10)
        .bottom_compression(Compression::None)
        .filter(filter)
        .open(dir)
        .expect("opened")
}

/// Overwrites random keys, compactions never far behind: what they do must not depend on how fast
/// this machine is.
fn overwrite(db: &Db, key_count: u64, count: u64) {
    let mut random = Random::new(SEED);
    for index in 0..count {
        db.put(key(random.below(key_count)), [7; VALUE_BYTES])
            .expect("put");
        if index % 100 == 99 {
            db.wait_for_compactions().expect("waited");
        }
    }
    db.wait_for_compactions().expect("waited");
}

/// The advice with this flag, which must be the first.
fn first_advice(amplification: &Amplification, flag: &str) -> Advice {
    let advices = advise(amplification);
    let first = advices.first().expect("something dominates").clone();
    assert!(first.flag.starts_with(flag), "{advices:#?}");
    assert!(first.gain() > GAIN_MIN && first.sentences().contains(&first.option));
    first
}

fn assert_near(advice: &Advice, found: f64) {
    let off = (advice.then / found - 1.0).abs();
    assert!(
        off <= TOLERANCE,
        "seed={SEED} {}: predicted {:.3}, found {found:.3}, before {:.3}",
        advice.flag,
        advice.then,
        advice.now
    );
    assert!(found < advice.now, "it helps: {found} {}", advice.now);
}

#[test]
fn larger_memtables_save_what_was_promised() {
    let tuning = Tuning {
        memtable_bytes_max: 32 << 10,
        level_base_bytes: 1 << 20,
        ..Tuning::default()
    };
    let run = |tuning: Tuning| {
        let dir = tempfile::tempdir().expect("made");
        let db = open(dir.path(), &tuning);
        overwrite(&db, 6000, 24_000);
        report(&db, tuning)
    };
    let before = run(tuning);
    let advice = first_advice(&before, "--write_buffer_size");
    assert_eq!(advice.flag, format!("--write_buffer_size={}", 128 << 10));
    let after = run(Tuning {
        memtable_bytes_max: 128 << 10,
        ..tuning
    });
    assert_near(&advice, after.write_amplification().expect("written"));
}

#[test]
fn a_smaller_fan_out_saves_what_was_promised() {
    let tuning = Tuning {
        memtable_bytes_max: 32 << 10,
        level_base_bytes: 96 << 10,
        level_fan_out: 16,
        ..Tuning::default()
    };
    let run = |tuning: Tuning| {
        let dir = tempfile::tempdir().expect("made");
        let db = open(dir.path(), &tuning);
        overwrite(&db, 12_000, 30_000);
        report(&db, tuning)
    };
    let before = run(tuning);
    let advice = first_advice(&before, "--max_bytes_for_level_multiplier");
    assert!(advice.flag.ends_with("--max_bytes_for_level_base=196608"));
    let after = run(Tuning {
        level_fan_out: 8,
        level_base_bytes: 192 << 10,
        ..tuning
    });
    assert_near(&advice, after.write_amplification().expect("written"));
}

#[test]
fn larger_commits_save_what_was_promised() {
    let run = |batch_size: u64| {
        let tuning = Tuning {
            batch_size,
            ..Tuning::default()
        };
        let dir = tempfile::tempdir().expect("made");
        let db = open(dir.path(), &tuning);
        let disk = WriteOptions::new().durability(Durability::Disk);
        let mut random = Random::new(SEED);
        for _ in 0..100 {
            let mut batch = WriteBatch::new();
            for _ in 0..batch_size {
                batch.put(key(random.below(10_000)), [7; VALUE_BYTES]);
            }
            db.write_with(&batch, &disk).expect("written");
        }
        report(&db, tuning)
    };
    let before = run(1);
    let advice = first_advice(&before, "--batch_size=10");
    let after = run(10);
    let found = ratio(after.page_bytes(), after.totals.user_bytes).expect("written");
    assert_near(&advice, found);
}

#[test]
fn filters_save_what_was_promised() {
    let run = |filter_bits: u32| {
        let tuning = Tuning {
            memtable_bytes_max: 64 << 10,
            level0_table_count_trigger: 8,
            filter_bits,
            ..Tuning::default()
        };
        let dir = tempfile::tempdir().expect("made");
        let db = open(dir.path(), &tuning);
        overwrite(&db, 2000, 3000);
        db.flush().expect("flushed");
        let mut random = Random::new(SEED);
        for _ in 0..4000 {
            db.get(key(random.below(4000))).expect("read");
        }
        report(&db, tuning)
    };
    let before = run(0);
    let advice = first_advice(&before, "--bloom_bits=10");
    let totals = run(10).totals;
    let searched = totals.tables_considered - totals.filter_negatives;
    assert_near(&advice, ratio(searched, totals.get_count).expect("read"));
}

#[test]
fn a_full_compaction_saves_what_was_promised() {
    let tuning = Tuning {
        level0_table_count_trigger: 15,
        ..Tuning::default()
    };
    let dir = tempfile::tempdir().expect("made");
    let db = open(dir.path(), &tuning);
    overwrite(&db, 2000, 6000);
    db.compact_range(..).expect("compacted");
    for number in 0..2000 {
        match number % 4 {
            0 => db.delete(key(number)).expect("deleted"),
            _ => db.put(key(number), [8; VALUE_BYTES]).expect("put"),
        };
    }
    db.flush().expect("flushed");
    let before = report(&db, tuning);
    let advice = advise(&before)
        .into_iter()
        .find(|advice| advice.number.starts_with("space"))
        .expect("half of it is old");
    db.compact_range(..).expect("compacted");
    let space = report(&db, tuning).space.expect("a database");
    let found = ratio(space.table_bytes(), space.live.bytes()).expect("live bytes");
    assert_near(&advice, found);
}

#[test]
fn what_cannot_be_better_gets_no_advice() {
    let tuning = Tuning::default();
    let dir = tempfile::tempdir().expect("made");
    let db = open(dir.path(), &tuning);
    for number in 0..2000 {
        db.put(key(number), [7; VALUE_BYTES]).expect("put");
    }
    db.flush().expect("flushed");
    let advices = advise(&report(&db, tuning));
    assert!(advices.is_empty(), "{advices:#?}");
}
