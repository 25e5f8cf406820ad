use std::path::Path;

use super::*;
use crate::fs::fault::{Fault, FaultError, FaultFs, OpKind};
use crate::fs::sim::{CrashModel, SimFs};
use crate::fs::{CountingFs, File, FileSystem, OsFs};

const BYTES: u64 = 16 << 10;

fn segment(fs: &dyn FileSystem, dir: &Path) -> Arc<dyn File> {
    let file = fs.create(&dir.join("000001.log")).expect("created");
    assert!(file.reserve(BYTES).expect("reserved"));
    file
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().expect("there")).expect("small")];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), bytes.len());
    bytes
}

/// The real file system and the simulated one.
fn for_each_fs(test: impl Fn(&dyn FileSystem, &Path)) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    test(&OsFs, dir.path());
    test(&*SimFs::new(1), Path::new("/"));
}

#[test]
fn places_are_handed_out_once_and_within_the_mapping() {
    for_each_fs(|fs, dir| {
        let file = segment(fs, dir);
        let mut map = file.map_live(BYTES).expect("mapped");
        assert_eq!(map.bytes(), BYTES);
        let first = map.take(512, 100).expect("free");
        assert_eq!(first.bytes(), 100);
        assert!(map.take(0, 8).is_none(), "it was passed over");
        assert!(map.take(611, 8).is_none(), "it was handed out");
        assert!(map.take(612, 8).is_some());
        assert!(map.take(BYTES - 8, 9).is_none(), "it is not mapped");
        assert!(map.take(u64::MAX, 9).is_none());
        assert!(map.take(BYTES - 8, 8).is_some());
        assert!(map.take(BYTES, 0).is_some(), "nothing fits anywhere");
        assert!(!map.close(), "a place is held");
        drop(first);
    });
}

#[test]
fn several_threads_fill_their_places() {
    for_each_fs(|fs, dir| {
        let file = segment(fs, dir);
        let mut map = file.map_live(BYTES).expect("mapped");
        let ranges: Vec<_> = (0..BYTES / 64)
            .map(|n| (n, map.take(n * 64, 64).expect("free")))
            .collect();
        let mut shares: Vec<Vec<_>> = (0..4).map(|_| Vec::new()).collect();
        for (place, range) in ranges.into_iter().enumerate() {
            shares[place % 4].push(range);
        }
        std::thread::scope(|scope| {
            for share in shares {
                scope.spawn(move || {
                    for (n, mut range) in share {
                        let fill = n.to_le_bytes()[0];
                        let (some, more) = ([fill; 30], [fill; 26]);
                        range.store(8, &[&some, &more]).expect("stored");
                        range.store_word(0, [!fill; 8]).expect("stored");
                    }
                });
            }
        });
        assert!(map.close());
        for (n, place) in contents(&*file).chunks(64).enumerate() {
            let fill = u8::try_from(n % 256).expect("a byte");
            assert_eq!(place[..8], [!fill; 8]);
            assert_eq!(place[8..], [fill; 56]);
        }
        file.set_len(512).expect("it is not mapped any more");
    });
}

#[test]
#[should_panic(expected = "within its range")]
fn a_store_beyond_its_range_is_a_mistake() {
    let fs = SimFs::new(1);
    let file = segment(&*fs, Path::new("/"));
    let mut map = file.map_live(BYTES).expect("mapped");
    let mut range = map.take(0, 16).expect("free");
    let _ = range.store(9, &[&[1; 8]]);
}

#[test]
fn no_place_lies_behind_what_is_reserved() {
    for_each_fs(|fs, dir| {
        let file = segment(fs, dir);
        let mut map = file.map_live(4 * BYTES).expect("mapped");
        assert_eq!(map.bytes(), BYTES);
        assert!(map.take(BYTES - 8, 9).is_none());
        // Pages behind the end of the file cannot be made ready either.
        map.ahead().populate(BYTES, 4 * BYTES);
        assert!(file.reserve(2 * BYTES).expect("reserved"));
        assert!(map.take(BYTES, 8).is_none(), "nobody has looked yet");
        map.extend().expect("looked");
        let mut range = map.take(2 * BYTES - 8, 8).expect("it is reserved now");
        range.store(0, &[&[5; 8]]).expect("stored");
        assert!(map.take(2 * BYTES, 1).is_none());
        assert!(file.reserve(8 * BYTES).expect("reserved"));
        map.extend().expect("looked");
        assert_eq!(map.bytes(), 4 * BYTES, "the mapping ends there");
        assert!(map.take(4 * BYTES - 8, 9).is_none());
        assert_eq!(contents(&*file)[32760..32769], [5, 5, 5, 5, 5, 5, 5, 5, 0]);
    });
}

#[test]
fn a_mapping_can_be_refused() {
    let faults = FaultFs::new(SimFs::new(1));
    let file = segment(&*faults, Path::new("/"));
    faults.fail(Fault::new(OpKind::MapLive, FaultError::Eio));
    file.map_live(BYTES).expect_err("refused");
    file.write_at(0, b"the other way").expect("written");
    assert!(file.map_live(BYTES).is_ok());
}

#[test]
fn stores_are_counted() {
    let fs = CountingFs::new(SimFs::new(1));
    let file = segment(&fs, Path::new("/"));
    let mut map = file.map_live(BYTES).expect("mapped");
    let mut range = map.take(0, 64).expect("free");
    range.store(8, &[&[1; 20], &[2; 3]]).expect("stored");
    range.store_word(0, [3; 8]).expect("stored");
    assert_eq!(fs.counts().written_bytes(), 31);
}

/// A simulated file with one store in each of three sectors, and the images a power cut may leave.
#[test]
fn a_power_cut_keeps_any_of_the_sectors_and_a_kill_all_of_them() {
    let fs = SimFs::new(3);
    let file = segment(&*fs, Path::new("/"));
    file.sync().expect("synced");
    fs.sync_dir(Path::new("/")).expect("synced");
    let mut map = file.map_live(BYTES).expect("mapped");
    let mut range = map.take(0, 3 * 512).expect("free");
    for at in [1024, 0, 512] {
        range.store(at, &[&[9; 512]]).expect("stored");
    }
    let of = |model, seed| {
        let image = fs.crash_image(&model, seed);
        let bytes = image.contents(Path::new("/000001.log")).expect("there");
        [0, 1, 2].map(|sector| bytes[sector * 512] == 9)
    };
    assert_eq!(of(CrashModel::Everything, 1), [true; 3]);
    assert_eq!(of(CrashModel::Synced, 1), [false; 3]);
    let mut seen = std::collections::HashSet::new();
    for seed in 0..200 {
        seen.insert(of(CrashModel::Sectors, seed));
    }
    assert_eq!(seen.len(), 8, "every subset of the sectors");
    file.sync().expect("synced");
    assert_eq!(of(CrashModel::Synced, 1), [true; 3]);
}

#[test]
fn a_crash_stops_a_store_in_the_middle_and_every_later_one() {
    let fs = SimFs::new(5);
    let file = segment(&*fs, Path::new("/"));
    let mut map = file.map_live(BYTES).expect("mapped");
    let mut range = map.take(0, 512).expect("free");
    fs.crash_after(2);
    range.store(0, &[&[1; 100]]).expect("before the crash");
    range.store(100, &[&[2; 100]]).expect_err("crashed");
    range.store(200, &[&[3; 100]]).expect_err("crashed");
    let bytes = fs.contents(Path::new("/000001.log")).expect("there");
    assert_eq!(bytes[..100], [1; 100]);
    let kept = bytes[100..].iter().take_while(|byte| **byte == 2).count();
    assert!(kept <= 100 && bytes[100 + kept..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_checker_knows_what_may_be_done_to_a_mapped_segment() {
    type Step = fn(&dyn File);
    let wrong: [Step; 4] = [
        |file| drop(file.set_len(2 * BYTES)),
        |file| drop(file.write_at(BYTES, b"x")),
        |file| drop(file.set_len(512)),
        |file| drop(file.map_live(512)),
    ];
    for step in wrong {
        let fs = SimFs::new(1);
        let file = segment(&*fs, Path::new("/"));
        let map = file.map_live(BYTES).expect("mapped");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(&*file)));
        assert!(result.is_err(), "a rule was broken");
        assert!(fs.violation().is_some());
        drop(map);
    }
    // A table is not written through a mapping.
    let fs = SimFs::new(1);
    let file = fs.create(Path::new("/000001.sst")).expect("created");
    assert!(file.reserve(BYTES).expect("reserved"));
    let map = || file.map_live(BYTES).is_ok();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(map));
    assert!(result.is_err(), "a rule was broken");
}

#[test]
fn what_was_stored_stays_when_its_pages_are_let_go_of() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = segment(&OsFs, dir.path());
    let mut map = file.map_live(BYTES).expect("mapped");
    let (ahead, mut stored) = (map.ahead(), Vec::new());
    for n in 0..BYTES / 64 {
        let mut range = map.take(n * 64, 64).expect("free");
        let fill = [n.to_le_bytes()[0]; 56];
        range.store(8, &[&fill]).expect("stored");
        stored.push((range, fill));
    }
    for (start, end) in [
        (0, 4095),
        (1, 8193),
        (4096, 4096),
        (9000, 8000),
        (0, 9 * BYTES),
    ] {
        ahead.release(start, end);
    }
    // Once more behind that: a place is still good.
    for (range, fill) in &mut stored {
        range.store_word(0, [!fill[0]; 8]).expect("stored");
    }
    ahead.release(0, BYTES);
    for (place, (_, fill)) in contents(&*file).chunks(64).zip(&stored) {
        assert_eq!(place[..8], [!fill[0]; 8]);
        assert_eq!(place[8..], *fill);
    }
    drop((stored, ahead));
    assert!(map.close());
}

#[test]
fn pages_can_be_made_ready_ahead() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = segment(&OsFs, dir.path());
    let mut map = file.map_live(BYTES).expect("mapped");
    let ahead = map.ahead();
    let mut range = map.take(0, 16).expect("free");
    range.store(0, &[b"kept"]).expect("stored");
    ahead.populate(0, BYTES);
    ahead.populate(BYTES - 1, BYTES + 5);
    ahead.populate(BYTES + 5, BYTES + 6);
    assert_eq!(&contents(&*file)[..5], b"kept\0");
    drop(range);
    drop(ahead);
    assert!(map.close());
}
