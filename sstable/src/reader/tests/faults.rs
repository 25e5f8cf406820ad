//! Reads that fail, and first reads that meet.

use super::*;

#[test]
fn a_damaged_filter_is_reported_and_never_hides_a_key() {
    let (mut bytes, _) = table(&small_entries(), &small_options()[2]);
    let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
    let handle = reader.footer.filter.expect("a filter");
    bytes[usize::try_from(handle.offset).expect("small")..][..64].fill(0);
    let reader = open(&bytes, &ReaderOptions::default()).expect("opened");
    let hash = reader.hash_seed().hash(b"key004");
    assert!(reader.may_contain(hash));
    let error = reader
        .get(
            b"key004",
            hash,
            SequenceNumber::MAX,
            &mut ReadProbe::default(),
        )
        .expect_err("a damaged filter");
    assert_eq!(error.offset(), Some(handle.offset));
}

#[test]
fn a_failed_read_is_an_error_and_the_next_attempt_is_right() {
    let entries: Vec<_> = (0..60_000u64)
        .map(|n| put(format!("key{n:06}"), 1 + n, vec![n.to_le_bytes()[0]; 60]))
        .collect();
    let path = Path::new("test.sst");
    for compression in [Compression::None, Compression::Zstd { level: -5 }] {
        let memory = Arc::new(MemFs::default());
        let options = TableOptions {
            compression,
            ..TableOptions::default()
        };
        crate::testing::table_of(&memory, &entries, &options);
        for mode in [ReadMode::Mapped, ReadMode::Positioned] {
            for effect in [
                Effect::Fail(FaultError::Eio),
                Effect::Short { bytes: 7 },
                Effect::FlipBit { bit: 4_444 },
            ] {
                let fs = FaultFs::new(Arc::clone(&memory) as Arc<dyn FileSystem>);
                check_faults(&fs, path, mode, effect, &entries);
            }
        }
    }
}

/// Every call in turn meets `effect`, once.
fn check_faults(fs: &FaultFs, path: &Path, mode: ReadMode, effect: Effect, entries: &[VecEntry]) {
    let last = &entries[entries.len() - 1];
    for nth in 1.. {
        let before = fs.faults().fired();
        fs.clear();
        fs.fail(Fault::with_effect(OpKind::Any, effect).nth(nth));
        let run = || -> Result<()> {
            let reader = TableReader::open(fs.open(path)?, &reading(mode), None, 1)?;
            let hash = reader.hash_seed().hash(&last.0);
            let get = |probe: &mut ReadProbe| {
                let hit = reader.get(&last.0, hash, SequenceNumber::MAX, probe)?;
                assert_eq!(hit.expect("there").value(), last.3);
                Ok::<_, Error>(())
            };
            let first = get(&mut ReadProbe::default());
            let mut cursor = reader.cursor(ScanMode::Bulk);
            let mut scanned = scan_all(&mut cursor, entries);
            if mode == ReadMode::Positioned && (first.is_err() || scanned.is_err()) {
                // What failed once was not remembered as the table's fault.
                get(&mut ReadProbe::default()).expect("a second attempt");
                scan_all(&mut cursor, entries).expect("a second attempt");
            }
            if let Err(error) = first {
                scanned = Err(error);
            }
            scanned
        };
        let result = run();
        if fs.faults().fired() == before {
            result.expect("nothing failed");
            assert!(nth > 2);
            return;
        }
        // A mapping may have its bit wrong where nothing looks; all that looks is right.
        if let Err(error) = result {
            assert!(
                is_honest(&error) || error.kind() == ErrorKind::Io,
                "{error}"
            );
        }
    }
}

fn scan_all(cursor: &mut TableCursor, entries: &[VecEntry]) -> Result<()> {
    let mut valid = cursor.seek_to_first()?;
    for entry in entries {
        assert!(valid);
        assert_eq!(
            (cursor.key(), cursor.value()),
            (key_of(entry), &entry.3[..])
        );
        valid = cursor.next()?;
    }
    assert!(!valid);
    Ok(())
}

#[test]
fn threads_may_touch_a_table_for_the_first_time_together() {
    let entries: Vec<_> = (0..3_000u64)
        .map(|n| put(format!("key{n:05}"), 1 + n, vec![n.to_le_bytes()[0]; 40]))
        .collect();
    for options in small_options() {
        let (bytes, _) = table(&entries, &options);
        let reader = open(&bytes, &ReaderOptions::default()).expect("sound");
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (reader, entries) = (&reader, &entries);
                scope.spawn(move || {
                    for step in 0..1_000 {
                        let entry = &entries[(start * 11 + step * 7) % entries.len()];
                        let hash = reader.hash_seed().hash(&entry.0);
                        let hit = reader
                            .get(&entry.0, hash, entry.1, &mut ReadProbe::default())
                            .expect("sound")
                            .expect("there");
                        assert_eq!(hit.value(), entry.3);
                    }
                });
            }
        });
    }
}
