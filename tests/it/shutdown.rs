//! A disk that goes away under the writer: a small ext4 in a file, mounted as a loop device and
//! shut down while a child process commits to it.
//!
//! Needs root, loop devices, mkfs.ext4 and perl (for one ioctl); without them the test says so and
//! passes. Nothing is left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use siltstone::{Db, Durability, LogAppend, Options, WriteOptions};

/// Says to the child what it is and where its database lies.
const CHILD: &str = "SILTSTONE_SHUTDOWN_CHILD";
/// So many commits are acknowledged as durable before the disk goes away.
const SYNC_COUNT: u64 = 5;
/// And one of so many is: most of the time is spent in stores, where a lost disk is a signal.
const COMMITS_PER_SYNC: u64 = 20_000;
/// Larger than the child ever comes to.
const COMMIT_COUNT_MAX: u64 = 1_000_000_000;
/// Behind the last commit that counts keys come again, so that a disk that takes its time to go
/// away is not filled.
const KEY_COUNT: u64 = 2 * SYNC_COUNT * COMMITS_PER_SYNC;
/// SIGBUS on Linux, on every processor but a few old ones.
const SIGBUS: i32 = 7;

fn options(append: LogAppend) -> Options {
    Options::new()
        .log_append(append)
        .log_segment_bytes(32 << 20)
        .sync_interval(None)
}

/// A file system of its own, unmounted and removed at the end.
struct Loop {
    dir: tempfile::TempDir,
}

impl Loop {
    /// Makes and mounts it, or says why that is not possible here.
    fn make() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let made = Self { dir };
        let (image, mount) = (made.dir.path().join("image"), made.mount());
        // A file with holes: far more than the child fills before the disk goes away, and next to
        // nothing of it is taken.
        run("truncate", &["-s", "2G"], &[&image])?;
        run("mkfs.ext4", &["-q", "-F"], &[&image])?;
        run("mkdir", &[], &[&mount])?;
        made.attach()?;
        // Once for a trial: what cannot be done here is no failure of the database.
        made.shut_down()?;
        made.detach()?;
        made.attach()?;
        Ok(made)
    }

    fn attach(&self) -> Result<(), String> {
        let image = self.dir.path().join("image");
        run("mount", &["-o", "loop"], &[&image, &self.mount()])
    }

    fn detach(&self) -> Result<(), String> {
        run("umount", &[], &[&self.mount()])
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// As if the disk were pulled out: nothing more reaches it, not even the log of ext4.
    fn shut_down(&self) -> Result<(), String> {
        let script = "open(F, '<', $ARGV[0]) or die $!; my $how = pack('L', 2); \
                      ioctl(F, 0x8004587d, $how) or die $!;";
        run("perl", &["-e", script], &[&self.mount()])
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Not mounted, or in use by a child that failed: then the message tells.
        if let Err(message) = self.detach() {
            eprintln!("{message}");
        }
    }
}

fn run(program: &str, args: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(args).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {} {said}", output.status))
}

/// The child: commits until it is told that it cannot. Does nothing in an ordinary run.
#[test]
fn the_child_of_the_shutdown_test() {
    let Ok(asked) = std::env::var(CHILD) else {
        return;
    };
    let (form, dir) = asked.split_once(' ').expect("a form and a directory");
    let append = match form {
        "mapped" => LogAppend::Mapped,
        _ => LogAppend::Positioned,
    };
    let db = options(append).open(dir).expect("a new database");
    for index in 0..COMMIT_COUNT_MAX {
        let is_durable = index % COMMITS_PER_SYNC == 0;
        let durability = if is_durable {
            Durability::Disk
        } else {
            Durability::Os
        };
        let options = WriteOptions::new().durability(durability);
        match db.put_with((index % KEY_COUNT).to_be_bytes(), [7; 100], &options) {
            Ok(_) if is_durable => eprintln!("acknowledged {index}"),
            Ok(_) => {}
            Err(error) => {
                eprintln!("refused {error}");
                return;
            }
        }
    }
}

/// Runs the child and takes the disk away; returns how many commits it was promised before, what it
/// said at the end, and the signal that ended it, if one did. A sync beside the call that takes the
/// disk away may succeed although its data is lost: that is no promise to hold anybody to.
fn run_child(place: &Loop, form: &str) -> (u64, Option<String>, Option<i32>) {
    let program = std::env::current_exe().expect("this test");
    let asked = format!("{form} {}", place.mount().join("db").display());
    let mut child = Command::new(program)
        .args([
            "--exact",
            "shutdown::the_child_of_the_shutdown_test",
            "--nocapture",
        ])
        .env(CHILD, asked)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let said = BufReader::new(child.stderr.take().expect("it is piped"));
    let (mut acknowledged, mut refused) = (0, None);
    for line in said.lines() {
        let line = line.expect("text");
        if let Some(index) = line.strip_prefix("acknowledged ") {
            let index = index.parse::<u64>().expect("a number");
            if index > SYNC_COUNT * COMMITS_PER_SYNC {
                continue;
            }
            acknowledged = index + 1;
            if index == SYNC_COUNT * COMMITS_PER_SYNC {
                place.shut_down().expect("it can be shut down");
            }
        } else if let Some(why) = line.strip_prefix("refused ") {
            refused = Some(why.to_owned());
        }
    }
    let status = child.wait().expect("it ended");
    (acknowledged, refused, status.signal())
}

fn check_promises(dir: &Path, append: LogAppend, acknowledged: u64) {
    let db: Db = options(append).open(dir).expect("it opens again");
    for index in 0..acknowledged {
        let found = db.get(index.to_be_bytes()).expect("a get");
        assert!(found.is_some(), "commit {index} of {acknowledged} is lost");
    }
    db.put("goes on", "yes").expect("a put");
    db.close().expect("closed");
}

#[test]
fn no_commit_on_the_disk_is_lost_when_the_disk_goes_away_under_the_writer() {
    for (form, append) in [
        ("mapped", LogAppend::Mapped),
        ("positioned", LogAppend::Positioned),
    ] {
        let place = match Loop::make() {
            Ok(place) => place,
            Err(why) => {
                eprintln!("skipped, no file system can be made and mounted here: {why}");
                return;
            }
        };
        let (acknowledged, refused, signal) = run_child(&place, form);
        eprintln!("{form}: {acknowledged} acknowledged, {refused:?}, signal {signal:?}");
        assert!(acknowledged > SYNC_COUNT * COMMITS_PER_SYNC, "{refused:?}");
        match signal {
            // The documented end of a store into a mapping.
            Some(signal) => assert_eq!((form, signal), ("mapped", SIGBUS)),
            None => assert!(refused.is_some(), "neither an error nor a signal"),
        }
        place.detach().expect("the child is gone");
        place.attach().expect("it can be mounted again");
        check_promises(&place.mount().join("db"), append, acknowledged);
    }
}
