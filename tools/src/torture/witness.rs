//! What each thread of a killed child noted, in the same batch as its commit, of how far the
//! others had come: whoever was seen must be found, if the one who saw is.

use siltstone::{Keyspace, Slice, Snapshot};

use super::ballast;
use super::failure::{OrFinding, Outcome, finding};
use super::stream::{THREAD_COUNT, last_write};

/// The last commit of each thread that another one saw.
pub(crate) type Seen = [u64; THREAD_COUNT];

/// Under which key a thread notes.
pub(crate) fn key(thread: usize) -> String {
    format!("thread-{thread}")
}

/// What it notes: its own number and what it saw.
pub(crate) fn value(number: u64, seen: Seen) -> Vec<u8> {
    let numbers = std::iter::once(number).chain(seen);
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn parse(value: &[u8]) -> Option<(u64, Seen)> {
    let (chunks, rest) = value.as_chunks::<8>();
    if chunks.len() != THREAD_COUNT + 1 || !rest.is_empty() {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(chunks[at]);
    Some((number(0), std::array::from_fn(|thread| number(thread + 1))))
}

fn read(witness: &Keyspace, thread: usize) -> Outcome<(u64, Seen)> {
    let found = witness.get(key(thread)).or_finding("reading a note")?;
    understand(thread, found.as_ref())
}

fn understand(thread: usize, found: Option<&Slice>) -> Outcome<(u64, Seen)> {
    let Some(value) = found else {
        return Ok((0, [0; THREAD_COUNT]));
    };
    match parse(value) {
        Some(note) => Ok(note),
        None => finding(format!("the note of thread {thread} is {value:?}")),
    }
}

/// How far every thread has come, as far as anybody can see now.
pub(crate) fn look(witness: &Keyspace) -> Outcome<Seen> {
    let mut seen = [0; THREAD_COUNT];
    for (thread, seen) in seen.iter_mut().enumerate() {
        *seen = read(witness, thread)?.0;
    }
    Ok(seen)
}

/// How far every thread has come in a snapshot of the notes and the ballast. Both are in one batch:
/// neither is seen without the other.
pub(crate) fn look_at(notes: &Snapshot, ballast: &Snapshot, seed: u64) -> Outcome<Seen> {
    let mut seen = [0; THREAD_COUNT];
    for (thread, seen) in seen.iter_mut().enumerate() {
        let found = notes.get(key(thread)).or_finding("reading a note")?;
        *seen = understand(thread, found.as_ref())?.0;
        let found = ballast.get(key(thread)).or_finding("reading ballast")?;
        ballast::check(found.as_ref(), seed, thread, *seen)?;
    }
    Ok(seen)
}

/// Compares the notes with how far each thread was found to have come.
pub(crate) fn check(witness: &Keyspace, done: &Seen) -> Outcome<()> {
    for thread in 0..THREAD_COUNT {
        let (number, seen) = read(witness, thread)?;
        let expected = last_write(done[thread]);
        if number != expected {
            return finding(format!(
                "thread {thread} has come to {expected}, and its note, which is in the same \
                 batch, says {number}"
            ));
        }
        for (other, &seen) in seen.iter().enumerate() {
            if seen > done[other] {
                return finding(format!(
                    "thread {thread} saw commit {seen} of thread {other} before its own \
                     {number}, which is there, but of the other there are only {}",
                    done[other]
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use siltstone::Db;

    use super::*;

    #[test]
    fn notes_come_back() {
        let value = value(7, [1, 2, 3, 4]);
        assert_eq!(parse(&value), Some((7, [1, 2, 3, 4])));
        assert_eq!(parse(&value[1..]), None);
    }

    #[test]
    fn a_thread_that_was_seen_and_is_not_found_is_a_finding() {
        let dir = tempfile::tempdir().expect("made");
        let db = Db::open(dir.path()).expect("opened");
        let witness = db.keyspace("default").expect("there");
        witness
            .put(key(0), value(5, [4, 9, 0, 0]))
            .expect("written");
        witness
            .put(key(1), value(9, [4, 8, 0, 0]))
            .expect("written");
        check(&witness, &[5, 9, 0, 0]).expect("all is as it should be");
        assert!(check(&witness, &[5, 8, 0, 0]).is_err());
        assert!(check(&witness, &[6, 9, 0, 0]).is_err());
    }
}
