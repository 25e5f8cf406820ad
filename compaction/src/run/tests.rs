use base::cursor::{VecCursor, VecEntry};
use base::{Level, SequenceNumber};
use sstable::ReadMode;

use super::*;
use crate::plan::InProgress;
use crate::policy;
use crate::testing::{Bed, Random, level, seq};

fn here<C: Cursor>(cursor: &C) -> Option<VecEntry> {
    cursor.is_valid().then(|| {
        let key = cursor.key();
        assert_eq!(cursor.value_slice(), cursor.value());
        (
            key.user_key.to_vec(),
            key.seq,
            key.kind,
            cursor.value().to_vec(),
        )
    })
}

/// A tree whose last level has many tables, with several versions of some keys.
fn wide_level(seed: u64, mode: ReadMode) -> Bed {
    let mut random = Random::printed("level", seed);
    let mut bed = Bed::new(seed, mode);
    bed.tuning.level_base_bytes = 1 << 30;
    bed.tuning.level0_table_count_trigger = 1;
    for _ in 0..12 {
        let run = bed.random_run(&mut random, 60, 90);
        bed.context.snapshots.push(bed.context.visible);
        bed.flush(vec![run]);
        while let Some(plan) = policy::pick(&bed.version, &InProgress::default(), &bed.tuning) {
            bed.compact(&plan);
        }
    }
    assert!(bed.version.level(Level::ZERO).is_empty());
    assert!(bed.version.level(level(7)).len() > 5);
    bed
}

#[test]
fn a_level_walks_as_one_run_would() {
    for (seed, mode) in [(1, ReadMode::Mapped), (2, ReadMode::Positioned)] {
        let bed = wide_level(seed, mode);
        let mut random = Random::printed("walk", seed);
        let mut oracle = VecCursor::new(bed.entries());
        let tables = bed.version.level(level(7));
        let mut cursors = [
            bed.version.cursor(level(7), ScanMode::Ordinary),
            LevelCursor::new(tables, ScanMode::Bulk),
        ];
        for _ in 0..4000 {
            let mut key = format!("a shared beginning {:04}", random.below(95));
            if random.one_in(5) {
                key.truncate(random.index(key.len() + 1));
            }
            if random.one_in(50) {
                key.insert(0, if random.one_in(2) { '!' } else { '~' });
            }
            let target = InternalKey::seek_to(key.as_bytes(), seq(random.below(bed.last_seq + 2)));
            let choice = random.below(20);
            let go = |cursor: &mut dyn Cursor| -> Result<bool> {
                match choice {
                    0 => cursor.seek_to_first(),
                    1 => cursor.seek_to_last(),
                    2 | 3 => cursor.seek(target),
                    4 | 5 => cursor.seek_for_prev(target),
                    _ if !cursor.is_valid() => Ok(false),
                    6..13 => cursor.next(),
                    _ => cursor.prev(),
                }
            };
            let wanted = go(&mut oracle).expect("in memory");
            for cursor in &mut cursors {
                assert_eq!(go(cursor).expect("a sound disk"), wanted);
                assert_eq!(here(cursor), here(&oracle));
            }
        }
    }
}

#[test]
fn no_tables_and_no_match_stand_nowhere() {
    let mut none = LevelCursor::new(&[], ScanMode::Ordinary);
    let target = InternalKey::seek_to(b"k", SequenceNumber::MAX);
    assert!(!none.seek_to_first().expect("nothing to read"));
    assert!(!none.seek_to_last().expect("nothing to read"));
    assert!(!none.seek(target).expect("nothing to read"));
    assert!(!none.seek_for_prev(target).expect("nothing to read"));
    assert!(!none.is_valid());
}

/// Whoever walks a level keeps the files of tables that it has not reached yet.
#[test]
fn a_cursor_keeps_files_that_a_compaction_replaced() {
    let mut bed = wide_level(3, ReadMode::Positioned);
    let wanted = bed.entries();
    let mut cursor = bed.version.cursor(level(7), ScanMode::Ordinary);
    let mut live = cursor.seek_to_first().expect("a sound disk");
    bed.context.snapshots.clear();
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let mut request = policy::ManualCompaction::new(from, to, bed.next_number());
    while let policy::ManualStep::Run(plan) =
        request.step(&bed.version, &InProgress::default(), &bed.tuning)
    {
        bed.compact(&plan);
    }
    let mut found = Vec::new();
    while live {
        found.extend(here(&cursor));
        live = cursor.next().expect("the files are still there");
    }
    assert_eq!(found, wanted);
    drop(cursor);
    bed.check();
}

#[test]
fn cursors_and_versions_go_from_thread_to_thread() {
    fn can_move<T: Send + 'static>() {}
    fn can_share<T: Send + Sync + 'static>() {}
    can_move::<LevelCursor>();
    can_share::<crate::Version>();
    can_share::<crate::CompactionPlan>();
    can_share::<crate::JobContext>();
}
