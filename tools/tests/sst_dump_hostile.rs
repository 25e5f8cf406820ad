//! Tables that somebody has changed and whose checksums are right all the same, through every
//! command of `sst-dump`: no panic, bounded memory, bounded time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base::checksum::Crc;
use base::fs::{FileSystem, OsFs, read_small_file};
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use sstable::{
    Compression, ReadMode, ReaderOptions, TRAILER_BYTES, TableOptions, TableReader, TableWriter,
};
use tempfile::TempDir;
use tools::random::Random;

/// Changed tables of each kind.
const TABLE_COUNT: u64 = 60;
const SEED: u64 = 0x5eed;
/// What a process may take beyond what it needs to run at all: the tables have some 30 KiB.
const MEMORY_KIB: u64 = 400 << 10;
const CPU_SECONDS: u64 = 120;

/// A table as bytes, and where its blocks lie, trailers included.
struct Original {
    bytes: Vec<u8>,
    file_id: u64,
    blocks: Vec<(usize, usize)>,
    footer_at: usize,
}

impl Original {
    fn make(dir: &Path, compression: Compression, dictionary_bytes_max: usize) -> Self {
        let path = dir.join("original.sst");
        let options = TableOptions {
            compression,
            dictionary_bytes_max,
            block_bytes_target: 1024,
            hash_seed: HashSeed(9),
            ..TableOptions::default()
        };
        let mut writer = TableWriter::create(&OsFs, &path, options).expect("created");
        for n in 0..600u64 {
            let key = format!("key{n:05}");
            let seq = SequenceNumber::new(n + 1).expect("small");
            let (kind, value) = match n % 9 {
                0 => (KeyKind::Delete, String::new()),
                _ => (KeyKind::Put, format!("value of number {n} {}", n * n)),
            };
            let key = InternalKey::new(key.as_bytes(), seq, kind);
            writer.add(key, value.as_bytes()).expect("added");
        }
        writer.finish().expect("finished");
        let bytes = read_small_file(&OsFs, &path, 1 << 20).expect("read");
        let options = ReaderOptions {
            mode: ReadMode::Positioned,
            ..ReaderOptions::default()
        };
        let file = OsFs.open(&path).expect("there");
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
        OsFs.remove_file(&path).expect("removed");
        Self {
            bytes,
            file_id: reader.file_id(),
            blocks,
            footer_at,
        }
    }

    /// A copy with something changed in one block, or in the footer, and its checksum made right.
    fn changed(&self, random: &mut Random) -> Vec<u8> {
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
            self.blocks[random.below_usize(bound.min(self.blocks.len()))]
        };
        let is_footer = at == self.footer_at;
        // Of a footer the fields, the file's length and the counts.
        let payload = len - if is_footer { 8 } else { TRAILER_BYTES };
        for _ in 0..=random.below(3) {
            let place = at + random.below_usize(payload.clamp(1, 4096));
            match random.below(4) {
                0 => bytes[place] ^= 1 << random.below(8),
                1 => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][random.below_usize(5)],
                2 => bytes[place] = bytes[place].wrapping_add(1),
                _ => {
                    let width = random.below_usize(9).min(at + payload - place);
                    random.fill(&mut bytes[place..place + width]);
                }
            }
        }
        if is_footer {
            self.seal_footer(&mut bytes);
        } else {
            if random.one_in(4) {
                bytes[at + len - TRAILER_BYTES] = [0, 1, 2, 3][random.below_usize(4)];
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
        let id_at = bytes.len() - 56;
        let id = bytes[id_at..id_at + 8].try_into().expect("eight bytes");
        let crc = Crc::at(u64::from_le_bytes(id), self.footer_at as u64)
            .and(&bytes[self.footer_at..crc_at])
            .and(&bytes[crc_at + 4..])
            .finish();
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small table")
}

/// Runs the binary with bounds that the system enforces.
fn run(dir: &Path, words: &str) -> std::process::Output {
    let script = format!("ulimit -v {MEMORY_KIB}; ulimit -t {CPU_SECONDS}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_sst-dump")])
        .arg(dir)
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .expect("there is a shell")
}

#[test]
fn hostile_tables_are_survived_by_every_command() {
    println!("seed {SEED:#x}");
    let mut damaged_count = 0;
    for (salt, compression, dictionary_bytes_max) in [
        (1, Compression::None, 0),
        (2, Compression::Zstd { level: 1 }, 0),
        (3, Compression::Zstd { level: 1 }, 512),
    ] {
        let dir = TempDir::new().expect("a directory");
        let original = Original::make(dir.path(), compression, dictionary_bytes_max);
        let mut random = Random::stream(SEED, &[salt]);
        for number in 1..=TABLE_COUNT {
            let path = dir.path().join(format!("{number:06}.sst"));
            let file = OsFs.create(&path).expect("created");
            let bytes = original.changed(&mut random);
            file.write_at(0, &bytes).expect("written");
        }
        for words in [
            "--command=check",
            "--command=scan",
            "--command=verify",
            "--command=properties --show_summary",
            "--command=index",
            "--command=filter",
            "--command=raw --output_hex",
            "--command=blocks",
            "--command=hist",
            "--command=recompress --compression_level=1",
            "--command=identify",
            "--command=explain --key=key00300",
        ] {
            for form in ["", " --json"] {
                let ended = run(dir.path(), &format!("{words}{form}"));
                let err = String::from_utf8_lossy(&ended.stderr);
                let mut place = String::new();
                write!(place, "kind {salt}, {words}{form}").expect("a string");
                // A panic ends with 101, a bound of the system with a signal.
                let code = ended.status.code();
                assert!(
                    matches!(code, Some(0..=2)),
                    "{place}: {:?} {err}",
                    ended.status
                );
                assert!(!err.contains("panicked"), "{place}: {err}");
                let is_plain = |byte: &u8| matches!(byte, b'\n' | b' '..=b'~');
                let is_safe = err.as_bytes().iter().all(is_plain);
                assert!(is_safe, "{place}: unescaped: {err}");
                if words == "--command=verify" {
                    damaged_count += err.lines().count();
                }
            }
        }
    }
    // If checksums had not been repaired, no command would come past them.
    assert!(damaged_count > 100, "{damaged_count} of them were noticed");
}
