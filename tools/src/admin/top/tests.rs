//! Files made by hand, what follows from them, and how that looks.

use base::ErrorKind;
use siltstone::{KeyspaceStats, LevelStats, StatsFile, ThrottleCause, ThrottleStats};

use super::look::{Found, Told};
use super::watch::Watch;

mod looks;
#[path = "../../../tests/support/stats_file.rs"]
mod made;
mod rates;
mod screens;

use made::{Body, tag};

/// The process that has the database open.
const PROCESS_ID: u64 = 17;

/// A database that was opened `up` seconds ago and did the same in each of them, half of it to its
/// first keyspace.
fn steady(up: u64, names: &[&str]) -> StatsFile {
    let body = Body::of_process(PROCESS_ID, up, names);
    let body = [1, 3].into_iter().fold(body, |body, cause| {
        body.group(tag::WAIT, &Body::new().number(1, cause))
    });
    let mut file = StatsFile::decode(&body.file()).expect("it is whole");
    let stats = &mut file.stats;
    stats.user_write_count = 1000 * up;
    stats.user_bytes_written = 116_000 * up;
    stats.get_count = 500 * up;
    stats.get_hit_count = 450 * up;
    stats.get_bytes_read = 2_048_000 * up;
    stats.seek_count = 10 * up;
    stats.scan_entry_count = 100 * up;
    stats.scan_bytes_read = 40_960 * up;
    stats.log_sync_count = up;
    stats.log_bytes = 136_000 * up;
    stats.flush_count = up / 10;
    stats.flush_bytes_written = 118_000 * up;
    stats.compaction_count = up / 20;
    stats.compaction_bytes_read = 200_000 * up;
    stats.compaction_bytes_written = 190_000 * up;
    stats.cache_hits = 300 * up;
    stats.cache_misses = 100 * up;
    stats.cache_bytes = 128 << 20;
    stats.memtable_bytes = 48 << 20;
    stats.memtable_taken_bytes = 64 << 20;
    stats.sealed_memtable_count = 1;
    stats.snapshot_count = 2;
    stats.log_disk_bytes = 96 << 20;
    stats.log_segment_count = 3;
    fill(&mut stats.levels, 2);
    for keyspace in &mut stats.keyspaces {
        keyspace.throttle = ThrottleStats::default();
    }
    if let Some(first) = stats.keyspaces.first_mut() {
        first.user_write_count = 500 * up;
        first.user_bytes_written = 58_000 * up;
        first.get_count = 250 * up;
        first.memtable_bytes = 24 << 20;
        fill(&mut first.levels, 1);
    }
    let amplification = &mut file.amplification;
    amplification.write.user_bytes = 116_000 * up;
    amplification.write.log.payload_bytes = 136_000 * up;
    amplification.write.log.page_bytes = 140_000 * up;
    amplification.write.flush.payload_bytes = 118_000 * up;
    amplification.write.flush.page_bytes = 120_000 * up;
    amplification.read.get_count = 500 * up;
    amplification.read.tables_searched = 1.25;
    amplification.read.scan.seek_count = 10 * up;
    amplification.read.scan.runs = 5.0;
    amplification.read.scan.runs_passed = 2.0;
    amplification.space.table_bytes = 220 << 20;
    amplification.space.live_bytes = 200 << 20;
    file
}

fn fill(levels: &mut [LevelStats], times: u64) {
    for (at, tables, mib, score) in [(0, 2, 20, 0.5), (5, 4, 40, 0.9), (6, 16, 160, 0.0)] {
        let level = &mut levels[at];
        level.table_count = tables * times;
        level.bytes = (times * mib) << 20;
        level.entry_count = times * mib * 9000;
        level.tombstone_count = times * mib;
        level.compaction_bytes_written = (times * mib) << 21;
        level.get_hit_count = times * 1000;
        level.score = score;
    }
}

/// Read half a second after it was written.
fn told(file: StatsFile) -> Told {
    Told {
        seen_micros: file.written_micros + 500_000,
        is_writer_there: true,
        free_bytes: Some(12 << 30),
        file,
    }
}

fn found(file: StatsFile) -> Found {
    Found::Told(Box::new(told(file)))
}

/// What `watch` saw last, to be changed.
fn last(watch: &mut Watch) -> &mut Told {
    &mut watch.seen.as_mut().expect("there was a look").told
}

/// Two looks, ten seconds apart.
fn healthy(names: &[&str]) -> Watch {
    let mut watch = Watch::new(String::from("/data/people.db"));
    watch.take(found(steady(100, names)));
    watch.take(found(steady(110, names)));
    watch
}

/// Writers wait for level 0 of the first keyspace: longer and longer.
fn stalled() -> Watch {
    let mut watch = Watch::new(String::from("/data/people.db"));
    for (up, micros) in [(100, 5_000_000), (110, 9_500_000)] {
        let mut file = steady(up, &["default", "events"]);
        let stats = &mut file.stats;
        stats.stall_micros = micros;
        stats.throttle_micros = micros / 2;
        stats.waits[0].throttle_micros = 1_000_000;
        stats.waits[1].stall_micros = micros;
        hold_back(&mut stats.keyspaces[0], 0.0);
        hold_back(&mut stats.keyspaces[1], 2_097_152.0);
        stats.levels[0].score = 4.5;
        stats.keyspaces[0].levels[0].score = 4.5;
        watch.take(found(file));
    }
    watch
}

fn hold_back(keyspace: &mut KeyspaceStats, bytes_per_second: f64) {
    keyspace.throttle.cause = Some(ThrottleCause::Level0);
    keyspace.throttle.bytes_per_second = bytes_per_second;
}

fn in_trouble(kind: ErrorKind, trouble: &str) -> Watch {
    let mut watch = healthy(&["default"]);
    let told = last(&mut watch);
    told.file.trouble_kind = Some(kind);
    told.file.trouble = Some(trouble.to_owned());
    watch
}

fn no_space() -> Watch {
    let cause = "degraded: write failed file=/data/people.db/000017.sst: No space left on device";
    in_trouble(ErrorKind::NoSpace, cause)
}

fn poisoned() -> Watch {
    let cause = "an earlier failure closed the database for writes; reopen it: sync failed";
    in_trouble(ErrorKind::Poisoned, cause)
}

/// Written an hour ago, by a process that is gone.
fn dead() -> Watch {
    let mut watch = healthy(&["default"]);
    let told = last(&mut watch);
    told.seen_micros = told.file.written_micros + 3_600_000_000;
    told.is_writer_there = false;
    watch
}

/// Nothing was ever there.
fn missing() -> Watch {
    let mut watch = Watch::new(String::from("/data/people.db"));
    watch.take(Found::Nothing(String::from("there is no stats file")));
    watch
}

/// It was there.
fn closed() -> Watch {
    let mut watch = healthy(&["default"]);
    watch.take(Found::Nothing(String::from("there is no stats file")));
    watch
}

const TWENTY: [&str; 20] = [
    "default",
    "k01",
    "k02",
    "k03",
    "k04",
    "k05",
    "k06",
    "k07",
    "k08",
    "k09",
    "k10",
    "k11",
    "k12",
    "k13",
    "k14",
    "k15",
    "k16",
    "k17",
    "k18",
    "a name that is much too long for its column",
];
