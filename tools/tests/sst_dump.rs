//! The `sst-dump` binary, run as a user runs it.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base::fs::{FileSystem, OsFs};
use base::{FileKind, HashSeed, InternalKey, KeyKind, Level, SequenceNumber};
use serde_json::Value;
use sstable::{Compression, CreationReason, FilterPolicy, TableOptions, TableWriter};
use tempfile::TempDir;

#[path = "sst_dump/endings.rs"]
mod endings;
#[path = "sst_dump/parts.rs"]
mod parts;

/// A directory of tables, and ways to run the binary on it.
struct Fixture {
    dir: TempDir,
}

/// What a run ended with.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

type Entry<'a> = (&'a [u8], u64, KeyKind, &'a [u8]);

const SMALL: [Entry<'_>; 5] = [
    (b"", 5, KeyKind::Put, b"the empty key"),
    (b"apple", 9, KeyKind::Delete, b""),
    (b"apple", 3, KeyKind::Put, b"red"),
    (b"it's\x1b[31m\n", 4, KeyKind::Put, b"\xff\x00 b\\"),
    (b"pear", 0, KeyKind::Put, b"green"),
];

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir }
    }

    /// One with the small table as number 7.
    fn small() -> Self {
        let fixture = Self::new();
        fixture.table("000007.sst", &SMALL, &TableOptions::default());
        fixture
    }

    /// One with a table of `count` entries as number 8.
    fn large(count: u64, compression: Compression) -> Self {
        let fixture = Self::new();
        let owned: Vec<_> = (0..count)
            .map(|n| (format!("key{n:06}"), format!("value of number {n}")))
            .collect();
        let entries: Vec<_> = (1..)
            .zip(&owned)
            .map(|(seq, (key, value))| (key.as_bytes(), seq, KeyKind::Put, value.as_bytes()))
            .collect();
        let options = TableOptions {
            compression,
            hash_seed: HashSeed(3),
            ..TableOptions::default()
        };
        fixture.table("000008.sst", &entries, &options);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn table(&self, name: &str, entries: &[Entry<'_>], options: &TableOptions) -> PathBuf {
        let path = self.path(name);
        let mut writer = TableWriter::create(&OsFs, &path, options.clone()).expect("created");
        for (key, seq, kind, value) in entries {
            let seq = SequenceNumber::new(*seq).expect("small");
            writer
                .add(InternalKey::new(key, seq, *kind), value)
                .expect("added");
        }
        writer.finish().expect("finished");
        path
    }

    /// Changes one byte of a file.
    fn flip(&self, name: &str, at: u64, bits: u8) {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))
            .expect("there");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("within the file");
        file.write_all_at(&[byte[0] ^ bits], at).expect("written");
    }

    fn len(&self, name: &str) -> u64 {
        let status = OsFs.status(&self.path(name)).expect("asked");
        status.expect("there").len
    }

    /// Runs the words of `line`; `DIR` stands for the directory.
    fn run(&self, line: &str) -> Ended {
        let output = self.command(line).output().expect("the binary was built");
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    fn command(&self, line: &str) -> Command {
        let dir = self.dir.path().to_str().expect("a plain path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sst-dump"));
        command
            .args(line.split_whitespace().map(|word| word.replace("DIR", dir)))
            .stdin(Stdio::null());
        command
    }
}

impl Ended {
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, &self.err[..]), (Some(0), ""), "{self:?}");
        self.out
    }

    #[track_caller]
    fn code(self, code: i32, message: &str) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(message), "{self:?}");
        self.out
    }
}

#[test]
fn check_is_the_default_and_counts_every_table() {
    let fixture = Fixture::small();
    fixture.table("000010.sst", &SMALL[1..3], &TableOptions::default());
    fixture.table("foreign.sst", &SMALL[..1], &TableOptions::default());
    let out = fixture.run("DIR").good();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].ends_with("000007.sst: good, 5 entries read"),
        "{out}"
    );
    assert!(
        lines[1].ends_with("000010.sst: good, 2 entries read"),
        "{out}"
    );
    assert_eq!(fixture.run("--file=DIR --command=check").good(), out);
    let named = fixture.run("DIR/foreign.sst").good();
    assert!(
        named.ends_with("foreign.sst: good, 1 entry read\n"),
        "{named}"
    );
}

#[test]
fn scan_prints_entries_and_nothing_a_terminal_would_act_on() {
    let fixture = Fixture::small();
    let out = fixture.run("DIR/000007.sst --command=scan").good();
    let want = "\
'' seq:5, type:PUT => the empty key
'apple' seq:9, type:DEL =>\x20
'apple' seq:3, type:PUT => red
'it\\'s\\x1b[31m\\n' seq:4, type:PUT => \\xff\\x00 b\\\\
'pear' seq:0, type:PUT => green
";
    assert_eq!(out, want);
    let hex = fixture.run("DIR --command=scan --output_hex").good();
    assert!(
        hex.contains("'6170706c65' seq:3, type:PUT => 726564\n"),
        "{hex}"
    );
}

#[test]
fn bounds_choose_entries() {
    let fixture = Fixture::large(2_000, Compression::None);
    let keys = |line: &str| -> Vec<String> {
        let out = fixture.run(&format!("DIR --command=scan {line}")).good();
        out.lines().map(|line| line[1..10].to_owned()).collect()
    };
    assert_eq!(keys("").len(), 2_000);
    assert_eq!(
        keys("--from=key000010 --to=key000012"),
        ["key000010", "key000011"]
    );
    assert_eq!(keys("--prefix=key00013").len(), 10);
    assert_eq!(
        keys("--prefix=key00013 --from=key000138"),
        ["key000138", "key000139"]
    );
    assert_eq!(keys("--prefix=key00013 --from=a").len(), 10);
    assert_eq!(keys("--from=key001990 --read_num=3").len(), 3);
    assert_eq!(keys("--from=zzz").len(), 0);
    assert_eq!(keys("--to=a").len(), 0);
    assert_eq!(
        keys("--input_key_hex --from=6b6579303031393939"),
        ["key001999"]
    );
    let checked = fixture.run("DIR --prefix=key0001").good();
    assert!(checked.ends_with("good, 100 entries read\n"), "{checked}");
}

#[test]
fn read_num_counts_over_all_tables() {
    let fixture = Fixture::small();
    fixture.table("000008.sst", &SMALL[1..3], &TableOptions::default());
    fixture.table("000009.sst", &SMALL[1..3], &TableOptions::default());
    let out = fixture.run("DIR --command=scan --read_num=6").good();
    assert_eq!(out.lines().filter(|line| line.contains(" seq:")).count(), 6);
    assert!(!out.contains("000009"), "{out}");
}

#[test]
fn json_is_one_object_a_line() {
    let fixture = Fixture::small();
    let out = fixture.run("DIR --command=scan --json").good();
    let objects: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(objects.len(), 5);
    assert_eq!(objects[1]["type"], "DEL");
    assert_eq!(objects[2]["key"], "apple");
    assert_eq!(objects[2]["seq"], 3);
    assert_eq!(objects[3]["key"], "it's\u{1b}[31m\n");
    assert_eq!(objects[3]["value_hex"], "ff0020625c");
    for command in ["check", "verify", "properties", "index", "filter"] {
        let out = fixture
            .run(&format!("DIR --json --command={command}"))
            .good();
        let object: Value = serde_json::from_str(out.trim_end()).expect("one object");
        assert!(
            object["file"]
                .as_str()
                .expect("a path")
                .ends_with("000007.sst")
        );
    }
}

#[test]
fn properties_say_how_a_table_was_made() {
    let fixture = Fixture::new();
    let options = TableOptions {
        compression: Compression::Zstd { level: 2 },
        filter: FilterPolicy::Bloom { bits_per_key: 12 },
        level: Level::LAST,
        reason: CreationReason::Compaction,
        created_micros: 1_709_251_199_000_000,
        ..TableOptions::default()
    };
    fixture.table("000003.sst", &SMALL, &options);
    let out = fixture.run("DIR --command=properties").good();
    for (name, value) in [
        ("entries", "5"),
        ("puts", "4"),
        ("tombstones", "1 (20.0%)"),
        ("user keys", "4"),
        ("smallest sequence", "0"),
        ("largest sequence", "9"),
        ("smallest key", "'' seq:5, type:PUT"),
        ("largest key", "'pear' seq:0, type:PUT"),
        ("compression", "zstd level 2"),
        ("filter policy", "bloom, 12 bits a key"),
        ("level", "L7"),
        ("reason", "compaction"),
        ("created", "2024-02-29T23:59:59.000000Z"),
    ] {
        assert!(
            out.contains(&format!("\n  {name:<20} {value}\n")),
            "{name}: {out}"
        );
    }
    let with_check = fixture.run("DIR --show_properties --show_summary").good();
    assert!(with_check.contains("good, 5 entries read\n"));
    assert!(with_check.contains("\n  reason               compaction\n"));
    assert!(with_check.ends_with("5 entries, 1 tombstone, 50 B of keys and values\n"));
    let json: Value =
        serde_json::from_str(&fixture.run("DIR --command=properties --json").good()).expect("JSON");
    assert_eq!(json["entries"], 5);
    assert_eq!(json["level"], 7);
    assert_eq!(json["largest"]["key"], "pear");
}

#[test]
fn verify_index_and_filter_describe_a_sound_table() {
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let fixture = Fixture::large(5_000, compression);
        let out = fixture.run("DIR --command=verify").good();
        assert!(out.contains(": verified, "), "{out}");
        assert!(out.contains(" 5,000 entries, 5,000 puts, 0 tombstones, 5,000 user keys"));
        let index = fixture.run("DIR --command=index").good();
        let stored = if compression == Compression::None {
            "raw"
        } else {
            "zstd"
        };
        let blocks = index
            .lines()
            .filter(|line| line.contains(&format!("  {stored} ")));
        assert!(blocks.count() > 10, "{index}");
        assert!(
            index
                .lines()
                .last()
                .expect("a block")
                .ends_with("'key004999' seq:0")
        );
        let filter = fixture.run("DIR --command=filter").good();
        assert!(filter.contains("blocked, 10 bits a key"), "{filter}");
        let passed = filter.split(", ").last().expect("a rate");
        let percent: f64 = passed
            .split('%')
            .next()
            .expect("a number")
            .parse()
            .expect("a number");
        assert!((0.2..3.0).contains(&percent), "{filter}");
    }
    let fixture = Fixture::new();
    let options = TableOptions {
        filter: FilterPolicy::None,
        ..TableOptions::default()
    };
    fixture.table("000001.sst", &SMALL, &options);
    assert!(
        fixture
            .run("DIR --command=filter")
            .good()
            .ends_with(": no filter\n")
    );
}

#[test]
fn damage_is_named_with_its_offset_and_other_tables_are_still_read() {
    let fixture = Fixture::large(5_000, Compression::None);
    fixture.table("000009.sst", &SMALL, &TableOptions::default());
    fixture.flip("000008.sst", 20_000, 0x40);
    for command in ["check", "verify"] {
        let ended = fixture.run(&format!("DIR --command={command}"));
        assert!(
            ended.err.starts_with("sst-dump: block checksum mismatch"),
            "{ended:?}"
        );
        assert!(ended.err.contains("000008.sst"), "{ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
        let offset = ended
            .err
            .split("offset=")
            .last()
            .expect("an offset")
            .trim_end();
        let offset: u64 = offset.parse().expect("a number");
        assert!((20_000 - 4_200..=20_000).contains(&offset), "{ended:?}");
        let out = ended.code(1, "offset=");
        assert!(out.contains("000009.sst: "), "{out}");
    }
    // A scan prints what comes before the damage.
    let scanned = fixture
        .run("DIR/000008.sst --command=scan")
        .code(1, "checksum mismatch");
    let count = scanned.lines().count();
    assert!((100..1_000).contains(&count), "{count}");
    let json = fixture
        .run("DIR/000008.sst --json")
        .code(1, "checksum mismatch");
    let object: Value = serde_json::from_str(json.trim_end()).expect("one object");
    assert_eq!(object["status"], "damaged");
}

#[test]
fn every_changed_byte_is_damage_and_never_a_panic() {
    let fixture = Fixture::small();
    // Every ninth, to spare processes; the table's own tests change each.
    for at in (0..fixture.len("000007.sst")).step_by(9) {
        fixture.flip("000007.sst", at, 0x81);
        let ended = fixture.run("DIR --command=verify");
        assert!(matches!(ended.code, Some(1 | 2)), "at={at} {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "at={at} {ended:?}");
        for command in ["scan", "properties", "index", "filter"] {
            let ended = fixture.run(&format!("DIR --command={command}"));
            assert!(matches!(ended.code, Some(0..=2)), "at={at} {ended:?}");
        }
        fixture.flip("000007.sst", at, 0x81);
    }
    fixture.run("DIR --command=verify").good();
}

#[test]
fn what_is_no_table_is_said_to_be_none() {
    let fixture = Fixture::new();
    let text = OsFs.create(&fixture.path("000001.sst")).expect("new");
    text.write_at(0, "no table at all\n".repeat(99).as_bytes())
        .expect("written");
    fixture
        .run("DIR")
        .code(1, "not a table: the magic number is missing");
    let empty = OsFs.create(&fixture.path("empty")).expect("new");
    drop(empty);
    fixture
        .run("DIR/empty")
        .code(2, "not a table, and nothing else of a database");
    let small = Fixture::small();
    let len = small.len("000007.sst");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(small.path("000007.sst"));
    file.expect("there").set_len(len - 1).expect("cut");
    small.run("DIR").code(1, "000007.sst");
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let fixture = Fixture::small();
    // The version stands 12 bytes before the end.
    fixture.flip("000007.sst", fixture.len("000007.sst") - 12, 0x04);
    fixture
        .run("DIR")
        .code(2, "table of a newer format found=7 supported=3");
}

#[test]
fn a_wrong_call_ends_with_2_and_says_why() {
    let fixture = Fixture::small();
    OsFs.create_dir(&fixture.path("void")).expect("created");
    for (line, message) in [
        ("", "Usage"),
        ("--command=check", "name a table"),
        ("DIR --command=explode", "explode"),
        ("DIR --no_such_flag", "--no_such_flag"),
        ("DIR/void", "no tables in the directory"),
        ("DIR/nowhere", "no such file or directory"),
        ("explain k DIR", "--command=explain"),
        ("DIR --command=recompress --block_size=0", "from 64 bytes"),
        ("DIR --command=recompress --block_size=1T", "from 64 bytes"),
        ("DIR --read_num=many", "many"),
        (
            "DIR --input_key_hex --from=0g",
            "--from: not hexadecimal digits",
        ),
        ("DIR --command=verify --from=a", "go with check and scan"),
    ] {
        let out = fixture.run(line).code(2, message);
        assert_eq!(out, "", "{line}");
    }
    fixture.run("--help").good();
    fixture.run("--version").good();
}

#[test]
fn links_and_pipes_are_not_followed() {
    let fixture = Fixture::small();
    let link = fixture.path("000008.sst");
    std::os::unix::fs::symlink(fixture.path("000007.sst"), &link).expect("linked");
    let ended = fixture.run("DIR/000008.sst");
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{ended:?}");
    let pipe = fixture.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    fixture.run("DIR/pipe").code(2, "not a regular file");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let fixture = Fixture::large(200_000, Compression::None);
    let mut child = fixture
        .command("DIR --command=scan")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut first = [0; 16];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut first).expect("an entry");
    assert_eq!(&first, b"'key000000' seq:");
    drop(stdout);
    let mut err = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut err).expect("text");
    let status = child.wait().expect("ended");
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
}

#[test]
fn the_tables_of_a_database_are_found_while_it_is_open() {
    let fixture = Fixture::new();
    let path: &Path = &fixture.path("db");
    let db = siltstone::Options::new()
        .create_if_missing(true)
        .open(path)
        .expect("opened");
    for n in 0..500 {
        db.put(format!("key{n:04}"), format!("value {n}"))
            .expect("put");
    }
    db.flush().expect("flushed");
    let out = fixture.run("DIR/db --command=scan --prefix=key01").good();
    assert_eq!(
        out.lines()
            .filter(|line| line.contains("type:PUT => value 1"))
            .count(),
        100
    );
    fixture.run("DIR/db --command=verify").good();
    db.close().expect("closed");
}
