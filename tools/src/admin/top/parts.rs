//! The parts of the report and of the live view as lines of text: what both show is the same.

use std::time::Duration;

use base::ErrorKind;
use siltstone::{KeyspaceStats, LevelStats, StatsFile, ThrottleStats};

use super::people::{Grid, UNKNOWN, bytes_rate, count, percent, rate, time, up_time};
use super::rates::{Flow, PartRate, Rates};
use super::watch::{Seen, Watch};
use crate::text::{bytes_for_people, counted, escape};

/// Names of keyspaces are cut to so many columns.
const NAME_WIDTH_MAX: usize = 24;

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Heading,
    Good,
    Remark,
    Alarm,
}

/// A line and how it is meant.
pub(super) type Line = (Tone, String);

/// What it is about: the database, its process, its health, and what is odd.
pub(super) fn head(watch: &Watch) -> Vec<Line> {
    let mut lines = Vec::new();
    let place = &watch.place;
    let Some(seen) = &watch.seen else {
        lines.push((Tone::Heading, format!("siltstone top: {place}")));
        lines.extend(watch.trouble.clone().map(|why| (Tone::Alarm, why)));
        return lines;
    };
    let file = &seen.told.file;
    lines.push((
        Tone::Heading,
        format!(
            "{place}  process {}  siltstone {}  up {}{}",
            file.process_id,
            escape(file.engine_version.as_bytes()),
            up_time(file.up_micros),
            if watch.is_paused { "  PAUSED" } else { "" },
        ),
    ));
    lines.push(health(
        seen,
        watch.trouble.is_none() && !seen.told.is_stale(),
    ));
    if let Some(why) = &watch.trouble {
        lines.push((Tone::Alarm, format!("GONE: {why}")));
    } else if let Some(remark) = seen.told.remark() {
        let is_alarming = seen.told.is_stale();
        let tone = if is_alarming {
            Tone::Alarm
        } else {
            Tone::Remark
        };
        lines.push((tone, remark));
    }
    lines
}

/// How the database is, or was when it last told.
fn health(seen: &Seen, is_current: bool) -> Line {
    let told = &seen.told;
    let file = &told.file;
    let age = told.age().map_or_else(|| String::from("?"), time);
    let told_ago = format!("told {age} ago, every {}", time(file.interval));
    let Some(trouble) = &file.trouble else {
        let free = told.free_bytes.map(bytes_for_people);
        let free = free.map_or_else(String::new, |free| format!("; disk has {free} free"));
        return if told.is_disk_full() {
            (Tone::Alarm, format!("health: DISK FULL{free}; {told_ago}"))
        } else {
            let tone = if is_current { Tone::Good } else { Tone::Plain };
            (tone, format!("health: good{free}; {told_ago}"))
        };
    };
    let trouble = escape(trouble.as_bytes());
    let trouble = trouble.strip_prefix("degraded: ").unwrap_or(&trouble);
    let (tone, what) = match file.trouble_kind {
        Some(ErrorKind::Poisoned) => (Tone::Alarm, "POISONED, no writes until it is reopened"),
        Some(ErrorKind::NoSpace) => (Tone::Alarm, "NO SPACE, flush and compaction wait for some"),
        Some(ErrorKind::Corruption) => (Tone::Alarm, "DAMAGE"),
        _ => (Tone::Remark, "degraded"),
    };
    (tone, format!("health: {what}: {trouble}"))
}

fn name_of(flow: Flow) -> &'static str {
    match flow {
        Flow::Writes => "writes",
        Flow::Gets => "gets",
        Flow::Seeks => "seeks",
        Flow::Entries => " entries",
        Flow::Log => "log, syncs",
        Flow::Flushes => "flushes",
        Flow::Compactions => "compactions",
        Flow::CompactionReads => " reading",
    }
}

/// Operations and bytes: each second now, each second on average, and in all.
pub(super) fn activity(watch: &Watch) -> Option<Grid> {
    let seen = watch.seen.as_ref()?;
    let headings = if watch.is_reset {
        [
            "now",
            "ops/s",
            "bytes/s",
            "reset ops/s",
            "bytes/s",
            "all ops",
            "bytes",
        ]
    } else {
        [
            "now",
            "ops/s",
            "bytes/s",
            "avg ops/s",
            "bytes/s",
            "all ops",
            "bytes",
        ]
    };
    let mut grid = Grid::new(&headings, &[6, 5, 4, 3], NAME_WIDTH_MAX);
    for flow in Flow::ALL {
        let per_second = |rates: &Option<Rates>| {
            let rates = rates.as_ref().map(|rates| rates.rate(flow));
            let count = rates.map_or_else(|| UNKNOWN.to_owned(), |r| rate(r.count));
            let bytes = rates.map_or_else(|| UNKNOWN.to_owned(), |r| bytes_rate(r.bytes));
            [count, bytes]
        };
        let amount = seen.counters.amount(flow);
        let all = [count(amount.count), bytes_for_people(amount.bytes)];
        let pairs = [per_second(&seen.now), per_second(&seen.average), all];
        let mut row = vec![name_of(flow).to_owned()];
        for [count, bytes] in pairs {
            row.push(if flow.has_count() {
                count
            } else {
                String::new()
            });
            row.push(if flow.has_bytes() {
                bytes
            } else {
                String::new()
            });
        }
        grid.row(row);
    }
    Some(grid)
}

/// Says that there are no rates yet, while there are none.
pub(super) fn first_look(watch: &Watch) -> Option<String> {
    let seen = watch.seen.as_ref()?;
    if seen.now.is_some() {
        return None;
    }
    let what = if watch.is_reset {
        "reset"
    } else {
        "first look"
    };
    Some(format!("({what}: rates of now come with the next one)"))
}

/// Waiting, memory, log and amplification.
pub(super) fn facts(watch: &Watch) -> Vec<Line> {
    let Some(seen) = &watch.seen else {
        return Vec::new();
    };
    let stats = &seen.told.file.stats;
    let mut lines = waiting(seen);
    let share = |rates: &Option<Rates>, of: fn(&Rates) -> Option<f64>| {
        let share = rates.as_ref().and_then(of);
        share.map_or_else(|| UNKNOWN.to_owned(), percent)
    };
    let both = |of: fn(&Rates) -> Option<f64>| {
        format!(
            "{} (avg {})",
            share(&seen.now, of),
            share(&seen.average, of)
        )
    };
    let plain = [
        format!(
            "memtables    {}, {} sealed, {} taken; pinned {} in {}; snapshots {}",
            bytes_for_people(stats.memtable_bytes),
            stats.sealed_memtable_count,
            bytes_for_people(stats.memtable_taken_bytes),
            bytes_for_people(stats.pinned_bytes),
            count(stats.pinned_slice_count),
            count(stats.snapshot_count),
        ),
        format!(
            "cache        {}, hits {}; gets found {}",
            bytes_for_people(stats.cache_bytes),
            both(|rates| rates.cache_hit_share),
            both(|rates| rates.found_share),
        ),
        format!(
            "disk         tables {}; log {} in {}",
            bytes_for_people(stats.table_bytes()),
            bytes_for_people(stats.log_disk_bytes),
            counted(stats.log_segment_count, "segment"),
        ),
        amplification(watch, seen),
    ];
    lines.extend(plain.map(|line| (Tone::Plain, line)));
    lines
}

/// How much writers wait, for what, and how fast they may go.
fn waiting(seen: &Seen) -> Vec<Line> {
    let of = |rates: &Option<Rates>| match rates {
        None => String::from(UNKNOWN),
        Some(rates) => format!(
            "{} stopped, {} slowed",
            percent(rates.stalled_share),
            percent(rates.throttled_share)
        ),
    };
    let throttle = seen.throttle();
    let rates = format!("waiting      {}; avg {}", of(&seen.now), of(&seen.average));
    let now = seen.now.as_ref();
    let is_waiting = now.is_some_and(|r| r.stalled_share + r.throttled_share > 0.0);
    let tone = if throttle.cause.is_some() && throttle.bytes_per_second <= 0.0 {
        Tone::Alarm
    } else if is_waiting || throttle.cause.is_some() {
        Tone::Remark
    } else {
        Tone::Plain
    };
    let mut lines = vec![(tone, rates)];
    if let Some(cause) = throttle.cause.or(now.and_then(|rates| rates.cause)) {
        let pace = pace(&throttle);
        lines.push((tone, format!("             {cause}; let through: {pace}")));
    }
    lines
}

/// How fast writes are let through.
fn pace(throttle: &ThrottleStats) -> String {
    if throttle.cause.is_none() || throttle.bytes_per_second.is_infinite() {
        return String::from("free");
    }
    if throttle.bytes_per_second <= 0.0 {
        return String::from("stopped");
    }
    format!("{}/s", bytes_rate(throttle.bytes_per_second))
}

/// Of the keyspace that is chosen, or of all.
fn amplification(watch: &Watch, seen: &Seen) -> String {
    let all = &seen.told.file.amplification;
    let keyspace = watch
        .chosen
        .checked_sub(1)
        .and_then(|at| all.keyspaces.get(at));
    let (write, read, space) = match keyspace {
        Some(keyspace) => (&keyspace.write, &keyspace.read, &keyspace.space),
        None => (&all.write, &all.read, &all.space),
    };
    let get = if read.get_count == 0 {
        String::from(UNKNOWN)
    } else {
        format!("{:.2}", read.tables_searched)
    };
    let seek = if read.scan.seek_count == 0 {
        String::from(UNKNOWN)
    } else {
        format!("{:.2}", read.scan.runs - read.scan.runs_passed)
    };
    let space = if space.live_bytes == 0 {
        String::from(UNKNOWN)
    } else {
        format!("{:.2}", space.factor())
    };
    format!(
        "amplified    write {:.2}, pages {:.2}; space {space}; get {get} tables; seek {seek} runs",
        write.factor(),
        write.page_factor(),
    )
}

/// The keyspaces one by one, all together first.
pub(super) fn keyspaces(watch: &Watch) -> Option<Grid> {
    let seen = watch.seen.as_ref()?;
    let file = &seen.told.file;
    let headings = [
        "keyspace",
        "writes/s",
        "bytes/s",
        "gets/s",
        "seeks/s",
        "memtables",
        "tables",
        "size",
        "score",
        "let through",
    ];
    let mut grid = Grid::new(&headings, &[4, 5, 6, 2, 8, 9, 7, 3], NAME_WIDTH_MAX);
    let keyspaces = &file.stats.keyspaces;
    let all = seen.now.as_ref().map(|rates| PartRate {
        writes: rates.rate(Flow::Writes),
        gets: rates.rate(Flow::Gets).count,
        seeks: rates.rate(Flow::Seeks).count,
    });
    let total = KeyspaceRow {
        name: match &keyspaces[..] {
            // There is nothing to be told apart.
            [only] => escape(only.name.as_bytes()),
            _ => name_of_all(file),
        },
        rate: all,
        memtable_bytes: file.stats.memtable_bytes,
        levels: &file.stats.levels,
        throttle: seen.throttle(),
    };
    grid.row(total.cells());
    if keyspaces.len() == 1 {
        return Some(grid);
    }
    for (at, keyspace) in keyspaces.iter().enumerate() {
        let rates = seen.now.as_ref();
        let row = KeyspaceRow {
            name: escape(keyspace.name.as_bytes()),
            rate: rates.and_then(|rates| rates.keyspaces.get(at).copied()),
            memtable_bytes: keyspace.memtable_bytes,
            levels: &keyspace.levels,
            throttle: keyspace.throttle,
        };
        grid.row(row.cells());
    }
    Some(grid)
}

fn name_of_all(file: &StatsFile) -> String {
    let told = file.stats.keyspaces.len() as u64;
    if file.keyspace_count > told {
        format!("all {} ({told} shown)", count(file.keyspace_count))
    } else {
        format!("all {told}")
    }
}

struct KeyspaceRow<'a> {
    name: String,
    rate: Option<PartRate>,
    memtable_bytes: u64,
    levels: &'a [LevelStats],
    throttle: ThrottleStats,
}

impl KeyspaceRow<'_> {
    fn cells(self) -> Vec<String> {
        let of =
            |value: fn(PartRate) -> String| self.rate.map_or_else(|| UNKNOWN.to_owned(), value);
        let score = self
            .levels
            .iter()
            .map(|level| level.score)
            .fold(0.0, f64::max);
        vec![
            self.name,
            of(|r| rate(r.writes.count)),
            of(|r| bytes_rate(r.writes.bytes)),
            of(|r| rate(r.gets)),
            of(|r| rate(r.seeks)),
            bytes_for_people(self.memtable_bytes),
            count(self.levels.iter().map(|level| level.table_count).sum()),
            bytes_for_people(self.levels.iter().map(|level| level.bytes).sum()),
            format!("{score:.2}"),
            pace(&self.throttle),
        ]
    }
}

/// The levels of the keyspace that is chosen, or of all: those that hold something.
pub(super) fn levels(watch: &Watch) -> Option<Grid> {
    let seen = watch.seen.as_ref()?;
    let stats = &seen.told.file.stats;
    let keyspace: Option<&KeyspaceStats> = watch
        .chosen
        .checked_sub(1)
        .and_then(|at| stats.keyspaces.get(at));
    let levels = keyspace.map_or(&stats.levels, |keyspace| &keyspace.levels);
    let name = format!("levels of {}", chosen_name(watch));
    let headings = [
        &*name,
        "tables",
        "size",
        "entries",
        "tombstones",
        "written",
        "hits",
        "score",
    ];
    let mut grid = Grid::new(&headings, &[4, 6, 5, 3], NAME_WIDTH_MAX);
    for level in levels.iter().filter(|level| level.table_count > 0) {
        grid.row(vec![
            level.level.to_string(),
            count(level.table_count),
            bytes_for_people(level.bytes),
            count(level.entry_count),
            count(level.tombstone_count),
            bytes_for_people(level.compaction_bytes_written),
            count(level.get_hit_count),
            format!("{:.2}", level.score),
        ]);
    }
    Some(grid)
}

/// Which keyspace the levels and the amplification are of.
fn chosen_name(watch: &Watch) -> String {
    let keyspaces = watch
        .seen
        .as_ref()
        .map(|seen| &*seen.told.file.stats.keyspaces);
    let chosen = match keyspaces {
        Some([only]) => Some(only),
        all => watch.chosen.checked_sub(1).and_then(|at| all?.get(at)),
    };
    chosen.map_or_else(
        || String::from("all"),
        |keyspace| escape(keyspace.name.as_bytes()),
    )
}

/// What every key does, and what the numbers mean.
pub(super) fn help(interval: Duration) -> Vec<Line> {
    let lines = [
        "q, Esc, Ctrl-C    leave",
        "Tab, arrows       choose a keyspace: its levels and its amplification",
        "p                 pause: the numbers stay as they are",
        "r                 reset: averages begin here",
        "h, ?              this help",
        "",
        "now          between the last two files that the database wrote",
        "avg          since it was opened, or since a reset",
        "writes       puts and deletes, bytes of their keys and values",
        "gets, seeks  bytes are those of the blocks that were touched",
        "waiting      in the time of one writer; several add up, to more than 100 %",
        "write        bytes written to files for each byte of keys and values; in pages:",
        "             as the system writes them",
        "space        bytes of tables for each byte that certainly counts",
        "get, seek    tables searched, sorted runs entered, each time on average",
        "score        at 1 and above a level is compacted",
        "let through  how fast writes may come",
    ];
    let mut shown = vec![(
        Tone::Heading,
        format!(
            "siltstone top looks every {}; any key closes this help",
            time(interval)
        ),
    )];
    shown.extend(lines.map(|line| (Tone::Plain, line.to_owned())));
    shown
}
