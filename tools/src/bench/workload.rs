//! The workloads by name.

use base::{Error, Result};

/// More runs of one workload than anybody waits for.
const RUNS_MAX: u32 = 1000;

/// Makes the enum, the list of all, their names and what they do.
macro_rules! workloads {
    ($($variant:ident $name:literal $summary:literal,)+) => {
        /// Something that `lsm-bench` can run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Workload {
            $(#[doc = $summary] $variant,)+
        }

        impl Workload {
            /// Every one, in the order of the help.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name on the command line and in the result line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it does, for `--list`.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)+
                }
            }
        }
    };
}

workloads! {
    FillSeq "fillseq" "write num entries in key order into a new database",
    FillRandom "fillrandom" "write num entries under keys drawn with repetition",
    FillUniqueRandom "filluniquerandom" "write each of num keys once, in random order",
    FillBatch "fillbatch" "as fillseq, 1000 entries (or batch_size) a commit",
    FillSync "fillsync" "write num/1000 random entries, each on the disk before the next",
    Fill100K "fill100K" "write num/1000 random entries of 100,000 bytes",
    Overwrite "overwrite" "write num entries under random keys over what is there",
    DeleteSeq "deleteseq" "delete num keys in order",
    DeleteRandom "deleterandom" "delete num random keys",
    ReadRandom "readrandom" "get reads random keys",
    ReadMissing "readmissing" "get reads random keys that are not there, in the same range",
    ReadHot "readhot" "get reads random keys from the first hundredth of the range",
    MultiReadRandom "multireadrandom" "get reads random keys, 32 (or batch_size) a call",
    ReadSeq "readseq" "read reads entries in key order",
    ReadReverse "readreverse" "read reads entries in reverse key order",
    NewIterator "newiterator" "make and drop reads cursors",
    SeekRandom "seekrandom" "seek reads random keys and read seek_nexts entries after each",
    SeekRandomWhileWriting "seekrandomwhilewriting"
        "seekrandom beside one more thread that overwrites",
    ReadWhileWriting "readwhilewriting" "readrandom beside one more thread that overwrites",
    ReadWhileScanning "readwhilescanning" "readrandom beside one more thread that reads all",
    ReadRandomWriteRandom "readrandomwriterandom"
        "get or overwrite reads random keys, readwritepercent of them gets",
    UpdateRandom "updaterandom" "get writes random keys and overwrite each",
    AppendRandom "appendrandom" "get writes random keys and put each back longer by a value",
    MixGraph "mixgraph" "gets, puts and scans as a social graph makes them (FAST 2020)",
    TimeSeries "timeseries"
        "read all rows of random series beside a writer of rows that drops old ones",
    YcsbA "ycsba" "YCSB A: half reads, half updates, zipfian",
    YcsbB "ycsbb" "YCSB B: 95 % reads, 5 % updates, zipfian",
    YcsbC "ycsbc" "YCSB C: reads, zipfian",
    YcsbD "ycsbd" "YCSB D: 95 % reads of the latest, 5 % inserts",
    YcsbE "ycsbe" "YCSB E: 95 % scans of 1 to 100 from a zipfian key, 5 % inserts",
    YcsbF "ycsbf" "YCSB F: half reads, half read-modify-writes, zipfian",
    Queue "queue" "first in, first out: put at the tail, find and delete the head, all new",
    StallProbe "stallprobe"
        "overwrites that arrive at arrival_rate, timed from when they were due",
    Recover "recover" "kill a process with num entries just written, and open its database",
    DiskFull "diskfull" "fill a small disk, delete, and go on writing on the same handle",
    Amp "amp" "overwrite num entries and print amplification as it grows, a line for each tenth",
    Compact "compact" "compact everything into the last level",
    WaitForCompaction "waitforcompaction" "wait until flush and compaction have caught up",
    Flush "flush" "write the memtables to tables",
    VerifyChecksum "verifychecksum" "read every table and check every checksum",
    Crc32 "crc32" "checksum blocks of 4096 bytes, 500 MB or reads of them",
    Compress "compress" "compress blocks of 4096 bytes with zstd, 500 MB or reads of them",
    Uncompress "uncompress" "and the way back",
    Stats "stats" "print the counters of the engine",
    LevelStats "levelstats" "print the tables and bytes of each level",
    SsTables "sstables" "print every table: level, number, bytes, entries and keys",
}

/// A workload and how often it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which.
    pub workload: Workload,
    /// Runs that count.
    pub repeats: u32,
    /// Runs before them that do not.
    pub warmups: u32,
}

impl Workload {
    /// Whether it begins with a new, empty database.
    pub const fn is_fresh(self) -> bool {
        matches!(
            self,
            Self::FillSeq
                | Self::FillRandom
                | Self::FillUniqueRandom
                | Self::FillBatch
                | Self::FillSync
                | Self::Fill100K
                | Self::Queue
        )
    }

    /// Whether it is about data that is there, which is written first if there is none.
    pub const fn needs_data(self) -> bool {
        matches!(
            self,
            Self::MixGraph
                | Self::YcsbA
                | Self::YcsbB
                | Self::YcsbC
                | Self::YcsbD
                | Self::YcsbE
                | Self::YcsbF
                | Self::StallProbe
                | Self::Amp
        )
    }

    /// Whether --reads says how much it does, rather than --writes.
    pub const fn is_reading(self) -> bool {
        matches!(
            self,
            Self::ReadRandom
                | Self::ReadMissing
                | Self::ReadHot
                | Self::MultiReadRandom
                | Self::ReadSeq
                | Self::ReadReverse
                | Self::NewIterator
                | Self::SeekRandom
                | Self::SeekRandomWhileWriting
                | Self::ReadWhileWriting
                | Self::ReadWhileScanning
                | Self::ReadRandomWriteRandom
                | Self::MixGraph
                | Self::TimeSeries
                | Self::YcsbA
                | Self::YcsbB
                | Self::YcsbC
                | Self::YcsbD
                | Self::YcsbE
                | Self::YcsbF
        )
    }

    /// Whether it does one thing whose progress nobody sees, or as many as it finds.
    pub const fn is_one_operation(self) -> bool {
        matches!(
            self,
            Self::Recover
                | Self::DiskFull
                | Self::Compact
                | Self::WaitForCompaction
                | Self::Flush
                | Self::VerifyChecksum
                | Self::Crc32
                | Self::Compress
                | Self::Uncompress
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

impl Request {
    /// One run of `workload`.
    pub const fn once(workload: Workload) -> Self {
        Self {
            workload,
            repeats: 1,
            warmups: 0,
        }
    }

    /// `name`, or `name[X5-W2]` for five runs after two that do not count; either part may be
    /// left out.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown name, with the nearest, and for other brackets.
    ///
    /// # Examples
    /// ```
    /// use tools::bench::workload::{Request, Workload};
    /// let request = Request::parse("readrandom[X5-W2]")?;
    /// assert_eq!(request.workload, Workload::ReadRandom);
    /// assert_eq!((request.repeats, request.warmups), (5, 2));
    /// assert!(Request::parse("readrandom[5]").is_err());
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let Some((name, rest)) = text.split_once('[') else {
            return Ok(Self::once(Workload::parse(text)?));
        };
        let mut request = Self::once(Workload::parse(name)?);
        request.set_counts(rest).ok_or_else(|| {
            Error::invalid_argument(format!(
                "'{}': after the name of a workload may stand [X5-W2], for 5 runs after 2 that do \
                 not count, each from 1 to {RUNS_MAX}",
                text.escape_debug()
            ))
        })?;
        Ok(request)
    }

    fn set_counts(&mut self, rest: &str) -> Option<()> {
        for part in rest.strip_suffix(']')?.split('-') {
            let (place, digits) = match (part.strip_prefix('X'), part.strip_prefix('W')) {
                (Some(digits), _) => (&mut self.repeats, digits),
                (_, Some(digits)) => (&mut self.warmups, digits),
                _ => return None,
            };
            *place = digits.parse().ok().filter(|n| (1..=RUNS_MAX).contains(n))?;
        }
        Some(())
    }
}

/// The workloads of a list with commas; empty names are passed over, as db_bench does.
///
/// # Errors
/// `InvalidArgument` for the first unknown name, and for a list without any.
pub fn parse_list(list: &str) -> Result<Vec<Request>> {
    let requests: Vec<_> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(Request::parse)
        .collect::<Result<_>>()?;
    if requests.is_empty() {
        return Err(Error::invalid_argument("--benchmarks names no workload"));
    }
    Ok(requests)
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
    fn brackets_say_how_often() {
        for (text, counts) in [
            ("fillseq", (1, 0)),
            ("fillseq[X3]", (3, 0)),
            ("fillseq[W2]", (1, 2)),
            ("fillseq[X10-W1]", (10, 1)),
        ] {
            let request = Request::parse(text).expect(text);
            assert_eq!((request.repeats, request.warmups), counts, "{text}");
        }
        for text in [
            "fillseq[",
            "fillseq[X]",
            "fillseq[X0]",
            "fillseq[3]",
            "fillseq[X3]x",
        ] {
            let error = Request::parse(text).expect_err(text).to_string();
            assert!(error.contains("[X5-W2]"), "{error}");
        }
    }

    #[test]
    fn lists_are_split_at_commas() {
        let list = parse_list("fillseq,, readseq,").expect("known");
        let once = [Workload::FillSeq, Workload::ReadSeq].map(Request::once);
        assert_eq!(list, once);
        assert!(parse_list(",").is_err());
    }
}
