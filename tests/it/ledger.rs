//! The books: what is counted is what happened, by keyspace, level and cause.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use base::fs::FileSystem;
use base::fs::sim::CrashModel;
use base::{FileKind, PinLedger};
use siltstone::seam::CountingFs;
use siltstone::{
    Compression, Db, ErrorKind, Event, FilterPolicy, KeyspaceOptions, Options, ReadMode,
};
use sstable::{ReaderOptions, TableReader, Verify};

use crate::support::{World, for_each_seed, tagged};

fn fill(db: &Db, count: u64, seed: u64) {
    for number in 0..count {
        let key = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count).to_be_bytes();
        db.put(key, tagged(number ^ seed, 60)).expect("a put");
    }
}

/// Every number below `count` once.
fn fill_all(db: &Db, count: u64) {
    for number in 0..count {
        db.put(number.to_be_bytes(), tagged(number, 60))
            .expect("a put");
    }
}

#[test]
fn every_byte_of_a_file_was_written_for_a_cause() {
    for_each_seed("every_byte_of_a_file_was_written_for_a_cause", 6, |seed| {
        let world = World::new(seed);
        let fs = Arc::new(CountingFs::new(world.fs.clone()));
        let counts = fs.counts();
        let db = world.options().file_system(fs).open("/db").expect("opens");
        let before = counts.written_bytes();
        let written = |db: &Db| db.amplification().write.total().payload_bytes;
        let opening = written(&db);
        fill(&db, 2000, seed);
        db.compact_range(..).expect("compacts");
        let handed_over = counts.written_bytes() - before;
        let booked = written(&db) - opening;
        // Booked and never stored: the padding behind records that are written through a mapping.
        let padding = 7 * 2000;
        let most = handed_over + padding;
        assert!(booked <= most, "{booked} booked of {handed_over}");
        // Not in the books: CURRENT and the indexes of sealed segments.
        let missing = handed_over.saturating_sub(booked);
        assert!(
            missing * 50 <= handed_over,
            "{missing} of {handed_over} are missing"
        );
        let write = db.amplification().write;
        assert!(write.flush.page_bytes >= write.flush.payload_bytes);
        assert_eq!(write.user_bytes, 2000 * 68);
    });
}

#[test]
fn what_an_open_copies_of_the_log_after_a_kill_is_in_the_books() {
    let world = World::new(4);
    let options = || {
        let options = world.options().memtable_bytes_max(4 << 20);
        options.log_segment_bytes(1 << 20).log_bytes_max(8 << 20)
    };
    let db = options().open("/db").expect("opens");
    fill(&db, 3000, 4);
    assert_eq!(db.stats().flush_count, 0, "all of it is in the log alone");
    let killed = world.fs.crash_image(&CrashModel::Everything, 4);
    let fs = Arc::new(CountingFs::new(killed));
    let counts = fs.counts();
    let db = options().file_system(fs).open("/db").expect("opens");
    let log = db.amplification().write.log;
    assert!(log.payload_bytes > 3000 * 68, "{log:?}");
    assert!(log.page_bytes >= log.payload_bytes, "{log:?}");
    assert_eq!(db.stats().log_bytes, log.payload_bytes);
    let booked = db.amplification().write.total().payload_bytes;
    let handed_over = counts.written_bytes();
    // Not in the books: CURRENT, indexes, and the headers of segments.
    assert!(booked <= handed_over, "{booked} of {handed_over}");
    let missing = handed_over - booked;
    assert!(missing * 50 <= handed_over, "{missing} of {handed_over}");
    db.close().expect("closes");
}

#[test]
fn versions_that_lie_beside_each_other_in_level_0_are_not_all_live() {
    let world = World::new(1);
    let options = world.options().memtable_bytes_max(1 << 20);
    let options = options
        .table_bytes_target(1 << 20)
        .level_base_bytes(16 << 20)
        .level0_table_count_trigger(20)
        .level0_table_count_max(40)
        .idle_compaction_after(None);
    let db = options.open("/db").expect("a new database");
    for _ in 0..3 {
        fill_all(&db, 1000);
        db.flush().expect("a flush");
    }
    let space = db.amplification().space;
    assert_eq!(space.levels[0].entry_count, 3000);
    assert_eq!(space.live_bytes, 1000 * 68);
    // Tombstones count for nothing, and neither do they make anything of what they hide live.
    for number in 0..500_u64 {
        db.delete(number.to_be_bytes()).expect("a delete");
    }
    db.flush().expect("a flush");
    assert_eq!(db.amplification().space.live_bytes, 1000 * 68);
}

#[test]
fn every_get_is_counted_once_and_where_it_ended() {
    let world = World::new(3);
    let db = world.open().expect("opens");
    fill(&db, 500, 3);
    db.compact_range(..).expect("compacts");
    for number in 0..100_u64 {
        db.put(number.to_be_bytes(), "new").expect("a put");
    }
    for number in 100..150_u64 {
        db.delete(number.to_be_bytes()).expect("a delete");
    }
    let before = db.stats();
    let mut found = 0;
    for number in 0..1000_u64 {
        found += u64::from(db.get(number.to_be_bytes()).expect("a get").is_some());
    }
    let after = db.stats();
    assert_eq!(after.get_count - before.get_count, 1000);
    assert_eq!(after.get_hit_count - before.get_hit_count, found);
    let level_hits: u64 = after.levels.iter().map(|level| level.get_hit_count).sum();
    let old_hits: u64 = before.levels.iter().map(|level| level.get_hit_count).sum();
    let memtable_hits = after.memtable_hit_count - before.memtable_hit_count;
    assert_eq!(memtable_hits + level_hits - old_hits, found);
    let read = db.amplification().read;
    let ended: f64 = read.from_active + read.from_sealed + read.from_levels.iter().sum::<f64>();
    assert!((ended + read.not_found - 1.0).abs() < 1e-9, "{read:?}");
    assert!((read.filter_negatives + read.tables_searched - read.tables_considered).abs() < 1e-9);
    assert_eq!(after.keyspaces[0].get_count, after.get_count);
}

/// How many data blocks all tables have, and how many bytes these are.
fn blocks_of_tables(world: &World) -> (u64, u64) {
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        cache: None,
        verify: Verify::Once,
        pins: Arc::new(PinLedger::default()),
    };
    let (mut count, mut bytes) = (0, 0);
    for entry in world.fs.list(Path::new("/db")).expect("listed") {
        let Some((FileKind::Table, number)) = FileKind::parse(&entry.name) else {
            continue;
        };
        let file = world.fs.open(&Path::new("/db").join(&entry.name));
        let file = file.expect("opens");
        let table = TableReader::open(file, &options, None, number.0).expect("opens");
        for index in 0..table.block_count() {
            let block = table.block_info(index).expect("whole");
            count += 1;
            bytes += u64::from(block.handle.len);
        }
    }
    (count, bytes)
}

#[test]
fn what_gets_are_said_to_read_is_what_the_files_were_asked_for() {
    let world = World::new(12);
    let fs = Arc::new(CountingFs::new(world.fs.clone()));
    let counts = fs.counts();
    let options = world.options().file_system(fs);
    let db = options
        .read_mode(ReadMode::Positioned)
        .filter(FilterPolicy::Blocked { bits_per_key: 10 })
        .verify_reads(Verify::Once)
        // So few that all of them stay open, though no cache has room for what they keep.
        .memtable_bytes_max(1 << 20)
        .table_bytes_target(1 << 20)
        .cache_bytes(0)
        .open("/db")
        .expect("opens");
    fill_all(&db, 2000);
    db.flush().expect("flushes");
    db.wait_for_compactions().expect("comes to rest");
    let get_all = || {
        for number in 0..4000_u64 {
            db.get(number.to_be_bytes()).expect("a get");
        }
    };
    // Indexes and filters are read when a table is opened, and are no part of a get's cost.
    get_all();
    let (asked_before, before) = (counts.read_bytes(), db.stats());
    get_all();
    let (asked, after) = (counts.read_bytes() - asked_before, db.stats());
    assert_eq!(after.get_count - before.get_count, 4000);
    let blocks = after.data_blocks - before.data_blocks;
    assert!(blocks >= 2000, "each key that is there lies in a block");
    assert_eq!(after.loaded_blocks - before.loaded_blocks, blocks);
    // Asked for and not in the books: the trailer of each block, and nothing else.
    let booked = after.get_bytes_read - before.get_bytes_read;
    let trailers = blocks * sstable::TRAILER_BYTES as u64;
    assert_eq!(
        asked - booked,
        trailers,
        "{booked} of {asked}, {blocks} blocks"
    );
}

#[test]
fn what_scans_are_said_to_read_is_what_the_tables_hold() {
    let world = World::new(8);
    let options = world.options().read_mode(ReadMode::Positioned);
    let db = options
        .cache_bytes(0)
        .compression(Compression::None)
        .bottom_compression(Compression::None)
        .open("/db")
        .expect("opens");
    fill_all(&db, 3000);
    db.compact_range(..).expect("compacts");
    let before = db.stats();
    let mut cursor = db.cursor().expect("a cursor");
    let mut is_valid = cursor.seek_to_first().expect("a seek");
    let mut shown = 0;
    while is_valid {
        shown += 1;
        is_valid = cursor.next().expect("a step");
    }
    assert_eq!(shown, 3000);
    // Behind every key: no run has anything there, and nothing is read for it.
    assert!(!cursor.seek([0xff; 9]).expect("a seek"));
    drop(cursor);
    let after = db.stats();
    assert_eq!(after.seek_count - before.seek_count, 2);
    assert_eq!(after.scan_entry_count - before.scan_entry_count, shown);
    let runs = after.seek_run_count - before.seek_run_count;
    let passed = after.seek_passed_run_count - before.seek_passed_run_count;
    assert_eq!((runs, passed), (2, 1), "everything lies in one run");
    world.executor.run_until_idle();
    let (count, bytes) = blocks_of_tables(&world);
    assert!(count > 1, "3000 entries fill more than a block");
    let blocks = after.scan_data_blocks - before.scan_data_blocks;
    assert_eq!(blocks, count, "each is entered once");
    assert_eq!(after.scan_loaded_blocks - before.scan_loaded_blocks, count);
    assert_eq!(after.scan_cache_hits, before.scan_cache_hits);
    assert_eq!(after.scan_bytes_read - before.scan_bytes_read, bytes);
}

#[test]
fn a_cursor_that_lives_on_is_booked_now_and_then() {
    let world = World::new(9);
    let db = world.open().expect("opens");
    fill_all(&db, 500);
    db.compact_range(..).expect("compacts");
    let mut cursor = db.cursor().expect("a cursor");
    for number in 0..1000_u64 {
        cursor.seek((number % 500).to_be_bytes()).expect("a seek");
    }
    let scan = db.amplification().read.scan;
    assert_eq!(scan.seek_count, 1000);
    assert!((0.9..=1.0).contains(&scan.entries), "{scan:?}");
    assert!((0.9..=1.0).contains(&scan.index_blocks), "{scan:?}");
    drop(cursor);
    let entries = db.amplification().read.scan.entries;
    assert!((entries - 1.0).abs() < 1e-9, "{entries}");
}

#[test]
fn events_come_in_pairs_and_name_what_was_made() {
    let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
    let listening = Arc::clone(&seen);
    let world = World::new(5);
    let listener = move |event: &Event| listening.lock().expect("unbroken").push(event.clone());
    let options = world.options().on_event(Arc::new(listener));
    let db = options.open("/db").expect("opens");
    fill(&db, 2000, 5);
    db.wait_for_compactions().expect("comes to rest");
    let stats = db.stats();
    db.close().expect("closes");
    let seen = seen.lock().expect("unbroken");
    let count = |is: fn(&Event) -> bool| seen.iter().filter(|event| is(event)).count() as u64;
    let began = count(|event| matches!(event, Event::FlushBegan { .. }));
    assert_eq!(began, count(|event| matches!(event, Event::Flushed { .. })));
    assert!(began >= stats.flush_count && stats.flush_count > 1);
    let began = count(|event| matches!(event, Event::CompactionBegan { .. }));
    assert_eq!(
        began,
        count(|event| matches!(event, Event::Compacted { .. }))
    );
    assert!(began > 0, "2000 entries were compacted");
    let mut written = 0;
    let mut created = 0;
    let mut jobs = Vec::new();
    for event in &*seen {
        match event {
            Event::Flushed {
                written_bytes, job, ..
            }
            | Event::Compacted {
                written_bytes, job, ..
            } => {
                written += written_bytes;
                jobs.push(*job);
            }
            Event::TableCreated { bytes, .. } => created += bytes,
            _ => {}
        }
    }
    assert_eq!(written, created, "bytes of jobs and of tables");
    let job_count = jobs.len();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), job_count, "each job has a number of its own");
    assert!(count(|event| matches!(event, Event::FileDeleted { .. })) > 0);
    assert!(count(|event| matches!(event, Event::SegmentCreated { .. })) > 0);
}

#[test]
fn keyspaces_that_come_and_go_are_told_in_order() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let telling = Arc::clone(&told);
    let world = World::new(11);
    let listener = move |event: &Event| {
        let line = match event {
            Event::KeyspaceCreated { keyspace } => format!("created {keyspace}"),
            Event::KeyspaceDropped { keyspace } => format!("dropped {keyspace}"),
            _ => return,
        };
        telling.lock().expect("unbroken").push(line);
    };
    let open = || {
        let options = world.options().on_event(Arc::new(listener.clone()));
        options.open("/db").expect("opens")
    };
    let db = open();
    let options = KeyspaceOptions::new();
    db.create_keyspace("a", &options).expect("created");
    db.create_keyspace("b", &options).expect("created");
    db.create_keyspace("a", &options)
        .expect_err("it is there already");
    db.drop_keyspace("a").expect("dropped");
    db.drop_keyspace("a").expect_err("it is gone");
    db.create_keyspace("a", &options).expect("created again");
    db.close().expect("closes");
    // What the log and MANIFEST say is not told once more.
    drop(open());
    let told = told.lock().expect("unbroken");
    assert_eq!(*told, ["created a", "created b", "dropped a", "created a"]);
}

/// What was counted of all keyspaces together.
fn sums(db: &Db) -> [u64; 9] {
    let stats = db.stats();
    let write = db.amplification().write;
    let by_level: u64 = stats
        .levels
        .iter()
        .map(|l| l.compaction_bytes_written)
        .sum();
    assert_eq!(by_level, stats.compaction_bytes_written);
    assert_eq!(write.user_bytes, stats.user_bytes_written);
    let hits: u64 = stats.levels.iter().map(|l| l.get_hit_count).sum();
    assert_eq!(hits + stats.memtable_hit_count, stats.get_hit_count);
    [
        stats.user_bytes_written,
        stats.user_write_count,
        write.flush.page_bytes,
        stats.flush_count,
        stats.compaction_bytes_written,
        stats.compaction_count,
        stats.get_count,
        stats.get_hit_count,
        stats.seek_count,
    ]
}

#[test]
fn what_a_dropped_keyspace_has_cost_stays_in_the_sums() {
    for_each_seed(
        "what_a_dropped_keyspace_has_cost_stays_in_the_sums",
        6,
        |seed| {
            let world = World::new(seed);
            let db = world.open().expect("opens");
            let gone = db.create_keyspace("gone", &KeyspaceOptions::new());
            let gone = gone.expect("created");
            for number in 0..700_u64 {
                let (key, value) = (number.to_be_bytes(), tagged(number ^ seed, 60));
                gone.put(key, &value).expect("a put");
                db.put(key, &value).expect("a put");
                gone.get(key).expect("a get");
            }
            gone.compact_range(..).expect("compacts");
            db.compact_range(..).expect("compacts");
            assert_eq!(gone.iter().expect("an iterator").count(), 700);
            for number in 0..100_u64 {
                assert!(gone.get(number.to_be_bytes()).expect("a get").is_some());
            }
            let before = sums(&db);
            assert!(before.iter().all(|sum| *sum > 0), "{before:?}");
            let snapshot = db.snapshot().expect("a snapshot");
            let past = snapshot.keyspace(&gone).expect("it is there");
            db.drop_keyspace("gone").expect("dropped");
            assert_eq!(sums(&db), before, "while a snapshot reads it");
            // What is read from it then is counted as well.
            past.get(5_u64.to_be_bytes()).expect("a get");
            let with_one = sums(&db);
            assert_eq!(with_one[6..8], [before[6] + 1, before[7] + 1]);
            drop((past, snapshot, gone));
            assert_eq!(sums(&db), with_one, "when nobody reads it any more");
            world.executor.run_until_idle();
            assert_eq!(sums(&db), with_one, "when nothing is left of it");
            assert_eq!(db.amplification().keyspaces.len(), 1);
            db.close().expect("closes");
            let db = world.open().expect("opens again");
            assert_eq!(db.stats().user_bytes_written, 0, "counted since the open");
        },
    );
}

#[test]
fn a_listener_that_panics_is_not_called_again_and_nothing_else_happens() {
    let calls = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&calls);
    let world = World::new(7);
    let listener = move |event: &Event| {
        if let Event::FlushBegan { .. } = event {
            counting.fetch_add(1, Ordering::SeqCst);
            panic!("this one is meant");
        }
    };
    let options = world.options().on_event(Arc::new(listener));
    let db = options.open("/db").expect("opens");
    fill(&db, 1000, 7);
    db.compact_range(..).expect("compacts");
    assert!(db.stats().flush_count > 1);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(matches!(db.health(), siltstone::Health::Good));
    db.close().expect("closes");
}

#[test]
fn a_listener_may_read_but_not_write() {
    let handle: Arc<OnceLock<Db>> = Arc::default();
    let results: Arc<Mutex<Vec<ErrorKind>>> = Arc::default();
    let (inside, seen) = (Arc::clone(&handle), Arc::clone(&results));
    let dir = tempfile::tempdir().expect("a directory");
    let listener = move |event: &Event| {
        let (Event::FlushBegan { .. }, Some(db)) = (event, inside.get()) else {
            return;
        };
        assert!(db.get("key").is_ok_and(|value| value.is_some()));
        assert_eq!(db.stats().flush_count, 0);
        let failed = [
            db.put("key", "other").map(drop),
            db.flush(),
            db.sync(),
            db.compact_range(..),
            db.wait_for_compactions(),
            db.close(),
        ];
        let kinds = failed
            .into_iter()
            .map(|result| result.expect_err("refused").kind());
        seen.lock().expect("unbroken").extend(kinds);
    };
    let options = Options::new().on_event(Arc::new(listener));
    let db = options.open(dir.path()).expect("opens");
    handle.set(db.clone()).expect("once");
    db.put("key", "value").expect("a put");
    db.flush().expect("a flush");
    assert_eq!(
        *results.lock().expect("unbroken"),
        [ErrorKind::InvalidArgument; 6]
    );
    assert_eq!(
        db.get("key").expect("a get").as_deref(),
        Some(&b"value"[..])
    );
    db.close().expect("closes");
}

#[test]
fn a_report_prints_no_name_that_a_terminal_would_act_on() {
    let world = World::new(7);
    let db = world.open().expect("opens");
    let name = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\nspace 1.00";
    db.create_keyspace(name, &KeyspaceOptions::new())
        .expect("created");
    let report = db.amplification().to_string();
    assert!(
        report.contains(r"\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\nspace 1.00: write"),
        "{report}"
    );
    let is_plain = |c: char| c.is_ascii() && !c.is_ascii_control();
    assert!(report.lines().all(|line| line.chars().all(is_plain)));
}
