//! What is done with each table.

use std::io::{self, Write};

use base::cursor::Cursor;
use base::fs::{FileSystem, OsFs};
use base::sync::Arc;
use base::{Error, InternalKey, KeyHash, Result, SequenceNumber};
use serde_json::{Map, Value, json};
use sstable::{FilterPolicy, Properties, ReadMode, ReaderOptions, ScanMode, TableReader};

use super::Stop;
use super::args::{Bounds, Command, CommandLine};
use super::find::Table;
use super::progress::Progress;
use super::render::{self, Bytes};
use crate::random::Random;
use crate::say::say;
use crate::text::{bytes_for_people, count_for_people, counted, json_line};

/// So many hashes that belong to no key are asked of a filter.
const FILTER_PROBE_COUNT: u64 = 100_000;
/// Progress is looked at once in so many entries.
const PROGRESS_INTERVAL: u64 = 4096;

/// One run of the tool: where output goes, and what is counted over all tables.
pub(super) struct Session<'a> {
    pub(super) command_line: &'a CommandLine,
    pub(super) bounds: &'a Bounds,
    pub(super) out: &'a mut dyn Write,
    pub(super) bytes: Bytes,
    pub(super) progress: Progress,
    has_many: bool,
    entries_read: u64,
    totals: Totals,
}

#[derive(Debug, Default)]
struct Totals {
    tables: u64,
    bad_tables: u64,
    file_bytes: u64,
    entries: u64,
    tombstones: u64,
    raw_bytes: u64,
}

impl Totals {
    fn add(&mut self, reader: &TableReader, properties: &Properties) {
        // What a table says of itself may be any number.
        for (total, count) in [
            (&mut self.file_bytes, reader.file_bytes()),
            (&mut self.entries, properties.entry_count),
            (&mut self.tombstones, properties.tombstone_count()),
            (&mut self.raw_bytes, render::raw_bytes_of(properties)),
        ] {
            *total = total.saturating_add(count);
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(
        command_line: &'a CommandLine,
        bounds: &'a Bounds,
        tables: &[Table],
        out: &'a mut dyn Write,
    ) -> Self {
        let bytes_total = tables
            .iter()
            .fold(0u64, |sum, table| sum.saturating_add(table.bytes));
        let prints = matches!(
            command_line.command,
            Command::Scan | Command::Index | Command::Raw | Command::Blocks
        );
        Self {
            command_line,
            bounds,
            out,
            bytes: if command_line.output_hex {
                Bytes::Hex
            } else {
                Bytes::Escaped
            },
            progress: Progress::new(bytes_total, prints),
            has_many: tables.len() > 1,
            entries_read: 0,
            totals: Totals::default(),
        }
    }

    /// Whether as many entries were read as were asked for.
    pub(super) fn has_read_enough(&self) -> bool {
        self.command_line.command.is_walk()
            && self
                .command_line
                .read_num
                .is_some_and(|count| self.entries_read >= count)
    }

    /// Does with `table` what was asked for.
    pub(super) fn table(&mut self, table: &Table) -> std::result::Result<(), Stop> {
        self.totals.tables += 1;
        if self.command_line.command == Command::Identify {
            return self.identify(table);
        }
        let reader = open(table)?;
        match self.command_line.command {
            Command::Check => self.check(table, &reader)?,
            Command::Scan => self.scan(table, &reader)?,
            Command::Verify => self.verify(table, &reader)?,
            Command::Properties | Command::Identify => {}
            Command::Index => self.index(table, &reader)?,
            Command::Filter => self.filter(table, &reader)?,
            Command::Raw => self.raw(table, &reader)?,
            Command::Blocks => self.blocks(table, &reader)?,
            Command::Hist => self.hist(table, &reader)?,
            Command::Recompress => self.recompress(table, &reader)?,
            Command::Explain => self.explain(table, &reader)?,
        }
        let is_asked_for = self.command_line.command == Command::Properties;
        if is_asked_for || self.command_line.show_properties {
            let properties = reader.properties()?;
            self.properties(table, &reader, &properties)?;
        }
        if self.command_line.show_summary {
            let properties = reader.properties()?;
            self.totals.add(&reader, &properties);
        }
        self.progress.finished(table.bytes);
        Ok(())
    }

    /// Says that `table` could not be read to its end.
    pub(super) fn failed(&mut self, table: &Table, error: &Error) -> io::Result<()> {
        self.progress.clear();
        self.totals.bad_tables += 1;
        // What was printed of the table before comes before the message.
        let flushed = self.out.flush();
        let text = render::message(&error.to_string());
        say(format_args!("sst-dump: {text}"));
        flushed?;
        if self.command_line.json {
            let mut fields = named(table);
            let status = if error.is_corruption() {
                "damaged"
            } else {
                "unreadable"
            };
            fields.insert("status".to_owned(), status.into());
            fields.insert("offset".to_owned(), error.offset().into());
            fields.insert("message".to_owned(), error.to_string().into());
            self.object(fields)?;
        }
        Ok(())
    }

    /// The totals, if they were asked for.
    pub(super) fn summary(&mut self) -> io::Result<()> {
        self.progress.clear();
        if !self.command_line.show_summary {
            return Ok(());
        }
        let totals = &self.totals;
        if self.command_line.json {
            let summary = json!({
                "tables": totals.tables,
                "bad_tables": totals.bad_tables,
                "file_bytes": totals.file_bytes,
                "entries": totals.entries,
                "tombstones": totals.tombstones,
                "raw_bytes": totals.raw_bytes,
            });
            return writeln!(self.out, "{}", json_line(&json!({ "summary": summary })));
        }
        writeln!(
            self.out,
            "summary: {}, {} bad, {}, {}, {}, {} of keys and values",
            counted(totals.tables, "table"),
            count_for_people(totals.bad_tables),
            bytes_for_people(totals.file_bytes),
            counted(totals.entries, "entry"),
            counted(totals.tombstones, "tombstone"),
            bytes_for_people(totals.raw_bytes),
        )
    }

    pub(super) fn object(&mut self, fields: Map<String, Value>) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(&Value::Object(fields)))
    }

    /// One line about `table`, or an object with `fields`.
    pub(super) fn result(
        &mut self,
        table: &Table,
        line: &str,
        fields: &[(&str, Value)],
    ) -> io::Result<()> {
        self.progress.clear();
        if self.command_line.json {
            let mut object = named(table);
            for (name, value) in fields {
                object.insert((*name).to_owned(), value.clone());
            }
            return self.object(object);
        }
        writeln!(self.out, "{}: {line}", render::path(&table.path))
    }

    fn check(&mut self, table: &Table, reader: &Arc<TableReader>) -> std::result::Result<(), Stop> {
        let count = self.walk(reader, |_, _, _| Ok(()))?;
        let fields = [("status", "good".into()), ("entries", count.into())];
        let line = format!("good, {} read", counted(count, "entry"));
        Ok(self.result(table, &line, &fields)?)
    }

    fn scan(&mut self, table: &Table, reader: &Arc<TableReader>) -> std::result::Result<(), Stop> {
        let is_json = self.command_line.json;
        if self.has_many && !is_json {
            writeln!(self.out, "{}:", render::path(&table.path))?;
        }
        let (bytes, has_many) = (self.bytes, self.has_many);
        let file: Value = table.path.to_string_lossy().into();
        self.walk(reader, |out, key, value| {
            if !is_json {
                return writeln!(out, "{}", render::entry_line(bytes, key, value));
            }
            let mut fields = render::entry_object(bytes, key, value);
            if has_many {
                fields.insert("file".to_owned(), file.clone());
            }
            writeln!(out, "{}", json_line(&Value::Object(fields)))
        })?;
        Ok(())
    }

    /// Calls `visit` with every entry within the bounds; returns how many there were.
    fn walk(
        &mut self,
        reader: &Arc<TableReader>,
        mut visit: impl FnMut(&mut dyn Write, InternalKey<'_>, &[u8]) -> io::Result<()>,
    ) -> std::result::Result<u64, Stop> {
        let mut cursor = reader.cursor(ScanMode::Bulk);
        let from = InternalKey::seek_to(&self.bounds.from, SequenceNumber::MAX);
        let mut is_valid = cursor.seek(from)?;
        let mut count = 0;
        while is_valid && self.bounds.reaches(cursor.key().user_key) && !self.has_read_enough() {
            visit(self.out, cursor.key(), cursor.value())?;
            count += 1;
            self.entries_read += 1;
            if count % PROGRESS_INTERVAL == 0 {
                self.progress.reached(cursor.block_offset());
            }
            is_valid = cursor.next()?;
        }
        Ok(count)
    }

    fn verify(
        &mut self,
        table: &Table,
        reader: &Arc<TableReader>,
    ) -> std::result::Result<(), Stop> {
        let report = reader.verify()?;
        let [_, deletes, puts, ..] = report.count_by_kind;
        let line = format!(
            "verified, {}, {}, {}, {}, {}",
            counted(report.block_count, "data block"),
            counted(report.entry_count, "entry"),
            counted(puts, "put"),
            counted(deletes, "tombstone"),
            counted(report.user_key_count, "user key"),
        );
        let fields = [
            ("status", "verified".into()),
            ("data_blocks", report.block_count.into()),
            ("entries", report.entry_count.into()),
            ("puts", puts.into()),
            ("tombstones", deletes.into()),
            ("user_keys", report.user_key_count.into()),
            ("data_bytes", report.data_bytes.into()),
        ];
        Ok(self.result(table, &line, &fields)?)
    }

    fn properties(
        &mut self,
        table: &Table,
        reader: &TableReader,
        properties: &Properties,
    ) -> io::Result<()> {
        self.progress.clear();
        let (id, len) = (reader.file_id(), reader.file_bytes());
        if self.command_line.json {
            let mut object = named(table);
            let mut fields = render::properties_object(self.bytes, id, len, properties);
            object.append(&mut fields);
            return self.object(object);
        }
        writeln!(self.out, "{}:", render::path(&table.path))?;
        for (name, value) in render::properties_lines(self.bytes, id, len, properties) {
            writeln!(self.out, "  {name:<20} {value}")?;
        }
        Ok(())
    }

    fn index(&mut self, table: &Table, reader: &Arc<TableReader>) -> std::result::Result<(), Stop> {
        if !self.command_line.json {
            writeln!(self.out, "{}:", render::path(&table.path))?;
            writeln!(self.out, "{:>12} {:>10}  stored  up to", "offset", "bytes")?;
        }
        for at in 0..reader.block_count() {
            let block = reader.block_info(at)?;
            let stored = if block.is_compressed { "zstd" } else { "raw" };
            if self.command_line.json {
                let mut fields = named(table);
                fields.insert("offset".to_owned(), block.handle.offset.into());
                fields.insert("bytes".to_owned(), block.handle.len.into());
                fields.insert("stored".to_owned(), stored.into());
                self.bytes.put(&mut fields, "separator", &block.separator);
                fields.insert("separator_seq".to_owned(), block.separator_seq.get().into());
                self.object(fields)?;
                continue;
            }
            let separator = self.bytes.quoted(&block.separator);
            let (offset, len) = (block.handle.offset, block.handle.len);
            let seq = block.separator_seq;
            writeln!(
                self.out,
                "{offset:>12} {len:>10}  {stored:<6}  {separator} seq:{seq}"
            )?;
        }
        Ok(())
    }

    fn filter(
        &mut self,
        table: &Table,
        reader: &Arc<TableReader>,
    ) -> std::result::Result<(), Stop> {
        let properties = reader.properties()?;
        if properties.filter == FilterPolicy::None {
            return Ok(self.result(table, "no filter", &[("filter_policy", "none".into())])?);
        }
        // A damaged filter would let everything pass: have it say so.
        let nowhere = KeyHash(0);
        reader.get(
            b"",
            nowhere,
            SequenceNumber::ZERO,
            &mut sstable::ReadProbe::default(),
        )?;
        let passed = passing(reader);
        let policy = render::filter(properties.filter);
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown of it")]
        let percent = 100.0 * passed as f64 / FILTER_PROBE_COUNT as f64;
        let line = format!(
            "{policy}, {}, {}, {percent:.2}% of absent keys pass",
            bytes_for_people(properties.filter_bytes),
            counted(properties.user_key_count, "key"),
        );
        let fields = [
            ("filter_policy", policy.as_str().into()),
            ("filter_bytes", properties.filter_bytes.into()),
            ("user_keys", properties.user_key_count.into()),
            ("absent_passed", passed.into()),
            ("absent_asked", FILTER_PROBE_COUNT.into()),
        ];
        Ok(self.result(table, &line, &fields)?)
    }
}

/// An object about `table`.
pub(super) fn named(table: &Table) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("file".to_owned(), table.path.to_string_lossy().into());
    fields
}

/// How many of some hashes that belong to no key pass the filter.
fn passing(reader: &TableReader) -> u64 {
    let mut random = Random::new(0);
    (0..FILTER_PROBE_COUNT)
        .map(|_| random.next_u64())
        .filter(|hash| reader.may_contain(KeyHash(*hash)))
        .count() as u64
}

/// Opens a table of unknown origin: no link is followed, nothing is mapped.
pub(super) fn open(table: &Table) -> Result<Arc<TableReader>> {
    let file = OsFs.open_untrusted(&table.path)?;
    let options = ReaderOptions {
        mode: ReadMode::Positioned,
        ..ReaderOptions::default()
    };
    TableReader::open(file, &options, None, 0)
}
