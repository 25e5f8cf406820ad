//! The merge of compactions: forward only, without virtual calls, on 8-byte heads.
//!
//! Two runs, the usual case, are compared directly; more go through a loser tree, in which a step
//! costs one comparison per level of the tree (Knuth, The Art of Computer Programming 3, 5.4.1).
//! Full keys are compared only where heads tie. Entries that compare equal come in the order of
//! their runs, so runs are given from newest to oldest.
//!
//! Once a run has won several times in a row the merge *gallops* (the concept is timsort's): only
//! the second best run, the rival, can end that, and how many entries of the winner's block come
//! before the rival is searched once instead of being compared one by one. So inputs that do not
//! interleave cost one search a block.

use std::cmp::Ordering;

use base::InternalKey;
use base::cursor::Cursor;
use base::error::Result;
use base::key::head;

/// Several sorted runs as one. See the module.
///
/// After an error the position is unspecified.
#[derive(Debug)]
pub struct Merge<C> {
    runs: Vec<Run<C>>,
    /// Bytes that all keys begin with; heads start behind them.
    shared_len: usize,
    /// Run with the least entry; meaningless when that run is at its end.
    winner: usize,
    /// For more than two runs: at each inner node, the run that lost there. Node 1 is the root.
    losers: Vec<usize>,
    /// How often in a row the winner has won.
    streak: u32,
    /// While it gallops: the run that comes first without the winner.
    rival: Option<usize>,
    /// So many entries behind the current one are known to come before the rival.
    ahead: usize,
}

/// So many wins in a row make it gallop: as many as random turns of two runs rarely give, since
/// beginning to gallop costs a search.
const STREAK_MIN: u32 = 6;

#[derive(Debug)]
struct Run<C> {
    cursor: C,
    head: u64,
    /// Whether the cursor stands on an entry.
    live: bool,
}

impl<C: Cursor> Run<C> {
    #[inline]
    fn refresh(&mut self, live: bool, shared_len: usize) {
        self.live = live;
        if live {
            let user_key = self.cursor.key().user_key;
            // A key without what all share lies out of order; the caller, who looks at whole keys,
            // notices it.
            self.head = head(user_key.get(shared_len..).unwrap_or_default());
        }
    }
}

impl<C: Cursor> Merge<C> {
    /// Merges `runs`, newest first, none of which need be positioned.
    ///
    /// `shared_len` is how many bytes all keys that will be met begin with; 0 is always right, and
    /// more makes ties rarer.
    pub fn new(runs: Vec<C>, shared_len: usize) -> Self {
        let losers = if runs.len() > 2 {
            vec![0; runs.len()]
        } else {
            Vec::new()
        };
        let runs = runs
            .into_iter()
            .map(|cursor| Run {
                cursor,
                head: 0,
                live: false,
            })
            .collect();
        Self {
            runs,
            shared_len,
            winner: 0,
            losers,
            streak: 0,
            rival: None,
            ahead: 0,
        }
    }

    /// Moves to the first entry of all.
    ///
    /// # Errors
    /// As the cursors; so for every move.
    pub fn seek_to_first(&mut self) -> Result<bool> {
        for run in &mut self.runs {
            let live = run.cursor.seek_to_first()?;
            run.refresh(live, self.shared_len);
        }
        Ok(self.rebuild())
    }

    /// Moves to the first entry at or after `target`.
    ///
    /// # Errors
    /// As the cursors.
    pub fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        for run in &mut self.runs {
            let live = run.cursor.seek(target)?;
            run.refresh(live, self.shared_len);
        }
        Ok(self.rebuild())
    }

    /// Moves to the following entry. Must stand on one.
    ///
    /// # Errors
    /// As the cursors.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "a lending cursor, as base::cursor has it"
    )]
    pub fn next(&mut self) -> Result<bool> {
        let run = &mut self.runs[self.winner];
        debug_assert!(run.live, "the merge stands on an entry");
        let live = run.cursor.next()?;
        run.refresh(live, self.shared_len);
        // INVARIANT: the count was taken within the winner's block, which is still the same.
        if live && self.ahead > 0 {
            self.ahead -= 1;
            debug_assert!(
                self.rival
                    .is_none_or(|rival| !self.is_before(rival, self.winner)),
                "a block is in order"
            );
            return Ok(true);
        }
        self.ahead = 0;
        self.choose();
        Ok(self.is_valid())
    }

    /// Finds the new winner after the last one has moved.
    #[inline]
    fn choose(&mut self) {
        if let Some(rival) = self.rival {
            if !self.is_before(rival, self.winner) {
                self.look_ahead(rival);
                return;
            }
            self.rival = None;
        }
        let last = self.winner;
        match self.runs.len() {
            1 => return,
            2 => self.winner = usize::from(!self.is_before(0, 1)),
            _ => self.replay(),
        }
        self.streak = if self.winner == last {
            self.streak + 1
        } else {
            0
        };
        if self.streak >= STREAK_MIN {
            self.gallop();
        }
    }

    /// Begins to gallop.
    #[cold]
    fn gallop(&mut self) {
        self.streak = 0;
        let rival = match self.runs.len() {
            2 => 1 - self.winner,
            _ => self.second(),
        };
        self.rival = Some(rival);
        self.look_ahead(rival);
    }

    #[inline]
    fn look_ahead(&mut self, rival: usize) {
        let (winner, rival) = (&self.runs[self.winner], &self.runs[rival]);
        if winner.live {
            let target = rival.live.then(|| rival.cursor.key());
            self.ahead = winner.cursor.ahead_before(target);
        }
    }

    /// The best of those that lost against the winner itself: they lie on its way to the root.
    fn second(&self) -> usize {
        let mut node = (self.winner + self.runs.len()) >> 1;
        let mut best = self.losers[node];
        while node > 1 {
            node >>= 1;
            let other = self.losers[node];
            if self.is_before(other, best) {
                best = other;
            }
        }
        best
    }

    /// Whether it stands on an entry.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.runs.get(self.winner).is_some_and(|run| run.live)
    }

    /// The key it stands on.
    ///
    /// # Panics
    /// If it stands on none; so for [`Merge::value`].
    #[inline]
    pub fn key(&self) -> InternalKey<'_> {
        self.runs[self.winner].cursor.key()
    }

    /// The value it stands on; empty for a tombstone.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.runs[self.winner].cursor.value()
    }

    /// The head of the key it stands on: two entries with different heads have different keys.
    #[inline]
    pub fn head(&self) -> u64 {
        self.runs[self.winner].head
    }

    /// Whether run `a` comes before run `b`; a run at its end comes after all.
    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        let (left, right) = (&self.runs[a], &self.runs[b]);
        if !(left.live && right.live) {
            return left.live || (!right.live && a < b);
        }
        match left.head.cmp(&right.head) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => match left.cursor.key().cmp(&right.cursor.key()) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => a < b,
            },
        }
    }

    fn rebuild(&mut self) -> bool {
        (self.streak, self.rival, self.ahead) = (0, None, 0);
        match self.runs.len() {
            0 => return false,
            1 => self.winner = 0,
            2 => self.winner = usize::from(!self.is_before(0, 1)),
            _ => self.winner = self.play(1),
        }
        self.is_valid()
    }

    /// Plays all games below `node` and returns the winner. Leaf `count + i` is run `i`.
    ///
    /// As deep as the logarithm of the number of runs.
    fn play(&mut self, node: usize) -> usize {
        let count = self.runs.len();
        if node >= count {
            return node - count;
        }
        let left = self.play(2 * node);
        let right = self.play(2 * node + 1);
        let (winner, loser) = if self.is_before(left, right) {
            (left, right)
        } else {
            (right, left)
        };
        self.losers[node] = loser;
        winner
    }

    /// Plays the games on the way from the last winner's leaf to the root anew.
    #[inline]
    fn replay(&mut self) {
        let mut winner = self.winner;
        let mut node = (winner + self.runs.len()) >> 1;
        while node > 0 {
            let loser = self.losers[node];
            if self.is_before(loser, winner) {
                self.losers[node] = winner;
                winner = loser;
            }
            node >>= 1;
        }
        self.winner = winner;
    }
}

#[cfg(test)]
mod tests;
