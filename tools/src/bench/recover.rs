//! `recover`: a process is killed right after its writes, and its database opened.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base::error::{Error, Result};
use base::sync::{Arc, Mutex};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use siltstone::{Db, Event};

use super::args::Args;
use super::lane::{Track, run_lanes};
use super::moments::Moments;
use super::work::Measured;
use crate::text::{bytes_for_people, counted};

/// What a process says when it has done its work and holds its database open.
pub(crate) const HOLDING: &str = "holding the database open";

/// Fills the database in `dir` in a process of its own, and kills that as soon as it is done.
///
/// # Errors
/// If the process cannot be started, or fails.
pub(crate) fn leave_behind(dir: &Path, args: &Args) -> Result<()> {
    let program = std::env::current_exe().map_err(|e| Error::io("lsm-bench", "find", e))?;
    let mut child = Command::new(&program)
        .arg("--benchmarks=fillrandom")
        .arg("--hold_open")
        .arg(format!("--db={}", dir.display()))
        .args(inherited(args))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io(&program, "start", e))?;
    let said = wait_for_word(&mut child);
    // It may have ended already, which is what `said` then tells.
    let _ = child.kill();
    child
        .wait()
        .map_err(|e| Error::io(&program, "wait for", e))?;
    said
}

fn wait_for_word(child: &mut Child) -> Result<()> {
    let Some(output) = child.stdout.take() else {
        return Err(Error::invalid_argument(
            "the process to be killed has no output",
        ));
    };
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| Error::io("lsm-bench", "read the output of", e))?;
        if line == HOLDING {
            return Ok(());
        }
    }
    Err(Error::invalid_argument(
        "the process that was to be killed ended by itself; see what it said above",
    ))
}

/// The flags that say what is written and how the database is tuned.
fn inherited(args: &Args) -> Vec<String> {
    let mut flags = vec![
        format!("--num={}", args.num),
        format!("--writes={}", args.writes),
        format!("--seed={}", args.seed),
        format!("--threads={}", args.threads),
        format!("--key_size={}", args.key_size),
        format!("--value_size={}", args.value_size),
        format!("--value_size_min={}", args.value_size_min),
        format!("--value_size_max={}", args.value_size_max),
        format!("--batch_size={}", args.batch_size),
        format!("--compression_ratio={}", args.compression_ratio),
        format!("--compression_level={}", args.compression_level),
        format!("--bloom_bits={}", args.bloom_bits),
        format!("--cache_size={}", args.cache_size),
        format!("--sync={}", args.switches.sync),
    ];
    let sizes = args.sizes_given();
    flags.extend(sizes.map(|(name, value)| format!("--{name}={value}")));
    let mut name = |flag: &str, value: Option<PossibleValue>| {
        flags.extend(value.map(|value| format!("--{flag}={}", value.get_name())));
    };
    let distribution = args.value_size_distribution_type.to_possible_value();
    name("value_size_distribution_type", distribution);
    let compression = args.compression_type.as_ref();
    name(
        "compression_type",
        compression.and_then(ValueEnum::to_possible_value),
    );
    let append = args.log_append.as_ref();
    name("log_append", append.and_then(ValueEnum::to_possible_value));
    flags
}

/// Says that the work is done, and waits to be killed, or for the end of standard input.
///
/// # Errors
/// If nothing can be said.
pub(crate) fn hold(out: &mut dyn std::io::Write) -> Result<()> {
    writeln!(out, "{HOLDING}")
        .and_then(|()| out.flush())
        .map_err(super::output_failed)?;
    // However it ends, there is nobody left to wait for.
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
    Ok(())
}

/// Opens what a killed process left in `track.dir`: that is the one operation.
///
/// # Errors
/// As [`siltstone::Options::open`].
pub(crate) fn open(track: &Track<'_>, moments: &Moments) -> Result<(Measured, Db)> {
    let replayed = Arc::new(Mutex::new((0, 0)));
    let opened = Mutex::new(None);
    let meters = run_lanes(track, 1, |_, lane| {
        let (seen, moments) = (Arc::clone(&replayed), moments.clone());
        let listener = move |event: &Event| {
            match event {
                Event::Recovered { replayed_count, .. } => seen.lock().0 = *replayed_count,
                Event::RecoveryProgress { total_bytes, .. } => seen.lock().1 = *total_bytes,
                _ => {}
            }
            moments.note(event);
        };
        let options = lane.args.options().on_event(Arc::new(listener));
        *opened.lock() = Some(options.open(track.dir)?);
        lane.finish(1, 0);
        Ok(())
    })?;
    let (count, bytes) = *replayed.lock();
    let log = match bytes {
        0 => String::new(),
        bytes => format!(" from {} of log", bytes_for_people(bytes)),
    };
    let db = opened.into_inner().expect("the one lane has opened it");
    let measured = Measured {
        note: Some(format!(
            "  killed after its last write; {} replayed{log}",
            counted(count, "operation")
        )),
        ..meters.into()
    };
    Ok((measured, db))
}
