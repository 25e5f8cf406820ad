use super::*;
use crate::dictionary::{self, Dictionary};

/// Records that resemble each other more than themselves.
fn records(count: u64) -> Vec<VecEntry> {
    let mut random = Random(7);
    (0..count)
        .map(|n| {
            let value = format!(
                "{{\"package\": \"lib{:x}\", \"section\": \"libs\", \"priority\": \"optional\", \
                 \"maintainer\": \"nobody{}@example.org\", \"size\": {}}}",
                random.next_u64() % 0xffff,
                random.index(50),
                random.index(100_000),
            );
            put(format!("libs/{n:06}"), n + 1, value)
        })
        .collect()
}

fn with_dictionary(bytes_max: usize) -> TableOptions {
    TableOptions {
        block_bytes_target: 512,
        compression: Compression::Zstd { level: 1 },
        dictionary_bytes_max: bytes_max,
        ..TableOptions::default()
    }
}

fn check_all(bytes: &[u8], entries: &[VecEntry]) {
    for mode in [ReadMode::Mapped, ReadMode::Positioned] {
        for cache in [None, Some(BlockCache::new(1 << 20))] {
            let options = ReaderOptions {
                cache,
                ..reading(mode)
            };
            let reader = open(bytes, &options).expect("sound");
            for entry in entries.iter().step_by(7) {
                let hash = reader.hash_seed().hash(&entry.0);
                let found = reader.get(&entry.0, hash, entry.1, &mut ReadProbe::default());
                assert_eq!(found.expect("sound").expect("there").value(), entry.3);
            }
            for scan in [ScanMode::Ordinary, ScanMode::Bulk] {
                check_scan(&mut reader.cursor(scan), entries, "dictionary");
            }
            reader.verify().expect("sound");
        }
    }
}

#[test]
fn blocks_with_a_dictionary_are_smaller_and_read_the_same() {
    let entries = records(1_000);
    let (plain, _) = table(&entries, &with_dictionary(0));
    // The first ends while blocks are held back, the others go on beyond.
    for bytes_max in [4096, 1024, 512] {
        let (bytes, summary) = table(&entries, &with_dictionary(bytes_max));
        assert!(bytes.len() < plain.len() * 9 / 10, "{bytes_max}");
        let stored = summary.properties.dictionary_bytes;
        assert!(stored > 256 && stored <= bytes_max as u64 + 13, "{stored}");
        check_all(&bytes, &entries);
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        let before = reader.heap_bytes();
        reader.verify().expect("sound");
        let grown = reader.heap_bytes() - before;
        assert!(grown > bytes_max / 2 && grown < 64 << 10, "{grown}");
    }
}

#[test]
fn there_is_no_dictionary_where_it_does_not_pay() {
    let mut random = Random(3);
    let noise: Vec<_> = (0..1_000u64)
        .map(|n| {
            // Long, so that headers of blocks, which resemble each other, are too little of them.
            let value: Vec<u8> = (0..60)
                .flat_map(|_| random.next_u64().to_le_bytes())
                .collect();
            put(format!("{n:06}"), n + 1, value)
        })
        .collect();
    let few = records(20);
    let large = TableOptions {
        block_bytes_target: dictionary::BLOCK_BYTES_MAX + 1,
        ..with_dictionary(4096)
    };
    let raw = TableOptions {
        compression: Compression::None,
        ..with_dictionary(4096)
    };
    for (entries, options) in [
        (&noise, with_dictionary(4096)),
        (&few, with_dictionary(4096)),
        (&records(1_000), large),
        (&records(1_000), raw),
    ] {
        let (bytes, summary) = table(entries, &options);
        assert_eq!(summary.properties.dictionary_bytes, 0);
        check_all(&bytes, entries);
    }
}

/// A table with a dictionary, and where its block lies.
fn sample() -> (Vec<u8>, BlockHandle, Vec<VecEntry>) {
    let entries = records(300);
    let (bytes, _) = table(&entries, &with_dictionary(1024));
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let handle = reader.footer.dictionary.expect("it pays");
    (bytes, handle, entries)
}

#[test]
fn a_damaged_dictionary_behind_a_repaired_checksum_never_panics() {
    let (bytes, handle, entries) = sample();
    let start = usize::try_from(handle.offset).expect("small");
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut damaged = bytes.clone();
        // Mostly the entropy tables at the start, which zstd parses.
        let len = match random.index(3) {
            0 => handle.len as usize + 1,
            _ => 120,
        };
        mutate(&mut random, &mut damaged, start, len);
        repair(&mut damaged, handle);
        exercise(&damaged, &entries[..40]);
    }
}

#[test]
fn a_dictionary_that_is_none_is_refused() {
    let (bytes, handle, entries) = sample();
    let start = usize::try_from(handle.offset).expect("small");
    let get = |bytes: &[u8]| {
        let reader = open(bytes, &ReaderOptions::default())?;
        let hash = reader.hash_seed().hash(&entries[0].0);
        let hit = reader.get(&entries[0].0, hash, entries[0].1, &mut ReadProbe::default())?;
        Ok::<_, Error>(hit.expect("there").value().to_vec())
    };
    assert_eq!(get(&bytes).expect("sound"), entries[0].3);
    // Kind, version, zeros, length, and the magic number of zstd.
    for (at, is_newer) in [(0, true), (1, true), (2, false), (4, false), (8, false)] {
        let mut damaged = bytes.clone();
        damaged[start + at] ^= 0x40;
        repair(&mut damaged, handle);
        let error = get(&damaged).expect_err("no dictionary");
        assert_eq!(error.kind() == ErrorKind::Unsupported, is_newer, "{error}");
        assert!(is_honest(&error), "{error}");
        assert!(
            open(&damaged, &ReaderOptions::default())
                .and_then(|reader| reader.verify())
                .is_err()
        );
    }
    let mut long = Vec::new();
    dictionary::put(&mut long, &vec![0; dictionary::DICTIONARY_BYTES_MAX + 1]);
    assert!(Dictionary::read(&long).is_err());
    assert!(Dictionary::read(&[]).is_err());
}

#[test]
fn a_block_that_needs_a_dictionary_says_so_where_there_is_none() {
    let entries = records(300);
    let (mut bytes, _) = table(&entries, &with_dictionary(0));
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let (index, block) = (reader.footer.index, reader.block_info(0).expect("sound"));
    let end = |handle: BlockHandle| usize::try_from(handle.end()).expect("small") - TRAILER_BYTES;
    assert_eq!(bytes[end(block.handle)], crate::compression::ZSTD);
    bytes[end(block.handle)] = crate::compression::ZSTD_DICTIONARY;
    repair(&mut bytes, block.handle);
    // The handle of the first block is the only one that begins at 0: offset, length, compression.
    let mut value = block.handle.offset.to_le_bytes().to_vec();
    value.extend(block.handle.len.to_le_bytes());
    value.push(crate::compression::ZSTD);
    let start = usize::try_from(index.offset).expect("small");
    let at = bytes[start..end(index)]
        .windows(value.len())
        .position(|window| window == value)
        .expect("the handle of block 0");
    bytes[start + at + value.len() - 1] = crate::compression::ZSTD_DICTIONARY;
    repair(&mut bytes, index);
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let hash = reader.hash_seed().hash(&entries[0].0);
    let error = reader
        .get(&entries[0].0, hash, entries[0].1, &mut ReadProbe::default())
        .expect_err("no dictionary");
    assert!(error.is_corruption(), "{error}");
}
