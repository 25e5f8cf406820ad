//! What is moved to `lost` can be found there, and its place in the log is not used again.

use super::*;

fn point_in_time(fs: &Arc<SimFs>, durable: Position) -> Result<(Site, Prepared)> {
    let site = Site::new(fs.clone());
    let prepared = site.recover_with(|config| {
        config.mode = RecoveryMode::PointInTime;
        config.durable_upto = Some(durable);
    })?;
    Ok((site, prepared))
}

#[test]
fn places_in_the_log_are_not_used_again_after_a_cut() {
    let mut made = Made::segments(4);
    made.sync();
    let durable = made.log.durable_upto();
    let damaged = made.killed_with_damage(1);
    let calls = {
        let image = image_of(&damaged, CrashModel::Everything);
        point_in_time(&image, durable).expect("recovered");
        image.mutation_count()
    };
    for call in 1..=calls {
        let image = image_of(&damaged, CrashModel::Everything);
        image.crash_after(call);
        // Some failures do not matter.
        let _ = point_in_time(&image, durable);
        let image = image_of(&image, CrashModel::Everything);
        let (site, prepared) = point_in_time(&image, durable).expect("recovered");
        assert!(prepared.successor.ordinal > durable.ordinal, "call {call}");
        let log = go_on(&site, &prepared).expect("started");
        let mut feeder = Feeder::after(made.appended(1).to_vec());
        feeder.append_many(&log, 2);
        log.sync().expect("synced");
        // MANIFEST keeps the highest position it ever knew; it must prove nothing wrong.
        let site = Site::new(image_of(&image, CrashModel::Synced));
        let known = durable.max(log.durable_upto());
        let prepared = site
            .recover_with(|config| config.durable_upto = Some(known))
            .expect("a good log");
        assert_eq!(site.records(&prepared), feeder.appended, "call {call}");
    }
}

#[test]
fn what_is_moved_is_never_between_two_folders() {
    let made = Made::segments(4);
    let damaged = made.killed_with_damage(1);
    let originals: Vec<_> = [3, 6, 9].map(|record| made.places[record].1).into();
    let recover = |fs: &Arc<SimFs>| Site::new(fs.clone()).recover();
    let calls = {
        let image = image_of(&damaged, CrashModel::Everything);
        recover(&image).expect("recovered");
        assert_eq!(lost_files(&image).len(), originals.len());
        image.mutation_count()
    };
    for call in 1..=calls {
        for round in 0..40 {
            let image = image_of(&damaged, CrashModel::Everything);
            image.crash_after(call);
            // Some failures do not matter.
            let _ = recover(&image);
            let image = image_of(&image, CrashModel::Sectors);
            for number in &originals {
                let path = FileKind::Segment.path(Path::new(DIR), *number);
                let lost = Path::new(DIR).join(ids::LOST);
                let lost = FileKind::Segment.path(&lost, *number);
                assert!(
                    image.contents(&path).is_some() || image.contents(&lost).is_some(),
                    "call={call} round={round} {number}"
                );
            }
            recover(&image).expect("recovered");
            for number in &originals {
                let path = FileKind::Segment.path(Path::new(DIR), *number);
                let is_back = image.contents(&path).is_some();
                assert!(!is_back, "call={call} round={round} {number}");
            }
        }
    }
}

#[test]
fn a_cut_that_needs_no_copy_can_be_interrupted_too() {
    // All that the damaged segment held is lost with it, but everybody has it in tables.
    let mut made = Made::segments(2);
    made.sync();
    let durable = made.log.durable_upto();
    let damaged = made.killed_with_damage(3);
    let floor = seq(made.feeder.next_seq - 1);
    let recover = |fs: &Arc<SimFs>| {
        Site::new(fs.clone()).recover_with(|config| {
            config.mode = RecoveryMode::PointInTime;
            config.durable_upto = Some(durable);
            config.floor = floor;
            config.flushed_max = floor;
        })
    };
    let image = image_of(&damaged, CrashModel::Everything);
    recover(&image).expect("recovered");
    for call in 1..=image.mutation_count() {
        let image = image_of(&damaged, CrashModel::Everything);
        image.crash_after(call);
        // Some failures do not matter.
        let _ = recover(&image);
        for (index, model) in image.crash_models(4, 6).iter().enumerate() {
            let image = image_of(&image, *model);
            let prepared = recover(&image)
                .unwrap_or_else(|error| panic!("call={call} {index} {model:?}: {error}"));
            assert_eq!(prepared.last_seq, floor);
        }
    }
}
