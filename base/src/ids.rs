//! Numbers that name things: files, keyspaces, levels. File names are made and read here only.

use std::fmt;
use std::path::{Path, PathBuf};

/// No file number, ordinal, epoch or count on disk is larger: at a thousand a second it takes nine
/// thousand years to get there. A file that says otherwise is damaged. Sums of many fit 64 bits.
pub const COUNT_MAX: u64 = 1 << 48;

/// The number of one file; a single counter names segments, tables and MANIFESTs alike.
///
/// A number is never given to a second file of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileNumber(pub u64);

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// Identifies a keyspace for ever; an id is not reused after the keyspace is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace on which `Db`'s own put, get and delete work.
    pub const DEFAULT: Self = Self(0);
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Depth in the tree: 0 holds flushed tables that may overlap, the others one sorted run each.
///
/// # Examples
/// ```
/// use base::Level;
/// assert_eq!(Level::ZERO.deeper().map(Level::index), Some(1));
/// assert_eq!(Level::LAST.deeper(), None);
/// assert_eq!(Level::all().count(), Level::COUNT);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// How many levels a tree has.
    pub const COUNT: usize = 8;
    /// The level that flushes write to.
    pub const ZERO: Self = Self(0);
    /// The deepest level.
    pub const LAST: Self = Self(7);

    /// The level with this index, or `None` beyond [`Level::LAST`].
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < Self::COUNT {
            Some(Self(index))
        } else {
            None
        }
    }

    /// Counted from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The index as the byte that is stored.
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// The next deeper level, or `None` below [`Level::LAST`].
    pub const fn deeper(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// All levels from the top.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..8u8).map(Self)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// The kinds of file a database directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `000012.log`: a segment of the log.
    Segment,
    /// `000012.idx`: the sparse index of a sealed segment.
    SegmentIndex,
    /// `000012.sst`: a table.
    Table,
    /// `MANIFEST-000012`.
    Manifest,
}

impl FileKind {
    /// The name of file `number` of this kind.
    pub fn file_name(self, number: FileNumber) -> String {
        match self {
            Self::Segment => format!("{number}.log"),
            Self::SegmentIndex => format!("{number}.idx"),
            Self::Table => format!("{number}.sst"),
            Self::Manifest => format!("MANIFEST-{number}"),
        }
    }

    /// `dir` joined with the name of file `number`.
    pub fn path(self, dir: &Path, number: FileNumber) -> PathBuf {
        dir.join(self.file_name(number))
    }

    /// Kind and number of a name that this engine makes, or `None` for any other name.
    ///
    /// Only names that [`FileKind::file_name`] would give back exactly are recognised, so a foreign
    /// file such as `7.log` is never taken for one of ours.
    pub fn parse(name: &str) -> Option<(Self, FileNumber)> {
        let (kind, digits) = if let Some(digits) = name.strip_prefix("MANIFEST-") {
            (Self::Manifest, digits)
        } else {
            let (digits, extension) = name.split_once('.')?;
            let kind = match extension {
                "log" => Self::Segment,
                "idx" => Self::SegmentIndex,
                "sst" => Self::Table,
                _ => return None,
            };
            (kind, digits)
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = FileNumber(digits.parse().ok()?);
        (kind.file_name(number) == name).then_some((kind, number))
    }
}

/// The file that names the live MANIFEST.
pub const CURRENT: &str = "CURRENT";
/// The file that becomes [`CURRENT`] by a rename.
pub const CURRENT_TEMPORARY: &str = "CURRENT.tmp";
/// The file whose advisory lock stands for the directory.
pub const LOCK: &str = "LOCK";
/// The folder into which recovery moves what it must not replay and must not delete.
pub const LOST: &str = "lost";
/// Keeps space back for deletes on a full disk; says nothing and can be removed at any time.
pub const RESERVE: &str = "RESERVE";
/// What an open database says of itself to other processes; can be removed at any time.
pub const STATS: &str = "STATS";
/// The file that becomes [`STATS`] by a rename.
pub const STATS_TEMPORARY: &str = "STATS.tmp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_foreign_names_are_refused() {
        for kind in [
            FileKind::Segment,
            FileKind::SegmentIndex,
            FileKind::Table,
            FileKind::Manifest,
        ] {
            for number in [0, 7, 999_999, 1_000_000, u64::MAX] {
                let number = FileNumber(number);
                assert_eq!(
                    FileKind::parse(&kind.file_name(number)),
                    Some((kind, number))
                );
            }
        }
        for foreign in [
            "7.log",
            "0000007.log",
            "00000a.log",
            "+00007.log",
            "000007.sst.bak",
            "MANIFEST-",
            "x",
        ] {
            assert_eq!(FileKind::parse(foreign), None, "{foreign}");
        }
    }
}
