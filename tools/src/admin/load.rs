//! `load`: records from newline-delimited JSON, in batches.
//!
//! INVARIANT: whatever ends a load early, every record up to a line that is named has been put, and
//! none behind it.

use std::collections::BTreeMap;
use std::path::Path;

use base::clock::{Clock, SystemClock};
use base::key::KEY_BYTES_MAX;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use siltstone::{
    Db, ErrorKind, Keyspace, KeyspaceOptions, SequenceNumber, WriteBatch, WriteOutcome,
};

use super::args::{Global, Load};
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::output::Output;
use super::records::{Encoding, Line, Record, RecordReader};
use super::session::{Access, with_database};
use crate::say::say;
use crate::text::{bytes_for_people, counted};

const NOT_COMPLETE: &str = "the load is not complete";
/// A batch is written when it has grown to this, however few its records are.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The engine takes no longer batch, and a value comes with its key and their lengths.
const VALUE_BYTES_MAX: usize = base::key::BATCH_BYTES_MAX - KEY_BYTES_MAX - 64;
/// Malformed lines that are reported one by one.
const REPORTED_BAD_LINES_MAX: u64 = 20;

pub(crate) fn run(args: &Load, global: &Global, output: &mut Output<'_>) -> Outcome<()> {
    let bar = progress_bar(&args.file, global);
    let counter = bar.clone();
    // Before the database is made: a mistyped file name leaves nothing behind.
    let interrupt = Interrupt::listen();
    let asked = interrupt.clone();
    let on_bytes = Box::new(move |bytes| counter.inc(bytes));
    let reader = RecordReader::open(&args.file, on_bytes, Box::new(move || asked.is_set()));
    let reader = reader.map_err(|error| match interrupt.check(NOT_COMPLETE) {
        Ok(()) => Failure::trouble(format!("{}: {error}", args.file.display())),
        Err(interrupted) => interrupted.and("no record was put before that"),
    })?;
    let clock = SystemClock::new();
    let access = Access {
        create: true,
        sync: args.sync,
    };
    let result = with_database(&args.db, &args.open, access, global, |db| {
        let mut loader = Loader {
            db,
            args,
            bar: &bar,
            reader,
            interrupt,
            encoding: output.encoding,
            keyspaces: BTreeMap::new(),
            batch: WriteBatch::new(),
            batch_last_line: 0,
            batch_user_bytes: 0,
            done: Done::default(),
        };
        loader.run()?;
        Ok(loader.done)
    });
    bar.finish_and_clear();
    let done = result?;
    report(&done, clock.monotonic_micros(), output)
}

/// What has been put so far.
#[derive(Debug, Default)]
struct Done {
    record_count: u64,
    batch_count: u64,
    user_bytes: u64,
    bad_count: u64,
    /// Every record up to this line has been put.
    last_line: u64,
    last_seq: SequenceNumber,
}

struct Loader<'a> {
    db: &'a Db,
    args: &'a Load,
    bar: &'a ProgressBar,
    reader: RecordReader,
    interrupt: Interrupt,
    encoding: Encoding,
    keyspaces: BTreeMap<String, Keyspace>,
    batch: WriteBatch,
    /// The line of the last record in `batch`.
    batch_last_line: u64,
    batch_user_bytes: u64,
    done: Done,
}

impl Loader<'_> {
    fn run(&mut self) -> Outcome<()> {
        let end = self.put_all();
        // Also behind an error: what came before the bad line is put, and so the count is exact.
        let written = self.write_batch();
        let result = match (end, written) {
            (Err(failure), Err(another)) => Err(failure.and(&format!("and then: {another}"))),
            (end, written) => end.and(written),
        };
        result.map_err(|failure| failure.and(&self.how_far()))
    }

    fn put_all(&mut self) -> Outcome<()> {
        loop {
            self.interrupt.check(NOT_COMPLETE)?;
            let line = match self.reader.next_line(self.encoding) {
                Ok(line) => line,
                Err(error) => {
                    // While it waited for the line, as at a terminal.
                    self.interrupt.check(NOT_COMPLETE)?;
                    let line = self.reader.line_number() + 1;
                    let message = format!("line {line}: reading failed: {error}");
                    return Err(Failure::trouble(message));
                }
            };
            let Some(line) = line else { return Ok(()) };
            let line_number = self.reader.line_number();
            if line_number <= self.args.skip_lines {
                self.done.last_line = line_number;
                continue;
            }
            match line {
                Line::Blank => {}
                Line::Keyspace(name, options) => {
                    self.keyspace(&name, &options)?;
                    self.batch_last_line = line_number;
                }
                Line::Record(record) => match reason_against(&record) {
                    None => self.put(&record)?,
                    Some(reason) => self.take_bad_line(&reason)?,
                },
                Line::Bad(reason) => self.take_bad_line(&reason)?,
            }
        }
    }

    fn put(&mut self, record: &Record) -> Outcome<()> {
        let record_bytes = record.key.len() + record.value.len();
        if self.batch.bytes() + record_bytes > BATCH_BYTES_MAX {
            self.write_batch()?;
        }
        match &record.keyspace {
            None => self.batch.put(&record.key, &record.value),
            Some(name) => {
                let keyspace = self.keyspace(name, &KeyspaceOptions::new())?;
                self.batch.put_in(&keyspace, &record.key, &record.value)
            }
        };
        self.batch_last_line = self.reader.line_number();
        self.batch_user_bytes += record_bytes as u64;
        let is_full = self.batch.len() >= self.args.batch_size as usize;
        if is_full || self.batch.bytes() >= BATCH_BYTES_MAX {
            self.write_batch()?;
        }
        Ok(())
    }

    /// The keyspace of this name, made with `options` if it is not there yet.
    fn keyspace(&mut self, name: &str, options: &KeyspaceOptions) -> Outcome<Keyspace> {
        if let Some(keyspace) = self.keyspaces.get(name) {
            return Ok(keyspace.clone());
        }
        let keyspace = match self.db.keyspace(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.db.create_keyspace(name, options)
            }
            found => found,
        };
        let keyspace = keyspace.map_err(|error| {
            let line = self.reader.line_number();
            Failure::from(error).and(&format!("in line {line}"))
        })?;
        self.keyspaces.insert(name.to_owned(), keyspace.clone());
        Ok(keyspace)
    }

    fn take_bad_line(&mut self, reason: &str) -> Outcome<()> {
        let line = self.reader.line_number();
        if !self.args.skip_bad {
            return Err(Failure::trouble(format!("line {line}: {reason}")));
        }
        self.done.bad_count += 1;
        if self.done.bad_count <= REPORTED_BAD_LINES_MAX {
            self.bar
                .suspend(|| say(format_args!("skipped line {line}: {reason}")));
        } else if self.done.bad_count == REPORTED_BAD_LINES_MAX + 1 {
            self.bar
                .suspend(|| say("further malformed lines are only counted"));
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Outcome<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let written = self.db.write(&self.batch);
        let record_count = self.batch.len() as u64;
        let user_bytes = std::mem::take(&mut self.batch_user_bytes);
        self.batch.clear();
        let commit = written.map_err(|error| {
            let first = self.done.last_line + 1;
            let last = self.batch_last_line;
            let fate = match error.outcome() {
                Some(WriteOutcome::Indeterminate) => "are there as a whole or not at all",
                _ => "were not put",
            };
            Failure::from(error).and(&format!("the records of lines {first} to {last} {fate}"))
        })?;
        self.done.record_count += record_count;
        self.done.user_bytes += user_bytes;
        self.done.batch_count += 1;
        self.done.last_line = self.batch_last_line;
        self.done.last_seq = commit.seq();
        Ok(())
    }

    fn how_far(&self) -> String {
        if self.done.record_count == 0 {
            return "no record was put before that".to_owned();
        }
        let records = counted(self.done.record_count, "record");
        let (were, them) = match self.done.record_count {
            1 => ("was", "it"),
            _ => ("were", "them"),
        };
        let line = self.done.last_line;
        format!(
            "{records} {were} put before that, up to line {line}; \
             --skip-lines {line} goes on behind {them}"
        )
    }
}

/// Why the engine would refuse the record.
fn reason_against(record: &Record) -> Option<String> {
    let (key_len, value_len) = (record.key.len(), record.value.len());
    if key_len > KEY_BYTES_MAX {
        return Some(format!(
            "the key has {key_len} bytes, more than {KEY_BYTES_MAX}"
        ));
    }
    (value_len > VALUE_BYTES_MAX)
        .then(|| format!("the value has {value_len} bytes, more than {VALUE_BYTES_MAX}"))
}

fn progress_bar(file: &Path, global: &Global) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let style = |template: &str| {
        ProgressStyle::with_template(template).expect("the templates below are sound")
    };
    match std::fs::metadata(file) {
        Ok(status) if status.is_file() => ProgressBar::new(status.len()).with_style(style(
            "{bar:40} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {eta} left",
        )),
        _ => ProgressBar::no_length().with_style(style("{spinner} {binary_bytes} read")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds and rates for people")]
fn report(done: &Done, micros: u64, output: &mut Output<'_>) -> Outcome<()> {
    let seconds = micros.max(1) as f64 / 1e6;
    if output.json {
        return output.document(&json!({
            "records": done.record_count,
            "bad_lines": done.bad_count,
            "batches": done.batch_count,
            "user_bytes": done.user_bytes,
            "last_seq": done.last_seq.get(),
            "seconds": seconds,
        }));
    }
    let skipped = match done.bad_count {
        0 => String::new(),
        count => format!(", skipped {}", counted(count, "malformed line")),
    };
    output.line(&format!(
        "loaded {} ({}) in {seconds:.2} s, {:.0} a second{skipped}",
        counted(done.record_count, "record"),
        bytes_for_people(done.user_bytes),
        done.record_count as f64 / seconds,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_can_hold_can_be_loaded() {
        let record = |len| Record {
            keyspace: None,
            key: b"key".to_vec(),
            // Never touched: it takes no memory.
            value: vec![0; len],
        };
        assert_eq!(reason_against(&record(0)), None);
        assert_eq!(reason_against(&record(300 << 20)), None);
        assert_eq!(reason_against(&record(VALUE_BYTES_MAX)), None);
        assert!(reason_against(&record(VALUE_BYTES_MAX + 1)).is_some());
    }
}
