//! How many pages the operating system has to write for the log: those that became dirty since
//! they were last written.
//!
//! A page that was synced while it was half full becomes dirty again with the next record, and one
//! that was made ready for stores is dirty before anything is stored. Positioned writes and stores
//! through a mapping dirty the same pages. What the system writes by itself in between, after half
//! a minute, is not known and not counted.

use std::ops::Range;

use super::{Log, State};
use crate::record::Position;

/// The unit in which the operating system writes files.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The account of the segments, the live one being charged when it is synced or left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageAccount {
    /// Of what is clean again, and of other files.
    charged_bytes: u64,
    /// The pages of the live segment before this are clean, except that the last may be written
    /// again.
    clean_upto: u64,
    /// What was made ready before this was synced since.
    clean_ready_upto: u64,
}

impl PageAccount {
    /// Takes in that a segment was begun, whose header, of `clean_upto` bytes, was synced before.
    pub(super) fn begin(&mut self, clean_upto: u64) {
        self.charged_bytes += pages(0, clean_upto);
        self.clean_upto = clean_upto;
        self.clean_ready_upto = 0;
    }

    /// Takes in that everything dirty was synced when what lies before `whole_upto` was whole and
    /// pages before `ready_upto` were made ready. Those that are stored to become dirty again.
    pub(super) fn sync(&mut self, whole_upto: u64, ready_upto: u64) {
        self.charged_bytes += self.dirty_bytes(whole_upto, ready_upto);
        self.clean_upto = self.clean_upto.max(whole_upto);
        self.clean_ready_upto = self.clean_ready_upto.max(ready_upto);
    }

    /// Takes in a small file that was written at once.
    pub(super) fn file(&mut self, bytes: u64) {
        self.charged_bytes += pages(0, bytes);
    }

    /// Takes in that pages of a segment that was left, which ends at `bytes`, were made ready.
    pub(super) fn left(&mut self, bytes: u64, ready: Range<u64>) {
        let from = ready.start.max(bytes).next_multiple_of(PAGE_BYTES);
        self.charged_bytes += pages(from, ready.end);
    }

    /// All pages that became dirty; those of the live segment by records up to `bytes` and by
    /// making them ready up to `ready_upto`.
    pub(super) fn bytes(&self, bytes: u64, ready_upto: u64) -> u64 {
        self.charged_bytes + self.dirty_bytes(bytes, ready_upto)
    }

    fn dirty_bytes(&self, bytes: u64, ready_upto: u64) -> u64 {
        let ahead = self.clean_ready_upto.max(bytes).max(self.clean_upto);
        let ahead = ahead.next_multiple_of(PAGE_BYTES);
        pages(self.clean_upto, bytes) + pages(ahead, ready_upto)
    }
}

/// The bytes of the pages that a write between these offsets makes dirty.
fn pages(from: u64, upto: u64) -> u64 {
    if upto <= from {
        return 0;
    }
    upto.next_multiple_of(PAGE_BYTES) - from / PAGE_BYTES * PAGE_BYTES
}

/// What a sync of the live segment finds dirty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dirty {
    bytes: u64,
    ready_upto: u64,
}

impl Log {
    /// What a sync of this segment that begins now will find dirty, if it is the live one. What
    /// becomes dirty while it goes on is not written by it.
    pub(super) fn dirty_of(&self, ordinal: u64) -> Option<Dirty> {
        let whole = self.completion.upto().position;
        let state = self.state.lock();
        let is_live = state.live.writer.header().ordinal == ordinal;
        (is_live && whole.ordinal == ordinal).then_some(Dirty {
            bytes: whole.offset,
            ready_upto: state.ready_upto,
        })
    }
}

impl State {
    /// Takes in that pages of a segment were made ready.
    pub(super) fn note_ready(&mut self, ordinal: u64, ready: Range<u64>) {
        if self.live.writer.header().ordinal == ordinal {
            self.ready_upto = self.ready_upto.max(ready.end);
            return;
        }
        // It was left meanwhile.
        let ends = self.rotated.iter().map(|rotated| &rotated.live.writer);
        let ends = ends.map(|writer| (writer.header().ordinal, writer.bytes()));
        let sealed = self.sealed.iter();
        let mut ends = ends.chain(sealed.map(|info| (info.ordinal, info.bytes)));
        if let Some((_, bytes)) = ends.find(|(found, _)| *found == ordinal) {
            self.pages.left(bytes, ready);
        }
    }

    /// Takes in that what was `dirty` in a segment was written by a sync.
    pub(super) fn note_written(&mut self, ordinal: u64, dirty: Dirty) {
        // What was left is charged already.
        if self.live.writer.header().ordinal == ordinal {
            self.pages.sync(dirty.bytes, dirty.ready_upto);
        }
    }

    /// Takes in that everything up to `end` was synced.
    pub(super) fn note_synced(&mut self, end: Position) {
        let before = self.durable_upto;
        if end > before {
            let is_same = end.ordinal == before.ordinal;
            self.synced_bytes = end.offset - if is_same { before.offset } else { 0 };
        }
        self.durable_upto = before.max(end);
    }

    /// All pages that became dirty, in bytes.
    pub(super) fn page_bytes(&self) -> u64 {
        let bytes = self.live.writer.bytes();
        self.pages.bytes(bytes, self.ready_upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_charged_again_when_it_was_synced_half_full() {
        let mut account = PageAccount::default();
        account.begin(64);
        assert_eq!(account.bytes(64, 0), 4096);
        assert_eq!(account.bytes(100, 0), 2 * 4096, "the header was synced");
        assert_eq!(account.bytes(4096, 0), 2 * 4096);
        assert_eq!(account.bytes(4097, 0), 3 * 4096);
        account.sync(5000, 0);
        assert_eq!(account.bytes(5000, 0), 3 * 4096);
        // Fifty synced records in one page.
        for record in 1..=50 {
            account.sync(5000 + record * 60, 0);
        }
        assert_eq!(account.bytes(8000, 0), 53 * 4096);
        account.sync(8192, 0);
        account.sync(8192, 0);
        assert_eq!(account.bytes(8192, 0), 54 * 4096);
        account.sync(9000, 0);
        account.begin(64);
        account.file(10);
        assert_eq!(account.bytes(64, 0), 57 * 4096);
    }

    #[test]
    fn pages_made_ready_are_dirty_and_stores_after_a_sync_make_them_so_again() {
        let mut account = PageAccount::default();
        account.begin(64);
        assert_eq!(account.bytes(64, 1 << 20), 1 << 20);
        assert_eq!(account.bytes(9000, 1 << 20), (1 << 20) + 4096);
        account.sync(8192, 1 << 20);
        let synced = (1 << 20) + 4096;
        assert_eq!(account.bytes(8192, 1 << 20), synced, "nothing was stored");
        assert_eq!(account.bytes(3 * 4096, 1 << 20), synced + 4096);
        let ready = (1 << 20) + 4096;
        assert_eq!(account.bytes(8192, ready), synced + 4096);
    }

    #[test]
    fn pages_made_ready_too_late_are_those_behind_the_end() {
        let mut account = PageAccount::default();
        account.begin(64);
        account.sync(5000, 0);
        account.begin(64);
        let before = account.bytes(64, 0);
        account.left(5000, 4096..16384);
        assert_eq!(account.bytes(64, 0), before + 2 * 4096);
        account.left(20_000, 8192..16384);
        assert_eq!(
            account.bytes(64, 0),
            before + 2 * 4096,
            "all were stored to"
        );
    }
}
