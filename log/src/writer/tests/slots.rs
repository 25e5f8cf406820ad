//! Records that are written side by side: out of order, never, and with a crash in between.

use base::fs::fault::{Effect, Fault, FaultError, FaultFs};
use base::fs::sim::CrashModel;
use std::time::Duration;

use super::*;
use crate::testing::{Random, op_count, payload};
use crate::{Tail, TailUpto};

const FORMS: [LogAppend; 2] = [LogAppend::Mapped, LogAppend::Positioned];

fn site(fs: &Arc<SimFs>, append: LogAppend) -> Site {
    Site {
        append,
        segment_bytes: 1536,
        ..Site::new(fs.clone())
    }
}

/// Slots of one log, in the order in which they were reserved.
struct Slots<'log> {
    log: &'log Log,
    next_seq: u64,
    /// First sequence number of every slot.
    reserved: Vec<u64>,
    open: Vec<Open<'log>>,
}

struct Open<'log> {
    first: u64,
    is_filled: bool,
    slot: LogSlot<'log>,
}

impl<'log> Slots<'log> {
    fn new(log: &'log Log) -> Self {
        Self {
            log,
            next_seq: 1,
            reserved: Vec::new(),
            open: Vec::new(),
        }
    }

    fn reserve(&mut self) -> Result<()> {
        let first = self.next_seq;
        let kind = RecordKind::Batch;
        let len = payload(first).len();
        let slot = self.log.reserve(kind, seq(first), op_count(first), len)?;
        self.next_seq += u64::from(op_count(first));
        self.reserved.push(first);
        self.open.push(Open {
            first,
            is_filled: false,
            slot,
        });
        Ok(())
    }

    /// Does the next thing to the open slot at `index`; a complete one is not open any more.
    fn step(&mut self, index: usize) -> Result<()> {
        let open = &mut self.open[index];
        if !open.is_filled {
            open.is_filled = true;
            return open.slot.fill(&payload(open.first));
        }
        open.slot.mark_complete();
        self.open.remove(index);
        Ok(())
    }

    /// How many slots, from the first on, are complete.
    fn prefix(&self) -> usize {
        let first = self.open.iter().map(|open| open.first).min();
        let is_before = |seq: &&u64| first.is_none_or(|first| **seq < first);
        self.reserved.iter().take_while(is_before).count()
    }
}

fn drain(tail: &mut Tail) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(record) = tail.next(Duration::ZERO).expect("readable") {
        found.push(record.meta.first_seq.get());
    }
    found
}

#[test]
fn what_lies_behind_a_hole_does_not_count() {
    for append in FORMS {
        let fs = sim(1);
        let log = site(&fs, append).start();
        let mut tail = log.tail(seq(1), TailUpto::Appended).expect("there");
        let mut slots = Slots::new(&log);
        let begin = log.end();
        for _ in 0..4 {
            slots.reserve().expect("reserved");
        }
        // The last three are filled and completed before the first.
        for _ in 0..6 {
            let last = slots.open.len() - 1;
            slots.step(last).expect("written");
        }
        assert_eq!(log.end(), begin);
        assert_eq!(log.completed().seq, seq(0));
        assert_eq!(drain(&mut tail), []);
        assert_eq!(log.sync().expect("synced"), begin);
        assert_eq!(log.durable_upto(), begin);
        slots.step(0).expect("written");
        assert_eq!(log.end(), begin, "filled is not complete");
        slots.step(0).expect("written");
        assert_eq!(log.completed().seq, seq(slots.next_seq - 1));
        assert_eq!(drain(&mut tail), slots.reserved);
        assert_eq!(log.sync().expect("synced"), log.end());
        assert_eq!(recovered(&fs), slots.reserved);
    }
}

#[test]
fn records_are_stored_until_each_few_are_synced() {
    let fs = sim(1);
    let site = Site {
        append: LogAppend::Auto,
        segment_bytes: 1 << 20,
        ..Site::new(fs.clone())
    };
    let log = site.start();
    let mut feeder = Feeder::new();
    let calls = watch_calls(&fs, &[OpKind::Write, OpKind::Store]);
    let forms = |feeder: &mut Feeder, count: usize, syncs: bool| {
        calls.lock().clear();
        for _ in 0..count {
            feeder.append(&log).expect("appended");
            if syncs {
                log.sync().expect("synced");
            }
        }
        let calls = calls.lock();
        let of = |kind| calls.iter().filter(|(found, _)| *found == kind).count();
        // A record is stored in two steps: its first word comes last.
        (of(OpKind::Write), of(OpKind::Store) / 2)
    };
    assert_eq!(forms(&mut feeder, 10, false), (0, 10));
    assert_eq!(forms(&mut feeder, 10, true), (9, 1));
    // Rarely again: a while later through the mapping, also after the next sync.
    let (written, stored) = forms(&mut feeder, 1000, false);
    assert!(written < 600, "{written}");
    assert_eq!(written + stored, 1000);
    log.sync().expect("synced");
    assert_eq!(forms(&mut feeder, 10, false), (0, 10));
    log.close().expect("closed");
    fs.set_observer(None);
    assert_eq!(recovered(&fs), feeder.appended);
}

/// Opens, fills and completes slots in an order that follows from `seed`; up to four are open.
/// Returns what was reserved, how much of it is complete and how much durable.
fn run(fs: &Arc<SimFs>, seed: u64, append: LogAppend) -> (Vec<u64>, usize, usize) {
    let mut random = Random(seed);
    let Ok(log) = Log::start(site(fs, append).config(), Successor::first(seq(1))) else {
        return (Vec::new(), 0, 0);
    };
    let mut slots = Slots::new(&log);
    let (mut complete, mut durable) = (0, 0);
    for _ in 0..60 {
        let done = match random.below(10) {
            0 if slots.open.is_empty() => log.maintain().map(|_| ()),
            0 | 1 => log.sync().map(|_| durable = complete),
            2 => log.rotate(),
            3..=5 if slots.open.len() < 4 => slots.reserve(),
            _ if slots.open.is_empty() => slots.reserve(),
            _ => {
                let open = slots.open.len() as u64;
                slots.step(usize::try_from(random.below(open)).expect("few"))
            }
        };
        if let Err(error) = done {
            assert!(fs.has_crashed(), "seed={seed}: {error}");
            break;
        }
        complete = slots.prefix();
    }
    (slots.reserved, complete, durable)
}

#[test]
fn after_every_crash_the_log_ends_before_the_first_hole_or_behind_it() {
    for (seed, append) in (0..6).flat_map(|seed| FORMS.map(|form| (seed, form))) {
        let calls = {
            let fs = sim(seed);
            let before = fs.mutation_count();
            run(&fs, seed, append);
            fs.mutation_count() - before
        };
        let mut holes = 0;
        for call in 1..=calls + 1 {
            let fs = sim(seed);
            fs.crash_after(call);
            let (reserved, complete, durable) = run(&fs, seed, append);
            for (index, model) in fs.crash_models(4, 4).iter().enumerate() {
                let case = format!("seed={seed} {append:?} call={call} index={index} {model:?}");
                let image = fs.crash_image(model, call * 53 + index as u64);
                let site = Site::new(image.clone());
                let prepared = site
                    .recover()
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                let found = site.records(&prepared);
                assert!(reserved.starts_with(&found), "{case}: {found:?}");
                let promised = match model {
                    CrashModel::Everything => complete,
                    _ => durable,
                };
                assert!(found.len() >= promised, "{case}: {found:?} of {promised}");
                holes += usize::from(prepared.dropped.is_some());
                // And the log goes on behind it.
                let log = crate::testing::go_on(&site, &prepared).expect("started");
                let mut feeder = Feeder::after(found);
                feeder.append_many(&log, 2);
                log.close().expect("closed");
                assert_eq!(recovered(&image), feeder.appended, "{case}");
            }
        }
        assert!(holes > 100, "seed={seed} {append:?}: only {holes} holes");
    }
}

#[test]
fn a_kill_between_reserving_and_filling_ends_the_log_there() {
    for (append, rotates) in FORMS.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        let fs = sim(1);
        let log = site(&fs, append).start();
        let mut slots = Slots::new(&log);
        for _ in 0..3 {
            slots.reserve().expect("reserved");
            slots.step(0).expect("filled");
            slots.step(0).expect("complete");
        }
        log.sync().expect("synced");
        slots.reserve().expect("reserved");
        if rotates {
            log.rotate().expect("rotated");
        }
        for _ in 0..2 {
            slots.reserve().expect("reserved");
            slots.step(1).expect("filled");
        }
        // What a later record says was durable does not reach the hole.
        let before = Slots::prefix(&slots);
        assert_eq!(before, 3);
        for model in [CrashModel::Everything, CrashModel::Data] {
            let image = fs.crash_image(&model, 1);
            let site = Site::new(image.clone());
            let prepared = site.recover().expect("the end of a log, no damage");
            assert_eq!(site.records(&prepared), slots.reserved[..3]);
            let dropped = prepared.dropped.expect("something was cut");
            assert_eq!(dropped.offset, slots.open[0].slot.start().offset);
        }
        // The same bytes, zeroed where a later record proves that they were durable.
        slots.step(0).expect("filled");
        slots.step(0).expect("complete");
        while !slots.open.is_empty() {
            slots.step(0).expect("complete");
        }
        log.sync().expect("synced");
        let hole = slots.reserved[3];
        slots.reserve().expect("reserved");
        slots.step(0).expect("filled");
        slots.step(0).expect("complete");
        let image = fs.crash_image(&CrashModel::Everything, 1);
        erase(&image, hole);
        let error = Site::new(image).recover().expect_err("it was durable");
        assert!(error.is_corruption(), "{error}");
    }
}

/// Zeroes the record that begins with `first`, wherever it lies.
fn erase(fs: &Arc<SimFs>, first: u64) {
    for path in fs.paths() {
        let mut bytes = fs.contents(&path).expect("there");
        let Ok(mut reader) = SegmentReader::open(&**fs, &path) else {
            continue;
        };
        let mut place = None;
        while let Some(record) = reader.next().expect("readable") {
            if record.meta.kind == RecordKind::Batch && record.meta.first_seq == seq(first) {
                place = Some(record.position.offset..record.end.offset);
            }
        }
        if let Some(place) = place {
            let [start, end] = [place.start, place.end].map(|at| usize::try_from(at).expect("few"));
            bytes[start..end].fill(0);
            fs.install(&path, &bytes).expect("installed");
            return;
        }
    }
    panic!("there is no record {first}");
}

#[test]
fn a_slot_that_is_given_up_poisons_the_log_and_wakes_who_waits_behind_it() {
    for append in FORMS {
        for unwinds in [false, true] {
            let fs = sim(1);
            let log = site(&fs, append).start();
            let mut feeder = Feeder::new();
            feeder.append_many(&log, 3);
            let (begun, completed) = (AtomicUsize::new(0), log.completed());
            std::thread::scope(|scope| {
                let given_up = log
                    .reserve(RecordKind::Batch, seq(100), 1, 9)
                    .expect("fits");
                for n in 0..3 {
                    let first = seq(101 + n);
                    let mut slot = log.reserve(RecordKind::Batch, first, 1, 9).expect("fits");
                    let begun = &begun;
                    scope.spawn(move || {
                        slot.fill(&[1; 9]).expect("filled");
                        begun.fetch_add(1, Ordering::SeqCst);
                        let error = slot.complete().expect_err("it lies behind a hole");
                        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                        assert_eq!(error.outcome(), Some(WriteOutcome::Indeterminate));
                    });
                }
                while begun.load(Ordering::SeqCst) < 3 {
                    std::thread::yield_now();
                }
                if unwinds {
                    let panicking = scope.spawn(move || {
                        let _slot = given_up;
                        panic!("this one is meant");
                    });
                    assert!(panicking.join().is_err());
                } else {
                    drop(given_up);
                }
            });
            assert_eq!(log.completed(), completed);
            for error in [
                log.append(RecordKind::Batch, seq(200), 1, b"")
                    .expect_err("poisoned"),
                log.rotate().expect_err("poisoned"),
                log.sync().expect_err("poisoned"),
                log.wait_completed(seq(102)).expect_err("poisoned"),
                log.close().expect_err("poisoned"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Poisoned);
            }
            let completed_seq = log.completed().seq;
            log.wait_completed(completed_seq)
                .expect("it was whole before");
            assert_eq!(recovered(&fs), feeder.appended);
        }
    }
}

#[test]
fn a_write_that_fails_fails_everybody_behind_it_and_nobody_before() {
    let fs = sim(1);
    let log = site(&fs, LogAppend::Positioned).start();
    let mut slots = Slots::new(&log);
    for _ in 0..3 {
        slots.reserve().expect("reserved");
    }
    let partly = Effect::FailPartly {
        bytes: 50,
        error: FaultError::Eio,
    };
    fs.fail(Fault::with_effect(OpKind::Write, partly));
    let middle = &mut slots.open[1];
    let error = middle.slot.fill(&payload(middle.first)).expect_err("meant");
    assert_eq!(error.outcome(), Some(WriteOutcome::Indeterminate));
    // The one after it finds the log poisoned, and touches nothing.
    let mutations = fs.mutation_count();
    let after = &mut slots.open[2];
    after
        .slot
        .fill(&payload(after.first))
        .expect_err("poisoned");
    assert_eq!(fs.mutation_count(), mutations);
    assert_eq!(recovered(&fs), []);
}

#[test]
fn sealing_and_closing_wait_for_open_slots() {
    for (append, closes) in FORMS.iter().flat_map(|f| [(*f, false), (*f, true)]) {
        let fs = sim(1);
        let log = site(&fs, append).start();
        let mut slots = Slots::new(&log);
        slots.reserve().expect("reserved");
        if !closes {
            log.rotate().expect("rotated");
        }
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let done = if closes {
                    log.close()
                } else {
                    log.maintain().map(|_| ())
                };
                done.expect("it can be done");
                is_done.store(true, Ordering::SeqCst);
            });
            for _ in 0..200 {
                std::thread::yield_now();
                assert!(!is_done.load(Ordering::SeqCst), "a record is still open");
            }
            slots.step(0).expect("filled");
            slots.step(0).expect("complete");
        });
        assert!(is_done.load(Ordering::SeqCst));
        for model in [CrashModel::Synced, CrashModel::Everything] {
            let image = fs.crash_image(&model, 1);
            assert_eq!(recovered(&image), slots.reserved);
        }
    }
}

#[test]
fn more_slots_than_can_be_open_wait_for_the_oldest() {
    let fs = sim(1);
    let log = Site {
        segment_bytes: 1 << 20,
        ..site(&fs, LogAppend::Auto)
    }
    .start();
    let mut slots = Slots::new(&log);
    for _ in 0..IN_FLIGHT_MAX {
        slots.reserve().expect("reserved");
    }
    let first = slots.next_seq;
    let is_reserved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let kind = RecordKind::Batch;
            log.append(kind, seq(first), op_count(first), &payload(first))
                .expect("appended");
            is_reserved.store(true, Ordering::SeqCst);
        });
        for _ in 0..200 {
            std::thread::yield_now();
            assert!(!is_reserved.load(Ordering::SeqCst), "there is no room");
        }
        while !slots.open.is_empty() {
            slots.step(0).expect("written");
        }
    });
    assert_eq!(
        log.completed().seq,
        seq(first + u64::from(op_count(first)) - 1)
    );
}

#[test]
fn where_nothing_can_be_mapped_records_are_written() {
    let inner = sim(1);
    let fs = FaultFs::new(inner.clone());
    fs.fail(Fault::new(OpKind::MapLive, FaultError::Emfile).for_ever());
    let site = Site {
        append: LogAppend::Mapped,
        ..Site::new(fs)
    };
    let stores = watch_calls(&inner, &[OpKind::Store]);
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 120);
    while log.maintain().expect("maintained") {}
    log.close().expect("closed");
    assert!(stores.lock().is_empty());
    assert_eq!(recovered(&inner), feeder.appended);
}

#[test]
fn through_a_mapping_no_record_is_a_system_call() {
    let fs = sim(1);
    let log = site(&fs, LogAppend::Mapped).start();
    let writes = watch_calls(&fs, &[OpKind::Write]);
    let mut feeder = Feeder::new();
    let (live, first) = (log.live_number(), log.end());
    while log.live_number() == live {
        feeder.append(&log).expect("appended");
    }
    assert!(log.end().ordinal > first.ordinal && feeder.appended.len() > 5);
    // The header of the segment that followed.
    assert_eq!(writes.lock().len(), 1);
    assert_eq!(recovered(&fs), feeder.appended);
}

#[test]
fn many_writers_side_by_side_lose_nothing_that_was_acknowledged() {
    for (seed, append) in (0..20).flat_map(|seed| FORMS.map(|form| (seed, form))) {
        println!("seed {seed} {append:?}");
        let fs = sim(seed);
        let log = site(&fs, append).start();
        fs.crash_after(30 + seed * 37);
        let next = Mutex::new((1, Vec::new()));
        let (acknowledged, durable) = (Mutex::new(0), Mutex::new(0));
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (log, next) = (&log, &next);
                let (acknowledged, durable) = (&acknowledged, &durable);
                scope.spawn(move || {
                    loop {
                        let (first, slot) = {
                            let mut next = next.lock();
                            let first = next.0;
                            let len = payload(first).len();
                            let count = op_count(first);
                            let slot = log.reserve(RecordKind::Batch, seq(first), count, len);
                            if slot.is_ok() {
                                next.0 += u64::from(count);
                                next.1.push(first);
                            }
                            (first, slot)
                        };
                        let Ok(mut slot) = slot else { return };
                        let filled = slot.fill(&payload(first));
                        let Ok(appended) = filled.and_then(|()| slot.complete()) else {
                            return;
                        };
                        let mut last = acknowledged.lock();
                        *last = first.max(*last);
                        drop(last);
                        if writer % 2 == 0 {
                            if log.sync_upto(appended.end).is_err() || log.maintain().is_err() {
                                return;
                            }
                            let mut last = durable.lock();
                            *last = first.max(*last);
                        }
                    }
                });
            }
        });
        assert!(fs.has_crashed(), "seed={seed}");
        let reserved = next.into_inner().1;
        for (index, model) in fs.crash_models(4, 4).iter().enumerate() {
            let found = recovered(&fs.crash_image(model, seed * 43 + index as u64));
            assert!(reserved.starts_with(&found), "seed={seed} {model:?}");
            let promised = match model {
                CrashModel::Everything => *acknowledged.lock(),
                _ => *durable.lock(),
            };
            let is_kept = promised == 0 || found.contains(&promised);
            assert!(is_kept, "seed={seed} {model:?}: {promised} is missing");
        }
    }
}
