use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use base::ErrorKind;

use super::*;

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

/// What the record of ticket `n` reaches; every third has no operation of its own.
fn reaches(n: u64) -> Completed {
    Completed {
        position: Position {
            ordinal: n / 5,
            offset: 100 + n,
        },
        seq: seq(if n % 3 == 2 { 0 } else { 10 + n }),
    }
}

fn start() -> Completed {
    Completed {
        position: Position::default(),
        seq: seq(9),
    }
}

fn failure() -> Error {
    Error::new(ErrorKind::Io, "this one is meant")
}

/// What the prefix must be once these tickets are complete.
fn expected(complete: &HashSet<u64>) -> (u64, Completed) {
    let head = (0..1000).find(|n| !complete.contains(n)).expect("few");
    let mut upto = start();
    for n in 0..head {
        upto.position = reaches(n).position;
        upto.seq = upto.seq.max(reaches(n).seq);
    }
    (head, upto)
}

/// Every order in which reservations and completions of `total` tickets can follow each other,
/// with at most `in_flight_max` open and one that may never complete.
struct Explorer {
    in_flight_max: u64,
    total: u64,
    lost: Option<u64>,
    states: usize,
}

impl Explorer {
    fn explore(&mut self, steps: &mut Vec<Option<u64>>) {
        // The ring cannot be copied, so that each path is walked again from its start.
        let in_flight_max = usize::try_from(self.in_flight_max).expect("small");
        let ring = Completion::new(start(), in_flight_max);
        ring.listen();
        let (mut taken, mut complete) = (0, HashSet::new());
        for step in steps.iter() {
            match step {
                None => taken += 1,
                Some(n) => {
                    let before = expected(&complete).0;
                    complete.insert(*n);
                    let grew = ring.complete(*n, reaches(*n));
                    assert_eq!(grew, expected(&complete).0 > before, "{steps:?}");
                }
            }
        }
        let (head, upto) = expected(&complete);
        assert_eq!(ring.upto(), upto, "{steps:?}");
        for n in 0..self.total {
            assert_eq!(ring.is_complete(n), n < head, "{steps:?} {n}");
        }
        self.states += 1;
        let has_room = taken - head < self.in_flight_max;
        if taken < self.total && has_room {
            ring.make_room(taken).expect("there is room");
            steps.push(None);
            self.explore(steps);
            steps.pop();
        }
        let lost = self.lost;
        for n in (0..taken).filter(|n| !complete.contains(n) && Some(*n) != lost) {
            steps.push(Some(n));
            self.explore(steps);
            steps.pop();
        }
        // A failure ends every wait for what is not complete, and no other.
        ring.fail(&failure());
        for n in 0..self.total {
            assert_eq!(ring.wait(n).is_ok(), n < head, "{steps:?} {n}");
        }
        assert_eq!(ring.make_room(taken).is_ok(), has_room, "{steps:?}");
        assert!(ring.wait_position(upto.position).is_ok());
        assert!(ring.wait_seq(upto.seq).is_ok());
        assert!(ring.wait_seq(seq(1000)).is_err());
    }
}

#[test]
fn every_order_of_reserving_and_completing_gives_the_prefix() {
    let mut states = 0;
    for (in_flight_max, total) in [(1, 4), (2, 6), (4, 6)] {
        for lost in [None, Some(0), Some(1), Some(total - 2)] {
            let mut explorer = Explorer {
                in_flight_max,
                total,
                lost,
                states: 0,
            };
            explorer.explore(&mut Vec::new());
            states += explorer.states;
        }
    }
    assert!(states > 5_000, "only {states} states");
}

#[test]
#[should_panic(expected = "completed once")]
fn a_ticket_is_completed_once() {
    let ring = Completion::new(start(), 4);
    ring.complete(0, reaches(0));
    ring.complete(0, reaches(0));
}

#[test]
#[should_panic(expected = "room was made")]
fn a_ticket_without_room_is_a_mistake() {
    Completion::new(start(), 4).complete(4, reaches(4));
}

/// Threads take tickets under a lock, complete them in any order, and wait.
fn run_threads(in_flight_max: usize, threads: u64, rounds: u64, lost: Option<u64>) {
    let ring = Completion::new(start(), in_flight_max);
    let next = Mutex::new(0u64);
    let written: Vec<_> = (0..threads * rounds)
        .map(|_| AtomicBool::new(false))
        .collect();
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let ticket = {
                        let mut next = next.lock();
                        if ring.make_room(*next).is_err() {
                            break;
                        }
                        *next += 1;
                        *next - 1
                    };
                    if lost == Some(ticket) {
                        ring.fail(&failure());
                        break;
                    }
                    if ticket % 7 == 0 {
                        std::thread::yield_now();
                    }
                    let place = usize::try_from(ticket).expect("small");
                    // Relaxed: that others see it is what the ring is to make sure of.
                    written[place].store(true, Ordering::Relaxed);
                    ring.complete(ticket, reaches(ticket));
                    if ring.wait(ticket).is_err() {
                        assert!(lost.is_some_and(|lost| lost < ticket));
                        break;
                    }
                    for earlier in &written[..=place] {
                        assert!(earlier.load(Ordering::Relaxed), "a hole before {ticket}");
                    }
                }
                failed.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    // Nobody is left waiting.
    assert_eq!(failed.load(Ordering::Relaxed) as u64, threads);
    assert_eq!(
        lost.is_none(),
        ring.upto().position == reaches(threads * rounds - 1).position
    );
}

#[test]
fn who_returns_sees_everything_before_and_nobody_waits_for_ever() {
    for in_flight_max in [1, 2, 1024] {
        run_threads(in_flight_max, 4, 400, None);
        run_threads(in_flight_max, 4, 400, Some(700));
        run_threads(in_flight_max, 4, 400, Some(0));
    }
}
