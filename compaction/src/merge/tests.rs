use base::cursor::{VecCursor, VecEntry};
use base::{KeyKind, SequenceNumber};

use super::*;
use crate::testing::Random;

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

fn entry(user_key: &str, at: u64, value: &str) -> VecEntry {
    (user_key.into(), seq(at), KeyKind::Put, value.into())
}

fn drain<C: Cursor>(merge: &mut Merge<C>, mut live: bool) -> Vec<VecEntry> {
    let mut all = Vec::new();
    while live {
        let key = merge.key();
        all.push((
            key.user_key.to_vec(),
            key.seq,
            key.kind,
            merge.value().to_vec(),
        ));
        live = merge.next().expect("in memory");
    }
    assert!(!merge.is_valid());
    all
}

#[test]
fn equal_entries_come_in_the_order_of_their_runs() {
    for count in 1..=5usize {
        let runs = (0..count)
            .map(|run| VecCursor::new(vec![entry("k", 0, &run.to_string()), entry("l", 1, "")]))
            .collect();
        let mut merge = Merge::new(runs, 0);
        let live = merge.seek_to_first().expect("in memory");
        let all = drain(&mut merge, live);
        let values: Vec<_> = all[..count].iter().map(|entry| entry.3.clone()).collect();
        let wanted: Vec<_> = (0..count).map(|run| run.to_string().into_bytes()).collect();
        assert_eq!(values, wanted);
    }
}

#[test]
fn any_number_of_runs_merges_as_sorting_does() {
    let mut random = Random::printed("merge", 0x5eed);
    for round in 0..400 {
        let run_count = round % 9;
        let prefix = ["", "shared/prefix/"][round % 2];
        let mut runs: Vec<Vec<VecEntry>> = vec![Vec::new(); run_count];
        for at in 1..=random.below(60) {
            if run_count > 0 {
                let run = random.index(run_count);
                // Keys that tie in their first eight bytes, differ in length, or end in zeros.
                let user_key = match random.below(4) {
                    0 => format!("{prefix}{}", random.below(4)),
                    1 => format!("{prefix}aaaaaaaaaa{}", random.below(9)),
                    2 => format!("{prefix}{}\0", random.below(4)),
                    _ => prefix.to_owned(),
                };
                runs[run].push(entry(&user_key, at, &run.to_string()));
            }
        }
        let mut wanted: Vec<VecEntry> = runs.iter().flatten().cloned().collect();
        wanted.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
        let cursors: Vec<_> = runs.into_iter().map(VecCursor::new).collect();
        let mut merge = Merge::new(cursors.clone(), prefix.len());
        let live = merge.seek_to_first().expect("in memory");
        assert_eq!(drain(&mut merge, live), wanted);

        let target = format!("{prefix}{}", random.below(5));
        let from = InternalKey::seek_to(target.as_bytes(), SequenceNumber::MAX);
        let live = merge.seek(from).expect("in memory");
        let rest: Vec<_> = wanted
            .into_iter()
            .filter(|e| e.0.as_slice() >= target.as_bytes())
            .collect();
        assert_eq!(drain(&mut merge, live), rest);
    }
}

/// Runs that hardly interleave, so that it gallops over blocks and out of them again, into ties,
/// and to the end of all other runs.
#[test]
fn galloping_changes_nothing() {
    let mut random = Random::printed("gallop", 0x9a110);
    for round in 0..300 {
        let run_count = 2 + round % 6;
        let mut runs: Vec<Vec<VecEntry>> = vec![Vec::new(); run_count];
        let mut run = 0;
        for at in 1..=400u64 {
            let stay = 1 + random.below(40);
            if random.one_in(stay) {
                run = random.index(run_count);
            }
            let divisor = 1 + random.below(2);
            let user_key = format!("{:03}", at / divisor);
            runs[run].push(entry(&user_key, at, &run.to_string()));
            if random.one_in(20) {
                // The same entry in a second run: the newer one's comes first.
                let twin = random.index(run_count);
                runs[twin].push(entry(&user_key, at, &twin.to_string()));
            }
        }
        for entries in &mut runs {
            entries.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
            entries.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        }
        let mut wanted: Vec<VecEntry> = runs.iter().flatten().cloned().collect();
        // Stable, and the runs are in their order.
        wanted.sort_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
        let mut merge = Merge::new(runs.into_iter().map(VecCursor::new).collect(), 0);
        let live = merge.seek_to_first().expect("in memory");
        assert_eq!(drain(&mut merge, live), wanted);
    }
}

/// A key that is compared is counted: none is within the blocks of runs that do not interleave.
#[test]
fn runs_one_after_the_other_cost_a_search_a_block() {
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Debug)]
    struct Counted(VecCursor, Rc<Cell<u64>>);

    impl Cursor for Counted {
        fn seek_to_first(&mut self) -> Result<bool> {
            self.0.seek_to_first()
        }
        fn seek_to_last(&mut self) -> Result<bool> {
            self.0.seek_to_last()
        }
        fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
            self.0.seek(target)
        }
        fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
            self.0.seek_for_prev(target)
        }
        fn next(&mut self) -> Result<bool> {
            self.0.next()
        }
        fn prev(&mut self) -> Result<bool> {
            self.0.prev()
        }
        fn is_valid(&self) -> bool {
            self.0.is_valid()
        }
        fn key(&self) -> InternalKey<'_> {
            self.0.key()
        }
        fn value(&self) -> &[u8] {
            self.0.value()
        }
        fn ahead_before(&self, target: Option<InternalKey<'_>>) -> usize {
            self.1.set(self.1.get() + 1);
            self.0.ahead_before(target)
        }
    }

    for run_count in [2u64, 5] {
        let searches = Rc::new(Cell::new(0));
        let runs = (0..run_count).rev().map(|run| {
            let keys = run * 800..(run + 1) * 800;
            let entries = keys.map(|n| entry(&format!("{n:08}"), n + 1, "")).collect();
            Counted(VecCursor::new(entries), Rc::clone(&searches))
        });
        let mut merge = Merge::new(runs.collect(), 0);
        let mut live = merge.seek_to_first().expect("in memory");
        let mut count = 0;
        while live {
            count += 1;
            live = merge.next().expect("in memory");
        }
        assert_eq!(count, run_count * 800);
        // A hundred blocks a run; at a change of runs the streak begins anew.
        let searches = searches.get();
        assert!(
            (90 * run_count..=102 * run_count).contains(&searches),
            "{searches}"
        );
    }
}

#[test]
fn a_merge_of_nothing_is_empty() {
    let mut merge = Merge::<VecCursor>::new(Vec::new(), 0);
    assert!(!merge.seek_to_first().expect("in memory"));
    assert!(!merge.is_valid());
}
