//! Workloads in which data comes and goes: time series, and a queue.

use base::{Error, Result};
use siltstone::WriteOptions;

use super::lane::Lane;
use super::line::as_f64;
use super::pace::Pace;
use super::write;
use crate::random::Random;

/// Series that rows belong to.
const SERIES_COUNT: u64 = 1000;
/// A row is dropped when so many newer ones have been written for each series.
const ROWS_PER_SERIES: u64 = 100;
/// Bytes of the key of a row.
pub(crate) const ROW_KEY_BYTES: usize = 16;
/// Entries that are in a queue before anything is taken out, for each of `num`.
const QUEUED_DIVISOR: u64 = 10;
/// In which bit of a number the queue's own number begins.
const QUEUE_SHIFT: u32 = 40;

/// Writes rows of random series, and drops those that have grown old, until `is_done`; returns how
/// many rows were written.
///
/// The key is db_bench's: the series, and behind it the time, which only grows.
///
/// # Errors
/// As the engine's writes.
pub(crate) fn write_series(lane: &mut Lane<'_>, is_done: &dyn Fn() -> bool) -> Result<u64> {
    let options = write::options(lane.args);
    let rate = as_f64(lane.args.benchmark_write_rate_limit);
    let mut pace = Pace::new(lane.clock, rate);
    let window = SERIES_COUNT * ROWS_PER_SERIES;
    let seed = lane.random.next_u64();
    // Two that draw the same series, one a window behind the other.
    let (mut newest, mut oldest) = (Random::new(seed), Random::new(seed));
    let mut time = 0;
    while !is_done() && !lane.should_stop() {
        let key = row_key(newest.below(SERIES_COUNT), time);
        let value = lane.values.next_value();
        let bytes = (key.len() + value.len()) as u64;
        lane.db.put_with(key, value, &options)?;
        if time >= window {
            let key = row_key(oldest.below(SERIES_COUNT), time - window);
            lane.db.delete_with(key, &options)?;
        }
        time += 1;
        lane.finish(1, bytes);
        if let Some(pace) = &mut pace {
            pace.wait(bytes, lane.stop());
            lane.meter.skip();
        }
    }
    Ok(time)
}

fn row_key(series: u64, time: u64) -> [u8; ROW_KEY_BYTES] {
    let mut key = [0; ROW_KEY_BYTES];
    key[..8].copy_from_slice(&series.to_be_bytes());
    key[8..].copy_from_slice(&time.to_be_bytes());
    key
}

/// Reads all rows of random series.
///
/// # Errors
/// As the engine's cursor.
pub(crate) fn read_series(lane: &mut Lane<'_>) -> Result<()> {
    let count = lane.args.read_count();
    let mut done = 0;
    lane.meter.add_found(0, 0);
    while lane.goes_on(done, count) {
        let series = lane.random.below(SERIES_COUNT);
        let mut cursor = lane.db.cursor()?;
        let mut is_valid = cursor.seek(row_key(series, 0))?;
        let mut bytes = 0;
        while is_valid && cursor.key().starts_with(&series.to_be_bytes()) {
            bytes += cursor.key().len() + std::hint::black_box(cursor.value()).len();
            is_valid = cursor.next()?;
        }
        lane.meter.add_found(u64::from(bytes > 0), 1);
        lane.finish(1, bytes as u64);
        done += 1;
    }
    Ok(())
}

/// A queue of its own for each thread: puts at its tail, and finds and deletes its head by a
/// search from where it begins, so that every search meets the deletes of all entries before.
///
/// # Errors
/// `InvalidArgument` if keys cannot hold the number of a queue; as the engine's reads and writes.
pub(crate) fn queue(lane: &mut Lane<'_>, index: usize) -> Result<()> {
    if lane.args.key_size < 8 {
        return Err(Error::invalid_argument(
            "queue needs a --key_size of at least 8",
        ));
    }
    let options = write::options(lane.args);
    let base = (index as u64) << QUEUE_SHIFT;
    let begin = lane.keys.key(base).to_vec();
    let end = lane.keys.key(base + (1 << QUEUE_SHIFT)).to_vec();
    let count = lane.args.write_count();
    let mut tail = 0;
    let queued = count / QUEUED_DIVISOR;
    while tail < queued && !lane.should_stop() {
        push(lane, base + tail, &options)?;
        tail += 1;
    }
    lane.meter.skip();
    let mut done = 0;
    lane.meter.add_found(0, 0);
    while lane.goes_on(done, count) {
        let bytes = push(lane, base + tail, &options)?;
        tail += 1;
        let mut cursor = lane.db.cursor()?;
        let is_there = cursor.seek(&begin)? && cursor.key() < end.as_slice();
        if is_there {
            lane.db.delete_with(cursor.key(), &options)?;
        }
        lane.meter.add_found(u64::from(is_there), 1);
        lane.finish(1, bytes);
        done += 1;
    }
    Ok(())
}

fn push(lane: &mut Lane<'_>, number: u64, options: &WriteOptions) -> Result<u64> {
    let key = lane.keys.key(number);
    let value = lane.values.next_value();
    lane.db.put_with(key, value, options)?;
    Ok((key.len() + value.len()) as u64)
}
