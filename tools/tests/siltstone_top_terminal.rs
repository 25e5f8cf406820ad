//! `siltstone top` on a terminal: what it shows, and that the terminal is as it was afterwards.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use siltstone::{Db, Options, StatsFile};

#[path = "support/fixture.rs"]
mod fixture;

use fixture::Fixture;

const COLUMNS: usize = 80;
const ROWS: usize = 24;
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// A terminal of 80 by 24, and the program that runs on it.
struct Session {
    fixture: Fixture,
    db: Option<Db>,
    /// The end of the terminal that people sit at.
    master: File,
    before: Termios,
    child: Child,
    /// Until the session is over.
    watchdog: Watchdog,
    /// Everything that was sent to the terminal.
    sent: String,
}

/// Ends the program if it hangs, so that a test fails instead of waiting for ever: whoever reads
/// what it sends then comes to an end, and whoever waits for it finds that it was killed.
///
/// It measures nothing: a program that works ends long before, however loaded the machine is.
struct Watchdog {
    /// Hangs up when the session is over.
    _alive: Sender<()>,
}

impl Watchdog {
    const PATIENCE: Duration = Duration::from_secs(300);

    fn over(child: &Child) -> Self {
        // Not its number, which another process may have by then.
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("it runs");
        let (alive, over) = channel();
        std::thread::spawn(move || {
            if over.recv_timeout(Self::PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the program hangs; it is killed");
                // It may have ended just now.
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        });
        Self { _alive: alive }
    }
}

/// What `sent` leaves on a terminal that knows how to move its cursor.
fn screen_of(sent: &str) -> String {
    let mut cells = vec![[' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut chars = sent.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = c;
            }
            column += 1;
            continue;
        }
        if chars.next() != Some('[') {
            continue;
        }
        let mut parameters = String::new();
        let last = chars.find(|c| {
            parameters.push(*c);
            c.is_ascii_alphabetic()
        });
        if last == Some('H') {
            let numbers = parameters.trim_end_matches('H').split(';');
            let mut numbers = numbers.map(|number| number.parse::<usize>().unwrap_or(1) - 1);
            (row, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        }
    }
    let rows = cells.iter().map(|row| row.iter().collect::<String>());
    rows.collect::<Vec<_>>().join("\n")
}

impl Session {
    fn begin(arguments: &str, interval: Option<Duration>) -> Self {
        let fixture = Fixture::new();
        let options = Options::new().stats_file_interval(interval);
        let db = options.open(fixture.db()).expect("a new database");
        while interval.is_some() && StatsFile::read(fixture.db()).is_err() {
            std::thread::yield_now();
        }
        // Programs that other tests start must not keep it open.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let other_end = rustix::fs::open(&*name, flags, Mode::empty()).expect("its other end");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&other_end, size).expect("a size");
        let before = tcgetattr(&other_end).expect("its settings");
        let end = || Stdio::from(other_end.as_fd().try_clone_to_owned().expect("one more"));
        let child = fixture
            .command(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the binary was built");
        let watchdog = Watchdog::over(&child);
        Self {
            fixture,
            db: Some(db),
            watchdog,
            // From here on only the program has the other end: its end is the end of what it sends.
            master: File::from(master),
            before,
            child,
            sent: String::new(),
        }
    }

    /// Reads until `is_there`, which it is sooner or later.
    fn wait_until(&mut self, what: &str, is_there: impl Fn(&str) -> bool) {
        let mut bytes = [0; 4096];
        while !is_there(&self.sent) {
            let read = self.master.read(&mut bytes);
            let len = read.unwrap_or_else(|error| panic!("{what}: {error}: {}", self.sent));
            self.sent += &String::from_utf8_lossy(&bytes[..len]);
        }
    }

    /// Waits for `text` on the screen.
    fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |sent| screen_of(sent).contains(text));
    }

    fn wait_for_control(&mut self, control: &str) {
        self.wait_until(control, |sent| sent.contains(control));
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("it runs");
    }

    /// Waits for the end, and looks whether everything is as it was.
    fn end(mut self) -> ExitStatus {
        self.wait_for_control(LEAVE);
        self.wait_for_control(SHOW_CURSOR);
        let status = self.child.wait().expect("it ends");
        let after = tcgetattr(&self.master).expect("its settings");
        let modes = |t: &Termios| {
            (
                t.local_modes,
                t.input_modes,
                t.output_modes,
                t.control_modes,
            )
        };
        assert_eq!(modes(&after), modes(&self.before));
        if let Some(db) = self.db.take() {
            db.close().expect("a clean close");
        }
        status
    }
}

#[test]
fn keys_work_and_leaving_restores_the_terminal() {
    for key in ["q", "\u{1b}", "\u{3}"] {
        let mut session = Session::begin("top DB", Some(Duration::from_secs(3600)));
        session.wait_for_control(ENTER);
        session.wait_for("health: good");
        let raw = tcgetattr(&session.master).expect("its settings");
        assert!(
            raw.local_modes != session.before.local_modes,
            "it is taken over"
        );
        session.press("h");
        session.wait_for("any key closes this help");
        session.press("x");
        session.wait_for("health: good");
        session.press("p");
        session.wait_for("PAUSED");
        session.press(key);
        let status = session.end();
        assert_eq!(status.code(), Some(0), "{key:?}");
    }
}

#[test]
fn a_signal_restores_the_terminal() {
    let mut session = Session::begin("top DB", Some(Duration::from_secs(3600)));
    session.wait_for("health: good");
    kill_process(Pid::from_child(&session.child), Signal::TERM).expect("it runs");
    assert_eq!(session.end().code(), Some(0));
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let mut session = Session::begin("top DB", Some(Duration::from_secs(3600)));
    session.wait_for("health: good");
    let Session {
        fixture,
        db,
        master,
        mut child,
        watchdog: _watchdog,
        ..
    } = session;
    drop(master);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    drop((db, fixture));
}

/// It waits for one that is to come.
#[test]
fn a_database_that_says_nothing_is_watched_all_the_same() {
    let mut session = Session::begin("top DB --interval 0.05", None);
    session.wait_for("Options::stats_file");
    let db = session.db.take().expect("it is open");
    db.close().expect("a clean close");
    let options = Options::new().stats_file_interval(Some(Duration::from_secs(3600)));
    session.db = Some(options.open(session.fixture.db()).expect("a database"));
    session.wait_for("health: good");
    session.press("q");
    assert_eq!(session.end().code(), Some(0));
}

#[test]
fn on_a_terminal_a_report_is_still_one() {
    let mut session = Session::begin("top DB --once", Some(Duration::from_secs(3600)));
    session.wait_until("a report", |sent| sent.contains("levels of default"));
    assert!(!session.sent.contains(ENTER), "{}", session.sent);
    assert_eq!(session.child.wait().expect("it ends").code(), Some(0));
}
