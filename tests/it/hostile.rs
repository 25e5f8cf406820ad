//! Files that somebody has changed and whose checksums are right all the same. The tests of the
//! tools include this file as well.

use std::path::Path;

use base::checksum::Crc;
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
/// The header of a record in it.
const RECORD_HEADER: usize = 40;

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
        let (at, end) = *random.pick(&records);
        if random.one_in(3) {
            change(&mut bytes[at + 8..at + RECORD_HEADER], random);
        } else if end > at + RECORD_HEADER {
            // What counts stands in front, most often.
            let len = (end - at - RECORD_HEADER).min(*random.pick(&[16, 64, 1 << 20]));
            let body = at + RECORD_HEADER;
            change(&mut bytes[body..body + len], random);
        }
        seal_record(&mut bytes, at);
    }
    bytes
}

/// Where records begin and what follows their headers ends, padding apart.
fn records(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER;
    while at + RECORD_HEADER <= bytes.len() && bytes[at..at + 4] != [0; 4] {
        let end = at + RECORD_HEADER + body_len(bytes, at);
        if end > bytes.len() {
            break;
        }
        found.push((at, end));
        at = end.next_multiple_of(8);
    }
    found
}

/// Tagged fields and payload of the record at `at`.
fn body_len(bytes: &[u8], at: usize) -> usize {
    let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes"));
    len as usize + usize::from(bytes[at + 13]) * 8
}

/// Makes both checksums of a record right, as far as there are bytes for what it says.
fn seal_record(bytes: &mut [u8], at: usize) {
    let file_id = u64_at(bytes, 28);
    let body = at + RECORD_HEADER;
    let end = body.saturating_add(body_len(bytes, at)).min(bytes.len());
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
