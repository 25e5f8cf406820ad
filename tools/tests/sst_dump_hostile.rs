//! Tables that somebody has changed and whose checksums are right all the same, through every
//! command of `sst-dump`: no panic, bounded memory, bounded time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base::fs::{FileSystem, OsFs, read_small_file};
use base::random::{Random, mix};
use base::{HashSeed, InternalKey, KeyKind, SequenceNumber};
use sstable::{Compression, TableOptions, TableWriter};
use tempfile::TempDir;

#[path = "../../tests/it/hostile.rs"]
#[allow(dead_code, reason = "segments are for the tests of the engine")]
mod hostile;
use hostile::Original;

/// Changed tables of each kind.
const TABLE_COUNT: u64 = 60;
const SEED: u64 = 0x5eed;
/// What a process may take beyond what it needs to run at all: the tables have some 30 KiB.
const MEMORY_KIB: u64 = 400 << 10;
const CPU_SECONDS: u64 = 120;

/// A table of this kind.
fn original(dir: &Path, compression: Compression, dictionary_bytes_max: usize) -> Original {
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
    let original = Original::take(&OsFs, &path, bytes);
    OsFs.remove_file(&path).expect("removed");
    original
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
        let original = original(dir.path(), compression, dictionary_bytes_max);
        let mut random = Random(SEED ^ mix(salt));
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
