//! Power cuts: at random moments, and at every call that changes the disk; what is recovered is a
//! prefix of what was written that holds everything promised.

use std::sync::Arc;

use base::fs::sim::{CrashModel, Filler, SimFs};
use siltstone::{Durability, Result};

use crate::history::{History, Runner, Write};
use crate::images::{Depth, check_image};
use crate::support::{PrintOnPanic, Rng, for_each_seed, rounds};

/// A few of the models, all of them over some calls.
fn some_models(fs: &SimFs, rng: &mut Rng, count: usize) -> Vec<CrashModel> {
    let mut models = fs.crash_models(count.max(6), count.div_ceil(6));
    let filler = *rng.pick(&Filler::ALL);
    models.push(CrashModel::Torn { kept: None, filler });
    models.push(CrashModel::Sectors);
    while models.len() > count {
        models.swap_remove(rng.below(models.len()));
    }
    models
}

fn check_some_images(fs: &SimFs, seed: u64, history: &History, count: usize) {
    let mut rng = Rng::new(seed);
    for model in some_models(fs, &mut rng, count) {
        let seed = rng.next();
        let _place = PrintOnPanic(format!("image {model:?} with seed {seed}"));
        let image = fs.crash_image(&model, seed);
        let depth = if rng.chance(20) {
            Depth::Whole
        } else {
            Depth::Quick
        };
        if rng.chance(8) {
            crash_in_recovery(&image, &mut rng, history);
        }
        check_image(image, seed, history, depth);
    }
}

/// Cuts the power again while what the first cut left is recovered.
fn crash_in_recovery(image: &SimFs, rng: &mut Rng, history: &History) {
    let copy = || image.crash_image(&CrashModel::Everything, 0);
    let seed = rng.next();
    let whole = copy();
    check_image(Arc::clone(&whole), seed, history, Depth::Quick);
    let call_count = whole.mutation_count();
    for _ in 0..2 {
        let call = 1 + rng.next() % call_count;
        let _place = PrintOnPanic(format!("second cut at call {call} of {call_count}, {seed}"));
        let cut = copy();
        cut.crash_after(call);
        let world = crate::support::World::on(Arc::clone(&cut), seed);
        drop(world.open());
        drop(world);
        for model in some_models(&cut, rng, 2) {
            let seed = rng.next();
            let _place = PrintOnPanic(format!("second image {model:?} with seed {seed}"));
            check_image(cut.crash_image(&model, seed), seed, history, Depth::Quick);
        }
    }
}

#[test]
fn a_power_cut_between_two_calls_takes_a_suffix_that_was_not_promised() {
    let name = "a_power_cut_between_two_calls_takes_a_suffix_that_was_not_promised";
    for_each_seed(name, 50, |seed| {
        let mut runner = Runner::new(seed);
        runner.open().expect("a new database");
        for op in 0..120 {
            runner.anything().expect("no fault is planned");
            if runner.rng.chance(10) {
                let _place = PrintOnPanic(format!("after operation {op}"));
                let seed = runner.rng.next();
                check_some_images(&runner.world.fs, seed, &runner.history, 3);
            }
        }
    });
}

#[test]
fn a_power_cut_in_a_call_takes_a_suffix_that_was_not_promised() {
    let name = "a_power_cut_in_a_call_takes_a_suffix_that_was_not_promised";
    for_each_seed(name, 150, |seed| {
        let mut runner = Runner::new(seed);
        let call = 1 + runner.rng.next() % 900;
        runner.world.fs.crash_after(call);
        let _place = PrintOnPanic(format!("power cut in call {call}"));
        let mut result = runner.open();
        for _ in 0..500 {
            if result.is_err() || runner.world.fs.has_crashed() {
                break;
            }
            result = runner.anything();
        }
        runner.drop_handle();
        check_some_images(&runner.world.fs, seed, &runner.history, 5);
    });
}

/// Writes until the tree has levels and the log many segments.
fn write_heavy(runner: &mut Runner) -> Result<()> {
    runner.open()?;
    for round in 0..120 {
        runner.commit()?;
        runner.step(usize::from(round % 3 == 0));
        if round % 25 == 24 {
            runner.flush()?;
        }
    }
    runner.put(Durability::Disk)?;
    runner.compact()?;
    runner.step(20);
    for _ in 0..20 {
        runner.commit()?;
    }
    runner.sync()
}

/// Deletes, and closes and reopens in every way.
fn deletes_and_reopens(runner: &mut Runner) -> Result<()> {
    runner.open()?;
    for round in 0..6 {
        for _ in 0..5 {
            runner.commit()?;
        }
        let writes: Vec<Write> = runner
            .keys
            .iter()
            .skip(round)
            .step_by(3)
            .map(|key| (key.clone(), None))
            .collect();
        runner.write(&writes, Durability::Os)?;
        runner.put(Durability::Os)?;
        match round % 3 {
            0 => runner.close()?,
            1 => runner.drop_handle(),
            _ => {
                runner.compact()?;
                runner.put(Durability::Disk)?;
                runner.drop_handle();
            }
        }
        runner.open()?;
        runner.step(3);
    }
    runner.close()
}

/// Cuts the power at every call that changes the disk.
fn crash_everywhere(seed: u64, script: fn(&mut Runner) -> Result<()>) {
    let mut runner = Runner::new(seed);
    script(&mut runner).expect("no fault is planned");
    runner.drop_handle();
    let call_count = runner.world.fs.mutation_count();
    for call in 1..=call_count {
        let _place = PrintOnPanic(format!(
            "seed {seed}, power cut in call {call}/{call_count}"
        ));
        let mut runner = Runner::new(seed);
        runner.world.fs.crash_after(call);
        // A cut while only the sweeper works may go unnoticed until the end.
        let _ = script(&mut runner);
        runner.drop_handle();
        assert!(runner.world.fs.has_crashed(), "runs with one seed differ");
        let image_count = usize::try_from(4 * rounds()).expect("a small number");
        check_some_images(&runner.world.fs, seed ^ call, &runner.history, image_count);
    }
}

#[test]
fn a_power_cut_at_every_call_of_a_write_heavy_run() {
    crash_everywhere(11, write_heavy);
}

#[test]
fn a_power_cut_at_every_call_of_deletes_and_reopens() {
    crash_everywhere(12, deletes_and_reopens);
}

#[test]
fn a_kill_loses_nothing() {
    for_each_seed("a_kill_loses_nothing", 12, |seed| {
        let mut runner = Runner::new(seed);
        runner.open().expect("a new database");
        for _ in 0..40 + seed * 10 {
            runner.anything().expect("no fault is planned");
        }
        // Everything that returned is in the hands of the operating system.
        let mut history = runner.history.clone();
        history.promise();
        let image = runner.world.fs.crash_image(&CrashModel::Everything, seed);
        check_image(image, seed, &history, Depth::Whole);
    });
}
