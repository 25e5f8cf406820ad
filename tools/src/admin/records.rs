//! Newline-delimited JSON records: reading them with line numbers, and writing them.
//!
//! A record is an object `{"key": "...", "value": "..."}`. Bytes that are no UTF-8 stand as
//! hexadecimal digits under `key_hex` or `value_hex`, so that what `scan --json` prints can always
//! be loaded again.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};
use siltstone::KeyspaceOptions;

use crate::lines::{IsOver, LineReader};
use crate::text::{from_hex, to_hex};

const OPTIONS: &str = "options";
/// How the options of a keyspace stand in a line.
pub(crate) const OPTIONS_HEX: &str = "options_hex";

/// One key and its value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it belongs, if that is not the default keyspace.
    pub(crate) keyspace: Option<String>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// What came of one line.
pub(crate) enum Line {
    Record(Record),
    /// The name of a keyspace that is to be there, and how it is made if it is not.
    Keyspace(String, KeyspaceOptions),
    /// Nothing but blanks.
    Blank,
    /// The reason why it is no record.
    Bad(String),
}

/// Reads lines and counts them.
pub(crate) struct RecordReader {
    lines: LineReader,
}

impl RecordReader {
    /// As [`LineReader::open`].
    ///
    /// # Errors
    /// If the file cannot be opened or its first bytes cannot be read.
    pub(crate) fn open(
        path: &Path,
        on_bytes: Box<dyn Fn(u64) + Send>,
        is_over: IsOver,
    ) -> io::Result<Self> {
        let lines = LineReader::open(path, on_bytes, is_over)?;
        Ok(Self { lines })
    }

    /// The number of the line that [`RecordReader::next_line`] returned last, counted from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.line_number()
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// If the input cannot be read or unpacked, or a line is longer than any record can be.
    pub(crate) fn next_line(&mut self, encoding: Encoding) -> io::Result<Option<Line>> {
        let Some(bytes) = self.lines.next_line()? else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Ok(Some(Line::Blank));
        }
        Ok(Some(match parse(bytes, encoding) {
            Ok(line) => line,
            Err(reason) => Line::Bad(reason),
        }))
    }
}

/// What the strings under `key` and `value` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// They are the bytes.
    Text,
    /// They are hexadecimal digits.
    Hex,
}

fn parse(line: &[u8], encoding: Encoding) -> Result<Line, String> {
    let parsed: Value = serde_json::from_slice(line).map_err(|error| reason_of(&error))?;
    let Value::Object(mut fields) = parsed else {
        return Err(format!("expected an object, found {}", kind_of(&parsed)));
    };
    let keyspace = match fields.remove("keyspace") {
        None => None,
        Some(Value::String(name)) => Some(name),
        Some(other) => {
            let found = kind_of(&other);
            return Err(format!(
                "field \"keyspace\" must be a string, found {found}"
            ));
        }
    };
    if let Some(name) = &keyspace
        && let Some(options) = take_options(&mut fields)?
    {
        return Ok(Line::Keyspace(name.clone(), options));
    }
    let key = take_bytes(&mut fields, "key", encoding)?;
    let value = take_bytes(&mut fields, "value", encoding)?;
    if let Some((name, _)) = fields.iter().next() {
        return Err(format!("unknown field \"{}\"", name.escape_debug()));
    }
    Ok(Line::Record(Record {
        keyspace,
        key,
        value,
    }))
}

/// The options of a keyspace, if the line is about that and not about a record of it.
fn take_options(fields: &mut Map<String, Value>) -> Result<Option<KeyspaceOptions>, String> {
    if fields.is_empty() {
        return Ok(Some(KeyspaceOptions::new()));
    }
    if !fields.contains_key(OPTIONS) && !fields.contains_key(OPTIONS_HEX) {
        return Ok(None);
    }
    let bytes = take_bytes(fields, OPTIONS, Encoding::Hex)?;
    if let Some((name, _)) = fields.iter().next() {
        let name = name.escape_debug();
        return Err(format!("unknown field \"{name}\" beside options"));
    }
    let options = KeyspaceOptions::decode(&bytes);
    options
        .map(Some)
        .map_err(|error| format!("field \"{OPTIONS_HEX}\": {error}"))
}

fn take_bytes(
    fields: &mut Map<String, Value>,
    name: &str,
    encoding: Encoding,
) -> Result<Vec<u8>, String> {
    let hex_name = format!("{name}_hex");
    let (found, name, encoding) = match (fields.remove(name), fields.remove(&hex_name)) {
        (Some(_), Some(_)) => return Err(format!("both \"{name}\" and \"{hex_name}\"")),
        (Some(found), None) => (found, name, encoding),
        (None, Some(found)) => (found, &*hex_name, Encoding::Hex),
        (None, None) => return Err(format!("missing field \"{name}\"")),
    };
    match (found, encoding) {
        (Value::String(text), Encoding::Text) => Ok(text.into_bytes()),
        (Value::String(text), Encoding::Hex) => {
            from_hex(&text).map_err(|reason| format!("field \"{name}\": {reason}"))
        }
        (other, _) => Err(format!(
            "field \"{name}\" must be a string, found {}",
            kind_of(&other)
        )),
    }
}

/// The parser's reason, with the column but without its line, which is always 1.
fn reason_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("not JSON: {reason} at column {}", error.column())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Adds `bytes` under `name`, or under `name_hex` if they are no UTF-8 or `encoding` says so.
pub(crate) fn put_bytes(
    fields: &mut Map<String, Value>,
    name: &str,
    bytes: &[u8],
    encoding: Encoding,
) {
    match std::str::from_utf8(bytes) {
        Ok(text) if encoding == Encoding::Text => {
            fields.insert(name.to_owned(), Value::from(text));
        }
        _ => {
            fields.insert(format!("{name}_hex"), Value::from(to_hex(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &'static [u8]) -> RecordReader {
        RecordReader {
            lines: LineReader::new(Box::new(text)),
        }
    }

    #[test]
    fn records_come_with_their_line_numbers() {
        let text =
            b"\xef\xbb\xbf{\"key\":\"a\",\"value\":\"1\"}\r\n\n  \n{\"value\":\"\",\"key\":\"\"}";
        let mut reader = reader(text);
        let mut seen = Vec::new();
        while let Some(line) = reader.next_line(Encoding::Text).expect("in memory") {
            if let Line::Record(record) = line {
                seen.push((reader.line_number(), record.key, record.value));
            }
        }
        assert_eq!(
            seen,
            [
                (1, b"a".to_vec(), b"1".to_vec()),
                (4, Vec::new(), Vec::new())
            ]
        );
        assert_eq!(reader.line_number(), 4);
    }

    #[test]
    fn what_is_no_record_says_why() {
        let cases = [
            ("{", "not JSON: EOF while parsing an object at column 1"),
            ("[1]", "expected an object, found an array"),
            (
                r#"{"keyspace":7,"key":"a","value":"b"}"#,
                "field \"keyspace\" must be a string, found a number",
            ),
            (r#"{"key":"a"}"#, "missing field \"value\""),
            (
                r#"{"key":1,"value":"b"}"#,
                "field \"key\" must be a string, found a number",
            ),
            (
                r#"{"key":"a","value":"b","ttl":1}"#,
                "unknown field \"ttl\"",
            ),
            (
                r#"{"key":"a","key_hex":"61","value":"b"}"#,
                "both \"key\" and \"key_hex\"",
            ),
            (
                r#"{"key_hex":"6","value":"b"}"#,
                "field \"key_hex\": an odd number of hexadecimal digits",
            ),
        ];
        for (line, want) in cases {
            let found = parse(line.as_bytes(), Encoding::Text);
            assert_eq!(found.err().as_deref(), Some(want), "{line}");
        }
    }

    #[test]
    fn any_bytes_survive_a_round() {
        for encoding in [Encoding::Text, Encoding::Hex] {
            for bytes in [&b"plain \"text\"\n"[..], b"\xff\x00", b""] {
                let mut fields = Map::new();
                put_bytes(&mut fields, "key", bytes, encoding);
                put_bytes(&mut fields, "value", bytes, encoding);
                let line = Value::Object(fields).to_string();
                let parsed = parse(line.as_bytes(), Encoding::Text);
                let Ok(Line::Record(record)) = parsed else {
                    panic!("our own line");
                };
                assert_eq!((&*record.key, &*record.value), (bytes, bytes));
            }
        }
    }
}
