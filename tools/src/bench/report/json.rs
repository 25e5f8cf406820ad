//! The amplification report for programs.

use serde_json::{Value, json};

use super::{Amplification, LiveBytes, ratio};

/// The whole report as one object. Names are only ever added.
pub(crate) fn to_json(amplification: &Amplification) -> Value {
    let totals = &amplification.totals;
    let by_cause: Vec<Value> = amplification
        .write_rows()
        .into_iter()
        .map(|row| {
            json!({
                "cause": row.cause,
                "payload_bytes": row.charge.payload,
                "page_bytes": row.charge.pages,
            })
        })
        .collect();
    let payload = amplification.payload_bytes();
    let pages = amplification.page_bytes();
    json!({
        "databases": totals.database_count,
        "write": {
            "user_bytes": totals.user_bytes,
            "user_writes": totals.user_write_count,
            "by_cause": by_cause,
            "payload_bytes": payload,
            "page_bytes": pages,
            "amplification": amplification.write_amplification(),
            "write_bytes": amplification.device.map(|device| device.written),
            "cancelled_write_bytes": amplification.device.map(|device| device.cancelled),
            "difference_to_payload_percent": amplification.device_excess_percent(payload),
            "difference_to_pages_percent": amplification.device_excess_percent(pages),
            "explanation": amplification.explanation().join("; "),
            "log_syncs": totals.log_sync_count,
            "flushes": totals.flush_count,
            "compactions": totals.compaction_count,
            "moves": totals.move_count,
            "moved_bytes": totals.moved_bytes,
            "compaction_read_bytes": totals.compaction_bytes_read,
            "stall_micros": totals.stall_micros,
            "throttle_micros": totals.throttle_micros,
        },
        "read": {
            "gets": totals.get_count,
            "hits": totals.get_hit_count,
            "memtable_hits": totals.memtable_hit_count,
            "tables_considered": totals.tables_considered,
            "index_blocks": totals.index_blocks,
            "data_blocks": totals.data_blocks,
            "bytes_read": totals.get_bytes_read,
            "filter_negatives": totals.filter_negatives,
            "filter_false_positives": totals.filter_false_positives,
            "cache_hits": totals.cache_hits,
            "cache_misses": totals.cache_misses,
            "data_blocks_per_get": ratio(totals.data_blocks, totals.get_count),
        },
        "space": space(amplification),
    })
}

fn space(amplification: &Amplification) -> Value {
    let Some(space) = &amplification.space else {
        return Value::Null;
    };
    let levels: Vec<Value> = space
        .levels
        .iter()
        .map(|row| {
            json!({
                "level": row.level,
                "tables": row.table_count,
                "bytes": row.bytes,
                "entries": row.entry_count,
                "tombstones": row.tombstone_count,
                "raw_bytes": row.raw_bytes,
                "score": row.score,
                "written_bytes": row.written_bytes,
            })
        })
        .collect();
    let live = space.live.bytes();
    json!({
        "live_bytes": live,
        "live_bytes_estimated": matches!(space.live, LiveBytes::Estimated(_)),
        "table_bytes": space.table_bytes(),
        "log_bytes": space.log_bytes,
        "amplification": ratio(space.table_bytes() + space.log_bytes, live),
        "levels": levels,
    })
}
