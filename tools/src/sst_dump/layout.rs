//! `raw`, `blocks` and `identify`: how a file is made up.

use base::cursor::Cursor;
use base::fs::{File, FileSystem, OsFs};
use base::sync::Arc;
use base::{Error, FileKind};
use log::SegmentReader;
use serde_json::{Map, Value};
use sstable::{FORMAT_VERSION, ScanMode, Section, TableReader};

use super::Stop;
use super::commands::{Session, named, open};
use super::find::Table;
use super::render;
use crate::text::{bytes_for_people, counted, to_hex};
use crate::trailer::{Trailer, parts};

/// What is said of a file whose end is not that of a table.
const ENDS_OTHERWISE: [&str; 2] = [
    "file is shorter than a table's footer",
    "not a table: the magic number is missing",
];
/// So much of a footer is shown.
const FOOTER_BYTES_MAX: u64 = 4 << 10;

impl Session<'_> {
    /// Prints every part and block of `table` with its checksum. Damage is printed, not an end.
    pub(super) fn raw(&mut self, table: &Table, reader: &Arc<TableReader>) -> Result<(), Stop> {
        let file = OsFs.open_untrusted(&table.path)?;
        if !self.command_line.json {
            writeln!(
                self.out,
                "{}: {} bytes, file id {:#018x}, format {FORMAT_VERSION}",
                render::path(&table.path),
                reader.file_bytes(),
                reader.file_id()
            )?;
            writeln!(self.out, "{:>12} {:>12}  part", "offset", "bytes")?;
        }
        let mut first_wrong = None;
        for part in parts(reader) {
            self.raw_part(table, reader, &*file, part?, &mut first_wrong)?;
        }
        first_wrong.map_or(Ok(()), |error| Err(Stop::Table(error)))
    }

    fn raw_part(
        &mut self,
        table: &Table,
        reader: &TableReader,
        file: &dyn File,
        part: Section,
        first_wrong: &mut Option<Error>,
    ) -> Result<(), Stop> {
        let mut fields = Map::new();
        let detail = if part.name == "footer" {
            // Its checksum was right when the table was opened.
            let len = usize::try_from(part.bytes.min(FOOTER_BYTES_MAX)).unwrap_or(0);
            let mut bytes = vec![0; len];
            file.read_exact_at(part.offset, &mut bytes)?;
            fields.insert("hex".to_owned(), to_hex(&bytes).into());
            if self.command_line.output_hex {
                to_hex(&bytes)
            } else {
                "crc right".to_owned()
            }
        } else {
            let trailer = Trailer::read(file, reader.file_id(), part.offset, part.bytes)?;
            fields.insert("compression".to_owned(), trailer.tag.into());
            fields.insert("crc".to_owned(), trailer.stored.into());
            fields.insert("crc_is_right".to_owned(), trailer.is_right().into());
            let verdict = if trailer.is_right() { "right" } else { "WRONG" };
            if !trailer.is_right() && first_wrong.is_none() {
                *first_wrong = Some(trailer.mismatch(&table.path, part.offset));
            }
            format!(
                "compression {}, crc {:#010x} {verdict}",
                trailer.tag, trailer.stored
            )
        };
        if self.command_line.json {
            let mut object = named(table);
            object.insert("part".to_owned(), part.name.into());
            object.insert("offset".to_owned(), part.offset.into());
            object.insert("bytes".to_owned(), part.bytes.into());
            object.append(&mut fields);
            return Ok(self.object(object)?);
        }
        let Section {
            name,
            offset,
            bytes,
        } = part;
        writeln!(self.out, "{offset:>12} {bytes:>12}  {name:<11} {detail}")?;
        Ok(())
    }

    /// Prints what each data block of `table` holds.
    pub(super) fn blocks(&mut self, table: &Table, reader: &Arc<TableReader>) -> Result<(), Stop> {
        if !self.command_line.json {
            writeln!(self.out, "{}:", render::path(&table.path))?;
        }
        let mut cursor = reader.cursor(ScanMode::Bulk);
        let mut is_valid = cursor.seek_to_first()?;
        for at in 0..reader.block_count() {
            let info = reader.block_info(at)?;
            let mut block = Block::default();
            while is_valid && cursor.block_offset() == info.handle.offset {
                block.add(cursor.key().user_key, cursor.value());
                is_valid = cursor.next()?;
            }
            let stored = if info.is_compressed { "zstd" } else { "raw" };
            self.print_block(
                table,
                at,
                info.handle.offset,
                info.handle.len,
                stored,
                &block,
            )?;
        }
        Ok(())
    }

    fn print_block(
        &mut self,
        table: &Table,
        at: usize,
        offset: u64,
        len: u32,
        stored: &str,
        block: &Block,
    ) -> Result<(), Stop> {
        if self.command_line.json {
            let mut fields = named(table);
            let numbers: [(&str, Value); 6] = [
                ("block", at.into()),
                ("offset", offset.into()),
                ("bytes", len.into()),
                ("stored", stored.into()),
                ("entries", block.entry_count.into()),
                ("raw_bytes", block.raw_bytes.into()),
            ];
            fields.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
            self.bytes.put(&mut fields, "first", &block.first);
            self.bytes.put(&mut fields, "last", &block.last);
            return Ok(self.object(fields)?);
        }
        writeln!(
            self.out,
            "block {at} at {offset}: {} {stored}, {} of {}, {} .. {}",
            counted(u64::from(len), "byte"),
            counted(block.entry_count, "entry"),
            bytes_for_people(block.raw_bytes),
            self.bytes.quoted(&block.first),
            self.bytes.quoted(&block.last),
        )?;
        Ok(())
    }

    /// Says what the file is.
    pub(super) fn identify(&mut self, table: &Table) -> Result<(), Stop> {
        let error = match open(table) {
            Ok(reader) => return self.identified_table(table, &reader),
            Err(error) if error.is_corruption() => error,
            Err(error) => return Err(error.into()),
        };
        let Some((what, segment)) = made_of_records(table) else {
            return Err(error.into());
        };
        let header = segment.header();
        let line = format!(
            "{what}, number {}, of database {:032x}, epoch {}",
            header.number, header.database_id, header.epoch
        );
        let fields = [
            ("kind", Value::from(what)),
            ("number", header.number.0.into()),
            ("database_id", format!("{:032x}", header.database_id).into()),
            ("epoch", header.epoch.into()),
        ];
        Ok(self.result(table, &line, &fields)?)
    }

    fn identified_table(&mut self, table: &Table, reader: &TableReader) -> Result<(), Stop> {
        let properties = reader.properties()?;
        let line = format!(
            "table, file id {:#018x}, {}, keyspace {}, made for {}",
            reader.file_id(),
            counted(properties.entry_count, "entry"),
            properties.keyspace,
            properties.level,
        );
        let fields = [
            ("kind", Value::from("table")),
            ("file_id", format!("{:#018x}", reader.file_id()).into()),
            ("entries", properties.entry_count.into()),
            ("keyspace", properties.keyspace.0.into()),
            ("level", properties.level.index().into()),
        ];
        Ok(self.result(table, &line, &fields)?)
    }
}

/// What a file is that has the form of a log.
fn made_of_records(table: &Table) -> Option<(&'static str, SegmentReader)> {
    let file = OsFs.open_untrusted(&table.path).ok()?;
    let segment = SegmentReader::new(file).ok()?;
    // Both are made of records; only the name tells them apart.
    let name = table.path.file_name().and_then(|name| name.to_str());
    let what = match name.and_then(FileKind::parse) {
        Some((FileKind::Manifest, _)) => "MANIFEST",
        _ => "segment of the log",
    };
    Some((what, segment))
}

/// `error`, or what the file is instead of a table: one that neither ends as a table does nor has
/// the name of one is none, and so not damaged.
pub(super) fn judged(table: &Table, error: Error) -> Error {
    let text = error.to_string();
    let ends_otherwise = ENDS_OTHERWISE.iter().any(|message| text.contains(message));
    let is_named = table.path.extension().is_some_and(|ending| ending == "sst");
    if !error.is_corruption() || !ends_otherwise || is_named {
        return error;
    }
    let message = match made_of_records(table) {
        Some(("MANIFEST", _)) => "not a table but a MANIFEST; `siltstone manifest dump` prints it",
        Some(_) => "not a table but a segment of the log; `siltstone wal dump` prints it",
        None => "not a table, and nothing else of a database that can be told by its content",
    };
    Error::invalid_argument(message).with_path(&table.path)
}

/// What was seen of a data block.
#[derive(Default)]
struct Block {
    entry_count: u64,
    raw_bytes: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Block {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        if self.entry_count == 0 {
            self.first = key.to_vec();
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.entry_count += 1;
        self.raw_bytes += (key.len() + value.len()) as u64;
    }
}
