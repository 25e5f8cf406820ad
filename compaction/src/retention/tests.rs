//! Every small history under every small set of pins, against an oracle that looks at nothing but
//! what readers see.

use super::*;

/// Versions of one key, newest first.
type History = Vec<(u64, KeyKind)>;

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

/// What a reader at `at` sees of the versions, and then of what lies deeper.
fn read(versions: &[(u64, KeyKind)], labels: &[u64], at: u64, deeper: Option<u64>) -> Option<u64> {
    match versions
        .iter()
        .zip(labels)
        .find(|((version, _), _)| *version <= at)
    {
        Some(((_, KeyKind::Put), label)) => Some(*label),
        Some(((_, KeyKind::Delete), _)) => None,
        None => deeper,
    }
}

/// Drives the verdicts as a job does. Returns the survivors with, as their value, the sequence
/// that they were written at.
fn survivors(
    retention: &Retention,
    place: Place,
    history: &[(u64, KeyKind)],
) -> (History, Vec<u64>) {
    let mut state = KeyState::new();
    let (mut kept, mut labels) = (Vec::new(), Vec::new());
    for (at, kind) in history {
        if let Verdict::Keep(new) = retention.judge(&mut state, seq(*at), *kind, place) {
            if let Some(tombstone) = state.pending() {
                kept.push((tombstone.get(), KeyKind::Delete));
                labels.push(tombstone.get());
                Retention::settle(&mut state);
            }
            kept.push((new.get(), *kind));
            labels.push(*at);
        }
    }
    (kept, labels)
}

const SEQ_MAX: u64 = 6;
/// Older than every version in a history, so that no snapshot of these tests is below it.
const DEEPER: u64 = 1000;

fn histories() -> Vec<History> {
    // Each sequence number is unused, a put or a tombstone.
    (0..3u32.pow(6))
        .map(|code| {
            let digit = |at: u64| code / 3u32.pow(u32::try_from(at - 1).expect("small")) % 3;
            (1..=SEQ_MAX)
                .rev()
                .filter_map(|at| match digit(at) {
                    1 => Some((at, KeyKind::Put)),
                    2 => Some((at, KeyKind::Delete)),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

/// Every set of snapshots below `visible`, 0 included.
fn pin_sets() -> Vec<(Vec<SequenceNumber>, u64)> {
    let mut sets = Vec::new();
    for visible in 0..=SEQ_MAX + 1 {
        for bits in 0..1u32 << visible {
            let snapshots = (0..visible)
                .filter(|at| bits >> at & 1 == 1)
                .map(seq)
                .collect();
            sets.push((snapshots, visible));
        }
    }
    sets
}

/// The sequences at which somebody can read: the pins, and everything above the visible one.
fn readers(snapshots: &[SequenceNumber], visible: u64) -> Vec<u64> {
    let mut at: Vec<_> = snapshots.iter().map(|pin| pin.get()).collect();
    at.extend(visible..=SEQ_MAX + 1);
    at
}

fn answers(
    versions: &[(u64, KeyKind)],
    labels: &[u64],
    readers: &[u64],
    place: Place,
) -> Vec<Option<u64>> {
    // A deeper version shows through wherever nothing above hides it, and it may be there or not.
    let deeper = if place.may_be_deeper {
        vec![None, Some(DEEPER)]
    } else {
        vec![None]
    };
    let pairs = deeper
        .iter()
        .flat_map(|deeper| readers.iter().map(move |at| (*deeper, *at)));
    pairs
        .map(|(deeper, at)| read(versions, labels, at, deeper))
        .collect()
}

#[test]
fn no_reader_sees_a_difference_and_nothing_needless_stays() {
    let places = [
        Place {
            may_be_deeper: true,
            is_bottom: false,
        },
        Place {
            may_be_deeper: false,
            is_bottom: false,
        },
        Place {
            may_be_deeper: false,
            is_bottom: true,
        },
    ];
    for (snapshots, visible) in pin_sets() {
        let retention = Retention::new(&snapshots, seq(visible));
        let readers = readers(&snapshots, visible);
        for history in histories() {
            let own: Vec<_> = history.iter().map(|(at, _)| *at).collect();
            for place in places {
                let context = || format!("{history:?} {snapshots:?} {visible} {place:?}");
                let (kept, labels) = survivors(&retention, place, &history);
                assert!(kept.is_sorted_by(|a, b| a.0 > b.0), "{}", context());
                let before = answers(&history, &own, &readers, place);
                assert_eq!(
                    answers(&kept, &labels, &readers, place),
                    before,
                    "{}",
                    context()
                );
                for gone in 0..kept.len() {
                    let (mut fewer, mut labels) = (kept.clone(), labels.clone());
                    fewer.remove(gone);
                    labels.remove(gone);
                    let after = answers(&fewer, &labels, &readers, place);
                    // With something deeper, of two tombstones in a row the newer one stays: a
                    // rule that can be seen from the key's own versions is worth more than it.
                    let doubled = place.may_be_deeper
                        && kept[gone].1 == KeyKind::Delete
                        && kept
                            .get(gone + 1)
                            .is_some_and(|next| next.1 == KeyKind::Delete);
                    assert!(doubled || after != before, "needless {gone}: {}", context());
                }
            }
        }
    }
}

#[test]
fn sequences_are_zeroed_only_at_the_bottom_and_below_every_pin() {
    for (snapshots, visible) in pin_sets() {
        let retention = Retention::new(&snapshots, seq(visible));
        let oldest = retention.oldest_pin();
        for history in histories() {
            for is_bottom in [false, true] {
                let place = Place {
                    may_be_deeper: false,
                    is_bottom,
                };
                let (kept, labels) = survivors(&retention, place, &history);
                for ((now, kind), was) in kept.iter().zip(labels) {
                    let zeroed = is_bottom && seq(was) <= oldest;
                    assert_eq!(*now, if zeroed { 0 } else { was });
                    assert!(
                        !zeroed || *kind == KeyKind::Put,
                        "a tombstone at the bottom"
                    );
                }
            }
        }
    }
}

#[test]
fn zeroed_versions_lose_against_newer_ones_and_survive_alone() {
    let retention = Retention::new(&[], seq(9));
    let place = Place {
        may_be_deeper: false,
        is_bottom: true,
    };
    let over = [(7, KeyKind::Put), (0, KeyKind::Put)];
    assert_eq!(
        survivors(&retention, place, &over),
        (vec![(0, KeyKind::Put)], vec![7])
    );
    let alone = [(0, KeyKind::Put)];
    assert_eq!(
        survivors(&retention, place, &alone),
        (vec![(0, KeyKind::Put)], vec![0])
    );
    let deleted = [(7, KeyKind::Delete), (0, KeyKind::Put)];
    assert_eq!(survivors(&retention, place, &deleted), (vec![], vec![]));
}

#[test]
fn a_snapshot_at_zero_is_a_pin_like_any_other() {
    let retention = Retention::new(&[seq(0)], seq(9));
    let place = Place {
        may_be_deeper: false,
        is_bottom: true,
    };
    let (kept, _) = survivors(&retention, place, &[(5, KeyKind::Put)]);
    assert_eq!(kept, [(5, KeyKind::Put)]);
}
