//! The heavy part of some commits of the kill test. Writing it takes so long that lighter commits
//! of other threads overtake it, and that a kill often falls into the middle of it: what is
//! acknowledged, or shown to anybody, must not stand behind it.

use siltstone::{KeyspaceOptions, Slice};

use super::failure::{Outcome, finding};
use super::stream;
use crate::random::mix;

/// The keyspace of the ballast: under the key of each thread's note what the last heavy commit of
/// the thread brought.
pub(crate) const NAME: &str = "ballast";
/// Several of the largest ones fill a memtable, so that threads rarely wait to write one.
const MEMTABLE_BYTES_MAX: usize = 16 << 20;
const BYTES_OF_NUMBER: usize = 8;

/// Other than those of keyspaces which see light commits.
pub(crate) fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::new().memtable_bytes_max(MEMTABLE_BYTES_MAX)
}

/// The number of the commit, and what follows from it.
pub(crate) fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    let word = mix(number).to_le_bytes();
    value.extend(word.iter().cycle().take(bytes));
    value
}

/// The number of the commit that brought this.
pub(crate) fn number(found: Option<&Slice>) -> Outcome<u64> {
    let Some(value) = found else { return Ok(0) };
    match value.first_chunk::<BYTES_OF_NUMBER>() {
        Some(number) => Ok(u64::from_le_bytes(*number)),
        None => finding(format!("ballast of {} bytes", value.len())),
    }
}

/// The last heavy commit of `thread` up to `number`, and how heavy; 0 if there is none.
pub(crate) fn last(seed: u64, thread: usize, number: u64) -> (u64, usize) {
    let numbers = (1..=number).rev();
    numbers
        .map(|number| (number, stream::ballast_bytes(seed, thread, number)))
        .find(|&(_, bytes)| bytes > 0)
        .unwrap_or_default()
}

/// Compares what is found with what the commits of `thread` up to `number` brought.
pub(crate) fn check(found: Option<&Slice>, seed: u64, thread: usize, number: u64) -> Outcome<()> {
    let (heavy, bytes) = last(seed, thread, number);
    let expected = (heavy > 0).then(|| value(heavy, bytes));
    if found.map(|found| &**found) == expected.as_deref() {
        return Ok(());
    }
    let shown = found.map(|found| found.len());
    finding(format!(
        "thread {thread} has come to {number}, and its ballast must be that of {heavy}, which is \
         in one batch with its note, but is {shown:?} bytes of {}",
        self::number(found)?
    ))
}

#[cfg(test)]
mod tests {
    use siltstone::Db;

    use super::*;

    #[test]
    fn ballast_is_compared_to_the_last_byte() {
        let dir = tempfile::tempdir().expect("made");
        let db = Db::open(dir.path()).expect("opened");
        let (heavy, bytes) = last(3, 0, 500);
        assert!(heavy > 490 && bytes > 0, "{heavy} {bytes}");
        let get = || db.get("b").expect("read");
        check(None, 3, 0, 0).expect("nothing was written");
        assert!(check(get().as_ref(), 3, 0, 500).is_err(), "it is not there");
        let mut value = value(heavy, bytes);
        db.put("b", &value).expect("written");
        check(get().as_ref(), 3, 0, 500).expect("all is as it should be");
        assert!(check(get().as_ref(), 3, 0, heavy - 1).is_err(), "too new");
        *value.last_mut().expect("not empty") ^= 1;
        db.put("b", &value).expect("written");
        assert!(check(get().as_ref(), 3, 0, 500).is_err(), "torn");
    }
}
