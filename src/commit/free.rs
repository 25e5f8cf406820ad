//! Memtables that hold back the log are flushed before they are full.

use base::SequenceNumber;
use log::SealedSegment;

use super::{CommitPath, CommitState};
use crate::registry::Unflushed;

/// So many sealed segments may be held back by memtables that are small beside them.
const HELD_SEGMENT_COUNT: usize = 4;
/// A memtable is small if the segments it holds back are larger by this factor.
const SMALL_FACTOR: u64 = 4;

impl CommitPath {
    /// Seals memtables that hold back too much of the log, those with the oldest writes first.
    ///
    /// Looked at once a segment, so that a commit pays nothing for it.
    #[cold]
    pub(super) fn free_log_locked(&self, state: &CommitState) {
        let memtables = self.keyspaces.unflushed();
        let sealed = self.log.sealed();
        let visible = self.snapshots.visible();
        let total_bytes = self.log.total_bytes();
        let count =
            Held::new(&memtables, &sealed, visible).to_seal(total_bytes, self.log_bytes_max);
        for memtable in memtables.iter().take(count) {
            if !memtable.is_sealed {
                self.seal_locked(state, &memtable.keyspace);
            }
        }
    }
}

/// What of the log would go if the first so many memtables were flushed.
struct Held {
    /// For each count of memtables, from one on: sealed segments and bytes that would go, and what
    /// would have to be written for it.
    after: Vec<Freed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Freed {
    segment_count: usize,
    bytes: u64,
    flush_bytes: u64,
}

impl Held {
    /// `memtables` and `sealed` are in the order of their sequence numbers.
    fn new(memtables: &[Unflushed], sealed: &[SealedSegment], visible: SequenceNumber) -> Self {
        let floors: Vec<(SequenceNumber, u64)> = memtables
            .iter()
            .map(|memtable| {
                let to_write = if memtable.is_sealed {
                    0
                } else {
                    memtable.bytes
                };
                (memtable.first_seq.before(), to_write as u64)
            })
            .collect();
        Self::of(&floors, sealed, visible)
    }

    fn of(
        floors: &[(SequenceNumber, u64)],
        sealed: &[SealedSegment],
        visible: SequenceNumber,
    ) -> Self {
        let passed = |floor: SequenceNumber| sealed.partition_point(|s| s.last_seq <= floor);
        let held = sealed.get(floors.first().map_or(0, |(floor, _)| passed(*floor))..);
        let held = held.unwrap_or_default();
        let mut after = Vec::with_capacity(floors.len());
        let mut flush_bytes = 0;
        for (index, (_, bytes)) in floors.iter().enumerate() {
            flush_bytes += bytes;
            let floor = floors.get(index + 1).map_or(visible, |(floor, _)| *floor);
            let segment_count = held.partition_point(|segment| segment.last_seq <= floor);
            let gone = held.iter().take(segment_count);
            after.push(Freed {
                segment_count,
                bytes: gone.map(|segment| segment.bytes).sum(),
                flush_bytes,
            });
        }
        Self { after }
    }

    /// How many memtables are to be flushed, from the one with the oldest writes on.
    fn to_seal(&self, total_bytes: u64, bytes_max: u64) -> usize {
        if total_bytes > bytes_max {
            // Down to three quarters, so that the next segment is not over the limit again.
            let enough = total_bytes - bytes_max + bytes_max / 4;
            let at = self.after.iter().position(|freed| freed.bytes >= enough);
            return at.map_or(self.after.len(), |index| index + 1);
        }
        let (mut count, mut last) = (0, Freed::default());
        for (index, freed) in self.after.iter().enumerate() {
            let to_write = freed.flush_bytes - last.flush_bytes;
            let has_several = freed.segment_count - last.segment_count >= HELD_SEGMENT_COUNT;
            if has_several && to_write.saturating_mul(SMALL_FACTOR) <= freed.bytes - last.bytes {
                (count, last) = (index + 1, *freed);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use base::FileNumber;

    use super::*;

    fn seq(value: u64) -> SequenceNumber {
        SequenceNumber::new(value).expect("small")
    }

    /// Segments of a hundred writes and a thousand bytes each.
    fn segments(count: u64) -> Vec<SealedSegment> {
        let segment = |n: u64| SealedSegment {
            number: FileNumber(n),
            first_seq: seq(n * 100 + 1),
            last_seq: seq(n * 100 + 100),
            bytes: 1000,
            file_id: n,
            ordinal: n,
            last_commit_micros: 0,
        };
        (0..count).map(segment).collect()
    }

    fn to_seal(floors: &[(u64, u64)], total_bytes: u64) -> usize {
        let floors: Vec<_> = floors.iter().map(|(floor, b)| (seq(*floor), *b)).collect();
        Held::of(&floors, &segments(10), seq(1050)).to_seal(total_bytes, 20_000)
    }

    #[test]
    fn one_that_alone_holds_back_the_log_is_flushed() {
        assert_eq!(to_seal(&[(0, 100), (950, 900)], 10_000), 1);
        assert_eq!(to_seal(&[(600, 100), (950, 950)], 10_000), 0, "only three");
        assert_eq!(to_seal(&[(0, 3000), (950, 900)], 10_000), 0, "not small");
        assert_eq!(to_seal(&[(0, 100), (300, 100), (950, 900)], 10_000), 2);
        assert_eq!(to_seal(&[(1000, 900)], 10_000), 0, "nothing is held back");
        assert_eq!(to_seal(&[], 10_000), 0);
    }

    #[test]
    fn a_log_that_is_too_large_is_freed_from_its_old_end() {
        let floors = [(0, 5000), (100, 5000), (700, 5000), (1000, 10)];
        assert_eq!(to_seal(&floors, 15_100), 0);
        assert_eq!(to_seal(&floors, 20_100), 2);
        assert_eq!(to_seal(&floors, 23_000), 3);
        assert_eq!(to_seal(&floors, 90_000), 4);
    }
}
