use base::ErrorKind;
use base::cursor::{Cursor, VecEntry};
use base::fs::fault::{Effect, Fault, FaultError, FaultFs, OpKind};
use base::fs::{FileSystem, OsFs};

use super::*;
use crate::format::{Stored, TRAILER_BYTES, repair_footer, trailer};
use crate::testing::{MemFs, Random, delete, file, key_of, open, put, seq, sorted, table};
use crate::{Compression, FilterPolicy, TableOptions, TableWriter};

mod dictionary;
mod faults;

fn small_entries() -> Vec<VecEntry> {
    let mut entries: Vec<_> = (0..24u64)
        .map(|n| {
            put(
                format!("key{:03}", n * 7 % 24),
                10 + n,
                format!("value of {n}"),
            )
        })
        .collect();
    entries.push(delete("key003", 99));
    entries.push(delete("absent", 98));
    entries.push(put("key003", 0, "oldest"));
    entries.push(put("", 5, ""));
    entries.push(put("zz", 7, vec![b'z'; 120]));
    sorted(entries)
}

fn small_options() -> Vec<TableOptions> {
    let filters = [
        FilterPolicy::None,
        FilterPolicy::Blocked { bits_per_key: 10 },
        FilterPolicy::Bloom { bits_per_key: 10 },
    ];
    let compressions = [Compression::None, Compression::Zstd { level: 3 }];
    let mut all = Vec::new();
    for filter in filters {
        for compression in compressions {
            all.push(TableOptions {
                block_bytes_target: 256,
                filter,
                compression,
                hash_seed: HashSeed(77),
                ..TableOptions::default()
            });
        }
    }
    all
}

fn reading(mode: ReadMode) -> ReaderOptions {
    ReaderOptions {
        mode,
        ..ReaderOptions::default()
    }
}

fn is_honest(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported)
}

/// Every get and every scan of a damaged table is right or an honest error.
fn check_damaged(bytes: &[u8], entries: &[VecEntry], note: &str) {
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let reader = match open(bytes, &reading(mode)) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(is_honest(&error), "{note}: {error}");
                continue;
            }
        };
        for entry in entries {
            let hash = reader.hash_seed().hash(&entry.0);
            match reader.get(&entry.0, hash, entry.1, &mut ReadProbe::default()) {
                Ok(hit) => {
                    let hit = hit.unwrap_or_else(|| panic!("{note}: lost {:?}", key_of(entry)));
                    assert_eq!((hit.seq, hit.kind), (entry.1, entry.2), "{note}");
                    assert_eq!(hit.value(), entry.3, "{note}");
                }
                Err(error) => assert!(is_honest(&error), "{note}: {error}"),
            }
        }
        for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
            check_scan(&mut reader.cursor(scan), entries, note);
        }
        match reader.verify() {
            Ok(report) => assert_eq!(report.entry_count, entries.len() as u64, "{note}"),
            Err(error) => assert!(is_honest(&error), "{note}: {error}"),
        }
    }
}

fn check_scan(cursor: &mut TableCursor, entries: &[VecEntry], note: &str) {
    let mut moved = cursor.seek_to_first();
    for entry in entries {
        match moved {
            Ok(valid) => assert!(valid, "{note}: the scan ends early"),
            Err(error) => {
                assert!(is_honest(&error), "{note}: {error}");
                break;
            }
        }
        assert_eq!(cursor.key(), key_of(entry), "{note}");
        assert_eq!(cursor.value(), entry.3, "{note}");
        moved = cursor.next();
    }
    let mut moved = cursor.seek_to_last();
    for entry in entries.iter().rev() {
        match moved {
            Ok(valid) => assert!(valid, "{note}: the scan begins late"),
            Err(error) => {
                assert!(is_honest(&error), "{note}: {error}");
                break;
            }
        }
        assert_eq!(cursor.key(), key_of(entry), "{note}");
        moved = cursor.prev();
    }
}

#[test]
fn every_changed_byte_is_noticed_or_harmless() {
    let entries = small_entries();
    for options in small_options() {
        let (bytes, _) = table(&entries, &options);
        for at in 0..bytes.len() {
            for changed in [bytes[at] ^ 0x01, bytes[at] ^ 0x80, !bytes[at], 0] {
                let mut damaged = bytes.clone();
                damaged[at] = changed;
                let note = format!("at={at} to={changed} {options:?}");
                check_damaged(&damaged, &entries, &note);
            }
        }
    }
}

#[test]
fn verify_notices_every_changed_byte() {
    let entries = small_entries();
    for options in small_options() {
        let (bytes, _) = table(&entries, &options);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            for mode in [ReadMode::Mapped, ReadMode::Positioned] {
                let verified = open(&damaged, &reading(mode)).and_then(|reader| reader.verify());
                let error = verified.expect_err("a changed byte");
                assert!(is_honest(&error), "at={at} {error}");
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let (bytes, _) = table(&small_entries(), &small_options()[2]);
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        for len in 0..bytes.len() {
            let error = open(&bytes[..len], &reading(mode)).expect_err("cut");
            assert!(error.is_corruption(), "len={len} {error}");
        }
        for more in [1, 56, 512, 4096] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + more, 0);
            assert!(
                open(&longer, &reading(mode))
                    .expect_err("longer")
                    .is_corruption()
            );
            longer.truncate(bytes.len());
            longer.extend_from_slice(&bytes[bytes.len() - more.min(bytes.len())..]);
            assert!(
                open(&longer, &reading(mode))
                    .expect_err("longer")
                    .is_corruption()
            );
        }
    }
}

#[test]
fn zeroed_and_swapped_pieces_are_noticed() {
    let entries: Vec<_> = (0..400u64)
        .map(|n| put(format!("key{n:05}"), 1 + n, vec![n.to_le_bytes()[0]; 40]))
        .collect();
    for options in small_options() {
        let (bytes, _) = table(&entries, &options);
        for piece in [512, 4096] {
            for start in (0..bytes.len()).step_by(piece) {
                let end = bytes.len().min(start + piece);
                let mut damaged = bytes.clone();
                damaged[start..end].fill(0);
                check_damaged(&damaged, &entries, &format!("zeros at {start} {options:?}"));
            }
        }
        // Two blocks of one length that change places have good bytes in the wrong place.
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        let handles: Vec<_> = (0..reader.block_count())
            .map(|at| reader.block_info(at).expect("sound").handle)
            .collect();
        for pair in handles
            .windows(2)
            .filter(|pair| pair[0].len == pair[1].len)
            .take(10)
        {
            let [first, second] = [pair[0], pair[1]].map(|handle| {
                let start = usize::try_from(handle.offset).expect("small");
                start..start + handle.stored_len()
            });
            let mut swapped = bytes.clone();
            swapped[first.clone()].copy_from_slice(&bytes[second.clone()]);
            swapped[second].copy_from_slice(&bytes[first]);
            check_damaged(&swapped, &entries, "two blocks swapped");
        }
    }
}

#[test]
fn a_block_of_another_table_does_not_pass() {
    let entries = small_entries();
    let options = &small_options()[0];
    let (bytes, _) = table(&entries, options);
    let other = crate::testing::table_with_id(&entries, options, 5);
    assert_eq!(bytes.len(), other.len());
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let first = reader.block_info(0).expect("sound").handle;
    let mut mixed = bytes.clone();
    mixed[..first.stored_len()].copy_from_slice(&other[..first.stored_len()]);
    let reader = open(&mixed, &ReaderOptions::default()).expect("opened");
    let error = reader
        .cursor(ScanMode::Ordinary)
        .seek_to_first()
        .expect_err("another table's block");
    assert!(error.is_corruption());
    assert_eq!(error.offset(), Some(0));
}

/// Makes the checksum of the block at `handle` fit its bytes again.
fn repair(bytes: &mut [u8], handle: BlockHandle) {
    let file_id = u64::from_le_bytes(*bytes[bytes.len() - 56..].first_chunk().expect("a tail"));
    let start = usize::try_from(handle.offset).expect("small");
    let end = start + handle.len as usize;
    let tag = bytes[end];
    let repaired = trailer(file_id, handle.offset, &bytes[start..end], tag);
    bytes[end..end + TRAILER_BYTES].copy_from_slice(&repaired);
    let stored = Stored::split(&bytes[start..end + TRAILER_BYTES]).expect("a trailer");
    stored
        .check(Path::new("x"), file_id, handle.offset)
        .expect("repaired");
}

/// Everything a reader does with a table; only that it returns is of interest.
fn exercise(bytes: &[u8], keys: &[VecEntry]) {
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let Ok(reader) = open(bytes, &reading(mode)) else {
            continue;
        };
        // Any answer and any error will do; a panic or a hang will not.
        for entry in keys {
            let hash = reader.hash_seed().hash(&entry.0);
            let found = reader.get(&entry.0, hash, entry.1, &mut ReadProbe::default());
            if let Ok(Some(hit)) = found {
                let _ = hit.pin(&reader).len();
            }
            let _ = reader.approximate_offset(&entry.0);
        }
        let _ = reader.verify();
        let _ = reader.properties();
        let _ = reader.anchors(3);
        let _ = reader.block_info(0);
        for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
            let mut cursor = reader.cursor(scan);
            let bound = bytes.len();
            let mut steps = 0;
            let mut moved = cursor.seek_to_first();
            while let Ok(true) = moved {
                let _ = (cursor.key(), cursor.value_slice());
                steps += 1;
                assert!(steps <= bound, "more entries than bytes");
                moved = cursor.next();
            }
            for entry in keys.iter().take(4) {
                let _ = cursor.seek(key_of(entry));
                if cursor.is_valid() {
                    let _ = cursor.prev();
                }
                let _ = cursor.seek_for_prev(key_of(entry));
            }
        }
    }
}

fn mutate(random: &mut Random, bytes: &mut [u8], start: usize, len: usize) {
    for _ in 0..=random.index(4) {
        let at = start + random.index(len);
        bytes[at] = match random.index(4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ (1 << random.index(8)),
            _ => random.next_u64().to_le_bytes()[0],
        };
    }
}

#[test]
fn properties_that_are_too_long_are_not_read() {
    let (bytes, _) = table(&small_entries(), &small_options()[0]);
    let mut reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    reader.properties().expect("sound");
    let alone = Arc::get_mut(&mut reader).expect("nobody else has it");
    alone.footer.properties.len = PROPERTIES_BYTES_MAX + 1;
    let error = reader.properties().expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn damage_behind_a_repaired_checksum_never_panics() {
    let entries = small_entries();
    for (number, options) in small_options().into_iter().enumerate() {
        let (bytes, _) = table(&entries, &options);
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        let footer_at = reader.footer.properties.end();
        let footer_at = usize::try_from(footer_at).expect("small");
        let mut handles: Vec<_> = (0..reader.block_count())
            .map(|at| reader.block_info(at).expect("sound").handle)
            .collect();
        handles.push(reader.footer.index);
        handles.push(reader.footer.properties);
        handles.extend(reader.footer.filter);
        for seed in 0..400 {
            let mut random = Random(seed * 10 + number as u64);
            let mut damaged = bytes.clone();
            if random.index(6) == 0 {
                let len = damaged.len() - footer_at;
                mutate(&mut random, &mut damaged, footer_at, len);
                repair_footer(&mut damaged, footer_at);
            } else {
                let handle = handles[random.index(handles.len())];
                let start = usize::try_from(handle.offset).expect("small");
                // The compression byte is part of it.
                mutate(&mut random, &mut damaged, start, handle.len as usize + 1);
                repair(&mut damaged, handle);
            }
            exercise(&damaged, &entries);
        }
    }
}

#[test]
fn a_claim_beyond_the_file_allocates_nothing() {
    let options = &small_options()[1];
    let (mut bytes, _) = table(&small_entries(), options);
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let info = reader.block_info(0).expect("sound");
    assert!(info.is_compressed);
    let start = usize::try_from(info.handle.offset).expect("small");
    bytes[start..start + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    repair(&mut bytes, info.handle);
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        let reader = open(&bytes, &reading(mode)).expect("opened");
        let error = reader
            .cursor(ScanMode::Bulk)
            .seek_to_first()
            .expect_err("4 GiB");
        assert!(error.is_corruption());
        assert_eq!(error.offset(), Some(info.handle.offset));
    }
}

#[test]
fn the_expected_file_is_told_from_another() {
    let (bytes, summary) = table(&small_entries(), &TableOptions::default());
    let open = |file_id| {
        let file = file(bytes.clone());
        TableReader::open(file, &ReaderOptions::default(), Some(file_id), 1)
    };
    open(summary.file_id).expect("the one");
    let error = open(summary.file_id + 1).expect_err("another");
    assert!(error.is_corruption());
}

#[test]
fn a_mapped_checksum_is_compared_once_or_always() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("test.sst");
    let mut writer = TableWriter::create(&OsFs, &path, small_options()[0].clone()).expect("new");
    for entry in small_entries() {
        writer.add(key_of(&entry), &entry.3).expect("added");
    }
    writer.finish().expect("finished");
    for verify in [Verify::Once, Verify::Always] {
        let options = ReaderOptions {
            verify,
            ..ReaderOptions::default()
        };
        let reader = TableReader::open(OsFs.open(&path).expect("there"), &options, None, 1);
        let reader = reader.expect("sound");
        let hash = reader.hash_seed().hash(b"");
        let get = || {
            let mut probe = ReadProbe::default();
            let hit = reader.get(b"", hash, SequenceNumber::MAX, &mut probe);
            assert_eq!((probe.index_blocks, probe.data_blocks), (1, 1));
            hit.map(|hit| hit.map(|hit| hit.seq))
        };
        assert_eq!(get().expect("sound"), Some(seq(5)));
        // A disk that goes bad under a mapping: nobody else may write to a finished table.
        let at = reader.block_info(0).expect("sound").handle.end() - 1;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path);
        let file = file.expect("there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[!byte[0]], at).expect("written");
        match verify {
            Verify::Once => assert_eq!(get().expect("not looked at"), Some(seq(5))),
            Verify::Always => assert_eq!(get().expect_err("noticed").offset(), Some(0)),
        }
        let bulk = reader.cursor(ScanMode::Bulk).seek_to_first();
        assert!(bulk.expect_err("always noticed").is_corruption());
        file.write_all_at(&byte, at).expect("mended");
    }
}

#[test]
fn versions_of_one_key_may_span_blocks() {
    let entries: Vec<_> = (1..=200u64)
        .rev()
        .map(|n| put("same", n, vec![1; 20]))
        .collect();
    for options in small_options() {
        let (bytes, _) = table(&entries, &options);
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        assert!(reader.block_count() > 10);
        let hash = reader.hash_seed().hash(b"same");
        for number in 0..=201 {
            let found = reader
                .get(b"same", hash, seq(number), &mut ReadProbe::default())
                .expect("sound");
            let want = (number > 0).then(|| seq(number.min(200)));
            assert_eq!(found.map(|hit| hit.seq), want);
        }
        assert_eq!(reader.verify().expect("sound").user_key_count, 1);
    }
}

#[test]
fn anchors_split_evenly_and_offsets_grow() {
    let entries: Vec<_> = (0..5_000u64)
        .map(|n| put(format!("{n:06}"), 1, vec![1; 100]))
        .collect();
    let (bytes, summary) = table(&entries, &TableOptions::default());
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    for count in [0, 1, 3, 7, 10_000] {
        let anchors = reader.anchors(count).expect("sound");
        assert!(anchors.len() <= count);
        assert!(anchors.is_sorted());
        let mut before = 0;
        for anchor in &anchors {
            let offset = reader.approximate_offset(anchor).expect("sound");
            assert!(offset >= before);
            before = offset;
        }
        if (1..10).contains(&count) {
            assert_eq!(anchors.len(), count);
            let part = summary.properties.data_bytes / (count as u64 + 1);
            for (at, anchor) in anchors.iter().enumerate() {
                let offset = reader.approximate_offset(anchor).expect("sound");
                assert!(offset.abs_diff(part * (at as u64 + 1)) < 10_000);
            }
        }
    }
    assert_eq!(reader.approximate_offset(b"").expect("sound"), 0);
    let end = reader.approximate_offset(b"9").expect("sound");
    assert_eq!(end, summary.properties.data_bytes);
}

#[test]
fn a_table_of_one_empty_key_is_a_table() {
    for options in small_options() {
        let entries = [put("", 0, "")];
        let (bytes, summary) = table(&entries, &options);
        assert_eq!(summary.smallest, summary.largest);
        check_damaged(&bytes, &entries, "one empty key");
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        reader.verify().expect("sound");
        assert_eq!(reader.anchors(4).expect("sound").len(), 0);
    }
}

/// The parts of a table lie side by side and fill it.
#[test]
fn sections_cover_the_whole_table_once() {
    for options in small_options() {
        let (bytes, _) = table(&small_entries(), &options);
        for mode in [ReadMode::Mapped, ReadMode::Positioned] {
            let reader = open(&bytes, &reading(mode)).expect("whole");
            let sections = reader.sections();
            let names: Vec<_> = sections.iter().map(|section| section.name).collect();
            assert_eq!((names[0], names[names.len() - 1]), ("data", "footer"));
            assert_eq!(
                names.contains(&"filter"),
                options.filter != FilterPolicy::None
            );
            for name in ["index", "properties"] {
                assert_eq!(names.iter().filter(|found| **found == name).count(), 1);
            }
            let mut at = 0_u64;
            for section in &sections {
                // Only in front of a filter, which begins at a cache line.
                let offset = section.offset;
                let is_aligned = section.name == "filter" && offset == at.next_multiple_of(64);
                assert!(offset == at || is_aligned, "{}", section.name);
                let from = usize::try_from(at).expect("small");
                let upto = usize::try_from(offset).expect("small");
                assert!(bytes[from..upto].iter().all(|byte| *byte == 0));
                at = offset;
                assert!(section.bytes > 0, "{}", section.name);
                at += section.bytes;
            }
            assert_eq!(at, bytes.len() as u64);
            let last = reader.block_count() - 1;
            let last = reader.block_info(last).expect("an index").handle;
            let data_end = last.offset + last.stored_len() as u64;
            assert_eq!(sections[0].bytes, data_end);
        }
    }
}

/// A bit in a part is damage of that part: everything that does not need it goes on.
#[test]
fn a_damaged_filter_lies_where_sections_say() {
    let options = TableOptions {
        filter: FilterPolicy::Bloom { bits_per_key: 10 },
        block_bytes_target: 256,
        ..TableOptions::default()
    };
    let (mut bytes, _) = table(&small_entries(), &options);
    let reader = open(&bytes, &reading(ReadMode::Mapped)).expect("whole");
    let sections = reader.sections();
    let filter = sections.iter().find(|section| section.name == "filter");
    let filter = filter.expect("it has one");
    bytes[usize::try_from(filter.offset).expect("small") + 3] ^= 1;
    let reader = open(&bytes, &reading(ReadMode::Mapped)).expect("nothing needs it yet");
    let error = reader.verify().expect_err("a bit is wrong");
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.offset(), Some(filter.offset), "{error}");
}
