use std::fmt::Write as _;

use base::cursor::Cursor as _;
use base::fs::fault::{Effect, Fault, FaultError, FaultFs, OpKind};

use super::*;
use crate::testing::{MemFs, delete, key_of, open, put, seq, table};

fn add_all(entries: &[base::cursor::VecEntry]) -> Result<TableSummary> {
    let options = TableOptions::default();
    let mut writer = TableWriter::create(&MemFs::default(), Path::new("test.sst"), options)?;
    for entry in entries {
        writer.add(key_of(entry), &entry.3)?;
    }
    writer.finish()
}

#[test]
#[should_panic(expected = "entries must come in key order")]
fn a_key_out_of_order_is_a_broken_promise() {
    let _ = add_all(&[put("b", 1, ""), put("a", 2, "")]);
}

#[test]
#[should_panic(expected = "entries must come in key order")]
fn a_version_out_of_order_is_a_broken_promise() {
    let _ = add_all(&[put("a", 1, ""), put("a", 2, "")]);
}

#[test]
#[should_panic(expected = "entries must come in key order")]
fn an_entry_twice_is_a_broken_promise() {
    let _ = add_all(&[put("a", 1, ""), put("a", 1, "")]);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let error = add_all(&[]).expect_err("no entry");
    assert_eq!(error.kind(), base::ErrorKind::InvalidArgument);
    let error = add_all(&[put(vec![0; KEY_BYTES_MAX + 1], 1, "")]).expect_err("a long key");
    assert_eq!(error.kind(), base::ErrorKind::InvalidArgument);
    let options = TableOptions {
        block_bytes_target: (4 << 20) + 1,
        ..TableOptions::default()
    };
    let created = TableWriter::create(&MemFs::default(), Path::new("test.sst"), options);
    assert!(created.is_err());
}

#[test]
fn the_summary_counts_what_was_added() {
    let entries = [
        delete("a", 9),
        put("a", 4, "12345"),
        put("bb", 7, ""),
        delete("ccc", 2),
    ];
    let summary = add_all(&entries).expect("finished");
    let properties = &summary.properties;
    assert_eq!(properties.entry_count, 4);
    assert_eq!(properties.tombstone_count(), 2);
    assert_eq!(properties.user_key_count, 3);
    assert_eq!(properties.raw_key_bytes, 7);
    assert_eq!(properties.raw_value_bytes, 5);
    assert_eq!(properties.seq_smallest, seq(2));
    assert_eq!(properties.seq_largest, seq(9));
    assert_eq!(summary.smallest.as_internal(), key_of(&entries[0]));
    assert_eq!(summary.largest.as_internal(), key_of(&entries[3]));
    assert_eq!(summary.largest.kind, KeyKind::Delete);
}

#[test]
fn blocks_stay_below_the_target_and_the_estimate_near_the_truth() {
    for block_bytes_target in [512, 4096, 16_384] {
        let options = TableOptions {
            block_bytes_target,
            ..TableOptions::default()
        };
        let fs = MemFs::default();
        let path = Path::new("test.sst");
        let mut writer = TableWriter::create(&fs, path, options).expect("created");
        for n in 0..30_000u64 {
            let entry = put(format!("{n:016}"), 1 + n, vec![7; 100]);
            writer.add(key_of(&entry), &entry.3).expect("added");
        }
        let estimate = writer.file_bytes_estimate();
        let summary = writer.finish().expect("finished");
        assert!(estimate.abs_diff(summary.file_bytes) < summary.file_bytes / 50);
        let file = fs.open(path).expect("there");
        let reader = crate::TableReader::open(file, &crate::ReaderOptions::default(), None, 1);
        let reader = reader.expect("sound");
        let mut least = u32::MAX;
        for at in 0..reader.block_count() {
            let len = reader.block_info(at).expect("sound").handle.len;
            assert!(len as usize <= block_bytes_target);
            if at + 1 < reader.block_count() {
                least = least.min(len);
            }
        }
        assert!(least as usize + 200 > block_bytes_target, "{least}");
    }
}

/// Suffixes shorter than a head beside longer ones, one by one.
fn mixed_suffixes(count: u32) -> Vec<base::cursor::VecEntry> {
    let keys = (0..count).flat_map(|n| {
        let short = n.to_be_bytes()[1..].to_vec();
        let long = [&short[..], &[0; 10]].concat();
        [short, long]
    });
    keys.map(|key| put(key, 1, "")).collect()
}

#[test]
fn no_block_exceeds_its_target_whatever_its_keys() {
    for (target, count) in [(4 << 20, 300_000), (512, 2_000)] {
        let entries = mixed_suffixes(count);
        let options = TableOptions {
            block_bytes_target: target,
            ..TableOptions::default()
        };
        let (bytes, _) = table(&entries, &options);
        let reader = open(&bytes, &crate::ReaderOptions::default()).expect("sound");
        // Beyond 4 MiB no reader would take it.
        reader.verify().expect("sound");
        for at in 0..reader.block_count() {
            let len = reader.block_info(at).expect("sound").handle.len as usize;
            assert!(len <= target, "{len} of {target}");
            let is_last = at + 1 == reader.block_count();
            assert!(is_last || len > target - target / 4, "{len} of {target}");
        }
    }
}

#[test]
fn every_failed_call_fails_the_table_and_never_panics() {
    let write = |fs: &FaultFs| -> Result<TableSummary> {
        let options = TableOptions::default();
        let mut writer = TableWriter::create(fs, Path::new("test.sst"), options)?;
        for n in 0..30_000u64 {
            let entry = put(format!("{n:016}"), 1 + n, vec![7; 100]);
            writer.add(key_of(&entry), &entry.3)?;
        }
        writer.finish()
    };
    let partly = Effect::FailPartly {
        bytes: 1000,
        error: FaultError::Enospc,
    };
    for (kind, effect) in [
        (OpKind::Create, Effect::Fail(FaultError::Eacces)),
        (OpKind::Write, partly),
        (OpKind::Sync, Effect::FailAfter(FaultError::Eio)),
    ] {
        for nth in 1.. {
            let fs = FaultFs::new(Arc::new(MemFs::default()));
            fs.fail(Fault::with_effect(kind, effect).nth(nth));
            let result = write(&fs);
            if fs.faults().fired() == 0 {
                result.expect("nothing failed");
                assert!(nth > 1 && (kind != OpKind::Write || nth > 3));
                break;
            }
            let error = result.expect_err("a call failed");
            assert_eq!(error.is_no_space(), kind == OpKind::Write, "{error}");
        }
    }
}

/// The entries of the golden tables.
fn golden_entries() -> Vec<base::cursor::VecEntry> {
    vec![
        put("apple", 3, "red"),
        delete("apple pie", 300),
        put("apple pie", 0, "sweet"),
        put("banana", 2, "yellow"),
    ]
}

fn golden_options() -> TableOptions {
    TableOptions {
        block_bytes_target: 80,
        filter: FilterPolicy::Blocked { bits_per_key: 10 },
        hash_seed: HashSeed(0x0102_0304_0506_0708),
        created_micros: 1_700_000_000_000_000,
        commit_times: Some(CommitTimes {
            smallest_micros: 1_600_000_000_000_000,
            largest_micros: 1_600_000_000_000_300,
        }),
        level: Level::LAST,
        reason: CreationReason::Compaction,
        ..TableOptions::default()
    }
}

/// Entries and options of the golden table that has a dictionary.
fn golden_dictionary() -> (Vec<base::cursor::VecEntry>, TableOptions) {
    let entries = (0..120u64).map(|n| {
        let value = format!(
            "the value of entry {n}, of which much is like others: {}",
            n * n
        );
        put(format!("entry {n:04}"), n + 1, value)
    });
    let options = TableOptions {
        block_bytes_target: 300,
        compression: Compression::Zstd { level: 3 },
        dictionary_bytes_max: 512,
        ..golden_options()
    };
    (entries.collect(), options)
}

fn dump_of(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (row, line) in bytes.chunks(32).enumerate() {
        write!(dump, "{:04x} ", row * 32).expect("writing to a String cannot fail");
        for byte in line {
            write!(dump, "{byte:02x}").expect("writing to a String cannot fail");
        }
        dump.push('\n');
    }
    dump
}

fn bytes_of(dump: &str) -> Vec<u8> {
    let digits = dump.lines().filter_map(|line| line.split(' ').nth(1));
    digits
        .flat_map(|digits| {
            (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        })
        .collect()
}

/// Version 3 of the format, byte for byte. These bytes are on disks: if this test fails, the format
/// has changed, and needs a new version beside the old ones.
#[test]
fn the_bytes_of_tiny_tables_are_pinned() {
    let (bytes, _) = table(&golden_entries(), &golden_options());
    assert_eq!(dump_of(&bytes), include_str!("golden_v3.txt"));
    // The frames are zstd's; another release of it may write others, and must read these.
    let (entries, options) = golden_dictionary();
    let (bytes, _) = table(&entries, &options);
    assert_eq!(dump_of(&bytes), include_str!("golden_v3_dictionary.txt"));
}

#[test]
fn the_golden_tables_are_read() {
    let (records, _) = golden_dictionary();
    let times = golden_options().commit_times;
    for (dump, entries, times, has_dictionary) in [
        (
            include_str!("golden_v3.txt"),
            golden_entries(),
            times,
            false,
        ),
        (
            include_str!("golden_v3_dictionary.txt"),
            records,
            times,
            true,
        ),
    ] {
        let reader = open(&bytes_of(dump), &crate::ReaderOptions::default()).expect("sound");
        let properties = reader.properties().expect("sound");
        assert_eq!(properties.commit_times, times);
        assert_eq!(properties.dictionary_bytes > 0, has_dictionary);
        reader.verify().expect("sound");
        let mut cursor = reader.cursor(crate::ScanMode::Ordinary);
        let mut live = cursor.seek_to_first().expect("sound");
        for entry in &entries {
            assert!(live);
            assert_eq!(cursor.key(), key_of(entry));
            assert_eq!(cursor.value(), entry.3);
            live = cursor.next().expect("sound");
        }
        assert!(!live);
    }
}
