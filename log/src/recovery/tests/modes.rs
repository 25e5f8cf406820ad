//! Damage, and what each mode makes of it.

use super::*;

const MODES: [RecoveryMode; 3] = [
    RecoveryMode::Strict,
    RecoveryMode::TornTail,
    RecoveryMode::PointInTime,
];

fn recover_in(fs: &Arc<SimFs>, mode: RecoveryMode) -> Result<(Site, Prepared)> {
    let site = Site::new(fs.clone());
    let prepared = site.recover_with(|config| config.mode = mode)?;
    Ok((site, prepared))
}

/// Checks that recovery refuses, and says where.
fn refuses(fs: &Arc<SimFs>, mode: RecoveryMode, path: &Path, offset: u64) {
    let before = fs.mutation_count();
    let error = recover_in(fs, mode).expect_err("damaged");
    assert!(error.is_corruption(), "{mode:?}: {error}");
    assert_eq!(error.path(), Some(path), "{mode:?}: {error}");
    assert_eq!(error.offset(), Some(offset), "{mode:?}: {error}");
    assert_eq!(fs.mutation_count(), before, "nothing is changed");
}

#[test]
fn a_torn_tail() {
    let mut made = Made::new();
    made.append(5);
    let end = made.places[4].0.end.offset;
    for cut in [1, 20, 39, 41] {
        for mode in MODES {
            let image = made.killed();
            let path = made.path(4);
            let start = made.places[4].0.start.offset;
            let mut bytes = image.contents(&path).expect("there");
            let from = usize::try_from(start + cut).expect("small");
            // The rest of the last record is not what was written.
            bytes[from..usize::try_from(end).expect("small")].fill(0);
            image.install(&path, &bytes).expect("installed");
            if mode == RecoveryMode::Strict {
                refuses(&image, mode, &path, start);
                continue;
            }
            let (site, prepared) = recover_in(&image, mode).expect("recovered");
            assert_eq!(site.records(&prepared), made.appended(4));
            let dropped = prepared.dropped.expect("something was cut off");
            assert_eq!((&dropped.path, dropped.offset), (&path, start));
            // What was reserved is not counted.
            assert!((1..=cut).contains(&dropped.bytes), "{}", dropped.bytes);
            let kept = lost_files(&image).len();
            assert_eq!(kept, usize::from(mode == RecoveryMode::PointInTime));
        }
    }
}

#[test]
fn damage_before_a_later_record_that_proves_nothing() {
    // Nothing was synced: what follows is whole by chance and must not be replayed.
    let mut made = Made::new();
    made.append(5);
    for record in 0..4 {
        let start = made.places[record].0.start.offset;
        for mode in MODES {
            let image = made.killed_with_damage(record);
            if mode == RecoveryMode::Strict {
                refuses(&image, mode, &made.path(record), start);
                continue;
            }
            let (site, prepared) = recover_in(&image, mode).expect("recovered");
            assert_eq!(site.records(&prepared), made.appended(record));
            assert_eq!(prepared.dropped.expect("cut").offset, start);
        }
    }
}

#[test]
fn damage_before_a_later_record_that_proves_a_sync() {
    let mut made = Made::new();
    made.append(3).sync().append(2);
    for record in 0..5 {
        let start = made.places[record].0.start.offset;
        let image = made.killed_with_damage(record);
        if record < 3 {
            refuses(&image, RecoveryMode::TornTail, &made.path(record), start);
        } else {
            let (site, prepared) = recover_in(&image, RecoveryMode::TornTail).expect("cut");
            assert_eq!(site.records(&prepared), made.appended(record));
        }
        // Who asks for it gets what there is.
        let image = made.killed_with_damage(record);
        let (site, prepared) = recover_in(&image, RecoveryMode::PointInTime).expect("cut");
        assert_eq!(site.records(&prepared), made.appended(record));
        assert_eq!(lost_files(&image).len(), 1, "the original is kept");
    }
}

#[test]
fn the_message_names_the_tool() {
    let mut made = Made::new();
    made.append(1).sync().append(1);
    let error = recover_in(&made.killed_with_damage(0), RecoveryMode::TornTail).expect_err("bad");
    assert!(error.to_string().contains("siltstone verify"), "{error}");
    assert!(error.to_string().contains("synced_upto"), "{error}");
}

#[test]
fn damage_in_a_synced_part_that_only_a_later_segment_proves() {
    let mut made = Made::segments(2);
    made.sync();
    made.append(1);
    for record in 0..6 {
        let start = made.places[record].0.start.offset;
        let image = made.killed_with_damage(record);
        refuses(&image, RecoveryMode::TornTail, &made.path(record), start);
    }
}

#[test]
fn damage_in_a_synced_part_that_only_manifest_proves() {
    let mut made = Made::segments(2);
    made.sync();
    for record in 0..6 {
        let image = made.killed_with_damage(record);
        let site = Site::new(image);
        let error = site
            .recover_with(|config| config.durable_upto = Some(made.log.durable_upto()))
            .expect_err("damaged");
        assert!(error.is_corruption());
        assert_eq!(error.offset(), Some(made.places[record].0.start.offset));
        assert_eq!(error.path(), Some(&*made.path(record)));
    }
    // The end is gone without a trace: only MANIFEST knows.
    let path = made.path(5);
    for record in 3..6 {
        let image = made.killed();
        let mut bytes = image.contents(&path).expect("there");
        let from = usize::try_from(made.places[record].0.start.offset).expect("small");
        bytes[from..].fill(0);
        image.install(&path, &bytes).expect("installed");
        let site = Site::new(image);
        let error = site
            .recover_with(|config| config.durable_upto = Some(made.log.durable_upto()))
            .expect_err("short");
        assert_eq!(error.offset(), Some(from as u64), "{error}");
        assert_eq!(error.path(), Some(&*path));
    }
}

#[test]
fn damage_with_later_segments_ends_the_log_there() {
    for (mode, record) in MODES.into_iter().flat_map(|m| (0..9).map(move |r| (m, r))) {
        let made = Made::segments(4);
        let image = made.killed_with_damage(record);
        let start = made.places[record].0.start.offset;
        if mode == RecoveryMode::Strict {
            refuses(&image, mode, &made.path(record), start);
            continue;
        }
        let (site, prepared) = recover_in(&image, mode).expect("recovered");
        assert_eq!(site.records(&prepared), made.appended(record), "{record}");
        // Later segments are kept out of the way, and so is the cut one if that was asked for.
        let later = 3 - record / 3;
        let kept = lost_files(&image);
        let expected = later + usize::from(mode == RecoveryMode::PointInTime);
        assert_eq!(kept.len(), expected, "{mode:?} {record}: {kept:?}");
        let log = go_on(&site, &prepared).expect("started");
        let mut feeder = Feeder::after(made.appended(record).to_vec());
        feeder.append_many(&log, 2);
        log.sync().expect("synced");
        for model in [CrashModel::Synced, CrashModel::Everything] {
            let again = image.crash_image(&model, 1);
            assert_eq!(records_on(&again), feeder.appended, "{mode:?} {record}");
        }
    }
}

#[test]
fn a_segment_that_lost_all_its_bytes_is_damage_and_not_passed_over() {
    // The next one was begun after it; without it there would be a hole in the log.
    let mut made = Made::segments(3);
    for is_synced in [false, true] {
        if is_synced {
            made.sync();
            made.append(1);
        }
        let image = made.killed();
        let path = made.path(3);
        let mut bytes = image.contents(&path).expect("there");
        bytes[512..].fill(0);
        image.install(&path, &bytes).expect("installed");
        if is_synced {
            refuses(&image, RecoveryMode::TornTail, &path, 512);
        } else {
            let (site, prepared) = recover_in(&image, RecoveryMode::TornTail).expect("cut");
            assert_eq!(site.records(&prepared), made.appended(3));
        }
    }
}

#[test]
fn a_synced_end_that_is_gone_is_missed_although_nothing_whole_names_it() {
    // Zeros where the first segment ended; the second has lost its beginning, and only a record in
    // it knows how far the first was durable.
    let mut made = Made::new();
    made.append(3).sync().rotate().append(2);
    let image = made.killed();
    let first = made.path(0);
    let from = made.places[2].0.start.offset;
    let mut bytes = image.contents(&first).expect("there");
    bytes[usize::try_from(from).expect("small")..].fill(0);
    image.install(&first, &bytes).expect("installed");
    flip(&image, &made.path(3), 520);
    refuses(&image, RecoveryMode::TornTail, &first, from);
}

#[test]
fn what_nobody_needs_is_read_all_the_same_unless_it_is_proven() {
    // Without a proof it has to be copied, and what is damaged cannot be.
    let made = Made::segments(3);
    let image = made.killed_with_damage(1);
    let site = Site::new(image);
    let floor = seq(made.feeder.appended[5]);
    let prepared = site
        .recover_with(|config| {
            config.floor = floor;
            config.flushed_max = floor;
        })
        .expect("cut");
    assert_eq!(site.records(&prepared), made.appended(1));
    assert_eq!(prepared.last_seq, floor);
}

#[test]
fn point_in_time_never_cuts_below_what_one_of_the_tables_holds() {
    let mut made = Made::new();
    made.append(6).sync().append(1);
    let image = made.killed_with_damage(3);
    let last_kept = made.feeder.appended[3] - 1;
    let recover = |floor: u64, flushed_max: u64| {
        Site::new(image_of(&image, CrashModel::Everything)).recover_with(|config| {
            config.mode = RecoveryMode::PointInTime;
            config.floor = seq(floor);
            config.flushed_max = seq(flushed_max);
        })
    };
    recover(0, last_kept).expect("the tables end where the log does");
    // One keyspace would hold what is lost of another.
    let error = recover(2, last_kept + 1).expect_err("a hole");
    assert!(error.is_corruption(), "{error}");
    assert_eq!(error.path(), Some(&*made.path(3)));
    // Everybody holds what is lost of the log.
    recover(last_kept + 1, last_kept + 1).expect("no hole");
}

#[test]
fn strict_accepts_what_a_kill_or_a_close_leaves() {
    let mut made = Made::segments(3);
    let (site, prepared) = recover_in(&made.killed(), RecoveryMode::Strict).expect("whole");
    assert_eq!(site.records(&prepared), made.feeder.appended);
    made.append(2).log.close().expect("closed");
    let (site, prepared) = recover_in(&made.killed(), RecoveryMode::Strict).expect("whole");
    assert_eq!(site.records(&prepared), made.feeder.appended);
}

#[test]
fn strict_reads_also_what_is_not_needed() {
    let mut made = Made::segments(3);
    made.sync();
    let image = made.killed_with_damage(1);
    let recover = |mode| {
        Site::new(image_of(&image, CrashModel::Everything)).recover_with(|config| {
            config.mode = mode;
            config.floor = seq(made.feeder.appended[5]);
            config.flushed_max = config.floor;
            config.durable_upto = Some(made.log.durable_upto());
        })
    };
    recover(RecoveryMode::TornTail).expect("not needed");
    let error = recover(RecoveryMode::Strict).expect_err("damaged");
    assert_eq!(error.offset(), Some(made.places[1].0.start.offset));
}

#[test]
fn an_interrupted_cut_comes_to_the_same_end() {
    for (mode, record) in [RecoveryMode::TornTail, RecoveryMode::PointInTime]
        .into_iter()
        .flat_map(|mode| [1, 4].map(|record| (mode, record)))
    {
        let made = Made::segments(5);
        let damaged = made.killed_with_damage(record);
        let image = || image_of(&damaged, CrashModel::Everything);
        let whole = image();
        recover_in(&whole, mode).expect("recovered");
        let originals = lost_files(&whole).len();
        for call in 1..=whole.mutation_count() {
            let crashing = image();
            crashing.crash_after(call);
            // The failure of some calls does not matter.
            let _ = recover_in(&crashing, mode);
            for (index, model) in crashing.crash_models(4, 6).iter().enumerate() {
                let case = format!("{mode:?} record={record} call={call} index={index} {model:?}");
                let again = image_of(&crashing, *model);
                let (site, prepared) =
                    recover_in(&again, mode).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(site.records(&prepared), made.appended(record), "{case}");
                if mode == RecoveryMode::PointInTime {
                    assert!(lost_files(&again).len() >= originals, "{case}");
                }
                go_on(&site, &prepared).expect("started");
            }
        }
    }
}
