use super::*;
use crate::error::ErrorKind;

#[test]
fn a_second_lock_in_the_process_is_refused_until_the_first_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("LOCK");
    let first = OsFs.lock(&path).expect("the first lock");
    assert_eq!(
        OsFs.lock(&path).expect_err("held").kind(),
        ErrorKind::AlreadyOpen
    );
    drop(first);
    OsFs.lock(&path).expect("free again");
}

#[test]
fn a_missing_file_is_not_found_and_an_existing_one_is_not_created_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a");
    assert!(OsFs.open(&path).expect_err("missing").is_not_found());
    OsFs.create(&path).expect("new");
    assert_eq!(OsFs.create(&path).expect_err("there").kind(), ErrorKind::Io);
}

#[test]
fn reads_stop_at_the_end_and_exact_reads_say_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = OsFs.create(&dir.path().join("a")).expect("new");
    file.write_at(0, b"abcdef").expect("written");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(4, &mut buffer).expect("read"), 2);
    let error = file.read_exact_at(4, &mut buffer).expect_err("short");
    assert!(error.is_corruption());
    assert_eq!(error.offset(), Some(4));
    file.sync().expect("synced");
    assert_eq!(&file.map(Access::Random).expect("mapped")[..], b"abcdef");
}

#[test]
fn starting_writeback_changes_nothing_that_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = OsFs.create(&dir.path().join("a")).expect("new");
    file.write_at(0, &[7; 10_000]).expect("written");
    for (offset, len) in [
        (0, 4096),
        (4096, 0),
        (9_000, 1 << 40),
        (u64::MAX, 1),
        (0, u64::MAX),
    ] {
        file.start_writeback(offset, len);
    }
    file.sync().expect("synced");
    let mut buffer = [0; 10_000];
    file.read_exact_at(0, &mut buffer).expect("read");
    assert_eq!(buffer, [7; 10_000]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_watch_sees_a_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = OsFs.create(&dir.path().join("a")).expect("new");
    let mut watch = OsFs.watch(dir.path()).expect("a watch");
    assert!(!watch.wait(Duration::ZERO).expect("quiet"));
    file.write_at(0, b"x").expect("written");
    assert!(watch.wait(Duration::from_secs(30)).expect("seen"));
}

#[test]
fn a_link_is_not_followed_into_an_untrusted_file() {
    let dir = tempfile::tempdir().expect("a directory");
    OsFs.create(&dir.path().join("a")).expect("new");
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b")).expect("linked");
    OsFs.open_untrusted(&dir.path().join("a"))
        .expect("a regular file");
    OsFs.open_untrusted(&dir.path().join("b"))
        .expect_err("a link");
    OsFs.open_untrusted(dir.path()).expect_err("a directory");
}
