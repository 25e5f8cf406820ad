//! What `raw`, `blocks`, `hist`, `recompress`, `explain` and `identify` print.

use super::*;

#[test]
fn raw_names_every_part_and_the_wrong_checksum() {
    let fixture = Fixture::large(3_000, Compression::Zstd { level: 1 });
    let out = fixture.run("DIR --command=raw").good();
    for part in ["data block", "index", "filter", "properties", "footer"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("WRONG"), "{out}");
    let blocks = out.lines().filter(|line| line.contains("data block"));
    assert!(blocks.count() > 5, "{out}");
    fixture.flip("000008.sst", 100, 0x10);
    let out = fixture
        .run("DIR --command=raw")
        .code(1, "checksum mismatch");
    assert_eq!(out.matches("WRONG").count(), 1, "{out}");
    assert!(
        out.contains("footer"),
        "what follows damage is shown: {out}"
    );
    let json = fixture.run("DIR --command=raw --json").code(1, "offset=0");
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["crc_is_right"], &first["offset"]),
        (&false.into(), &0.into())
    );
}

#[test]
fn blocks_and_hist_count_every_entry() {
    let fixture = Fixture::large(3_000, Compression::None);
    let out = fixture.run("DIR --command=blocks").good();
    assert!(out.contains("'key000000' .. 'key"), "{out}");
    assert!(out.contains(".. 'key002999'\n"), "{out}");
    let json = fixture.run("DIR --command=blocks --json").good();
    let entries = json.lines().map(|line| {
        let block: Value = serde_json::from_str(line).expect("JSON");
        block["entries"].as_u64().expect("a count")
    });
    assert_eq!(entries.sum::<u64>(), 3_000);
    let json = fixture.run("DIR --command=hist --json").good();
    let hist: Value = serde_json::from_str(json.trim_end()).expect("JSON");
    assert_eq!(hist["key_bytes"]["count"], 3_000);
    assert_eq!(hist["key_bytes"]["largest"], 9);
    assert_eq!(hist["key_bytes"]["buckets"][0]["from"], 8);
    assert_eq!(hist["value_bytes"]["largest"], 20);
    let text = fixture.run("DIR --command=hist").good();
    assert!(
        text.contains("keys: 3,000, mean 9 B, largest 9 B"),
        "{text}"
    );
    assert!(text.contains("data blocks, as stored"), "{text}");
}

#[test]
fn recompress_shows_what_each_codec_and_block_size_comes_to() {
    let fixture = Fixture::large(5_000, Compression::None);
    let line = "DIR --command=recompress --json --compression_level=-3,1,9 --block_size=1K,16K";
    let json = fixture.run(line).good();
    let found: Value = serde_json::from_str(json.trim_end()).expect("JSON");
    let trials = found["trials"].as_array().expect("a list");
    assert_eq!(trials.len(), 8);
    let bytes = |codec: &str, block_bytes: u64| {
        let trial = trials
            .iter()
            .find(|trial| trial["codec"] == codec && trial["block_bytes"] == block_bytes);
        trial.expect("asked for")["file_bytes"]
            .as_u64()
            .expect("a size")
    };
    assert!(bytes("zstd 9", 16 << 10) < bytes("none", 16 << 10) / 2);
    // Small blocks have a dictionary.
    assert!(bytes("zstd 9", 1 << 10) < bytes("none", 1 << 10) / 2);
    // With what it was made with it comes to what it is.
    let same = fixture
        .run("DIR --command=recompress --compression_types=none --json")
        .good();
    let same: Value = serde_json::from_str(same.trim_end()).expect("JSON");
    assert_eq!(same["trials"][0]["file_bytes"], same["file_bytes"]);
    let text = fixture.run("DIR --command=recompress").good();
    assert_eq!(text.lines().count(), 2 + 4, "{text}");
}

#[test]
fn explain_says_where_a_key_is_and_why_not() {
    let fixture = Fixture::small();
    let out = fixture.run("DIR --command=explain --key=apple").good();
    assert!(
        out.contains("found, seq:9, type:DEL, 0 bytes in the block at 0; then seq:3"),
        "{out}"
    );
    let behind = fixture.run("DIR --command=explain --key=zebra").good();
    assert!(behind.contains("skipped: behind 'pear'"), "{behind}");
    let absent = fixture.run("DIR --command=explain --key=banana").good();
    assert!(
        absent.contains("skipped: its filter denies the key"),
        "{absent}"
    );
    let json = fixture
        .run("DIR --command=explain --input_key_hex --key=70656172 --json")
        .good();
    let found: Value = serde_json::from_str(json.trim_end()).expect("JSON");
    assert_eq!(
        (&found["outcome"], &found["key"]),
        (&"found".into(), &"pear".into())
    );
    assert_eq!(found["versions"][0]["value_bytes"], 5);
    let unfiltered = Fixture::new();
    let options = TableOptions {
        filter: FilterPolicy::None,
        ..TableOptions::default()
    };
    unfiltered.table("000001.sst", &SMALL, &options);
    let out = unfiltered.run("DIR --command=explain --key=banana").good();
    assert!(out.contains("not there, and it has no filter"), "{out}");
    fixture
        .run("DIR --command=explain")
        .code(2, "--key and --command=explain go together");
    fixture
        .run("DIR --key=apple")
        .code(2, "--key and --command=explain go together");
}

#[test]
fn identify_tells_the_files_of_a_database_apart() {
    let fixture = Fixture::small();
    let out = fixture.run("DIR/000007.sst --command=identify").good();
    assert!(out.contains(": table, file id 0x"), "{out}");
    let db = siltstone::Db::open(fixture.path("db")).expect("opened");
    db.put("key", "value").expect("put");
    drop(db);
    let entries = OsFs.list(&fixture.path("db")).expect("there");
    let mut seen = [0, 0];
    for entry in entries {
        let line = format!("DIR/db/{} --command=identify", entry.name);
        let ended = fixture.run(&line);
        if entry.name.starts_with("MANIFEST") {
            assert!(ended.good().contains(": MANIFEST, number "));
            seen[0] += 1;
        } else if matches!(FileKind::parse(&entry.name), Some((FileKind::Segment, _))) {
            assert!(ended.good().contains(": segment of the log, number "));
            seen[1] += 1;
        } else {
            assert_eq!(ended.code, Some(2), "{ended:?}");
        }
    }
    assert!(seen[0] == 1 && seen[1] >= 1, "{seen:?}");
    // Other commands say what it is, and how to look into it.
    for entry in OsFs.list(&fixture.path("db")).expect("there") {
        let what = match FileKind::parse(&entry.name) {
            Some((FileKind::Segment, _)) => "but a segment of the log; `siltstone wal dump`",
            Some((FileKind::Manifest, _)) => "but a MANIFEST; `siltstone manifest dump`",
            _ => continue,
        };
        fixture.run(&format!("DIR/db/{}", entry.name)).code(2, what);
    }
}

#[test]
fn nearest_names_are_suggested() {
    let fixture = Fixture::small();
    fixture.run("DIR --command=verfy").code(2, "'verify'");
    fixture.run("DIR --comand=verify").code(2, "'--command'");
}
