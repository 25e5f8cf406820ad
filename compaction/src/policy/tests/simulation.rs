//! The policy driven by workloads without any I/O: tables are lists in memory, and time is bytes.
//!
//! What a tree holds is compared with a map; what it costs is compared with what theory allows.

use std::collections::{BTreeMap, HashMap};

use base::{FileNumber, KeyspaceId};

use super::*;
use crate::edit::KeyspaceEdit;
use crate::levels::TableMeta;
use crate::testing::{Paper, Random, level, meta, seq};

const PUT_BYTES: u64 = 10;
const TOMBSTONE_BYTES: u64 = 3;
/// More plans than any sound policy makes of one flush.
const PLANS_MAX: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: u32,
    seq: u64,
    is_put: bool,
}

impl Entry {
    fn bytes(self) -> u64 {
        if self.is_put {
            PUT_BYTES
        } else {
            TOMBSTONE_BYTES
        }
    }
}

struct Running {
    plan: CompactionPlan,
    bytes_left: u64,
}

/// A tree whose tables lie in memory, with as many plans at work as there are lanes.
struct Simulation {
    paper: Paper,
    tuning: Tuning,
    version: Version,
    busy: InProgress,
    running: Vec<Running>,
    lane_count: usize,
    contents: HashMap<FileNumber, Vec<Entry>>,
    memtable: BTreeMap<u32, Entry>,
    memtable_count_max: usize,
    model: BTreeMap<u32, u64>,
    last_seq: u64,
    /// What somebody may still read at; tombstones above it protect what they hide.
    oldest_pin: u64,
    next_number: u64,
    flushed_bytes: u64,
    compacted_bytes: u64,
    garbage_bytes: u64,
    depth_max: usize,
    /// The most that one compaction of level 0 took from there, and in all.
    level0_plan_max: (u64, u64),
}

impl Simulation {
    fn new(memtable_count_max: usize) -> Self {
        let memtable_bytes = memtable_count_max as u64 * PUT_BYTES;
        Self {
            paper: Paper::new(),
            tuning: Tuning {
                level0_table_count_trigger: 4,
                level_base_bytes: 4 * memtable_bytes,
                fan_out: 10,
                table_bytes_target: memtable_bytes,
                compaction_bytes_max: 25 * memtable_bytes,
                bottom_compression: 0,
            },
            version: Version::empty(),
            busy: InProgress::default(),
            running: Vec::new(),
            lane_count: 2,
            contents: HashMap::new(),
            memtable: BTreeMap::new(),
            memtable_count_max,
            model: BTreeMap::new(),
            last_seq: 0,
            oldest_pin: u64::MAX,
            next_number: 1,
            flushed_bytes: 0,
            compacted_bytes: 0,
            garbage_bytes: 0,
            depth_max: 0,
            level0_plan_max: (0, 0),
        }
    }

    fn write(&mut self, key: u32, is_put: bool) {
        self.last_seq += 1;
        let seq = self.last_seq;
        self.memtable.insert(key, Entry { key, seq, is_put });
        if is_put {
            self.model.insert(key, seq);
        } else {
            self.model.remove(&key);
        }
    }

    fn is_full(&self) -> bool {
        self.memtable.len() >= self.memtable_count_max
    }

    /// Makes a table of level 0 of the memtable; returns its bytes.
    fn flush(&mut self) -> u64 {
        let entries: Vec<_> = std::mem::take(&mut self.memtable).into_values().collect();
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        let bytes = entries.iter().map(|entry| entry.bytes()).sum();
        let table = self.make(entries, (0, 0));
        edit.added.push((Level::ZERO, table));
        self.install(&edit);
        self.flushed_bytes += bytes;
        bytes
    }

    /// The meta of a new table. Level 0 is ordered by the sequence numbers of its entries; what a
    /// merge zeroes elsewhere does not matter here, so that `seqs` may be wider.
    fn make(&mut self, entries: Vec<Entry>, seqs: (u64, u64)) -> TableMeta {
        let number = self.next_number;
        self.next_number += 1;
        let key = |entry: Option<&Entry>| format!("{:08}", entry.expect("an entry").key);
        let low = entries.iter().map(|entry| entry.seq).min().unwrap_or(0);
        let high = entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
        let seqs = if seqs == (0, 0) { (low, high) } else { seqs };
        let mut table = meta(number, &key(entries.first()), &key(entries.last()), seqs);
        table.file_bytes = entries.iter().map(|entry| entry.bytes()).sum();
        table.entry_count = entries.len() as u64;
        table.tombstone_count = entries.iter().filter(|entry| !entry.is_put).count() as u64;
        self.contents.insert(table.number, entries);
        table
    }

    fn install(&mut self, edit: &KeyspaceEdit) {
        let after = self.paper.apply(&self.version, edit);
        for table in self.version.obsoleted_by(edit) {
            self.contents.remove(&table.meta.number);
        }
        self.version = after.expect("the edit fits the tree");
        self.depth_max = self.depth_max.max(self.version.level0_depth());
    }

    fn pick(&self) -> Option<CompactionPlan> {
        pick(&self.version, &self.busy, &self.tuning).or_else(|| {
            let oldest = self.oldest_pin.min(self.last_seq);
            pick_garbage(&self.version, &self.busy, &self.tuning, seq(oldest))
        })
    }

    fn start(&mut self) {
        while self.running.len() < self.lane_count {
            let Some(plan) = self.pick() else { return };
            self.busy.insert(&plan);
            let bytes_left = if plan.is_move { 0 } else { plan.bytes() };
            if plan.input_level == Level::ZERO && !plan.is_move {
                let (above, all) = self.level0_plan_max;
                self.level0_plan_max =
                    (above.max(total_bytes(&plan.inputs)), all.max(plan.bytes()));
            }
            self.running.push(Running { plan, bytes_left });
        }
    }

    /// Lets compactions read `budget` bytes, those that run side by side alike.
    fn work(&mut self, mut budget: u64) {
        for step in 0.. {
            assert!(step < PLANS_MAX, "never comes to rest");
            self.start();
            let Some(least) = self.running.iter().map(|running| running.bytes_left).min() else {
                return;
            };
            let lanes = self.running.len() as u64;
            let share = least.min(budget / lanes);
            budget -= share * lanes;
            for running in &mut self.running {
                running.bytes_left -= share;
            }
            let Some(done) = self
                .running
                .iter()
                .position(|running| running.bytes_left == 0)
            else {
                return;
            };
            let plan = self.running.swap_remove(done).plan;
            self.busy.remove(&plan);
            self.carry_out(&plan);
        }
    }

    fn rest(&mut self) {
        self.work(u64::MAX / 4);
        assert!(self.busy.is_empty() && self.pick().is_none());
    }

    /// What is done while nobody writes.
    fn idle(&mut self) {
        self.rest();
        for step in 0.. {
            assert!(step < PLANS_MAX, "never comes to rest");
            let Some(plan) = pick_idle(&self.version, &self.busy, &self.tuning) else {
                return;
            };
            self.carry_out(&plan);
            self.rest();
        }
    }

    fn carry_out(&mut self, plan: &CompactionPlan) {
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        let inputs = plan
            .inputs
            .iter()
            .map(|t| (plan.input_level, t.meta.number));
        let over = plan
            .overlapping
            .iter()
            .map(|t| (plan.output_level, t.meta.number));
        edit.removed = inputs.chain(over).collect();
        if plan.is_move {
            let metas = plan.inputs.iter().map(|table| table.meta.clone());
            edit.added
                .extend(metas.map(|meta| (plan.output_level, meta)));
            return self.install(&edit);
        }
        for entries in self.merged(plan) {
            let bytes = entries.iter().map(|entry| entry.bytes()).sum::<u64>();
            self.compacted_bytes += bytes;
            if plan.reason == CompactionReason::Garbage {
                self.garbage_bytes += bytes;
            }
            let table = self.make(entries, (0, 0));
            edit.added.push((plan.output_level, table));
        }
        self.install(&edit);
    }

    /// What the job would write: of each key the newest entry, tombstones only above something
    /// older or when they are pinned.
    fn merged(&self, plan: &CompactionPlan) -> Vec<Vec<Entry>> {
        let mut newest: BTreeMap<u32, Entry> = BTreeMap::new();
        for table in plan.tables() {
            for entry in &self.contents[&table.meta.number] {
                let known = newest.entry(entry.key).or_insert(*entry);
                if known.seq < entry.seq {
                    *known = *entry;
                }
            }
        }
        let mut tables: Vec<Vec<Entry>> = vec![Vec::new()];
        let mut bytes = 0;
        for entry in newest.into_values() {
            let key = format!("{:08}", entry.key).into_bytes();
            let here = std::ops::Bound::Included(&key[..]);
            let is_needed = plan.output_level == Level::ZERO
                || entry.seq > self.oldest_pin
                || self.version.has_deeper(plan.output_level, here, here);
            if !entry.is_put && !is_needed {
                continue;
            }
            if bytes >= self.tuning.table_bytes_target {
                tables.push(Vec::new());
                bytes = 0;
            }
            bytes += entry.bytes();
            tables.last_mut().expect("there is one").push(entry);
        }
        tables.retain(|entries| !entries.is_empty());
        tables
    }

    /// The first entry that a get meets.
    fn get(&self, key: u32) -> Option<u64> {
        if let Some(entry) = self.memtable.get(&key) {
            return entry.is_put.then_some(entry.seq);
        }
        let name = format!("{key:08}").into_bytes();
        let level0 = self.version.sublevels().iter();
        let level0 = level0.filter_map(|run| run.find(&name));
        let deeper = Level::all()
            .skip(1)
            .filter_map(|level| self.version.find(level, &name));
        let entry = level0.chain(deeper).find_map(|table| {
            let entries = &self.contents[&table.meta.number];
            let at = entries.binary_search_by_key(&key, |entry| entry.key).ok()?;
            Some(entries[at])
        })?;
        entry.is_put.then_some(entry.seq)
    }

    fn check(&self) {
        self.version.check().expect("sound");
        for key in self.model.keys() {
            assert_eq!(self.get(*key), self.model.get(key).copied(), "{key}");
        }
    }

    fn bytes(&self) -> u64 {
        total_bytes(self.version.tables().map(|(_, table)| table))
    }

    fn live_bytes(&self) -> u64 {
        self.model.len() as u64 * PUT_BYTES
    }
}

/// What one flushed byte may cost at most: once to the base with all that lies there, then for each
/// level once more with a fan-out of what lies below.
fn write_amplification_max(sim: &Simulation) -> f64 {
    let shape = Shape::of(&sim.version, &sim.tuning);
    let at_a_time = sim.tuning.level0_table_count_trigger as u64 * sim.tuning.table_bytes_target;
    let base = shape.target(shape.base()).max(at_a_time);
    let steps = Level::all().skip(shape.base().index() + 1).count() as u64;
    1.0 + ratio(base, at_a_time) + ratio(steps * (sim.tuning.fan_out + 1), 1)
}

fn fill(sim: &mut Simulation, key_count: u32) {
    for key in 0..key_count {
        sim.write(key, true);
        if sim.is_full() {
            sim.flush();
            sim.work(u64::MAX / 4);
        }
    }
}

fn random_key(random: &mut Random, key_count: u32) -> u32 {
    u32::try_from(random.below(u64::from(key_count))).expect("below a key count")
}

/// Trees from a tenth of a base to forty of them, overwritten at random until each level was
/// replaced several times: what that writes, how deep level 0 becomes and what space it takes.
#[test]
fn costs_stay_within_theory_at_every_size() {
    for size in [1u32, 5, 10, 20, 40, 60, 80, 120, 200, 400] {
        let mut random = Random::printed("costs", u64::from(size));
        let mut sim = Simulation::new(100);
        let key_count = size * 40;
        fill(&mut sim, key_count);
        assert_eq!(sim.compacted_bytes, 0, "ascending keys are only moved");
        sim.flushed_bytes = 0;
        for _ in 0..(2 * size).max(60) {
            while !sim.is_full() {
                let key = random_key(&mut random, key_count);
                sim.write(key, true);
                if sim.memtable.len() == key_count as usize {
                    break;
                }
            }
            let bytes = sim.flush();
            sim.work(bytes * 30);
        }
        let cost = ratio(sim.compacted_bytes, sim.flushed_bytes);
        let cost_max = write_amplification_max(&sim);
        sim.rest();
        let level0 = sim.version.level_bytes(Level::ZERO);
        let space = ratio(sim.bytes() - level0, sim.live_bytes());
        let base = Shape::of(&sim.version, &sim.tuning).base();
        println!(
            "{:>5.1} bases, {base}: written {cost:.2} of {cost_max:.2}, depth {}, space {space:.3}",
            f64::from(size) / 10.0,
            sim.depth_max
        );
        assert!(cost <= cost_max);
        assert!(sim.depth_max <= 2 * sim.tuning.level0_table_count_trigger);
        // The base level may be half a fan-out of bases large before the next one is used, and
        // holds a table or two more than its target.
        let (above, all) = sim.level0_plan_max;
        let tuning = &sim.tuning;
        let base_max = tuning.level_base_bytes * tuning.fan_out / 2;
        println!("one compaction of level 0: {above} of it, {all} in all");
        assert!(above <= tuning.compaction_bytes_max);
        assert!(all <= above + base_max + base_max / 4, "{all}");
        assert!(
            space <= 1.15,
            "a ninth above the last level, and what a table overshoots"
        );
        sim.check();
    }
}

/// Ten thousand flushes of every kind of write, by as many lanes and at such a speed as chance has
/// it: nothing is lost or comes back, level 0 stays shallow, everything comes to rest.
#[test]
fn ten_thousand_flushes_keep_every_promise() {
    for seed in 0..5 {
        let mut random = Random::printed("flushes", seed);
        let mut sim = Simulation::new(30);
        let mut key_count = 300;
        for round in 0..2000u32 {
            if round % 400 == 0 {
                sim.lane_count = 1 + random.index(3);
                key_count = [300, 3_000, 20_000][random.index(3)];
                if random.one_in(2) {
                    sim.oldest_pin = sim.last_seq;
                } else {
                    sim.oldest_pin = u64::MAX;
                }
            }
            let start = random_key(&mut random, key_count);
            let pattern = random.below(4);
            while !sim.is_full() {
                let offset = u32::try_from(sim.memtable.len()).expect("small");
                let key = match pattern {
                    0 | 1 => random_key(&mut random, key_count),
                    _ => start + offset,
                };
                let is_put = pattern != 3 && !(pattern == 1 && random.one_in(3));
                sim.write(key, is_put);
            }
            let bytes = sim.flush();
            sim.work(bytes * (15 + random.below(30)));
            if round % 100 == 0 {
                sim.check();
            }
        }
        assert!(sim.depth_max <= 4 * sim.tuning.level0_table_count_trigger);
        sim.oldest_pin = u64::MAX;
        sim.rest();
        sim.check();
        let cost = ratio(sim.compacted_bytes, sim.flushed_bytes);
        let garbage = ratio(sim.garbage_bytes, sim.flushed_bytes);
        println!(
            "written {cost:.2}, for garbage {garbage:.2}, depth {}",
            sim.depth_max
        );
        assert!(cost <= 20.0);
    }
}

/// A tree with the old, static targets (each level ten times the one above, from level 1 on) works
/// from the first moment and ends in the new shape.
#[test]
fn a_tree_of_static_shape_is_taken_over() {
    let mut random = Random::printed("static", 3);
    let mut sim = Simulation::new(50);
    let levels: [(u8, u32, u32); 3] = [(3, 0, 9000), (2, 1000, 900), (1, 1200, 90)];
    for (index, start, count) in levels {
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        for first in (start..start + count).step_by(45) {
            let keys = first..(first + 45).min(start + count);
            keys.for_each(|key| sim.write(key, true));
            let entries = std::mem::take(&mut sim.memtable).into_values().collect();
            let table = sim.make(entries, (0, 0));
            edit.added.push((level(index), table));
        }
        sim.install(&edit);
    }
    sim.check();
    for _ in 0..100 {
        while !sim.is_full() {
            let key = random_key(&mut random, 9000);
            let is_put = !random.one_in(10);
            sim.write(key, is_put);
        }
        let bytes = sim.flush();
        sim.work(bytes * 30);
        sim.version.check().expect("sound");
    }
    sim.rest();
    sim.check();
    let shape = Shape::of(&sim.version, &sim.tuning);
    let drained = Level::all()
        .skip(1)
        .filter(|level| shape.is_drained(*level));
    assert!(
        drained
            .into_iter()
            .all(|level| sim.version.level(level).is_empty())
    );
    assert!(!sim.version.level(Level::LAST).is_empty());
}

/// Half of the keys are deleted and nothing is written afterwards.
#[test]
fn what_was_deleted_goes_without_being_asked() {
    for is_scattered in [false, true] {
        let mut sim = Simulation::new(100);
        fill(&mut sim, 10_000);
        sim.oldest_pin = sim.last_seq;
        for n in 0..5_000 {
            sim.write(if is_scattered { 2 * n } else { 3_000 + n }, false);
            if sim.is_full() {
                sim.flush();
                sim.work(u64::MAX / 4);
            }
        }
        // With a snapshot from before nothing can go, and nobody tries for ever.
        sim.rest();
        let (before, live) = (sim.bytes(), sim.live_bytes());
        assert!(before >= 2 * live);
        sim.oldest_pin = u64::MAX;
        sim.compacted_bytes = 0;
        sim.rest();
        sim.check();
        assert!(sim.bytes() <= live + live / 10, "{} of {live}", sim.bytes());
        let cost = ratio(sim.compacted_bytes, before - sim.bytes());
        assert!(cost <= 10.0, "wrote {cost:.1} bytes for each that went");
        let left: u64 = sim
            .version
            .tables()
            .map(|(_, t)| t.meta.tombstone_count)
            .sum();
        assert!(left <= 500, "{left} tombstones stayed");
    }
}

/// After random overwriting that ends anywhere, a pause leaves little above the last level, and few
/// runs of level 0, none of them smaller than all above it together.
#[test]
fn a_pause_leaves_little_above_the_last_level() {
    for size in [1u32, 5, 10, 20, 40, 80, 200, 400] {
        let mut random = Random::printed("pause", u64::from(size));
        let mut sim = Simulation::new(100);
        let key_count = size * 40;
        fill(&mut sim, key_count);
        let (mut space_max, mut runs_max, mut before_max): (f64, usize, f64) = (0.0, 0, 0.0);
        for _ in 0..100 {
            let count = 20 + random.below(80);
            for _ in 0..count {
                let key = random_key(&mut random, key_count);
                sim.write(key, true);
            }
            let bytes = sim.flush();
            sim.work(bytes * 30);
            if random.one_in(4) {
                sim.rest();
                before_max = before_max.max(ratio(sim.bytes(), sim.live_bytes()));
                sim.idle();
                space_max = space_max.max(ratio(sim.bytes(), sim.live_bytes()));
                runs_max = runs_max.max(sim.version.level0_depth());
                let runs = sim.version.sublevels();
                for (index, run) in runs.iter().enumerate().skip(1) {
                    let above: u64 = runs[..index].iter().map(|run| run.bytes()).sum();
                    assert!(run.bytes() > above, "could be one run: {index}");
                }
            }
        }
        println!(
            "{:>5.1} bases: space {before_max:.3}, after a pause {space_max:.3}, runs {runs_max}",
            f64::from(size) / 10.0
        );
        // A fan-out part above each level, and what is cut at whole tables.
        assert!(space_max <= 1.15, "{space_max}");
        assert!(runs_max < sim.tuning.level0_table_count_trigger);
        sim.check();
    }
}

/// A few writes, flushed at once, again and again, with pauses or without: what is written again is
/// bounded by what was flushed, whatever the size of the tree.
#[test]
fn a_trickle_rewrites_nothing_large() {
    for size in [20u32, 80, 400] {
        for has_pauses in [false, true] {
            let mut random = Random::printed("trickle", u64::from(size));
            let mut sim = Simulation::new(100);
            let key_count = size * 40;
            fill(&mut sim, key_count);
            sim.flushed_bytes = 0;
            sim.compacted_bytes = 0;
            for _ in 0..1000 {
                for _ in 0..3 {
                    let key = random_key(&mut random, key_count);
                    sim.write(key, true);
                }
                sim.flush();
                if has_pauses {
                    sim.idle();
                } else {
                    sim.rest();
                }
            }
            sim.check();
            let cost = ratio(sim.compacted_bytes, sim.flushed_bytes);
            println!("{size}: written {cost:.2}, with pauses: {has_pauses}");
            // Down at a fan-out and a bit for each of two levels, and joined a few times before.
            assert!(cost <= 2.0 * 11.0 + 8.0, "{cost}");
        }
    }
}
