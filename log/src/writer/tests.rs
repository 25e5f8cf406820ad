use std::path::{Path, PathBuf};

use base::fs::fault::OpKind;
use base::fs::sim::{CrashModel, Op, SimFs};
use base::fs::{CountingFs, FileSystem};
use base::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use base::{ErrorKind, FileKind};

use super::*;
use crate::RecordKind;
use crate::reader::SegmentReader;
use crate::testing::{DIR, Feeder, START_MICROS, Site, seq, sim};

mod faults;
mod ready;
mod slots;

/// The file calls of these kinds, by path, from now on.
fn watch_calls(fs: &SimFs, kinds: &'static [OpKind]) -> Arc<Mutex<Vec<(OpKind, PathBuf)>>> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    fs.set_observer(Some(Arc::new(move |_: &SimFs, op: &Op<'_>| {
        if kinds.contains(&op.kind) {
            noted.lock().push((op.kind, op.path.to_owned()));
        }
    })));
    calls
}

/// Sequence numbers that recovery finds on this disk as it is.
fn recovered(fs: &Arc<SimFs>) -> Vec<u64> {
    let site = Site::new(fs.clone());
    let prepared = site.recover().expect("recovered");
    site.records(&prepared)
}

#[test]
fn records_go_into_segment_after_segment_and_come_back() {
    for (reserve, maintains) in [(true, true), (true, false), (false, true), (false, false)] {
        let fs = sim(1);
        let site = Site {
            reserve,
            ..Site::new(fs.clone())
        };
        let log = site.start();
        let mut feeder = Feeder::new();
        for _ in 0..300 {
            let end = log.end();
            let appended = feeder.append(&log).expect("appended");
            assert!(appended.start >= end && appended.end > appended.start);
            assert_eq!(log.end(), appended.end);
            assert!(log.durable_upto() <= log.end());
            while maintains && log.maintain().expect("maintained") {}
            assert!(!maintains || !log.needs_maintenance());
        }
        assert!(log.end().ordinal > 5);
        let stats = log.stats();
        assert_eq!(stats.record_count, 300);
        assert_eq!(stats.segment_count, log.end().ordinal + 1);
        log.close().expect("closed");
        assert_eq!(log.durable_upto(), log.end());
        let sealed = log.sealed();
        assert_eq!(sealed.len() as u64, log.end().ordinal);
        for (ordinal, segment) in sealed.iter().enumerate() {
            assert_eq!(segment.ordinal, ordinal as u64);
            let file_bytes = fs
                .contents(&site.path(segment.number))
                .expect("there")
                .len();
            assert!(file_bytes as u64 <= site.segment_bytes);
            let index = FileKind::SegmentIndex.path(Path::new(DIR), segment.number);
            assert!(fs.contents(&index).is_some());
        }
        let live = fs.contents(&site.path(log.live_number())).expect("there");
        assert_eq!(live.len() as u64, log.end().offset, "nothing is left over");
        drop(log);
        assert_eq!(recovered(&fs), feeder.appended);
    }
}

#[test]
fn a_larger_record_gets_a_segment_that_fits() {
    // Into an empty segment, into one of its own, and into one that was prepared.
    for (before, prepared) in [(0, false), (3, false), (40, true)] {
        let fs = sim(1);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, before);
        if prepared {
            assert!(log.maintain().expect("maintained"));
        }
        let ordinal = log.end().ordinal;
        let large = vec![7; 20_000];
        let first = feeder.next_seq;
        let appended = log
            .append(RecordKind::Batch, seq(first), 1, &large)
            .expect("appended");
        assert_eq!(appended.end.ordinal, ordinal + u64::from(before > 0));
        let path = site.path(log.live_number());
        let reserved = fs.contents(&path).expect("there").len() as u64;
        assert!(
            reserved >= log.end().offset + END_BYTES_MAX,
            "before={before}"
        );
        log.append(RecordKind::Batch, seq(first + 1), 1, b"next")
            .expect("appended");
        assert_eq!(log.end().ordinal, appended.end.ordinal + 1, "it was full");
        log.close().expect("closed");
        let mut reader = SegmentReader::open(&*fs, &path).expect("opened");
        reader.next().expect("readable").expect("a begin record");
        let record = reader.next().expect("readable").expect("there");
        assert!(record.payload == large);
    }
}

#[test]
fn commit_times_never_decrease() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    let mut last = 0;
    for step in 0..200u64 {
        let now = START_MICROS + step * 10;
        let jump = if step % 7 == 3 { 900_000 } else { 0 };
        site.clock.set(now - jump);
        let appended = feeder.append(&log).expect("appended");
        assert!(appended.commit_micros >= last);
        last = appended.commit_micros;
        if step % 20 == 0 {
            // The begin record is written with the clock ahead of the records after it.
            site.clock.set(now + 500);
            log.rotate().expect("rotated");
        }
    }
    log.close().expect("closed");
    let mut last = 0;
    let mut numbers: Vec<_> = log.sealed().iter().map(|segment| segment.number).collect();
    numbers.push(log.live_number());
    for number in numbers {
        let mut reader = SegmentReader::open(&*fs, &site.path(number)).expect("opened");
        while let Some(record) = reader.next().expect("readable") {
            assert!(record.meta.commit_micros >= last, "{:?}", record.position);
            last = record.meta.commit_micros;
        }
    }
}

#[test]
fn older_segments_are_synced_first_and_only_once() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(log.live_number());
        feeder.append(&log).expect("appended");
        log.rotate().expect("rotated");
    }
    numbers.push(log.live_number());
    feeder.append(&log).expect("appended");
    let calls = watch_calls(&fs, &[OpKind::Sync]);
    log.sync().expect("synced");
    let synced: Vec<_> = calls.lock().drain(..).map(|(_, path)| path).collect();
    let expected: Vec<_> = numbers.iter().map(|number| site.path(*number)).collect();
    assert_eq!(synced, expected);
    // What is durable is not synced again, although nobody has sealed it yet.
    feeder.append(&log).expect("appended");
    log.sync().expect("synced");
    let synced: Vec<_> = calls.lock().drain(..).map(|(_, path)| path).collect();
    assert_eq!(synced, expected[3..]);
    // And what is covered needs none at all.
    log.sync().expect("synced");
    assert!(calls.lock().is_empty());
    assert_eq!(log.stats().sync_count, 2);
}

#[test]
fn a_segment_in_which_nothing_is_wanted_is_not_synced() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push((
            log.live_number(),
            feeder.append(&log).expect("appended").end,
        ));
        log.rotate().expect("rotated");
    }
    let flushed = log.completed().seq;
    feeder.append(&log).expect("appended");
    let calls = watch_calls(&fs, &[OpKind::Sync]);
    let synced = |upto| {
        calls.lock().clear();
        log.sync_upto(upto).expect("synced");
        assert!(log.durable_upto() >= upto);
        let calls = calls.lock();
        calls
            .iter()
            .map(|(_, path)| path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(synced(ends[0].1), [site.path(ends[0].0)]);
    assert_eq!(synced(ends[0].1), Vec::<PathBuf>::new());
    assert_eq!(synced(ends[2].1), [1, 2].map(|at| site.path(ends[at].0)));
    assert!(log.durable_upto() < log.end());
    for model in fs.crash_models(8, 4) {
        let found = recovered(&fs.crash_image(&model, 1));
        assert!(found.len() >= 3 && feeder.appended.starts_with(&found));
    }
    // A sealed one may go: what follows it is durable before, if only that it was begun.
    assert!(log.maintain().expect("maintained"));
    let last = log.sealed().last().map(|segment| segment.ordinal);
    assert_eq!(last, Some(2));
    assert_eq!(log.durable_upto().ordinal, 3);
    for (number, _) in ends {
        fs.remove_file(&site.path(number)).expect("it may go");
    }
    fs.sync_dir(Path::new(DIR)).expect("they are gone");
    let image = Site::new(fs.crash_image(&CrashModel::Synced, 1));
    let recovered = image.recover_with(|config| {
        config.floor = flushed;
        config.flushed_max = flushed;
        config.durable_upto = Some(log.durable_upto());
    });
    assert_eq!(
        recovered.expect("it is there").last_seq,
        log.completed().seq
    );
}

#[test]
fn waiters_share_a_sync() {
    let counting = Arc::new(CountingFs::new(sim(1)));
    let counts = counting.counts();
    let site = Site {
        segment_bytes: 1 << 20,
        ..Site::new(counting)
    };
    let log = site.start();
    let before = counts.syncs();
    let next = Mutex::new(Feeder::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let end = next.lock().append(&log).expect("appended").end;
                    log.sync_upto(end).expect("synced");
                    assert!(log.durable_upto() >= end);
                }
            });
        }
    });
    let syncs = counts.syncs() - before;
    assert_eq!(syncs, log.stats().sync_count, "one segment, one file");
    assert!(syncs <= 800);
}

#[test]
fn everybody_who_came_during_a_sync_is_served_by_the_next_one() {
    let fs = sim(1);
    let log = Site::new(fs.clone()).start();
    let mut feeder = Feeder::new();
    let end = feeder.append(&log).expect("appended").end;
    let arrived = Arc::new((AtomicUsize::new(0), Bell::new()));
    let is_first = AtomicBool::new(true);
    let gate = Arc::clone(&arrived);
    let counted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&counted);
    fs.set_observer(Some(Arc::new(move |_: &SimFs, op: &Op<'_>| {
        if op.kind != OpKind::Sync {
            return;
        }
        count.fetch_add(1, Ordering::SeqCst);
        // The first sync does not begin before all others have appended.
        while is_first.load(Ordering::SeqCst) {
            let seen = gate.1.epoch();
            if gate.0.load(Ordering::SeqCst) == 8 {
                is_first.store(false, Ordering::SeqCst);
            } else {
                gate.1.wait_past(seen, None);
            }
        }
    })));
    let feeder = Mutex::new(feeder);
    std::thread::scope(|scope| {
        scope.spawn(|| log.sync_upto(end).expect("synced"));
        for _ in 0..8 {
            scope.spawn(|| {
                let end = feeder.lock().append(&log).expect("appended").end;
                // Only once the first one is under way, or it would cover this one too.
                while counted.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                arrived.0.fetch_add(1, Ordering::SeqCst);
                arrived.1.ring();
                log.sync_upto(end).expect("synced");
            });
        }
    });
    fs.set_observer(None);
    assert!(counted.load(Ordering::SeqCst) <= 2);
    assert_eq!(log.durable_upto(), log.end());
}

#[test]
fn a_prepared_segment_spares_the_writer_the_work() {
    let fs = sim(1);
    let site = Site {
        segment_bytes: 64 << 10,
        ..Site::new(fs.clone())
    };
    let log = site.start();
    let mut feeder = Feeder::new();
    let kinds = &[
        OpKind::Create,
        OpKind::Sync,
        OpKind::SyncDir,
        OpKind::Reserve,
    ];
    let calls = watch_calls(&fs, kinds);
    while log.end().ordinal < 3 {
        while log.maintain().expect("maintained") {}
        calls.lock().clear();
        feeder.append(&log).expect("appended");
        assert_eq!(*calls.lock(), Vec::new(), "at {}", log.end());
    }
    assert_eq!(log.numbers().len(), 4);
}

#[test]
fn space_is_reserved_a_step_ahead_and_given_back() {
    for append in [LogAppend::Mapped, LogAppend::Positioned] {
        let fs = sim(1);
        let site = Site {
            append,
            segment_bytes: 16 << 10,
            ..Site::new(fs.clone())
        };
        let log = site.start();
        let step = 1 << 10;
        let mut feeder = Feeder::new();
        while log.end().ordinal == 0 {
            while log.maintain().expect("maintained") {}
            let end = log.end().offset;
            let len = fs
                .contents(&site.path(log.live_number()))
                .expect("there")
                .len() as u64;
            let ahead = end.min(step);
            assert!(
                len >= (end + ahead).min(site.segment_bytes),
                "{len} at {end}"
            );
            assert!(len <= end + 2 * step, "{len} at {end}");
            let is_followed = end >= site.segment_bytes / 4;
            assert_eq!(log.numbers().len(), 1 + usize::from(is_followed));
            let prepared = if is_followed { step } else { 0 };
            assert_eq!(fs.used_bytes(), len + prepared, "at {end}");
            feeder.append(&log).expect("appended");
        }
        log.close().expect("closed");
        assert_eq!(recovered(&fs), feeder.appended);
    }
}

#[test]
fn a_flushed_segment_is_rotated_out_if_it_is_worth_it() {
    for prepares in [false, true] {
        let fs = sim(1);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append(&log).expect("appended");
        let all = |feeder: &Feeder| seq(feeder.next_seq - 1);
        assert!(!log.rotate_flushed(all(&feeder)).expect("too little"));
        while log.end().offset < site.segment_bytes / 4 {
            feeder.append(&log).expect("appended");
        }
        assert!(!log.rotate_prepared().expect("nothing is prepared"));
        while prepares && log.numbers().len() < 2 {
            feeder.append(&log).expect("appended");
            while log.maintain().expect("maintained") {}
        }
        let last = all(&feeder);
        assert!(
            !log.rotate_flushed(last.before())
                .expect("one is not flushed")
        );
        assert_eq!(log.end().ordinal, 0);
        // Where no segment can be made, everything stays as it was.
        fs.set_quota(Some(fs.used_bytes()));
        if !prepares {
            assert!(log.rotate_flushed(last).expect_err("full").is_no_space());
            assert!(log.poisoned().is_none());
            fs.set_quota(None);
        }
        assert!(log.rotate_flushed(last).expect("rotated"));
        assert!(!log.rotate_flushed(last).expect("it is empty"));
        assert_eq!(log.end().ordinal, 1);
        fs.set_quota(None);
        while log.maintain().expect("maintained") {}
        assert_eq!(log.sealed().len(), 1);
        feeder.append_many(&log, 3);
        log.close().expect("closed");
        assert!(!log.rotate_flushed(all(&feeder)).expect("it is closed"));
        assert_eq!(recovered(&fs), feeder.appended);
    }
}

#[test]
fn a_large_log_keeps_no_more_than_a_megabyte_of_what_is_flushed() {
    let fs = sim(1);
    let site = Site {
        segment_bytes: 64 << 20,
        ..Site::new(fs.clone())
    };
    let log = site.start();
    assert!(fs.used_bytes() <= 64 << 10);
    let payload = vec![7; 100_000];
    for first_seq in 1..=11 {
        let flushed = log.rotate_flushed(seq(first_seq).before());
        assert!(!flushed.expect("too little"), "{first_seq}");
        let kind = RecordKind::Batch;
        log.append(kind, seq(first_seq), 1, &payload)
            .expect("appended");
        while log.maintain().expect("maintained") {}
    }
    assert!(log.rotate_flushed(seq(11)).expect("rotated"));
    while log.maintain().expect("maintained") {}
    assert_eq!(log.sealed().len(), 1);
    let live = site.path(log.live_number());
    assert_eq!(fs.contents(&live).expect("there").len(), 64 << 10);
}

#[test]
fn a_segment_made_ahead_is_switched_to_between_memtables() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    while log.numbers().len() < 2 {
        assert!(!log.rotate_prepared().expect("nothing is prepared"));
        feeder.append(&log).expect("appended");
        while log.maintain().expect("maintained") {}
    }
    let calls = watch_calls(&fs, &[OpKind::Create, OpKind::Sync, OpKind::Reserve]);
    let last = log.completed().seq;
    assert!(log.rotate_prepared().expect("switched"));
    let begun = log.lock_segments().begun();
    let first_seqs = begun.iter().map(|segment| segment.first_seq);
    assert_eq!(first_seqs.collect::<Vec<_>>(), [seq(1), last.plus(1)]);
    assert!(!log.rotate_prepared().expect("it is empty"));
    assert_eq!(*calls.lock(), Vec::new());
    fs.set_observer(None);
    feeder.append_many(&log, 3);
    while log.maintain().expect("maintained") {}
    assert_eq!(log.sealed()[0].last_seq, last);
    log.close().expect("closed");
    assert_eq!(recovered(&fs), feeder.appended);
}

#[test]
fn a_segment_prepared_too_late_is_not_used() {
    for seed in 0..20 {
        let fs = sim(seed);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        while log.end().offset * 2 < site.segment_bytes {
            feeder.append(&log).expect("appended");
        }
        // While the helper creates a file, the writer needs one and makes its own.
        let feeder = Arc::new(Mutex::new(feeder));
        let (writer, busy) = (Arc::clone(&feeder), Arc::downgrade(&log));
        let is_first = AtomicBool::new(true);
        fs.set_observer(Some(Arc::new(move |_: &SimFs, op: &Op<'_>| {
            if op.kind == OpKind::SyncDir && is_first.swap(false, Ordering::SeqCst) {
                let log = busy.upgrade().expect("in use");
                let ordinal = log.end().ordinal;
                while log.end().ordinal == ordinal {
                    writer.lock().append(&log).expect("appended");
                }
            }
        })));
        log.maintain().expect("maintained");
        fs.set_observer(None);
        assert_eq!(log.end().ordinal, 1);
        let mut feeder = feeder.lock();
        feeder.append_many(&log, 3);
        log.sync().expect("synced");
        assert_eq!(log.numbers().len(), 2);
        // The removal of the one that nobody uses may be lost.
        for model in fs.crash_models(8, 4) {
            let image = fs.crash_image(&model, seed);
            assert_eq!(recovered(&image), feeder.appended, "seed={seed} {model:?}");
        }
    }
}

#[test]
fn forgotten_segments_count_no_more() {
    let log = Site::new(sim(1)).start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 200);
    while log.maintain().expect("maintained") {}
    let sealed = log.sealed();
    let total = log.total_bytes();
    let gone: Vec<_> = sealed[..2].iter().map(|segment| segment.number).collect();
    log.forget(&gone);
    assert_eq!(log.sealed(), sealed[2..]);
    assert_eq!(log.total_bytes(), total - sealed[0].bytes - sealed[1].bytes);
}

#[test]
fn a_closed_log_takes_nothing_more() {
    let fs = sim(1);
    let log = Site::new(fs.clone()).start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 60);
    assert!(log.maintain().expect("maintained"));
    log.close().expect("closed");
    let numbers = log.numbers();
    let mutations = fs.mutation_count();
    for error in [
        feeder.append(&log).expect_err("closed"),
        log.rotate().expect_err("closed"),
        log.close().expect_err("closed"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
    }
    assert!(!log.maintain().expect("nothing to do"));
    assert!(!log.needs_maintenance());
    assert_eq!(fs.mutation_count(), mutations);
    // What was prepared is gone, and a crash makes no difference.
    let segments = fs
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    assert_eq!(segments.count(), numbers.len());
    feeder.appended.pop();
    for model in fs.crash_models(8, 4) {
        let image = fs.crash_image(&model, 1);
        assert_eq!(recovered(&image), feeder.appended, "{model:?}");
    }
}
