//! Who unlinks: the helper alone, never the thread of a user or of a job.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use base::FileKind;
use base::fs::fault::OpKind;
use base::fs::sim::SimFs;
use siltstone::Options;

/// The helper pauses between files, but does not take so long.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The names of the threads that remove tables and segments, one for each file.
fn watch(sim: &SimFs) -> mpsc::Receiver<String> {
    let (removed, removals) = mpsc::channel();
    let removed = Mutex::new(removed);
    sim.set_observer(Some(Arc::new(move |_, op| {
        let name = op.path.file_name().and_then(|name| name.to_str());
        let kind = name.and_then(FileKind::parse).map(|(kind, _)| kind);
        if op.kind == OpKind::Remove && matches!(kind, Some(FileKind::Table | FileKind::Segment)) {
            let thread = std::thread::current()
                .name()
                .unwrap_or("unnamed")
                .to_owned();
            // At the end nobody listens any more.
            let _ = removed.lock().expect("no panic").send(thread);
        }
    })));
    removals
}

/// Writes, deletes, reads through cursors and snapshots that outlive what they read, compacts: many
/// tables and segments go, some of them when a reader lets go of them last.
#[test]
fn only_the_helper_unlinks() {
    let sim = SimFs::new(7);
    let removals = watch(&sim);
    let options = Options::new()
        .memtable_bytes_max(8 << 10)
        .table_bytes_target(4 << 10)
        .log_segment_bytes(16 << 10)
        .level0_table_count_trigger(2)
        .compaction_threads(2)
        .file_system(Arc::clone(&sim) as _);
    let db = options.open("/db").expect("an empty disk");
    for round in 0..6 {
        let snapshot = db.snapshot().expect("open");
        for n in 0..400 {
            let key = format!("{:04}", (n * 7) % 400);
            db.put(&key, format!("{round:0100}")).expect("a sound disk");
            if n % 3 == 0 {
                db.delete(&key).expect("a sound disk");
            }
            assert!(n % 3 == 0 || db.get(&key).expect("a sound disk").is_some());
        }
        let mut scan = db.iter().expect("a sound disk");
        scan.next().expect("an entry").expect("a sound disk");
        db.flush().expect("a sound disk");
        db.compact_range(..).expect("a sound disk");
        // The last holders of what the compaction replaced are here.
        drop(scan);
        drop(snapshot);
    }
    db.wait_for_compactions().expect("a sound disk");
    for _ in 0..20 {
        let thread = removals.recv_timeout(WATCHDOG).expect("many files go");
        assert_eq!(thread, "siltstone-helper");
    }
    drop(db);
}
