//! Directories that hold more, or other files than they should.

use base::checksum::Crc;
use base::fs::fault::{Effect, Fault, FaultError, FaultFs, OpKind};

use super::*;
use crate::reader::SegmentReader;
use crate::segment::SegmentHeader;

/// Changes the header of a segment and makes its checksum right again.
fn change_header(fs: &SimFs, path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs.contents(path).expect("there");
    change(&mut bytes[..508]);
    let file_id = u64::from_le_bytes(bytes[28..36].try_into().expect("eight"));
    let crc = Crc::at(file_id, 0).and(&bytes[..508]).finish();
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    fs.install(path, &bytes).expect("installed");
}

fn refused(fs: &Arc<SimFs>, path: &Path) -> Error {
    let before = fs.mutation_count();
    let error = Site::new(fs.clone()).recover().expect_err("refused");
    assert_eq!(error.path(), Some(path), "{error}");
    assert_eq!(fs.mutation_count(), before, "nothing is changed");
    error
}

#[test]
fn a_segment_of_another_database_is_refused() {
    let made = Made::segments(3);
    for record in [0, 3, 6] {
        let image = made.killed();
        let path = made.path(record);
        change_header(&image, &path, |header| header[36] ^= 1);
        let error = refused(&image, &path);
        assert!(error.is_corruption());
        assert!(error.to_string().contains("another database"), "{error}");
    }
}

#[test]
fn a_segment_of_a_newer_version_is_refused() {
    let made = Made::segments(3);
    for record in [0, 3, 6] {
        let image = made.killed();
        let path = made.path(record);
        change_header(&image, &path, |header| header[8] = 3);
        let error = refused(&image, &path);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("found=3 supported=2"), "{error}");
        let image = made.killed();
        change_header(&image, &path, |header| header[20] |= 0x80);
        assert_eq!(refused(&image, &path).kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_damaged_header_is_refused() {
    let made = Made::segments(3);
    for record in [0, 3, 6] {
        let image = made.killed();
        let path = made.path(record);
        flip(&image, &path, 40);
        let error = refused(&image, &path);
        assert!(error.is_corruption());
        assert_eq!(error.offset(), Some(0));
    }
}

#[test]
fn a_missing_segment_is_named() {
    // Oldest, in the middle, newest: the end record of the one before names it.
    for missing in 0..4 {
        let mut made = Made::segments(4);
        made.sync();
        let image = made.killed();
        let path = made.path(missing * 3);
        image.remove_file(&path).expect("removed");
        let error = refused(&image, &path);
        assert!(error.is_corruption(), "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
    let mut made = Made::segments(1);
    made.sync();
    let image = made.killed();
    image.remove_file(&made.path(0)).expect("removed");
    let site = Site::new(image);
    let durable = Some(made.log.durable_upto());
    let error = site
        .recover_with(|config| config.durable_upto = durable)
        .expect_err("everything is gone");
    assert!(error.is_corruption(), "{error}");
}

#[test]
fn a_newest_segment_that_was_wiped_is_noticed() {
    for wiped in [512, usize::MAX] {
        let mut made = Made::segments(2);
        made.sync();
        let image = made.killed();
        let path = made.path(3);
        let mut bytes = image.contents(&path).expect("there");
        let wiped = wiped.min(bytes.len());
        bytes[..wiped].fill(0);
        image.install(&path, &bytes).expect("installed");
        assert!(refused(&image, &path).is_corruption());
    }
}

#[test]
fn segments_that_were_let_go_are_not_missed() {
    let mut made = Made::segments(5);
    made.sync();
    let image = made.killed();
    for record in [0, 3] {
        image.remove_file(&made.path(record)).expect("removed");
    }
    let floor = seq(made.feeder.appended[6] - 1);
    let durable = made.log.durable_upto();
    let recover = |fs: &Arc<SimFs>| {
        let site = Site::new(fs.clone());
        let prepared = site
            .recover_with(|config| {
                config.floor = floor;
                config.flushed_max = floor;
                config.durable_upto = Some(durable);
            })
            .expect("recovered");
        (site.records(&prepared), site, prepared)
    };
    let expected = &made.feeder.appended[6..];
    let (found, site, prepared) = recover(&image);
    assert_eq!(found, expected);
    // And the log that goes on still knows that there was something before.
    drop(go_on(&site, &prepared).expect("started"));
    let (found, _, prepared) = recover(&image);
    assert_eq!(found, expected);
    let first = prepared.segments.first().expect("some");
    let mut reader = SegmentReader::open(&*image, &site.path(first.number)).expect("opened");
    let begin = reader.next().expect("readable").expect("there");
    assert!(!begin.payload.is_empty());
}

#[test]
fn a_tail_that_was_cut_stays_cut() {
    // The next segment says how far this one counts, whatever can be read behind that.
    let mut made = Made::segments(1);
    made.append(2).sync();
    let fs = made.killed();
    let site = Site::new(fs.clone());
    let mut successor = site.recover().expect("recovered").successor;
    let mut before = successor.sealed[0].as_predecessor();
    (before.number, before.file_id) = (made.places[0].1, {
        let reader = SegmentReader::open(&*fs, &made.path(0)).expect("opened");
        reader.header().file_id
    });
    before.accepted_bytes = made.places[2].0.start.offset;
    before.last_seq = seq(made.feeder.appended[2] - 1);
    successor.predecessor = Some(before);
    let log = Log::start(site.config(), successor).expect("started");
    let mut feeder = Feeder::after(made.appended(2).to_vec());
    feeder.append_many(&log, 2);
    assert_eq!(records_on(&fs), feeder.appended);
}

#[test]
fn superseded_segments_left_by_a_crash_do_not_count() {
    let made = Made::segments(3);
    let fs = made.killed();
    let site = Site::new(fs.clone());
    let prepared = site.recover().expect("recovered");
    assert_eq!(prepared.obsolete.len(), 3);
    // Begun again, written to, and crashed before anything was unlinked.
    let log = Log::start(site.config(), prepared.successor).expect("started");
    let mut feeder = Feeder::after(made.feeder.appended.clone());
    feeder.append_many(&log, 3);
    let again = Site::new(image_of(&fs, CrashModel::Everything));
    let prepared = again.recover().expect("recovered");
    assert_eq!(again.records(&prepared), feeder.appended);
    for number in [0, 3, 6].map(|record| made.places[record].1) {
        assert!(prepared.obsolete.contains(&number));
    }
}

#[test]
fn a_copy_counts_only_when_it_is_complete() {
    let made = Made::segments(3);
    let fs = made.killed();
    let prepared = Site::new(fs.clone()).recover().expect("recovered");
    let copy = Site::new(fs.clone()).path(prepared.segments[0].number);
    let bytes = fs.contents(&copy).expect("there");
    let mut reader = SegmentReader::open(&*fs, &copy).expect("opened");
    assert!(reader.header().is_copy);
    while reader.next().expect("readable").is_some() {}
    for len in (0..bytes.len()).step_by(13) {
        let image = image_of(&fs, CrashModel::Everything);
        image.install(&copy, &bytes[..len]).expect("installed");
        assert_eq!(records_on(&image), made.feeder.appended, "cut to {len}");
    }
}

#[test]
fn a_copy_on_which_the_log_went_on_is_not_given_up_when_it_is_damaged() {
    let made = Made::segments(2);
    let fs = made.killed();
    let site = Site::new(fs.clone());
    let prepared = site.recover().expect("recovered");
    let copy = site.path(prepared.segments[0].number);
    let log = go_on(&site, &prepared).expect("started");
    Feeder::after(made.feeder.appended.clone()).append_many(&log, 2);
    log.sync().expect("synced");
    let image = image_of(&fs, CrashModel::Synced);
    flip(&image, &copy, 700);
    let error = refused(&image, &copy);
    assert!(error.is_corruption(), "{error}");
    assert!(error.offset().is_some_and(|offset| offset > 512), "{error}");
}

#[test]
fn foreign_files_are_left_alone() {
    let made = Made::segments(2);
    let image = made.killed();
    let names = ["7.log", "notes.txt", "000001.log.bak", "x.idx"];
    for name in names {
        let path = Path::new(DIR).join(name);
        image.install(&path, b"foreign").expect("installed");
    }
    let folder = Path::new(DIR).join("999999.log");
    image.create_dir(&folder).expect("created");
    assert_eq!(records_on(&image), made.feeder.appended);
    for name in names {
        let found = image.contents(&Path::new(DIR).join(name));
        assert_eq!(found.as_deref(), Some(&b"foreign"[..]), "{name}");
    }
}

#[test]
fn two_begun_segments_in_one_place_are_refused() {
    let made = Made::segments(2);
    let image = made.killed();
    let bytes = image.contents(&made.path(3)).expect("there");
    let twin = made.site.path(FileNumber(999));
    image.install(&twin, &bytes).expect("installed");
    let error = Site::new(image).recover().expect_err("refused");
    assert!(error.is_corruption(), "{error}");
}

#[test]
fn a_read_that_fails_or_ends_early_never_shortens_the_log() {
    let mut made = Made::segments(3);
    made.append(2);
    let reads = {
        let faults = FaultFs::new(made.killed());
        Site::new(faults.clone()).recover().expect("recovered");
        faults.calls(OpKind::Read)
    };
    let effects = [
        Effect::Fail(FaultError::Eio),
        Effect::Short { bytes: 0 },
        Effect::Short { bytes: 300 },
        Effect::Short { bytes: 700 },
    ];
    for (nth, effect) in (1..=reads).flat_map(|nth| effects.map(|effect| (nth, effect))) {
        let image = made.killed();
        let faults = FaultFs::new(image.clone());
        faults.fail(Fault::with_effect(OpKind::Read, effect).nth(nth));
        let site = Site::new(faults.clone());
        if let Ok(prepared) = site.recover() {
            faults.clear();
            assert_eq!(site.records(&prepared), made.feeder.appended, "{nth}");
        }
        faults.clear();
        assert_eq!(records_on(&image), made.feeder.appended, "{nth} {effect:?}");
    }
}

#[test]
fn a_read_that_comes_back_wrong_is_an_error_or_told_as_a_cut() {
    let made = Made::segments(3);
    let reads = {
        let faults = FaultFs::new(made.killed());
        Site::new(faults.clone()).recover().expect("recovered");
        faults.calls(OpKind::Read)
    };
    for (nth, bit) in (1..=reads).flat_map(|nth| (0..9000).step_by(61).map(move |bit| (nth, bit))) {
        let faults = FaultFs::new(made.killed());
        let effect = Effect::FlipBit { bit };
        faults.fail(Fault::with_effect(OpKind::Read, effect).nth(nth));
        let site = Site::new(faults.clone());
        let Ok(prepared) = site.recover() else {
            continue;
        };
        faults.clear();
        let found = site.records(&prepared);
        assert!(made.feeder.appended.starts_with(&found), "{nth} {bit}");
        let is_whole = found == made.feeder.appended;
        assert!(is_whole || prepared.dropped.is_some(), "{nth} {bit}");
    }
}

#[test]
fn a_recovery_that_fails_can_be_repeated() {
    let made = Made::segments(4);
    let calls = {
        let image = made.killed();
        records_on(&image);
        image.mutation_count()
    };
    for (nth, error) in
        (1..=calls).flat_map(|nth| [FaultError::Eio, FaultError::Enospc].map(|e| (nth, e)))
    {
        let image = made.killed();
        image.fail(Fault::new(OpKind::AnyMutating, error).nth(nth));
        // Some failures do not matter.
        let _ = Site::new(image.clone()).recover();
        image.clear_faults();
        assert_eq!(records_on(&image), made.feeder.appended, "call {nth}");
    }
}

#[test]
fn headers_say_who_wrote_them() {
    let made = Made::segments(1);
    let fs = made.killed();
    let site = Site {
        epoch: 7,
        ..Site::new(fs.clone())
    };
    let prepared = site.recover().expect("recovered");
    let reader =
        SegmentReader::open(&*fs, &site.path(prepared.segments[0].number)).expect("opened");
    let SegmentHeader {
        epoch,
        database_id,
        is_copy,
        ordinal,
        ..
    } = *reader.header();
    assert_eq!((epoch, database_id), (8, crate::testing::DATABASE_ID));
    assert_eq!((is_copy, ordinal), (true, 1));
}
