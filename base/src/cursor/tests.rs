use super::*;
use crate::key::{KeyKind, SequenceNumber};
use crate::random::Random;

fn random_runs(random: &mut Random) -> (MergeCursor<VecCursor>, VecCursor) {
    let run_count = 1 + random.below(6);
    let mut all = Vec::new();
    let mut runs: Vec<Vec<_>> = (0..run_count).map(|_| Vec::new()).collect();
    for seq in 1..=random.below(60) {
        let key = vec![b'a' + u8::try_from(random.below(8)).expect("small")];
        let seq = SequenceNumber::new(seq).expect("small");
        let entry = (key, seq, KeyKind::Put, seq.get().to_le_bytes().to_vec());
        let run = usize::try_from(random.below(run_count)).expect("small");
        runs[run].push(entry.clone());
        all.push(entry);
    }
    (
        MergeCursor::new(runs.into_iter().map(VecCursor::new).collect()),
        VecCursor::new(all),
    )
}

#[test]
fn a_merge_moves_like_one_sorted_run() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let (mut merged, mut oracle) = random_runs(&mut random);
        for _ in 0..200 {
            let user_key = [b'a' + u8::try_from(random.below(9)).expect("small")];
            let seq = SequenceNumber::new(random.below(60)).expect("small");
            let target = InternalKey::seek_to(&user_key, seq);
            let (got, want) = match random.below(12) {
                0 => (merged.seek_to_first(), oracle.seek_to_first()),
                1 => (merged.seek_to_last(), oracle.seek_to_last()),
                2 => (merged.seek(target), oracle.seek(target)),
                3 => (merged.seek_for_prev(target), oracle.seek_for_prev(target)),
                n if !oracle.is_valid() => {
                    let _ = n; // A step needs an entry to start from.
                    (merged.seek_to_first(), oracle.seek_to_first())
                }
                n if n % 2 == 0 => (merged.next(), oracle.next()),
                _ => (merged.prev(), oracle.prev()),
            };
            let (got, want) = (got.expect("in memory"), want.expect("in memory"));
            assert_eq!(got, want, "seed={seed}");
            if want {
                assert_eq!(merged.key(), oracle.key(), "seed={seed}");
                assert_eq!(merged.value(), oracle.value(), "seed={seed}");
            }
        }
    }
}
