//! MANIFEST has no room for what happens to keyspaces: it is owed, the log makes up for it, and who
//! waits is told.

use std::collections::BTreeMap;
use std::path::Path;

use base::FileKind;
use base::fs::fault::{Fault, FaultError, OpKind};
use base::fs::sim::CrashModel;
use siltstone::{Db, ErrorKind, Health};

use crate::images::check_no_leak;
use crate::support::{Model, PrintOnPanic, World, contents, fill, small_keyspace};

fn is_kind(kind: FileKind) -> impl Fn(&Path) -> bool + Send + Sync {
    move |path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(FileKind::parse)
            .is_some_and(|(found, _)| found == kind)
    }
}

fn all_contents(db: &Db) -> BTreeMap<String, Model> {
    let read = |name: String| {
        let keyspace = db.keyspace(&name).expect("it was listed");
        (name, contents(&keyspace).expect("a scan"))
    };
    let names = db.keyspaces().expect("it is open");
    names.into_iter().map(read).collect()
}

#[test]
fn changes_for_which_manifest_has_no_room_are_owed_and_not_lost() {
    for seed in 0..6 {
        let _place = PrintOnPanic(format!("seed {seed}"));
        let mut world = World::new(seed);
        let db = world.open().expect("a new database");
        let gone = db.create_keyspace("gone", &small_keyspace()).expect("new");
        fill(&gone, 0, 60);
        gone.flush().expect("a flush");
        let fault = Fault::new(OpKind::Reserve, FaultError::Enospc).for_ever();
        world.fs.fail(fault.only(is_kind(FileKind::Manifest)));
        let fault = Fault::new(OpKind::Create, FaultError::Enospc).for_ever();
        world.fs.fail(fault.only(is_kind(FileKind::Manifest)));
        let mut refused = 0;
        for n in 0..30 {
            let name = format!("made {n}");
            let made = db.create_keyspace(&name, &small_keyspace());
            let made = made.expect("the log has it");
            fill(&made, 0, 5);
            match made.flush() {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    refused += 1;
                }
            }
            if n % 3 == 0 {
                db.drop_keyspace(&name).expect("the log has it");
                assert_eq!(
                    made.get("key").expect_err("gone").kind(),
                    ErrorKind::NotFound
                );
            }
        }
        db.drop_keyspace("gone").expect("the log has it");
        drop(gone);
        assert!(refused > 0, "there was room for everything");
        assert!(
            !matches!(db.health(), Health::Poisoned(_)),
            "{:?}",
            db.health()
        );
        let expected = all_contents(&db);
        assert_eq!(expected.len(), 21);
        // Whatever a power cut or kill leaves of it, the log makes up for.
        for model in [CrashModel::Synced, CrashModel::Everything] {
            let after = World::on(world.fs.crash_image(&model, seed), seed);
            let found = after.open().expect("a recovery");
            let names: Vec<String> = expected.keys().cloned().collect();
            assert_eq!(found.keyspaces().expect("it is open"), names);
            if model == CrashModel::Everything {
                assert_eq!(all_contents(&found), expected);
            }
        }
        // The same handle goes on when there is room.
        world.fs.clear_faults();
        for name in expected.keys() {
            let keyspace = db.keyspace(name).expect("it is there");
            keyspace.flush().expect("a flush");
            keyspace.compact_range(..).expect("a compaction");
        }
        assert_eq!(all_contents(&db), expected);
        drop(db);
        world.restart(seed + 1);
        let db = world.open().expect("a reopen");
        assert_eq!(all_contents(&db), expected);
        world.executor.run_until_idle();
        db.close().expect("a clean close");
        check_no_leak(&world.fs);
    }
}
