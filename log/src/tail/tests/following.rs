//! Following from outside.

use base::fs::OsFs;
use base::fs::sim::CrashModel;

use super::*;
use crate::testing::{DIR, ListHook, image_of};

fn follow(site: &Site, from: u64) -> Follow {
    Follow::open(Arc::clone(&site.fs), &site.dir, seq(from)).expect("opened")
}

fn drain_follow(follow: &mut Follow) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    while let Some(record) = follow.next(NOT_AT_ALL)? {
        check(&record.meta, &record.payload);
        found.push(record.meta.first_seq.get());
    }
    Ok(found)
}

#[test]
fn a_follower_beside_a_writer_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let site = Site::in_dir(Arc::new(OsFs), dir.path());
    let total = 1200;
    let mut following = follow(&site, 1);
    std::thread::scope(|scope| {
        let site = &site;
        let writer = scope.spawn(move || {
            let log = site.start();
            let mut feeder = Feeder::new();
            while feeder.appended.len() < total {
                feeder.append(&log).expect("appended");
                if feeder.appended.len().is_multiple_of(64) {
                    log.maintain().expect("maintained");
                }
            }
            assert!(log.end().ordinal > 10);
            log.close().expect("closed");
            feeder.appended
        });
        let mut found = Vec::new();
        while found.len() < total {
            let record = following.next(WATCHDOG).expect("readable").expect("there");
            check(&record.meta, &record.payload);
            found.push(record.meta.first_seq.get());
        }
        assert_eq!(found, writer.join().expect("no panic"));
    });
    assert!(following.next(NOT_AT_ALL).expect("readable").is_none());
    // Another one, from the middle.
    for from in [1, 2, 500, 1777] {
        let mut following = follow(&site, from);
        let record = following
            .next(NOT_AT_ALL)
            .expect("readable")
            .expect("there");
        assert!(record.meta.first_seq <= seq(from) && record.meta.last_seq() >= seq(from));
    }
}

#[test]
fn an_empty_directory_is_followed_until_a_log_begins() {
    let site = Site::new(sim(1));
    let mut following = follow(&site, 1);
    assert!(following.next(NOT_AT_ALL).expect("readable").is_none());
    let mut feeder = Feeder::new();
    let log = site.start();
    assert!(following.next(NOT_AT_ALL).expect("readable").is_none());
    feeder.append_many(&log, 2);
    assert_eq!(
        drain_follow(&mut following).expect("readable"),
        feeder.appended
    );
}

#[test]
fn what_is_appended_between_two_looks_is_not_passed_over() {
    let fs = sim(1);
    let hooked = Arc::new(ListHook {
        inner: fs.clone(),
        hook: Mutex::new(None),
    });
    let site = Site::new(fs);
    let log = site.start();
    let feeder = Arc::new(Mutex::new(Feeder::new()));
    feeder.lock().append_many(&log, 3);
    let mut following = Follow::open(hooked.clone(), &site.dir, seq(1)).expect("opened");
    let mut found = drain_follow(&mut following).expect("readable");
    for _ in 0..5 {
        // It has seen the end, and now looks for the next segment.
        let (writer, log) = (Arc::clone(&feeder), Arc::clone(&log));
        *hooked.hook.lock() = Some(Box::new(move || {
            let mut feeder = writer.lock();
            feeder.append_many(&log, 2);
            log.rotate().expect("rotated");
            feeder.append_many(&log, 1);
        }));
        found.extend(drain_follow(&mut following).expect("readable"));
        assert_eq!(found, feeder.lock().appended);
    }
}

#[test]
fn a_recovery_of_the_writer_does_not_disturb_a_follower() {
    for seen_before in [0, 4, 12, 13, 14] {
        let fs = sim(1);
        let site = Site::new(fs.clone());
        let log = site.start();
        let mut feeder = Feeder::new();
        feeder.append_many(&log, 6);
        log.rotate().expect("rotated");
        feeder.append_many(&log, 8);
        let mut following = follow(&site, 1);
        let mut found = Vec::new();
        for _ in 0..seen_before {
            let record = following.next(NOT_AT_ALL).expect("readable");
            found.push(record.expect("there").meta.first_seq.get());
        }
        // The writer dies and comes back, three times.
        drop(log);
        for _ in 0..3 {
            let site = Site::new(fs.clone());
            let prepared = site.recover().expect("recovered");
            let log = go_on(&site, &prepared).expect("started");
            feeder.append_many(&log, 3);
        }
        found.extend(drain_follow(&mut following).expect("readable"));
        assert_eq!(found, feeder.appended, "seen={seen_before}");
        // A new one sees the same.
        let found = drain_follow(&mut follow(&site, 1)).expect("readable");
        assert_eq!(found, feeder.appended, "seen={seen_before}");
    }
}

#[test]
fn a_copy_that_was_cut_off_does_not_mislead_a_follower() {
    let made = sim(1);
    let site = Site::new(made.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 8);
    let calls = {
        let whole = image_of(&made, CrashModel::Everything);
        Site::new(whole.clone()).recover().expect("recovered");
        whole.mutation_count()
    };
    for call in 1..=calls {
        let fs = image_of(&made, CrashModel::Everything);
        fs.crash_after(call);
        // Some failures do not matter.
        let _ = Site::new(fs.clone()).recover();
        let fs = image_of(&fs, CrashModel::Everything);
        let site = Site::new(fs);
        let found = drain_follow(&mut follow(&site, 1)).expect("readable");
        assert_eq!(found, feeder.appended, "call={call}");
    }
}

#[test]
fn a_follower_begins_with_what_is_there_and_misses_nothing_later() {
    let site = Site::new(sim(1));
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 200);
    retire(&site, &log, 2);
    let oldest = log.sealed()[0].first_seq.get();
    let first = feeder.appended.partition_point(|first| *first < oldest);
    for from in [0, 1, 17, oldest] {
        let found = drain_follow(&mut follow(&site, from)).expect("readable");
        assert_eq!(found, feeder.appended[first..], "from={from}");
    }
    // Left behind by the writer, it says so.
    let mut following = follow(&site, oldest);
    following
        .next(NOT_AT_ALL)
        .expect("readable")
        .expect("there");
    feeder.append_many(&log, 300);
    retire(&site, &log, 1);
    let mut next = first + 1;
    let error = loop {
        match following.next(NOT_AT_ALL) {
            Ok(Some(record)) => {
                assert_eq!(record.meta.first_seq.get(), feeder.appended[next]);
                next += 1;
            }
            Ok(None) => panic!("it came to the end"),
            Err(error) => break error,
        }
    };
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn a_follower_notices_damage_once_the_log_went_on() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 6);
    let path = site.path(log.live_number());
    let at = feeder.ends[2].offset;
    let mut bytes = fs.contents(&path).expect("there");
    bytes[usize::try_from(at).expect("small") + 12] ^= 1;
    fs.install(&path, &bytes).expect("installed");
    let mut following = follow(&site, 1);
    // It may still be on its way.
    let found = drain_follow(&mut following).expect("readable");
    assert_eq!(found, feeder.appended[..3]);
    log.rotate().expect("rotated");
    let error = following.next(NOT_AT_ALL).expect_err("damaged");
    assert!(error.is_corruption(), "{error}");
    assert_eq!((error.path(), error.offset()), (Some(&*path), Some(at)));
}

#[test]
fn a_follower_takes_no_notice_of_other_files() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    for name in ["7.log", "000003.sst", "MANIFEST-000001", "notes"] {
        let path = std::path::Path::new(DIR).join(name);
        fs.install(&path, b"foreign").expect("installed");
    }
    // Being created at this moment.
    fs.install(&site.path(FileNumber(1)), b"").expect("there");
    fs.install(&site.path(FileNumber(2)), &[0; 4096])
        .expect("there");
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 100);
    assert_eq!(
        drain_follow(&mut follow(&site, 1)).expect("readable"),
        feeder.appended
    );
}

#[test]
fn a_follower_waits_no_longer_than_it_was_told() {
    let site = Site::new(sim(1));
    let _log = site.start();
    let mut following = follow(&site, 1);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Changes that are no records. Bounded, so that a failure is no hang.
            let path = site.dir.join("notes");
            let file = site.fs.create(&path).expect("created");
            let mut count = 0u64;
            while !is_done.load(Ordering::SeqCst) && count < 2_000_000 {
                file.write_at(0, b"noise").expect("written");
                count += 1;
            }
            assert!(is_done.load(Ordering::SeqCst), "it did not end in time");
        });
        let found = following.next(Duration::from_millis(20)).expect("readable");
        is_done.store(true, Ordering::SeqCst);
        assert!(found.is_none());
    });
}
