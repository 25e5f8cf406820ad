use super::*;

fn meta() -> RecordMeta {
    RecordMeta {
        kind: RecordKind::Batch,
        first_seq: SequenceNumber::new(42).expect("small"),
        op_count: 3,
        commit_micros: 1_234_567,
        durable_upto: Some(Position {
            ordinal: 5,
            offset: 4096,
        }),
    }
}

const AT: Position = Position {
    ordinal: 7,
    offset: 512,
};

fn decode(bytes: &[u8], file_id: u64, at: Position) -> Result<(RecordMeta, Vec<u8>), NoRecord> {
    let (head, body) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(NoRecord::Invalid)?;
    let header = Header::read(head, file_id, at).ok_or(NoRecord::Invalid)?;
    header
        .check(body, file_id, at)
        .map(|(meta, payload)| (meta, payload.to_vec()))
}

#[test]
fn the_layout_is_the_one_in_the_format_page() {
    let mut bytes = Vec::new();
    encode(&mut bytes, &meta(), b"payload", 9, AT);
    assert_eq!(bytes.len(), 48);
    assert_eq!(bytes[8..12], 7u32.to_le_bytes());
    assert_eq!(bytes[12..14], [1, 0]);
    assert_eq!(bytes[14..16], 2u16.to_le_bytes(), "two segments back");
    assert_eq!(bytes[16..24], 42u64.to_le_bytes());
    assert_eq!(bytes[24..32], 1_234_567u64.to_le_bytes());
    assert_eq!(bytes[32..36], 3u32.to_le_bytes());
    assert_eq!(
        bytes[36..40],
        512u32.to_le_bytes(),
        "in words of eight bytes"
    );
    assert_eq!(bytes[40..47], *b"payload");
    assert_eq!(decode(&bytes, 9, AT), Ok((meta(), b"payload".to_vec())));
}

#[test]
fn a_record_is_valid_only_whole_and_in_its_place() {
    let mut bytes = Vec::new();
    encode(&mut bytes, &meta(), b"payload", 9, AT);
    assert!(decode(&bytes, 8, AT).is_err(), "another file");
    assert!(
        decode(&bytes, 9, Position { offset: 520, ..AT }).is_err(),
        "another offset"
    );
    for at in 0..47 {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert!(decode(&damaged, 9, AT).is_err(), "byte {at} ^ {flip}");
        }
    }
    for len in 0..47 {
        assert!(decode(&bytes[..len], 9, AT).is_err(), "cut to {len}");
    }
}

#[test]
fn a_durable_position_too_far_back_is_left_out() {
    let mut bytes = Vec::new();
    let far = Position {
        ordinal: 100_000,
        offset: 512,
    };
    encode(&mut bytes, &meta(), b"", 9, far);
    assert_eq!(decode(&bytes, 9, far).expect("valid").0.durable_upto, None);
}
