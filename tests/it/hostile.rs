//! Files that somebody has changed and whose checksums are right all the same. The tests of the
//! tools include this file as well.

use std::path::Path;

use base::SequenceNumber;
use base::checksum::Crc;
use base::coding::put_varint_field;
use base::fs::FileSystem;
use base::random::Random;
use sstable::{ReadMode, ReaderOptions, TRAILER_BYTES, TableReader};

/// A table as bytes, and where its blocks lie, trailers included.
pub(crate) struct Original {
    pub(crate) bytes: Vec<u8>,
    file_id: u64,
    blocks: Vec<(usize, usize)>,
    footer_at: usize,
}

impl Original {
    /// The table at `path`, whose content is `bytes`.
    pub(crate) fn take(fs: &dyn FileSystem, path: &Path, bytes: Vec<u8>) -> Self {
        let options = ReaderOptions {
            mode: ReadMode::Positioned,
            ..ReaderOptions::default()
        };
        let file = fs.open(path).expect("there");
        let reader = TableReader::open(file, &options, None, 0).expect("a table");
        let mut blocks = Vec::new();
        let mut footer_at = 0;
        for section in reader.sections() {
            match section.name {
                "data" => {}
                "footer" => footer_at = index(section.offset),
                _ => blocks.push((index(section.offset), index(section.bytes))),
            }
        }
        for at in 0..reader.block_count() {
            let handle = reader.block_info(at).expect("sound").handle;
            blocks.push((index(handle.offset), handle.len as usize + TRAILER_BYTES));
        }
        Self {
            bytes,
            file_id: reader.file_id(),
            blocks,
            footer_at,
        }
    }

    /// A copy with something changed in one block, or in the footer, and its checksum made right.
    pub(crate) fn changed(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let (at, len) = if random.one_in(5) {
            (self.footer_at, bytes.len() - self.footer_at)
        } else {
            // The first few are index, filter and properties, which deserve it most.
            let bound = if random.one_in(2) {
                4
            } else {
                self.blocks.len()
            };
            self.blocks[random.index(bound.min(self.blocks.len()))]
        };
        let is_footer = at == self.footer_at;
        // Of a footer the fields, the file's length and the counts.
        let payload = len - if is_footer { 8 } else { TRAILER_BYTES };
        change(&mut bytes[at..at + payload.clamp(1, 4096)], random);
        if is_footer {
            self.seal_footer(&mut bytes);
        } else {
            if random.one_in(4) {
                bytes[at + len - TRAILER_BYTES] = [0, 1, 2, 3][random.index(4)];
            }
            let end = at + len - 4;
            let (payload, tag) = (&bytes[at..end - 1], bytes[end - 1]);
            let crc = Crc::at(self.file_id, at as u64).and(payload).and(&[tag]);
            let crc = crc.finish().to_le_bytes();
            bytes[end..end + 4].copy_from_slice(&crc);
        }
        bytes
    }

    /// As `Footer::encode` does it: the checksum stands 20 bytes before the end.
    fn seal_footer(&self, bytes: &mut [u8]) {
        let crc_at = bytes.len() - 20;
        let file_id = u64_at(bytes, bytes.len() - 56);
        let crc = Crc::at(file_id, self.footer_at as u64)
            .and(&bytes[self.footer_at..crc_at])
            .and(&bytes[crc_at + 4..])
            .finish();
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Changes a few places of `bytes`, in ways that decoders take amiss.
pub(crate) fn change(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let place = random.index(bytes.len());
        match random.below(4) {
            0 => bytes[place] ^= 1 << random.below(8),
            1 => bytes[place] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes[place] = bytes[place].wrapping_add(1),
            _ => {
                let end = bytes.len().min(place + random.index(9));
                for byte in &mut bytes[place..end] {
                    *byte = random.next_u64().to_le_bytes()[0];
                }
            }
        }
    }
}

/// The header of a segment.
const SEGMENT_HEADER: usize = 512;
/// The longest header of a record in it, and that of an end.
const RECORD_HEADER_MAX: usize = 40;

/// A copy of a segment of the log, or of a MANIFEST, with something changed in its header or in one
/// or two of its records, and the checksums made right.
pub(crate) fn changed_segment(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let records = records(&bytes);
    if records.is_empty() || random.one_in(8) {
        // Magic, version and file id stay: without them it would be another file.
        let from = *random.pick(&[8, 36, 52, 76]);
        change(&mut bytes[from..508], random);
        let crc = Crc::at(u64_at(&bytes, 28), 0).and(&bytes[..508]).finish();
        bytes[508..512].copy_from_slice(&crc.to_le_bytes());
        return bytes;
    }
    for _ in 0..=random.below(2) {
        let Record { at, body, end } = *random.pick(&records);
        if random.one_in(3) {
            change(&mut bytes[at + 8..body], random);
        } else if end > body {
            // What counts stands in front, most often.
            let len = (end - body).min(*random.pick(&[16, 64, 1 << 20]));
            change(&mut bytes[body..body + len], random);
        }
        seal_record(&mut bytes, at);
    }
    bytes
}

/// A copy of a segment of the log in which a record has the sequence number of one before it, and
/// the checksums made right. The same if it has less than two records.
pub(crate) fn repeating_segment(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    // Narrow headers, whose lowest bits are the kind; the first record is the segment's beginning.
    let is_operations = |record: &Record| matches!(bytes[record.at + 8] & 7, 1..=3);
    let records: Vec<_> = records(&bytes).into_iter().filter(is_operations).collect();
    if records.len() < 2 {
        return bytes;
    }
    let later = 1 + random.index(records.len() - 1);
    let earlier = random.index(later);
    let number = records[earlier].at + 9;
    bytes.copy_within(number..number + 3, records[later].at + 9);
    seal_record(&mut bytes, records[later].at);
    bytes
}

/// Numbers at which arithmetic goes wrong.
const EXTREMES: [u64; 8] = [
    0,
    1,
    u32::MAX as u64,
    (1 << 56) - 2,
    (1 << 56) - 1,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// One of them.
pub(crate) fn extreme(random: &mut Random) -> u64 {
    *random.pick(&EXTREMES)
}

/// A copy of a segment with one number of its header at an extreme: the epoch, the file's number,
/// the ordinal, or the anchor that the numbers of its records are counted from.
pub(crate) fn extreme_segment(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let value = extreme(random);
    if random.one_in(2) {
        let at = *random.pick(&[52, 60, 68]);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    } else {
        let tag = *random.pick(&[2, 3]);
        let mut fields = Vec::new();
        put_varint_field(&mut fields, tag, value & SequenceNumber::MAX.get());
        let len = u32::try_from(fields.len()).expect("a short field");
        bytes[76..80].copy_from_slice(&len.to_le_bytes());
        bytes[80..80 + fields.len()].copy_from_slice(&fields);
    }
    let crc = Crc::at(u64_at(&bytes, 28), 0).and(&bytes[..508]).finish();
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A copy of a MANIFEST whose edits are what `change` makes of them.
pub(crate) fn rewritten(original: &[u8], mut change: impl FnMut(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = original[..SEGMENT_HEADER].to_vec();
    for Record { at, body, end } in records(original) {
        let payload = change(&original[body..end]);
        let start = bytes.len();
        let old = lengths(original, at).expect("it was found");
        let len = u32::try_from(payload.len()).expect("a small edit");
        if old.is_wide {
            bytes.extend_from_slice(&original[at..body]);
            bytes[start + 12..start + 16].copy_from_slice(&len.to_le_bytes());
        } else {
            let len_at = at + old.payload_len_at;
            bytes.extend_from_slice(&original[at..len_at]);
            bytes[start + 8] |= LONG_PAYLOAD;
            bytes.extend_from_slice(&len.to_le_bytes()[..3]);
            bytes.extend_from_slice(&original[len_at + old.payload_len_bytes..body]);
        }
        bytes.extend_from_slice(&payload);
        seal_record(&mut bytes, start);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// Where a record begins, where its header ends, and where what follows that ends, padding apart.
#[derive(Clone, Copy)]
struct Record {
    at: usize,
    body: usize,
    end: usize,
}

fn records(bytes: &[u8]) -> Vec<Record> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER;
    while at + 4 <= bytes.len() && bytes[at..at + 4] != [0; 4] {
        let Some(lengths) = lengths(bytes, at) else {
            break;
        };
        let body = at + lengths.header;
        let end = body + lengths.body;
        if end > bytes.len() {
            break;
        }
        found.push(Record { at, body, end });
        at = end.next_multiple_of(8);
    }
    found
}

/// In the form of a narrow header.
const LONG_PAYLOAD: u8 = 1 << 3;
const HAS_COUNT: u8 = 1 << 4;
const LONG_TIME: u8 = 1 << 5;

/// What a header of a record says of lengths.
struct Lengths {
    is_wide: bool,
    header: usize,
    /// Tagged fields and payload.
    body: usize,
    /// Where the header has the payload's length, and in how many bytes.
    payload_len_at: usize,
    payload_len_bytes: usize,
}

/// Of the record at `at`, if there are bytes for any header.
fn lengths(bytes: &[u8], at: usize) -> Option<Lengths> {
    let header = bytes.get(at..)?;
    let form = *header.get(8)?;
    let is_wide = form == 0;
    let (payload_len_at, payload_len_bytes) = match form {
        0 => (12, 4),
        _ => (
            15 + usize::from(form & LONG_TIME != 0),
            if form & LONG_PAYLOAD == 0 { 1 } else { 3 },
        ),
    };
    let mut len = [0; 8];
    let said = header.get(payload_len_at..payload_len_at + payload_len_bytes)?;
    len[..payload_len_bytes].copy_from_slice(said);
    let payload = index(u64::from_le_bytes(len));
    let (header_len, fields) = if is_wide {
        (RECORD_HEADER_MAX, usize::from(*header.get(23)?) * 8)
    } else {
        let count = if form & HAS_COUNT == 0 { 0 } else { 3 };
        let durable = [0, 3, 3, 6][usize::from(form >> 6)];
        (payload_len_at + payload_len_bytes + count + durable, 0)
    };
    (header.len() >= header_len).then_some(Lengths {
        is_wide,
        header: header_len,
        body: fields + payload,
        payload_len_at,
        payload_len_bytes,
    })
}

/// Makes both checksums of a record right, as far as there are bytes for what it says.
fn seal_record(bytes: &mut [u8], at: usize) {
    let Some(lengths) = lengths(bytes, at) else {
        return;
    };
    let file_id = u64_at(bytes, 28);
    let body = at + lengths.header;
    let end = body.saturating_add(lengths.body).min(bytes.len());
    let crc = Crc::at(file_id, at as u64).and(&bytes[body..end]).finish();
    bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    let crc = Crc::at(file_id, at as u64)
        .and(&bytes[at + 4..body])
        .finish();
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small table")
}
