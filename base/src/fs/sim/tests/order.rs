//! The order checker speaks up, and lets through what is allowed.

use super::*;

const MANIFEST: &str = "MANIFEST-000007";

fn write_current(fs: &SimFs) -> Arc<dyn File> {
    write(fs, "CURRENT.tmp", b"MANIFEST-000007\n")
}

fn swap_current(fs: &SimFs) {
    fs.rename(&path("CURRENT.tmp"), &path("CURRENT"))
        .expect("renamed");
}

#[test]
fn current_may_change_once_everything_is_durable() {
    let fs = prepared(1);
    write_durably(&fs, MANIFEST, b"state");
    write_current(&fs).sync().expect("synced");
    swap_current(&fs);
    assert_eq!(fs.violation(), None);
}

#[test]
fn current_must_be_synced_before_it_is_renamed() {
    let fs = prepared(1);
    write_durably(&fs, MANIFEST, b"state");
    write_current(&fs);
    let message = panic_of(|| swap_current(&fs));
    assert!(
        message.contains("CURRENT is replaced by an unsynced file"),
        "{message}"
    );
}

#[test]
fn the_manifest_must_be_there_synced_and_named_durably() {
    let fs = prepared(1);
    write_current(&fs).sync().expect("synced");
    let message = panic_of(|| swap_current(&fs));
    assert!(message.contains("not there"), "{message}");

    let fs = prepared(1);
    write_current(&fs).sync().expect("synced");
    let manifest = write(&fs, MANIFEST, b"state");
    fs.sync_dir(Path::new("/db")).expect("synced");
    let message = panic_of(|| swap_current(&fs));
    assert!(message.contains("unsynced MANIFEST"), "{message}");
    drop(manifest);

    let fs = prepared(1);
    write_current(&fs).sync().expect("synced");
    write(&fs, MANIFEST, b"state").sync().expect("synced");
    let message = panic_of(|| swap_current(&fs));
    assert!(message.contains("own name is not durable"), "{message}");
}

#[test]
fn a_broken_rule_is_heard_of_again_even_if_the_panic_was_caught() {
    let fs = prepared(1);
    write_current(&fs);
    let first = panic_of(|| swap_current(&fs));
    let again = panic_of(|| {
        fs.create(&path("other")).expect("a panic comes first");
    });
    assert_eq!(first, again);
    assert!(first.ends_with(&fs.violation().expect("noted")));
    fs.set_order_checked(false);
    swap_current(&fs);
}

#[test]
fn a_mapped_file_is_neither_written_nor_resized() {
    let message_of = |change: fn(&dyn File) -> Result<()>| {
        let fs = prepared(1);
        let file = write_durably(&fs, "000001.sst", b"abc");
        drop(file.map(Access::Random).expect("mapped"));
        panic_of(|| change(file.as_ref()).expect("a panic comes first"))
    };
    assert!(message_of(|file| file.write_at(0, b"x")).contains("is written"));
    assert!(message_of(|file| file.set_len(1)).contains("is truncated"));
    assert!(message_of(|file| file.reserve(100).map(drop)).contains("or extended"));
}

#[test]
fn nothing_is_written_after_a_failed_sync() {
    for mode in [
        FailedSync::Kept,
        FailedSync::Forgotten,
        FailedSync::Reverted,
    ] {
        let fs = prepared(1);
        fs.set_failed_sync(mode);
        let file = write(&fs, "000001.log", b"abc");
        fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
        file.sync().expect_err("planned");
        file.sync().expect("the next one succeeds");
        let message = panic_of(|| {
            file.write_at(3, b"d").expect("a panic comes first");
        });
        assert!(message.contains("after a failed sync"), "{message}");
    }
}

#[test]
fn a_file_whose_sync_failed_is_not_mapped() {
    let fs = prepared(1);
    let file = write(&fs, "000001.sst", b"abc");
    fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
    file.sync().expect_err("planned");
    let message = panic_of(|| {
        file.map(Access::Random).expect("a panic comes first");
    });
    assert!(message.contains("mapped after a failed sync"), "{message}");
}

#[test]
fn a_segment_may_be_sealed_after_a_failed_write_and_no_more() {
    let prepare = || {
        let fs = prepared(1);
        let file = write(&fs, "000001.log", b"record one");
        let effect = Effect::FailPartly {
            bytes: 4,
            error: FaultError::Eio,
        };
        fs.fail(Fault::with_effect(OpKind::Write, effect));
        file.write_at(10, b"record two").expect_err("planned");
        assert_eq!(file.len().expect("known"), 14);
        (fs, file)
    };
    let (fs, file) = prepare();
    file.write_at(10, b"end").expect("the seal");
    file.set_len(13).expect("cut");
    file.sync().expect("synced");
    let message = panic_of(|| {
        file.write_at(13, b"more").expect("a panic comes first");
    });
    assert!(message.contains("after a failed write"), "{message}");
    assert_eq!(
        fs.contents(&path("000001.log")).expect("there"),
        b"record oneend"
    );

    let (_fs, file) = prepare();
    panic_of(|| file.write_at(20, b"x").expect("a panic comes first"));
    let (_fs, file) = prepare();
    panic_of(|| file.write_at(10, &[0; 65]).expect("a panic comes first"));
    let (_fs, file) = prepare();
    panic_of(|| file.set_len(100).expect("a panic comes first"));
    let (_fs, file) = prepare();
    file.write_at(10, b"end").expect("the seal");
    panic_of(|| file.write_at(10, b"end").expect("a panic comes first"));
}

#[test]
fn other_files_are_not_sealed() {
    let fs = prepared(1);
    let file = write(&fs, "000001.sst", b"abc");
    fs.fail(Fault::new(OpKind::Write, FaultError::Enospc));
    assert!(file.write_at(3, b"d").expect_err("planned").is_no_space());
    let message = panic_of(|| {
        file.write_at(3, b"d").expect("a panic comes first");
    });
    assert!(message.contains("after a failed write"), "{message}");
}
