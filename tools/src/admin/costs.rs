//! `amplification --json`: what writes, reads and space cost, by cause and by level.

use base::Level;
use serde_json::{Map, Value, json};
use siltstone::{
    Amplification, ReadAmplification, SpaceAmplification, WriteAmplification, Written,
};

/// Everything that `Db::amplification` tells.
pub(super) fn document(amplification: &Amplification) -> Value {
    let (write, space) = (&amplification.write, &amplification.space);
    let total = write.total();
    let keyspaces = amplification.keyspaces.iter().map(|keyspace| {
        json!({
            "name": keyspace.name,
            "user_bytes": keyspace.write.user_bytes,
            "write_factor": keyspace.write.factor(),
            "table_bytes": keyspace.space.table_bytes,
            "live_bytes": keyspace.space.live_bytes,
            "write": write_document(&keyspace.write),
            "read": read_document(&keyspace.read),
            "space": space_document(&keyspace.space),
        })
    });
    let keyspaces: Vec<Value> = keyspaces.collect();
    json!({
        "user_bytes": write.user_bytes,
        "payload_bytes": total.payload_bytes,
        "page_bytes": total.page_bytes,
        "write_factor": write.factor(),
        "get_count": amplification.read.get_count,
        "tables_searched": amplification.read.tables_searched,
        "table_bytes": space.table_bytes,
        "log_bytes": space.log_bytes,
        "live_bytes": space.live_bytes,
        "write": write_document(write),
        "read": read_document(&amplification.read),
        "space": space_document(space),
        "keyspaces": keyspaces,
    })
}

/// The causes add up to the bytes of the whole.
fn write_document(write: &WriteAmplification) -> Value {
    let cause = |name: &str, level: Option<Level>, written: Written| {
        let mut fields = Map::new();
        fields.insert("cause".to_owned(), name.into());
        if let Some(level) = level {
            fields.insert("level".to_owned(), level.index().into());
        }
        fields.insert("payload_bytes".to_owned(), written.payload_bytes.into());
        fields.insert("page_bytes".to_owned(), written.page_bytes.into());
        Value::Object(fields)
    };
    let mut causes = vec![
        cause("log", None, write.log),
        cause("flush", Some(Level::ZERO), write.flush),
    ];
    let arrived = write
        .arrived_bytes
        .iter()
        .copied()
        .chain(std::iter::repeat(0));
    let levels = Level::all().zip(&write.compaction).zip(arrived);
    for ((level, written), arrived) in levels {
        if written.payload_bytes + arrived == 0 {
            continue;
        }
        let mut row = cause("compaction", Some(level), *written);
        row["arrived_bytes"] = arrived.into();
        causes.push(row);
    }
    causes.push(cause("manifest", None, write.manifest));
    causes.push(cause("stats_file", None, write.stats_file));
    json!({
        "factor": write.factor(),
        "page_factor": write.page_factor(),
        "moved_bytes": write.moved_bytes,
        "by_cause": causes,
    })
}

/// All for each point read, on average.
fn read_document(read: &ReadAmplification) -> Value {
    json!({
        "get_count": read.get_count,
        "from_active": read.from_active,
        "from_sealed": read.from_sealed,
        "from_levels": read.from_levels,
        "not_found": read.not_found,
        "tables_considered": read.tables_considered,
        "filter_negatives": read.filter_negatives,
        "filter_false_positives": read.filter_false_positives,
        "tables_searched": read.tables_searched,
        "blocks_from_map": read.blocks_from_map,
        "blocks_from_cache": read.blocks_from_cache,
        "blocks_loaded": read.blocks_loaded,
        "bytes": read.bytes,
    })
}

fn space_document(space: &SpaceAmplification) -> Value {
    let used = space.levels.iter().filter(|level| level.bytes > 0);
    let levels = used.map(|level| {
        json!({
            "level": level.level.index(),
            "bytes": level.bytes,
            "entry_count": level.entry_count,
            "tombstone_count": level.tombstone_count,
        })
    });
    json!({
        "factor": space.factor(),
        "table_bytes": space.table_bytes,
        "log_bytes": space.log_bytes,
        "live_bytes": space.live_bytes,
        "levels": levels.collect::<Vec<Value>>(),
    })
}
