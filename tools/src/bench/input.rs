//! `load`: records from newline-delimited JSON, put as they come.

use base::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use siltstone::WriteBatch;

use super::args::LoadArgs;
use super::lane::Lane;
use super::line::as_f64;
use super::pace::Pace;
use super::write;
use crate::interrupt::Stop;
use crate::lines::LineReader;
use crate::text::{bytes_for_people, counted};

/// A batch is written when it has grown to this, however few its records are.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// A file of records, and what was found in it.
pub(crate) struct Input {
    load: LoadArgs,
    lines: LineReader,
    bar: ProgressBar,
    key: Vec<u8>,
    key_bytes: u64,
    value_bytes: u64,
    count: u64,
    bad_count: u64,
    /// Why the first bad line is one.
    first_bad: Option<String>,
}

impl Input {
    /// The file that `load` names.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(load: &LoadArgs, stop: &Stop) -> Result<Self> {
        let bar = progress_bar(load);
        let (counter, stop) = (bar.clone(), stop.clone());
        let lines = LineReader::open(
            &load.file,
            Box::new(move |bytes| counter.inc(bytes)),
            Box::new(move || stop.is_set()),
        )
        .map_err(|source| Error::io(&load.file, "open", source))?;
        Ok(Self {
            load: load.clone(),
            lines,
            bar,
            key: Vec::new(),
            key_bytes: 0,
            value_bytes: 0,
            count: 0,
            bad_count: 0,
            first_bad: None,
        })
    }

    /// What is loaded, for the header.
    pub(crate) fn about(&self) -> Vec<(&'static str, String)> {
        let file = match self.load.file.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => self.load.file.display().to_string(),
        };
        let separator = format!(" {} ", self.load.key_separator);
        let value = match &self.load.value_field {
            Some(name) => format!("field {name}"),
            None => "whole lines".to_owned(),
        };
        vec![
            ("Input", file),
            (
                "Keys",
                format!("field {}", self.load.key_field.join(&separator)),
            ),
            ("Values", value),
            ("Batches", counted(self.load.args.batch_size, "record")),
        ]
    }

    /// What was found, below the result.
    pub(crate) fn note(&self) -> String {
        let mean = |bytes| as_f64(bytes) / as_f64(self.count.max(1));
        let mut note = format!(
            "  {} of {}; keys of {:.1} bytes, values of {:.1} bytes on average, {} \
             in all",
            counted(self.count, "record"),
            counted(self.lines.line_number(), "line"),
            mean(self.key_bytes),
            mean(self.value_bytes),
            bytes_for_people(self.key_bytes + self.value_bytes),
        );
        if let Some(first) = &self.first_bad {
            let lines = counted(self.bad_count, "line");
            let skipped = match self.bad_count {
                1 => " is no record and was skipped: ",
                _ => " are no record and were skipped; the first, ",
            };
            note.push_str(&["\n  ", &lines, skipped, first].concat());
        }
        note
    }

    /// Takes the progress bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Puts every record, or as many as --writes says.
    ///
    /// # Errors
    /// `InvalidArgument` for a line that is no record, with its number; as the engine's writes.
    pub(crate) fn load(&mut self, lane: &mut Lane<'_>) -> Result<()> {
        let options = write::options(lane.args);
        let rate = as_f64(lane.args.benchmark_write_rate_limit);
        let mut pace = Pace::new(lane.clock, rate);
        let limit = u64::try_from(lane.args.writes).unwrap_or(u64::MAX);
        let mut batch = WriteBatch::new();
        let (mut bytes, mut first_line) = (0, 1);
        loop {
            let is_over =
                !lane.goes_on(self.count, limit) || !self.next(&mut batch, lane, &mut bytes)?;
            let is_full = batch.len() as u64 >= lane.args.batch_size || bytes >= BATCH_BYTES_MAX;
            if !batch.is_empty() && (is_full || is_over) {
                lane.db
                    .write_with(&batch, &options)
                    .map_err(|error| error.with_value("first line", first_line))?;
                lane.finish(batch.len() as u64, bytes as u64);
                if let Some(pace) = &mut pace {
                    pace.wait(bytes as u64, lane.stop());
                    lane.meter.skip();
                }
                batch.clear();
                bytes = 0;
                first_line = self.lines.line_number() + 1;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Adds the record of the next line, if it is one; false at the end.
    fn next(
        &mut self,
        batch: &mut WriteBatch,
        lane: &mut Lane<'_>,
        bytes: &mut usize,
    ) -> Result<bool> {
        let line = match self.lines.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(false),
            // What was asked to end has ended.
            Err(_) if lane.should_stop() => return Ok(false),
            Err(source) => {
                let number = self.lines.line_number() + 1;
                let error = Error::io(&self.load.file, "read", source);
                return Err(error.with_value("line", number));
            }
        };
        if line.is_empty() {
            return Ok(true);
        }
        match record(line, &self.load, &mut self.key) {
            Ok(value) => {
                let value = value.as_bytes(line);
                batch.put(&self.key, value);
                *bytes += self.key.len() + value.len();
                self.key_bytes += self.key.len() as u64;
                self.value_bytes += value.len() as u64;
                self.count += 1;
            }
            Err(reason) => {
                let reason = format!("line {}: {reason}", self.lines.line_number());
                if !self.load.skip_bad_lines {
                    return Err(Error::invalid_argument(format!(
                        "{reason} (--skip_bad_lines goes on behind such lines)"
                    ))
                    .with_path(&self.load.file));
                }
                self.bad_count += 1;
                self.first_bad.get_or_insert(reason);
            }
        }
        Ok(true)
    }
}

/// The value of a record.
enum Stored {
    WholeLine,
    Field(String),
}

impl Stored {
    fn as_bytes<'a>(&'a self, line: &'a [u8]) -> &'a [u8] {
        match self {
            Self::WholeLine => line,
            Self::Field(text) => text.as_bytes(),
        }
    }
}

/// The value of the record in `line`, whose key goes into `key`; or why it is none.
fn record(line: &[u8], load: &LoadArgs, key: &mut Vec<u8>) -> Result<Stored, String> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| format!("not JSON, at column {}", error.column()))?;
    if !value.is_object() {
        return Err("not an object".to_owned());
    }
    key.clear();
    for (index, name) in load.key_field.iter().enumerate() {
        if index > 0 {
            key.extend_from_slice(load.key_separator.as_bytes());
        }
        key.extend_from_slice(text_of(&value, name)?.as_bytes());
    }
    match &load.value_field {
        None => Ok(Stored::WholeLine),
        Some(name) => text_of(&value, name).map(Stored::Field),
    }
}

/// What stands in the field: text as it is, anything else as JSON has it.
fn text_of(record: &Value, name: &str) -> Result<String, String> {
    let mut found = record.get(name);
    if found.is_none() {
        found = name
            .split('.')
            .try_fold(record, |value, part| value.get(part));
    }
    match found {
        None | Some(Value::Null) => Err(format!("no field '{}'", name.escape_debug())),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
    }
}

/// A bar on standard error; it draws nothing unless that is a terminal.
fn progress_bar(load: &LoadArgs) -> ProgressBar {
    let style = |template: &str| {
        ProgressStyle::with_template(template).expect("the templates below are sound")
    };
    match std::fs::metadata(&load.file) {
        Ok(status) if status.is_file() => ProgressBar::new(status.len()).with_style(style(
            "load {bar:40} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left",
        )),
        _ => ProgressBar::no_length().with_style(style(
            "load {spinner} {binary_bytes} read  {binary_bytes_per_sec}",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: &[&str], line: &str) -> Result<(String, String), String> {
        let words = ["lsm-bench", "load", "-"].iter().chain(flags);
        let load = LoadArgs::parse_words(words.map(std::ffi::OsString::from));
        let mut key = b"old".to_vec();
        let stored = record(line.as_bytes(), &load, &mut key)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Ok((text(&key), text(stored.as_bytes(line.as_bytes()))))
    }

    #[test]
    fn keys_and_values_are_what_the_fields_hold() {
        let line = r#"{"key":"k","id":7,"a":{"b":"x","c":[1]},"a.b":"dotted","t":"text"}"#;
        let whole = |key: &str| Ok((key.to_owned(), line.to_owned()));
        assert_eq!(parsed(&[], line), whole("k"));
        assert_eq!(parsed(&["--key_field=id"], line), whole("7"));
        assert_eq!(parsed(&["--key_field=a.c"], line), whole("[1]"));
        assert_eq!(parsed(&["--key_field=a.b"], line), whole("dotted"));
        let flags = ["--key_field=t", "--key_field=id", "--key_separator=:"];
        assert_eq!(parsed(&flags, line), whole("text:7"));
        let both = parsed(&["--value_field=t"], line);
        assert_eq!(both, Ok(("k".to_owned(), "text".to_owned())));
    }

    #[test]
    fn what_is_no_record_says_why() {
        for (line, reason) in [
            ("{", "not JSON, at column 1"),
            ("[1]", "not an object"),
            (r#"{"k":1}"#, "no field 'key'"),
            (r#"{"key":null}"#, "no field 'key'"),
        ] {
            assert_eq!(parsed(&[], line), Err(reason.to_owned()), "{line}");
        }
        let error = parsed(&["--value_field=v"], r#"{"key":1}"#);
        assert_eq!(error, Err("no field 'v'".to_owned()));
    }
}
