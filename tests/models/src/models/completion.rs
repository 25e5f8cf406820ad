//! The completion prefix of the log.

use loom::thread;
use real_base::{Error, ErrorKind, SequenceNumber};
use real_log::Position;

use super::{explore, explore_with};
use crate::completion::{Completed, Completion};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Bell, Mutex};

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

/// What the record of ticket `n` reaches.
fn reaches(n: u64) -> Completed {
    Completed {
        position: Position {
            ordinal: 0,
            offset: 100 + n,
        },
        seq: seq(10 + n),
    }
}

fn start() -> Completed {
    Completed {
        position: Position::default(),
        seq: seq(9),
    }
}

/// A log whose records are bits.
struct Records {
    ring: Completion,
    next: Mutex<u64>,
    /// Relaxed: that others see them is what the ring is to make sure of.
    written: [AtomicBool; 3],
}

impl Records {
    fn new(in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self {
            ring: Completion::new(start(), in_flight_max),
            next: Mutex::new(0),
            written: [(); 3].map(|()| AtomicBool::new(false)),
        })
    }

    fn take(&self) -> u64 {
        let mut next = self.next.lock();
        self.ring.make_room(*next).expect("nothing fails");
        *next += 1;
        *next - 1
    }

    fn fill(&self, ticket: u64) -> bool {
        let place = usize::try_from(ticket).expect("small");
        self.written[place].store(true, Ordering::Relaxed);
        self.ring.complete(ticket, reaches(ticket))
    }

    fn check_before(&self, end: u64) {
        let end = usize::try_from(end).expect("small");
        for earlier in &self.written[..end] {
            assert!(earlier.load(Ordering::Relaxed), "a hole before {end}");
        }
    }

    fn write(&self) {
        let ticket = self.take();
        self.fill(ticket);
        self.ring.wait(ticket).expect("nothing fails");
        self.check_before(ticket + 1);
    }
}

/// Two write, and one waits for what both have written, as a flush does.
pub fn records_count_without_a_hole() {
    explore(|| {
        let records = Records::new(2);
        let writer = || {
            let records = Arc::clone(&records);
            thread::spawn(move || records.write())
        };
        let writers = [writer(), writer()];
        records.ring.wait_seq(seq(11)).expect("nothing fails");
        records.check_before(2);
        for writer in writers {
            writer.join().expect("a panic ends the model");
        }
    });
}

/// More tickets than there is room for at a time.
pub fn tickets_wait_for_room() {
    explore(|| {
        let records = Records::new(1);
        let there = Arc::clone(&records);
        let writer = thread::spawn(move || {
            there.write();
            there.write();
        });
        records.write();
        writer.join().expect("a panic ends the model");
        records.check_before(3);
    });
}

/// A record in the middle is never written: whoever waits for a later one is told, and nobody
/// sleeps for ever.
pub fn a_failure_ends_every_wait() {
    explore_with(3, || {
        let records = Records::new(4);
        let [first, lost, last] = [records.take(), records.take(), records.take()];
        let failing = Arc::clone(&records);
        let failing = thread::spawn(move || {
            let error = Error::new(ErrorKind::Io, "this one is meant");
            failing.ring.fail(&error);
        });
        let other = Arc::clone(&records);
        let other = thread::spawn(move || {
            other.fill(last);
            assert!(other.ring.wait(last).is_err());
            assert!(other.ring.wait(lost).is_err());
        });
        records.fill(first);
        records.ring.wait(first).expect("it is whole");
        let first_seq = reaches(first).seq;
        records.ring.wait_seq(first_seq).expect("it is whole");
        assert!(records.ring.wait_seq(reaches(last).seq).is_err());
        for thread in [failing, other] {
            thread.join().expect("a panic ends the model");
        }
        assert_eq!(records.ring.upto(), reaches(first));
    });
}

/// A tail sleeps on a bell that writers ring only while somebody listens.
pub fn a_tail_hears_of_every_record() {
    explore(|| {
        let records = Records::new(2);
        let bell = Arc::new(Bell::new());
        let writer = || {
            let (records, bell) = (Arc::clone(&records), Arc::clone(&bell));
            thread::spawn(move || {
                let ticket = records.take();
                if records.fill(ticket) {
                    bell.ring();
                }
            })
        };
        let writers = [writer(), writer()];
        records.ring.listen();
        loop {
            let seen = bell.epoch();
            if records.ring.upto() == reaches(1) {
                break;
            }
            bell.wait_past(seen, None);
        }
        records.ring.stop_listening();
        records.check_before(2);
        for writer in writers {
            writer.join().expect("a panic ends the model");
        }
    });
}
