//! Whoever creates or drops is overtaken by a flush: the log has the change, MANIFEST not yet.

use std::path::Path;

use base::FileKind;
use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::{CrashModel, SimFs};

use super::*;
use crate::db::Db;
use crate::options::{KeyspaceOptions, Options};

const DIR: &str = "/db";

fn open(fs: &Arc<SimFs>) -> Db {
    let options = Options::new()
        .log_segment_bytes(64 << 10)
        .file_system(Arc::clone(fs) as _)
        .executor(Stepped::new(1) as _)
        .clock(Arc::new(ManualClock::new(1)) as _);
    options.open(DIR).expect("it can be opened")
}

fn versions(db: &Db) -> &VersionSet {
    db.0.background.tree.versions()
}

/// From here on MANIFEST cannot grow, nor be written anew.
fn fill_disk_for_manifest(fs: &SimFs) {
    for kind in [OpKind::Reserve, OpKind::Create] {
        let fault = Fault::new(kind, FaultError::Enospc).for_ever();
        fs.fail(fault.only(|path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let kind = name.and_then(FileKind::parse).map(|(kind, _)| kind);
            kind == Some(FileKind::Manifest)
        }));
    }
}

/// What is left after a kill.
fn killed(fs: &SimFs) -> Db {
    open(&fs.crash_image(&CrashModel::Everything, 1))
}

/// As `create_keyspace` does it, up to where MANIFEST is told of it.
fn begin_creation(db: &Db, name: &str) -> SequenceNumber {
    let (commit, versions) = (&db.0.commit, versions(db));
    let id = versions.next_keyspace_id().expect("there are many");
    let created = KeyspaceCreated {
        name: name.as_bytes().to_vec(),
        order: ORDER_BYTEWISE,
        options: KeyspaceOptions::new().settings().encode(),
    };
    let payload = encode_create(id, &created);
    let edit = |seq| creation(id, created, seq);
    let kind = RecordKind::KeyspaceCreate;
    let appended = commit.append_change(kind, &payload, None, versions, edit);
    let (seq, end) = appended.expect("there is room");
    commit.sync_upto(end).expect("a sync");
    seq
}

#[test]
fn a_creation_that_a_flush_overtakes_is_not_lost() {
    let fs = SimFs::new(1);
    let db = open(&fs);
    db.put("before", "").expect("a put");
    let seq = begin_creation(&db, "made");
    db.put("after", "").expect("a put");
    db.flush().expect("a flush");
    let facts = versions(&db).keyspaces();
    assert!(facts.floor() <= seq, "{:?} has passed it", facts.floor());
    fill_disk_for_manifest(&fs);
    let durable = db.0.commit.log.durable_upto();
    versions(&db)
        .settle_change(seq, durable)
        .expect("no room is no error");
    // The log and MANIFEST have all there is to know, and the caller was told that it is there.
    let after = killed(&fs);
    assert_eq!(after.keyspaces().expect("open"), ["default", "made"]);
    let made = after.keyspace("made").expect("it was created");
    made.put("key", "value").expect("a put");
    assert_eq!(
        made.get("key").expect("a get").as_deref(),
        Some(&b"value"[..])
    );
}

#[test]
fn a_drop_that_flushes_overtake_is_not_undone() {
    let fs = SimFs::new(1);
    let db = open(&fs);
    let gone = db.create_keyspace("gone", &KeyspaceOptions::new());
    gone.expect("new").put("key", "value").expect("a put");
    let commit = &db.0.commit;
    let state = commit.keyspaces.by_name("gone").expect("it is there");
    let payload = encode_drop(state.id);
    let edit = |seq| drop_at(state.id, seq);
    let kind = RecordKind::KeyspaceDrop;
    let appended = commit.append_change(kind, &payload, Some(&state), versions(&db), edit);
    let (seq, end) = appended.expect("there is room");
    commit.sync_upto(end).expect("a sync");
    db.put("after", "").expect("a put");
    // As where memory or the log run short: nobody asks whether it is being dropped.
    commit.seal_locked(&commit.state.lock(), &state);
    let tree = &db.0.background.tree;
    let flushed = tree.flush(&state, &commit.snapshots, Some(&commit.log));
    let error = flushed.expect_err("there is nothing to flush it into");
    assert_eq!(error.outcome(), Some(WriteOutcome::Rejected), "{error}");
    db.flush().expect("a flush");
    fill_disk_for_manifest(&fs);
    let durable = commit.log.durable_upto();
    versions(&db)
        .settle_change(seq, durable)
        .expect("no room is no error");
    let after = killed(&fs);
    assert_eq!(after.keyspaces().expect("open"), ["default"]);
}
