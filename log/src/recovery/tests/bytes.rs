//! Every byte of a small closed log, damaged in turn: the answer is an error or exactly right.

use super::*;
use crate::testing::Random;

/// The files of a closed log, the records in it, and where it ends.
struct Closed {
    files: Vec<(PathBuf, Vec<u8>)>,
    appended: Vec<u64>,
    end: Position,
    last_seq: SequenceNumber,
}

impl Closed {
    fn new() -> Self {
        let made = Made::segments(3);
        made.log.maintain().expect("maintained");
        made.log.close().expect("closed");
        let files = made.fs.paths().into_iter();
        let files = files
            .map(|path| {
                let bytes = made.fs.contents(&path).expect("there");
                (path, bytes)
            })
            .collect();
        Self {
            files,
            end: made.log.durable_upto(),
            last_seq: seq(made.feeder.next_seq - 1),
            appended: made.feeder.appended,
        }
    }

    /// A disk with these files, of which `at` has other bytes, or is missing.
    fn disk(&self, at: usize, bytes: Option<&[u8]>) -> Arc<SimFs> {
        let fs = sim(1);
        for (index, (path, whole)) in self.files.iter().enumerate() {
            let bytes = if index == at {
                bytes
            } else {
                Some(whole.as_slice())
            };
            if let Some(bytes) = bytes {
                fs.install(path, bytes).expect("installed");
            }
        }
        fs
    }

    /// Recovers in both states of the mark, and reads; an error, or everything.
    fn check(&self, at: usize, bytes: Option<&[u8]>, case: &str) -> usize {
        let mut errors = 0;
        for (clean, floor) in [(false, 0), (true, self.last_seq.get()), (true, 0)] {
            let site = Site::new(self.disk(at, bytes));
            let result = site.recover_with(|config| {
                config.clean = clean;
                config.floor = seq(floor);
                config.flushed_max = config.floor;
                config.last_seq = self.last_seq;
                config.durable_upto = Some(self.end);
            });
            let found = result
                .and_then(|prepared| site.records_from(&prepared.segments, SequenceNumber::ZERO));
            match found {
                // Segments that are not needed may be gone, the oldest first.
                Ok(found) if floor > 0 => {
                    assert!(self.appended.ends_with(&found), "{case}: {found:?}");
                }
                Ok(found) => assert_eq!(found, self.appended, "{case} clean={clean}"),
                Err(error) => {
                    assert!(
                        error.is_corruption(),
                        "{case} clean={clean} floor={floor}: {error}"
                    );
                    assert!(error.path().is_some(), "{case}: {error}");
                    errors += 1;
                }
            }
        }
        errors
    }
}

#[test]
fn every_flipped_byte_is_an_error_or_does_not_matter() {
    let closed = Closed::new();
    for (at, (path, bytes)) in closed.files.iter().enumerate() {
        let is_index = path.extension().is_some_and(|extension| extension == "idx");
        for place in 0..bytes.len() {
            for flip in [0x01, 0xff] {
                let mut damaged = bytes.clone();
                damaged[place] ^= flip;
                let case = format!("{} byte {place} ^ {flip}", path.display());
                let errors = closed.check(at, Some(&damaged), &case);
                assert!(!is_index || errors == 0, "{case}: an index is a hint");
            }
        }
    }
}

#[test]
fn every_truncation_is_an_error_or_does_not_matter() {
    let closed = Closed::new();
    for (at, (path, bytes)) in closed.files.iter().enumerate() {
        for len in 0..bytes.len() {
            let case = format!("{} cut to {len}", path.display());
            closed.check(at, Some(&bytes[..len]), &case);
        }
        closed.check(at, None, &format!("{} removed", path.display()));
    }
}

#[test]
fn what_is_appended_or_zeroed_is_an_error_or_does_not_matter() {
    let closed = Closed::new();
    for (at, (path, bytes)) in closed.files.iter().enumerate() {
        for (count, byte) in [(1, 0), (1, 9), (512, 0), (512, 0xff), (4096, 7)] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + count, byte);
            let case = format!("{} and {count} bytes {byte}", path.display());
            closed.check(at, Some(&longer), &case);
        }
        for start in (0..bytes.len()).step_by(64) {
            for len in [8, 64, 512] {
                let mut zeroed = bytes.clone();
                let end = (start + len).min(bytes.len());
                zeroed[start..end].fill(0);
                let case = format!("{} zeros in {start}..{end}", path.display());
                closed.check(at, Some(&zeroed), &case);
            }
        }
    }
}

#[test]
fn files_in_the_place_of_others_are_an_error_or_do_not_matter() {
    let closed = Closed::new();
    for (at, (path, bytes)) in closed.files.iter().enumerate() {
        for (other, other_bytes) in &closed.files {
            let case = format!("{} in the place of {}", other.display(), path.display());
            if other_bytes != bytes {
                closed.check(at, Some(other_bytes), &case);
            }
        }
    }
}

#[test]
fn noise_is_an_error_or_does_not_matter() {
    let closed = Closed::new();
    for seed in 0..300 {
        let mut random = Random(seed);
        let at = usize::try_from(random.below(closed.files.len() as u64)).expect("small");
        let mut bytes = closed.files[at].1.clone();
        for _ in 0..=random.below(40) {
            let len = bytes.len() as u64;
            let place = usize::try_from(random.below(len)).expect("small");
            bytes[place] = random.next_u64().to_le_bytes()[0];
        }
        let case = format!("seed={seed} {}", closed.files[at].0.display());
        closed.check(at, Some(&bytes), &case);
    }
}
