//! The workloads that read and write in one thread: db_bench's mixes, `mixgraph`, and YCSB's six.

use base::Result;
use base::clock::Clock;
use base::sync::atomic::{AtomicU64, Ordering};
use siltstone::WriteOptions;

use super::args::Args;
use super::data::Shuffle;
use super::distribution::{KeyRanges, Pareto, Zipfian, unit};
use super::lane::Lane;
use super::line::as_f64;
use super::measure::Tally;
use super::pace::Pace;
use super::workload::Workload;
use super::write;

/// Scans of YCSB E read 1 to this many entries.
const SCAN_COUNT_MAX: u64 = 100;
/// Values of `appendrandom` start anew beyond this length.
const APPENDED_BYTES_MAX: usize = 1 << 20;

/// Gets or overwrites random keys.
///
/// # Errors
/// As the engine's reads and writes.
pub(crate) fn read_random_write_random(lane: &mut Lane<'_>) -> Result<()> {
    let options = write::options(lane.args);
    let percent = u64::from(lane.args.readwritepercent);
    let count = lane.args.read_count();
    let mut done = 0;
    // db_bench does its reads first and its writes after, a hundred operations at a time.
    while lane.goes_on(done, count) {
        let number = lane.random.below(lane.args.num);
        if done % 100 < percent {
            get(lane, number)?;
        } else {
            put(lane, number, &options)?;
        }
        done += 1;
    }
    Ok(())
}

/// What `updaterandom` and `appendrandom` put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// A new value.
    Replace,
    /// The old value and a new one behind it.
    Append,
}

/// Gets random keys and writes each.
///
/// # Errors
/// As the engine's reads and writes.
pub(crate) fn update_random(lane: &mut Lane<'_>, update: Update) -> Result<()> {
    let options = write::options(lane.args);
    let count = lane.args.write_count();
    let mut done = 0;
    let mut longer = Vec::new();
    while lane.goes_on(done, count) {
        let number = lane.random.below(lane.args.num);
        let key = lane.keys.key(number);
        longer.clear();
        let is_found = lane
            .db
            .get_with(key, |value| longer.extend_from_slice(value))?;
        if update == Update::Replace || longer.len() > APPENDED_BYTES_MAX {
            longer.clear();
        }
        longer.extend_from_slice(lane.values.next_value());
        lane.db.put_with(key, &longer, &options)?;
        let bytes = key.len() + longer.len();
        lane.meter.tally.gets += 1;
        lane.meter.tally.hits += u64::from(is_found.is_some());
        lane.meter.tally.puts += 1;
        lane.finish(1, bytes as u64);
        done += 1;
    }
    Ok(())
}

/// One get of the key of `number`.
#[inline]
fn get(lane: &mut Lane<'_>, number: u64) -> Result<()> {
    let key = lane.keys.key(number);
    let mut bytes = 0;
    let found = lane.db.get_with(key, |value| {
        bytes = key.len() + std::hint::black_box(value).len();
    })?;
    lane.meter.tally.gets += 1;
    lane.meter.tally.hits += u64::from(found.is_some());
    lane.finish(1, bytes as u64);
    Ok(())
}

/// One put under the key of `number`.
#[inline]
fn put(lane: &mut Lane<'_>, number: u64, options: &WriteOptions) -> Result<()> {
    let key = lane.keys.key(number);
    let value = lane.values.next_value();
    lane.db.put_with(key, value, options)?;
    let bytes = key.len() + value.len();
    lane.meter.tally.puts += 1;
    lane.meter.tally.put_value_bytes += value.len() as u64;
    lane.finish(1, bytes as u64);
    Ok(())
}

/// One scan of `count` entries from the key of `number` on.
fn scan(lane: &mut Lane<'_>, number: u64, count: u64) -> Result<()> {
    let mut cursor = lane.db.cursor()?;
    let mut is_valid = cursor.seek(lane.keys.key(number))?;
    let mut bytes = 0;
    let mut left = count;
    while is_valid && left > 0 {
        bytes += cursor.key().len() + std::hint::black_box(cursor.value()).len();
        left -= 1;
        is_valid = cursor.next()?;
    }
    lane.meter.tally.seeks += 1;
    lane.meter.tally.scanned += count - left;
    lane.finish(1, bytes as u64);
    Ok(())
}

/// What all threads of `mixgraph` share.
#[derive(Clone, Debug)]
pub(crate) struct MixPlan {
    ranges: KeyRanges,
    values: Pareto,
    scans: Pareto,
    get_part: f64,
    put_part: f64,
    write_options: WriteOptions,
}

impl MixPlan {
    /// The plan that `args` ask for.
    pub(crate) fn new(args: &Args) -> Self {
        let mix = &args.mix;
        let sum = mix.mix_get_ratio + mix.mix_put_ratio + mix.mix_seek_ratio;
        Self {
            ranges: KeyRanges::new(mix, args.num),
            values: Pareto {
                theta: mix.value_theta,
                k: mix.value_k,
                sigma: mix.value_sigma,
            },
            scans: Pareto {
                theta: mix.iter_theta,
                k: mix.iter_k,
                sigma: mix.iter_sigma,
            },
            get_part: mix.mix_get_ratio / sum,
            put_part: mix.mix_put_ratio / sum,
            write_options: write::options(args),
        }
    }
}

/// Operations a second of each of `lanes` threads, `seconds` after the start of `mixgraph`.
fn sine_rate(args: &Args, seconds: f64) -> f64 {
    let mix = &args.mix;
    let rate = mix.sine_a * (mix.sine_b * seconds + mix.sine_c).sin() + mix.sine_d;
    rate.max(0.0) / as_f64(args.threads as u64)
}

/// Gets, puts and seeks as the plan has them.
///
/// # Errors
/// As the engine's reads and writes.
pub(crate) fn mixgraph(lane: &mut Lane<'_>, plan: &MixPlan) -> Result<()> {
    let mix = lane.args.mix.clone();
    let start = lane.meter.last_nanos();
    let is_paced = lane.args.switches.sine_mix_rate;
    let mut pace = is_paced.then(|| Pace::held(lane.clock, sine_rate(lane.args, 0.0)));
    let interval = mix
        .sine_mix_rate_interval_milliseconds
        .saturating_mul(1_000_000);
    let mut set_nanos = start;
    let count = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, count) {
        if let Some(pace) = &mut pace {
            let now = lane.clock.monotonic_nanos();
            if now - set_nanos >= interval {
                pace.set_rate(sine_rate(lane.args, as_f64(now - start) / 1e9));
                set_nanos = now;
            }
            let is_due = pace.wait_within(1, interval, lane.stop());
            lane.meter.skip();
            if !is_due {
                continue;
            }
        }
        mixgraph_one(lane, plan)?;
        done += 1;
    }
    Ok(())
}

fn mixgraph_one(lane: &mut Lane<'_>, plan: &MixPlan) -> Result<()> {
    let number = plan.ranges.draw(&mut lane.random);
    let part = unit(&mut lane.random);
    if part < plan.get_part {
        return get(lane, number);
    }
    if part < plan.get_part + plan.put_part {
        let max = lane.args.mix.mix_max_value_size;
        let value_bytes = plan.values.draw(&mut lane.random) % max;
        let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
        let key = lane.keys.key(number);
        let value = lane.values.next_of(value_bytes);
        lane.db.put_with(key, value, &plan.write_options)?;
        let bytes = key.len() + value.len();
        lane.meter.tally.puts += 1;
        lane.meter.tally.put_value_bytes += value.len() as u64;
        lane.finish(1, bytes as u64);
        return Ok(());
    }
    let count = plan.scans.draw(&mut lane.random) % lane.args.mix.mix_max_scan_len;
    scan(lane, number, count)
}

/// Which key an operation of YCSB asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Popular records, spread over all keys.
    Zipfian,
    /// The newest records most.
    Latest,
}

/// One of YCSB's core workloads (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB",
/// SoCC 2010, table 2).
#[derive(Debug)]
pub(crate) struct YcsbPlan<'a> {
    request: Request,
    read: f64,
    update: f64,
    insert: f64,
    scan: f64,
    zipfian: Zipfian,
    shuffle: Shuffle,
    write_options: WriteOptions,
    /// Records that are there, those included that this or an earlier run has inserted.
    records: &'a AtomicU64,
}

impl<'a> YcsbPlan<'a> {
    /// The plan of `workload`, one of the six; none for another.
    pub(crate) fn new(workload: Workload, args: &Args, records: &'a AtomicU64) -> Option<Self> {
        // Read, update, insert, scan; what is left to 1 is read-modify-write.
        let (request, [read, update, insert, scan]) = match workload {
            Workload::YcsbA => (Request::Zipfian, [0.5, 0.5, 0.0, 0.0]),
            Workload::YcsbB => (Request::Zipfian, [0.95, 0.05, 0.0, 0.0]),
            Workload::YcsbC => (Request::Zipfian, [1.0, 0.0, 0.0, 0.0]),
            Workload::YcsbD => (Request::Latest, [0.95, 0.0, 0.05, 0.0]),
            Workload::YcsbE => (Request::Zipfian, [0.0, 0.0, 0.05, 0.95]),
            Workload::YcsbF => (Request::Zipfian, [0.5, 0.0, 0.0, 0.0]),
            _ => return None,
        };
        Some(Self {
            request,
            read,
            update,
            insert,
            scan,
            zipfian: Zipfian::new(args.num),
            shuffle: Shuffle::new(args.num, args.seed),
            write_options: write::options(args),
            records,
        })
    }

    /// The record an operation asks for.
    #[inline]
    fn record(&self, lane: &mut Lane<'_>) -> u64 {
        let rank = self.zipfian.draw(&mut lane.random);
        match self.request {
            Request::Zipfian => self.shuffle.place(rank),
            // Those being inserted by other threads at this moment are not asked for.
            Request::Latest => {
                let inserted = self.records.load(Ordering::Relaxed);
                let newest = inserted.saturating_sub(lane.args.threads as u64);
                newest.max(1).saturating_sub(1).saturating_sub(rank)
            }
        }
    }
}

/// Does what the plan says.
///
/// # Errors
/// As the engine's reads and writes.
pub(crate) fn ycsb(lane: &mut Lane<'_>, plan: &YcsbPlan<'_>) -> Result<()> {
    let count = lane.args.read_count();
    let mut done = 0;
    while lane.goes_on(done, count) {
        ycsb_one(lane, plan)?;
        done += 1;
    }
    Ok(())
}

fn ycsb_one(lane: &mut Lane<'_>, plan: &YcsbPlan<'_>) -> Result<()> {
    let mut part = unit(&mut lane.random);
    if part < plan.read {
        let record = plan.record(lane);
        return get(lane, record);
    }
    part -= plan.read;
    if part < plan.update {
        let record = plan.record(lane);
        return put(lane, record, &plan.write_options);
    }
    part -= plan.update;
    if part < plan.insert {
        let record = plan.records.fetch_add(1, Ordering::Relaxed);
        return put(lane, record, &plan.write_options);
    }
    part -= plan.insert;
    let record = plan.record(lane);
    if part < plan.scan {
        let count = 1 + lane.random.below(SCAN_COUNT_MAX);
        return scan(lane, record, count);
    }
    // One operation: read the record, and write it back changed.
    let key = lane.keys.key(record);
    let found = lane
        .db
        .get_with(key, |value| std::hint::black_box(value).len())?;
    lane.meter.tally.gets += 1;
    lane.meter.tally.hits += u64::from(found.is_some());
    put(lane, record, &plan.write_options)
}

/// What db_bench says behind the line of a mix.
pub(crate) fn message(workload: Workload, tally: &Tally) -> Option<String> {
    let mean = |sum: u64, count: u64| as_f64(sum) / as_f64(count.max(1));
    let Tally {
        gets,
        hits,
        puts,
        seeks,
        ..
    } = *tally;
    Some(match workload {
        Workload::ReadRandomWriteRandom => format!(
            "( reads:{gets} writes:{puts} total:{} found:{hits})",
            gets + puts
        ),
        Workload::UpdateRandom | Workload::AppendRandom => {
            format!("( updates:{puts} found:{hits})")
        }
        Workload::MixGraph => format!(
            "( Gets:{gets} Puts:{puts} Seek:{seeks}, reads {hits} in {gets} found, avg size: \
             {:.1} value, {:.1} scan)",
            mean(tally.put_value_bytes, puts),
            mean(tally.scanned, seeks),
        ),
        Workload::YcsbA
        | Workload::YcsbB
        | Workload::YcsbC
        | Workload::YcsbD
        | Workload::YcsbE
        | Workload::YcsbF => format!(
            "( reads:{gets} writes:{puts} scans:{seeks} found:{hits} scanned:{})",
            tally.scanned
        ),
        _ => return None,
    })
}
