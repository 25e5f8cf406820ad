//! The amplification report for programs.

use serde_json::{Value, json};

use siltstone::{KeyspaceAmplification, Written};

use super::{Amplification, LevelRow, LiveBytes, Totals, explain, ratio, read, theory};

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
                "expected_bytes": theory::expected_bytes(amplification, &row.cause),
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
        "read": read_json(amplification),
        "scan": scan_json(&amplification.totals),
        "space": space(amplification),
        "keyspaces": amplification.keyspaces.iter().map(keyspace).collect::<Vec<_>>(),
        "explain": explain::advise(amplification).iter().map(advice).collect::<Vec<_>>(),
    })
}

/// What gets had to touch.
fn read_json(amplification: &Amplification) -> Value {
    let totals = &amplification.totals;
    json!({
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
        "data_blocks_by_source": blocks(read::Blocks::of_gets(totals)),
        "block_bytes_of_reading_workloads": amplification.returned.block_bytes,
        "returned_bytes_of_reading_workloads": amplification.returned.bytes,
    })
}

/// What cursors and iterators had to touch.
fn scan_json(totals: &Totals) -> Value {
    json!({
        "seeks": totals.seek_count,
        "runs_considered": totals.seek_run_count,
        "runs_passed_by_bounds": totals.seek_passed_run_count,
        "entries": totals.scan_entry_count,
        "index_blocks": totals.scan_index_blocks,
        "data_blocks": totals.scan_data_blocks,
        "data_blocks_by_source": blocks(read::Blocks::of_scans(totals)),
        "bytes_read": totals.scan_bytes_read,
        "data_blocks_per_seek": ratio(totals.scan_data_blocks, totals.seek_count),
    })
}

fn blocks(blocks: read::Blocks) -> Value {
    json!({ "mapped": blocks.mapped, "cached": blocks.cached, "loaded": blocks.loaded })
}

fn written(written: Written) -> Value {
    json!({ "payload_bytes": written.payload_bytes, "page_bytes": written.page_bytes })
}

/// What one keyspace costs, by level and cause.
fn keyspace(keyspace: &KeyspaceAmplification) -> Value {
    let write = &keyspace.write;
    let read = &keyspace.read;
    let levels = keyspace.space.levels.iter().enumerate();
    let levels: Vec<Value> = levels
        .map(|(index, space)| {
            json!({
                "level": index,
                "bytes": space.bytes,
                "entries": space.entry_count,
                "tombstones": space.tombstone_count,
                "compaction": written(write.compaction.get(index).copied().unwrap_or_default()),
                "arrived_bytes": write.arrived_bytes.get(index),
                "get_hits_part": read.from_levels.get(index),
            })
        })
        .collect();
    json!({
        "name": keyspace.name,
        "user_bytes": write.user_bytes,
        "log": written(write.log),
        "flush": written(write.flush),
        "manifest": written(write.manifest),
        "moved_bytes": write.moved_bytes,
        "write_amplification": write.factor(),
        "write_amplification_in_pages": write.page_factor(),
        "gets": read.get_count,
        "tables_considered_per_get": read.tables_considered,
        "tables_searched_per_get": read.tables_searched,
        "filter_negatives_per_get": read.filter_negatives,
        "filter_false_positives_per_get": read.filter_false_positives,
        "blocks_from_map_per_get": read.blocks_from_map,
        "blocks_from_cache_per_get": read.blocks_from_cache,
        "blocks_loaded_per_get": read.blocks_loaded,
        "bytes_per_get": read.bytes,
        "seeks": read.scan.seek_count,
        "runs_per_seek": read.scan.runs,
        "runs_passed_per_seek": read.scan.runs_passed,
        "entries_per_seek": read.scan.entries,
        "index_blocks_per_seek": read.scan.index_blocks,
        "blocks_from_map_per_seek": read.scan.blocks_from_map,
        "blocks_from_cache_per_seek": read.scan.blocks_from_cache,
        "blocks_loaded_per_seek": read.scan.blocks_loaded,
        "bytes_per_seek": read.scan.bytes,
        "space_amplification": keyspace.space.factor(),
        "levels": levels,
    })
}

fn advice(advice: &explain::Advice) -> Value {
    json!({
        "finding": advice.finding,
        "flag": advice.flag,
        "option": advice.option,
        "number": advice.number,
        "now": advice.now,
        "then": advice.then,
    })
}

fn space(amplification: &Amplification) -> Value {
    let Some(space) = &amplification.space else {
        return Value::Null;
    };
    let live = space.live.bytes();
    json!({
        "live_bytes": live,
        "live_bytes_estimated": matches!(space.live, LiveBytes::Estimated(_)),
        "table_bytes": space.table_bytes(),
        "log_bytes": space.log_bytes,
        "amplification": ratio(space.table_bytes() + space.log_bytes, live),
        "levels": levels(&space.levels),
    })
}

/// The levels from the top.
pub(crate) fn levels(rows: &[LevelRow]) -> Vec<Value> {
    let one = |row: &LevelRow| {
        json!({
            "level": row.level,
            "tables": row.table_count,
            "bytes": row.bytes,
            "entries": row.entry_count,
            "tombstones": row.tombstone_count,
            "raw_bytes": row.raw_bytes,
            "score": row.score,
            "written_bytes": row.written_bytes,
            "arrived_bytes": row.arrived_bytes,
            "overlap": row.overlap(),
            "get_hits": row.get_hit_count,
            "tables_searched": row.tables_searched,
        })
    };
    rows.iter().map(one).collect()
}
