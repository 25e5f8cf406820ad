//! Results for other programs: the columns of RocksDB's benchmark.sh, then our own; and operations
//! over time.

use std::fmt::Write as _;

use crate::bench::line::as_f64;
use crate::bench::record::Record;
use crate::bench::report::ratio;
use crate::text::time_of_micros;

/// The columns of benchmark.sh, in its order. What has no counterpart here is left empty.
const SHARED: &str = "ops_sec\tmb_sec\tlsm_sz\tblob_sz\tc_wgb\tw_amp\tc_mbps\tc_wsecs\tc_csecs\t\
    b_rgb\tb_wgb\tusec_op\tp50\tp99\tp99.9\tp99.99\tpmax\tuptime\tstall%\tNstall\tu_cpu\ts_cpu\t\
    rss\ttest\tdate\tversion\tjob_id\tgithash";
/// Our own, behind them.
const OWN: &str = "seconds\toperations\tthreads\tuser_bytes\tlog_bytes\tflush_bytes\t\
    compaction_bytes\tmanifest_bytes\tdevice_bytes\twrite_amp_all\tthrottle_seconds\ttables\t\
    found\tlooked_for";
const NO_FAILURE: &str = "writing to a String cannot fail";
const GIB: f64 = 1_073_741_824.0;
const MIB: f64 = 1_048_576.0;

/// A header and a line for each result.
pub(super) fn table(records: &[Record]) -> String {
    let mut text = format!("{SHARED}\t{OWN}\n");
    for record in records {
        push_shared(&mut text, record);
        push_own(&mut text, record);
    }
    text
}

fn or_empty(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(String::new, |number| format!("{number:.decimals$}"))
}

fn push_shared(text: &mut String, record: &Record) {
    let (line, cost) = (&record.line, &record.cost);
    let seconds = line.seconds.max(1e-9);
    let compacted = as_f64(cost.flush_bytes + cost.compaction_bytes);
    let percentile = |percent| record.outcome.percentile_micros(percent);
    write!(
        text,
        "{}\t{}\t{:.0}MB\t\t{:.1}\t{}\t{:.1}\t{:.0}\t\t\t\t{:.1}\t{:.1}\t{:.0}\t{:.0}\t{:.0}\t\
         {:.0}\t{:.0}\t{:.1}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t\t\t",
        line.ops_per_sec,
        or_empty(line.megabytes_per_sec, 1),
        as_f64(cost.table_bytes) / MIB,
        compacted / GIB,
        or_empty(
            ratio(cost.flush_bytes + cost.compaction_bytes, cost.flush_bytes),
            1
        ),
        compacted / MIB / seconds,
        cost.compaction_seconds,
        line.micros_per_op,
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
        percentile(99.99),
        record.outcome.max_micros(),
        line.seconds,
        cost.stall_seconds * 100.0 / seconds,
        cost.stall_count,
        or_empty(cost.user_cpu_seconds.map(|s| s / 1000.0), 4),
        or_empty(cost.system_cpu_seconds.map(|s| s / 1000.0), 4),
        or_empty(cost.peak_memory_bytes.map(|bytes| as_f64(bytes) / GIB), 2),
        line.name,
        time_of_micros(record.ended_micros),
        env!("CARGO_PKG_VERSION"),
    )
    .expect(NO_FAILURE);
}

fn push_own(text: &mut String, record: &Record) {
    let (line, cost) = (&record.line, &record.cost);
    let count = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
    writeln!(
        text,
        "{:.3}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:.3}\t{}\t{}\t{}",
        line.seconds,
        line.operations,
        record.threads,
        cost.user_bytes,
        cost.log_bytes,
        cost.flush_bytes,
        cost.compaction_bytes,
        cost.manifest_bytes,
        count(cost.device_bytes),
        or_empty(ratio(cost.written_bytes(), cost.user_bytes), 2),
        cost.throttle_seconds,
        cost.table_count,
        count(line.found.map(|found| found.found)),
        count(line.found.map(|found| found.of)),
    )
    .expect(NO_FAILURE);
}
