//! How a cursor finds the next key to show from where its merge stands, and what it counts of the
//! entries that it walks over for that.

use base::cursor::Cursor as _;
use base::{KeyKind, Result};

use super::account::Walk;
use super::bounds::{is_after, is_before};
use super::{Cursor, Place};

impl Cursor {
    /// From where the merge stands, finds the first visible key; with `skip_key`, not `self.key`.
    #[inline]
    pub(super) fn settle_forward(&mut self, mut valid: bool, mut skip_key: bool) -> Result<bool> {
        let mut walk = Walk::default();
        while valid {
            let entry = self.merge.key();
            let is_too_new = entry.seq > self.scan.seq;
            if is_too_new || skip_key && entry.user_key == self.key.as_slice() {
                // What is too new is not hidden for good, and no flush would drop it.
                if !is_too_new {
                    self.walk_over(&mut walk);
                }
            } else {
                let kind = entry.kind;
                self.key.clear();
                self.key.extend_from_slice(entry.user_key);
                if is_after(&self.key, &self.upper) {
                    break;
                }
                if kind == KeyKind::Put {
                    self.place = Place::AtEntry;
                    self.account.shown_count += 1;
                    break;
                }
                // A tombstone hides everything older of its key.
                skip_key = true;
                self.walk_over(&mut walk);
            }
            valid = self.merge.next()?;
        }
        if walk.hidden_count > 0 {
            self.account.add_walk(walk, &self.scan.view.active);
        }
        Ok(self.is_valid())
    }

    /// From where the merge stands, finds the last visible key, going backward: over the versions
    /// of a key from the oldest to the newest that is visible.
    pub(super) fn settle_backward(&mut self, mut valid: bool) -> Result<bool> {
        let mut walk = Walk::default();
        let mut found = None;
        while valid {
            let entry = self.merge.key();
            if found.is_some() && entry.user_key != self.key.as_slice() {
                if found == Some(KeyKind::Put) {
                    break;
                }
                found = None;
            }
            if entry.seq <= self.scan.seq {
                let kind = entry.kind;
                if found.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.user_key);
                    if is_before(&self.key, &self.lower) {
                        break;
                    }
                }
                // The version it stood on before, of which it is not known any more where it lies.
                walk.hidden_count += u64::from(found == Some(KeyKind::Put));
                found = Some(kind);
                self.value.clear();
                if kind == KeyKind::Put {
                    self.value.extend_from_slice(self.merge.value());
                } else {
                    self.walk_over(&mut walk);
                }
            }
            valid = self.merge.prev()?;
        }
        if walk.hidden_count > 0 {
            self.account.add_walk(walk, &self.scan.view.active);
        }
        if found == Some(KeyKind::Put) {
            self.place = Place::BeforeEntry;
            self.account.shown_count += 1;
        }
        Ok(self.is_valid())
    }

    /// Counts the entry the merge stands on as hidden.
    #[inline]
    fn walk_over(&self, walk: &mut Walk) {
        let is_newest_run = self.merge.child_index() == 0;
        walk.hidden_count += 1;
        walk.active_count += u64::from(is_newest_run && self.has_active);
    }
}
