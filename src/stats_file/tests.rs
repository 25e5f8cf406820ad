use base::random::Random;
use base::{ErrorKind, Level, SequenceNumber};

use super::format::{KEYSPACE_COUNT_MAX, NUMBER_MAX, decode, encode};
use super::{Contents, StatsFile};
use crate::ledger::{Counts, Written};
use crate::stats::{Gathered, KeyspaceStats, Stats, ThrottleStats, WaitStats, empty_levels};
use crate::throttle::ThrottleCause;

/// Numbers that are all different, so that two fields cannot stand for each other.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn written(&mut self) -> Written {
        Written {
            payload_bytes: self.next(),
            page_bytes: self.next(),
        }
    }

    fn counts(&mut self) -> Counts {
        let mut counts = Counts {
            user_bytes: self.next(),
            user_write_count: self.next(),
            flush: self.written(),
            flush_count: self.next(),
            compaction_count: self.next(),
            compaction_read_bytes: self.next(),
            move_count: self.next(),
            moved_bytes: self.next(),
            active_hit_count: self.next(),
            sealed_hit_count: self.next(),
            tombstone_count: self.next(),
            absent_count: self.next(),
            data_blocks: self.next(),
            cache_hits: self.next(),
            cache_misses: self.next(),
            loaded_blocks: self.next(),
            read_bytes: self.next(),
            seek_count: self.next(),
            ..Counts::default()
        };
        let scans = &mut counts.scans;
        for number in [
            &mut scans.run_count,
            &mut scans.passed_run_count,
            &mut scans.entry_count,
            &mut scans.hidden_count,
            &mut scans.index_blocks,
            &mut scans.data_blocks,
            &mut scans.cache_hits,
            &mut scans.loaded_blocks,
            &mut scans.read_bytes,
        ] {
            *number = self.next();
        }
        for level in &mut counts.levels {
            level.hit_count = self.next();
            level.filter_negatives = self.next();
            level.searched = self.next();
            level.filter_false_positives = self.next();
            level.compaction = self.written();
            level.arrived_bytes = self.next();
        }
        counts
    }

    fn throttle(cause: Option<ThrottleCause>) -> ThrottleStats {
        ThrottleStats {
            cause,
            bytes_per_second: 0.0,
            flush_bytes_per_second: 2.5,
            compaction_bytes_per_second: f64::INFINITY,
        }
    }

    fn keyspace(&mut self, name: &str) -> (KeyspaceStats, Counts) {
        let counts = self.counts();
        let mut levels = empty_levels();
        for (level, counted) in levels.iter_mut().zip(&counts.levels) {
            level.table_count = self.next();
            level.bytes = self.next();
            level.tombstone_count = self.next();
            level.entry_count = self.next();
            level.raw_bytes = self.next();
            level.distinct_bytes = self.next();
            level.score = 0.75;
            level.set_counted(counted);
        }
        let stats = KeyspaceStats {
            name: name.to_owned(),
            user_bytes_written: counts.user_bytes,
            user_write_count: counts.user_write_count,
            memtable_bytes: self.next(),
            sealed_memtable_count: self.next(),
            get_count: counts.get_count(),
            get_hit_count: counts.hit_count(),
            levels,
            throttle: Self::throttle(Some(ThrottleCause::Level0)),
        };
        (stats, counts)
    }

    fn contents(&mut self, names: &[String]) -> Contents {
        let (all, counts) = self.keyspace("");
        let (keyspaces, counts_by_keyspace) = names.iter().map(|name| self.keyspace(name)).unzip();
        let waits = [ThrottleCause::Memory, ThrottleCause::Debt].map(|cause| WaitStats {
            cause,
            stall_count: self.next(),
            stall_micros: self.next(),
            throttle_count: self.next(),
            throttle_micros: self.next(),
        });
        let mut pins = base::PinLedger::default().report(0).to_vec();
        pins[3].count = self.next();
        pins[3].oldest_micros = Some(0);
        Contents {
            process_id: 17,
            engine_version: String::from("1.2.3"),
            opened_micros: self.next(),
            written_micros: self.next(),
            up_micros: self.next(),
            interval_micros: self.next(),
            trouble: Some(String::from("degraded: no room")),
            trouble_kind: Some(ErrorKind::NoSpace),
            keyspace_count: names.len() as u64,
            found: Gathered {
                stats: Stats {
                    levels: all.levels,
                    throttle: all.throttle,
                    keyspaces,
                    waits: waits.to_vec(),
                    pins,
                    visible_seq: SequenceNumber::new(self.next()).expect("small"),
                    oldest_snapshot_seq: Some(SequenceNumber::default()),
                    read_mode: sstable::ReadMode::Positioned,
                    log_bytes: self.next(),
                    throttle_count: self.next(),
                    get_bytes_read: self.next(),
                    stall_micros: self.next(),
                    seek_run_count: self.next(),
                    seek_passed_run_count: self.next(),
                    scan_entry_count: self.next(),
                    scan_hidden_entry_count: self.next(),
                    scan_index_blocks: self.next(),
                    scan_data_blocks: self.next(),
                    scan_cache_hits: self.next(),
                    scan_loaded_blocks: self.next(),
                    scan_bytes_read: self.next(),
                    ..Stats::default()
                },
                counts,
                counts_by_keyspace,
                log: self.written(),
                manifest: self.written(),
                stats_file: self.written(),
            },
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("keyspace {number}"))
        .collect()
}

#[test]
fn everything_comes_back() {
    let contents = Numbers(0).contents(&names(3));
    let found = decode(&encode(&contents)).expect("whole");
    assert_eq!(format!("{found:?}"), format!("{contents:?}"));
    let nothing = Contents::default();
    let found = decode(&encode(&nothing)).expect("whole");
    assert_eq!(found.found.stats.levels.len(), Level::COUNT);
    assert_eq!(found.process_id, 0);
}

#[test]
fn of_too_many_keyspaces_the_largest_are_told() {
    let mut contents = Numbers(0).contents(&names(KEYSPACE_COUNT_MAX + 7));
    let last = contents.found.stats.keyspaces.last_mut().expect("many");
    last.memtable_bytes = 1 << 40;
    let found = StatsFile::from(decode(&encode(&contents)).expect("whole"));
    assert_eq!(found.keyspace_count, KEYSPACE_COUNT_MAX as u64 + 7);
    let told: Vec<_> = found.stats.keyspaces.iter().map(|k| &*k.name).collect();
    assert_eq!(told.len(), KEYSPACE_COUNT_MAX);
    assert_eq!(told[0], "keyspace 0", "the first is always told");
    assert_eq!(told[KEYSPACE_COUNT_MAX - 1], "keyspace 262");
    assert_eq!(found.amplification.keyspaces.len(), KEYSPACE_COUNT_MAX);
}

#[test]
fn long_trouble_is_cut_between_characters_and_numbers_have_a_bound() {
    let mut contents = Numbers(0).contents(&names(1));
    contents.trouble = Some("x".to_owned() + &"\u{e9}".repeat(600));
    contents.interval_micros = u64::MAX;
    let found = decode(&encode(&contents)).expect("whole");
    let trouble = found.trouble.expect("it was said");
    assert_eq!(trouble.len(), 1023);
    assert_eq!(found.interval_micros, NUMBER_MAX);
}

/// Every damage is found, or leaves what could have been written.
#[test]
fn damaged_bytes_are_refused() {
    let bytes = encode(&Numbers(0).contents(&names(2)));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = StatsFile::decode(&damaged).expect_err("a bit is wrong");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{at}: {error}");
        let error = StatsFile::decode(&bytes[..at]).expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::Corruption, "{at}: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    StatsFile::decode(&longer).expect_err("bytes behind its end");
}

/// Checksums repaired: nothing panics, overflows, or takes memory for what is not there; what is
/// read can be shown.
#[test]
fn hostile_bytes_are_refused_or_shown() {
    let seed = 0x5747;
    println!("seed {seed}");
    let mut random = Random(seed);
    let bytes = encode(&Numbers(0).contents(&names(2)));
    let body_end = bytes.len() - 4;
    let (mut refused, mut shown) = (0, 0);
    for _ in 0..20_000 {
        let mut hostile = bytes.clone();
        for _ in 0..=random.index(3) {
            let at = 16 + random.index(body_end - 16);
            hostile[at] = u8::try_from(random.index(256)).expect("a byte");
        }
        let crc = base::checksum::Crc::plain()
            .and(&hostile[..body_end])
            .finish();
        hostile[body_end..].copy_from_slice(&crc.to_le_bytes());
        match StatsFile::decode(&hostile) {
            Ok(found) => {
                shown += 1;
                assert!(found.stats.keyspaces.len() <= 2);
                let _ = found.stats.write_amplification() + found.amplification.write.factor();
                assert!(!found.amplification.to_string().is_empty());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1000 && shown > 1000, "{refused} {shown}");
}

#[test]
fn what_is_newer_is_refused_or_skipped_as_it_says() {
    let bytes = encode(&Contents::default());
    let with_field = |tag: u32| {
        let mut body = bytes[16..bytes.len() - 4].to_vec();
        base::coding::put_field(&mut body, tag, b"new");
        let mut out = bytes[..12].to_vec();
        let len = u32::try_from(body.len()).expect("short");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&body);
        let crc = base::checksum::Crc::plain().and(&out).finish();
        out.extend_from_slice(&crc.to_le_bytes());
        StatsFile::decode(&out)
    };
    with_field(base::coding::FIRST_SKIPPABLE_TAG).expect("it may be skipped");
    let error = with_field(1000).expect_err("it may not");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[8] += 1;
    let crc = base::checksum::Crc::plain().and(&newer).finish();
    newer.extend_from_slice(&crc.to_le_bytes());
    let error = StatsFile::decode(&newer).expect_err("a newer version");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("found=2 supported=1"), "{error}");
}
