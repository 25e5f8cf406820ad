use base::FileNumber;
use base::fs::CountingFs;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::SimFs;
use base::sync::Mutex;
use base::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::retention::{Retention, removable};
use crate::testing::{Feeder, Site, check, go_on, op_count, seq, sim};

mod following;

/// Nobody waits so long unless something hangs.
const WATCHDOG: Duration = Duration::from_secs(60);
const NOT_AT_ALL: Duration = Duration::ZERO;

/// What there is to read at once.
fn drain(tail: &mut Tail) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    while let Some(record) = tail.next(NOT_AT_ALL)? {
        check(&record.meta, &record.payload);
        found.push(record.meta.first_seq.get());
    }
    Ok(found)
}

/// Seals what it can and unlinks every sealed segment but the newest `keep`.
fn retire(site: &Site, log: &Log, keep: usize) -> Vec<FileNumber> {
    while log.maintain().expect("maintained") {}
    let sealed = log.sealed();
    let gone = sealed.len().saturating_sub(keep);
    let floor = sealed[..gone].last().map_or(seq(0), |last| last.last_seq);
    let gone = removable(&sealed, floor, &Retention::default(), &[], 0);
    log.forget(&gone);
    for number in &gone {
        for kind in [FileKind::Segment, FileKind::SegmentIndex] {
            let path = kind.path(&site.dir, *number);
            site.fs.remove_file(&path).expect("removed");
        }
    }
    gone
}

#[test]
fn a_tail_sees_what_it_may_and_all_of_it() {
    let log = Site::new(sim(1)).start();
    let mut feeder = Feeder::new();
    let mut appended = log.tail(seq(1), TailUpto::Appended).expect("opened");
    let mut durable = log.tail(seq(1), TailUpto::Durable).expect("opened");
    let (mut seen_appended, mut seen_durable) = (Vec::new(), Vec::new());
    for round in 0..100 {
        feeder.append_many(&log, 3);
        seen_appended.extend(drain(&mut appended).expect("readable"));
        assert_eq!(seen_appended, feeder.appended);
        if round % 4 == 3 {
            log.sync().expect("synced");
            seen_durable.extend(drain(&mut durable).expect("readable"));
            assert_eq!(seen_durable, feeder.appended);
        }
        assert_eq!(drain(&mut durable).expect("readable"), Vec::<u64>::new());
        if round % 10 == 0 && log.maintain().expect("maintained") {
            // To seal is to sync.
            seen_durable.extend(drain(&mut durable).expect("readable"));
            assert!(feeder.appended.starts_with(&seen_durable));
        }
    }
    assert!(log.end().ordinal > 4);
    log.close().expect("closed");
    for tail in [&mut appended, &mut durable] {
        assert_eq!(drain(tail).expect("readable"), Vec::<u64>::new());
    }
}

#[test]
fn tails_beside_writers_lose_and_repeat_nothing() {
    let site = Site::new(sim(1));
    let log = site.start();
    let feeder = Mutex::new(Feeder::new());
    let total = 4 * 400;
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (log, feeder) = (&log, &feeder);
            scope.spawn(move || {
                for round in 0..400 {
                    let end = feeder.lock().append(log).expect("appended").end;
                    if (round + writer) % 8 == 0 {
                        log.sync_upto(end).expect("synced");
                    }
                }
                log.sync().expect("synced");
            });
        }
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                if !log.maintain().expect("maintained") {
                    std::thread::yield_now();
                }
            }
        });
        let readers: Vec<_> = [TailUpto::Durable, TailUpto::Appended, TailUpto::Durable]
            .into_iter()
            .map(|upto| {
                let log = &log;
                scope.spawn(move || {
                    let mut tail = log.tail(seq(1), upto).expect("opened");
                    let mut found = Vec::new();
                    while found.len() < total {
                        let record = tail.next(WATCHDOG).expect("readable").expect("there");
                        check(&record.meta, &record.payload);
                        if upto == TailUpto::Durable {
                            assert!(record.end <= log.durable_upto());
                        }
                        found.push(record.meta.first_seq.get());
                    }
                    found
                })
            })
            .collect();
        let found: Vec<_> = readers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        is_done.store(true, Ordering::SeqCst);
        for found in found {
            let found = found.expect("no panic");
            assert_eq!(found, feeder.lock().appended);
        }
    });
    assert!(log.end().ordinal > 10);
}

#[test]
fn a_tail_begins_with_the_record_that_holds_a_number() {
    let site = Site::new(sim(1));
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 90);
    while log.maintain().expect("maintained") {}
    feeder.append_many(&log, 40);
    for from in 0..feeder.next_seq + 5 {
        let mut tail = log.tail(seq(from), TailUpto::Appended).expect("opened");
        let first = feeder
            .appended
            .partition_point(|first| first + u64::from(op_count(*first)) <= from);
        let found = drain(&mut tail).expect("readable");
        assert_eq!(found, feeder.appended[first..], "from={from}");
    }
    let mut tail = log
        .tail(seq(feeder.next_seq), TailUpto::Appended)
        .expect("opened");
    assert_eq!(drain(&mut tail).expect("readable"), Vec::<u64>::new());
    let next = feeder.next_seq;
    feeder.append(&log).expect("appended");
    assert_eq!(drain(&mut tail).expect("readable"), [next]);
}

#[test]
fn a_tail_reads_each_byte_about_once() {
    let fs = CountingFs::new(sim(1));
    let counts = fs.counts();
    let site = Site {
        segment_bytes: 1 << 20,
        ..Site::new(Arc::new(fs))
    };
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 4000);
    let stored = log.end().offset;
    let mut tail = log.tail(seq(1), TailUpto::Appended).expect("opened");
    let before = counts.read_bytes();
    assert_eq!(drain(&mut tail).expect("readable"), feeder.appended);
    let read = counts.read_bytes() - before;
    assert!(read < 2 * stored, "{read} of {stored}");
    // From near the end it reads little, although no index was written yet.
    let before = counts.read_bytes();
    let from = seq(feeder.appended[3990]);
    let mut tail = log.tail(from, TailUpto::Appended).expect("opened");
    assert_eq!(drain(&mut tail).expect("readable"), feeder.appended[3990..]);
    let read = counts.read_bytes() - before;
    assert!(read < 300 << 10, "a window or two: {read}");
}

#[test]
fn what_was_retired_cannot_be_read_from() {
    let site = Site::new(sim(1));
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 200);
    assert!(!retire(&site, &log, 2).is_empty());
    let oldest = log.sealed()[0].first_seq.get();
    for from in 0..oldest {
        let error = log
            .tail(seq(from), TailUpto::Appended)
            .expect_err("it is gone");
        assert!(error.is_not_found(), "from={from}: {error}");
    }
    let mut tail = log.tail(seq(oldest), TailUpto::Appended).expect("opened");
    let first = feeder.appended.partition_point(|first| *first < oldest);
    assert_eq!(
        drain(&mut tail).expect("readable"),
        feeder.appended[first..]
    );
}

#[test]
fn a_segment_retired_before_it_was_read_is_not_passed_over() {
    for read_before in [0, 10, 45] {
        let site = Site::new(sim(1));
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, 250);
        let mut tail = log.tail(seq(1), TailUpto::Appended).expect("opened");
        for _ in 0..read_before {
            tail.next(NOT_AT_ALL).expect("readable").expect("there");
        }
        let gone = retire(&site, &log, 1);
        assert!(gone.len() >= 3);
        let mut found = read_before;
        let error = loop {
            match tail.next(NOT_AT_ALL) {
                Ok(Some(record)) => {
                    let first = record.meta.first_seq.get();
                    assert_eq!(first, feeder.appended[found], "nothing is left out");
                    found += 1;
                }
                Ok(None) => panic!("it came to the end"),
                Err(error) => break error,
            }
        };
        assert!(error.is_not_found(), "{error}");
    }
}

#[test]
fn a_gap_in_the_numbers_is_no_gap_in_the_log() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 200);
    retire(&site, &log, 2);
    log.sync().expect("synced");
    let last = feeder.next_seq - 1;
    let floor = log.sealed()[0].first_seq.before();
    drop(log);
    let mut prepared = site
        .recover_with(|config| {
            config.floor = floor;
            config.flushed_max = floor;
        })
        .expect("recovered");
    // An unclean open leaves a gap.
    prepared.successor.first_seq = seq(last + 1000);
    let log = go_on(&site, &prepared).expect("started");
    for from in [last + 1, last + 500, last + 1000] {
        let mut tail = log.tail(seq(from), TailUpto::Durable).expect("opened");
        assert_eq!(drain(&mut tail).expect("readable"), Vec::<u64>::new());
    }
    let mut tail = log.tail(floor.plus(1), TailUpto::Durable).expect("opened");
    let first = feeder.appended.partition_point(|f| *f <= floor.get());
    assert_eq!(
        drain(&mut tail).expect("readable"),
        feeder.appended[first..]
    );
    assert!(log.tail(floor, TailUpto::Durable).is_err());
}

#[test]
fn damage_is_an_error_and_not_the_end() {
    // In a sealed segment and in the live one.
    for is_sealed in [true, false] {
        let fs = sim(1);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, 10);
        let at = feeder.ends[4].offset;
        let path = site.path(log.live_number());
        if is_sealed {
            log.rotate().expect("rotated");
            feeder.append_many(&log, 10);
            while log.maintain().expect("maintained") {}
        }
        let mut bytes = fs.contents(&path).expect("there");
        bytes[usize::try_from(at).expect("small") + 20] ^= 1;
        fs.install(&path, &bytes).expect("installed");
        let mut tail = log.tail(seq(1), TailUpto::Appended).expect("opened");
        for first in &feeder.appended[..5] {
            let record = tail.next(NOT_AT_ALL).expect("readable").expect("there");
            assert_eq!(record.meta.first_seq.get(), *first);
        }
        for _ in 0..2 {
            let error = tail.next(NOT_AT_ALL).expect_err("damaged");
            assert!(error.is_corruption(), "{error}");
            assert_eq!((error.path(), error.offset()), (Some(&*path), Some(at)));
        }
    }
}

#[test]
fn a_poisoned_log_ends_a_tail_behind_its_last_record() {
    let fs: Arc<SimFs> = sim(1);
    let log = Site::new(fs.clone()).start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 5);
    log.sync().expect("synced");
    feeder.append_many(&log, 5);
    let mut durable = log.tail(seq(1), TailUpto::Durable).expect("opened");
    let mut appended = log.tail(seq(1), TailUpto::Appended).expect("opened");
    fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut count = 0;
            loop {
                match durable.next(WATCHDOG) {
                    Ok(record) => {
                        record.expect("it is woken");
                        count += 1;
                    }
                    Err(error) => return (count, error),
                }
            }
        });
        log.sync().expect_err("it fails");
        waiting.join().expect("no panic")
    });
    assert_eq!(waiting.0, 5);
    assert!(waiting.1.to_string().contains("injected"));
    let mut count = 0;
    while let Ok(record) = appended.next(NOT_AT_ALL) {
        record.expect("it says why");
        count += 1;
    }
    assert_eq!(count, 10);
}

#[test]
fn a_timeout_holds_although_others_ring() {
    let site = Site {
        segment_bytes: 1 << 24,
        ..Site::new(sim(1))
    };
    let log = site.start();
    let mut tail = log.tail(seq(1), TailUpto::Durable).expect("opened");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut feeder = Feeder::new();
            // What is not synced is not for this tail; each append wakes it. Bounded, so that a
            // failure is no hang.
            while !is_done.load(Ordering::SeqCst) && feeder.appended.len() < 100_000 {
                feeder.append(&log).expect("appended");
                site.clock.advance(1000);
            }
            assert!(is_done.load(Ordering::SeqCst), "it did not end in time");
        });
        let found = tail.next(Duration::from_millis(20)).expect("readable");
        is_done.store(true, Ordering::SeqCst);
        assert!(found.is_none());
    });
}
