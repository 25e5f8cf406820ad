//! Entries, properties and messages as text or JSON.

use std::path::Path;

use base::{InternalKey, OwnedKey};
use serde_json::{Map, Value, json};
use sstable::{Compression, CreationReason, FilterPolicy, Properties};

use crate::text::{bytes_for_people, count_for_people, escape, time_of_micros, to_hex};

/// How bytes are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    Escaped,
    Hex,
}

impl Bytes {
    /// `bytes` on one line.
    pub(super) fn one_line(self, bytes: &[u8]) -> String {
        match self {
            Self::Escaped => escape(bytes),
            Self::Hex => to_hex(bytes),
        }
    }

    /// `key` between quotes; a quote in it is escaped.
    pub(super) fn quoted(self, key: &[u8]) -> String {
        // A backslash of the key's own is doubled already, so that this stays unambiguous.
        format!("'{}'", self.one_line(key).replace('\'', "\\'"))
    }

    /// Puts `bytes` under `name`, or as digits under `name_hex` if they are no text.
    pub(super) fn put(self, fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) if self == Self::Escaped => fields.insert(name.to_owned(), text.into()),
            _ => fields.insert(format!("{name}_hex"), to_hex(bytes).into()),
        };
    }

    /// `key#seq,kind`.
    fn bound(self, key: &OwnedKey) -> String {
        format!(
            "{} seq:{}, type:{}",
            self.quoted(&key.user_key),
            key.seq,
            key.kind
        )
    }
}

/// A message that may name a file or a key: fit for a terminal, and on one line.
pub(super) fn message(text: &str) -> String {
    escape(text.as_bytes())
}

/// A path, fit for a terminal.
pub(super) fn path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    escape(path.as_os_str().as_bytes())
}

/// The line of a scan.
pub(super) fn entry_line(bytes: Bytes, key: InternalKey<'_>, value: &[u8]) -> String {
    let quoted = bytes.quoted(key.user_key);
    let value = bytes.one_line(value);
    format!("{quoted} seq:{}, type:{} => {value}", key.seq, key.kind)
}

/// The object of a scan.
pub(super) fn entry_object(bytes: Bytes, key: InternalKey<'_>, value: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    bytes.put(&mut fields, "key", key.user_key);
    fields.insert("seq".to_owned(), key.seq.get().into());
    fields.insert("type".to_owned(), key.kind.to_string().into());
    bytes.put(&mut fields, "value", value);
    fields
}

fn compression(compression: Compression) -> String {
    match compression {
        Compression::None => "none".to_owned(),
        Compression::Zstd { level } => format!("zstd level {level}"),
    }
}

/// A policy in words.
pub(super) fn filter(policy: FilterPolicy) -> String {
    match policy {
        FilterPolicy::None => "none".to_owned(),
        FilterPolicy::Blocked { bits_per_key } => format!("blocked, {bits_per_key} bits a key"),
        FilterPolicy::Bloom { bits_per_key } => format!("bloom, {bits_per_key} bits a key"),
    }
}

fn reason(reason: CreationReason) -> &'static str {
    match reason {
        CreationReason::Flush => "flush",
        CreationReason::Compaction => "compaction",
        CreationReason::Recovery => "recovery",
        CreationReason::Ingest => "ingest",
    }
}

/// `part` of `whole` for people.
fn percent(part: u64, whole: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown of it")]
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{percent:.1}%")
}

/// Keys and values together. What a table says of itself may be any number.
pub(super) fn raw_bytes_of(properties: &Properties) -> u64 {
    properties
        .raw_key_bytes
        .saturating_add(properties.raw_value_bytes)
}

/// When the first and the last entry were committed at most, in microseconds since 1970.
fn commit_micros(properties: &Properties) -> (Option<u64>, Option<u64>) {
    let times = properties.commit_times;
    (
        times.map(|times| times.smallest_micros),
        times.map(|times| times.largest_micros),
    )
}

/// Properties as lines of a name and a value.
pub(super) fn properties_lines(
    bytes: Bytes,
    file_id: u64,
    file_bytes: u64,
    properties: &Properties,
) -> Vec<(&'static str, String)> {
    let [_, deletes, puts, ..] = properties.count_by_kind;
    let raw_bytes = raw_bytes_of(properties);
    let size = |bytes: u64| format!("{} ({bytes})", bytes_for_people(bytes));
    let (smallest_micros, largest_micros) = commit_micros(properties);
    let commit_time = |micros: Option<u64>| micros.map_or("unknown".to_owned(), time_of_micros);
    vec![
        ("file id", format!("{file_id:#018x}")),
        ("file", size(file_bytes)),
        ("entries", count_for_people(properties.entry_count)),
        ("puts", count_for_people(puts)),
        (
            "tombstones",
            format!(
                "{} ({})",
                count_for_people(deletes),
                percent(deletes, properties.entry_count)
            ),
        ),
        ("user keys", count_for_people(properties.user_key_count)),
        ("raw keys", size(properties.raw_key_bytes)),
        ("raw values", size(properties.raw_value_bytes)),
        ("data blocks", count_for_people(properties.block_count)),
        ("data", size(properties.data_bytes)),
        (
            "data uncompressed",
            size(properties.uncompressed_data_bytes),
        ),
        ("index", size(properties.index_bytes)),
        ("filter", size(properties.filter_bytes)),
        ("dictionary", size(properties.dictionary_bytes)),
        ("file over raw bytes", percent(file_bytes, raw_bytes)),
        ("smallest sequence", properties.seq_smallest.to_string()),
        ("largest sequence", properties.seq_largest.to_string()),
        ("smallest key", bytes.bound(&properties.smallest)),
        ("largest key", bytes.bound(&properties.largest)),
        ("compression", compression(properties.compression)),
        ("filter policy", filter(properties.filter)),
        ("hash seed", format!("{:#018x}", properties.hash_seed.0)),
        ("level", properties.level.to_string()),
        ("reason", reason(properties.reason).to_owned()),
        ("keyspace", properties.keyspace.to_string()),
        ("created", time_of_micros(properties.created_micros)),
        ("smallest commit time", commit_time(smallest_micros)),
        ("largest commit time", commit_time(largest_micros)),
    ]
}

/// Properties as an object.
pub(super) fn properties_object(
    bytes: Bytes,
    file_id: u64,
    file_bytes: u64,
    properties: &Properties,
) -> Map<String, Value> {
    let [_, deletes, puts, ..] = properties.count_by_kind;
    let bound = |key: &OwnedKey| {
        let mut fields = Map::new();
        bytes.put(&mut fields, "key", &key.user_key);
        fields.insert("seq".to_owned(), key.seq.get().into());
        fields.insert("type".to_owned(), key.kind.to_string().into());
        Value::Object(fields)
    };
    let (smallest_micros, largest_micros) = commit_micros(properties);
    let object = json!({
        "file_id": format!("{file_id:#018x}"),
        "file_bytes": file_bytes,
        "entries": properties.entry_count,
        "puts": puts,
        "tombstones": deletes,
        "user_keys": properties.user_key_count,
        "raw_key_bytes": properties.raw_key_bytes,
        "raw_value_bytes": properties.raw_value_bytes,
        "data_blocks": properties.block_count,
        "data_bytes": properties.data_bytes,
        "uncompressed_data_bytes": properties.uncompressed_data_bytes,
        "index_bytes": properties.index_bytes,
        "filter_bytes": properties.filter_bytes,
        "dictionary_bytes": properties.dictionary_bytes,
        "smallest_seq": properties.seq_smallest.get(),
        "largest_seq": properties.seq_largest.get(),
        "smallest": bound(&properties.smallest),
        "largest": bound(&properties.largest),
        "compression": compression(properties.compression),
        "filter_policy": filter(properties.filter),
        "hash_seed": format!("{:#018x}", properties.hash_seed.0),
        "level": properties.level.index(),
        "reason": reason(properties.reason),
        "keyspace": properties.keyspace.0,
        "created_micros": properties.created_micros,
        "smallest_commit_micros": smallest_micros,
        "largest_commit_micros": largest_micros,
    });
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
