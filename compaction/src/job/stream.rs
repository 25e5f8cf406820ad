//! The inner loop of every job: entries in order, a verdict on each, survivors out.

use std::ops::Bound;

use base::cursor::Cursor;
use base::error::{Error, ErrorKind, Result};
use base::sync::Arc;
use base::{InternalKey, KeyKind, Level, SequenceNumber};

use super::ranges::KeySpan;
use super::{JobStats, Stop};
use crate::levels::{Table, Version};
use crate::merge::Merge;
use crate::output::Outputs;
use crate::range::UserRange;
use crate::retention::{KeyState, Place, Retention, Verdict};

/// So many entries pass between two looks at the cancel flag: well under a millisecond.
const STOP_INTERVAL: u64 = 1024;

/// What lies below the output and is not part of the job.
pub(super) struct Below<'a> {
    /// Something older may hold any key.
    anything: bool,
    /// Tables of each deeper level, in key order.
    levels: Vec<&'a [Arc<Table>]>,
}

impl<'a> Below<'a> {
    /// Nothing is known: any key may have older versions.
    pub(super) const fn anything() -> Self {
        Self {
            anything: true,
            levels: Vec::new(),
        }
    }

    /// What `version` has below `level` within `range`.
    pub(super) fn of(
        version: &'a Version,
        level: Level,
        span: &KeySpan,
        range: &UserRange,
    ) -> Self {
        let within = |deeper| version.overlapping(deeper, range.lower(), range.upper());
        let levels = Level::all()
            .skip(level.index() + 1)
            .map(|deeper| span.tables(within(deeper)))
            .filter(|tables| !tables.is_empty())
            .collect();
        Self {
            anything: false,
            levels,
        }
    }

    /// Whether the output is the bottommost run of its range.
    fn is_nothing(&self) -> bool {
        !self.anything && self.levels.is_empty()
    }

    /// Whether something older may hold `user_key`. Asked in key order.
    fn may_hold(&mut self, user_key: &[u8]) -> bool {
        self.anything
            || self.levels.iter_mut().any(|tables| {
                while let [first, rest @ ..] = *tables
                    && first.meta.ends_before_key(user_key)
                {
                    *tables = rest;
                }
                tables
                    .first()
                    .is_some_and(|table| table.meta.contains(user_key))
            })
    }
}

/// One range of a job.
pub(super) struct Stream<'a, C> {
    pub(super) merge: Merge<C>,
    pub(super) retention: &'a Retention,
    pub(super) below: Below<'a>,
    pub(super) outputs: Outputs<'a>,
    pub(super) stats: JobStats,
    pub(super) stop: &'a Stop<'a>,
    /// Where all keys must lie, if that is known.
    pub(super) bounds: Option<&'a UserRange>,
}

/// The user key at hand, and what was seen of it.
struct Current {
    user_key: Vec<u8>,
    head: u64,
    last_seq: SequenceNumber,
    state: KeyState,
    any: bool,
}

impl<C: Cursor> Stream<'_, C> {
    /// Passes every entry of `span`.
    pub(super) fn run(&mut self, span: &KeySpan) -> Result<()> {
        let is_bottom = self.below.is_nothing();
        let mut live = match &span.from {
            None => self.merge.seek_to_first()?,
            Some(from) => self
                .merge
                .seek(InternalKey::seek_to(from, SequenceNumber::MAX))?,
        };
        let mut current = Current {
            user_key: Vec::new(),
            head: 0,
            last_seq: SequenceNumber::MAX,
            state: KeyState::new(),
            any: false,
        };
        while live {
            if self.stats.entries_in.is_multiple_of(STOP_INTERVAL) {
                self.stop.check()?;
            }
            let key = self.merge.key();
            let head = self.merge.head();
            if !current.any || head != current.head || key.user_key != current.user_key {
                if span
                    .to
                    .as_ref()
                    .is_some_and(|to| key.user_key >= to.as_slice())
                {
                    break;
                }
                if current.any && key.user_key < current.user_key.as_slice() {
                    return Err(out_of_order(&key));
                }
                if !current.any {
                    self.check_bounds(key.user_key)?;
                }
                self.stats.tombstones_dropped += u64::from(current.state.pending().is_some());
                current.user_key.clear();
                current.user_key.extend_from_slice(key.user_key);
                current.head = head;
                current.state = KeyState::new();
                current.any = true;
                self.outputs.begin_key(&current.user_key)?;
            } else if key.seq >= current.last_seq {
                if key.seq > current.last_seq {
                    return Err(out_of_order(&key));
                }
                // The same write in two runs; the newer run's stands.
                self.stats.entries_in += 1;
                self.stats.versions_dropped += 1;
                live = self.merge.next()?;
                continue;
            }
            current.last_seq = key.seq;
            self.pass(&mut current, is_bottom)?;
            live = self.merge.next()?;
        }
        self.stats.tombstones_dropped += u64::from(current.state.pending().is_some());
        if current.any {
            self.check_bounds(&current.user_key)?;
        }
        Ok(())
    }

    /// The plan looked at bounds to see what overlaps what. Since entries are in order, it is
    /// enough to look at the first and the last key.
    fn check_bounds(&self, user_key: &[u8]) -> Result<()> {
        let here = Bound::Included(user_key);
        if self.bounds.is_none_or(|bounds| bounds.meets(here, here)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corruption,
            "an input holds a key outside of its bounds",
        )
        .with_value("key", user_key.escape_ascii()))
    }

    /// Judges the entry at hand and writes what must be written.
    #[inline]
    fn pass(&mut self, current: &mut Current, is_bottom: bool) -> Result<()> {
        let key = self.merge.key();
        let place = Place {
            // Only a tombstone's fate depends on it.
            may_be_deeper: !is_bottom
                && key.kind == KeyKind::Delete
                && self.below.may_hold(&current.user_key),
            is_bottom,
        };
        let held = current.state.pending();
        self.stats.entries_in += 1;
        match self
            .retention
            .judge(&mut current.state, key.seq, key.kind, place)
        {
            Verdict::Keep(seq) => {
                if let Some(tombstone) = held {
                    let hiding = InternalKey::new(&current.user_key, tombstone, KeyKind::Delete);
                    self.outputs.add(hiding, &[])?;
                    self.stats.entries_out += 1;
                    Retention::settle(&mut current.state);
                }
                let kept = InternalKey::new(key.user_key, seq, key.kind);
                self.outputs.add(kept, self.merge.value())?;
                self.stats.entries_out += 1;
            }
            Verdict::DropOverwritten => self.stats.versions_dropped += 1,
            Verdict::Hold => self.stats.tombstones_dropped += u64::from(held.is_some()),
        }
        Ok(())
    }
}

/// Checksums were right, so a table was written wrongly, or another one lies in its place.
#[cold]
fn out_of_order(key: &InternalKey<'_>) -> Error {
    Error::new(
        ErrorKind::Corruption,
        "entries of the inputs are out of order",
    )
    .with_value("key", key.user_key.escape_ascii())
    .with_value("seq", key.seq)
}
