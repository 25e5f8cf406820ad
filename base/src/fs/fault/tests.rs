use std::path::PathBuf;

use super::*;
use crate::error::ErrorKind;
use crate::fs::sim::SimFs;

fn prepared() -> (Arc<SimFs>, Arc<FaultFs>) {
    let sim = SimFs::new(1);
    let inner: Arc<dyn FileSystem> = Arc::<SimFs>::clone(&sim);
    (sim, FaultFs::new(inner))
}

fn path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

#[test]
fn the_nth_call_fails_once() {
    let (_sim, fs) = prepared();
    fs.fail(Fault::new(OpKind::Create, FaultError::Emfile).nth(2));
    fs.create(&path("a")).expect("the first");
    let error = fs.create(&path("b")).expect_err("the second");
    assert_eq!(error.kind(), ErrorKind::Io);
    fs.create(&path("b"))
        .expect("the third, and nothing was done by the second");
    assert_eq!(fs.calls(OpKind::Create), 3);
    assert_eq!(fs.calls(OpKind::AnyMutating), 3);
    assert_eq!(fs.faults().fired(), 1);
}

#[test]
fn every_call_from_the_nth_on_fails_until_cleared() {
    let (_sim, fs) = prepared();
    let file = fs.create(&path("a")).expect("created");
    fs.fail(
        Fault::new(OpKind::AnyMutating, FaultError::Enospc)
            .nth(2)
            .for_ever(),
    );
    file.write_at(0, b"a").expect("the first");
    assert!(
        file.write_at(1, b"b")
            .expect_err("the second")
            .is_no_space()
    );
    assert!(file.sync().expect_err("all kinds").is_no_space());
    fs.sync_dir(Path::new("/")).expect_err("all kinds");
    assert_eq!(file.len().expect("reads go on"), 1);
    fs.clear();
    file.write_at(1, b"b").expect("cleared");
}

#[test]
fn a_filter_counts_and_meets_only_its_paths() {
    let (_sim, fs) = prepared();
    let is_table = |path: &Path| path.extension().is_some_and(|e| e == "sst");
    fs.fail(
        Fault::new(OpKind::Create, FaultError::Eacces)
            .nth(2)
            .only(is_table),
    );
    fs.create(&path("1.sst")).expect("the first");
    fs.create(&path("2.log")).expect("does not count");
    fs.create(&path("3.log")).expect("does not count");
    fs.create(&path("4.sst")).expect_err("the second");
}

#[test]
fn errors_are_those_of_the_system() {
    let (_sim, fs) = prepared();
    for (error, kind) in [
        (FaultError::Eio, ErrorKind::Io),
        (FaultError::Enospc, ErrorKind::NoSpace),
        (FaultError::Edquot, ErrorKind::NoSpace),
        (FaultError::Emfile, ErrorKind::Io),
        (FaultError::Eacces, ErrorKind::Io),
        (FaultError::Erofs, ErrorKind::Io),
    ] {
        fs.fail(Fault::new(OpKind::Open, error));
        assert_eq!(fs.open(&path("a")).expect_err("planned").kind(), kind);
    }
    assert!(fs.open(&path("a")).expect_err("missing").is_not_found());
}

#[test]
fn a_rename_may_be_done_and_fail_all_the_same() {
    let (sim, fs) = prepared();
    fs.create(&path("a")).expect("created");
    let effect = Effect::FailAfter(FaultError::Eio);
    fs.fail(Fault::with_effect(OpKind::Rename, effect));
    fs.rename(&path("a"), &path("b")).expect_err("planned");
    assert_eq!(sim.paths(), [path("b")]);
}

#[test]
fn a_write_may_be_done_in_part() {
    for over_sim in [false, true] {
        let (sim, fs) = prepared();
        let effect = Effect::FailPartly {
            bytes: 2,
            error: FaultError::Eio,
        };
        let fault = Fault::with_effect(OpKind::Write, effect);
        let file = if over_sim {
            sim.fail(fault);
            sim.create(&path("a"))
        } else {
            fs.fail(fault);
            fs.create(&path("a"))
        };
        let error = file.expect("created").write_at(0, b"abc");
        assert_eq!(error.expect_err("planned").offset(), Some(0));
        assert_eq!(sim.contents(&path("a")).expect("there"), b"ab");
    }
}

#[test]
fn reads_are_cut_short_and_damaged() {
    let (sim, fs) = prepared();
    let systems: [(&dyn FileSystem, &FaultPlan); 2] =
        [(fs.as_ref(), fs.faults()), (sim.as_ref(), sim.faults())];
    sim.install(&path("a"), b"abcd").expect("a directory");
    for (fs, plan) in systems {
        let file = fs.open(&path("a")).expect("there");
        let mut buffer = [0; 4];
        plan.fail(Fault::with_effect(OpKind::Read, Effect::Short { bytes: 3 }));
        assert_eq!(file.read_at(0, &mut buffer).expect("read"), 3);
        plan.fail(Fault::with_effect(OpKind::Read, Effect::FlipBit { bit: 9 }));
        file.read_exact_at(0, &mut buffer).expect("read");
        assert_eq!(&buffer, b"a`cd");
        plan.fail(Fault::new(OpKind::Read, FaultError::Eio));
        file.read_at(0, &mut buffer).expect_err("planned");
        plan.fail(Fault::with_effect(OpKind::Map, Effect::FlipBit { bit: 32 }));
        let map = file.map(Access::Random).expect("mapped");
        assert_eq!(&map[..], b"`bcd");
        plan.fail(Fault::new(OpKind::Map, FaultError::Emfile));
        file.map(Access::Random).expect_err("planned");
        assert_eq!(&file.map(Access::Random).expect("mapped")[..], b"abcd");
    }
}

#[test]
fn every_kind_of_call_can_fail() {
    let (_sim, fs) = prepared();
    let file = fs.create(&path("a")).expect("created");
    let segment = fs.create(&path("000001.log")).expect("created");
    segment.reserve(10).expect("reserved");
    let root = Path::new("/");
    let call = |kind| -> Result<()> {
        match kind {
            OpKind::Create => fs.create(&path("b")).map(drop),
            OpKind::Open => fs.open_untrusted(&path("a")).map(drop),
            OpKind::Read => file.read_at(0, &mut [0; 4]).map(drop),
            OpKind::Write => file.write_at(0, b"x"),
            OpKind::SetLen => file.set_len(3),
            OpKind::Reserve => file.reserve(10).map(drop),
            OpKind::Sync => file.sync(),
            OpKind::Map => file.map(Access::Random).map(drop),
            OpKind::MapLive => segment.map_live(10).map(drop),
            OpKind::Rename => fs.rename(&path("b"), &path("c")),
            OpKind::Link => fs.hard_link(&path("c"), &path("e")),
            OpKind::Remove => fs.remove_file(&path("c")),
            OpKind::CreateDir => fs.create_dir(&path("d")),
            OpKind::SyncDir => fs.sync_dir(root),
            OpKind::List => fs.list(root).map(drop),
            OpKind::Status => fs.status(root).map(drop),
            OpKind::Lock => fs.lock(&path("LOCK")).map(drop),
            OpKind::FreeBytes => fs.free_bytes(root).map(drop),
            OpKind::Watch => fs.watch(root).map(drop),
            OpKind::Store | OpKind::AnyMutating | OpKind::Any => unreachable!("it cannot fail"),
        }
    };
    for kind in [
        OpKind::Create,
        OpKind::Open,
        OpKind::Read,
        OpKind::Write,
        OpKind::SetLen,
        OpKind::Reserve,
        OpKind::Sync,
        OpKind::Rename,
        OpKind::Link,
        OpKind::Remove,
        OpKind::CreateDir,
        OpKind::SyncDir,
        OpKind::List,
        OpKind::Status,
        OpKind::Lock,
        OpKind::FreeBytes,
        OpKind::Watch,
        OpKind::Map,
        OpKind::MapLive,
    ] {
        let before = fs.calls(kind);
        fs.fail(Fault::new(kind, FaultError::Erofs));
        call(kind).expect_err("planned");
        call(kind).expect("once");
        assert_eq!(fs.calls(kind), before + 2, "{kind:?}");
    }
    assert_eq!(fs.faults().fired(), 19);
}
