//! Trees and questions as text, plans and trees as text back: `testdata/policy/*.txt`.
//!
//! A block is a command, `----`, and what it prints. `REWRITE=1` writes what is printed now; read
//! the difference as you would code.

use std::fmt::Write as _;
use std::path::Path;

use base::{FileNumber, KeyspaceId};

use super::*;
use crate::edit::KeyspaceEdit;
use crate::levels::TableMeta;
use crate::testing::{Paper, Random, level, meta, seq};

mod simulation;

/// More steps than any sound policy takes with a handful of tables.
const STEPS_MAX: usize = 200;

struct Script {
    paper: Paper,
    tuning: Tuning,
    version: Version,
    busy: InProgress,
    started: Vec<Option<CompactionPlan>>,
    next_number: u64,
    oldest_pin: u64,
}

impl Script {
    fn new() -> Self {
        Self {
            paper: Paper::new(),
            tuning: Tuning {
                level0_table_count_trigger: 2,
                level_base_bytes: 400,
                fan_out: 10,
                table_bytes_target: 100,
                compaction_bytes_max: 2000,
                bottom_compression: 0,
            },
            version: Version::empty(),
            busy: InProgress::default(),
            started: Vec::new(),
            next_number: 100,
            oldest_pin: 1_000_000,
        }
    }

    fn pick(&self) -> Option<CompactionPlan> {
        let plan = pick(&self.version, &self.busy, &self.tuning).or_else(|| {
            let oldest = seq(self.oldest_pin);
            pick_garbage(&self.version, &self.busy, &self.tuning, oldest)
        })?;
        self.check_plan(&plan);
        Some(plan)
    }

    /// What must hold of every plan, whoever made it.
    fn check_plan(&self, plan: &CompactionPlan) {
        let mut taken = self.busy.clone();
        taken.insert(plan);
        let ranges: Vec<_> = if plan.is_move {
            plan.inputs.iter().map(|table| table.meta.range()).collect()
        } else {
            vec![plan.range.clone()]
        };
        let taken = ranges
            .iter()
            .any(|range| self.busy.writes_to(plan.output_level, range));
        assert!(!taken, "{plan}");
        self.check_nothing_older_stays(plan);
        if plan.is_in_place() {
            self.check_in_place(plan);
        } else {
            self.check_way_down(plan, &ranges);
        }
    }

    fn check_nothing_older_stays(&self, plan: &CompactionPlan) {
        let all = self.version.level(plan.input_level);
        for input in &plan.inputs {
            assert!(plan.range.covers(&input.meta.range()), "{plan}");
            if plan.input_level == Level::ZERO && !plan.is_in_place() {
                let chosen = |table: &Table| {
                    plan.inputs
                        .iter()
                        .any(|input| input.meta.number == table.meta.number)
                };
                let left = all.iter().find(|table| {
                    table.meta.seq_largest < input.meta.seq_largest
                        && table.meta.overlaps(&input.meta)
                        && !chosen(table)
                });
                assert!(
                    left.is_none(),
                    "older {left:?} stays above {input:?}: {plan}"
                );
            }
        }
    }

    fn check_in_place(&self, plan: &CompactionPlan) {
        if plan.input_level == Level::ZERO {
            let seqs = plan.inputs.iter().map(|input| &input.meta);
            let low = seqs.clone().map(|meta| meta.seq_smallest).min();
            let high = seqs.map(|meta| meta.seq_largest).max();
            for other in self
                .version
                .level(Level::ZERO)
                .iter()
                .filter(|table| !taken_by(plan, table))
            {
                let apart =
                    Some(other.meta.seq_largest) < low || Some(other.meta.seq_smallest) > high;
                assert!(apart || !plan.range.overlaps(&other.meta.range()), "{plan}");
            }
            return;
        }
        let range = &plan.range;
        let within = self
            .version
            .overlapping(plan.input_level, range.lower(), range.upper());
        assert_eq!(
            within.len(),
            plan.inputs.len(),
            "an output could reach across: {plan}"
        );
    }

    fn check_way_down(&self, plan: &CompactionPlan, ranges: &[UserRange]) {
        assert!(plan.input_level < plan.output_level, "{plan}");
        for range in ranges {
            let passed_over = Level::all()
                .filter(|level| plan.input_level < *level && *level < plan.output_level)
                .any(|level| {
                    let here = self
                        .version
                        .overlapping(level, range.lower(), range.upper());
                    !here.is_empty() || self.busy.writes_to(level, range)
                });
            assert!(!passed_over, "would lie above what is newer: {plan}");
        }
        for input in &plan.inputs {
            let (from, to) = (input.meta.lower(), input.meta.upper());
            let touched = self.version.overlapping(plan.output_level, from, to);
            assert!(!plan.is_move || touched.is_empty(), "{plan}");
            let is_bottom = !self.version.has_deeper(plan.output_level, from, to);
            assert!(
                !plan.is_move || !is_bottom || input.meta.tombstone_count == 0,
                "{plan}"
            );
        }
        if !plan.is_move {
            let range = &plan.range;
            let touched = self
                .version
                .overlapping(plan.output_level, range.lower(), range.upper());
            let number = |table: &Arc<Table>| table.meta.number;
            assert!(
                touched
                    .iter()
                    .map(number)
                    .eq(plan.overlapping.iter().map(number)),
                "{plan}"
            );
        }
    }

    /// Carries `plan` out on paper: a compaction becomes one table of all its bytes.
    fn apply(&mut self, plan: &CompactionPlan) {
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        let inputs = plan
            .inputs
            .iter()
            .map(|table| (plan.input_level, table.meta.number));
        edit.removed.extend(inputs);
        let over = plan
            .overlapping
            .iter()
            .map(|table| (plan.output_level, table.meta.number));
        edit.removed.extend(over);
        if plan.is_move {
            let metas = plan.inputs.iter().map(|table| table.meta.clone());
            edit.added
                .extend(metas.map(|meta| (plan.output_level, meta)));
        } else {
            edit.added.push((plan.output_level, self.output(plan)));
        }
        self.version = self
            .paper
            .apply(&self.version, &edit)
            .expect("the plan fits the tree");
        self.version.check().expect("sound");
    }

    fn output(&mut self, plan: &CompactionPlan) -> TableMeta {
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("keys of tests are text");
        let seqs = |pick: fn(&TableMeta) -> u64| plan.tables().map(move |t| pick(&t.meta));
        let low = seqs(|meta| meta.seq_smallest.get())
            .min()
            .expect("an input");
        let high = seqs(|meta| meta.seq_largest.get()).max().expect("an input");
        let (from, to) = (text(&plan.range.from), text(&plan.range.to));
        let mut output = meta(self.next_number, &from, &to, (low, high));
        self.next_number += 1;
        output.file_bytes = plan.bytes();
        let range = &plan.range;
        if plan.output_level == Level::ZERO
            || self
                .version
                .has_deeper(plan.output_level, range.lower(), range.upper())
        {
            output.tombstone_count = seqs(|meta| meta.tombstone_count).sum();
            output.entry_count = 10 + output.tombstone_count;
        } else {
            output.compression = self.tuning.bottom_compression;
        }
        output
    }

    fn command(&mut self, text: &str) -> String {
        let mut lines = text.lines();
        let mut words = lines.next().expect("a command").split_whitespace();
        let verb = words.next().expect("a command");
        let words: Vec<_> = words.collect();
        let mut out = String::new();
        match verb {
            "tuning" => self.tune(&words),
            "tree" => out = self.tree(lines),
            "flush" => {
                for line in lines {
                    let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
                    edit.added.push((Level::ZERO, table(line)));
                    let after = self.paper.apply(&self.version, &edit);
                    self.version = after.expect("newer than what is there");
                }
            }
            "scores" => {
                let scores = scores(&self.version, &self.tuning);
                for (level, score) in scores.into_iter().filter(|(_, score)| *score > 0.0) {
                    writeln!(out, "{level} {score:.2}").expect("a string");
                }
            }
            "shape" => {
                let shape = Shape::of(&self.version, &self.tuning);
                writeln!(out, "base {}", shape.base()).expect("a string");
                for level in Level::all().skip(shape.base().index()) {
                    writeln!(out, "{level} {}", shape.target(level)).expect("a string");
                }
            }
            "pins" => self.oldest_pin = words[0].parse().expect("a number"),
            "pick" => writeln!(out, "{}", shown(self.pick().as_ref())).expect("a string"),
            "start" => {
                let plan = self.pick();
                writeln!(out, "{}", shown(plan.as_ref())).expect("a string");
                self.busy
                    .insert(plan.as_ref().expect("there is something to start"));
                self.started.push(plan);
            }
            "finish" => {
                let index: usize = words[0].parse().expect("an index");
                let plan = self.started[index].take().expect("it was started");
                self.busy.remove(&plan);
                self.apply(&plan);
                out = self.version.to_text();
            }
            "run" => out = self.run(|_| None),
            "rest" => {
                out = self.run(|this| pick_idle(&this.version, &this.busy, &this.tuning));
            }
            "compact" => self.compact(words[0], &mut out),
            "step" => {
                let at = level(words[0][1..].parse().expect("a level"));
                let (from, to) = bounds(words[1]);
                let (from, to) = (crate::range::borrowed(&from), crate::range::borrowed(&to));
                let plan = pick_manual(&self.version, &self.busy, &self.tuning, from, to, at);
                writeln!(out, "{}", shown(plan.as_ref())).expect("a string");
            }
            _ => panic!("unknown command {verb}"),
        }
        out
    }

    /// Carries out what is due, and then what `otherwise` gives, until there is nothing left.
    fn run(&mut self, otherwise: impl Fn(&Self) -> Option<CompactionPlan>) -> String {
        let mut out = String::new();
        for step in 0.. {
            assert!(step < STEPS_MAX, "never comes to rest: {out}");
            let Some(plan) = self.pick().or_else(|| otherwise(self)) else {
                break;
            };
            self.check_plan(&plan);
            writeln!(out, "{plan}").expect("a string");
            self.apply(&plan);
        }
        out + &self.version.to_text()
    }

    fn compact(&mut self, range: &str, out: &mut String) {
        let (from, to) = bounds(range);
        let mut request = ManualCompaction::new(from, to, FileNumber(self.next_number));
        for step in 0.. {
            assert!(step < STEPS_MAX, "never comes to rest: {out}");
            match request.step(&self.version, &self.busy, &self.tuning) {
                ManualStep::Run(plan) => {
                    self.check_plan(&plan);
                    writeln!(out, "{plan}").expect("a string");
                    self.apply(&plan);
                }
                ManualStep::Wait => {
                    out.push_str("wait\n");
                    return;
                }
                ManualStep::Done => break,
            }
        }
        *out += &self.version.to_text();
    }

    fn tune(&mut self, words: &[&str]) {
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            let value: u64 = value.parse().expect("a number");
            match name {
                "trigger" => {
                    self.tuning.level0_table_count_trigger = usize::try_from(value).expect("small");
                }
                "base" => self.tuning.level_base_bytes = value,
                "fan_out" => self.tuning.fan_out = value,
                "target" => self.tuning.table_bytes_target = value,
                "max" => self.tuning.compaction_bytes_max = value,
                "bottom" => self.tuning.bottom_compression = u8::try_from(value).expect("a byte"),
                _ => panic!("unknown number {name}"),
            }
        }
    }

    fn tree<'a>(&mut self, lines: impl Iterator<Item = &'a str>) -> String {
        let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
        for line in lines {
            let (at, rest) = line.split_once(": ").expect("level: tables");
            let at = level(at[1..].parse().expect("a level"));
            edit.added.push((at, table(rest)));
        }
        self.busy = InProgress::default();
        self.started.clear();
        match self.paper.apply(&Version::empty(), &edit) {
            Ok(version) => {
                self.version = version;
                self.version.to_text()
            }
            Err(error) => format!("{error}\n"),
        }
    }
}

fn taken_by(plan: &CompactionPlan, table: &Table) -> bool {
    let number = table.meta.number;
    plan.inputs.iter().any(|input| input.meta.number == number)
}

fn shown(plan: Option<&CompactionPlan>) -> String {
    plan.map_or("none".to_owned(), ToString::to_string)
}

/// `from..to`, both included; either may be left out.
fn bounds(text: &str) -> (std::ops::Bound<Vec<u8>>, std::ops::Bound<Vec<u8>>) {
    let bound = |key: &str| match key {
        "" => std::ops::Bound::Unbounded,
        key => std::ops::Bound::Included(key.as_bytes().to_vec()),
    };
    let (from, to) = text.split_once("..").expect("from..to");
    (bound(from), bound(to))
}

/// `number from..to`, then what differs from the usual: `bytes=`, `seqs=low-high`, ...
fn table(line: &str) -> TableMeta {
    let mut words = line.split_whitespace();
    let number: u64 = words.next().expect("a number").parse().expect("a number");
    let (from, to) = words
        .next()
        .expect("bounds")
        .split_once("..")
        .expect("from..to");
    let mut table = meta(number, from, to, (number, number));
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        let parsed = || value.parse::<u64>().expect("a number");
        match name {
            "bytes" => table.file_bytes = parsed(),
            "tombstones" => table.tombstone_count = parsed(),
            "hidden" => table.hidden_count = parsed(),
            "compression" => table.compression = u8::try_from(parsed()).expect("a byte"),
            "seqs" => {
                let (low, high) = value.split_once('-').expect("low-high");
                table.seq_smallest = seq(low.parse().expect("a number"));
                table.seq_largest = seq(high.parse().expect("a number"));
            }
            _ => panic!("unknown field {name}"),
        }
    }
    table
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "scripts are files of the source tree"
)]
fn scripts_print_what_they_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/policy");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let rewrite = std::env::var_os("REWRITE").is_some();
    for path in paths {
        println!("{}", path.display());
        let text = String::from_utf8(std::fs::read(&path).expect("readable")).expect("text");
        let mut script = Script::new();
        let mut printed = String::new();
        for block in text.trim_end().split("\n\n") {
            let (comment, block) = comment_of(block);
            let (command, wanted) = block.split_once("----").unwrap_or((block, ""));
            let found = script.command(command.trim_end());
            if !rewrite {
                assert_eq!(
                    found.trim_end(),
                    wanted.trim(),
                    "{}: {command}",
                    path.display()
                );
            }
            write!(printed, "{comment}{}\n----\n{found}\n", command.trim_end()).expect("a string");
        }
        if rewrite {
            std::fs::write(&path, format!("{}\n", printed.trim_end())).expect("writable");
        }
    }
}

/// The lines that begin with `#`, and the rest.
fn comment_of(block: &str) -> (&str, &str) {
    let len: usize = block
        .split_inclusive('\n')
        .take_while(|line| line.starts_with('#'))
        .map(str::len)
        .sum();
    block.split_at(len)
}

/// Random trees with plans that run at the same time, end in any order, and are joined by flushes
/// and requests: no plan breaks a rule, every edit fits, everything comes to rest.
#[test]
fn plans_that_run_together_never_collide() {
    for seed in 0..60 {
        let mut random = Random::printed("together", seed);
        let mut script = Script::new();
        script.tuning.level_base_bytes = 200 + 100 * random.below(4);
        script.tuning.fan_out = 2 + random.below(3);
        script.tuning.compaction_bytes_max = 500 + 500 * random.below(4);
        let mut request: Option<ManualCompaction> = None;
        for at in 1..400u64 {
            match random.below(6) {
                0 | 1 if script.version.level(Level::ZERO).len() < 12 => {
                    flush_on_paper(&mut script, &mut random, at);
                }
                2 | 3 => {
                    let due = scores(&script.version, &script.tuning);
                    let is_due = due.iter().any(|(_, score)| *score >= 1.0);
                    let picked = script.pick();
                    // What is due and not blocked must start, or writers stall for ever.
                    assert!(picked.is_some() || !is_due || !script.busy.is_empty());
                    if let Some(plan) = picked {
                        script.busy.insert(&plan);
                        script.started.push(Some(plan));
                    }
                }
                4 => {
                    let Some(pending) = &mut request else {
                        let (from, to) = bounds(["..", "k3..", "..k5"][random.index(3)]);
                        let next = FileNumber(script.next_number);
                        request = Some(ManualCompaction::new(from, to, next));
                        continue;
                    };
                    match pending.step(&script.version, &script.busy, &script.tuning) {
                        ManualStep::Run(plan) => {
                            script.check_plan(&plan);
                            script.busy.insert(&plan);
                            script.started.push(Some(plan));
                        }
                        ManualStep::Wait => assert!(!script.busy.is_empty(), "waits for nobody"),
                        ManualStep::Done => request = None,
                    }
                }
                _ if !script.started.is_empty() => {
                    let index = random.index(script.started.len());
                    let plan = script.started.swap_remove(index).expect("it was started");
                    script.busy.remove(&plan);
                    script.apply(&plan);
                }
                _ => {}
            }
        }
        for plan in std::mem::take(&mut script.started).into_iter().flatten() {
            script.busy.remove(&plan);
            script.apply(&plan);
        }
        assert!(script.busy.is_empty());
        script.command("run");
        let due = scores(&script.version, &script.tuning);
        assert!(due.iter().all(|(_, score)| *score < 1.0), "{due:?}");
    }
}

fn flush_on_paper(script: &mut Script, random: &mut Random, at: u64) {
    let mut keys = [random.below(90) + 10, random.below(90) + 10];
    keys.sort_unstable();
    let (from, to) = (format!("k{}", keys[0]), format!("k{}", keys[1]));
    let mut flushed = meta(script.next_number, &from, &to, (at, at));
    script.next_number += 1;
    flushed.file_bytes = 20 + random.below(150);
    flushed.tombstone_count = if random.one_in(3) {
        random.below(10)
    } else {
        0
    };
    let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
    edit.added.push((Level::ZERO, flushed));
    script.version = script.paper.apply(&script.version, &edit).expect("it fits");
}

/// Two compactions of the same inputs bring back what one of them dropped (rocksdb 6.11).
#[test]
#[should_panic(expected = "a table is in two compactions at once")]
fn no_table_is_taken_twice() {
    let mut script = Script::new();
    script.command("tree\nL0: 12 a..c\nL0: 11 a..c");
    let plan = script.pick().expect("due");
    script.busy.insert(&plan);
    script.busy.insert(&plan);
}

/// A table that leaves its level does not make it due again; one that is rewritten in place stays.
#[test]
fn only_tables_that_leave_are_left_out_of_the_scores() {
    let mut script = Script::new();
    script.command("tree\nL1: 11 a..c bytes=300 tombstones=1\nL1: 12 d..e bytes=300");
    let (from, to) = bounds("..");
    let mut request = ManualCompaction::new(from, to, FileNumber(100));
    let ManualStep::Run(plan) = request.step(&script.version, &script.busy, &script.tuning) else {
        panic!("there are tombstones");
    };
    assert!(plan.is_in_place());
    script.busy.insert(&plan);
    assert_eq!(
        shown(script.pick().as_ref()),
        "move L1 -> L7 level bytes: 000012"
    );
    script.busy.remove(&plan);
    script.command("start");
    script.busy.insert(&plan);
    assert_eq!(shown(script.pick().as_ref()), "none");
}

/// Level 0 is joined in itself while a request waits: what is old lies in a new table then.
#[test]
fn what_was_joined_after_the_request_is_compacted_all_the_same() {
    let mut script = Script::new();
    script.command("tree\nL0: 12 a..c seqs=15-30\nL7: 2 a..d seqs=1-9");
    let (from, to) = bounds("..");
    let request = ManualCompaction::new(from, to, FileNumber(13));
    let mut request = request.written_upto(seq(30));
    script.command("tree\nL0: 14 a..c seqs=31-40\nL0: 13 a..c seqs=15-30\nL7: 2 a..d seqs=1-9");
    let ManualStep::Run(plan) = request.step(&script.version, &script.busy, &script.tuning) else {
        panic!("table 13 holds what was there before");
    };
    let is_taken = plan.inputs.iter().any(|t| t.meta.number == FileNumber(13));
    assert!(is_taken, "{plan}");
    script.command("tree\nL0: 14 a..c seqs=31-40\nL7: 15 a..d seqs=1-30");
    let step = request.step(&script.version, &script.busy, &script.tuning);
    assert!(matches!(step, ManualStep::Done), "what is newer stays");
}
