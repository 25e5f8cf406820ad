use std::path::Path;

use base::ErrorKind;
use base::clock::ManualClock;
use siltstone::{Options, StatsFile};

use super::made::{Body, NOBODY};
use super::{last, steady, told};
use crate::admin::failure::Failure;
use crate::admin::top::look::{Found, holder_in, look};
use crate::admin::top::parts::{Tone, head};

/// A database that nobody has open, and a stats file beside it.
#[expect(
    clippy::disallowed_methods,
    reason = "a file that a killed process left"
)]
fn left_with(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new().open(dir.path()).expect("a new database");
    db.close().expect("a clean close");
    std::fs::write(dir.path().join("STATS"), bytes).expect("a small file");
    dir
}

fn look_at(dir: &Path) -> Result<Found, Failure> {
    look(dir, &ManualClock::new(700_000_000))
}

#[test]
fn what_a_process_left_that_is_gone_is_known_as_that() {
    let dir = left_with(&Body::of_process(NOBODY, 60, &["default"]).file());
    let Found::Told(told) = look_at(dir.path()).expect("it is whole") else {
        panic!("there is a file");
    };
    assert!(!told.is_writer_there && told.is_stale() && told.is_over());
    assert_eq!(told.age().expect("past").as_secs(), 540);
    assert!(told.free_bytes.is_some());
    let remark = told.remark().expect("it is stale");
    assert!(remark.contains("process 2147483647 is gone"), "{remark}");
    assert!(remark.ends_with("9 min old"), "{remark}");
}

#[test]
fn this_process_is_there() {
    let id = u64::from(std::process::id());
    let dir = left_with(&Body::of_process(id, 60, &["default"]).file());
    let Found::Told(told) = look_at(dir.path()).expect("it is whole") else {
        panic!("there is a file");
    };
    assert!(told.is_writer_there && told.is_stale() && !told.is_over());
}

#[test]
fn damage_is_damage_and_what_is_newer_is_not() {
    let bytes = Body::of_process(NOBODY, 60, &["default"]).file();
    let mut flipped = bytes.clone();
    flipped[30] ^= 4;
    for damaged in [&flipped[..], &bytes[..bytes.len() - 1], b""] {
        let failure = look_at(left_with(damaged).path()).expect_err("damaged");
        assert!(matches!(failure, Failure::Damage(_)), "{failure}");
    }
    let newer = Body::of_process(NOBODY, 60, &["default"]).file_of_version(2);
    let error = StatsFile::decode(&newer).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let failure = look_at(left_with(&newer).path()).expect_err("newer");
    assert!(matches!(failure, Failure::Trouble(_)), "{failure}");
}

#[test]
fn where_there_is_none_the_remedy_is_named() {
    let dir = left_with(b"");
    base::fs::FileSystem::remove_file(&base::fs::OsFs, &dir.path().join("STATS"))
        .expect("it was there");
    let Found::Nothing(why) = look_at(dir.path()).expect("a database") else {
        panic!("there is none");
    };
    for part in [
        "Options::stats_file_interval",
        "--stats_file_interval_ms=1000",
    ] {
        assert!(why.contains(part), "{why}");
    }
    let empty = tempfile::tempdir().expect("a temporary directory");
    let failure = look_at(empty.path()).expect_err("no database");
    assert!(
        failure.to_string().starts_with("there is no database in"),
        "{failure}"
    );
}

#[test]
fn the_holder_of_a_lock_is_read_from_the_list_of_the_system() {
    let locks = "\
1: POSIX  ADVISORY  WRITE 11 08:01:131 0 EOF
2: FLOCK  ADVISORY  WRITE 12 08:01:132 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 08:01:133 0 EOF
3: FLOCK  ADVISORY  READ 14 08:01:134 0 EOF
4: FLOCK  ADVISORY  WRITE -1 08:01:135 0 EOF
5: FLOCK";
    let holders = (130..137).map(|inode| holder_in(locks, &format!("08:01:{inode}")));
    let expected = [None, None, Some(12), None, None, None, None];
    assert_eq!(holders.collect::<Vec<_>>(), expected);
    assert_eq!(holder_in("", "08:01:132"), None);
}

#[test]
fn age_and_lateness_go_by_the_interval() {
    let mut told = told(steady(100, &[]));
    let written = told.file.written_micros;
    let mut state = |seen_micros: u64, is_writer_there: bool| {
        told.seen_micros = seen_micros;
        told.is_writer_there = is_writer_there;
        (told.is_stale(), told.is_over(), told.remark())
    };
    let fine = (false, false, None);
    // Three intervals of a second, and two seconds.
    assert_eq!(state(written + 5_000_000, true), fine);
    // The process cannot be seen from here, and yet writes.
    assert_eq!(state(written + 5_000_000, false), fine);
    // Clocks may differ a little.
    assert_eq!(state(written - 1_000_000, true), fine);
    let (is_stale, _, remark) = state(written - 1_000_001, true);
    let remark = remark.expect("odd");
    assert!(!is_stale && remark.contains("in the future"), "{remark}");
    let (is_stale, is_over, remark) = state(written + 5_000_001, true);
    let remark = remark.expect("late");
    assert!(
        is_stale && !is_over && remark.contains("said nothing for 5 s"),
        "{remark}"
    );
    let (is_stale, is_over, _) = state(written + 5_000_001, false);
    assert!(is_stale && is_over);
    told.seen_micros = written + 6_000_000;
    told.is_writer_there = true;
    told.free_bytes = Some(4096);
    let remark = told.remark().expect("late");
    assert!(remark.ends_with("the disk is full"), "{remark}");
}

#[test]
fn health_has_a_word_and_a_tone() {
    let good = super::healthy(&["default"]);
    let mut failing = super::in_trouble(ErrorKind::Io, "degraded: sync failed");
    last(&mut failing).file.stats.stats_file_failure_count = 3;
    let mut full = super::healthy(&["default"]);
    last(&mut full).free_bytes = Some(0);
    let damage = super::in_trouble(ErrorKind::Corruption, "degraded: checksum");
    let cases = [
        (
            good,
            Tone::Good,
            "health: good; disk has 12.0 GiB free; told 500 ms ago, every 1 s",
        ),
        (failing, Tone::Remark, "health: degraded: sync failed"),
        (
            super::no_space(),
            Tone::Alarm,
            "health: NO SPACE, flush and compaction wait for some: w",
        ),
        (
            super::poisoned(),
            Tone::Alarm,
            "health: POISONED, no writes until it is reopened: an",
        ),
        (damage, Tone::Alarm, "health: DAMAGE: checksum"),
        (
            full,
            Tone::Alarm,
            "health: DISK FULL; disk has 0 B free; told 500 ms ago, every 1 s",
        ),
    ];
    for (watch, tone, text) in cases {
        let lines = head(&watch);
        assert_eq!(lines[1].0, tone, "{lines:?}");
        assert!(lines[1].1.starts_with(text), "{lines:?}");
    }
}
