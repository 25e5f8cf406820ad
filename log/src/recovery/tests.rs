use std::path::{Path, PathBuf};

use base::ErrorKind;
use base::fs::sim::{CrashModel, SimFs};

use super::*;
use crate::testing::{DIR, Feeder, Site, go_on, image_of, seq, sim};
use crate::{Appended, Log};

mod bytes;
mod cases;
mod crash;
mod lost;
mod modes;

/// A log on a simulated disk, and what is in it.
struct Made {
    fs: Arc<SimFs>,
    site: Site,
    log: Arc<Log>,
    feeder: Feeder,
    /// Where each record lies, and in which file.
    places: Vec<(Appended, FileNumber)>,
}

impl Made {
    fn new() -> Self {
        Self::on(sim(1))
    }

    fn on(fs: Arc<SimFs>) -> Self {
        let site = Site::new(fs.clone());
        let log = site.start();
        Self {
            fs,
            site,
            log,
            feeder: Feeder::new(),
            places: Vec::new(),
        }
    }

    fn append(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            let appended = self.feeder.append(&self.log).expect("appended");
            self.places.push((appended, self.log.live_number()));
        }
        self
    }

    fn sync(&mut self) -> &mut Self {
        self.log.sync().expect("synced");
        self
    }

    fn rotate(&mut self) -> &mut Self {
        self.log.rotate().expect("rotated");
        self
    }

    /// `segments` segments of three records each; the last one is live.
    fn segments(segments: usize) -> Self {
        let mut made = Self::new();
        for index in 0..segments {
            if index > 0 {
                made.rotate();
            }
            made.append(3);
        }
        made
    }

    fn path(&self, record: usize) -> PathBuf {
        self.site.path(self.places[record].1)
    }

    /// The disk as a kill leaves it.
    fn killed(&self) -> Arc<SimFs> {
        image_of(&self.fs, CrashModel::Everything)
    }

    /// The same with one byte of a record's payload, or of its header, changed.
    fn killed_with_damage(&self, record: usize) -> Arc<SimFs> {
        let image = self.killed();
        flip(
            &image,
            &self.path(record),
            self.places[record].0.start.offset + 9,
        );
        image
    }

    fn appended(&self, count: usize) -> &[u64] {
        &self.feeder.appended[..count]
    }
}

fn flip(fs: &SimFs, path: &Path, offset: u64) {
    let mut bytes = fs.contents(path).expect("there");
    bytes[usize::try_from(offset).expect("small")] ^= 0x40;
    fs.install(path, &bytes).expect("installed");
}

fn records_on(fs: &Arc<SimFs>) -> Vec<u64> {
    let site = Site::new(fs.clone());
    let prepared = site.recover().expect("recovered");
    site.records(&prepared)
}

fn lost_files(fs: &SimFs) -> Vec<PathBuf> {
    let lost = Path::new(DIR).join(ids::LOST);
    let paths = fs.paths().into_iter();
    paths.filter(|path| path.starts_with(&lost)).collect()
}

#[test]
fn nothing_is_an_empty_log() {
    let site = Site::new(sim(1));
    let prepared = site.recover().expect("recovered");
    assert_eq!(site.records(&prepared), Vec::new());
    assert_eq!(prepared.successor.ordinal, 0);
    assert_eq!(prepared.successor.first_seq, seq(1));
    assert!(prepared.obsolete.is_empty() && prepared.dropped.is_none());
}

#[test]
fn a_killed_log_comes_back_whole_and_can_go_on() {
    let made = Made::segments(3);
    let mut expected = made.feeder.appended.clone();
    let mut fs = made.killed();
    made.fs.crash_now();
    for life in 0..8 {
        let site = Site::new(fs.clone());
        let prepared = site.recover().expect("recovered");
        assert_eq!(site.records(&prepared), expected, "life {life}");
        assert!(prepared.dropped.is_none());
        let log = go_on(&site, &prepared).expect("started");
        let mut feeder = Feeder::after(expected);
        feeder.append_many(&log, 4);
        expected = feeder.appended;
        fs = image_of(&fs, CrashModel::Everything);
    }
}

#[test]
fn recovery_twice_is_recovery_once() {
    let fs = Made::segments(4).killed();
    let once = records_on(&fs);
    let sealed = |fs: &Arc<SimFs>| {
        let prepared = Site::new(fs.clone()).recover().expect("recovered");
        (prepared.last_seq, prepared.successor.commit_micros)
    };
    let first = sealed(&fs);
    for _ in 0..4 {
        assert_eq!(records_on(&fs), once);
        assert_eq!(sealed(&fs), first);
    }
}

#[test]
fn what_may_only_be_in_memory_is_copied_and_the_rest_is_not() {
    let mut made = Made::segments(3);
    made.sync();
    let durable = made.log.durable_upto();
    made.append(2).rotate().append(2);
    let fs = made.killed();
    let site = Site::new(fs.clone());
    let prepared = site
        .recover_with(|config| config.durable_upto = Some(durable))
        .expect("recovered");
    // Two segments are proven, and what follows lies in one copy, which is durable.
    assert_eq!(prepared.segments.len(), 3);
    for (segment, place) in prepared.segments.iter().zip([0, 3]) {
        assert_eq!(segment.number, made.places[place].1);
    }
    assert_eq!(
        prepared.obsolete,
        [made.places[6].1, made.places[12].1],
        "in their order"
    );
    let crashed = image_of(&fs, CrashModel::Synced);
    let site = Site::new(crashed);
    assert_eq!(site.records(&prepared), made.feeder.appended);
}

#[test]
fn a_clean_log_is_neither_read_nor_copied() {
    let mut made = Made::segments(4);
    made.site.clock.advance(777);
    made.append(1);
    made.log.close().expect("closed");
    let last = made.log.end();
    let live = made.log.live_number();
    let clock = made.site.clock.clone();
    let last_micros = made.places.last().expect("some").0.commit_micros;
    let fs = base::fs::CountingFs::new(made.killed());
    let counts = fs.counts();
    let site = Site::new(Arc::new(fs));
    let last_seq = seq(made.feeder.next_seq - 1);
    let prepared = site
        .recover_with(|config| {
            config.clean = true;
            config.durable_upto = Some(last);
            config.last_seq = last_seq;
            config.floor = last_seq;
            config.flushed_max = last_seq;
        })
        .expect("recovered");
    assert_eq!(counts.written_bytes(), 0);
    assert_eq!(prepared.last_seq, last_seq);
    assert!(prepared.obsolete.is_empty() && prepared.dropped.is_none());
    // What is said of a segment that was not read is right all the same.
    for (index, segment) in prepared.segments.iter().enumerate() {
        let first = made.places[index * 3].0;
        assert_eq!(segment.first_seq, seq(made.feeder.appended[index * 3]));
        assert_eq!(segment.number, made.places[index * 3].1);
        assert!(segment.last_commit_micros >= first.commit_micros);
    }
    let newest = prepared.segments.last().expect("some");
    assert_eq!(newest.number, live);
    assert_eq!(newest.last_commit_micros, last_micros);
    assert_eq!(newest.bytes, made.places.last().expect("some").0.end.offset);
    assert_eq!(site.records(&prepared), made.feeder.appended);
    // Time does not go back over a close.
    clock.set(5);
    site.clock.set(5);
    assert_eq!(prepared.successor.commit_micros, last_micros);
    let log = go_on(&site, &prepared).expect("started");
    let appended = Feeder::after(made.feeder.appended)
        .append(&log)
        .expect("appended");
    assert!(appended.commit_micros >= last_micros);
}

#[test]
fn the_history_stays_without_a_gap_whatever_is_flushed() {
    for floor in [0, 4, 8, 11, 100] {
        let mut made = Made::segments(2);
        made.sync();
        let durable = made.log.durable_upto();
        made.append(3);
        let last = made.feeder.next_seq - 1;
        let floor = seq(floor.min(last));
        let site = Site::new(made.killed());
        let prepared = site
            .recover_with(|config| {
                config.floor = floor;
                config.flushed_max = floor;
                config.durable_upto = Some(durable);
            })
            .expect("recovered");
        assert_eq!(site.records(&prepared), made.feeder.appended, "{floor}");
        let mut expected = seq(1);
        for segment in &prepared.segments {
            assert_eq!(segment.first_seq, expected, "floor={floor}");
            expected = segment.last_seq.plus(1);
        }
    }
}

#[test]
fn the_last_sequence_number_is_the_highest_that_anything_holds() {
    let made = Made::segments(2);
    let last = seq(made.feeder.next_seq - 1);
    for flushed in [0, 3, 500] {
        let site = Site::new(made.killed());
        let prepared = site
            .recover_with(|config| {
                config.floor = seq(flushed).min(last);
                config.flushed_max = seq(flushed);
            })
            .expect("recovered");
        assert_eq!(prepared.last_seq, last.max(seq(flushed)));
        assert_eq!(prepared.successor.first_seq, prepared.last_seq.plus(1));
    }
}

#[test]
fn progress_ends_with_everything() {
    let made = Made::segments(4);
    let site = Site::new(made.killed());
    let seen = base::sync::Mutex::new(Vec::new());
    let on_progress = |progress| seen.lock().push(progress);
    site.recover_with(|config| config.on_progress = &on_progress)
        .map(|_| ())
        .expect("recovered");
    let seen: Vec<RecoveryProgress> = seen.into_inner();
    assert_eq!(seen.len(), 4);
    assert!(seen.is_sorted_by_key(|progress| progress.read_bytes));
    let last = seen.last().expect("some");
    assert_eq!(last.read_bytes, last.total_bytes);
}
