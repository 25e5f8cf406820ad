//! What a power cut left is recovered and judged.

use std::path::Path;
use std::sync::Arc;

use base::fs::sim::{CrashModel, SimFs};
use base::{FileKind, ids};
use siltstone::RecoveryMode;

use crate::history::History;
use crate::order;
use crate::support::{DIR, World, contents};

/// How much is asked of a recovered database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// That it opens and shows a state that it may show.
    Quick,
    /// That it also stays that way, whatever is done to it.
    Whole,
}

/// Recovers `image` and checks what it shows against `history`. Returns after how many commits it
/// stopped.
pub(crate) fn check_image(image: Arc<SimFs>, seed: u64, history: &History, depth: Depth) -> usize {
    let mut world = World::on(image, seed);
    // Without damage, both modes come to the same end.
    let mode = match seed % 4 {
        0 => RecoveryMode::PointInTime,
        _ => RecoveryMode::TornTail,
    };
    let db = match world.options().recovery_mode(mode).open(DIR) {
        Ok(db) => db,
        Err(error) => panic!("recovery with {mode:?} failed: {error:?}"),
    };
    let found = contents(&db).expect("a scan after recovery");
    let count = history.locate(&found);
    if depth == Depth::Quick {
        return count;
    }
    // What a recovery has shown may not be lost by a power cut after it.
    let mut shown = history.clone();
    shown.settle(count);
    let model = if seed.is_multiple_of(2) {
        CrashModel::Synced
    } else {
        CrashModel::Sectors
    };
    check_image(
        world.fs.crash_image(&model, seed),
        seed ^ 1,
        &shown,
        Depth::Quick,
    );
    let commit = db
        .put("a key of its own", "1")
        .expect("a write after recovery");
    assert!(
        commit.seq().get() > history.seq_max,
        "sequence number {} is given out again, {} was",
        commit.seq(),
        history.seq_max
    );
    db.delete("a key of its own")
        .expect("a write after recovery");
    db.compact_range(..).expect("a compaction after recovery");
    assert_eq!(
        contents(&db).expect("a scan"),
        found,
        "after a compaction of everything"
    );
    drop(db);
    world.restart(seed ^ 2);
    let db = world.open().expect("a second open");
    assert_eq!(
        contents(&db).expect("a scan"),
        found,
        "after a second recovery"
    );
    db.close().expect("a clean close");
    world.restart(seed ^ 3);
    let db = world.open().expect("an open after a clean close");
    assert_eq!(contents(&db).expect("a scan"), found, "after a clean close");
    world.executor.run_until_idle();
    db.close().expect("a clean close");
    check_no_leak(&world.fs);
    count
}

/// Fails if a closed database holds a file that nothing names.
pub(crate) fn check_no_leak(fs: &SimFs) {
    let dir = Path::new(DIR);
    let folded = order::fold(fs, dir).expect("a closed database has a MANIFEST");
    let named: Vec<_> = folded
        .tables
        .iter()
        .map(|number| FileKind::Table.path(dir, *number))
        .collect();
    assert_eq!(
        order::of_kind(fs, dir, FileKind::Table),
        named,
        "tables in the directory"
    );
    assert_eq!(
        order::of_kind(fs, dir, FileKind::Manifest).len(),
        1,
        "MANIFESTs"
    );
    assert_eq!(fs.contents(&dir.join(ids::CURRENT_TEMPORARY)), None);
    let log_count = order::segments(fs, dir).len();
    assert!(
        log_count <= 2,
        "{log_count} segments are left of a log that is flushed"
    );
}
