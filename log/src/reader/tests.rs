use base::SequenceNumber;
use base::checksum::Crc;
use base::fs::fault::{Effect, Fault, FaultFs, OpKind};
use base::fs::sim::SimFs;
use base::sync::Arc;

use super::*;
use crate::segment::SegmentWriter;
use crate::testing::{Random, batch, check, first_seqs, header, op_count, payload, seq};

const PATH: &str = "/000001.log";
/// Where the first record lies.
const FIRST: u64 = SEGMENT_HEADER_BYTES;

fn writer(fs: &SimFs, reserve: u64) -> SegmentWriter {
    SegmentWriter::create(fs, Path::new(PATH), header(3), reserve).expect("created")
}

fn open(fs: &SimFs) -> SegmentReader {
    SegmentReader::open(fs, Path::new(PATH)).expect("opened")
}

/// A disk with a segment of these bytes.
fn with_bytes(bytes: &[u8]) -> Arc<SimFs> {
    let fs = SimFs::new(1);
    fs.install(Path::new(PATH), bytes).expect("installed");
    fs
}

/// The bytes of a segment of `count` records, where each begins, and where they end.
fn small_segment(count: u64) -> (Vec<u8>, Vec<u64>) {
    let fs = SimFs::new(1);
    let mut writer = writer(&fs, 0);
    let mut offsets = Vec::new();
    let mut next = 1;
    for _ in 0..count {
        offsets.push(writer.bytes());
        writer.append(batch(next), &payload(next)).expect("written");
        next += u64::from(op_count(next));
    }
    offsets.push(writer.bytes());
    (fs.contents(Path::new(PATH)).expect("there"), offsets)
}

fn with_len(first: u64, len: usize) -> (RecordMeta, Vec<u8>) {
    let mut random = Random(first);
    let payload = (0..len)
        .map(|_| random.next_u64().to_le_bytes()[0])
        .collect();
    (batch(first), payload)
}

#[test]
fn records_are_read_wherever_the_window_ends() {
    let window = WINDOW_BYTES as u64;
    // The second record begins from some bytes before the end of the first window to some behind.
    for back in (0..=120).step_by(8) {
        let first_len = usize::try_from(window - back).expect("small") - 21;
        for second_len in [0, 1, 40, 200] {
            let fs = SimFs::new(1);
            let mut writer = writer(&fs, 0);
            let records = [
                with_len(1, first_len),
                with_len(5, second_len),
                with_len(9, 3),
            ];
            for (meta, payload) in &records {
                writer.append(*meta, payload).expect("written");
            }
            let mut reader = open(&fs);
            for (meta, payload) in &records {
                let record = reader.next().expect("readable").expect("there");
                assert_eq!(record.meta, *meta, "back={back} len={second_len}");
                assert!(record.payload == payload, "back={back} len={second_len}");
            }
            assert!(reader.next().expect("readable").is_none());
            assert_eq!(reader.ending(), Ending::Clean);
        }
    }
}

#[test]
fn records_larger_than_the_window_are_read_and_their_memory_is_given_back() {
    let fs = SimFs::new(1);
    let mut writer = writer(&fs, 0);
    let records = [
        with_len(1, 10),
        with_len(5, 9 * WINDOW_BYTES + 3),
        with_len(9, 7),
        with_len(12, 2 * WINDOW_BYTES),
        with_len(15, WINDOW_BYTES),
    ];
    for (meta, payload) in &records {
        writer.append(*meta, payload).expect("written");
    }
    writer.seal(9, seq(20)).expect("sealed");
    let mut reader = open(&fs);
    for (meta, payload) in &records {
        let record = reader.next().expect("readable").expect("there");
        assert_eq!(record.meta, *meta);
        assert!(record.payload == payload);
    }
    assert!(reader.next().expect("readable").is_none());
    assert_eq!(reader.ending(), Ending::Sealed);
    assert!(reader.window.capacity() <= 8 * WINDOW_BYTES);
}

#[test]
fn every_ending_is_told_apart() {
    let (bytes, offsets) = small_segment(4);
    let end = offsets[4];
    let ending = |bytes: &[u8]| {
        let fs = with_bytes(bytes);
        let mut reader = open(&fs);
        let count = first_seqs(&mut reader).expect("readable").len();
        (count, reader.ending())
    };
    assert_eq!(ending(&bytes), (4, Ending::Clean));
    for zeros in [1, 7, 8, 39, 40, 4096, 2 * WINDOW_BYTES + 5] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + zeros, 0);
        assert_eq!(ending(&longer), (4, Ending::Clean), "{zeros} zeros");
        // Something stands at the very end.
        *longer.last_mut().expect("some") = 1;
        assert_eq!(ending(&longer), (4, Ending::Torn { offset: end }));
    }
    let mut torn = bytes.clone();
    torn[usize::try_from(offsets[3]).expect("small") + 20] ^= 1;
    assert_eq!(ending(&torn), (3, Ending::Torn { offset: offsets[3] }));
    let mut damaged = bytes.clone();
    damaged[usize::try_from(offsets[1]).expect("small") + 20] ^= 1;
    let expected = Ending::Damaged {
        offset: offsets[1],
        later_offset: offsets[2],
        durable_upto: None,
    };
    assert_eq!(ending(&damaged), (1, expected));
    // A hole of zeros is damage too, if something follows.
    let hole = usize::try_from(offsets[1]).expect("small")..usize::try_from(offsets[2]).expect("");
    let mut holed = bytes;
    holed[hole].fill(0);
    assert_eq!(ending(&holed), (1, expected));
}

#[test]
fn a_later_record_says_how_far_it_knew_the_log_to_be_durable() {
    for is_later_payload_whole in [true, false] {
        let fs = SimFs::new(1);
        let mut writer = writer(&fs, 0);
        let damaged_at = writer.bytes();
        let second = writer.append(batch(1), b"synced").expect("written");
        let durable = writer.append(batch(3), b"synced too").expect("written");
        let later_offset = writer.bytes();
        let meta = RecordMeta {
            durable_upto: Some(durable),
            ..batch(6)
        };
        writer.append(meta, b"not synced").expect("written");
        let mut bytes = fs.contents(Path::new(PATH)).expect("there");
        bytes[usize::try_from(damaged_at).expect("small")] ^= 1;
        bytes[usize::try_from(second.offset).expect("small")] ^= 1;
        if !is_later_payload_whole {
            bytes[usize::try_from(later_offset).expect("small") + 20] ^= 1;
        }
        let fs = with_bytes(&bytes);
        let mut reader = open(&fs);
        assert!(reader.next().expect("readable").is_none());
        let expected = Ending::Damaged {
            offset: damaged_at,
            later_offset,
            durable_upto: Some(durable),
        };
        assert_eq!(reader.ending(), expected, "{is_later_payload_whole}");
    }
}

/// A wide header made by hand, of a record without payload unless that is changed.
#[derive(Clone, Copy)]
struct Crafted {
    kind: u8,
    durable_back: u16,
    durable_words: u32,
    payload_len: u32,
    first_seq: u64,
    op_count: u32,
}

const CRAFTED: Crafted = Crafted {
    kind: 1,
    durable_back: u16::MAX,
    durable_words: 0,
    payload_len: 0,
    first_seq: 9,
    op_count: 1,
};

/// Where a record begins, as an index.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

impl Crafted {
    /// Puts it at `offset` of a segment's bytes, with right checksums, and nothing behind it.
    fn put(self, bytes: &mut Vec<u8>, offset: u64) {
        let mut header = [0; 40];
        header[4..8].copy_from_slice(&Crc::at(77, offset).finish().to_le_bytes());
        header[9] = self.kind;
        header[10..12].copy_from_slice(&self.durable_back.to_le_bytes());
        header[12..16].copy_from_slice(&self.payload_len.to_le_bytes());
        header[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        header[24..32].copy_from_slice(&(1u64 << 40).to_le_bytes());
        header[32..36].copy_from_slice(&self.op_count.to_le_bytes());
        header[36..].copy_from_slice(&self.durable_words.to_le_bytes());
        let crc = Crc::at(77, offset).and(&header[4..]).finish();
        header[..4].copy_from_slice(&crc.to_le_bytes());
        bytes.truncate(index(offset));
        bytes.extend_from_slice(&header);
    }
}

#[test]
fn a_header_that_says_the_impossible_is_noise() {
    let (bytes, offsets) = small_segment(3);
    let ending = |header: Crafted| {
        let mut crafted = bytes.clone();
        crafted[index(offsets[1])] ^= 1;
        header.put(&mut crafted, offsets[2]);
        let fs = with_bytes(&crafted);
        let mut reader = open(&fs);
        assert_eq!(first_seqs(&mut reader).expect("readable").len(), 1);
        reader.ending()
    };
    let damaged = Ending::Damaged {
        offset: offsets[1],
        later_offset: offsets[2],
        durable_upto: None,
    };
    assert_eq!(ending(CRAFTED), damaged, "this one is possible");
    let durable_behind = Crafted {
        durable_back: 0,
        durable_words: u32::MAX,
        ..CRAFTED
    };
    let numbers_run_out = Crafted {
        first_seq: (1 << 56) - 1,
        op_count: u32::MAX,
        ..CRAFTED
    };
    let too_long = Crafted {
        payload_len: u32::MAX,
        ..CRAFTED
    };
    for header in [durable_behind, numbers_run_out, too_long] {
        assert_eq!(ending(header), Ending::Torn { offset: offsets[1] });
    }
}

#[test]
fn a_length_beyond_the_file_is_never_allocated() {
    let (bytes, offsets) = small_segment(3);
    for payload_len in [200, 1 << 20, 1 << 30, u32::MAX] {
        let mut crafted = bytes.clone();
        let header = Crafted {
            payload_len,
            ..CRAFTED
        };
        header.put(&mut crafted, offsets[2]);
        let fs = with_bytes(&crafted);
        let mut reader = open(&fs);
        assert_eq!(first_seqs(&mut reader).expect("readable").len(), 2);
        assert_eq!(reader.ending(), Ending::Torn { offset: offsets[2] });
        assert!(reader.window.capacity() <= WINDOW_BYTES, "{payload_len}");
    }
}

#[test]
fn narrow_and_wide_records_are_found_behind_damage() {
    let narrow = batch(4);
    let wide = RecordMeta {
        commit_micros: 5,
        ..narrow
    };
    for (later, header_len) in [(narrow, 19), (wide, 40)] {
        for payload_len in [0, 1, 300] {
            let fs = SimFs::new(1);
            let mut writer = writer(&fs, 0);
            let first = writer.append(batch(1), b"damaged").expect("written");
            let end = writer
                .append(later, &vec![8; payload_len])
                .expect("written");
            let mut bytes = fs.contents(Path::new(PATH)).expect("there");
            bytes[index(FIRST)] ^= 1;
            let fs = with_bytes(&bytes);
            let mut reader = open(&fs);
            assert!(reader.next().expect("readable").is_none());
            let ending = reader.ending();
            let later_offset = first.offset;
            let is_found =
                matches!(ending, Ending::Damaged { later_offset: at, .. } if at == later_offset);
            assert!(is_found, "{ending:?}");
            // Its header alone is enough, at the very end of the file too; less of it is not.
            let header_end = index(later_offset)
                + header_len
                + if payload_len > 255 && header_len < 40 {
                    2
                } else {
                    0
                };
            for (len, is_whole) in [(header_end, true), (header_end - 1, false)] {
                let fs = with_bytes(&bytes[..len]);
                let mut reader = open(&fs);
                assert!(reader.next().expect("readable").is_none());
                let is_found = matches!(reader.ending(), Ending::Damaged { .. });
                assert_eq!(is_found, is_whole, "{len} of {end}");
            }
        }
    }
}

#[test]
fn every_truncation_leaves_a_prefix() {
    let (bytes, offsets) = small_segment(6);
    let first = usize::try_from(FIRST).expect("small");
    for len in first..=bytes.len() {
        let fs = with_bytes(&bytes[..len]);
        let mut reader = open(&fs);
        let count = first_seqs(&mut reader).expect("readable").len();
        let whole = offsets[1..]
            .iter()
            .filter(|end| **end <= len as u64)
            .count();
        // Of the padding behind a payload nothing is missed.
        assert_eq!(count, whole, "cut to {len}");
        let is_boundary = offsets.contains(&(len as u64));
        let ending = reader.ending();
        assert!(
            ending == Ending::Clean || !is_boundary && matches!(ending, Ending::Torn { .. }),
            "cut to {len}: {ending:?}"
        );
    }
    for len in 0..first {
        let fs = with_bytes(&bytes[..len]);
        let error = SegmentReader::open(&*fs, Path::new(PATH)).expect_err("no header");
        assert!(error.is_corruption(), "cut to {len}: {error}");
        assert_eq!(error.path(), Some(Path::new(PATH)));
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (bytes, offsets) = small_segment(6);
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            let fs = with_bytes(&flipped);
            let mut reader = match SegmentReader::open(&*fs, Path::new(PATH)) {
                Ok(reader) => reader,
                Err(error) => {
                    assert!(at < 512 && error.is_corruption(), "byte {at}: {error}");
                    continue;
                }
            };
            let count = first_seqs(&mut reader).expect("readable").len();
            let hit = offsets.partition_point(|offset| *offset <= at as u64) - 1;
            match reader.ending() {
                Ending::Clean => assert_eq!(count, 6, "byte {at}"),
                Ending::Torn { offset } => {
                    assert_eq!((count, offset), (5, offsets[5]), "byte {at}");
                }
                Ending::Damaged { offset, .. } => {
                    assert_eq!((count, offset), (hit, offsets[hit]), "byte {at}");
                }
                Ending::Sealed => panic!("byte {at} made an end record"),
            }
        }
    }
}

#[test]
fn a_short_read_is_no_end_of_the_log() {
    let (bytes, offsets) = small_segment(6);
    let cut = usize::try_from(offsets[3]).expect("small");
    for nth in 1..=4 {
        for short in [0, 100, cut - 512, 600] {
            let fs = FaultFs::new(with_bytes(&bytes));
            let effect = Effect::Short { bytes: short };
            fs.fail(Fault::with_effect(OpKind::Read, effect).nth(nth));
            let read = SegmentReader::open(&*fs, Path::new(PATH))
                .and_then(|mut reader| first_seqs(&mut reader));
            match read {
                Ok(found) => assert_eq!(found.len(), 6, "read {nth} cut to {short}"),
                Err(error) => assert!(!error.is_corruption(), "{error}"),
            }
        }
    }
}

#[test]
fn newer_formats_are_refused() {
    let (bytes, offsets) = small_segment(2);
    let mut newer = bytes.clone();
    newer[8] = 9;
    let crc = Crc::at(77, 0).and(&newer[..508]).finish();
    newer[508..512].copy_from_slice(&crc.to_le_bytes());
    let error = SegmentReader::open(&*with_bytes(&newer), Path::new(PATH)).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let mut newer = bytes;
    let header = Crafted {
        kind: 200,
        ..CRAFTED
    };
    header.put(&mut newer, offsets[1]);
    let fs = with_bytes(&newer);
    let mut reader = open(&fs);
    reader.next().expect("ours").expect("there");
    let error = reader.next().expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.offset(), Some(offsets[1]));
    // It is not skipped when asked again.
    assert!(reader.next().is_err());
}

#[test]
fn records_stop_at_the_limit() {
    let (bytes, offsets) = small_segment(6);
    let fs = with_bytes(&bytes);
    for (count, limit) in offsets.iter().enumerate() {
        let mut reader = open(&fs);
        reader.set_limit(*limit);
        assert_eq!(first_seqs(&mut reader).expect("readable").len(), count);
        assert_eq!(reader.ending(), Ending::Clean);
    }
}

#[test]
fn a_live_reader_sees_what_came_since() {
    let fs = SimFs::new(1);
    let mut writer = writer(&fs, 64 << 10);
    let mut reader = open(&fs);
    let mut next = 1;
    for _ in 0..100 {
        assert!(matches!(reader.next_live(), Ok(LiveRecord::NotYet)));
        for _ in 0..3 {
            writer.append(batch(next), &payload(next)).expect("written");
            next += u64::from(op_count(next));
        }
        for _ in 0..3 {
            let LiveRecord::Record(record) = reader.next_live().expect("readable") else {
                panic!("it was appended");
            };
            check(&record.meta, record.payload);
        }
    }
    writer.seal(9, SequenceNumber::MAX).expect("sealed");
    assert!(matches!(reader.next_live(), Ok(LiveRecord::End)));
}

/// Whatever was damaged in between, everything whole behind it is read, and where it stood.
#[test]
fn those_who_save_what_they_can_go_on_behind_damage() {
    let (bytes, offsets) = small_segment(9);
    let whole = first_seqs(&mut open(&with_bytes(&bytes))).expect("readable");
    for hurt in [vec![2], vec![0], vec![3, 4], vec![1, 5], vec![0, 2, 4, 6]] {
        let mut damaged = bytes.clone();
        for record in &hurt {
            damaged[usize::try_from(offsets[*record]).expect("small") + 20] ^= 1;
        }
        let fs = with_bytes(&damaged);
        let mut reader = open(&fs);
        let mut found = Vec::new();
        let mut jumps = Vec::new();
        loop {
            found.extend(first_seqs(&mut reader).expect("readable"));
            let Ending::Damaged {
                offset,
                later_offset,
                ..
            } = reader.ending()
            else {
                break;
            };
            jumps.push((offset, later_offset));
            reader.skip_to(later_offset);
            assert_eq!(reader.position().offset, later_offset);
        }
        assert_eq!(reader.ending(), Ending::Clean, "{hurt:?}");
        let spared = (0..9).filter(|record| !hurt.contains(record));
        let spared: Vec<u64> = spared.map(|record| whole[record]).collect();
        assert_eq!(found, spared, "{hurt:?}");
        for (from, to) in jumps {
            assert!(offsets.contains(&from) && offsets.contains(&to), "{hurt:?}");
            assert!(from < to, "{hurt:?}");
        }
    }
    // Nowhere before the first record, and back is allowed.
    let mut reader = open(&with_bytes(&bytes));
    reader.skip_to(0);
    assert_eq!(reader.position().offset, FIRST);
    assert_eq!(first_seqs(&mut reader).expect("readable"), whole);
    reader.skip_to(offsets[7]);
    assert_eq!(first_seqs(&mut reader).expect("readable"), whole[7..]);
}
