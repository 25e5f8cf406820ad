//! What a comparison runs: groups of rows. A group begins with new, empty databases; a row is one
//! workload, done by one engine after the other.

use base::{Error, Result};

use crate::bench::args::{Args, DEFAULT_BENCHMARKS};
use crate::bench::engine::{Commit, EngineName};
use crate::bench::workload::{self, Workload};

/// What `--engine` compares unless told otherwise.
const SHORT_BENCHMARKS: &str = "fillseq,fillrandom,overwrite,readrandom,readmissing,seekrandom,\
    readseq,readreverse";
/// Entries of a commit in the rows with batches of the preset.
const PRESET_BATCH: u64 = 100;
/// Entries read after each seek of the preset.
const PRESET_NEXTS: u64 = 10;
/// The preset reads one key for so many of `num`, and seeks one for twice as many.
const PRESET_READS_DIVISOR: u64 = 5;
/// The preset makes one synced commit in each thread for so many entries of `num`.
const PRESET_SYNCS_DIVISOR: u64 = 500;
/// Entries of a commit of `fillbatch`, as in db_bench.
const FILLBATCH_COUNT: u64 = 1000;
/// `fillsync` makes one commit for so many entries of `num`, as in db_bench.
const FILLSYNC_DIVISOR: u64 = 1000;

/// What the threads of a row do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Writes keys in order, each once, the threads taking turns at them.
    FillSeq,
    /// Writes keys drawn with repetition.
    FillRandom,
    /// Writes every key once, in random order.
    FillUnique,
    /// Gets keys drawn with repetition.
    ReadRandom,
    /// Gets keys that nobody wrote, between the others.
    ReadMissing,
    /// Seeks with a new cursor each time and reads on.
    SeekRandom,
    /// Seeks with one cursor and reads on.
    ReseekRandom,
    /// Reads from the first key up.
    ReadSeq,
    /// Reads from the last key down.
    ReadReverse,
    /// `ReadRandom`, beside one more thread that overwrites.
    ReadWhileWriting,
    /// Brings everything into one run.
    Compact,
    /// Waits until the process neither computes nor writes.
    Settle,
}

impl Work {
    const ALL: [(Self, &'static str); 12] = [
        (Self::FillSeq, "fillseq"),
        (Self::FillRandom, "fillrandom"),
        (Self::FillUnique, "filluniquerandom"),
        (Self::ReadRandom, "readrandom"),
        (Self::ReadMissing, "readmissing"),
        (Self::SeekRandom, "seekrandom"),
        (Self::ReseekRandom, "reseekrandom"),
        (Self::ReadSeq, "readseq"),
        (Self::ReadReverse, "readreverse"),
        (Self::ReadWhileWriting, "readwhilewriting"),
        (Self::Compact, "compact"),
        (Self::Settle, "waitforcompaction"),
    ];

    /// The name of it, between processes.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(work, _)| *work == self);
        found.map_or("", |(_, name)| name)
    }

    /// The work with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name)?;
        Some(found.0)
    }

    /// Whether it leaves pages for the operating system to write.
    pub(crate) const fn writes(self) -> bool {
        matches!(
            self,
            Self::FillSeq
                | Self::FillRandom
                | Self::FillUnique
                | Self::ReadWhileWriting
                | Self::Compact
                | Self::Settle
        )
    }
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// In the table; each its own.
    pub(crate) label: String,
    /// In the result line, as db_bench calls it.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) threads: usize,
    /// Operations of each thread.
    pub(crate) count: u64,
    /// Entries of a commit.
    pub(crate) batch: u64,
    /// Entries read after each seek.
    pub(crate) nexts: u64,
    /// Whether it follows on a full compaction, in the same group.
    pub(crate) is_compacted: bool,
    /// Whether it stands in the table.
    pub(crate) is_shown: bool,
    /// Part of the seed: `overwrite` does not repeat the keys of `fillrandom`.
    pub(crate) ordinal: u64,
}

impl Row {
    fn new(label: &str, name: &'static str, work: Work, count: u64) -> Self {
        Self {
            label: label.to_owned(),
            name,
            work,
            threads: 1,
            count: count.max(1),
            batch: 1,
            nexts: 0,
            is_compacted: false,
            is_shown: true,
            ordinal: 0,
        }
    }

    fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    fn batch(mut self, batch: u64) -> Self {
        self.batch = batch;
        self
    }

    fn nexts(mut self, nexts: u64) -> Self {
        self.nexts = nexts;
        self
    }

    fn hidden(mut self) -> Self {
        self.is_shown = false;
        self
    }

    fn compacted(mut self) -> Self {
        self.is_compacted = true;
        self
    }

    /// Whether `engine` has a sensible figure for this.
    pub(crate) fn is_for(&self, engine: EngineName) -> bool {
        if self.name == APPENDSYNC {
            return engine == EngineName::Raw;
        }
        match engine {
            EngineName::Raw => false,
            EngineName::Null => !matches!(self.work, Work::Compact | Work::Settle),
            _ => {
                let needs_compaction = self.is_compacted || self.work == Work::Compact;
                (!needs_compaction || engine.can_compact())
                    && (self.work != Work::ReseekRandom || engine.can_reseek())
            }
        }
    }
}

/// The row of the raw file, a yardstick for `fillsync`.
pub(crate) const APPENDSYNC: &str = "appendsync";
/// The row that later ones of the preset's table are derived from.
pub(crate) const FILLRANDOM: &str = "fillrandom";
/// The rest after [`FILLRANDOM`].
pub(crate) const FILLRANDOM_REST: &str = "fillrandom, rest";
/// The row whose latencies the preset's table shows.
pub(crate) const OVERWRITE: &str = "overwrite";
/// The last row of the preset's last group.
pub(crate) const LAST: &str = "compacted: readreverse";
/// The full compaction of the preset.
pub(crate) const COMPACTION: &str = "full compaction";
/// Synced writes of one thread.
pub(crate) const FILLSYNC_1: &str = "fillsync, 1 thread";
/// Synced writes of eight threads.
pub(crate) const FILLSYNC_8: &str = "fillsync, 8 threads";

/// Rows that one set of databases goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) commit: Commit,
    pub(crate) rows: Vec<Row>,
}

/// The groups of `args`.
///
/// # Errors
/// `InvalidArgument` for a workload that other engines have no counterpart to.
pub(crate) fn groups(args: &Args) -> Result<Vec<Group>> {
    let mut groups = match args.preset {
        Some(_) => preset(args),
        None => from_workloads(args)?,
    };
    let rows = groups.iter_mut().flat_map(|group| &mut group.rows);
    for (row, ordinal) in rows.zip(1..) {
        row.ordinal = ordinal;
    }
    Ok(groups)
}

/// The whole table: the fills that stand alone first, the long group of one database last.
fn preset(args: &Args) -> Vec<Group> {
    let num = args.num;
    let syncs = num / PRESET_SYNCS_DIVISOR;
    let alone = |commit, rows| Group { commit, rows };
    let mut groups = vec![
        alone(
            Commit::Os,
            vec![Row::new("fillseq", "fillseq", Work::FillSeq, num)],
        ),
        alone(
            Commit::Os,
            vec![
                Row::new(
                    "fillrandom, 2 threads",
                    "fillrandom",
                    Work::FillRandom,
                    num / 2,
                )
                .threads(2),
            ],
        ),
        alone(
            Commit::Os,
            vec![
                Row::new(
                    "fillrandom, batches of 100",
                    "fillbatch",
                    Work::FillRandom,
                    num,
                )
                .batch(PRESET_BATCH),
            ],
        ),
        alone(
            Commit::Disk,
            vec![
                Row::new("appendsync, raw file", APPENDSYNC, Work::FillRandom, syncs),
                Row::new(FILLSYNC_1, "fillsync", Work::FillRandom, syncs),
                Row::new(FILLSYNC_8, "fillsync", Work::FillRandom, syncs).threads(8),
            ],
        ),
    ];
    groups.push(alone(Commit::Os, long_group(args)));
    groups
}

/// One database from its fill to the reads after a full compaction.
fn long_group(args: &Args) -> Vec<Row> {
    let num = args.num;
    let mut rows = vec![
        Row::new(FILLRANDOM, "fillrandom", Work::FillRandom, num),
        Row::new(FILLRANDOM_REST, "waitforcompaction", Work::Settle, 1).hidden(),
        Row::new(OVERWRITE, "overwrite", Work::FillRandom, num),
    ];
    rows.extend(reads(args, ""));
    let reads_count = preset_reads(args);
    let beside = |label: &str| {
        Row::new(
            label,
            "readwhilewriting",
            Work::ReadWhileWriting,
            reads_count,
        )
    };
    rows.extend([
        beside("readwhilewriting, 1 reader"),
        beside("readwhilewriting, 2 readers").threads(2),
        Row::new(
            "rest before compaction",
            "waitforcompaction",
            Work::Settle,
            1,
        )
        .hidden(),
        Row::new(COMPACTION, "compact", Work::Compact, 1),
    ]);
    rows.extend(reads(args, "compacted: ").into_iter().map(Row::compacted));
    rows
}

fn preset_reads(args: &Args) -> u64 {
    u64::try_from(args.reads).unwrap_or(args.num / PRESET_READS_DIVISOR)
}

/// The reads of the preset, once the caches are warm.
fn reads(args: &Args, prefix: &str) -> Vec<Row> {
    let gets = preset_reads(args);
    let row =
        |label: &str, name, work, count| Row::new(&format!("{prefix}{label}"), name, work, count);
    vec![
        row("warming", "readrandom", Work::ReadRandom, gets).hidden(),
        row("readrandom", "readrandom", Work::ReadRandom, gets),
        row(
            "readrandom, 2 threads",
            "readrandom",
            Work::ReadRandom,
            gets,
        )
        .threads(2),
        row("readmissing", "readmissing", Work::ReadMissing, gets),
        row(
            "seekrandom + 10 next",
            "seekrandom",
            Work::SeekRandom,
            gets / 2,
        )
        .nexts(PRESET_NEXTS),
        row(
            "same, one cursor",
            "seekrandom",
            Work::ReseekRandom,
            gets / 2,
        )
        .nexts(PRESET_NEXTS),
        row("readseq", "readseq", Work::ReadSeq, args.num),
        row("readreverse", "readreverse", Work::ReadReverse, args.num),
    ]
}

/// One row for each workload of `--benchmarks`, a group from each that starts afresh.
fn from_workloads(args: &Args) -> Result<Vec<Group>> {
    let list = if args.benchmarks == DEFAULT_BENCHMARKS {
        workload::parse_list(SHORT_BENCHMARKS)?
    } else {
        args.requests()?
    };
    let mut groups: Vec<Group> = Vec::new();
    for request in list {
        let workload = request.workload;
        if (request.repeats, request.warmups) != (1, 0) {
            return Err(Error::invalid_argument(
                "with --engine every row is repeated by --repeats, not by brackets",
            ));
        }
        let row = row_of(workload, args)?;
        let commit = if args.switches.sync || workload == Workload::FillSync {
            Commit::Disk
        } else {
            Commit::Os
        };
        match groups.last_mut() {
            Some(group) if !workload.is_fresh() => group.rows.push(row),
            _ => groups.push(Group {
                commit,
                rows: vec![row],
            }),
        }
    }
    for group in &mut groups {
        let mut is_compacted = false;
        for row in &mut group.rows {
            is_compacted &= !row.work.writes();
            row.is_compacted = is_compacted;
            is_compacted |= row.work == Work::Compact;
        }
    }
    name_apart(&mut groups);
    Ok(groups)
}

fn row_of(workload: Workload, args: &Args) -> Result<Row> {
    let (num, reads) = (args.num, args.read_count());
    let seek = if args.switches.reuse_cursor {
        Work::ReseekRandom
    } else {
        Work::SeekRandom
    };
    let (work, count) = match workload {
        Workload::FillSeq | Workload::FillBatch => (Work::FillSeq, num),
        Workload::FillRandom | Workload::Overwrite => (Work::FillRandom, num),
        Workload::FillUniqueRandom => (Work::FillUnique, num),
        Workload::FillSync => (Work::FillRandom, num / FILLSYNC_DIVISOR),
        Workload::ReadRandom => (Work::ReadRandom, reads),
        Workload::ReadMissing => (Work::ReadMissing, reads),
        Workload::SeekRandom => (seek, reads),
        Workload::ReadSeq => (Work::ReadSeq, reads),
        Workload::ReadReverse => (Work::ReadReverse, reads),
        Workload::ReadWhileWriting => (Work::ReadWhileWriting, reads),
        Workload::Compact => (Work::Compact, 1),
        Workload::WaitForCompaction => (Work::Settle, 1),
        other => {
            return Err(Error::invalid_argument(format!(
                "'{}' cannot be compared between engines",
                other.name()
            )));
        }
    };
    let name = workload.name();
    let row = Row::new(name, name, work, count);
    let batch = match workload {
        Workload::FillBatch if args.batch_size == 1 => FILLBATCH_COUNT,
        _ => args.batch_size,
    };
    let threads = match work {
        Work::Compact | Work::Settle => 1,
        _ => args.threads,
    };
    Ok(row.threads(threads).batch(batch).nexts(args.seek_nexts))
}

/// Numbers rows that would have the same label.
fn name_apart(groups: &mut [Group]) {
    let labels: Vec<String> = groups
        .iter()
        .flat_map(|group| group.rows.iter().map(|row| row.label.clone()))
        .collect();
    let rows = groups.iter_mut().flat_map(|group| &mut group.rows);
    for (index, row) in rows.enumerate() {
        let earlier = labels[..index].iter().filter(|l| **l == row.label).count();
        if earlier > 0 {
            row.label = format!("{} ({})", row.label, earlier + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    fn planned(flags: &[&str]) -> Result<Vec<Group>> {
        let flags = std::iter::once("lsm-bench").chain(flags.iter().copied());
        groups(&Args::try_parse_from(flags).expect("the flags are right"))
    }

    #[test]
    fn the_preset_has_every_row_once() {
        let groups = planned(&["--preset=peers", "--engine=null"]).expect("planned");
        let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
        let labels: BTreeSet<&str> = rows.iter().map(|row| &*row.label).collect();
        assert_eq!(labels.len(), rows.len());
        for label in [FILLRANDOM, FILLRANDOM_REST, OVERWRITE, COMPACTION, LAST] {
            assert!(labels.contains(label), "{label} in {labels:?}");
        }
        assert_eq!(rows[0].count, 5_000_000, "the preset's own --num");
        assert_eq!(rows.last().map(|row| &*row.label), Some(LAST));
    }

    #[test]
    fn a_workload_that_starts_afresh_starts_a_group() {
        let groups = planned(&["--benchmarks=fillseq,readseq,fillsync,compact,readseq,readseq"])
            .expect("planned");
        let shape: Vec<_> = groups.iter().map(|g| (g.commit, g.rows.len())).collect();
        assert_eq!(shape, [(Commit::Os, 2), (Commit::Disk, 4)]);
        assert!(groups[1].rows[2].is_compacted && !groups[0].rows[1].is_compacted);
        assert_eq!(groups[1].rows[3].label, "readseq (3)");
    }

    #[test]
    fn rows_without_a_sensible_figure_are_left_out() {
        let groups = planned(&["--preset=peers"]).expect("planned");
        let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
        let count = |engine| rows.iter().filter(|row| row.is_for(engine)).count();
        assert_eq!(count(EngineName::Raw), 1);
        assert_eq!(count(EngineName::Siltstone), rows.len() - 1);
        assert_eq!(count(EngineName::Fjall), rows.len() - 3);
        assert!(count(EngineName::Lmdb) < count(EngineName::LevelDb));
        assert!(planned(&["--benchmarks=levelstats"]).is_err());
    }

    #[test]
    fn work_is_found_by_its_name() {
        for (work, name) in Work::ALL {
            assert_eq!(Work::parse(name), Some(work));
            assert_eq!(work.name(), name);
        }
    }
}
