//! A full-text index over Debian package records: one database, two kinds of keys, one batch a
//! record.
//!
//! The input is newline-delimited JSON, plain or as `.zst`, one object a line:
//! `{"key": "section/name=version", "value": "the record"}`. Without a path a sample is used.
//!
//! ```text
//! cargo run --release --example inverted_index
//! cargo run --release --example inverted_index -- packages.ndjson.zst text editor
//! ```
//!
//! | key | value |
//! |---|---|
//! | `record/` key of the record | the record |
//! | `word/` word `0x00` key of the record | nothing: the key says it all |
//!
//! The postings of a word lie side by side, in the order of the records' keys. So two prefix scans,
//! walked like the two sides of a merge, give the records that have both words.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};
use std::path::Path;

use serde_json::Value;
use siltstone::{Db, Snapshot, WriteBatch};

type AnyResult<T> = Result<T, Box<dyn Error>>;

/// The last line replaces the first: its old words must not find it any more.
const SAMPLE: &str = r#"
{"key": "editors/nano=7.2", "value": "Package: nano\nDescription: image viewer"}
{"key": "editors/vim=9.0", "value": "Package: vim\nDescription: enhanced vi editor"}
{"key": "editors/ed=1.19", "value": "Package: ed\nDescription: line editor\nTag: text"}
{"key": "editors/emacs=28", "value": "Description: extensible \"editor\"\n of text\nTag: x"}
{"key": "editors/nano=7.2", "value": "Package: nano\nDescription: small text editor"}
"#;

fn main() -> AnyResult<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, first, second) = match &arguments[..] {
        [] => (None, "text", "editor"),
        [path] => (Some(path), "text", "editor"),
        [path, first, second] => (Some(path), first.as_str(), second.as_str()),
        _ => return Err("usage: inverted_index [FILE [WORD WORD]]".into()),
    };
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path())?;
    let record_count = load(&db, open(path)?)?;

    // A snapshot, so that both scans and the check see the same moment.
    let view = db.snapshot()?;
    let hits = find_both(&view, first, second)?;
    println!(
        "{record_count} records, {} with {first:?} and {second:?}",
        hits.len()
    );
    for key in hits.iter().take(10) {
        println!("  {}", String::from_utf8_lossy(key));
    }
    assert_eq!(
        hits,
        find_slowly(&view, first, second)?,
        "the index and the records agree"
    );
    if path.is_none() {
        assert_eq!(hits, [&b"editors/emacs=28"[..], b"editors/nano=7.2"]);
        assert_eq!(find_both(&view, "image", "viewer")?.len(), 0, "replaced");
    }
    db.close()?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a program opens its own input")]
fn open(path: Option<&String>) -> AnyResult<Box<dyn BufRead>> {
    let Some(path) = path else {
        return Ok(Box::new(Cursor::new(SAMPLE)));
    };
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    if Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "zst")
    {
        return Ok(Box::new(BufReader::new(zstd::Decoder::new(file)?)));
    }
    Ok(Box::new(BufReader::new(file)))
}

/// Stores every record together with its postings; returns how many lines there were.
fn load(db: &Db, input: Box<dyn BufRead>) -> AnyResult<usize> {
    let mut batch = WriteBatch::new();
    let mut count = 0;
    for (index, line) in input.lines().enumerate() {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        let object: Value =
            serde_json::from_str(&line).map_err(|error| format!("line {}: {error}", index + 1))?;
        let (Some(key), Some(record)) = (object["key"].as_str(), object["value"].as_str()) else {
            return Err(format!("line {}: no string `key` and `value`", index + 1).into());
        };
        batch.clear();
        if let Some(old) = db.get(record_key(key))? {
            for word in words(std::str::from_utf8(&old)?) {
                batch.delete(posting(&word, key));
            }
        }
        // After the deletes: of two operations on one key the last one counts.
        for word in words(record) {
            batch.put(posting(&word, key), "");
        }
        batch.put(record_key(key), record);
        db.write(&batch)?;
        count += 1;
    }
    // One sync for all of it, instead of one a record.
    db.sync()?;
    Ok(count)
}

fn record_key(key: &str) -> String {
    format!("record/{key}")
}

/// A word has no zero byte, so that no word's postings begin like another's.
fn posting(word: &str, key: &str) -> String {
    format!("word/{word}\0{key}")
}

/// The words of the `Description` field and of the lines that continue it.
fn words(record: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut is_description = false;
    for line in record.lines() {
        let first = line.strip_prefix("Description:");
        is_description = first.is_some() || is_description && line.starts_with(' ');
        if is_description {
            let split = first
                .unwrap_or(line)
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty());
            words.extend(split.map(str::to_lowercase));
        }
    }
    words
}

/// The keys of the records that have both words, in order.
fn find_both(view: &Snapshot, first: &str, second: &str) -> AnyResult<Vec<Vec<u8>>> {
    let (mut left, mut right) = (postings(view, first)?, postings(view, second)?);
    let mut pair = (left.next().transpose()?, right.next().transpose()?);
    let mut hits = Vec::new();
    while let (Some(a), Some(b)) = pair {
        pair = match a.cmp(&b) {
            Ordering::Less => (left.next().transpose()?, Some(b)),
            Ordering::Greater => (Some(a), right.next().transpose()?),
            Ordering::Equal => {
                hits.push(a);
                (left.next().transpose()?, right.next().transpose()?)
            }
        };
    }
    Ok(hits)
}

/// The keys of the records that have `word`, in order, read as they are asked for.
fn postings(
    view: &Snapshot,
    word: &str,
) -> siltstone::Result<impl Iterator<Item = siltstone::Result<Vec<u8>>> + use<>> {
    let prefix = posting(&word.to_lowercase(), "");
    let skip = prefix.len();
    Ok(view
        .prefix(prefix)?
        .map(move |item| item.map(|(key, _)| key[skip..].to_vec())))
}

/// The same without the index: reads every record.
fn find_slowly(view: &Snapshot, first: &str, second: &str) -> AnyResult<Vec<Vec<u8>>> {
    let prefix = record_key("");
    let mut hits = Vec::new();
    for item in view.prefix(&prefix)? {
        let (key, record) = item?;
        let words = words(std::str::from_utf8(&record)?);
        if words.contains(&first.to_lowercase()) && words.contains(&second.to_lowercase()) {
            hits.push(key[prefix.len()..].to_vec());
        }
    }
    Ok(hits)
}
