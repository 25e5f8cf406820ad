//! `--json`: one look as one object.

use serde_json::{Map, Value, json};
use siltstone::{KeyspaceStats, StatsFile};

use super::rates::{Flow, PartRate, Rates};
use super::watch::{Seen, Watch};
use crate::admin::{costs, stats};

/// What `watch` saw last. Rates are null until there are two looks to compare.
pub(super) fn document(watch: &Watch, seen: &Seen) -> Value {
    let told = &seen.told;
    let file = &told.file;
    let totals = Flow::ALL.map(|flow| {
        let amount = seen.counters.amount(flow);
        (flow, json!(amount.count), json!(amount.bytes))
    });
    let age = told.age().map(|age| age.as_micros());
    json!({
        "db": watch.place,
        "process_id": file.process_id,
        "engine_version": file.engine_version,
        "opened_micros": file.opened_micros,
        "written_micros": file.written_micros,
        "up_micros": file.up_micros,
        "interval_micros": micros(file.interval.as_micros()),
        "age_micros": age.map(micros),
        "is_stale": told.is_stale(),
        "is_writer_there": told.is_writer_there,
        "remark": told.remark(),
        "disk_free_bytes": told.free_bytes,
        "health": health(file),
        "rates": seen.now.as_ref().map(rates),
        "averages": seen.average.as_ref().map(rates),
        "totals": Value::Object(flows(totals)),
        "throttle": throttle(&seen.throttle()),
        "keyspace_count": file.keyspace_count,
        "keyspaces": keyspaces(seen),
        "stats": stats::stats_document(&file.stats),
        "amplification": costs::document(&file.amplification),
    })
}

fn micros(micros: u128) -> u64 {
    u64::try_from(micros).unwrap_or(u64::MAX)
}

fn health(file: &StatsFile) -> Value {
    let kind = file.trouble_kind.map(|kind| format!("{kind:?}"));
    json!({
        "is_good": file.trouble.is_none(),
        "trouble": file.trouble,
        "kind": kind,
    })
}

fn flows(flows: [(Flow, Value, Value); Flow::ALL.len()]) -> Map<String, Value> {
    let mut fields = Map::new();
    for (flow, count, bytes) in flows {
        let mut parts = Map::new();
        if flow.has_count() {
            parts.insert(String::from("ops"), count);
        }
        if flow.has_bytes() {
            parts.insert(String::from("bytes"), bytes);
        }
        fields.insert(flow.key().to_owned(), Value::Object(parts));
    }
    fields
}

/// Each second.
fn rates(rates: &Rates) -> Value {
    let mut fields = Map::new();
    fields.insert(String::from("seconds"), json!(rates.seconds));
    fields.extend(flows(Flow::ALL.map(|flow| {
        let rate = rates.rate(flow);
        (flow, json!(rate.count), json!(rate.bytes))
    })));
    let shares = [
        ("stalled_share", json!(rates.stalled_share)),
        ("throttled_share", json!(rates.throttled_share)),
        ("cause", json!(rates.cause.map(|cause| cause.to_string()))),
        ("found_share", json!(rates.found_share)),
        ("cache_hit_share", json!(rates.cache_hit_share)),
    ];
    fields.extend(shares.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(fields)
}

/// `bytes_per_second` is null while writes are not held back.
fn throttle(throttle: &siltstone::ThrottleStats) -> Value {
    let pace = throttle.cause.map(|_| throttle.bytes_per_second);
    json!({
        "cause": throttle.cause.map(|cause| cause.to_string()),
        "bytes_per_second": pace,
    })
}

fn keyspaces(seen: &Seen) -> Vec<Value> {
    let keyspaces = seen.told.file.stats.keyspaces.iter().enumerate();
    let rate_of = |rates: &Option<Rates>, at: usize| {
        let rates = rates.as_ref();
        rates.and_then(|rates| rates.keyspaces.get(at)).map(part)
    };
    let document = |(at, keyspace): (usize, &KeyspaceStats)| {
        json!({
            "name": keyspace.name,
            "rates": rate_of(&seen.now, at),
            "averages": rate_of(&seen.average, at),
            "user_bytes_written": keyspace.user_bytes_written,
            "user_write_count": keyspace.user_write_count,
            "get_count": keyspace.get_count,
            "get_hit_count": keyspace.get_hit_count,
            "memtable_bytes": keyspace.memtable_bytes,
            "sealed_memtable_count": keyspace.sealed_memtable_count,
            "throttle": throttle(&keyspace.throttle),
            "levels": stats::levels_of(&keyspace.levels),
        })
    };
    keyspaces.map(document).collect()
}

fn part(rate: &PartRate) -> Value {
    json!({
        "writes": {"ops": rate.writes.count, "bytes": rate.writes.bytes},
        "gets": {"ops": rate.gets},
        "seeks": {"ops": rate.seeks},
    })
}
