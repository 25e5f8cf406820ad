//! The workloads by name.

use base::{Error, Result};

/// Something that `lsm-bench` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "`Workload::summary` says what each one does")]
pub enum Workload {
    FillSeq,
    FillRandom,
    FillUniqueRandom,
    FillBatch,
    FillSync,
    Overwrite,
    DeleteSeq,
    DeleteRandom,
    ReadRandom,
    ReadMissing,
    MultiReadRandom,
    ReadSeq,
    ReadReverse,
    SeekRandom,
    ReadWhileWriting,
    Compact,
    WaitForCompaction,
    Flush,
    Stats,
    LevelStats,
}

impl Workload {
    /// Every one, in the order of the help.
    pub const ALL: [Self; 20] = [
        Self::FillSeq,
        Self::FillRandom,
        Self::FillUniqueRandom,
        Self::FillBatch,
        Self::FillSync,
        Self::Overwrite,
        Self::DeleteSeq,
        Self::DeleteRandom,
        Self::ReadRandom,
        Self::ReadMissing,
        Self::MultiReadRandom,
        Self::ReadSeq,
        Self::ReadReverse,
        Self::SeekRandom,
        Self::ReadWhileWriting,
        Self::Compact,
        Self::WaitForCompaction,
        Self::Flush,
        Self::Stats,
        Self::LevelStats,
    ];

    /// The name on the command line and in the result line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FillSeq => "fillseq",
            Self::FillRandom => "fillrandom",
            Self::FillUniqueRandom => "filluniquerandom",
            Self::FillBatch => "fillbatch",
            Self::FillSync => "fillsync",
            Self::Overwrite => "overwrite",
            Self::DeleteSeq => "deleteseq",
            Self::DeleteRandom => "deleterandom",
            Self::ReadRandom => "readrandom",
            Self::ReadMissing => "readmissing",
            Self::MultiReadRandom => "multireadrandom",
            Self::ReadSeq => "readseq",
            Self::ReadReverse => "readreverse",
            Self::SeekRandom => "seekrandom",
            Self::ReadWhileWriting => "readwhilewriting",
            Self::Compact => "compact",
            Self::WaitForCompaction => "waitforcompaction",
            Self::Flush => "flush",
            Self::Stats => "stats",
            Self::LevelStats => "levelstats",
        }
    }

    /// What it does, for `--list`.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::FillSeq => "write num entries in key order into a new database",
            Self::FillRandom => "write num entries under keys drawn with repetition",
            Self::FillUniqueRandom => "write each of num keys once, in random order",
            Self::FillBatch => "as fillseq, 1000 entries (or batch_size) a commit",
            Self::FillSync => "write num/1000 random entries, each on the disk before the next",
            Self::Overwrite => "write num entries under random keys over what is there",
            Self::DeleteSeq => "delete num keys in order",
            Self::DeleteRandom => "delete num random keys",
            Self::ReadRandom => "get reads random keys",
            Self::ReadMissing => "get reads random keys that are not there, in the same range",
            Self::MultiReadRandom => "get reads random keys, 32 (or batch_size) a call",
            Self::ReadSeq => "read reads entries in key order",
            Self::ReadReverse => "read reads entries in reverse key order",
            Self::SeekRandom => "seek reads random keys and read seek_nexts entries after each",
            Self::ReadWhileWriting => "readrandom beside one more thread that overwrites",
            Self::Compact => "compact everything into the last level",
            Self::WaitForCompaction => "wait until flush and compaction have caught up",
            Self::Flush => "write the memtables to tables",
            Self::Stats => "print the counters of the engine",
            Self::LevelStats => "print the tables and bytes of each level",
        }
    }

    /// Whether it begins with a new, empty database.
    pub const fn is_fresh(self) -> bool {
        matches!(
            self,
            Self::FillSeq
                | Self::FillRandom
                | Self::FillUniqueRandom
                | Self::FillBatch
                | Self::FillSync
        )
    }

    /// The workload with this name.
    ///
    /// # Errors
    /// `InvalidArgument`, with the nearest name.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(found) = Self::ALL.into_iter().find(|w| w.name() == name) {
            return Ok(found);
        }
        let nearest = nearest(name, Self::ALL.map(Self::name));
        Err(Error::invalid_argument(format!(
            "unknown workload '{}'; the nearest is '{nearest}' (--list names them all)",
            name.escape_debug(),
        )))
    }
}

/// The workloads of a list with commas; empty names are passed over, as db_bench does.
///
/// # Errors
/// `InvalidArgument` for the first unknown name, and for a list without any.
pub fn parse_list(list: &str) -> Result<Vec<Workload>> {
    let workloads: Vec<_> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(Workload::parse)
        .collect::<Result<_>>()?;
    if workloads.is_empty() {
        return Err(Error::invalid_argument("--benchmarks names no workload"));
    }
    Ok(workloads)
}

/// The one of `known` that is most like `name`.
///
/// # Panics
/// If nothing is known.
pub(crate) fn nearest<const COUNT: usize>(
    name: &str,
    known: [&'static str; COUNT],
) -> &'static str {
    known
        .into_iter()
        .min_by_key(|known| distance(known, name))
        .expect("something is known")
}

/// How many letters must be changed, added or taken away to get from one word to the other
/// (Levenshtein, 1965).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own() {
        for workload in Workload::ALL {
            assert_eq!(Workload::parse(workload.name()).expect("known"), workload);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        for (wrong, nearest) in [
            ("fillrand", "'fillrandom'"),
            ("readsequential", "'readseq'"),
            ("overwite", "'overwrite'"),
            ("multiread", "'multireadrandom'"),
        ] {
            let error = Workload::parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains(nearest), "{error}");
        }
    }

    #[test]
    fn lists_are_split_at_commas() {
        let list = parse_list("fillseq,, readseq,").expect("known");
        assert_eq!(list, [Workload::FillSeq, Workload::ReadSeq]);
        assert!(parse_list(",").is_err());
    }
}
