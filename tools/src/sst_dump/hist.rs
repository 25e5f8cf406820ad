//! `hist`: how long keys, values and blocks are, in powers of two.

use base::cursor::Cursor;
use base::sync::Arc;
use serde_json::{Value, json};
use sstable::{ScanMode, TableReader};

use super::Stop;
use super::commands::{Session, named};
use super::find::Table;
use super::render;
use crate::text::{bytes_for_people, count_for_people};

/// A length of up to 2^63 has a bucket, and so has 0.
const BUCKET_COUNT: usize = 65;
/// The longest bar.
const BAR_COLUMNS: u64 = 40;
/// Progress is looked at once in so many entries.
const PROGRESS_INTERVAL: u64 = 4096;

/// How often lengths of each power of two came.
struct Histogram {
    name: &'static str,
    buckets: [u64; BUCKET_COUNT],
    count: u64,
    sum: u64,
    largest: u64,
}

impl Histogram {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            buckets: [0; BUCKET_COUNT],
            count: 0,
            sum: 0,
            largest: 0,
        }
    }

    fn add(&mut self, len: u64) {
        // 0, then 1, then 2 to 3, then 4 to 7 and so on.
        let bucket = u64::BITS - len.leading_zeros();
        self.buckets[bucket as usize] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(len);
        self.largest = self.largest.max(len);
    }

    /// The buckets between the first and the last that hold anything: bounds and count.
    fn rows(&self) -> Vec<(u64, u64, u64)> {
        let used = |count: &u64| *count > 0;
        let (Some(first), Some(last)) = (
            self.buckets.iter().position(used),
            self.buckets.iter().rposition(used),
        ) else {
            return Vec::new();
        };
        let bounds = |bucket: usize| match bucket {
            0 => (0, 0),
            bucket => (1 << (bucket - 1), u64::MAX >> (64 - bucket)),
        };
        (first..=last)
            .map(|bucket| {
                let (from, upto) = bounds(bucket);
                (from, upto, self.buckets[bucket])
            })
            .collect()
    }

    fn mean(&self) -> u64 {
        self.sum / self.count.max(1)
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "  {}: {}, mean {}, largest {}",
            self.name,
            count_for_people(self.count),
            bytes_for_people(self.mean()),
            bytes_for_people(self.largest),
        )];
        let most = self.buckets.iter().copied().max().unwrap_or(0).max(1);
        for (from, upto, count) in self.rows() {
            let wide = u128::from(count) * u128::from(BAR_COLUMNS);
            let columns = usize::try_from(wide.div_ceil(u128::from(most))).unwrap_or(0);
            let line = format!(
                "  {from:>12} - {upto:<12} {:>14}  {}",
                count_for_people(count),
                "#".repeat(columns)
            );
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    fn document(&self) -> Value {
        let rows = self.rows().into_iter();
        let rows: Vec<Value> = rows
            .map(|(from, upto, count)| json!({ "from": from, "to": upto, "count": count }))
            .collect();
        json!({
            "count": self.count,
            "sum": self.sum,
            "largest": self.largest,
            "buckets": rows,
        })
    }
}

impl Session<'_> {
    /// Prints how long everything in `table` is.
    pub(super) fn hist(&mut self, table: &Table, reader: &Arc<TableReader>) -> Result<(), Stop> {
        let mut keys = Histogram::new("keys");
        let mut values = Histogram::new("values");
        let mut cursor = reader.cursor(ScanMode::Bulk);
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid {
            keys.add(cursor.key().user_key.len() as u64);
            values.add(cursor.value().len() as u64);
            if keys.count.is_multiple_of(PROGRESS_INTERVAL) {
                self.progress.reached(cursor.block_offset());
            }
            is_valid = cursor.next()?;
        }
        let mut blocks = Histogram::new("data blocks, as stored");
        for at in 0..reader.block_count() {
            blocks.add(u64::from(reader.block_info(at)?.handle.len));
        }
        self.progress.clear();
        if self.command_line.json {
            let mut fields = named(table);
            fields.insert("key_bytes".to_owned(), keys.document());
            fields.insert("value_bytes".to_owned(), values.document());
            fields.insert("block_bytes".to_owned(), blocks.document());
            return Ok(self.object(fields)?);
        }
        writeln!(self.out, "{}:", render::path(&table.path))?;
        for line in [keys, values, blocks].iter().flat_map(Histogram::lines) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_its_bucket() {
        let mut histogram = Histogram::new("x");
        for len in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            histogram.add(len);
        }
        let rows = histogram.rows();
        assert_eq!(rows[..4], [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 1)]);
        assert_eq!(rows[10..12], [(512, 1023, 1), (1024, 2047, 1)]);
        assert_eq!(rows.last(), Some(&(1 << 63, u64::MAX, 1)));
        assert_eq!(rows.iter().map(|(.., count)| count).sum::<u64>(), 8);
    }
}
