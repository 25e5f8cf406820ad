//! Standard output: entries and reports, as text, hexadecimal digits or JSON.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::args::Global;
use super::failure::Outcome;
use super::records::{Encoding, put_bytes};
use crate::text::{as_text, escape, json_line, plain, to_hex};

/// Where results go. Nothing else is written to standard output.
pub(crate) struct Output<'a> {
    out: &'a mut dyn Write,
    pub(crate) json: bool,
    pub(crate) encoding: Encoding,
}

impl<'a> Output<'a> {
    /// Writes to `out` in the form that `global` asks for.
    pub(crate) fn new(out: &'a mut dyn Write, global: &Global) -> Self {
        Self {
            out,
            json: global.json,
            encoding: if global.hex {
                Encoding::Hex
            } else {
                Encoding::Text
            },
        }
    }

    /// `bytes` on one line in a form that no other bytes have.
    pub(crate) fn one_line(&self, bytes: &[u8]) -> String {
        match self.encoding {
            Encoding::Text => escape(bytes),
            Encoding::Hex => to_hex(bytes),
        }
    }

    /// One line of a report.
    pub(crate) fn line(&mut self, text: &str) -> Outcome<()> {
        // What it is made of is escaped, or should be.
        writeln!(self.out, "{}", plain(text))?;
        Ok(())
    }

    /// One JSON document on a line.
    pub(crate) fn document(&mut self, document: &Value) -> Outcome<()> {
        writeln!(self.out, "{}", json_line(document))?;
        Ok(())
    }

    /// One entry, or one key: `key`, a tab, `value`; in JSON a record that can be loaded.
    pub(crate) fn entry(&mut self, key: &[u8], value: Option<&[u8]>) -> Outcome<()> {
        if self.json {
            let mut fields = Map::new();
            put_bytes(&mut fields, "key", key, self.encoding);
            if let Some(value) = value {
                put_bytes(&mut fields, "value", value, self.encoding);
            }
            return self.document(&Value::Object(fields));
        }
        let mut line = self.one_line(key);
        if let Some(value) = value {
            line.push('\t');
            line.push_str(&self.one_line(value));
        }
        self.line(&line)
    }

    /// A value by itself: text as it is, anything else escaped.
    pub(crate) fn value(&mut self, value: &[u8]) -> Outcome<()> {
        match as_text(value) {
            Some(text) if self.encoding == Encoding::Text => self.line(text),
            _ => {
                let text = self.one_line(value);
                self.line(&text)
            }
        }
    }

    /// The bytes and nothing else.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// Hands everything to the system, so that a reader of a pipe sees it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A table of text: columns as wide as they need to be, numbers to the right.
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|&text| text.to_owned()).collect();
        Self {
            rows: vec![headings],
        }
    }

    /// Adds a row, with as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// Prints it.
    pub(crate) fn print(&self, output: &mut Output<'_>) -> Outcome<()> {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| {
                let widths = self.rows.iter().map(|row| row[column].chars().count());
                widths.max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect();
            output.line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}
