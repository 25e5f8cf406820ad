use base::SequenceNumber;
use base::clock::ManualClock;
use base::executor::Stepped;
use base::fs::sim::SimFs;
use base::sync::Arc;
use log::Position;

use crate::{Db, ErrorKind, Options};

fn open(fs: &Arc<SimFs>) -> Db {
    Options::new()
        .file_system(Arc::clone(fs) as _)
        .executor(Stepped::new(1))
        .clock(Arc::new(ManualClock::new(1)))
        .open("/db")
        .expect("it opens")
}

/// Whoever was in the middle of something when the database was closed, and goes on after it.
#[test]
fn manifest_takes_no_edit_once_the_directory_may_be_somebody_elses() {
    for is_dropped in [false, true] {
        let fs = SimFs::new(1);
        let db = open(&fs);
        db.put("key", "value").expect("a put");
        let versions = Arc::clone(db.0.background.tree.versions());
        let manifest = base::FileKind::Manifest.path("/db".as_ref(), versions.manifest_number());
        if is_dropped {
            drop(db);
        } else {
            db.close().expect("a clean close");
        }
        let left = fs.contents(&manifest);
        assert!(left.is_some(), "it was the live one");
        let seq = SequenceNumber::new(100).expect("small");
        let edits = [
            versions.raise_floor(seq, Position::default()),
            versions.note_log(Position::default(), seq),
            versions.mark_clean_close(Position::default(), seq),
        ];
        for edit in edits {
            let error = edit.expect_err("it was closed");
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        assert!(fs.contents(&manifest) == left, "something was written");
        // The next one finds what was there.
        let db = open(&fs);
        let value = db.get("key").expect("a get");
        assert_eq!(value.as_deref(), Some(b"value".as_slice()));
    }
}
