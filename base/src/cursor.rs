//! The cursor over sorted entries, and the merge of several.

use crate::error::Result;
use crate::key::InternalKey;
use crate::slice::Slice;

/// A movable position in a sorted run of entries.
///
/// Lending: key and value are borrowed until the next move. A cursor starts nowhere; every move
/// returns whether it now stands on an entry. After an error the position is unspecified and the
/// cursor must be positioned anew. No move allocates in the steady state.
pub trait Cursor {
    /// Moves to the first entry.
    ///
    /// # Errors
    /// If a block cannot be read or is damaged; so for every move.
    fn seek_to_first(&mut self) -> Result<bool>;

    /// Moves to the last entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    fn seek_to_last(&mut self) -> Result<bool>;

    /// Moves to the first entry at or after `target`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool>;

    /// Moves to the last entry at or before `target`.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool>;

    /// Moves to the following entry. Must stand on an entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    fn next(&mut self) -> Result<bool>;

    /// Moves to the entry before. Must stand on an entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    fn prev(&mut self) -> Result<bool>;

    /// Whether it stands on an entry.
    fn is_valid(&self) -> bool;

    /// The key of the entry it stands on.
    ///
    /// # Panics
    /// If it stands on none; so for [`Cursor::value`].
    fn key(&self) -> InternalKey<'_>;

    /// The value of the entry it stands on; empty for a tombstone.
    fn value(&self) -> &[u8];

    /// How many entries directly behind the current one are known to come before `target`, or to be
    /// there at all if it is `None`, at the cost of one search: as far as the cursor sees without
    /// reading. Must stand on an entry. 0 is always right.
    fn ahead_before(&self, _target: Option<InternalKey<'_>>) -> usize {
        0
    }

    /// The value as an owned slice; a run that can pin its bytes does so instead of copying.
    fn value_slice(&self) -> Slice {
        Slice::copy_from(self.value())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Several cursors as one, in key order; works in both directions.
///
/// Of two entries that compare equal, the one of the cursor given first comes first, so runs are
/// given from newest to oldest. A binary heap of the children: a step costs one comparison while
/// the same child keeps winning, else about log2 of their number.
#[derive(Debug)]
pub struct MergeCursor<C> {
    children: Vec<C>,
    /// Indices of the valid children as a heap; the one that comes next in `direction` on top.
    heap: Vec<usize>,
    /// Which place of the heap comes directly behind the top; 0 where that is not known.
    second: usize,
    direction: Direction,
    scratch: Vec<u8>,
}

impl<C: Cursor> MergeCursor<C> {
    /// Merges `children`, newest run first.
    pub fn new(children: Vec<C>) -> Self {
        let heap = Vec::with_capacity(children.len());
        Self {
            children,
            heap,
            second: 0,
            direction: Direction::Forward,
            scratch: Vec::new(),
        }
    }

    /// The merged cursors, newest run first.
    pub fn children(&self) -> &[C] {
        &self.children
    }

    /// Which of the children has the entry it stands on.
    ///
    /// # Panics
    /// If it stands on none.
    #[inline]
    pub fn child_index(&self) -> usize {
        self.top()
    }

    fn comes_before(&self, a: usize, b: usize) -> bool {
        let ordering = self.children[a]
            .key()
            .cmp(&self.children[b].key())
            .then(a.cmp(&b));
        match self.direction {
            Direction::Forward => ordering.is_lt(),
            Direction::Backward => ordering.is_gt(),
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let mut best = left;
            if right < self.heap.len() && self.comes_before(self.heap[right], self.heap[left]) {
                best = right;
            }
            if !self.comes_before(self.heap[best], self.heap[at]) {
                if at == 0 {
                    self.second = best;
                }
                return;
            }
            self.heap.swap(best, at);
            at = best;
        }
    }

    fn rebuild(&mut self, direction: Direction) -> bool {
        self.direction = direction;
        self.heap.clear();
        self.second = 0;
        for (index, child) in self.children.iter().enumerate() {
            if child.is_valid() {
                self.heap.push(index);
            }
        }
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        !self.heap.is_empty()
    }

    fn position_all(
        &mut self,
        direction: Direction,
        mut position: impl FnMut(&mut C) -> Result<bool>,
    ) -> Result<bool> {
        self.heap.clear();
        for child in &mut self.children {
            position(child)?;
        }
        Ok(self.rebuild(direction))
    }

    /// Turns all other children round so that they stand just beyond the current entry.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let current = self.top();
        let key = self.children[current].key();
        let (seq, kind) = (key.seq, key.kind);
        let mut user_key = std::mem::take(&mut self.scratch);
        user_key.clear();
        user_key.extend_from_slice(key.user_key);
        let target = InternalKey::new(&user_key, seq, kind);
        for (index, child) in self.children.iter_mut().enumerate() {
            if index == current {
                continue;
            }
            match direction {
                Direction::Forward => {
                    // Equal entries of older runs follow, those of newer runs went before.
                    if child.seek(target)? && child.key() == target && index < current {
                        child.next()?;
                    }
                }
                Direction::Backward => {
                    if child.seek_for_prev(target)? && child.key() == target && index > current {
                        child.prev()?;
                    }
                }
            }
        }
        self.scratch = user_key;
        self.rebuild(direction);
        Ok(())
    }

    fn top(&self) -> usize {
        *self.heap.first().expect("the cursor stands on an entry")
    }

    #[inline]
    fn settle(&mut self, valid: bool) -> bool {
        let second = std::mem::take(&mut self.second);
        if !valid {
            self.heap.swap_remove(0);
            self.sift_down(0);
        } else if second == 0 {
            self.sift_down(0);
        } else if self.comes_before(self.heap[second], self.heap[0]) {
            self.heap.swap(0, second);
            self.sift_down(second);
        } else {
            // Mostly the same child keeps winning: one comparison.
            self.second = second;
        }
        !self.heap.is_empty()
    }
}

impl<C: Cursor> Cursor for MergeCursor<C> {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.position_all(Direction::Forward, C::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.position_all(Direction::Backward, C::seek_to_last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<bool> {
        self.position_all(Direction::Forward, |child| child.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<bool> {
        self.position_all(Direction::Backward, |child| child.seek_for_prev(target))
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        if self.direction == Direction::Backward {
            self.turn(Direction::Forward)?;
        }
        let top = self.top();
        let valid = match self.children[top].next() {
            Ok(valid) => valid,
            Err(error) => {
                self.heap.clear();
                return Err(error);
            }
        };
        Ok(self.settle(valid))
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        if self.direction == Direction::Forward {
            self.turn(Direction::Backward)?;
        }
        let top = self.top();
        let valid = match self.children[top].prev() {
            Ok(valid) => valid,
            Err(error) => {
                self.heap.clear();
                return Err(error);
            }
        };
        Ok(self.settle(valid))
    }

    #[inline]
    fn is_valid(&self) -> bool {
        !self.heap.is_empty()
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        self.children[self.top()].key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.children[self.top()].value()
    }

    fn value_slice(&self) -> Slice {
        self.children[self.top()].value_slice()
    }
}

#[cfg(any(test, feature = "testing"))]
mod vec_cursor;
#[cfg(any(test, feature = "testing"))]
pub use vec_cursor::{VecCursor, VecEntry};

#[cfg(test)]
mod tests;
