//! What each model leaves, one by one.

use super::*;

const DB: &str = "/db";

fn image_of(fs: &SimFs, model: CrashModel) -> BTreeMap<PathBuf, Vec<u8>> {
    let image = fs.crash_image(&model, 1);
    assert_eq!(image.pending_count(), 0, "an image is durable");
    assert_eq!(
        dump(&image),
        dump(&image.crash_image(&CrashModel::Synced, 2))
    );
    dump(&image)
}

fn files(list: &[(&str, &[u8])]) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = list.iter();
    files
        .map(|(name, bytes)| (path(name), bytes.to_vec()))
        .collect()
}

/// `a` is durable with an unsynced addition, `b` is synced without its name, `c` is not synced.
fn mixed() -> Arc<SimFs> {
    let fs = prepared(1);
    write_durably(&fs, "a", b"old")
        .write_at(3, b"+new")
        .expect("written");
    write(&fs, "b", b"synced").sync().expect("synced");
    write(&fs, "c", b"lost");
    fs
}

#[test]
fn only_what_was_synced() {
    assert_eq!(
        image_of(&mixed(), CrashModel::Synced),
        files(&[("a", b"old")])
    );
}

#[test]
fn everything() {
    let all = files(&[("a", b"old+new"), ("b", b"synced"), ("c", b"lost")]);
    assert_eq!(image_of(&mixed(), CrashModel::Everything), all);
}

#[test]
fn names_and_lengths_without_data() {
    let zeros = files(&[("a", b"old\0\0\0\0"), ("b", b"synced"), ("c", b"\0\0\0\0")]);
    assert_eq!(image_of(&mixed(), CrashModel::NamesAndLengths), zeros);
}

#[test]
fn data_without_names() {
    assert_eq!(
        image_of(&mixed(), CrashModel::Data),
        files(&[("a", b"old+new")])
    );
}

#[test]
fn prefixes_go_from_nothing_to_everything_one_change_at_a_time() {
    let fs = mixed();
    // The addition to `a`, the links of `b` and `c`, the data of `c`.
    assert_eq!(fs.pending_count(), 4);
    let steps: [&[(&str, &[u8])]; 5] = [
        &[("a", b"old")],
        &[("a", b"old+new")],
        &[("a", b"old+new"), ("b", b"synced")],
        &[("a", b"old+new"), ("b", b"synced"), ("c", b"")],
        &[("a", b"old+new"), ("b", b"synced"), ("c", b"lost")],
    ];
    for (count, step) in steps.into_iter().enumerate() {
        assert_eq!(
            image_of(&fs, CrashModel::Prefix(count)),
            files(step),
            "{count}"
        );
    }
    assert_eq!(image_of(&fs, CrashModel::Prefix(99)), files(steps[4]));
}

#[test]
fn a_torn_write_keeps_what_arrived() {
    let fs = prepared(1);
    write_durably(&fs, "stale", b"sssssssssss");
    fs.remove_file(&path("stale")).expect("removed");
    fs.sync_dir(Path::new(DB)).expect("synced");
    let file = write_durably(&fs, "a", b"0123456789");
    file.write_at(2, b"early").expect("written");
    file.write_at(8, b"abcdef").expect("written");
    assert_eq!(fs.last_write_bytes(), Some(6));
    let torn = |kept, filler| {
        let model = CrashModel::Torn {
            kept: Some(kept),
            filler,
        };
        image_of(&fs, model).remove(&path("a")).expect("there")
    };
    assert_eq!(torn(6, Filler::Zeros), b"01early7abcdef");
    assert_eq!(torn(99, Filler::Zeros), b"01early7abcdef");
    assert_eq!(torn(0, Filler::Old), b"01early789");
    assert_eq!(torn(3, Filler::Old), b"01early7abc");
    assert_eq!(torn(3, Filler::Zeros), b"01early7abc\0\0\0");
    assert_eq!(torn(3, Filler::Ones), b"01early7abc\xff\xff\xff");
    let stale = torn(3, Filler::Stale);
    assert_eq!(stale[..11], *b"01early7abc");
    assert_eq!(stale.len(), 14);
    assert!(stale[11..].iter().all(|byte| [b's', 0].contains(byte)));
    assert_ne!(torn(0, Filler::Random), torn(0, Filler::Zeros));
    let lengths = (0..64).map(|seed| {
        let model = CrashModel::Torn {
            kept: None,
            filler: Filler::Old,
        };
        let image = fs.crash_image(&model, seed);
        image.contents(&path("a")).expect("there").len()
    });
    let lengths: std::collections::BTreeSet<_> = lengths.collect();
    assert_eq!(
        lengths.into_iter().collect::<Vec<_>>(),
        [10, 11, 12, 13, 14]
    );
}

#[test]
fn a_rename_or_unlink_may_persist_while_an_earlier_create_is_lost() {
    let fs = prepared(1);
    write_durably(&fs, "CURRENT", b"one");
    write_durably(&fs, "old", b"input");
    write(&fs, "new", b"output").sync().expect("synced");
    write(&fs, "tmp", b"two").sync().expect("synced");
    fs.rename(&path("tmp"), &path("CURRENT")).expect("renamed");
    fs.remove_file(&path("old")).expect("removed");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let image = fs.crash_image(&CrashModel::Sectors, seed);
        let current = image.contents(&path("CURRENT")).expect("never missing");
        let there = |name| image.contents(&path(name)).is_some();
        assert!(
            current == b"one" || !there("tmp"),
            "renamed, not linked twice"
        );
        seen.insert((current == b"two", there("new"), there("old")));
    }
    // All eight: in particular a new CURRENT and no old table beside a missing new one.
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_rename_takes_away_only_the_name_of_what_it_moved() {
    let fs = prepared(1);
    write_durably(&fs, "a", b"old");
    write_durably(&fs, "b", b"new");
    fs.rename(&path("b"), &path("a")).expect("renamed");
    fs.rename(&path("a"), &path("c")).expect("renamed");
    let seeds = 0..100;
    let images = seeds.map(|seed| dump(&fs.crash_image(&CrashModel::Sectors, seed)));
    let seen: std::collections::BTreeSet<_> = images.collect();
    let all = [
        files(&[("a", b"old"), ("b", b"new")]),
        files(&[("a", b"new")]),
        files(&[("c", b"new")]),
        // Only the second one persisted: the file that was at `a` is still there.
        files(&[("a", b"old"), ("b", b"new"), ("c", b"new")]),
    ];
    assert_eq!(seen, all.into_iter().collect());
}

#[test]
fn a_move_between_directories_never_loses_the_file() {
    let fs = prepared(1);
    fs.create_dir(&path("lost")).expect("created");
    write_durably(&fs, "a", b"abc");
    fs.rename(&path("a"), &path("lost/a")).expect("moved");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let image = fs.crash_image(&CrashModel::Sectors, seed);
        seen.insert(image.paths());
    }
    let (here, there) = (path("a"), path("lost/a"));
    let all = [
        vec![here.clone()],
        vec![here, there.clone()],
        vec![there.clone()],
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    // Syncing the directory that it left also makes the name durable that it got.
    fs.sync_dir(Path::new(DB)).expect("synced");
    assert!(fs.is_name_durable(&there));
    assert_eq!(fs.crash_image(&CrashModel::Synced, 1).paths(), [there]);
}

#[test]
fn a_synced_move_wins_over_what_its_name_meant_before() {
    let fs = prepared(1);
    fs.create_dir(&path("lost")).expect("created");
    fs.sync_dir(Path::new(DB)).expect("synced");
    fs.create(&path("lost/a")).expect("created");
    write_durably(&fs, "a", b"abc");
    fs.rename(&path("a"), &path("lost/a")).expect("moved");
    fs.sync_dir(Path::new(DB)).expect("synced");
    for model in [
        CrashModel::Synced,
        CrashModel::Everything,
        CrashModel::Prefix(1),
    ] {
        assert_eq!(image_of(&fs, model), files(&[("lost/a", b"abc")]));
    }
}

#[test]
fn a_directory_without_a_durable_name_is_lost_with_all_in_it() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new(DB)).expect("created");
    write_durably(&fs, "a", b"abc");
    assert!(!fs.is_name_durable(&path("a")));
    assert_eq!(
        fs.crash_image(&CrashModel::Synced, 1).paths(),
        [] as [&Path; 0]
    );
    fs.sync_dir(Path::new("/")).expect("synced");
    assert!(fs.is_name_durable(&path("a")));
}

#[test]
fn a_failed_sync_loses_what_it_covered() {
    let prepare = |mode| {
        let fs = prepared(1);
        fs.set_failed_sync(mode);
        let file = write_durably(&fs, "a", b"old");
        file.write_at(3, b"+new").expect("written");
        fs.fail(Fault::new(OpKind::Sync, FaultError::Eio));
        file.sync().expect_err("planned");
        file.sync().expect("the next one succeeds");
        fs
    };
    for (mode, read, kept) in [
        (FailedSync::Kept, "old+new", "old+new"),
        (FailedSync::Forgotten, "old+new", "old"),
        (FailedSync::Reverted, "old", "old"),
    ] {
        let fs = prepare(mode);
        assert_eq!(fs.contents(&path("a")).expect("there"), read.as_bytes());
        assert_eq!(fs.is_synced(&path("a")), mode != FailedSync::Forgotten);
        // The death of the process alone loses nothing that reads return.
        let killed = image_of(&fs, CrashModel::Everything);
        assert_eq!(killed, files(&[("a", read.as_bytes())]));
        let models = fs.crash_models(8, 8).into_iter();
        for model in models.filter(|model| *model != CrashModel::Everything) {
            assert_eq!(
                image_of(&fs, model),
                files(&[("a", kept.as_bytes())]),
                "{model:?}"
            );
        }
    }
}

#[test]
fn images_are_independent_of_each_other_and_of_their_origin() {
    let fs = mixed();
    let image = fs.crash_image(&CrashModel::Everything, 1);
    let before = dump(&image);
    fs.install(&path("a"), b"changed").expect("a directory");
    write(&fs, "d", b"more");
    assert_eq!(dump(&image), before);
    let other = image.crash_image(&CrashModel::Everything, 1);
    image.remove_file(&path("a")).expect("removed");
    assert_eq!(dump(&other), before);
    assert_eq!(image.mutation_count(), 1);
}

#[test]
fn what_is_synced_is_known_to_the_byte() {
    let fs = prepared(1);
    let file = write_durably(&fs, "a", b"0123456789");
    assert!(fs.is_synced(&path("a")));
    assert!(fs.is_synced_upto(&path("a"), 10));
    assert!(!fs.is_synced_upto(&path("a"), 11));
    file.write_at(8, b"xyz").expect("written");
    assert!(!fs.is_synced(&path("a")));
    assert!(fs.is_synced_upto(&path("a"), 8));
    assert!(!fs.is_synced_upto(&path("a"), 9));
    assert_eq!(
        fs.durable_contents(&path("a")).expect("there"),
        b"0123456789"
    );
    file.sync().expect("synced");
    file.set_len(5).expect("cut");
    file.set_len(20).expect("extended");
    assert!(fs.is_synced_upto(&path("a"), 5));
    assert!(!fs.is_synced_upto(&path("a"), 6));
    assert!(!fs.is_synced(&path("b")));
    assert!(!fs.is_name_durable(&path("b")));
    fs.rename(&path("a"), &path("b")).expect("renamed");
    assert!(!fs.is_name_durable(&path("b")));
    fs.sync_dir(Path::new(DB)).expect("synced");
    assert!(fs.is_name_durable(&path("b")));
}
