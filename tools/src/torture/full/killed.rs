//! Kills a process whose disk is full, and looks at what recovery makes of it, with and without
//! space.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use base::{Error, ErrorKind};
use siltstone::Db;

use super::super::compare::{Source, State, check_all};
use super::super::failure::{Failure, OrSetup, Outcome, finding};
use super::super::settings;
use super::super::watchdog::Watchdog;
use super::super::world::World;
use super::filler::operation;
use super::{Disk, FullPlan, FullReport, unless_full};
use crate::interrupt::Stop;
use crate::random::Random;
use crate::scratch::remove_tree;

const KILL_COUNT: u32 = 3;
/// How long a filler has to fill a disk of some megabytes; then it is killed anyway.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest that a filler lives after the disk came to be full.
const FULL_LIFE_MILLIS_MAX: u64 = 150;

/// Fills the disk by another process and kills that, several times.
pub(super) fn run(
    plan: &FullPlan,
    program: &Path,
    disk: &mut Disk,
    world: &World,
    watchdog: &Watchdog,
    stop: &Stop,
    report: &mut FullReport,
) -> Outcome<()> {
    let mut random = Random::stream(plan.seed, &[0xdead]);
    remove_tree(&disk.db_dir());
    // As much as the first part had, or less.
    disk.load((2 << 20) + random.below(2 << 20), KILL_COUNT)?;
    let mut killed = Killed {
        seed: plan.seed,
        world,
        state: vec![0; world.len()],
        next: 1,
    };
    for _ in 0..KILL_COUNT {
        let heard = killed.fill_and_kill(program, disk, &mut random);
        if stop.is_set() {
            // Ctrl-C reaches the child as well; what it made of that is no finding.
            return Ok(());
        }
        let (heard, is_full) = heard?;
        watchdog.step();
        report.kills_while_full += u64::from(is_full);
        killed.recover(&heard, disk, &mut random, report)?;
        watchdog.step();
    }
    Ok(())
}

/// What the filler said of the operations since the last kill: whether each was acknowledged.
#[derive(Debug, Default)]
struct Heard {
    verdicts: Vec<bool>,
}

struct Killed<'a> {
    seed: u64,
    world: &'a World,
    state: State,
    /// The first operation that no comparison has seen.
    next: u64,
}

impl Killed<'_> {
    /// What the filler said, and whether its disk was full.
    fn fill_and_kill(
        &self,
        program: &Path,
        disk: &Disk,
        random: &mut Random,
    ) -> Outcome<(Heard, bool)> {
        let mut child = Command::new(program)
            .arg("filler")
            .arg("--db")
            .arg(disk.db_dir())
            .args(["--seed", &self.seed.to_string()])
            .args(["--mood", &random.next_u64().to_string()])
            .args(["--from", &self.next.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system)
            .or_setup()?;
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, receiver) = channel();
        let first = self.next;
        let listener = std::thread::spawn(move || listen(BufReader::new(stdout), first, &sender));
        let life = Duration::from_millis(random.below(FULL_LIFE_MILLIS_MAX));
        let is_full = wait_until_full(&receiver, life);
        let ended = end(&mut child)?;
        let heard = listener
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))?;
        if let Some(complaint) = ended {
            return finding(format!("the filler ended by itself: {complaint}"));
        }
        Ok((heard, is_full))
    }

    /// Opens what the kill left, on the full disk and with space, and compares.
    fn recover(
        &mut self,
        heard: &Heard,
        disk: &mut Disk,
        random: &mut Random,
        report: &mut FullReport,
    ) -> Outcome<()> {
        for (number, &is_acknowledged) in (self.next..).zip(&heard.verdicts) {
            if is_acknowledged {
                let (index, version) = operation(self.seed, number);
                self.state[index] = version;
            }
        }
        self.next += heard.verdicts.len() as u64;
        let options = settings::options(random.next_u64());
        match unless_full("opening after the kill", options.open(disk.db_dir()))? {
            Some(db) => {
                report.reopened_while_full += 1;
                self.settle(&db)?;
            }
            None => report.refused_opens += 1,
        }
        disk.relieve()?;
        let options = settings::options(random.next_u64());
        let Some(db) = unless_full("opening with space", options.open(disk.db_dir()))? else {
            return finding("there is space again, and yet an open after a kill says NoSpace");
        };
        self.settle(&db)?;
        if random.one_in(2) && unless_full("compacting", db.compact_range(..))?.is_some() {
            check_all(Source::Db(&db), self.world, &self.state)?;
        }
        if random.one_in(2) {
            unless_full("closing", db.close())?;
        }
        Ok(())
    }

    /// Compares: the operation after those that were heard of may be there or not.
    fn settle(&mut self, db: &Db) -> Outcome<()> {
        let first = match check_all(Source::Db(db), self.world, &self.state) {
            Err(Failure::Finding(text)) => text,
            other => return other,
        };
        let (index, version) = operation(self.seed, self.next);
        let before = std::mem::replace(&mut self.state[index], version);
        match check_all(Source::Db(db), self.world, &self.state) {
            Ok(()) => {
                self.next += 1;
                Ok(())
            }
            Err(Failure::Finding(second)) => {
                self.state[index] = before;
                finding(format!(
                    "operations up to {} were answered.\n  Not what they make: {first}\n  Nor \
                     with one more: {second}",
                    self.next - 1
                ))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Waits until the filler says that the disk is full, and a little more.
fn wait_until_full(full: &Receiver<()>, life: Duration) -> bool {
    if full.recv_timeout(PATIENCE).is_err() {
        return false;
    }
    super::pause(life);
    true
}

/// Kills the child. Returns what it complained of, if it had ended by itself.
fn end(child: &mut Child) -> Outcome<Option<String>> {
    use std::os::unix::process::ExitStatusExt;

    const SIGKILL: i32 = 9;
    // A child that has ended by itself cannot be killed, and is told apart below.
    let _ = child.kill();
    let status = child.wait().map_err(system).or_setup()?;
    if status.signal() == Some(SIGKILL) {
        return Ok(None);
    }
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What cannot be read was not said.
        let _ = stderr.read_to_string(&mut complaint);
    }
    Ok(Some(format!("{status}: {}", complaint.trim())))
}

/// Reads what a filler says until it is dead. A last line without an end was cut by the kill.
fn listen(mut reader: impl BufRead, first: u64, full: &Sender<()>) -> Outcome<Heard> {
    let mut heard = Heard::default();
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return Ok(heard),
            Ok(_) => {}
        }
        let Some(whole) = line.strip_suffix('\n') else {
            return Ok(heard);
        };
        if whole == "full" {
            // Nobody may be waiting any more.
            let _ = full.send(());
            continue;
        }
        let expected = first + heard.verdicts.len() as u64;
        match whole.split_once(' ') {
            Some(("ack", number)) if number.parse() == Ok(expected) => heard.verdicts.push(true),
            Some(("rej", number)) if number.parse() == Ok(expected) => heard.verdicts.push(false),
            _ => {
                return finding(format!(
                    "the filler said \"{whole}\" in place of {expected}"
                ));
            }
        }
    }
}

fn system(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "a child process failed").with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_must_come_in_order() {
        let (full, _kept) = channel();
        let heard = listen(&b"ack 5\nrej 6\nfull\nack 7\nac"[..], 5, &full).expect("in order");
        assert_eq!(heard.verdicts, [true, false, true]);
        assert!(listen(&b"ack 5\nack 7\n"[..], 5, &full).is_err());
        assert!(listen(&b"hello\n"[..], 5, &full).is_err());
    }
}
