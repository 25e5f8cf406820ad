use std::time::Duration;

use base::KeyKind;
use base::cursor::VecCursor;
use base::executor::Inline;
use base::sync::Bell;
use base::sync::atomic::AtomicUsize;
use sstable::ReadMode;

use super::*;
use crate::plan::{CompactionReason, InProgress};
use crate::policy::{self, ManualCompaction, ManualStep};
use crate::pool::RayonPool;
use crate::testing::{Bed, Random, level, seq};

mod faults;

/// Compacts everything to the bottom, step by step.
fn compact_all(bed: &mut Bed) -> Vec<String> {
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let mut request = ManualCompaction::new(from, to, bed.next_number());
    let mut plans = Vec::new();
    loop {
        match request.step(&bed.version, &InProgress::default(), &bed.tuning) {
            ManualStep::Run(plan) => {
                plans.push(plan.to_string());
                bed.compact(&plan);
            }
            ManualStep::Wait => panic!("nothing runs"),
            ManualStep::Done => return plans,
        }
    }
}

/// A tree of a few levels with snapshots that hold versions and tombstones.
fn grown(seed: u64) -> (Bed, Random) {
    let mut random = Random::printed("grown", seed);
    let mut bed = Bed::new(seed, ReadMode::Positioned);
    for round in 0..24 {
        let run = bed.random_run(&mut random, 60, 150);
        bed.flush(vec![run]);
        if round % 7 == 0 {
            bed.context.snapshots.push(bed.context.visible);
        }
        while let Some(plan) = policy::pick(&bed.version, &InProgress::default(), &bed.tuning) {
            bed.compact(&plan);
        }
    }
    (bed, random)
}

/// Three tables at level 0 that overlap each other and whatever else is there.
fn flush_wide(bed: &mut Bed, random: &mut Random) {
    let target = std::mem::replace(&mut bed.context.table_bytes_target, 1 << 20);
    for _ in 0..3 {
        let run = bed.random_run(random, 100, 150);
        bed.flush(vec![run]);
    }
    bed.context.table_bytes_target = target;
}

/// A compaction of all that level 0 holds.
fn plan_of_level0(bed: &Bed) -> CompactionPlan {
    let (from, to) = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let busy = InProgress::default();
    policy::pick_manual(&bed.version, &busy, &bed.tuning, from, to, level(0)).expect("not empty")
}

#[test]
fn random_trees_answer_as_a_map_does_at_every_snapshot() {
    for seed in 0..12 {
        let mut random = Random::printed("job model", seed);
        let mode = if seed % 2 == 0 {
            ReadMode::Mapped
        } else {
            ReadMode::Positioned
        };
        let mut bed = Bed::new(seed, mode);
        if seed % 3 == 0 {
            bed.context.executor = RayonPool::new(4).expect("threads");
        }
        let mut split_count = 0;
        for _ in 0..60 {
            match random.below(10) {
                0 => {
                    bed.context.snapshots.push(bed.context.visible);
                    bed.context.snapshots.dedup();
                }
                1 if !bed.context.snapshots.is_empty() => {
                    let index = random.index(bed.context.snapshots.len());
                    bed.context.snapshots.remove(index);
                }
                2..5 => {
                    let run_count = 1 + random.index(3);
                    let mut runs: Vec<_> = (0..run_count)
                        .map(|_| {
                            let count = random.below(80);
                            bed.random_run(&mut random, count, 300)
                        })
                        .collect();
                    runs.reverse();
                    bed.flush(runs);
                }
                _ => {
                    let busy = InProgress::default();
                    if let Some(plan) = policy::pick(&bed.version, &busy, &bed.tuning) {
                        let output = bed.compact(&plan);
                        split_count += u64::from(output.stats.range_count > 1);
                    }
                }
            }
            bed.check();
        }
        assert!(
            split_count > 0,
            "no compaction was split: the test is too small"
        );
        compact_all(&mut bed);
        bed.check();
        bed.context.snapshots.clear();
        compact_all(&mut bed);
        bed.check();
        // Without snapshots the whole tree is what a read sees, each key once, without a sequence
        // unless nothing had to be rewritten for it.
        let entries = bed.entries();
        let found: Vec<_> = entries.iter().map(|e| (e.0.clone(), e.3.clone())).collect();
        assert_eq!(found.len(), bed.live().len());
        assert_eq!(found, bed.live());
    }
}

#[test]
fn the_bottommost_run_keeps_neither_tombstones_nor_sequences() {
    let (mut bed, _) = grown(31);
    bed.context.snapshots.clear();
    // Older than all there is, and written again by compactions; nothing is left to hide.
    let run = (0..150)
        .map(|n| bed.write(&format!("a shared beginning {n:04}"), None))
        .collect();
    bed.flush(vec![VecCursor::new(run)]);
    let one = bed.write("a shared beginning 0007", Some("alone"));
    bed.flush(vec![VecCursor::new(vec![one])]);
    compact_all(&mut bed);
    let left = bed.entries();
    let wanted = (
        b"a shared beginning 0007".to_vec(),
        seq(0),
        KeyKind::Put,
        b"alone".to_vec(),
    );
    assert_eq!(left, [wanted]);
}

/// A snapshot can keep tombstones in the bottommost level; once it is gone they can be asked away.
#[test]
fn tombstones_that_a_snapshot_left_at_the_bottom_are_rewritten_in_place() {
    let mut bed = Bed::new(5, ReadMode::Positioned);
    let run = (0..9)
        .map(|n| bed.write(&format!("k{n}"), Some("v")))
        .collect();
    bed.flush(vec![VecCursor::new(run)]);
    bed.context.snapshots.push(bed.context.visible);
    let gone = bed.write("k4", None);
    bed.flush(vec![VecCursor::new(vec![gone])]);
    compact_all(&mut bed);
    bed.check();
    assert_eq!(bed.version.to_text(), "L7: 000003 [k0#0,PUT .. k8#0,PUT]\n");
    assert_eq!(bed.entries().len(), 10);
    bed.context.snapshots.clear();
    assert_eq!(compact_all(&mut bed), ["rewrite L7 -> L7 manual: 000003"]);
    assert_eq!(bed.version.to_text(), "L7: 000004 [k0#0,PUT .. k8#0,PUT]\n");
    assert_eq!(bed.entries().len(), 8);
    assert!(compact_all(&mut bed).is_empty());
}

/// Ascending keys are written once by the flush and then only change their level.
#[test]
fn a_sequential_fill_is_never_written_twice() {
    let mut bed = Bed::new(6, ReadMode::Positioned);
    let (mut flushed, mut written) = (0, 0);
    for round in 0..60 {
        let run = (0..30).map(|n| {
            bed.write(
                &format!("{:08}", round * 30 + n),
                Some("a value of some length"),
            )
        });
        let run = VecCursor::new(run.collect());
        flushed += bed.flush(vec![run]).stats.written_bytes;
        while let Some(plan) = policy::pick(&bed.version, &InProgress::default(), &bed.tuning) {
            assert!(plan.is_move, "{plan}");
            written += bed.compact(&plan).stats.written_bytes;
        }
    }
    assert!(flushed > 0 && written == 0);
    assert!(
        bed.version.deepest_used() >= Some(level(2)),
        "{}",
        bed.version.to_text()
    );
    bed.check();
}

#[test]
fn overwritten_versions_are_dropped_in_the_flush_already() {
    let mut bed = Bed::new(7, ReadMode::Positioned);
    let first = bed.write("k", Some("1"));
    bed.context.snapshots.push(bed.context.visible);
    let rest: Vec<_> = ["2", "3", "4"]
        .map(|value| bed.write("k", Some(value)))
        .into();
    let newer = VecCursor::new(vec![bed.write("k", None), bed.write("l", None)]);
    let output = bed.flush(vec![
        newer,
        VecCursor::new(rest),
        VecCursor::new(vec![first]),
    ]);
    let stats = output.stats;
    assert_eq!(
        (stats.entries_in, stats.entries_out, stats.versions_dropped),
        (6, 3, 3)
    );
    assert_eq!(bed.version.to_text(), "L0: 000001 [k#5,DEL .. l#6,DEL]\n");
    bed.check();
    let nothing = bed.flush(vec![VecCursor::new(vec![])]);
    assert_eq!(
        nothing,
        JobOutput {
            stats: nothing.stats,
            ..JobOutput::default()
        }
    );
}

#[test]
fn a_large_compaction_is_split_between_user_keys_and_gives_the_same_entries() {
    let plan_of = |bed: &Bed| CompactionPlan {
        input_level: level(0),
        output_level: level(1),
        inputs: bed.version.level(level(0)).to_vec(),
        overlapping: Vec::new(),
        grandparents: Vec::new(),
        range: crate::UserRange {
            from: b"a".into(),
            to: b"b".into(),
            to_exclusive: false,
        },
        reason: CompactionReason::Manual,
        is_move: false,
    };
    let mut entries = Vec::new();
    for width in [1, 2, 3, 8] {
        let mut random = Random::printed("split", 8);
        let mut bed = Bed::new(8, ReadMode::Positioned);
        bed.context.executor = RayonPool::new(width).expect("threads");
        // Versions of one key in many blocks: no cut may fall between them.
        for _ in 0..4 {
            let before = bed.last_seq;
            let run = bed.random_run(&mut random, 200, 12);
            for _ in 0..20 {
                bed.context.snapshots.push(seq(before + random.below(200)));
            }
            bed.context.snapshots.sort_unstable();
            bed.flush(vec![run]);
        }
        let plan = plan_of(&bed);
        let spans = ranges::split(&plan, width, 1 << 10).expect("sound tables");
        assert!(spans.len() <= width && (spans.len() >= 2 || width == 1));
        let joined = spans.windows(2).all(|pair| pair[0].to == pair[1].from);
        assert!(joined && spans[0].from.is_none() && spans[spans.len() - 1].to.is_none());
        let output = bed.compact(&plan);
        assert_eq!(output.stats.range_count > 1, width > 1);
        drop(plan);
        bed.check();
        entries.push(bed.entries());
    }
    assert!(entries.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Outputs end where grandparents do, once they are large enough.
#[test]
fn outputs_are_cut_along_grandparents() {
    let mut bed = Bed::new(9, ReadMode::Positioned);
    bed.context.executor = Arc::new(Inline);
    let value = "x".repeat(100);
    let fill = |bed: &mut Bed, keys: std::ops::Range<u32>| {
        bed.context.table_bytes_target = 1 << 20;
        let run = keys.map(|n| bed.write(&format!("{n:04}"), Some(&value)));
        let run = VecCursor::new(run.collect());
        bed.flush(vec![run]);
    };
    for start in [0, 12, 24] {
        fill(&mut bed, start..start + 12);
    }
    let grandparents: Vec<_> = bed.version.level(level(0)).iter().rev().cloned().collect();
    fill(&mut bed, 0..36);
    bed.context.table_bytes_target = 2 << 10;
    let inputs = bed.version.level(level(0))[..1].to_vec();
    let range = inputs[0].meta.range();
    let plan = CompactionPlan {
        input_level: level(0),
        output_level: level(1),
        inputs,
        overlapping: Vec::new(),
        grandparents,
        range,
        reason: CompactionReason::Manual,
        is_move: false,
    };
    let output = compact(&bed.context, &bed.version, &plan).expect("a sound disk");
    let bounds: Vec<_> = output
        .added
        .iter()
        .map(|(_, meta)| {
            (
                meta.smallest.user_key.clone(),
                meta.largest.user_key.clone(),
            )
        })
        .collect();
    let key = |n: u32| format!("{n:04}").into_bytes();
    assert_eq!(
        bounds,
        [(key(0), key(11)), (key(12), key(23)), (key(24), key(35))]
    );
}

/// The `nth` call of a kind fails, for every n: the job fails or is right, and no file stays.
/// Each range waits, before its first output, until another one has come as far: one after the
/// other they would never get there.
#[test]
fn ranges_are_at_work_at_the_same_time() {
    let (mut bed, mut random) = grown(18);
    bed.context.executor = RayonPool::new(2).expect("threads");
    flush_wide(&mut bed, &mut random);
    let plan = plan_of_level0(&bed);
    let numbers = Arc::clone(&bed.context.numbers);
    let (arrived, bell) = (AtomicUsize::new(0), Bell::new());
    bed.context.numbers = Arc::new(move || {
        arrived.fetch_add(1, Ordering::SeqCst);
        bell.ring();
        loop {
            let seen = bell.epoch();
            if arrived.load(Ordering::SeqCst) >= 2 {
                return numbers();
            }
            let came = bell.wait_past(seen, Some(Duration::from_secs(60)));
            assert!(came, "a range waits for another that is not at work");
        }
    });
    let output = bed.compact(&plan);
    assert!(output.stats.range_count >= 2);
    drop(plan);
    bed.check();
}

/// The same entries in ten tables a level and in a hundred: as many tables are open at once, and as
/// many cursors with their buffers are alive. One range, so that nothing depends on threads.
#[test]
fn what_is_open_does_not_grow_with_the_tables_of_a_level() {
    let peak_of = |table_count: u64| {
        let mut bed = Bed::new(19, ReadMode::Positioned);
        bed.keep_open(10_000);
        bed.context.executor = Arc::new(Inline);
        let mut peaks = Vec::new();
        for round in 0..2 {
            let value = format!("{round:0>100}");
            let entries = (0..3_000).map(|n| bed.write(&format!("{n:06}"), Some(&value)));
            let run = VecCursor::new(entries.collect());
            // A flush cuts at twice the target.
            bed.context.table_bytes_target = 3_000 * 120 / (2 * table_count);
            bed.flush(vec![run]);
            let flushed = bed.version.level(level(0)).len() as u64;
            assert!(flushed * 2 > table_count, "{flushed}");
            let plan = CompactionPlan {
                input_level: level(0),
                output_level: level(1),
                inputs: bed.version.level(level(0)).to_vec(),
                overlapping: bed.version.level(level(1)).to_vec(),
                grandparents: Vec::new(),
                range: crate::UserRange {
                    from: b"000000".into(),
                    to: b"002999".into(),
                    to_exclusive: false,
                },
                reason: CompactionReason::Manual,
                is_move: false,
            };
            assert!(round == 0 || plan.overlapping.len() as u64 * 2 > table_count);
            let (peak, cache) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&bed.cache));
            let seen = Arc::clone(&peak);
            bed.fs.set_observer(Some(Arc::new(move |_, _| {
                seen.fetch_max(cache.open_count(), Ordering::SeqCst);
            })));
            // A level has as many tables afterwards as were flushed.
            bed.context.table_bytes_target *= 2;
            bed.compact(&plan);
            bed.fs.set_observer(None);
            drop(plan);
            assert_eq!(bed.cache.open_count(), 0, "closed behind");
            peaks.push(peak.load(Ordering::SeqCst));
        }
        bed.check();
        peaks
    };
    let (few, many) = (peak_of(10), peak_of(100));
    assert_eq!(few, many);
    assert_eq!(many, [1, 2], "a table of each run");
}
