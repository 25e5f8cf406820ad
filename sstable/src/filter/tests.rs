use super::*;

const SEED: HashSeed = HashSeed(0x5eed);

fn hashes(from: u32, to: u32) -> Vec<KeyHash> {
    (from..to).map(|n| SEED.hash(&n.to_le_bytes())).collect()
}

fn policies() -> impl Iterator<Item = FilterPolicy> {
    [1, 4, 10, 16, 32, 99].into_iter().flat_map(|bits_per_key| {
        [
            FilterPolicy::Blocked { bits_per_key },
            FilterPolicy::Bloom { bits_per_key },
        ]
    })
}

fn pieces(hashes: &[KeyHash]) -> Hashes {
    let mut pieces = Hashes::default();
    for hash in hashes {
        pieces.push(*hash);
    }
    assert!(pieces.iter().eq(hashes.iter().copied()));
    assert_eq!(pieces.len(), hashes.len());
    pieces
}

#[test]
fn hashes_take_no_more_room_than_they_need() {
    let len = Hashes::PIECE_LEN;
    for count in [0, 1, len - 1, len, len + 1, 3 * len + 1] {
        let pieces = pieces(&vec![KeyHash(7); count]);
        let room: usize = pieces.pieces.iter().map(Vec::capacity).sum();
        assert!(room < count + len, "{room} for {count}");
    }
}

#[test]
fn every_key_passes_under_every_policy_and_size() {
    for policy in policies() {
        for count in [1, 2, 3, 7, 64, 65, 5_000] {
            let keys = hashes(0, count);
            let block = policy.build(&pieces(&keys), SEED).expect("a filter");
            let filter = Filter::read(&block, SEED).expect("our own bytes");
            assert!(
                keys.iter().all(|hash| filter.may_contain(&block, *hash)),
                "{policy:?}"
            );
        }
    }
    assert_eq!(FilterPolicy::None.build(&pieces(&hashes(0, 9)), SEED), None);
    let none = FilterPolicy::Bloom { bits_per_key: 0 };
    assert_eq!(none.build(&pieces(&hashes(0, 9)), SEED), None);
}

#[test]
fn few_absent_keys_pass_at_ten_bits() {
    for policy in [
        FilterPolicy::Blocked { bits_per_key: 10 },
        FilterPolicy::Bloom { bits_per_key: 10 },
    ] {
        let block = policy
            .build(&pieces(&hashes(0, 20_000)), SEED)
            .expect("a filter");
        let filter = Filter::read(&block, SEED).expect("our own bytes");
        let absent = hashes(20_000, 120_000);
        let passed = absent
            .iter()
            .filter(|h| filter.may_contain(&block, **h))
            .count();
        assert!(passed < 1_500, "{policy:?} passed={passed}");
    }
}

#[test]
fn a_filter_that_would_divide_by_zero_or_probe_for_ever_is_refused() {
    let block = FilterPolicy::Bloom { bits_per_key: 10 }
        .build(&pieces(&hashes(0, 100)), SEED)
        .expect("a filter");
    let payload_len = block.len() - ENVELOPE_BYTES;

    let mut empty = block[..BLOOM_HEADER_BYTES].to_vec();
    empty[1..9].copy_from_slice(&0u64.to_le_bytes());
    let mut envelope = block[payload_len..].to_vec();
    envelope[24..32].copy_from_slice(&(BLOOM_HEADER_BYTES as u64).to_le_bytes());
    empty.extend_from_slice(&envelope);
    assert_eq!(Filter::read(&empty, SEED).err(), Some(Refusal::Malformed));

    for probes in [0, BLOOM_PROBES_MAX + 1, u32::MAX] {
        let mut busy = block.clone();
        busy[9..13].copy_from_slice(&probes.to_le_bytes());
        busy[payload_len + 4..payload_len + 8].copy_from_slice(&probes.to_le_bytes());
        assert_eq!(Filter::read(&busy, SEED).err(), Some(Refusal::Malformed));
    }
}

#[test]
fn every_changed_byte_of_an_envelope_is_refused_or_harmless() {
    for policy in policies() {
        let block = policy
            .build(&pieces(&hashes(0, 50)), SEED)
            .expect("a filter");
        for at in 0..block.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = block.clone();
                changed[at] ^= flip;
                if let Ok(filter) = Filter::read(&changed, SEED) {
                    for hash in hashes(0, 60) {
                        filter.may_contain(&changed, hash);
                    }
                }
            }
        }
        for len in 0..block.len() {
            assert!(
                Filter::read(&block[..len], SEED).is_err(),
                "{policy:?} len={len}"
            );
        }
    }
}

#[test]
fn another_seed_is_refused_and_an_unknown_policy_is_named() {
    let block = FilterPolicy::default()
        .build(&pieces(&hashes(0, 50)), SEED)
        .expect("a filter");
    assert_eq!(
        Filter::read(&block, HashSeed(1)).err(),
        Some(Refusal::Malformed)
    );
    let mut unknown = block.clone();
    let at = unknown.len() - ENVELOPE_BYTES;
    unknown[at] = 9;
    assert_eq!(
        Filter::read(&unknown, SEED).err(),
        Some(Refusal::UnknownPolicy(9))
    );
}

#[test]
fn the_bytes_of_both_policies_are_pinned() {
    // These bytes are in tables on disk: a new version of the crate may not change them.
    let keys = [
        KeyHash(1),
        KeyHash(0x0123_4567_89ab_cdef),
        KeyHash(u64::MAX),
    ];
    let bloom = FilterPolicy::Bloom { bits_per_key: 8 }
        .build(&pieces(&keys), SEED)
        .expect("a filter");
    assert_eq!(hex(&bloom[..13]), "01030000000000000006000000");
    assert_eq!(hex(&bloom[45..48]), "553125");
    let blocked = FilterPolicy::Blocked { bits_per_key: 10 }
        .build(&pieces(&keys), SEED)
        .expect("a filter");
    assert_eq!(
        hex(&blocked[..64]),
        concat!(
            "0004400000000400006000000001000000000080000000000000002000000000",
            "0000000004000020000000200104000200008000000000000020000000022000"
        )
    );
    assert_eq!(
        hex(&blocked[64..]),
        "01010000060000000300000000000000ed5e0000000000004000000000000000"
    );
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
        out
    })
}
