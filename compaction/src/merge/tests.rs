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

#[test]
fn a_merge_of_nothing_is_empty() {
    let mut merge = Merge::<VecCursor>::new(Vec::new(), 0);
    assert!(!merge.seek_to_first().expect("in memory"));
    assert!(!merge.is_valid());
}
