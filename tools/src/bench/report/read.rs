//! What reads had to touch, for each get and for each scan.

use std::fmt::Write as _;

use super::text::two_digits;
use super::{Amplification, Totals, ratio};

const NO_FAILURE: &str = "writing to a String cannot fail";

/// Data blocks by where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Searched where they lie mapped.
    pub(crate) mapped: u64,
    /// In the block cache.
    pub(crate) cached: u64,
    /// Read from files, or expanded from mappings.
    pub(crate) loaded: u64,
}

impl Blocks {
    fn new(all: u64, cached: u64, loaded: u64) -> Self {
        Self {
            mapped: all.saturating_sub(cached + loaded),
            cached,
            loaded,
        }
    }

    /// Those of gets.
    pub(crate) fn of_gets(totals: &Totals) -> Self {
        Self::new(totals.data_blocks, totals.cache_hits, totals.loaded_blocks)
    }

    /// Those of cursors and iterators.
    pub(crate) fn of_scans(totals: &Totals) -> Self {
        Self::new(
            totals.scan_data_blocks,
            totals.scan_cache_hits,
            totals.scan_loaded_blocks,
        )
    }

    fn text(self, each: impl Fn(u64) -> String) -> String {
        format!(
            "{} from mappings, {} from the cache, {} read or expanded",
            each(self.mapped),
            each(self.cached),
            each(self.loaded),
        )
    }
}

/// The part of the report about reads, empty without any; at most 100 columns.
pub(super) fn text(amplification: &Amplification) -> String {
    let totals = &amplification.totals;
    let mut text = String::new();
    if totals.get_count > 0 {
        push_gets(&mut text, totals);
    }
    if totals.seek_count > 0 {
        push_scans(&mut text, totals);
    }
    let returned = amplification.returned;
    if let Some(factor) = ratio(returned.block_bytes, returned.bytes)
        && returned.block_bytes > 0
    {
        writeln!(
            text,
            "\n  {factor:.2} bytes of blocks were touched for each byte returned, by the workloads \
             that only read"
        )
        .expect(NO_FAILURE);
    }
    text
}

fn percent(part: u64, whole: u64) -> String {
    ratio(part, whole).map_or_else(|| "-".to_owned(), |r| format!("{:.1} %", r * 100.0))
}

fn push_gets(text: &mut String, totals: &Totals) {
    let gets = totals.get_count;
    let per_get = |count: u64| two_digits(ratio(count, gets));
    let asked = totals.filter_negatives + totals.filter_false_positives;
    let looked_up = totals.cache_hits + totals.cache_misses;
    writeln!(
        text,
        "\nRead, of {gets} gets\n  found {}, of these in a memtable {}\n  per get: {} tables, of \
         these {} ruled out by their filter, {} searched for nothing\n  per get: {} index blocks, \
         {} data blocks, {} bytes of them\n  data blocks: {}\n  filters wrong {} of the times the \
         key was not there\n  block cache {}",
        percent(totals.get_hit_count, gets),
        percent(totals.memtable_hit_count, totals.get_hit_count),
        per_get(totals.tables_considered),
        per_get(totals.filter_negatives),
        per_get(totals.filter_false_positives),
        per_get(totals.index_blocks),
        per_get(totals.data_blocks),
        per_get(totals.get_bytes_read),
        Blocks::of_gets(totals).text(per_get),
        percent(totals.filter_false_positives, asked),
        match looked_up {
            0 => "not used".to_owned(),
            _ => format!("hits {}", percent(totals.cache_hits, looked_up)),
        },
    )
    .expect(NO_FAILURE);
}

fn push_scans(text: &mut String, totals: &Totals) {
    let scans = totals.seek_count;
    let per_scan = |count: u64| two_digits(ratio(count, scans));
    writeln!(
        text,
        "\nRead, of {scans} scans (a cursor sent to a key, and the steps from there)\n  \
         per scan: {} sorted runs, of these {} passed over by their bounds\n  \
         per scan: {} entries, {} index blocks, {} data blocks, {} bytes of them\n  \
         data blocks: {}",
        per_scan(totals.seek_run_count),
        per_scan(totals.seek_passed_run_count),
        per_scan(totals.scan_entry_count),
        per_scan(totals.scan_index_blocks),
        per_scan(totals.scan_data_blocks),
        per_scan(totals.scan_bytes_read),
        Blocks::of_scans(totals).text(per_scan),
    )
    .expect(NO_FAILURE);
}

/// The same of scans for somebody who has never seen the figures above.
pub(super) fn scan_sentence(amplification: &Amplification) -> Option<String> {
    let totals = &amplification.totals;
    let runs = totals
        .seek_run_count
        .saturating_sub(totals.seek_passed_run_count);
    (totals.seek_count > 0 && totals.seek_run_count > 0).then(|| {
        format!(
            "Scans: a cursor that was sent to a key looked into {} sorted runs, which filters \
             cannot spare it, and entered {} data blocks for {} entries.",
            two_digits(ratio(runs, totals.seek_count)),
            two_digits(ratio(totals.scan_data_blocks, totals.seek_count)),
            two_digits(ratio(totals.scan_entry_count, totals.seek_count)),
        )
    })
}
