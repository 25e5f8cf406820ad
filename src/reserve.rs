//! Space kept back, so that deletes work on a full disk.
//!
//! A delete needs room in the log before it can free any in the tree. A file of a fixed length lies
//! in the directory for that, once the disk is not far from full. When a segment for a batch of
//! deletes cannot be made, the file is unlinked; from then on the rest of the disk is for deletes,
//! flush and compaction, and puts are refused until there is room for twice the file again.

use std::path::PathBuf;

use base::fs::FileSystem;
use base::sync::atomic::{AtomicU8, Ordering};
use base::sync::{Arc, Mutex};
use base::{Error, ErrorKind, Result, WriteOutcome, ids};

/// Not looked at yet, not needed so far, or could not be made.
const MISSING: u8 = 0;
const WHOLE: u8 = 1;
/// It was given up, and puts are refused.
const SPENT: u8 = 2;
/// Switched off, or the file system cannot reserve space.
const OFF: u8 = 3;

/// Space is kept back once no more than so many times as much is free, and no longer than until
/// there is twice that. More is not filled between two looks at it.
const NEAR_FACTOR: u64 = 16;

/// The file that keeps space back.
#[derive(Debug)]
pub(crate) struct SpaceReserve {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    bytes: u64,
    state: AtomicU8,
    /// LOCK: a leaf. Held while the file is made or unlinked.
    changing: Mutex<()>,
}

impl SpaceReserve {
    /// A reserve of `bytes` in `dir`, made by the first [`SpaceReserve::refill`]; none if it is 0.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: &std::path::Path, bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            fs,
            path: dir.join(ids::RESERVE),
            bytes,
            state: AtomicU8::new(if bytes == 0 { OFF } else { MISSING }),
            changing: Mutex::new(()),
        })
    }

    /// Notes that the open gave the space up: what is left is for deletes.
    pub(crate) fn note_spent(&self) {
        let _changing = self.changing.lock();
        if self.state.load(Ordering::Acquire) == MISSING {
            self.state.store(SPENT, Ordering::Release);
        }
    }

    /// Whether puts are to be refused.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.state.load(Ordering::Acquire) == SPENT
    }

    /// Gives the space up. Returns whether that freed any.
    pub(crate) fn spend(&self) -> bool {
        let _changing = self.changing.lock();
        if self.state.load(Ordering::Acquire) != WHOLE {
            return false;
        }
        let is_freed = self.fs.remove_file(&self.path).is_ok();
        if is_freed {
            self.state.store(SPENT, Ordering::Release);
        }
        is_freed
    }

    /// Looks how full the disk is. Makes the reserve whole if that is full enough and there is room
    /// for it, and gives it back where there is plenty.
    ///
    /// # Errors
    /// `NoSpace` while it is spent and there is no room; with outcome `Rejected`.
    pub(crate) fn refill(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == OFF {
            return Ok(());
        }
        let _changing = self.changing.lock();
        let state = self.state.load(Ordering::Acquire);
        match self.settle_locked(state) {
            Ok(next) => self.state.store(next, Ordering::Release),
            Err(error) if state == SPENT => {
                return Err(error.with_outcome(WriteOutcome::Rejected));
            }
            // It was never there: puts go as far as they get. Or it is there: that is known.
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether there is room for it and for as much again, without making it.
    ///
    /// # Errors
    /// As [`SpaceReserve::refill`].
    pub(crate) fn check_room(&self) -> Result<()> {
        let free = self.fs.free_bytes(base::fs::parent_of(&self.path));
        free.and_then(|free| self.check_free(free))
            .map_err(|error| error.with_outcome(WriteOutcome::Rejected))
    }

    fn check_free(&self, free: u64) -> Result<()> {
        if free >= self.bytes.saturating_mul(2) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NoSpace,
            "the disk is nearly full: the rest of it is kept for deletes",
        )
        .with_value("free", free)
        .with_path(base::fs::parent_of(&self.path)))
    }

    fn settle_locked(&self, state: u8) -> Result<u8> {
        let dir = base::fs::parent_of(&self.path);
        let free = self.fs.free_bytes(dir)?;
        let near = self.bytes.saturating_mul(NEAR_FACTOR);
        // Spent, there may still be what could neither be filled nor be removed.
        let is_there = state == WHOLE || self.find_locked()?;
        if is_there && free <= near.saturating_mul(2) {
            return Ok(WHOLE);
        }
        if is_there {
            self.fs.remove_file(&self.path)?;
        }
        if free > near {
            return Ok(MISSING);
        }
        self.check_free(free)?;
        let file = self.fs.create(&self.path)?;
        let reserved = file.reserve(self.bytes);
        if !matches!(reserved, Ok(true)) {
            // As well as it can: an empty file keeps nothing back and does no harm.
            let _ = self.fs.remove_file(&self.path);
        }
        Ok(if reserved? { WHOLE } else { OFF })
    }

    /// Whether an earlier open has left it whole. What is no good is removed.
    fn find_locked(&self) -> Result<bool> {
        match self.fs.status(&self.path)? {
            Some(found) if found.len == self.bytes => Ok(true),
            // Of an open with other options, or cut short by a crash.
            Some(_) => self.fs.remove_file(&self.path).map(|()| false),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base::fs::fault::{Fault, FaultError, OpKind};
    use base::fs::sim::SimFs;

    use super::*;

    const BYTES: u64 = 1 << 20;

    fn in_dir(fs: &Arc<SimFs>, bytes: u64) -> Arc<SpaceReserve> {
        fs.create_dir(Path::new("/db")).expect("a directory");
        SpaceReserve::new(Arc::clone(fs) as _, Path::new("/db"), bytes)
    }

    #[test]
    fn it_is_spent_once_and_comes_back_when_there_is_room_for_two() {
        let fs = SimFs::new(1);
        fs.set_quota(Some(NEAR_FACTOR * BYTES));
        let reserve = in_dir(&fs, BYTES);
        assert!(!reserve.spend(), "nothing was kept back yet");
        reserve.refill().expect("room");
        assert_eq!(fs.used_bytes(), BYTES);
        fs.set_quota(Some(BYTES));
        assert!(reserve.spend());
        assert!(!reserve.spend(), "it is gone");
        assert_eq!(fs.used_bytes(), 0);
        assert!(reserve.is_spent());
        let error = reserve.refill().expect_err("room for one only");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.outcome(), Some(WriteOutcome::Rejected));
        fs.set_quota(Some(2 * BYTES));
        reserve.refill().expect("room");
        assert!(!reserve.is_spent());
        assert_eq!(fs.used_bytes(), BYTES);
        // The next open finds it, and one with another length makes its own.
        let again = in_dir(&fs, BYTES);
        again.refill().expect("it is there");
        assert!(again.spend());
    }

    #[test]
    fn where_space_cannot_be_kept_back_nothing_is_refused() {
        let fs = SimFs::new(1);
        fs.set_quota(Some(4 * BYTES));
        for reserve in [in_dir(&fs, 0), in_dir(&fs, BYTES)] {
            fs.fail(Fault::new(OpKind::Reserve, FaultError::Eio));
            reserve.refill().expect("puts go on");
            assert!(!reserve.is_spent());
            assert!(!reserve.spend());
        }
        assert!(fs.paths().is_empty());
    }

    #[test]
    fn what_could_neither_be_filled_nor_removed_is_in_nobodys_way() {
        let fs = SimFs::new(1);
        fs.set_quota(Some(4 * BYTES));
        let reserve = in_dir(&fs, BYTES);
        reserve.refill().expect("room");
        assert!(reserve.spend());
        for kind in [OpKind::Reserve, OpKind::Remove] {
            fs.fail(Fault::new(kind, FaultError::Eio));
        }
        reserve.refill().expect_err("the disk fails");
        assert_eq!(fs.paths().len(), 1, "an empty file");
        assert!(reserve.is_spent());
        reserve.refill().expect("it works again");
        assert!(!reserve.is_spent());
        assert_eq!(fs.used_bytes(), BYTES);
    }

    #[test]
    fn nothing_is_kept_back_on_a_disk_that_is_far_from_full() {
        let fs = SimFs::new(1);
        let reserve = in_dir(&fs, BYTES);
        let kept_of = |free: u64| {
            fs.set_quota(Some(fs.used_bytes() + free));
            reserve.refill().expect("nothing is refused");
            assert!(!reserve.is_spent());
            fs.used_bytes()
        };
        assert_eq!(kept_of(NEAR_FACTOR * BYTES + 1), 0);
        assert!(!reserve.spend(), "nothing is there to be spent");
        assert_eq!(kept_of(NEAR_FACTOR * BYTES), BYTES);
        assert_eq!(kept_of(2 * NEAR_FACTOR * BYTES), BYTES, "not to and fro");
        assert_eq!(kept_of(2 * NEAR_FACTOR * BYTES + 1), 0);
        assert_eq!(kept_of(NEAR_FACTOR * BYTES), BYTES);
        // Spent, and then there is plenty at once.
        assert!(reserve.spend());
        assert_eq!(kept_of(2 * NEAR_FACTOR * BYTES), 0);
        assert_eq!(kept_of(2 * BYTES), BYTES);
        // A later open finds it, and has no need of it.
        fs.set_quota(None);
        in_dir(&fs, BYTES).refill().expect("nothing is refused");
        assert_eq!(fs.used_bytes(), 0);
    }
}
