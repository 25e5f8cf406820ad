//! The workloads that read.

use base::Result;
use siltstone::Cursor;

use super::data::KeyMaker;
use super::lane::Lane;

/// Keys of a call of `multireadrandom` unless `--batch_size` is given.
const MULTIREAD_COUNT: u64 = 32;
/// How much of each value `seekrandom` copies out, as db_bench does, to make sure it was read.
const COPIED_BYTES_MAX: usize = 256;

/// `readhot` reads one key in so many, as in db_bench.
const HOT_DIVISOR: u64 = 100;

/// Which keys a point read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Those that the write workloads write.
    Written,
    /// Each one byte longer than a written one, and sorting just after it.
    Missing,
    /// The first hundredth of those that the write workloads write.
    Hot,
}

/// Gets random keys.
///
/// # Errors
/// As [`siltstone::Db::get`].
pub(crate) fn read_random(lane: &mut Lane<'_>, which: Keys) -> Result<()> {
    if which == Keys::Missing {
        lane.keys = KeyMaker::new(lane.args.key_size + 1);
    }
    let range = match which {
        Keys::Hot => lane.args.num.div_ceil(HOT_DIVISOR),
        Keys::Written | Keys::Missing => lane.args.num,
    };
    lane.meter.add_found(0, 0);
    let count = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, count) {
        let number = lane.random.below(range);
        let key = lane.keys.key(number);
        let mut bytes = 0;
        if let Some(value) = lane.db.get(key)? {
            bytes = key.len() + value.len();
            lane.meter.add_found(1, 0);
        }
        lane.meter.add_found(0, 1);
        lane.finish(1, bytes as u64);
        done += 1;
    }
    Ok(())
}

/// Gets random keys, many in a call.
///
/// # Errors
/// As [`siltstone::Db::multi_get`].
pub(crate) fn multi_read_random(lane: &mut Lane<'_>) -> Result<()> {
    let batch = match lane.args.batch_size {
        1 => MULTIREAD_COUNT,
        count => count,
    };
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let total = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, total) {
        // With --duration there may be more than the total.
        let count = match total.saturating_sub(done) {
            0 => batch,
            left => batch.min(left),
        };
        keys.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        for index in 0..count {
            let number = lane.random.below(lane.args.num);
            let key = lane.keys.key(number);
            match keys.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) {
                Some(old) => old.copy_from_slice(key),
                None => keys.push(key.to_vec()),
            }
        }
        let values = lane.db.multi_get(&keys)?;
        let mut bytes = 0;
        for value in values.iter().flatten() {
            bytes += lane.args.key_size + value.len();
        }
        lane.meter
            .add_found(values.iter().flatten().count() as u64, count);
        lane.finish(count, bytes as u64);
        done += count;
    }
    Ok(())
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// Reads entries in order, from one end, as many as there are reads.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn scan(lane: &mut Lane<'_>, direction: Direction) -> Result<()> {
    let mut cursor = lane.db.cursor()?;
    let mut is_valid = match direction {
        Direction::Forward => cursor.seek_to_first()?,
        Direction::Backward => cursor.seek_to_last()?,
    };
    let count = lane.args.read_count();
    let mut done = 0;
    while is_valid && lane.goes_on(done, count) {
        let bytes = cursor.key().len() + cursor.value().len();
        is_valid = match direction {
            Direction::Forward => cursor.next()?,
            Direction::Backward => cursor.prev()?,
        };
        lane.finish_step(bytes as u64);
        done += 1;
    }
    Ok(())
}

/// Reads everything, again and again, until `is_done`; returns how many entries that were.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn scan_until(lane: &mut Lane<'_>, is_done: &dyn Fn() -> bool) -> Result<u64> {
    let mut count = 0;
    while !is_done() && !lane.should_stop() {
        let mut cursor = lane.db.cursor()?;
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid && !is_done() && !lane.should_stop() {
            let bytes = cursor.key().len() + cursor.value().len();
            is_valid = cursor.next()?;
            lane.finish_step(bytes as u64);
            count += 1;
        }
    }
    Ok(count)
}

/// Makes cursors and drops them.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn new_iterator(lane: &mut Lane<'_>) -> Result<()> {
    let count = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, count) {
        std::hint::black_box(&lane.db.cursor()?);
        lane.finish(1, 0);
        done += 1;
    }
    Ok(())
}

/// Seeks random keys and reads on after each.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn seek_random(lane: &mut Lane<'_>) -> Result<()> {
    let mut kept: Option<Cursor> = None;
    let mut copy = [0; COPIED_BYTES_MAX];
    lane.meter.add_found(0, 0);
    let count = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, count) {
        let number = lane.random.below(lane.args.num);
        let key = lane.keys.key(number);
        let cursor = match &mut kept {
            Some(cursor) if lane.args.switches.reuse_cursor => cursor,
            kept => kept.insert(lane.db.cursor()?),
        };
        let mut is_valid = cursor.seek(key)?;
        let is_found = is_valid && cursor.key() == key;
        let mut bytes = 0;
        for _ in 0..lane.args.seek_nexts {
            if !is_valid {
                break;
            }
            let value = cursor.value();
            let len = value.len().min(COPIED_BYTES_MAX);
            copy[..len].copy_from_slice(&value[..len]);
            std::hint::black_box(&copy);
            bytes += cursor.key().len() + value.len();
            is_valid = cursor.next()?;
        }
        lane.meter.add_found(u64::from(is_found), 1);
        lane.finish(1, bytes as u64);
        done += 1;
    }
    Ok(())
}
