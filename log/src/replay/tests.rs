use base::fs::{CountingFs, IoCounts};
use base::sync::Arc;

use super::*;
use crate::testing::{Feeder, Site, op_count, seq, sim};
use crate::{History, Log, SealedSegment, TailUpto};

/// A closed log of about 1.5 MiB in three segments, on a disk that counts.
struct Counted {
    site: Site,
    counts: Arc<IoCounts>,
    segments: Vec<SealedSegment>,
    appended: Vec<u64>,
}

const RECORD_BYTES: usize = 1000;

impl Counted {
    fn new() -> Self {
        let fs = CountingFs::new(sim(1));
        let counts = fs.counts();
        let site = Site {
            segment_bytes: 512 << 10,
            ..Site::new(Arc::new(fs))
        };
        let log = Log::start(
            crate::LogConfig {
                index_interval_bytes: 8 << 10,
                ..site.config()
            },
            crate::Successor::first(seq(1)),
        )
        .expect("started");
        let mut appended = Vec::new();
        let mut next = 1;
        for _ in 0..1500 {
            appended.push(next);
            log.append(
                RecordKind::Batch,
                seq(next),
                op_count(next),
                &[7; RECORD_BYTES],
            )
            .expect("appended");
            next += u64::from(op_count(next));
        }
        log.rotate().expect("rotated");
        while log.maintain().expect("maintained") {}
        Self {
            site,
            counts,
            segments: log.sealed(),
            appended,
        }
    }

    /// The records from `from` on, at most `count`, and how many bytes were read for them.
    fn read(&self, from: u64, count: usize) -> (Vec<u64>, u64) {
        let before = self.counts.read_bytes();
        let fs = &*self.site.fs;
        let mut replay = Replay::open(fs, &self.site.dir, &self.segments, seq(from)).expect("open");
        let mut found = Vec::new();
        while found.len() < count
            && let Some(record) = replay.next().expect("readable")
        {
            assert!(record.payload == [7; RECORD_BYTES]);
            let framed = record.end.offset - record.position.offset;
            assert!((1016..=1040).contains(&framed), "{framed}");
            found.push(record.meta.first_seq.get());
        }
        (found, self.counts.read_bytes() - before)
    }

    fn expected(&self, from: u64, count: usize) -> Vec<u64> {
        let holds = |first: &&u64| **first + u64::from(op_count(**first)) > from;
        self.appended
            .iter()
            .filter(holds)
            .take(count)
            .copied()
            .collect()
    }

    fn index_path(&self, place: usize) -> PathBuf {
        FileKind::SegmentIndex.path(&self.site.dir, self.segments[place].number)
    }
}

#[test]
fn only_what_the_index_leads_to_is_read() {
    let counted = Counted::new();
    assert!(counted.segments.len() >= 3);
    let last = *counted.appended.last().expect("some");
    for from in [1, 2, 3, 100, 777, last / 2, last - 50, last, last + 1] {
        let (found, bytes) = counted.read(from, 5);
        assert_eq!(found, counted.expected(from, 5), "from={from}");
        // A header, an index, and two windows at most.
        assert!(bytes < 512 + 4096 + 2 * (128 << 10), "from={from}: {bytes}");
    }
    let (found, bytes) = counted.read(0, usize::MAX);
    assert_eq!(found, counted.appended);
    let stored: u64 = counted.segments.iter().map(|segment| segment.bytes).sum();
    assert!(
        bytes < stored + stored / 8,
        "each byte is read about once: {bytes}"
    );
    assert_eq!(counted.read(last + 100, 5).0, Vec::<u64>::new());
}

#[test]
fn without_an_index_the_segment_is_read_from_its_start() {
    let counted = Counted::new();
    let last = *counted.appended.last().expect("some");
    let newest = counted.segments.len() - 1;
    counted
        .site
        .fs
        .remove_file(&counted.index_path(newest))
        .expect("removed");
    let (found, bytes) = counted.read(last, 5);
    assert_eq!(found, [last]);
    // Only that one segment, all the same.
    assert!(bytes <= 512 + counted.segments[newest].bytes + 1040);
}

#[test]
fn a_damaged_index_is_made_do_without() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 40);
    log.rotate().expect("rotated");
    while log.maintain().expect("maintained") {}
    let segments = log.sealed();
    let path = FileKind::SegmentIndex.path(&site.dir, segments[0].number);
    let whole = fs.contents(&path).expect("there");
    let from = feeder.appended[15];
    let read = |bytes: &[u8]| {
        fs.install(&path, bytes).expect("installed");
        site.records_from(&segments, seq(from)).expect("readable")
    };
    assert_eq!(read(&whole), feeder.appended[15..]);
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        assert_eq!(read(&damaged), feeder.appended[15..], "byte {place}");
        assert_eq!(read(&whole[..place]), feeder.appended[15..], "cut {place}");
    }
}

#[test]
fn an_index_that_lies_is_not_believed() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 20);
    log.rotate().expect("rotated");
    while log.maintain().expect("maintained") {}
    let segments = log.sealed();
    let path = FileKind::SegmentIndex.path(&site.dir, segments[0].number);
    let from = seq(feeder.appended[3]);
    // Its checksum is right, and what it says is not: nothing there, the middle of a record,
    // another record, behind the end, behind the file.
    for offset in [0, 8, 520, 600, segments[0].bytes, 1 << 20, u64::MAX - 7] {
        let mut index = SparseIndex::default();
        let entry = crate::index::IndexEntry {
            seq: from,
            offset,
            commit_micros: 0,
        };
        index.note(entry, 1);
        index
            .write(&*fs, &path, segments[0].file_id)
            .expect("written");
        let found = site.records_from(&segments, from).expect("readable");
        assert_eq!(found, feeder.appended[3..], "offset={offset}");
    }
}

#[test]
fn a_segment_that_ends_early_is_an_error_with_a_place() {
    let fs = sim(1);
    let site = Site::new(fs.clone());
    let log = site.start();
    let mut feeder = Feeder::new();
    for _ in 0..3 {
        feeder.append_many(&log, 5);
        log.rotate().expect("rotated");
    }
    while log.maintain().expect("maintained") {}
    let segments = log.sealed();
    let path = site.path(segments[1].number);
    let whole = fs.contents(&path).expect("there");
    let end = usize::try_from(segments[1].bytes).expect("small");
    for cut in 512..end {
        fs.install(&path, &whole[..cut]).expect("installed");
        match site.records_from(&segments, seq(1)) {
            // Only padding was lost.
            Ok(found) => assert_eq!(found, feeder.appended, "cut to {cut}"),
            Err(error) => {
                assert!(error.is_corruption(), "cut to {cut}: {error}");
                assert_eq!(error.path(), Some(&*path));
                assert!(error.offset().is_some_and(|offset| offset <= cut as u64));
            }
        }
    }
    // Another file under its name.
    let other = fs.contents(&site.path(segments[0].number)).expect("there");
    fs.install(&path, &other).expect("installed");
    let error = site
        .records_from(&segments, seq(1))
        .expect_err("another file");
    assert!(error.to_string().contains("another segment"), "{error}");
    fs.remove_file(&path).expect("removed");
    let error = site
        .records_from(&segments, seq(1))
        .expect_err("it is missing");
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn the_record_that_holds_a_number_is_found() {
    let site = Site::new(sim(1));
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 60);
    log.rotate().expect("rotated");
    while log.maintain().expect("maintained") {}
    let segments = log.sealed();
    for from in 0..feeder.next_seq + 3 {
        let found = site.records_from(&segments, seq(from)).expect("readable");
        let first = feeder
            .appended
            .partition_point(|first| first + u64::from(op_count(*first)) <= from);
        assert_eq!(found, feeder.appended[first..], "from={from}");
    }
}

/// A log of some segments, and what was put into it.
fn fed(count: usize) -> (Site, Arc<Log>, Feeder) {
    let site = Site::new(sim(1));
    let log = site.start();
    let mut feeder = Feeder::new();
    for _ in 0..3 {
        feeder.append_many(&log, count / 3);
        log.rotate().expect("rotated");
        while log.maintain().expect("maintained") {}
    }
    (site, log, feeder)
}

/// A place beside that of `site`, on the same disk.
fn beside(site: &Site) -> Site {
    let dir = Path::new("/copy");
    site.fs.create_dir(dir).expect("made");
    Site::in_dir(Arc::clone(&site.fs), dir)
}

/// Copies what lies behind `floor` and ends at `upto`.
fn copied(log: &Arc<Log>, to: &Site, floor: SequenceNumber, upto: SequenceNumber) -> History {
    let mut history = History::create(log, to.dir.clone(), floor).expect("made");
    let mut tail = log.tail(floor.plus(1), TailUpto::Appended).expect("there");
    while let Some(record) = tail.next(std::time::Duration::ZERO).expect("readable") {
        if record.meta.last_seq() > upto {
            break;
        }
        if record.meta.kind == RecordKind::Batch {
            history.append(&record).expect("written");
            assert_eq!(history.last_seq(), record.meta.last_seq());
        }
    }
    history
}

#[test]
fn a_history_is_a_log_of_its_own() {
    for (skipped, taken) in [(0, 90), (0, 20), (40, 90), (40, 41), (89, 90)] {
        let (site, log, feeder) = fed(90);
        let copy = beside(&site);
        let begin_of = |record: usize| feeder.appended.get(record).map_or(feeder.next_seq, |s| *s);
        let (floor, upto) = (seq(begin_of(skipped) - 1), seq(begin_of(taken) - 1));
        let before = log.end();
        let history = copied(&log, &copy, floor, upto);
        assert_eq!(history.last_seq(), upto);
        let end = history.finish().expect("synced");
        assert_eq!(log.end(), before, "the log itself is as it was");
        // A recovery finds it complete, and what stands in it is what was committed.
        let prepared = copy
            .recover_with(|config| {
                config.floor = floor;
                config.last_seq = upto;
                config.clean = true;
                config.durable_upto = Some(end);
            })
            .expect("whole");
        assert!(prepared.dropped.is_none());
        assert_eq!(prepared.last_seq, upto, "{skipped} {taken}");
        let found = copy.records_from(&prepared.segments, floor.plus(1));
        assert_eq!(found.expect("readable"), feeder.appended[skipped..taken]);
    }
}

#[test]
#[should_panic(expected = "history is in the order of sequence numbers")]
fn a_history_refuses_what_came_before() {
    let (site, log, _) = fed(9);
    let mut history = copied(&log, &beside(&site), SequenceNumber::ZERO, seq(1_000));
    let mut tail = log.tail(seq(1), TailUpto::Appended).expect("there");
    let record = tail.next(std::time::Duration::ZERO).expect("readable");
    // The result does not matter: it must not come back.
    let _ = history.append(&record.expect("there is one"));
}

/// Until it is finished nobody takes it for a log.
#[test]
fn an_unfinished_history_holds_nothing() {
    let (site, log, feeder) = fed(30);
    let copy = beside(&site);
    let upto = seq(feeder.next_seq - 1);
    drop(copied(&log, &copy, SequenceNumber::ZERO, upto));
    let prepared = copy.recover().expect("a new log");
    assert_eq!(copy.records(&prepared), Vec::<u64>::new());
}

/// Each segment is in order for itself.
#[test]
fn segments_that_repeat_sequence_numbers_are_refused() {
    let counted = Counted::new();
    let twice = [counted.segments[0], counted.segments[0]];
    let fs = &*counted.site.fs;
    let mut replay = Replay::open(fs, &counted.site.dir, &twice, seq(1)).expect("open");
    let mut count = 0;
    let error = loop {
        match replay.next() {
            Ok(record) => assert!(record.is_some(), "they were read twice"),
            Err(error) => break error,
        }
        count += 1;
    };
    assert!(error.is_corruption(), "{error}");
    assert_eq!(error.path(), Some(&*counted.site.path(twice[1].number)));
    assert!(error.to_string().contains("last_seq="), "{error}");
    let first = counted.appended.iter();
    let first = first.filter(|record| **record <= twice[0].last_seq.get());
    assert_eq!(count, first.count());
}
