//! Checks everything about a table that can be checked.
#![deny(clippy::indexing_slicing)]

use base::coding::Malformed;
use base::{Error, InternalKey, KeyKind, Result, SequenceNumber};

use super::{Buffers, FilterState, ReadProbe, TableReader, data_shape};
use crate::block::{Entry, Shape, assemble};
use crate::format::{BlockHandle, TRAILER_BYTES};
use crate::index::Index;
use crate::properties::Properties;

/// What [`TableReader::verify`] went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Data blocks.
    pub block_count: u64,
    /// Entries, tombstones included.
    pub entry_count: u64,
    /// Entries of each [`KeyKind`], by its byte.
    pub count_by_kind: [u64; KeyKind::RESERVED_COUNT],
    /// Distinct user keys; each passes the filter, if there is one.
    pub user_key_count: u64,
    /// Data blocks as stored, trailers included.
    pub data_bytes: u64,
}

/// One stretch of a table's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// `data`, `index`, `filter`, `dictionary`, `properties` or `footer`.
    pub name: &'static str,
    /// Where it begins.
    pub offset: u64,
    /// How long it is, trailers of blocks included.
    pub bytes: u64,
}

impl TableReader {
    /// What the footer says lies where, in the order of the file.
    pub fn sections(&self) -> Vec<Section> {
        let footer = &self.footer;
        let block = |name, handle: BlockHandle| Section {
            name,
            offset: handle.offset,
            bytes: handle.stored_len() as u64,
        };
        let mut sections = vec![Section {
            name: "data",
            offset: 0,
            bytes: footer.data_end,
        }];
        sections.push(block("index", footer.index));
        sections.extend(footer.filter.map(|handle| block("filter", handle)));
        sections.extend(footer.dictionary.map(|handle| block("dictionary", handle)));
        sections.push(block("properties", footer.properties));
        sections.sort_by_key(|section| section.offset);
        let offset = sections.iter().map(|s| s.offset + s.bytes).max();
        let offset = offset.unwrap_or_default();
        sections.push(Section {
            name: "footer",
            offset,
            bytes: self.file_bytes.saturating_sub(offset),
        });
        sections
    }
}

/// Where the walk through the entries stands.
struct Walk<'a> {
    table: &'a TableReader,
    report: VerifyReport,
    /// The key before, if there was one.
    last: Vec<u8>,
    last_seq: Option<SequenceNumber>,
    raw_key_bytes: u64,
    raw_value_bytes: u64,
    uncompressed_bytes: u64,
    seq_smallest: SequenceNumber,
    seq_largest: SequenceNumber,
    key: Vec<u8>,
}

pub(super) fn verify(table: &TableReader) -> Result<VerifyReport> {
    let properties = table.properties()?;
    if let FilterState::Damaged(error) = table.filter() {
        return Err(error.clone());
    }
    // Also where no block needs it.
    table.load_dictionary()?;
    if !table.padding_is_zero()? {
        return Err(table.damaged(table.footer.data_end, "padding is not zero"));
    }
    let index = table.index()?;
    let mut walk = Walk {
        table,
        report: VerifyReport::default(),
        last: Vec::new(),
        last_seq: None,
        raw_key_bytes: 0,
        raw_value_bytes: 0,
        uncompressed_bytes: 0,
        seq_smallest: SequenceNumber::MAX,
        seq_largest: SequenceNumber::ZERO,
        key: Vec::new(),
    };
    let mut buffers = Buffers::default();
    let mut separator = Vec::new();
    let mut separator_seq = None;
    for at in 0..index.count() {
        let before = separator_seq.map(|seq| (&separator[..], seq));
        walk.block(&index, at, &mut buffers, before, &properties)?;
        separator_seq =
            Some(index.separator(at, &mut separator).map_err(|Malformed| {
                table.damaged(table.footer.index.offset, "index malformed")
            })?);
        walk.check_separator(&separator, separator_seq)?;
    }
    walk.check_end(&properties)?;
    Ok(walk.report)
}

impl Walk<'_> {
    fn wrong(&self, offset: u64, message: &str) -> Error {
        self.table.damaged(offset, message)
    }

    fn block(
        &mut self,
        index: &Index<'_>,
        at: usize,
        buffers: &mut Buffers,
        before: Option<(&[u8], SequenceNumber)>,
        properties: &Properties,
    ) -> Result<()> {
        let table = self.table;
        let entry = index
            .entry(at)
            .map_err(|Malformed| self.wrong(table.footer.index.offset, "index malformed"))?;
        let offset = entry.handle.offset;
        if offset != self.report.data_bytes {
            return Err(self.wrong(offset, "data blocks do not follow one another"));
        }
        let place = table.place_bulk(at, entry, buffers, &mut ReadProbe::default())?;
        let bytes = table.place_bytes(&place, buffers);
        let damaged = |Malformed| table.damaged(offset, "data block malformed");
        let shape = data_shape(bytes).map_err(damaged)?;
        if !shape.is_filled(bytes) {
            return Err(self.wrong(offset, "entries do not fill their block"));
        }
        let mut last_head = 0;
        for position in 0..shape.count() {
            let found = shape.entry(bytes, position).map_err(damaged)?;
            if found.head < last_head || !found.is_canonical() {
                return Err(self.wrong(offset, "heads of a block are not in order"));
            }
            last_head = found.head;
            self.entry(&shape, bytes, &found, offset)?;
            let first_of_all = self.report.entry_count == 1;
            if position == 0 {
                self.check_start(before, first_of_all, properties, offset)?;
            }
        }
        self.report.block_count += 1;
        self.report.data_bytes = entry.handle.end();
        self.uncompressed_bytes += (bytes.len() + TRAILER_BYTES) as u64;
        Ok(())
    }

    fn entry(&mut self, shape: &Shape, bytes: &[u8], found: &Entry<'_>, offset: u64) -> Result<()> {
        let prefix = shape.prefix(bytes);
        self.key.clear();
        self.key.extend_from_slice(prefix);
        let len = assemble(&mut self.key, prefix.len(), found);
        self.key.truncate(len);
        let is_new = match self.last_seq {
            None => true,
            Some(seq) => {
                let last = InternalKey::new(&self.last, seq, KeyKind::Put);
                let here = InternalKey::new(&self.key, found.seq, found.kind);
                if last >= here {
                    return Err(self
                        .wrong(offset, "entries are not in order")
                        .with_value("key", format_args!("{here:?}")));
                }
                self.last != self.key
            }
        };
        if is_new {
            self.report.user_key_count += 1;
            let hash = self.table.hash_seed().hash(&self.key);
            if !self.table.may_contain(hash) {
                let filter = self.table.footer.filter.unwrap_or_default();
                return Err(self
                    .wrong(filter.offset, "filter denies a key of the table")
                    .with_value("key", self.key.escape_ascii()));
            }
        }
        if found.kind == KeyKind::Delete && !found.value.is_empty() {
            return Err(self.wrong(offset, "a tombstone has a value"));
        }
        self.report.entry_count += 1;
        if let Some(count) = self
            .report
            .count_by_kind
            .get_mut(usize::from(found.kind.as_u8()))
        {
            *count += 1;
        }
        self.raw_key_bytes += self.key.len() as u64;
        self.raw_value_bytes += found.value.len() as u64;
        self.seq_smallest = self.seq_smallest.min(found.seq);
        self.seq_largest = self.seq_largest.max(found.seq);
        std::mem::swap(&mut self.last, &mut self.key);
        self.last_seq = Some(found.seq);
        Ok(())
    }

    /// The entry just read is the first of its block.
    fn check_start(
        &self,
        before: Option<(&[u8], SequenceNumber)>,
        first_of_all: bool,
        properties: &Properties,
        offset: u64,
    ) -> Result<()> {
        let seq = self.last_seq.unwrap_or_default();
        let here = InternalKey::seek_to(&self.last, seq);
        if let Some((separator, seq)) = before
            && InternalKey::seek_to(separator, seq) >= here
        {
            return Err(self.wrong(offset, "a block begins before its separator"));
        }
        if first_of_all && here != properties.smallest.as_internal() {
            return Err(self.wrong(offset, "the smallest key is not as stated"));
        }
        Ok(())
    }

    /// The entry just read is the last of its block.
    fn check_separator(&self, separator: &[u8], seq: Option<SequenceNumber>) -> Result<()> {
        let last = InternalKey::seek_to(&self.last, self.last_seq.unwrap_or_default());
        if InternalKey::seek_to(separator, seq.unwrap_or_default()) < last {
            return Err(self.wrong(
                self.table.footer.index.offset,
                "a separator sorts before the end of its block",
            ));
        }
        Ok(())
    }

    fn check_end(&self, properties: &Properties) -> Result<()> {
        let footer = &self.table.footer;
        let report = &self.report;
        if report.data_bytes != footer.data_end {
            return Err(self.wrong(report.data_bytes, "data ends before the footer says"));
        }
        let last = InternalKey::seek_to(&self.last, self.last_seq.unwrap_or_default());
        if last != properties.largest.as_internal() {
            return Err(self.wrong(footer.properties.offset, "the largest key is not as stated"));
        }
        self.check_counts(properties)
    }

    /// Every number of the properties against what was found.
    fn check_counts(&self, properties: &Properties) -> Result<()> {
        let (footer, report) = (&self.table.footer, &self.report);
        let stored = |handle: Option<BlockHandle>| handle.map_or(0, |h| h.stored_len() as u64);
        let (filter_bytes, dictionary_bytes) = (stored(footer.filter), stored(footer.dictionary));
        for (name, stated, found) in [
            ("entries", properties.entry_count, report.entry_count),
            ("blocks", properties.block_count, report.block_count),
            (
                "user_keys",
                properties.user_key_count,
                report.user_key_count,
            ),
            ("key_bytes", properties.raw_key_bytes, self.raw_key_bytes),
            (
                "value_bytes",
                properties.raw_value_bytes,
                self.raw_value_bytes,
            ),
            ("data_bytes", properties.data_bytes, report.data_bytes),
            (
                "uncompressed_bytes",
                properties.uncompressed_data_bytes,
                self.uncompressed_bytes,
            ),
            (
                "index_bytes",
                properties.index_bytes,
                footer.index.stored_len() as u64,
            ),
            ("filter_bytes", properties.filter_bytes, filter_bytes),
            (
                "dictionary_bytes",
                properties.dictionary_bytes,
                dictionary_bytes,
            ),
            (
                "seq_smallest",
                properties.seq_smallest.get(),
                self.seq_smallest.get(),
            ),
            (
                "seq_largest",
                properties.seq_largest.get(),
                self.seq_largest.get(),
            ),
            ("hash_seed", properties.hash_seed.0, footer.hash_seed.0),
        ] {
            if stated != found {
                return Err(self
                    .wrong(
                        footer.properties.offset,
                        "properties do not match the table",
                    )
                    .with_value("property", name)
                    .with_value("stated", stated)
                    .with_value("found", found));
            }
        }
        if properties.count_by_kind != report.count_by_kind {
            return Err(self.wrong(
                footer.properties.offset,
                "properties do not match the table property=count_by_kind",
            ));
        }
        Ok(())
    }
}
