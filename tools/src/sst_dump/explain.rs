//! `explain`: where one key is, or why a get would not find it here.

use base::cursor::Cursor;
use base::sync::Arc;
use base::{InternalKey, SequenceNumber};
use serde_json::{Value, json};
use sstable::{ScanMode, TableReader};

use super::Stop;
use super::commands::{Session, named};
use super::find::Table;
use super::render;
use crate::text::counted;

/// So many versions of the key are shown.
const VERSIONS_MAX: usize = 100;

impl Session<'_> {
    /// Says where the key of the command line is in `table`.
    pub(super) fn explain(&mut self, table: &Table, reader: &Arc<TableReader>) -> Result<(), Stop> {
        let key = self.bounds.key.clone();
        let properties = reader.properties()?;
        let (smallest, largest) = (&properties.smallest.user_key, &properties.largest.user_key);
        if key < *smallest {
            let bound = self.bytes.quoted(smallest);
            return self.explained(
                table,
                "out_of_bounds",
                &format!("skipped: before {bound}"),
                &[],
            );
        }
        if key > *largest {
            let bound = self.bytes.quoted(largest);
            return self.explained(
                table,
                "out_of_bounds",
                &format!("skipped: behind {bound}"),
                &[],
            );
        }
        let hash = reader.hash_seed().hash(&key);
        if !reader.passes_filter(hash)? {
            return self.explained(
                table,
                "filter_denies",
                "skipped: its filter denies the key",
                &[],
            );
        }
        let mut cursor = reader.cursor(ScanMode::Bulk);
        let mut is_valid = cursor.seek(InternalKey::seek_to(&key, SequenceNumber::MAX))?;
        let mut lines = Vec::new();
        let mut versions = Vec::new();
        while is_valid && *cursor.key().user_key == *key && lines.len() < VERSIONS_MAX {
            let (seq, kind) = (cursor.key().seq, cursor.key().kind);
            let (bytes, offset) = (cursor.value().len(), cursor.block_offset());
            lines.push(format!(
                "seq:{seq}, type:{kind}, {} in the block at {offset}",
                counted(bytes as u64, "byte")
            ));
            versions.push(json!({
                "seq": seq.get(),
                "type": kind.to_string(),
                "value_bytes": bytes,
                "block_offset": offset,
            }));
            is_valid = cursor.next()?;
        }
        if lines.is_empty() {
            let line = if reader.has_filter() {
                "not there, although its filter lets the key pass"
            } else {
                "not there, and it has no filter"
            };
            return self.explained(table, "not_there", line, &[]);
        }
        let line = format!("found, {}", lines.join("; then "));
        self.explained(table, "found", &line, &versions)
    }

    fn explained(
        &mut self,
        table: &Table,
        outcome: &str,
        line: &str,
        versions: &[Value],
    ) -> Result<(), Stop> {
        if self.command_line.json {
            let mut fields = named(table);
            self.bytes.put(&mut fields, "key", &self.bounds.key);
            fields.insert("outcome".to_owned(), outcome.into());
            fields.insert("versions".to_owned(), versions.into());
            return Ok(self.object(fields)?);
        }
        writeln!(self.out, "{}: {line}", render::path(&table.path))?;
        Ok(())
    }
}
