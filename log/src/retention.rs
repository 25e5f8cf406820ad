//! Which sealed segments may go. Pure: it decides, somebody else unlinks.

use base::{FileNumber, SequenceNumber};

use crate::segment::SealedSegment;

/// What is kept although nothing needs it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// At least so many bytes of the newest segments.
    pub keep_bytes: u64,
    /// Everything committed within so many microseconds.
    pub keep_micros: u64,
}

/// The segments that may go, oldest first: a prefix of `sealed`, which is ordered oldest first.
///
/// Never one that holds anything after `floor`, up to which everything is in tables, nor after any
/// of `cursors`, up to which named readers have come. A clock that jumps back makes it keep more.
pub fn removable(
    sealed: &[SealedSegment],
    floor: SequenceNumber,
    keep: &Retention,
    cursors: &[SequenceNumber],
    now_micros: u64,
) -> Vec<FileNumber> {
    let needed_after = cursors.iter().copied().fold(floor, SequenceNumber::min);
    let mut newer_bytes: u64 = sealed.iter().map(|segment| segment.bytes).sum();
    let mut gone = Vec::new();
    for segment in sealed {
        newer_bytes -= segment.bytes;
        let age_micros = now_micros.saturating_sub(segment.last_commit_micros);
        let is_young = keep.keep_micros > 0 && age_micros <= keep.keep_micros;
        if segment.last_seq > needed_after || is_young || newer_bytes < keep.keep_bytes {
            break;
        }
        gone.push(segment.number);
    }
    gone
}

#[cfg(test)]
mod tests;
