use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::*;
use crate::fs::fault::{Effect, FaultError};
use crate::fs::{Access, create_dir_all, read_small_file};

mod crash;
mod images;
mod like_os;
mod order;

/// A file system with the durable directory `/db`.
fn prepared(seed: u64) -> Arc<SimFs> {
    let fs = SimFs::new(seed);
    create_dir_all(fs.as_ref(), Path::new("/db")).expect("created");
    fs
}

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

/// Creates `/db/name` with `bytes`, nothing of it synced.
fn write(fs: &SimFs, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.create(&path(name)).expect("created");
    file.write_at(0, bytes).expect("written");
    file
}

/// Creates `/db/name` with `bytes`, durable with its name.
fn write_durably(fs: &SimFs, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = write(fs, name, bytes);
    file.sync().expect("synced");
    fs.sync_dir(Path::new("/db")).expect("synced");
    file
}

fn dump(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs.paths().into_iter();
    paths
        .map(|path| {
            let bytes = fs.contents(&path).expect("listed");
            (path, bytes)
        })
        .collect()
}

/// The message that `run` panics with.
fn panic_of(run: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it should panic");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

#[test]
fn it_answers_like_a_file_system() {
    let fs = prepared(1);
    let file = write(&fs, "a", b"abcdef");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(4, &mut buffer).expect("read"), 2);
    assert_eq!(file.len().expect("known"), 6);
    assert_eq!(
        fs.create(&path("a")).expect_err("there").kind(),
        ErrorKind::Io
    );
    assert!(fs.open(&path("b")).expect_err("missing").is_not_found());
    assert!(
        fs.create(Path::new("/no/a"))
            .expect_err("no directory")
            .is_not_found()
    );
    let opened = fs.open(&path("a")).expect("there");
    opened.write_at(0, b"x").expect_err("opened for reading");
    fs.open_untrusted(Path::new("/db"))
        .expect_err("a directory");
    fs.rename(&path("a"), &path("b")).expect("renamed");
    assert_eq!(fs.status(&path("a")).expect("known"), None);
    let status = fs.status(&path("b")).expect("known").expect("there");
    assert_eq!((status.len, status.is_dir), (6, false));
    let entries = fs.list(Path::new("/db")).expect("listed");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].name, "b");
    fs.remove_file(&path("b")).expect("removed");
    assert!(fs.remove_file(&path("b")).expect_err("gone").is_not_found());
    // A handle outlives the name.
    assert_eq!(opened.read_at(0, &mut buffer).expect("read"), 6);
    assert_eq!(&buffer[..6], b"abcdef");
}

#[test]
fn a_reservation_reads_as_zeros_and_never_shortens() {
    let fs = prepared(1);
    let file = write(&fs, "a", b"abc");
    assert!(file.reserve(6).expect("reserved"));
    assert!(file.reserve(2).expect("reserved already"));
    assert_eq!(fs.contents(&path("a")).expect("there"), b"abc\0\0\0");
    file.set_len(2).expect("cut");
    file.set_len(4).expect("extended");
    assert_eq!(fs.contents(&path("a")).expect("there"), b"ab\0\0");
}

#[test]
fn renaming_over_a_file_replaces_it_and_directories_keep_apart() {
    let fs = prepared(1);
    write(&fs, "a", b"new");
    write(&fs, "b", b"old");
    fs.rename(&path("a"), &path("b")).expect("renamed");
    assert_eq!(fs.contents(&path("b")).expect("there"), b"new");
    fs.create_dir(&path("lost")).expect("created");
    fs.create_dir(&path("lost")).expect("there already");
    fs.create_dir(&path("b")).expect_err("a file has that name");
    fs.rename(&path("b"), &path("lost/b")).expect("moved");
    assert_eq!(fs.paths(), [path("lost/b")]);
    fs.rename(&path("lost"), &path("lost/c"))
        .expect_err("into itself");
    fs.rename(&path("lost"), &path("found")).expect("renamed");
    assert_eq!(fs.paths(), [path("found/b")]);
    fs.remove_file(&path("found")).expect_err("a directory");
    fs.sync_dir(&path("lost")).expect_err("gone");
}

#[test]
fn a_lock_is_held_once_and_not_by_a_crash_image() {
    let fs = prepared(1);
    let guard = fs.lock(&path("LOCK")).expect("free");
    let error = fs.lock(&path("LOCK")).expect_err("held");
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
    let image = fs.crash_image(&CrashModel::Everything, 1);
    let other = image.lock(&path("LOCK")).expect("a new machine");
    drop(guard);
    drop(fs.lock(&path("LOCK")).expect("free again"));
    drop(other);
}

#[test]
fn the_quota_is_kept_and_given_back() {
    let fs = prepared(1);
    fs.set_quota(Some(100));
    let file = write(&fs, "a", &[1; 60]);
    assert_eq!(fs.free_bytes(Path::new("/db")).expect("known"), 40);
    file.write_at(0, &[2; 60])
        .expect("overwriting takes nothing");
    let other = fs.create(&path("b")).expect("created");
    assert!(other.reserve(41).expect_err("too much").is_no_space());
    other.reserve(20).expect("fits");
    let error = other.write_at(10, &[3; 40]).expect_err("too much");
    assert!(error.is_no_space());
    assert_eq!(other.len().expect("known"), 40, "what fits is written");
    drop(other);
    fs.remove_file(&path("a")).expect("removed");
    assert_eq!(fs.used_bytes(), 100, "a handle keeps the bytes");
    drop(file);
    assert_eq!(fs.used_bytes(), 40);
    fs.set_quota(None);
    drop(write(&fs, "c", &[4; 5]));
    fs.rename(&path("c"), &path("b")).expect("renamed");
    assert_eq!(fs.used_bytes(), 5, "the replaced file is gone");
    fs.remove_file(&path("b")).expect("removed");
    assert_eq!(fs.used_bytes(), 0);
}

#[test]
fn deleted_files_are_forgotten() {
    let fs = prepared(1);
    for round in 0..1000 {
        let name = format!("{round:06}.sst");
        write_durably(&fs, &name, &[1; 100]);
        fs.remove_file(&path(&name)).expect("removed");
        fs.sync_dir(Path::new("/db")).expect("synced");
    }
    assert_eq!(fs.used_bytes(), 0);
    let kept = fs.shared.state.lock().files.len();
    assert!(kept < 200, "{kept} files are kept");
}

#[test]
fn deleted_files_are_kept_while_a_durable_name_or_a_handle_is_left() {
    let fs = prepared(1);
    let names: Vec<_> = (0..300).map(|index| format!("{index:06}.sst")).collect();
    let handles: Vec<_> = names[..100]
        .iter()
        .map(|name| write(&fs, name, name.as_bytes()))
        .collect();
    for name in &names[100..] {
        write_durably(&fs, name, name.as_bytes());
    }
    for name in &names {
        fs.remove_file(&path(name)).expect("removed");
    }
    let image = fs.crash_image(&CrashModel::Synced, 1);
    assert_eq!(image.paths().len(), 300);
    fs.sync_dir(Path::new("/db")).expect("synced");
    for round in 0..300 {
        let name = format!("{round:06}.log");
        write(&fs, &name, b"x");
        fs.remove_file(&path(&name)).expect("removed");
    }
    for (file, name) in handles.iter().zip(&names) {
        let mut buffer = [0; 10];
        file.read_exact_at(0, &mut buffer)
            .expect("the handle keeps it");
        assert_eq!(buffer, name.as_bytes());
    }
}

#[test]
fn a_watch_sees_changes_of_its_directory_only() {
    let fs = prepared(1);
    let file = write(&fs, "a", b"a");
    let mut watch = fs.watch(Path::new("/db")).expect("watched");
    assert!(!watch.wait(Duration::ZERO).expect("quiet"));
    file.write_at(1, b"b").expect("written");
    assert!(watch.wait(Duration::ZERO).expect("seen"));
    assert!(!watch.wait(Duration::ZERO).expect("quiet again"));
    fs.create_dir(Path::new("/other")).expect("created");
    assert!(!watch.wait(Duration::ZERO).expect("not here"));
    std::thread::scope(|scope| {
        scope.spawn(|| fs.remove_file(&path("a")).expect("removed"));
        assert!(watch.wait(Duration::from_secs(60)).expect("woken"));
    });
    std::thread::scope(|scope| {
        scope.spawn(|| fs.crash_now());
        watch.wait(Duration::from_secs(60)).expect_err("crashed");
    });
}

#[test]
fn a_mapping_is_a_view_of_its_moment_and_made_once() {
    let fs = prepared(1);
    write_durably(&fs, "a", b"abc");
    let file = fs.open(&path("a")).expect("there");
    let first = file.map(Access::Random).expect("mapped");
    let second = file.map(Access::Sequential).expect("mapped");
    assert_eq!(&first[..], b"abc");
    assert_eq!(first.as_ptr(), second.as_ptr());
    let image = fs.crash_image(&CrashModel::Synced, 1);
    let same = image.open(&path("a")).expect("there");
    let third = same.map(Access::Random).expect("mapped");
    assert_eq!(
        first.as_ptr(),
        third.as_ptr(),
        "images share what did not change"
    );
    fs.remove_file(&path("a")).expect("removed");
    assert_eq!(&first[..], b"abc");
    image.set_order_checked(false);
    image.rename(&path("a"), &path("b")).expect("renamed");
    let changed = image.create(&path("a")).expect("created");
    for bytes in [b"one", b"two"] {
        changed.write_at(0, bytes).expect("written");
        assert_eq!(&changed.map(Access::Random).expect("mapped")[..], bytes);
    }
}

#[test]
fn random_numbers_follow_from_the_seed() {
    let take = |seed| {
        let fs = SimFs::new(seed);
        (0..8).map(|_| fs.random_u64()).collect::<Vec<_>>()
    };
    assert_eq!(take(5), take(5));
    assert_ne!(take(5), take(6));
}

#[test]
fn installed_bytes_are_durable_and_leave_open_handles_alone() {
    let fs = prepared(1);
    let file = write(&fs, "a", b"abc");
    fs.install(&path("a"), b"damaged").expect("a directory");
    fs.install(&path("b"), b"foreign").expect("a directory");
    assert_eq!(file.len().expect("known"), 3);
    let image = fs.crash_image(&CrashModel::Synced, 1);
    assert_eq!(image.contents(&path("a")).expect("there"), b"damaged");
    assert_eq!(image.contents(&path("b")).expect("there"), b"foreign");
    assert_eq!(dump(&fs), dump(&image));
}

#[test]
fn an_observer_sees_calls_before_they_are_made_and_may_ask() {
    let fs = prepared(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    fs.set_observer(Some(Arc::new(move |fs, op| {
        let len = fs.contents(op.path).map(|bytes| bytes.len());
        let images = fs.crash_image(&CrashModel::Everything, 1).paths().len();
        notes.lock().push((op.kind, len, op.bytes.to_vec(), images));
    })));
    let file = write(&fs, "a", b"abc");
    file.sync().expect("synced");
    fs.rename(&path("a"), &path("b")).expect("renamed");
    fs.set_observer(None);
    fs.remove_file(&path("b")).expect("removed");
    let expected = [
        (OpKind::Create, None, vec![], 0),
        (OpKind::Write, Some(0), b"abc".to_vec(), 1),
        (OpKind::Sync, Some(3), vec![], 1),
        (OpKind::Rename, Some(3), vec![], 1),
    ];
    assert_eq!(*seen.lock(), expected);
}

#[test]
fn threads_share_it() {
    let fs = prepared(1);
    fs.set_observer(Some(Arc::new(|fs, op| {
        fs.is_synced(op.path);
        fs.is_name_durable(op.path);
    })));
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let fs = &fs;
            scope.spawn(move || {
                let file = write(fs, &format!("{thread}"), b"");
                for record in 0..200 {
                    file.write_at(record * 8, &[thread; 8]).expect("written");
                    file.sync().expect("synced");
                }
            });
        }
    });
    fs.sync_dir(Path::new("/db")).expect("synced");
    for thread in 0..4u8 {
        let bytes = read_small_file(fs.as_ref(), &path(&format!("{thread}")), 1600);
        assert_eq!(bytes.expect("there"), [thread; 1600]);
    }
    assert_eq!(fs.pending_count(), 0);
}
