use super::*;

const FILE_ID: u64 = 0x1234_5678_9abc_def0;

fn footer() -> Footer {
    Footer {
        file_id: FILE_ID,
        index: BlockHandle {
            offset: 1_100,
            len: 300,
        },
        filter: Some(BlockHandle {
            offset: 1_000,
            len: 95,
        }),
        dictionary: Some(BlockHandle {
            offset: 1_405,
            len: 10,
        }),
        properties: BlockHandle {
            offset: 1_420,
            len: 75,
        },
        data_end: 999,
        block_count: 7,
        hash_seed: HashSeed(99),
    }
}

/// `footer` as the end of a file whose other blocks end at 1,500.
fn file_of(footer: &Footer) -> Vec<u8> {
    let mut bytes = vec![0xaa; 1_500];
    bytes.extend_from_slice(&footer.encode(1_500));
    bytes
}

fn decode(bytes: &[u8]) -> Result<Footer> {
    Footer::decode(bytes, bytes.len() as u64, Path::new("test.sst"))
}

/// Makes the checksum of the footer that begins at `start` fit its bytes again.
pub(crate) fn repair_footer(bytes: &mut [u8], start: usize) {
    let tail = bytes.len() - TAIL_BYTES;
    let file_id = u64::from_le_bytes(*bytes[tail..].first_chunk().expect("a tail"));
    let crc = Crc::at(file_id, start as u64)
        .and(&bytes[start..tail + 36])
        .and(&bytes[tail + 40..])
        .finish();
    bytes[tail + 36..tail + 40].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_footer_round_trips_with_and_without_what_may_be_absent() {
    let whole = footer();
    for (filter, dictionary) in [
        (whole.filter, whole.dictionary),
        (whole.filter, None),
        (None, whole.dictionary),
        (None, None),
    ] {
        let footer = Footer {
            filter,
            dictionary,
            ..footer()
        };
        assert_eq!(decode(&file_of(&footer)).expect("our own"), footer);
    }
}

#[test]
fn every_changed_byte_of_a_footer_is_noticed() {
    let bytes = file_of(&footer());
    for at in 1_500..bytes.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let error = decode(&changed).expect_err("a changed footer");
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported),
                "at={at} flip={flip} {error}"
            );
        }
    }
}

#[test]
fn another_version_and_an_unknown_feature_are_unsupported_and_named() {
    let mut newer = file_of(&footer());
    let tail = newer.len() - TAIL_BYTES;
    newer[tail + 44] = 4;
    let error = decode(&newer).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("found=4 supported=3"), "{error}");

    for version in [1, 2] {
        let mut older = file_of(&footer());
        older[tail + 44] = version;
        // What the checksum denies is damage.
        let error = decode(&older).expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        repair_footer(&mut older, 1_500);
        let error = decode(&older).expect_err("older");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let named = format!("found={version} supported=3");
        assert!(error.to_string().contains(&named), "{error}");
        assert!(error.to_string().contains("older format"), "{error}");
    }

    let mut featured = file_of(&footer());
    featured[tail + 8] = 0x40;
    repair_footer(&mut featured, 1_500);
    let error = decode(&featured).expect_err("a feature");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("found=0x40 supported=0x0"),
        "{error}"
    );

    // What a reader may ignore is ignored.
    let mut ignorable = file_of(&footer());
    ignorable[tail + 16] = 0x40;
    repair_footer(&mut ignorable, 1_500);
    assert_eq!(decode(&ignorable).expect("ignorable"), footer());
}

fn with_field(tag: u32, value: &[u8]) -> Vec<u8> {
    let bytes = file_of(&footer());
    let tail = bytes.len() - TAIL_BYTES;
    let mut changed = bytes[..tail].to_vec();
    coding::put_field(&mut changed, tag, value);
    let fields_bytes = u32::try_from(changed.len() - 1_500).expect("small");
    changed.extend_from_slice(&bytes[tail..]);
    let tail = changed.len() - TAIL_BYTES;
    let file_bytes = changed.len() as u64;
    changed[tail + 24..tail + 32].copy_from_slice(&file_bytes.to_le_bytes());
    changed[tail + 32..tail + 36].copy_from_slice(&fields_bytes.to_le_bytes());
    repair_footer(&mut changed, 1_500);
    changed
}

#[test]
fn unknown_fields_are_skipped_or_refused_by_their_tag() {
    let skipped = with_field(FIRST_SKIPPABLE_TAG, b"later");
    assert_eq!(decode(&skipped).expect("skippable"), footer());
    for tag in [0, 7, 40, FIRST_SKIPPABLE_TAG - 1] {
        let error = decode(&with_field(tag, b"later")).expect_err("needed");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{tag}");
    }
    let partitioned = with_field(TAG_INDEX, &[2, 0, 0]);
    let error = decode(&partitioned).expect_err("another index");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn places_outside_the_table_are_refused() {
    let outside = BlockHandle {
        offset: 1_490,
        len: 6,
    };
    let far = BlockHandle {
        offset: u64::MAX - 3,
        len: u32::MAX,
    };
    let in_data = BlockHandle {
        offset: 998,
        len: 1,
    };
    for handle in [outside, far, in_data] {
        for changed in [
            Footer {
                index: handle,
                ..footer()
            },
            Footer {
                filter: Some(handle),
                ..footer()
            },
            Footer {
                properties: handle,
                ..footer()
            },
        ] {
            let error = decode(&file_of(&changed)).expect_err("outside");
            assert!(error.is_corruption(), "{error}");
        }
    }
    for changed in [
        Footer {
            data_end: 1_501,
            ..footer()
        },
        Footer {
            block_count: 0,
            ..footer()
        },
        Footer {
            block_count: u32::MAX,
            ..footer()
        },
    ] {
        assert!(
            decode(&file_of(&changed))
                .expect_err("impossible")
                .is_corruption()
        );
    }
}

#[test]
fn every_shorter_end_is_refused() {
    let bytes = file_of(&footer());
    for len in 0..bytes.len() {
        let error = decode(&bytes[..len]).expect_err("cut");
        assert!(error.is_corruption(), "{len}");
    }
}
