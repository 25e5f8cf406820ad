//! Ranges, prefixes, both directions, cursors, and snapshots that writes do not touch.
//!
//! Keeps readings of sensors under `sensor/hour`, with the hour as big-endian bytes so that the
//! order of keys is the order of time.
//!
//! ```text
//! cargo run --example snapshots_and_scans
//! ```
#![forbid(unsafe_code)]

use siltstone::{Db, Result};

const HOUR_COUNT: u32 = 24;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path())?;
    for sensor in ["attic", "cellar", "garden"] {
        for hour in 0..HOUR_COUNT {
            db.put(key(sensor, hour), [u8::try_from(hour)?])?;
        }
    }
    ranges(&db)?;
    cursors(&db)?;
    snapshots(&db)?;
    db.close()?;
    println!("all is well");
    Ok(())
}

fn key(sensor: &str, hour: u32) -> Vec<u8> {
    let mut key = sensor.as_bytes().to_vec();
    key.push(b'/');
    key.extend(hour.to_be_bytes());
    key
}

fn ranges(db: &Db) -> Result<()> {
    assert_eq!(db.iter()?.count(), 3 * 24);
    assert_eq!(db.prefix("cellar/")?.count(), 24);
    assert_eq!(db.range(key("attic", 6)..key("attic", 12))?.count(), 6);
    assert_eq!(db.range(key("garden", 20)..)?.count(), 4);

    // From the back: the newest reading of a sensor, without looking at the others.
    let newest = db.prefix("cellar/")?.next_back().transpose()?;
    let (newest_key, value) = newest.expect("the cellar has readings");
    assert_eq!(newest_key, key("cellar", 23));
    assert_eq!(value, [23]);

    // From both ends at once, until they meet.
    let mut day = db.prefix("attic/")?;
    let mut pair_count = 0;
    while let (Some(morning), Some(evening)) = (day.next(), day.next_back()) {
        assert_eq!(morning?.1[0] + evening?.1[0], 23);
        pair_count += 1;
    }
    assert_eq!(pair_count, 12);
    Ok(())
}

/// A cursor is the base of every iterator: it can be moved anywhere, as often as needed.
fn cursors(db: &Db) -> Result<()> {
    let mut cursor = db.cursor()?;
    // The first key at or after one that is not there.
    assert!(cursor.seek("b")?);
    assert_eq!(cursor.key(), key("cellar", 0));
    // The last key at or before one.
    assert!(cursor.seek_for_prev("b")?);
    assert_eq!(cursor.key(), key("attic", 23));
    // One sensor after the other, skipping all readings but the first.
    let mut sensors = Vec::new();
    let mut found = cursor.seek_to_first()?;
    while found {
        let sensor = cursor
            .key()
            .split(|byte| *byte == b'/')
            .next()
            .unwrap_or_default()
            .to_vec();
        // `0` comes right after `/`: the first key beyond this sensor.
        found = cursor.seek([&sensor[..], b"0"].concat())?;
        sensors.push(sensor);
    }
    assert_eq!(sensors, [&b"attic"[..], b"cellar", b"garden"]);
    Ok(())
}

fn snapshots(db: &Db) -> Result<()> {
    let before = db.snapshot()?;
    let open_scan = db.prefix("attic/")?;

    for hour in 0..HOUR_COUNT {
        db.delete(key("attic", hour))?;
    }
    db.put(key("attic", 0), "replaced")?;
    // Not even a compaction takes away what a snapshot or an iterator still sees.
    db.compact_range(..)?;

    assert_eq!(db.prefix("attic/")?.count(), 1);
    assert_eq!(before.prefix("attic/")?.count(), 24);
    assert_eq!(before.get(key("attic", 0))?.as_deref(), Some(&[0][..]));
    assert_eq!(open_scan.count(), 24);

    // What it held back can go once it is dropped.
    drop(before);
    db.compact_range(..)?;
    assert_eq!(db.stats().snapshot_count, 0);
    assert_eq!(db.iter()?.count(), 2 * 24 + 1);
    Ok(())
}
