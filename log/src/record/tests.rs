use base::checksum::Crc;
use base::random::Random;

use super::*;

const AT: Position = Position {
    ordinal: 7,
    offset: 512,
};

const FRAME: Frame = Frame {
    file_id: 9,
    anchor: Anchor {
        seq: SequenceNumber::ZERO,
        commit_micros: 1_000_000,
    },
};

fn seq(value: u64) -> SequenceNumber {
    SequenceNumber::new(value).expect("small")
}

fn meta() -> RecordMeta {
    RecordMeta {
        kind: RecordKind::Batch,
        first_seq: seq(42),
        op_count: 1,
        commit_micros: 1_234_567,
        durable_upto: Some(Position {
            ordinal: 7,
            offset: 4096,
        }),
    }
}

fn encoded(meta: &RecordMeta, payload: &[u8], frame: &Frame, at: Position) -> Vec<u8> {
    let form = HeaderForm::of(meta, payload.len(), frame.anchor, at);
    let mut bytes = Vec::new();
    encode(&mut bytes, form, meta, payload, frame, at);
    assert_eq!(bytes.len() as u64, form.framed_bytes(payload.len()));
    assert!(form.framed_bytes(payload.len()) <= framed_bytes_max(payload.len()));
    bytes
}

fn decode(bytes: &[u8], frame: &Frame, at: Position) -> Result<(RecordMeta, Vec<u8>), NoRecord> {
    let header = Header::read(bytes, frame, at).ok_or(NoRecord::Invalid)?;
    header
        .check(&bytes[header.bytes()..], frame.file_id, at)
        .map(|(meta, payload)| (meta, payload.to_vec()))
}

/// How long the header of a record is that comes back as it was.
fn header_bytes(meta: &RecordMeta, payload_len: usize, frame: &Frame, at: Position) -> usize {
    let payload = vec![3; payload_len];
    let bytes = encoded(meta, &payload, frame, at);
    assert_eq!(decode(&bytes, frame, at), Ok((*meta, payload)), "{meta:?}");
    let header = Header::read(&bytes, frame, at).expect("it was read");
    assert_eq!(header.framed_bytes(), bytes.len() as u64);
    header.bytes()
}

#[test]
fn the_narrow_layout_is_the_one_in_the_format_page() {
    let bytes = encoded(&meta(), b"payload", &FRAME, AT);
    assert_eq!(bytes.len(), 32);
    assert_eq!(bytes[8], 0b0100_0001, "durable here, a batch");
    assert_eq!(bytes[9..12], [42, 0, 0]);
    assert_eq!(bytes[12..15], 234_567u32.to_le_bytes()[..3]);
    assert_eq!(bytes[15], 7);
    assert_eq!(bytes[16..19], [0, 2, 0], "in words of eight bytes");
    assert_eq!(bytes[19..26], *b"payload");
    let full = RecordMeta {
        kind: RecordKind::Begin,
        op_count: 0x01_0203,
        commit_micros: 1_000_000 + 0x0100_0000,
        durable_upto: Some(Position {
            ordinal: 5,
            offset: 4096,
        }),
        ..meta()
    };
    let bytes = encoded(&full, &[7; 300], &FRAME, AT);
    assert_eq!(bytes[8], 0b1111_1111);
    assert_eq!(bytes[9..12], [42, 0, 0]);
    assert_eq!(bytes[12..16], [0, 0, 0, 1]);
    assert_eq!(bytes[16..19], [0x2c, 1, 0]);
    assert_eq!(bytes[19..22], [3, 2, 1]);
    assert_eq!(bytes[22..24], [2, 0], "two segments back");
    assert_eq!(bytes[24..28], [0, 2, 0, 0]);
    assert_eq!(bytes[28..328], [7; 300]);
}

#[test]
fn the_wide_layout_is_the_one_in_the_format_page() {
    let end = RecordMeta {
        kind: RecordKind::End,
        op_count: 3,
        durable_upto: Some(Position {
            ordinal: 5,
            offset: 4096,
        }),
        ..meta()
    };
    let bytes = encoded(&end, b"payload", &FRAME, AT);
    assert_eq!(bytes.len(), 48);
    assert_eq!(bytes[8..10], [0, 6], "wide, an end");
    assert_eq!(bytes[10..12], [2, 0], "two segments back");
    assert_eq!(bytes[12..16], [7, 0, 0, 0]);
    assert_eq!(bytes[16..24], [42, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..32], 1_234_567u64.to_le_bytes());
    assert_eq!(bytes[32..36], 3u32.to_le_bytes());
    assert_eq!(bytes[36..40], 512u32.to_le_bytes());
    assert_eq!(bytes[40..47], *b"payload");
    assert_eq!(decode(&bytes, &FRAME, AT), Ok((end, b"payload".to_vec())));
}

#[test]
fn every_number_is_narrow_as_long_as_it_fits() {
    const WIDE: usize = 40;
    let three = (1 << 24) - 1;
    let frame = Frame {
        anchor: Anchor {
            seq: seq(1000),
            commit_micros: 5000,
        },
        ..FRAME
    };
    let near = RecordMeta {
        first_seq: seq(1000),
        commit_micros: 5000,
        durable_upto: None,
        ..meta()
    };
    let bytes = |meta: RecordMeta| header_bytes(&meta, 100, &frame, AT);
    let at_seq = |value| {
        bytes(RecordMeta {
            first_seq: seq(value),
            ..near
        })
    };
    assert_eq!(at_seq(1000), 16);
    assert_eq!(at_seq(1000 + three), 16);
    assert_eq!(at_seq(1001 + three), WIDE);
    assert_eq!(at_seq(999), WIDE, "before the anchor");
    assert_eq!(at_seq(SequenceNumber::MAX.get() - 1), WIDE);
    let at_micros = |commit_micros| {
        bytes(RecordMeta {
            commit_micros,
            ..near
        })
    };
    assert_eq!(at_micros(5000 + three), 16);
    assert_eq!(at_micros(5001 + three), 17);
    assert_eq!(at_micros(5000 + u64::from(u32::MAX)), 17);
    assert_eq!(at_micros(5001 + u64::from(u32::MAX)), WIDE);
    assert_eq!(at_micros(4999), WIDE, "before the anchor");
    assert_eq!(at_micros(u64::MAX), WIDE);
    let of_count = |op_count| bytes(RecordMeta { op_count, ..near });
    assert_eq!(of_count(0), 19);
    assert_eq!(of_count(2), 19);
    assert_eq!(of_count((1 << 24) - 1), 19);
    assert_eq!(of_count(1 << 24), WIDE);
    assert_eq!(of_count(u32::MAX), WIDE);
    let of_len = |len| header_bytes(&near, len, &frame, AT);
    assert_eq!((of_len(0), of_len(255)), (16, 16));
    assert_eq!((of_len(256), of_len((1 << 24) - 1)), (18, 18));
    assert_eq!(of_len(1 << 24), WIDE);
}

#[test]
fn durable_positions_come_back_wherever_they_are() {
    let at = Position {
        ordinal: 100_000,
        offset: 1 << 30,
    };
    let near = RecordMeta {
        durable_upto: None,
        ..meta()
    };
    let bytes = |ordinal, words: u64| {
        let offset = words * 8;
        let durable_upto = Some(Position { ordinal, offset });
        header_bytes(
            &RecordMeta {
                durable_upto,
                ..near
            },
            9,
            &FRAME,
            at,
        )
    };
    let three = (1 << 24) - 1;
    assert_eq!((bytes(100_000, 0), bytes(100_000, three)), (19, 19));
    assert_eq!(bytes(100_000, three + 1), 22);
    assert_eq!((bytes(99_999, 0), bytes(99_999, three)), (19, 19));
    assert_eq!(bytes(99_999, three + 1), 22);
    assert_eq!(
        (bytes(99_998, 0), bytes(99_998, u64::from(u32::MAX))),
        (22, 22)
    );
    assert_eq!(bytes(100_000 - 65_534, 64), 22);
}

#[test]
fn a_durable_position_too_far_back_is_left_out() {
    for kind in [RecordKind::Batch, RecordKind::End] {
        for (ordinal, offset) in [
            (100_000 - 65_535, 512),
            (0, 512),
            (100_001, 0),
            (7, 1 << 36),
        ] {
            let at = Position {
                ordinal: 100_000,
                offset: 512,
            };
            let meta = RecordMeta {
                kind,
                durable_upto: Some(Position { ordinal, offset }),
                ..meta()
            };
            let bytes = encoded(&meta, b"", &FRAME, at);
            let (read, _) = decode(&bytes, &FRAME, at).expect("valid");
            assert_eq!(read.durable_upto, None, "{kind:?} {ordinal}:{offset}");
        }
    }
}

#[test]
fn a_record_is_valid_only_whole_and_in_its_place() {
    let wide = RecordMeta {
        commit_micros: 0,
        ..meta()
    };
    let long = RecordMeta {
        op_count: 5,
        commit_micros: 1 << 30,
        durable_upto: Some(Position::default()),
        ..meta()
    };
    for meta in [meta(), wide, long] {
        let bytes = encoded(&meta, b"payload", &FRAME, AT);
        let used = Header::read(&bytes, &FRAME, AT).expect("whole").bytes() + 7;
        let other = Frame {
            file_id: 8,
            ..FRAME
        };
        assert!(decode(&bytes, &other, AT).is_err(), "another file");
        let elsewhere = Position { offset: 520, ..AT };
        assert!(decode(&bytes, &FRAME, elsewhere).is_err(), "another offset");
        for at in 0..used {
            for flip in 1..=0xff {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                assert!(decode(&damaged, &FRAME, AT).is_err(), "byte {at} ^ {flip}");
            }
        }
        for len in 0..used {
            assert!(decode(&bytes[..len], &FRAME, AT).is_err(), "cut to {len}");
        }
    }
}

#[test]
fn any_record_comes_back_as_it_was() {
    let mut random = Random::printed("any_record_comes_back_as_it_was", 0x6865_6164);
    // Numbers near every power of two.
    let some = |random: &mut Random, bits: u64| {
        let bit = 1u64 << random.below(bits);
        let near = bit.wrapping_add(random.below(5)).wrapping_sub(2);
        near.min((1 << (bits - 1)) - 1 + (1 << (bits - 1)))
    };
    for _ in 0..20_000 {
        let at = Position {
            ordinal: some(&mut random, 20),
            offset: some(&mut random, 34) / 8 * 8,
        };
        let anchor = Anchor {
            seq: seq(some(&mut random, 55)),
            commit_micros: some(&mut random, 63),
        };
        let frame = Frame {
            file_id: random.next_u64(),
            anchor,
        };
        let (seq_delta, time_delta) = (some(&mut random, 54), some(&mut random, 62));
        let is_behind = random.one_in(8);
        let meta = RecordMeta {
            kind: RecordKind::from_u8(1 + u8::try_from(random.below(7)).expect("small"))
                .expect("a kind"),
            first_seq: seq(if is_behind {
                seq_delta
            } else {
                anchor.seq.get() + seq_delta
            }),
            op_count: u32::try_from(some(&mut random, 32)).expect("bounded"),
            commit_micros: if is_behind {
                time_delta
            } else {
                anchor.commit_micros + time_delta
            },
            durable_upto: (!random.one_in(4)).then(|| Position {
                ordinal: at.ordinal.saturating_sub(random.below(4)),
                offset: some(&mut random, 34) / 8 * 8,
            }),
        };
        let len = usize::try_from(some(&mut random, 10)).expect("small");
        header_bytes(&meta, len, &frame, at);
    }
}

/// `bytes` with the header's checksum made right.
fn sealed(mut bytes: Vec<u8>, header_len: usize) -> Vec<u8> {
    let crc = Crc::at(FRAME.file_id, AT.offset).and(&bytes[4..header_len]);
    bytes[..4].copy_from_slice(&crc.finish().to_le_bytes());
    bytes
}

#[test]
fn headers_made_by_hand_do_no_harm() {
    let mut random = Random::printed("headers_made_by_hand_do_no_harm", 0x6861_6e64);
    let far = Frame {
        anchor: Anchor {
            seq: SequenceNumber::MAX,
            commit_micros: u64::MAX,
        },
        ..FRAME
    };
    for form in 0..=u8::MAX {
        for round in 0..40 {
            let mut bytes: Vec<u8> = (0..64)
                .map(|_| random.next_u64().to_le_bytes()[0])
                .collect();
            bytes[8] = form;
            let len = (16..=40)
                .find(|len| Header::read(&sealed(bytes.clone(), *len), &FRAME, AT).is_some());
            let narrow = form & 7 != 0;
            assert!(narrow || form == 0 || len.is_none(), "{form} means nothing");
            if let Some(len) = len {
                let bytes = sealed(bytes, len);
                let header = Header::read(&bytes, &FRAME, AT).expect("it was");
                assert_eq!(header.bytes(), len, "{form}");
                // What it claims is only compared with what is there.
                assert!(
                    header.check(&bytes[len..], FRAME.file_id, AT).is_err(),
                    "{round}"
                );
                // Sums that run over are refused.
                let over = Header::read(&bytes, &far, AT).filter(|h| h.is_plausible(AT));
                assert!(!narrow || over.is_none(), "{form}");
            }
        }
    }
}

#[test]
fn a_newer_kind_is_told_from_noise() {
    let end = RecordMeta {
        kind: RecordKind::End,
        ..meta()
    };
    let mut bytes = encoded(&end, b"", &FRAME, AT);
    bytes[9] = 200;
    let bytes = sealed(bytes, 40);
    assert_eq!(decode(&bytes, &FRAME, AT), Err(NoRecord::Newer));
}
