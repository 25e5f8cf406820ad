//! The process that is killed while the disk is full: one writer of numbered operations, which says
//! of each what became of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use siltstone::Db;

use super::super::child::tell;
use super::super::failure::{Failure, Outcome};
use super::super::pause::pause;
use super::super::settings;
use super::super::world::{Version, World, write_value};
use super::{KEY_COUNT, REFUSALS_OF_A_FULL_DISK, check_refusal, unless_full};
use crate::random::Random;
use crate::say::say;

/// Operations between two openings, at most.
const SESSION_OPERATIONS_MAX: u64 = 30_000;
const REOPEN_PAUSE: Duration = Duration::from_millis(5);

/// What the filler is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct FillerArgs {
    /// Directory of the database.
    #[arg(long)]
    pub(super) db: PathBuf,
    /// Of the operations.
    #[arg(long)]
    pub(super) seed: u64,
    /// Of everything else: options, when to reopen.
    #[arg(long)]
    pub(super) mood: u64,
    /// The first operation.
    #[arg(long)]
    pub(super) from: u64,
}

/// Operation `number`: the key, and its version or 0 for a delete.
pub(super) fn operation(seed: u64, number: u64) -> (usize, Version) {
    let mut random = Random::stream(seed, &[0xf1, number]);
    let index = random.below_usize(KEY_COUNT);
    let version = if random.one_in(10) { 0 } else { number };
    (index, version)
}

/// The whole process: 0 never, 1 with a finding on standard error.
pub(crate) fn main(args: &FillerArgs) -> u8 {
    match run(args) {
        Ok(()) => 0,
        Err(Failure::Finding(text)) => {
            say(text);
            1
        }
        Err(Failure::Setup(error)) => {
            say(error);
            2
        }
    }
}

fn run(args: &FillerArgs) -> Outcome<()> {
    let world = World::new(KEY_COUNT);
    let mut random = Random::new(args.mood);
    let mut next = args.from;
    loop {
        let options = settings::options(random.next_u64());
        let Some(db) = unless_full("opening", options.open(&args.db))? else {
            tell("full\n");
            pause(REOPEN_PAUSE);
            continue;
        };
        let upto = next + 1 + random.below(SESSION_OPERATIONS_MAX);
        write(args.seed, &world, &db, next..upto)?;
        next = upto;
        if random.one_in(2) {
            unless_full("closing", db.close())?;
        }
    }
}

fn write(seed: u64, world: &World, db: &Db, numbers: std::ops::Range<u64>) -> Outcome<()> {
    let mut refusals = 0;
    let mut value = Vec::new();
    for number in numbers {
        let (index, version) = operation(seed, number);
        let result = if version == 0 {
            db.delete(world.key(index))
        } else {
            write_value(index, version, &mut value);
            db.put(world.key(index), &value)
        };
        match result {
            Ok(_) => {
                refusals = 0;
                tell(&format!("ack {number}\n"));
            }
            Err(error) => {
                check_refusal(&format!("operation {number}"), &error, &db.health())?;
                refusals += 1;
                tell(&format!("rej {number}\n"));
            }
        }
        if refusals >= REFUSALS_OF_A_FULL_DISK {
            refusals = 0;
            tell("full\n");
            pause(REOPEN_PAUSE);
        }
    }
    Ok(())
}
