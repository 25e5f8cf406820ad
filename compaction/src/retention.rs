//! Which versions of a key survive a compaction. Pure: numbers in, verdicts out.
//!
//! The answer of every read that can still be made stays what it was: at each registered snapshot,
//! at the visible sequence, and at any sequence above. `job` walks the versions of one key from
//! newest to oldest and asks about each.
//!
//! A *pin* is a sequence number at which somebody may read: a snapshot or the visible sequence.
//! Pins cut the sequence numbers into stripes; of the versions in one stripe a reader sees only the
//! newest. Above the last pin every version can still become what a reader sees.

use base::{KeyKind, SequenceNumber};

/// The pins of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Ascending, without duplicates; the last one is the visible sequence.
    pins: Vec<SequenceNumber>,
    oldest: SequenceNumber,
}

/// What is known of the place the entries go to, for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether anything older than all inputs may hold the key: a deeper table, say.
    pub may_be_deeper: bool,
    /// Whether the output is the bottommost run of its range, in which sequences may be zeroed.
    pub is_bottom: bool,
}

/// What becomes of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with this sequence number.
    Keep(SequenceNumber),
    /// No reader sees it: a newer version hides it.
    DropOverwritten,
    /// It is a tombstone, and whether it stays depends on what follows: see [`KeyState::pending`].
    Hold,
}

/// The versions of one key seen so far, from newest to oldest.
#[derive(Clone, Copy, Debug)]
pub struct KeyState {
    /// The stripe of the version before.
    stripe: usize,
    pending: Option<SequenceNumber>,
}

impl KeyState {
    /// Before the newest version.
    pub const fn new() -> Self {
        Self {
            stripe: usize::MAX,
            pending: None,
        }
    }

    /// The tombstone that was held.
    ///
    /// It stays if a version that is kept follows, because it hides that one; it goes if another
    /// tombstone is held after it or the key ends, because then nothing is left to hide.
    pub const fn pending(&self) -> Option<SequenceNumber> {
        self.pending
    }
}

impl Default for KeyState {
    fn default() -> Self {
        Self::new()
    }
}

impl Retention {
    /// The rules under registered `snapshots`, in any order, and the `visible` sequence.
    pub fn new(snapshots: &[SequenceNumber], visible: SequenceNumber) -> Self {
        let mut pins = snapshots.to_vec();
        pins.push(visible);
        pins.sort_unstable();
        pins.dedup();
        let oldest = pins[0];
        Self { pins, oldest }
    }

    /// The lowest sequence at which somebody may read.
    pub fn oldest_pin(&self) -> SequenceNumber {
        self.oldest
    }

    /// How many pins are below `seq`: two versions between the same pins get the same number.
    #[inline]
    fn stripe(&self, seq: SequenceNumber) -> usize {
        // Nearly always there are no snapshots, or the version is older than all.
        if seq <= self.oldest {
            return 0;
        }
        self.pins.partition_point(|pin| *pin < seq)
    }

    /// Decides on the next older version of a key.
    ///
    /// After [`Verdict::Keep`] the caller writes [`KeyState::pending`], if there is one, before the
    /// version itself, and calls [`Retention::settle`].
    #[inline]
    pub fn judge(
        &self,
        state: &mut KeyState,
        seq: SequenceNumber,
        kind: KeyKind,
        place: Place,
    ) -> Verdict {
        let stripe = self.stripe(seq);
        let above_all = stripe == self.pins.len();
        if stripe == state.stripe && !above_all {
            return Verdict::DropOverwritten;
        }
        state.stripe = stripe;
        match kind {
            KeyKind::Delete if !place.may_be_deeper => {
                state.pending = Some(seq);
                Verdict::Hold
            }
            KeyKind::Put if place.is_bottom && stripe == 0 => Verdict::Keep(SequenceNumber::ZERO),
            KeyKind::Delete | KeyKind::Put => Verdict::Keep(seq),
        }
    }

    /// Says that the held tombstone, if any, was written.
    #[inline]
    pub fn settle(state: &mut KeyState) {
        state.pending = None;
    }
}

#[cfg(test)]
mod tests;
