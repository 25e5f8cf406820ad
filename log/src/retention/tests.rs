use base::random::Random;

use super::*;

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

fn random_segments(random: &mut Random) -> Vec<SealedSegment> {
    let mut next_seq = 1;
    let mut micros = 1000;
    (0..random.below(12))
        .map(|ordinal| {
            let first_seq = seq(next_seq);
            next_seq += random.below(20);
            micros += random.below(100);
            SealedSegment {
                number: FileNumber(ordinal + 5),
                file_id: ordinal,
                ordinal,
                bytes: 1 + random.below(500),
                first_seq,
                last_seq: seq(next_seq.max(2) - 1),
                last_commit_micros: micros,
            }
        })
        .collect()
}

#[test]
fn only_a_prefix_goes_and_nothing_past_a_floor_or_cursor() {
    for seed in 0..5000 {
        let mut random = Random(seed);
        let sealed = random_segments(&mut random);
        let floor = seq(random.below(150));
        let cursors: Vec<_> = (0..random.below(3))
            .map(|_| seq(random.below(200)))
            .collect();
        let keep = Retention {
            keep_bytes: random.below(1500),
            keep_micros: random.below(3) * 100,
        };
        let now = 900 + random.below(1500);
        let gone = removable(&sealed, floor, &keep, &cursors, now);
        let prefix: Vec<_> = sealed.iter().take(gone.len()).map(|s| s.number).collect();
        assert_eq!(gone, prefix, "seed={seed}");
        let (gone, kept) = sealed.split_at(gone.len());
        for segment in gone {
            assert!(segment.last_seq <= floor, "seed={seed}");
            assert!(
                cursors.iter().all(|cursor| segment.last_seq <= *cursor),
                "seed={seed}"
            );
            let age = now.saturating_sub(segment.last_commit_micros);
            assert!(
                keep.keep_micros == 0 || age > keep.keep_micros,
                "seed={seed}"
            );
        }
        let kept_bytes: u64 = kept.iter().map(|segment| segment.bytes).sum();
        assert!(
            gone.is_empty() || kept_bytes >= keep.keep_bytes,
            "seed={seed}"
        );
        // And it is not kept for nothing.
        if let Some(first) = kept.first() {
            let needed = first.last_seq > floor
                || cursors.iter().any(|cursor| first.last_seq > *cursor)
                || keep.keep_micros > 0
                || kept_bytes - first.bytes < keep.keep_bytes;
            assert!(needed, "seed={seed}");
        }
    }
}
